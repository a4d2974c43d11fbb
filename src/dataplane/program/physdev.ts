/**
 * -m physdev (net/netfilter/xt_physdev.c): ASKED INVERT (PhysdevTest bits), then two names as -i has them, of the way in and out. What
 * came by no bridge fails all that is asked and not negated. The way out is known of what a bridge passes on, in
 * FORWARD and POSTROUTING: such packets come a second time (pipeline.ts).
 */
import type { Packet } from '../packet.js';
import { encodeInterface, inInterface, matchInterface } from './basics.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

/** XT_PHYSDEV_OP_*: the port it came by, or leaves by, has this name; a bridge passes it on; it came, or leaves, by a port at all. */
export const enum PhysdevTest {
  IN = 1 << 0,
  OUT = 1 << 1,
  BRIDGED = 1 << 2,
  IS_IN = 1 << 3,
  IS_OUT = 1 << 4,
}
/** All that holds only of packets that leave by a port. */
const LEAVES = PhysdevTest.BRIDGED | PhysdevTest.IS_OUT;
const NAME_WORDS = 8;
const enum Arg {
  ASKED = 0,
  INVERT = 1,
  IN = 2,
  OUT = 10,
  WORDS = 18,
}

export const encodePhysdev = (asked: number, invert: number, inName: string, outName: string): number[] => [
  asked,
  invert,
  ...encodeInterface(inName),
  ...encodeInterface(outName),
];

export function matchPhysdev(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const asked = program[at]!;
  const invert = program[at + 1]!;
  if (p.physindev === 0) return (asked & ~invert) === 0;
  const leaves = p.physoutdev !== 0 ? LEAVES : 0;
  if (((leaves ^ invert) & asked & LEAVES) !== (asked & LEAVES) || (asked & invert & PhysdevTest.IS_IN) !== 0)
    return false;
  const { interfaces } = context;
  if ((asked & PhysdevTest.IN) !== 0) {
    const named = matchInterface(program, at + Arg.IN, interfaces.words, interfaces.find(p.physindev));
    if (named === ((invert & PhysdevTest.IN) !== 0)) return false;
  }
  if ((asked & PhysdevTest.OUT) === 0) return true;
  // What leaves by no port fails the negation, too.
  if (p.physoutdev === 0) return false;
  const named = matchInterface(program, at + Arg.OUT, interfaces.words, interfaces.find(p.physoutdev));
  return named !== ((invert & PhysdevTest.OUT) !== 0);
}

const TEXTS: readonly (readonly [PhysdevTest, string, number])[] = [
  [PhysdevTest.IS_IN, 'is-in', 0],
  [PhysdevTest.IN, 'in', Arg.IN],
  [PhysdevTest.IS_OUT, 'is-out', 0],
  [PhysdevTest.OUT, 'out', Arg.OUT],
  [PhysdevTest.BRIDGED, 'is-bridged', 0],
];

export const physdev: Op = {
  name: 'physdev',
  words: Arg.WORDS,
  text: (a) =>
    TEXTS.filter(([bit]) => argument(a, Arg.ASKED) & bit)
      .map(([bit, name, at]) => {
        const not = argument(a, Arg.INVERT) & bit ? '! ' : '';
        return not + name + (at === 0 ? '' : ` ${inInterface.text({ ...a, at: a.at + at, words: NAME_WORDS })}`);
      })
      .join(' '),
};
