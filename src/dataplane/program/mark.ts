/**
 * -m mark and -j MARK (net/netfilter/xt_mark.c), both VALUE MASK. The match: (mark & MASK) is VALUE. The target: the mark
 * becomes (mark & ~MASK) ^ VALUE; --set-mark V/M is MASK V|M, --and-mark B is 0/~B, --or-mark B is B/B, --xor-mark B is B/0.
 * hutter's own bit of the mark (PrivateMark) reads as 0 and stays as it is.
 */
import { PrivateMark } from '../names.js';
import type { Packet } from '../packet.js';
import { argument, hex, type Op } from './op.js';
import { CONTINUE } from './ops.js';

export const encodeMark = (value: number, mask: number): number[] => [value, mask];

/** The mark as rules see it. */
export const visibleMark = (p: Packet): number => p.mark & ~PrivateMark.ALL;

export const matchMark = (program: Int32Array, at: number, p: Packet): boolean =>
  (visibleMark(p) & program[at + 1]!) === program[at]!;

export const mark: Op = {
  name: 'mark',
  words: 2,
  invertible: true,
  text: (a) => `${hex(argument(a, 0))}/${hex(argument(a, 1))}`,
};

export const encodeMARK = (value: number, mask: number): number[] => [value, mask];

/** Gives the packet the mark `value` in the bits that rules see. */
export function setMark(p: Packet, value: number): void {
  p.mark = (p.mark & PrivateMark.ALL) | (value & ~PrivateMark.ALL);
}

export function applyMARK(program: Int32Array, at: number, p: Packet): number {
  setMark(p, (p.mark & ~program[at + 1]!) ^ program[at]!);
  return CONTINUE;
}

export const MARK: Op = {
  name: 'MARK',
  words: 2,
  text: (a) => `xset ${hex(argument(a, 0))}/${hex(argument(a, 1))}`,
};
