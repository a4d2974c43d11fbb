/**
 * The compiler: a ruleset (control/model.ts) becomes a program (dataplane/program/format.ts). One object a router; it keeps
 * what must outlive a swap: counter slots and rule state by identity, decision trees, and where everything lies in the
 * program in force. From that one it copies what a command left alone, so that only rules that changed are compiled.
 *
 * The passes are the lines of `passes`. A compile that fails changes nothing, nor does one whose program is never put in
 * force. After every worker runs the new program, and the caller has zeroed the slots it returned as retired, `release`
 * frees what only the old one used; only then is the next compiled.
 */
import type { SetTypes } from '../../dataplane/io/ipset.js';
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
  Op,
  POLICY_RETURN,
  ProgramFlag,
  Rule as R,
  VERSION,
  MARKED_FLAGS,
} from '../../dataplane/program/format.js';
import { type Proof, verify } from '../../dataplane/program/verify.js';
import { type Reached, reachedRules, walkOf } from '../check.js';
import { type Chain, type Rule, type Ruleset, sharedEnds, type TableModel } from '../model.js';
import { type Effect, lateEffect, writeLate } from './late.js';
import { Lowerer, type Needs, RuleError } from './lower.js';
import { RegionStore } from './regions.js';
import { CounterSlots } from './slots.js';
import type { Built } from './tree/build.js';
import { buildTree, indexWords, type Kept, placeIndex, TreeStore } from './tree/store.js';

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
}

/** A chain that wants a tree, and the rules to build it for. */
export interface StaleTree {
  readonly name: string;
  readonly rules: readonly Rule[];
  /** The rules one behind the other. */
  readonly words: Int32Array;
}

/** A chain in a program. */
interface Placed {
  /** As trees are called: `filter INPUT`. */
  readonly name: string;
  readonly table: TableName;
  readonly chain: Chain;
  /** Offset of each rule from the first one's, then that of the end. */
  readonly starts: Int32Array;
  /** The chains that rules jump to, and what they may do late (late.ts); both in the order of the rules. */
  readonly jumps: readonly Noted<string>[];
  readonly effects: readonly Noted<Effect>[];
  readonly tree: Kept | undefined;
  /** Its offset. */
  readonly at: number;
}
/** What is known of a rule, by its index. */
interface Noted<T> {
  readonly rule: number;
  readonly of: T;
}

/** A chain to be placed: `head` rules as they are in the chain of the program in force, then fresh ones, then `tail`. */
interface Draft extends Omit<Placed, 'tree' | 'at'> {
  readonly before: Placed | undefined;
  readonly head: number;
  readonly tail: number;
  /** Where the lowerer has the fresh ones. */
  readonly fresh: number;
  readonly freshEnd: number;
}

/** A program and what is known of it. */
interface Generation {
  readonly compiled: Compiled;
  readonly chains: ReadonlyMap<string, Placed>;
  readonly proof: Proof;
  readonly change: Change;
}

const addTo = <K>(counts: Map<K, number>, key: K, by: number): void =>
  void counts.set(key, (counts.get(key) ?? 0) + by);

/** Of the rules before `end`. */
const upTo = <T>(end: number, noted: readonly Noted<T>[] = []): Noted<T>[] => noted.filter(({ rule }) => rule < end);

/** Adds those of the rules from `begin` on, which now stand `shift` further. */
function addFrom<T>(begin: number, shift: number, noted: readonly Noted<T>[], to: Noted<T>[]): void {
  for (const { rule, of } of noted) if (rule >= begin) to.push({ rule: rule + shift, of });
}

/** How the rules of one program differ from those of another. */
class Change {
  /** Identities of rules and policies that came, and that went or moved. */
  readonly added = new Set<number>();
  readonly removed = new Set<number>();
  /** Needs of rules that came. */
  readonly needs = new Map<number, Needs>();
  /** How many more rules use a key, connections, what lies behind headers, and each of the kernel's marks. */
  readonly keys = new Map<string, number>();
  tracking = 0;
  payload = 0;
  readonly marked = new Map<ProgramFlag, number>();
  /** What only former programs use: `release` frees it. */
  retiredIds: readonly number[] = [];
  retiredKeys: readonly string[] = [];

  count(needs: Needs | undefined, by: 1 | -1): void {
    if (needs === undefined) return;
    for (const key of needs.keys) addTo(this.keys, key, by);
    if (needs.connections) this.tracking += by;
    if (needs.payload) this.payload += by;
    for (const flag of MARKED_FLAGS) if ((needs.marked & flag) !== 0) addTo(this.marked, flag, by);
  }
}

export class Compiler {
  readonly slots = new CounterSlots();
  readonly regions = new RegionStore();
  readonly trees = new TreeStore();
  /** The program that every worker runs, and the one compiled since. */
  private running: Generation | undefined;
  private pending: Generation | undefined;
  /** Of the program in force: what rules need, how many use a key, how many look at connections, and behind headers. */
  private readonly needs = new Map<number, Needs>();
  private readonly keyUses = new Map<string, number>();
  private tracking = 0;
  private payload = 0;
  private readonly marked = new Map<ProgramFlag, number>();
  /** Identities and keys taken since then, by programs that may never come into force. */
  private readonly takenIds = new Set<number>();
  private readonly takenKeys = new Set<string>();
  /** Memory of a program that nobody reads any more. */
  private spare: SharedArrayBuffer | undefined;

  /**
   * @param hz kernel ticks a second, as the workers' contexts have it
   * @param sets who knows the kernel's sets; undefined where no kernel is asked
   */
  constructor(
    readonly hz: number,
    private readonly sets?: SetTypes,
  ) {}

  /** @throws CompileError for the first rule that can't be compiled. */
  compile(ruleset: Ruleset): Compiled {
    this.regions.begin();
    try {
      this.pending = this.passes(ruleset);
      return this.pending.compiled;
    } catch (error) {
      this.regions.rollback();
      throw error;
    }
  }

  private passes(ruleset: Ruleset): Generation {
    const tables = [...ruleset.tables].sort((a, b) => TABLE_NAMES.indexOf(a.name) - TABLE_NAMES.indexOf(b.name));
    const depth = Math.max(0, ...tables.map(depthOf));
    const change = new Change();
    const lowerer = new Lowerer(this.regions, this.hz, this.sets);
    const drafts = this.draftAll(tables, lowerer, change);
    const chains = this.place(drafts);
    const words = this.emit(drafts, chains, lowerer, depth, change);
    writeLate(ruleset, (table, { name }) => chains.get(treeName(table, name))!.effects, words);
    this.retire(change, chains);
    const regions = this.regions.list();
    const proof = verify(words, { regions, counters: this.slots.length }, this.running?.proof);
    const compiled: Compiled = {
      words,
      regions,
      counters: this.slots.length,
      connections: (words[Header.FLAGS]! & ProgramFlag.CONNECTIONS) !== 0,
      retiredCounters: change.retiredIds.map((id) => this.slots.of(id)!),
    };
    return { compiled, chains, proof, change };
  }

  /**
   * Every worker runs `compiled`; its retired counters are zero in every slab. `reuse`: nobody, not even a worker that
   * begins, reads the program before it any more, so its memory may be written over.
   */
  release(compiled: Compiled, reuse = false): void {
    const { pending } = this;
    if (pending?.compiled !== compiled) throw new Error('not the program compiled last');
    if (reuse) this.spare = this.running?.compiled.words.buffer as SharedArrayBuffer | undefined;
    const { retiredIds, retiredKeys, needs, keys, removed, tracking, payload, marked } = pending.change;
    for (const id of removed) this.needs.delete(id);
    for (const [id, need] of needs) this.needs.set(id, need);
    for (const [key, by] of keys) {
      const uses = (this.keyUses.get(key) ?? 0) + by;
      if (uses > 0) this.keyUses.set(key, uses);
      else this.keyUses.delete(key);
    }
    this.tracking += tracking;
    this.payload += payload;
    for (const [flag, by] of marked) addTo(this.marked, flag, by);
    this.slots.release(retiredIds);
    this.trees.release(retiredKeys);
    this.regions.release(retiredKeys);
    this.takenIds.clear();
    this.takenKeys.clear();
    this.running = pending;
    this.pending = undefined;
  }

  /** The larger chains in force that lack a decision tree, or have more than `slack` rules beside the one they have. */
  staleTrees(slack: number): StaleTree[] {
    const { running } = this;
    if (running === undefined) return [];
    const { words } = running.compiled;
    return [...running.chains.values()]
      .filter(({ name, chain, tree }) => this.trees.stale(name, chain.rules.length, tree, slack))
      .map(({ name, chain, starts, at }) => {
        const from = at + CHAIN_WORDS;
        return { name, rules: chain.rules, words: words.slice(from, from + starts[chain.rules.length]!) };
      });
  }

  /** How many chains in force have a tree, and how many are stale by `slack`. */
  treeCounts(slack: number): { grown: number; growing: number } {
    const chains = [...(this.running?.chains.values() ?? [])];
    return {
      grown: chains.filter(({ tree }) => tree !== undefined).length,
      growing: chains.filter(({ name, chain, tree }) => this.trees.stale(name, chain.rules.length, tree, slack)).length,
    };
  }

  /** Takes in a tree that was built for a stale one's rules (tree/store.ts `buildTree`); the next compile uses it. */
  plant({ name, rules }: StaleTree, tree: Built): void {
    this.trees.plant(name, rules, tree, this.regions);
  }

  /** Builds the trees that the chains in force lack, here and now. Whether there were any. */
  growTrees(): boolean {
    const stale = this.staleTrees(0);
    for (const chain of stale) this.plant(chain, buildTree(chain.words));
    return stale.length > 0;
  }

  /** What is to be placed where: rules that the chain has in force stay as they are, others are lowered. */
  private draftAll(tables: readonly TableModel[], lowerer: Lowerer, change: Change): Draft[] {
    const drafts: Draft[] = [];
    const known = this.running?.chains;
    let seen = 0;
    for (const table of tables)
      for (const chain of table.chains.values()) {
        const before = known?.get(treeName(table.name, chain.name));
        if (before !== undefined) seen++;
        if (chain.policy?.id !== before?.chain.policy?.id) {
          if (before?.chain.policy) change.removed.add(before.chain.policy.id);
          if (chain.policy) this.takeSlot(chain.policy.id, change);
        }
        drafts.push(this.draft(table.name, chain, before, lowerer, change));
      }
    if (known !== undefined && seen < known.size) {
      const names = new Set(drafts.map(({ name }) => name));
      for (const placed of known.values()) {
        if (names.has(placed.name)) continue;
        this.remove(placed, 0, 0, change);
        if (placed.chain.policy) change.removed.add(placed.chain.policy.id);
      }
    }
    for (const key of lowerer.made) this.takenKeys.add(key);
    return drafts;
  }

  private draft(table: TableName, chain: Chain, before: Placed | undefined, lowerer: Lowerer, change: Change): Draft {
    const { rules } = chain;
    const name = before?.name ?? treeName(table, chain.name);
    const old = before?.chain.rules ?? [];
    const { head, tail } = rules === old ? { head: rules.length, tail: 0 } : sharedEnds(old, rules);
    const fresh = lowerer.length;
    if (before !== undefined && head === rules.length && head === old.length) {
      const { starts, jumps, effects } = before;
      return { name, table, chain, starts, jumps, effects, before, head, tail, fresh, freshEnd: fresh };
    }
    if (before !== undefined) this.remove(before, head, tail, change);
    const starts = new Int32Array(rules.length + 1);
    if (before !== undefined) starts.set(before.starts.subarray(0, head + 1));
    let at = starts[head]!;
    const fromTail = rules.length - tail;
    const jumps = upTo(head, before?.jumps);
    const effects = upTo(head, before?.effects);
    for (let i = head; i < fromTail; i++) {
      const rule = rules[i]!;
      const begin = lowerer.length;
      starts[i] = at;
      this.lowerRule(rule, i, table, chain, lowerer, change);
      if (rule.target.kind === 'jump') jumps.push({ rule: i, of: rule.target.chain });
      const effect = lateEffect(rule);
      if (effect !== undefined) effects.push({ rule: i, of: effect });
      at += lowerer.length - begin;
    }
    starts[fromTail] = at;
    if (before !== undefined && tail > 0) {
      const shift = fromTail - (old.length - tail);
      const by = at - before.starts[old.length - tail]!;
      for (let i = fromTail + 1; i <= rules.length; i++) starts[i] = before.starts[i - shift]! + by;
      addFrom(fromTail - shift, shift, before.jumps, jumps);
      addFrom(fromTail - shift, shift, before.effects, effects);
    }
    return { name, table, chain, starts, jumps, effects, before, head, tail, fresh, freshEnd: lowerer.length };
  }

  /** The rules between the first `head` and the last `tail` of a chain in force go. */
  private remove({ chain: { rules } }: Placed, head: number, tail: number, change: Change): void {
    for (let i = head; i < rules.length - tail; i++) {
      const { id } = rules[i]!;
      change.removed.add(id);
      change.count(this.needs.get(id), -1);
    }
  }

  private lowerRule(rule: Rule, index: number, table: TableName, chain: Chain, lowerer: Lowerer, change: Change): void {
    try {
      const needs = lowerer.add(rule, table, this.takeSlot(rule.id, change));
      if (needs === undefined) return;
      change.needs.set(rule.id, needs);
      change.count(needs, 1);
    } catch (error) {
      for (const key of lowerer.made) this.takenKeys.add(key);
      if (error instanceof RuleError) throw new CompileError(table, chain.name, index + 1, error.message);
      throw error;
    }
  }

  private takeSlot(id: number, change: Change): number {
    if (this.slots.of(id) === undefined) this.takenIds.add(id);
    change.added.add(id);
    return this.slots.take(id);
  }

  /** Where every chain goes: tables one behind the other, chains in the model's order. */
  private place(drafts: readonly Draft[]): Map<string, Placed> {
    const chains = new Map<string, Placed>();
    let at = HEADER_WORDS;
    for (const { name, table, chain, starts, jumps, effects, before } of drafts) {
      const tree = this.trees.keep(name, chain.rules, before && { rules: before.chain.rules, kept: before.tree });
      chains.set(name, { name, table, chain, starts, jumps, effects, tree, at });
      at += CHAIN_WORDS + starts[chain.rules.length]! + indexWords(tree);
    }
    return chains;
  }

  /** Puts header, chains and rules into their places and fills in jumps. */
  private emit(
    drafts: readonly Draft[],
    chains: ReadonlyMap<string, Placed>,
    lowerer: Lowerer,
    depth: number,
    change: Change,
  ): Int32Array {
    const placed = [...chains.values()];
    const last = placed[placed.length - 1];
    const length =
      last === undefined
        ? HEADER_WORDS
        : last.at + CHAIN_WORDS + last.starts[last.chain.rules.length]! + indexWords(last.tree);
    const words = this.memory(length);
    const from = this.running?.compiled.words;
    let flags = this.tracking + change.tracking > 0 ? ProgramFlag.CONNECTIONS | ProgramFlag.PAYLOAD : 0;
    if (this.payload + change.payload > 0) flags |= ProgramFlag.PAYLOAD;
    for (const flag of MARKED_FLAGS)
      if ((this.marked.get(flag) ?? 0) + (change.marked.get(flag) ?? 0) > 0) flags |= flag;
    words.fill(0, 0, HEADER_WORDS);
    drafts.forEach(({ table, chain, before, head, tail, fresh, freshEnd }, i) => {
      const { at, starts, jumps, tree } = placed[i]!;
      const count = chain.rules.length;
      const first = at + CHAIN_WORDS;
      if (before !== undefined) {
        const old = before.at + CHAIN_WORDS;
        const oldTail = before.chain.rules.length - tail;
        words.set(from!.subarray(old, old + before.starts[head]!), first);
        words.set(
          from!.subarray(old + before.starts[oldTail]!, old + before.starts[oldTail + tail]!),
          first + starts[count - tail]!,
        );
      }
      if (freshEnd > fresh) words.set(lowerer.words.subarray(fresh, freshEnd), first + starts[head]!);
      for (const { rule, of: to } of jumps) {
        const target = chains.get(treeName(table, to));
        if (target === undefined) throw new CompileError(table, chain.name, rule + 1, `no chain ${to} to jump to`);
        const o = first + starts[rule]!;
        words[o + words[o + R.TARGET]! + Op.ARGS] = target.at;
      }
      words[at + C.POLICY] = chain.policy === undefined ? POLICY_RETURN : POLICIES[chain.policy.verdict];
      words[at + C.POLICY_COUNTER] = chain.policy === undefined ? 0 : this.slots.of(chain.policy.id)!;
      words[at + C.RULES] = count;
      words[at + C.END] = first + starts[count]!;
      placeIndex(words, at, starts, tree);
      if (chain.hook !== undefined) words[entryWord(table, chain.hook)] = at;
      if (table === 'nat' && count > 0) flags |= ProgramFlag.NAT;
    });
    words[Header.MAGIC] = MAGIC;
    words[Header.VERSION] = VERSION;
    words[Header.LENGTH] = length;
    words[Header.FLAGS] = flags;
    words[Header.COUNTERS] = this.slots.length;
    words[Header.REGIONS] = this.regions.list().length;
    words[Header.DEPTH] = depth;
    return words;
  }

  /**
   * Room for a program. V8 doesn't count shared memory when it decides to collect garbage, and a worker makes none: memory
   * taken anew for each command would pile up for as long as commands come.
   */
  private memory(length: number): Int32Array {
    const bytes = length * 4;
    let { spare } = this;
    this.spare = undefined;
    if (spare === undefined || spare.byteLength < bytes || spare.byteLength > 4 * bytes + MIN_MEMORY)
      spare = new SharedArrayBuffer(Math.max(MIN_MEMORY, bytes + (bytes >> 3)));
    return new Int32Array(spare, 0, length);
  }

  /** What was used by the program in force, or by one that never came into force, and isn't by the new one. */
  private retire(change: Change, chains: ReadonlyMap<string, Placed>): void {
    const { added, removed, keys } = change;
    const ids: number[] = [];
    for (const id of removed) if (!added.has(id)) ids.push(id);
    for (const id of this.takenIds) if (!added.has(id)) ids.push(id);
    change.retiredIds = ids;
    const unused = (key: string): boolean => (this.keyUses.get(key) ?? 0) + (keys.get(key) ?? 0) <= 0;
    change.retiredKeys = [...new Set([...keys.keys(), ...this.takenKeys])]
      .filter(unused)
      .concat(this.trees.retired((name) => chains.has(name)));
  }
}

const POLICIES = { ACCEPT: Verdict.ACCEPT, DROP: Verdict.DROP } as const;
/** Bytes that a program's memory has at least. */
const MIN_MEMORY = 1 << 16;

const hookNumber = (name: HookName): Hook => HOOK_NAMES.indexOf(name);
const entryWord = (table: TableName, hook: HookName): number =>
  Header.ENTRY + TABLE_NAMES.indexOf(table) * HOOK_COUNT + hookNumber(hook);

const treeName = (table: TableName, chain: string): string => `${table} ${chain}`;

const depths = new WeakMap<Reached, number>();
/** Tables with the same jumps share what is reached. */
function depthOf(table: TableModel): number {
  const reached = reachedRules(table);
  let depth = depths.get(reached);
  if (depth === undefined) depths.set(reached, (depth = deepest(table, reached)));
  return depth;
}

/**
 * The most jumps of the table that can be open at once, where packets can come. @throws CompileError for a loop there,
 * naming one rule of it.
 */
function deepest(table: TableModel, { chains }: Reached): number {
  const depth = new Map<string, number>();
  const OPEN = -1;
  let most = 0;
  for (const start of chains.keys()) {
    if (depth.has(start)) continue;
    const path = [{ walk: walkOf(table.chains.get(start)!), chain: start, next: 0, depth: 0 }];
    depth.set(start, OPEN);
    while (path.length > 0) {
      const here = path[path.length - 1]!;
      const jump = here.walk.jumps[here.next];
      const to = jump && table.chains.get(jump.chain);
      if (jump === undefined) {
        depth.set(here.chain, here.depth);
        most = Math.max(most, here.depth);
        path.pop();
        continue;
      }
      const below = depth.get(jump.chain);
      if (below === OPEN)
        throw new CompileError(table.name, here.chain, jump.index + 1, `loop by way of ${jump.chain}`);
      if (below === undefined && to !== undefined) {
        depth.set(jump.chain, OPEN);
        path.push({ walk: walkOf(to), chain: jump.chain, next: 0, depth: 0 });
        continue;
      }
      here.depth = Math.max(here.depth, (below ?? 0) + (jump.goto ? 0 : 1));
      here.next++;
    }
  }
  return most;
}
