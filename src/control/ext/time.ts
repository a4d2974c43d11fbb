/** -m time: dates, times of the day, days of the week and of the month. (libxt_time.c, xt_time.c) */
import { encodeTime, TimeFlag } from '../../dataplane/program/time.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { looseUnsigned } from '../text/numbers.js';
import { Exit, problem, ToolError } from '../text/problem.js';
import { string } from './args.js';
import { defineMatch, option } from './record.js';

export interface TimeData {
  /** Seconds since 1970, uint32. */
  dateStart: number;
  dateStop: number;
  /** Seconds of the day. */
  dayStart: number;
  dayStop: number;
  /** Bits 1 << day, int32. */
  monthdays: number;
  /** Bits 1 << day, Monday = 1. */
  weekdays: number;
  /** TimeFlag bits. */
  flags: number;
}

const LAST_DATE = 0x7fffffff;
const LAST_SECOND = 24 * 60 * 60 - 1;
const ALL_MONTHDAYS = 0xfffffffe | 0;
const ALL_WEEKDAYS = 0xfe;
const WEEKDAYS = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun'];

/**
 * Numbers of at most `limits`, with a separator behind each but the last, at least so many; or the text from the one on
 * that spoils it.
 */
function parseParts(text: string, separators: string, least: number, limits: readonly number[]): number[] | string {
  const parts: number[] = [];
  let rest = text;
  for (const [i, limit] of limits.entries()) {
    const { value, end } = looseUnsigned(rest);
    const behind = rest.slice(end);
    if (value > limit || (behind === '' ? i + 1 < least : behind[0] !== separators[i])) return rest;
    parts.push(value);
    if (behind === '') return parts;
    rest = behind.slice(1);
  }
  return rest;
}

/** YYYY[-MM[-DD[Thh[:mm[:ss]]]]] */
function parseDate(text: string): number {
  const parts = parseParts(text, '--T::', 1, [2038, 12, 31, 23, 59, 59]);
  if (typeof parts === 'string' || parts[0]! < 1970)
    problem(`Invalid date "${text}" specified. Should be YYYY[-MM[-DD[Thh[:mm[:ss]]]]]`);
  const [year, month = 1, day = 1, hour = 0, minute = 0, second = 0] = parts as [number, ...number[]];
  const seconds = Date.UTC(year, month - 1, day, hour, minute, second) / 1000;
  if (seconds < 0) throw new ToolError(Exit.OTHER, 'mktime returned an error');
  return seconds % 2 ** 32;
}

/** hh:mm[:ss] */
function parseDaytime(text: string): number {
  const parts = parseParts(text, '::', 2, [23, 59, 59]);
  if (typeof parts === 'string')
    problem(`invalid time "${parts}" specified, should be hh:mm[:ss] format and within the boundaries`);
  return 3600 * parts[0]! + 60 * parts[1]! + (parts[2] ?? 0);
}

/** The words of a list, cut to `size` characters, as the tool's buffer cuts them. A comma at the end adds none. */
const words = (list: string, size: number): string[] =>
  list === ''
    ? []
    : list
        .replace(/,$/, '')
        .split(',')
        .map((word) => word.slice(0, size));

function parseMonthdays(list: string): number {
  let bits = 0;
  for (const word of words(list, 2)) {
    const { value, end } = looseUnsigned(word, 0);
    if (end !== word.length || value > 31) problem(`${word} is not a valid day for --monthdays`);
    bits |= 1 << value;
  }
  return bits;
}

function parseWeekdays(list: string): number {
  let bits = 0;
  for (const word of words(list, 3)) {
    const { value, end } = looseUnsigned(word, 0);
    if (end === word.length) {
      if (value === 0) problem('No, the week does NOT begin with Sunday.');
      bits |= 1 << (value & 31);
      continue;
    }
    const day = WEEKDAYS.findIndex((name) => name.slice(0, 2) === word.slice(0, 2));
    if (day < 0) problem(`${word} is not a valid day specifier`);
    bits |= 1 << (day + 1);
  }
  return bits & 0xff;
}

const two = (value: number): string => String(value).padStart(2, '0');
const formatDaytime = (second: number): string =>
  `${two(Math.floor(second / 3600))}:${two(Math.floor(second / 60) % 60)}:${two(second % 60)}`;
/** 2010-01-01T00:00:00 */
const formatDate = (seconds: number): string => new Date(seconds * 1000).toISOString().slice(0, 19);

const days = (bits: number): number[] => Array.from({ length: 31 }, (_, i) => i + 1).filter((day) => bits & (1 << day));
const formatWeekdays = (bits: number): string => WEEKDAYS.filter((_, day) => bits & (1 << (day + 1))).join(',');
/** The tool's English has an 11st. */
const ordinal = (day: number): string =>
  `${day}${['', 'st', 'nd', 'rd'][day % 10] ?? 'th'}` + (day % 10 === 0 ? 'th' : '');

const asksDaytime = ({ dayStart, dayStop }: TimeData): boolean => dayStart !== 0 || dayStop !== LAST_SECOND;

export const time = defineMatch<TimeData>({
  name: 'time',
  init: () => ({
    dateStart: 0,
    dateStop: LAST_DATE,
    dayStart: 0,
    dayStop: LAST_SECOND,
    monthdays: ALL_MONTHDAYS,
    weekdays: ALL_WEEKDAYS,
    flags: 0,
  }),
  options: [
    option({
      name: 'datestart',
      arg: string(),
      set: (data, text) => {
        data.dateStart = parseDate(text);
      },
    }),
    option({
      name: 'datestop',
      arg: string(),
      set: (data, text) => {
        data.dateStop = parseDate(text);
      },
    }),
    option({
      name: 'timestart',
      arg: string(),
      set: (data, text) => {
        data.dayStart = parseDaytime(text);
      },
    }),
    option({
      name: 'timestop',
      arg: string(),
      set: (data, text) => {
        data.dayStop = parseDaytime(text);
      },
    }),
    option({
      name: 'contiguous',
      set: (data) => {
        data.flags |= TimeFlag.CONTIGUOUS;
      },
    }),
    option({
      name: 'weekdays',
      arg: string(),
      invert: true,
      set: (data, list, { invert }) => {
        data.weekdays = parseWeekdays(list) ^ (invert ? ALL_WEEKDAYS : 0);
      },
    }),
    option({
      name: 'monthdays',
      arg: string(),
      invert: true,
      set: (data, list, { invert }) => {
        data.monthdays = parseMonthdays(list) ^ (invert ? ALL_MONTHDAYS : 0);
      },
    }),
    option({
      name: 'localtz',
      excl: ['utc'],
      set: (data, _value, { warn }) => {
        warn(
          'WARNING: --localtz is being replaced by --kerneltz, since "local" is ambiguous. Note the kernel timezone has ' +
            'caveats - see manpage for details.\n',
        );
        data.flags |= TimeFlag.LOCAL_TIME_ZONE;
      },
    }),
    option({ name: 'utc', excl: ['localtz', 'kerneltz'] }),
    option({
      name: 'kerneltz',
      excl: ['utc'],
      set: (data) => {
        data.flags |= TimeFlag.LOCAL_TIME_ZONE;
      },
    }),
  ],
  finalCheck: ({ dayStart, dayStop }, seen) => {
    if (seen.has('contiguous') && dayStart < dayStop)
      problem('time: --contiguous only makes sense when stoptime is smaller than starttime');
  },
  save: (data) => {
    const { dateStart, dateStop, dayStart, dayStop, monthdays, weekdays, flags } = data;
    return (
      (asksDaytime(data) ? ` --timestart ${formatDaytime(dayStart)} --timestop ${formatDaytime(dayStop)}` : '') +
      (monthdays === ALL_MONTHDAYS ? '' : ` --monthdays ${days(monthdays).join(',')}`) +
      (weekdays === ALL_WEEKDAYS ? '' : ` --weekdays ${formatWeekdays(weekdays)}`) +
      (dateStart === 0 ? '' : ` --datestart ${formatDate(dateStart)}`) +
      (dateStop === 0 ? '' : ` --datestop ${formatDate(dateStop)}`) +
      (flags & TimeFlag.LOCAL_TIME_ZONE ? ' --kerneltz' : '') +
      (flags & TimeFlag.CONTIGUOUS ? ' --contiguous' : '')
    );
  },
  print: (data) => {
    const { dateStart, dateStop, dayStart, dayStop, monthdays, weekdays, flags } = data;
    const date = (seconds: number): string => (seconds === 0 ? '' : ` ${formatDate(seconds).replace('T', ' ')}`);
    return (
      ' TIME' +
      (asksDaytime(data) ? ` from ${formatDaytime(dayStart)} to ${formatDaytime(dayStop)}` : '') +
      (weekdays === ALL_WEEKDAYS ? '' : ` on ${formatWeekdays(weekdays)}`) +
      (monthdays === ALL_MONTHDAYS ? '' : ` on ${days(monthdays).map(ordinal).join(',')}`) +
      (dateStart === 0 ? '' : ` starting from${date(dateStart)}`) +
      (dateStop === LAST_DATE ? '' : ` until date${date(dateStop)}`) +
      (flags & TimeFlag.LOCAL_TIME_ZONE ? '' : ' UTC') +
      (flags & TimeFlag.CONTIGUOUS ? ' contiguous' : '')
    );
  },
  help: `time match options:
    --datestart time     Start and stop time, to be given in ISO 8601
    --datestop time      (YYYY[-MM[-DD[Thh[:mm[:ss]]]]])
    --timestart time     Start and stop daytime (hh:mm[:ss])
    --timestop time      (between 00:00:00 and 23:59:59)
[!] --monthdays value    List of days on which to match, separated by comma
                         (Possible days: 1 to 31; defaults to all)
[!] --weekdays value     List of weekdays on which to match, sep. by comma
                         (Possible days: Mon,Tue,Wed,Thu,Fri,Sat,Sun or 1 to 7
                         Defaults to all weekdays.)
    --kerneltz           Work with the kernel timezone instead of UTC
`,
  compile: ({ dateStart, dateStop, dayStart, dayStop, monthdays, weekdays, flags }, emit) =>
    emit.test(MatchOp.TIME, encodeTime(dateStart, dateStop, dayStart, dayStop, monthdays, weekdays, flags)),
});
