/**
 * -m ttl and -j TTL (net/netfilter/xt_hl.c, xt_HL.c), both MODE VALUE: TtlMode and TtlChange are the kernel's IPT_TTL_*.
 */
import { setTtl } from '../nat/rewrite.js';
import type { Packet } from '../packet.js';
import { argument, type Op } from './op.js';
import { CONTINUE } from './ops.js';

export const enum TtlMode {
  EQUAL = 0,
  NOT_EQUAL = 1,
  LESS = 2,
  GREATER = 3,
}

export const encodeTtl = (mode: TtlMode, value: number): number[] => [mode, value];

export function matchTtl(program: Int32Array, at: number, p: Packet): boolean {
  const value = program[at + 1]!;
  switch (program[at]!) {
    case TtlMode.EQUAL:
      return p.ttl === value;
    case TtlMode.NOT_EQUAL:
      return p.ttl !== value;
    case TtlMode.LESS:
      return p.ttl < value;
    default:
      return p.ttl > value;
  }
}

export const ttl: Op = {
  name: 'ttl',
  words: 2,
  text: (a) => `${['==', '!=', '<', '>'][argument(a, 0)] ?? '?'} ${argument(a, 1)}`,
};

/** SET; INCREASE ends at 255, DECREASE at 0. */
export const enum TtlChange {
  SET = 0,
  INCREASE = 1,
  DECREASE = 2,
}

export const encodeTTL = (mode: TtlChange, value: number): number[] => [mode, value];

export function applyTTL(program: Int32Array, at: number, p: Packet): number {
  const value = program[at + 1]!;
  switch (program[at]!) {
    case TtlChange.SET:
      setTtl(p, value);
      break;
    case TtlChange.INCREASE:
      setTtl(p, p.ttl + value > 255 ? 255 : p.ttl + value);
      break;
    default:
      setTtl(p, p.ttl < value ? 0 : p.ttl - value);
  }
  return CONTINUE;
}

export const TTL: Op = {
  name: 'TTL',
  payload: true,
  words: 2,
  text: (a) => `${['set', 'inc', 'dec'][argument(a, 0)] ?? '?'} ${argument(a, 1)}`,
};
