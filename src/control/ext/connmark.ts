/**
 * -m connmark and -j CONNMARK: the mark of the packet's connection; set, or copied to and from the packet's.
 * (libxt_connmark.c revision 1, libxt_CONNMARK.c revision 2, xt_connmark.c)
 */
import { ConnmarkMode, encodeCONNMARK, encodeConnmark } from '../../dataplane/program/connmark.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { hex } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, formatValueMask, markMask, uint32, uint8 } from './args.js';
import { privateBits } from './mark.js';
import { defineMatch, defineTarget, option } from './record.js';

export interface ConnmarkData {
  mark: number;
  mask: number;
  invert: boolean;
}

export const connmark = defineMatch<ConnmarkData>({
  name: 'connmark',
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
  save: ({ mark, mask, invert }) => `${bang(invert)} --mark${formatValueMask(mark, mask)}`,
  print: ({ mark, mask, invert }) => ` connmark match ${invert ? '!' : ''}${formatValueMask(mark, mask)}`,
  help: `connmark match options:
[!] --mark value[/mask]    Match ctmark value with optional mask
`,
  compile: ({ mark, mask, invert }, emit) => emit.test(MatchOp.CONNMARK, encodeConnmark(mark, mask, invert)),
});

export interface ConnmarkTargetData {
  mode: ConnmarkMode;
  ctmark: number;
  ctmask: number;
  nfmask: number;
  /** Bits by which the new mark is shifted, and which way. */
  shift: number;
  right: boolean;
}

const OPERATIONS = ['set-xmark', 'set-mark', 'and-mark', 'or-mark', 'xor-mark', 'save-mark', 'restore-mark'];
const set = (data: ConnmarkTargetData, ctmark: number, ctmask: number): void => {
  data.mode = ConnmarkMode.SET;
  data.ctmark = ctmark | 0;
  data.ctmask = ctmask | 0;
};
const shiftText = ({ shift, right }: ConnmarkTargetData): string =>
  shift === 0 ? '' : ` ${right ? 'right' : 'left'}-shift-mark ${shift}`;

/** ` save mask 0xff` and its like; `from` is the mask of the mark that is read. */
function copyText(word: string, from: [string, number], to: [string, number]): string {
  if (from[1] === -1 && to[1] === -1) return ` CONNMARK ${word}`;
  if (from[1] === to[1]) return ` CONNMARK ${word} mask ${hex(from[1])}`;
  return ` CONNMARK ${word} ${from[0]} ${hex(from[1])} ${to[0]} ~${hex(to[1])}`;
}

export const CONNMARK = defineTarget<ConnmarkTargetData>({
  name: 'CONNMARK',
  revision: 2,
  init: () => ({ mode: ConnmarkMode.SET, ctmark: 0, ctmask: -1, nfmask: -1, shift: 0, right: false }),
  options: [
    option({
      name: 'set-xmark',
      arg: markMask,
      excl: OPERATIONS,
      set: (data, { value, mask }) => {
        set(data, value, mask);
      },
    }),
    option({
      name: 'set-mark',
      arg: markMask,
      excl: OPERATIONS,
      set: (data, { value, mask }) => {
        set(data, value, value | mask);
      },
    }),
    option({
      name: 'and-mark',
      arg: uint32(),
      excl: OPERATIONS,
      set: (data, bits) => {
        set(data, 0, ~bits);
      },
    }),
    option({
      name: 'or-mark',
      arg: uint32(),
      excl: OPERATIONS,
      set: (data, bits) => {
        set(data, bits, bits);
      },
    }),
    option({
      name: 'xor-mark',
      arg: uint32(),
      excl: OPERATIONS,
      set: (data, bits) => {
        set(data, bits, 0);
      },
    }),
    option({
      name: 'save-mark',
      excl: OPERATIONS,
      set: (data) => {
        data.mode = ConnmarkMode.SAVE;
      },
    }),
    option({
      name: 'restore-mark',
      excl: OPERATIONS,
      set: (data) => {
        data.mode = ConnmarkMode.RESTORE;
      },
    }),
    option({
      name: 'left-shift-mark',
      arg: uint8(0, 32),
      set: (data, bits) => {
        data.shift = bits;
        data.right = false;
      },
    }),
    option({
      name: 'right-shift-mark',
      arg: uint8(0, 32),
      set: (data, bits) => {
        data.shift = bits;
        data.right = true;
      },
    }),
    option({
      name: 'ctmask',
      arg: uint32(),
      excl: ['mask'],
      set: (data, mask) => {
        data.ctmask = mask | 0;
      },
    }),
    option({
      name: 'nfmask',
      arg: uint32(),
      excl: ['mask'],
      set: (data, mask) => {
        data.nfmask = mask | 0;
      },
    }),
    option({
      name: 'mask',
      arg: uint32(),
      excl: ['ctmask', 'nfmask'],
      set: (data, mask) => {
        data.nfmask = data.ctmask = mask | 0;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (!OPERATIONS.some((name) => seen.has(name))) problem('CONNMARK target: No operation specified');
  },
  save: (data) => {
    const shift = shiftText(data).replace(' ', ' --');
    if (data.mode === ConnmarkMode.SET) return ` --set-xmark ${hex(data.ctmark)}/${hex(data.ctmask)}${shift}`;
    const word = data.mode === ConnmarkMode.SAVE ? 'save' : 'restore';
    return ` --${word}-mark --nfmask ${hex(data.nfmask)} --ctmask ${hex(data.ctmask)}${shift}`;
  },
  print: (data) => {
    const { mode, ctmark, ctmask, nfmask } = data;
    const shift = shiftText(data);
    if (mode === ConnmarkMode.SAVE) return copyText('save', ['nfmask', nfmask], ['ctmask', ctmask]) + shift;
    if (mode === ConnmarkMode.RESTORE) return copyText('restore', ['ctmask', ctmask], ['nfmask', nfmask]) + shift;
    if (ctmark === 0) return ` CONNMARK and ${hex(~ctmask)}${shift}`;
    if (ctmark === ctmask) return ` CONNMARK or ${hex(ctmark)}${shift}`;
    if (ctmask === 0) return ` CONNMARK xor ${hex(ctmark)}${shift}`;
    if (ctmask === -1) return ` CONNMARK set ${hex(ctmark)}${shift}`;
    return ` CONNMARK xset ${hex(ctmark)}/${hex(ctmask)}${shift}`;
  },
  help: `CONNMARK target options:
  --set-xmark value[/ctmask]    Zero mask bits and XOR ctmark with value
  --save-mark [--ctmask mask] [--nfmask mask]
                                Copy ctmark to nfmark using masks
  --restore-mark [--ctmask mask] [--nfmask mask]
                                Copy nfmark to ctmark using masks
  --set-mark value[/mask]       Set conntrack mark value
  --save-mark [--mask mask]     Save the packet nfmark in the connection
  --restore-mark [--mask mask]  Restore saved nfmark value
  --and-mark value              Binary AND the ctmark with bits
  --or-mark value               Binary OR  the ctmark with bits
  --xor-mark value              Binary XOR the ctmark with bits
  --left-shift-mark value       Left shift the ctmark with bits
  --right-shift-mark value      Right shift the ctmark with bits
`,
  check: ({ shift }) =>
    shift > 31 ? { errno: 'EINVAL', reason: `CONNMARK: a shift by ${shift} bits leaves nothing` } : undefined,
  cannot: ({ mode, ctmark }) => (mode === ConnmarkMode.SET ? privateBits(ctmark) : undefined),
  compile: ({ mode, ctmark, ctmask, nfmask, shift, right }, emit) =>
    emit.target(TargetOp.CONNMARK, encodeCONNMARK(mode, ctmark, ctmask, nfmask, shift, right)),
  late: ({ mode, ctmask, nfmask, shift, right }) =>
    mode === ConnmarkMode.RESTORE ? { marks: nfmask | (right ? ctmask >>> shift : ctmask << shift) } : {},
});
