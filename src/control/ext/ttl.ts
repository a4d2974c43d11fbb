/** -m ttl and -j TTL: time to live. (libipt_ttl.c, libipt_TTL.c; xt_hl.c, xt_HL.c) */
import { encodeTTL, encodeTtl, TtlChange, TtlMode } from '../../dataplane/program/ttl.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { uint8 } from './args.js';
import { defineMatch, defineTarget, option } from './record.js';

export interface TtlData {
  mode: TtlMode;
  ttl: number;
}

/** Sets both fields of an option's data. */
const as =
  <Mode>(mode: Mode) =>
  (data: { mode: Mode; ttl: number }, value: number): void => {
    data.mode = mode;
    data.ttl = value;
  };

const ANY = ['ttl-eq', 'ttl-lt', 'ttl-gt'];
const SAVED: Record<TtlMode, string> = {
  [TtlMode.EQUAL]: ' --ttl-eq',
  [TtlMode.NOT_EQUAL]: ' ! --ttl-eq',
  [TtlMode.LESS]: ' --ttl-lt',
  [TtlMode.GREATER]: ' --ttl-gt',
};
const PRINTED: Record<TtlMode, string> = {
  [TtlMode.EQUAL]: '==',
  [TtlMode.NOT_EQUAL]: '!=',
  [TtlMode.LESS]: '<',
  [TtlMode.GREATER]: '>',
};

export const ttl = defineMatch<TtlData>({
  name: 'ttl',
  init: () => ({ mode: TtlMode.EQUAL, ttl: 0 }),
  options: [
    option({
      name: 'ttl-lt',
      arg: uint8(),
      excl: ANY,
      set: as(TtlMode.LESS),
    }),
    option({
      name: 'ttl-gt',
      arg: uint8(),
      excl: ANY,
      set: as(TtlMode.GREATER),
    }),
    option({
      name: 'ttl-eq',
      aliases: ['ttl'],
      arg: uint8(),
      invert: true,
      excl: ANY,
      set: (data, value, { invert }) => as(invert ? TtlMode.NOT_EQUAL : TtlMode.EQUAL)(data, value),
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem("TTL match: You must specify one of `--ttl-eq', `--ttl-lt', `--ttl-gt");
  },
  save: ({ mode, ttl }) => `${SAVED[mode]} ${ttl}`,
  print: ({ mode, ttl }) => ` TTL match TTL ${PRINTED[mode]} ${ttl}`,
  help: `ttl match options:
[!] --ttl-eq value	Match time to live value
  --ttl-lt value	Match TTL < value
  --ttl-gt value	Match TTL > value
`,
  compile: ({ mode, ttl }, emit) => emit.test(MatchOp.TTL, encodeTtl(mode, ttl)),
});

export interface TtlTargetData {
  mode: TtlChange;
  ttl: number;
}

const CHANGES = ['ttl-set', 'ttl-dec', 'ttl-inc'];
const CHANGED: Record<TtlChange, readonly [string, string]> = {
  [TtlChange.SET]: ['set', 'set to'],
  [TtlChange.DECREASE]: ['dec', 'decrement by'],
  [TtlChange.INCREASE]: ['inc', 'increment by'],
};

export const TTL = defineTarget<TtlTargetData>({
  name: 'TTL',
  tables: ['mangle'],
  init: () => ({ mode: TtlChange.SET, ttl: 0 }),
  options: [
    option({
      name: 'ttl-set',
      arg: uint8(),
      excl: CHANGES,
      set: as(TtlChange.SET),
    }),
    option({
      name: 'ttl-dec',
      arg: uint8(1),
      excl: CHANGES,
      set: as(TtlChange.DECREASE),
    }),
    option({
      name: 'ttl-inc',
      arg: uint8(1),
      excl: CHANGES,
      set: as(TtlChange.INCREASE),
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('TTL: You must specify an action');
  },
  save: ({ mode, ttl }) => ` --ttl-${CHANGED[mode][0]} ${ttl}`,
  print: ({ mode, ttl }) => ` TTL ${CHANGED[mode][1]} ${ttl}`,
  help: `TTL target options
  --ttl-set value		Set TTL to <value 0-255>
  --ttl-dec value		Decrement TTL by <value 1-255>
  --ttl-inc value		Increment TTL by <value 1-255>
`,
  compile: ({ mode, ttl }, emit) => emit.target(TargetOp.TTL, encodeTTL(mode, ttl)),
  late: ({ mode, ttl }) => ({
    ttl: mode === TtlChange.SET ? { set: ttl } : mode === TtlChange.INCREASE ? { up: ttl } : { down: ttl },
  }),
});
