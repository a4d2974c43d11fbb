/**
 * TUN interfaces as things of this machine: made where the configuration says and gone at the end, one that disappears under
 * traffic, the bands of one with a rate, and what is refused.
 */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { ask } from '../../src/control/cli/client.js';
import { finished } from '../../src/control/lab/netns.js';
import type { Status } from '../../src/control/status.js';
import { Engine } from './engine.js';
import { echoPacket } from './frame.js';
import { KNOCK, network, ORLOCK, ROUTER_INSIDE, ROUTER_OUTSIDE, topology, type Topology, until } from './netns.js';

const HUTTER = path.join(import.meta.dirname, '../../bin/hutter.mjs');

const linksOf = async ({ ns }: Topology['orlock']): Promise<string[]> =>
  [...(await ns.run('ip', ['-o', 'link'])).stdout.matchAll(/^\d+: (\w+)/gm)].map((match) => match[1]!);
const status = async (fw: Engine): Promise<Status> =>
  JSON.parse(await fw.ok(`${process.execPath} ${HUTTER} status --json`)) as Status;
/** One ping of the router's address on that side; whether an answer came. */
const answered = async (host: Topology['orlock'], to: string): Promise<boolean> =>
  (await host.ns.run('ping', ['-n', '-c1', '-W1', to])).code === 0;

t.test('interfaces are made in the namespaces named, and go when hutter ends, or is killed', async (t) => {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const { fw, orlock, knock, router } = await topology(t, 'hutter-tun');
    t.same(await linksOf(orlock), ['lo', 'eth0']);
    t.same(await linksOf(router), ['lo', 'hutter'], 'the one to its own sockets is here');
    t.ok(await answered(orlock, KNOCK));
    await fw.down(signal);
    for (const host of [orlock, knock, router])
      await until('its interface is gone', async () => (await linksOf(host)).length === 1);
    t.pass(`after ${signal} nothing is left`);
  }
});

for (const how of ['deleted', 'its namespace gone'] as const)
  t.test(`an interface that disappears under traffic (${how}) is named; the others go on`, async (t) => {
    const { fw, orlock, knock } = await topology(t, 'hutter-tun', { up: { args: ['--workers', '2'] } });
    const traffic = orlock.ns.spawn('ping', ['-q', '-n', '-i', '0.002', KNOCK], { stdio: 'ignore' });
    t.ok(await answered(orlock, KNOCK));
    if (how === 'deleted') knock.ns.ip('link del eth0');
    else await finished(orlock.ns.spawn('ip', ['netns', 'delete', knock.ns.name], { stdio: ['pipe', 'pipe', 'pipe'] }));
    const words = how === 'deleted' ? 'interface if1: it has been deleted' : `its namespace ${knock.ns.name} is gone`;
    await until('hutter says so', () => fw.said.includes(words));
    t.equal(fw.said.split(words).length, 2, 'once');
    t.same(
      (await status(fw)).interfaces.map(({ name, state }) => [name, state]),
      [
        ['if0', 'up'],
        ['if1', 'gone'],
        ['hutter', 'up'],
      ],
    );
    t.ok(await answered(orlock, ROUTER_INSIDE), 'the other side is served as before');
    traffic.kill();
    // Errors are limited, and the traffic had its share.
    await until(
      'orlock is told that there is no way',
      async () => (await orlock.ns.run('ping', ['-n', '-c1', '-W1', KNOCK])).stdout.includes('Net Unreachable'),
      { timeoutMs: 10_000, everyMs: 500 },
    );
    t.equal(
      (await status(fw)).workers.reduce((sum, { restarts }) => sum + restarts, 0),
      0,
      'no worker failed',
    );
  });

t.test('an interface with a rate: minimise-delay overtakes what waits, minimise-cost comes last', async (t) => {
  const { fw, orlock, knock } = await topology(t, 'hutter-tun', { rate: 400_000, local: false });
  t.match(
    await fw.ok(`${process.execPath} ${HUTTER} status`),
    /if0 in \S+, up; received \d+, sent \d+; no rate, so its bands are idle/,
  );
  await knock.udpListen({ port: 4000 });
  // 60 echo requests of 1,000 bytes: a second and more at this rate.
  const send = (tos: number, ident: number): Promise<void> =>
    orlock.sendRaw({ packet: echoPacket({ src: ORLOCK, dst: KNOCK, tos, ident, data: Buffer.alloc(972) }), to: KNOCK });
  const seen = await knock.capture({ device: 'eth0', filter: `icmp and src host ${ORLOCK}` });
  // At once, so that the last ones find the others waiting on a busy machine, too.
  await Promise.all([...Array.from({ length: 60 }, () => send(0x02, 2)), send(0x00, 1), send(0x10, 0)]);
  const idents = await until(
    'all have arrived',
    async () => {
      const frames = await knock.captured({ id: seen });
      return frames.length === 62 && frames.map((frame) => Buffer.from(frame).readUInt16BE(14 + 24));
    },
    { timeoutMs: 10_000, everyMs: 100 },
  );
  const [delay, normal] = [idents.indexOf(0), idents.indexOf(1)];
  t.ok(delay < normal && normal < 55, `of 62 minimise-delay came as number ${delay}, normal as ${normal}`);
  const bands = (await status(fw)).interfaces.find(({ name }) => name === 'if1')!.bands;
  t.same(
    bands.map(({ sent, dropped }) => [sent, dropped]),
    [
      [1, 0],
      [1, 0],
      [60, 0],
    ],
  );
});

t.test('what is lost because hutter does not come to it is counted', async (t) => {
  const { fw, orlock, knock } = await topology(t, 'hutter-tun', { up: { args: ['--queue-length', '20'] } });
  await knock.udpListen({ port: 4000 });
  const { stdout } = await orlock.ns.run('ip', ['-o', 'link', 'show', 'eth0']);
  t.match(stdout, /qlen 20\b/);
  const before = (await status(fw)).interfaces.find(({ name }) => name === 'if0')!;
  const { pid } = await status(fw);
  process.kill(pid, 'SIGSTOP');
  try {
    for (let i = 0; i < 50; i++)
      await orlock.sendRaw({
        packet: echoPacket({ src: ORLOCK, dst: KNOCK, ident: 9, data: Buffer.alloc(8) }),
        to: KNOCK,
      });
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  const after = await until('hutter goes on', async () => {
    const now = (await status(fw)).interfaces.find(({ name }) => name === 'if0')!;
    return now.received >= before.received + 20 && now;
  });
  t.equal(after.received + after.overflows, before.received + 50, 'none is missing');
  t.ok(after.overflows >= 20, `${after.overflows} lost`);
  t.match(
    await fw.ok(`${process.execPath} ${HUTTER} status`),
    /if0 in \S+, up; .*, \d+ lost before it, its queue was full/,
  );
  t.equal((await status(fw)).interfaces.find(({ name }) => name === 'if1')!.refused, 0);
});

t.test('what cannot be made is refused by name, and nothing is left', async (t) => {
  const net = network(t);
  const here = net.namespace('here');
  const there = net.namespace('there');
  const file = path.join(net.dir, 'router.yaml');
  const up = async (config: object): Promise<string> => {
    writeFileSync(file, JSON.stringify({ device: 'tun', control: path.join(net.dir, 'control'), ...config }));
    const result = await here.run(process.execPath, [HUTTER, 'up', '--config', file]);
    t.equal(result.code, 1);
    return result.stderr;
  };
  const good = { addresses: ['10.0.0.1/24'], namespace: there.name, peer: { name: 'eth0' } };
  t.match(await up({}), /--device tun makes the interfaces of the configuration/);
  t.match(await up({ interfaces: { if0: good }, fail: 'open' }), /--fail open means nothing with --device tun/);
  t.match(
    await up({ interfaces: { if0: good, if1: { namespace: 'no-such-namespace' } } }),
    /interface if1 in namespace no-such-namespace: there is no such namespace/,
  );
  t.match(
    await up({ interfaces: { if0: { ...good, namespace: file } } }),
    /interface if0 in namespace \S+: that file is no network namespace/,
  );
  t.match(
    await up({ interfaces: { if0: good, if1: good } }),
    new RegExp(`interface if1 in namespace ${there.name}: there is an interface eth0 already`),
  );
  t.match(
    await up({ interfaces: { if0: { ...good, peer: { routes: [{ to: 'default', via: '192.0.2.1' }] } } } }),
    /interface if0 in namespace \S+: adding the route: network is unreachable/i,
  );
  t.match(
    await up({ interfaces: { if0: { ...good, peer: { cpus: '3-1' } } } }),
    /`interfaces.if0.peer.cpus` is not a list of CPUs such as 0-2,5/,
  );
  t.match(
    await up({ interfaces: { if0: { ...good, peer: { cpus: '8191' } } } }),
    /interface if0 in namespace \S+: `peer.cpus` can't be set/,
  );
  t.match(await up({ interfaces: { if0: { ...good, rate: -1 } } }), /`interfaces.if0.rate` must be at least 0/);
  t.equal((await there.run('ip', ['-o', 'link'])).stdout.trim().split('\n').length, 1, 'only lo is there');
});

t.test('CPUs that take over what is written: set for the interface, and for no other of its namespace', async (t) => {
  const { orlock } = await topology(t, 'hutter-tun', { cpus: '0', up: { args: ['--workers', '2'] } });
  // What /sys shows is the namespace's it was mounted in.
  const script = `mount -t sysfs sysfs /sys; ip link add later type veth
    cd /sys/class/net && cat /proc/sys/net/core/rps_default_mask later/queues/rx-0/rps_cpus eth0/queues/rx-[01]/rps_cpus`;
  const { stdout } = await orlock.ns.run('unshare', ['--mount', 'sh', '-c', script]);
  t.same(
    stdout
      .trim()
      .split('\n')
      .map((mask) => parseInt(mask, 16)),
    [0, 0, 1, 1],
  );
  t.ok(await answered(orlock, KNOCK));
});

t.test("the router's own sockets: reached through INPUT, leaving through OUTPUT", async (t) => {
  const { fw, orlock, knock, router } = await topology(t, 'hutter-tun');
  await fw.load('*filter\n-A INPUT -i if0 -p tcp --dport 22\n-A OUTPUT -o if1 -p tcp --dport 80\nCOMMIT\n');
  await router.listen({ port: 22, greet: 'hello' });
  await knock.listen({ port: 80 });
  t.equal((await orlock.connect({ host: ROUTER_INSIDE, port: 22, read: true })).data, 'hello');
  t.equal((await router.connect({ host: KNOCK, port: 80 })).outcome, 'connected');
  t.equal((await knock.accepted(80))[0]?.address, ROUTER_OUTSIDE, 'from its address on that side');
  t.ok((await fw.counter('--dport 22')).packets >= 3);
  t.ok((await fw.counter('--dport 80')).packets >= 3);
  t.equal((await orlock.connect({ host: ROUTER_INSIDE, port: 23 })).outcome, 'refused', 'a port without a socket');
});

t.test('a worker that fails loses no packet: the descriptors are not its own', async (t) => {
  const up = { args: ['--workers', '2'], env: { HUTTER_TEST_FAULTS: '1' } };
  const { fw, orlock } = await topology(t, 'hutter-tun', { up });
  // Whole packets: what a worker has of a datagram in fragments goes with it.
  const ping = orlock.ns.run('ping', ['-q', '-n', '-i', '0.02', '-c', '100', '-s', '1400', '-W', '5', KNOCK]);
  for (const number of ['0', '1']) {
    await until('packets cross', async () => (await status(fw)).hooks['FORWARD']!.packets > 20);
    await new Promise<void>((resolve, reject) =>
      ask(
        fw.control,
        { program: 'fail-worker', argv: [number] },
        () => undefined,
        (code) => (code === 0 ? resolve() : reject(new Error(`fail-worker ended with ${code}`))),
      ),
    );
  }
  t.match((await ping).stdout, /100 packets transmitted, 100 received/);
  t.same(
    (await status(fw)).workers.map(({ restarts, state }) => [restarts, state]),
    [
      [1, 'running'],
      [1, 'running'],
    ],
  );
});
