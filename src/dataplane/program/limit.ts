/**
 * -m limit (net/netfilter/xt_limit.c): a bucket of credits that fills with time and pays COST a packet. Credits are the
 * kernel's: CREDITS_PER_JIFFY a tick, in unsigned 32-bit arithmetic that wraps as the kernel's does, so the tick
 * frequency shows in what passes. Arguments: REGION OFFSET COST CAP. State, three words that any worker changes without
 * a lock: PREVIOUS (tick of the last packet), CREDIT, and USED (0 until the first packet).
 */
import type { Context } from './context.js';
import { argument, type Op } from './op.js';
import { checkSlot } from './regions.js';

const enum Arg {
  REGION = 0,
  OFFSET = 1,
  COST = 2,
  CAP = 3,
  WORDS = 4,
}
const enum State {
  PREVIOUS = 0,
  CREDIT = 1,
  USED = 2,
}
export const LIMIT_STATE_WORDS = 3;

/** XT_LIMIT_SCALE: `average` counts in ten-thousandths of a second a packet. */
const SCALE = 10_000;
const U32 = 0xffff_ffff;

/** The most credits a tick with which one packet a day still fits into 32 bits, as a power of two. */
export function creditsPerJiffy(hz: number): number {
  const most = Math.floor(U32 / (hz * 60 * 60 * 24));
  return 1 << (31 - Math.clz32(most));
}

/** user2credits(): `user` is a time in 1/10,000 s, unsigned; the sum wraps where the kernel's does. */
function credits(user: number, hz: number): number {
  const perSecond = hz * creditsPerJiffy(hz);
  if (user > Math.floor(U32 / perSecond)) return Math.imul(Math.floor(user / SCALE), perSecond) >>> 0;
  return Math.floor((user * perSecond) / SCALE);
}

export interface LimitTest {
  /** 1/10,000 s between packets, as the kernel's `avg`: 3/minute is 200,000. */
  readonly average: number;
  readonly burst: number;
}

/** Cost of one packet and the most credit, or undefined where the kernel says "Overflow, try lower". */
export function limitCredits(test: LimitTest, hz: number): { cost: number; cap: number } | undefined {
  const whole = Math.imul(test.average, test.burst) >>> 0;
  const cost = credits(test.average, hz);
  const cap = credits(whole, hz);
  return test.burst === 0 || cap < cost ? undefined : { cost, cap };
}

export const encodeLimit = (region: number, offset: number, cost: number, cap: number): number[] => [
  region,
  offset,
  cost | 0,
  cap | 0,
];

/** A new bucket is full. */
export function initLimit(region: Int32Array, offset: number, cap: number): void {
  region[offset + State.PREVIOUS] = 0;
  region[offset + State.CREDIT] = cap | 0;
  region[offset + State.USED] = 0;
}

export function matchLimit(context: Context, program: Int32Array, at: number): boolean {
  const region = context.regions[program[at + Arg.REGION]!]!;
  const offset = program[at + Arg.OFFSET]!;
  const cost = program[at + Arg.COST]! >>> 0;
  const cap = program[at + Arg.CAP]! >>> 0;
  const now = context.jiffies;
  let increase = 0;
  for (;;) {
    const previous = Atomics.exchange(region, offset + State.PREVIOUS, now);
    // A full bucket has nothing to gain before its first packet, whenever that comes.
    if (Atomics.load(region, offset + State.USED) === 0) Atomics.store(region, offset + State.USED, 1);
    else increase = (increase + Math.imul(now - previous, context.creditsPerJiffy)) >>> 0;
    const old = Atomics.load(region, offset + State.CREDIT);
    let credit = (old + increase) >>> 0;
    if (credit > cap) credit = cap;
    const passes = cost <= credit;
    if (passes) credit -= cost;
    if (Atomics.compareExchange(region, offset + State.CREDIT, old, credit | 0) === old) return passes;
  }
}

export const limit: Op = {
  name: 'limit',
  words: Arg.WORDS,
  invertible: true,
  check: (a) => checkSlot(a, argument(a, Arg.REGION), argument(a, Arg.OFFSET), LIMIT_STATE_WORDS),
  text: (a) => `cost ${argument(a, Arg.COST) >>> 0} cap ${argument(a, Arg.CAP) >>> 0}`,
};
