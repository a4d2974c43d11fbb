/**
 * The connection table: one SharedArrayBuffer used by every worker and by the control thread, each through a view
 * (`ConntrackTable`) of its own that knows its slot, the time and its scratch.
 *
 * An entry's life: `create` takes it from the slot's cache (scratch: only its worker knows it); `insert` links its two
 * tuples into the buckets under their stripe locks (confirmed); `kill` marks it dying, unlinks it and puts it into the
 * slot's limbo; it is free again once every online slot has passed a batch edge (`quiesce`), so lookups take no lock and
 * an index found within a batch stays good until the batch's end. A packet dropped before `insert` leaves nothing.
 */
import { Proto } from '../names.js';
import { hashTuple, invertPorts, keyProtocol, packKey } from './key.js';
import {
  Ct,
  ENTRY_SHIFT,
  ENTRY_WORDS,
  entryAt,
  Head,
  layout,
  LINGERS,
  linkDir,
  linkEntry,
  PLACE_LENT,
  PLACE_MASK,
  PLACE_SCRATCH,
  PLACE_SHIFT,
  Slot,
  slotAt,
  Stat,
  STATUS_MASK,
  STRIPES,
  STRIPE_SHIFT,
} from './layout.js';
import { lock, ownerWord, unlock } from './lock.js';
import { CACHE_MAX, EntryPool } from './pool.js';
import { initSettings, readSetting, Setting, writeSetting } from './settings.js';
import { SctpState, Status, TcpState } from './states.js';

const MAGIC = 0x48544354; // "HTCT"
const VERSION = 1;
const MAX_SLOTS = 62;

/** What a slot has begun, for who must end it when its thread dies. */
const enum Op {
  NONE = 0,
  INSERT = 1,
  REMOVE = 2,
}

const LINGER_MS = 1000;
/** The kernel's NF_CT_EVICTION_RANGE. */
const EVICTION_RANGE = 8;
/** The kernel drops a connection whose bucket has 50 to 80 tuples, chosen at random. */
const MIN_CHAIN = 50;
const MAX_CHAIN = 80;
/** Time in which gc walks the whole table when there is no hurry; buckets a call at most, where packets wait and where not. */
const GC_PASS_MS = 10_000;
const GC_STEP_BUSY = 128;
const GC_STEP_IDLE = 2048;

export interface TableOptions {
  /** Connections at most (nf_conntrack_max), up to 8 million. */
  readonly max: number;
  /** Threads that see packets; the control thread has one more slot, number `workers`. */
  readonly workers: number;
  /** Expectations at most. */
  readonly expectations?: number;
  /** Seed of the hash; a random one by default. */
  readonly seed?: number;
}

/** What `insert` did: INSERTED, or a link to the tuple that is in the way, or the reason. */
export const enum Insert {
  INSERTED = 0,
  DYING = -1,
  CHAIN_TOO_LONG = -2,
}

/** Told of what happens to connections when somebody listens (events.ts). */
export interface EventSink {
  record(type: number, entry: number, mask: number, table: ConntrackTable): void;
}

export class ConntrackTable {
  readonly words: Int32Array;
  readonly capacity: number;
  /** True when a single worker sees packets: entries then need no locks. */
  readonly solo: boolean;
  readonly settings = Head.SETTINGS;
  /** Milliseconds, wrapping; set at each batch edge. */
  now = 0;
  /** Seconds since 1970, for the start of connections; set at each batch edge. */
  clock = 0;
  /** Type bits somebody listens for (events.ts); 0 = nobody. Fetched at each batch edge. */
  eventMask = 0;
  events: EventSink | null = null;
  /** Changes to the packet's connection that the listeners haven't been told of (events.ts). */
  pendingEvents = 0;
  /** Some packets come a second time (crossings.ts). */
  crossesTwice = false;
  readonly expectBase: number;
  readonly expectCapacity: number;
  /** The expectations that die with a connection; set by expect.ts, which alone knows them. */
  onRemove: ((table: ConntrackTable, entry: number) => void) | null = null;

  private readonly seed: number;
  private readonly mask: number;
  private readonly buckets: number;
  private readonly sources: number;
  private readonly stripes: number;
  /** Offset of the entry before entry 0, so that links need no subtraction. */
  private readonly base: number;
  private readonly slotAt: number;
  /** This view in lock words (lock.ts). */
  readonly owner: number;
  private readonly workers: number;
  private readonly pool: EntryPool;
  private gcAt = 0;
  private gcRest = 0;

  /** Allocates a table. Its views are made by `attach`. */
  static create(options: TableOptions): SharedArrayBuffer {
    const { max, workers } = options;
    if (!Number.isInteger(max) || max < 1 || max > 0x7f_ffff)
      throw new RangeError(`conntrack max ${max}: 1 to 8388607`);
    if (!Number.isInteger(workers) || workers < 1 || workers >= MAX_SLOTS) {
      throw new RangeError(`conntrack workers ${workers}: 1 to ${MAX_SLOTS - 1}`);
    }
    const slots = workers + 1;
    // Beyond the maximum: what may sit in caches, and in limbo for a batch or two.
    const capacity = max + slots * CACHE_MAX + Math.min(4096, max);
    let buckets = 16;
    while (buckets < max && buckets < 1 << 24) buckets *= 2;
    const expectations = options.expectations ?? 4096;
    const at = layout(slots, buckets, expectations);
    const shared = new SharedArrayBuffer((at.entries + capacity * ENTRY_WORDS) * 4);
    const words = new Int32Array(shared);
    words[Head.VERSION] = VERSION;
    words[Head.CAPACITY] = capacity;
    words[Head.BUCKETS] = buckets;
    words[Head.SLOTS] = slots;
    words[Head.WORKERS] = workers;
    words[Head.SEED] = options.seed ?? (Math.random() * 0x1_0000_0000) | 0;
    words[Head.EXPECT_CAPACITY] = expectations;
    initSettings(words, Head.SETTINGS);
    words[Head.SETTINGS + Setting.MAX] = max;
    words[Head.SETTINGS + Setting.EXPECT_MAX] = expectations;
    Atomics.store(words, Head.MAGIC, MAGIC);
    return shared;
  }

  /**
   * A thread's view. A slot has one thread at a time; when one died, `recover` its slot before the next attaches.
   * @throws Error when the memory holds no table or the slot doesn't exist.
   */
  static attach(shared: SharedArrayBuffer, slot: number): ConntrackTable {
    return new ConntrackTable(shared, slot);
  }

  private constructor(
    readonly shared: SharedArrayBuffer,
    readonly slot: number,
  ) {
    const words = new Int32Array(shared);
    this.words = words;
    if (Atomics.load(words, Head.MAGIC) !== MAGIC || words[Head.VERSION] !== VERSION)
      throw new Error('no connection table');
    const slots = words[Head.SLOTS]!;
    if (!Number.isInteger(slot) || slot < 0 || slot >= slots) throw new Error(`connection table has no slot ${slot}`);
    const buckets = words[Head.BUCKETS]!;
    const at = layout(slots, buckets, words[Head.EXPECT_CAPACITY]!);
    this.capacity = words[Head.CAPACITY]!;
    this.workers = words[Head.WORKERS]!;
    this.solo = this.workers === 1;
    this.seed = words[Head.SEED]!;
    this.mask = buckets - 1;
    this.stripes = at.stripes;
    this.buckets = at.buckets;
    this.sources = at.sources;
    this.expectBase = at.expectations;
    this.expectCapacity = words[Head.EXPECT_CAPACITY]!;
    this.base = at.entries - ENTRY_WORDS;
    this.slotAt = slotAt(slot);
    this.owner = ownerWord(slot, Atomics.add(words, this.slotAt + Slot.LIFE, 1) + 1);
    this.eventMask = Atomics.load(words, Head.EVENT_MASK);
    this.pool = new EntryPool(words, this.base, this.capacity, this.workers, slot, this.owner);
  }

  // ---- entries and their fields -----------------------------------------------------------------------------------

  /** Offset in `words` of an entry's first word; add a Ct. */
  at(entry: number): number {
    return entryAt(this.base, entry);
  }

  status(entry: number): number {
    return this.words[this.at(entry) + Ct.STATUS]! & STATUS_MASK;
  }
  /** Sets bits; true when all of them were set before. */
  setStatus(entry: number, bits: number): boolean {
    return (Atomics.or(this.words, this.at(entry) + Ct.STATUS, bits) & bits) === bits;
  }
  isConfirmed(entry: number): boolean {
    return (this.words[this.at(entry) + Ct.STATUS]! & Status.CONFIRMED) !== 0;
  }

  /** Takes a new connection out of this worker's hands, for whichever confirms or discards it. */
  lend(entry: number): void {
    Atomics.or(this.words, this.at(entry) + Ct.STATUS, PLACE_LENT << PLACE_SHIFT);
  }
  isLent(entry: number): boolean {
    return this.words[this.at(entry) + Ct.STATUS]! >>> PLACE_SHIFT === PLACE_LENT;
  }
  /** Whether the entry holds a connection still: in the table, or lent, or one that lingers. */
  isLive(entry: number): boolean {
    const status = this.words[this.at(entry) + Ct.STATUS]!;
    const place = status >>> PLACE_SHIFT;
    return place === PLACE_LENT || (place === 0 && (status & Status.CONFIRMED) !== 0);
  }

  src(entry: number, dir: number): number {
    return this.words[this.at(entry) + dir * Ct.TUPLE_WORDS + Ct.SRC]!;
  }
  dst(entry: number, dir: number): number {
    return this.words[this.at(entry) + dir * Ct.TUPLE_WORDS + Ct.DST]!;
  }
  ports(entry: number, dir: number): number {
    return this.words[this.at(entry) + dir * Ct.TUPLE_WORDS + Ct.PORTS]!;
  }
  key(entry: number, dir: number): number {
    return this.words[this.at(entry) + dir * Ct.TUPLE_WORDS + Ct.KEY]!;
  }
  protocol(entry: number): number {
    return keyProtocol(this.words[this.at(entry) + Ct.KEY]!);
  }
  zone(entry: number, dir: number): number {
    return this.key(entry, dir) >>> 16;
  }

  mark(entry: number): number {
    return this.words[this.at(entry) + Ct.MARK]!;
  }
  setMark(entry: number, mark: number): void {
    this.words[this.at(entry) + Ct.MARK] = mark;
  }
  generation(entry: number): number {
    return this.words[this.at(entry) + Ct.GENERATION]!;
  }

  /** The connection that expected this one, −1 when there is none or it is gone. */
  master(entry: number): number {
    const word = this.words[this.at(entry) + Ct.MASTER]!;
    if (word === 0) return -1;
    const master = (word & 0xff_ffff) - 1;
    const m = this.at(master);
    if ((this.words[m + Ct.GENERATION]! & 0xff) !== word >>> 24) return -1;
    return (this.words[m + Ct.STATUS]! & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED ? master : -1;
  }
  /** Whether it was expected by another connection, gone or not. */
  hasMaster(entry: number): boolean {
    return this.words[this.at(entry) + Ct.MASTER] !== 0;
  }
  setMaster(entry: number, master: number): void {
    const e = this.at(entry);
    const m = this.at(master);
    this.words[e + Ct.MASTER] = (master + 1) | (this.words[m + Ct.GENERATION]! << 24);
    this.words[e + Ct.HELPER] = (this.words[e + Ct.HELPER]! & ~0xff00) | ((this.words[m + Ct.HELPER]! & 0xff) << 8);
  }
  /** Number of the helper, 0 = none. */
  helper(entry: number): number {
    return this.words[this.at(entry) + Ct.HELPER]! & 0xff;
  }
  /** Number of the helper of the connection that expected this one, also when that one is gone; 0 = none. */
  masterHelper(entry: number): number {
    return (this.words[this.at(entry) + Ct.HELPER]! >> 8) & 0xff;
  }
  setHelper(entry: number, helper: number): void {
    const o = this.at(entry) + Ct.HELPER;
    this.words[o] = (this.words[o]! & ~0xff) | helper;
  }

  /** 0 to 2^53 − 1. */
  packets(entry: number, dir: number): number {
    return this.counter(entry, dir, 0);
  }
  bytes(entry: number, dir: number): number {
    return this.counter(entry, dir, 2);
  }
  private counter(entry: number, dir: number, which: number): number {
    const o = this.at(entry) + Ct.COUNTERS + dir * Ct.COUNTER_WORDS + which;
    return (this.words[o + 1]! >>> 0) * 0x1_0000_0000 + (this.words[o]! >>> 0);
  }
  /** Counts `packets` of `bytes` altogether. The caller holds the entry's lock where one is needed. */
  account(entry: number, dir: number, packets: number, bytes: number): void {
    const w = this.words;
    const o = this.at(entry) + Ct.COUNTERS + dir * Ct.COUNTER_WORDS;
    const p = (w[o]! + packets) | 0;
    w[o] = p;
    if (p >>> 0 < packets) w[o + 1] = w[o + 1]! + 1;
    const b = (w[o + 2]! + bytes) | 0;
    w[o + 2] = b;
    if (b >>> 0 < bytes) w[o + 3] = w[o + 3]! + 1;
  }

  /** Counts a packet of `length` bytes, with the entry's lock where one is needed. */
  accountPacket(entry: number, dir: number, length: number): void {
    this.lockEntry(entry);
    this.account(entry, dir, 1, length);
    this.unlockEntry(entry);
  }

  /** Changes that listeners are told of (events.ts), 0 = all. */
  eventFilter(entry: number): number {
    return this.words[this.at(entry) + Ct.HELPER]! >>> 16;
  }
  setEventFilter(entry: number, changes: number): void {
    const o = this.at(entry) + Ct.HELPER;
    this.words[o] = (this.words[o]! & 0xffff) | (changes << 16);
  }

  /** Bit 0 to 127. */
  label(entry: number, bit: number): boolean {
    return ((this.words[this.at(entry) + Ct.LABELS + (bit >> 5)]! >>> (bit & 31)) & 1) !== 0;
  }
  setLabel(entry: number, bit: number): void {
    Atomics.or(this.words, this.at(entry) + Ct.LABELS + (bit >> 5), 1 << (bit & 31));
  }

  /** The connection lives for `ms` from now on (nf_ct_refresh). */
  refresh(entry: number, ms: number): void {
    const e = this.at(entry);
    const status = this.words[e + Ct.STATUS]!;
    if ((status & Status.FIXED_TIMEOUT) !== 0) return;
    this.words[e + Ct.TIMEOUT] = (status & Status.CONFIRMED) !== 0 ? (ms + this.now) | 0 : ms;
  }
  /** Milliseconds the connection has left, 0 when it is over. */
  expires(entry: number): number {
    const e = this.at(entry);
    const timeout = this.words[e + Ct.TIMEOUT]!;
    if ((this.words[e + Ct.STATUS]! & Status.CONFIRMED) === 0) return timeout;
    return Math.max((timeout - this.now) | 0, 0);
  }

  /** A setting by its word, in the word's unit (milliseconds for timeouts). */
  setting(word: number): number {
    return this.words[Head.SETTINGS + word]!;
  }
  /** @throws RangeError, see settings.ts; a maximum above what the memory was made for is one, too. */
  writeSetting(name: string, value: number): void {
    if (name === 'nf_conntrack_max' && value > this.capacity - this.words[Head.SLOTS]! * CACHE_MAX) {
      throw new RangeError(`${name}: the table was made for ${this.capacity - this.words[Head.SLOTS]! * CACHE_MAX}`);
    }
    writeSetting(this.words, Head.SETTINGS, name, value);
  }
  readSetting(name: string): number {
    return readSetting(this.words, Head.SETTINGS, name);
  }

  /** Takes the lock of an entry's protocol state; nothing to do when there is one worker only. */
  lockEntry(entry: number): void {
    if (this.solo === true) return;
    this.words[this.slotAt + Slot.HELD] = entry + 1;
    lock(this.words, this.at(entry) + Ct.LOCK, this.owner);
  }
  unlockEntry(entry: number): void {
    if (this.solo === true) return;
    unlock(this.words, this.at(entry) + Ct.LOCK);
    this.words[this.slotAt + Slot.HELD] = 0;
  }

  lockExpectations(): void {
    lock(this.words, Head.EXPECT_LOCK, this.owner);
  }
  unlockExpectations(): void {
    unlock(this.words, Head.EXPECT_LOCK);
  }
  /** Expectations that exist; a look at it needs no lock, a change does. */
  expectations(): number {
    return this.words[Head.EXPECT_COUNT]!;
  }
  addExpectations(by: number): void {
    this.words[Head.EXPECT_COUNT] = this.words[Head.EXPECT_COUNT]! + by;
  }
  expectMax(): number {
    return this.words[Head.SETTINGS + Setting.EXPECT_MAX]!;
  }
  /** Helper data of the first listed call; a look at it needs no lock, a change does. */
  firstCall(): number {
    return this.words[Head.FIRST_CALL]!;
  }
  setFirstCall(data: number): void {
    this.words[Head.FIRST_CALL] = data;
  }
  /** A number that grows with every expectation. */
  nextExpectation(): number {
    return (this.words[Head.EXPECT_BORN] = (this.words[Head.EXPECT_BORN]! + 1) | 0);
  }

  // ---- lookup -----------------------------------------------------------------------------------------------------

  /**
   * The live, confirmed connection that has this IPv4 tuple in a direction: a link (`linkEntry`, `linkDir`), or 0.
   * @param keyOriginal key word an original tuple must have (packKey with the packet's zone for that direction)
   * @param keyReply the same for a reply tuple; the two differ only by zones with a direction
   */
  find(src: number, dst: number, ports: number, keyOriginal: number, keyReply: number): number {
    const hash = hashTuple(this.seed, src, dst, ports, keyOriginal);
    const link = this.findIn(hash, src, dst, ports, keyOriginal, keyReply);
    if (link !== 0 || keyOriginal === keyReply) return link;
    return this.findIn(hashTuple(this.seed, src, dst, ports, keyReply), src, dst, ports, keyOriginal, keyReply);
  }

  private findIn(hash: number, src: number, dst: number, ports: number, keyOriginal: number, keyReply: number): number {
    const w = this.words;
    // A plain load, as of NEXT: what it leads to was written before it, and can't be read before its place is known.
    let link = w[this.buckets + (hash & this.mask)]!;
    while (link !== 0) {
      const e = this.base + ((link & ~1) << (ENTRY_SHIFT - 1));
      const o = e + ((link & 1) << 4);
      if (
        w[o + Ct.PORTS] === ports &&
        w[o + Ct.SRC] === src &&
        w[o + Ct.DST] === dst &&
        w[o + Ct.KEY] === ((link & 1) === 0 ? keyOriginal : keyReply) &&
        (w[e + Ct.STATUS]! & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED
      ) {
        if (((w[e + Ct.TIMEOUT]! - this.now) | 0) > 0) return link;
        this.kill(linkEntry(link));
      }
      link = w[o + Ct.NEXT]!;
    }
    return 0;
  }

  /**
   * The connection that has this tuple in a direction is over: gc, or who next looks for it, takes it out. (Nothing is taken out here,
   * as this is called where another one is being taken out.)
   */
  expire(src: number, dst: number, ports: number, key: number): void {
    const w = this.words;
    let link = w[this.buckets + (hashTuple(this.seed, src, dst, ports, key) & this.mask)]!;
    while (link !== 0) {
      const e = this.at(linkEntry(link));
      const o = e + linkDir(link) * Ct.TUPLE_WORDS;
      if (w[o + Ct.PORTS] === ports && w[o + Ct.SRC] === src && w[o + Ct.DST] === dst && w[o + Ct.KEY] === key) {
        w[e + Ct.TIMEOUT] = this.now;
      }
      link = w[o + Ct.NEXT]!;
    }
  }

  /** As `find` where both keys are in one bucket, but also finds what `linger` left. */
  findLingering(src: number, dst: number, ports: number, keyOriginal: number, keyReply: number): number {
    const w = this.words;
    const found = this.find(src, dst, ports, keyOriginal, keyReply);
    if (found !== 0) return found;
    let link = w[this.buckets + (hashTuple(this.seed, src, dst, ports, keyReply) & this.mask)]!;
    while (link !== 0) {
      const e = this.base + ((link & ~1) << (ENTRY_SHIFT - 1));
      const o = e + ((link & 1) << 4);
      if (
        w[o + Ct.PORTS] === ports &&
        w[o + Ct.SRC] === src &&
        w[o + Ct.DST] === dst &&
        w[o + Ct.KEY] === ((link & 1) === 0 ? keyOriginal : keyReply) &&
        (w[e + Ct.STATUS]! & LINGERS) !== 0
      ) {
        return link;
      }
      link = w[o + Ct.NEXT]!;
    }
    return 0;
  }

  /**
   * Whether another connection than `entry` has this tuple, as NAT must know before it gives the tuple to `entry` as
   * its reply (nf_conntrack_tuple_taken). One with the same original tuple doesn't count: it is the same flow, which
   * `confirm` sorts out.
   */
  taken(entry: number, src: number, dst: number, ports: number): boolean {
    const w = this.words;
    const me = this.at(entry);
    const keyOriginal = w[me + Ct.KEY]!;
    const keyReply = w[me + Ct.REPLY_KEY]!;
    // The kernel looks in the bucket of the reply's zone only.
    const hash = hashTuple(this.seed, src, dst, ports, keyReply);
    let link = w[this.buckets + (hash & this.mask)]!;
    while (link !== 0) {
      const e = this.base + ((link & ~1) << (ENTRY_SHIFT - 1));
      const o = e + ((link & 1) << 4);
      if (
        e !== me &&
        w[o + Ct.PORTS] === ports &&
        w[o + Ct.SRC] === src &&
        w[o + Ct.DST] === dst &&
        w[o + Ct.KEY] === ((link & 1) === 0 ? keyOriginal : keyReply) &&
        (w[e + Ct.STATUS]! & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED &&
        ((w[e + Ct.TIMEOUT]! - this.now) | 0) > 0 &&
        !this.sameTuple(e, me)
      ) {
        this.count(Stat.FOUND);
        return true;
      }
      link = w[o + Ct.NEXT]!;
    }
    return false;
  }

  /** Whether the tuples at two offsets are equal, zones included. */
  sameTuple(a: number, b: number): boolean {
    return this.words[a + Ct.KEY] === this.words[b + Ct.KEY] && this.sameEnds(a, b);
  }
  /** The same without zones. */
  sameEnds(a: number, b: number): boolean {
    const w = this.words;
    return (
      w[a + Ct.SRC] === w[b + Ct.SRC] &&
      w[a + Ct.DST] === w[b + Ct.DST] &&
      w[a + Ct.PORTS] === w[b + Ct.PORTS] &&
      keyProtocol(w[a + Ct.KEY]!) === keyProtocol(w[b + Ct.KEY]!)
    );
  }

  /**
   * Connections whose original source is this one, most recent first, among those that NAT has handled; for choosing the
   * translation that the source has already (nf_nat_core.c, find_appropriate_src). `after` = −1 begins; −1 is the end.
   */
  nextBySource(after: number, src: number, sport: number, protocol: number, zone: number): number {
    const w = this.words;
    const key = packKey(protocol, zone);
    let link =
      after < 0
        ? w[this.sources + (hashTuple(this.seed, src, 0, sport, key) & this.mask)]!
        : w[this.at(after) + Ct.NEXT_SOURCE]!;
    while (link !== 0) {
      const e = this.base + (link << ENTRY_SHIFT);
      if (
        w[e + Ct.SRC] === src &&
        w[e + Ct.PORTS]! >>> 16 === sport &&
        w[e + Ct.KEY] === key &&
        (w[e + Ct.STATUS]! & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED &&
        ((w[e + Ct.TIMEOUT]! - this.now) | 0) > 0
      ) {
        return link - 1;
      }
      link = w[e + Ct.NEXT_SOURCE]!;
    }
    return -1;
  }

  // ---- life -------------------------------------------------------------------------------------------------------

  /**
   * A scratch entry with this original tuple and its inversion as reply tuple, everything else 0; only this thread
   * knows it until `insert`. −1 when the table is full and nothing can be dropped for it.
   * @param ports invertible for the protocol (key.ts)
   */
  create(src: number, dst: number, ports: number, protocol: number, zoneOriginal: number, zoneReply: number): number {
    const w = this.words;
    const key = packKey(protocol, zoneOriginal);
    if (
      this.total() >= w[Head.SETTINGS + Setting.MAX]! &&
      !this.earlyDrop(hashTuple(this.seed, src, dst, ports, key))
    ) {
      Atomics.store(w, Head.GC_URGENT, 1);
      return -1;
    }
    const entry = this.pool.take();
    if (entry < 0) return -1;
    const e = this.at(entry);
    const generation = (w[e + Ct.GENERATION]! + 1) | 0;
    for (let o = e; o < e + Ct.STATUS; o++) w[o] = 0;
    for (let o = e + Ct.STATUS + 1; o < e + ENTRY_WORDS; o++) w[o] = 0;
    w[e + Ct.GENERATION] = generation;
    w[e + Ct.SRC] = src;
    w[e + Ct.DST] = dst;
    w[e + Ct.PORTS] = ports;
    w[e + Ct.KEY] = key;
    w[e + Ct.REPLY_SRC] = dst;
    w[e + Ct.REPLY_DST] = src;
    w[e + Ct.REPLY_PORTS] = invertPorts(protocol, ports);
    w[e + Ct.REPLY_KEY] = packKey(protocol, zoneReply);
    return entry;
  }

  /** Gives a scratch entry another reply tuple (nf_conntrack_alter_reply): for NAT, before the confirmation. */
  alterReply(entry: number, src: number, dst: number, ports: number): void {
    const e = this.at(entry);
    this.words[e + Ct.REPLY_SRC] = src;
    this.words[e + Ct.REPLY_DST] = dst;
    this.words[e + Ct.REPLY_PORTS] = ports;
  }

  /** Frees a scratch entry. */
  discard(entry: number): void {
    this.pool.give(entry);
  }

  /**
   * Puts a scratch entry into the table. Returns Insert.INSERTED; or a link to the live tuple that equals one of the
   * entry's and is in the way; or a negative Insert. Unless inserted, the entry stays scratch.
   */
  insert(entry: number): number {
    const w = this.words;
    const e = this.at(entry);
    const original = this.bucketOf(e);
    const reply = this.bucketOf(e + Ct.TUPLE_WORDS);
    const bySource = (w[e + Ct.STATUS]! & Status.SRC_NAT_DONE) !== 0;
    this.begin(Op.INSERT, entry);
    // Before it can be found: who finds it may take it out at once, of this list, too.
    if (bySource) this.linkSource(entry);
    this.lockPair(original, reply);
    let result: number = Insert.INSERTED;
    if ((w[e + Ct.STATUS]! & Status.DYING) !== 0) {
      result = Insert.DYING;
    } else {
      result = this.clash(original, e, e);
      if (result === 0) result = this.clash(reply, e + Ct.TUPLE_WORDS, e);
      if (result === Insert.INSERTED) {
        w[e + Ct.TIMEOUT] = (w[e + Ct.TIMEOUT]! + this.now) | 0;
        w[e + Ct.START] = this.clock;
        // From scratch into the table.
        Atomics.store(w, e + Ct.STATUS, (w[e + Ct.STATUS]! & STATUS_MASK) | Status.CONFIRMED);
        const link = (entry + 1) << 1;
        // Of what a host sends to itself by one port the reply is found first, as in the kernel.
        w[e + Ct.NEXT] = w[original]!;
        Atomics.store(w, original, link);
        w[e + Ct.TUPLE_WORDS + Ct.NEXT] = w[reply]!;
        Atomics.store(w, reply, link | 1);
      }
    }
    this.unlockPair(original, reply);
    if (bySource && result !== Insert.INSERTED) this.unlinkSource(entry);
    this.end();
    return result;
  }

  /**
   * Puts a scratch entry into the table by its reply tuple only, for a second at most: what the kernel does with the
   * loser of a clash whose reply tuple is free (nf_ct_resolve_clash_harder). Results as `insert`'s.
   */
  insertReplyOnly(entry: number): number {
    const w = this.words;
    const e = this.at(entry);
    const reply = this.bucketOf(e + Ct.TUPLE_WORDS);
    this.begin(Op.INSERT, entry);
    this.lockPair(reply, reply);
    const result = this.clash(reply, e + Ct.TUPLE_WORDS, e);
    if (result === Insert.INSERTED) {
      w[e + Ct.TIMEOUT] = (this.now + 1000) | 0;
      w[e + Ct.START] = this.clock;
      const bits = Status.FIXED_TIMEOUT | Status.NAT_CLASH | Status.CONFIRMED;
      Atomics.store(w, e + Ct.STATUS, (w[e + Ct.STATUS]! & STATUS_MASK) | bits);
      w[e + Ct.TUPLE_WORDS + Ct.NEXT] = w[reply]!;
      Atomics.store(w, reply, ((entry + 1) << 1) | 1);
    }
    this.unlockPair(reply, reply);
    this.end();
    return result;
  }

  /** A link to a live tuple in the bucket that equals the one at `tuple`, 0, or CHAIN_TOO_LONG. The stripe is locked. */
  private clash(bucket: number, tuple: number, me: number): number {
    const w = this.words;
    const keyOriginal = w[me + Ct.KEY]!;
    const keyReply = w[me + Ct.REPLY_KEY]!;
    const limit = MIN_CHAIN + (((w[me + Ct.GENERATION]! ^ this.now) & 0x7fff_ffff) % (MAX_CHAIN - MIN_CHAIN));
    let length = 0;
    for (let link = w[bucket]!; link !== 0;) {
      const e = this.base + ((link & ~1) << (ENTRY_SHIFT - 1));
      const o = e + ((link & 1) << 4);
      if (
        w[o + Ct.PORTS] === w[tuple + Ct.PORTS] &&
        w[o + Ct.SRC] === w[tuple + Ct.SRC] &&
        w[o + Ct.DST] === w[tuple + Ct.DST] &&
        w[o + Ct.KEY] === ((link & 1) === 0 ? keyOriginal : keyReply) &&
        (w[e + Ct.STATUS]! & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED &&
        ((w[e + Ct.TIMEOUT]! - this.now) | 0) > 0
      ) {
        return link;
      }
      if (length++ > limit) return Insert.CHAIN_TOO_LONG;
      link = w[o + Ct.NEXT]!;
    }
    return 0;
  }

  /**
   * Takes a connection out of the table (nf_ct_delete): lookups don't find it from now on, others may go on reading it
   * until their batch ends. False when somebody else has done so. A scratch entry is only marked: it will not be inserted.
   */
  kill(entry: number): boolean {
    const w = this.words;
    const e = this.at(entry);
    const status = Atomics.or(w, e + Ct.STATUS, Status.DYING);
    if ((status & Status.DYING) !== 0) return false;
    if ((status & Status.CONFIRMED) === 0) return true;
    if (this.eventMask !== 0) this.events?.record(EVENT_DESTROY, entry, 0, this);
    this.takeOut(entry);
    return true;
  }

  /**
   * Kills a connection because of a packet. When that comes by again, by `lo` or in a second crossing, it must then be known as
   * part of it: the entry lingers a while.
   */
  killByPacket(entry: number, comesAgain: boolean): void {
    if (!comesAgain && !this.crossesTwice) {
      this.kill(entry);
      return;
    }
    const w = this.words;
    const e = this.at(entry);
    if ((w[e + Ct.STATUS]! & Status.CONFIRMED) === 0) return void this.kill(entry);
    if ((Atomics.or(w, e + Ct.STATUS, Status.DYING) & Status.DYING) !== 0) return;
    if (this.eventMask !== 0) this.events?.record(EVENT_DESTROY, entry, 0, this);
    // Rules still see its timeout; nobody asks for its beginning.
    w[e + Ct.START] = (this.now + LINGER_MS) | 0;
    Atomics.or(w, e + Ct.STATUS, LINGERS);
  }

  private reapLingering(entry: number): void {
    if ((Atomics.and(this.words, this.at(entry) + Ct.STATUS, ~LINGERS) & LINGERS) !== 0) this.takeOut(entry);
  }

  private takeOut(entry: number): void {
    this.begin(Op.REMOVE, entry);
    this.onRemove?.(this, entry);
    this.remove(entry);
    this.pool.retire(entry);
    this.end();
  }

  private remove(entry: number): void {
    const w = this.words;
    const e = this.at(entry);
    const link = (entry + 1) << 1;
    const original = this.bucketOf(e);
    const reply = this.bucketOf(e + Ct.TUPLE_WORDS);
    this.lockPair(original, reply);
    this.unlink(original, link);
    this.unlink(reply, link | 1);
    this.unlockPair(original, reply);
    if ((w[e + Ct.STATUS]! & Status.SRC_NAT_DONE) !== 0) this.unlinkSource(entry);
  }

  private unlink(bucket: number, link: number): void {
    const w = this.words;
    let at = bucket;
    for (let next = w[at]!; next !== 0; next = w[at]!) {
      const o = this.base + ((next & ~1) << (ENTRY_SHIFT - 1)) + ((next & 1) << 4);
      if (next === link) {
        Atomics.store(w, at, w[o + Ct.NEXT]!);
        return;
      }
      at = o + Ct.NEXT;
    }
  }

  private linkSource(entry: number): void {
    const w = this.words;
    const e = this.at(entry);
    const bucket = this.sourceBucketOf(e);
    const stripe = this.stripeOf(bucket);
    lock(w, stripe, this.owner);
    const next = w[bucket]!;
    w[e + Ct.NEXT_SOURCE] = next;
    w[e + Ct.PREV_SOURCE] = 0;
    Atomics.store(w, bucket, entry + 1);
    if (next !== 0) w[this.at(next - 1) + Ct.PREV_SOURCE] = entry + 1;
    unlock(w, stripe);
  }

  /** One source can have a million connections, hence both links. Whoever died half-way in here can be followed up: */
  private unlinkSource(entry: number): void {
    const w = this.words;
    const e = this.at(entry);
    const bucket = this.sourceBucketOf(e);
    const stripe = this.stripeOf(bucket);
    lock(w, stripe, this.owner);
    const next = w[e + Ct.NEXT_SOURCE]!;
    const previous = w[e + Ct.PREV_SOURCE]!;
    // a link that isn't to this entry was never made, or is gone.
    const place = previous === 0 ? bucket : this.at(previous - 1) + Ct.NEXT_SOURCE;
    if (w[place] === entry + 1) Atomics.store(w, place, next);
    if (next !== 0 && w[this.at(next - 1) + Ct.PREV_SOURCE] === entry + 1) {
      w[this.at(next - 1) + Ct.PREV_SOURCE] = previous;
    }
    unlock(w, stripe);
  }

  private bucketOf(tuple: number): number {
    const w = this.words;
    const hash = hashTuple(this.seed, w[tuple + Ct.SRC]!, w[tuple + Ct.DST]!, w[tuple + Ct.PORTS]!, w[tuple + Ct.KEY]!);
    return this.buckets + (hash & this.mask);
  }
  private sourceBucketOf(e: number): number {
    const w = this.words;
    const hash = hashTuple(this.seed, w[e + Ct.SRC]!, 0, w[e + Ct.PORTS]! >>> 16, w[e + Ct.KEY]!);
    return this.sources + (hash & this.mask);
  }
  private stripeOf(bucket: number): number {
    return this.stripes + ((bucket & (STRIPES - 1)) << STRIPE_SHIFT);
  }
  /** Locks the stripes of two buckets, the lower first, so that nobody waits in a circle. */
  private lockPair(a: number, b: number): void {
    const x = this.stripeOf(a);
    const y = this.stripeOf(b);
    lock(this.words, x < y ? x : y, this.owner);
    if (x !== y) lock(this.words, x < y ? y : x, this.owner);
  }
  private unlockPair(a: number, b: number): void {
    const x = this.stripeOf(a);
    const y = this.stripeOf(b);
    unlock(this.words, x);
    if (x !== y) unlock(this.words, y);
  }
  private begin(op: number, entry: number): void {
    const s = this.slotAt;
    this.words[s + Slot.OP_ENTRY] = entry;
    this.words[s + Slot.OP] = op;
  }
  private end(): void {
    this.words[this.slotAt + Slot.OP] = Op.NONE;
  }

  // ---- full table -------------------------------------------------------------------------------------------------

  /** Drops the connections that aren't assured in the first bucket near `hash` that has any; false when none has. */
  private earlyDrop(hash: number): boolean {
    const w = this.words;
    for (let i = 0; i < EVICTION_RANGE; i++) {
      let drops = 0;
      let link = w[this.buckets + ((hash + i) & this.mask)]!;
      while (link !== 0) {
        const e = this.base + ((link & ~1) << (ENTRY_SHIFT - 1));
        const status = w[e + Ct.STATUS]!;
        const live = (status & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED;
        if (live && ((w[e + Ct.TIMEOUT]! - this.now) | 0) <= 0) this.kill(linkEntry(link));
        else if (live && (status & Status.ASSURED) === 0 && this.kill(linkEntry(link))) drops++;
        link = w[e + ((link & 1) << 4) + Ct.NEXT]!;
      }
      if (drops > 0) {
        this.count(Stat.EARLY_DROP, drops);
        return true;
      }
    }
    return false;
  }

  private canDropEarly(e: number): boolean {
    const w = this.words;
    if ((w[e + Ct.STATUS]! & Status.ASSURED) === 0) return true;
    const state = w[e + Ct.PROTO]! & 0xff;
    switch (keyProtocol(w[e + Ct.KEY]!)) {
      case Proto.TCP:
        return state >= TcpState.FIN_WAIT && state <= TcpState.CLOSE;
      case Proto.SCTP:
        return state >= SctpState.SHUTDOWN_SENT && state <= SctpState.SHUTDOWN_ACK_SENT;
      default:
        return false;
    }
  }

  /** Walks some buckets and removes what is over; `buckets` bounds the work. */
  gc(buckets: number): void {
    const w = this.words;
    const limit =
      Atomics.load(w, Head.GC_URGENT) !== 0 ? Math.floor((w[Head.SETTINGS + Setting.MAX]! * 95) / 100) : 0x7fff_ffff;
    const from = Atomics.add(w, Head.GC_CURSOR, buckets);
    for (let i = 0; i < buckets; i++) {
      const bucket = (from + i) & this.mask;
      if (bucket === 0 && limit !== 0x7fff_ffff && this.total() < limit) Atomics.store(w, Head.GC_URGENT, 0);
      let link = w[this.buckets + bucket]!;
      while (link !== 0) {
        const e = this.base + ((link & ~1) << (ENTRY_SHIFT - 1));
        const over = ((w[e + Ct.TIMEOUT]! - this.now) | 0) <= 0;
        if ((w[e + Ct.STATUS]! & LINGERS) !== 0) {
          if (((w[e + Ct.START]! - this.now) | 0) <= 0) this.reapLingering(linkEntry(link));
        } else if ((w[e + Ct.STATUS]! & (Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED) {
          if (over) this.kill(linkEntry(link));
          else if (limit !== 0x7fff_ffff && this.total() >= limit && this.canDropEarly(e)) this.kill(linkEntry(link));
        }
        link = w[e + ((link & 1) << 4) + Ct.NEXT]!;
      }
    }
  }

  // ---- batch edges ------------------------------------------------------------------------------------------------

  /**
   * A worker's batch edge: takes the time, frees what nobody can be reading any more. The caller keeps no entry index
   * from before.
   * @param now milliseconds, wrapping  @param clock seconds since 1970
   */
  edge(now: number, clock: number): void {
    this.now = now;
    this.clock = clock;
    this.eventMask = Atomics.load(this.words, Head.EVENT_MASK);
    this.pool.quiesce();
  }

  /**
   * A worker's share of gc, once its packets are on their way. In a hurry it is all that a call may do, which frees more places
   * than a batch of new flows takes, and is less than packets that wait would notice.
   * @param busy more packets are waiting
   */
  tidy(busy: boolean): void {
    const elapsed = (this.now - this.gcAt) | 0;
    if (elapsed <= 0) return;
    this.gcAt = this.now;
    const most = busy ? GC_STEP_BUSY : GC_STEP_IDLE;
    const urgent = Atomics.load(this.words, Head.GC_URGENT) !== 0;
    const due = this.gcRest + ((this.mask + 1) * Math.min(elapsed, GC_PASS_MS)) / (this.workers * GC_PASS_MS);
    const step = urgent ? most : Math.min(Math.floor(due), most);
    this.gcRest = Math.max(0, Math.min(due - step, GC_STEP_IDLE));
    if (step > 0) this.gc(step);
  }

  /** See pool.ts: begins to look at the table; looks no more; keeps no index of an entry. */
  online(): void {
    this.pool.online();
  }
  offline(): void {
    this.pool.offline();
  }
  quiesce(): void {
    this.pool.quiesce();
  }

  // ---- listing ----------------------------------------------------------------------------------------------------

  /** The next confirmed, live connection after entry `after` (−1 begins), −1 at the end. */
  next(after: number): number {
    const w = this.words;
    const end = Math.min(Atomics.load(w, Head.FRESH), this.capacity);
    for (let entry = after + 1; entry < end; entry++) {
      const e = this.at(entry);
      if (
        (w[e + Ct.STATUS]! & (PLACE_MASK | Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED &&
        ((w[e + Ct.TIMEOUT]! - this.now) | 0) > 0
      ) {
        return entry;
      }
    }
    return -1;
  }

  /** Copies an entry's words for printing; false when its connection went while they were copied. */
  snapshot(entry: number, out: Int32Array): boolean {
    const e = this.at(entry);
    const generation = Atomics.load(this.words, e + Ct.GENERATION);
    for (let i = 0; i < ENTRY_WORDS; i++) out[i] = this.words[e + i]!;
    const status = Atomics.load(this.words, e + Ct.STATUS);
    return (
      (status & (PLACE_MASK | Status.CONFIRMED | Status.DYING)) === Status.CONFIRMED &&
      Atomics.load(this.words, e + Ct.GENERATION) === generation
    );
  }

  /** Kills the connections that `wanted` picks; returns how many. Online, or called between `online` and `offline`. */
  killWhere(wanted: (table: ConntrackTable, entry: number) => boolean): number {
    let killed = 0;
    for (let entry = this.next(-1); entry >= 0; entry = this.next(entry)) {
      if (wanted(this, entry) && this.kill(entry)) killed++;
    }
    return killed;
  }

  /** Kills every connection; returns how many. */
  flush(): number {
    return this.killWhere(() => true);
  }

  /** Connections, unconfirmed ones included (nf_conntrack_count). */
  total(): number {
    let sum = 0;
    for (let slot = 0; slot <= this.workers; slot++) sum += this.words[slotAt(slot) + Slot.COUNT]!;
    return sum;
  }

  count(stat: number, by = 1): void {
    const o = this.slotAt + Slot.STATS + stat;
    this.words[o] = (this.words[o]! + by) | 0;
  }
  /** A statistic of a slot; wraps at 2^32. */
  stat(slot: number, stat: number): number {
    return this.words[slotAt(slot) + Slot.STATS + stat]! >>> 0;
  }

  /** Tells every view (at its next batch edge) which event types somebody listens for. */
  listen(mask: number): void {
    Atomics.store(this.words, Head.EVENT_MASK, mask);
  }

  // ---- when a thread dies -----------------------------------------------------------------------------------------

  /**
   * Mends what the dead owner of a slot left: releases its locks, finishes its removal, undoes its insertion, and takes
   * its scratch, cache and limbo over. Call it before the slot is attached again; `life` is the dead view's.
   */
  recover(slot: number, life = this.words[slotAt(slot) + Slot.LIFE]!): void {
    const w = this.words;
    const s = slotAt(slot);
    const dead = ownerWord(slot, life);
    Atomics.store(w, s + Slot.ONLINE, 0);
    const op = w[s + Slot.OP]!;
    const opEntry = w[s + Slot.OP_ENTRY]!;
    const held = w[s + Slot.HELD]!;
    if (held !== 0) Atomics.compareExchange(w, this.at(held - 1) + Ct.LOCK, dead, 0);
    for (let i = 0; i < STRIPES; i++) Atomics.compareExchange(w, this.stripes + (i << STRIPE_SHIFT), dead, 0);
    // What follows takes it.
    Atomics.compareExchange(w, Head.EXPECT_LOCK, dead, 0);
    if (op !== Op.NONE) {
      const e = this.at(opEntry);
      const place = w[e + Ct.STATUS]! & PLACE_MASK;
      const mine = place >>> PLACE_SHIFT === slot + 1 || place >>> PLACE_SHIFT === (PLACE_SCRATCH | (slot + 1));
      Atomics.or(w, e + Ct.STATUS, Status.DYING);
      this.onRemove?.(this, opEntry);
      this.remove(opEntry);
      // An entry that bears the dead slot's mark is found below.
      if (!mine) this.pool.retire(opEntry);
    }
    this.pool.inherit(slot, dead);
    w.fill(0, s + Slot.HELD, s + Slot.COUNT);
    w[s + Slot.OP] = Op.NONE;
  }

  /** For tests: an insertion that stops half-way, with its locks held, as if the thread died there. */
  insertUntil(entry: number): void {
    const e = this.at(entry);
    const reply = this.bucketOf(e + Ct.TUPLE_WORDS);
    this.begin(Op.INSERT, entry);
    this.lockPair(this.bucketOf(e), reply);
    this.words[e + Ct.TIMEOUT] = (this.words[e + Ct.TIMEOUT]! + this.now) | 0;
    Atomics.store(this.words, e + Ct.STATUS, (this.words[e + Ct.STATUS]! & STATUS_MASK) | Status.CONFIRMED);
    this.words[e + Ct.TUPLE_WORDS + Ct.NEXT] = this.words[reply]!;
    Atomics.store(this.words, reply, ((entry + 1) << 1) | 1);
  }

  /** Where all entries are, for tests. */
  census(): ReturnType<EntryPool['census']> {
    return this.pool.census();
  }

  /** The lock word of the thread that has the slot, or had it last. */
  ownerOf(slot: number): number {
    return ownerWord(slot, this.words[slotAt(slot) + Slot.LIFE]!);
  }

  /** The life of the thread in this slot, for `recover`. */
  get life(): number {
    return this.owner >>> 8;
  }
}

/** The DESTROY bit of events.ts. */
const EVENT_DESTROY = 4;
