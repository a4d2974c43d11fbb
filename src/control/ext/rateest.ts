/** -m rateest: rates that RATEEST measures. Reads its own options. (libxt_rateest.c, xt_rateest.c) */
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option, type Option, type OptionCall } from './record.js';

export interface RateestData {
  name1: string;
  /** '' = compare with fixed rates. */
  name2: string;
  delta: boolean;
  bps: boolean;
  pps: boolean;
  /** uint32: bytes and packets a second. */
  bps1: number;
  bps2: number;
  pps1: number;
  pps2: number;
  mode: 'none' | 'eq' | 'lt' | 'gt';
  invert: boolean;
}

const NAME_LENGTH = 15;

/** Suffixes of iproute2 in bits a second, in lower case. */
const SUFFIXES: Readonly<Record<string, number>> = {
  bit: 1,
  kibit: 2 ** 10,
  kbit: 1e3,
  mibit: 2 ** 20,
  mbit: 1e6,
  gibit: 2 ** 30,
  gbit: 1e9,
  tibit: 2 ** 40,
  tbit: 1e12,
  bps: 8,
  kibps: 8 * 2 ** 10,
  kbps: 8e3,
  mibps: 8 * 2 ** 20,
  mbps: 8e6,
  gibps: 8 * 2 ** 30,
  gbps: 8e9,
  tibps: 8 * 2 ** 40,
  tbps: 8e12,
};

/** Bytes a second; a bare number of the tool's counts bits. */
function parseRate(text: string): number {
  const found = /^[ \t-\r]*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(.*)$/i.exec(text);
  const scale = found && (found[2] === '' ? 1 : SUFFIXES[found[2]!.toLowerCase()]);
  if (!found || scale === undefined || scale === null) problem(`rateest: could not parse rate \`${text}'`);
  return Math.trunc((Number(found[1]) * scale) / 8) >>> 0;
}
const parsePackets = (text: string): number => wholeNumber(text) ?? problem(`rateest: could not parse pps \`${text}'`);

type Call = OptionCall<RateestData>;

const nameOption = (name: string, aliases: string[], key: 'name1' | 'name2'): Option<RateestData> =>
  option<RateestData, string>({
    name,
    aliases,
    arg: string(),
    invert: true,
    set: (data, text, { invert, seen }) => {
      if (invert) problem("rateest: rateest can't be inverted");
      if (seen.has(name)) problem(`rateest: can't specify --${name} twice`);
      data[key] = text.slice(0, NAME_LENGTH);
    },
  });

/** The rate behind it may be missing. */
const rateOption = (kind: 'bps' | 'pps', which: 1 | 2, aliases: string[]): Option<RateestData> =>
  option<RateestData>({
    name: `rateest-${kind}${which}`,
    aliases,
    invert: true,
    set: (data, _value, { invert, seen, nextWord }: Call) => {
      if (invert) problem(`rateest: rateest-${kind} can't be inverted`);
      if (seen.has(`rateest-${kind}${which}`)) problem(`rateest: can't specify --rateest-${kind}${which} twice`);
      data[kind] = true;
      const text = nextWord();
      if (text !== undefined) data[`${kind}${which}`] = kind === 'bps' ? parseRate(text) : parsePackets(text);
    },
  });

const modeOption = (mode: 'eq' | 'lt' | 'gt'): Option<RateestData> =>
  option<RateestData>({
    name: `rateest-${mode}`,
    invert: true,
    set: (data, _value, { invert, seen }) => {
      if (seen.has(`rateest-${mode}`)) problem("rateest: can't specify lt/gt/eq twice");
      data.mode = mode;
      if (invert) data.invert = true;
    },
  });

function rate(bytes: number, numeric: boolean): string {
  const bits = bytes * 8;
  if (numeric) return ` ${bytes}`;
  if (bits >= 1e9) return ` ${roundHalfEven(bits / 1e6)}Mbit`;
  return bits >= 1e6 ? ` ${roundHalfEven(bits / 1e3)}Kbit` : ` ${bits}bit`;
}
/** `%.0f` */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

const modeText = ({ mode, invert }: RateestData, dashes: string): string => `${bang(invert)} ${dashes}${mode}`;

function saveRate(data: RateestData, kind: 'bps' | 'pps'): string {
  const mode = modeText(data, '--rateest-');
  const [first, second] = kind === 'bps' ? [data.bps1, data.bps2] : [data.pps1, data.pps2];
  const numeric = kind === 'pps';
  const text = data.delta
    ? ` --rateest-${kind}1${rate(first, numeric)}${mode} --rateest-${kind}2`
    : `${mode} --rateest-${kind}`;
  return data.delta || data.name2 === '' ? text + rate(second, numeric) : text;
}

export const rateest = defineMatch<RateestData>({
  name: 'rateest',
  plain: true,
  init: () => ({
    name1: '',
    name2: '',
    delta: false,
    bps: false,
    pps: false,
    bps1: 0,
    bps2: 0,
    pps1: 0,
    pps2: 0,
    mode: 'none',
    invert: false,
  }),
  options: [
    nameOption('rateest1', ['rateest'], 'name1'),
    nameOption('rateest2', [], 'name2'),
    rateOption('bps', 1, []),
    rateOption('pps', 1, []),
    rateOption('bps', 2, ['rateest-bps']),
    rateOption('pps', 2, ['rateest-pps']),
    option({
      name: 'rateest-delta',
      invert: true,
      set: (data, _value, { invert, seen }) => {
        if (invert) problem("rateest: rateest-delta can't be inverted");
        if (seen.has('rateest-delta')) problem("rateest: can't specify --rateest-delta twice");
        data.delta = true;
      },
    }),
    modeOption('lt'),
    modeOption('gt'),
    modeOption('eq'),
  ],
  save: (data) =>
    (data.delta ? ' --rateest-delta' : '') +
    ` --rateest${data.name2 === '' ? '' : '1'} ${data.name1}` +
    (data.bps ? saveRate(data, 'bps') : '') +
    (data.pps ? saveRate(data, 'pps') : '') +
    (data.name2 === '' ? '' : ` --rateest2 ${data.name2}`),
  print: (data, { numeric }) => {
    const fixed = data.name2 === '';
    const mode = modeText(data, '');
    let text = ` rateest match ${data.name1}${data.delta ? ' delta' : ''}`;
    if (data.bps) {
      text += ` bps${data.delta ? rate(data.bps1, numeric) : ''}${fixed ? rate(data.bps2, numeric) + mode : ''}`;
    }
    if (data.pps) text += ` pps${data.delta ? ` ${data.pps1}` : ''}${fixed ? `${mode} ${data.pps2}` : ''}`;
    if (fixed) return text;
    text += `${mode} ${data.name2}`;
    if (data.bps) text += ` bps${data.delta ? rate(data.bps2, numeric) : ''}`;
    if (data.pps) text += ` pps${data.delta ? ` ${data.pps2}` : ''}`;
    return text;
  },
  help: `rateest match options:
 --rateest1 name		Rate estimator name
 --rateest2 name		Rate estimator name
 --rateest-delta		Compare difference(s) to given rate(s)
 --rateest-bps1 [bps]		Compare bps
 --rateest-pps1 [pps]		Compare pps
 --rateest-bps2 [bps]		Compare bps
 --rateest-pps2 [pps]		Compare pps
 [!] --rateest-lt		Match if rate is less than given rate/estimator
 [!] --rateest-gt		Match if rate is greater than given rate/estimator
 [!] --rateest-eq		Match if rate is equal to given rate/estimator
`,
  check: ({ mode, bps, pps }) => {
    if (mode === 'none' || (!bps && !pps))
      return { errno: 'EINVAL', reason: 'rateest: what to compare, and how, is not said' };
    return undefined;
  },
  cannot: () => 'the rates that -j RATEEST measures are not kept',
});
