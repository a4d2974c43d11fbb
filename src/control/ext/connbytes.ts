/** -m connbytes: how much a connection has carried so far. (libxt_connbytes.c, xt_connbytes.c) */
import { ConnbytesDirection, ConnbytesWhat, encodeConnbytes } from '../../dataplane/program/connbytes.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { string, uint64Range } from './args.js';
import { defineMatch, option } from './record.js';

const DIRECTIONS = ['original', 'reply', 'both'] as const;
const MODES = ['packets', 'bytes', 'avgpkt'] as const;

export interface ConnbytesData {
  /** `from` above `to` is the negation of the range between them. */
  from: bigint;
  to: bigint;
  direction: (typeof DIRECTIONS)[number];
  mode: (typeof MODES)[number];
}

const WHAT: Readonly<Record<ConnbytesData['mode'], ConnbytesWhat>> = {
  packets: ConnbytesWhat.PACKETS,
  bytes: ConnbytesWhat.BYTES,
  avgpkt: ConnbytesWhat.AVERAGE,
};
const DIRECTION: Readonly<Record<ConnbytesData['direction'], ConnbytesDirection>> = {
  original: ConnbytesDirection.ORIGINAL,
  reply: ConnbytesDirection.REPLY,
  both: ConnbytesDirection.BOTH,
};
const MAX = 0xffff_ffff_ffff_ffffn;

function range({ from, to }: ConnbytesData, dashes: string): string {
  const [low, high] = from > to ? [to, from] : [from, to];
  return `${from > to ? ' !' : ''} ${dashes}connbytes ${low}${high !== 0n && high < MAX ? `:${high}` : ''}`;
}

export const connbytes = defineMatch<ConnbytesData>({
  name: 'connbytes',
  init: () => ({ from: 0n, to: 0n, direction: 'original', mode: 'packets' }),
  options: [
    option({
      name: 'connbytes',
      arg: uint64Range(),
      invert: true,
      mandatory: true,
      set: (data, values, { invert }) => {
        const [from, to = MAX] = values as [bigint, bigint?];
        if (to < from) problem(`${from} should be less than ${to}`);
        data.from = invert ? to : from;
        data.to = invert ? from : to;
      },
    }),
    option({
      name: 'connbytes-dir',
      arg: string(),
      mandatory: true,
      set: (data, text) => {
        data.direction = DIRECTIONS.find((name) => name === text) ?? problem(`Unknown --connbytes-dir \`${text}'`);
      },
    }),
    option({
      name: 'connbytes-mode',
      arg: string(),
      mandatory: true,
      set: (data, text) => {
        data.mode = MODES.find((name) => name === text) ?? problem(`Unknown --connbytes-mode \`${text}'`);
      },
    }),
  ],
  save: (data) => `${range(data, '--')} --connbytes-mode ${data.mode} --connbytes-dir ${data.direction}`,
  print: (data) => `${range(data, '')} connbytes mode ${data.mode} connbytes direction ${data.direction}`,
  help: `connbytes match options:
 [!] --connbytes from:[to]
     --connbytes-dir [original, reply, both]
     --connbytes-mode [packets, bytes, avgpkt]
`,
  compile: ({ from, to, direction, mode }, emit) => {
    const [min, max] = from > to ? [to, from] : [from, to];
    emit.test(MatchOp.CONNBYTES, encodeConnbytes(WHAT[mode], DIRECTION[direction], from > to, min, max));
  },
});
