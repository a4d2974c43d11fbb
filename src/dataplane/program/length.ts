/** -m length (net/netfilter/xt_length.c): MIN MAX of the IP total length. */
import type { Packet } from '../packet.js';
import { argument, rangeText, type Op } from './op.js';

export const encodeLength = (min: number, max: number): number[] => [min, max];

export const matchLength = (program: Int32Array, at: number, p: Packet): boolean =>
  p.length >= program[at]! && p.length <= program[at + 1]!;

export const length: Op = {
  name: 'length',
  words: 2,
  invertible: true,
  text: (a) => rangeText(argument(a, 0), argument(a, 1)),
};
