/**
 * A dataplane worker: one blocking loop that receives a batch, runs each packet through the pipeline and sends the
 * verdicts. It is a task that ends only when told to stop, or by throwing; the main thread then starts another in its
 * place. Between batches, and nowhere else, it takes up what the main thread published (shared.ts), reads interfaces
 * and forgets routes when they changed, announces quiescence to the connection table, and does a little of the table's
 * housekeeping.
 */
import { KernelSets } from './io/ipset.js';
import { readFileSync } from 'node:fs';
import { setPriority } from 'node:os';
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import './inlining.js';
import { ErrorLimit } from './answer.js';
import { PortHelpers } from './conntrack/helpers/helpers.js';
import { Crossings } from './conntrack/crossings.js';
import { EventRing } from './conntrack/events.js';
import { ConntrackTable } from './conntrack/table.js';
import { Tracker } from './conntrack/track.js';
import type { NfqueueInit, TunInit, WorkerInit } from './init.js';
import { Interfaces, type Link } from './interfaces.js';
import { Batch, FULL_SLOT } from './io/batch.js';
import type { LiveDevice } from './io/device.js';
import { hugeBytes } from './io/native.js';
import { NfqueueDevice } from './io/nfqueue.js';
import { Rtnetlink } from './io/rtnetlink.js';
import { TunDevice } from './io/tun.js';
import { LogWriter } from './log.js';
import { Nat } from './nat/bind.js';
import { forgetAddress, forgetInterface } from './nat/masquerade.js';
import { Pipeline } from './pipeline.js';
import { Header, ProgramFlag } from './program/format.js';
import { FibReader } from './route/fib.js';
import { Routes, type RouteSource } from './route/routes.js';
import {
  Control,
  type Publication,
  Ring,
  Stat,
  type WorkerMessage,
  WorkerState,
  WorkerWord,
  workerWord,
} from './shared.js';

/** Packets a batch: enough to make the system calls cheap, few enough to stay in the cache. */
const BATCH = 64;
/** Every so many batches a busy worker looks whether interfaces are gone. */
const LOOK_MASK = 63;
/** How long an idle worker sleeps at most, in milliseconds: the table's housekeeping goes on meanwhile. */
const IDLE_MS = 500;
/** Packets go before whatever else runs on the core, V8's compilers and the control plane among it. */
const PRIORITY = -10;

export default function runWorker(init: WorkerInit): void {
  try {
    // Of this thread alone (setpriority(2), "C library/kernel differences").
    setPriority(PRIORITY);
  } catch {
    // Without CAP_SYS_NICE it takes its turn.
  }
  const worker = new Worker(init);
  try {
    worker.runLoop();
  } finally {
    worker.close();
  }
}

class Worker {
  private readonly number: number;
  private readonly port: MessagePort;
  private readonly control: Int32Array;
  private readonly stats: Float64Array;
  private readonly world: World;
  private readonly device: LiveDevice;
  private readonly interfaces = new Interfaces();
  private readonly connections: ConntrackTable;
  private readonly nat: Nat;
  private readonly routes: Routes;
  private readonly pipeline: Pipeline;
  /** A slot begins on another page than its neighbours: with small pages each packet would cost a walk of the page tables. */
  private readonly batch = new Batch(BATCH, FULL_SLOT, hugeBytes(BATCH * FULL_SLOT));
  private counters: Float64Array = new Float64Array(0);
  /** When the last batch began, if it was full; else 0. */
  private busySince = 0;
  private epoch: number;
  private linkEpoch = 0;
  private routeEpoch = 0;
  private stopping = false;
  /** Packets come with their headers only; and how many may wait, at most. */
  private headers = false;
  private readonly waiting: number;
  /** Packets can come a second time, for which they must be whole. */
  private crossing = false;
  /** Milliseconds of looking for the next packet before it sleeps. */
  private readonly busyPoll: number;

  constructor(init: WorkerInit) {
    this.number = init.number;
    this.port = init.port;
    this.control = new Int32Array(init.control);
    this.stats = new Float64Array(init.stats);
    this.epoch = Atomics.load(this.control, Control.EPOCH);
    this.connections = ConntrackTable.attach(init.connections, init.number);
    this.connections.events = new EventRing(init.events);
    this.nat = new Nat(this.connections);
    const tracker = new Tracker(this.connections);
    if (init.helpers.length > 0) tracker.portHelpers = new PortHelpers(init.helpers);
    const { device } = init;
    this.busyPoll = init.busyPoll / 1000;
    this.waiting = device.kind === 'tun' ? 0 : device.length;
    if (device.kind === 'nfqueue') tracker.crossings = new Crossings(init.crossings, this.connections);
    this.world =
      device.kind === 'tun' ? new OwnWorld(device, init.number, init.wakeFd) : new KernelWorld(device, init.wakeFd);
    this.device = this.world.device;
    this.routes = new Routes(this.world.routes, this.interfaces);
    this.routes.setStrictReversePath(init.strictReversePath);
    if (device.kind === 'tun') this.routes.setLooseReversePath(device.looseReversePath);
    this.pipeline = new Pipeline({
      tracker,
      nat: this.nat,
      routes: this.routes,
      interfaces: this.interfaces,
      device: this.device,
      stats: this.stats,
      errorLimit:
        device.kind === 'tun'
          ? new ErrorLimit(device.errorInterval, this.connections)
          : new ErrorLimit(errorInterval()),
      log: new LogWriter(new Ring(init.log), this.stats),
      sets: new KernelSets(),
      hz: init.hz,
      worker: init.number,
      local: device.kind === 'tun' ? device.local : 0,
    });
    this.readInterfaces();
    this.takeRouting(0);
    this.takeUp(init.program, 0);
  }

  /** Until told to stop. */
  runLoop(): void {
    const { control, connections, device, batch, stats } = this;
    connections.online();
    this.say(WorkerState.RUNNING);
    let count = 0;
    while (!this.stopping) {
      count = this.exchange(count);
      if (Atomics.load(control, Control.EPOCH) !== this.epoch) count = this.takeMessages(count);
      if (Atomics.load(control, Control.LINK_EPOCH) !== this.linkEpoch) this.readInterfaces();
      if (Atomics.load(control, Control.ROUTE_EPOCH) !== this.routeEpoch) count = this.takeRouting(count);
      this.decide(count);
      if (count === 0 || (stats[Stat.BATCHES]! & LOOK_MASK) === 0) this.world.look();
    }
    device.send(batch, count);
    this.say(WorkerState.STOPPED);
  }

  /**
   * Lets the last batch's `last` packets go and returns how many the next one has. What else is to be done between batches is done once
   * the verdicts are out; the worker sleeps when nothing came meanwhile.
   */
  private exchange(last: number): number {
    const { device, batch, connections, busyPoll } = this;
    let count = device.exchange(batch, last, 0);
    if (last > 0) this.countBatch();
    connections.tidy(last === BATCH);
    if (count === 0 && last > 0 && busyPoll > 0) {
      const end = device.now + busyPoll;
      do count = device.exchange(batch, 0, 0);
      while (count === 0 && device.now < end);
    }
    if (count > 0) return count;
    connections.offline();
    count = device.exchange(batch, 0, IDLE_MS);
    connections.online();
    return count;
  }

  /** The batch's first `count` packets, by the program in force. They go at the next exchange. */
  private decide(count: number): void {
    const { batch, pipeline, device, stats } = this;
    const { now, wall } = device;
    if (this.busySince !== 0 && now - this.busySince > stats[Stat.LONGEST_BATCH]!) {
      stats[Stat.LONGEST_BATCH] = now - this.busySince;
    }
    this.busySince = count === BATCH ? now : 0;
    pipeline.setTime(now, wall);
    this.connections.edge(pipeline.now, Math.floor(wall / 1000));
    this.world.lookAhead(batch, count);
    for (let i = 0; i < count; i++) pipeline.visit(batch, i);
  }

  close(): void {
    this.connections.offline();
    this.world.close();
  }

  private say(state: WorkerState): void {
    Atomics.store(this.control, workerWord(this.number, WorkerWord.STATE), state);
    this.acknowledge();
  }

  private acknowledge(): void {
    const at = workerWord(this.number, WorkerWord.ACK);
    Atomics.store(this.control, at, this.epoch);
    Atomics.notify(this.control, at);
  }

  /** Returns how many of the batch's `count` packets are yet to be decided: all, or none. */
  private takeMessages(count: number): number {
    // The epoch is read before the messages: one that is posted meanwhile moves it again.
    this.epoch = Atomics.load(this.control, Control.EPOCH);
    count = this.lookAtCrossing(count);
    for (;;) {
      const received = receiveMessageOnPort(this.port) as { message: WorkerMessage } | undefined;
      if (received === undefined) break;
      const message = received.message;
      if (message.type === 'publish') count = this.takeUp(message.publication, count);
      else if (message.type === 'settings') this.routes.setStrictReversePath(message.strictReversePath);
      else if (message.type === 'gone') {
        this.world.forget(message.ifindex);
        this.readInterfaces();
      } else if (message.type === 'fail') {
        // Between two batches: no packet is in hand.
        this.decide(count);
        this.device.send(this.batch, count);
        if (message.entry >= 0) this.connections.lockEntry(message.entry);
        throw new Error('told to fail');
      } else if (message.type === 'stop') this.stopping = true;
    }
    this.acknowledge();
    return count;
  }

  /** As `takeMessages`. */
  private takeUp(publication: Publication, count: number): number {
    const { words, regions, counters } = publication;
    const headers = (words[Header.FLAGS]! & ProgramFlag.PAYLOAD) === 0 && !this.crossing;
    if (!headers) count = this.askWhole(count);
    if (counters !== this.counters && counters.length > this.counters.length) counters.set(this.counters);
    this.counters = counters;
    this.pipeline.adopt(words, regions, counters);
    if (headers && !this.headers) this.device.copyHeaders?.(true);
    this.headers = headers;
    return count;
  }

  /** Packets come whole from now on. Those that wait have come without what will be read: they are decided as before. */
  private askWhole(count: number): number {
    if (!this.headers) return count;
    this.headers = false;
    this.device.copyHeaders?.(false);
    const { device, batch } = this;
    for (let left = this.waiting; left >= 0; left -= count) {
      this.decide(count);
      count = device.exchange(batch, count, 0);
      if (count === 0) return 0;
    }
    this.decide(count);
    device.send(batch, count);
    return 0;
  }

  /** As `takeMessages`. The diversion for the second crossing is there before a program or a route needs it. */
  private lookAtCrossing(count: number): number {
    if (this.crossing || Atomics.load(this.control, Control.CROSSING) === 0) return count;
    const left = this.askWhole(count);
    this.crossing = true;
    return left;
  }

  private readInterfaces(): void {
    this.linkEpoch = Atomics.load(this.control, Control.LINK_EPOCH);
    const lost = this.interfaces.replace(this.world.links());
    // One worker forgets for all what was masqueraded with an address that is gone.
    if (this.number === 0) {
      for (const { ifindex, address } of lost) {
        if (address === 0) forgetInterface(this.connections, ifindex);
        else forgetAddress(this.connections, ifindex, address);
      }
    }
    this.pipeline.forgetInterfaces();
    this.routes.forget();
  }

  /** As `takeMessages`. */
  private takeRouting(count: number): number {
    // The epoch is read before what it stands for, and nowhere else: what moves it meanwhile is looked at next time.
    this.routeEpoch = Atomics.load(this.control, Control.ROUTE_EPOCH);
    const left = this.lookAtCrossing(count);
    const routedBy = Atomics.load(this.control, Control.ROUTED_BY);
    this.routes.policy = routedBy !== 0;
    this.pipeline.setRouting(routedBy, Atomics.load(this.control, Control.ROUTED_MARKS), this.crossing);
    this.routes.forget();
    return left;
  }

  private countBatch(): void {
    const { stats } = this;
    const device = this.device.stats;
    stats[Stat.BATCHES]! += 1;
    stats[Stat.OVERRUNS] = device.overruns;
    stats[Stat.SEND_ERRORS] = device.sendErrors;
    stats[Stat.ROUTE_QUESTIONS] = this.routes.questions;
  }
}

/** Where packets come from, and who knows the interfaces and routes. */
interface World {
  readonly device: LiveDevice;
  readonly routes: RouteSource;
  links(): readonly Link[];
  /** The batch's first `count` packets are about to be routed. */
  lookAhead(batch: Batch, count: number): void;
  /** Tells the main thread of interfaces that are gone. */
  look(): void;
  /** An interface is gone for good. */
  forget(ifindex: number): void;
  close(): void;
}

/** The kernel's queue; the kernel routes. */
class KernelWorld implements World {
  readonly device: LiveDevice;
  readonly routes = new Rtnetlink();

  constructor({ queue, failOpen, length }: NfqueueInit, wakeFd: number) {
    this.device = new NfqueueDevice({ queue, failOpen, maxLength: length, capacity: BATCH, wakeFd });
  }

  links(): readonly Link[] {
    return this.routes.links();
  }
  lookAhead(): void {
    // Each is asked for.
  }
  look(): void {
    // The kernel's notices tell.
  }
  forget(): void {
    // Likewise.
  }
  close(): void {
    this.device.close();
    this.routes.close();
  }
}

/** TUN interfaces and routes of hutter's own. */
class OwnWorld implements World {
  readonly device: TunDevice;
  readonly routes: FibReader;
  private present: Link[];
  private readonly states: Int32Array;
  private readonly seen: Int32Array;

  constructor(init: TunInit, worker: number, wakeFd: number) {
    this.device = new TunDevice({ ports: init.ports, worker, wakeFd });
    this.present = init.links;
    this.routes = new FibReader(init.fib, init.fibMemory, worker);
    this.states = new Int32Array(init.states);
    this.seen = new Int32Array(init.ports.length);
    init.ports.forEach(({ ifindex }, i) => {
      if (this.states[i] !== 0) this.forget(ifindex);
    });
  }

  links(): readonly Link[] {
    return this.present;
  }

  lookAhead({ bytes, meta }: Batch, count: number): void {
    this.routes.lookAhead(bytes, meta, count);
  }

  look(): void {
    this.device.states(this.seen);
    for (let i = 0; i < this.seen.length; i++) if (this.seen[i] !== 0) Atomics.store(this.states, i, this.seen[i]!);
  }

  forget(ifindex: number): void {
    this.device.leave(ifindex);
    this.present = this.present.filter(({ index }) => index !== ifindex);
  }

  close(): void {
    this.device.close();
  }
}

/** This namespace's net.ipv4.icmp_ratelimit, milliseconds an error costs; undefined, the default, if it can't be read. */
function errorInterval(): number | undefined {
  try {
    return Number(readFileSync('/proc/sys/net/ipv4/icmp_ratelimit', 'utf8'));
  } catch {
    return undefined;
  }
}
