/**
 * Helpers for questions to everybody in a subnet (netbios-ns, snmp): the answers come from addresses that nobody asked, and are RELATED
 * for the kernel's connection tracking and for hutter's.
 */
import t, { type Test } from 'tap';
import { ENGINES, type EngineName } from './engine.js';
import { udpPacket } from './frame.js';
import { KNOCK, ORLOCK, ROUTER_INSIDE, topology, until } from './netns.js';

const ALL = '192.168.73.255';
const ASK = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("", int(sys.argv[1])))
s.sendto(b"who is there?", (sys.argv[2], int(sys.argv[3])))`;
const STATES = ['NEW', 'ESTABLISHED', 'RELATED'];

async function counted(t: Test, engine: EngineName): Promise<string[]> {
  const { fw, orlock, router } = await topology(t, engine);
  router.ns.ip(`address del ${ROUTER_INSIDE}/24 dev if0`, `address add ${ROUTER_INSIDE}/24 brd ${ALL} dev if0`);
  const rules = [
    '*raw',
    '-A OUTPUT -p udp --dport 137 -j CT --helper netbios-ns',
    '-A OUTPUT -p udp --dport 161 -j CT --helper snmp',
    'COMMIT',
    '*filter',
    ...[137, 138, 161].flatMap((port) =>
      STATES.map((state) => `-A INPUT -i if0 -p udp --sport ${port} -m conntrack --ctstate ${state}`),
    ),
    '-A INPUT -i if0 -p udp --dport 5000:5002 -j DROP',
    '-A OUTPUT -o if0 -p udp -m conntrack --ctstate NEW',
    'COMMIT\n',
  ];
  await fw.ok('iptables-restore --noflush', { input: rules.join('\n') });
  let answers = 0;
  const ask = async (sport: number, dst: string, port: number, replies: [string, number][]): Promise<void> => {
    const asked = await router.ns.run('python3', ['-c', ASK, String(sport), dst, String(port)]);
    t.equal(asked.code, 0, asked.stderr);
    for (const [src, from] of replies) {
      const packet = udpPacket({ src, dst: ROUTER_INSIDE, sport: from, dport: sport });
      await orlock.sendRaw({ packet, to: ROUTER_INSIDE });
      answers++;
    }
    await until('the answers', async () => (await fw.counter('INPUT', '-j DROP')).packets === answers);
  };
  // Each by the first of its connection, again, from a port that wasn't asked, and from elsewhere.
  await ask(5000, ALL, 137, [
    [ORLOCK, 137],
    [ORLOCK, 137],
    ['192.168.73.9', 137],
    [ORLOCK, 138],
    [KNOCK, 137],
  ]);
  await ask(5001, ALL, 161, [
    [ORLOCK, 161],
    ['192.168.73.9', 161],
  ]);
  // A question to one host is answered by that one.
  await ask(5002, '192.168.73.77', 137, [[ORLOCK, 137]]);
  return (await fw.counters())
    .filter(({ rule }) => rule.includes('ctstate'))
    .map(({ rule, packets }) => `${packets} ${rule}`);
}

t.test('answers to a question to all', async (t) => {
  const seen = new Map<EngineName, string[]>();
  // Where hutter owns its interfaces, addresses have no broadcast address of their own.
  for (const engine of ENGINES.filter((name) => name !== 'hutter-tun'))
    await t.test(engine, async (t) => void seen.set(engine, await counted(t, engine)));
  const judge = seen.get('kernel');
  if (judge === undefined) return;
  t.ok(
    judge.some((line) => /^[1-9].*sport 137 .*RELATED/.test(line)),
    'answers are related',
  );
  for (const [engine, lines] of seen) t.same(lines, judge, engine);
});
