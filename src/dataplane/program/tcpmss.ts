/**
 * -m tcpmss (net/netfilter/xt_tcpmss.c): MIN MAX INVERT of the MSS option's value. Without the option only the inverted
 * test holds; a TCP header that is cut or too short is impossible.
 *
 * -j TCPMSS (net/netfilter/xt_TCPMSS.c): MSS, or CLAMP_TO_PMTU for what the smaller MTU of the ways out and back leaves.
 * The option's value is never raised. A SYN without the option and without data gets it, of at most 536, which is what
 * its absence says (RFC 9293 §3.7.1); the headers then move towards the headroom. A TCP packet whose header is cut is
 * dropped, as is one whose way has no room for data.
 */
import { InFlag } from '../io/batch.js';
import { Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, setU32, u16, u8 } from '../wire/bytes.js';
import { update16, update32 } from '../wire/checksum.js';
import type { Context } from './context.js';
import { argument, rangeText, type Op } from './op.js';
import { CONTINUE } from './ops.js';

export const encodeTcpmss = (min: number, max: number, invert: boolean): number[] => [min, max, invert ? 1 : 0];

const TCP_HEADER = 20;
const MSS_KIND = 2;
const MSS_LENGTH = 4;

/**
 * Offset of the MSS option in bytes[l4 + 20, end), or −1. An option of length 0 counts as 1, as in the kernel.
 */
export function findMss(bytes: Uint8Array, options: number, end: number): number {
  for (let o = options; o < end;) {
    const kind = u8(bytes, o);
    if (kind === MSS_KIND && end - o >= MSS_LENGTH && u8(bytes, o + 1) === MSS_LENGTH) return o;
    if (kind < 2 || o + 1 === end) o++;
    else o += u8(bytes, o + 1) || 1;
  }
  return -1;
}

export function matchTcpmss(program: Int32Array, at: number, p: Packet): boolean {
  const headerLength = p.l4Length < TCP_HEADER ? 0 : (u8(p.bytes, p.l4 + 12) >> 4) << 2;
  if (headerLength < TCP_HEADER || headerLength > p.l4Length) {
    p.hotdrop = 1;
    return false;
  }
  const invert = program[at + 2]! !== 0;
  const option = findMss(p.bytes, p.l4 + TCP_HEADER, p.l4 + headerLength);
  if (option < 0) return invert;
  const mss = u16(p.bytes, option + 2);
  return (mss >= program[at]! && mss <= program[at + 1]!) !== invert;
}

export const tcpmss: Op = {
  name: 'tcpmss',
  words: 3,
  text: (a) => `${argument(a, 2) ? '! ' : ''}${rangeText(argument(a, 0), argument(a, 1))}`,
};

/** XT_TCPMSS_CLAMP_PMTU */
export const CLAMP_TO_PMTU = 0xffff;

// IPv4 and TCP headers.
const TOTAL_LENGTH = 2;
const HEADER_CHECKSUM = 10;
const DATA_OFFSET = 12;
const TCP_CHECKSUM = 16;
const MAX_TCP_HEADER = 60;
/** Both headers without options: what an MTU has to hold beside the segment's data. */
const HEADERS = 40;
const DEFAULT_MSS = 536;

export const encodeTCPMSS = (mss: number): number[] => [mss];

export function applyTCPMSS(context: Context, program: Int32Array, at: number, p: Packet): number {
  if (p.fragOffset !== 0) return CONTINUE;
  if (p.l4Length < TCP_HEADER) return Verdict.DROP;
  const { bytes, l4 } = p;
  const headerLength = (u8(bytes, l4 + DATA_OFFSET) >> 4) << 2;
  if (headerLength < TCP_HEADER || headerLength > p.l4Length) return Verdict.DROP;
  let mss = program[at]!;
  if (mss === CLAMP_TO_PMTU) {
    const mtu = context.routes.pathMtu(p);
    if (mtu <= HEADERS) return Verdict.DROP;
    mss = (mtu - HEADERS) & 0xffff;
  }
  const option = findMss(bytes, l4 + TCP_HEADER, l4 + headerLength);
  if (option >= 0) {
    lower(p, option + 2, mss);
    return CONTINUE;
  }
  // What has data can't grow; a packet without headroom is an answer made here, and no SYN.
  if (p.length - p.headerLength > headerLength || headerLength === MAX_TCP_HEADER) return CONTINUE;
  if (p.headroom >= MSS_LENGTH) insert(p, mss < DEFAULT_MSS ? mss : DEFAULT_MSS);
  return CONTINUE;
}

/** Lowers the 16-bit number at `at` of the TCP header, which may be an odd place. */
function lower(p: Packet, at: number, mss: number): void {
  const bytes = p.bytes;
  const from = u16(bytes, at);
  if (from <= mss) return;
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0) {
    // At an odd place the bytes weigh the other way round (RFC 1071 §2 B).
    const odd = ((at - p.l4) & 1) !== 0;
    const checksum = p.l4 + TCP_CHECKSUM;
    setU16(bytes, checksum, update16(u16(bytes, checksum), odd ? swap(from) : from, odd ? swap(mss) : mss));
  }
  setU16(bytes, at, mss);
  p.changed = 1;
}

const swap = (x: number): number => ((x & 0xff) << 8) | (x >> 8);

/** Puts the option right behind the fixed TCP header. */
function insert(p: Packet, mss: number): void {
  const bytes = p.bytes;
  const start = p.start - MSS_LENGTH;
  const l4 = p.l4 - MSS_LENGTH;
  const word = (MSS_KIND << 24) | (MSS_LENGTH << 16) | mss;
  const segment = p.length - p.headerLength;
  bytes.copyWithin(start, p.start, p.l4 + TCP_HEADER);
  setU32(bytes, l4 + TCP_HEADER, word);
  const offsetWord = u16(bytes, l4 + DATA_OFFSET);
  const newOffsetWord = offsetWord + ((MSS_LENGTH >> 2) << 12);
  setU16(bytes, l4 + DATA_OFFSET, newOffsetWord);
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0) {
    let checksum = u16(bytes, l4 + TCP_CHECKSUM);
    checksum = update16(checksum, segment, segment + MSS_LENGTH);
    checksum = update32(checksum, 0, word);
    setU16(bytes, l4 + TCP_CHECKSUM, update16(checksum, offsetWord, newOffsetWord));
  }
  const length = p.length + MSS_LENGTH;
  const checksum = start + HEADER_CHECKSUM;
  setU16(bytes, checksum, update16(u16(bytes, checksum), p.length, length));
  setU16(bytes, start + TOTAL_LENGTH, length);
  p.start = start;
  p.headroom -= MSS_LENGTH;
  p.l4 = l4;
  p.length = length;
  p.l4Length += MSS_LENGTH;
  p.changed = 1;
}

export const TCPMSS: Op = {
  name: 'TCPMSS',
  payload: true,
  words: 1,
  text: (a) => (argument(a, 0) === CLAMP_TO_PMTU ? 'clamp to pmtu' : `set ${argument(a, 0)}`),
};
