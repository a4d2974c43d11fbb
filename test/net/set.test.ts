/**
 * Sets of ipset(8): the same sets, rules and packets with the kernel's netfilter and with hutter, whose rules must have counted the
 * same packets and put the same elements into sets. They are the kernel's sets for both.
 */
import t, { type Test } from 'tap';
import { ENGINES, type EngineName } from './engine.js';
import { ICMP, ipPacket, tcpPacket, udpPacket } from './frame.js';
import { KNOCK, ORLOCK, topology, until } from './netns.js';

const MAC = '02:00:00:00:00:04';
const SETS = `create ips hash:ip
add ips ${ORLOCK}
create nets hash:net
add nets 192.168.0.0/16
add nets 192.168.73.0/24 nomatch
add nets 128.61.0.0/16
create ports hash:ip,port
add ports ${KNOCK},tcp:80
add ports ${KNOCK},udp:53
add ports ${KNOCK},icmp:echo-request
create three hash:ip,port,ip
add three ${ORLOCK},tcp:80,${KNOCK}
create netport hash:net,port
add netport 128.61.0.0/16,udp:53
create ifaces hash:net,iface
add ifaces 192.168.73.0/24,if0
create portnet hash:ip,port,net
add portnet ${ORLOCK},tcp:80,128.61.0.0/16
create macs bitmap:ip,mac range 192.168.73.0/24
add macs ${ORLOCK},${MAC}
add macs 192.168.73.9,02:00:00:00:00:99
create bits bitmap:port range 1-1024
add bits 80
create range bitmap:ip range 192.168.73.0/24
add range ${ORLOCK}
create six hash:ip family inet6
create seen hash:ip,port timeout 300
create gone hash:ip
add gone ${ORLOCK}
add gone 10.0.0.1
`;
const MATCHES = [
  'ips src',
  'ips dst',
  'nets src',
  'nets src --return-nomatch',
  'nets dst',
  'ports dst,dst',
  'ports src,src',
  'ports dst',
  'ports dst,dst,dst',
  'three src,dst,dst',
  'three dst,src,src',
  'netport dst,dst',
  'ifaces src,src',
  'ifaces src,dst',
  'portnet src,dst,dst',
  'portnet src,src,dst',
  'macs src,src',
  'bits dst',
  'bits src',
  'range src',
];

async function counted(t: Test, engine: EngineName): Promise<string[]> {
  const { fw, orlock, router } = await topology(t, engine);
  if (engine !== 'hutter-tun') orlock.ns.ip(`link set eth0 address ${MAC}`);
  const ipset = async (input: string, ...args: string[]): Promise<string> => {
    const done = await router.ns.run('ipset', args, { input });
    t.equal(done.code, 0, done.stderr);
    return done.stdout;
  };
  await ipset(SETS, 'restore');
  const rules = [
    '*mangle',
    '-A PREROUTING -p tcp --dport 80 -j MARK --set-mark 0x17',
    ...MATCHES.flatMap((each) => [`-A FORWARD -m set --match-set ${each}`, `-A FORWARD -m set ! --match-set ${each}`]),
    'COMMIT',
    '*filter',
    '-A FORWARD -j SET --add-set seen src,dst --del-set gone src',
    '-A FORWARD -p udp -j SET --add-set seen src,dst --timeout 1000 --exist',
    '-A FORWARD -p tcp --dport 81 -j SET --del-set seen src,dst',
    '-A FORWARD -j DROP',
    'COMMIT\n',
  ];
  await fw.ok('iptables-restore --noflush', { input: rules.join('\n') });
  const ends = { src: ORLOCK, dst: KNOCK };
  const packets = [
    tcpPacket({ ...ends, sport: 80, dport: 80, flags: 2 }),
    tcpPacket({ ...ends, sport: 1024, dport: 81, flags: 2 }),
    udpPacket({ ...ends, sport: 1024, dport: 53 }),
    udpPacket({ ...ends, sport: 1024, dport: 80 }),
    ipPacket(ends, ICMP, Uint8Array.of(8, 0, 0xf7, 0xfd, 0, 1, 0, 1)),
    tcpPacket({ ...ends, src: '192.168.73.9', sport: 1024, dport: 80, flags: 2 }),
  ];
  for (const packet of packets) await orlock.sendRaw({ packet, to: KNOCK });
  await until('all have passed', async () => (await fw.counter('FORWARD -j DROP')).packets === packets.length);
  for (const [name, reason] of [
    ['nobody', "Set nobody doesn't exist."],
    ['six', 'The protocol family of set six is IPv6, which is not applicable.'],
  ]) {
    const { code, stderr } = await fw.sh(`iptables -A FORWARD -m set --match-set ${name} src`);
    const hint = "Try `iptables -h' or 'iptables --help' for more information.";
    t.same({ code, stderr }, { code: 2, stderr: `iptables v1.8.9 (legacy): ${reason}\n\n${hint}\n` });
  }
  const counts = (await fw.counters())
    .filter(({ rule }) => rule.includes('set'))
    .map(({ rule, packets }) => `${packets} ${rule}`);
  const members = (await ipset('', 'save'))
    .split('\n')
    .filter((line) => /^add (seen|gone) /.test(line))
    // Seconds that pass meanwhile.
    .map((line) => line.replace(/timeout (\d)\d*/, 'timeout $1…'));
  return [...counts, ...members.sort()];
}

t.test('the same sets, rules and packets', async (t) => {
  const seen = new Map<EngineName, string[]>();
  for (const engine of ENGINES) await t.test(engine, async (t) => void seen.set(engine, await counted(t, engine)));
  const judge = seen.get('kernel');
  if (judge === undefined) return;
  t.ok(judge.filter((line) => /^[1-9]/.test(line)).length > MATCHES.length, 'most rules match something');
  for (const [engine, lines] of seen) {
    // A TUN has no hardware addresses.
    const told = (line: string): boolean => engine !== 'hutter-tun' || !line.includes(' macs ');
    t.same(lines.filter(told), judge.filter(told), engine);
  }
});
