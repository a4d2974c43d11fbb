/**
 * -m rateest and -j RATEEST: rates that the target measures and the match, which reads its own options, compares.
 * (libxt_rateest.c, libxt_RATEEST.c, xt_rateest.c, xt_RATEEST.c)
 */
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import {
  encodeRateest,
  encodeRATEEST,
  initRateest,
  RATEEST_WORDS,
  RateestFlag,
  RateestMode,
  setRateest,
} from '../../dataplane/program/rateest.js';
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, defineTarget, option, type Option, type OptionCall } from './record.js';

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

/** Rules that name an estimator share its region. */
const estimatorKey = (name: string): string => `rateest/${name}`;
const MODES = { none: RateestMode.EQ, eq: RateestMode.EQ, lt: RateestMode.LT, gt: RateestMode.GT } as const;

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

/** A decimal number and a unit in lower case, without which it counts as 1. */
function scaled(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const found = /^[ \t-\r]*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(.*)$/i.exec(text);
  if (!found) return undefined;
  const unit = found[2]!.toLowerCase();
  if (unit === '') return Number(found[1]);
  return Object.hasOwn(units, unit) ? Number(found[1]) * units[unit]! : undefined;
}

/** Bytes a second; a bare number of the tool's counts bits. */
function parseRate(text: string): number {
  const bits = scaled(text, SUFFIXES) ?? problem(`rateest: could not parse rate \`${text}'`);
  return Math.trunc(bits / 8) >>> 0;
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
  compile: (data, emit, { region }) => {
    const estimator = (name: string): number => region(estimatorKey(name), RATEEST_WORDS, initRateest);
    const flags =
      (data.delta ? RateestFlag.DELTA : 0) | (data.bps ? RateestFlag.BPS : 0) | (data.pps ? RateestFlag.PPS : 0);
    const { bps1, pps1, bps2, pps2 } = data;
    const mode = MODES[data.mode];
    const first = estimator(data.name1);
    const second = data.name2 === '' ? -1 : estimator(data.name2);
    emit.test(MatchOp.RATEEST, encodeRateest({ first, second, mode, flags, bps1, pps1, bps2, pps2 }), data.invert);
  },
});

export interface RateestTargetData {
  name: string;
  /** Measured every 2^interval seconds, −2…3. Until the last option is read: microseconds, as given. */
  interval: number;
  /** Averaged over 2^ewmaLog intervals. Until the last option is read: microseconds, as given. */
  ewmaLog: number;
}

const SECOND_US = 1e6;
const TIME_UNITS: Readonly<Record<string, number>> = {
  s: SECOND_US,
  sec: SECOND_US,
  secs: SECOND_US,
  ms: 1e3,
  msec: 1e3,
  msecs: 1e3,
  us: 1,
  usec: 1,
  usecs: 1,
};
const SHORTEST = -2;
const LONGEST = 3;
const MAX_LOG = 29;

/** Microseconds, uint32. */
const parseTime = (text: string, what: string): number =>
  Math.trunc(scaled(text, TIME_UNITS) ?? problem(`RATEEST: bad ${what} value "${text}"`)) >>> 0;

/** The smallest interval that is not below what was asked for, and the largest average that is not above it. */
function settle(data: RateestTargetData): void {
  const { interval: intervalUs, ewmaLog: averageUs } = data;
  data.interval = SHORTEST;
  while (intervalUs > 2 ** data.interval * SECOND_US)
    if (++data.interval > LONGEST) problem('RATEEST: interval value is too large');
  data.ewmaLog = 0;
  while (data.ewmaLog <= MAX_LOG && intervalUs / -Math.log(1 - 2 ** -(data.ewmaLog + 1)) <= averageUs) data.ewmaLog++;
  if (data.ewmaLog === 0 || data.ewmaLog > MAX_LOG) problem('RATEEST: ewmalog value is out of range');
}

function timeText(us: number): string {
  if (us >= SECOND_US) return ` ${(us / SECOND_US).toFixed(1)}s`;
  return us >= 1e3 ? ` ${(us / 1e3).toFixed(1)}ms` : ` ${us}us`;
}

function estimatorText({ name, interval, ewmaLog }: RateestTargetData, dashes: string): string {
  const us = 2 ** interval * SECOND_US;
  const average = (us * 2 ** ewmaLog) % 2 ** 32;
  return ` ${dashes}name ${name} ${dashes}interval${timeText(us)} ${dashes}ewmalog${timeText(average)}`;
}

export const RATEEST = defineTarget<RateestTargetData>({
  name: 'RATEEST',
  init: () => ({ name: '', interval: 0, ewmaLog: 0 }),
  options: [
    option({
      name: 'rateest-name',
      arg: string({ size: NAME_LENGTH + 1 }),
      mandatory: true,
      set: (data, name) => {
        data.name = name;
      },
    }),
    option({
      name: 'rateest-interval',
      arg: string(),
      mandatory: true,
      set: (data, text) => {
        data.interval = parseTime(text, 'interval');
      },
    }),
    option({
      name: 'rateest-ewmalog',
      arg: string(),
      mandatory: true,
      set: (data, text) => {
        data.ewmaLog = parseTime(text, 'ewmalog');
      },
    }),
  ],
  finalCheck: settle,
  save: (data) => estimatorText(data, '--rateest-'),
  print: (data) => estimatorText(data, ''),
  help: `RATEEST target options:
  --rateest-name name		Rate estimator name
  --rateest-interval sec	Rate measurement interval in seconds
  --rateest-ewmalog value	Rate measurement averaging time constant
`,
  compile: ({ name, interval, ewmaLog }, emit, { region, regionWords, fail }) => {
    const estimator = region(estimatorKey(name), RATEEST_WORDS, initRateest);
    if (!setRateest(regionWords(estimator), interval, ewmaLog))
      fail(`"${name}" is measured with another interval or average by another rule`);
    emit.target(TargetOp.RATEEST, encodeRATEEST(estimator));
  },
});
