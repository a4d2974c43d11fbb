#!/usr/bin/env node
/**
 * `npm run test:drivers [NAME…]`: the programs that people write their rules with (ufw, shorewall, ferm, fail2ban, …), as Debian
 * ships them, drive iptables-legacy and then hutter. Each test/drivers/NAME.sh runs once for each engine, in a network namespace and on a
 * throw-away overlay of this machine's files; what it prints and the rules it leaves must be equal. Needs root, and Debian's
 * archive for the programs; leaves nothing behind.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const folder = path.join(root, 'test/drivers');
const ENGINES = ['legacy', 'hutter'];
/** The tool's three commands → hutter's. */
const COMMANDS = ['iptables', 'iptables-save', 'iptables-restore'];

/** A driver's first comment line names its Debian packages: `# packages: ufw`. */
const drivers = readdirSync(folder)
  .filter((file) => file.endsWith('.sh'))
  .map((file) => {
    const script = path.join(folder, file);
    const packages = /^# packages: (.+)$/m.exec(readFileSync(script, 'utf8'));
    if (!packages) throw new Error(`${script} names no packages`);
    return { name: path.basename(file, '.sh'), script, packages: packages[1].split(' ') };
  });
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !drivers.some((driver) => driver.name === name));
if (unknown.length > 0)
  fail(`no such driver: ${unknown.join(', ')}; there are ${drivers.map(({ name }) => name).join(', ')}`);
if (process.getuid?.() !== 0) fail('this needs root: namespaces and mounts');
if (!existsSync(path.join(root, 'dist/bin/hutter.mjs'))) fail('nothing is built: run npm run build');

// All of it happens in a mount namespace that ends with it, on a tmpfs: an overlay can't lie on the files that it covers.
const inNamespace = 'HUTTER_DRIVERS_WORK';
if (process.env[inNamespace] === undefined) {
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-drivers-'));
  const mounted = 'mount -t tmpfs hutter-drivers "$HUTTER_DRIVERS_WORK" && exec "$@"';
  const argv = ['--mount', 'bash', '-c', mounted, 'drivers', process.execPath, ...process.argv.slice(1)];
  const { status } = spawnSync('unshare', argv, { stdio: 'inherit', env: { ...process.env, [inNamespace]: folder } });
  rmSync(folder, { recursive: true, force: true });
  process.exit(status ?? 1);
}
const work = process.env[inNamespace];
const layers = { packages: path.join(work, 'packages'), run: path.join(work, 'run') };
let failed = 0;
let passed = 0;
try {
  installInto(layers.packages, [...new Set(drivers.flatMap(({ packages }) => packages))]);
  for (const driver of drivers) {
    if (wanted.length > 0 && !wanted.includes(driver.name)) continue;
    const [legacy, hutter] = [await drive(driver, 'legacy'), await drive(driver, 'hutter')];
    compare(driver.name, 'says', legacy.printed, hutter.printed);
    compare(driver.name, 'rules', legacy.rules, hutter.rules);
  }
} catch (error) {
  failed++;
  console.error(error.message);
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;

/** Installs packages into a folder over this machine's files; the machine itself stays as it is. */
function installInto(upper, packages) {
  mkdirSync(upper, { recursive: true });
  const script = [
    'printf "#!/bin/sh\\nexit 101\\n" > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d',
    'export DEBIAN_FRONTEND=noninteractive',
    `dpkg -s ${packages.join(' ')} > /dev/null 2>&1 || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends ${packages.join(' ')}; }`,
  ];
  const { status, stdout, stderr } = onOverlay([], '/', upper, script.join('\n'));
  if (status !== 0) throw new Error(`installing ${packages.join(' ')}:\n${stdout}${stderr}`);
}

/**
 * Runs a bash script with `/` being an overlay whose changes go to `upper`; /proc, /sys, /dev, /run and the temporary folder are
 * the machine's own.
 */
function onOverlay(prefix, lower, upper, script) {
  const mount = path.join(work, 'mount');
  const scratch = path.join(work, 'scratch');
  for (const dir of [mount, scratch]) mkdirSync(dir, { recursive: true });
  const outer = [
    'set -e',
    `mount -t overlay overlay -o lowerdir=${lower},upperdir=${upper},workdir=${scratch} ${mount}`,
    `for dir in proc sys dev run tmp; do mount --rbind /$dir ${mount}/$dir; done`,
    ...(work.startsWith('/tmp/') ? [] : [`mkdir -p ${mount}${work} && mount --rbind ${work} ${mount}${work}`]),
    `exec chroot ${mount} bash -c "$1"`,
  ].join('\n');
  const command = [...prefix, 'unshare', '--mount', 'bash', '-c', outer, 'overlay', script];
  return spawnSync(command[0], command.slice(1), { encoding: 'utf8', timeout: 600_000, maxBuffer: 1 << 26 });
}

/** One driver against one engine, in a router's namespace of its own with the interfaces eth0 and eth1. */
async function drive({ name, script }, engine) {
  const namespace = `hutter-driver-${randomBytes(3).toString('hex')}`;
  const inside = ['ip', 'netns', 'exec', namespace];
  const ip = (...args) => execFileSync('ip', ['-n', namespace, ...args]);
  const control = path.join(work, `${namespace}.sock`);
  execFileSync('ip', ['netns', 'add', namespace]);
  let router;
  try {
    ip('link', 'set', 'lo', 'up');
    for (const [device, address] of [
      ['eth0', '192.0.2.1/24'],
      ['eth1', '10.1.1.1/24'],
    ]) {
      ip('link', 'add', device, 'type', 'veth', 'peer', 'name', `far-${device}`);
      ip('addr', 'add', address, 'dev', device);
      for (const end of [device, `far-${device}`]) ip('link', 'set', end, 'up');
    }
    execFileSync(inside[0], [...inside.slice(1), 'sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    if (engine === 'hutter') router = await startRouter(inside, control);

    rmSync(layers.run, { recursive: true, force: true });
    mkdirSync(layers.run);
    const programs = placePrograms(engine, control);
    const body = [
      programs,
      'export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C',
      readFileSync(script, 'utf8'),
      'echo "exit $?"',
    ].join('\n');
    const { stdout, stderr, error } = onOverlay(inside, `${layers.packages}:/`, layers.run, `exec 2>&1\n${body}`);
    if (error) throw error;
    const save =
      engine === 'hutter'
        ? execFileSync(path.join(root, 'dist/bin/hutter-iptables-save.cjs'), {
            env: { ...process.env, HUTTER_CONTROL: control },
          })
        : execFileSync(inside[0], [...inside.slice(1), 'iptables-legacy-save']);
    return { printed: withoutWarning(stdout + stderr), rules: rulesOnly(save.toString('latin1')) };
  } catch (error) {
    throw new Error(`${name} with ${engine}: ${error.message}`);
  } finally {
    if (router) {
      router.kill('SIGTERM');
      await new Promise((resolve) => router.on('close', resolve));
    }
    execFileSync('ip', ['netns', 'del', namespace]);
  }
}

async function startRouter(inside, control) {
  const empty = path.join(work, 'empty.rules');
  writeFileSync(empty, '');
  const argv = [...inside.slice(1), process.execPath, path.join(root, 'dist/bin/hutter.mjs'), 'up', '--rules', empty];
  const router = spawn(inside[0], [...argv, '--control', control], { stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  for (const stream of [router.stdout, router.stderr]) stream.on('data', (chunk) => (printed += chunk));
  for (let i = 0; i < 600 && !printed.includes(' is up'); i++) {
    if (router.exitCode !== null) throw new Error(`the router ended: ${printed}`);
    await sleep(50);
  }
  return router;
}

/** Shell text that makes every name of iptables mean one engine. ip6tables is the kernel's for both. */
function placePrograms(engine, control) {
  const legacy = '/usr/sbin/xtables-legacy-multi';
  const lines = [`cp ${legacy} /usr/sbin/xtables-real`];
  const target = path.join(work, 'multi');
  const cases = COMMANDS.map((name) => {
    const command = path.join(root, `dist/bin/hutter-${name}.cjs`);
    return `${name}|${name.replace('iptables', 'iptables-legacy')}) exec ${process.execPath} ${command} "$@" ;;`;
  });
  writeFileSync(
    target,
    [
      '#!/bin/bash',
      `export HUTTER_CONTROL=${control}`,
      'name=${0##*/}',
      'case $name in',
      ...(engine === 'hutter' ? cases : []),
      '*) exec -a $name /usr/sbin/xtables-real "$@" ;;',
      'esac',
    ].join('\n') + '\n',
  );
  chmodSync(target, 0o755);
  lines.push(`cp --remove-destination ${target} ${legacy}`);
  for (const family of ['iptables', 'ip6tables'])
    for (const suffix of ['', '-save', '-restore'])
      lines.push(`ln -sf /usr/sbin/${family}-legacy${suffix} /etc/alternatives/${family}${suffix}`);
  return lines.join('\n');
}

/**
 * Comments carry the time, and counters what the namespace's own traffic was; shorewall names two empty chains after a digest of its
 * script, which begins with the time.
 */
function rulesOnly(text) {
  return text
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, '').replace(/\b(sha-[lr]h)-[0-9a-f]{20}\b/, '$1'))
    .join('\n');
}

/** hutter's warning about connection helpers that nothing reads is a difference that docs/DIFFERENCES.md names. */
function withoutWarning(text) {
  return text.replace(/^Warning: -j CT: nothing reads .*\n/gm, '');
}

function compare(name, what, expected, found) {
  if (expected === found && expected.trim() !== '') {
    passed++;
    console.log(`ok: ${name}: ${what} equal (${expected.split('\n').length - 1} lines)`);
    return;
  }
  failed++;
  const [left, right] = ENGINES.map((engine) => path.join(work, `${engine}.txt`));
  writeFileSync(left, expected);
  writeFileSync(right, found);
  const { stdout } = spawnSync('diff', ['-u', left, right], { encoding: 'utf8' });
  console.log(`not ok: ${name}: ${what} ${expected === found ? 'empty on both sides' : `differ\n${stdout}`}`);
}

function fail(message) {
  console.error(`test:drivers: ${message}`);
  process.exit(2);
}
