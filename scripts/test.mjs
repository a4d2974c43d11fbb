/**
 * `npm test`: types, lint, formatting, every test, and that nothing of ours is left on the machine afterwards. With
 * arguments (`npm test -- net/article conntrack`) only the test files whose path contains one of them run. Nothing is
 * skipped: what a test needs and hasn't got is a failure that says so. The last line is always `N passed, N failed`.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { clearInterval, setInterval } from 'node:timers';
import { fileURLToPath } from 'node:url';

process.chdir(path.join(path.dirname(fileURLToPath(import.meta.url)), '..'));

const TEST_DIR = 'dist/test';
/**
 * Folders whose tests build networks and measure time. Files of one lane run one by one, the lanes beside each other: most of them
 * wait for packets most of the time.
 */
const LANES = [new Set(['net']), new Set(['agree', 'control', 'io', 'kernel'])];
const FILE_TIMEOUT_S = 300;
const SHOWN_LINES = 400;
const OUR_NAMESPACE = /^hutter-[a-z]+-(\d+)-/;
/** In the environment of every process of this run: how leftovers are told from other people's. */
const RUN = `HUTTER_TEST_RUN=${process.pid}-${Date.now()}`;

const filters = process.argv.slice(2);
const [runKey, runValue] = RUN.split('=');
const env = { ...process.env, [runKey]: runValue };
/** Runs of tap so far. */
let taps = 0;
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
if (filters.length === 0) {
  await check('types', 'tsc', '--noEmit');
  await check('lint', 'eslint', '.');
  await check('format', 'prettier', '--check', '.');
}
await runTests();
checkLeftovers();

/** Counts a static check; shows its words if it failed. */
async function check(name, command, ...args) {
  const started = Date.now();
  const { code, output } = await run(command, args);
  verdict(code === 0, name, started, output);
}

async function runTests() {
  const files = readdirSync(TEST_DIR, { recursive: true })
    .map(String)
    .filter((file) => file.endsWith('.test.js'))
    .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
    .map((file) => path.join(TEST_DIR, file))
    .sort();
  if (files.length === 0) {
    verdict(false, `tests: no file matches ${filters.join(' ')}`, Date.now());
    return;
  }
  const folder = (file) => path.relative(TEST_DIR, file).split(path.sep)[0];
  const lanes = LANES.map((folders) => files.filter((file) => folders.has(folder(file))));
  if (lanes.some((lane) => lane.length > 0)) requireNetwork();
  await runTap(
    files.filter((file) => !lanes.some((lane) => lane.includes(file))),
    2,
  );
  await Promise.all(lanes.map((lane) => runTap(lane, 1)));
}

/** Runs test files by tap and adds up what its raw output says. */
async function runTap(files, jobs) {
  if (files.length === 0) return;
  mkdirSync('build', { recursive: true });
  const tapFile = path.join('build', `test-${process.pid}-${++taps}.tap`);
  const args = ['run', '--disable-coverage', '--reporter=silent', `--timeout=${FILE_TIMEOUT_S}`, `--jobs=${jobs}`];
  const { code, output } = await run('tap', [...args, `--output-file=${tapFile}`, ...files], showProgress(tapFile));
  const tap = existsSync(tapFile) ? readFileSync(tapFile, 'utf8') : '';
  rmSync(tapFile, { force: true });
  const count = (word) => Number(new RegExp(`^# \\{.*\\b${word}: (\\d+)`, 'm').exec(tap)?.[1] ?? 0);
  passed += count('pass');
  failed += count('fail');
  // A parked test is a failing one.
  const parked = count('skip') + count('todo');
  if (parked > 0) verdict(false, `${parked} tests are skipped or to do`, Date.now(), linesOf(tap, /# (SKIP|TODO)/i));
  if (code !== 0) {
    process.stdout.write(failuresOf(tap).slice(-SHOWN_LINES).join('\n') + '\n');
    if (count('fail') === 0) verdict(false, `tap ended with ${code}`, Date.now(), output || tap.slice(-2000));
  }
}

/** Prints each file's line as tap writes it. */
function showProgress(tapFile) {
  let shown = 0;
  return () => {
    if (!existsSync(tapFile)) return;
    const lines = linesOf(readFileSync(tapFile, 'utf8'), /^(not )?ok \d+ - /).split('\n');
    for (const line of lines.slice(shown).filter(Boolean)) {
      process.stdout.write(line.replace(/^(not )?ok \d+ - /, (_, no) => (no ? 'FAIL ' : 'ok   ')) + '\n');
      shown++;
    }
  };
}

/** The failing assertions of a TAP text with what is indented under them, without the passing ones. */
function failuresOf(tap) {
  const result = [];
  let depth = -1;
  for (const line of tap.split('\n')) {
    const indent = /^ */.exec(line)[0].length;
    if (/^ *not ok /.test(line)) depth = indent;
    else if (indent <= depth && line.trim() !== '') depth = -1;
    if (depth >= 0 || /^ *# Subtest: (?!.*\bok\b)dist\//.test(line)) result.push(line);
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

/** Runs one of the project's own tools; `tick` is called while it runs. */
function run(command, args, tick = () => undefined) {
  return new Promise((resolve) => {
    const child = spawn(path.join('node_modules/.bin', command), args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    const timer = setInterval(tick, 200);
    const done = (code) => {
      clearInterval(timer);
      tick();
      resolve({ code, output });
    };
    child.on('error', (error) => {
      output += error.message;
      done(127);
    });
    child.on('close', (code) => done(code ?? 1));
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
