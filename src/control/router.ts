/**
 * The running router as the main thread holds it: its workers, what they share, the program they run. No packet comes
 * here. A worker is a piscina task that never ends: it blocks in poll(), so all that is said to it goes through the
 * control block, its message port and its waker (dataplane/shared.ts).
 *
 * A worker that throws is counted and started anew: what it held in the connection table is recovered first, its
 * counters lie in shared memory and stay, its queue is bound again. A program is published by posting it to every
 * worker, and in force when all have acknowledged it; only then is the old one's memory let go.
 */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { Crossings } from '../dataplane/conntrack/crossings.js';
import { EventRing, EventType, RECORD_WORDS } from '../dataplane/conntrack/events.js';
import { forget } from '../dataplane/conntrack/expect.js';
import { ConntrackTable } from '../dataplane/conntrack/table.js';
import { forgetWindows } from '../dataplane/conntrack/tcp.js';
import { loadNative } from '../dataplane/io/native.js';
import { Waker } from '../dataplane/io/waker.js';
import type { DeviceInit, WorkerInit } from '../dataplane/init.js';
import { mendRegions } from '../dataplane/program/mend.js';
import {
  Control,
  CONTROL_WORDS,
  type Publication,
  Ring,
  STAT_COUNT,
  type WorkerMessage,
  WorkerState,
  WorkerWord,
  workerWord,
} from '../dataplane/shared.js';

/** Compiled and verified rules (compile/index.ts). */
export interface Program {
  /** Over shared memory. */
  readonly words: Int32Array;
  /** State regions by number, over shared memory. */
  readonly regions: Int32Array[];
  /** Counter slots that it uses. */
  readonly counters: number;
  /** Some rule needs connections. */
  readonly connections: boolean;
}

export interface RouterOptions {
  workers: number;
  /** What worker `number` takes its packets from. */
  deviceOf: (number: number) => DeviceInit;
  /** Microseconds that a worker looks for the next packet before it sleeps. */
  busyPoll: number;
  /** Connections at most. */
  connections: number;
  /** ifindexes whose reverse path hutter checks strictly. */
  strictReversePath: number[];
  /** Connection helpers switched on by port: `ftp`, `ftp:2121`, … */
  helpers: readonly string[];
  /** Connection tracking's settings by their sysctl names. */
  sysctl: Readonly<Record<string, number>>;
  /** The kernel's timer frequency. */
  hz: number;
  /** A LOG record came. */
  onLog: (record: Uint8Array) => void;
  /** A worker failed and was started anew, … */
  onTrouble: (text: string) => void;
}

/** The workers can't begin; the message is the first one's that failed. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

const LOG_RING = 1 << 18;
/** Records of each worker's event ring. */
const EVENT_RING = 8192;
/** How often the rings are read. */
const RING_INTERVAL_MS = 50;
/** How long a worker may take to acknowledge: a batch, with a margin for a machine that is very busy. */
const ACK_TIMEOUT_MS = 10_000;
const RESTART_MS = 50;
const RESTART_MAX_MS = 5_000;

/** One worker's end of what is shared. */
interface Member {
  number: number;
  /** Times it failed. */
  restarts: number;
  waker: Waker;
  port: MessagePort;
  stats: Float64Array;
  log: SharedArrayBuffer;
  ring: Ring;
  events: SharedArrayBuffer;
  counters: Float64Array;
  /** Settles when the task ends; never rejects. */
  ended: Promise<void>;
}

/** Totals of one worker as `status` shows them. */
export interface WorkerTotals {
  number: number;
  state: 'starting' | 'running' | 'stopped';
  restarts: number;
  stats: Float64Array;
}

/** Called for each event's record; the memory is used again. */
export type EventListener = (record: Int32Array) => void;

const STATES = ['starting', 'running', 'stopped'] as const;

export class Router {
  readonly connections: SharedArrayBuffer;
  /** The control thread's view of the connection table. */
  readonly table: ConntrackTable;
  private readonly crossings = Crossings.create();
  private readonly control = new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * 4));
  private readonly members: Member[] = [];
  private readonly pool: Piscina;
  private readonly logTimer: NodeJS.Timeout;
  private readonly listeners = new Set<EventListener>();
  private readonly eventRings: EventRing[];
  private stopping = false;
  /** Events that found no room while somebody listened. */
  eventsLost = 0;
  private strictReversePath: number[];

  private constructor(
    private readonly options: RouterOptions,
    private program: Program,
  ) {
    const { workers, connections, strictReversePath } = options;
    this.strictReversePath = strictReversePath;
    this.connections = ConntrackTable.create({ max: connections, workers });
    loadNative().adviseHuge(new Uint8Array(this.connections));
    this.table = ConntrackTable.attach(this.connections, workers);
    for (const [name, value] of Object.entries(options.sysctl)) this.table.writeSetting(name, value);
    // What `conntrack -D` and -F take out goes with its expectations.
    this.table.onRemove = forget;
    // What conntrack -D kills is an event, too.
    const own = new EventRing(EventRing.create(EVENT_RING));
    this.table.events = own;
    this.eventRings = [own];
    this.pool = new Piscina({
      filename: workerFile(),
      minThreads: workers,
      maxThreads: workers,
      concurrentTasksPerWorker: 1,
      idleTimeout: Infinity,
      // A worker that waits in Atomics.wait between tasks could not be ended; ours have one task for life.
      atomics: 'disabled',
      recordTiming: false,
    });
    this.logTimer = setInterval(() => this.drainRings(), RING_INTERVAL_MS);
  }

  /** Starts the workers with `program`; resolves when all are bound to their queues. @throws what a worker threw */
  static async start(options: RouterOptions, program: Program): Promise<Router> {
    const router = new Router(options, program);
    try {
      const starts: Promise<void>[] = [];
      for (let number = 0; number < options.workers; number++) starts.push(router.addMember(number));
      await Promise.all(starts);
    } catch (error) {
      await router.stop();
      throw error;
    }
    return router;
  }

  /** Resolves when the worker runs, rejects when its first start fails. */
  private addMember(number: number): Promise<void> {
    const log = Ring.create(LOG_RING);
    const slab = new SharedArrayBuffer(slabSize(this.program.counters) * 16);
    const member: Member = {
      number,
      restarts: 0,
      waker: new Waker(),
      port: new MessageChannel().port1,
      stats: new Float64Array(new SharedArrayBuffer(STAT_COUNT * 8)),
      log,
      ring: new Ring(log),
      events: EventRing.create(EVENT_RING),
      counters: new Float64Array(slab),
      ended: Promise.resolve(),
    };
    this.members.push(member);
    this.eventRings.push(new EventRing(member.events));
    return new Promise((resolve, reject) => {
      const failed = this.launch(member);
      member.ended = failed.then(async (error) => {
        reject(new StartError(error instanceof Error ? error.message : String(error), { cause: error }));
        if (this.running(member) || member.restarts > 0) await this.keepAlive(member, error);
      });
      void this.waitForState(member, WorkerState.RUNNING).then(resolve, reject);
    });
  }

  /** Starts the worker's task; resolves when that ends, with the error if it threw. */
  private launch(member: Member): Promise<unknown> {
    const { options } = this;
    const { number } = member;
    const { port1, port2 } = new MessageChannel();
    member.port = port1;
    // Messages go one way; an open port must not keep the process.
    port1.unref();
    const init: WorkerInit = {
      number,
      device: options.deviceOf(number),
      control: this.control.buffer as SharedArrayBuffer,
      stats: member.stats.buffer as SharedArrayBuffer,
      log: member.log,
      events: member.events,
      connections: this.connections,
      crossings: this.crossings,
      wakeFd: member.waker.fd,
      busyPoll: this.options.busyPoll,
      port: port2,
      strictReversePath: this.strictReversePath,
      helpers: options.helpers,
      hz: options.hz,
      program: this.publication(member),
    };
    Atomics.store(this.control, workerWord(number, WorkerWord.STATE), WorkerState.STARTING);
    return this.pool.run(init, { transferList: [port2] }).then(
      () => undefined,
      (error: unknown) => error ?? new Error('ended without a reason'),
    );
  }

  private running({ number }: Member): boolean {
    return Atomics.load(this.control, workerWord(number, WorkerWord.STATE)) === WorkerState.RUNNING;
  }

  /** After a failure: recover, start anew, wait for the next failure; until told to stop. */
  private async keepAlive(member: Member, failure: unknown): Promise<void> {
    let pause = RESTART_MS;
    for (let error = failure; !this.stopping;) {
      const lasted = performance.now();
      member.restarts++;
      Atomics.store(this.control, workerWord(member.number, WorkerWord.STATE), WorkerState.STARTING);
      new Crossings(this.crossings, this.table).recover(member.number, this.table.ownerOf(member.number));
      this.table.recover(member.number);
      mendRegions(this.program.regions, this.table.ownerOf(member.number));
      this.options.onTrouble(`worker ${member.number} failed and is started anew: ${describe(error)}`);
      await sleep(pause);
      if (this.stopping) return;
      member.port.close();
      const ended = this.launch(member);
      // What was published while it was down waits at its port, and the epoch has moved already: it moves once more.
      void this.waitForState(member, WorkerState.RUNNING).then(
        () => this.nudge(),
        () => undefined,
      );
      error = await ended;
      pause = performance.now() - lasted > RESTART_MAX_MS ? RESTART_MS : Math.min(pause * 2, RESTART_MAX_MS);
    }
  }

  private publication(member: Member): Publication {
    const { words, regions } = this.program;
    return { words, regions, counters: member.counters };
  }

  /**
   * Puts a program in force: resolves when every worker runs it, with true; or with false if one is down, which may begin
   * with an older program and take this one up before its first packet. Calls must not overlap.
   */
  async publish(program: Program): Promise<boolean> {
    if (program.connections && !this.program.connections) forgetWindows(this.table);
    this.program = program;
    const size = slabSize(program.counters);
    const grown = this.members.map((member) => {
      if (size * 2 <= member.counters.length) return member.counters;
      return new Float64Array(new SharedArrayBuffer(size * 16));
    });
    const everywhere = await this.tell(({ number }) => ({
      type: 'publish',
      publication: { words: program.words, regions: program.regions, counters: grown[number]! },
    }));
    // A worker copies its old slab into the new one before it acknowledges.
    for (const member of this.members) member.counters = grown[member.number]!;
    return everywhere;
  }

  /** ifindexes whose reverse path is checked strictly from now on. */
  async setStrictReversePath(strictReversePath: number[]): Promise<void> {
    this.strictReversePath = strictReversePath;
    await this.tell(() => ({ type: 'settings', strictReversePath }));
  }

  /** An interface is gone: resolves when no worker uses its descriptor any more. */
  async forgetInterface(ifindex: number): Promise<void> {
    await this.tell(() => ({ type: 'gone', ifindex }));
  }

  /** For tests: worker `number` throws, while it holds the lock of connection `entry` (−1 = none). */
  failWorker(number: number, entry: number): void {
    this.members[number]?.port.postMessage({ type: 'fail', entry } satisfies WorkerMessage);
    this.nudge();
  }

  /** Posts to all, moves the epoch, wakes them, and waits until all have taken it; false: all but those that are down. */
  private async tell(message: (member: Member) => WorkerMessage): Promise<boolean> {
    // One that is about to begin may have read the epoch and not its messages.
    const running = this.members.every((member) => this.running(member));
    for (const member of this.members) member.port.postMessage(message(member));
    const epoch = this.nudge();
    const taken = await Promise.all(this.members.map((member) => this.waitForAck(member, epoch)));
    return running && taken.every((each) => each);
  }

  /** Has the workers look at their ports. Returns the new epoch. */
  private nudge(): number {
    const epoch = Atomics.add(this.control, Control.EPOCH, 1) + 1;
    for (const { waker } of this.members) waker.wake();
    return epoch;
  }

  /** False: it is down. */
  private async waitForAck(member: Member, epoch: number): Promise<boolean> {
    const index = workerWord(member.number, WorkerWord.ACK);
    const deadline = performance.now() + ACK_TIMEOUT_MS;
    for (
      let seen = Atomics.load(this.control, index);
      ((seen - epoch) | 0) < 0;
      seen = Atomics.load(this.control, index)
    ) {
      // One that is down takes the newest program when it starts.
      if (!this.running(member)) return false;
      if (performance.now() > deadline) throw new Error(`worker ${member.number} doesn't take up the new rules`);
      await changed(this.control, index, seen);
    }
    return true;
  }

  private async waitForState(member: Member, state: WorkerState): Promise<void> {
    const index = workerWord(member.number, WorkerWord.STATE);
    for (
      let seen = Atomics.load(this.control, index);
      seen !== (state as number);
      seen = Atomics.load(this.control, index)
    ) {
      if (this.stopping) throw new Error('stopped');
      await changed(this.control, index, seen);
    }
  }

  /** Links, addresses: workers read interfaces anew. */
  linksChanged(): void {
    Atomics.add(this.control, Control.LINK_EPOCH, 1);
    this.routesChanged();
  }

  /** Anything by which a route could change: workers forget answers. */
  routesChanged(): void {
    Atomics.add(this.control, Control.ROUTE_EPOCH, 1);
    for (const { waker } of this.members) waker.wake();
  }

  /** As `routesChanged`; resolves when no worker reads what is no longer in the routing tables. */
  async passRouteEdge(): Promise<void> {
    this.routesChanged();
    await this.tell(() => ({ type: 'edge' }));
  }

  /**
   * What routes are chosen by beside the destination (RoutedBy), the bits of the mark that rules look at, and whether the
   * diversion is there by which packets come a second time. In force with the next `routesChanged`.
   */
  setRouting(routedBy: number, marks: number, crossing: boolean): void {
    Atomics.store(this.control, Control.ROUTED_BY, routedBy);
    Atomics.store(this.control, Control.ROUTED_MARKS, marks);
    Atomics.store(this.control, Control.CROSSING, crossing ? 1 : 0);
  }

  /** The control thread's look at the table takes the time first: what is over isn't listed. */
  setTime(): void {
    const [seconds, nanoseconds] = process.hrtime();
    this.table.now = (seconds * 1000 + Math.floor(nanoseconds / 1e6)) | 0;
    this.table.clock = Math.floor(Date.now() / 1000);
  }

  /** What a counter slot holds, all workers together. */
  packets(slot: number): number {
    let sum = 0;
    for (const { counters } of this.members) sum += counters[slot * 2] ?? 0;
    return sum;
  }
  bytes(slot: number): number {
    let sum = 0;
    for (const { counters } of this.members) sum += counters[slot * 2 + 1] ?? 0;
    return sum;
  }

  /** Zeroes slots that no worker counts in any more. */
  clearCounters(slots: readonly number[]): void {
    for (const { counters } of this.members) for (const slot of slots) counters.fill(0, slot * 2, slot * 2 + 2);
  }

  totals(): WorkerTotals[] {
    return this.members.map(({ number, restarts, stats }) => ({
      number,
      state: STATES[Atomics.load(this.control, workerWord(number, WorkerWord.STATE))] ?? 'starting',
      restarts,
      stats: stats.slice(),
    }));
  }

  private drainRings(): void {
    for (const { ring } of this.members) for (const record of ring.drain()) this.options.onLog(record);
    if (this.listeners.size > 0) this.setTime();
    const record = new Int32Array(RECORD_WORDS);
    for (const ring of this.eventRings) {
      while (ring.take(record)) for (const listener of this.listeners) listener(record);
      this.eventsLost += ring.takeLost();
    }
  }

  /** Calls `listener` for every event from now on, until `signal`. */
  async followEvents(listener: EventListener, signal: AbortSignal): Promise<void> {
    // What is left in the rings happened before.
    this.drainRings();
    this.listeners.add(listener);
    this.listen();
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    this.listeners.delete(listener);
    this.listen();
  }

  private listen(): void {
    const mask = this.listeners.size > 0 ? EventType.ALL : 0;
    this.table.listen(mask);
    this.table.eventMask = mask;
  }

  /** Ends the workers between two batches. The diversion has been removed before. */
  async stop(): Promise<void> {
    if (this.stopping) return;
    this.stopping = true;
    for (const { port } of this.members) port.postMessage({ type: 'stop' } satisfies WorkerMessage);
    this.nudge();
    await Promise.race([Promise.all(this.members.map(({ ended }) => ended)), sleep(ACK_TIMEOUT_MS, false)]);
    clearInterval(this.logTimer);
    this.drainRings();
    await this.pool.destroy();
    for (const { port, waker } of this.members) {
      port.close();
      waker.close();
    }
  }
}

/** Counter slots to allocate for so many in use: room to grow, in powers of two. */
function slabSize(counters: number): number {
  let size = 256;
  while (size < counters) size *= 2;
  return size;
}

/** The bundle beside this one, or the module of an unbundled build. */
function workerFile(): string {
  const bundled = fileURLToPath(new URL('./worker.mjs', import.meta.url));
  return existsSync(bundled) ? bundled : fileURLToPath(new URL('../dataplane/worker.js', import.meta.url));
}

const describe = (error: unknown): string => (error instanceof Error ? (error.stack ?? error.message) : String(error));
/** `keep`: the process stays alive for it. */
const sleep = (ms: number, keep = true): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    if (!keep) timer.unref();
  });

/** Atomics.waitAsync (ES2024), which Node 20 has and the library's types of ES2023 lack. */
type WaitAsync = (
  words: Int32Array,
  index: number,
  value: number,
  timeout: number,
) => { async: boolean; value: Promise<string> | string };

/** Resolves when the word is no longer `seen`, if its writer notifies; else soon, for the caller to look again. */
async function changed(words: Int32Array, index: number, seen: number): Promise<void> {
  const { waitAsync } = Atomics as unknown as { waitAsync: WaitAsync };
  await waitAsync(words, index, seen, 2).value;
}
