/**
 * `hutter lab` as a person meets it, and that its networks go whatever way their owner goes.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { CHECKS } from '../../src/control/lab/checks.js';
import { draw, line } from '../../src/control/lab/view.js';
import { Network, finished, sweep, until } from '../../src/control/lab/netns.js';
import type { Status } from '../../src/control/status.js';
import { requireNetwork } from './netns.js';

const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const HUTTER = path.join(ROOT, 'dist/bin/hutter.mjs');

requireNetwork();

/** What exists of the networks that a process made. */
function remains(pid: number): string[] {
  return ['/run/netns', '/etc/netns', '/tmp'].flatMap((dir) =>
    (existsSync(dir) ? readdirSync(dir) : []).filter((name) => new RegExp(`^hutter-[a-z]+-${pid}-`).test(name)),
  );
}

function lab(...args: string[]): { child: ChildProcess; said: () => string } {
  const child = spawn(process.execPath, [HUTTER, 'lab', ...args], { stdio: ['ignore', 'pipe', 'pipe'], cwd: ROOT });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  return { child, said: () => said };
}

for (const device of ['nfqueue', 'tun'])
  t.test(`lab --once --device ${device}: every check is listed and passes, nothing is left`, async (t) => {
    const { child, said } = lab('--once', '--device', device);
    const { code } = await finished(child, { timeoutMs: 60_000 });
    t.equal(code, 0, said());
    for (const { title } of CHECKS) t.ok(said().includes(`  ok    ${title} `), title);
    t.match(said(), new RegExp(`${CHECKS.length} of ${CHECKS.length} checks passed`));
    t.same(remains(child.pid!), []);
  });

t.test('lab: the live view goes on until Ctrl-C, which removes everything', async (t) => {
  const { child, said } = lab();
  const end = finished(child, { timeoutMs: 90_000 });
  await until('two looks at the traffic', () => (said().match(/^PREROUTING /gm) ?? []).length >= 2, {
    timeoutMs: 60_000,
  });
  t.match(said(), /^PREROUTING \d+\/s .*FORWARD [1-9]\d*\/s .*flows [1-9]\d* .*busiest -t \w+ -[AP] /m);
  t.ok(remains(child.pid!).length >= 3, 'its namespaces are there');
  child.kill('SIGINT');
  t.equal((await end).code, 0);
  t.same(remains(child.pid!), []);
});

t.test('lab: two at a time do not meet; the router ending is said and ends it', async (t) => {
  const labs = [lab(), lab()];
  const ends = labs.map(({ child }) => finished(child, { timeoutMs: 90_000 }));
  for (const { said } of labs) {
    await until('its checks pass', () => / of \d+ checks passed/.test(said()), { timeoutMs: 60_000 });
    t.match(said(), new RegExp(`${CHECKS.length} of ${CHECKS.length} checks passed`));
  }
  const [first, second] = labs as [(typeof labs)[0], (typeof labs)[0]];
  const router = /control (\S+)/.exec(first.said())![1]!;
  const processes = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && commandOf(pid).includes(router));
  t.equal(processes.length, 1);
  process.kill(Number(processes[0]), 'SIGKILL');
  t.equal((await ends[0])!.code, 1);
  t.match(first.said(), /hutter: lab: hutter up ended/);
  second.child.kill('SIGTERM');
  t.equal((await ends[1])!.code, 0);
  for (const { child } of labs) t.same(remains(child.pid!), []);
});

/** The command line of a process; empty if it has gone. */
function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

const OWNER = `
  import { Network, closeAllOnSignals } from '${ROOT}/dist/src/control/lab/netns.js';
  
  closeAllOnSignals();
  const ns = new Network('hutter-test').namespace('a');
  ns.hosts({ a: '192.0.2.1' });
  const child = ns.spawn('sleep', ['1000']);
  console.log(child.pid);
  if (process.argv[1] === 'throw') setTimeout(() => { throw new Error('a defect'); }, 0);
  setInterval(() => undefined, 1000);`;

for (const way of ['SIGINT', 'SIGTERM', 'throw', 'SIGKILL'] as const) {
  t.test(`a network's owner goes by ${way}`, async (t) => {
    const owner = spawn(process.execPath, ['--input-type=module', '-e', OWNER, way], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const gone = new Promise((resolve) => owner.once('exit', resolve));
    const child = Number(await new Promise((resolve) => owner.stdout.once('data', resolve)));
    if (way !== 'throw') {
      t.equal(remains(owner.pid!).length, 3, 'a namespace, its files in /etc and a directory are there');
      owner.kill(way);
    }
    await gone;
    await until('its child has gone, too', () => !existsSync(`/proc/${child}`));
    if (way === 'SIGKILL') sweep(); // what even it left
    t.same(remains(owner.pid!), []);
  });
}

t.test('names that the sweep would not know are refused', (t) => {
  t.throws(() => new Network('lab'), /would escape the sweep/);
  t.throws(() => new Network('hutter-Lab2'), /would escape the sweep/);
  t.end();
});

t.test('the view shows hooks, flows, drops and rules, within the width', (t) => {
  const status = {
    version: '1.2.3',
    uptime: 61.4,
    workers: [{ queueDropped: 2, userDropped: 1 }],
    hooks: {
      PREROUTING: { packets: 100, bytes: 9000, packetsPerSecond: 7 },
      OUTPUT: { packets: 1, bytes: 60, packetsPerSecond: 0 },
    },
    accepted: 90,
    dropped: 11,
    answers: 4,
    drops: { malformed: 3, 'no route': 0 },
    flows: { count: 5, max: 4096 },
  } as unknown as Status;
  const busiest = [{ rule: `-t filter -A FORWARD ${'x'.repeat(200)}`, packets: 70, perSecond: 6.6 }];
  const screen = draw(status, busiest, 80);
  // eslint-disable-next-line no-control-regex -- the escapes are what is taken out
  const lines = screen.replace(/\x1b\[\d*m/g, '').split('\n');
  t.ok(lines.every((text) => text.length <= 80));
  t.match(screen, /PREROUTING +7 +100 +9000\n/);
  t.match(screen, /flows 5 of 4096/);
  t.match(screen, /malformed 3 {3}queue full 3\n/);
  t.notMatch(screen, /no route/);
  t.match(screen, / 7 +70 {2}-t filter -A FORWARD x+/);
  t.equal(
    line(status, busiest),
    `PREROUTING 7/s OUTPUT 0/s  flows 5  dropped 11  malformed 3   queue full 3  busiest ${busiest[0]!.rule} 7/s`,
  );
  t.end();
});
