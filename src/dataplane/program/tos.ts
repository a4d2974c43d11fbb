/**
 * -m tos and -m dscp (net/netfilter/xt_dscp.c), -j TOS and -j DSCP (xt_DSCP.c), all VALUE MASK over the type-of-service byte,
 * of which DSCP is the upper six bits. The targets make it (tos & ~MASK) ^ VALUE, the header checksum with it.
 */
import { setTos } from '../nat/rewrite.js';
import type { Packet } from '../packet.js';
import { argument, hex, type Op } from './op.js';
import { CONTINUE } from './ops.js';

export const encodeTos = (value: number, mask: number): number[] => [value, mask];
export const encodeDscp = (dscp: number): number[] => [dscp << 2, 0xfc];

export const matchTos = (program: Int32Array, at: number, p: Packet): boolean =>
  (p.tos & program[at + 1]!) === program[at]!;

export const tos: Op = {
  name: 'tos',
  words: 2,
  invertible: true,
  text: (a) => `${hex(argument(a, 0))}/${hex(argument(a, 1))}`,
};

export const encodeTOS = (value: number, mask: number): number[] => [value, mask];
export const encodeDSCP = (dscp: number): number[] => [dscp << 2, 0xfc];

export function applyTOS(program: Int32Array, at: number, p: Packet): number {
  setTos(p, ((p.tos & ~program[at + 1]!) ^ program[at]!) & 0xff);
  return CONTINUE;
}

export const TOS: Op = {
  name: 'TOS',
  payload: true,
  words: 2,
  text: (a) => `set ${hex(argument(a, 0))}/${hex(argument(a, 1))}`,
};
