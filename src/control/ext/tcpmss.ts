/** -m tcpmss: the maximum segment size that a SYN offers. (libxt_tcpmss.c, xt_tcpmss.c) */
import { Proto } from '../../dataplane/names.js';
import { encodeTcpmss } from '../../dataplane/program/tcpmss.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, uint16Range } from './args.js';
import { defineMatch, option } from './record.js';

export interface TcpmssData {
  min: number;
  max: number;
  invert: boolean;
}

const range = ({ min, max }: TcpmssData): string => (min === max ? `${min}` : `${min}:${max}`);

export const tcpmss = defineMatch<TcpmssData>({
  name: 'tcpmss',
  proto: Proto.TCP,
  init: () => ({ min: 0, max: 0, invert: false }),
  options: [
    option({
      name: 'mss',
      arg: uint16Range(),
      invert: true,
      mandatory: true,
      set: (data, values, { invert }) => {
        data.min = values[0]!;
        data.max = values[1] ?? data.min;
        if (data.max < data.min) problem('tcpmss: invalid range given');
        data.invert = invert;
      },
    }),
  ],
  save: (data) => `${bang(data.invert)} --mss ${range(data)}`,
  print: (data) => ` tcpmss match ${data.invert ? '!' : ''}${range(data)}`,
  help: `tcpmss match options:
[!] --mss value[:value]	Match TCP MSS range.
				(only valid for TCP SYN or SYN/ACK packets)
`,
  compile: ({ min, max, invert }, emit) => emit.test(MatchOp.TCPMSS, encodeTcpmss(min, max, invert)),
});
