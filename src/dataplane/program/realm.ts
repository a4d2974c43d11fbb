/** -m realm (net/netfilter/xt_realm.c): ID MASK, of the realms of the packet's route, the source's in the upper half. */
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, hex, type Op } from './op.js';

export const encodeRealm = (id: number, mask: number): number[] => [id | 0, mask | 0];

export const matchRealm = (context: Context, program: Int32Array, at: number, p: Packet): boolean =>
  (context.routes.realm(p) & program[at + 1]!) === program[at]!;

export const realm: Op = {
  name: 'realm',
  words: 2,
  invertible: true,
  text: (a) => `${hex(argument(a, 0))}/${hex(argument(a, 1))}`,
};
