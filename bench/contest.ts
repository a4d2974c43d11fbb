/**
 * The engine of the network benches: contenders measured in turns (A B C, C B A, …), each time in new namespaces, as a table
 * once looked at stays and costs every packet after it. Who fails once is out, with the reason. Ratios are taken within
 * a round, so that slow drifts of the machine cancel out, and held against the bar where there is one.
 */
import type { Contender } from './contenders.js';
import type { Options } from './main.js';
import { Network, type Program } from './net.js';
import { ratios, showRatio, spread, table, type Spread } from './stats.js';

export type Figures = Readonly<Record<string, number>>;

export interface Column {
  readonly title: string;
  readonly figure: string;
  show(value: number): string;
  /** What of all rounds is shown: the median, unless said otherwise. */
  readonly of?: 'median' | 'sum' | 'most';
}

/** What the project is held to: a figure of `left` over that of `right`, both of one round. */
export interface Ratio {
  readonly left: string;
  readonly right: string;
  readonly figure: string;
  readonly atLeast?: number;
  readonly atMost?: number;
  /** Beside `atMost`: the bar holds, too, when the left is no more than this above the right. */
  readonly orBy?: number;
  /** Contender whose figure is taken off both first: what the way costs without them. */
  readonly beyond?: string;
}

/** What the project is held to: a figure of one contender, in the figure's own unit. */
export interface Limit {
  readonly of: string;
  readonly figure: string;
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface Contest {
  readonly title: string;
  readonly contenders: readonly Contender[];
  readonly columns: readonly Column[];
  readonly ratios: readonly Ratio[];
  readonly limits?: readonly Limit[];
  measure(net: Network, contender: Contender, router: Program | undefined, options: Options): Promise<Figures>;
}

export interface Judged extends Spread {
  readonly atLeast?: number;
  readonly atMost?: number;
  readonly holds?: boolean;
}

export interface Result {
  readonly contenders: Readonly<Record<string, { readonly runs: readonly Figures[]; readonly failed?: string }>>;
  readonly ratios: Readonly<Record<string, Judged>>;
  readonly limits: Readonly<Record<string, Judged>>;
}

export const thousands = (value: number): string => `${(value / 1000).toFixed(1)}k`;
export const percent = (value: number): string => `${(value * 100).toFixed(1)} %`;
export const fixed =
  (digits: number) =>
  (value: number): string =>
    value.toFixed(digits);

export async function hold(contest: Contest, options: Options): Promise<Result> {
  const say = (text: string): void => void (options.json ? process.stderr : process.stdout).write(text);
  const failed = new Map<string, string>();
  const { only } = options;
  const contenders = contest.contenders.filter(({ name }) => only === undefined || only.test(name));
  const runs = new Map<string, Figures[]>(contenders.map(({ name }) => [name, []]));
  let net: Network | undefined;
  const interrupted = (): void => void Promise.resolve(net?.close()).then(() => process.exit(130));
  process.on('SIGINT', interrupted).on('SIGTERM', interrupted);
  try {
    for (let round = 0; round < options.pairs; round++) {
      for (const contender of round % 2 ? contenders.toReversed() : contenders) {
        const { name } = contender;
        const reason = failed.get(name) ?? contender.missing?.();
        if (reason !== undefined) {
          failed.set(name, reason);
          continue;
        }
        say(`round ${round + 1}/${options.pairs}: ${name.padEnd(26)}`);
        net = new Network();
        try {
          await net.open();
          const router = await contender.start(net);
          try {
            const figures = await contest.measure(net, contender, router, options);
            if (router?.running === false) throw new Error(`it ended under load: ${router.lastWords}`);
            runs.get(name)!.push(figures);
            const { title, figure, show } = contest.columns[0]!;
            say(`${show(figures[figure]!)} ${title}\n`);
          } finally {
            // hutter takes its diversion back; the rest goes with the namespaces.
            await router?.stop();
          }
        } catch (error) {
          failed.set(name, (error as Error).message);
          say(`failed: ${(error as Error).message}\n`);
        } finally {
          await net.close();
        }
      }
    }
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }
  const judged = judge(contest.ratios, runs, failed);
  const limits = judgeLimits(contest.limits ?? [], runs, failed);
  if (!options.json) print(contest, options, runs, failed, { ...judged, ...limits }, say);
  if (failed.size > 0) process.exitCode = 1;
  const all = Object.fromEntries(
    [...runs].map(([name, list]) => {
      const why = failed.get(name);
      return [name, why === undefined ? { runs: list } : { runs: list, failed: why }];
    }),
  );
  return { contenders: all, ratios: judged, limits };
}

const above = (a: readonly number[], b: readonly number[]): number[] => a.map((value, i) => value - b[i]!);

function judge(
  wanted: readonly Ratio[],
  runs: ReadonlyMap<string, readonly Figures[]>,
  failed: ReadonlyMap<string, string>,
): Record<string, Judged> {
  const judged: Record<string, Judged> = {};
  for (const { left, right, figure, atLeast, atMost, orBy, beyond } of wanted) {
    const parts = [left, right, ...(beyond === undefined ? [] : [beyond])];
    if (parts.some((name) => failed.has(name) || (runs.get(name)?.length ?? 0) === 0)) continue;
    const of = (name: string): number[] =>
      runs.get(name)!.map((m, i) => m[figure]! - (beyond === undefined ? 0 : runs.get(beyond)![i]![figure]!));
    const near = orBy !== undefined && spread(above(of(left), of(right))).median <= orBy;
    judged[`${left} / ${right}, ${figure}`] = held(ratios(of(left), of(right)), atLeast, atMost, near);
  }
  return judged;
}

function judgeLimits(
  wanted: readonly Limit[],
  runs: ReadonlyMap<string, readonly Figures[]>,
  failed: ReadonlyMap<string, string>,
): Record<string, Judged> {
  const judged: Record<string, Judged> = {};
  for (const { of, figure, atLeast, atMost } of wanted) {
    const list = runs.get(of) ?? [];
    if (failed.has(of) || list.length === 0) continue;
    judged[`${of}, ${figure}`] = held(spread(list.map((m) => m[figure]!)), atLeast, atMost);
  }
  return judged;
}

/** A spread with its bars, if it has any, and whether its median holds them. */
function held(s: Spread, atLeast?: number, atMost?: number, near = false): Judged {
  return {
    ...s,
    ...(atLeast !== undefined && { atLeast, holds: s.median >= atLeast }),
    ...(atMost !== undefined && { atMost, holds: s.median <= atMost || near }),
  };
}

function print(
  { title, columns }: Contest,
  options: Options,
  runs: ReadonlyMap<string, readonly Figures[]>,
  failed: ReadonlyMap<string, string>,
  judged: Readonly<Record<string, Judged>>,
  say: (text: string) => void,
): void {
  const rows = [['', columns[0]!.title, 'quartiles', ...columns.slice(1).map((column) => column.title)]];
  for (const [name, list] of runs) {
    if (list.length === 0) {
      rows.push([name, '-', '', ...columns.slice(1).map(() => '')]);
      continue;
    }
    const [first, ...rest] = columns.map(({ figure, show, of = 'median' }) => {
      const values = list.map((m) => m[figure]!);
      const { median, low, high } = spread(values);
      const value = of === 'sum' ? values.reduce((a, b) => a + b, 0) : of === 'most' ? Math.max(...values) : median;
      return [Number.isNaN(value) ? '' : show(value), `${show(low)}..${show(high)}`];
    });
    rows.push([name, ...first!, ...rest.map(([value]) => value!)]);
  }
  say(`\n${title}; ${options.pairs} rounds of ${options.seconds} s\n${table(rows)}\n\n`);
  for (const [name, ratio] of Object.entries(judged)) {
    const bar =
      ratio.atLeast !== undefined
        ? `, bar >= ${ratio.atLeast}`
        : ratio.atMost !== undefined
          ? `, bar <= ${ratio.atMost}`
          : '';
    say(`${name}: ${showRatio(ratio)}${bar}${ratio.holds === false ? ': MISSED' : ''}\n`);
  }
  for (const [name, reason] of failed) say(`${name}: did not take part: ${reason}\n`);
  say('\n');
}
