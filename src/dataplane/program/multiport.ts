/**
 * -m multiport (net/netfilter/xt_multiport.c): SIDE INVERT, then up to 15 words first port << 16 | last port. A fragment
 * past the first never matches, inverted or not; a packet too short for its ports is impossible.
 */
import type { Packet } from '../packet.js';
import { argument, rangeText, type Op } from './op.js';

/** enum xt_multiport_flags */
export const enum PortSide {
  SOURCE = 0,
  DESTINATION = 1,
  EITHER = 2,
}

export interface MultiportTest {
  readonly side: PortSide;
  readonly invert: boolean;
  readonly ports: readonly { readonly min: number; readonly max: number }[];
}

export const encodeMultiport = (test: MultiportTest): number[] => [
  test.side,
  test.invert ? 1 : 0,
  test.ports.length,
  ...test.ports.map((range) => (range.min << 16) | range.max),
];

const PORTS = 4;

export function matchMultiport(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < PORTS) {
    p.hotdrop = 1;
    return false;
  }
  const side = program[at]!;
  const invert = program[at + 1]! !== 0;
  const end = at + 3 + program[at + 2]!;
  for (let i = at + 3; i < end; i++) {
    const range = program[i]!;
    const min = range >>> 16;
    const max = range & 0xffff;
    if (side !== PortSide.DESTINATION && p.sport >= min && p.sport <= max) return !invert;
    if (side !== PortSide.SOURCE && p.dport >= min && p.dport <= max) return !invert;
  }
  return invert;
}

export const multiport: Op = {
  name: 'multiport',
  words: 3,
  variable: true,
  check: (a) => (argument(a, 2) === a.words - 3 ? undefined : 'its number of ports is not what it says'),
  text: (a) =>
    `${argument(a, 1) ? '! ' : ''}${['sports', 'dports', 'ports'][argument(a, 0)] ?? '?'} ` +
    Array.from({ length: a.words - 3 }, (_, i) =>
      rangeText(argument(a, 3 + i) >>> 16, argument(a, 3 + i) & 0xffff),
    ).join(','),
};
