/**
 * -m connmark (net/netfilter/xt_connmark.c): MARK MASK INVERT. Holds for no packet without a connection, negated or not.
 *
 * -j CONNMARK: MODE CTMARK CTMASK NFMASK SHIFT RIGHT, with MODE of ConnmarkMode. SET: the connection's mark becomes
 * (mark & ~CTMASK) ^ CTMARK, shifted. SAVE: (mark & ~CTMASK) ^ (the packet's & NFMASK, shifted). RESTORE: the packet's
 * becomes (its & ~NFMASK) ^ (the connection's & CTMASK, shifted), but for hutter's own bit (PrivateMark).
 */
import { Change } from '../conntrack/events.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { setMark, visibleMark } from './mark.js';
import { argument, hex, type Op } from './op.js';
import { CONTINUE } from './ops.js';

export const encodeConnmark = (mark: number, mask: number, invert: boolean): number[] => [mark, mask, invert ? 1 : 0];

export function matchConnmark(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  if (p.ct < 0) return false;
  return ((context.table.mark(p.ct) & program[at + 1]!) === program[at]!) !== (program[at + 2]! !== 0);
}

export const connmark: Op = {
  name: 'connmark',
  words: 3,
  connections: true,
  text: (a) => `${argument(a, 2) ? '! ' : ''}${hex(argument(a, 0))}/${hex(argument(a, 1))}`,
};

export const enum ConnmarkMode {
  SET = 0,
  SAVE = 1,
  RESTORE = 2,
}

const enum Arg {
  MODE = 0,
  CTMARK = 1,
  CTMASK = 2,
  NFMASK = 3,
  SHIFT = 4,
  RIGHT = 5,
  WORDS = 6,
}

export const encodeCONNMARK = (
  mode: ConnmarkMode,
  ctmark: number,
  ctmask: number,
  nfmask: number,
  shift: number,
  right: boolean,
): number[] => [mode, ctmark, ctmask, nfmask, shift, right ? 1 : 0];

function shifted(value: number, program: Int32Array, at: number): number {
  const bits = program[at + Arg.SHIFT]!;
  return program[at + Arg.RIGHT]! !== 0 ? (value >>> bits) | 0 : value << bits;
}

export function applyCONNMARK(context: Context, program: Int32Array, at: number, p: Packet): number {
  if (p.ct < 0) return CONTINUE;
  const table = context.table;
  const mark = table.mark(p.ct);
  const ctmask = program[at + Arg.CTMASK]!;
  const nfmask = program[at + Arg.NFMASK]!;
  let next: number;
  switch (program[at + Arg.MODE]!) {
    case ConnmarkMode.SET:
      next = shifted((mark & ~ctmask) ^ program[at + Arg.CTMARK]!, program, at);
      break;
    case ConnmarkMode.SAVE:
      next = (mark & ~ctmask) ^ shifted(visibleMark(p) & nfmask, program, at);
      break;
    default:
      setMark(p, (p.mark & ~nfmask) ^ shifted(mark & ctmask, program, at));
      return CONTINUE;
  }
  if (next !== mark) {
    table.setMark(p.ct, next);
    table.pendingEvents |= Change.MARK;
  }
  return CONTINUE;
}

export const CONNMARK: Op = {
  name: 'CONNMARK',
  words: Arg.WORDS,
  connections: true,
  check: (a) => (argument(a, Arg.SHIFT) >>> 0 > 31 ? 'it shifts by more than 31 bits' : undefined),
  text: (a) => {
    const shift = argument(a, Arg.SHIFT);
    return (
      `${['set', 'save', 'restore'][argument(a, Arg.MODE)] ?? '?'} ${hex(argument(a, Arg.CTMARK))}` +
      ` ctmask ${hex(argument(a, Arg.CTMASK))} nfmask ${hex(argument(a, Arg.NFMASK))}` +
      (shift ? ` ${argument(a, Arg.RIGHT) ? '>>' : '<<'} ${shift}` : '')
    );
  },
};
