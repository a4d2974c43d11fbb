/**
 * A router with a bridge: frames from port to port meet FORWARD and POSTROUTING though nobody routes them, with the ports by which they
 * come and leave; what is for the router, or routed in or out by the bridge, as anywhere. Only the kernel knows which of these
 * a frame is, so that packets by a bridge's port cross twice. What rules count is compared with the kernel's netfilter.
 *
 *     orlock 10.0.0.1 --- p0 [br0 10.0.0.254]
 *     knock  10.0.0.2 --- p1 [    router     ] if1 192.0.2.1 --- 192.0.2.2 world
 */
import t, { type Test } from 'tap';
import { type Host, startHost } from '../../src/control/lab/hosts.js';
import { Engine, type EngineName } from './engine.js';
import { agree, network, ON_LINKS, until } from './netns.js';

const KNOCK = '10.0.0.2';
const ROUTER = '10.0.0.254';
const WORLD = '192.0.2.2';
const PING = ['-n', '-c', '2', '-i', '0.2', '-W', '1'];

const ASKED = [
  '--physdev-in p0',
  '--physdev-in p+',
  '--physdev-out p1',
  '--physdev-is-in',
  '--physdev-is-out',
  '--physdev-is-bridged',
];
/** The tool takes no way out in OUTPUT. */
const RULES = ['PREROUTING', 'INPUT', 'FORWARD', 'POSTROUTING'].flatMap((chain) => [
  ...ASKED.flatMap((each) => [each, `! ${each}`]).map((each) => `-A ${chain} -p icmp -m physdev ${each}`),
  `-A ${chain} -p icmp -m physdev --physdev-in p1 --physdev-out p0 --physdev-is-bridged`,
]);

interface Site {
  fw: Engine;
  orlock: Host;
  world: Host;
}

async function site(t: Test, engine: EngineName): Promise<Site> {
  const net = network(t);
  const [router, orlock, knock, world] = ['router', 'orlock', 'knock', 'world'].map((role) => net.namespace(role));
  for (const [port, at, address] of [
    ['p0', orlock!, '10.0.0.1/24'],
    ['p1', knock!, `${KNOCK}/24`],
  ] as const) {
    net.link({ at: router!, dev: port, addresses: [] }, { at, dev: 'eth0', addresses: [address] });
    at.ip(`route add default via ${ROUTER}`);
  }
  router!.ip('link add br0 type bridge forward_delay 0', 'link set p0 master br0', 'link set p1 master br0');
  router!.ip('link set br0 up', `address add ${ROUTER}/24 dev br0`);
  router!.sysctl({ 'net.bridge.bridge-nf-call-iptables': 1 });
  net.link(
    { at: router!, dev: 'if1', addresses: ['192.0.2.1/24'] },
    { at: world!, dev: 'eth0', addresses: [`${WORLD}/24`] },
  );
  world!.ip('route add default via 192.0.2.1');
  const [fw, a, b] = await Promise.all([
    Engine.start(engine, net, router!, { args: ['--workers', '2'] }),
    startHost(orlock!),
    startHost(world!),
  ]);
  return { fw, orlock: a, world: b };
}

/** How many of the pings were answered. */
async function ping(from: Host, ...args: string[]): Promise<string> {
  const { stdout } = await from.ns.run('ping', [...PING, ...args]);
  return /(\d+) received/.exec(stdout)?.[1] ?? stdout;
}

agree(
  t,
  'what rules say of bridged, routed and delivered packets',
  async (t, engine) => {
    const { fw, orlock, world } = await site(t, engine);
    await fw.ok('iptables-restore --noflush', { input: ['*mangle', ...RULES, 'COMMIT\n'].join('\n') });
    const answered = [
      await ping(orlock, KNOCK),
      await ping(orlock, '-t', '1', KNOCK),
      await ping(orlock, ROUTER),
      await ping(orlock, WORLD),
      await ping(world, KNOCK),
    ];
    t.same(answered, Array(5).fill('2'));
    const counted = (await fw.counters()).filter(({ rule }) => rule.includes('physdev'));
    return counted.map(({ rule, packets, bytes }) => `${packets} ${bytes} ${rule}`);
  },
  ON_LINKS,
);

agree(
  t,
  'what FORWARD drops is not bridged, and connections are known',
  async (t, engine) => {
    const { fw, orlock } = await site(t, engine);
    const rules = [
      '*filter',
      ':FORWARD DROP',
      '-A FORWARD -m state --state ESTABLISHED -j ACCEPT',
      '-A FORWARD -p icmp -m length --length 84 -m physdev --physdev-is-bridged -j ACCEPT',
      'COMMIT\n',
    ];
    await fw.ok('iptables-restore --noflush', { input: rules.join('\n') });
    const answered = [await ping(orlock, KNOCK), await ping(orlock, '-s', '100', KNOCK), await ping(orlock, WORLD)];
    t.same(answered, ['2', '0', '0']);
    const counted = (await fw.counters()).filter(({ table, rule }) => table === 'filter' && rule.includes('FORWARD'));
    return counted.map(({ rule, packets }) => `${packets} ${rule}`);
  },
  ON_LINKS,
);

t.test('a bridge that is made while hutter runs', async (t) => {
  const net = network(t);
  const [router, orlock, knock] = ['router', 'orlock', 'knock'].map((role) => net.namespace(role));
  for (const [port, at, address] of [
    ['p0', orlock!, '10.0.0.1/24'],
    ['p1', knock!, `${KNOCK}/24`],
  ] as const)
    net.link({ at: router!, dev: port, addresses: [] }, { at, dev: 'eth0', addresses: [address] });
  router!.sysctl({ 'net.bridge.bridge-nf-call-iptables': 1 });
  const [fw, a] = await Promise.all([Engine.start('hutter', net, router!), startHost(orlock!)]);
  await fw.ok('iptables -A FORWARD -m physdev --physdev-is-bridged');
  // No address, no route: that links changed is all that workers are told.
  router!.ip('link add br0 type bridge forward_delay 0', 'link set p0 master br0', 'link set p1 master br0');
  router!.ip('link set br0 up');
  // Until hutter has heard of it, what it would have to see twice is dropped.
  await until('it bridges', async () => (await ping(a, KNOCK)) === '2');
  t.ok((await fw.counter('--physdev-is-bridged')).packets >= 4);
});
