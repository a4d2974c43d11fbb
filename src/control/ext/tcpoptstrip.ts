/** -j TCPOPTSTRIP: TCP options become no-operations. (libxt_TCPOPTSTRIP.c, xt_TCPOPTSTRIP.c) */
import { Proto } from '../../dataplane/names.js';
import { encodeTCPOPTSTRIP } from '../../dataplane/program/tcpoptstrip.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineTarget, option } from './record.js';

export interface TcpoptstripData {
  /** Kinds of options, ascending. */
  kinds: number[];
}

const KINDS: ReadonlyMap<string, number> = new Map([
  ['wscale', 3],
  ['mss', 2],
  ['sack-permitted', 4],
  ['sack', 5],
  ['timestamp', 8],
  ['md5', 19],
]);
const kindName = (kind: number): string => [...KINDS].find(([, each]) => each === kind)?.[0] ?? String(kind);

export const TCPOPTSTRIP = defineTarget<TcpoptstripData>({
  name: 'TCPOPTSTRIP',
  tables: ['mangle'],
  proto: Proto.TCP,
  init: () => ({ kinds: [] }),
  options: [
    option({
      name: 'strip-options',
      arg: string(),
      set: (data, text) => {
        const kinds = new Set<number>();
        for (const word of text.split(',')) {
          const kind = KINDS.get(word) ?? wholeNumber(word, 0, 0xff) ?? problem(`Bad TCP option value "${word}"`);
          if (kind < 2) problem('Option value may not be 0 or 1');
          kinds.add(kind);
        }
        data.kinds = [...kinds].sort((a, b) => a - b);
      },
    }),
  ],
  save: ({ kinds }) => (kinds.length === 0 ? '' : ` --strip-options ${kinds.join(',')}`),
  print: ({ kinds }, { numeric }) =>
    kinds.length === 0 ? '' : ` TCPOPTSTRIP options ${(numeric ? kinds : kinds.map(kindName)).join(',')}`,
  help: `TCPOPTSTRIP target options:
  --strip-options value     strip specified TCP options denoted by value
                            (separated by comma) from TCP header
  Instead of the numeric value, you can also use the following names:
    wscale            strip "Window scale" option
    mss               strip "Maximum Segment Size" option
    sack-permitted    strip "SACK permitted" option
    sack              strip "Selective ACK" option
    timestamp         strip "Timestamp" option
    md5               strip "MD5 signature" option
`,
  compile: ({ kinds }, emit) => emit.target(TargetOp.TCPOPTSTRIP, encodeTCPOPTSTRIP(kinds)),
});
