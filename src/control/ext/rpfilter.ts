/** -m rpfilter: whether the way back to the source is the way it came. (libxt_rpfilter.c, ipt_rpfilter.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeRpfilter, RpfilterFlag } from '../../dataplane/program/rpfilter.js';
import { defineMatch, option } from './record.js';

export interface RpfilterData {
  /** RpfilterFlag bits. */
  flags: number;
}

const FLAGS: readonly (readonly [string, RpfilterFlag])[] = [
  ['loose', RpfilterFlag.LOOSE],
  ['validmark', RpfilterFlag.VALID_MARK],
  ['accept-local', RpfilterFlag.ACCEPT_LOCAL],
  ['invert', RpfilterFlag.INVERT],
];

const text = (flags: number, dashes: string): string =>
  FLAGS.filter(([, bit]) => flags & bit)
    .map(([name]) => ` ${dashes}${name}`)
    .join('');

export const rpfilter = defineMatch<RpfilterData>({
  name: 'rpfilter',
  tables: ['raw', 'mangle'],
  hooks: ['PREROUTING'],
  init: () => ({ flags: 0 }),
  options: FLAGS.map(([name, bit]) =>
    option<RpfilterData>({
      name,
      set: (data) => {
        data.flags |= bit;
      },
    }),
  ),
  save: ({ flags }) => text(flags, '--'),
  print: ({ flags }) => ` rpfilter${text(flags, '')}`,
  help: `rpfilter match options:
    --loose          permit reverse path via any interface
    --validmark      use skb nfmark when performing route lookup
    --accept-local   do not reject packets with a local source address
    --invert         match packets that failed the reverse path test
`,
  compile: ({ flags }, emit) => emit.test(MatchOp.RPFILTER, encodeRpfilter(flags)),
});
