/** -m iprange (net/netfilter/xt_iprange.c): FLAGS SRC_MIN SRC_MAX DST_MIN DST_MAX; addresses compare as unsigned. */
import type { Packet } from '../packet.js';
import { addressText, argument, type Op } from './op.js';

/** IPRANGE_* */
export const enum RangeTest {
  SRC = 1 << 0,
  DST = 1 << 1,
  SRC_INVERT = 1 << 4,
  DST_INVERT = 1 << 5,
}

export const encodeIprange = (
  flags: number,
  srcMin: number,
  srcMax: number,
  dstMin: number,
  dstMax: number,
): number[] => [flags, srcMin, srcMax, dstMin, dstMax];

const within = (address: number, min: number, max: number): boolean =>
  address >>> 0 >= min >>> 0 && address >>> 0 <= max >>> 0;

export function matchIprange(program: Int32Array, at: number, p: Packet): boolean {
  const flags = program[at]!;
  if (
    (flags & RangeTest.SRC) !== 0 &&
    within(p.src, program[at + 1]!, program[at + 2]!) === ((flags & RangeTest.SRC_INVERT) !== 0)
  )
    return false;
  return (
    (flags & RangeTest.DST) === 0 ||
    within(p.dst, program[at + 3]!, program[at + 4]!) !== ((flags & RangeTest.DST_INVERT) !== 0)
  );
}

export const iprange: Op = {
  name: 'iprange',
  words: 5,
  text: (a) => {
    const flags = argument(a, 0);
    const say = (bit: number, invert: number, name: string, i: number): string =>
      flags & bit
        ? ` ${flags & invert ? '! ' : ''}${name} ${addressText(argument(a, i))}-${addressText(argument(a, i + 1))}`
        : '';
    return (
      say(RangeTest.SRC, RangeTest.SRC_INVERT, 'src', 1) + say(RangeTest.DST, RangeTest.DST_INVERT, 'dst', 3)
    ).trimStart();
  },
};
