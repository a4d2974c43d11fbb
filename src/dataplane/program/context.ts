/**
 * What a worker holds for the rules' evaluators: the time, the interfaces of the hook at hand, the state that outlives
 * packets, and the parts of the router that targets reach for. One a worker, made at its start; the pipeline calls
 * `setTime` once a batch and `enter` once a hook, and `adopt` when a new program is taken up. Everything here is an
 * integer or a typed array or an object that never changes its shape; nothing is made per packet.
 */
import type { ConntrackTable } from '../conntrack/table.js';
import type { Interfaces } from '../interfaces.js';
import type { Sets } from '../io/ipset.js';
import type { Hook } from '../names.js';
import type { Nat } from '../nat/bind.js';
import type { Packet } from '../packet.js';
import { Header } from './format.js';
import { creditsPerJiffy } from './limit.js';
import { KEYS, MAX_TREES } from './tree.js';

/** Where records of packets go. `at` is the offset of a target's arguments in `program`; see log.ts and nflog.ts. */
export interface LogSink {
  log(p: Packet, context: Context, program: Int32Array, at: number): void;
  nflog(p: Packet, context: Context, program: Int32Array, at: number): void;
  /** A traced packet matched the rule, or met the policy, with this counter slot. */
  trace(p: Packet, context: Context, counter: number): void;
  /** A traced packet came to the end of the user's chain at offset `chain`. */
  traceReturn(p: Packet, context: Context, program: Int32Array, chain: number): void;
}

/** What targets ask of the router: REJECT's answers, built and sent where one is due; TEE's copies; who takes packets over. */
export interface Answers {
  /** `kind` is a RejectWith number (reject.ts). */
  reject(p: Packet, context: Context, kind: number): void;
  /** Sends a copy to `gateway`, by the interface `oif` (0 = any). */
  duplicate(p: Packet, context: Context, gateway: number, oif: number): void;
  /** Whether somebody takes packets from the kernel's queue of this number. */
  isListening(queue: number): boolean;
}

/** Questions about addresses and routes; 0 stands for "none". */
export interface Routes {
  /** inet_select_addr for the packet's way out: the primary address in the next hop's subnet, else the first primary. */
  masqueradeAddress(p: Packet): number;
  /** RTN_* type of the address, looked up on the whole router (ifindex 0) or limited to one interface. */
  addressType(address: number, ifindex: number): number;
  /** The smaller MTU, in bytes, of the packet's way out and of the way back to its source. */
  pathMtu(p: Packet): number;
  /** rpfilter_lookup_reverse(): whether the packet's source is reached by the interface that it came in by (`loose`: by any). */
  isWayBack(p: Packet, mark: number, loose: boolean, acceptLocal: boolean): boolean;
  /** The realms of the packet's route, the source's in the upper half, the destination's in the lower; 0 = none. */
  realm(p: Packet): number;
}

export interface ContextParts {
  readonly interfaces: Interfaces;
  readonly nat: Nat;
  readonly log: LogSink;
  readonly answers: Answers;
  readonly routes: Routes;
  readonly sets: Sets;
  /** Kernel ticks a second: `limit`, `hashlimit` and `recent` count in them. */
  readonly hz: number;
  readonly table: ConntrackTable;
  /** The worker's number. */
  readonly worker: number;
}

export class Context {
  /** Milliseconds of the monotonic clock as int32; wraps. */
  now = 0;
  /** The same in whole kernel ticks, a double that never wraps, and its low 32 bits. */
  ticks = 0;
  jiffies = 0;
  /** Wall clock, milliseconds and whole seconds since 1970. */
  wallMs = 0;
  wallSeconds = 0;
  /** The kernel's time zone (sys_tz), minutes west of Greenwich: 0 unless somebody set it. */
  minutesWest = 0;

  /** The hook being run, and the interfaces as the kernel shows them to matches there (0 = none). */
  hook: Hook = 0;
  in = 0;
  out = 0;
  /** Offsets of their names in `interfaces.words`. */
  inName = 0;
  outName = 0;

  readonly interfaces: Interfaces;
  readonly nat: Nat;
  readonly log: LogSink;
  readonly answers: Answers;
  readonly routes: Routes;
  readonly sets: Sets;
  readonly hz: number;
  /** The connections; the packet's is the entry `Packet.ct`. */
  readonly table: ConntrackTable;
  /** Who holds a region's lock: this worker in this life of its. */
  readonly owner: number;
  /** What `limit` gains a tick. */
  readonly creditsPerJiffy: number;
  readonly worker: number;

  /** Rule state, by the numbers that the program's arguments name. */
  regions: readonly Int32Array[] = [];
  /** This worker's counters: slot * 2 packets, slot * 2 + 1 bytes. */
  counters: Float64Array = new Float64Array(0);
  /** For Verdict.QUEUE: the queue that NFQUEUE chose. */
  queueNumber = 0;
  /** xorshift32 state for `statistic` and its like. */
  random: number;

  /** The tree being read (tree.ts): the packet's keys, and how far each tree's list was read, 0 = not looked up yet. */
  readonly keys = new Int32Array(KEYS);
  readonly cursors = new Int32Array(MAX_TREES);

  /** Open jumps: the rule to go on with and its chain. `top` is where the next one goes; tables can be nested. */
  stack: Int32Array = new Int32Array(0);
  top = 0;

  constructor(parts: ContextParts) {
    this.interfaces = parts.interfaces;
    this.nat = parts.nat;
    this.log = parts.log;
    this.answers = parts.answers;
    this.routes = parts.routes;
    this.sets = parts.sets;
    this.hz = parts.hz;
    this.creditsPerJiffy = creditsPerJiffy(parts.hz);
    this.table = parts.table;
    this.owner = parts.table.owner;
    this.worker = parts.worker;
    this.random = (0x9e3779b9 ^ (parts.worker + 1)) | 0;
  }

  /** Once a batch: milliseconds of the monotonic clock, whole or not, and of the wall clock. */
  setTime(monotonicMs: number, wallMs: number): void {
    this.now = Math.floor(monotonicMs) | 0;
    this.ticks = Math.floor((monotonicMs * this.hz) / 1000);
    this.jiffies = this.ticks | 0;
    this.wallMs = wallMs;
    this.wallSeconds = Math.floor(wallMs / 1000);
  }

  /** Before the tables of a hook are run for a packet. */
  enter(hook: Hook, indev: number, outdev: number): void {
    this.hook = hook;
    if (indev !== this.in) {
      this.in = indev;
      this.inName = this.interfaces.find(indev);
    }
    if (outdev !== this.out) {
      this.out = outdev;
      this.outName = this.interfaces.find(outdev);
    }
  }

  /** Forgets the names found for interfaces; to be called after Interfaces.replace. */
  forgetNames(): void {
    this.inName = this.interfaces.find(this.in);
    this.outName = this.interfaces.find(this.out);
  }

  /** Takes up a verified program with its state and this worker's counter slab, between two packets. */
  adopt(program: Int32Array, regions: readonly Int32Array[], counters: Float64Array): void {
    this.regions = regions;
    this.counters = counters;
    // An answer that runs OUTPUT's tables while its packet's are still open needs as much again.
    this.stack = new Int32Array(program[Header.DEPTH]! * 2 * 4);
    this.top = 0;
  }

  /** The next number of xorshift32, int32, never 0. */
  nextRandom(): number {
    let x = this.random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.random = x;
    return x;
  }
}
