/**
 * Connection tracking of one packet, in the kernel's order (net/netfilter/nf_conntrack_core.c, nf_conntrack_in):
 * `track` in PREROUTING and OUTPUT finds or makes the packet's connection and says how the packet stands to it;
 * `confirm` behind the last hook puts a new one into the table; `release` forgets it when the packet was dropped.
 * A packet on the loopback interface that comes by PREROUTING was tracked in OUTPUT: `findLoopback` finds that again.
 */
import { InFlag } from '../io/batch.js';
import { CtState, Dir, Hook, Proto, Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import type { Crossings } from './crossings.js';
import type { PortHelpers } from './helpers/helpers.js';
import { Change, deliverEvents, keepEvents } from './events.js';
import { Expectation, forget, fulfil, withSourceKey } from './expect.js';
import { icmpPacket, isIcmpError, Quote, quoted, quotedLink } from './icmp.js';
import { invertible, invertPorts, packKey } from './key.js';
import { Outcome } from './outcome.js';
import { sctpPacket } from './sctp.js';
import { Setting } from './settings.js';
import { Status } from './states.js';
import { Ct, linkDir, linkEntry, Stat } from './layout.js';
import { Insert, type ConntrackTable } from './table.js';
import { tcpPacket } from './tcp.js';
import { NO_TUPLE, tuplePorts } from './tuple.js';
import { udpLitePacket, udpPacket } from './udp.js';

/** What the tracker needs beside the table; one a worker. */
export class Tracker {
  /** The expectation that the connection made last has fulfilled. */
  readonly expectation = new Expectation();
  /**
   * Told of an expected connection just made, with `expectation` and its master: NAT lets it follow the master
   * (nf_nat_follow_master) before any rule sees it.
   */
  onExpected: ((tracker: Tracker, entry: number, master: number) => void) | null = null;
  /** Helpers bound by port; null = none. */
  portHelpers: PortHelpers | null = null;
  /** Packets that will come again, and their new connections; null = packets cross once. */
  crossings: Crossings | null = null;

  constructor(readonly table: ConntrackTable) {
    table.onRemove = forget;
  }
}

/**
 * Finds or makes the packet's connection: sets p.ct, p.ctDir and p.ctState. Before it, p.ctState UNTRACKED means that a
 * rule said so (NOTRACK), and p.ctZones, p.ctHelper and p.ctEvents are what the CT target asks for.
 * @param hook PREROUTING or OUTPUT
 * @returns DROP when the table is full, else ACCEPT
 */
export function track(tracker: Tracker, p: Packet, hook: Hook): Verdict {
  const t = tracker.table;
  t.pendingEvents = 0;
  p.ct = -1;
  p.ctDir = Dir.ORIGINAL;
  if (p.ctState === CtState.UNTRACKED) return Verdict.ACCEPT;
  p.ctState = CtState.INVALID;

  // Fragments have been put together where connections are tracked; one that is still there is an error.
  if (p.fragOffset !== 0) return invalid(t);
  const verify =
    (p.flags & (InFlag.CSUM_NOT_VERIFIED | InFlag.CSUM_PARTIAL)) === InFlag.CSUM_NOT_VERIFIED &&
    hook === Hook.PREROUTING &&
    t.setting(Setting.CHECKSUM) !== 0;
  const protocol = p.protocol;
  const zones = p.ctZones;

  if (protocol === Proto.ICMP) {
    const link = quotedLink(t, p, zones, verify);
    if (link === Quote.INVALID) {
      t.count(Stat.ERROR);
      return invalid(t);
    }
    if (link !== Quote.NONE) {
      p.ct = linkEntry(link);
      p.ctDir = linkDir(link);
      p.ctState = CtState.RELATED;
      return Verdict.ACCEPT;
    }
  }

  let ports = tuplePorts(p.bytes, p.l4, p.end, protocol);
  if (ports === NO_TUPLE) return invalid(t);
  if (protocol === Proto.GRE) ports = withSourceKey(t, p.src, p.dst, ports);
  const keyOriginal = packKey(protocol, zones & 0xffff);
  const keyReply = packKey(protocol, zones >>> 16);
  let crossings = tracker.crossings;
  for (;;) {
    let entry: number;
    let dir: number;
    let shared = false;
    const link = t.find(p.src, p.dst, ports, keyOriginal, keyReply);
    if (link !== 0) {
      entry = linkEntry(link);
      dir = linkDir(link);
    } else {
      if (!invertible(protocol, ports)) return invalid(t);
      entry = crossings === null ? -1 : crossings.findNew(p.src, p.dst, ports, keyOriginal);
      shared = entry >= 0;
      if (!shared) entry = begin(tracker, p, ports, zones);
      dir = Dir.ORIGINAL;
      if (entry < 0) {
        t.count(Stat.DROP);
        return Verdict.DROP;
      }
    }
    if (shared) crossings!.lock();
    const status = t.words[t.at(entry) + Ct.STATUS]!;
    const outcome = packet(t, p, entry, dir, verify);
    if (shared) crossings!.unlock();
    if (outcome === Outcome.ACCEPT) {
      p.ct = entry;
      p.ctDir = dir;
      if (dir === Dir.REPLY) {
        p.ctState = CtState.ESTABLISHED;
        if ((status & Status.SEEN_REPLY) === 0 && !t.setStatus(entry, Status.SEEN_REPLY)) {
          t.pendingEvents |= Change.REPLY;
        }
      } else if ((status & Status.SEEN_REPLY) !== 0) p.ctState = CtState.ESTABLISHED;
      else if ((status & Status.EXPECTED) !== 0) p.ctState = CtState.RELATED;
      else p.ctState = CtState.NEW;
      return Verdict.ACCEPT;
    }
    if ((status & Status.CONFIRMED) === 0) discard(tracker, entry);
    crossings = null;
    if (outcome === Outcome.REPEAT) continue;
    t.count(Stat.INVALID);
    if (outcome === Outcome.INVALID) return Verdict.ACCEPT;
    t.count(Stat.DROP);
    return Verdict.DROP;
  }
}

function invalid(t: ConntrackTable): Verdict {
  t.count(Stat.INVALID);
  return Verdict.ACCEPT;
}

/** Forgets a connection that was never confirmed, unless other packets have it, too. */
function discard({ table: t, crossings }: Tracker, entry: number): void {
  t.pendingEvents = 0;
  if (crossings !== null && !crossings.leave()) return;
  forget(t, entry);
  t.discard(entry);
}

/** A new connection for the packet (init_conntrack); −1 when the table is full. */
function begin(tracker: Tracker, p: Packet, ports: number, zones: number): number {
  const t = tracker.table;
  const entry = t.create(p.src, p.dst, ports, p.protocol, zones & 0xffff, zones >>> 16);
  if (entry < 0) return -1;
  if (p.ctEvents !== 0) t.setEventFilter(entry, p.ctEvents);
  const master = fulfil(t, p.src, p.dst, ports, p.protocol, zones & 0xffff, tracker.expectation);
  if (master >= 0) {
    t.setStatus(entry, Status.EXPECTED);
    t.setMaster(entry, master);
    if (tracker.expectation.helper !== 0) t.setHelper(entry, tracker.expectation.helper);
    t.setMark(entry, t.mark(master));
    t.count(Stat.EXPECT_NEW);
    tracker.onExpected?.(tracker, entry, master);
  } else if (p.ctHelper !== 0) {
    t.setStatus(entry, Status.HELPER);
    t.setHelper(entry, p.ctHelper);
  }
  return entry;
}

function packet(t: ConntrackTable, p: Packet, entry: number, dir: number, verify: boolean): Outcome {
  switch (p.protocol) {
    case Proto.TCP:
      return tcpPacket(t, p, entry, dir, verify);
    case Proto.UDP:
      return udpPacket(t, p, entry, dir, verify);
    case Proto.ICMP:
      return icmpPacket(t, p, entry, dir);
    case Proto.UDPLITE:
      return udpLitePacket(t, p, entry, dir, verify);
    case Proto.SCTP:
      return sctpPacket(t, p, entry, dir, verify);
    case Proto.GRE:
      return grePacket(t, p, entry, dir);
    default:
      t.refresh(entry, t.setting(Setting.GENERIC_TIMEOUT));
      t.accountPacket(entry, dir, p.length);
      return Outcome.ACCEPT;
  }
}

/** PPTP_GRE_TIMEOUT and PPTP_GRE_STREAM_TIMEOUT of nf_conntrack_pptp.c */
const CALL_MS = 600_000;
const CALL_STREAM_MS = 18_000_000;

/** Words of a GRE connection: its timeouts, in milliseconds. */
const GRE_TIMEOUT = Ct.PROTO;
const GRE_STREAM_TIMEOUT = Ct.PROTO + 1;

/**
 * net/netfilter/nf_conntrack_proto_gre.c: any answer makes it a stream. The timeouts are those of its first packet, whatever is set
 * later. A PPTP call's lives longer.
 */
function grePacket(t: ConntrackTable, p: Packet, entry: number, dir: number): Outcome {
  const w = t.words;
  const e = t.at(entry);
  const status = w[e + Ct.STATUS]!;
  const replied = (status & Status.SEEN_REPLY) !== 0;
  if ((status & Status.CONFIRMED) === 0) {
    const isCall = t.hasMaster(entry);
    w[e + GRE_TIMEOUT] = isCall ? CALL_MS : t.setting(Setting.GRE_TIMEOUT);
    w[e + GRE_STREAM_TIMEOUT] = isCall ? CALL_STREAM_MS : t.setting(Setting.GRE_TIMEOUT_STREAM);
  }
  t.refresh(entry, w[e + (replied ? GRE_STREAM_TIMEOUT : GRE_TIMEOUT)]!);
  t.accountPacket(entry, dir, p.length);
  if (replied && (status & Status.NAT_CLASH) === 0 && !t.setStatus(entry, Status.ASSURED)) {
    t.pendingEvents |= Change.ASSURED;
  }
  return Outcome.ACCEPT;
}

/**
 * For a packet on the loopback interface in PREROUTING, which carries what NAT made of it in OUTPUT and POSTROUTING: gives
 * it the connection, direction and state that it had there; nothing is counted and no state moves. False when it had
 * none: then it is to be tracked.
 */
export function findLoopback(tracker: Tracker, p: Packet): boolean {
  const t = tracker.table;
  t.pendingEvents = 0;
  if (p.fragOffset !== 0) return false;
  if (isIcmpError(p)) {
    // It quotes the packet as its sender knows it, so it goes against that tuple's direction.
    const link = quoted(t, p, p.ctZones, false);
    if (link === 0) return false;
    p.ct = linkEntry(link);
    p.ctDir = 1 - linkDir(link);
    p.ctState = CtState.RELATED;
    return true;
  }
  let ports = tuplePorts(p.bytes, p.l4, p.end, p.protocol);
  if (ports === NO_TUPLE || !invertible(p.protocol, ports)) return false;
  if (p.protocol === Proto.GRE) ports = withSourceKey(t, p.src, p.dst, ports);
  const keyOriginal = packKey(p.protocol, p.ctZones & 0xffff);
  const keyReply = packKey(p.protocol, p.ctZones >>> 16);
  const link = t.findLingering(p.dst, p.src, invertPorts(p.protocol, ports), keyOriginal, keyReply);
  if (link === 0) return false;
  const status = t.words[t.at(linkEntry(link)) + Ct.STATUS]!;
  p.ct = linkEntry(link);
  p.ctDir = 1 - linkDir(link);
  if (p.ctDir === Dir.REPLY || (status & Status.SEEN_REPLY) !== 0) p.ctState = CtState.ESTABLISHED;
  else p.ctState = (status & Status.EXPECTED) !== 0 ? CtState.RELATED : CtState.NEW;
  return true;
}

/** Attaches a packet that answers `to` to the same connection, in the other direction (nf_conntrack_attach). */
export function attach(p: Packet, to: Packet): void {
  p.ct = to.ct;
  p.ctDir = 1 - to.ctDir;
  p.ctState = to.ct < 0 ? CtState.INVALID : CtState.RELATED;
}

/**
 * Binds a new connection to the helper that its port has by configuration, unless the CT target or an expectation said
 * otherwise; when NAT is done with it and before its first payload is read.
 */
export function bindHelper(tracker: Tracker, p: Packet): void {
  if (tracker.portHelpers === null || p.ct < 0) return;
  const t = tracker.table;
  if ((t.status(p.ct) & (Status.CONFIRMED | Status.HELPER | Status.EXPECTED)) !== 0) return;
  t.setHelper(p.ct, tracker.portHelpers.find(p.protocol, t.ports(p.ct, Dir.REPLY) >>> 16));
}

/**
 * After the last hook: puts a new connection into the table (__nf_conntrack_confirm), and tells the listeners what has
 * happened to an old one. DROP when another took one of its tuples in the meantime and the two can't be one.
 */
export function confirm(tracker: Tracker, p: Packet): Verdict {
  const t = tracker.table;
  if (p.ct < 0) return Verdict.ACCEPT;
  const status = t.words[t.at(p.ct) + Ct.STATUS]!;
  if ((status & Status.CONFIRMED) !== 0) {
    if (t.pendingEvents !== 0 || t.words[t.at(p.ct) + Ct.UNTOLD] !== 0) deliverEvents(t, p.ct);
    return Verdict.ACCEPT;
  }
  if (p.ctDir !== Dir.ORIGINAL) return Verdict.ACCEPT;
  const { crossings } = tracker;
  let result: number;
  if (crossings === null || crossings.mine < 0) result = t.insert(p.ct);
  else {
    crossings.lock();
    // Another of its packets may have been here meanwhile.
    const confirmed = t.isConfirmed(p.ct);
    result = confirmed ? Insert.INSERTED : t.insert(p.ct);
    crossings.unlock();
    if (confirmed) return Verdict.ACCEPT;
  }
  if (result === Insert.INSERTED) {
    t.count(Stat.INSERT);
    if (t.helper(p.ct) !== 0) t.pendingEvents |= Change.HELPER;
    t.pendingEvents |= t.hasMaster(p.ct) ? Change.RELATED : Change.NEW;
    deliverEvents(t, p.ct);
    return Verdict.ACCEPT;
  }
  t.pendingEvents = 0;
  if (result > 0 && resolveClash(tracker, p, result)) {
    t.count(Stat.CLASH_RESOLVE);
    return Verdict.ACCEPT;
  }
  if (result === Insert.CHAIN_TOO_LONG) t.count(Stat.CHAINTOOLONG);
  else if (result !== Insert.DYING) t.count(Stat.DROP);
  t.count(Stat.INSERT_FAILED);
  release(tracker, p);
  return Verdict.DROP;
}

/** Two packets of one flow met in different threads, or of two flows that only look alike (nf_ct_resolve_clash). */
function resolveClash(tracker: Tracker, p: Packet, link: number): boolean {
  const t = tracker.table;
  if (p.protocol === Proto.TCP || p.protocol === Proto.SCTP || p.protocol === Proto.ICMP) return false;
  if (merge(tracker, p, linkEntry(link))) return true;
  const reply = t.insertReplyOnly(p.ct);
  if (reply === Insert.INSERTED) return true;
  return reply > 0 && merge(tracker, p, linkEntry(reply));
}

/** Gives the packet the connection that is in the table already, when it is the same or its mirror image. */
function merge(tracker: Tracker, p: Packet, winner: number): boolean {
  const t = tracker.table;
  const a = t.at(winner);
  const b = t.at(p.ct);
  if ((t.words[a + Ct.STATUS]! & Status.DYING) !== 0) return false;
  const same = t.sameTuple(a, b) && t.sameTuple(a + Ct.TUPLE_WORDS, b + Ct.TUPLE_WORDS);
  const mirrored = t.sameTuple(a, b + Ct.TUPLE_WORDS) && t.sameTuple(a + Ct.TUPLE_WORDS, b);
  if (!same && !mirrored) return false;
  t.accountPacket(winner, p.ctDir, p.length);
  discard(tracker, p.ct);
  p.ct = winner;
  return true;
}

/** The packet was dropped: an unconfirmed connection goes with it; what it changed in another is told with the next that passes. */
export function release(tracker: Tracker, p: Packet): void {
  const t = tracker.table;
  if (p.ct < 0) return;
  if ((t.words[t.at(p.ct) + Ct.STATUS]! & Status.CONFIRMED) !== 0) {
    if (t.pendingEvents !== 0) keepEvents(t, p.ct);
  } else if (p.ctDir === Dir.ORIGINAL) discard(tracker, p.ct);
  p.ct = -1;
}
