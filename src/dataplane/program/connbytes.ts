/**
 * -m connbytes (net/netfilter/xt_connbytes.c): WHAT DIRECTION INVERT MIN-LOW MIN-HIGH MAX-LOW MAX-HIGH: packets, bytes or
 * whole bytes a packet of the connection so far, this packet included. Holds for no packet without a connection, negated or
 * not.
 */
import { Dir } from '../names.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

/** enum xt_connbytes_what */
export const enum ConnbytesWhat {
  PACKETS = 0,
  BYTES = 1,
  AVERAGE = 2,
}
/** enum xt_connbytes_direction */
export const enum ConnbytesDirection {
  ORIGINAL = 0,
  REPLY = 1,
  BOTH = 2,
}
const enum Arg {
  WHAT = 0,
  DIRECTION = 1,
  INVERT = 2,
  MIN = 3,
  MAX = 5,
  WORDS = 7,
}

/** `min`, `max`: 0 … 2^64 − 1. */
export const encodeConnbytes = (
  what: ConnbytesWhat,
  direction: ConnbytesDirection,
  invert: boolean,
  min: bigint,
  max: bigint,
): number[] => [what, direction, invert ? 1 : 0, ...halves(min), ...halves(max)];

const halves = (value: bigint): number[] => [Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))];

/** Beyond 2^53, where no count of ours comes, the last digits are lost. */
const wide = (words: Int32Array, at: number): number => (words[at + 1]! >>> 0) * 0x1_0000_0000 + (words[at]! >>> 0);

export function matchConnbytes(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  if (p.ct < 0) return false;
  const { table } = context;
  const direction = program[at + Arg.DIRECTION]!;
  let packets = 0;
  let bytes = 0;
  if (direction !== ConnbytesDirection.REPLY) {
    packets = table.packets(p.ct, Dir.ORIGINAL);
    bytes = table.bytes(p.ct, Dir.ORIGINAL);
  }
  if (direction !== ConnbytesDirection.ORIGINAL) {
    packets += table.packets(p.ct, Dir.REPLY);
    bytes += table.bytes(p.ct, Dir.REPLY);
  }
  let value: number;
  switch (program[at]!) {
    case ConnbytesWhat.PACKETS:
      value = packets;
      break;
    case ConnbytesWhat.BYTES:
      value = bytes;
      break;
    default:
      value = packets === 0 ? 0 : Math.floor(bytes / packets);
  }
  const within = value >= wide(program, at + Arg.MIN) && value <= wide(program, at + Arg.MAX);
  return within !== (program[at + Arg.INVERT]! !== 0);
}

export const connbytes: Op = {
  name: 'connbytes',
  words: Arg.WORDS,
  connections: true,
  text: (a) =>
    `${argument(a, Arg.INVERT) ? '! ' : ''}${wide(a.program, a.at + Arg.MIN)}:${wide(a.program, a.at + Arg.MAX)} ` +
    `${['packets', 'bytes', 'average'][argument(a, Arg.WHAT)] ?? '?'} ` +
    `${['original', 'reply', 'both'][argument(a, Arg.DIRECTION)] ?? '?'}`,
};
