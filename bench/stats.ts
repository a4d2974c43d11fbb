/** Figures of repeated measurements: medians and quartiles, and ratios of interleaved pairs. */

export interface Spread {
  readonly median: number;
  /** First and third quartile. */
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

/** The quantile `q` (0..1) of sorted numbers, interpolated between neighbours (type 7 of Hyndman and Fan). */
function quantile(sorted: readonly number[], q: number): number {
  const position = (sorted.length - 1) * q;
  const below = Math.floor(position);
  const from = sorted[below]!;
  return from + ((sorted[below + 1] ?? from) - from) * (position - below);
}

/** @throws RangeError for no values: a figure nobody measured is not 0. */
export function spread(values: readonly number[]): Spread {
  if (values.length === 0) throw new RangeError('no values to take a median of');
  const sorted = values.toSorted((a, b) => a - b);
  return {
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.25),
    high: quantile(sorted, 0.75),
    count: sorted.length,
  };
}

/** The spread of a[i] / b[i], 1 where both are 0: both measured in the same round, so that slow drifts of the machine cancel out. */
export function ratios(a: readonly number[], b: readonly number[]): Spread {
  if (a.length !== b.length) throw new RangeError(`${a.length} values cannot be paired with ${b.length}`);
  return spread(a.map((value, i) => (value === b[i]! ? 1 : value / b[i]!)));
}

/** "0.97 (0.95..0.99, n=11)" */
export const showRatio = (s: Spread): string =>
  `${s.median.toFixed(2)} (${s.low.toFixed(2)}..${s.high.toFixed(2)}, n=${s.count})`;

/** Rows of cells as text with columns aligned: the first to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return rows
    .map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '))
    .join('\n');
}
