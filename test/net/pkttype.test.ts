/**
 * pkttype: frames to one host, to all and to a group, their packets addressed so or otherwise, counted by the kernel's netfilter and
 * by hutter. The queue tells nothing of frames: the kernel must have marked them before, and marks must be as they were behind.
 */
import t, { type Test } from 'tap';
import { ENGINES, type EngineName } from './engine.js';
import { udpPacket } from './frame.js';
import { KNOCK, ORLOCK, ROUTER_INSIDE, topology, until } from './netns.js';

const TYPES = ['unicast', 'broadcast', 'multicast', 'otherhost'];
const PLACES = ['raw PREROUTING', 'mangle PREROUTING', 'mangle INPUT', 'mangle FORWARD'];
const SEND = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for frame in sys.stdin.read().split():
    s.send(bytes.fromhex(frame))`;
const TO_ALL = 'ffffffffffff';
const TO_GROUP = '01005e000001';

async function counted(t: Test, engine: EngineName): Promise<string[]> {
  const { fw, orlock, router } = await topology(t, engine);
  const macOf = async (at: typeof router, dev: string): Promise<string> => {
    const { stdout } = await at.ns.run('ip', ['-o', 'link', 'show', dev]);
    return /link\/ether ([0-9a-f:]+)/.exec(stdout)![1]!.replaceAll(':', '');
  };
  const [own, from] = [await macOf(router, 'if0'), await macOf(orlock, 'eth0')];
  const rules = new Map<string, string[]>();
  for (const place of PLACES) {
    const [table, chain] = place.split(' ') as [string, string];
    const lines = TYPES.flatMap((type) => [
      `-A ${chain} -i if0 -p udp --dport 9 -m mark --mark 0 -m pkttype --pkt-type ${type}`,
      `-A ${chain} -i if0 -p udp --dport 9 -m pkttype ! --pkt-type ${type}`,
    ]);
    rules.set(table, [...(rules.get(table) ?? []), ...lines]);
  }
  const input = [...rules].flatMap(([table, lines]) => [`*${table}`, ...lines, 'COMMIT']).join('\n') + '\n';
  await fw.ok('iptables-restore --noflush', { input });
  await fw.ok('iptables -t raw -A PREROUTING -i if0 -p udp --dport 9 -j ACCEPT');
  const frames = [own, TO_ALL, TO_GROUP].flatMap((to) =>
    [ROUTER_INSIDE, KNOCK, '192.168.73.255', '224.0.0.1'].map((dst) => {
      const packet = udpPacket({ src: ORLOCK, dst, sport: 1024, dport: 9 });
      return `${to}${from}0800${Buffer.from(packet).toString('hex')}`;
    }),
  );
  const sent = await orlock.ns.run('python3', ['-c', SEND], { input: frames.join('\n') });
  t.equal(sent.code, 0, sent.stderr);
  const all = async (): Promise<boolean> => (await fw.counter('raw', '-j ACCEPT')).packets === frames.length;
  await until('all frames are there', all);
  return (await fw.counters())
    .filter(({ rule }) => rule.includes('pkttype'))
    .map(({ table, rule, packets }) => `${packets} ${table} ${rule}`);
}

t.test('the same frames', async (t) => {
  const seen = new Map<EngineName, string[]>();
  // A TUN has no frames: all is for its host.
  for (const engine of ENGINES.filter((name) => name !== 'hutter-tun'))
    await t.test(engine, async (t) => void seen.set(engine, await counted(t, engine)));
  const judge = seen.get('kernel');
  if (judge === undefined) return;
  t.equal(judge.filter((line) => /^[1-9].*raw .*-m pkttype --pkt-type/.test(line)).length, 3, 'three types come by');
  for (const [engine, lines] of seen) t.same(lines, judge, engine);
});
