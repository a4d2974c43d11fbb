/**
 * -j RATEEST and -m rateest (net/netfilter/xt_RATEEST.c, xt_rateest.c; net/core/gen_estimator.c): estimators by name, each
 * in a region of its own that every rule naming it shares. The kernel's timer becomes a reckoning: whoever comes to an
 * estimator first makes up for the intervals that ended since. Averages are the kernel's fixed-point numbers, rates × 256.
 *
 * A region: INTERVAL (log2 of quarter seconds) EWMA_LOG (0: no rule with -j RATEEST has made it yet, all its rates are 0),
 * then doubles in two words each, the upper one first: END of the interval in ticks, BYTES and PACKETS in it, and the averages.
 */
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Arguments, type Op } from './op.js';
import { CONTINUE } from './ops.js';
import { lockRegion, Region, RegionKind, unlockRegion } from './regions.js';

const enum Estimator {
  /** Region.BODY */
  INTERVAL = 2,
  EWMA_LOG = 3,
  END = 4,
  BYTES = 6,
  PACKETS = 8,
  BYTE_RATE = 10,
  PACKET_RATE = 12,
  WORDS = 14,
}
export const RATEEST_WORDS = Estimator.WORDS;

/** Fraction bits of an average. */
const SCALE = 256;
const HIGH = 2 ** 32;

export const enum RateestMode {
  EQ = 0,
  LT = 1,
  GT = 2,
}
export const enum RateestFlag {
  DELTA = 1 << 0,
  BPS = 1 << 1,
  PPS = 1 << 2,
}

const enum Arg {
  FIRST = 0,
  /** −1: the fixed rates. */
  SECOND = 1,
  MODE = 2,
  FLAGS = 3,
  /** uint32: bytes and packets a second. */
  BPS1 = 4,
  PPS1 = 5,
  BPS2 = 6,
  PPS2 = 7,
  WORDS = 8,
}

export interface RateestTest {
  /** Regions; `second` −1 compares with fixed rates. */
  readonly first: number;
  readonly second: number;
  readonly mode: RateestMode;
  /** RateestFlag bits. */
  readonly flags: number;
  readonly bps1: number;
  readonly pps1: number;
  readonly bps2: number;
  readonly pps2: number;
}

export const encodeRateest = (test: RateestTest): number[] => [
  test.first,
  test.second,
  test.mode,
  test.flags,
  test.bps1 | 0,
  test.pps1 | 0,
  test.bps2 | 0,
  test.pps2 | 0,
];
export const encodeRATEEST = (region: number): number[] => [region];

/** A new region, not an estimator yet. */
export function initRateest(region: Int32Array): void {
  region[Region.KIND] = RegionKind.RATEEST;
}

/**
 * Makes the region an estimator: `interval` −2 … 3 as in 2^interval seconds, averaged over 2^ewmaLog of them (1 … 29). False if it is
 * one with other figures.
 */
export function setRateest(region: Int32Array, interval: number, ewmaLog: number): boolean {
  if (region[Estimator.EWMA_LOG] === 0) {
    region[Estimator.INTERVAL] = interval + 2;
    region[Estimator.EWMA_LOG] = ewmaLog;
  }
  return region[Estimator.INTERVAL] === interval + 2 && region[Estimator.EWMA_LOG] === ewmaLog;
}

const get = (region: Int32Array, at: number): number => region[at]! * HIGH + (region[at + 1]! >>> 0);
function set(region: Int32Array, at: number, value: number): void {
  region[at] = Math.floor(value / HIGH);
  region[at + 1] = value | 0;
}

/** After its lock's owner died: what it measured may be half written. */
export function mendRateest(region: Int32Array): void {
  region.fill(0, Estimator.END);
}

/** One step of est_timer(): `sum` was counted in an interval of 2^interval quarter seconds. */
function average(old: number, sum: number, interval: number, ewmaLog: number): number {
  const weight = 2 ** ewmaLog;
  const rate = sum * 2 ** (10 - interval);
  return old + Math.floor(rate / weight) - Math.floor(old / weight);
}

/** Ends the intervals that are over; the region is locked. */
function catchUp(context: Context, region: Int32Array): void {
  const ewmaLog = region[Estimator.EWMA_LOG]!;
  if (ewmaLog === 0) return;
  const interval = region[Estimator.INTERVAL]!;
  const length = (context.hz / 4) * 2 ** interval;
  let end = get(region, Estimator.END);
  if (end === 0) end = context.ticks + length;
  let bytes = get(region, Estimator.BYTES);
  let packets = get(region, Estimator.PACKETS);
  let byteRate = get(region, Estimator.BYTE_RATE);
  let packetRate = get(region, Estimator.PACKET_RATE);
  while (context.ticks >= end) {
    const byteRateNow = average(byteRate, bytes, interval, ewmaLog);
    const packetRateNow = average(packetRate, packets, interval, ewmaLog);
    // Nothing came, and what is left decays no further: so it stays, however long ago that was.
    if (byteRateNow === byteRate && packetRateNow === packetRate && packets === 0) {
      end += Math.floor((context.ticks - end) / length + 1) * length;
      break;
    }
    byteRate = byteRateNow;
    packetRate = packetRateNow;
    bytes = 0;
    packets = 0;
    end += length;
  }
  set(region, Estimator.END, end);
  set(region, Estimator.BYTES, bytes);
  set(region, Estimator.PACKETS, packets);
  set(region, Estimator.BYTE_RATE, byteRate);
  set(region, Estimator.PACKET_RATE, packetRate);
}

export function applyRATEEST(context: Context, program: Int32Array, at: number, p: Packet): number {
  const region = context.regions[program[at]!]!;
  lockRegion(context, region);
  catchUp(context, region);
  set(region, Estimator.BYTES, get(region, Estimator.BYTES) + p.length);
  set(region, Estimator.PACKETS, get(region, Estimator.PACKETS) + 1);
  unlockRegion(region);
  return CONTINUE;
}

/** Bytes or packets a second, rounded down. */
function rate(context: Context, region: Int32Array, at: number): number {
  lockRegion(context, region);
  catchUp(context, region);
  const value = Math.floor(get(region, at) / SCALE);
  unlockRegion(region);
  return value;
}

export function matchRateest(context: Context, program: Int32Array, at: number): boolean {
  const flags = program[at + Arg.FLAGS]!;
  return (
    ((flags & RateestFlag.BPS) === 0 || compare(context, program, at, Estimator.BYTE_RATE, Arg.BPS1, Arg.BPS2)) &&
    ((flags & RateestFlag.PPS) === 0 || compare(context, program, at, Estimator.PACKET_RATE, Arg.PPS1, Arg.PPS2))
  );
}

/** One kind of rate on both sides; with DELTA what is left of the given rates. */
function compare(context: Context, program: Int32Array, at: number, kind: number, one: number, two: number): boolean {
  const second = program[at + Arg.SECOND]!;
  const delta = (program[at + Arg.FLAGS]! & RateestFlag.DELTA) !== 0;
  let a = rate(context, context.regions[program[at + Arg.FIRST]!]!, kind);
  if (delta) a = Math.max((program[at + one]! >>> 0) - a, 0);
  let b = program[at + two]! >>> 0;
  if (second >= 0) {
    const measured = rate(context, context.regions[second]!, kind);
    b = delta ? Math.max(b - measured, 0) : measured;
  }
  switch (program[at + Arg.MODE]!) {
    case RateestMode.LT:
      return a < b;
    case RateestMode.GT:
      return a > b;
    default:
      return a === b;
  }
}

const checkRegion = (a: Arguments, number: number): string | undefined => {
  const region = a.regions[number];
  return region?.[Region.KIND] === RegionKind.RATEEST && region.length >= Estimator.WORDS
    ? undefined
    : 'its estimator is not there';
};

export const rateest: Op = {
  name: 'rateest',
  words: Arg.WORDS,
  invertible: true,
  check: (a) => {
    const second = argument(a, Arg.SECOND);
    return checkRegion(a, argument(a, Arg.FIRST)) ?? (second === -1 ? undefined : checkRegion(a, second));
  },
  text: (a) =>
    `${['eq', 'lt', 'gt'][argument(a, Arg.MODE)] ?? '?'} flags ${argument(a, Arg.FLAGS)} ` +
    [Arg.BPS1, Arg.PPS1, Arg.BPS2, Arg.PPS2].map((i) => argument(a, i) >>> 0).join(' '),
};

export const RATEEST: Op = {
  name: 'RATEEST',
  words: 1,
  check: (a) => checkRegion(a, argument(a, 0)),
  text: (a) => `region ${argument(a, 0)}`,
};
