/**
 * The packets REJECT answers with, as net/ipv4/netfilter/nf_reject_ipv4.c and net/ipv4/icmp.c build them: a TCP reset,
 * or an ICMP error. Each function writes a whole IPv4 packet, checksums filled in, at `out[start]` and
 * returns its length, or 0 when no answer is due (no reset for a reset, no error about an error, nothing about a
 * fragment, nothing about a packet whose checksum is wrong).
 */
import { Setting } from './conntrack/settings.js';
import { InFlag } from './io/batch.js';
import { Hook, Proto, TcpFlag } from './names.js';
import type { Packet } from './packet.js';
import { setU16, setU32, setU8, u16, u32, u8 } from './wire/bytes.js';
import { pseudoSum, sealHeader, sum, sumOk, transportChecksumOk } from './wire/checksum.js';
import { answersForbidden, HEADER_LENGTH as ICMP_HEADER, IcmpType } from './wire/icmp.js';
import { timeOfDay } from './wire/options.js';

const IP_HEADER = 20;
const TCP_HEADER = 20;
const TCP_CHECKSUM = 16;
const UDP_HEADER = 8;
/** RFC 792 asked for 8 bytes of quote; the kernel quotes as much as fits into 576 bytes, or the way's MTU (RFC 1812 §4.3.2.3). */
const ERROR_LENGTH = 576;
/** ip_default_ttl */
const TTL = 64;
const DONT_FRAGMENT = 0x4000;
const TOS_MASK = 0x1e;
const ECN_MASK = 0x03;
const PREC_INTERNETCONTROL = 0xc0;

/** IP options of an answer: bytes[0, length), a multiple of 4. */
export interface AnswerOptions {
  readonly bytes: Uint8Array;
  length: number;
}

/** `length`: of the packet with its header and `options`. */
function putIpHeader(
  out: Uint8Array,
  start: number,
  options: AnswerOptions,
  length: number,
  tos: number,
  id: number,
  fragment: number,
  protocol: number,
  src: number,
  dst: number,
): void {
  const header = IP_HEADER + options.length;
  setU8(out, start, 0x40 | (header >> 2));
  setU8(out, start + 1, tos);
  setU16(out, start + 2, length);
  setU16(out, start + 4, id);
  setU16(out, start + 6, fragment);
  setU8(out, start + 8, TTL);
  setU8(out, start + 9, protocol);
  setU16(out, start + 10, 0);
  setU32(out, start + 12, src);
  setU32(out, start + 16, dst);
  for (let i = 0; i < options.length; i++) setU8(out, start + IP_HEADER + i, options.bytes[i]!);
  sealHeader(out, start, header);
}

/** Whether the packet's checksum may be believed, being nobody's to verify, verified, or right now (nf_ip_checksum). */
function checksumOk(p: Packet): boolean {
  if ((p.flags & (InFlag.CSUM_PARTIAL | InFlag.GSO)) !== 0) return true;
  // Of packets in OUTPUT the queue doesn't say, and a raw socket can send anything.
  if ((p.flags & InFlag.CSUM_NOT_VERIFIED) === 0 && p.hook !== Hook.OUTPUT) return true;
  if (p.protocol === Proto.TCP || p.protocol === Proto.UDP) {
    return transportChecksumOk(p.bytes, p.start, p.l4, p.end, p.protocol);
  }
  return sumOk(sum(p.bytes, p.l4, p.end));
}

/** nf_reject_verify_csum(): whether the kernel takes the whole payload's sum for the packet's checksum, as in ICMP. */
function hasChecksum(p: Packet): boolean {
  switch (p.protocol) {
    case Proto.GRE:
    case Proto.ESP:
    case Proto.AH:
    case Proto.SCTP:
    case Proto.UDPLITE:
      return false;
    default:
      return true;
  }
}

/**
 * nf_send_reset(): a reset that ends the connection `p` belongs to. With `p`'s TOS it is tcp_v4_send_reset()'s. Its checksum
 * is the pseudo-header's sum until `finishReset`, as the kernel's is on its way (CHECKSUM_PARTIAL): errors about it quote that.
 */
export function buildReset(p: Packet, options: AnswerOptions, out: Uint8Array, start: number, tos = 0): number {
  if (p.protocol !== Proto.TCP || p.tcpOk === 0) return 0;
  if ((p.tcpFlags & TcpFlag.RST) !== 0 || !checksumOk(p)) return 0;
  const header = IP_HEADER + options.length;
  const length = header + TCP_HEADER;
  putIpHeader(out, start, options, length, tos & ~ECN_MASK, 0, DONT_FRAGMENT, Proto.TCP, p.dst, p.src);
  const tcp = start + header;
  const l4 = p.l4;
  out.fill(0, tcp, tcp + TCP_HEADER);
  setU16(out, tcp, p.dport);
  setU16(out, tcp + 2, p.sport);
  setU8(out, tcp + 12, (TCP_HEADER / 4) << 4);
  if ((p.tcpFlags & TcpFlag.ACK) !== 0) {
    setU32(out, tcp + 4, u32(p.bytes, l4 + 8));
    setU8(out, tcp + 13, TcpFlag.RST);
  } else {
    const syn = (p.tcpFlags & TcpFlag.SYN) !== 0 ? 1 : 0;
    const fin = (p.tcpFlags & TcpFlag.FIN) !== 0 ? 1 : 0;
    const payload = p.l4Length - ((u8(p.bytes, l4 + 12) >> 4) << 2);
    setU32(out, tcp + 8, (u32(p.bytes, l4 + 4) + syn + fin + payload) | 0);
    setU8(out, tcp + 13, TcpFlag.RST | TcpFlag.ACK);
  }
  setU16(out, tcp + TCP_CHECKSUM, pseudoSum(p.dst, p.src, Proto.TCP, TCP_HEADER));
  return length;
}

/** Whether TCP reads the segment at all: its header is whole and as long as it says (tcp_v4_rcv). */
export function isSegment(p: Packet): boolean {
  const length = p.tcpOk !== 0 ? (u8(p.bytes, p.l4 + 12) >> 4) << 2 : 0;
  return length >= TCP_HEADER && length <= p.l4Length;
}

/** Computes the checksum of a reset that is about to be sent. */
export function finishReset(p: Packet): void {
  setU16(p.bytes, p.l4 + TCP_CHECKSUM, 0);
  const pseudo = pseudoSum(p.src, p.dst, Proto.TCP, p.l4Length);
  setU16(p.bytes, p.l4 + TCP_CHECKSUM, ~sum(p.bytes, p.l4, p.end, pseudo) & 0xffff);
}

/** Whether nf_send_unreach() has an error sent about `p`: nothing about a later fragment or what is damaged. */
export const mayRefuse = (p: Packet): boolean => p.fragOffset === 0 && (!hasChecksum(p) || checksumOk(p));

/**
 * udp_rcv(): whether `p`, with a header of UDP or UDP-Lite (RFC 3828), is a datagram that somebody could read. It ends where its
 * header says from then on.
 */
export function isDatagram(p: Packet): boolean {
  if (p.l4Length < UDP_HEADER) return false;
  const length = u16(p.bytes, p.l4 + 4);
  if (p.protocol === Proto.UDP) {
    if (length < UDP_HEADER || length > p.l4Length) return false;
    p.end = p.l4 + length;
    p.l4Length = length;
    return checksumOk(p);
  }
  // Here it is how much the checksum covers; 0: all.
  if ((length !== 0 && length < UDP_HEADER) || length > p.l4Length || u16(p.bytes, p.l4 + 6) === 0) return false;
  if ((p.flags & InFlag.CSUM_PARTIAL) !== 0) return true;
  const covered = length === 0 ? p.end : p.l4 + length;
  return sum(p.bytes, p.l4, covered, pseudoSum(p.src, p.dst, p.protocol, p.l4Length)) === 0xffff;
}

/**
 * __icmp_send(): an ICMP error about `p`, from the router's address `source`; `rest` is the header's second word, `mtu` that of the
 * way back in bytes.
 */
export function buildError(
  p: Packet,
  type: IcmpType,
  code: number,
  rest: number,
  source: number,
  id: number,
  mtu: number,
  options: AnswerOptions,
  out: Uint8Array,
  start: number,
): number {
  if (p.fragOffset !== 0) return 0;
  if (p.protocol === Proto.ICMP && (p.l4Length < 1 || answersForbidden(u8(p.bytes, p.l4)))) return 0;
  const header = IP_HEADER + options.length;
  const room = (mtu < ERROR_LENGTH ? mtu : ERROR_LENGTH) - header - ICMP_HEADER;
  if (room <= IP_HEADER) return 0;
  const quoted = p.end - p.start < room ? p.end - p.start : room;
  const length = header + ICMP_HEADER + quoted;
  putIpHeader(out, start, options, length, (p.tos & TOS_MASK) | PREC_INTERNETCONTROL, id, 0, Proto.ICMP, source, p.src);
  const icmp = start + header;
  const quote = icmp + ICMP_HEADER;
  setU8(out, icmp, type);
  setU8(out, icmp + 1, code);
  setU16(out, icmp + 2, 0);
  setU32(out, icmp + 4, rest);
  for (let i = 0; i < quoted; i++) out[quote + i] = p.bytes[p.start + i]!;
  // In FORWARD the record's TTL is already one less than the bytes', which the kernel will lower itself later.
  if (u8(out, quote + 8) !== p.ttl) {
    setU8(out, quote + 8, p.ttl);
    sealHeader(out, quote, p.headerLength);
  }
  setU16(out, icmp + 2, ~sum(out, icmp, start + length) & 0xffff);
  return length;
}

/** Room an answer needs at most: an echo reply is as long as its request. */
export const ANSWER_LENGTH = 65_536;

/** Of an ICMP timestamp message (RFC 792). */
const TIMESTAMP_LENGTH = 20;
/** Its own time alone (icmp_timestamp). */
const TIMESTAMP_LEAST = 12;

/**
 * icmp_echo(), icmp_timestamp(): the answer to a query that is for the router itself, from the address that was asked;
 * 0 for any other message. `wallMs`: milliseconds since 1970, UTC.
 */
export function buildReply(
  p: Packet,
  id: number,
  wallMs: number,
  options: AnswerOptions,
  out: Uint8Array,
  start: number,
): number {
  if (p.icmpOk === 0 || p.l4Length < ICMP_HEADER || !checksumOk(p)) return 0;
  const echo = p.icmpType === IcmpType.ECHO;
  if (!echo && (p.icmpType !== IcmpType.TIMESTAMP || p.l4Length < TIMESTAMP_LEAST)) return 0;
  const payload = echo ? p.l4Length : TIMESTAMP_LENGTH;
  const header = IP_HEADER + options.length;
  if (header + payload >= ANSWER_LENGTH) return 0;
  const icmp = start + header;
  putIpHeader(out, start, options, header + payload, p.tos, id, 0, Proto.ICMP, p.dst, p.src);
  const copied = echo ? payload : TIMESTAMP_LEAST;
  for (let i = 0; i < copied; i++) out[icmp + i] = p.bytes[p.l4 + i]!;
  setU8(out, icmp, echo ? IcmpType.ECHO_REPLY : IcmpType.TIMESTAMP_REPLY);
  if (!echo) {
    setU8(out, icmp + 1, 0);
    setU32(out, icmp + 12, timeOfDay(wallMs));
    setU32(out, icmp + 16, timeOfDay(wallMs));
  }
  setU16(out, icmp + 2, 0);
  setU16(out, icmp + 2, ~sum(out, icmp, icmp + payload) & 0xffff);
  return header + payload;
}

/** net.ipv4.route.error_cost and error_burst. */
const ROUTE_COST_MS = 1000;
const ROUTE_BURST_MS = 5000;
/** XRLIM_BURST_FACTOR */
const SAVED = 6;

/** icmp_global_allow(): errors are counted anew for a second at most, and not more often than every 20 ms. */
const GLOBAL_MOST_MS = 1000;
const GLOBAL_LEAST_MS = 20;

/** Where all workers count their errors together: a connection table's settings (conntrack/settings.ts). */
export interface SharedLimit {
  readonly words: Int32Array;
  readonly settings: number;
}

/**
 * The kernel's limits on errors to one destination, as a direct-mapped table; a destination that lost its place begins with
 * a full bucket, as after the kernel forgot its peer. Both limits draw on one purse (struct inet_peer, rate_tokens), so that
 * an error about a route pays twice.
 */
export class ErrorLimit {
  private static readonly SLOTS = 1024;
  private readonly address = new Int32Array(ErrorLimit.SLOTS);
  private readonly last = new Int32Array(ErrorLimit.SLOTS);
  private readonly tokens = new Int32Array(ErrorLimit.SLOTS);

  /**
   * `intervalMs`: icmp_ratelimit, milliseconds an error costs; 0 = no limit. `shared`: where the limit on all errors together is
   * kept; without it there is none. `random`: 0 to below 1.
   */
  constructor(
    private readonly intervalMs = 1000,
    private readonly shared?: SharedLimit,
    private readonly random: () => number = Math.random,
  ) {}

  /** icmp_global_allow(): whether any error at all may be sent now (icmp_msgs_per_sec, icmp_msgs_burst). Before `allow`. */
  allowAny(now: number): boolean {
    if (this.shared === undefined) return true;
    const { words, settings } = this.shared;
    const credit = settings + Setting.ICMP_CREDIT;
    if (Atomics.load(words, credit) > 0) return true;
    const last = Atomics.load(words, settings + Setting.ICMP_STAMP);
    const passed = (now - last) >>> 0;
    if (passed < GLOBAL_LEAST_MS) return false;
    const counted = passed < GLOBAL_MOST_MS ? passed : GLOBAL_MOST_MS;
    const more = Math.floor((words[settings + Setting.ICMP_MSGS_PER_SEC]! * counted) / 1000);
    if (more === 0) return false;
    if (Atomics.compareExchange(words, settings + Setting.ICMP_STAMP, last, now) !== last) return true;
    for (;;) {
      const left = Atomics.load(words, credit);
      const filled = Math.min(left + more, words[settings + Setting.ICMP_MSGS_BURST]!);
      if (Atomics.compareExchange(words, credit, left, filled) === left) return true;
    }
  }

  /** icmp_global_consume(): an error is sent, which costs 0, 1 or 2, so that nobody can count the errors sent to others. */
  sent(): void {
    if (this.shared === undefined) return;
    const cost = Math.floor(this.random() * 3);
    if (cost > 0) Atomics.sub(this.shared.words, this.shared.settings + Setting.ICMP_CREDIT, cost);
  }

  /** inet_peer_xrlim_allow(): whether an error to `destination` may be sent now; takes its token if so. */
  allow(destination: number, now: number): boolean {
    return this.take(destination, now, this.intervalMs, SAVED * this.intervalMs);
  }

  /** ip_error(): the same for one that says that there is no way. Before `allow`. */
  allowRoute(destination: number, now: number): boolean {
    return this.take(destination, now, ROUTE_COST_MS, ROUTE_BURST_MS);
  }

  private take(destination: number, now: number, cost: number, burst: number): boolean {
    const slot = (Math.imul(destination, 0x9e3779b1) >>> 22) & (ErrorLimit.SLOTS - 1);
    let tokens = burst;
    if (this.address[slot] === destination) {
      const waited = (now - this.last[slot]!) | 0;
      if (waited >= 0 && waited <= burst && this.tokens[slot]! + waited < burst) tokens = this.tokens[slot]! + waited;
    }
    this.address[slot] = destination;
    this.last[slot] = now;
    this.tokens[slot] = tokens >= cost ? tokens - cost : tokens;
    return tokens >= cost;
  }
}
