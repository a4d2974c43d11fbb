/**
 * SCTP (RFC 9260; net/netfilter/nf_conntrack_proto_sctp.c). The state follows the chunks of both directions; packets
 * must carry the verification tag that the other side chose, with the exceptions of RFC 9260 §8.5.1. A path that begins
 * with a HEARTBEAT is a further one of a multi-homed association. Its words: STATE (state in bits 0–7, direction of the
 * last failed heartbeat in 8, HEARTBEAT_FAILED in 9, INIT seen a direction in 10 and 11), then the tag of each direction.
 */
import type { Packet } from '../packet.js';
import { u16, u32, u8 } from '../wire/bytes.js';
import { sctpChecksum } from '../wire/crc32c.js';
import { Change } from './events.js';
import { Outcome } from './outcome.js';
import { Setting } from './settings.js';
import { SctpState, SCTP_STATE_COUNT, Status } from './states.js';
import { Ct } from './layout.js';
import type { ConntrackTable } from './table.js';

const STATE = Ct.PROTO;
const TAG = STATE + 1;
const FAILED_DIR = 1 << 8;
const HEARTBEAT_FAILED = 1 << 9;
const initSeen = (dir: number): number => 1 << (10 + dir);

// Common header (RFC 9260 §3.1), chunk header, and INIT's first field.
const VERIFICATION_TAG = 4;
const CHECKSUM = 8;
const HEADER = 12;
const CHUNK_FLAGS = 1;
const CHUNK_LENGTH = 2;
const CHUNK_HEADER = 4;
const INIT_LENGTH = 16;
/** ABORT, SHUTDOWN COMPLETE: the tag is the sender's own (T bit). */
const REFLECTED_TAG = 1;

const enum Chunk {
  DATA = 0,
  INIT = 1,
  INIT_ACK = 2,
  HEARTBEAT = 4,
  HEARTBEAT_ACK = 5,
  ABORT = 6,
  SHUTDOWN = 7,
  SHUTDOWN_ACK = 8,
  ERROR = 9,
  COOKIE_ECHO = 10,
  COOKIE_ACK = 11,
  SHUTDOWN_COMPLETE = 14,
}

const sCL = SctpState.CLOSED;
const sCW = SctpState.COOKIE_WAIT;
const sCE = SctpState.COOKIE_ECHOED;
const sES = SctpState.ESTABLISHED;
const sSS = SctpState.SHUTDOWN_SENT;
const sSR = SctpState.SHUTDOWN_RECD;
const sSA = SctpState.SHUTDOWN_ACK_SENT;
const sHS = SctpState.HEARTBEAT_SENT;
const sIV = SCTP_STATE_COUNT;

/** Row of the state table by chunk type; −1: the chunk changes nothing. */
const ROW = new Int8Array(256).fill(-1);
[
  Chunk.INIT,
  Chunk.INIT_ACK,
  Chunk.ABORT,
  Chunk.SHUTDOWN,
  Chunk.SHUTDOWN_ACK,
  Chunk.ERROR,
  Chunk.COOKIE_ECHO,
  Chunk.COOKIE_ACK,
  Chunk.SHUTDOWN_COMPLETE,
  Chunk.HEARTBEAT,
  Chunk.HEARTBEAT_ACK,
].forEach((type, row) => (ROW[type] = row));
const ROWS = 11;

/** STATE_TABLE[(dir * ROWS + row) * SCTP_STATE_COUNT + state]. Columns: the state before. */
// prettier-ignore
const STATE_TABLE = Uint8Array.from([
  // from the one who began
  // NONE CLOSED COOKIE_WAIT COOKIE_ECHOED ESTABLISHED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT
  sCL, sCL, sCW, sCE, sES, sCL, sCL, sSA, sCW, // INIT: begins; or again, or while shutting down
  sCL, sCL, sCW, sCE, sES, sSS, sSR, sSA, sCL, // INIT ACK: not from this side
  sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sCL, // ABORT ends everything
  sCL, sCL, sCW, sCE, sSS, sSS, sSR, sSA, sCL, // SHUTDOWN: of an established association
  sSA, sCL, sCW, sCE, sES, sSA, sSA, sSA, sSA, // SHUTDOWN ACK: answers one, or comes out of the blue
  sCL, sCL, sCW, sCE, sES, sSS, sSR, sSA, sCL, // ERROR: a stale cookie can't come from this side
  sCL, sCL, sCE, sCE, sES, sSS, sSR, sSA, sCL, // COOKIE ECHO: the third step
  sCL, sCL, sCW, sES, sES, sSS, sSR, sSA, sCL, // COOKIE ACK
  sCL, sCL, sCW, sCE, sES, sSS, sSR, sCL, sCL, // SHUTDOWN COMPLETE: the end of a shutdown
  sHS, sCL, sCW, sCE, sES, sSS, sSR, sSA, sHS, // HEARTBEAT: a further path begins with it
  sCL, sCL, sCW, sCE, sES, sSS, sSR, sSA, sHS, // HEARTBEAT ACK
  // from the other
  sIV, sCL, sCW, sCE, sES, sSS, sSR, sSA, sIV, // INIT: a collision
  sIV, sCW, sCW, sCE, sES, sSS, sSR, sSA, sIV, // INIT ACK: the second step
  sIV, sCL, sCL, sCL, sCL, sCL, sCL, sCL, sIV, // ABORT
  sIV, sCL, sCW, sCE, sSR, sSS, sSR, sSA, sIV, // SHUTDOWN
  sIV, sCL, sCW, sCE, sES, sSA, sSA, sSA, sIV, // SHUTDOWN ACK
  sIV, sCL, sCW, sCL, sES, sSS, sSR, sSA, sIV, // ERROR: the cookie was stale
  sIV, sCL, sCE, sCE, sES, sSS, sSR, sSA, sIV, // COOKIE ECHO
  sIV, sCL, sCW, sES, sES, sSS, sSR, sSA, sIV, // COOKIE ACK: established
  sIV, sCL, sCW, sCE, sES, sSS, sSR, sCL, sIV, // SHUTDOWN COMPLETE
  sIV, sCL, sCW, sCE, sES, sSS, sSR, sSA, sHS, // HEARTBEAT
  sIV, sCL, sCW, sCE, sES, sSS, sSR, sSA, sES, // HEARTBEAT ACK: the further path works
]);

function nextState(dir: number, state: number, type: number): number {
  const row = ROW[type]!;
  return row < 0 ? state : STATE_TABLE[(dir * ROWS + row) * SCTP_STATE_COUNT + state]!;
}

const padded = (length: number): number => (length + 3) & ~3;

/** Types of the chunks as bits (those below 32), or −1 when they can't stand together or one has no length. */
function chunkTypes(p: Packet): number {
  let types = 0;
  let single = false;
  let count = 0;
  for (let o = p.l4 + HEADER; o + CHUNK_HEADER <= p.end; count++) {
    const type = u8(p.bytes, o);
    const length = u16(p.bytes, o + CHUNK_LENGTH);
    if (type === Chunk.INIT || type === Chunk.INIT_ACK || type === Chunk.SHUTDOWN_COMPLETE) single = true;
    const first = single || type === Chunk.COOKIE_ACK || type === Chunk.COOKIE_ECHO;
    if ((first && count !== 0) || length === 0) return -1;
    if (type < 31) types |= 1 << type;
    o += padded(length);
  }
  return count === 0 ? -1 : types;
}

const has = (types: number, type: number): boolean => ((types >> type) & 1) !== 0;

/** INIT's and INIT ACK's tag of their sender; the caller has checked that it is there. */
const initiateTag = (p: Packet, chunk: number): number => u32(p.bytes, chunk + CHUNK_HEADER);
const initiateTagThere = (p: Packet, chunk: number): boolean => chunk + CHUNK_HEADER + INIT_LENGTH <= p.end;

/** First packet of a connection: the tags that can be known from it. False: it can't begin one. */
function begin(w: Int32Array, p: Packet, e: number): boolean {
  const tag = u32(p.bytes, p.l4 + VERIFICATION_TAG);
  for (let o = p.l4 + HEADER; o + CHUNK_HEADER <= p.end; o += padded(u16(p.bytes, o + CHUNK_LENGTH))) {
    const type = u8(p.bytes, o);
    if (nextState(0, SctpState.NONE, type) === SctpState.NONE) return false;
    if (type === Chunk.INIT) {
      if (tag !== 0 || !initiateTagThere(p, o)) return false;
      w[e + TAG + 1] = initiateTag(p, o);
    } else if (type === Chunk.HEARTBEAT) {
      w[e + TAG] = tag;
    } else if (type === Chunk.SHUTDOWN_ACK) {
      // Out of the blue: the answer carries the same tag (RFC 9260 §8.4).
      w[e + TAG + 1] = tag;
    }
  }
  return true;
}

/** @param verify whether the checksum is to be verified */
export function sctpPacket(t: ConntrackTable, p: Packet, entry: number, dir: number, verify: boolean): Outcome {
  if (p.l4Length < HEADER) return Outcome.INVALID;
  if (verify && u32(p.bytes, p.l4 + CHECKSUM) !== sctpChecksum(p.bytes, p.l4, p.end)) return Outcome.INVALID;
  const types = chunkTypes(p);
  if (types < 0) return Outcome.INVALID;
  const w = t.words;
  const e = t.at(entry);
  if ((w[e + Ct.STATUS]! & Status.CONFIRMED) === 0) {
    // Out of the blue and not to be answered (RFC 9260 §8.4).
    if (has(types, Chunk.ABORT) || has(types, Chunk.SHUTDOWN_COMPLETE) || has(types, Chunk.COOKIE_ACK)) {
      return Outcome.INVALID;
    }
    if (!begin(w, p, e)) return Outcome.INVALID;
  }
  t.lockEntry(entry);
  const outcome = step(t, p, entry, e, dir, types);
  t.unlockEntry(entry);
  return outcome;
}

const OWN_TAG_RULES =
  (1 << Chunk.INIT) |
  (1 << Chunk.SHUTDOWN_COMPLETE) |
  (1 << Chunk.COOKIE_ECHO) |
  (1 << Chunk.ABORT) |
  (1 << Chunk.SHUTDOWN_ACK) |
  (1 << Chunk.HEARTBEAT) |
  (1 << Chunk.HEARTBEAT_ACK);

function step(t: ConntrackTable, p: Packet, entry: number, e: number, dir: number, types: number): Outcome {
  const w = t.words;
  const b = p.bytes;
  const tag = u32(b, p.l4 + VERIFICATION_TAG);
  const mine = e + TAG + dir;
  const other = e + TAG + 1 - dir;
  if ((types & OWN_TAG_RULES) === 0 && tag !== w[mine]) return Outcome.INVALID;

  let ignore = false;
  let next: number = SctpState.NONE;
  for (let o = p.l4 + HEADER; o + CHUNK_HEADER <= p.end; o += padded(u16(b, o + CHUNK_LENGTH))) {
    const type = u8(b, o);
    switch (type) {
      case Chunk.INIT:
        if (tag !== 0) return Outcome.INVALID;
        break;
      case Chunk.ABORT:
      case Chunk.SHUTDOWN_COMPLETE:
        if (tag !== ((u8(b, o + CHUNK_FLAGS) & REFLECTED_TAG) === 0 ? w[mine] : w[other])) return Outcome.INVALID;
        break;
      case Chunk.COOKIE_ECHO:
        if (tag !== w[mine]) return Outcome.INVALID;
        break;
      case Chunk.COOKIE_ACK:
        w[e + STATE] = w[e + STATE]! & ~(initSeen(0) | initSeen(1));
        break;
      case Chunk.HEARTBEAT:
        if (w[mine] === 0) {
          w[mine] = tag;
        } else if (tag !== w[mine]) {
          if (has(types, Chunk.DATA) || ignore) return Outcome.INVALID;
          w[e + STATE] = (w[e + STATE]! & ~FAILED_DIR) | HEARTBEAT_FAILED | (dir << 8);
          ignore = true;
          continue;
        } else {
          w[e + STATE] = w[e + STATE]! & ~HEARTBEAT_FAILED;
        }
        break;
      case Chunk.HEARTBEAT_ACK:
        if (w[mine] === 0) {
          w[mine] = tag;
        } else if (tag !== w[mine]) {
          const state = w[e + STATE]!;
          if (has(types, Chunk.DATA) || ignore) return Outcome.INVALID;
          if ((state & HEARTBEAT_FAILED) === 0 || ((state >> 8) & 1) === dir) return Outcome.INVALID;
          w[e + STATE] = state & ~HEARTBEAT_FAILED;
          w[mine] = tag;
          w[other] = 0;
        } else {
          w[e + STATE] = w[e + STATE]! & ~HEARTBEAT_FAILED;
        }
        break;
    }

    const state = w[e + STATE]!;
    const old = state & 0xff;
    next = nextState(dir, old, type);
    if (next === sIV) return Outcome.INVALID;

    let seen = state & ~0xff;
    if (type === Chunk.INIT) {
      if (!initiateTagThere(p, o)) return Outcome.INVALID;
      // One with the tag that is known already is late, or forged.
      if (initiateTag(p, o) !== w[other] || (w[e + Ct.STATUS]! & Status.CONFIRMED) === 0) {
        if ((seen & initSeen(dir)) !== 0) seen &= ~initSeen(1 - dir);
        seen |= initSeen(dir);
      }
      w[other] = initiateTag(p, o);
      // An INIT again: a reused port must not keep the entry, and its translation, for ever.
      if (next === SctpState.CLOSED && old === SctpState.CLOSED && (w[e + Ct.STATUS]! & Status.CONFIRMED) !== 0) {
        ignore = true;
      }
    } else if (type === Chunk.INIT_ACK) {
      if (!initiateTagThere(p, o)) return Outcome.INVALID;
      const known = w[other]!;
      const theirs = initiateTag(p, o);
      if ((seen & initSeen(1 - dir)) === 0 && known !== 0 && known !== theirs) return Outcome.INVALID;
      // Both began at once.
      if ((seen & initSeen(dir)) !== 0 && (seen & initSeen(1 - dir)) !== 0 && known !== theirs) return Outcome.INVALID;
      w[other] = theirs;
    }
    w[e + STATE] = seen | next;
    if (old !== next) {
      t.pendingEvents |= Change.PROTOINFO;
      if (next === SctpState.ESTABLISHED && !t.setStatus(entry, Status.ASSURED)) t.pendingEvents |= Change.ASSURED;
    }
  }
  if (ignore) return Outcome.ACCEPT;
  // The kernel's timeout for the state NONE, which only a lone failed heartbeat leaves, is CLOSED's.
  t.refresh(entry, t.setting(Setting.SCTP_TIMEOUT + (next === SctpState.NONE ? SctpState.CLOSED : next)));
  t.account(entry, dir, 1, p.length);
  return Outcome.ACCEPT;
}
