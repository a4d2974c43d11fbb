/**
 * -m mark and -j MARK: the packet's mark under a mask, and mark = (mark & ~mask) ^ value.
 * (libxt_mark.c revision 1, libxt_MARK.c revision 2)
 */
import { encodeMARK, encodeMark } from '../../dataplane/program/mark.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { PrivateMark } from '../../dataplane/names.js';
import { bang, formatValueMask, markMask, uint32 } from './args.js';
import { defineMatch, defineTarget, option } from './record.js';
import { hex } from '../text/numbers.js';
import { problem } from '../text/problem.js';

export interface MarkData {
  mark: number;
  mask: number;
  invert: boolean;
}

export const mark = defineMatch<MarkData>({
  name: 'mark',
  revision: 1,
  init: () => ({ mark: 0, mask: 0, invert: false }),
  options: [
    option({
      name: 'mark',
      arg: markMask,
      invert: true,
      mandatory: true,
      set: (data, { value, mask }, { invert }) => {
        data.mark = value;
        data.mask = mask;
        data.invert = invert;
      },
    }),
  ],
  save: (data) => `${bang(data.invert)} --mark${formatValueMask(data.mark, data.mask)}`,
  print: (data) => ` mark match${bang(data.invert)}${formatValueMask(data.mark, data.mask)}`,
  help: `mark match options:
[!] --mark value[/mask]    Match nfmark value with optional mask
`,
  compile: ({ mark, mask, invert }, emit) => emit.test(MatchOp.MARK, encodeMark(mark, mask), invert),
});

export interface MarkTargetData {
  mark: number;
  mask: number;
}

const ANY = ['set-xmark', 'set-mark', 'and-mark', 'or-mark', 'xor-mark'];

/** Why a rule may not set these bits; undefined if they are free for rules. */
export function privateBits(value: number): string | undefined {
  return value & PrivateMark.ALL
    ? `${hex(value)} has the bit ${hex(PrivateMark.ALL)}, by which hutter knows the packets that it sends itself`
    : undefined;
}

export const MARK = defineTarget<MarkTargetData>({
  name: 'MARK',
  revision: 2,
  init: () => ({ mark: 0, mask: 0 }),
  options: [
    option({
      name: 'set-xmark',
      arg: markMask,
      excl: ANY,
      set: (data, { value, mask }) => {
        data.mark = value;
        data.mask = mask;
      },
    }),
    option({
      name: 'set-mark',
      arg: markMask,
      excl: ANY,
      set: (data, { value, mask }) => {
        data.mark = value;
        data.mask = value | mask;
      },
    }),
    option({
      name: 'and-mark',
      arg: uint32(),
      excl: ANY,
      set: (data, bits) => {
        data.mark = 0;
        data.mask = ~bits;
      },
    }),
    option({
      name: 'or-mark',
      arg: uint32(),
      excl: ANY,
      set: (data, bits) => {
        data.mark = data.mask = bits | 0;
      },
    }),
    option({
      name: 'xor-mark',
      arg: uint32(),
      excl: ANY,
      set: (data, bits) => {
        data.mark = bits | 0;
        data.mask = 0;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('MARK: One of the --set-xmark, --{and,or,xor,set}-mark options is required');
  },
  save: (data) => ` --set-xmark ${hex(data.mark)}/${hex(data.mask)}`,
  print: ({ mark, mask }) => {
    if (mark === 0) return ` MARK and ${hex(~mask)}`;
    if (mark === mask) return ` MARK or ${hex(mark)}`;
    if (mask === 0) return ` MARK xor ${hex(mark)}`;
    if (mask === -1) return ` MARK set ${hex(mark)}`;
    return ` MARK xset ${hex(mark)}/${hex(mask)}`;
  },
  help: `MARK target options:
  --set-xmark value[/mask]  Clear bits in mask and XOR value into nfmark
  --set-mark value[/mask]   Clear bits in mask and OR value into nfmark
  --and-mark bits           Binary AND the nfmark with bits
  --or-mark bits            Binary OR the nfmark with bits
  --xor-mark bits           Binary XOR the nfmark with bits
`,
  cannot: ({ mark }) => privateBits(mark),
  compile: ({ mark, mask }, emit) => emit.target(TargetOp.MARK, encodeMARK(mark, mask)),
  late: ({ mark, mask }) => ({ marks: mark | mask }),
});
