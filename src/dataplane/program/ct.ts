/**
 * -j CT and -j NOTRACK (net/netfilter/xt_CT.c): FLAGS (CtFlag) ZONE HELPER EVENTS. In raw, ahead of tracking: says that
 * the packet is not to be tracked, or with which zone, helper and events its connection is. The first such target that a
 * packet meets counts; the kernel, too, leaves a packet alone that has its template. ZONE_MARK takes the packet's mark
 * for the zone. EVENTS are Change bits; 0 = all.
 */
import { CtState } from '../names.js';
import type { Packet } from '../packet.js';
import { visibleMark } from './mark.js';
import { argument, hex, type Op } from './op.js';
import { CONTINUE } from './ops.js';

/** XT_CT_* (include/uapi/linux/netfilter/xt_CT.h) */
export const enum CtFlag {
  NOTRACK = 1 << 0,
  NOTRACK_ALIAS = 1 << 1,
  ZONE_ORIGINAL = 1 << 2,
  ZONE_REPLY = 1 << 3,
  ZONE_MARK = 1 << 4,
}

/** In EVENTS: a bit that no change has, for connections of which nothing is to be told. */
const NO_EVENTS = 1 << 15;

/** `events` and `expected`: what --ctevents and --expevents ask for; one of them alone leaves nothing of the other. */
export const encodeCT = (flags: number, zone: number, helper: number, events: number, expected: number): number[] => [
  flags,
  zone,
  helper,
  events === 0 && expected !== 0 ? NO_EVENTS : events,
];

export function applyCT(program: Int32Array, at: number, p: Packet): number {
  // Rules have spoken already, or the packet came with its connection: looped, or an answer.
  if (p.ct >= 0 || p.ctState !== 0) return CONTINUE;
  const flags = program[at]!;
  if ((flags & CtFlag.NOTRACK) !== 0) {
    p.ctState = CtState.UNTRACKED;
    return CONTINUE;
  }
  const zone = (flags & CtFlag.ZONE_MARK) !== 0 ? visibleMark(p) & 0xffff : program[at + 1]!;
  const direction = flags & (CtFlag.ZONE_ORIGINAL | CtFlag.ZONE_REPLY);
  p.ctZones = (direction === CtFlag.ZONE_REPLY ? 0 : zone) | (direction === CtFlag.ZONE_ORIGINAL ? 0 : zone << 16);
  p.ctHelper = program[at + 2]!;
  p.ctEvents = program[at + 3]!;
  // What rules see until the packet is tracked.
  p.ctState = CtState.NEW;
  return CONTINUE;
}

export const CT: Op = {
  name: 'CT',
  words: 4,
  connections: (args) => (args[0]! & CtFlag.NOTRACK) === 0,
  check: (a) => {
    if (argument(a, 1) < 0 || argument(a, 1) > 0xffff) return 'its zone is out of range';
    return argument(a, 2) < 0 || argument(a, 2) > 0xff ? 'its helper is out of range' : undefined;
  },
  text: (a) =>
    `flags ${hex(argument(a, 0))} zone ${argument(a, 1)} helper ${argument(a, 2)} events ${hex(argument(a, 3))}`,
};
