/**
 * -m state, and -m conntrack with nothing but --ctstate of the packet's own states (net/netfilter/xt_state.c): MASK of
 * CtState bits, of which the packet's must be one. A packet without a connection is INVALID unless it is UNTRACKED.
 */
import { CtState } from '../names.js';
import type { Packet } from '../packet.js';
import { argument, type Op } from './op.js';

export const encodeState = (mask: number): number[] => [mask];

/** The packet's state; INVALID where the packet was never tracked. */
export const stateOf = (p: Packet): number => (p.ctState === 0 ? CtState.INVALID : p.ctState);

export const matchState = (program: Int32Array, at: number, p: Packet): boolean => (stateOf(p) & program[at]!) !== 0;

export const stateNames = (mask: number): string =>
  ['INVALID', 'NEW', 'ESTABLISHED', 'RELATED', 'UNTRACKED', 'SNAT', 'DNAT'].filter((_, i) => (mask >> i) & 1).join(',');

export const state: Op = {
  name: 'state',
  words: 1,
  invertible: true,
  connections: true,
  text: (a) => stateNames(argument(a, 0)),
};
