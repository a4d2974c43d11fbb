#!/usr/bin/env node
/**
 * `npm run test:compose`: builds the image and runs docker-compose.yml with a real engine, from nothing, and checks that
 * traffic crosses hutter and is translated. With a Docker engine that answers, that one is used. Without, on Debian and as
 * root, one is made for the occasion: Debian's docker.io, a base image by debootstrap with Node from npm, a daemon for the build and then one in a
 * network namespace of its own for the run, so that the machine's own network sees none of it. Everything but the
 * installed packages is removed at the end.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

process.chdir(path.join(path.dirname(fileURLToPath(import.meta.url)), '..'));

const BASE_IMAGE = 'node:20-bookworm-slim';
const PACKAGES = ['debootstrap', 'docker.io', 'docker-compose', 'iproute2', 'iptables', 'util-linux'];
const id = randomBytes(3).toString('hex');
const project = `hutter-test-${id}`;

const say = (text) => console.log(text);

/** Runs a command to its end with its output shown only if it fails. */
function run(command, args, options = {}) {
  try {
    return execFileSync(command, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      maxBuffer: 1 << 28,
      ...options,
    });
  } catch (error) {
    const output = [error.stdout, error.stderr].filter(Boolean).join('\n').trim().split('\n').slice(-40).join('\n');
    throw new Error(`${command} ${args.join(' ')}\n${output || error.message}`);
  }
}
const works = (command, args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/** Undone in reverse order on every way out. */
const undo = [];
async function cleanUp() {
  for (const step of undo.splice(0).reverse()) {
    try {
      await step();
    } catch (error) {
      console.error(`clean-up: ${error.message}`);
    }
  }
}

/** An engine: how `docker` and compose are called, and how the image is built. */
function presentEngine() {
  if (!works('docker', ['info'])) return undefined;
  const compose = works('docker', ['compose', 'version']) ? ['docker', 'compose'] : ['docker-compose'];
  if (compose.length === 1 && !works('docker-compose', ['version'])) return undefined;
  say('using the Docker engine of this machine');
  return {
    environment: process.env,
    compose,
    docker: 'docker',
    async prepare() {
      run('docker', ['build', '--tag', 'hutter', '.']);
    },
  };
}

/** The machine's mirror for its Debian release, as apt has it configured. */
function mirror(codename) {
  const targets = run('apt-get', ['indextargets', '--format', '$(REPO_URI) $(CODENAME) $(COMPONENT)']);
  const target = targets.split('\n').find((line) => line.endsWith(` ${codename} main`));
  if (!target) throw new Error(`apt knows no mirror of ${codename} main: run apt-get update`);
  return target.split(' ')[0];
}

function ownEngine() {
  if (process.getuid() !== 0) throw new Error('no Docker engine answers, and making one needs root');
  if (!existsSync('/etc/debian_version')) throw new Error('no Docker engine answers: start one, or run this on Debian');
  const work = mkdtempSync(path.join(tmpdir(), 'hutter-compose-'));
  undo.push(() => {
    // The daemon leaves its hold on a network namespace mounted.
    const mounts = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '');
    for (const mount of mounts.filter((name) => name.startsWith(`${work}/`)).reverse()) run('umount', ['-l', mount]);
    rmSync(work, { recursive: true, force: true, maxRetries: 5, retryDelay: 500 });
  });
  const socket = `unix://${work}/docker.sock`;
  const namespace = project;
  const docker = '/usr/bin/docker';
  const environment = { ...process.env, DOCKER_HOST: socket, DOCKER_BUILDKIT: '0', COMPOSE_DOCKER_CLI_BUILD: '0' };

  const missing = PACKAGES.filter((name) => !installed(name));
  if (missing.length > 0) {
    say(`installing ${missing.join(', ')}`);
    const apt = { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
    run('apt-get', ['update', '-qq'], apt);
    run('apt-get', ['install', '-qq', '--yes', '--no-install-recommends', ...missing], apt);
  }

  /** Starts dockerd, in a network namespace if one is named, and waits until it answers; returns how to stop it. */
  async function startDaemon(inside, options) {
    const program = inside ? ['nsenter', `--net=/run/netns/${inside}`, 'dockerd'] : ['dockerd'];
    const folders = ['--data-root', `${work}/data`, '--exec-root', `${work}/exec`, '--pidfile', `${work}/docker.pid`];
    const daemon = spawn(program[0], [...program.slice(1), '--host', socket, ...folders, ...options], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let log = '';
    for (const stream of [daemon.stdout, daemon.stderr]) stream.on('data', (chunk) => (log += chunk));
    const ended = new Promise((resolve) => daemon.on('close', resolve));
    let stopped = false;
    const stop = async () => {
      if (stopped) return;
      stopped = true;
      daemon.kill('SIGTERM');
      await Promise.race([ended, sleep(20_000).then(() => daemon.kill('SIGKILL'))]);
    };
    undo.push(stop);
    for (let tries = 0; spawnSync(docker, ['info'], { env: environment, stdio: 'ignore' }).status !== 0; tries++) {
      if (daemon.exitCode !== null || tries > 150)
        throw new Error(`dockerd does not answer:\n${log.split('\n').slice(-20).join('\n')}`);
      await sleep(200);
    }
    return stop;
  }

  function makeBaseImage() {
    say('making the base image');
    const base = path.join(work, 'base');
    const codename = 'bookworm';
    run('debootstrap', ['--variant=minbase', codename, base, mirror(codename)]);
    // The machine's way to its mirror and registry becomes the image's, and nothing of it is kept anywhere else.
    for (const file of ['sources.list', 'sources.list.d']) {
      if (existsSync(`/etc/apt/${file}`)) cpSync(`/etc/apt/${file}`, `${base}/etc/apt/${file}`, { recursive: true });
    }
    const proxies = run('apt-config', ['dump', 'Acquire'])
      .split('\n')
      .filter((line) => /::Proxy/.test(line));
    writeFileSync(`${base}/etc/apt/apt.conf.d/90machine`, `${proxies.join('\n')}\n`);
    const certificates = '/etc/ssl/certs/ca-certificates.crt';
    mkdirSync(path.dirname(base + certificates), { recursive: true });
    if (existsSync(certificates)) cpSync(certificates, base + certificates);

    const npm = path.join(work, 'npm');
    mkdirSync(npm);
    run('npm', ['install', '--prefix', npm, '--no-save', `node-linux-${process.arch}@20`, 'npm@10']);
    const node = path.join(npm, 'node_modules', `node-linux-${process.arch}`);
    for (const folder of ['bin', 'include'])
      cpSync(path.join(node, folder), `${base}/usr/local/${folder}`, { recursive: true });
    mkdirSync(`${base}/usr/local/lib/node_modules`, { recursive: true });
    cpSync(path.join(npm, 'node_modules/npm'), `${base}/usr/local/lib/node_modules/npm`, { recursive: true });
    for (const name of ['npm', 'npx']) {
      rmSync(`${base}/usr/local/bin/${name}`, { force: true });
      symlinkSync(`../lib/node_modules/npm/bin/${name}-cli.js`, `${base}/usr/local/bin/${name}`);
    }
    mkdirSync(`${base}/usr/local/etc`, { recursive: true });
    const registry = run('npm', ['config', 'get', 'registry']).trim();
    writeFileSync(
      `${base}/usr/local/etc/npmrc`,
      `registry=${registry}\n${existsSync(certificates) ? `cafile=${certificates}\n` : ''}`,
    );
    const change = 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
    run('sh', ['-c', `tar -C "$1" -c . | ${docker} import --change "$2" - ${BASE_IMAGE}`, 'sh', base, change], {
      env: environment,
    });
    rmSync(base, { recursive: true, force: true });
    rmSync(npm, { recursive: true, force: true });
  }

  return {
    environment,
    compose: ['/usr/bin/docker-compose'],
    docker,
    async prepare() {
      // No bridge and no rules: this daemon only builds, with the machine's own network for apt and npm.
      const untouched = [
        '--bridge=none',
        '--iptables=false',
        '--ip6tables=false',
        '--ip-forward=false',
        '--ip-masq=false',
      ];
      const stop = await startDaemon(undefined, untouched);
      makeBaseImage();
      say('building the image');
      const proxies = ['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY'];
      const passed = proxies.filter((name) => process.env[name]).flatMap((name) => ['--build-arg', name]);
      run(docker, ['build', '--network', 'host', ...passed, '--tag', 'hutter', '.'], { env: environment });
      await stop();
      run('ip', ['netns', 'add', namespace]);
      undo.push(() => run('ip', ['netns', 'delete', namespace]));
      run('ip', ['-n', namespace, 'link', 'set', 'lo', 'up']);
      await startDaemon(namespace, ['--bridge=none']);
    },
  };
}

/** Whether dpkg has the package installed and not only configured. */
function installed(name) {
  const result = spawnSync('dpkg-query', ['--show', '--showformat', '${db:Status-Status}', name], { encoding: 'utf8' });
  return result.stdout === 'installed';
}

/** The checks, in order. `compose` runs a compose command and returns its output. */
async function check(compose) {
  const inside = (service, ...command) => compose('exec', '-T', service, ...command);
  /** One line from a TCP port, or the error's code, asked from inside a service. */
  const connect = (service, address, port) =>
    inside(
      service,
      'node',
      '-e',
      `const s = require('net').connect(${port}, '${address}');
       s.setTimeout(10000, () => (console.log('ETIMEDOUT'), s.destroy()));
       s.on('error', (e) => console.log(e.code)).on('data', (d) => process.stdout.write(String(d)));`,
    ).trim();
  let failures = 0;
  const expect = (what, actual, wanted) => {
    const good = wanted instanceof RegExp ? wanted.test(actual) : actual === wanted;
    say(`${good ? 'ok    ' : 'not ok'} ${what}`);
    if (good) return;
    failures++;
    say(`       wanted ${wanted}\n       got    ${actual}`);
  };

  let log = '';
  for (let tries = 0; tries < 60 && !log.includes('knock speaking'); tries++) {
    await sleep(500);
    log = compose('logs', 'orlock');
  }
  expect(
    'orlock fetches a page from knock through hutter, and knock sees 128.61.70.47',
    log,
    /knock speaking; you are 128\.61\.70\.47/,
  );
  expect(
    'knock reaches orlock through port 6346 of hutter',
    connect('knock', '128.61.70.47', 6346),
    'orlock speaking; you are 128.61.70.200',
  );
  expect('ident is answered with a reset', connect('knock', '128.61.70.47', 113), 'ECONNREFUSED');
  const nat = inside('hutter', 'hutter', 'iptables-save', '-c', '-t', 'nat');
  expect('hutter counted what it translated', nat, /^\[[1-9]\d*:\d+\] -A POSTROUTING .*-j SNAT/m);
  expect('and what it forwarded', nat, /^\[[1-9]\d*:\d+\] -A PREROUTING .*-j DNAT/m);
  const kernel = inside('hutter', 'sh', '-c', 'iptables-save -t nat; iptables-legacy-save -t nat');
  expect(
    'the kernel has no such rule: it was hutter',
    kernel,
    /^(?![\s\S]*(SNAT|MASQUERADE) .*(?:if1|128\.61\.70\.47))/,
  );
  const status = inside('hutter', 'sh', '-c', 'cat /proc/1/status');
  expect(
    'hutter has NET_ADMIN, NET_RAW and SYS_NICE and nothing else',
    /^CapEff:\s*(\w+)/m.exec(status)?.[1],
    '0000000000803000',
  );
  const threads = inside('hutter', 'sh', '-c', 'cat /proc/1/task/*/stat');
  expect('its worker goes before its other threads', threads, /^\d+ \(.*\) (?:\S+ ){15}10 -10 /m);
  expect('it can gain no privilege', /^NoNewPrivs:\s*(\d)/m.exec(status)?.[1], '1');
  const tools = inside(
    'hutter',
    'sh',
    '-c',
    'for tool in cc gcc g++ clang make; do command -v $tool || true; done',
  ).trim();
  expect('there is no compiler in the image', tools, '');
  if (failures > 0) {
    for (const ask of [['status'], ['conntrack', '-L'], ['iptables-save', '-c']])
      say(inside('hutter', 'hutter', ...ask));
    say(inside('orlock', 'ip', '-s', 'address'));
  }
  compose('kill', '-s', 'KILL', 'hutter');
  await sleep(4000);
  const after = compose('logs', '--tail=1', 'orlock');
  expect('without hutter nothing crosses', after, /no page/);
  return failures;
}

async function main() {
  const engine = presentEngine() ?? ownEngine();
  await engine.prepare();
  const [command, ...first] = engine.compose;
  const compose = (...args) =>
    run(command, [...first, '--project-name', project, ...args], { env: engine.environment });
  undo.push(() => void compose('down', '--volumes', '--timeout', '5'));
  say('starting orlock, hutter and knock');
  compose('up', '--detach', '--no-build');
  let health = '';
  for (let tries = 0; tries < 120 && health !== 'healthy'; tries++) {
    await sleep(500);
    const container = compose('ps', '--quiet', 'hutter').trim();
    if (container === '') continue;
    const inspect = ['inspect', '--format', '{{.State.Status}} {{.State.Health.Status}}', container];
    const state = run(engine.docker, inspect, { env: engine.environment }).trim();
    health = state.split(' ')[1];
    if (state.startsWith('exited')) break;
  }
  if (health !== 'healthy')
    throw new Error(`hutter does not become healthy:\n${compose('logs', '--tail=50', 'hutter')}`);
  say('ok     hutter is healthy');
  const failures = await check(compose);
  return failures === 0 ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => void cleanUp().then(() => process.exit(130)));
let code = 1;
try {
  code = await main();
} catch (error) {
  console.error(error.message);
} finally {
  await cleanUp();
}
process.exitCode = code;
