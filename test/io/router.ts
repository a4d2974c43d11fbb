/**
 * The test's own process becomes a router between two peers:
 *
 *     namespace a                 this process                  namespace b
 *     eth0 10.7.1.2 ─────── in0 10.7.1.1 │ 10.7.2.1 out0 ─────── eth0 10.7.2.2
 *
 * `becomeRouter` starts the test file again inside a network namespace of its own (unshare -n) and builds that picture;
 * the namespaces have no names: they go away with the processes in them, however those end.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { readlinkSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const MARKER = 'HUTTER_TEST_NAMESPACE';
const PEER = path.join(path.dirname(fileURLToPath(import.meta.url)), 'peer.js');

export const run = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

export interface Router {
  readonly a: Peer;
  readonly b: Peer;
}

export class Peer {
  private readonly enter: string;
  /** `pid`: a process that lives in the namespace. */
  constructor(readonly pid: number) {
    this.enter = `--net=/proc/${String(pid)}/ns/net`;
  }
  run(command: string, ...args: string[]): string {
    return run('nsenter', this.enter, command, ...args);
  }
  /** Starts peer.ts with `args` and resolves when it says that it is ready. */
  async start(...args: string[]): Promise<PeerProcess> {
    const child = spawn('nsenter', [this.enter, process.execPath, PEER, ...args]);
    const peer = new PeerProcess(child);
    await peer.line('ready');
    return peer;
  }
}

export class PeerProcess {
  /** Lines it wrote. */
  readonly lines: string[] = [];
  exited = false;
  private rest = '';

  constructor(private readonly child: ChildProcessWithoutNullStreams) {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.rest + text).split('\n');
      this.rest = lines.pop()!;
      this.lines.push(...lines);
    });
    child.stderr.pipe(process.stderr);
    child.on('exit', () => (this.exited = true));
  }

  async line(wanted: string): Promise<void> {
    const deadline = Date.now() + 10_000;
    while (!this.lines.includes(wanted)) {
      if (this.exited || Date.now() > deadline) throw new Error(`a peer never said "${wanted}"`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  tell(line: string): void {
    this.child.stdin.write(line + '\n');
  }

  stop(): void {
    this.child.kill('SIGKILL');
  }
}

/** Puts the calling test file into its own namespace. Returns only there. */
export async function becomeRouter(url: string): Promise<Router> {
  if (process.env[MARKER] === undefined) {
    if (process.getuid?.() !== 0) throw new Error('this test needs root: it makes network namespaces');
    const child = spawnSync('unshare', ['-n', process.execPath, fileURLToPath(url)], {
      stdio: 'inherit',
      env: { ...process.env, [MARKER]: '1' },
    });
    process.exit(child.status ?? 1);
  }
  run('ip', 'link', 'set', 'lo', 'up');
  const peers: Peer[] = [];
  for (const [device, net] of [
    ['in0', '10.7.1'],
    ['out0', '10.7.2'],
  ] as const) {
    // It ends when its input does: when this process ends.
    const holder = spawn('unshare', ['-n', 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] });
    holder.unref();
    (holder.stdin as Socket).unref();
    const peer = new Peer(holder.pid!);
    await until(
      () => undefined,
      () => readlinkSync(`/proc/${String(peer.pid)}/ns/net`) !== readlinkSync('/proc/self/ns/net'),
    );
    peers.push(peer);
    run('ip', 'link', 'add', device, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(peer.pid));
    run('ip', 'addr', 'add', `${net}.1/24`, 'dev', device);
    run('ip', 'link', 'set', device, 'up');
    peer.run('ip', 'link', 'set', 'lo', 'up');
    peer.run('ip', 'addr', 'add', `${net}.2/24`, 'dev', 'eth0');
    peer.run('ip', 'link', 'set', 'eth0', 'up');
    peer.run('ip', 'route', 'add', 'default', 'via', `${net}.1`);
  }
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  return { a: peers[0]!, b: peers[1]! };
}

/** Runs `step` again and again, letting events in between, until `done` or the deadline; returns whether it was done. */
export async function until(step: () => void, done: () => boolean, timeoutMs = 10_000): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  while (!done()) {
    if (Date.now() > deadline) return false;
    step();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return true;
}
