/** Proves a decision tree safe to read (tree.ts): everything lies within it, nothing goes round. Control plane, once a tree. */
import { Region, RegionKind } from './regions.js';
import {
  Entry,
  ENTRY_WORDS,
  KEYS,
  LEAF,
  LEAF_WORDS,
  MAX_TREES,
  NAME_WORDS,
  NONE,
  Root,
  ROOT_WORDS,
  Tree,
  TREE_VERSION,
} from './tree.js';

const sound = new WeakSet<Int32Array>();

/** What is wrong with it, as a sentence; undefined: nothing. Trees never change, so each is read once. */
export function treeFault(words: Int32Array): string | undefined {
  if (sound.has(words)) return undefined;
  const fault = findFault(words);
  if (fault === undefined) sound.add(words);
  return fault;
}

function findFault(words: Int32Array): string | undefined {
  if (words.length < Tree.ROOTS || words[Region.KIND] !== RegionKind.TREE) return 'not a tree';
  if (words[Tree.VERSION] !== TREE_VERSION) return `version ${words[Tree.VERSION]}, not ${TREE_VERSION}`;
  if (words[Tree.LENGTH] !== words.length) return `length ${words[Tree.LENGTH]}, but ${words.length} words are there`;
  const trees = words[Tree.TREES]!;
  if (trees < 0 || trees > MAX_TREES || Tree.ROOTS + trees * ROOT_WORDS > words.length) return `${trees} trees`;
  const outside = (at: number, count: number, size: number): boolean =>
    at < Tree.ROOTS || count < 0 || count > words.length || at + count * size > words.length;
  const entries = words[Tree.ENTRY_COUNT]!;
  if (outside(words[Tree.ENTRIES]!, entries, ENTRY_WORDS)) return 'its entries are outside';
  for (let i = 0, last = 0; i < entries; i++) {
    const rule = words[words[Tree.ENTRIES]! + i * ENTRY_WORDS + Entry.RULE]!;
    if (rule < last || rule >= words[Tree.RULES]!) return `entry ${i} stands for rule ${rule}`;
    last = rule;
  }
  for (const [at, count] of [
    [words[Tree.IN_NAMES]!, words[Tree.IN_COUNT]!],
    [words[Tree.OUT_NAMES]!, words[Tree.OUT_COUNT]!],
  ] as const)
    if (outside(at, count, NAME_WORDS)) return 'its names are outside';
  // Tables by offset: 1 = on the way, 2 = sound, as far as their size says.
  const state = new Uint8Array(words.length);
  const sizes = new Map<number, number>();
  for (let t = 0; t < trees; t++) {
    const root = Tree.ROOTS + t * ROOT_WORDS;
    const first = words[root + Root.FIRST]!;
    if (first < 0) return `tree ${t} begins with entry ${first}`;
    const path: { table: number; children: number; next: number }[] = [];
    for (let slot = root; ;) {
      const node = words[slot]!;
      const at = words[slot + 1]!;
      if (node < 0) {
        const fault = leafFault(words, node, at, entries);
        if (fault !== undefined) return `word ${slot}: ${fault}`;
      } else {
        const mask = node >>> 8;
        if ((node & 7) >= KEYS || ((mask + 1) & mask) !== 0) return `word ${slot}: node ${node}`;
        if (outside(at, mask + 1, 2)) return `word ${slot}: its table is outside`;
        if ((sizes.get(at) ?? mask) !== mask) return `word ${slot}: a table of two sizes`;
        sizes.set(at, mask);
        if (state[at] === 1) return `word ${slot}: goes round to ${at}`;
        if (state[at] === 0) {
          state[at] = 1;
          path.push({ table: at, children: mask + 1, next: 0 });
        }
      }
      let here = path[path.length - 1];
      while (here !== undefined && here.next === here.children) {
        state[here.table] = 2;
        path.pop();
        here = path[path.length - 1];
      }
      if (here === undefined) break;
      slot = here.table + here.next++ * 2;
    }
  }
  return undefined;
}

function leafFault(words: Int32Array, node: number, at: number, entries: number): string | undefined {
  if (node !== LEAF) return `node ${node}`;
  if (at < Tree.ROOTS || at + LEAF_WORDS >= words.length) return 'its leaf is outside';
  if (words[at] !== LEAF || words[at + 1] !== at) return 'its leaf is none';
  for (let list = at + LEAF_WORDS, last = -1; ; list++) {
    if (list >= words.length) return 'its leaf has no end';
    const entry = words[list]!;
    if (entry === NONE) return undefined;
    if (entry <= last || entry >= entries) return `its leaf lists entry ${entry}`;
    last = entry;
  }
}
