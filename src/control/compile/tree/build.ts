/**
 * Builds decision trees over boxes. A node looks at a few neighbouring bits of one key, wherever they lie: a rule that
 * knows those bits goes to one child, one that doesn't to all (or, as a range, to some). Each node takes the window that
 * tells most apart for the copies it costs. Rules without a long prefix on a side would be copied by every node that looks
 * there: they get trees of their own. For fewer rules other ways to part them are tried, and the cheapest is taken (cost.ts).
 */
import { packName } from '../../../dataplane/interfaces.js';
import { RegionKind } from '../../../dataplane/program/regions.js';
import {
  Entry,
  ENTRY_WORDS,
  Key,
  KEYS,
  LEAF,
  LEAF_WORDS,
  NAME_WORDS,
  NONE,
  Root,
  ROOT_WORDS,
  Tree,
  TREE_VERSION,
} from '../../../dataplane/program/tree.js';
import { KEY_BITS, type Boxes } from './boxes.js';
import { cost } from './cost.js';

export interface Shape {
  readonly bytes: number;
  readonly trees: number;
  /** Nodes on the longest way, all trees added up; and on the mean way, over leaf entries. */
  readonly depthMax: number;
  readonly depthMean: number;
  readonly leafMax: number;
  readonly buildMs: number;
}
export interface Built {
  readonly words: Int32Array;
  /** By rule, 1: later rules were left out somewhere because this one always decides there. Without it the tree is void. */
  readonly decisive: Uint8Array;
  readonly shape: Shape;
}

export interface Settings {
  /** Leaves hold at most so many entries, if cuts can tell them apart. */
  readonly leaf: number;
  /** How many copies and table slots an entry may cost a node. */
  readonly spread: number;
  readonly maxWidth: number;
  /** Words. */
  readonly budget: number;
  /** The prefix length that makes an address specific. */
  readonly specific: number;
  /** Up to so many boxes other ways to part them are tried. */
  readonly together: number;
  /** What a copy, and what a table's slot, counts against what a window tells apart. */
  readonly alpha: number;
  readonly beta: number;
}
export const SETTINGS: Settings = {
  leaf: 2,
  spread: 8,
  maxWidth: 10,
  budget: 4 << 20,
  specific: 16,
  together: 2048,
  alpha: 0.3,
  beta: 0.5,
};

/**
 * Which trees the four kinds of boxes go to: those whose source and destination are specific, whose destination alone is,
 * whose source alone is, and the rest.
 */
const WAYS: readonly (readonly number[])[] = [
  [0, 1, 2, 3],
  [0, 1, 0, 1],
  [0, 0, 1, 1],
  [0, 0, 0, 0],
];

export function build(boxes: Boxes, settings: Settings = SETTINGS): Built {
  const started = performance.now();
  const several = grow(boxes, split(boxes, WAYS[0]!, settings), settings, started);
  if (several.shape.trees < 2 || boxes.count > settings.together) return several;
  let best = several;
  let least = cost(best.words, boxes);
  for (const way of WAYS.slice(1)) {
    const built = grow(boxes, split(boxes, way, settings), settings, started);
    const steps = cost(built.words, boxes);
    if (steps < least) [best, least] = [built, steps];
  }
  return { ...best, shape: { ...best.shape, buildMs: performance.now() - started } };
}

function grow(boxes: Boxes, groups: readonly Int32Array[], settings: Settings, started: number): Built {
  // Where memory runs out the first branches would get all of it: again, with fewer copies for everyone.
  for (let spread = settings.spread; ; spread /= 2) {
    const builder = new Builder(boxes, { ...settings, spread });
    const built = emit(boxes, groups, builder, started);
    if (!builder.starved || spread <= 1) return built;
  }
}

function emit(boxes: Boxes, groups: readonly Int32Array[], builder: Builder, started: number): Built {
  const header = Tree.ROOTS + groups.length * ROOT_WORDS;
  builder.allocate(header);
  groups.forEach((ids, g) => {
    const root = Tree.ROOTS + g * ROOT_WORDS;
    builder.begin(ids.length);
    builder.node(ids, root, 0);
    builder.words[root + Root.FIRST] = ids[0]!;
  });
  // An entry is half a cache line.
  builder.allocate(-builder.length & (ENTRY_WORDS - 1));
  const base = builder.allocate(boxes.count * ENTRY_WORDS);
  const names = [boxes.inNames, boxes.outNames].map((starts) => {
    const at = builder.allocate(starts.length * NAME_WORDS);
    starts.forEach((name, i) => packName(name, builder.words, at + i * NAME_WORDS));
    return at;
  });
  const w = builder.words;
  for (let i = 0; i < boxes.count; i++) {
    const e = base + i * ENTRY_WORDS;
    const b = i * KEYS;
    w[e + Entry.SRC] = boxes.low[b]!;
    w[e + Entry.SRC_SPAN] = boxes.high[b]! - boxes.low[b]!;
    w[e + Entry.DST] = boxes.low[b + Key.DST]!;
    w[e + Entry.DST_SPAN] = boxes.high[b + Key.DST]! - boxes.low[b + Key.DST]!;
    w[e + Entry.SPORTS] = (boxes.low[b + Key.SPORT]! << 16) | boxes.high[b + Key.SPORT]!;
    w[e + Entry.DPORTS] = (boxes.low[b + Key.DPORT]! << 16) | boxes.high[b + Key.DPORT]!;
    w[e + Entry.PROTOCOLS] = (boxes.low[b + Key.PROTOCOL]! << 8) | boxes.high[b + Key.PROTOCOL]!;
    w[e + Entry.RULE] = boxes.rule[i]!;
  }
  w[Tree.KIND] = RegionKind.TREE;
  w[Tree.VERSION] = TREE_VERSION;
  w[Tree.TREES] = groups.length;
  w[Tree.ENTRIES] = base;
  w[Tree.ENTRY_COUNT] = boxes.count;
  w[Tree.LENGTH] = builder.length;
  w[Tree.RULES] = boxes.count === 0 ? 0 : boxes.rule[boxes.count - 1]! + 1;
  w[Tree.IN_NAMES] = names[0]!;
  w[Tree.IN_COUNT] = boxes.inNames.length;
  w[Tree.OUT_NAMES] = names[1]!;
  w[Tree.OUT_COUNT] = boxes.outNames.length;
  const words = new Int32Array(new SharedArrayBuffer(builder.length * 4));
  words.set(builder.words.subarray(0, builder.length));
  return {
    words,
    decisive: builder.decisive,
    shape: {
      bytes: words.byteLength,
      trees: groups.length,
      depthMax: builder.depths.reduce((a, b) => a + b, 0),
      depthMean: builder.depthSum / builder.leafEntries,
      leafMax: builder.leafMax,
      buildMs: performance.now() - started,
    },
  };
}

/** Entries by whether their source and destination are specific. */
function split(boxes: Boxes, way: readonly number[], settings: Settings): Int32Array[] {
  const groups: number[][] = [[], [], [], []];
  for (let i = 0; i < boxes.count; i++) {
    const known = (key: Key): boolean => {
      const diff = boxes.low[i * KEYS + key]! ^ boxes.high[i * KEYS + key]!;
      return Math.clz32(diff) >= settings.specific;
    };
    groups[way[(known(Key.SRC) ? 0 : 1) | (known(Key.DST) ? 0 : 2)]!]!.push(i);
  }
  return groups
    .filter((g) => g.length > 0)
    .map((g) => Int32Array.from(g))
    .sort((a, b) => a[0]! - b[0]!);
}

class Builder {
  words = new Int32Array(1 << 16);
  length = 0;
  depths: number[] = [];
  depthSum = 0;
  leafEntries = 0;
  leafMax = 0;
  /** Words that lists not yet placed will take at most; whether a node became a leaf for want of memory. */
  private reserved = 0;
  starved = false;
  /** The region of the node at hand: which bits of each key are fixed, and to what. */
  private readonly fixed = new Uint32Array(KEYS);
  private readonly value = new Uint32Array(KEYS);
  private readonly leaves = new Map<string, number>();
  private readonly tally = new Int32Array((1 << 16) + 1);
  readonly decisive: Uint8Array;

  constructor(
    private readonly boxes: Boxes,
    private readonly settings: Settings,
  ) {
    this.decisive = new Uint8Array(boxes.count === 0 ? 0 : boxes.rule[boxes.count - 1]! + 1);
  }

  begin(entries: number): void {
    this.reserved += entries + LIST_WORDS;
    this.depths.push(0);
    this.fixed.fill(0);
    this.value.fill(0);
    for (let d = 0; d < KEYS; d++) this.fixed[d] = KEY_BITS[d]! === 32 ? 0 : ~((1 << KEY_BITS[d]!) - 1);
  }

  allocate(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.words.length) {
      const larger = new Int32Array(Math.max(this.length, this.words.length * 2));
      larger.set(this.words);
      this.words = larger;
    }
    return at;
  }

  /** Entries that can still matter in the region: none behind a final one that covers it. */
  private trim(ids: Int32Array): Int32Array {
    const { low, high, final } = this.boxes;
    outer: for (let i = 0; i < ids.length - 1; i++) {
      const id = ids[i]!;
      if (final[id] === 0) continue;
      for (let d = 0; d < KEYS; d++) {
        const min = this.value[d]!;
        const max = (this.value[d]! | ~this.fixed[d]!) >>> 0;
        if (low[id * KEYS + d]! > min || high[id * KEYS + d]! < max) continue outer;
      }
      this.decisive[this.boxes.rule[id]!] = 1;
      return ids.subarray(0, i + 1);
    }
    return ids;
  }

  node(given: Int32Array, slot: number, depth: number): void {
    this.reserved -= given.length + LIST_WORDS;
    const ids = this.trim(given);
    if (ids.length <= this.settings.leaf) return this.leaf(ids, slot, depth);
    const best = this.choose(ids);
    if (best < 0) return this.leaf(ids, slot, depth);
    const d = best & 7;
    const shift = (best >> 3) & 31;
    const width = best >> 8;
    const size = 1 << width;
    const mask = size - 1;
    const { low, high } = this.boxes;
    // Children's lists, one behind the other.
    const starts = new Int32Array(size + 1);
    for (const id of ids) {
      const l = low[id * KEYS + d]!;
      const h = high[id * KEYS + d]!;
      let a = 0;
      let b = mask;
      if (shift + width >= 32 || (l ^ h) >>> (shift + width) === 0) {
        a = (l >>> shift) & mask;
        b = (h >>> shift) & mask;
      }
      starts[a]!++;
      starts[b + 1]!--;
    }
    // Differences → counts → starts.
    let run = 0;
    let total = 0;
    for (let i = 0; i <= size; i++) {
      run += starts[i]!;
      starts[i] = total;
      total += run;
    }
    const more = total + size * (2 + LIST_WORDS);
    if (this.length + this.reserved + more > this.settings.budget) {
      this.starved = true;
      return this.leaf(ids, slot, depth);
    }
    this.reserved += total + size * LIST_WORDS;
    const lists = new Int32Array(total);
    const next = starts.slice(0, size);
    for (const id of ids) {
      const l = low[id * KEYS + d]!;
      const h = high[id * KEYS + d]!;
      let a = 0;
      let b = mask;
      if (shift + width >= 32 || (l ^ h) >>> (shift + width) === 0) {
        a = (l >>> shift) & mask;
        b = (h >>> shift) & mask;
      }
      for (let c = a; c <= b; c++) lists[next[c]!++] = id;
    }
    const table = this.allocate(size * 2);
    this.words[slot] = d | (shift << 3) | (mask << 8);
    this.words[slot + 1] = table;
    const fixed = this.fixed[d]!;
    const value = this.value[d]!;
    for (let c = 0; c < size; c++) {
      const list = lists.subarray(starts[c]!, starts[c + 1]!);
      const at = table + c * 2;
      if (list.length === 0) {
        this.reserved -= LIST_WORDS;
        this.leaf(list, at, depth + 1);
        continue;
      }
      // Same list as the one before: the same subtree does, if it was built without the window's bits.
      if (c > 0 && same(list, lists.subarray(starts[c - 1]!, starts[c]!))) {
        this.reserved -= list.length + LIST_WORDS;
        this.words[at] = this.words[at - 2]!;
        this.words[at + 1] = this.words[at - 1]!;
        continue;
      }
      const shared = c + 1 < size && same(list, lists.subarray(starts[c + 1]!, starts[c + 2]!));
      if (!shared) {
        this.fixed[d] = fixed | (mask << shift);
        this.value[d] = value | (c << shift);
      }
      this.node(list, at, depth + 1);
      this.fixed[d] = fixed;
      this.value[d] = value;
    }
  }

  private leaf(ids: Int32Array, slot: number, depth: number): void {
    const tree = this.depths.length - 1;
    if (depth > this.depths[tree]!) this.depths[tree] = depth;
    this.depthSum += depth * ids.length;
    this.leafEntries += ids.length;
    if (ids.length > this.leafMax) this.leafMax = ids.length;
    this.words[slot] = LEAF;
    const key = ids.join();
    let at = this.leaves.get(key);
    if (at === undefined) {
      at = this.allocate(LEAF_WORDS + ids.length + 1);
      this.words[at] = LEAF;
      this.words[at + 1] = at;
      this.words.set(ids, at + LEAF_WORDS);
      this.words[at + LEAF_WORDS + ids.length] = NONE;
      this.leaves.set(key, at);
    }
    this.words[slot + 1] = at;
  }

  /** The bits of key `d` in which bounds differ: elsewhere there is next to nothing to tell apart. */
  private varies(ids: Int32Array, d: number): number {
    const { low, high } = this.boxes;
    const first = ids[0]! * KEYS + d;
    let bits = 0;
    for (const id of ids) bits |= (low[id * KEYS + d]! ^ low[first]!) | (high[id * KEYS + d]! ^ high[first]!);
    return bits;
  }

  /** The best window as key | shift << 3 | width << 8, or −1 when none helps. */
  private choose(ids: Int32Array): number {
    const { settings, tally } = this;
    const { low, high } = this.boxes;
    const n = ids.length;
    const step = n > 4000 ? n >> 11 : 1;
    const sampled = Math.ceil(n / step);
    let best = -1;
    let bestScore = 0.2;
    const before = Math.log2(n);
    const limit = Math.max(2, Math.min(settings.maxWidth, Math.ceil(Math.log2(n)) + 1));
    for (let d = 0; d < KEYS; d++) {
      const bits = KEY_BITS[d]!;
      const varies = this.varies(ids, d);
      if (varies === 0) continue;
      for (let width = 1; width <= Math.min(limit, bits); width++) {
        if (width > 4 && (width & 1) !== 0 && width !== limit) continue;
        const size = 1 << width;
        const mask = size - 1;
        for (let shift = bits - width; shift >= 0; shift--) {
          if (((this.fixed[d]! >>> shift) & mask) !== 0 || ((varies >>> shift) & mask) === 0) continue;
          tally.fill(0, 0, size + 1);
          const top = shift + width;
          for (let i = 0; i < n; i += step) {
            const b = ids[i]! * KEYS + d;
            const l = low[b]!;
            const h = high[b]!;
            if (top >= 32 || (l ^ h) >>> top === 0) {
              tally[(l >>> shift) & mask]!++;
              tally[((h >>> shift) & mask) + 1]!--;
            } else {
              tally[0]!++;
              tally[size]!--;
            }
          }
          let run = 0;
          let total = 0;
          let sum = 0;
          let largest = 0;
          for (let c = 0; c < size; c++) {
            run += tally[c]!;
            if (run === 0) continue;
            total += run;
            if (run > largest) largest = run;
            sum += run * LOG[run < LOG.length ? run : LOG.length - 1]!;
          }
          if (largest >= sampled) continue;
          if (total + size / step > settings.spread * sampled + 8) continue;
          const after = sum / total + Math.log2(step);
          const score = before - after - settings.alpha * Math.log2(total / sampled) - (settings.beta * size) / n;
          if (score > bestScore) {
            bestScore = score;
            best = d | (shift << 3) | (width << 8);
          }
        }
      }
    }
    return best;
  }
}

/** Words of a leaf's list beside its entries. */
const LIST_WORDS = LEAF_WORDS + 1;

const LOG = Float64Array.from({ length: 16384 }, (_, i) => Math.log2(Math.max(1, i)));

function same(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
