/** -m length: the IP total length. (libxt_length.c, xt_length.c) */
import { encodeLength } from '../../dataplane/program/length.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { bang, uint16Range } from './args.js';
import { defineMatch, option } from './record.js';

export interface LengthData {
  min: number;
  max: number;
  invert: boolean;
}

const range = ({ min, max }: LengthData): string => (min === max ? `${min}` : `${min}:${max}`);

export const length = defineMatch<LengthData>({
  name: 'length',
  init: () => ({ min: 0, max: 0, invert: false }),
  options: [
    option({
      name: 'length',
      arg: uint16Range(),
      invert: true,
      mandatory: true,
      set: (data, values, { invert }) => {
        data.min = values[0]!;
        data.max = values[1] ?? data.min;
        data.invert = invert;
      },
    }),
  ],
  save: (data) => `${bang(data.invert)} --length ${range(data)}`,
  print: (data) => ` length ${data.invert ? '!' : ''}${range(data)}`,
  help: `length match options:
[!] --length length[:length]    Match packet length against value or range
                                of values (inclusive)
`,
  compile: ({ min, max, invert }, emit) => emit.test(MatchOp.LENGTH, encodeLength(min, max), invert),
});
