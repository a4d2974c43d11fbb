/**
 * Realms of routes: what `-m realm` counts at each hook where a packet has a route, with the kernel's netfilter and with hutter.
 * They are the kernel's routes' for both; routes of hutter's own have none.
 */
import t, { type Test } from 'tap';
import { ENGINES, type EngineName } from './engine.js';
import { KNOCK, ROUTER_OUTSIDE, topology } from './netns.js';

const REALMS = ['7', '0', '3', '0x70000/0xffff0000', '0x30007', '0/0xffff'];
const HOOKS = ['INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'];
const PINGS = ['-n', '-c', '2', '-i', '0.2', '-W', '5'];

async function counted(t: Test, engine: EngineName): Promise<string[]> {
  const { fw, orlock, knock, router } = await topology(t, engine);
  router.ns.ip('route change 128.61.70.0/24 dev if1 src 128.61.70.47 realm 7');
  router.ns.ip('route change 192.168.73.0/24 dev if0 src 192.168.73.1 realm 3');
  const rules = HOOKS.flatMap((hook) =>
    REALMS.flatMap((realm) => [
      `-A ${hook} -p icmp -m realm --realm ${realm}`,
      `-A ${hook} -p icmp -m realm ! --realm ${realm}`,
    ]),
  );
  await fw.ok('iptables-restore --noflush', { input: ['*mangle', ...rules, 'COMMIT\n'].join('\n') });
  for (const [from, to] of [
    [orlock, KNOCK],
    [knock, ROUTER_OUTSIDE],
    [router, KNOCK],
  ] as const)
    t.equal((await from.ns.run('ping', [...PINGS, to])).code, 0);
  return (await fw.counters())
    .filter(({ rule }) => rule.includes('realm'))
    .map(({ rule, packets }) => `${packets} ${rule}`);
}

t.test('the same routes, rules and packets', async (t) => {
  const seen = new Map<EngineName, string[]>();
  for (const engine of ENGINES.filter((name) => name !== 'hutter-tun'))
    await t.test(engine, async (t) => void seen.set(engine, await counted(t, engine)));
  const judge = seen.get('kernel');
  if (judge === undefined) return;
  for (const hook of HOOKS) {
    const counts = judge.filter((line) => line.includes(` ${hook} `)).map((line) => parseInt(line));
    t.ok(Math.max(...counts) > 0 && Math.min(...counts) === 0, `${hook}: some rules match, some don't`);
  }
  for (const [engine, lines] of seen) t.same(lines, judge, engine);
});
