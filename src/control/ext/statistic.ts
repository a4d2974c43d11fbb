/** -m statistic: every nth packet, or a share of them by chance. (libxt_statistic.c, xt_statistic.c) */
import {
  encodeStatisticNth,
  encodeStatisticRandom,
  initStatistic,
  STATISTIC_STATE_WORDS,
} from '../../dataplane/program/statistic.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, double, string, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

export interface StatisticData {
  mode: 'random' | 'nth';
  invert: boolean;
  /** In 2^-31. */
  probability: number;
  /** n, and which of the first n matches; uint32. */
  every: number;
  packet: number;
}

/** The scale of probabilities in the kernel. */
const ONE = 2 ** 31;

/** `%.11f` of a probability, which rounds halves to even. */
function decimal(probability: number): string {
  const scaled = BigInt(probability) * 10n ** 11n;
  const one = BigInt(ONE);
  let digits = scaled / one;
  const rest = (scaled % one) * 2n;
  if (rest > one || (rest === one && digits % 2n === 1n)) digits++;
  const text = digits.toString().padStart(12, '0');
  return `${text.slice(0, -11)}.${text.slice(-11)}`;
}

/** Both forms are one text; a listed one leaves packet 0 out. */
function text({ mode, invert, probability, every, packet }: StatisticData, dashes: string): string {
  if (mode === 'random') return ` ${dashes}mode random${bang(invert)} ${dashes}probability ${decimal(probability)}`;
  return (
    ` ${dashes}mode nth${bang(invert)} ${dashes}every ${every}` +
    (packet !== 0 || dashes !== '' ? ` ${dashes}packet ${packet}` : '')
  );
}

export const statistic = defineMatch<StatisticData>({
  name: 'statistic',
  init: () => ({ mode: 'random', invert: false, probability: 0, every: 0, packet: 0 }),
  options: [
    option({
      name: 'mode',
      arg: string(),
      mandatory: true,
      set: (data, mode) => {
        if (mode !== 'random' && mode !== 'nth') problem(`Bad mode "${mode}"`);
        data.mode = mode;
      },
    }),
    option({
      name: 'probability',
      arg: double(0, 1),
      invert: true,
      excl: ['every', 'packet'],
      set: (data, share, { invert }) => {
        data.probability = Math.round(ONE * share);
        if (invert) data.invert = true;
      },
    }),
    option({
      name: 'every',
      arg: uint32(1),
      invert: true,
      excl: ['probability'],
      also: ['packet'],
      set: (data, every, { invert }) => {
        data.every = every;
        if (invert) data.invert = true;
      },
    }),
    option({
      name: 'packet',
      arg: uint32(),
      excl: ['probability'],
      also: ['every'],
      set: (data, packet) => {
        data.packet = packet;
      },
    }),
  ],
  finalCheck: (data, seen) => {
    if (data.mode === 'random' && !seen.has('probability'))
      problem('--probability must be specified when using random mode');
    if (data.mode === 'nth' && !seen.has('every') && !seen.has('packet'))
      problem('--every and --packet must be specified when using nth mode');
    if (data.packet > Math.max(data.every - 1, 0)) problem('the --packet p must be 0 <= p <= n-1');
  },
  save: (data) => text(data, '--'),
  print: (data) => ` statistic${text(data, '')}`,
  help: `statistic match options:
 --mode mode                    Match mode (random, nth)
 random mode:
[!] --probability p		 Probability
 nth mode:
[!] --every n			 Match every nth packet
 --packet p			 Initial counter value (0 <= p <= n-1, default 0)
`,
  compile: ({ mode, invert, probability, every, packet }, emit, { slot }) => {
    if (mode === 'random') {
      emit.test(MatchOp.STATISTIC, encodeStatisticRandom(probability, invert));
      return;
    }
    const state = slot(STATISTIC_STATE_WORDS, (region, offset) => initStatistic(region, offset, every, packet));
    emit.test(MatchOp.STATISTIC, encodeStatisticNth(every, invert, state.region, state.offset));
  },
});
