/**
 * -m time (net/netfilter/xt_time.c): DATE_START DATE_STOP (unsigned seconds since 1970) DAY_START DAY_STOP (seconds of the day)
 * MONTHDAYS WEEKDAYS (bit 1 = the first, Monday) FLAGS (XT_TIME_*: 1 the kernel's time zone, 2 contiguous).
 */
import type { Context } from './context.js';
import { argument, hex, type Op } from './op.js';

export const enum TimeFlag {
  LOCAL_TIME_ZONE = 1 << 0,
  CONTIGUOUS = 1 << 1,
}
const enum Arg {
  DATE_START = 0,
  DATE_STOP = 1,
  DAY_START = 2,
  DAY_STOP = 3,
  MONTHDAYS = 4,
  WEEKDAYS = 5,
  FLAGS = 6,
  WORDS = 7,
}
const DAY = 86_400;
const ALL_MONTHDAYS = 0xffff_fffe | 0;
/** Monday is 1 and 1970 began on a Thursday. */
const FIRST_WEEKDAY = 3;

export const encodeTime = (
  dateStart: number,
  dateStop: number,
  dayStart: number,
  dayStop: number,
  monthdays: number,
  weekdays: number,
  flags: number,
): number[] => [dateStart | 0, dateStop | 0, dayStart, dayStop, monthdays | 0, weekdays, flags];

export function matchTime(context: Context, program: Int32Array, at: number): boolean {
  const flags = program[at + Arg.FLAGS]!;
  let stamp = context.wallSeconds;
  if ((flags & TimeFlag.LOCAL_TIME_ZONE) !== 0) stamp -= 60 * context.minutesWest;
  if (stamp < program[at + Arg.DATE_START]! >>> 0 || stamp > program[at + Arg.DATE_STOP]! >>> 0) return false;
  const second = stamp % DAY;
  const start = program[at + Arg.DAY_START]!;
  const stop = program[at + Arg.DAY_STOP]!;
  if (start < stop) {
    if (second < start || second > stop) return false;
  } else {
    if (second < start && second > stop) return false;
    // Past midnight still belongs to the day on which the span began.
    if ((flags & TimeFlag.CONTIGUOUS) !== 0 && second <= stop) stamp -= DAY;
  }
  const day = Math.floor(stamp / DAY);
  if ((program[at + Arg.WEEKDAYS]! & (1 << (((day + FIRST_WEEKDAY) % 7) + 1))) === 0) return false;
  const monthdays = program[at + Arg.MONTHDAYS]!;
  return monthdays === ALL_MONTHDAYS || (monthdays & (1 << dayOfMonth(day))) !== 0;
}

/** Day of the month, 1 … 31, of a day counted from 1970-01-01, in the Gregorian calendar; years begin in March. */
function dayOfMonth(day: number): number {
  const since = day + 719_468;
  const ofEra = since % 146_097;
  const year = Math.floor(
    (ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36_524) - Math.floor(ofEra / 146_096)) / 365,
  );
  const ofYear = ofEra - (365 * year + Math.floor(year / 4) - Math.floor(year / 100));
  const month = Math.floor((5 * ofYear + 2) / 153);
  return ofYear - Math.floor((153 * month + 2) / 5) + 1;
}

export const time: Op = {
  name: 'time',
  words: Arg.WORDS,
  text: (a) =>
    `date ${argument(a, 0) >>> 0}-${argument(a, 1) >>> 0} day ${argument(a, 2)}-${argument(a, 3)} ` +
    `monthdays ${hex(argument(a, 4))} weekdays ${hex(argument(a, 5))} flags ${argument(a, 6)}`,
};
