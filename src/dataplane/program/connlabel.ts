/**
 * -m connlabel (net/netfilter/xt_connlabel.c): BIT SET INVERT. Holds for packets of connections with the label; with SET it
 * is given to those that lack it, which then hold, too. Negated it holds for packets without a connection.
 */
import { Change } from '../conntrack/events.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

/** `bit`: 0 … 127. */
export const encodeConnlabel = (bit: number, set: boolean, invert: boolean): number[] => [
  bit,
  set ? 1 : 0,
  invert ? 1 : 0,
];

export function matchConnlabel(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const invert = program[at + 2]! !== 0;
  if (p.ct < 0) return invert;
  const { table } = context;
  const bit = program[at]!;
  if (table.label(p.ct, bit)) return !invert;
  if (program[at + 1]! === 0) return invert;
  table.setLabel(p.ct, bit);
  table.pendingEvents |= Change.LABEL;
  return !invert;
}

export const connlabel: Op = {
  name: 'connlabel',
  words: 3,
  connections: true,
  check: (a) => (argument(a, 0) >>> 0 > 127 ? 'there is no such label' : undefined),
  text: (a) => `${argument(a, 2) ? '! ' : ''}${argument(a, 0)}${argument(a, 1) ? ' set' : ''}`,
};
