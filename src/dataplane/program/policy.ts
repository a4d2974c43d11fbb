/**
 * -m policy (net/netfilter/xt_policy.c): WAY, an Ipsec bit. Whether a packet came or goes by IPsec the queue doesn't tell; the
 * diversion marks those that do (control/divert.ts) while a program asks (ProgramFlag.POLICY). Where a forwarded packet goes
 * is known once the kernel has routed it: it comes a second time (late.ts).
 */
import { Ipsec } from '../names.js';
import type { Packet } from '../packet.js';
import { ProgramFlag } from './format.js';
import { argument, type Op } from './op.js';

export const encodePolicy = (way: Ipsec): number[] => [way];

export const matchPolicy = (program: Int32Array, at: number, p: Packet): boolean => (p.ipsec & program[at]!) !== 0;

export const policy: Op = {
  name: 'policy',
  words: 1,
  invertible: true,
  marked: ProgramFlag.POLICY,
  text: (a) => (argument(a, 0) === (Ipsec.IN as number) ? 'in' : 'out'),
};
