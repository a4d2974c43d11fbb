/**
 * -m string (net/netfilter/xt_string.c): FROM TO FLAGS LENGTH, then the pattern's bytes packed. The pattern must lie whole
 * between offsets FROM and TO of the packet, counted from its IP header. Both of the kernel's algorithms find the same.
 */
import { showTtl } from '../nat/rewrite.js';
import type { Packet } from '../packet.js';
import { u8 } from '../wire/bytes.js';
import { argument, packBytes, packedByte, unpackText, type Op } from './op.js';

export const enum StringFlag {
  IGNORE_CASE = 1 << 0,
}

/** With IGNORE_CASE the pattern is stored in lower case. */
export function encodeString(pattern: readonly number[], from: number, to: number, ignoreCase: boolean): number[] {
  const bytes = ignoreCase ? pattern.map(lower) : pattern;
  return [from, to, ignoreCase ? StringFlag.IGNORE_CASE : 0, bytes.length, ...packBytes(bytes)];
}

const lower = (byte: number): number => (byte >= 65 && byte <= 90 ? byte + 32 : byte);

export function matchString(program: Int32Array, at: number, p: Packet): boolean {
  const from = program[at]! >>> 0;
  const to = program[at + 1]! >>> 0;
  const ignoreCase = (program[at + 2]! & StringFlag.IGNORE_CASE) !== 0;
  const length = program[at + 3]!;
  const pattern = at + 4;
  showTtl(p);
  const bytes = p.bytes;
  const last = (to < p.length ? to : p.length) - length;
  for (let start = from; start <= last; start++) {
    const o = p.start + start;
    let i = 0;
    while (i < length) {
      const byte = u8(bytes, o + i);
      if ((ignoreCase ? lower(byte) : byte) !== packedByte(program, pattern, i)) break;
      i++;
    }
    if (i === length) return true;
  }
  return false;
}

export const string: Op = {
  name: 'string',
  payload: true,
  words: 4,
  variable: true,
  invertible: true,
  check: (a) =>
    argument(a, 3) > 0 && (argument(a, 3) + 3) >> 2 === a.words - 4
      ? undefined
      : 'its pattern is not as long as it says',
  text: (a) =>
    `${JSON.stringify(unpackText(a.program, a.at + 4, argument(a, 3)))} from ${argument(a, 0)} to ${argument(a, 1)}` +
    (argument(a, 2) & StringFlag.IGNORE_CASE ? ' icase' : ''),
};
