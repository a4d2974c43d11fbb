/**
 * Makes this checkout ready to run: Debian packages, node_modules, the native addon, dist/. `node scripts/setup.mjs
 * lab` for `npm start`, `… test` for `npm test` and `… bench` for `npm run bench` (which need more tools). Each step looks first and does nothing where
 * nothing is to do, so it runs before every start. Plain Node: nothing is installed yet when it runs first.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);

const OLDEST_NODE = 20;
const PATHS = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];

/** What must be there (a command, or a file by its absolute path) → the Debian package that brings it. */
const LAB = {
  'iptables-legacy': 'iptables',
  ip: 'iproute2',
  ping: 'iputils-ping',
  // node-gyp builds the addon with these.
  python3: 'python3',
  make: 'make',
  'g++': 'g++',
};
const TEST = {
  ...LAB,
  // npm cap, which captures packets, is built against libpcap.
  '/usr/include/pcap.h': 'libpcap-dev',
  conntrack: 'conntrack',
  ethtool: 'ethtool',
  ipset: 'ipset',
  traceroute: 'traceroute',
  tcpdump: 'tcpdump',
  sysctl: 'procps',
};
const BENCH = {
  ...LAB,
  // npm nfqueue, the peer, is built against it.
  '/usr/include/libnetfilter_queue/libnetfilter_queue.h': 'libnetfilter-queue-dev',
  iperf3: 'iperf3',
  taskset: 'util-linux',
  sysctl: 'procps',
};

/** Optional packages by purpose → what their build leaves. */
const OPTIONAL = {
  lab: {},
  test: { cap: 'build/Release/cap.node', 'raw-socket': 'build/Release/raw.node' },
  bench: { nfqueue: 'build/Release/nfqueue.node' },
};

const purposes = { lab: LAB, test: TEST, bench: BENCH };
const purpose = process.argv[2] ?? 'test';
const needed = purposes[purpose];
if (!needed) fail('setup', `usage: node scripts/setup.mjs ${Object.keys(purposes).join('|')}`);

checkNode();
installPackages(needed);
installModules();
buildNative();
buildScripts();

function checkNode() {
  if (process.platform !== 'linux') fail('setup', `hutter runs on Linux only, this is ${process.platform}`);
  const major = Number(process.versions.node.split('.')[0]);
  if (major < OLDEST_NODE) fail('setup', `Node ${OLDEST_NODE} or newer is needed, this is ${process.version}`);
}

function installPackages(wanted) {
  const missing = Object.entries(wanted).filter(([what]) => !present(what));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(([, name]) => name))];
  const apt = ['install', '-y', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=120', ...packages];
  if (!present('apt-get')) {
    fail('packages', `missing: ${missing.map(([what]) => what).join(', ')}; install them by your system's means`);
  }
  if (process.getuid() !== 0) fail('packages', `missing; as root run: apt-get ${apt.join(' ')}`);
  step(`packages: installing ${packages.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  // The lists may be fresh enough already; a slim image has none.
  if (spawnSync('apt-get', apt, { env, stdio: 'ignore' }).status !== 0) {
    run('packages', 'apt-get', ['update', '-q'], { env });
    run('packages', 'apt-get', apt, { env });
  }
  const still = Object.keys(wanted).filter((what) => !present(what));
  if (still.length > 0) fail('packages', `installed ${packages.join(' ')}, but ${still.join(', ')} is still missing`);
}

function installModules() {
  const env = { ...process.env };
  // Node's own headers spare node-gyp a download.
  const prefix = path.join(path.dirname(process.execPath), '..');
  if (!env.npm_config_nodedir && existsSync(path.join(prefix, 'include/node/node_api.h'))) {
    env.npm_config_nodedir = prefix;
  }
  const npm = (...args) =>
    run('modules', 'npm', [...args, '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'], { env });
  // Nothing is built on the way (--ignore-scripts): what must be is built below, step by step.
  const wanted = JSON.parse(readFileSync('package-lock.json', 'utf8')).packages;
  const stale = staleModule(wanted);
  if (stale && purpose !== 'lab') {
    step(`modules: npm ci (${stale})`);
    npm('ci', '--ignore-scripts');
  } else if (stale) {
    // The tools for tests and checks are nine tenths of all modules.
    step(`modules: npm ci --omit=dev (${stale})`);
    npm('ci', '--omit=dev', '--ignore-scripts');
  }
  const left = staleModule(wanted);
  if (left) fail('modules', `npm ended well, but ${left}`);
  for (const [name, file] of Object.entries(OPTIONAL[purpose])) {
    const built = () => existsSync(path.join('node_modules', name, file));
    if (built()) continue;
    step(`modules: building ${name}`);
    if (!existsSync(path.join('node_modules', name))) npm('ci', '--ignore-scripts');
    // A bench goes on without a peer, and says so.
    if (purpose === 'bench') spawnSync('npm', ['rebuild', name], { env, stdio: ['ignore', 2, 2] });
    else npm('rebuild', name);
    if (!built() && purpose !== 'bench')
      fail('modules', `npm package ${name} did not build; its own words: npm rebuild ${name}`);
  }
}

/** In what node_modules differs from the lock file, as far as this purpose needs it; undefined if in nothing. */
function staleModule(wanted) {
  const installedFile = 'node_modules/.package-lock.json';
  if (!existsSync(installedFile)) return 'nothing is installed';
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  for (const [name, entry] of Object.entries(wanted)) {
    if (name === '' || entry.optional || entry.devOptional || entry.link) continue;
    if (entry.dev && purpose === 'lab') continue;
    if (installed[name]?.version !== entry.version) {
      return `${name.replace(/^.*node_modules\//, '')} is not at ${entry.version}`;
    }
  }
  return undefined;
}

function buildNative() {
  if (!existsSync('binding.gyp')) return;
  const sources = newest(['binding.gyp', 'native']);
  const outputs = existsSync('build/Release')
    ? readdirSync('build/Release').filter((name) => name.endsWith('.node'))
    : [];
  const built = outputs.map((name) => statSync(path.join('build/Release', name)).mtimeMs);
  if (built.length > 0 && Math.min(...built) >= sources) return;
  step('native: building the addon');
  const log = run('native', 'npm', ['run', '-s', 'build:native'], { quiet: true });
  if (!existsSync('build/Release')) fail('native', log);
}

function buildScripts() {
  const output = 'dist/bin/hutter.mjs';
  const sources = newest(['src', 'test', 'bench', 'scripts/build.mjs', 'package.json']);
  if (existsSync(output) && statSync(output).mtimeMs >= sources) return;
  step('dist: building');
  run('dist', process.execPath, ['scripts/build.mjs'], {});
}

/** The latest change (milliseconds) among files and folders; folders count, so a deleted file is noticed. */
function newest(names) {
  let latest = 0;
  for (const name of names) {
    if (!existsSync(name)) continue;
    const stat = statSync(name);
    latest = Math.max(latest, stat.mtimeMs);
    if (stat.isDirectory()) latest = Math.max(latest, newest(readdirSync(name).map((entry) => path.join(name, entry))));
  }
  return latest;
}

function present(what) {
  if (path.isAbsolute(what)) return existsSync(what);
  return PATHS.some((dir) => {
    try {
      accessSync(path.join(dir, what), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Runs a command to its end, its output ours unless `quiet`; a failure ends the set-up, naming the step. */
function run(name, command, args, { env = process.env, quiet = false }) {
  const result = spawnSync(command, args, { env, stdio: quiet ? 'pipe' : ['ignore', 2, 2], encoding: 'utf8' });
  if (result.error) fail(name, `${command}: ${result.error.message}`);
  const output = quiet ? result.stdout + result.stderr : '';
  if (result.status !== 0) {
    fail(name, `${output}"${command} ${args.join(' ')}" ended with ${result.signal ?? result.status}`);
  }
  return output;
}

function step(text) {
  process.stderr.write(`setup: ${text}\n`);
}

function fail(name, text) {
  process.stderr.write(`setup failed at ${name}: ${text}\n`);
  process.exit(1);
}
