/**
 * `hutter up` and `down` as a person meets them, in namespaces of their own:
 *
 *     orlock 192.168.73.4 --- if0 192.168.73.1  hutter  128.61.70.47 if1 --- 128.61.70.200 knock
 */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { Network, type Output, until } from '../../src/control/lab/netns.js';
import { startHost } from '../../src/control/lab/hosts.js';
import type { Status } from '../../src/control/status.js';

const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const HUTTER = path.join(ROOT, 'dist/bin/hutter.mjs');
/** The loader that `tap run` puts into every child's NODE_OPTIONS is slow, and writes where nobody may. */
const NODE = ['-u', 'NODE_OPTIONS', process.execPath] as const;
const RULES = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p udp --dport 9 -j DROP
COMMIT
`;
const MASQUERADE = '*nat\n-A POSTROUTING -o if1 -j MASQUERADE\nCOMMIT\n';

if (process.getuid?.() !== 0) {
  t.fail('these tests need root');
  process.exit(1);
}

class Gateway {
  readonly network = new Network('hutter-up');
  readonly router = this.network.namespace('hutter');
  readonly orlock = this.network.namespace('orlock');
  readonly knock = this.network.namespace('knock');
  readonly control = path.join(this.network.dir, 'control.sock');
  said = '';

  constructor() {
    const { router, orlock, knock, network } = this;
    network.link(
      { at: router, dev: 'if0', addresses: ['192.168.73.1/24'] },
      { at: orlock, dev: 'eth0', addresses: ['192.168.73.4/24'] },
    );
    network.link(
      { at: router, dev: 'if1', addresses: ['128.61.70.47/24'] },
      { at: knock, dev: 'eth0', addresses: ['128.61.70.200/24'] },
    );
    orlock.ip('route add default via 192.168.73.1');
    knock.ip('route add default via 128.61.70.47');
    router.sysctl({ 'net.ipv4.ip_forward': 1, 'net.ipv4.conf.if0.rp_filter': 1 });
  }

  file(name: string, text: string): string {
    const file = path.join(this.network.dir, name);
    writeFileSync(file, text);
    return file;
  }

  hutter(...args: string[]): Promise<Output> {
    return this.router.run('env', [...NODE, HUTTER, ...args], { env: this.env() });
  }

  env(): NodeJS.ProcessEnv {
    return { ...process.env, HUTTER_CONTROL: this.control, HUTTER_TEST_FAULTS: '1' };
  }

  /** Starts `hutter up` and waits until it says that it is. */
  async up(rules: string, ...args: string[]): Promise<ChildProcess> {
    const file = this.file('rules', rules);
    const child = this.router.spawn('env', [...NODE, HUTTER, 'up', '--rules', file, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: this.env(),
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        this.said = said;
      });
    await until(
      'hutter is up',
      () => {
        if (child.exitCode !== null) throw new Error(`up ended with ${child.exitCode}: ${said}`);
        return said.includes(' is up: ');
      },
      { timeoutMs: 20_000 },
    );
    return child;
  }

  async status(): Promise<Status> {
    return JSON.parse((await this.hutter('status', '--json')).stdout) as Status;
  }

  /** Whether so many answers come within three seconds: on a busy machine one can be late. */
  async ping(count = 1): Promise<boolean> {
    const args = ['-c', String(count), '-i', '0.2', '-w', '3', '128.61.70.200'];
    return (await this.orlock.run('ping', args)).code === 0;
  }

  /** What `up` changes in the kernel, as text that can be compared. */
  async traces(): Promise<string> {
    const shell = `
      for table in raw mangle; do for flavour in nft legacy; do
        [ $flavour = legacy ] && ! grep -qs $table /proc/net/ip_tables_names ||
          iptables-$flavour-save -t $table 2>/dev/null
      done; done | grep -v '^#' | sed 's/\\[.*//'
      for conf in /proc/sys/net/ipv4/conf/*; do echo $conf $(cat $conf/rp_filter) $(cat $conf/accept_local); done`;
    const { stdout } = await this.router.run('sh', ['-c', shell]);
    // A table that was looked at is there, empty; that is no trace.
    return stdout.replace(/^\*\w+\n(:[A-Z]+ ACCEPT *\n)+COMMIT\n/gm, '');
  }
}

const end = (child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> =>
  new Promise((resolve) => {
    child.once('exit', (code) => resolve(code));
    child.kill(signal);
  });

/** As a terminal sends it: to all processes of the group. False when none is left. */
function interruptGroup(leader: ChildProcess): boolean {
  try {
    return process.kill(-leader.pid!, 'SIGINT');
  } catch {
    return false;
  }
}

/** The nice value of each of a process's threads: the nineteenth field of its stat (proc(5)), whose second can hold anything. */
const niceValues = (pid: number): number[] =>
  readdirSync(`/proc/${pid}/task`).map((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16]);
  });

/** Has a worker throw, and waits until it is started anew, which `up` says on stderr. */
async function failWorker(g: Gateway, worker: number): Promise<void> {
  const client = `
    import { run } from '${ROOT}/dist/src/control/cli/client.js';
    run('${g.control}', { program: 'fail-worker', argv: ['${worker}'] });`;
  const { code, stderr } = await g.router.run('env', [...NODE, '--input-type=module', '-e', client]);
  if (code !== 0) throw new Error(stderr);
  await until('it is started anew', async () => {
    const member = (await g.status()).workers[worker]!;
    return member.restarts === 1 && member.state === 'running';
  });
}

function gateway(t: Test): Gateway {
  const made = new Gateway();
  t.teardown(() => made.network.close());
  return made;
}

const local = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
  spawnSync('env', [...NODE, HUTTER, ...args], { encoding: 'utf8' });

t.test('wrong usage: one sentence, exit code 2', (t) => {
  for (const [args, text] of [
    [['frobnicate'], "unknown command 'frobnicate'"],
    [['up', '--workers', '0'], 'It must be a whole number from 1 to 61.'],
    [['up', '--busy-poll', '1001'], 'It must be a whole number from 0 to 1000.'],
    [['up', '--fail', 'maybe'], 'Allowed choices are open, closed.'],
    [['up', '--rules'], "option '--rules <file>' argument missing"],
    [['up', '--colour'], "unknown option '--colour'"],
    [['frobnicate'], 'Try `hutter --help`'],
  ] as const) {
    const { status, stderr } = local(...args);
    t.equal(status, 2, args.join(' '));
    t.match(stderr, /^hutter: /);
    t.ok(stderr.includes(text), stderr);
  }
  t.match(local('--version'), { status: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
  t.match(local('--help'), { status: 0, stdout: /up \[options\]/ });
  t.match(local('up'), { status: 1, stderr: /^hutter: what rules\? / });
  t.match(local('up', '--rules', '/none'), {
    status: 1,
    stderr: "hutter: can't read /none: no such file or directory\n",
  });
  t.match(local('status', '--control', '/none'), { status: 4, stderr: /^hutter isn't running: / });
  t.end();
});

t.test('help of every command, without a router', (t) => {
  t.match(local('help', 'up'), { status: 0, stdout: /^Usage: hutter up / });
  for (const command of [
    'conntrack',
    'recent',
    'route',
    'rule',
    'sysctl',
    'status',
    'bench',
    'iptables',
    'check',
    'down',
  ])
    for (const option of ['-h', '--help']) {
      const { status, stdout, stderr } = local(command, option);
      t.match({ status, stderr }, { status: 0, stderr: '' }, `${command} ${option}`);
      t.match(stdout, new RegExp(`(^|hutter |Usage: |usage: hutter )${command}\\b`, 'm'), `${command} ${option}`);
    }
  for (const command of ['route', 'rule'])
    t.match(local(command, 'help'), { status: 255, stdout: '', stderr: /^Usage: hutter / }, "as iproute2's");
  t.end();
});

t.test('check: every mistake with its place, and the canonical text', (t) => {
  const run = (input: string, ...args: string[]): { status: number | null; stdout: string; stderr: string } =>
    spawnSync('env', [...NODE, HUTTER, 'check', '-', ...args], {
      encoding: 'latin1',
      input: Buffer.from(input, 'latin1'),
    });
  const wrong = '*filter\n-A INPUT -p tcp --dport nosuch\n-A INPUT -j ACCEPT\n-A NOWHERE -j DROP\nCOMMIT\n';
  const { status, stdout, stderr } = run(wrong);
  t.equal(status, 1);
  t.equal(stdout, '');
  t.match(stderr, /^-:2:\d+: error: .*nosuch.*\n-:4:\d+: error: .*\n$/);
  t.match(JSON.parse(run(wrong, '--json').stdout), { ok: false, findings: [{ line: 2 }, { line: 4 }] });

  const right =
    '*filter\n-A INPUT -p tcp --destination-port ssh -m comment --comment "gr\xfc\xdfe" -j ACCEPT\nCOMMIT\n';
  const saved = run(right, '--save');
  t.match(saved, { status: 0, stderr: '' });
  t.match(
    saved.stdout,
    /^-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "gr\xfc\xdfe" -j ACCEPT$/m,
    'byte for byte',
  );
  t.match(run(right), { status: 0, stdout: '', stderr: '' });
  const many = Array.from({ length: 20 }, (_, i) => `-A INPUT -s 10.0.${i}.0/24 -p tcp -m tcp --dport ${i} -j DROP\n`);
  const dumped = run(`*filter\n${many.join('')}COMMIT\n`, '--dump');
  t.match(dumped, { status: 0, stderr: '' });
  t.match(dumped.stdout, /\n {2}20 \[\d+\] -s 10\.0\.19\.0\/24 {2}-p 6 {2}tcp dport 19 {2}\S+ DROP\n/, 'the rules');
  t.match(dumped.stdout, /\n {2}tree 0, from entry 0\n/);
  t.match(
    dumped.stdout,
    /\n +rule 20: src 10\.0\.19\.0 to 10\.0\.19\.255, dst 0\.0\.0\.0 to 255\.255\.255\.255, protocol 6, sport 0:65535, dport 19\n/,
  );
  const cannot = '*filter\n-A INPUT -m cgroup --cgroup 1 -j ACCEPT\nCOMMIT\n';
  t.match(run(cannot, '--dump'), { status: 1, stdout: '', stderr: /filter INPUT, rule 1: match cgroup: / });
  const unknown = '*filter\n-A FORWARD -i if7 -j ACCEPT\nCOMMIT\n';
  const config = ['--config', path.join(ROOT, 'examples/replay/router.yaml')];
  t.match(run(unknown), { status: 0, stderr: '' });
  t.match(run(unknown, ...config), {
    status: 0,
    stderr: '-:2:1: warning: no packet can meet this rule: the configuration has no interface if7\n',
  });
  t.match(run(unknown, '--config', '/none'), {
    status: 1,
    stderr: "hutter: can't read /none: no such file or directory\n",
  });
  t.match(local('check', '/none'), { status: 1, stderr: "hutter: can't read /none: no such file or directory\n" });
  t.match(local('check'), { status: 2, stderr: /^hutter: missing required argument 'file'/ });
  t.end();
});

t.test('whoever read the output has gone: what only prints ends without a word', (t) => {
  const examples = path.join(ROOT, 'examples');
  const shell = `"$@" | true; echo \${PIPESTATUS[0]}`;
  const given = ['--config', 'replay/router.yaml', '--rules', 'simple-firewall.rules'];
  for (const argv of [
    ['replay', ...given, '--in', 'if1=replay/outside.pcap', '--out', t.testdir()],
    ['explain', ...given, 'in=if0 src=192.168.73.4 dst=8.8.8.8'],
    ['check', '--dump', 'simple-firewall.rules'],
    ['check', '--json', 'simple-firewall.rules'],
    ['--help'],
  ]) {
    const { stdout, stderr } = spawnSync('bash', ['-c', shell, 'bash', 'env', ...NODE, HUTTER, ...argv], {
      encoding: 'utf8',
      cwd: examples,
    });
    t.same([stdout, stderr], ['141\n', ''], argv.join(' '));
  }
  t.end();
});

t.test('not root', (t) => {
  const args = ['--bounding-set', '-all', '--inh-caps', '-all', '--ambient-caps', '-all', 'unshare', '--help'];
  t.equal(spawnSync('setpriv', args).status, 0);
  const { status, stderr } = spawnSync(
    'setpriv',
    ['--bounding-set', '-all', 'env', ...NODE, HUTTER, 'up', '--config', '/dev/null'],
    { encoding: 'utf8' },
  );
  t.match(stderr, /^hutter: hutter up needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root, or /);
  t.equal(status, 1);
  t.end();
});

t.test('refusals change nothing and say what to do', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const up = (...args: string[]): Promise<Output> => g.hutter('up', ...args);

  const wrong = g.file(
    'wrong',
    '*filter\n:INPUT ACCEPT\n\n\n# five\n\n-A INPUT -p tcp --dport nosuch -j DROP\nCOMMIT\n',
  );
  const refused = await up('--rules', wrong);
  t.equal(refused.code, 2);
  t.match(
    refused.stderr,
    /^iptables-restore v1\.8\.9 \(legacy\): invalid port\/service `nosuch' specified\nError occurred at line: 7\n/,
  );
  t.ok(
    refused.stderr.endsWith(
      `hutter: the rules are those of ${wrong}; \`hutter check\` on it shows every mistake with its place\n`,
    ),
  );

  const empty = g.file('empty', '');
  for (const [args, text] of [
    [['--log', '/tmp'], "can't write to the log /tmp: it is a directory"],
    [['--log', '/none/log'], "can't write to the log /none/log: no such file or directory"],
    [['--control', ''], 'the control socket needs a path: give one with --control'],
    [['--control', `/${'c'.repeat(107)}`], /: 108 bytes are too many for a socket's path, 107 are the most$/],
  ] as const) {
    const { code, stderr } = await up('--rules', empty, ...args);
    t.equal(code, 1);
    t.match(stderr.trimEnd(), text instanceof RegExp ? text : `hutter: ${text}`);
  }

  const config = g.file('config.yaml', 'interfaces:\n  eth7: {}\n');
  t.match(await up('--config', config), { code: 1, stderr: /unknown interface eth7: .* has if0, if1, lo/ });

  const server = createServer();
  await new Promise<void>((resolve) => server.listen(g.control, resolve));
  const rules = g.file('rules', RULES);
  t.match(await up('--rules', rules), { code: 1, stderr: /another router listens at .*control\.sock/ });
  await new Promise((resolve) => server.close(resolve));

  const taker = g.router.spawn(
    'env',
    [
      ...NODE,
      '--input-type=module',
      '-e',
      `import { NfqueueDevice } from '${ROOT}/dist/src/dataplane/io/nfqueue.js';
       globalThis.device = new NfqueueDevice({ queue: 1 }); console.log('bound'); setInterval(() => device, 1e6);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await new Promise((resolve) => taker.stdout?.once('data', resolve));
  t.match(await up('--rules', rules, '--workers', '2'), { code: 1, stderr: /NFQUEUE 1 is taken by another program/ });
  await end(taker, 'SIGKILL');

  t.equal(await g.traces(), before);
  t.ok(await g.ping());
});

t.test('what would surprise is said, and up goes on', async (t) => {
  const g = gateway(t);
  g.router.sysctl({ 'net.ipv4.ip_forward': 0 });
  const kernel = await g.router.run('sh', [
    '-c',
    'iptables -t nat -A POSTROUTING -j MASQUERADE && ' +
      'iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT; ' +
      'ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out action block',
  ]);
  t.equal(kernel.code, 0, kernel.stderr);
  const child = await g.up(RULES, '--keep', 'lo');
  for (const said of [
    /warning: forwarding is off, .*sysctl net\.ipv4\.ip_forward=1/,
    /warning: the kernel's own nat table has rules \(.*such as `-A POSTROUTING -j MASQUERADE`\)/,
    /warning: the kernel's own rules ask for connections \(.*--ctstate ESTABLISHED/,
    /warning: IPsec policies are in place/,
  ])
    t.match(g.said, said);
  t.equal(await end(child, 'SIGTERM'), 0);
});

t.test('a signal while it starts: what was changed until then is undone', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const child = g.router.spawn('env', [...NODE, HUTTER, 'up', '--rules', g.file('rules', RULES)], {
    stdio: 'ignore',
    env: g.env(),
  });
  await until('the host is changed', async () => (await g.traces()) !== before, { timeoutMs: 20_000, everyMs: 1 });
  t.equal(await end(child, 'SIGTERM'), 0);
  t.equal(await g.traces(), before);
});

t.test('Ctrl-C again and again: it ends as after the first', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  for (const everyMs of [1, 20]) {
    const child = await g.up(RULES);
    const over = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
    for (let i = 0; i < 10 && interruptGroup(child); i++) await sleep(everyMs);
    // Node lays its handlers down in its last moment, when all is undone: a signal in it still ends the process.
    t.ok([0, null].includes(await over));
    t.equal(await g.traces(), before);
  }
});

t.test('whoever read what it says has gone: packets flow on', async (t) => {
  const g = gateway(t);
  const child = await g.up(RULES);
  child.stdout?.destroy();
  child.stderr?.destroy();
  t.match(await g.hutter('iptables', '-A', 'FORWARD', '-j', 'LOG'), { code: 0 });
  await failWorker(g, 0);
  t.ok(await g.ping(2));
  t.equal(await end(child, 'SIGTERM'), 0);
});

t.test('a second router in the same namespace is refused for that alone', async (t) => {
  const g = gateway(t);
  const child = await g.up(RULES);
  const { code, stderr } = await g.hutter('up', '--rules', g.file('empty', ''), '--control', `${g.control}.2`);
  t.equal(code, 1);
  t.match(
    stderr,
    /^hutter: a router runs in this network namespace already \(pid \d+, control socket .*control\.sock\)\n$/,
  );
  t.equal(await end(child, 'SIGTERM'), 0);
});

t.test('the clients speak as the tools do to one who is not root', async (t) => {
  const g = gateway(t);
  await g.up(RULES);
  const nobody = (command: string, ...args: string[]): Promise<Output> =>
    g.router.run(
      'setpriv',
      ['--bounding-set', '-all', '--reuid', '65534', '--clear-groups', 'env', ...NODE, command, ...args],
      {
        env: g.env(),
      },
    );
  const bin = (name: string): string => path.join(ROOT, 'dist/bin', name);
  await g.router.run('chmod', ['755', g.network.dir]);
  const locked = "Fatal: can't open lock file /run/xtables.lock: Permission denied\n";
  t.same(await nobody(bin('hutter-iptables.cjs'), '-S'), { code: 4, stdout: '', stderr: locked });
  t.same(await nobody(bin('hutter-iptables-restore.cjs')), { code: 4, stdout: '', stderr: locked });
  t.match(await nobody(bin('hutter-iptables-save.cjs'), '-t', 'nat'), { code: 1, stderr: /\(you must be root\)\n$/ });
  t.match(await nobody(bin('hutter-iptables-save.cjs')), { code: 1, stderr: /^Failed to list table names/ });
  t.same(await nobody(bin('hutter-iptables.cjs'), '-V'), { code: 0, stdout: 'iptables v1.8.9 (legacy)\n', stderr: '' });
  t.match(await nobody(bin('hutter-iptables.cjs'), '-j', 'TEE', '-h'), { code: 0, stdout: /\nTEE target options:\n/ });
  t.match(await nobody(bin('hutter-iptables.cjs'), '-A', 'INPUT', '--nosuch'), { code: 2, stderr: /unknown option/ });
});

t.test('up, traffic, status, a second up, and a clean end', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const child = await g.up(RULES, '--workers', '2', '--busy-poll', '50');
  t.ok(await g.ping(3), 'packets pass');
  t.match(await g.traces(), /-A HUTTER-PRE -j NFQUEUE --queue-balance 0:1\n/);
  t.match(await g.traces(), /conf\/if0 2 1\n/);
  t.notMatch(await g.traces(), /-m socket/, 'no rule asks for connections: fragments are left alone');

  const status = await g.status();
  t.match(status, { device: 'nfqueue', fail: 'closed', tracking: false, rules: { filter: 1 } });
  t.equal(status.workers.length, 2);
  t.equal(niceValues(status.pid).filter((nice) => nice === -10).length, 2, 'workers go first, and nothing else');
  t.ok(status.hooks['PREROUTING']!.packets >= 6);
  t.match(
    (await g.hutter('status')).stdout,
    /fail +closed: when a queue is full or hutter is gone, packets are dropped/,
  );
  t.match(await g.hutter('status', '--yaml'), { code: 2, stderr: /not `--yaml'/ });

  const second = g.file('second', RULES);
  t.match(await g.hutter('up', '--rules', second), {
    code: 1,
    stderr: /a router runs in this network namespace already/,
  });
  t.match(await g.hutter('down'), { code: 1, stderr: /a router runs here \(pid \d+/ });

  t.match(await g.hutter('iptables', '-t', 'nat', '-A', 'POSTROUTING', '-o', 'if1', '-j', 'MASQUERADE'), { code: 0 });
  t.match(await g.traces(), /-A HUTTER-PRE -i hutter-no-such -m socket -j ACCEPT/, 'now connections are tracked');
  t.ok(await g.ping());
  t.match(await g.hutter('conntrack', '-L'), { stdout: /^icmp +1 \d+ src=192\.168\.73\.4 .* dst=128\.61\.70\.47 / });
  t.match(await g.hutter('iptables', '-t', 'nat', '-F'), { code: 0 });
  t.notMatch(await g.traces(), /-m socket/);

  g.router.ip('link add later type veth peer name laterpeer');
  await until('the new interface is taken in', async () => /conf\/later 2 1\n/.test(await g.traces()));
  g.router.ip('link del later');

  t.equal(await end(child, 'SIGTERM'), 0);
  t.equal(await g.traces(), before);
  t.ok(await g.ping(), 'the kernel forwards alone');
});

t.test('fanout by core: one pair of hosts meets every worker, and one table', async (t) => {
  const g = gateway(t);
  const cores = spawnSync('nproc', { encoding: 'utf8' }).stdout.trim();
  if (cores === '1') return void t.comment('one core: there is nothing to spread over');
  const child = await g.up(MASQUERADE, '--workers', '2', '--fanout', 'cpu');
  t.match(await g.traces(), /-A HUTTER-PRE -j NFQUEUE --queue-balance 0:1 --queue-cpu-fanout\n/);
  for (const core of ['0', '1', '0', '1']) {
    const ping = ['ping', '-c', '5', '-i', '0.05', '-W', '1', '128.61.70.200'];
    t.equal((await g.orlock.run('taskset', ['-c', core, ...ping])).code, 0, `from core ${core}`);
  }
  const { workers } = await g.status();
  for (const { number, packets } of workers) t.ok(packets > 0, `worker ${number} got ${packets} packets`);
  t.equal(
    workers.reduce((sum, { packets }) => sum + packets, 0),
    40,
    'there and back',
  );
  t.equal(await end(child, 'SIGTERM'), 0);
});

t.test('kill -9, fail closed: packets stop, what is kept passes, down undoes it', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const [knock, router] = await Promise.all([startHost(g.knock), startHost(g.router)]);
  await router.listen({ port: 2222, greet: 'kept' });
  await router.listen({ port: 2223, greet: 'not kept' });
  const child = await g.up(RULES, '--keep', 'tcp/2222');
  const connect = (port: number) => knock.connect({ host: '128.61.70.47', port, read: true, timeoutMs: 1500 });
  t.match(await connect(2223), { outcome: 'connected', data: 'not kept' });
  await end(child, 'SIGKILL');

  t.notOk(await g.ping());
  t.match(await connect(2222), { outcome: 'connected', data: 'kept' });
  t.match(await connect(2223), { outcome: 'timeout' });

  t.match(await g.hutter('down'), {
    code: 0,
    stdout: /removed the diversion .*\n(.*\n)*reset rp_filter and accept_local of if0/,
  });
  t.equal(await g.traces(), before);
  t.match(await g.hutter('down'), { code: 0, stdout: 'nothing to undo\n' });
  t.ok(await g.ping());
});

t.test('kill -9, fail open: packets pass untranslated; the next up takes over and leaves nothing', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const child = await g.up(RULES, '--fail', 'open');
  t.match((await g.hutter('status')).stdout, /pass UNFILTERED and UNTRANSLATED/);
  await end(child, 'SIGKILL');
  t.ok(await g.ping());

  const closed = await g.up(RULES);
  t.ok(await g.ping());
  const traces = await g.traces();
  t.equal(traces.match(/-j HUTTER-PRE/g)?.length, 1, 'one jump');
  t.notMatch(traces, /--queue-bypass/);
  await end(closed, 'SIGKILL');
  t.notOk(await g.ping());
  const wrong = g.file('wrong', 'nonsense\n');
  t.not((await g.hutter('up', '--rules', wrong)).code, 0);
  t.notOk(await g.ping(), 'an up that fails leaves closed what was closed');

  const third = await g.up(RULES);
  t.ok(await g.ping());
  t.equal(await end(third, 'SIGINT'), 0);
  t.equal(await g.traces(), before, 'the values before the first up are back');
});

t.test('what packets come a second time by: there once it is needed, gone with the rest', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const first = await g.up(RULES, '--workers', '2');
  t.notMatch(await g.traces(), /HUTTER-POST/, 'nobody needs it');
  const classify = ['iptables', '-t', 'mangle', '-A', 'POSTROUTING', '-j', 'CLASSIFY', '--set-class', '1:2'];
  t.match(await g.hutter(...classify), { code: 0 });
  t.match(await g.traces(), /-A HUTTER-POST -m u32 --u32 "0x4&0x8000=0x8000" -j NFQUEUE --queue-balance 0:1\n/);
  t.ok(await g.ping(2));
  t.equal((await g.status()).crossedAgain, 4);
  t.match((await g.hutter('status')).stdout, /crossings +4 packets came a second time\n/);
  t.equal(await end(first, 'SIGTERM'), 0);
  t.equal(await g.traces(), before);

  // Routes chosen by source make it needed where sources are translated. What passes is told by the other side's counters.
  const [knock] = await Promise.all([startHost(g.knock)]);
  g.router.ip('rule add from 192.168.73.0/24 table 100', 'route add default via 128.61.70.200 table 100');
  const second = await g.up(RULES + MASQUERADE);
  t.match(await g.traces(), /HUTTER-POST/);
  t.match((await g.hutter('status')).stdout, /routing +chosen by source, too\n/);
  t.ok(await g.ping());
  // The kernel drops a packet between its crossings: no connection is left of it.
  await g.router.run('iptables-legacy', ['-A', 'FORWARD', '-p', 'tcp', '--dport', '99', '-j', 'DROP']);
  const orlock = await startHost(g.orlock);
  await knock.listen({ port: 99 });
  t.match(await orlock.connect({ host: '128.61.70.200', port: 99 }), { outcome: 'timeout' });
  t.notMatch((await g.hutter('conntrack', '-L')).stdout, /dport=99/);
  await until('its connection is forgotten', async () => (await g.status()).flows.count <= 1, { timeoutMs: 20_000 });

  await end(second, 'SIGKILL');
  t.match(await g.traces(), /HUTTER-POST/, 'closed means closed');
  t.notOk(await g.ping());
  t.match(await g.hutter('down'), { code: 0, stdout: /removed the diversion from the kernel's mangle table/ });
  await g.router.run('iptables-legacy', ['-F', 'FORWARD']);
  t.equal(await g.traces(), before);
  const third = await g.up(RULES + MASQUERADE, '--fail', 'open');
  t.match(await g.traces(), /-A HUTTER-POST .*--queue-bypass\n/);
  await end(third, 'SIGKILL');
  g.router.ip('rule del from 192.168.73.0/24 table 100');
  const fourth = await g.up(RULES);
  t.notMatch(await g.traces(), /HUTTER-POST/, 'what a killed run left goes where it is not needed');
  t.equal(await end(fourth, 'SIGINT'), 0);
  t.equal(await g.traces(), before);
});

t.test('nowhere to note what must be undone: nothing is changed', async (t) => {
  const g = gateway(t);
  const before = await g.traces();
  const rules = g.file('rules', RULES);
  for (const [mount, text] of [
    ['mount -t tmpfs -o ro none /run', 'the file system is read-only'],
    ['mount -t tmpfs -o size=4k none /run; cat /dev/zero > /run/full 2>/dev/null', 'no space left on the device'],
  ] as const) {
    const shell = `${mount}; "$@"; code=$?; ls -R /run | grep json; exit $code`;
    const argv = ['-m', 'sh', '-c', shell, 'sh', 'env', ...NODE, HUTTER, 'up', '--rules', rules];
    const { code, stdout, stderr } = await g.router.run('unshare', argv, { env: g.env() });
    t.equal(code, 1);
    t.match(stderr, /^hutter: can't write \/run\/hutter\/\d+\.json, where hutter notes what `hutter down` must undo: /);
    t.ok(stderr.endsWith(`: ${text}\n`), stderr);
    t.equal(stdout, '', 'no half of a file stays');
  }
  t.equal(await g.traces(), before);
});

t.test('read-only /proc/sys: verified instead', async (t) => {
  const g = gateway(t);
  const rules = g.file('rules', RULES);
  const readOnly = (...args: string[]): Promise<Output> =>
    g.router.run(
      'unshare',
      [
        '-m',
        'sh',
        '-c',
        'mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; exec "$@"',
        'sh',
        ...args,
      ],
      { env: g.env() },
    );
  t.match(await readOnly('env', ...NODE, HUTTER, 'up', '--rules', rules), {
    code: 1,
    stderr:
      /net\.ipv4\.conf\.if\d must have accept_local=1 and rp_filter=2 .* \/proc\/sys can't be written \(EROFS\): set them/,
  });
  const values = { accept_local: 1, rp_filter: 2 };
  for (const dev of ['if0', 'if1'])
    for (const [key, value] of Object.entries(values)) g.router.sysctl({ [`net.ipv4.conf.${dev}.${key}`]: value });
  const { code, stdout } = await readOnly(
    'timeout',
    '--preserve-status',
    '-s',
    'TERM',
    '6',
    'env',
    ...NODE,
    HUTTER,
    'up',
    '--rules',
    rules,
  );
  t.match(stdout, / is up: /);
  t.equal(code, 0);
});

t.test('a worker that throws, holding a lock: started anew and counted; connections and counters stay', async (t) => {
  const g = gateway(t);
  await g.up(MASQUERADE, '--workers', '2');
  t.ok(await g.ping());
  t.match(await g.hutter('conntrack', '-L'), { stdout: /^icmp / });
  const counted = (await g.hutter('iptables-save', '-c', '-t', 'nat')).stdout.replace(/^#.*\n/gm, '');
  for (const worker of [0, 1]) await failWorker(g, worker);
  t.match(g.said, /worker 0 failed and is started anew: .*told to fail/);
  t.match(await g.hutter('conntrack', '-L'), { stdout: /^icmp / }, 'the connection is there');
  t.equal((await g.hutter('iptables-save', '-c', '-t', 'nat')).stdout.replace(/^#.*\n/gm, ''), counted);
  t.ok(await g.ping(2), 'packets pass, new connections come in');
  t.match(await g.hutter('iptables', '-A', 'FORWARD', '-j', 'DROP'), { code: 0 }, 'rules are taken up');
  t.notOk(await g.ping());
});

t.test('recent shows the lists of -m recent and takes what /proc/net/xt_recent takes', async (t) => {
  const g = gateway(t);
  await g.up(
    '*filter\n-A FORWARD -p icmp -m recent --set --name seen\n' +
      '-A FORWARD -m recent --rcheck --name shut -j DROP\nCOMMIT\n',
  );
  t.match(await g.hutter('recent'), { code: 0, stdout: 'seen\nshut\n' });
  t.match(await g.hutter('recent', 'seen'), { code: 0, stdout: '' });
  t.ok(await g.ping());
  const listed = /^src=192\.168\.73\.4 ttl: 64 last_seen: (\d+) oldest_pkt: 1 \1\n/m;
  t.match(await g.hutter('recent', 'seen'), { code: 0, stdout: listed });
  t.match(await g.hutter('recent', 'shut', '+192.168.73.4', '+10.0.0.9', '-10.0.0.9'), { code: 0, stdout: '' });
  t.match(await g.hutter('recent', 'shut'), {
    stdout: /^src=192\.168\.73\.4 ttl: 0 last_seen: (\d+) oldest_pkt: 1 \1\n$/,
  });
  t.notOk(await g.ping(), 'the rule sees it');
  for (const wrong of ['192.168.73.4', '+192.168.73', '+192.168.73.256', ''])
    t.match(await g.hutter('recent', 'shut', '/', wrong), {
      code: 2,
      stdout: '',
      stderr: `hutter: recent: \`${wrong}': Invalid argument: +ADDRESS adds or touches, -ADDRESS removes, / empties the list\n`,
    });
  t.notOk(await g.ping(), 'what is wrong changes nothing');
  t.match(await g.hutter('recent', 'shut', '/all'), { code: 0 }, 'the kernel looks no further than the slash');
  t.ok(await g.ping());
  t.match(await g.hutter('recent', 'gone'), { code: 1, stderr: "hutter: recent: no rule has a list `gone'\n" });
});

t.test('conntrack -E shows what happens, -D and -F end connections', async (t) => {
  const g = gateway(t);
  await g.up(MASQUERADE, '--config', g.file('config', 'sysctl: { nf_conntrack_icmp_timeout: 77 }'));
  const follower = g.router.spawn('env', [...NODE, HUTTER, 'conntrack', '-E'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: g.env(),
  });
  let seen = '';
  follower.stdout?.on('data', (chunk: Buffer) => (seen += chunk.toString()));
  await until(
    'events come',
    async () => {
      await g.ping();
      return seen.includes('[NEW] icmp');
    },
    { timeoutMs: 20_000 },
  );
  t.match(
    seen,
    /^ {4}\[NEW\] icmp +1 77 src=192\.168\.73\.4 dst=128\.61\.70\.200 type=8 code=0 id=\d+ \[UNREPLIED\] src=128/m,
  );
  t.match(await g.hutter('conntrack', '-D', '-p', 'udp'), {
    code: 1,
    stderr: / 0 flow entries have been deleted\.\n$/,
  });
  t.match(await g.hutter('conntrack', '-D', '-s', '192.168.73.0/24', '-p', 'icmp'), { code: 0, stdout: /^icmp / });
  await until('its end is seen', () => seen.includes('[DESTROY] icmp'));
  t.match(await g.hutter('conntrack', '-C'), { stdout: '0\n' });
  t.ok(await g.ping());
  t.match(await g.hutter('conntrack', '-F'), { code: 0, stderr: /connection tracking table has been emptied/ });
  t.match(await g.hutter('conntrack', '-S'), { stdout: /^cpu=0 +\tfound=\d+ invalid=0 insert=\d+ / });
  follower.kill('SIGTERM');

  const timeout = 'net.netfilter.nf_conntrack_icmp_timeout';
  t.match(await g.hutter('sysctl', timeout), { code: 0, stdout: `${timeout} = 77\n` });
  t.match(await g.hutter('sysctl', '-w', `${timeout}=55`), { code: 0, stdout: `${timeout} = 55\n` });
  t.ok(await g.ping());
  t.match(await g.hutter('conntrack', '-L'), { stdout: /^icmp +1 5[345] / }, 'holds for the next packet');
  t.match(await g.hutter('conntrack', '-L', 'expect'), {
    code: 0,
    stdout: '',
    stderr: / 0 expectations have been shown/,
  });
});

t.test('LOG lines go to the file', async (t) => {
  const g = gateway(t);
  const log = path.join(g.network.dir, 'log');
  await g.up('*filter\n-A FORWARD -p icmp -j LOG --log-prefix "seen: " --log-level info\nCOMMIT\n', '--log', log);
  t.ok(await g.ping());
  await until('lines are written', () => readFileSync(log, 'latin1').split('\n').length > 2);
  t.match(
    readFileSync(log, 'latin1'),
    /^<6>seen: IN=if0 OUT=if1 MAC=(..:){12}08:00 SRC=192\.168\.73\.4 DST=128\.61\.70\.200 LEN=84 TOS=0x00 PREC=0x00 TTL=63 ID=\d+ DF PROTO=ICMP TYPE=8 CODE=0 ID=\d+ SEQ=1 $/m,
  );
});

t.test('a log that takes nothing: told once and counted, and packets flow', async (t) => {
  const g = gateway(t);
  await g.up('*filter\n-A FORWARD -p icmp -j LOG\nCOMMIT\n', '--log', '/dev/full');
  t.ok(await g.ping());
  await until('it is counted', async () => (await g.status()).logLost >= 2);
  const told = "hutter: LOG lines are lost: can't write to the log /dev/full: no space left on the device\n";
  t.equal(g.said.split(told).length, 2, g.said);
});
