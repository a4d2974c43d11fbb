/**
 * Links, addresses, routes and rules as the kernel tells them, the route of one packet in every kind of answer, notices
 * of change, and packets of the router's own: marked, fragmented, refused.
 */
import t from 'tap';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { PrivateMark } from '../../src/dataplane/names.js';
import { finishChecksum } from '../../src/dataplane/io/loopback.js';
import { ChecksumMode } from '../../src/dataplane/io/batch.js';
import { loadNative } from '../../src/dataplane/io/native.js';
import { NfqueueDevice } from '../../src/dataplane/io/nfqueue.js';
import { Monitor, Notice, Rtnetlink } from '../../src/dataplane/io/rtnetlink.js';
import { Answer, Question, RouteType } from '../../src/dataplane/route/routes.js';
import { setU16, setU32 } from '../../src/dataplane/wire/bytes.js';
import { becomeRouter, run, until } from './router.js';

const { a, b } = await becomeRouter(import.meta.url);
const ip = (...args: string[]): string => run('ip', ...args);
const address = (text: string): number => text.split('.').reduce((value, byte) => (value << 8) | Number(byte), 0);
const EINVAL = 22;
const EACCES = 13;
const EHOSTUNREACH = 113;
const ENETUNREACH = 101;
const ENODEV = 19;

ip('addr', 'add', '10.7.1.9/24', 'dev', 'in0');
ip('addr', 'add', '192.0.2.1', 'peer', '192.0.2.2/32', 'dev', 'out0', 'scope', 'link');
ip('route', 'add', '10.8.0.0/16', 'via', '10.7.2.2', 'mtu', '1280', 'realm', '7');
ip('route', 'add', 'unreachable', '10.9.1.0/24');
ip('route', 'add', 'prohibit', '10.9.2.0/24');
ip('route', 'add', 'blackhole', '10.9.3.0/24');
ip('route', 'add', '10.9.4.0/24', 'via', '10.7.2.2', 'src', '10.7.1.1', 'table', '100');
ip('rule', 'add', 'fwmark', '0x5/0xff', 'lookup', '100', 'priority', '500');
ip('rule', 'add', 'ipproto', 'udp', 'dport', '53', 'lookup', '100', 'priority', '600');
ip('route', 'add', '10.10.0.0/16', 'nexthop', 'via', '10.7.2.2', 'weight', '3', 'nexthop', 'via', '10.7.1.2');

const rtnetlink = new Rtnetlink();
t.teardown(() => {
  rtnetlink.close();
});
const link = (name: string) => rtnetlink.links().find((one) => one.name === name)!;
const [in0, out0] = [link('in0').index, link('out0').index];

/** Asks for the route of a packet; missing words are 0, and the user none. */
function ask(words: Partial<Record<keyof typeof PLACES, number | string>>): Int32Array {
  const question = new Int32Array(Question.WORDS);
  const answer = new Int32Array(Answer.WORDS).fill(-1);
  question[Question.UID] = -1;
  for (const [name, value] of Object.entries(words))
    question[PLACES[name as keyof typeof PLACES]] = typeof value === 'string' ? address(value) : value;
  rtnetlink.ask(question, answer);
  return answer;
}
const PLACES = {
  dst: Question.DST,
  src: Question.SRC,
  iif: Question.IIF,
  oif: Question.OIF,
  mark: Question.MARK,
  tos: Question.TOS,
  protocol: Question.PROTOCOL,
  sport: Question.SPORT,
  dport: Question.DPORT,
  uid: Question.UID,
};

t.test('links and addresses', (t) => {
  const listed = JSON.parse(ip('-j', '-d', 'addr')) as {
    ifname: string;
    ifindex: number;
    mtu: number;
    address: string;
    addr_info: { family: string; local: string; address?: string; prefixlen: number }[];
  }[];
  const links = rtnetlink.links();
  t.same(
    links.map((one) => [one.name, one.index, one.mtu, Buffer.from(one.mac).toString('hex')]),
    listed.map((one) => [one.ifname, one.ifindex, one.mtu, one.address.replaceAll(':', '')]),
  );
  t.match(link('in0'), {
    type: 1,
    kind: 'veth',
    master: 0,
    addresses: [
      { local: address('10.7.1.1'), address: address('10.7.1.1'), prefixLength: 24, scope: 0, secondary: false },
      { local: address('10.7.1.9'), prefixLength: 24, secondary: true },
    ],
  });
  t.match(
    link('out0').addresses.find((one) => one.local === address('192.0.2.1')),
    {
      address: address('192.0.2.2'),
      prefixLength: 32,
      scope: 253,
    },
  );
  t.match(link('lo'), { type: 772, kind: '', addresses: [{ local: address('127.0.0.1'), scope: 254 }] });
  t.equal(loadNative().ifName(in0), 'in0');
  t.equal(loadNative().ifName(12_345), '');
  t.end();
});

t.test('routes, rules, neighbours', async (t) => {
  const routes = rtnetlink.routes();
  t.match(
    routes.find((route) => route.dst === address('10.8.0.0')),
    {
      prefixLength: 16,
      type: RouteType.UNICAST,
      table: 254,
      mtu: 1280,
      hops: [{ oif: out0, gateway: address('10.7.2.2') }],
    },
  );
  t.match(
    routes.find((route) => route.dst === address('10.9.4.0')),
    { table: 100, prefsrc: address('10.7.1.1') },
  );
  t.same(routes.find((route) => route.dst === address('10.10.0.0'))?.hops, [
    { oif: out0, gateway: address('10.7.2.2'), weight: 3 },
    { oif: in0, gateway: address('10.7.1.2'), weight: 1 },
  ]);
  t.equal(routes.find((route) => route.dst === address('10.9.2.0'))?.type, RouteType.PROHIBIT);
  t.match(rtnetlink.rules(), [
    { priority: 0, table: 255, markMask: 0, byTransport: false },
    { priority: 500, table: 100, mark: 5, markMask: 0xff, byTransport: false },
    { priority: 600, table: 100, byTransport: true },
    { priority: 32766, table: 254 },
    { priority: 32767, table: 253 },
  ]);
  a.run('ping', '-c', '1', '-W', '1', '10.7.1.1');
  t.ok(
    await until(
      () => undefined,
      () => rtnetlink.neighbours().some((one) => one.ifindex === in0 && one.address === address('10.7.1.2')),
    ),
  );
  t.end();
});

t.test('the route of a packet that came in', (t) => {
  const from = { src: '10.7.1.2', iif: in0 };
  const cases: [string, Parameters<typeof ask>[0], Partial<Record<Answer, number>>][] = [
    ['on the link', { dst: '10.7.2.2' }, { [Answer.TYPE]: RouteType.UNICAST, [Answer.OIF]: out0, [Answer.GATEWAY]: 0 }],
    [
      'by a gateway, with an MTU and a realm',
      { dst: '10.8.1.1' },
      {
        [Answer.TYPE]: RouteType.UNICAST,
        [Answer.OIF]: out0,
        [Answer.GATEWAY]: address('10.7.2.2'),
        [Answer.MTU]: 1280,
        [Answer.REALM]: 7,
      },
    ],
    ['for the router', { dst: '10.7.2.1' }, { [Answer.TYPE]: RouteType.LOCAL }],
    ['broadcast', { dst: '10.7.1.255' }, { [Answer.TYPE]: RouteType.BROADCAST }],
    ['no route', { dst: '203.0.113.1' }, { [Answer.ERRNO]: ENETUNREACH }],
    ['unreachable', { dst: '10.9.1.1' }, { [Answer.ERRNO]: EHOSTUNREACH }],
    ['prohibit', { dst: '10.9.2.1' }, { [Answer.ERRNO]: EACCES }],
    ['blackhole', { dst: '10.9.3.1' }, { [Answer.ERRNO]: EINVAL }],
    ['by mark', { dst: '10.9.4.1', mark: 0x105 }, { [Answer.TYPE]: RouteType.UNICAST, [Answer.OIF]: out0 }],
    ['by mark, another', { dst: '10.9.4.1', mark: 6 }, { [Answer.ERRNO]: ENETUNREACH }],
    ['by port', { dst: '10.9.4.1', protocol: 17, sport: 9, dport: 53 }, { [Answer.TYPE]: RouteType.UNICAST }],
    ['by port, another', { dst: '10.9.4.1', protocol: 6, sport: 9, dport: 53 }, { [Answer.ERRNO]: ENETUNREACH }],
    ['own source', { dst: '10.7.2.2', src: '10.7.2.1' }, { [Answer.ERRNO]: EINVAL }],
    ['loopback source', { dst: '10.7.2.2', src: '127.0.0.1' }, { [Answer.ERRNO]: EINVAL }],
    ['multicast source', { dst: '10.7.2.2', src: '224.0.0.1' }, { [Answer.ERRNO]: EINVAL }],
    ['loopback destination', { dst: '127.0.0.1' }, { [Answer.ERRNO]: EINVAL }],
    ['no such interface', { dst: '10.7.2.2', iif: 9999 }, { [Answer.ERRNO]: ENODEV }],
  ];
  for (const [name, question, expected] of cases) {
    const answer = ask({ ...from, ...question });
    t.equal(answer[Answer.ERRNO], expected[Answer.ERRNO] ?? 0, `${name}: errno`);
    for (const [word, value] of Object.entries(expected)) t.equal(answer[Number(word)], value, `${name}: ${word}`);
  }
  writeFileSync('/proc/sys/net/ipv4/conf/in0/rp_filter', '1');
  t.not(ask({ ...from, src: '10.7.2.2', dst: '10.8.1.1' })[Answer.ERRNO], 0, 'the reverse path is another');
  writeFileSync('/proc/sys/net/ipv4/conf/in0/rp_filter', '0');
  t.equal(ask({ ...from, src: '10.7.2.2', dst: '10.8.1.1' })[Answer.ERRNO], 0);
  t.end();
});

t.test("the route of a packet of the router's own", (t) => {
  const answer = ask({ dst: '10.7.2.2' });
  t.equal(answer[Answer.ERRNO], 0);
  t.equal(answer[Answer.OIF], out0);
  t.equal(answer[Answer.PREFSRC], address('10.7.2.1'));
  t.equal(ask({ dst: '10.9.4.1', mark: 5 })[Answer.PREFSRC], address('10.7.1.1'));
  t.equal(ask({ dst: '203.0.113.1' })[Answer.ERRNO], ENETUNREACH);
  t.equal(ask({ dst: '203.0.113.1', oif: out0 })[Answer.OIF], out0, 'bound to a device');
  t.equal(ask({ dst: '127.0.0.1' })[Answer.TYPE], RouteType.LOCAL);
  t.end();
});

t.test('a path MTU learned as a host is not the one for forwarding', (t) => {
  // "Fragmentation needed, 1200" about an echo reply that this router sent: the kernel believes it without a socket.
  ip('route', 'add', '10.11.0.0/16', 'via', '10.7.2.2');
  const raw = new NfqueueDevice({ queue: 9 });
  const quoted = new Uint8Array(28);
  quoted.set([0x45, 0, 1400 >> 8, 1400 & 255, 0, 0, 0, 0, 64, 1, 0, 0]);
  setU32(quoted, 12, address('10.7.2.1'));
  setU32(quoted, 16, address('10.11.1.1'));
  const error = new Uint8Array(20 + 8 + 28);
  error.set([0x45, 0, 0, error.length, 0, 0, 0, 0, 64, 1, 0, 0]);
  setU32(error, 12, address('10.7.2.2'));
  setU32(error, 16, address('10.7.2.1'));
  error.set([3, 4, 0, 0, 0, 0, 1200 >> 8, 1200 & 255], 20);
  error.set(quoted, 28);
  finishChecksum(error, 0, error.length, ChecksumMode.FULL, 20, 22);
  raw.inject(error, 0, error.length, 0, 0, 0);
  raw.close();
  t.equal(ask({ dst: '10.11.1.1' })[Answer.MTU], 1200, 'as a host');
  t.equal(ask({ dst: '10.11.1.1', src: '10.7.1.2', iif: in0 })[Answer.MTU], 0, "forwarding: the link's");
  t.end();
});

t.test('notices, drained and called back', async (t) => {
  const monitor = new Monitor();
  const called: number[] = [];
  const watched = new Monitor();
  watched.watch((notices) => called.push(notices));
  t.throws(() => {
    watched.watch(() => undefined);
  }, /already/);
  const expectNotice = async (bits: number, ...args: string[]): Promise<void> => {
    monitor.drain();
    called.length = 0;
    ip(...args);
    t.equal(monitor.drain() & bits, bits, args.join(' '));
    t.ok(
      await until(
        () => undefined,
        () => (called.reduce((all, one) => all | one, 0) & bits) === bits,
      ),
    );
  };
  t.equal(monitor.drain(), 0, 'nothing happened');
  await expectNotice(Notice.LINK, 'link', 'set', 'in0', 'mtu', '1400');
  await expectNotice(Notice.LINK, 'link', 'set', 'in0', 'mtu', '1500');
  await expectNotice(Notice.ADDRESS | Notice.ROUTE, 'addr', 'add', '10.12.0.1/24', 'dev', 'in0');
  await expectNotice(Notice.ROUTE, 'route', 'add', '10.13.0.0/24', 'via', '10.7.2.2');
  await expectNotice(Notice.RULE, 'rule', 'add', 'priority', '700', 'lookup', '100');
  await expectNotice(Notice.NEXTHOP, 'nexthop', 'add', 'id', '1', 'via', '10.7.2.2', 'dev', 'out0');
  monitor.drain();
  writeFileSync('/proc/sys/net/ipv4/conf/in0/rp_filter', '2');
  t.equal(monitor.drain(), Notice.NETCONF);
  // Unread notices fill the socket's buffer until the kernel gives up.
  for (let round = 0; round < 4; round++) {
    const batch = Array.from(
      { length: 500 },
      (_, i) => `route replace 10.14.${i >> 8}.${i & 255}/32 via 10.7.2.2 mtu ${1000 + round}\n`,
    );
    execFileSync('ip', ['-batch', '-'], { input: batch.join('') });
  }
  t.equal(monitor.drain() & Notice.OVERRUN, Notice.OVERRUN);
  t.equal(monitor.drain(), 0);
  monitor.close();
  watched.close();
  called.length = 0;
  ip('route', 'del', '10.13.0.0/24');
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.same(called, [], 'closed: no more calls');
});

/** A UDP packet from port 5000 to 4000, without the header's checksum, with a-z over and over. */
function packet(length: number, src: string, dst: string, options: number[] = []): Uint8Array {
  const bytes = new Uint8Array(length);
  const header = 20 + options.length;
  bytes.set([0x40 | (header >> 2), 0, length >> 8, length, 0, 0, 0, 0, 64, 17, 0, 0]);
  bytes.set(options, 20);
  setU32(bytes, 12, address(src));
  setU32(bytes, 16, address(dst));
  setU16(bytes, header, 5000);
  setU16(bytes, header + 2, 4000);
  setU16(bytes, header + 4, length - header);
  for (let i = header + 8; i < length; i++) bytes[i] = 97 + (i % 26);
  finishChecksum(bytes, 0, length, ChecksumMode.FULL, header, header + 6);
  return bytes;
}

t.test('inject: marked, in any source, fragmented to the MTU, options copied', async (t) => {
  const device = new NfqueueDevice({ queue: 9 });
  const sink = await b.start('udp-sink', '4000');
  t.teardown(() => {
    sink.stop();
    device.close();
  });
  run('iptables-legacy', '-t', 'mangle', '-A', 'OUTPUT', '-m', 'mark', '--mark', '0x80000005');
  run('iptables-legacy', '-t', 'mangle', '-A', 'POSTROUTING', '-f');
  const counters = (): number[] =>
    [...run('iptables-legacy-save', '-c', '-t', 'mangle').matchAll(/^\[(\d+):\d+\] -A/gm)].map((m) => Number(m[1]));
  const send = (bytes: Uint8Array, mark = 5): void => {
    // Somewhere inside a larger buffer, as in a batch.
    const memory = new Uint8Array(bytes.length + 40);
    memory.set(bytes, 17);
    device.inject(memory, 17, 17 + bytes.length, mark, 0, 0);
  };
  const text = (length: number, header = 28): string =>
    Array.from({ length: length - header }, (_, i) => String.fromCharCode(97 + ((i + header) % 26))).join('');
  const received = async (count: number): Promise<string[]> => {
    await until(
      () => undefined,
      () => sink.lines.length > count,
      5000,
    );
    return sink.lines.slice(1);
  };

  send(packet(100, '10.7.2.1', '10.7.2.2'));
  send(packet(101, '203.0.113.7', '10.7.2.2'));
  t.same(await received(2), [`5000 ${text(100)}`, `5000 ${text(101)}`], 'also in the name of a stranger');
  t.same(counters(), [2, 0]);
  t.equal(PrivateMark.INJECTED | 5, 0x80000005 | 0);

  send(packet(1500, '10.7.2.1', '10.7.2.2'));
  t.same(counters(), [3, 0], 'as long as the MTU: whole');
  send(packet(1501, '10.7.2.1', '10.7.2.2'));
  t.same(counters(), [5, 1], 'a byte longer: two fragments, one of them not the first');
  send(packet(60_000, '10.7.2.1', '10.7.2.2'));
  const lines = await received(5);
  t.equal(lines[3], `5000 ${text(1501)}`);
  t.equal(lines[4], `5000 ${text(60_000)}`);

  // Record route (7) isn't copied into later fragments, security (130) is.
  const options = [7, 7, 4, 0, 0, 0, 0, 1, 130, 4, 0, 0];
  const before = counters();
  send(packet(3000, '10.7.2.1', '10.7.2.2', options));
  t.equal((await received(6))[5], `5000 ${text(3000, 40)}`);
  t.same(counters(), [before[0]! + 3, before[1]! + 2]);
  t.equal(device.stats.sendErrors, 0);

  const stubborn = packet(1600, '10.7.2.1', '10.7.2.2');
  stubborn[6] = 0x40;
  send(stubborn);
  t.match(device.stats, { sendErrors: 1, lastErrno: 90 }, "don't fragment: refused");
  send(packet(100, '10.7.2.1', '203.0.113.1'));
  t.match(device.stats, { sendErrors: 2, lastErrno: ENETUNREACH });
  const wrong = packet(100, '10.7.2.1', '10.7.2.2');
  setU16(wrong, 2, 200);
  send(wrong);
  t.match(device.stats, { sendErrors: 3, lastErrno: EINVAL }, 'the length in the header is another');
  t.end();
});
