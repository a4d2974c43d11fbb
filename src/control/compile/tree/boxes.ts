/**
 * Boxes: what rules ask of the key words (dataplane/program/tree.ts), as ranges. Ascending by rule; a rule can own several.
 * `final`: a packet in the box goes no further than this rule, so no later rule need be looked at there.
 */
import { KEYS } from '../../../dataplane/program/tree.js';

export class Boxes {
  count = 0;
  /** Lowest and highest value of key d for box i at [i * KEYS + d], unsigned. */
  low: Uint32Array;
  high: Uint32Array;
  final: Uint8Array;
  /** The rule's number; never descending. */
  rule: Int32Array;
  /** Where the ranges of names begin that rules tell apart, ascending, without the first; Key.IN and OUT number them. */
  inNames: readonly string[] = [];
  outNames: readonly string[] = [];

  constructor(capacity: number) {
    this.low = new Uint32Array(capacity * KEYS);
    this.high = new Uint32Array(capacity * KEYS);
    this.final = new Uint8Array(capacity);
    this.rule = new Int32Array(capacity);
  }

  /** Adds a box that holds everything; its bounds are then narrowed in place. Returns its number. */
  add(rule: number, final: boolean): number {
    if (this.count === this.rule.length) this.grow();
    const i = this.count++;
    for (let d = 0; d < KEYS; d++) this.high[i * KEYS + d] = KEY_LIMITS[d]!;
    this.final[i] = final ? 1 : 0;
    this.rule[i] = rule;
    return i;
  }

  private grow(): void {
    const capacity = Math.max(16, this.count * 2);
    const larger = <T extends Uint32Array | Uint8Array | Int32Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.low = larger(this.low, new Uint32Array(capacity * KEYS));
    this.high = larger(this.high, new Uint32Array(capacity * KEYS));
    this.final = larger(this.final, new Uint8Array(capacity));
    this.rule = larger(this.rule, new Int32Array(capacity));
  }
}

/** The highest value of each key. */
export const KEY_LIMITS = [0xffffffff, 0xffffffff, 0xff, 0xffff, 0xffff, 0xffff, 0xffff, 7] as const;
/** How many bits each key has. */
export const KEY_BITS = [32, 32, 8, 16, 16, 16, 16, 3] as const;
