/**
 * -m statistic (net/netfilter/xt_statistic.c): MODE A B INVERT. Random: A is the probability in 2^-31. Every nth: A is
 * n − 1, B unused; REGION OFFSET name the count, one word that all workers move.
 */
import type { Context } from './context.js';
import { argument, type Op } from './op.js';
import { checkSlot } from './regions.js';

export const enum StatisticMode {
  RANDOM = 0,
  NTH = 1,
}
const enum Arg {
  MODE = 0,
  VALUE = 1,
  INVERT = 2,
  REGION = 3,
  OFFSET = 4,
  WORDS = 5,
}
export const STATISTIC_STATE_WORDS = 1;

/** `probability` in 2^-31: 0 … 2^31. */
export const encodeStatisticRandom = (probability: number, invert: boolean): number[] => [
  StatisticMode.RANDOM,
  probability | 0,
  invert ? 1 : 0,
  0,
  0,
];
/** `every` is n; the state must have been made by `initStatistic`. */
export const encodeStatisticNth = (every: number, invert: boolean, region: number, offset: number): number[] => [
  StatisticMode.NTH,
  (every - 1) | 0,
  invert ? 1 : 0,
  region,
  offset,
];

/** The first match is packet number `packet` (from 0) of every `every`. */
export function initStatistic(region: Int32Array, offset: number, every: number, packet: number): void {
  region[offset] = every - 1 - packet;
}

export function matchStatistic(context: Context, program: Int32Array, at: number): boolean {
  const invert = program[at + Arg.INVERT]! !== 0;
  const value = program[at + Arg.VALUE]!;
  if (program[at]! === StatisticMode.RANDOM) return (context.nextRandom() & 0x7fff_ffff) < value >>> 0 !== invert;
  const region = context.regions[program[at + Arg.REGION]!]!;
  const offset = program[at + Arg.OFFSET]!;
  for (;;) {
    const old = Atomics.load(region, offset);
    const count = old === value ? 0 : (old + 1) | 0;
    if (Atomics.compareExchange(region, offset, old, count) === old) return (count === 0) !== invert;
  }
}

export const statistic: Op = {
  name: 'statistic',
  words: Arg.WORDS,
  check: (a) =>
    argument(a, Arg.MODE) === StatisticMode.RANDOM
      ? undefined
      : checkSlot(a, argument(a, Arg.REGION), argument(a, Arg.OFFSET), STATISTIC_STATE_WORDS),
  text: (a) =>
    (argument(a, Arg.INVERT) ? '! ' : '') +
    (argument(a, 0) === StatisticMode.RANDOM
      ? `probability ${(argument(a, 1) >>> 0) / 2 ** 31}`
      : `every ${(argument(a, 1) >>> 0) + 1}`),
};
