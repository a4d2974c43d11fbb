/**
 * -m helper (net/netfilter/xt_helper.c): HELPERS INVERT. Holds for packets of connections that a helper of the set HELPERS
 * (bits 1 << number) had expected; so it does when that connection's master is gone. Negated it holds for all others.
 */
import { HELPERS } from '../conntrack/helpers/helpers.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

/** `name` '' stands for any helper. A helper is meant where the name begins with its own. */
export const encodeHelper = (name: string, invert: boolean): number[] => [
  HELPERS.slice(1).reduce(
    (set, helper) => (name === '' || name.startsWith(helper.name) ? set | (1 << helper.id) : set),
    0,
  ),
  invert ? 1 : 0,
];

export function matchHelper(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const helper = p.ct < 0 ? 0 : context.table.masterHelper(p.ct);
  return (((program[at]! >>> helper) & 1) !== 0) !== (program[at + 1]! !== 0);
}

export const helper: Op = {
  name: 'helper',
  words: 2,
  connections: true,
  text: (a) =>
    (argument(a, 1) ? '! ' : '') +
    HELPERS.filter(({ id }) => (argument(a, 0) >>> id) & 1)
      .map(({ name }) => name)
      .join(','),
};
