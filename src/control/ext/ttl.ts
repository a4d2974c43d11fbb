/** -m ttl: time to live. (libipt_ttl.c, xt_hl.c) */
import { encodeTtl, TtlMode } from '../../dataplane/program/ttl.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { uint8 } from './args.js';
import { defineMatch, option } from './record.js';

export interface TtlData {
  mode: TtlMode;
  ttl: number;
}

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
      set: (data, value) => {
        data.mode = TtlMode.LESS;
        data.ttl = value;
      },
    }),
    option({
      name: 'ttl-gt',
      arg: uint8(),
      excl: ANY,
      set: (data, value) => {
        data.mode = TtlMode.GREATER;
        data.ttl = value;
      },
    }),
    option({
      name: 'ttl-eq',
      aliases: ['ttl'],
      arg: uint8(),
      invert: true,
      excl: ANY,
      set: (data, value, { invert }) => {
        data.mode = invert ? TtlMode.NOT_EQUAL : TtlMode.EQUAL;
        data.ttl = value;
      },
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
