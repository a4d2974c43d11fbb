/** set and SET: what is asked of the kernel's sets, and when nothing is; the kernel's own answers are in test/net/set.test.ts. */
import t from 'tap';
import { NFGENMSG, NLMSG_HEADER, readAttributes } from '../../src/dataplane/io/netlink.js';
import { matches, packet, World } from './lab.js';

const DATA = 7;
const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex');

/** A world that writes down the elements asked for, by IPSET_ATTR_*. */
function asked(type: string, answer = 0): { world: World; elements: Record<string, string>[]; commands: number[] } {
  const world = new World();
  const elements: Record<string, string>[] = [];
  const commands: number[] = [];
  world.setTypes.set('s', { name: type, family: 2 });
  world.sets = (message) => {
    const data = readAttributes(message, NLMSG_HEADER + NFGENMSG, message.length).get(DATA)!;
    elements.push(Object.fromEntries([...readAttributes(data, 0, data.length)].map(([at, value]) => [at, hex(value)])));
    commands.push(message[4]!);
    return answer;
  };
  return { world, elements, commands };
}

const SRC = '08000100c0a84904';
const DST = '08000100803d46c8';

t.test('each type of set is asked by its own fields', (t) => {
  for (const [type, sides, fields] of [
    ['hash:ip', 'src', { 1: SRC }],
    ['hash:ip', 'dst,src', { 1: DST }],
    ['hash:net', 'src --return-nomatch', { 1: SRC, 8: '00000004' }],
    ['hash:ip,port', 'src,dst', { 1: SRC, 4: '0050', 7: '06' }],
    ['hash:ip,port,ip', 'dst,src,src', { 1: DST, 4: '0400', 7: '06', 20: SRC }],
    ['hash:net,net', 'src,dst', { 1: SRC, 20: DST }],
    ['hash:net,iface', 'src,src', { 1: SRC, 23: hex(Buffer.from('if0'.padEnd(16, '\0'))) }],
    ['hash:ip,mark', 'src,src', { 1: SRC, 10: '00000017' }],
    ['bitmap:port', 'dst', { 4: '0050' }],
  ] as const) {
    const { world, elements } = asked(type);
    const rule = `-m set --match-set s ${sides}`;
    t.equal(matches(rule, packet({ mark: 0x17 }), world), true, rule);
    // The tags of what is nested are the machine's own words.
    const plain = elements.map((each) =>
      Object.fromEntries(Object.entries(each).map(([at, value]) => [at, value.replace(/^08000140/, '08000100')])),
    );
    t.same(plain, [fields], `${type} ${sides}`);
  }
  t.end();
});

t.test('a packet without the field is in no set, and nobody is asked', (t) => {
  for (const [type, sides, p] of [
    ['hash:ip,port', 'src,dst', packet({ fragOffset: 1 })],
    ['hash:net,iface', 'src,dst', packet()],
    ['bitmap:port', 'dst', packet({ protocol: 132, transport: [0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0] })],
    ['bitmap:ip,mac', 'src,src', packet()],
    ['hash:ip,port', 'src', packet()],
  ] as const) {
    const { world, elements } = asked(type);
    t.equal(matches(`-m set --match-set s ${sides}`, p, world), false);
    t.equal(matches(`-m set ! --match-set s ${sides}`, p, world), true);
    t.same(elements, [], `${type} ${sides}`);
  }
  t.end();
});

t.test('an error is no match; negation turns both', (t) => {
  const IN_IT = '-m set --match-set s src';
  const NOT = '-m set ! --match-set s src';
  t.same(
    [matches(IN_IT, packet(), asked('hash:ip').world), matches(NOT, packet(), asked('hash:ip').world)],
    [true, false],
  );
  // What is said of counters, which stay as they are, doesn't change the verdict; --set is the old name.
  for (const rule of [
    '-m set --match-set s src ! --update-counters',
    '-m set --match-set s src ! --update-subcounters',
    '-m set --set s src',
  ])
    t.equal(matches(rule, packet(), asked('hash:ip').world), true, rule);
  const other = (): World => asked('hash:ip', -4103).world;
  t.same([matches(IN_IT, packet(), other()), matches(NOT, packet(), other())], [false, true]);
  t.end();
});

t.test('SET: with --exist an element that is there is set anew', (t) => {
  // NLM_F_EXCL
  for (const [flag, exclusive] of [
    ['', 2],
    [' --exist', 0],
  ] as const) {
    const { world } = asked('hash:ip');
    let flags = 0;
    world.sets = (message) => (flags = message[7]!) * 0;
    world.load(`*filter\n:INPUT DROP\n-A INPUT -j SET --add-set s src${flag}`);
    world.run(packet());
    t.equal(flags & 2, exclusive);
  }
  t.end();
});

t.test('SET: adds, then deletes, and the walk goes on', (t) => {
  const { world, elements, commands } = asked('hash:ip,port');
  world.load(
    '*filter\n:INPUT DROP\n-A INPUT -j SET --add-set s src,dst --timeout 300 --del-set s dst,src\n-A INPUT -j ACCEPT',
  );
  t.equal(world.run(packet()), 1);
  t.same(commands, [9, 10]);
  t.equal(elements[0]!['6'], '0000012c');
  t.same(
    elements.map((each) => each['4']),
    ['0050', '0400'],
  );
  t.end();
});

t.test('rules about sets that cannot be asked are refused', (t) => {
  for (const [type, rule, reason] of [
    ['list:set', '-m set --match-set s src -j ACCEPT', /match set: s is a list of sets/],
    ['hash:new', '-m set --match-set s src -j ACCEPT', /match set: sets of the type hash:new are not known/],
    ['hash:ip,mac', '-m set --match-set s src,dst -j ACCEPT', /match set: s holds hardware addresses/],
    ['hash:net', '-j SET --add-set s src', /target SET: s holds networks/],
    ['hash:ip', '-m set --match-set other src -j ACCEPT', /match set: Set other doesn't exist/],
    ...['--packets-eq 5', '--packets-lt 5', '--packets-gt 5', '--bytes-eq 5', '--bytes-lt 5', '--bytes-gt 5'].map(
      (counter) =>
        ['hash:ip', `-m set --match-set s src ${counter} -j ACCEPT`, /match set: an element's counters/] as const,
    ),
    ...['--map-mark', '--map-prio', '--map-queue'].map(
      (value) => ['hash:ip', `-j SET --map-set s src ${value}`, /target SET: what a set maps an element to/] as const,
    ),
  ] as const) {
    const { world } = asked(type);
    t.throws(() => world.load(`*mangle\n:OUTPUT ACCEPT\n-A OUTPUT ${rule}`), reason);
  }
  t.end();
});
