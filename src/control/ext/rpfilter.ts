/** -m rpfilter: whether the way back to the source is the way it came. (libxt_rpfilter.c, ipt_rpfilter.c) */
import { defineMatch, option } from './record.js';

/** XT_RPFILTER_* */
export const enum RpfilterFlag {
  LOOSE = 1 << 0,
  VALID_MARK = 1 << 1,
  ACCEPT_LOCAL = 1 << 2,
  INVERT = 1 << 3,
}

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
});
