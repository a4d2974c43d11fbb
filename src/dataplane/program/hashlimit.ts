/**
 * -m hashlimit (net/netfilter/xt_hashlimit.c, revision 3): a bucket of credits for each key of addresses and ports. Arguments:
 * REGION INVERT. All rules that name a table share its region, whose head says what the first of them asked for.
 *
 *     region   LOCK KIND | MODE SRC_MASK DST_MASK COST CAP EXPIRE GC_INTERVAL CAPACITY RATE … | buckets | entries
 *     entry    NEXT SRC DST PORTS PREVIOUS EXPIRES CREDIT CAP
 *
 * Links are entry number + 1, 0 = none. Credits are the kernel's 64-bit numbers, in two words (low, high). Of bytes they are
 * 32 bits, and CAP counts how often the bucket may be filled anew when it can't pay. With a rate to match, CREDIT is what came in
 * this interval, and CAP says (low) whether the last one had too much. What isn't asked for leaves the table at the
 * first tick at which the kernel's collector would look and EXPIRES is over.
 */
import { lock, unlock } from '../conntrack/lock.js';
import type { Packet } from '../packet.js';
import { u16 } from '../wire/bytes.js';
import { portsOffset } from '../wire/ports.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';
import { Region, RegionKind } from './regions.js';

/** XT_HASHLIMIT_* */
export const enum HashlimitMode {
  DESTINATION = 1 << 0,
  DESTINATION_PORT = 1 << 1,
  SOURCE = 1 << 2,
  SOURCE_PORT = 1 << 3,
  INVERT = 1 << 4,
  BYTES = 1 << 5,
  RATE_MATCH = 1 << 6,
}
const PORTS = HashlimitMode.SOURCE_PORT | HashlimitMode.DESTINATION_PORT;

const enum Table {
  /** Region.BODY */
  MODE = 2,
  SRC_MASK,
  DST_MASK,
  COST,
  COST_HIGH,
  CAP,
  CAP_HIGH,
  /** In ticks, from the last packet on. */
  EXPIRE,
  /** In ticks, from BORN, the first packet, on. */
  GC_INTERVAL,
  BORN,
  CAPACITY,
  HASH_MASK,
  COUNT,
  FREE,
  /** Entries that were ever used. */
  FRESH,
  /** What a tick brings: of packets 2 to the power of 32 + GAIN credits, of bytes GAIN. */
  GAIN,
  /** Of bytes: a full bucket. */
  FULL,
  /** With RATE_MATCH: packets or bytes a second, those allowed in an interval, and its ticks. */
  RATE,
  RATE_HIGH,
  BURST,
  BURST_HIGH,
  INTERVAL,
  /** Tick of the last look for room. */
  SWEPT,
  BUCKETS,
}
const enum Entry {
  NEXT = 0,
  SRC,
  DST,
  PORTS,
  PREVIOUS,
  EXPIRES,
  CREDIT,
  CREDIT_HIGH,
  CAP,
  CAP_HIGH,
  WORDS,
}

/** What a rule asks of its table; times in milliseconds. */
export interface HashlimitTable {
  /** HashlimitMode bits. */
  readonly mode: number;
  /** The kernel's `avg`: millionths of a second a packet, or 2^32 − 1 over 16-byte units and one. */
  readonly average: number;
  readonly burst: number;
  /** Prefix lengths. */
  readonly sourceMask: number;
  readonly destinationMask: number;
  /** Entries at most, 0 = as many as the kernel takes by itself. */
  readonly max: number;
  /** Buckets asked for; the kernel has no fewer entries than buckets. 0 = not asked. */
  readonly size: number;
  readonly expire: number;
  readonly gcInterval: number;
  /** Seconds, with RATE_MATCH. */
  readonly interval: number;
}

const U32 = 0xffff_ffffn;
const U64 = (1n << 64n) - 1n;
const SCALE = 1_000_000n;
const TWO_32 = 0x1_0000_0000;
/** Bytes are counted in units of 16. */
const BYTE_SHIFT = 4;
/** The kernel's own number of buckets with more than a gigabyte of memory, of entries for each, and the most of either. */
const BUCKETS = 8192;
const ENTRIES_A_BUCKET = 8;
const MOST = 1_048_576;

/** CREDITS_PER_JIFFY: a power of two. */
const shiftOf = (hz: number): number => (U64 / BigInt(hz * 86_400)).toString(2).length - 1;
/** CREDITS_PER_JIFFY_BYTES: a power of two. */
const bytesPerJiffy = (hz: number): number => 2 ** ((U32 / BigInt(hz)).toString(2).length - 1);

/** user2credits() */
function credits(user: bigint, hz: number): bigint {
  const perSecond = BigInt(hz) << BigInt(shiftOf(hz));
  if (SCALE >= perSecond) return user / (SCALE / perSecond);
  return (user * (perSecond / SCALE)) & U64;
}
/** user2credits_byte() */
const byteCredits = (user: number, hz: number): bigint => (BigInt(user) * BigInt(hz * bytesPerJiffy(hz))) >> 32n;

/** Whether the kernel says "overflow, try lower". */
export function hashlimitOverflows({ mode, average, burst }: HashlimitTable, hz: number): boolean {
  if ((mode & HashlimitMode.RATE_MATCH) !== 0) return false;
  if ((mode & HashlimitMode.BYTES) !== 0) return byteCredits(average, hz) === 0n;
  const user = BigInt(average);
  return credits((user * BigInt(burst)) & U64, hz) < credits(user, hz);
}

function capacityOf({ max, size }: HashlimitTable): number {
  const buckets = Math.min(size === 0 ? BUCKETS : size, MOST);
  return max === 0 ? Math.min(buckets * ENTRIES_A_BUCKET, MOST) : Math.min(Math.max(max, buckets), MOST);
}
const bucketsFor = (capacity: number): number => 1 << (32 - Math.clz32(Math.max(capacity >> 1, 15)));

export function hashlimitWords(table: HashlimitTable): number {
  const capacity = capacityOf(table);
  return Table.BUCKETS + bucketsFor(capacity) + capacity * Entry.WORDS;
}

function put(r: Int32Array, at: number, value: bigint): void {
  r[at] = Number(BigInt.asIntN(32, value));
  r[at + 1] = Number(BigInt.asIntN(32, value >> 32n));
}

/** A table without entries in zeroed memory. */
export function initHashlimit(r: Int32Array, table: HashlimitTable, hz: number): void {
  const { mode, average, burst } = table;
  const ticks = (ms: number): number => Math.ceil((ms * hz) / 1000) | 0;
  r[Region.KIND] = RegionKind.HASHLIMIT;
  r[Table.MODE] = mode;
  r[Table.SRC_MASK] = maskOf(table.sourceMask);
  r[Table.DST_MASK] = maskOf(table.destinationMask);
  r[Table.EXPIRE] = ticks(table.expire);
  r[Table.GC_INTERVAL] = Math.max(1, ticks(table.gcInterval));
  r[Table.CAPACITY] = capacityOf(table);
  r[Table.HASH_MASK] = bucketsFor(capacityOf(table)) - 1;
  const bytes = (mode & HashlimitMode.BYTES) !== 0;
  if ((mode & HashlimitMode.RATE_MATCH) !== 0) {
    const rate = bytes ? (U32 / BigInt(average) - 1n) << BigInt(BYTE_SHIFT) : SCALE / BigInt(average);
    put(r, Table.RATE, rate);
    put(r, Table.BURST, bytes ? BigInt(burst || 1) * rate : BigInt(burst) + rate);
    r[Table.INTERVAL] = (table.interval * hz) | 0;
  } else if (bytes) {
    put(r, Table.COST, byteCredits(average, hz));
    put(r, Table.CAP, BigInt(burst));
    r[Table.GAIN] = bytesPerJiffy(hz);
    r[Table.FULL] = (bytesPerJiffy(hz) * hz) | 0;
  } else {
    put(r, Table.COST, credits(BigInt(average), hz));
    put(r, Table.CAP, credits((BigInt(average) * BigInt(burst)) & U64, hz));
    r[Table.GAIN] = shiftOf(hz) - 32;
  }
}

const maskOf = (bits: number): number => (bits === 0 ? 0 : -1 << (32 - bits));

/** Forgets everything, for mendRegions: a worker died while it changed the links. */
export function mendHashlimit(r: Int32Array): void {
  r.fill(0, Table.BUCKETS, Table.BUCKETS + r[Table.HASH_MASK]! + 1);
  r[Table.COUNT] = 0;
  r[Table.FREE] = 0;
  r[Table.FRESH] = 0;
}

export const encodeHashlimit = (region: number, invert: boolean): number[] => [region, invert ? 1 : 0];

const entryAt = (r: Int32Array, link: number): number =>
  Table.BUCKETS + r[Table.HASH_MASK]! + 1 + (link - 1) * Entry.WORDS;
const wide = (r: Int32Array, at: number): number => (r[at + 1]! >>> 0) * TWO_32 + (r[at]! >>> 0);
/** As unsigned 64-bit numbers in two words. */
const atLeast = (r: Int32Array, at: number, least: number): boolean =>
  r[at + 1] === r[least + 1] ? r[at]! >>> 0 >= r[least]! >>> 0 : r[at + 1]! >>> 0 > r[least + 1]! >>> 0;

function bucketAt(r: Int32Array, src: number, dst: number, ports: number): number {
  let h = Math.imul(src, 0x9e37_79b1) ^ Math.imul(dst, 0x85eb_ca6b) ^ Math.imul(ports, 0xc2b2_ae35);
  h ^= h >>> 15;
  return Table.BUCKETS + ((Math.imul(h, 0x27d4_eb2f) >>> 8) & r[Table.HASH_MASK]!);
}

export function matchHashlimit(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const r = context.regions[program[at]!]!;
  const mode = r[Table.MODE]!;
  let ports = 0;
  if ((mode & PORTS) !== 0) {
    // The kernel looks there in fragments past the first, too.
    const offset = portsOffset(p.protocol);
    if (offset >= 0) {
      const o = p.l4 + offset;
      if (o + 4 > p.end) {
        p.hotdrop = 1;
        return false;
      }
      if ((mode & HashlimitMode.SOURCE_PORT) !== 0) ports = u16(p.bytes, o) << 16;
      if ((mode & HashlimitMode.DESTINATION_PORT) !== 0) ports |= u16(p.bytes, o + 2);
    }
  }
  const src = (mode & HashlimitMode.SOURCE) !== 0 ? p.src & r[Table.SRC_MASK]! : 0;
  const dst = (mode & HashlimitMode.DESTINATION) !== 0 ? p.dst & r[Table.DST_MASK]! : 0;
  lock(r, Region.LOCK, context.owner);
  const outcome = consult(r, context.jiffies, src, dst, ports, p.length);
  unlock(r, Region.LOCK);
  if (outcome === Outcome.FULL) {
    p.hotdrop = 1;
    return false;
  }
  return (outcome === Outcome.WITHIN) !== (program[at + 1]! !== 0);
}

const enum Outcome {
  OVER = 0,
  WITHIN = 1,
  FULL = 2,
}

function consult(r: Int32Array, now: number, src: number, dst: number, ports: number, length: number): Outcome {
  let e = find(r, src, dst, ports, now);
  if (e !== 0) gain(r, e, now);
  else {
    e = add(r, src, dst, ports, now);
    if (e === 0) return Outcome.FULL;
  }
  r[e + Entry.EXPIRES] = (now + r[Table.EXPIRE]!) | 0;
  const mode = r[Table.MODE]!;
  if ((mode & HashlimitMode.RATE_MATCH) !== 0) {
    const came = wide(r, e + Entry.CREDIT) + ((mode & HashlimitMode.BYTES) !== 0 ? length : 1);
    r[e + Entry.CREDIT] = came | 0;
    r[e + Entry.CREDIT_HIGH] = Math.floor(came / TWO_32);
    return r[e + Entry.CAP] === 0 && came <= wide(r, Table.BURST) ? Outcome.WITHIN : Outcome.OVER;
  }
  if ((mode & HashlimitMode.BYTES) !== 0) return payBytes(r, e, length);
  if (!atLeast(r, e + Entry.CREDIT, Table.COST)) return Outcome.OVER;
  const low = r[e + Entry.CREDIT]! >>> 0;
  const cost = r[Table.COST]! >>> 0;
  r[e + Entry.CREDIT] = (low - cost) | 0;
  r[e + Entry.CREDIT_HIGH] = (r[e + Entry.CREDIT_HIGH]! - r[Table.COST_HIGH]! - (low < cost ? 1 : 0)) | 0;
  return Outcome.WITHIN;
}

/** hashlimit_byte_cost() and what follows: a bucket that can't pay is filled anew as often as CAP says. */
function payBytes(r: Int32Array, e: number, length: number): Outcome {
  const full = r[Table.FULL]! >>> 0;
  let cost = ((length >>> BYTE_SHIFT) + 1) * (r[Table.COST]! >>> 0);
  if (cost > full) cost = full;
  let credit = r[e + Entry.CREDIT]! >>> 0;
  if (credit < cost && r[e + Entry.CAP] !== 0) {
    r[e + Entry.CAP] = (r[e + Entry.CAP]! - 1) | 0;
    credit = full;
  }
  const paid = credit >= cost;
  r[e + Entry.CREDIT] = paid ? (credit - cost) | 0 : credit | 0;
  return paid ? Outcome.WITHIN : Outcome.OVER;
}

/** rateinfo_recalc() */
function gain(r: Int32Array, e: number, now: number): void {
  const delta = (now - r[e + Entry.PREVIOUS]!) >>> 0;
  if (delta === 0) return;
  const mode = r[Table.MODE]!;
  if ((mode & HashlimitMode.RATE_MATCH) !== 0) {
    const interval = r[Table.INTERVAL]! >>> 0;
    if (delta < interval) return;
    r[e + Entry.PREVIOUS] = now;
    r[e + Entry.CAP] = wide(r, e + Entry.CREDIT) * interval > delta * wide(r, Table.RATE) ? 1 : 0;
    r[e + Entry.CREDIT] = 0;
    r[e + Entry.CREDIT_HIGH] = 0;
    return;
  }
  r[e + Entry.PREVIOUS] = now;
  if ((mode & HashlimitMode.BYTES) !== 0) {
    const full = r[Table.FULL]! >>> 0;
    const credit = (r[e + Entry.CREDIT]! >>> 0) + r[Table.GAIN]! * delta;
    r[e + Entry.CREDIT] = (credit > full ? full : credit) | 0;
    return;
  }
  // Of 64 bits, the product wraps as the kernel's does.
  r[e + Entry.CREDIT_HIGH] = (r[e + Entry.CREDIT_HIGH]! + (delta << r[Table.GAIN]!)) | 0;
  if (atLeast(r, e + Entry.CREDIT, Table.CAP)) {
    r[e + Entry.CREDIT] = r[Table.CAP]!;
    r[e + Entry.CREDIT_HIGH] = r[Table.CAP_HIGH]!;
  }
}

/** The entry's offset, 0 = none; entries of its bucket that have outlived their time go. */
function find(r: Int32Array, src: number, dst: number, ports: number, now: number): number {
  let place = bucketAt(r, src, dst, ports);
  for (let link = r[place]!; link !== 0; link = r[place]!) {
    const e = entryAt(r, link);
    if (isOver(r, e, now)) {
      remove(r, place, link);
      continue;
    }
    if (r[e + Entry.SRC] === src && r[e + Entry.DST] === dst && r[e + Entry.PORTS] === ports) return e;
    place = e + Entry.NEXT;
  }
  return 0;
}

/** Whether the kernel's collector has looked since the entry expired. */
function isOver(r: Int32Array, e: number, now: number): boolean {
  const interval = r[Table.GC_INTERVAL]!;
  const born = r[Table.BORN]!;
  return (now - born) >>> 0 >= Math.ceil(((r[e + Entry.EXPIRES]! - born) >>> 0) / interval) * interval;
}

function remove(r: Int32Array, place: number, link: number): void {
  const e = entryAt(r, link);
  r[place] = r[e + Entry.NEXT]!;
  r[e + Entry.NEXT] = r[Table.FREE]!;
  r[Table.FREE] = link;
  r[Table.COUNT] = r[Table.COUNT]! - 1;
}

/** rateinfo_init(): the new entry's offset, 0 = there is no room. */
function add(r: Int32Array, src: number, dst: number, ports: number, now: number): number {
  if (r[Table.COUNT]! >= r[Table.CAPACITY]! && !sweep(r, now)) return 0;
  if (r[Table.FRESH] === 0) r[Table.BORN] = now;
  let link = r[Table.FREE]!;
  if (link !== 0) r[Table.FREE] = r[entryAt(r, link) + Entry.NEXT]!;
  else {
    link = r[Table.FRESH]! + 1;
    r[Table.FRESH] = link;
  }
  const e = entryAt(r, link);
  const bucket = bucketAt(r, src, dst, ports);
  r[e + Entry.NEXT] = r[bucket]!;
  r[e + Entry.SRC] = src;
  r[e + Entry.DST] = dst;
  r[e + Entry.PORTS] = ports;
  r[e + Entry.PREVIOUS] = now;
  const mode = r[Table.MODE]!;
  const full = (mode & HashlimitMode.BYTES) !== 0 ? Table.FULL : Table.CAP;
  const rated = (mode & HashlimitMode.RATE_MATCH) !== 0;
  r[e + Entry.CREDIT] = rated ? 0 : r[full]!;
  r[e + Entry.CREDIT_HIGH] = rated || full === Table.FULL ? 0 : r[Table.CAP_HIGH]!;
  r[e + Entry.CAP] = rated ? 0 : r[Table.CAP]!;
  r[bucket] = link;
  r[Table.COUNT] = r[Table.COUNT]! + 1;
  return e;
}

/** Lets go of all that have outlived their time, once a tick at most; whether there is room then. */
function sweep(r: Int32Array, now: number): boolean {
  if (r[Table.SWEPT] === now) return false;
  r[Table.SWEPT] = now;
  const end = Table.BUCKETS + r[Table.HASH_MASK]! + 1;
  for (let bucket = Table.BUCKETS; bucket < end; bucket++) {
    let place = bucket;
    for (let link = r[place]!; link !== 0; link = r[place]!) {
      const e = entryAt(r, link);
      if (isOver(r, e, now)) remove(r, place, link);
      else place = e + Entry.NEXT;
    }
  }
  return r[Table.COUNT]! < r[Table.CAPACITY]!;
}

export const hashlimit: Op = {
  name: 'hashlimit',
  words: 2,
  check: (a) => {
    const region = a.regions[argument(a, 0)];
    if (region?.[Region.KIND] !== RegionKind.HASHLIMIT) return 'its table is not there';
    const words = Table.BUCKETS + region[Table.HASH_MASK]! + 1 + region[Table.CAPACITY]! * Entry.WORDS;
    return words <= region.length ? undefined : 'its table is cut';
  },
  text: (a) => `${argument(a, 1) ? 'above' : 'upto'} table ${argument(a, 0)}`,
};
