/**
 * -m hashlimit: a token bucket for each address, port or pair of them. (libxt_hashlimit.c revision 3, xt_hashlimit.c)
 * Rates are kept as the kernel's: millionths of a second a packet, or for bytes 2^32 − 1 over (16-byte units + 1).
 */
import {
  encodeHashlimit,
  HashlimitMode,
  type HashlimitTable,
  hashlimitOverflows,
  hashlimitWords,
  initHashlimit,
} from '../../dataplane/program/hashlimit.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { atoi, scanUnsigned } from '../text/numbers.js';
import { badValue, prefixLength, string, uint32 } from './args.js';
import { defineMatch, option, type OptionCall } from './record.js';

export interface HashlimitData {
  /** HashlimitMode bits. */
  mode: number;
  avg: number;
  /** Packets; with BYTES multiples of the rate. */
  burst: number;
  size: number;
  max: number;
  /** ms */
  gcInterval: number;
  expire: number;
  sourceMask: number;
  destinationMask: number;
  /** Seconds, with RATE_MATCH. */
  interval: number;
  name: string;
  /** Seconds of the unit that the rate was given in; 0 once the match is whole. */
  unit: number;
}

const SCALE = 1_000_000;
const U32 = 0xffffffff;
const DEFAULT_BURST = 5;
const MAX_BURST = 1_000_000;
const GC_INTERVAL = 1000;
/** Seconds that an idle entry stays, for rates in bytes. */
const BYTE_UNIT = 15;
const BYTE_UNIT_BURST = 60;
/** Rates of bytes count in units of 2^4. */
const BYTE_SHIFT = 16;
const NAME_BYTES = 255;

const UNITS: readonly (readonly [string, number])[] = [
  ['second', 1],
  ['minute', 60],
  ['hour', 3600],
  ['day', 86400],
];
const PRINTED: readonly (readonly [string, number])[] = [
  ['day', 86400],
  ['hour', 3600],
  ['min', 60],
  ['sec', 1],
];

/** atoll, as an unsigned number. */
function leadingNumber(text: string): number {
  const found = /^[ \t-\r]*([+-]?)(\d+)/.exec(text);
  if (!found) return 0;
  const value = BigInt(found[2]!);
  return Number(BigInt.asUintN(64, found[1] === '-' ? -value : value));
}

const factorOf = (letter: string | undefined): number => (letter === 'm' ? 1024 * 1024 : letter === 'k' ? 1024 : 1);
const bytesToCost = (bytes: number): number => {
  const units = Math.floor(bytes / BYTE_SHIFT) % 2 ** 32;
  return Math.floor(U32 / (units + 1));
};
const costToBytes = (cost: number): number => ((cost === 0 ? U32 : Math.floor(U32 / cost)) - 1) * BYTE_SHIFT;

/** 512kb/s */
function parseByteRate(data: HashlimitData, text: string): boolean {
  const unit = text.indexOf('b/s');
  const count = leadingNumber(text);
  if (unit <= 0 || count === 0) return false;
  data.avg = bytesToCost(count * factorOf(text[unit - 1]));
  data.unit = BYTE_UNIT;
  return true;
}

/** 3/minute, the unit cut as short as one likes. */
function parsePacketRate(data: HashlimitData, text: string): boolean {
  data.unit = 1;
  const slash = text.indexOf('/');
  if (slash >= 0) {
    const unit = text.slice(slash + 1).toLowerCase();
    const found = unit === '' ? undefined : UNITS.find(([name]) => name.startsWith(unit));
    if (!found) return false;
    data.unit = found[1];
  }
  const count = leadingNumber(text);
  if (count === 0) return false;
  data.avg = Math.floor((SCALE * data.unit) / count);
  if (data.avg === 0) problem(`Rate too fast "${text}"`);
  return true;
}

function setRate(data: HashlimitData, text: string, { option }: OptionCall<HashlimitData>): void {
  if (parseByteRate(data, text)) data.mode |= HashlimitMode.BYTES;
  else if (!parsePacketRate(data, text)) badValue('hashlimit', `--${option}`, text);
}

const burstProblem = (): never =>
  problem(`bad value for option "--hashlimit-burst", or out of range (1-${MAX_BURST}).`);

/** What follows the number and its unit is not looked at. */
function parseBurst(text: string): number {
  const found = scanUnsigned(text);
  if (!found || found.value < 1n || (found.end === text.length && found.value > BigInt(MAX_BURST)))
    return burstProblem();
  return Number(BigInt.asUintN(64, found.value * BigInt(factorOf(text[found.end]))));
}

const MODES: readonly (readonly [string, HashlimitMode])[] = [
  ['srcip', HashlimitMode.SOURCE],
  ['srcport', HashlimitMode.SOURCE_PORT],
  ['dstip', HashlimitMode.DESTINATION],
  ['dstport', HashlimitMode.DESTINATION_PORT],
];

function parseMode(text: string): number {
  let bits = 0;
  for (const word of text.split(/[,|]/).filter((each) => each !== '')) {
    const found = MODES.find(([name]) => name === word);
    bits |= found?.[1] ?? badValue('hashlimit', '--hashlimit-mode', text);
  }
  return bits;
}

/** ` 3/min`, and the time in ms that is the default of `expire` for it. */
function formatPacketRate(period: number): { text: string; expire: number } {
  if (period === 0) return { text: ' inf', expire: 0 };
  let i = 1;
  for (; i < PRINTED.length; i++) {
    const unit = PRINTED[i]![1] * SCALE;
    if (period > unit || Math.floor(unit / period) < unit % period) break;
  }
  const [name, seconds] = PRINTED[i - 1]!;
  return { text: ` ${Math.floor((seconds * SCALE) / period)}/${name}`, expire: seconds * 1000 };
}

const BYTE_UNITS: readonly (readonly [string, number])[] = [
  ['m', 1024 * 1024],
  ['k', 1024],
  ['', 1],
];

function formatByteRate(avg: number, burst: number, dashes: string): { text: string; expire: number } {
  const bytes = costToBytes(avg);
  // The tool masks with 32 bits.
  const cut = (unit: number): number => (bytes % 2 ** 32) - (bytes % unit);
  const [name, unit] = BYTE_UNITS.find(([, each]) => each === 1 || (bytes >= each && bytesToCost(cut(each)) === avg))!;
  const text = ` ${Math.floor(bytes / unit)}${name}b/s`;
  if (burst === 0) return { text, expire: BYTE_UNIT * 1000 };
  const all = bytes * burst;
  const [burstName, burstUnit] = BYTE_UNITS.find(([, each]) => each === 1 || all >= each)!;
  return { text: `${text} ${dashes}burst ${Math.floor(all / burstUnit)}${burstName}b`, expire: BYTE_UNIT_BURST * 1000 };
}

const modeText = (mode: number, separator: string): string =>
  MODES.filter(([, bit]) => mode & bit)
    .map(([name]) => name)
    .join(separator);

/** What both forms say behind rate, burst and mode. */
function rest(data: HashlimitData, dashes: string, expire: number): string {
  const { mode, size, max, gcInterval, sourceMask, destinationMask, interval } = data;
  const say = (name: string, value: number, usual: number): string =>
    value === usual ? '' : ` ${dashes}${name} ${value}`;
  return (
    say('htable-size', size, 0) +
    say('htable-max', max, 0) +
    say('htable-gcinterval', gcInterval, GC_INTERVAL) +
    say('htable-expire', data.expire, expire) +
    say('srcmask', sourceMask, 32) +
    say('dstmask', destinationMask, 32) +
    (mode & HashlimitMode.RATE_MATCH ? ` ${dashes}rate-match${say('rate-interval', interval, 1)}` : '')
  );
}

export const hashlimit = defineMatch<HashlimitData>({
  name: 'hashlimit',
  revision: 3,
  init: () => ({
    mode: 0,
    avg: 0,
    burst: DEFAULT_BURST,
    size: 0,
    max: 0,
    gcInterval: GC_INTERVAL,
    expire: 0,
    sourceMask: 32,
    destinationMask: 32,
    interval: 0,
    name: '',
    unit: 0,
  }),
  options: [
    option({
      name: 'hashlimit-upto',
      aliases: ['hashlimit'],
      arg: string(),
      invert: true,
      excl: ['hashlimit-above'],
      set: (data, rate, call) => {
        if (call.invert) data.mode |= HashlimitMode.INVERT;
        setRate(data, rate, call);
      },
    }),
    option({
      name: 'hashlimit-above',
      arg: string(),
      invert: true,
      excl: ['hashlimit-upto'],
      set: (data, rate, call) => {
        if (!call.invert) data.mode |= HashlimitMode.INVERT;
        setRate(data, rate, call);
      },
    }),
    option({
      name: 'hashlimit-srcmask',
      arg: prefixLength,
      set: (data, bits) => {
        data.sourceMask = bits;
      },
    }),
    option({
      name: 'hashlimit-dstmask',
      arg: prefixLength,
      set: (data, bits) => {
        data.destinationMask = bits;
      },
    }),
    option({
      name: 'hashlimit-burst',
      arg: string(),
      set: (data, text) => {
        data.burst = parseBurst(text);
      },
    }),
    option({
      name: 'hashlimit-htable-size',
      arg: uint32(),
      set: (data, size) => {
        data.size = size;
      },
    }),
    option({
      name: 'hashlimit-htable-max',
      arg: uint32(),
      set: (data, max) => {
        data.max = max;
      },
    }),
    option({
      name: 'hashlimit-htable-gcinterval',
      arg: uint32(),
      set: (data, ms) => {
        data.gcInterval = ms;
      },
    }),
    option({
      name: 'hashlimit-htable-expire',
      arg: uint32(),
      set: (data, ms) => {
        data.expire = ms;
      },
    }),
    option({
      name: 'hashlimit-mode',
      arg: string(),
      set: (data, text) => {
        data.mode |= parseMode(text);
      },
    }),
    option({
      name: 'hashlimit-name',
      arg: string({ min: 1, size: NAME_BYTES }),
      mandatory: true,
      set: (data, name) => {
        data.name = name;
      },
    }),
    option({
      name: 'hashlimit-rate-match',
      set: (data) => {
        data.mode |= HashlimitMode.RATE_MATCH;
      },
    }),
    option({
      name: 'hashlimit-rate-interval',
      arg: string(),
      set: (data, text) => {
        const seconds = atoi(text);
        if (seconds <= 0) badValue('hashlimit', '--hashlimit-rate-interval', text);
        data.interval = seconds;
      },
    }),
  ],
  finalCheck: (data, seen) => {
    if (!seen.has('hashlimit-upto') && !seen.has('hashlimit-above')) problem('You have to specify --hashlimit');
    const ownExpire = seen.has('hashlimit-htable-expire');
    if (!ownExpire) data.expire = data.unit * 1000;
    if (data.mode & HashlimitMode.BYTES) {
      const unit = costToBytes(data.avg);
      if (!seen.has('hashlimit-burst')) data.burst = 0;
      else {
        if (data.burst < unit) problem(`burst cannot be smaller than ${unit}b`);
        data.burst = unit === 0 ? 0 : Math.ceil((data.burst % 2 ** 32) / unit);
        if (!ownExpire) data.expire = BYTE_UNIT_BURST * 1000;
      }
    } else if (data.burst > MAX_BURST) burstProblem();
    if (seen.has('hashlimit-rate-match')) {
      if (!(data.mode & HashlimitMode.BYTES)) data.avg = Math.floor(data.avg / data.unit);
      if (data.interval === 0) data.interval = data.mode & HashlimitMode.BYTES ? 1 : data.unit;
    }
    data.unit = 0;
  },
  save: (data) => {
    const bytes = (data.mode & HashlimitMode.BYTES) !== 0;
    const rate = bytes ? formatByteRate(data.avg, data.burst, '--hashlimit-') : formatPacketRate(data.avg);
    const mode = modeText(data.mode, ',');
    return (
      ` --hashlimit-${data.mode & HashlimitMode.INVERT ? 'above' : 'upto'}${rate.text}` +
      (bytes ? '' : ` --hashlimit-burst ${data.burst}`) +
      (mode === '' ? '' : ` --hashlimit-mode ${mode}`) +
      ` --hashlimit-name ${data.name}${rest(data, '--hashlimit-', rate.expire)}`
    );
  },
  print: (data) => {
    const bytes = (data.mode & HashlimitMode.BYTES) !== 0;
    const rate = bytes
      ? formatByteRate(data.avg, data.burst, '')
      : formatPacketRate(data.interval === 0 ? data.avg : data.avg * data.interval);
    const mode = modeText(data.mode, '-');
    return (
      ` limit: ${data.mode & HashlimitMode.INVERT ? 'above' : 'up to'}${rate.text}` +
      (bytes ? '' : ` burst ${data.burst}`) +
      (mode === '' ? '' : ` mode ${mode}`) +
      rest(data, '', rate.expire)
    );
  },
  help: `hashlimit match options:
  --hashlimit-upto <avg>           max average match rate
                                   [Packets per second unless followed by 
                                   /sec /minute /hour /day postfixes]
  --hashlimit-above <avg>          min average match rate
  --hashlimit-mode <mode>          mode is a comma-separated list of
                                   dstip,srcip,dstport,srcport (or none)
  --hashlimit-srcmask <length>     source address grouping prefix length
  --hashlimit-dstmask <length>     destination address grouping prefix length
  --hashlimit-name <name>          name for /proc/net/ipt_hashlimit
  --hashlimit-burst <num>	    number to match in a burst, default 5
  --hashlimit-htable-size <num>    number of hashtable buckets
  --hashlimit-htable-max <num>     number of hashtable entries
  --hashlimit-htable-gcinterval    interval between garbage collection runs
  --hashlimit-htable-expire        after which time are idle entries expired?
  --hashlimit-rate-match           rate match the flow without rate-limiting it
  --hashlimit-rate-interval        interval in seconds for hashlimit-rate-match

`,
  check: (data) => {
    const invalid = (reason: string) => ({ errno: 'EINVAL', reason: `hashlimit: ${reason}` }) as const;
    const overflow = { errno: 'ERANGE', reason: `hashlimit: overflow, try lower: ${data.avg}/${data.burst}` } as const;
    if (data.gcInterval === 0 || data.expire === 0) return invalid('an interval of 0');
    if (data.sourceMask > 32 || data.destinationMask > 32) return invalid('a mask of more than 32 bits');
    if (data.mode & HashlimitMode.RATE_MATCH) {
      if (data.avg === 0 || data.avg > U32) return { errno: 'ERANGE', reason: 'hashlimit: invalid rate' };
      if (data.interval === 0) return invalid('a rate interval of 0');
    } else if (data.mode & HashlimitMode.BYTES) {
      if (data.avg === 0) return overflow;
    } else if (data.burst === 0) return overflow;
    if (data.name === '.' || data.name === '..' || data.name.includes('/'))
      return invalid(`"${data.name}" is no name for a table`);
    return undefined;
  },
  // The first rule that names a table makes it, and what that one asks for holds for all.
  compile: (data, emit, { region, hz, fail }) => {
    const asked: HashlimitTable = { ...data, average: data.avg };
    if (hashlimitOverflows(asked, hz)) fail(`overflow, try lower: ${data.avg}/${data.burst}`);
    const table = region(`hashlimit/${data.name}`, hashlimitWords(asked), (words) => initHashlimit(words, asked, hz));
    emit.test(MatchOp.HASHLIMIT, encodeHashlimit(table, (data.mode & HashlimitMode.INVERT) !== 0));
  },
});
