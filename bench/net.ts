/**
 * Networks for benches: namespaces of our own with unique names, joined by veth pairs, and processes in them. Everything
 * made here is undone by `close`, which the bench calls on every way out. Nothing outside the namespaces is touched.
 *
 *     sender 192.168.73.4 ── if0 192.168.73.1 [router] 128.61.70.47 if1 ── 128.61.70.200 sink (all of 128.61.71.0/24)
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

export const SENDER = '192.168.73.4';
export const ROUTER_OUT = '128.61.70.47';
/** The first of the addresses that the sink answers for. */
export const SINK_FIRST = '128.61.71.1';

export type Place = 'sender' | 'router' | 'sink';

/** Cores for the sender and the router; with one core they share it, and the figures say little. */
export const SENDER_CORE = 0;
export const ROUTER_CORE = availableParallelism() > 1 ? 1 : 0;

/** Runs a program to its end. @throws Error with what it wrote on stderr. */
export function run(command: string, args: readonly string[], input?: string): string {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'], input: input ?? '' });
  } catch (error) {
    const stderr = (error as { stderr?: string }).stderr ?? '';
    throw new Error(`${command} ${args.join(' ')}: ${stderr.trim() || (error as Error).message}`);
  }
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits for a condition, asked every 20 ms. @throws Error naming it when it does not hold within `ms`. */
export async function until(what: string, condition: () => boolean, ms = 10_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
    await sleep(20);
  }
}

/** A program started in a namespace: its output so far, its processor time, and its end. */
export class Program {
  stdout = '';
  stderr = '';
  /** hutter's control socket. */
  control: string | undefined;
  readonly #ended: Promise<void>;

  constructor(
    readonly name: string,
    readonly child: ChildProcess,
  ) {
    child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#ended = new Promise((resolve) => child.on('close', () => resolve()));
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Why it ended, in a line: the error that it printed, else the last thing it said. */
  get lastWords(): string {
    const lines = (this.stderr.trim() || this.stdout.trim()).split('\n');
    return lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1) ?? '';
  }

  /** @throws Error when it ends before it says so. */
  async ready(text = 'ready'): Promise<this> {
    await until(`${this.name} to say "${text}"`, () => this.stdout.includes(text) || !this.running);
    if (!this.running) throw new Error(`${this.name} ended: ${this.lastWords}`);
    return this;
  }

  /** Microseconds of processor time that all its threads used, from /proc/PID/stat in ticks of 10 ms. */
  cpu(): Cpu {
    const fields = readFileSync(`/proc/${this.child.pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ');
    return { user: Number(fields[11]) * 10_000, system: Number(fields[12]) * 10_000 };
  }

  /** Waits for its end, killing it if it takes longer than `ms`. */
  async end(ms = 10_000): Promise<void> {
    const timer = setTimeout(() => this.child.kill('SIGKILL'), ms);
    await this.#ended;
    clearTimeout(timer);
  }

  /** Bytes of memory that it has (VmRSS). */
  memory(): number {
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.child.pid}/status`, 'latin1'))![1]) * 1024;
  }

  /** Ends it by SIGTERM and returns the JSON of its last line, if that is JSON. */
  async stop<T>(): Promise<T | undefined> {
    if (this.running) this.child.kill('SIGTERM');
    await this.end();
    const last = this.stdout.trimEnd().split('\n').at(-1) ?? '';
    return last.startsWith('{') ? (JSON.parse(last) as T) : undefined;
  }
}

export interface Cpu {
  readonly user: number;
  readonly system: number;
}

/** What /proc/net/netfilter/nfnetlink_queue tells about all queues of a namespace together, since they were bound. */
export interface QueueCounts {
  /** Packets handed over to user space. */
  readonly taken: number;
  /** Dropped since the queue was full. */
  readonly queue: number;
  /** Dropped since the socket's memory was. */
  readonly user: number;
}

export class Network {
  readonly #programs: Program[] = [];
  /** A process asleep in each namespace: /proc/PID/net of it shows that namespace's counters. */
  readonly #holders = {} as Record<Place, Program>;

  namespace(place: Place): string {
    return `hutter-bench-${process.pid}-${place}`;
  }

  /** Builds the network. @throws Error when not root or the kernel lacks something. */
  async open(): Promise<void> {
    if (process.getuid?.() !== 0) throw new Error('network benches need root: namespaces and NFQUEUE are made');
    for (const place of ['sender', 'router', 'sink'] as const) {
      run('ip', ['netns', 'add', this.namespace(place)]);
      this.ip(place, 'link set lo up');
      this.#holders[place] = this.start(place, 'sleep', ['infinity']);
    }
    this.#join('sender', 'if0', 'router', 'if0');
    this.#join('router', 'if1', 'sink', 'if1');
    this.ip('sender', `addr add ${SENDER}/24 dev if0`);
    this.ip('router', 'addr add 192.168.73.1/24 dev if0');
    this.ip('router', `addr add ${ROUTER_OUT}/24 dev if1`);
    this.ip('sink', 'addr add 128.61.70.200/24 dev if1');
    for (const [place, device] of [
      ['sender', 'if0'],
      ['router', 'if0'],
      ['router', 'if1'],
      ['sink', 'if1'],
    ] as const) {
      this.ip(place, `link set ${device} up`);
    }
    this.ip('sender', 'route add default via 192.168.73.1');
    this.ip('router', 'route add 128.61.71.0/24 via 128.61.70.200');
    this.ip('sink', 'route add local 128.61.71.0/24 dev lo');
    this.ip('sink', `route add 192.168.73.0/24 via ${ROUTER_OUT}`);
    this.sysctl('router', 'net.ipv4.ip_forward', '1');
    for (const device of ['if0', 'if1']) this.sysctl('router', `net.ipv4.conf.${device}.rp_filter`, '0');
    this.sysctl('router', 'net.ipv4.conf.all.rp_filter', '0');
    // Neighbours are known before anything is measured.
    run('ip', ['netns', 'exec', this.namespace('sender'), 'ping', '-c1', '-W2', SINK_FIRST]);
  }

  #join(left: Place, leftName: string, right: Place, rightName: string): void {
    run('ip', [
      ...['link', 'add', leftName, 'netns', this.namespace(left), 'type', 'veth'],
      ...['peer', 'name', rightName, 'netns', this.namespace(right)],
    ]);
  }

  ip(place: Place, args: string): string {
    return run('ip', ['-n', this.namespace(place), ...args.split(' ')]);
  }

  sysctl(place: Place, key: string, value: string): void {
    this.exec(place, 'sysctl', ['-qw', `${key}=${value}`]);
  }

  /** Runs a program in a namespace to its end. */
  exec(place: Place, command: string, args: readonly string[], input?: string): string {
    return run('ip', ['netns', 'exec', this.namespace(place), command, ...args], input);
  }

  /** Starts a program in a namespace, on one core if asked. */
  start(place: Place, command: string, args: readonly string[], core?: number): Program {
    const pinned = core === undefined ? [] : ['taskset', '-c', String(core)];
    const child = spawn('ip', ['netns', 'exec', this.namespace(place), ...pinned, command, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const program = new Program(command, child);
    this.#programs.push(program);
    return program;
  }

  /** A file below /proc/net of a namespace. */
  procNet(place: Place, file: string): string {
    return readFileSync(`/proc/${this.#holders[place].child.pid}/net/${file}`, 'latin1');
  }

  /** Packets received and sent by an interface. */
  counters(place: Place, device: string): { received: number; sent: number } {
    const line = this.procNet(place, 'dev')
      .split('\n')
      .find((text) => text.trimStart().startsWith(`${device}:`));
    const fields = (line ?? '').replace(/^.*:/, '').trim().split(/\s+/).map(Number);
    return { received: fields[1]!, sent: fields[9]! };
  }

  queue(): QueueCounts {
    const sum = { taken: 0, queue: 0, user: 0 };
    for (const line of this.procNet('router', 'netfilter/nfnetlink_queue').trim().split('\n')) {
      const fields = line.trim().split(/\s+/).map(Number);
      sum.queue += fields[5] ?? 0;
      sum.user += fields[6] ?? 0;
      // Every packet that found room in the queue got a number; those that then were not handed over are the second kind.
      sum.taken += (fields[7] ?? 0) - (fields[6] ?? 0);
    }
    return sum;
  }

  /** Ends every program and removes the namespaces with all that is in them. Safe to call twice. */
  async close(): Promise<void> {
    const programs = this.#programs.splice(0);
    for (const program of programs) if (program.running) program.child.kill('SIGTERM');
    for (const program of programs) await program.end(3000);
    const present = run('ip', ['netns', 'list']);
    for (const place of ['sender', 'router', 'sink'] as const) {
      if (present.includes(this.namespace(place))) run('ip', ['netns', 'delete', this.namespace(place)]);
    }
  }
}

/** Microseconds that the machine's processors were busy since boot: user, nice, system, irq, softirq. */
export function machineBusy(): number {
  const fields = /^cpu +(.*)$/m.exec(readFileSync('/proc/stat', 'latin1'))![1]!.split(' ').map(Number);
  return (fields[0]! + fields[1]! + fields[2]! + fields[5]! + fields[6]!) * 10_000;
}
