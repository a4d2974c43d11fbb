/**
 * The trees of a router's chains. A tree knows its rules by identity: a chain that has changed since keeps it for the rules
 * that are still there in their old order, and meets the new ones beside it, until a new tree is there. So a command
 * costs no tree; trees are grown afterwards (`plant`), and the next compile uses them.
 */
import { Chain, CHAIN_WORDS, Rule as R } from '../../../dataplane/program/format.js';
import type { Rule } from '../../model.js';
import type { RegionStore } from '../regions.js';
import { Boxes } from './boxes.js';
import { build, type Built, type Shape } from './build.js';
import { addRule, collectNames, Names } from './rule.js';

/** Chains with fewer rules are walked in order: a tree takes as long as so many tests that fail. */
export const MIN_RULES = 12;

interface Grown {
  readonly rules: readonly Rule[];
  /** By identity. */
  readonly number: ReadonlyMap<number, number>;
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
  /** Keys of trees that others have taken the place of. */
  private replaced: string[] = [];
  private serial = 0;

  /**
   * What the chain's index needs of the tree that it has, if it has one that is still of use. `before`: what that was for
   * other rules.
   */
  keep(
    name: string,
    rules: readonly Rule[],
    before?: { readonly rules: readonly Rule[]; readonly kept: Kept | undefined },
  ): Kept | undefined {
    const grown = this.chains.get(name);
    if (grown === undefined || rules.length < MIN_RULES) return undefined;
    if (before?.rules === rules && before.kept?.grown === grown) return before.kept;
    const { rules: known, number, decisive } = grown;
    const positions = new Int32Array(known.length).fill(-1);
    const beside: number[] = [];
    let last = -1;
    for (let i = 0; i < rules.length; i++) {
      // Mostly the rule behind the last one.
      const rule = rules[i]!;
      const n = known[last + 1] === rule ? last + 1 : (number.get(rule.id) ?? -1);
      if (n > last) positions[(last = n)] = i;
      else beside.push(i);
    }
    for (let n = 0; n < positions.length; n++) if (positions[n]! < 0 && decisive[n] !== 0) return undefined;
    return { grown, positions, beside };
  }

  /**
   * Whether the chain of so many rules, of whose tree `kept` is what holds, lacks a tree, or more than `slack` of its rules
   * lie beside it, or most of the tree's are gone.
   */
  stale(name: string, rules: number, kept: Kept | undefined, slack: number): boolean {
    if (rules < MIN_RULES) return false;
    if (kept === undefined || kept.grown !== this.chains.get(name) || kept.beside.length > slack) return true;
    const known = kept.positions.length;
    return known - (rules - kept.beside.length) > (slack === 0 ? 0 : known >> 1);
  }

  /** Takes in the tree built for a chain with these rules. */
  plant(name: string, rules: readonly Rule[], { words, decisive, shape }: Built, regions: RegionStore): void {
    const key = `tree/${++this.serial}`;
    const region = regions.region(key, words.length, (to) => to.set(words));
    const old = this.chains.get(name);
    if (old !== undefined) this.replaced.push(old.key);
    const number = new Map(rules.map(({ id }, i) => [id, i]));
    this.chains.set(name, { rules, number, decisive, key, region, shape });
  }

  /** The keys of trees that others have taken the place of, or whose chain is none. */
  retired(isChain: (name: string) => boolean): string[] {
    const keys = [...this.replaced];
    for (const [name, { key }] of this.chains) if (!isChain(name)) keys.push(key);
    return keys;
  }

  /** Forgets the trees whose memory is given back. */
  release(keys: readonly string[]): void {
    if (keys.length === 0) return;
    const gone = new Set(keys);
    this.replaced = this.replaced.filter((key) => !gone.has(key));
    for (const [name, { key }] of this.chains) if (gone.has(key)) this.chains.delete(name);
  }

  shape(name: string): Shape | undefined {
    return this.chains.get(name)?.shape;
  }
}

/** The tree over a chain's rules, one behind the other. Needs nothing but its argument, so it can be called in any thread. */
export function buildTree(joined: Int32Array): Built {
  const rules: Int32Array[] = [];
  for (let at = 0; at < joined.length; at += joined[at + R.LENGTH]!)
    rules.push(joined.subarray(at, at + joined[at + R.LENGTH]!));
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

/** Writes the index of the chain, whose rules start at `starts` from its first, behind them; and what its header says of it. */
export function placeIndex(words: Int32Array, chain: number, starts: Int32Array, kept: Kept | undefined): void {
  const first = chain + CHAIN_WORDS;
  let at = words[chain + Chain.END]!;
  words[chain + Chain.TREE] = kept === undefined ? 0 : kept.grown.region + 1;
  if (kept !== undefined) {
    const { positions } = kept;
    for (let n = 0; n < positions.length; n++) words[at++] = positions[n]! < 0 ? 0 : first + starts[positions[n]!]!;
  }
  words[chain + Chain.NEW] = at;
  if (kept !== undefined) for (const position of kept.beside) words[at++] = first + starts[position]!;
  words[chain + Chain.NEXT] = at;
}
