/**
 * Expectations (net/netfilter/nf_conntrack_expect.c): connections that a helper has read about in another one's payload.
 * A bounded pool of records in the table's memory, hashed by destination, all under one lock: they are few, and when
 * there are none a new connection costs one look at a counter. An expectation ends when a connection fulfils it (unless
 * PERMANENT), when its time is over, or with its master.
 *
 * Beside each expectation record lies a record of helper data, found by connection, for what a helper must remember; those of
 * PPTP with a call are a list, too.
 */
import { Proto } from '../names.js';
import { Helper } from './helpers/helpers.js';
import { Data } from './helpers/pptp.js';
import { hashTuple, packKey } from './key.js';
import { Status } from './states.js';
import { Ct, EXPECT_WORDS, Stat } from './layout.js';
import type { ConntrackTable } from './table.js';

/** Words of a record. Links are record number + 1. */
const enum X {
  NEXT = 0,
  USED = 1,
  /** Time of death, milliseconds. */
  TIMEOUT = 2,
  MASTER = 3,
  MASTER_GENERATION = 4,
  SRC = 5,
  SRC_MASK = 6,
  DST = 7,
  PORTS = 8,
  /** 0xffff0000 when the source port counts, else 0; the destination's always does. */
  PORTS_MASK = 9,
  PROTOCOL = 10,
  ZONE = 11,
  FLAGS = 12,
  CLASS = 13,
  HELPER = 14,
  /** Order of creation. */
  BORN = 15,
  DIR = 16,
  SAVED_ADDRESS = 17,
  SAVED_PORT = 18,
  NAT = 19,
  /** First of the bucket with this record's number. */
  BUCKET = 31,
  DATA_BUCKET = 32,
  DATA_NEXT = 33,
  /** Connection + 1, 0 = free. */
  DATA_ENTRY = 34,
  DATA_GENERATION = 35,
  DATA = 36,
}
export const HELPER_DATA_WORDS = 8;
if (X.DATA + HELPER_DATA_WORDS > EXPECT_WORDS) throw new Error('expectation record too small');

/** NF_CT_EXPECT_*. */
export const enum ExpectFlag {
  /** Stays when it is fulfilled. */
  PERMANENT = 1 << 0,
  /** Not to be fulfilled yet. */
  INACTIVE = 1 << 1,
}

export const enum ExpectResult {
  /** Another expectation covers the same packets. */
  BUSY = -1,
  /** The limit of the connection or of all is reached. */
  FULL = -2,
  /** The master has an equal one of another class, or another master has. */
  EXISTS = -3,
  ADDED = 0,
}

/** Whom NAT lets an expected connection follow. */
export const enum Follow {
  NOTHING = 0,
  /** Its master's two ends (nf_nat_follow_master). */
  MASTER = 1,
  /** What was said in its master (nf_nat_sip_expected). */
  SIGNALLING = 2,
}

/** What is expected. One record a helper, filled anew each time; numbers as in tuples (key.ts). */
export class Expectation {
  src = 0;
  /** Bits of `src` that count; 0 = any source. */
  srcMask = 0;
  dst = 0;
  /** Source port or −1 = any. */
  sport = -1;
  dport = 0;
  protocol = 0;
  /** Direction of the expected connection's first packet within the master. */
  dir = 0;
  class = 0;
  /** ExpectFlag bits. */
  flags = 0;
  /** Helper for the expected connection, 0 = none. */
  helper = 0;
  timeoutMs = 300_000;
  /** How many of this class the master can have; a further one takes the oldest's place. 0 = no limit. */
  maxExpected = 1;
  /** For NAT: what the tuple's destination was before NAT changed it, and what NAT follows. */
  savedAddress = 0;
  savedPort = 0;
  nat: Follow = Follow.NOTHING;
}

const record = (t: ConntrackTable, number: number): number => t.expectBase + number * EXPECT_WORDS;

function bucketOf(t: ConntrackTable, dst: number, dport: number, protocol: number): number {
  return (hashTuple(t.expectBase, dst, 0, dport, protocol) >>> 0) % t.expectCapacity;
}

function unlink(t: ConntrackTable, number: number): void {
  const w = t.words;
  const x = record(t, number);
  let at = record(t, bucketOf(t, w[x + X.DST]!, w[x + X.PORTS]! & 0xffff, w[x + X.PROTOCOL]!)) + X.BUCKET;
  for (let next = w[at]!; next !== 0; next = w[at]!) {
    const o = record(t, next - 1) + X.NEXT;
    if (next === number + 1) {
      w[at] = w[o]!;
      break;
    }
    at = o;
  }
  w[x + X.USED] = 0;
  t.addExpectations(-1);
  t.count(Stat.EXPECT_DELETE);
}

const over = (t: ConntrackTable, x: number): boolean => ((t.words[x + X.TIMEOUT]! - t.now) | 0) <= 0;

/** Whether the record's master still is the connection it was. */
function masterLives(t: ConntrackTable, x: number): boolean {
  const w = t.words;
  const m = t.at(w[x + X.MASTER]!);
  return w[m + Ct.GENERATION] === w[x + X.MASTER_GENERATION] && (w[m + Ct.STATUS]! & Status.DYING) === 0;
}

/**
 * Adds an expectation to its master (nf_ct_expect_related), whose zone it takes. An equal one of the master's it replaces; `anyMaster`: an equal
 * one of another master is no clash, but there already.
 */
export function expect(t: ConntrackTable, master: number, e: Expectation, anyMaster = false): ExpectResult {
  t.lockExpectations();
  const result = add(t, master, e, anyMaster);
  t.unlockExpectations();
  return result;
}

function add(t: ConntrackTable, master: number, e: Expectation, anyMaster: boolean): ExpectResult {
  const w = t.words;
  const generation = t.generation(master);
  const zone = t.zone(master, 0);
  const ports = ((e.sport < 0 ? 0 : e.sport) << 16) | e.dport;
  const portsMask = e.sport < 0 ? 0 : 0xffff0000 | 0;
  const bucket = record(t, bucketOf(t, e.dst, e.dport, e.protocol)) + X.BUCKET;

  for (let link = w[bucket]!; link !== 0;) {
    const x = record(t, link - 1);
    const number = link - 1;
    link = w[x + X.NEXT]!;
    if (over(t, x) || !masterLives(t, x)) {
      unlink(t, number);
      continue;
    }
    if (
      w[x + X.DST] !== e.dst ||
      (w[x + X.PORTS]! & 0xffff) !== e.dport ||
      w[x + X.PROTOCOL] !== e.protocol ||
      w[x + X.ZONE] !== zone
    ) {
      continue;
    }
    const equal =
      w[x + X.SRC] === e.src &&
      w[x + X.SRC_MASK] === e.srcMask &&
      w[x + X.PORTS] === ports &&
      w[x + X.PORTS_MASK] === portsMask;
    if (equal && (anyMaster || w[x + X.MASTER] === master)) {
      if (w[x + X.CLASS] !== e.class || w[x + X.MASTER] !== master) return ExpectResult.EXISTS;
      unlink(t, number);
      break;
    }
    const srcMask = w[x + X.SRC_MASK]! & e.srcMask;
    const bothPorts = w[x + X.PORTS_MASK]! & portsMask;
    if (((w[x + X.SRC]! ^ e.src) & srcMask) === 0 && ((w[x + X.PORTS]! ^ ports) & bothPorts) === 0) {
      return ExpectResult.BUSY;
    }
  }

  // Counts the master's, finds its oldest, forgets what is over, finds a free record: one walk over the few.
  let free = -1;
  let oldest = -1;
  let siblings = 0;
  for (let number = 0; number < t.expectCapacity; number++) {
    const x = record(t, number);
    if (w[x + X.USED] !== 0 && (over(t, x) || !masterLives(t, x))) unlink(t, number);
    if (w[x + X.USED] === 0) {
      if (free < 0) free = number;
    } else if (w[x + X.MASTER] === master && w[x + X.MASTER_GENERATION] === generation && w[x + X.CLASS] === e.class) {
      siblings++;
      if (oldest < 0 || ((w[x + X.BORN]! - w[record(t, oldest) + X.BORN]!) | 0) < 0) oldest = number;
    }
  }
  if (e.maxExpected !== 0 && siblings >= e.maxExpected) {
    unlink(t, oldest);
    free = oldest;
  }
  if (free < 0 || t.expectations() >= t.expectMax()) return ExpectResult.FULL;

  const x = record(t, free);
  w[x + X.USED] = 1;
  w[x + X.TIMEOUT] = (t.now + e.timeoutMs) | 0;
  w[x + X.MASTER] = master;
  w[x + X.MASTER_GENERATION] = generation;
  w[x + X.SRC] = e.src;
  w[x + X.SRC_MASK] = e.srcMask;
  w[x + X.DST] = e.dst;
  w[x + X.PORTS] = ports;
  w[x + X.PORTS_MASK] = portsMask;
  w[x + X.PROTOCOL] = e.protocol;
  w[x + X.ZONE] = zone;
  w[x + X.FLAGS] = e.flags;
  w[x + X.CLASS] = e.class;
  w[x + X.HELPER] = e.helper;
  w[x + X.BORN] = t.nextExpectation();
  w[x + X.DIR] = e.dir;
  w[x + X.SAVED_ADDRESS] = e.savedAddress;
  w[x + X.SAVED_PORT] = e.savedPort;
  w[x + X.NAT] = e.nat;
  w[x + X.NEXT] = w[bucket]!;
  w[bucket] = free + 1;
  t.addExpectations(1);
  t.count(Stat.EXPECT_CREATE);
  return ExpectResult.ADDED;
}

function load(t: ConntrackTable, x: number, out: Expectation): void {
  const w = t.words;
  out.src = w[x + X.SRC]!;
  out.srcMask = w[x + X.SRC_MASK]!;
  out.dst = w[x + X.DST]!;
  out.sport = w[x + X.PORTS_MASK] === 0 ? -1 : w[x + X.PORTS]! >>> 16;
  out.dport = w[x + X.PORTS]! & 0xffff;
  out.protocol = w[x + X.PROTOCOL]!;
  out.dir = w[x + X.DIR]!;
  out.class = w[x + X.CLASS]!;
  out.flags = w[x + X.FLAGS]!;
  out.helper = w[x + X.HELPER]!;
  out.timeoutMs = Math.max((w[x + X.TIMEOUT]! - t.now) | 0, 0);
  out.savedAddress = w[x + X.SAVED_ADDRESS]!;
  out.savedPort = w[x + X.SAVED_PORT]!;
  out.nat = w[x + X.NAT]!;
}

/** Whether the expectation at `x` is for a connection from `src` to `dst` and `dport`, from whatever port. */
function isFor(
  w: Int32Array,
  x: number,
  src: number,
  dst: number,
  dport: number,
  protocol: number,
  zone: number,
): boolean {
  return (
    w[x + X.DST] === dst &&
    (w[x + X.PORTS]! & 0xffff) === dport &&
    w[x + X.PROTOCOL] === protocol &&
    w[x + X.ZONE] === zone &&
    ((w[x + X.SRC]! ^ src) & w[x + X.SRC_MASK]!) === 0
  );
}

/**
 * The expectation that a new connection's original tuple fulfils (nf_ct_find_expectation): copied to `out` and, unless
 * PERMANENT, removed. Returns its master, a confirmed connection, or −1.
 */
export function fulfil(
  t: ConntrackTable,
  src: number,
  dst: number,
  ports: number,
  protocol: number,
  zone: number,
  out: Expectation,
): number {
  if (t.expectations() === 0) return -1;
  t.lockExpectations();
  const w = t.words;
  let master = -1;
  let link = w[record(t, bucketOf(t, dst, ports & 0xffff, protocol)) + X.BUCKET]!;
  while (link !== 0) {
    const number = link - 1;
    const x = record(t, number);
    link = w[x + X.NEXT]!;
    if (over(t, x)) {
      unlink(t, number);
    } else if (
      (w[x + X.FLAGS]! & ExpectFlag.INACTIVE) === 0 &&
      isFor(w, x, src, dst, ports & 0xffff, protocol, zone) &&
      ((w[x + X.PORTS]! ^ ports) & w[x + X.PORTS_MASK]!) === 0
    ) {
      // A master that is not confirmed can't have told the other end what to do.
      if (masterLives(t, x) && t.isConfirmed(w[x + X.MASTER]!)) {
        master = w[x + X.MASTER]!;
        load(t, x, out);
        if ((w[x + X.FLAGS]! & ExpectFlag.PERMANENT) === 0) unlink(t, number);
      }
      break;
    }
  }
  t.unlockExpectations();
  return master;
}

/** Drops the expectations and the helper data of a connection (nf_ct_remove_expectations). */
export function forget(t: ConntrackTable, entry: number): void {
  const helped = t.helper(entry) !== 0;
  const carries = t.firstCall() !== 0 && t.protocol(entry) === Proto.GRE;
  if (!helped && !carries && t.expectations() === 0) return;
  t.lockExpectations();
  // A call ends with its GRE connection, and the other way round.
  if (carries && t.hasMaster(entry)) {
    const master = t.master(entry);
    if (master >= 0) unlistCall(t, master);
  }
  if (t.helper(entry) === Helper.PPTP) closeCall(t, entry);
  unexpect(t, entry);
  if (helped) freeData(t, entry);
  t.unlockExpectations();
}

/** Drops the expectations of a connection that lives on, those of the classes whose bits are set. */
export function expectNothing(t: ConntrackTable, entry: number, classes = ALL_CLASSES): void {
  if (t.expectations() === 0) return;
  t.lockExpectations();
  unexpect(t, entry, classes);
  t.unlockExpectations();
}

const ALL_CLASSES = -1;

function unexpect(t: ConntrackTable, entry: number, classes = ALL_CLASSES): void {
  const w = t.words;
  const generation = t.generation(entry);
  for (let number = 0; number < t.expectCapacity && t.expectations() > 0; number++) {
    const x = record(t, number);
    if (
      w[x + X.USED] !== 0 &&
      w[x + X.MASTER] === entry &&
      w[x + X.MASTER_GENERATION] === generation &&
      ((classes >> w[x + X.CLASS]!) & 1) !== 0
    ) {
      unlink(t, number);
    }
  }
}

/** Takes back what `expect` has just added (nf_ct_unexpect_related). */
export function withdraw(t: ConntrackTable, master: number, e: Expectation): void {
  t.lockExpectations();
  const w = t.words;
  let link = w[record(t, bucketOf(t, e.dst, e.dport, e.protocol)) + X.BUCKET]!;
  while (link !== 0) {
    const x = record(t, link - 1);
    const own = w[x + X.MASTER] === master && w[x + X.CLASS] === e.class && w[x + X.SRC] === e.src;
    if (own && w[x + X.DST] === e.dst && (w[x + X.PORTS]! & 0xffff) === e.dport && w[x + X.PROTOCOL] === e.protocol) {
      unlink(t, link - 1);
      break;
    }
    link = w[x + X.NEXT]!;
  }
  t.unlockExpectations();
}

/** The newest expectation, active or not, that a connection from `src` would fulfil, copied to `out`. Returns its master or −1. */
export function findExpectation(
  t: ConntrackTable,
  src: number,
  dst: number,
  dport: number,
  protocol: number,
  zone: number,
  out: Expectation,
): number {
  if (t.expectations() === 0) return -1;
  t.lockExpectations();
  const w = t.words;
  let master = -1;
  let link = w[record(t, bucketOf(t, dst, dport, protocol)) + X.BUCKET]!;
  while (link !== 0 && master < 0) {
    const x = record(t, link - 1);
    link = w[x + X.NEXT]!;
    if (isFor(w, x, src, dst, dport, protocol, zone) && !over(t, x) && masterLives(t, x)) {
      load(t, x, out);
      master = w[x + X.MASTER]!;
    }
  }
  t.unlockExpectations();
  return master;
}

/** The master's newest expectation for what NAT found at that address and port, copied to `out`. */
export function findTranslated(
  t: ConntrackTable,
  master: number,
  protocol: number,
  address: number,
  port: number,
  out: Expectation,
): boolean {
  t.lockExpectations();
  const w = t.words;
  const generation = t.generation(master);
  let newest = -1;
  for (let number = 0; number < t.expectCapacity && t.expectations() > 0; number++) {
    const x = record(t, number);
    if (
      w[x + X.USED] !== 0 &&
      w[x + X.MASTER] === master &&
      w[x + X.MASTER_GENERATION] === generation &&
      w[x + X.PROTOCOL] === protocol &&
      w[x + X.SAVED_ADDRESS] === address &&
      w[x + X.SAVED_PORT] === port &&
      !over(t, x) &&
      (newest < 0 || ((w[x + X.BORN]! - w[newest + X.BORN]!) | 0) > 0)
    ) {
      newest = x;
    }
  }
  if (newest >= 0) load(t, newest, out);
  t.unlockExpectations();
  return newest >= 0;
}

/** Makes the master's expectation of that class and destination active, and gives it so much time; false: there is none. */
export function refreshExpectation(
  t: ConntrackTable,
  master: number,
  itsClass: number,
  dst: number,
  dport: number,
  protocol: number,
  ms: number,
): boolean {
  t.lockExpectations();
  const w = t.words;
  let found = false;
  let link = w[record(t, bucketOf(t, dst, dport, protocol)) + X.BUCKET]!;
  while (link !== 0 && !found) {
    const x = record(t, link - 1);
    link = w[x + X.NEXT]!;
    if (
      w[x + X.MASTER] === master &&
      w[x + X.CLASS] === itsClass &&
      w[x + X.DST] === dst &&
      (w[x + X.PORTS]! & 0xffff) === dport &&
      w[x + X.PROTOCOL] === protocol &&
      masterLives(t, x) &&
      !over(t, x)
    ) {
      w[x + X.TIMEOUT] = (t.now + ms) | 0;
      w[x + X.FLAGS]! &= ~ExpectFlag.INACTIVE;
      found = true;
    }
  }
  t.unlockExpectations();
  return found;
}

/** Drops all expectations; connections keep their helpers. */
export function flushExpectations(t: ConntrackTable): void {
  t.lockExpectations();
  for (let number = 0; number < t.expectCapacity; number++)
    if (t.words[record(t, number) + X.USED] !== 0) unlink(t, number);
  t.unlockExpectations();
}

/** For listing: the next expectation after record `after` (−1 begins), copied to `out`; −1 at the end. */
export function nextExpectation(t: ConntrackTable, after: number, out: Expectation): number {
  for (let number = after + 1; number < t.expectCapacity; number++) {
    const x = record(t, number);
    if (t.words[x + X.USED] !== 0 && !over(t, x) && masterLives(t, x)) {
      load(t, x, out);
      return number;
    }
  }
  return -1;
}

/** The master of a listed expectation. */
export const expectationMaster = (t: ConntrackTable, number: number): number => t.words[record(t, number) + X.MASTER]!;

// ---- helper data ----------------------------------------------------------------------------------------------------

/**
 * Offset in the table's words of HELPER_DATA_WORDS words that belong to this connection's helper, all 0 at first; made
 * on the first call. −1 when there are no more. They go with the connection, which must have its helper set.
 */
export function helperData(t: ConntrackTable, entry: number): number {
  const w = t.words;
  t.lockExpectations();
  const bucket = record(t, entry % t.expectCapacity) + X.DATA_BUCKET;
  const generation = t.generation(entry);
  let found = findData(t, entry);
  for (let i = 0; i < t.expectCapacity && found < 0; i++) {
    const number = (entry + i) % t.expectCapacity;
    const x = record(t, number);
    if (w[x + X.DATA_ENTRY] !== 0) continue;
    w[x + X.DATA_ENTRY] = entry + 1;
    w[x + X.DATA_GENERATION] = generation;
    w.fill(0, x + X.DATA, x + X.DATA + HELPER_DATA_WORDS);
    w[x + X.DATA_NEXT] = w[bucket]!;
    w[bucket] = number + 1;
    found = x + X.DATA;
  }
  t.unlockExpectations();
  return found;
}

/** Under the lock: the same if it is there, else −1. */
function findData(t: ConntrackTable, entry: number): number {
  const w = t.words;
  const generation = t.generation(entry);
  let link = w[record(t, entry % t.expectCapacity) + X.DATA_BUCKET]!;
  for (; link !== 0; link = w[record(t, link - 1) + X.DATA_NEXT]!) {
    const x = record(t, link - 1);
    if (w[x + X.DATA_ENTRY] === entry + 1 && w[x + X.DATA_GENERATION] === generation) return x + X.DATA;
  }
  return -1;
}

function freeData(t: ConntrackTable, entry: number): void {
  const w = t.words;
  let at = record(t, entry % t.expectCapacity) + X.DATA_BUCKET;
  for (let link = w[at]!; link !== 0; link = w[at]!) {
    const x = record(t, link - 1);
    if (w[x + X.DATA_ENTRY] === entry + 1) {
      w[at] = w[x + X.DATA_NEXT]!;
      w[x + X.DATA_ENTRY] = 0;
    } else {
      at = x + X.DATA_NEXT;
    }
  }
}

// ---- calls of PPTP --------------------------------------------------------------------------------------------------

/**
 * A GRE packet's header tells the receiver's call id alone (net/netfilter/nf_conntrack_proto_gre.c): the sender's, which its tuple has
 * as source, is known from the control connections whose calls are listed. `ports` with both; as it is where no call fits.
 */
export function withSourceKey(t: ConntrackTable, src: number, dst: number, ports: number): number {
  if (ports === 0 || t.firstCall() === 0) return ports;
  t.lockExpectations();
  const w = t.words;
  let found = ports;
  for (let data = t.firstCall(); data !== 0 && found === ports; data = w[data + Data.NEXT]!) {
    const entry = w[data - X.DATA + X.DATA_ENTRY]! - 1;
    for (let dir = 0; dir < 2; dir++) {
      const keys = w[data + Data.KEYS + dir]!;
      if ((keys & 0xffff) === ports && t.src(entry, dir) === src && t.dst(entry, dir) === dst) found = keys;
    }
  }
  t.unlockExpectations();
  return found;
}

/** Lists a control connection's call by the keys of its two directions. False: it has another call listed. */
export function listCall(t: ConntrackTable, data: number, original: number, reply: number): boolean {
  const w = t.words;
  t.lockExpectations();
  if (w[data + Data.LISTED] === 0) {
    w[data + Data.KEYS] = original;
    w[data + Data.KEYS + 1] = reply;
    w[data + Data.LISTED] = 1;
    w[data + Data.NEXT] = t.firstCall();
    t.setFirstCall(data);
  }
  const same = w[data + Data.KEYS] === original && w[data + Data.KEYS + 1] === reply;
  t.unlockExpectations();
  return same;
}

/** Ends a control connection's call: its GRE packets are no longer known, expected or part of a connection. */
export function endCall(t: ConntrackTable, entry: number): void {
  t.lockExpectations();
  unexpect(t, entry);
  closeCall(t, entry);
  t.unlockExpectations();
}

function closeCall(t: ConntrackTable, entry: number): void {
  const data = unlistCall(t, entry);
  if (data < 0) return;
  const key = packKey(Proto.GRE, t.zone(entry, 0));
  for (let dir = 0; dir < 2; dir++) {
    t.expire(t.src(entry, dir), t.dst(entry, dir), t.words[data + Data.KEYS + dir]!, key);
  }
}

/** Returns where the call's data is, −1: none was listed. */
function unlistCall(t: ConntrackTable, entry: number): number {
  const w = t.words;
  const data = findData(t, entry);
  if (data < 0 || w[data + Data.LISTED] === 0) return -1;
  if (t.firstCall() === data) t.setFirstCall(w[data + Data.NEXT]!);
  else {
    let before = t.firstCall();
    while (before !== 0 && w[before + Data.NEXT] !== data) before = w[before + Data.NEXT]!;
    if (before !== 0) w[before + Data.NEXT] = w[data + Data.NEXT]!;
  }
  w[data + Data.LISTED] = 0;
  return data;
}
