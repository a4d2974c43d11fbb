/**
 * -m quota (net/netfilter/xt_quota.c): INVERT REGION OFFSET. Holds while the bytes left suffice for the packet, and takes
 * them; the first packet for which they don't empties it. State: bytes left, low and high word, under the chunk's lock.
 */
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';
import { checkSlot, lockRegion, unlockRegion } from './regions.js';

export const QUOTA_STATE_WORDS = 2;

export const encodeQuota = (invert: boolean, region: number, offset: number): number[] => [
  invert ? 1 : 0,
  region,
  offset,
];

/** `bytes`: 0 … 2^64 − 1. */
export function initQuota(region: Int32Array, offset: number, bytes: bigint): void {
  region[offset] = Number(BigInt.asIntN(32, bytes));
  region[offset + 1] = Number(BigInt.asIntN(32, bytes >> 32n));
}

export function matchQuota(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const region = context.regions[program[at + 1]!]!;
  const offset = program[at + 2]!;
  lockRegion(context, region);
  const low = region[offset]! >>> 0;
  const high = region[offset + 1]!;
  const suffices = high !== 0 || low >= p.length;
  if (suffices) {
    if (low < p.length) region[offset + 1] = high - 1;
    region[offset] = (low - p.length) | 0;
  } else region[offset] = 0;
  unlockRegion(region);
  return suffices !== (program[at]! !== 0);
}

export const quota: Op = {
  name: 'quota',
  words: 3,
  check: (a) => checkSlot(a, argument(a, 1), argument(a, 2), QUOTA_STATE_WORDS),
  text: (a) => `${argument(a, 0) ? '! ' : ''}region ${argument(a, 1)}`,
};
