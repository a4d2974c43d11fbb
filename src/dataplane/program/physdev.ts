/**
 * -m physdev (net/netfilter/xt_physdev.c), as far as the way in: ASKED INVERT (PhysdevTest bits), then a name as -i has it. What
 * came by no bridge fails all that is asked and not negated.
 */
import type { Packet } from '../packet.js';
import { encodeInterface, inInterface, matchInterface } from './basics.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

/** XT_PHYSDEV_OP_*: the port it came by has this name; it came by a port at all. */
export const enum PhysdevTest {
  IN = 1 << 0,
  IS_IN = 1 << 3,
}
const enum Arg {
  ASKED = 0,
  INVERT = 1,
  NAME = 2,
  WORDS = 10,
}

export const encodePhysdev = (asked: number, invert: number, name: string): number[] => [
  asked,
  invert,
  ...encodeInterface(name),
];

export function matchPhysdev(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const asked = program[at]!;
  const invert = program[at + 1]!;
  if ((asked & PhysdevTest.IS_IN) !== 0 && (p.physindev !== 0) === ((invert & PhysdevTest.IS_IN) !== 0)) return false;
  if ((asked & PhysdevTest.IN) === 0) return true;
  const { interfaces } = context;
  const named =
    p.physindev !== 0 && matchInterface(program, at + Arg.NAME, interfaces.words, interfaces.find(p.physindev));
  return named !== ((invert & PhysdevTest.IN) !== 0);
}

export const physdev: Op = {
  name: 'physdev',
  words: Arg.WORDS,
  text: (a) => {
    const not = (bit: PhysdevTest): string => (argument(a, Arg.INVERT) & bit ? '! ' : '');
    const words: string[] = [];
    if (argument(a, Arg.ASKED) & PhysdevTest.IS_IN) words.push(`${not(PhysdevTest.IS_IN)}is-in`);
    if (argument(a, Arg.ASKED) & PhysdevTest.IN)
      words.push(`${not(PhysdevTest.IN)}in ${inInterface.text({ ...a, at: a.at + Arg.NAME, words: 8 })}`);
    return words.join(' ');
  },
};
