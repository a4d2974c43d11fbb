/**
 * The compiler: a ruleset (control/model.ts) becomes a program (dataplane/program/format.ts). One object a router; it keeps
 * what must outlive a swap: counter slots and rule state by identity, and the words of rules that didn't change.
 *
 * The passes are the lines of `passes`. A compile that fails changes nothing, nor does one whose program is never put in
 * force. After every worker runs the new program, and the caller has zeroed the slots it returned as retired, `release`
 * frees what only the old one used; only then is the next compiled.
 */
import {
  HOOK_COUNT,
  HOOK_NAMES,
  TABLE_NAMES,
  Verdict,
  type Hook,
  type HookName,
  type TableName,
} from '../../dataplane/names.js';
import {
  Chain as C,
  CHAIN_WORDS,
  Header,
  HEADER_WORDS,
  MAGIC,
  POLICY_RETURN,
  ProgramFlag,
  Rule as R,
  VERSION,
} from '../../dataplane/program/format.js';
import { verify } from '../../dataplane/program/verify.js';
import type { Chain, Rule, Ruleset, TableModel } from '../model.js';
import { lower, RuleError, type Lowered } from './lower.js';
import { RegionStore } from './regions.js';
import { CounterSlots } from './slots.js';
import type { Built } from './tree/build.js';
import { buildTree, indexWords, joinWords, placeIndex, TreeStore, type Kept } from './tree/store.js';

/** A rule that can't be compiled: where it is and why. */
export class CompileError extends Error {
  override readonly name = 'CompileError';
  constructor(
    readonly table: TableName,
    readonly chain: string,
    /** As iptables counts, from 1; 0 = the chain itself. */
    readonly ruleNumber: number,
    readonly reason: string,
  ) {
    super(ruleNumber === 0 ? `${table} ${chain}: ${reason}` : `${table} ${chain}, rule ${ruleNumber}: ${reason}`);
  }
}

export interface Compiled {
  /** The program, over a SharedArrayBuffer, verified. */
  readonly words: Int32Array;
  /** State regions by number. */
  readonly regions: Int32Array[];
  /** Slots that a worker's counter slab must hold; two doubles each. */
  readonly counters: number;
  /** Some rule needs connections (ProgramFlag.CONNECTIONS). */
  readonly connections: boolean;
  /** Counter slots that only former programs use; to be zeroed in every slab before `release`. */
  readonly retiredCounters: readonly number[];
  /** Rules and policies, and keys of state, that no longer are: what `release` frees. */
  readonly retiredIds: readonly number[];
  readonly retiredKeys: readonly string[];
}

/** A chain that wants a tree, and the rules to build it for. */
export interface StaleTree {
  readonly name: string;
  readonly rules: readonly Lowered[];
}

export class Compiler {
  readonly slots = new CounterSlots();
  readonly regions = new RegionStore();
  readonly trees = new TreeStore();
  /** By the rule's id: zeroed counters make a new Rule with the same one. */
  private readonly lowered = new Map<number, Lowered>();

  /** @param hz kernel ticks a second, as the workers' contexts have it */
  constructor(readonly hz: number) {}

  /** @throws CompileError for the first rule that can't be compiled. */
  compile(ruleset: Ruleset): Compiled {
    this.regions.begin();
    try {
      return this.passes(ruleset);
    } catch (error) {
      this.regions.rollback();
      throw error;
    }
  }

  private passes(ruleset: Ruleset): Compiled {
    const tables = [...ruleset.tables].sort((a, b) => TABLE_NAMES.indexOf(a.name) - TABLE_NAMES.indexOf(b.name));
    const hooks = tables.map(reachable);
    const lowered = tables.map((table, i) => this.lowerTable(table, hooks[i]!));
    const trees = tables.map((table, t) => this.keepTrees(table, lowered[t]!));
    const layout = place(tables, lowered, trees);
    const words = this.emit(tables, lowered, trees, layout);
    const regions = this.regions.list();
    const retiredIds = this.slots.retired(identities(tables));
    const keys = new Set<string>();
    for (const chains of lowered)
      for (const rules of chains.values()) for (const rule of rules) for (const key of rule.keys) keys.add(key);
    for (const key of this.trees.keys(tables.flatMap((table) => [...table.chains.keys()].map(treeName(table)))))
      keys.add(key);
    verify(words, { regions, counters: this.slots.length });
    return {
      words,
      regions,
      counters: this.slots.length,
      connections: (words[Header.FLAGS]! & ProgramFlag.CONNECTIONS) !== 0,
      retiredCounters: retiredIds.map((id) => this.slots.of(id)!),
      retiredIds,
      retiredKeys: this.regions.retired(keys),
    };
  }

  /**
   * The larger chains of a ruleset that lack a decision tree, or have more than `slack` rules beside the one they have.
   * The ruleset has been compiled.
   */
  staleTrees(ruleset: Ruleset, slack: number): StaleTree[] {
    return ruleset.tables.flatMap((table) =>
      [...table.chains.values()].flatMap((chain) => {
        const rules = chain.rules.map((rule) => this.lowered.get(rule.id)!);
        const name = treeName(table)(chain.name);
        return this.trees.stale(name, rules, slack) ? [{ name, rules }] : [];
      }),
    );
  }

  /** Takes in a tree that was built for a stale one's rules (tree/store.ts `buildTree`); the next compile uses it. */
  plant({ name, rules }: StaleTree, tree: Built): void {
    this.trees.plant(name, rules, tree, this.regions);
  }

  /** Builds the trees that a compiled ruleset lacks, here and now. Whether there were any. */
  growTrees(ruleset: Ruleset): boolean {
    const stale = this.staleTrees(ruleset, 0);
    for (const chain of stale) this.plant(chain, buildTree(joinWords(chain.rules)));
    return stale.length > 0;
  }

  private keepTrees(table: TableModel, lowered: ReadonlyMap<string, Lowered[]>): Map<string, Kept> {
    const kept = new Map<string, Kept>();
    for (const [chain, rules] of lowered) {
      const tree = this.trees.keep(treeName(table)(chain), rules);
      if (tree !== undefined) kept.set(chain, tree);
    }
    return kept;
  }

  /** Every worker runs `compiled` or a later program; its retired counters are zero in every slab. */
  release(compiled: Compiled): void {
    for (const id of compiled.retiredIds) this.lowered.delete(id);
    this.slots.release(compiled.retiredIds);
    this.trees.release(compiled.retiredKeys);
    this.regions.release(compiled.retiredKeys);
  }

  private lowerTable(table: TableModel, hooks: ReadonlyMap<string, number>): Map<string, Lowered[]> {
    const chains = new Map<string, Lowered[]>();
    for (const chain of table.chains.values())
      chains.set(
        chain.name,
        chain.rules.map((rule, i) => this.lowerRule(rule, i, table, chain, hooks.get(chain.name) ?? 0)),
      );
    return chains;
  }

  private lowerRule(rule: Rule, index: number, table: TableModel, chain: Chain, hooks: number): Lowered {
    const known = this.lowered.get(rule.id);
    if (known !== undefined && known.hooks === hooks) return known;
    try {
      const counter = this.slots.take(rule.id);
      const fresh = lower(rule, { table: table.name, hooks, counter, regions: this.regions, hz: this.hz });
      this.lowered.set(rule.id, fresh);
      return fresh;
    } catch (error) {
      if (error instanceof RuleError) throw new CompileError(table.name, chain.name, index + 1, error.message);
      throw error;
    }
  }

  /** Puts header, chains and rules into their places and fills in counters and jumps. */
  private emit(
    tables: readonly TableModel[],
    lowered: readonly Map<string, Lowered[]>[],
    trees: readonly ReadonlyMap<string, Kept>[],
    layout: Layout,
  ): Int32Array {
    const words = new Int32Array(new SharedArrayBuffer(layout.length * 4));
    let flags = 0;
    tables.forEach((table, t) => {
      const offsets = layout.chains[t]!;
      for (const chain of table.chains.values()) {
        const at = offsets.get(chain.name)!;
        const rules = lowered[t]!.get(chain.name)!;
        words[at + C.POLICY] = chain.policy === undefined ? POLICY_RETURN : POLICIES[chain.policy.verdict];
        words[at + C.POLICY_COUNTER] = chain.policy === undefined ? 0 : this.slots.take(chain.policy.id);
        words[at + C.RULES] = rules.length;
        let o = at + CHAIN_WORDS;
        rules.forEach((rule, i) => {
          words.set(rule.words, o);
          if (rule.jump !== undefined) {
            const to = offsets.get(rule.jump.chain);
            if (to === undefined)
              throw new CompileError(table.name, chain.name, i + 1, `no chain ${rule.jump.chain} to jump to`);
            words[o + rule.jump.offset] = to;
          }
          if (rule.connections) flags |= ProgramFlag.CONNECTIONS;
          o += words[o + R.LENGTH]!;
        });
        words[at + C.END] = o;
        placeIndex(words, at, rules.length, trees[t]!.get(chain.name));
        if (chain.hook !== undefined) words[entryWord(table.name, chain.hook)] = at;
        if (table.name === 'nat' && rules.length > 0) flags |= ProgramFlag.NAT;
      }
    });
    words[Header.MAGIC] = MAGIC;
    words[Header.VERSION] = VERSION;
    words[Header.LENGTH] = layout.length;
    words[Header.FLAGS] = flags;
    words[Header.COUNTERS] = this.slots.length;
    words[Header.REGIONS] = this.regions.list().length;
    words[Header.DEPTH] = Math.max(0, ...tables.map(deepest));
    return words;
  }
}

const POLICIES = { ACCEPT: Verdict.ACCEPT, DROP: Verdict.DROP } as const;

const hookNumber = (name: HookName): Hook => HOOK_NAMES.indexOf(name);
const entryWord = (table: TableName, hook: HookName): number =>
  Header.ENTRY + TABLE_NAMES.indexOf(table) * HOOK_COUNT + hookNumber(hook);

/** How a chain's tree is called. */
const treeName =
  (table: TableModel) =>
  (chain: string): string =>
    `${table.name} ${chain}`;

function identities(tables: readonly TableModel[]): Set<number> {
  const ids = new Set<number>();
  for (const table of tables)
    for (const chain of table.chains.values()) {
      if (chain.policy !== undefined) ids.add(chain.policy.id);
      for (const rule of chain.rules) ids.add(rule.id);
    }
  return ids;
}

/** The chains each chain jumps to. */
function jumpsOf(table: TableModel): Map<string, { chain: string; rule: number; goto: boolean }[]> {
  const jumps = new Map<string, { chain: string; rule: number; goto: boolean }[]>();
  for (const chain of table.chains.values()) {
    const list: { chain: string; rule: number; goto: boolean }[] = [];
    chain.rules.forEach(({ target }, i) => {
      if (target.kind === 'jump') list.push({ chain: target.chain, rule: i + 1, goto: target.goto });
    });
    jumps.set(chain.name, list);
  }
  return jumps;
}

/** From which hooks (bits 1 << Hook) each chain of the table can be reached. */
function reachable(table: TableModel): Map<string, number> {
  const jumps = jumpsOf(table);
  const hooks = new Map<string, number>();
  const visit = (from: string, bits: number): void => {
    const open = [from];
    for (let name = open.pop(); name !== undefined; name = open.pop()) {
      const before = hooks.get(name) ?? 0;
      if ((before | bits) === before) continue;
      hooks.set(name, before | bits);
      for (const jump of jumps.get(name) ?? []) open.push(jump.chain);
    }
  };
  for (const chain of table.chains.values()) if (chain.hook) visit(chain.name, 1 << hookNumber(chain.hook));
  return hooks;
}

/** The most jumps of the table that can be open at once. @throws CompileError for a loop, naming one rule of it. */
function deepest(table: TableModel): number {
  const jumps = jumpsOf(table);
  const depth = new Map<string, number>();
  const OPEN = -1;
  let most = 0;
  for (const start of table.chains.keys()) {
    if (depth.has(start)) continue;
    const path = [{ chain: start, next: 0, depth: 0 }];
    depth.set(start, OPEN);
    while (path.length > 0) {
      const here = path[path.length - 1]!;
      const jump = jumps.get(here.chain)?.[here.next];
      if (jump === undefined) {
        depth.set(here.chain, here.depth);
        most = Math.max(most, here.depth);
        path.pop();
        continue;
      }
      const below = depth.get(jump.chain);
      if (below === OPEN) throw new CompileError(table.name, here.chain, jump.rule, `loop by way of ${jump.chain}`);
      if (below === undefined) {
        depth.set(jump.chain, OPEN);
        path.push({ chain: jump.chain, next: 0, depth: 0 });
        continue;
      }
      here.depth = Math.max(here.depth, below + (jump.goto ? 0 : 1));
      here.next++;
    }
  }
  return most;
}

interface Layout {
  /** Words of the whole program. */
  readonly length: number;
  /** A table's chains: name → offset. */
  readonly chains: readonly ReadonlyMap<string, number>[];
}

/** Where every chain goes: tables one behind the other, chains in the model's order. */
function place(
  tables: readonly TableModel[],
  lowered: readonly Map<string, Lowered[]>[],
  trees: readonly ReadonlyMap<string, Kept>[],
): Layout {
  let at = HEADER_WORDS;
  const chains = tables.map((table, t) => {
    const offsets = new Map<string, number>();
    for (const chain of table.chains.values()) {
      offsets.set(chain.name, at);
      at += CHAIN_WORDS;
      for (const rule of lowered[t]!.get(chain.name)!) at += rule.words.length;
      at += indexWords(trees[t]!.get(chain.name));
    }
    return offsets;
  });
  return { length: at, chains };
}
