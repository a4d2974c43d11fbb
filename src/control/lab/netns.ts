/**
 * Networks made of namespaces, for `hutter lab` and the network tests.
 *
 * A Network owns namespaces called <prefix>-<pid>-<n>-<role>, the links between them and every process started in
 * them; `close` removes all of it. Nothing outside these namespaces is touched, /etc/netns/<name> (hosts files) apart.
 * Clean-up holds on every path: `close`, an exit or signal of the owner (`closeAll`), the owner's violent death
 * (children carry a parent-death signal) and, for what even that leaves, `sweep` removes networks of dead owners.
 * Main thread only; set-up commands are synchronous, as each takes a few milliseconds.
 */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { STATE_DIRECTORY } from '../divert.js';

export const PREFIX_LAB = 'hutter-lab';

/** What a finished command left. `code` is 128 + the signal's number if a signal ended it. */
export interface Output {
  code: number;
  stdout: string;
  stderr: string;
}

/** One end of a link: where, the device's name there, its addresses with prefix lengths. */
export interface LinkEnd {
  at: Namespace;
  dev: string;
  addresses?: string[];
}

export interface RunOptions {
  input?: string;
  env?: NodeJS.ProcessEnv;
  /** Milliseconds after which the command is killed; 20,000 if not given. */
  timeoutMs?: number;
}

const NETNS_DIR = '/run/netns';
const NETNS_ETC = '/etc/netns';
const DEFAULT_TIMEOUT_MS = 20_000;
/** Any name a Network of ours can have; the first group is the owner's process id. */
const OUR_NAME = /^hutter-[a-z]+-(\d+)-\d+-/;

/** Runs its arguments, unless the parent ($0) went before its death could be asked to be signalled. */
const IF_NOT_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"';

const open = new Set<Network>();
let made = 0;

export class Namespace {
  constructor(
    private readonly network: Network,
    readonly name: string,
    readonly role: string,
  ) {}

  /** Runs lines of `ip`'s batch language here, e.g. `link set eth0 up`. Throws with ip's own words. */
  ip(...lines: string[]): void {
    must('ip', ['-n', this.name, '-batch', '-'], lines.join('\n') + '\n');
  }

  /** Sets sysctls of this namespace, keys with dots or slashes: `net.ipv4.ip_forward`. */
  sysctl(values: Record<string, number | string>): void {
    const writes = Object.entries(values).map(
      ([key, value]) => `echo '${value}' > /proc/sys/${key.includes('/') ? key : key.replaceAll('.', '/')}`,
    );
    must('ip', ['netns', 'exec', this.name, 'sh', '-ec', writes.join('\n')]);
  }

  /** Gives processes started here from now on an /etc/hosts of their own. */
  hosts(lines: Record<string, string>): void {
    const dir = path.join(NETNS_ETC, this.name);
    mkdirSync(dir, { recursive: true });
    const text = Object.entries({ localhost: '127.0.0.1', ...lines }).map(([name, address]) => `${address}\t${name}\n`);
    writeFileSync(path.join(dir, 'hosts'), text.join(''));
  }

  /**
   * Starts a process here. It dies with this one, whatever way this one goes, and `Network.close` ends it.
   * The child is the command itself (`ip`, `setpriv` and `sh` replace themselves), so signals reach it.
   */
  spawn(command: string, args: string[], options: SpawnOptions = {}): ChildProcess {
    const follow = ['setpriv', '--pdeathsig', 'KILL', '--', 'sh', '-c', IF_NOT_ORPHANED, String(process.pid)];
    const argv = ['netns', 'exec', this.name, ...follow, command, ...args];
    // A session of its own: a terminal's Ctrl-C is this process's business, which then ends its children in order.
    const child = spawn('ip', argv, { ...options, detached: true });
    this.network.adopt(child);
    return child;
  }

  /** Runs a command here to its end. Never throws for what the command did; its code tells. */
  run(command: string, args: string[], options: RunOptions = {}): Promise<Output> {
    return finished(
      this.spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env: options.env ?? process.env }),
      options,
    );
  }

  /** The processes now in this namespace. */
  pids(): number[] {
    const result = spawnSync('ip', ['netns', 'pids', this.name], { encoding: 'utf8' });
    return (result.stdout ?? '').split(/\s+/).filter(Boolean).map(Number);
  }
}

export class Network {
  readonly namespaces: Namespace[] = [];
  /** A directory for sockets and files of this network; removed with it. */
  readonly dir: string;
  private readonly children = new Set<ChildProcess>();
  private readonly id: string;

  /** `prefix` is `hutter-` and one lower-case word; names are unique to this process and network. */
  constructor(prefix: string) {
    this.id = `${prefix}-${process.pid}-${made++}`;
    if (!OUR_NAME.test(`${this.id}-x`)) throw new Error(`network prefix "${prefix}" would escape the sweep`);
    this.dir = mkdtempSync(path.join(tmpdir(), `${this.id}-`));
    if (open.size === 0) process.once('exit', closeAll);
    open.add(this);
  }

  /** Makes a namespace with loopback up and IPv6 off (no router solicitations among the packets counted). */
  namespace(role: string): Namespace {
    const ns = new Namespace(this, `${this.id}-${role}`, role);
    must('ip', ['netns', 'add', ns.name]);
    this.namespaces.push(ns);
    ns.ip('link set lo up');
    if (existsSync('/proc/sys/net/ipv6')) {
      ns.sysctl({ 'net.ipv6.conf.all.disable_ipv6': 1, 'net.ipv6.conf.default.disable_ipv6': 1 });
    }
    return ns;
  }

  /** Joins two namespaces by a veth pair, both ends up. `mtu` in bytes, both ends. */
  link(a: LinkEnd, b: LinkEnd, mtu = 1500): void {
    a.at.ip(`link add ${a.dev} mtu ${mtu} type veth peer name ${b.dev} mtu ${mtu} netns ${b.at.name}`);
    for (const end of [a, b]) {
      end.at.ip(
        ...(end.addresses ?? []).map((address) => `address add ${address} dev ${end.dev}`),
        `link set ${end.dev} up`,
      );
    }
  }

  /** Makes the network responsible for ending a process. */
  adopt(child: ChildProcess): void {
    this.children.add(child);
    const gone = (): boolean => this.children.delete(child);
    child.once('exit', gone);
    child.once('error', gone);
  }

  /** Ends every process, gently first, then removes namespaces and files. Safe to call twice. */
  async close(graceMs = 3000): Promise<void> {
    const ends = [...this.children].map((child) => ended(child, graceMs));
    for (const child of this.children) child.kill('SIGTERM');
    await Promise.all(ends);
    this.closeNow();
  }

  /** As `close`, at once: for exit handlers, which cannot wait. */
  closeNow(): void {
    for (const child of this.children) child.kill('SIGKILL');
    for (const ns of this.namespaces.splice(0)) removeNamespace(ns.name);
    rmSync(this.dir, { recursive: true, force: true });
    open.delete(this);
  }
}

/** Removes every network of this process. Runs by itself at exit. */
export function closeAll(): void {
  for (const network of open) network.closeNow();
}

/** Lets SIGINT, SIGTERM and SIGHUP end the process through its exit handlers, so that networks go with it. */
export function closeAllOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }
}

/** Names of namespaces whose owner has died. */
export function orphans(): string[] {
  const names = new Set([NETNS_DIR, NETNS_ETC].flatMap((dir) => (existsSync(dir) ? readdirSync(dir) : [])));
  return [...names].filter((name) => {
    const owner = OUR_NAME.exec(name)?.[1];
    return owner !== undefined && !existsSync(`/proc/${owner}`);
  });
}

/** Removes what dead owners left behind; returns the names. */
export function sweep(): string[] {
  const names = orphans();
  for (const name of names) removeNamespace(name);
  for (const name of readdirSync(tmpdir())) {
    const owner = OUR_NAME.exec(name)?.[1];
    if (owner !== undefined && !existsSync(`/proc/${owner}`)) {
      rmSync(path.join(tmpdir(), name), { recursive: true, force: true });
    }
  }
  return names;
}

/** Collects a child's output until it ends; kills it after `timeoutMs`. A command that cannot start has code 127. */
export function finished(child: ChildProcess, options: RunOptions = {}): Promise<Output> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk));
  child.stdin?.on('error', () => undefined); // a command need not read its input
  child.stdin?.end(options.input ?? '');
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const timer = setTimeout(() => {
    err.push(Buffer.from(`killed after ${timeoutMs} ms\n`));
    child.kill('SIGKILL');
  }, timeoutMs);
  return new Promise((resolve) => {
    const done = (code: number): void => {
      clearTimeout(timer);
      resolve({ code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    };
    child.once('error', (error) => {
      err.push(Buffer.from(error.message));
      done(127);
    });
    child.once('close', (code, signal) => done(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}

/**
 * Waits until `probe` gives something other than undefined or false, asking every `everyMs`.
 * Throws after `timeoutMs`, naming `what`; `probe` throwing ends the wait at once.
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  { timeoutMs = 5000, everyMs = 10 } = {},
): Promise<Exclude<T, undefined | false>> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value as Exclude<T, undefined | false>;
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** Resolves when the child has gone; kills it after `graceMs`. */
function ended(child: ChildProcess, graceMs: number): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
    child.once('exit', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Kills what still runs in a namespace (only its owner's children can) and removes it with its /etc files. */
function removeNamespace(name: string): void {
  const pids = spawnSync('ip', ['netns', 'pids', name], { encoding: 'utf8' });
  for (const pid of (pids.stdout ?? '').split(/\s+/).filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // Gone by itself.
    }
  }
  const inode = statSync(path.join(NETNS_DIR, name), { throwIfNoEntry: false })?.ino;
  spawnSync('ip', ['netns', 'delete', name]);
  // A router that was killed here can't be undone any more, nor need it be.
  if (inode !== undefined) rmSync(path.join(STATE_DIRECTORY, `${inode}.json`), { force: true });
  rmSync(path.join(NETNS_ETC, name), { recursive: true, force: true });
}

/** Runs a set-up command; throws with the command and what it said. */
function must(command: string, args: string[], input = ''): string {
  const result = spawnSync(command, args, { input, encoding: 'utf8', timeout: DEFAULT_TIMEOUT_MS });
  if ((result.error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') {
    throw new Error(`the command ${command} is missing: install iproute2`);
  }
  if (result.error) throw new Error(`${command}: ${result.error.message}`);
  if (result.status !== 0) {
    throw new Error(`${command} ${args.join(' ')}${input && `\n${input}`}\n${result.stderr.trim()}`);
  }
  return result.stdout;
}
