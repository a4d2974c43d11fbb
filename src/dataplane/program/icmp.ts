/**
 * -m icmp (icmp_match in net/ipv4/netfilter/ip_tables.c, now xt_tcpudp.c): TYPE (255 = any) MIN_CODE MAX_CODE INVERT. The
 * kernel wants the whole header of eight bytes to be there; less is an impossible packet.
 */
import type { Packet } from '../packet.js';
import { argument, rangeText, type Op } from './op.js';

export interface IcmpTest {
  /** 255 matches every type. */
  readonly type: number;
  readonly minCode: number;
  readonly maxCode: number;
  readonly invert?: boolean | undefined;
}

export const encodeIcmp = (test: IcmpTest): number[] => [test.type, test.minCode, test.maxCode, test.invert ? 1 : 0];

const HEADER = 8;
const ANY = 255;

export function matchIcmp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < HEADER) {
    p.hotdrop = 1;
    return false;
  }
  const type = program[at]!;
  const holds =
    type === ANY || (type === p.icmpType && p.icmpCode >= program[at + 1]! && p.icmpCode <= program[at + 2]!);
  return holds !== (program[at + 3]! !== 0);
}

export const icmp: Op = {
  name: 'icmp',
  words: 4,
  text: (a) => `${argument(a, 3) ? '! ' : ''}type ${argument(a, 0)} code ${rangeText(argument(a, 1), argument(a, 2))}`,
};
