/**
 * -m tos and -j TOS: the type-of-service byte under a mask, and tos = (tos & ~mask) ^ value. (libxt_tos.c and libxt_TOS.c
 * revision 1, xt_dscp.c, xt_DSCP.c)
 */
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { encodeTOS, encodeTos } from '../../dataplane/program/tos.js';
import { hex2 } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, TOS_NAMES, tosMask, uint8 } from './args.js';
import { defineMatch, defineTarget, option } from './record.js';

export interface TosData {
  value: number;
  mask: number;
  invert: boolean;
}

export interface TosTargetData {
  value: number;
  mask: number;
}

const ANY = ['set-tos', 'and-tos', 'or-tos', 'xor-tos'];
/** A name sets the bits below precedence. */
const NAME_MASK = 0x3f;

/** Name of a value under the mask that names have. */
export const tosName = (value: number, mask: number): string | undefined =>
  mask === NAME_MASK ? TOS_NAMES.find(([known]) => known === value)?.[1] : undefined;

export const tos = defineMatch<TosData>({
  name: 'tos',
  revision: 1,
  init: () => ({ value: 0, mask: 0, invert: false }),
  options: [
    option({
      name: 'tos',
      arg: tosMask(NAME_MASK),
      invert: true,
      mandatory: true,
      set: (data, { value, mask }, { invert }) => {
        data.value = value;
        data.mask = mask;
        data.invert = invert;
      },
    }),
  ],
  save: ({ value, mask, invert }) => `${bang(invert)} --tos ${hex2(value)}/${hex2(mask)}`,
  // The tool forgets the blank before a number.
  print: ({ value, mask, invert }, { numeric }) => {
    const name = numeric ? undefined : tosName(value, mask);
    return ` tos match${invert ? '!' : ''}${name === undefined ? `${hex2(value)}/${hex2(mask)}` : ` ${name}`}`;
  },
  help: `tos match options:
[!] --tos value[/mask]    Match Type of Service/Priority field value
[!] --tos symbol          Match TOS field (IPv4 only) by symbol
                          Accepted symbolic names for value are:
                          (0x10) 16 Minimize-Delay
                          (0x08)  8 Maximize-Throughput
                          (0x04)  4 Maximize-Reliability
                          (0x02)  2 Minimize-Cost
                          (0x00)  0 Normal-Service

`,
  compile: ({ value, mask, invert }, emit) => emit.test(MatchOp.TOS, encodeTos(value, mask), invert),
});

export const TOS = defineTarget<TosTargetData>({
  name: 'TOS',
  revision: 1,
  tables: ['mangle'],
  init: () => ({ value: 0, mask: 0 }),
  options: [
    option({
      name: 'set-tos',
      arg: tosMask(NAME_MASK),
      excl: ANY,
      set: (data, { value, mask }) => {
        data.value = value;
        data.mask = mask;
      },
    }),
    option({
      name: 'and-tos',
      arg: uint8(),
      excl: ANY,
      set: (data, bits) => {
        data.value = 0;
        data.mask = ~bits & 0xff;
      },
    }),
    option({
      name: 'or-tos',
      arg: uint8(),
      excl: ANY,
      set: (data, bits) => {
        data.value = data.mask = bits;
      },
    }),
    option({
      name: 'xor-tos',
      arg: uint8(),
      excl: ANY,
      set: (data, bits) => {
        data.value = bits;
        data.mask = 0;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('TOS: An action is required');
  },
  save: ({ value, mask }) => ` --set-tos ${hex2(value)}/${hex2(mask)}`,
  print: ({ value, mask }, { numeric }) => {
    const set = ` TOS set ${hex2(value)}/${hex2(mask)}`;
    if (numeric) return set;
    const name = tosName(value, mask);
    // The tool forgets the blank between its words and the name.
    if (name !== undefined) return `  TOS set${name}`;
    if (value === 0) return ` TOS and ${hex2(~mask)}`;
    if (value === mask) return ` TOS or ${hex2(value)}`;
    return mask === 0 ? ` TOS xor ${hex2(value)}` : set;
  },
  help: `TOS target vlibxtables.so.12 options:
  --set-tos value[/mask]  Set Type of Service/Priority field to value
                          (Zero out bits in mask and XOR value into TOS)
  --set-tos symbol        Set TOS field (IPv4 only) by symbol
                          (this zeroes the 4-bit Precedence part!)
                          Accepted symbolic names for value are:
                            (0x10) 16 Minimize-Delay
                            (0x08)  8 Maximize-Throughput
                            (0x04)  4 Maximize-Reliability
                            (0x02)  2 Minimize-Cost
                            (0x00)  0 Normal-Service

  --and-tos bits          Binary AND the TOS value with bits
  --or-tos  bits          Binary OR the TOS value with bits
  --xor-tos bits          Binary XOR the TOS value with bits
`,
  compile: ({ value, mask }, emit) => emit.target(TargetOp.TOS, encodeTOS(value, mask)),
  late: () => ({ tos: true }),
});
