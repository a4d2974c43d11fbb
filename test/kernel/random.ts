/** Seeded choice, the same on every machine. */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = (seed ^ 0x9e3779b9) | 0;
  }
  /** 0 … n − 1. (mulberry32) */
  below(n: number): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000) * n);
  }
  /** True once in `n`. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }
  pick<T>(...items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
  /** Some of the items in their order, at least one. */
  some<T>(items: readonly T[], most = items.length): T[] {
    const wanted = 1 + this.below(Math.min(most, items.length));
    const left = [...items];
    while (left.length > wanted) left.splice(this.below(left.length), 1);
    return left;
  }
}
