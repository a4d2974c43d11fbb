/**
 * The decision tree: which rules of a chain can still match a packet, found in a few steps. Flat words in a shared region,
 * built by control/compile/tree, verified like the program, never changed; it outlives programs, as it knows rules only by
 * their number at its time (the chain says where they are now, see format.ts). The rules are split into a few trees, as a
 * wildcard would otherwise be copied into every branch; their answers are merged in rule order.
 *
 *     header   see `Tree`, then a root a tree: NODE AT FIRST
 *     node     some neighbouring bits of one key choose a child; AT: offset of its table, two words a child: NODE AT
 *     leaf     NODE = LEAF; AT: offset of LEAF AT (itself once more), then entry numbers, ascending, then NONE
 *     entries  the boxes, ENTRY_WORDS each, ascending by rule; a rule can have several
 *     names    where the ranges of interface names begin that rules tell apart, NAME_WORDS each, ascending
 *
 * NODE = key | shift << 3 | mask << 8: the child's number is (keys[key] >>> shift) & mask. Keys are those of `Key`.
 */
import { CtState, Proto } from '../names.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { stateOf } from './state.js';

export const TREE_VERSION = 1;

/** A leaf's NODE: read as a node it leads to child 0, which is the leaf itself. Lookups side by side can so wait for the last. */
export const LEAF = (1 << 31) | (31 << 3);
export const LEAF_WORDS = 2;
/** Ends a leaf's list; above every entry. */
export const NONE = 0x7fffffff;

/** What a packet is looked up by, a word each. */
export const enum Key {
  SRC = 0,
  DST = 1,
  PROTOCOL = 2,
  SPORT = 3,
  /** Destination port; of ICMP type << 8 | code. */
  DPORT = 4,
  /** Number of the range of names in which the interface's lies. */
  IN = 5,
  OUT = 6,
  /** Number of the one CtState bit. */
  STATE = 7,
}
export const KEYS = 8;

export const enum Tree {
  /** As of every region (regions.ts). */
  LOCK = 0,
  KIND = 1,
  VERSION = 2,
  LENGTH = 3,
  TREES = 4,
  ENTRIES = 5,
  ENTRY_COUNT = 6,
  /** Entries stand for rules below this number. */
  RULES = 7,
  /** Offset and number of the names; 0 names: the rules don't ask. */
  IN_NAMES = 8,
  IN_COUNT = 9,
  OUT_NAMES = 10,
  OUT_COUNT = 11,
  ROOTS = 12,
}
export const enum Root {
  NODE = 0,
  AT = 1,
  /** The lowest entry number of the tree. */
  FIRST = 2,
}
export const ROOT_WORDS = 3;
export const MAX_TREES = 8;
export const NAME_WORDS = 4;

/** An entry: a box and the rule that it is part of. Bounds of addresses as first address and size less one. */
export const enum Entry {
  SRC = 0,
  SRC_SPAN = 1,
  DST = 2,
  DST_SPAN = 3,
  /** first << 16 | last */
  SPORTS = 4,
  DPORTS = 5,
  /** first << 8 | last */
  PROTOCOLS = 6,
  RULE = 7,
}
export const ENTRY_WORDS = 8;

/**
 * Whether a tree can be asked about the packet: its transport header is there and whole, or its protocol has none that
 * rules read. Of others some tests say "impossible" before they look at ports, so they meet every rule in turn.
 */
export function ordinary(p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  switch (p.protocol) {
    case Proto.TCP:
      return p.tcpOk !== 0;
    case Proto.UDP:
    case Proto.ICMP:
      return p.l4Length >= 8;
    case Proto.UDPLITE:
    case Proto.SCTP:
    case Proto.DCCP:
      return p.hasPorts !== 0;
  }
  return true;
}

/** Begins to look for the packet's rules in the tree; `nextRule` goes on. What the packet's keys are is read here. */
export function beginRules(context: Context, words: Int32Array, p: Packet): void {
  const keys = context.keys;
  keys[Key.SRC] = p.src;
  keys[Key.DST] = p.dst;
  keys[Key.PROTOCOL] = p.protocol;
  keys[Key.SPORT] = p.sport;
  keys[Key.DPORT] = p.protocol === Proto.ICMP ? (p.icmpType << 8) | p.icmpCode : p.dport;
  const names = context.interfaces.words;
  keys[Key.IN] = nameRange(words, words[Tree.IN_NAMES]!, words[Tree.IN_COUNT]!, names, context.inName);
  keys[Key.OUT] = nameRange(words, words[Tree.OUT_NAMES]!, words[Tree.OUT_COUNT]!, names, context.outName);
  keys[Key.STATE] = 31 - Math.clz32(stateOf(p) & (CtState.UNTRACKED * 2 - 1));
  context.cursors.fill(0, 0, words[Tree.TREES]!);
}

/**
 * The lowest offset, not below `from`, of a rule that can match; NONE when there is none. `index` is where the program
 * says where the tree's rules are now, in their old order: an offset each, 0 = gone.
 */
export function nextRule(
  context: Context,
  words: Int32Array,
  program: Int32Array,
  index: number,
  from: number,
): number {
  const { keys, cursors } = context;
  const trees = words[Tree.TREES]!;
  const entries = words[Tree.ENTRIES]!;
  let bestEntry = NONE;
  let best = NONE;
  for (let t = 0; t < trees; t++) {
    let list = cursors[t]!;
    if (list === 0) {
      const root = Tree.ROOTS + t * ROOT_WORDS;
      if (words[root + Root.FIRST]! >= bestEntry) continue;
      let node = words[root + Root.NODE]!;
      let at = words[root + Root.AT]!;
      while (node >= 0) {
        const child = at + (((keys[node & 7]! >>> (node >>> 3)) & (node >>> 8)) << 1);
        node = words[child]!;
        at = words[child + 1]!;
      }
      list = at + LEAF_WORDS;
    }
    for (; ; list++) {
      const entry = words[list]!;
      if (entry >= bestEntry) break;
      const e = entries + entry * ENTRY_WORDS;
      const rule = program[index + words[e + Entry.RULE]!]!;
      if (rule < from || !inside(words, e, keys, 0)) continue;
      bestEntry = entry;
      best = rule;
      break;
    }
    cursors[t] = list;
  }
  return best;
}

/** The number of the range that holds names[name …]: how many of the `count` beginnings lie at it or before. */
function nameRange(words: Int32Array, at: number, count: number, names: Int32Array, name: number): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    const o = at + middle * NAME_WORDS;
    let i = 0;
    while (i < NAME_WORDS - 1 && words[o + i]! === names[name + i]!) i++;
    if (words[o + i]! >>> 0 <= names[name + i]! >>> 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Whether the entry's box at offset `e` holds the five-tuple at keys[k …]. Sign bits say "outside": one branch for all. */
function inside(words: Int32Array, e: number, keys: Int32Array, k: number): boolean {
  const s = (keys[k]! - words[e]!) | 0;
  const t = words[e + Entry.SRC_SPAN]!;
  const u = (keys[k + Key.DST]! - words[e + Entry.DST]!) | 0;
  const v = words[e + Entry.DST_SPAN]!;
  const protocol = keys[k + Key.PROTOCOL]!;
  const sport = keys[k + Key.SPORT]!;
  const dport = keys[k + Key.DPORT]!;
  const sports = words[e + Entry.SPORTS]!;
  const dports = words[e + Entry.DPORTS]!;
  const protocols = words[e + Entry.PROTOCOLS]!;
  // The borrow of t − s, and of v − u, as unsigned numbers.
  const addresses = (~t & s) | ((~t | s) & (t - s)) | (~v & u) | ((~v | u) & (v - u));
  const ports =
    (dport - (dports >>> 16)) | ((dports & 0xffff) - dport) | (sport - (sports >>> 16)) | ((sports & 0xffff) - sport);
  return (addresses | ports | (protocol - (protocols >>> 8)) | ((protocols & 0xff) - protocol)) >= 0;
}

/**
 * The first entry whose box holds the five-tuple at keys[k …] (Key.SRC to Key.DPORT), −1 = none. Trees that can't hold a
 * lower one than was found are left out.
 */
export function classify(words: Int32Array, keys: Int32Array, k: number): number {
  const roots = Tree.ROOTS + words[Tree.TREES]! * ROOT_WORDS;
  const entries = words[Tree.ENTRIES]!;
  let best = NONE;
  for (let root = Tree.ROOTS; root < roots; root += ROOT_WORDS) {
    if (words[root + Root.FIRST]! >= best) continue;
    let node = words[root]!;
    let at = words[root + 1]!;
    while (node >= 0) {
      const child = at + (((keys[k + (node & 7)]! >>> (node >>> 3)) & (node >>> 8)) << 1);
      node = words[child]!;
      at = words[child + 1]!;
    }
    for (let list = at + LEAF_WORDS; ; list++) {
      const entry = words[list]!;
      if (entry >= best) break;
      const e = entries + entry * ENTRY_WORDS;
      if (!inside(words, e, keys, k)) continue;
      best = entry;
      break;
    }
  }
  return best === NONE ? -1 : best;
}

/**
 * `classify` for `count` packets, whose keys lie KEYS words apart from keys[0]; out[i] = the entry or NONE. Four at a time,
 * as the processor waits for memory less often when it knows four addresses to read.
 */
export function classifyBatch(words: Int32Array, keys: Int32Array, count: number, out: Int32Array): void {
  const trees = words[Tree.TREES]!;
  const end = Tree.ROOTS + trees * ROOT_WORDS;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const k0 = i * KEYS;
    const k1 = k0 + KEYS;
    const k2 = k1 + KEYS;
    const k3 = k2 + KEYS;
    let b0 = NONE;
    let b1 = NONE;
    let b2 = NONE;
    let b3 = NONE;
    for (let root = Tree.ROOTS; root < end; root += ROOT_WORDS) {
      const first = words[root + Root.FIRST]!;
      if (first >= b0 && first >= b1 && first >= b2 && first >= b3) continue;
      let n0 = words[root]!;
      let n1 = n0;
      let n2 = n0;
      let n3 = n0;
      let a0 = words[root + 1]!;
      let a1 = a0;
      let a2 = a0;
      let a3 = a0;
      while ((n0 & n1 & n2 & n3) >= 0) {
        const c0 = a0 + (((keys[k0 + (n0 & 7)]! >>> (n0 >>> 3)) & (n0 >>> 8)) << 1);
        const c1 = a1 + (((keys[k1 + (n1 & 7)]! >>> (n1 >>> 3)) & (n1 >>> 8)) << 1);
        const c2 = a2 + (((keys[k2 + (n2 & 7)]! >>> (n2 >>> 3)) & (n2 >>> 8)) << 1);
        const c3 = a3 + (((keys[k3 + (n3 & 7)]! >>> (n3 >>> 3)) & (n3 >>> 8)) << 1);
        n0 = words[c0]!;
        a0 = words[c0 + 1]!;
        n1 = words[c1]!;
        a1 = words[c1 + 1]!;
        n2 = words[c2]!;
        a2 = words[c2 + 1]!;
        n3 = words[c3]!;
        a3 = words[c3 + 1]!;
      }
      b0 = scan(words, a0 + LEAF_WORDS, keys, k0, b0);
      b1 = scan(words, a1 + LEAF_WORDS, keys, k1, b1);
      b2 = scan(words, a2 + LEAF_WORDS, keys, k2, b2);
      b3 = scan(words, a3 + LEAF_WORDS, keys, k3, b3);
    }
    out[i] = b0;
    out[i + 1] = b1;
    out[i + 2] = b2;
    out[i + 3] = b3;
  }
  for (; i < count; i++) {
    const entry = classify(words, keys, i * KEYS);
    out[i] = entry < 0 ? NONE : entry;
  }
}

/** The first entry of a leaf's list, below `best`, whose box holds the keys; else `best`. */
function scan(words: Int32Array, list: number, keys: Int32Array, k: number, best: number): number {
  let entry = words[list]!;
  if (entry >= best) return best;
  const entries = words[Tree.ENTRIES]!;
  do {
    if (inside(words, entries + entry * ENTRY_WORDS, keys, k)) return entry;
    entry = words[++list]!;
  } while (entry < best);
  return best;
}
