/**
 * -m u32 (net/netfilter/xt_u32.c): INVERT TESTS, then each test: LOCATIONS VALUES, LOCATIONS pairs OPERATOR NUMBER, VALUES
 * pairs MIN MAX. A location begins with a place to read 32 bits at; further operators mask, shift, or go to the place
 * just read (`@`). Values compare as unsigned. A place outside the packet is no match.
 */
import { showTtl } from '../nat/rewrite.js';
import type { Packet } from '../packet.js';
import { u32 as read } from '../wire/bytes.js';
import { argument, hex, type Op } from './op.js';

/** enum xt_u32_ops */
export const enum U32Operator {
  AND = 0,
  LEFT_SHIFT = 1,
  RIGHT_SHIFT = 2,
  AT = 3,
}
export interface U32Test {
  /** The first one's operator is ignored. */
  readonly location: readonly { readonly operator: U32Operator; readonly number: number }[];
  readonly values: readonly { readonly min: number; readonly max: number }[];
}

export const encodeU32 = (tests: readonly U32Test[], invert: boolean): number[] => [
  invert ? 1 : 0,
  tests.length,
  ...tests.flatMap((test) => [
    test.location.length,
    test.values.length,
    ...test.location.flatMap((step) => [step.operator, step.number | 0]),
    ...test.values.flatMap((value) => [value.min | 0, value.max | 0]),
  ]),
];

export const matchU32 = (program: Int32Array, at: number, p: Packet): boolean =>
  allHold(program, at, p) !== (program[at]! !== 0);

function allHold(program: Int32Array, at: number, p: Packet): boolean {
  showTtl(p);
  const bytes = p.bytes;
  const length = p.length;
  let test = at + 2;
  for (let tests = program[at + 1]!; tests > 0; tests--) {
    const values = test + 2 + program[test]! * 2;
    const end = values + program[test + 1]! * 2;
    // All of this is unsigned 32-bit arithmetic.
    let base = 0;
    let place = program[test + 3]! >>> 0;
    if (length < 4 || place > length - 4) return false;
    let value = read(bytes, p.start + place) >>> 0;
    for (let step = test + 4; step < values; step += 2) {
      const number = program[step + 1]! >>> 0;
      switch (program[step]!) {
        case U32Operator.AND:
          value = (value & number) >>> 0;
          break;
        case U32Operator.LEFT_SHIFT:
          value = (value << number) >>> 0;
          break;
        case U32Operator.RIGHT_SHIFT:
          value = value >>> number;
          break;
        default:
          base += value;
          place = number;
          if (base + 4 > length || place > length - base - 4) return false;
          value = read(bytes, p.start + base + place) >>> 0;
      }
    }
    let i = values;
    while (i < end && (value < program[i]! >>> 0 || value > program[i + 1]! >>> 0)) i += 2;
    if (i === end) return false;
    test = end;
  }
  return true;
}

export const u32: Op = {
  name: 'u32',
  payload: true,
  words: 2,
  variable: true,
  check: (a) => {
    let i = 2;
    for (let tests = argument(a, 1); tests > 0; tests--) {
      if (i + 2 > a.words || argument(a, i) < 1 || argument(a, i + 1) < 0) return 'a test of it is cut';
      i += 2 + (argument(a, i) + argument(a, i + 1)) * 2;
    }
    return argument(a, 1) >= 0 && i === a.words ? undefined : 'its tests are not as long as it says';
  },
  text: (a) =>
    `${argument(a, 0) ? '! ' : ''}${Array.from({ length: a.words - 2 }, (_, i) => hex(argument(a, i + 2))).join(' ')}`,
};
