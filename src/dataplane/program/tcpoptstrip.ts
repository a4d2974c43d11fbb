/**
 * -j TCPOPTSTRIP (net/netfilter/xt_TCPOPTSTRIP.c): eight words, bit k & 31 of word k >> 5 for options of kind k. Such
 * options become no-operations (RFC 9293 §3.1). A TCP packet whose header is cut is dropped.
 */
import { InFlag } from '../io/batch.js';
import { Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, setU8, u16, u8 } from '../wire/bytes.js';
import { update16 } from '../wire/checksum.js';
import { argument, type Op } from './op.js';
import { CONTINUE } from './ops.js';

const WORDS = 8;
const TCP_HEADER = 20;
const DATA_OFFSET = 12;
const TCP_CHECKSUM = 16;
const NOP = 1;

export function encodeTCPOPTSTRIP(kinds: readonly number[]): number[] {
  const words = new Array<number>(WORDS).fill(0);
  for (const kind of kinds) words[kind >> 5]! |= 1 << (kind & 31);
  return words;
}

export function applyTCPOPTSTRIP(program: Int32Array, at: number, p: Packet): number {
  if (p.fragOffset !== 0) return CONTINUE;
  if (p.l4Length < TCP_HEADER) return Verdict.DROP;
  const bytes = p.bytes;
  const header = (u8(bytes, p.l4 + DATA_OFFSET) >> 4) << 2;
  if (header < TCP_HEADER || header > p.l4Length) return Verdict.DROP;
  const end = p.l4 + header;
  let o = p.l4 + TCP_HEADER;
  while (o < end - 1) {
    const kind = u8(bytes, o);
    const length = kind <= NOP ? 1 : u8(bytes, o + 1) || 1;
    if (o + length > end) break;
    if (((program[at + (kind >> 5)]! >>> (kind & 31)) & 1) !== 0) strip(p, o, o + length);
    o += length;
  }
  return CONTINUE;
}

function strip(p: Packet, from: number, to: number): void {
  const bytes = p.bytes;
  const at = p.l4 + TCP_CHECKSUM;
  let checksum = u16(bytes, at);
  for (let o = from; o < to; o++) {
    const shift = ((o - p.l4) & 1) === 0 ? 8 : 0;
    checksum = update16(checksum, u8(bytes, o) << shift, NOP << shift);
    setU8(bytes, o, NOP);
  }
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0) setU16(bytes, at, checksum);
  p.changed = 1;
}

export const TCPOPTSTRIP: Op = {
  name: 'TCPOPTSTRIP',
  payload: true,
  words: WORDS,
  text: (a) =>
    Array.from({ length: 256 }, (_, kind) => kind)
      .filter((kind) => (argument(a, kind >> 5) >>> (kind & 31)) & 1)
      .join(','),
};
