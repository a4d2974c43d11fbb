/**
 * TCP (net/netfilter/nf_conntrack_proto_tcp.c as of Linux 6.x). We stand in the middle: all packets pass us, some get
 * lost behind us, and each segment is judged by what both ends can know. A state machine follows the flags; a window
 * model for each sender, after "Real Stateful TCP Packet Filtering in IP Filter" (van Rooij, 2000), refuses segments
 * that no end would accept; a packet that only the ends can judge is let through and remembered, and the answer to it
 * tells whether they or we were out of step.
 */
import { Hook, Proto, TcpFlag } from '../names.js';
import type { Packet } from '../packet.js';
import { u16, u32, u8 } from '../wire/bytes.js';
import { transportChecksumOk } from '../wire/checksum.js';
import { isReserved } from './crossings.js';
import { Change } from './events.js';
import { Outcome } from './outcome.js';
import { seqOffset } from './seqadj.js';
import { Setting } from './settings.js';
import { Status, TcpState } from './states.js';
import { Ct } from './layout.js';
import type { ConntrackTable } from './table.js';

/** Words of the connection. A sender's model: see `Seen`. */
const enum Tcp {
  /** State in bits 0–7, direction (8) and kind (12–15) of the last packet, retransmissions in 16–23. */
  STATE = 32,
  SEEN = 33,
  SEEN_WORDS = 4,
  /** For each direction, in 16 bits: flags in 0–7, window scale in 8–15. */
  FLAGS = 41,
  LAST_SEQ = 42,
  LAST_ACK = 43,
  LAST_END = 44,
  /** Window in bits 0–15, scale of an ignored SYN in 16–23, LastFlag bits in 24–31. */
  LAST_WINDOW = 45,
}
if ((Tcp.STATE as number) !== (Ct.PROTO as number)) throw new Error('TCP words moved');

/** What is known of a sender: sequence numbers of its data and limits set by the other side. */
const enum Seen {
  /** One past the highest sequence number sent (max of seq + length). */
  END = 0,
  /** One past the last it may send: max of the receiver's ack + window. */
  MAXEND = 1,
  /** The widest window it has announced. */
  MAXWIN = 2,
  /** The highest ack it has sent. */
  MAXACK = 3,
}

/** IP_CT_TCP_FLAG_*. */
const enum Flag {
  WINDOW_SCALE = 0x01,
  SACK_PERMITTED = 0x02,
  /** It sent the first FIN. */
  CLOSE_INIT = 0x04,
  BE_LIBERAL = 0x08,
  DATA_UNACKNOWLEDGED = 0x10,
  MAXACK_SET = 0x20,
}
const enum LastFlag {
  EXPECT_CHALLENGE_ACK = 0x40,
  SIMULTANEOUS_OPEN = 0x80,
}

/** A packet's kind by its flags: the row of the state table. */
const enum Kind {
  SYN = 0,
  SYNACK = 1,
  FIN = 2,
  ACK = 3,
  RST = 4,
  NONE = 5,
}

const sNO = TcpState.NONE;
const sSS = TcpState.SYN_SENT;
const sSR = TcpState.SYN_RECV;
const sES = TcpState.ESTABLISHED;
const sFW = TcpState.FIN_WAIT;
const sCW = TcpState.CLOSE_WAIT;
const sLA = TcpState.LAST_ACK;
const sTW = TcpState.TIME_WAIT;
const sCL = TcpState.CLOSE;
const sS2 = TcpState.SYN_SENT2;
/** Invalid. */
const sIV = 10;
/** Ignore: pass it, keep the state, remember it; its receiver's answer will tell what it was. */
const sIG = 11;
void sNO;

const KINDS = 6;
const STATES = 10;
/** STATE_TABLE[(dir * KINDS + kind) * STATES + state] is the next state. */
const STATE_TABLE = Uint8Array.from([
  // ---- from the one who opened the connection
  // SYN
  sSS, // NONE        a new connection
  sSS, // SYN_SENT    the SYN again
  sIG, // SYN_RECV    a late SYN, or the ends know better
  sIG, // ESTABLISHED in the window it is an error that the receiver resets; else we hold a dead connection
  sIG, // FIN_WAIT    likewise
  sIG, // CLOSE_WAIT
  sIG, // LAST_ACK    perhaps answered by a challenge ACK (RFC 5961 §4)
  sSS, // TIME_WAIT   reopened (RFC 1122 §4.2.2.13)
  sSS, // CLOSE       reopened after a reset
  sS2, // SYN_SENT2   a late SYN of a simultaneous open
  // SYN ACK
  sIV, // NONE        nobody was asked
  sIV, // SYN_SENT    a client doesn't answer its own SYN
  sSR, // SYN_RECV    the client's SYN ACK of a simultaneous open, again
  sIV, // ESTABLISHED
  sIV, // FIN_WAIT
  sIV, // CLOSE_WAIT
  sIV, // LAST_ACK
  sIV, // TIME_WAIT
  sIV, // CLOSE
  sSR, // SYN_SENT2   the client's answer in a simultaneous open
  // FIN
  sIV, // NONE        too late for anything
  sIV, // SYN_SENT    not before there was an answer
  sFW, // SYN_RECV    closes at once
  sFW, // ESTABLISHED closes
  sLA, // FIN_WAIT    both sides have closed, or the FIN again
  sLA, // CLOSE_WAIT  the second side closes
  sLA, // LAST_ACK    the FIN again
  sTW, // TIME_WAIT   late
  sCL, // CLOSE
  sIV, // SYN_SENT2
  // ACK
  sES, // NONE        picked up in its middle
  sIV, // SYN_SENT    there was no SYN ACK to acknowledge
  sES, // SYN_RECV    the handshake is over
  sES, // ESTABLISHED as things should be
  sCW, // FIN_WAIT    the FIN is acknowledged
  sCW, // CLOSE_WAIT
  sTW, // LAST_ACK    the last ACK, unless it is a challenge
  sTW, // TIME_WAIT   the last ACK again
  sCL, // CLOSE
  sIV, // SYN_SENT2
  // RST
  sIV, // NONE        nothing to reset
  sCL, // SYN_SENT
  sCL, // SYN_RECV
  sCL, // ESTABLISHED
  sCL, // FIN_WAIT
  sCL, // CLOSE_WAIT
  sCL, // LAST_ACK
  sCL, // TIME_WAIT
  sCL, // CLOSE
  sCL, // SYN_SENT2
  // none of these flags: never valid
  ...Array.from({ length: STATES }, () => sIV),

  // ---- from the one who was asked
  // SYN
  sIV, // NONE        can't be: it would be the original direction
  sS2, // SYN_SENT    simultaneous open
  sIV, // SYN_RECV    it has answered already
  sIV, // ESTABLISHED
  sIV, // FIN_WAIT
  sIV, // CLOSE_WAIT
  sIV, // LAST_ACK
  sSS, // TIME_WAIT   reopened with the roles changed
  sIV, // CLOSE
  sS2, // SYN_SENT2   the SYN of a simultaneous open again
  // SYN ACK
  sIV, // NONE
  sSR, // SYN_SENT    the usual answer
  sIG, // SYN_RECV    the answer again
  sIG, // ESTABLISHED late, or the answer to a SYN that we let pass: then we get in step by it
  sIG, // FIN_WAIT    likewise
  sIG, // CLOSE_WAIT
  sIG, // LAST_ACK
  sIG, // TIME_WAIT
  sIG, // CLOSE
  sSR, // SYN_SENT2   simultaneous open
  // FIN
  sIV, // NONE
  sIV, // SYN_SENT    not before it has answered
  sFW, // SYN_RECV    closes at once
  sFW, // ESTABLISHED closes
  sLA, // FIN_WAIT    both sides have closed
  sLA, // CLOSE_WAIT
  sLA, // LAST_ACK    the FIN again
  sTW, // TIME_WAIT
  sCL, // CLOSE
  sIV, // SYN_SENT2
  // ACK
  sIV, // NONE
  sIG, // SYN_SENT    the server holds an old, half-open connection: a challenge ACK
  sSR, // SYN_RECV    may answer a SYN sent again
  sES, // ESTABLISHED as things should be
  sCW, // FIN_WAIT    the FIN is acknowledged
  sCW, // CLOSE_WAIT
  sTW, // LAST_ACK    the last ACK, unless it is a challenge
  sTW, // TIME_WAIT
  sCL, // CLOSE
  sIG, // SYN_SENT2
  // RST
  sIV, // NONE
  sCL, // SYN_SENT    refused
  sCL, // SYN_RECV
  sCL, // ESTABLISHED
  sCL, // FIN_WAIT
  sCL, // CLOSE_WAIT
  sCL, // LAST_ACK
  sCL, // TIME_WAIT
  sCL, // CLOSE
  sCL, // SYN_SENT2
  // none of these flags: never valid
  ...Array.from({ length: STATES }, () => sIV),
]);

/** Kind by the flags FIN SYN RST ACK; PSH, URG, ECE and CWR don't matter. */
const KIND = new Uint8Array(256);
/** 1 for the combinations of FIN SYN RST ACK URG that occur; PSH, ECE and CWR go with all of them. */
const FLAGS_VALID = new Uint8Array(256);
const VALID: readonly number[] = [
  TcpFlag.SYN,
  TcpFlag.SYN | TcpFlag.URG,
  TcpFlag.SYN | TcpFlag.ACK,
  TcpFlag.RST,
  TcpFlag.RST | TcpFlag.ACK,
  TcpFlag.FIN | TcpFlag.ACK,
  TcpFlag.FIN | TcpFlag.ACK | TcpFlag.URG,
  TcpFlag.ACK,
  TcpFlag.ACK | TcpFlag.URG,
];
for (let flags = 0; flags < 256; flags++) {
  if ((flags & TcpFlag.RST) !== 0) KIND[flags] = Kind.RST;
  else if ((flags & TcpFlag.SYN) !== 0) KIND[flags] = (flags & TcpFlag.ACK) !== 0 ? Kind.SYNACK : Kind.SYN;
  else if ((flags & TcpFlag.FIN) !== 0) KIND[flags] = Kind.FIN;
  else if ((flags & TcpFlag.ACK) !== 0) KIND[flags] = Kind.ACK;
  else KIND[flags] = Kind.NONE;
  FLAGS_VALID[flags] = VALID.includes(flags & ~(TcpFlag.PSH | TcpFlag.ECE | TcpFlag.CWR)) ? 1 : 0;
}

// Header offsets (RFC 9293 §3.1).
const SEQ = 4;
const ACK = 8;
const DATA_OFFSET = 12;
const WINDOW = 14;
const HEADER = 20;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_WINDOW = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
/** NOP NOP TIMESTAMP 10: the usual options of a data segment. */
const TIMESTAMP_ONLY = 0x0101080a;
const TIMESTAMP_ONLY_LENGTH = 12;
const MAX_SCALE = 14;

/** The least window within which an old ACK is taken: the largest unscaled window and a bit. */
const MAX_ACK_WINDOW = 66_000;

const before = (a: number, b: number): boolean => ((a - b) | 0) < 0;
const after = (a: number, b: number): boolean => ((b - a) | 0) < 0;

/** The connection's TCP state. */
export const tcpState = (t: ConntrackTable, entry: number): TcpState => t.words[t.at(entry) + Tcp.STATE]! & 0xff;

const lastDir = (state: number): number => (state >> 8) & 1;
const lastKind = (state: number): number => (state >> 12) & 15;
const retransmissions = (state: number): number => (state >> 16) & 0xff;
const packState = (state: number, dir: number, kind: number, retrans: number): number =>
  state | (dir << 8) | (kind << 12) | ((retrans & 0xff) << 16);

const seenAt = (e: number, dir: number): number => e + Tcp.SEEN + dir * Tcp.SEEN_WORDS;
const flagsOf = (w: Int32Array, e: number, dir: number): number => (w[e + Tcp.FLAGS]! >> (dir << 4)) & 0xff;
const scaleOf = (w: Int32Array, e: number, dir: number): number => (w[e + Tcp.FLAGS]! >> ((dir << 4) + 8)) & 0xff;
function setFlags(w: Int32Array, e: number, dir: number, flags: number, scale: number): void {
  const shift = dir << 4;
  w[e + Tcp.FLAGS] = (w[e + Tcp.FLAGS]! & ~(0xffff << shift)) | ((flags | (scale << 8)) << shift);
}
function addFlag(w: Int32Array, e: number, dir: number, flag: number): void {
  w[e + Tcp.FLAGS] = w[e + Tcp.FLAGS]! | (flag << (dir << 4));
}
function dropFlag(w: Int32Array, e: number, dir: number, flag: number): void {
  w[e + Tcp.FLAGS] = w[e + Tcp.FLAGS]! & ~(flag << (dir << 4));
}

/** One past the segment's last sequence number, SYN and FIN counted. */
function segmentEnd(p: Packet, seq: number): number {
  const data = p.l4Length - (u8(p.bytes, p.l4 + DATA_OFFSET) >> 4) * 4;
  return (seq + data + ((p.tcpFlags & TcpFlag.SYN) >> 1) + (p.tcpFlags & TcpFlag.FIN)) | 0;
}

/**
 * Reads window scale and SACK permission of a SYN: flags | scale << 8. Without options it is `old`; else of the old flags
 * BE_LIBERAL stays. Options after a malformed one are not read.
 */
function synOptions(p: Packet, old: number): number {
  const b = p.bytes;
  let o = p.l4 + HEADER;
  const end = p.l4 + (u8(b, p.l4 + DATA_OFFSET) >> 4) * 4;
  if (o === end) return old;
  let flags = old & Flag.BE_LIBERAL;
  let scale = 0;
  while (o < end) {
    const kind = u8(b, o);
    if (kind === OPTION_END) break;
    if (kind === OPTION_NOP) {
      o++;
      continue;
    }
    if (end - o < 2) break;
    const size = u8(b, o + 1);
    if (size < 2 || size > end - o) break;
    if (kind === OPTION_SACK_PERMITTED && size === 2) flags |= Flag.SACK_PERMITTED;
    else if (kind === OPTION_WINDOW && size === 3) {
      scale = Math.min(u8(b, o + 2), MAX_SCALE);
      flags |= Flag.WINDOW_SCALE;
    }
    o += size;
  }
  return flags | (scale << 8);
}

/** The highest right edge of the SACK blocks (RFC 2018), at least `sack`. */
function highestSack(p: Packet, sack: number): number {
  const b = p.bytes;
  let o = p.l4 + HEADER;
  const end = p.l4 + (u8(b, p.l4 + DATA_OFFSET) >> 4) * 4;
  if (end - o === TIMESTAMP_ONLY_LENGTH && u32(b, o) === TIMESTAMP_ONLY) return sack;
  while (o < end) {
    const kind = u8(b, o);
    if (kind === OPTION_END) break;
    if (kind === OPTION_NOP) {
      o++;
      continue;
    }
    if (end - o < 2) break;
    const size = u8(b, o + 1);
    if (size < 2 || size > end - o) break;
    if (kind === OPTION_SACK && size >= 10 && (size - 2) % 8 === 0) {
      for (let edge = o + 6; edge < o + size; edge += 8) {
        const right = u32(b, edge);
        if (after(right, sack)) sack = right;
      }
      break;
    }
    o += size;
  }
  return sack;
}

/** First packet of a connection: what can be known from it. False: it can't begin one. */
function begin(t: ConntrackTable, p: Packet, e: number, kind: number): boolean {
  const next = STATE_TABLE[kind * STATES]!;
  if (next === sIV) return false;
  if (next !== sSS && t.setting(Setting.TCP_LOOSE) === 0) return false;
  const w = t.words;
  const end = segmentEnd(p, u32(p.bytes, p.l4 + SEQ));
  const window = u16(p.bytes, p.l4 + WINDOW) || 1;
  const seen = seenAt(e, 0);
  w[seen + Seen.END] = end;
  w[seen + Seen.MAXWIN] = window;
  if (next === sSS) {
    w[seen + Seen.MAXEND] = end;
    const options = synOptions(p, 0);
    setFlags(w, e, 0, options & 0xff, options >> 8);
  } else {
    // Picked up in its middle: its window scale is unknown.
    w[seen + Seen.MAXEND] = (end + window) | 0;
    setFlags(w, e, 0, Flag.SACK_PERMITTED | Flag.BE_LIBERAL, 0);
    setFlags(w, e, 1, Flag.SACK_PERMITTED | Flag.BE_LIBERAL, 0);
  }
  w[e + Tcp.STATE] = packState(TcpState.NONE, 0, Kind.NONE, 0);
  return true;
}

/** A sender's model from its SYN or SYN ACK. */
function initSender(w: Int32Array, p: Packet, e: number, dir: number, end: number, window: number): void {
  const s = seenAt(e, dir);
  w[s + Seen.END] = end;
  w[s + Seen.MAXEND] = end;
  w[s + Seen.MAXWIN] = window || 1;
  const options = synOptions(p, flagsOf(w, e, dir) | (scaleOf(w, e, dir) << 8));
  setFlags(w, e, dir, options & 0xff, options >> 8);
  // RFC 7323 §2.2: windows are scaled when both sides offer it.
  if (dir === 1 && (flagsOf(w, e, 0) & flagsOf(w, e, 1) & Flag.WINDOW_SCALE) === 0) {
    setFlags(w, e, 0, flagsOf(w, e, 0), 0);
    setFlags(w, e, 1, flagsOf(w, e, 1), 0);
  }
}

const enum Fit {
  ACCEPT = 0,
  /** Out of the window, but harmless: it passes and changes nothing. */
  IGNORE = 1,
  INVALID = 2,
}

/**
 * Whether the segment fits the windows, which it then moves:
 *   I   seq ≤ sender's MAXEND            no data past what the receiver allows
 *   II  end ≥ sender's END − receiver's MAXWIN    not older than a window
 *   III sack ≤ receiver's END            nothing acknowledged that was not sent
 *   IV  sack ≥ receiver's END − max(sender's MAXWIN, MAX_ACK_WINDOW)
 */
function fitWindow(t: ConntrackTable, p: Packet, entry: number, e: number, dir: number, kind: number): Fit {
  const w = t.words;
  const b = p.bytes;
  const sender = seenAt(e, dir);
  const receiver = seenAt(e, 1 - dir);
  const state = w[e + Tcp.STATE]!;
  const tcp = state & 0xff;
  const flags = p.tcpFlags;
  const isSyn = (flags & TcpFlag.SYN) !== 0;
  const isAck = (flags & TcpFlag.ACK) !== 0;
  let seq = u32(b, p.l4 + SEQ);
  let ack = u32(b, p.l4 + ACK);
  let sack = ack;
  const rawWindow = u16(b, p.l4 + WINDOW);
  let window = rawWindow;
  let end = segmentEnd(p, seq);

  if ((flagsOf(w, e, 1 - dir) & Flag.SACK_PERMITTED) !== 0) sack = highestSack(p, sack);
  if ((w[e + Ct.STATUS]! & Status.SEQ_ADJUST) !== 0) {
    const offset = seqOffset(t, entry, 1 - dir, (ack - 1) | 0);
    ack = (ack - offset) | 0;
    sack = (sack - offset) | 0;
  }

  if (w[sender + Seen.MAXWIN] === 0) {
    if (isSyn) {
      initSender(w, p, e, dir, end, window);
      // Simultaneous open.
      if (!isAck) return Fit.ACCEPT;
    } else {
      // In the middle of a connection whose history is lost.
      const scaled = (window << scaleOf(w, e, dir)) | 0;
      w[sender + Seen.END] = end;
      w[sender + Seen.MAXWIN] = scaled === 0 ? 1 : scaled;
      w[sender + Seen.MAXEND] = (end + w[sender + Seen.MAXWIN]!) | 0;
      if (w[receiver + Seen.MAXWIN] === 0) {
        // The other direction is unseen yet: let III and IV hold.
        w[receiver + Seen.END] = sack;
        w[receiver + Seen.MAXEND] = sack;
      } else if (sack === ((w[receiver + Seen.END]! + 1) | 0)) {
        // Answers a keepalive.
        w[receiver + Seen.END] = sack;
      }
    }
  } else if (isSyn && after(end, w[sender + Seen.END]!) && (tcp === TcpState.SYN_SENT || tcp === TcpState.SYN_RECV)) {
    // Begun again with higher numbers (RFC 9293 §3.4.3).
    initSender(w, p, e, dir, end, window);
    if (dir === 1 && !isAck) return Fit.ACCEPT;
  }

  // Without ACK, or with the zero that broken stacks send along with a reset, there is nothing to check.
  if (!isAck || ((flags & TcpFlag.RST) !== 0 && ack === 0)) ack = sack = w[receiver + Seen.END]!;
  // A reset that answers a SYN has no sequence number of its own.
  if ((flags & TcpFlag.RST) !== 0 && seq === 0 && tcp === TcpState.SYN_SENT) seq = end = w[sender + Seen.END]!;

  const liberal = (flagsOf(w, e, dir) & Flag.BE_LIBERAL) !== 0 || t.setting(Setting.TCP_BE_LIBERAL) !== 0;
  const senderMaxwin = w[sender + Seen.MAXWIN]! >>> 0;
  const receiverMaxwin = w[receiver + Seen.MAXWIN]! >>> 0;
  const oldestEnd = (w[sender + Seen.END]! - receiverMaxwin - 1) | 0;
  const oldestAck = (w[receiver + Seen.END]! - Math.max(senderMaxwin, MAX_ACK_WINDOW) - 1) | 0;

  if (!before(seq, (w[sender + Seen.MAXEND]! + 1) | 0)) {
    const overshot = ((end - w[sender + Seen.MAXEND]! + 1) | 0) >>> 0;
    if (
      receiverMaxwin !== 0 &&
      after(end, oldestEnd) &&
      after(sack, oldestAck) &&
      overshot <= receiverMaxwin &&
      before(sack, (w[receiver + Seen.END]! + 1) | 0)
    ) {
      // More than allowed; when the receiver takes it all the same, its ACK must not look impossible.
      w[sender + Seen.END] = end;
      addFlag(w, e, dir, Flag.DATA_UNACKNOWLEDGED);
      return liberal ? Fit.ACCEPT : Fit.IGNORE;
    }
    return liberal ? Fit.ACCEPT : Fit.INVALID;
  }
  if (!before(sack, (w[receiver + Seen.END]! + 1) | 0)) return liberal ? Fit.ACCEPT : Fit.INVALID;
  if (receiverMaxwin !== 0 && !after(end, oldestEnd)) return liberal ? Fit.ACCEPT : Fit.IGNORE;
  if (!after(sack, oldestAck)) return liberal ? Fit.ACCEPT : Fit.IGNORE;

  if (!isSyn) window = (window << scaleOf(w, e, dir)) | 0;
  const announced = (window + (sack - ack)) | 0;
  if (senderMaxwin < announced >>> 0) w[sender + Seen.MAXWIN] = announced;
  if (after(end, w[sender + Seen.END]!)) {
    w[sender + Seen.END] = end;
    addFlag(w, e, dir, Flag.DATA_UNACKNOWLEDGED);
  }
  if (isAck) {
    if ((flagsOf(w, e, dir) & Flag.MAXACK_SET) === 0) {
      w[sender + Seen.MAXACK] = ack;
      addFlag(w, e, dir, Flag.MAXACK_SET);
    } else if (after(ack, w[sender + Seen.MAXACK]!)) {
      w[sender + Seen.MAXACK] = ack;
    }
  }
  if (receiverMaxwin !== 0 && after(end, w[sender + Seen.MAXEND]!)) {
    w[receiver + Seen.MAXWIN] = (w[receiver + Seen.MAXWIN]! + (end - w[sender + Seen.MAXEND]!)) | 0;
  }
  const allowed = (sack + window) | 0;
  if (after(allowed, (w[receiver + Seen.MAXEND]! - 1) | 0)) {
    w[receiver + Seen.MAXEND] = window === 0 ? (allowed + 1) | 0 : allowed;
  }
  if (ack === w[receiver + Seen.END]) dropFlag(w, e, 1 - dir, Flag.DATA_UNACKNOWLEDGED);

  if (kind === Kind.ACK) {
    if (
      lastDir(state) === dir &&
      w[e + Tcp.LAST_SEQ] === seq &&
      w[e + Tcp.LAST_ACK] === ack &&
      w[e + Tcp.LAST_END] === end &&
      (w[e + Tcp.LAST_WINDOW]! & 0xffff) === rawWindow
    ) {
      w[e + Tcp.STATE] = packState(tcp, dir, lastKind(state), retransmissions(state) + 1);
    } else {
      w[e + Tcp.STATE] = packState(tcp, dir, lastKind(state), 0);
      w[e + Tcp.LAST_SEQ] = seq;
      w[e + Tcp.LAST_ACK] = ack;
      w[e + Tcp.LAST_END] = end;
      w[e + Tcp.LAST_WINDOW] = (w[e + Tcp.LAST_WINDOW]! & ~0xffff) | rawWindow;
    }
  }
  return Fit.ACCEPT;
}

/** ESTABLISHED with data seen both ways: a reset must then fit exactly. */
function established(w: Int32Array, e: number): boolean {
  return (w[e + Tcp.STATE]! & 0xff) === TcpState.ESTABLISHED && (w[e + Ct.STATUS]! & Status.ASSURED) !== 0;
}

/**
 * A FIN or RST out of window, answered by another from the other side: the ends have parted while we hold on. Shorten
 * the wait.
 */
function noteInvalid(t: ConntrackTable, entry: number, e: number, dir: number, kind: number): void {
  const w = t.words;
  const status = w[e + Ct.STATUS]!;
  if ((status & Status.ASSURED) === 0 || (status & Status.FIXED_TIMEOUT) !== 0) return;
  if (kind !== Kind.RST && kind !== Kind.FIN) return;
  const state = w[e + Tcp.STATE]!;
  const last = lastKind(state);
  if (lastDir(state) !== dir && (last === Kind.FIN || last === Kind.RST)) {
    const left = t.expires(entry);
    const limit = t.setting(Setting.TCP_TIMEOUT_UNACK);
    if (left >= 120_000 && left > limit) t.refresh(entry, limit);
  } else {
    w[e + Tcp.STATE] = packState(state & 0xff, dir, kind, retransmissions(state));
  }
}

/** Remembers a packet that is let through unjudged. */
function noteIgnored(w: Int32Array, p: Packet, e: number, dir: number, kind: number, old: number): void {
  const state = w[e + Tcp.STATE]!;
  const seq = u32(p.bytes, p.l4 + SEQ);
  w[e + Tcp.STATE] = packState(state & 0xff, dir, kind, retransmissions(state));
  w[e + Tcp.LAST_SEQ] = seq;
  w[e + Tcp.LAST_END] = segmentEnd(p, seq);
  let rest = w[e + Tcp.LAST_WINDOW]! & ~0xffff;
  if (kind === Kind.SYN && dir === 0) {
    const options = synOptions(p, 0);
    const flags = options & (Flag.WINDOW_SCALE | Flag.SACK_PERMITTED);
    rest = (flags << 24) | ((options >> 8) << 16);
    // Its answer may be a challenge ACK, which must not be taken for the ACK of the last FIN.
    if (old === TcpState.LAST_ACK) rest |= LastFlag.EXPECT_CHALLENGE_ACK << 24;
  }
  w[e + Tcp.LAST_WINDOW] = rest | u16(p.bytes, p.l4 + WINDOW);
  if (old === TcpState.SYN_SENT && kind === Kind.ACK && dir === 1) w[e + Tcp.LAST_ACK] = u32(p.bytes, p.l4 + ACK);
}

/** @param verify whether the checksum is to be verified */
export function tcpPacket(t: ConntrackTable, p: Packet, entry: number, dir: number, verify: boolean): Outcome {
  const b = p.bytes;
  if (p.tcpOk === 0) return Outcome.INVALID;
  const headerLength = (u8(b, p.l4 + DATA_OFFSET) >> 4) * 4;
  if (headerLength < HEADER || p.l4Length < headerLength) return Outcome.INVALID;
  if (verify && !transportChecksumOk(b, p.start, p.l4, p.end, 6)) return Outcome.INVALID;
  if (FLAGS_VALID[p.tcpFlags] === 0) return Outcome.INVALID;

  const w = t.words;
  const e = t.at(entry);
  const kind = KIND[p.tcpFlags]!;
  if ((w[e + Ct.STATUS]! & Status.CONFIRMED) === 0 && !begin(t, p, e, kind)) return Outcome.INVALID;
  t.lockEntry(entry);
  const outcome = step(t, p, entry, e, dir, kind);
  t.unlockEntry(entry);
  return outcome;
}

function step(t: ConntrackTable, p: Packet, entry: number, e: number, dir: number, kind: number): Outcome {
  const w = t.words;
  const b = p.bytes;
  const status = w[e + Ct.STATUS]!;
  const state = w[e + Tcp.STATE]!;
  let old: number = state & 0xff;
  let next: number = STATE_TABLE[(dir * KINDS + kind) * STATES + old]!;
  let checkWindow = true;

  switch (next) {
    case TcpState.SYN_SENT:
    case sIG:
      if (next === TcpState.SYN_SENT) {
        if (old < TcpState.TIME_WAIT) break;
        const closed = ((flagsOf(w, e, 0) | flagsOf(w, e, 1)) & Flag.CLOSE_INIT) !== 0;
        if (closed || (lastDir(state) === dir && lastKind(state) === Kind.RST)) {
          // Reopened after a close or an abort.
          return t.kill(entry) ? Outcome.REPEAT : Outcome.DROP;
        }
      }
      if (
        kind === Kind.SYNACK &&
        lastKind(state) === Kind.SYN &&
        lastDir(state) !== dir &&
        u32(b, p.l4 + ACK) === w[e + Tcp.LAST_END]
      ) {
        // It acknowledges a SYN that was ignored: the ends are in step, and by that SYN so are we now.
        const last = w[e + Tcp.LAST_WINDOW]! & ~(LastFlag.EXPECT_CHALLENGE_ACK << 24);
        const synDir = lastDir(state);
        const sender = seenAt(e, synDir);
        old = TcpState.SYN_SENT;
        next = TcpState.SYN_RECV;
        w[sender + Seen.END] = w[e + Tcp.LAST_END]!;
        w[sender + Seen.MAXEND] = w[e + Tcp.LAST_END]!;
        w[sender + Seen.MAXWIN] = last & 0xffff || 1;
        setFlags(w, e, synDir, last >>> 24, (last >> 16) & 0xff);
        w[e + Tcp.LAST_WINDOW] = last;
        const answerer = seenAt(e, dir);
        w.fill(0, answerer, answerer + Tcp.SEEN_WORDS);
        setFlags(w, e, dir, flagsOf(w, e, dir) & Flag.BE_LIBERAL, 0);
        break;
      }
      noteIgnored(w, p, e, dir, kind, old);
      return Outcome.ACCEPT;
    case sIV:
      return Outcome.INVALID;
    case TcpState.TIME_WAIT:
      if (
        old === TcpState.LAST_ACK &&
        kind === Kind.ACK &&
        lastDir(state) !== dir &&
        lastKind(state) === Kind.SYN &&
        ((w[e + Tcp.LAST_WINDOW]! >>> 24) & LastFlag.EXPECT_CHALLENGE_ACK) !== 0
      ) {
        w[e + Tcp.LAST_WINDOW] = w[e + Tcp.LAST_WINDOW]! & ~(LastFlag.EXPECT_CHALLENGE_ACK << 24);
        return Outcome.ACCEPT;
      }
      break;
    case TcpState.SYN_SENT2:
      w[e + Tcp.LAST_WINDOW] = w[e + Tcp.LAST_WINDOW]! | (LastFlag.SIMULTANEOUS_OPEN << 24);
      break;
    case TcpState.SYN_RECV:
      if (dir === 1 && kind === Kind.ACK && ((w[e + Tcp.LAST_WINDOW]! >>> 24) & LastFlag.SIMULTANEOUS_OPEN) !== 0) {
        next = TcpState.ESTABLISHED;
      }
      break;
    case TcpState.CLOSE: {
      if (kind !== Kind.RST) break;
      // The tuple of a closing connection may be in use again: nothing that we know can be held against the reset.
      if (old >= TcpState.FIN_WAIT && old <= TcpState.CLOSE) {
        checkWindow = false;
        break;
      }
      const seq = u32(b, p.l4 + SEQ);
      if ((flagsOf(w, e, 1 - dir) & Flag.MAXACK_SET) !== 0 && lastKind(state) !== Kind.SYN) {
        const expected = w[seenAt(e, 1 - dir) + Seen.MAXACK]!;
        // Most likely the answer to a SYN that was let through.
        if (seq === 0 && !established(w, e)) break;
        if (before(seq, expected) && t.setting(Setting.TCP_IGNORE_INVALID_RST) === 0) return Outcome.INVALID;
        if (!established(w, e) || seq === expected) break;
        // At the end of a train of data from the same side.
        if (lastKind(state) === Kind.ACK && lastDir(state) === dir && seq === w[e + Tcp.LAST_END]) break;
        // Not exact: the receiver may answer with a challenge ACK (RFC 5961 §3.2).
        next = old;
      }
      const last = lastKind(state);
      if (
        (((status & Status.SEEN_REPLY) !== 0 && last === Kind.SYN && lastDir(state) !== dir) ||
          ((status & Status.ASSURED) === 0 && last === Kind.ACK)) &&
        u32(b, p.l4 + ACK) === w[e + Tcp.LAST_END]
      ) {
        // Answers a SYN or ACK that was ignored.
        checkWindow = false;
        break;
      }
      // Answers a challenge ACK that was ignored.
      if (old === TcpState.SYN_SENT && last === Kind.ACK && lastDir(state) === 1 && seq === w[e + Tcp.LAST_ACK]) {
        checkWindow = false;
      }
      break;
    }
  }

  if (checkWindow) {
    const fit = fitWindow(t, p, entry, e, dir, kind);
    if (fit === Fit.IGNORE) return Outcome.ACCEPT;
    if (fit === Fit.INVALID) {
      noteInvalid(t, entry, e, dir, kind);
      return Outcome.INVALID;
    }
  }

  const retrans = retransmissions(w[e + Tcp.STATE]!);
  w[e + Tcp.STATE] = packState(next, dir, kind, retrans);
  if (old !== next && next === TcpState.FIN_WAIT) addFlag(w, e, dir, Flag.CLOSE_INIT);
  if (old !== next) t.pendingEvents |= Change.PROTOINFO;

  const usual = t.setting(Setting.TCP_TIMEOUT + next);
  const afterRetrans = t.setting(Setting.TCP_TIMEOUT_RETRANS);
  const unacknowledged = t.setting(Setting.TCP_TIMEOUT_UNACK);
  let timeout = usual;
  if (retrans >= t.setting(Setting.TCP_MAX_RETRANS) && usual > afterRetrans) timeout = afterRetrans;
  else if (kind === Kind.RST) timeout = t.setting(Setting.TCP_TIMEOUT + TcpState.CLOSE);
  else if (((flagsOf(w, e, 0) | flagsOf(w, e, 1)) & Flag.DATA_UNACKNOWLEDGED) !== 0 && usual > unacknowledged) {
    timeout = unacknowledged;
  } else if ((w[e + Tcp.LAST_WINDOW]! & 0xffff) === 0 && usual > afterRetrans) timeout = afterRetrans;

  if ((status & Status.SEEN_REPLY) === 0) {
    if (kind === Kind.RST) {
      // The only answer is a refusal: there never was a connection.
      t.account(entry, dir, 1, p.length);
      t.killByPacket(entry, comesAgain(p));
      return Outcome.ACCEPT;
    }
    // A SYN again: a reused port must not keep the entry, and its translation, for ever.
    if (kind === Kind.SYN && old === TcpState.SYN_SENT) return Outcome.ACCEPT;
    // Picked up in its middle and unanswered.
    if (next === TcpState.ESTABLISHED && timeout > unacknowledged) timeout = unacknowledged;
  } else if (
    (status & Status.ASSURED) === 0 &&
    (old === TcpState.SYN_RECV || old === TcpState.ESTABLISHED) &&
    next === TcpState.ESTABLISHED
  ) {
    t.setStatus(entry, Status.ASSURED);
    t.pendingEvents |= Change.ASSURED;
  }
  t.refresh(entry, timeout);
  t.account(entry, dir, 1, p.length);
  return Outcome.ACCEPT;
}

/**
 * Open connections have gone on unseen (nf_ct_tcp_fixup): their windows are what the next segments say. Called by the control thread while
 * no worker tracks.
 */
export function forgetWindows(t: ConntrackTable): void {
  for (let entry = t.next(-1); entry >= 0; entry = t.next(entry)) {
    if (t.protocol(entry) !== Proto.TCP || tcpState(t, entry) !== TcpState.ESTABLISHED) continue;
    for (let dir = 0; dir < 2; dir++) t.words[seenAt(t.at(entry), dir) + Seen.MAXWIN] = 0;
  }
}

/**
 * Closes a connection at once, as REJECT's reset and the like do (nf_conntrack_tcp_set_closing): state CLOSE with its
 * timeout. Nothing happens to an unconfirmed one.
 */
export function tcpSetClosing(t: ConntrackTable, entry: number): void {
  if (!t.isConfirmed(entry)) return;
  const w = t.words;
  const e = t.at(entry);
  t.lockEntry(entry);
  const state = w[e + Tcp.STATE]!;
  if ((state & 0xff) !== TcpState.CLOSE) {
    w[e + Tcp.STATE] = (state & ~0xff) | TcpState.CLOSE;
    t.refresh(entry, t.setting(Setting.TCP_TIMEOUT + TcpState.CLOSE));
    t.pendingEvents |= Change.PROTOINFO;
  }
  t.unlockEntry(entry);
}

/**
 * Whether the packet may be seen a second time: in a second crossing, or, of the router's own, by `lo`, where NAT or the answer of a rule
 * can bring it.
 */
const comesAgain = (p: Packet): boolean => p.hook === Hook.OUTPUT || p.physindev !== 0 || isReserved(p);
