/**
 * Commands on a chain of 10,000 rules while packets flow: each is another program, and no packet may fall between two. The
 * policy drops, so a packet that met too few rules would be lost; the trees are grown and swapped meanwhile.
 */
import t from 'tap';
import type { Status } from '../../src/control/status.js';
import { KNOCK, topology, until } from './netns.js';

const RULES = 10_000;
const PINGS = 1500;

t.test('appends, inserts and deletes beside 10,000 rules lose no packet', async (t) => {
  const { fw, orlock } = await topology(t, 'hutter');
  const rules = Array.from(
    { length: RULES },
    (_, i) => `-A FORWARD -s 10.${i >> 8}.${i & 255}.0/24 -p tcp -m tcp --dport ${i} -j DROP`,
  );
  rules.splice(RULES / 2, 0, '-A FORWARD -p icmp -j ACCEPT');
  await fw.load(`*filter\n:FORWARD DROP [0:0]\n${rules.join('\n')}\nCOMMIT\n`);
  const trees = async (): Promise<Status['trees']> =>
    (JSON.parse(await fw.command('status', ['--json'])) as Status).trees;
  await until('the tree', async () => (await trees()).growing === 0, { timeoutMs: 60_000 });
  t.same(await trees(), { grown: 1, growing: 0 });

  let flowing = true;
  const pings = orlock.ns
    .run('ping', ['-q', '-n', '-c', `${PINGS}`, '-i', '0.002', KNOCK])
    .finally(() => (flowing = false));
  await until('packets flow', async () => (await fw.counter('-p icmp')).packets > 10);
  let rounds = 0;
  for (; flowing; rounds++) {
    const rule = ['FORWARD', '-s', `11.0.0.${rounds & 255}`, '-j', 'DROP'];
    await fw.command('iptables', ['-A', ...rule]);
    await fw.command('iptables', ['-I', ...rule]);
    await fw.command('iptables', ['-D', ...rule]);
    await fw.command('iptables', ['-D', 'FORWARD', `${1 + ((rounds * 40) % (RULES / 4))}`]);
  }
  t.ok(rounds > 1, `${rounds * 4} commands`);
  const { stdout } = await pings;
  t.match(stdout, `${PINGS} packets transmitted, ${PINGS} received, 0% packet loss`);
  t.equal((await fw.counter('-p icmp')).packets, PINGS * 2, 'there and back');
  t.equal((await fw.counters()).filter(({ table }) => table === 'filter').length, RULES + 1 + 3);
});
