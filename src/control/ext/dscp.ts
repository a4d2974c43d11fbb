/** -m dscp and -j DSCP: the upper six bits of the type-of-service byte. (libxt_dscp.c, libxt_DSCP.c; RFC 2474) */
import { encodeDSCP, encodeDscp } from '../../dataplane/program/tos.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { hex2 } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string, uint8 } from './args.js';
import { defineMatch, defineTarget, option } from './record.js';

export interface DscpData {
  dscp: number;
  invert: boolean;
}

const MAX_DSCP = 0x3f;

/** IANA's names of code points. */
const CLASSES: readonly (readonly [string, number])[] = [
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((n) => [`CS${n}`, n << 3] as const),
  ['BE', 0],
  ...[1, 2, 3, 4].flatMap((n) => [1, 2, 3].map((drop) => [`AF${n}${drop}`, (n << 3) | (drop << 1)] as const)),
  ['EF', 0x2e],
];

/** Code point of a class; the tool looks at the beginning of the word only. */
export const dscpOfClass = (text: string): number =>
  CLASSES.find(([name]) => text.toUpperCase().startsWith(name))?.[1] ?? problem(`Invalid DSCP value \`${text}'`);

export const dscp = defineMatch<DscpData>({
  name: 'dscp',
  init: () => ({ dscp: 0, invert: false }),
  options: [
    option({
      name: 'dscp',
      arg: uint8(0, MAX_DSCP),
      invert: true,
      excl: ['dscp-class'],
      set: (data, value, { invert }) => {
        data.dscp = value;
        data.invert = invert;
      },
    }),
    option({
      name: 'dscp-class',
      arg: string(),
      invert: true,
      excl: ['dscp'],
      set: (data, name, { invert }) => {
        data.dscp = dscpOfClass(name);
        data.invert = invert;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('DSCP match: Parameter --dscp is required');
  },
  save: ({ dscp, invert }) => `${bang(invert)} --dscp ${hex2(dscp)}`,
  print: ({ dscp, invert }) => ` DSCP match ${invert ? '!' : ''}${hex2(dscp)}`,
  help: `dscp match options
[!] --dscp value		Match DSCP codepoint with numerical value
  		                This value can be in decimal (ex: 32)
               		or in hex (ex: 0x20)
[!] --dscp-class name		Match the DiffServ class. This value may
				be any of the BE,EF, AFxx or CSx classes

				These two options are mutually exclusive !
`,
  compile: ({ dscp, invert }, emit) => emit.test(MatchOp.TOS, encodeDscp(dscp), invert),
});

export interface DscpTargetData {
  dscp: number;
}

export const DSCP = defineTarget<DscpTargetData>({
  name: 'DSCP',
  tables: ['mangle'],
  init: () => ({ dscp: 0 }),
  options: [
    option({
      name: 'set-dscp',
      arg: uint8(0, MAX_DSCP),
      excl: ['set-dscp-class'],
      set: (data, value) => {
        data.dscp = value;
      },
    }),
    option({
      name: 'set-dscp-class',
      arg: string(),
      excl: ['set-dscp'],
      set: (data, name) => {
        data.dscp = dscpOfClass(name);
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('DSCP target: Parameter --set-dscp is required');
  },
  save: ({ dscp }) => ` --set-dscp ${hex2(dscp)}`,
  print: ({ dscp }) => ` DSCP set ${hex2(dscp)}`,
  help: `DSCP target options
  --set-dscp value		Set DSCP field in packet header to value
  		                This value can be in decimal (ex: 32)
               		or in hex (ex: 0x20)
  --set-dscp-class class	Set the DSCP field in packet header to the
				value represented by the DiffServ class value.
				This class may be EF,BE or any of the CSxx
				or AFxx classes.

				These two options are mutually exclusive !
`,
  compile: ({ dscp }, emit) => emit.target(TargetOp.TOS, encodeDSCP(dscp)),
  late: () => ({ tos: true }),
});
