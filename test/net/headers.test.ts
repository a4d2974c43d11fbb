/**
 * While no rule tracks, changes or reads payloads, the kernel copies headers only. Programs that need payloads come and go
 * while large packets flow: none that waits may meet a program that needs more of it than there is.
 */
import t from 'tap';
import type { Status } from '../../src/control/status.js';
import { KNOCK, topology, until } from './netns.js';

const PINGS = 20_000;
const BYTES = 1000;

t.test('headers alone, and whole packets as soon as a rule needs them', async (t) => {
  const { fw, orlock } = await topology(t, 'hutter');
  await fw.load('*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p icmp -j ACCEPT\nCOMMIT\n');
  /** What the kernel copies of a packet (its table of queues, sixth column but one). */
  const copied = async (): Promise<number> =>
    Number((await fw.ns.run('cat', ['/proc/net/netfilter/nfnetlink_queue'])).stdout.trim().split(/\s+/)[4]);
  await until('headers only', async () => (await copied()) < BYTES);

  for (const [what, ...rule] of [
    ['changes', '-t', 'mangle', '-A', 'FORWARD', '-j', 'TOS', '--set-tos', '8'],
    ['reads', '-A', 'FORWARD', '-m', 'string', '--algo', 'bm', '--string', 'nowhere', '-j', 'DROP'],
    ['quotes', '-A', 'FORWARD', '-s', '11.0.0.1', '-j', 'REJECT'],
    ['tracks', '-A', 'FORWARD', '-m', 'state', '--state', 'INVALID', '-j', 'DROP'],
  ] as const) {
    await fw.command('iptables', rule);
    t.ok((await copied()) > 65_000, `whole packets for a rule that ${what}`);
    await fw.command(
      'iptables',
      rule.map((word) => (word === '-A' ? '-D' : word)),
    );
    t.ok((await copied()) < BYTES, 'and headers again');
  }
  await fw.command('iptables', ['-A', 'FORWARD', '-p', 'tcp', '-m', 'tcp', '--syn', '-m', 'mark', '--mark', '1']);
  t.ok((await copied()) < BYTES, 'headers do for what they hold');

  let flowing = true;
  const pings = orlock.ns
    .run('ping', ['-q', '-n', '-f', '-l', '64', '-s', `${BYTES}`, '-c', `${PINGS}`, KNOCK])
    .finally(() => (flowing = false));
  await until('packets flow', async () => (await fw.counter('-p icmp')).packets > 10);
  let rounds = 0;
  for (; flowing; rounds++)
    for (const action of ['-A', '-D'])
      await fw.command('iptables', ['-t', 'mangle', action, 'FORWARD', '-p', 'icmp', '-j', 'TOS', '--set-tos', '8']);
  t.ok(rounds > 1, `${rounds} times there and back`);
  t.match((await pings).stdout, `${PINGS} packets transmitted, ${PINGS} received, 0% packet loss`);
  const { drops } = JSON.parse(await fw.command('status', ['--json'])) as Status;
  t.equal(drops['cut'], 0);
});
