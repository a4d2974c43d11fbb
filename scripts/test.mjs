/**
 * `npm test`: types, lint, formatting, every test, and that nothing of ours is left on the machine afterwards. With
 * arguments (`npm test -- net/article conntrack`) only the test files whose path contains one of them run. Nothing is
 * skipped: what a test needs and hasn't got is a failure that says so. The last line is always `N passed, N failed`.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { clearTimeout, setTimeout } from 'node:timers';
import { fileURLToPath } from 'node:url';

process.chdir(path.join(path.dirname(fileURLToPath(import.meta.url)), '..'));

const TEST_DIR = 'dist/test';
/** Folders whose tests build networks: they wait for packets most of the time, and want the processor at once when one comes. Two files run beside each other. */
const NETWORK = new Set(['agree', 'control', 'io', 'kernel', 'net']);
/** All else only computes, on the processor time that those leave. */
const COMPUTING = ['nice', '-n', '10'];
/** Begun first: a long file begun last would be all that runs in the end. */
const LONGEST = [
  'control/up',
  'net/article',
  'net/gateway',
  'net/tun',
  'kernel/kernel',
  'net/lab',
  'net/routes',
  'net/twin',
];
/** Seconds that a file may take, many times what any needs: machines can be busy. */
const FILE_TIMEOUT_S = Number(process.env.TAP_TIMEOUT ?? 600);
const SHOWN_LINES = 400;
const OUR_NAMESPACE = /^hutter-[a-z]+-(\d+)-/;
/** In the environment of every process of this run: how leftovers are told from other people's. */
const RUN = `HUTTER_TEST_RUN=${process.pid}-${Date.now()}`;

const filters = process.argv.slice(2);
const [runKey, runValue] = RUN.split('=');
const env = { ...process.env, [runKey]: runValue, TAP_TIMEOUT: String(FILE_TIMEOUT_S) };
// Node would parse them at every start, and no test goes where certificates are asked for.
delete env.NODE_EXTRA_CA_CERTS;
let passed = 0;
let failed = 0;

// A reader that has seen enough (`npm test | head`) ends the run.
process.stdout.on('error', () => process.exit(1));
process.on('exit', () => {
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  if (failed > 0 || passed === 0) process.exitCode = 1;
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    failed++;
    process.exit(1);
  });
}

const before = hostState();
const namespacesBefore = new Set(ourNamespaces());
const [network, computing] = testFiles();
if (network.length > 0) requireNetwork();
const checks = [
  () => check('types', 'tsc', '--noEmit'),
  () => check('lint', 'eslint', '.'),
  () => check('format', 'prettier', '--check', '.'),
];
const waits = network.map((file) => () => testFile(file));
const computes = computing.map((file) => () => testFile(file, COMPUTING));
if (filters.length === 0) computes.unshift(...checks);
// Whoever is first through with the networks helps with the rest.
await Promise.all([inTurn(computes), inTurn(waits), inTurn(waits, computes)]);
checkLeftovers();

/** The test files of this run in the order they are begun: those that build networks, and those that compute. */
function testFiles() {
  const files = readdirSync(TEST_DIR, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith('.test.js'))
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
    .sort();
  if (files.length === 0) verdict(false, `tests: no file matches ${filters.join(' ')}`, Date.now());
  const long = LONGEST.map((name) => `${name}.test.js`);
  const ordered = [...long.filter((file) => files.includes(file)), ...files.filter((file) => !long.includes(file))];
  const buildsNetwork = (file) => NETWORK.has(file.split(path.sep)[0]);
  return [ordered.filter(buildsNetwork), ordered.filter((file) => !buildsNetwork(file))];
}

/** Takes jobs from the heads of queues until they are empty, one queue after the other. */
async function inTurn(...queues) {
  for (const queue of queues) for (let job = queue.shift(); job; job = queue.shift()) await job();
}

/** Counts a static check; shows its words if it failed. */
async function check(name, command, ...args) {
  const started = Date.now();
  const { code, output } = await run([...COMPUTING, path.join('node_modules/.bin', command), ...args]);
  verdict(code === 0, name, started, output);
}

/**
 * Runs a test file and adds up what its TAP says. A file is a program that prints its results, which `tap run` would start with a
 * compiler and hooks around every import, in each of its workers too: seconds of processor time a file that nothing here needs.
 */
async function testFile(file, prefix = []) {
  const started = Date.now();
  const { code, output } = await run([...prefix, process.execPath, path.join(TEST_DIR, file)], FILE_TIMEOUT_S + 30);
  const count = (word) => Number(new RegExp(`^# \\{.*\\b${word}: (\\d+)`, 'm').exec(output)?.[1] ?? 0);
  passed += count('pass');
  failed += count('fail');
  // A parked test is a failing one, and so is a file that ends before its summary.
  const parked = count('skip') + count('todo');
  if (parked > 0) verdict(false, `${parked} tests are skipped or to do`, started, linesOf(output, /# (SKIP|TODO)/i));
  const broken = code !== 0 || count('total') === 0;
  process.stdout.write(`${broken ? 'FAIL' : 'ok  '} ${file} # time=${Date.now() - started}ms\n`);
  if (broken) process.stdout.write(failuresOf(output).slice(-SHOWN_LINES).join('\n') + '\n');
  if (broken && count('fail') === 0) verdict(false, `${file} ended with ${code}`, started, output.slice(-2000));
}

/** The failing assertions of a TAP text with what is indented under them, without the passing ones. */
function failuresOf(tap) {
  const result = [];
  let depth = -1;
  for (const line of tap.split('\n')) {
    const indent = /^ */.exec(line)[0].length;
    if (/^ *not ok /.test(line)) depth = indent;
    else if (indent <= depth && line.trim() !== '') depth = -1;
    // tap shows the source around a failure, and at a file's end that is its source map.
    if (depth >= 0 && !line.includes('sourceMappingURL=')) result.push(line);
  }
  return result;
}

/** Ends the run with a reason where network tests cannot work. */
function requireNetwork() {
  const needs = [
    ['root (run npm test as root)', () => process.getuid() === 0],
    ['/dev/net/tun (load the tun module)', () => existsSync('/dev/net/tun')],
    ['network namespaces (CAP_SYS_ADMIN)', () => spawnSync('unshare', ['-n', 'true']).status === 0],
    [
      "the kernel's iptables (iptables-legacy and ip_tables modules), the judge",
      () => spawnSync('unshare', ['-n', 'iptables-legacy', '-t', 'nat', '-S'], { env: withSbin() }).status === 0,
    ],
  ];
  const missing = needs.filter(([, there]) => !there()).map(([what]) => what);
  if (missing.length === 0) return;
  verdict(false, `network tests need ${missing.join(', ')}; nothing is skipped`, Date.now());
  process.exit(1);
}

function checkLeftovers() {
  const started = Date.now();
  const left = [];
  const mine = processesOfThisRun();
  for (const { pid, command } of mine) left.push(`process ${pid}: ${command}`);
  const pids = new Set(mine.map(({ pid }) => pid));
  for (const file of ourNamespaces().filter((name) => !namespacesBefore.has(name))) {
    const owner = Number(OUR_NAMESPACE.exec(path.basename(file))[1]);
    // A living owner that isn't of this run is somebody else's test.
    if (pids.has(owner) || !existsSync(`/proc/${owner}`)) left.push(file);
  }
  const after = hostState();
  for (const [what, value] of Object.entries(after)) {
    if (before[what] !== value) left.push(`${what} was\n${before[what] ?? '(absent)'}\nand is\n${value}`);
  }
  verdict(left.length === 0, 'nothing is left behind', started, left.join('\n'));
}

/** Namespaces named as hutter's networks name them, and their files. */
function ourNamespaces() {
  return ['/run/netns', '/etc/netns'].flatMap((dir) =>
    (existsSync(dir) ? readdirSync(dir) : [])
      .filter((name) => OUR_NAMESPACE.test(name))
      .map((name) => path.join(dir, name)),
  );
}

/** What no test may change: the machine's own rules and sysctls. */
function hostState() {
  const state = {};
  const lists = { 'iptables-legacy-save': '/proc/net/ip_tables_names', 'iptables-nft-save': undefined };
  for (const [command, names] of Object.entries(lists)) {
    // Asking for a legacy table would create it.
    if (names && (!existsSync(names) || readFileSync(names, 'utf8') === '')) continue;
    const result = spawnSync(command, [], { encoding: 'utf8', env: withSbin() });
    state[`the host's ${command}`] = (result.stdout ?? '').replace(/^#.*\n/gm, '').replace(/\[\d+:\d+\]/g, '');
  }
  const conf = '/proc/sys/net/ipv4/conf';
  for (const dev of existsSync(conf) ? readdirSync(conf) : []) {
    for (const key of ['accept_local', 'rp_filter', 'forwarding']) {
      state[`${conf}/${dev}/${key}`] = readFileSync(path.join(conf, dev, key), 'utf8').trim();
    }
  }
  return state;
}

function processesOfThisRun() {
  const found = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    try {
      if (statSync(`/proc/${pid}`).uid !== process.getuid()) continue;
      if (!readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').includes(RUN)) continue;
      found.push({ pid: Number(pid), command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ') });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

/** Runs a command to its end, or for at most `seconds`. */
function run([command, ...args], seconds = 600) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const said = ['', ''];
    [child.stdout, child.stderr].forEach((stream, i) =>
      stream.setEncoding('utf8').on('data', (text) => (said[i] += text)),
    );
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      // What it started may hold the other ends.
      child.stdout.destroy();
      child.stderr.destroy();
    }, seconds * 1000);
    const done = (code) => {
      clearTimeout(timer);
      resolve({ code, output: said.join('\n') });
    };
    child.on('error', (error) => {
      said[1] += error.message;
      done(127);
    });
    child.on('close', (code, signal) => done(code ?? signal));
  });
}

function verdict(ok, name, started, detail = '') {
  if (ok) passed++;
  else failed++;
  process.stdout.write(`${ok ? 'ok  ' : 'FAIL'} ${name} # time=${Date.now() - started}ms\n`);
  if (!ok && detail.trim() !== '') process.stdout.write(`${detail.trimEnd()}\n`);
}

function linesOf(text, pattern) {
  return text
    .split('\n')
    .filter((line) => pattern.test(line))
    .join('\n');
}

function withSbin() {
  return { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
}
