/** -m limit: a token bucket. (libxt_limit.c; xt_limit.c: credit in units of 1/10,000 second) */
import { encodeLimit, initLimit, limitCredits, LIMIT_STATE_WORDS } from '../../dataplane/program/limit.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { string, uint32 } from './args.js';
import { defineMatch, option } from './record.js';
import { problem } from '../text/problem.js';
import { atoi } from '../text/numbers.js';

const SCALE = 10_000;
const DEFAULT_BURST = 5;

export interface LimitData {
  /** Time a packet costs, in 1/10,000 second (uint32). */
  avg: number;
  burst: number;
}

const UNITS: readonly (readonly [string, number])[] = [
  ['second', 1],
  ['minute', 60],
  ['hour', 3600],
  ['day', 86400],
];
const PRINTED: readonly (readonly [string, number])[] = [
  ['day', SCALE * 86400],
  ['hour', SCALE * 3600],
  ['min', SCALE * 60],
  ['sec', SCALE],
];

/** Cost of a packet at `rate` = NUMBER[/UNIT], the unit cut as short as one likes; undefined if it isn't one. */
export function parseRate(rate: string): number | undefined {
  const slash = rate.indexOf('/');
  let seconds = 1;
  if (slash >= 0) {
    const unit = rate.slice(slash + 1).toLowerCase();
    const found = unit === '' ? undefined : UNITS.find(([name]) => name.startsWith(unit));
    if (!found) return undefined;
    seconds = found[1];
  }
  const count = atoi(rate) >>> 0;
  if (count === 0) return undefined;
  const cost = Math.floor((SCALE * seconds) / count);
  if (cost === 0) problem(`Rate too fast "${rate}"`);
  return cost;
}

/** ` 3/hour`: the unit that loses least. */
export function formatRate(cost: number): string {
  let i = 1;
  for (; i < PRINTED.length; i++) {
    const unit = PRINTED[i]![1];
    if (cost > unit || Math.floor(unit / cost) < unit % cost) break;
  }
  const [name, unit] = PRINTED[i - 1]!;
  return ` ${Math.floor(unit / cost)}/${name}`;
}

export const limit = defineMatch<LimitData>({
  name: 'limit',
  init: () => ({ avg: SCALE * 1200, burst: DEFAULT_BURST }),
  options: [
    option({
      name: 'limit',
      arg: string(),
      set: (data, rate) => {
        data.avg = parseRate(rate) ?? problem(`bad rate "${rate}"'`);
      },
    }),
    option({
      name: 'limit-burst',
      arg: uint32(0, 10000),
      set: (data, burst) => {
        data.burst = burst;
      },
    }),
  ],
  save: (data) =>
    ` --limit${formatRate(data.avg)}${data.burst === DEFAULT_BURST ? '' : ` --limit-burst ${data.burst}`}`,
  print: (data) => ` limit: avg${formatRate(data.avg)} burst ${data.burst}`,
  help: `limit match options:
--limit avg			max average match rate: default 3/hour
                                [Packets per second unless followed by 
                                /sec /minute /hour /day postfixes]
--limit-burst number		number to match in a burst, default 5
`,
  // As a kernel of 250 Hz reckons; the ruleset is refused again if it overflows at the rate of this one.
  check: ({ avg, burst }) =>
    limitCredits({ average: avg, burst }, 250)
      ? undefined
      : { errno: 'ERANGE', reason: `limit: overflow, try lower: ${avg}/${burst}` },
  compile: (data, emit, { hz, slot, fail }) => {
    const credits = limitCredits({ average: data.avg, burst: data.burst }, hz);
    if (credits === undefined) return fail(`rate and burst overflow, try lower: ${data.avg}/${data.burst}`);
    const { cost, cap } = credits;
    const state = slot(LIMIT_STATE_WORDS, (region, offset) => initLimit(region, offset, cap));
    emit.test(MatchOp.LIMIT, encodeLimit(state.region, state.offset, cost, cap));
  },
});
