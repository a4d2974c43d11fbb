/**
 * Counts connections by a key (net/netfilter/nf_conncount.c): what `-m connlimit` asks. A region of shared memory, one a
 * rule, holds a record for each connection counted, hashed by the key: an address (masked by the match) and a zone.
 * A record is a tuple only: whether its connection still lives is looked up in the table each time its key is asked for,
 * and those that are gone or closing leave the list. The region's lock is held meanwhile.
 *
 *     region   LOCK KIND CAPACITY BUCKETS FREE FRESH, the buckets, then records; links are record + 1
 */
import { Proto } from '../names.js';
import { hashTuple, keyProtocol } from './key.js';
import { lock, unlock } from './lock.js';
import { TcpState } from './states.js';
import { linkEntry, type ConntrackTable } from './table.js';
import { tcpState } from './tcp.js';

const LOCK = 0;
const KIND = 1;
const CAPACITY = 2;
const BUCKETS = 3;
const FREE = 4;
const FRESH = 5;
const HEADER = 8;

const enum R {
  NEXT = 0,
  ADDRESS = 1,
  ZONE = 2,
  SRC = 3,
  DST = 4,
  PORTS = 5,
  KEY_ORIGINAL = 6,
  KEY_REPLY = 7,
  SLOT = 8,
  BORN = 9,
  WORDS = 10,
}

/**
 * A record added by another worker whose connection isn't found may be one whose first packet is still on its way: for
 * so long it counts (the kernel's two jiffies at 250 Hz).
 */
const GRACE_MS = 8;

/** Words of a region for so many connections. */
export function countRegionWords(capacity: number): number {
  return HEADER + bucketsFor(capacity) + capacity * R.WORDS;
}

function bucketsFor(capacity: number): number {
  let buckets = 16;
  while (buckets < capacity / 2) buckets *= 2;
  return buckets;
}

/** Makes a region of zeroed words ready. @param kind the number by which regions are told apart */
export function initCountRegion(region: Int32Array, capacity: number, kind: number): void {
  region[KIND] = kind;
  region[CAPACITY] = capacity;
  region[BUCKETS] = bucketsFor(capacity);
}

const record = (region: Int32Array, number: number): number => HEADER + region[BUCKETS]! + number * R.WORDS;

/**
 * Connections of the key, this one included: it is added when it isn't there yet. 0 when the region is full (the match
 * then drops the packet). The tuple is the connection's original one, or the packet's when it has none.
 *
 * As in the kernel, whoever finds itself looks no further: what is gone behind it is still counted. An assured connection looks
 * at all, and isn't added beside others: it was there before the rule.
 * @param zone the key's zone  @param keyOriginal,keyReply as in ConntrackTable.find
 */
export function countConnections(
  region: Int32Array,
  t: ConntrackTable,
  address: number,
  zone: number,
  src: number,
  dst: number,
  ports: number,
  keyOriginal: number,
  keyReply: number,
  assured: boolean,
): number {
  lock(region, LOCK, t.owner);
  const bucket = HEADER + ((hashTuple(0, address, 0, 0, zone) & (region[BUCKETS]! - 1)) >>> 0);
  let count = 0;
  let known = false;
  let settled = false;
  let at = bucket;
  for (let link = region[at]!; link !== 0; link = region[at]!) {
    const r = record(region, link - 1);
    if (region[r + R.ADDRESS] === address && region[r + R.ZONE] === zone) {
      count++;
      const same: boolean =
        !settled &&
        region[r + R.SRC] === src &&
        region[r + R.DST] === dst &&
        region[r + R.PORTS] === ports &&
        region[r + R.KEY_ORIGINAL] === keyOriginal;
      if (!settled && !counts(region, t, r, same)) {
        count--;
        region[at] = region[r + R.NEXT]!;
        region[r + R.NEXT] = region[FREE]!;
        region[FREE] = link;
        continue;
      }
      known ||= same;
      settled ||= same && !assured;
    }
    at = r + R.NEXT;
  }
  const joins = !known && !(assured && count > 0);
  if (joins) count = add(region, t, bucket, at, address, zone, src, dst, ports, keyOriginal, keyReply) ? count + 1 : 0;
  unlock(region, LOCK);
  return count;
}

/** Whether a record still stands for an open connection; the one being asked about (`same`) does even when closing. */
function counts(region: Int32Array, t: ConntrackTable, r: number, same: boolean): boolean {
  const link = t.find(
    region[r + R.SRC]!,
    region[r + R.DST]!,
    region[r + R.PORTS]!,
    region[r + R.KEY_ORIGINAL]!,
    region[r + R.KEY_REPLY]!,
  );
  if (link === 0) return region[r + R.SLOT] !== t.slot && ((t.now - region[r + R.BORN]!) | 0) < GRACE_MS;
  if (same || keyProtocol(region[r + R.KEY_ORIGINAL]!) !== Proto.TCP) return true;
  const state = tcpState(t, linkEntry(link));
  return state !== TcpState.TIME_WAIT && state !== TcpState.CLOSE;
}

/** At the end of its list, which is at `at` of the bucket's. False: there is no room. */
function add(
  region: Int32Array,
  t: ConntrackTable,
  bucket: number,
  at: number,
  address: number,
  zone: number,
  src: number,
  dst: number,
  ports: number,
  keyOriginal: number,
  keyReply: number,
): boolean {
  let link = region[FREE]!;
  if (link === 0) {
    if (region[FRESH]! >= region[CAPACITY]!) {
      if (!sweep(region, t)) return false;
      at = bucket;
    }
    link = region[FREE]!;
  }
  if (link === 0) link = region[FRESH] = region[FRESH]! + 1;
  else region[FREE] = region[record(region, link - 1) + R.NEXT]!;
  const r = record(region, link - 1);
  region[r + R.ADDRESS] = address;
  region[r + R.ZONE] = zone;
  region[r + R.SRC] = src;
  region[r + R.DST] = dst;
  region[r + R.PORTS] = ports;
  region[r + R.KEY_ORIGINAL] = keyOriginal;
  region[r + R.KEY_REPLY] = keyReply;
  region[r + R.SLOT] = t.slot;
  region[r + R.BORN] = t.now;
  region[r + R.NEXT] = 0;
  while (region[at] !== 0) at = record(region, region[at]! - 1) + R.NEXT;
  region[at] = link;
  return true;
}

/** Frees the records of all keys whose connections are gone; false when there is none. */
function sweep(region: Int32Array, t: ConntrackTable): boolean {
  for (let bucket = HEADER; bucket < HEADER + region[BUCKETS]!; bucket++) {
    let at = bucket;
    for (let link = region[at]!; link !== 0; link = region[at]!) {
      const r = record(region, link - 1);
      if (counts(region, t, r, false)) {
        at = r + R.NEXT;
      } else {
        region[at] = region[r + R.NEXT]!;
        region[r + R.NEXT] = region[FREE]!;
        region[FREE] = link;
      }
    }
  }
  return region[FREE] !== 0;
}

/** After its lock's owner died: empties the region, which may be half changed. Live connections are counted anew. */
export function mendCountRegion(region: Int32Array): void {
  region.fill(0, FREE);
}
