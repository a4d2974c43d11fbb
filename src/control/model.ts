/**
 * The ruleset as the control plane holds it: values that never change. A swap makes a new Ruleset that shares every
 * unchanged table, chain and rule with the old one, so that `===` tells what is the same.
 *
 * Counters: what the data plane counts under a rule's (or policy's) `id` plus `base` is what a listing shows. Setting
 * counters gives a new id and a base; zeroing keeps the id and subtracts what was read; so no packet is ever lost or
 * counted twice. The state of a rule (limit's tokens, …) hangs on its `id` too.
 */
import { BUILTIN_CHAINS, type HookName, type TableName } from '../dataplane/names.js';
import type { Use } from './ext/record.js';
import type { Network } from './text/address.js';

/** Packets and bytes. Exact beyond 2^53, as iptables-restore -c sets what it is given. */
export interface Counters {
  readonly packets: bigint;
  readonly bytes: bigint;
}
export const ZERO: Counters = { packets: 0n, bytes: 0n };

/** Something that counts. */
export interface Counted {
  /** Unique in the process; never reused. */
  readonly id: number;
  readonly base: Counters;
}

let last = 0;
/** A fresh identity, greater than all before it. */
export const newId = (): number => ++last;
/** The newest identity. */
export const lastId = (): number => last;

export type Verdict = 'ACCEPT' | 'DROP' | 'QUEUE' | 'RETURN';

/** What a rule does. `none` counts and goes on. */
export type Target =
  | { readonly kind: 'none' }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  | { readonly kind: 'jump'; readonly chain: string; readonly goto: boolean }
  | { readonly kind: 'extension'; readonly use: Use };

/** The conditions every rule has, and the extensions' in the order in which they were given. */
export interface RuleSpec {
  readonly src: Network;
  readonly dst: Network;
  readonly notSrc: boolean;
  readonly notDst: boolean;
  /** Interface name; a last `+` matches any end; '' = any interface. */
  readonly in: string;
  readonly out: string;
  readonly notIn: boolean;
  readonly notOut: boolean;
  /** Protocol number, 0 = all. */
  readonly proto: number;
  readonly notProto: boolean;
  /** -f: second and further fragments. */
  readonly fragment: boolean;
  readonly notFragment: boolean;
  readonly matches: readonly Use[];
  readonly target: Target;
}

export interface Rule extends RuleSpec, Counted {}

export interface Chain {
  readonly name: string;
  readonly rules: readonly Rule[];
  /** Built-in chains only. */
  readonly hook?: HookName;
  readonly policy?: Policy;
}

export interface Policy extends Counted {
  readonly verdict: 'ACCEPT' | 'DROP';
}

export interface TableModel {
  readonly name: TableName;
  /** Built-in chains in the order of the hooks, then the user's in byte order. */
  readonly chains: ReadonlyMap<string, Chain>;
}

/**
 * The tables in use, the one first used last at the front: the order in which iptables-save prints them. A table comes
 * into being when a command names it.
 */
export interface Ruleset {
  readonly tables: readonly TableModel[];
}

export const EMPTY_RULESET: Ruleset = { tables: [] };

export const ANYWHERE: Network = { addr: 0, mask: 0 };

/** A table as the kernel first shows it: built-in chains without rules, policy ACCEPT. */
export function emptyTable(name: TableName): TableModel {
  const chains = new Map<string, Chain>();
  for (const hook of BUILTIN_CHAINS[name])
    chains.set(hook, { name: hook, rules: [], hook, policy: { verdict: 'ACCEPT', id: newId(), base: ZERO } });
  return { name, chains };
}

export const tableOf = (ruleset: Ruleset, name: TableName): TableModel | undefined =>
  ruleset.tables.find((table) => table.name === name);

/** The ruleset with this table in place of its predecessor, or at the front if it is new. */
export function withTable(ruleset: Ruleset, table: TableModel): Ruleset {
  const at = ruleset.tables.findIndex((old) => old.name === table.name);
  return { tables: at < 0 ? [table, ...ruleset.tables] : ruleset.tables.with(at, table) };
}

/** Two values of one rule: they say the same and have one identity, and differ in counters at most. */
const isSame = (a: Rule, b: Rule): boolean => a.id === b.id && a.target === b.target;

/** How many rules two lists have in common at their beginning and, behind those, at their end. */
interface Ends {
  readonly head: number;
  readonly tail: number;
}

/** By the second list: the first it was last compared with. Several look at the same change. */
const compared = new WeakMap<readonly Rule[], { readonly with: readonly Rule[]; readonly ends: Ends }>();

export function sharedEnds(a: readonly Rule[], b: readonly Rule[]): Ends {
  const known = compared.get(b);
  if (known?.with === a) return known.ends;
  const most = Math.min(a.length, b.length);
  let head = 0;
  while (head < most && (a[head] === b[head] || isSame(a[head]!, b[head]!))) head++;
  let tail = 0;
  for (let i = a.length, j = b.length; i > head && j > head; tail++)
    if (a[--i] !== b[--j] && !isSame(a[i]!, b[j]!)) break;
  const ends = { head, tail };
  compared.set(b, { with: a, ends });
  return ends;
}

/** Deep equality of extension data: plain values, arrays and objects. */
export function sameData(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  return keys.every((key) => sameData((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]));
}

export function sameUse(a: Use, b: Use): boolean {
  if (a.extension !== b.extension) return false;
  return a.extension.same ? a.extension.same(a.data, b.data) : sameData(a.data, b.data);
}

function sameTarget(a: Target, b: Target): boolean {
  if (a.kind === 'extension' || b.kind === 'extension')
    return a.kind === 'extension' && b.kind === 'extension' && sameUse(a.use, b.use);
  return sameData(a, b);
}

/** An interface pattern of `+` alone asks nothing. */
const condition = (name: string): string => (name === '+' ? '' : name);

/** Whether two rules say the same: what -D and -C look for. Counters are left aside. */
export function sameRule(a: RuleSpec, b: RuleSpec): boolean {
  return (
    a.src.addr === b.src.addr &&
    a.dst.addr === b.dst.addr &&
    a.src.mask === b.src.mask &&
    a.dst.mask === b.dst.mask &&
    a.notSrc === b.notSrc &&
    a.notDst === b.notDst &&
    condition(a.in) === condition(b.in) &&
    condition(a.out) === condition(b.out) &&
    a.notIn === b.notIn &&
    a.notOut === b.notOut &&
    a.proto === b.proto &&
    a.notProto === b.notProto &&
    a.fragment === b.fragment &&
    a.notFragment === b.notFragment &&
    a.matches.length === b.matches.length &&
    a.matches.every((use, i) => sameUse(use, b.matches[i]!)) &&
    sameTarget(a.target, b.target)
  );
}
