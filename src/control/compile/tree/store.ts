/**
 * The trees of a router's chains. A tree knows its rules by identity: a chain that has changed since keeps it for the rules
 * that are still there in their old order, and meets the new ones beside it, until a new tree is there. So a command
 * costs no tree; trees are grown afterwards (`plant`), and the next compile uses them.
 */
import { Chain, CHAIN_WORDS, Rule } from '../../../dataplane/program/format.js';
import type { Lowered } from '../lower.js';
import type { RegionStore } from '../regions.js';
import { Boxes } from './boxes.js';
import { build, type Built, type Shape } from './build.js';
import { addRule, collectNames, Names } from './rule.js';

/** Chains with fewer rules are walked in order: a tree takes as long as so many tests that fail. */
export const MIN_RULES = 12;

interface Grown {
  readonly rules: readonly Lowered[];
  readonly number: ReadonlyMap<Lowered, number>;
  readonly decisive: Uint8Array;
  readonly key: string;
  readonly region: number;
  readonly shape: Shape;
}

/** A chain's tree and what of it still holds. */
export interface Kept {
  readonly grown: Grown;
  /** By the tree's numbers: the rule's position in the chain now, −1 = gone. */
  readonly positions: Int32Array;
  /** Positions of rules beside the tree. */
  readonly beside: readonly number[];
}

export class TreeStore {
  private readonly chains = new Map<string, Grown>();
  private serial = 0;

  /** What the chain's index needs of the tree that it has, if it has one that is still of use. */
  keep(name: string, rules: readonly Lowered[]): Kept | undefined {
    const grown = this.chains.get(name);
    if (grown === undefined || rules.length < MIN_RULES) return undefined;
    const positions = new Int32Array(grown.rules.length).fill(-1);
    const beside: number[] = [];
    let last = -1;
    for (let i = 0; i < rules.length; i++) {
      // Mostly the rule behind the last one.
      const rule = rules[i]!;
      const number = grown.rules[last + 1] === rule ? last + 1 : (grown.number.get(rule) ?? -1);
      if (number > last) positions[(last = number)] = i;
      else beside.push(i);
    }
    for (let n = 0; n < positions.length; n++) if (positions[n]! < 0 && grown.decisive[n] !== 0) return undefined;
    return { grown, positions, beside };
  }

  /** Whether the chain lacks a tree, or more than `slack` of its rules lie beside it, or most of the tree's are gone. */
  stale(name: string, rules: readonly Lowered[], slack: number): boolean {
    if (rules.length < MIN_RULES) return false;
    const kept = this.keep(name, rules);
    if (kept === undefined || kept.beside.length > slack) return true;
    const known = kept.positions.length;
    return known - (rules.length - kept.beside.length) > (slack === 0 ? 0 : known >> 1);
  }

  /** Takes in the tree built for a chain with these rules. */
  plant(name: string, rules: readonly Lowered[], { words, decisive, shape }: Built, regions: RegionStore): void {
    const key = `tree/${++this.serial}`;
    const region = regions.region(key, words.length, (to) => to.set(words));
    this.chains.set(name, { rules, number: new Map(rules.map((rule, i) => [rule, i])), decisive, key, region, shape });
  }

  /** The keys of the memory of these chains' trees. */
  keys(names: readonly string[]): string[] {
    return names.flatMap((name) => this.chains.get(name)?.key ?? []);
  }

  /** Forgets the trees whose memory is given back. */
  release(keys: readonly string[]): void {
    for (const [name, { key }] of this.chains) if (keys.includes(key)) this.chains.delete(name);
  }

  shape(name: string): Shape | undefined {
    return this.chains.get(name)?.shape;
  }
}

/** Rules' words one behind the other: what `buildTree` takes. */
export function joinWords(rules: readonly Lowered[]): Int32Array {
  const joined = new Int32Array(rules.reduce((sum, { words }) => sum + words.length, 0));
  let at = 0;
  for (const { words } of rules) {
    joined.set(words, at);
    at += words.length;
  }
  return joined;
}

/** The tree over a chain's rules. Needs nothing but its argument, so it can be called in any thread. */
export function buildTree(joined: Int32Array): Built {
  const rules: Int32Array[] = [];
  for (let at = 0; at < joined.length; at += joined[at + Rule.LENGTH]!)
    rules.push(joined.subarray(at, at + joined[at + Rule.LENGTH]!));
  const boxes = new Boxes(rules.length);
  const ins = new Names();
  const outs = new Names();
  for (const words of rules) collectNames(words, ins, outs);
  rules.forEach((words, i) => {
    addRule(boxes, i, words, ins, outs);
  });
  boxes.inNames = ins.list;
  boxes.outNames = outs.list;
  return build(boxes);
}

/** Words of the chain's index. */
export const indexWords = (kept: Kept | undefined): number =>
  kept === undefined ? 0 : kept.positions.length + kept.beside.length;

/** Writes the chain's index behind its rules, and what its header says of it. */
export function placeIndex(words: Int32Array, chain: number, rules: number, kept: Kept | undefined): void {
  let at = words[chain + Chain.END]!;
  words[chain + Chain.TREE] = kept === undefined ? 0 : kept.grown.region + 1;
  if (kept !== undefined) {
    const offsets = new Int32Array(rules);
    for (let i = 0, o = chain + CHAIN_WORDS; i < rules; o += words[o + Rule.LENGTH]!, i++) offsets[i] = o;
    for (const position of kept.positions) words[at++] = position < 0 ? 0 : offsets[position]!;
    words[chain + Chain.NEW] = at;
    for (const position of kept.beside) words[at++] = offsets[position]!;
  } else words[chain + Chain.NEW] = at;
  words[chain + Chain.NEXT] = at;
}
