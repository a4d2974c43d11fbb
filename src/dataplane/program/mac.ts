/**
 * -m mac (net/netfilter/xt_mac.c): HIGH (first four bytes) LOW (last two) INVERT. A packet that did not come by Ethernet
 * never matches, inverted or not.
 */
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

/** `mac` is six bytes. */
export const encodeMac = (mac: readonly number[], invert: boolean): number[] => [
  (mac[0]! << 24) | (mac[1]! << 16) | (mac[2]! << 8) | mac[3]!,
  (mac[4]! << 8) | mac[5]!,
  invert ? 1 : 0,
];

const ETHERNET = 6;

export function matchMac(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  if (p.macLength !== ETHERNET || context.interfaces.isLoopback(p.indev)) return false;
  const equal = p.macHigh === program[at]! && p.macLow >>> 16 === program[at + 1]!;
  return equal !== (program[at + 2]! !== 0);
}

export const mac: Op = {
  name: 'mac',
  words: 3,
  text: (a) => {
    const high = argument(a, 0);
    const low = argument(a, 1);
    const bytes = [high >>> 24, (high >> 16) & 255, (high >> 8) & 255, high & 255, low >> 8, low & 255];
    return `${argument(a, 2) ? '! ' : ''}${bytes.map((b) => b.toString(16).padStart(2, '0')).join(':')}`;
  },
};
