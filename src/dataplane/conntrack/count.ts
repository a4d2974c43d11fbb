/**
 * Counts connections by a key (net/netfilter/nf_conncount.c): what `-m connlimit` asks. A region of shared memory, one a
 * rule, holds a list for each key, an address (masked by the match) and a zone, and in it a record for each connection counted.
 * A record is a tuple only: whether its connection still lives is looked up in the table when its list is gone through,
 * and those that are gone or closed leave it. The region's lock is held meanwhile.
 *
 *     region   LOCK KIND CAPACITY BUCKETS FREE FRESH, the buckets, then records, of keys and of connections; links are record + 1
 */
import { Proto } from '../names.js';
import { hashTuple, keyProtocol } from './key.js';
import { lock, unlock } from './lock.js';
import { TcpState } from './states.js';
import { linkEntry } from './layout.js';
import type { ConntrackTable } from './table.js';
import { tcpState } from './tcp.js';

const LOCK = 0;
const KIND = 1;
const CAPACITY = 2;
const BUCKETS = 3;
const FREE = 4;
const FRESH = 5;
const HEADER = 8;

const RECORD_WORDS = 9;
const NEXT = 0;
/** A key's record. It stays when its list is empty: what a connection that is there already then counts for depends on it. */
const enum K {
  ADDRESS = 1,
  ZONE = 2,
  FIRST = 3,
  LAST = 4,
  COUNT = 5,
  /** The tick at which the list was gone through last, and how many were left. */
  CHECKED = 6,
  CHECKED_COUNT = 7,
}
/** A connection's. */
const enum R {
  SRC = 1,
  DST = 2,
  PORTS = 3,
  KEY_ORIGINAL = 4,
  KEY_REPLY = 5,
  SLOT = 6,
  /** Tick. */
  BORN = 7,
}

/**
 * A record added by another worker whose connection isn't found may be one whose first packet is still on its way: for
 * so many ticks it counts.
 */
const GRACE_TICKS = 2;
/** Of the gone so many and one leave at a time (CONNCOUNT_GC_MAX_NODES). */
const MOST_GONE = 64;

/** What the connection asked about does to its list. */
export const enum Asking {
  /** It is counted with the others, if it isn't yet. */
  JOINS = 0,
  /** The same of one that is there already, and may be in the list: not assured, or on the loopback interface. */
  JOINS_LATE = 1,
  /** It only asks: assured, it was there before its packet came, and may have left the list as it closed. */
  LOOKS = 2,
}

/** Words of a region for so many connections, each perhaps with a key of its own. */
export function countRegionWords(connections: number): number {
  return HEADER + bucketsFor(connections) + 2 * connections * RECORD_WORDS;
}

function bucketsFor(connections: number): number {
  let buckets = 16;
  while (buckets < connections / 2) buckets *= 2;
  return buckets;
}

/** Makes a region of zeroed words ready. @param kind the number by which regions are told apart */
export function initCountRegion(region: Int32Array, connections: number, kind: number): void {
  region[KIND] = kind;
  region[CAPACITY] = 2 * connections;
  region[BUCKETS] = bucketsFor(connections);
}

const record = (region: Int32Array, link: number): number => HEADER + region[BUCKETS]! + (link - 1) * RECORD_WORDS;

/**
 * Connections of the key, the one asked about among them if it joins. 0 when it doesn't and there are none, or when the region is
 * full: the match then drops the packet. The tuple is the connection's original one, or the packet's when it has none.
 *
 * As in the kernel a list is gone through once a tick for those that join it with their first packet, and who finds itself looks no
 * further: what is gone behind it is still counted.
 * @param tick the kernel's jiffies  @param zone the key's zone  @param keyOriginal,keyReply as in ConntrackTable.find
 */
export function countConnections(
  region: Int32Array,
  t: ConntrackTable,
  tick: number,
  asking: Asking,
  address: number,
  zone: number,
  src: number,
  dst: number,
  ports: number,
  keyOriginal: number,
  keyReply: number,
): number {
  lock(region, LOCK, t.owner);
  const bucket = HEADER + ((hashTuple(0, address, 0, 0, zone) & (region[BUCKETS]! - 1)) >>> 0);
  let key = region[bucket]!;
  while (key !== 0 && !isKey(region, record(region, key), address, zone)) key = region[record(region, key) + NEXT]!;
  let joins = true;
  if (key === 0) key = addKey(region, t, bucket, tick, address, zone);
  else if (asking === Asking.LOOKS) {
    joins = false;
    if (!justChecked(region, record(region, key), tick)) check(region, t, key, tick, 0, 0, 0, 0);
  } else if (asking === Asking.JOINS_LATE || !justChecked(region, record(region, key), tick)) {
    joins = !check(region, t, key, tick, src, dst, ports, keyOriginal);
  }
  let count = 0;
  if (key !== 0 && (!joins || add(region, t, key, tick, src, dst, ports, keyOriginal, keyReply))) {
    count = region[record(region, key) + K.COUNT]!;
  }
  unlock(region, LOCK);
  return count;
}

const isKey = (region: Int32Array, k: number, address: number, zone: number): boolean =>
  region[k + K.ADDRESS] === address && region[k + K.ZONE] === zone;

const justChecked = (region: Int32Array, k: number, tick: number): boolean =>
  region[k + K.CHECKED] === (tick | 0) && region[k + K.COUNT]! - region[k + K.CHECKED_COUNT]! < MOST_GONE;

/** Lets the gone and closed leave a key's list, up to the connection of this original tuple: true when it is there. */
function check(
  region: Int32Array,
  t: ConntrackTable,
  key: number,
  tick: number,
  src: number,
  dst: number,
  ports: number,
  keyOriginal: number,
): boolean {
  const k = record(region, key);
  let gone = 0;
  let before = 0;
  for (let link = region[k + K.FIRST]!; link !== 0 && gone <= MOST_GONE;) {
    const r = record(region, link);
    const next = region[r + NEXT]!;
    const state = stateOf(region, t, r, tick);
    if (
      state !== State.GONE &&
      region[r + R.PORTS] === ports &&
      region[r + R.SRC] === src &&
      region[r + R.DST] === dst &&
      region[r + R.KEY_ORIGINAL] === keyOriginal
    ) {
      return true;
    }
    if (state === State.OPEN) before = link;
    else {
      gone++;
      region[before === 0 ? k + K.FIRST : record(region, before) + NEXT] = next;
      if (next === 0) region[k + K.LAST] = before;
      region[k + K.COUNT]!--;
      give(region, link);
    }
    link = next;
  }
  region[k + K.CHECKED] = tick;
  region[k + K.CHECKED_COUNT] = region[k + K.COUNT]!;
  return false;
}

const enum State {
  OPEN = 0,
  CLOSED = 1,
  GONE = 2,
}

function stateOf(region: Int32Array, t: ConntrackTable, r: number, tick: number): State {
  const link = t.find(
    region[r + R.SRC]!,
    region[r + R.DST]!,
    region[r + R.PORTS]!,
    region[r + R.KEY_ORIGINAL]!,
    region[r + R.KEY_REPLY]!,
  );
  if (link === 0) {
    const onItsWay = region[r + R.SLOT] !== t.slot && ((tick - region[r + R.BORN]!) | 0) < GRACE_TICKS;
    return onItsWay ? State.OPEN : State.GONE;
  }
  if (keyProtocol(region[r + R.KEY_ORIGINAL]!) !== Proto.TCP) return State.OPEN;
  const state = tcpState(t, linkEntry(link));
  return state === TcpState.TIME_WAIT || state === TcpState.CLOSE ? State.CLOSED : State.OPEN;
}

/** Adds a connection at the end of its key's list. False: there is no room. */
function add(
  region: Int32Array,
  t: ConntrackTable,
  key: number,
  tick: number,
  src: number,
  dst: number,
  ports: number,
  keyOriginal: number,
  keyReply: number,
): boolean {
  const link = take(region, t, tick, key);
  if (link === 0) return false;
  const r = record(region, link);
  region[r + NEXT] = 0;
  region[r + R.SRC] = src;
  region[r + R.DST] = dst;
  region[r + R.PORTS] = ports;
  region[r + R.KEY_ORIGINAL] = keyOriginal;
  region[r + R.KEY_REPLY] = keyReply;
  region[r + R.SLOT] = t.slot;
  region[r + R.BORN] = tick;
  const k = record(region, key);
  const last = region[k + K.LAST]!;
  region[last === 0 ? k + K.FIRST : record(region, last) + NEXT] = link;
  region[k + K.LAST] = link;
  region[k + K.COUNT]!++;
  return true;
}

/** 0: there is no room. */
function addKey(
  region: Int32Array,
  t: ConntrackTable,
  bucket: number,
  tick: number,
  address: number,
  zone: number,
): number {
  const key = take(region, t, tick, 0);
  if (key === 0) return 0;
  const k = record(region, key);
  region[k + NEXT] = region[bucket]!;
  region[k + K.ADDRESS] = address;
  region[k + K.ZONE] = zone;
  region[k + K.FIRST] = 0;
  region[k + K.LAST] = 0;
  region[k + K.COUNT] = 0;
  region[k + K.CHECKED] = tick;
  region[k + K.CHECKED_COUNT] = 0;
  region[bucket] = key;
  return key;
}

/** A free record, 0 when there is none; `key` is in use. */
function take(region: Int32Array, t: ConntrackTable, tick: number, key: number): number {
  if (region[FREE] === 0) {
    if (region[FRESH]! < region[CAPACITY]!) return (region[FRESH] = region[FRESH]! + 1);
    sweep(region, t, tick, key);
  }
  const link = region[FREE]!;
  if (link !== 0) region[FREE] = region[record(region, link) + NEXT]!;
  return link;
}

function give(region: Int32Array, link: number): void {
  region[record(region, link) + NEXT] = region[FREE]!;
  region[FREE] = link;
}

/** Frees the records of all connections that are gone or closed, and of the keys but `kept` that then have none. */
function sweep(region: Int32Array, t: ConntrackTable, tick: number, kept: number): void {
  for (let bucket = HEADER; bucket < HEADER + region[BUCKETS]!; bucket++) {
    let at = bucket;
    for (let key = region[at]!; key !== 0; key = region[at]!) {
      const k = record(region, key);
      check(region, t, key, tick, 0, 0, 0, 0);
      if (region[k + K.COUNT] !== 0 || key === kept) at = k + NEXT;
      else {
        region[at] = region[k + NEXT]!;
        give(region, key);
      }
    }
  }
}

/** After its lock's owner died: empties the region, which may be half changed. Live connections are counted anew. */
export function mendCountRegion(region: Int32Array): void {
  region.fill(0, FREE);
}
