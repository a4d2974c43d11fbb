/**
 * -m tcpmss (net/netfilter/xt_tcpmss.c): MIN MAX INVERT of the MSS option's value. Without the option only the inverted
 * test holds; a TCP header that is cut or too short is impossible.
 */
import type { Packet } from '../packet.js';
import { u16, u8 } from '../wire/bytes.js';
import { argument, rangeText, type Op } from './op.js';

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
