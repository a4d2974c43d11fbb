/** -j CLASSIFY (net/netfilter/xt_CLASSIFY.c), CLASS: the packet's priority becomes major << 16 | minor. */
import type { Packet } from '../packet.js';
import { argument, type Op } from './op.js';
import { CONTINUE } from './ops.js';

export const encodeCLASSIFY = (major: number, minor: number): number[] => [(major << 16) | minor];

export function applyCLASSIFY(program: Int32Array, at: number, p: Packet): number {
  p.priority = program[at]!;
  p.classified = 1;
  return CONTINUE;
}

export const CLASSIFY: Op = {
  name: 'CLASSIFY',
  words: 1,
  text: (a) => `${(argument(a, 0) >>> 16).toString(16)}:${(argument(a, 0) & 0xffff).toString(16)}`,
};
