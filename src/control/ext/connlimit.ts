/** -m connlimit: how many connections a host or network has. (libxt_connlimit.c revision 1, xt_connlimit.c) */
import { connlimitWords, encodeConnlimit, initConnlimit } from '../../dataplane/program/connlimit.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { prefixLengthMask, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

export interface ConnlimitData {
  limit: number;
  /** Matches at or below the limit (`--connlimit-upto`), else above. */
  upto: boolean;
  /** Group by destination, else by source. */
  daddr: boolean;
  mask: number;
}

/** Bits from the left down to the last one of the mask. */
const bits = (mask: number): number => Math.clz32(~mask);

export const connlimit = defineMatch<ConnlimitData>({
  name: 'connlimit',
  revision: 1,
  init: () => ({ limit: 0, upto: false, daddr: false, mask: -1 }),
  options: [
    option({
      name: 'connlimit-upto',
      arg: uint32(),
      invert: true,
      excl: ['connlimit-above'],
      set: (data, limit, { invert }) => {
        data.limit = limit;
        if (!invert) data.upto = true;
      },
    }),
    option({
      name: 'connlimit-above',
      arg: uint32(),
      invert: true,
      excl: ['connlimit-upto'],
      set: (data, limit, { invert }) => {
        data.limit = limit;
        if (invert) data.upto = true;
      },
    }),
    option({
      name: 'connlimit-mask',
      arg: prefixLengthMask,
      set: (data, mask) => {
        data.mask = mask;
      },
    }),
    option({
      name: 'connlimit-saddr',
      excl: ['connlimit-daddr'],
      set: (data) => {
        data.daddr = false;
      },
    }),
    option({
      name: 'connlimit-daddr',
      excl: ['connlimit-saddr'],
      set: (data) => {
        data.daddr = true;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (!seen.has('connlimit-upto') && !seen.has('connlimit-above'))
      problem('You must specify "--connlimit-above" or "--connlimit-upto".');
  },
  save: ({ limit, upto, daddr, mask }) =>
    ` --connlimit-${upto ? 'upto' : 'above'} ${limit} --connlimit-mask ${bits(mask)}` +
    ` --connlimit-${daddr ? 'daddr' : 'saddr'}`,
  print: ({ limit, upto, daddr, mask }) =>
    ` #conn ${daddr ? 'dst' : 'src'}/${bits(mask)} ${upto ? '<=' : '>'} ${limit}`,
  help: `connlimit match options:
  --connlimit-upto n     match if the number of existing connections is 0..n
  --connlimit-above n    match if the number of existing connections is >n
  --connlimit-mask n     group hosts using prefix length (default: max len)
  --connlimit-saddr      select source address for grouping
  --connlimit-daddr      select destination addresses for grouping
`,
  compile: ({ limit, upto, daddr, mask }, emit, { region, own }) => {
    const counts = region(own('connlimit'), connlimitWords(), initConnlimit);
    emit.test(MatchOp.CONNLIMIT, encodeConnlimit(counts, { limit, upto, destination: daddr, mask }));
  },
});
