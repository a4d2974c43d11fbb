/**
 * A whole router in this process, without kernel and without time of its own: the real pipeline over the loopback
 * device (or another, for one packet a batch), routes from a table, a clock that the caller moves. `explain`, `replay` and
 * tests are made of it.
 */
import { NO_SETS } from './io/ipset.js';
import { ErrorLimit } from './answer.js';
import { PortHelpers } from './conntrack/helpers/helpers.js';
import { Crossings } from './conntrack/crossings.js';
import { ConntrackTable } from './conntrack/table.js';
import { Tracker } from './conntrack/track.js';
import { Interfaces, type Link } from './interfaces.js';
import { Batch, FULL_SLOT, Meta, OutFlag } from './io/batch.js';
import type { Device } from './io/device.js';
import { type FrameFacts, LoopbackDevice } from './io/loopback.js';
import { LogWriter } from './log.js';
import { Hook, LinkMark, Verdict } from './names.js';
import { Nat } from './nat/bind.js';
import { RandomPorts } from './nat/range.js';
import { setTtl } from './nat/rewrite.js';
import { Packet } from './packet.js';
import { Pipeline } from './pipeline.js';
import { RouteField, Routes, type RouteSource } from './route/routes.js';
import { DROP_REASONS, type Publication, Ring, Stat, STAT_COUNT } from './shared.js';

const DAY_MS = 86_400_000;

export interface SimulationOptions {
  links: readonly Link[];
  /** Who answers about routes: a table (route/static.ts), or the kernel. */
  routes: RouteSource;
  program: Publication;
  /** Kernel ticks a second. */
  hz?: number;
  /** Connections at most. */
  connections?: number;
  /** Milliseconds between two errors to one destination; 0 = no limit. */
  errorInterval?: number;
  /** Where NAT's free choices come from. */
  random?: RandomPorts;
  /** False: hutter is the whole router, as on TUN. Default true. */
  kernelRoutes?: boolean;
  /** Where packets come from, for `receive`; else they are given to `run`. */
  device?: Device;
  /** Connection helpers on ports: `ftp`, `ftp:2121`, … */
  helpers?: readonly string[];
  /** Protocol and ports choose a way, too. */
  routesByPorts?: boolean;
  /** What routes are chosen by (RoutedBy of program/late.ts), and by which bits of the mark: packets cross twice for it. */
  routedBy?: number;
  routedMarks?: number;
  /** ifindexes whose packets' sources are checked by the way back. */
  strictReversePath?: readonly number[];
  looseReversePath?: readonly number[];
  /** Makes all that is left to chance the same in each run; not 0. */
  seed?: number;
  /** Workers on its connection table: this one, number 0, and those that join it. Default 1. */
  workers?: number;
  /** The first worker, whose connections this one shares as number `worker`. */
  joins?: { first: Simulation; worker: number };
}

/** What became of one packet. */
export interface Outcome {
  verdict: Verdict;
  /**
   * The packet as it goes on, its transport checksum finished; absent when it was dropped. If the kernel routes, one that it
   * forwards has yet to lose its step of TTL, unless it crossed twice.
   */
  packet?: Uint8Array;
  mark: number;
  /** Traffic control class that a rule gave it (major << 16 | minor). */
  priority?: number;
  /** It came again, after it was routed. */
  twice: boolean;
  /** Where hutter routes: ifindex it leaves by. */
  outdev: number;
  /** Packets that the router itself sent because of it; where hutter routes, the pieces of one that was cut, too. */
  answers: Uint8Array[];
  /** LOG records (shared.ts, LogRecord). */
  logs: Uint8Array[];
  /** Why the router, not a rule, dropped it (a name of DROP_REASONS). */
  reason?: string;
}

export class Simulation {
  readonly table: ConntrackTable;
  readonly stats = new Float64Array(STAT_COUNT);
  private readonly routes: Routes;
  private readonly sent = new Packet();
  private readonly loopback: LoopbackDevice;
  private readonly device: Device;
  private readonly pipeline: Pipeline;
  private readonly ring = new Ring(Ring.create(1 << 16));
  private readonly batch = new Batch(1, FULL_SLOT);
  private answers: Uint8Array[] = [];
  private readonly connections: number;
  private readonly crossings: SharedArrayBuffer;

  /** Milliseconds of the router's clock, and of the wall clock; the caller moves them. */
  now = 1_000_000;
  wall = 0;
  /** What the diversion writes into the marks of packets that come again (LinkMark); 0 = nothing. */
  linkMark = 0;

  constructor(options: SimulationOptions) {
    const hz = options.hz ?? 1000;
    const { seed } = options;
    const max = options.connections ?? 4096;
    this.connections = max;
    const { joins, workers = 1 } = options;
    const worker = joins?.worker ?? 0;
    this.table = ConntrackTable.attach(
      joins?.first.table.shared ?? ConntrackTable.create({ max, workers, ...(seed !== undefined && { seed }) }),
      worker,
    );
    this.crossings = joins?.first.crossings ?? Crossings.create();
    this.loopback = new LoopbackDevice({ kernelRoutes: options.kernelRoutes ?? true });
    this.device = options.device ?? this.loopback;
    const interfaces = new Interfaces();
    interfaces.replace(options.links);
    const routes = new Routes(options.routes, interfaces);
    this.routes = routes;
    routes.setStrictReversePath(options.strictReversePath ?? []);
    routes.setLooseReversePath(options.looseReversePath ?? []);
    routes.policy = options.routesByPorts ?? false;
    // Where hutter routes, 0 is itself: there is nobody there to listen.
    this.loopback.onInject = (bytes, start, end, _mark, outdev) => {
      if (options.kernelRoutes !== false || outdev !== 0) this.answers.push(bytes.slice(start, end));
    };
    const tracker = new Tracker(this.table);
    if (options.kernelRoutes !== false) tracker.crossings = new Crossings(this.crossings, this.table);
    if (options.helpers !== undefined && options.helpers.length > 0)
      tracker.portHelpers = new PortHelpers(options.helpers);
    const { kernelRoutes } = this.device.capabilities;
    const random = options.random ?? (seed === undefined ? undefined : new RandomPorts(seeded(seed)));
    this.pipeline = new Pipeline({
      tracker,
      nat: new Nat(this.table, random),
      routes,
      interfaces,
      device: this.device,
      stats: this.stats,
      errorLimit: new ErrorLimit(options.errorInterval, kernelRoutes ? undefined : this.table, chance(seed)),
      log: new LogWriter(this.ring, this.stats),
      sets: NO_SETS,
      hz,
      worker,
    });
    this.pipeline.setRouting(options.routedBy ?? 0, options.routedMarks ?? 0, true);
    this.adopt(options.program);
    this.table.online();
  }

  /** Takes up another program between two packets; connections live on. */
  adopt({ words, regions, counters }: Publication): void {
    this.pipeline.adopt(words, regions, counters);
  }

  /** Runs one packet, an IPv4 packet without link header, as if the queue had delivered it. */
  run(frame: Uint8Array, facts: FrameFacts): Outcome {
    this.loopback.clear();
    this.loopback.give(frame, facts);
    this.receive();
    return this.decide();
  }

  /**
   * Lets time pass. Where it is more than a day, connections that are over go on the way, so that a clock of 32 bits can't
   * take them for young ones; more than three weeks of the router's clock are as good as any more.
   */
  advance(ms: number): void {
    this.wall += ms;
    let left = Math.min(ms, 21 * DAY_MS);
    for (; left > DAY_MS; left -= DAY_MS) {
      this.now = (this.now + DAY_MS) | 0;
      this.pipeline.setTime(this.now, this.wall);
      this.table.edge(this.pipeline.now, Math.floor(this.wall / 1000));
      this.table.gc(this.connections * 2);
    }
    this.now = (this.now + left) | 0;
  }

  /** Takes the device's next packet; false when it has none. */
  receive(): boolean {
    return this.device.receive(this.batch, 0) > 0;
  }

  /** Runs the packet that was received, at the time that now is. */
  decide(): Outcome {
    const { device, batch, stats } = this;
    this.answers = [];
    this.pipeline.setTime(this.now, this.wall);
    this.table.edge(this.pipeline.now, Math.floor(this.wall / 1000));
    const before = stats.slice(Stat.DROPS, Stat.DROPS + DROP_REASONS.length);
    this.pipeline.visit(batch, 0);
    device.send(batch, 1);
    this.table.tidy(false);
    const twice = this.pipeline.crossesTwice;
    if (twice) this.crossAgain();
    const meta = batch.meta;
    const verdict: Verdict = meta[Meta.VERDICT]!;
    const changed = (meta[Meta.OUT_FLAGS]! & OutFlag.PAYLOAD) !== 0;
    const start = meta[changed ? Meta.NEW_OFFSET : Meta.OFFSET]!;
    const length = meta[changed ? Meta.NEW_LENGTH : Meta.LENGTH]!;
    const reason = DROP_REASONS.find((_, i) => stats[Stat.DROPS + i]! > before[i]!);
    return {
      verdict,
      ...(verdict !== Verdict.DROP &&
        verdict !== Verdict.STOLEN && { packet: batch.bytes.slice(start, start + length) }),
      mark: meta[(meta[Meta.OUT_FLAGS]! & OutFlag.MARK) !== 0 ? Meta.NEW_MARK : Meta.MARK]!,
      twice,
      ...((meta[Meta.OUT_FLAGS]! & OutFlag.PRIORITY) !== 0 && { priority: meta[Meta.NEW_PRIORITY]! }),
      outdev: twice ? meta[Meta.OUTDEV]! : meta[Meta.SEND_TO]!,
      answers: this.answers,
      logs: this.ring.drain(),
      ...(reason !== undefined && { reason }),
    };
  }

  /** What the kernel does between a packet's two crossings: routes it, takes a step off its TTL, and diverts it again. */
  private crossAgain(): void {
    const { batch, routes, sent: p } = this;
    const { meta, bytes } = batch;
    const offset = meta[Meta.NEW_OFFSET]!;
    const length = meta[Meta.NEW_LENGTH]!;
    p.parse(bytes, offset, offset + length);
    const mark = meta[(meta[Meta.OUT_FLAGS]! & OutFlag.MARK) !== 0 ? Meta.NEW_MARK : Meta.MARK]!;
    const indev = meta[Meta.INDEV]!;
    const ports = (p.sport << 16) | p.dport;
    const own = meta[Meta.HOOK] === (Hook.OUTPUT as number);
    const route = own
      ? routes.output(p.dst, p.src, 0, mark, p.tos, p.protocol, ports)
      : routes.input(p.dst, p.src, indev, mark, p.tos, p.protocol, ports);
    if (!own) setTtl(p, p.ttl - 1);
    meta[Meta.HOOK] = Hook.POSTROUTING;
    meta[Meta.OFFSET] = offset;
    meta[Meta.LENGTH] = length;
    meta[Meta.OUTDEV] = routes.words[route + RouteField.OIF]!;
    meta[Meta.MARK] = this.linkMark === 0 ? mark : (mark & ~LinkMark.ALL) | this.linkMark;
    this.pipeline.visit(batch, 0);
    this.device.send(batch, 1);
  }
}

/** Fills with the numbers of a 32-bit xorshift. */
/** 0 to below 1. */
function chance(seed: number | undefined): () => number {
  if (seed === undefined) return Math.random;
  const fill = seeded(seed);
  const number = new Uint16Array(1);
  return () => {
    fill(number);
    return number[0]! / 0x1_0000;
  };
}

function seeded(seed: number): (numbers: Uint16Array) => void {
  let x = seed | 0;
  return (numbers) => {
    for (let i = 0; i < numbers.length; i++) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      numbers[i] = x >>> 8;
    }
  };
}
