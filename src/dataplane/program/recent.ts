/**
 * -m recent (net/netfilter/xt_recent.c): lists of addresses lately seen. Arguments: REGION OPERATION (RecentOp bits, one of the
 * first four) INVERT SECONDS HITS SIDE (0 source, 1 destination). A list is a region of its own that every rule naming it
 * shares; stamps are kernel ticks, two words each (low, high): a list may hold what is months old. The kernel's lock over all lists is a lock a list here.
 *
 *     region   LOCK KIND | MASK CAPACITY STAMP_MASK HASH_MASK COUNT FREE OLDEST NEWEST | buckets | entries
 *     entry    NEXT OLDER NEWER ADDRESS TTL INDEX STAMPS, then STAMP_MASK + 1 stamps
 *
 * Links are entry number + 1, 0 = none. OLDEST … NEWEST is the order in which entries were touched; FREE links through NEXT.
 */
import { InFlag } from '../io/batch.js';
import { Hook } from '../names.js';
import type { Packet } from '../packet.js';
import { lock, unlock } from '../conntrack/lock.js';
import type { Context } from './context.js';
import { addressText, argument, type Op } from './op.js';
import { Region, RegionKind } from './regions.js';

/** XT_RECENT_* */
export const enum RecentOp {
  CHECK = 1 << 0,
  SET = 1 << 1,
  UPDATE = 1 << 2,
  REMOVE = 1 << 3,
  /** The TTL must be that of the packet remembered, too. */
  TTL = 1 << 4,
  /** Forgets the oldest entry when it is too old. */
  REAP = 1 << 5,
}
export const enum RecentSide {
  SOURCE = 0,
  DESTINATION = 1,
}

const enum Arg {
  REGION = 0,
  OPERATION = 1,
  INVERT = 2,
  SECONDS = 3,
  HITS = 4,
  SIDE = 5,
  WORDS = 6,
}

const enum List {
  /** Region.BODY */
  MASK = 2,
  CAPACITY,
  STAMP_MASK,
  HASH_MASK,
  COUNT,
  FREE,
  OLDEST,
  NEWEST,
  BUCKETS,
}
const enum Entry {
  NEXT = 0,
  OLDER = 1,
  NEWER = 2,
  ADDRESS = 3,
  TTL = 4,
  /** Where the next stamp goes, as the kernel keeps it: 1 … STAMP_MASK + 1. */
  INDEX = 5,
  /** Stamps that are there. */
  COUNT = 6,
  STAMPS = 7,
}

/** Addresses a list remembers (the module's ip_list_tot). */
export const LIST_ADDRESSES = 100;
/** Stamps an address, unless a rule's --hitcount needs more (ip_pkt_list_tot = 0, the default). */
const LIST_STAMPS = 32;
/** XT_RECENT_MAX_NSTAMPS − 1 */
export const MAX_HITS = 65_535;

const roundUp = (n: number): number => (n <= 1 ? 1 : 1 << (32 - Math.clz32(n - 1)));

/** Stamps an address must have room for so that a rule with this --hitcount (0 = none) works. */
export const recentStamps = (hits: number): number => (hits === 0 ? LIST_STAMPS : roundUp(hits));

const hashSize = (addresses: number): number => 1 << (32 - Math.clz32(addresses));

/** Words of a list's region. `stamps` a power of two. */
export const recentWords = (addresses: number, stamps: number): number =>
  List.BUCKETS + hashSize(addresses) + addresses * (Entry.STAMPS + 2 * stamps);

/** An empty list in zeroed memory. `mask` is applied to addresses before they are looked up. */
export function initRecent(region: Int32Array, addresses: number, stamps: number, mask: number): void {
  region[Region.KIND] = RegionKind.RECENT;
  region[List.MASK] = mask;
  region[List.CAPACITY] = addresses;
  region[List.STAMP_MASK] = stamps - 1;
  region[List.HASH_MASK] = hashSize(addresses) - 1;
  clear(region);
}

/** What addresses are masked with. */
export const recentMask = (region: Int32Array): number => region[List.MASK]!;

/** Forgets everything; the caller holds the lock, or nobody else has the region. */
function clear(r: Int32Array): void {
  r.fill(0, List.BUCKETS, List.BUCKETS + r[List.HASH_MASK]! + 1);
  r[List.COUNT] = 0;
  r[List.OLDEST] = 0;
  r[List.NEWEST] = 0;
  r[List.FREE] = 1;
  const capacity = r[List.CAPACITY]!;
  for (let link = 1; link <= capacity; link++) r[entryAt(r, link) + Entry.NEXT] = link < capacity ? link + 1 : 0;
}

/** For mendRegions: a worker died while it changed the list, whose links can't be trusted any more. */
export const mendRecent = clear;

export const encodeRecent = (
  region: number,
  operation: number,
  invert: boolean,
  seconds: number,
  hits: number,
  side: RecentSide,
): number[] => [region, operation, invert ? 1 : 0, seconds | 0, hits, side];

const entryAt = (r: Int32Array, link: number): number =>
  List.BUCKETS + r[List.HASH_MASK]! + 1 + (link - 1) * (Entry.STAMPS + 2 * (r[List.STAMP_MASK]! + 1));

const TWO_32 = 0x1_0000_0000;
function setStamp(r: Int32Array, e: number, i: number, ticks: number): void {
  r[e + Entry.STAMPS + 2 * i] = ticks | 0;
  r[e + Entry.STAMPS + 2 * i + 1] = Math.floor(ticks / TWO_32);
}
const stampAt = (r: Int32Array, e: number, i: number): number =>
  (r[e + Entry.STAMPS + 2 * i]! >>> 0) + r[e + Entry.STAMPS + 2 * i + 1]! * TWO_32;

function bucketAt(r: Int32Array, address: number): number {
  let h = Math.imul(address, 0x9e37_79b1);
  h ^= h >>> 15;
  return List.BUCKETS + (h & r[List.HASH_MASK]!);
}

/** The entry's link, 0 = none. `ttl` 0 stands for any, as does an entry's TTL of 0. */
function find(r: Int32Array, address: number, ttl: number): number {
  for (let link = r[bucketAt(r, address)]!; link !== 0; link = r[entryAt(r, link) + Entry.NEXT]!) {
    const e = entryAt(r, link);
    if (r[e + Entry.ADDRESS] === address && (ttl === 0 || r[e + Entry.TTL] === ttl || r[e + Entry.TTL] === 0))
      return link;
  }
  return 0;
}

/** At the end of its bucket, as the kernel has it: a listing shows the same order within one. */
function add(r: Int32Array, address: number, ttl: number, now: number): void {
  if (r[List.COUNT]! >= r[List.CAPACITY]!) remove(r, r[List.OLDEST]!);
  const link = r[List.FREE]!;
  const e = entryAt(r, link);
  r[List.FREE] = r[e + Entry.NEXT]!;
  r[e + Entry.NEXT] = 0;
  r[e + Entry.ADDRESS] = address;
  r[e + Entry.TTL] = ttl;
  setStamp(r, e, 0, now);
  r[e + Entry.INDEX] = 1;
  r[e + Entry.COUNT] = 1;
  let place = bucketAt(r, address);
  while (r[place] !== 0) place = entryAt(r, r[place]!) + Entry.NEXT;
  r[place] = link;
  append(r, link);
  r[List.COUNT] = r[List.COUNT]! + 1;
}

function remove(r: Int32Array, link: number): void {
  const e = entryAt(r, link);
  let place = bucketAt(r, r[e + Entry.ADDRESS]!);
  while (r[place] !== link) place = entryAt(r, r[place]!) + Entry.NEXT;
  r[place] = r[e + Entry.NEXT]!;
  detach(r, link);
  r[e + Entry.NEXT] = r[List.FREE]!;
  r[List.FREE] = link;
  r[List.COUNT] = r[List.COUNT]! - 1;
}

function stamp(r: Int32Array, link: number, now: number): void {
  const e = entryAt(r, link);
  const index = r[e + Entry.INDEX]! & r[List.STAMP_MASK]!;
  setStamp(r, e, index, now);
  r[e + Entry.INDEX] = index + 1;
  if (index + 1 > r[e + Entry.COUNT]!) r[e + Entry.COUNT] = index + 1;
  detach(r, link);
  append(r, link);
}

function append(r: Int32Array, link: number): void {
  const e = entryAt(r, link);
  const newest = r[List.NEWEST]!;
  r[e + Entry.OLDER] = newest;
  r[e + Entry.NEWER] = 0;
  if (newest === 0) r[List.OLDEST] = link;
  else r[entryAt(r, newest) + Entry.NEWER] = link;
  r[List.NEWEST] = link;
}

function detach(r: Int32Array, link: number): void {
  const e = entryAt(r, link);
  const older = r[e + Entry.OLDER]!;
  const newer = r[e + Entry.NEWER]!;
  if (older === 0) r[List.OLDEST] = newer;
  else r[entryAt(r, older) + Entry.NEWER] = newer;
  if (newer === 0) r[List.NEWEST] = older;
  else r[entryAt(r, newer) + Entry.OLDER] = older;
}

export function matchRecent(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const r = context.regions[program[at + Arg.REGION]!]!;
  lock(r, Region.LOCK, context.owner);
  const matched = consult(r, context, program, at, p);
  unlock(r, Region.LOCK);
  return matched;
}

function consult(r: Int32Array, context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const operation = program[at + Arg.OPERATION]!;
  const invert = program[at + Arg.INVERT]! !== 0;
  const now = context.ticks;
  const address = (program[at + Arg.SIDE]! === RecentSide.SOURCE ? p.src : p.dst) & r[List.MASK]!;
  // Of a packet that is forwarded, the TTL with which it came; the kernel takes for one what leaves without a socket of its own.
  const forwarded = p.hook !== Hook.OUTPUT || (p.flags & InFlag.NO_SOCKET) !== 0;
  const ttl = context.out !== 0 && forwarded ? (p.ttl + 1) & 0xff : p.ttl;
  const link = find(r, address, (operation & RecentOp.TTL) !== 0 ? ttl : 0);
  if (link === 0) {
    if ((operation & RecentOp.SET) === 0) return invert;
    add(r, address, ttl, now);
    return !invert;
  }
  let matched = invert;
  if ((operation & RecentOp.SET) !== 0) {
    matched = !invert;
  } else if ((operation & RecentOp.REMOVE) !== 0) {
    remove(r, link);
    return !invert;
  } else {
    const seconds = program[at + Arg.SECONDS]!;
    // The kernel multiplies in 32 bits.
    const since = now - (Math.imul(seconds, context.hz) >>> 0);
    if (hasHits(r, link, seconds !== 0, since, program[at + Arg.HITS]!)) matched = !invert;
    const update = (operation & RecentOp.UPDATE) !== 0 && matched;
    if ((operation & RecentOp.REAP) !== 0) reap(r, since, update ? link : 0);
    if (!update) return matched;
  }
  stamp(r, link, now);
  r[entryAt(r, link) + Entry.TTL] = ttl;
  return matched;
}

/** Whether `hits` stamps (0: one) are no older than `since`, or there at all when their age doesn't matter. */
function hasHits(r: Int32Array, link: number, aged: boolean, since: number, hits: number): boolean {
  const e = entryAt(r, link);
  const count = r[e + Entry.COUNT]!;
  let found = 0;
  for (let i = 0; i < count; i++) {
    if (aged && stampAt(r, e, i) < since) continue;
    if (++found >= hits) return true;
  }
  return false;
}

/** Removes the entry longest untouched if its last stamp is older than `since`; not the one about to be updated. */
function reap(r: Int32Array, since: number, updating: number): void {
  const oldest = r[List.OLDEST]!;
  if (oldest === 0 || oldest === updating) return;
  const e = entryAt(r, oldest);
  if (stampAt(r, e, r[e + Entry.INDEX]! - 1) < since) remove(r, oldest);
}

// ---- the list as a file ----

/** The list as /proc/net/xt_recent/NAME shows it. `owner` is the caller's lock word. */
export function readRecent(r: Int32Array, owner: number): string {
  const lines: string[] = [];
  lock(r, Region.LOCK, owner);
  for (let bucket = 0; bucket <= r[List.HASH_MASK]!; bucket++)
    for (let link = r[List.BUCKETS + bucket]!; link !== 0; link = r[entryAt(r, link) + Entry.NEXT]!) {
      const e = entryAt(r, link);
      const index = r[e + Entry.INDEX]!;
      const stamps = Array.from({ length: r[e + Entry.COUNT]! }, (_, i) => stampAt(r, e, i));
      lines.push(
        `src=${addressText(r[e + Entry.ADDRESS]!)} ttl: ${r[e + Entry.TTL]} ` +
          `last_seen: ${stamps[(index - 1) & r[List.STAMP_MASK]!]} oldest_pkt: ${index} ${stamps.join(', ')}\n`,
      );
    }
  unlock(r, Region.LOCK);
  return lines.join('');
}

const CHANGE = /^([+-])(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;

/** Whether a text may be written to that file: `+ADDRESS`, `-ADDRESS`, or `/` with anything behind it. */
export const isRecentChange = (text: string): boolean =>
  text.startsWith('/') ||
  (CHANGE.exec(text)
    ?.slice(2)
    .every((part) => Number(part) <= 255) ??
    false);

/**
 * What a line written to that file does: `+ADDRESS` adds or touches, `-ADDRESS` removes, `/` forgets all. `now` in ticks.
 * False for anything else, which changes nothing. As in the kernel, the address is not masked.
 */
export function writeRecent(r: Int32Array, line: string, now: number, owner: number): boolean {
  const text = line.replace(/\n$/, '');
  if (!isRecentChange(text)) return false;
  const parsed = CHANGE.exec(text);
  lock(r, Region.LOCK, owner);
  if (parsed === null) clear(r);
  else {
    const address = parsed.slice(2).reduce((sum, part) => (sum << 8) | Number(part), 0);
    const link = find(r, address, 0);
    if (parsed[1] === '-') {
      if (link !== 0) remove(r, link);
    } else if (link === 0) add(r, address, 0, now);
    else stamp(r, link, now);
  }
  unlock(r, Region.LOCK);
  return true;
}

export const recent: Op = {
  name: 'recent',
  words: Arg.WORDS,
  check: (a) => {
    const region = a.regions[argument(a, Arg.REGION)];
    if (region === undefined || region[Region.KIND] !== RegionKind.RECENT) return 'its list is not there';
    const words = recentWords(region[List.CAPACITY]!, region[List.STAMP_MASK]! + 1);
    return words <= region.length ? undefined : 'its list is cut';
  },
  text: (a) => {
    const operation = argument(a, Arg.OPERATION);
    const names = ['rcheck', 'set', 'update', 'remove', 'rttl', 'reap'].filter((_, i) => (operation >> i) & 1);
    return (
      `${argument(a, Arg.INVERT) ? '! ' : ''}${names.join(' ')} list ${argument(a, Arg.REGION)} ` +
      `${argument(a, Arg.SIDE) ? 'dst' : 'src'} seconds ${argument(a, Arg.SECONDS) >>> 0} hits ${argument(a, Arg.HITS)}`
    );
  },
};
