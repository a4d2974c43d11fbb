/**
 * -m rpfilter (net/ipv4/netfilter/ipt_rpfilter.c): FLAGS. Holds for packets to whose source the way back is by the
 * interface that they came in by; for what came by the loopback interface, and for what comes from nowhere yet to
 * everybody or to a group of this link (DHCP).
 */
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { visibleMark } from './mark.js';
import { argument, type Op } from './op.js';

/** XT_RPFILTER_* */
export const enum RpfilterFlag {
  /** By any interface. */
  LOOSE = 1 << 0,
  /** The mark takes part in the choice of the way back. */
  VALID_MARK = 1 << 1,
  ACCEPT_LOCAL = 1 << 2,
  INVERT = 1 << 3,
}

export const encodeRpfilter = (flags: number): number[] => [flags];

/** 224.0.0.0/24 */
const isLinkGroup = (address: number): boolean => address >>> 8 === 0xe00000;

export function matchRpfilter(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const flags = program[at]!;
  const invert = (flags & RpfilterFlag.INVERT) !== 0;
  if (context.interfaces.isLoopback(p.indev)) return !invert;
  if (p.src === 0 && (p.dst === -1 || isLinkGroup(p.dst))) return !invert;
  const mark = (flags & RpfilterFlag.VALID_MARK) !== 0 ? visibleMark(p) : 0;
  const acceptLocal = (flags & RpfilterFlag.ACCEPT_LOCAL) !== 0;
  return context.routes.isWayBack(p, mark, (flags & RpfilterFlag.LOOSE) !== 0, acceptLocal) !== invert;
}

export const rpfilter: Op = {
  name: 'rpfilter',
  words: 1,
  text: (a) =>
    ['loose', 'validmark', 'accept-local', 'invert'].filter((_, bit) => (argument(a, 0) >> bit) & 1).join(' '),
};
