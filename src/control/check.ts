/**
 * What the kernel verifies when a table is swapped in, with its errnos and in its order: no loops among the chains that
 * packets can reach, then for each rule from top to bottom its matches and its target: table, hooks, protocol, and the
 * extension's own checks (net/ipv4/netfilter/ip_tables.c, translate_table; net/netfilter/x_tables.c, xt_check_match).
 */
import { HOOK_NAMES, type HookName } from '../dataplane/names.js';
import type { CheckContext, Refusal, Use } from './ext/record.js';
import { sharedEnds, type Chain, type Rule, type RuleSpec, type TableModel } from './model.js';
import { TableError } from './text/problem.js';

/** Which chains packets can come to. */
export interface Reached {
  /** Hooks from which each chain is entered: bits 1 << Hook. A chain that is missing can't be reached. */
  readonly chains: ReadonlyMap<string, number>;
  /** ELOOP: a jump into a chain that is being walked; not followed. */
  readonly loop?: TableError;
}

/** Matches everything and looks at nothing. */
export const unconditional = (rule: RuleSpec): boolean =>
  rule.matches.length === 0 &&
  rule.src.addr === 0 &&
  rule.src.mask === 0 &&
  rule.dst.addr === 0 &&
  rule.dst.mask === 0 &&
  rule.in === '' &&
  rule.out === '' &&
  rule.proto === 0 &&
  !rule.fragment &&
  !rule.notSrc &&
  !rule.notDst &&
  !rule.notIn &&
  !rule.notOut &&
  !rule.notFragment;

const reachedBy = new WeakMap<TableModel, Reached>();

/**
 * Follows every hook's chain through its jumps (mark_source_chains). Behind an unconditional verdict the kernel looks no
 * further, nor does this: rules there are reached by nothing. `before`: a table without a loop, whose answer serves again
 * where jumps are the same.
 */
export function reachedRules(table: TableModel, before?: TableModel): Reached {
  let reached = reachedBy.get(table);
  if (!reached) {
    reached = before && sameJumps(table, before) ? reachedRules(before) : follow(table);
    reachedBy.set(table, reached);
  }
  return reached;
}

function sameJumps(table: TableModel, before: TableModel): boolean {
  if (table.chains.size !== before.chains.size) return false;
  for (const chain of table.chains.values()) {
    const old = before.chains.get(chain.name);
    if (old === undefined) return false;
    if (old.rules === chain.rules) continue;
    const [a, b] = [walkOf(old).jumps, walkOf(chain, old).jumps];
    if (a.length !== b.length || a.some((jump, i) => jump.chain !== b[i]!.chain || jump.goto !== b[i]!.goto))
      return false;
  }
  return true;
}

function follow(table: TableModel): Reached {
  const chains = new Map<string, number>();
  let loop: TableError | undefined;
  const enter = (chain: Chain, bits: number): { walk: Walk; name: string; next: number } => {
    chains.set(chain.name, bits);
    return { walk: walkOf(chain), name: chain.name, next: 0 };
  };
  for (const [hook, name] of HOOK_NAMES.entries()) {
    const entry = table.chains.get(name);
    if (!entry) continue;
    const bit = 1 << hook;
    const walking = new Set([entry.name]);
    const stack = [enter(entry, (chains.get(name) ?? 0) | bit)];
    while (stack.length > 0) {
      const here = stack[stack.length - 1]!;
      const jump = here.walk.jumps[here.next++];
      if (!jump) {
        walking.delete(here.name);
        stack.pop();
        continue;
      }
      const to = table.chains.get(jump.chain);
      if (!to) continue;
      if (walking.has(to.name))
        loop ??= new TableError(
          'ELOOP',
          'commit',
          `${here.name}, rule ${jump.index + 1}: jumps back into ${to.name}, which leads to it`,
          jump.id,
        );
      const bits = chains.get(to.name) ?? 0;
      if (bits & bit) continue;
      walking.add(to.name);
      stack.push(enter(to, bits | bit));
    }
  }
  return { chains, ...(loop && { loop }) };
}

/** What the walk needs of a chain's rules. */
export interface Walk {
  /** Index of its first unconditional verdict, behind which nothing is reached; else its length. */
  readonly last: number;
  /** Jumps up to `last`. */
  readonly jumps: readonly WalkedJump[];
}
interface WalkedJump {
  readonly index: number;
  readonly chain: string;
  readonly goto: boolean;
  readonly id: number;
}
const walks = new WeakMap<readonly Rule[], Walk>();

/** How far a packet in the chain can come, and its jumps on the way. `before`: the chain as it was, to read less. */
export function walkOf({ rules }: Pick<Chain, 'rules'>, before?: Pick<Chain, 'rules'>): Walk {
  let walk = walks.get(rules);
  if (!walk) walks.set(rules, (walk = readWalk(rules, before?.rules ?? [])));
  return walk;
}

function readWalk(rules: readonly Rule[], before: readonly Rule[]): Walk {
  const old = walks.get(before);
  const ends = old ? sharedEnds(before, rules) : { head: 0, tail: 0 };
  if (old && old.last < ends.head) return old;
  // What lies behind a verdict that is gone was not read then.
  const tail = old && old.last >= before.length - ends.tail ? ends.tail : 0;
  const jumps = old ? old.jumps.filter(({ index }) => index < ends.head) : [];
  for (let index = ends.head; index < rules.length - tail; index++) {
    const { target, id } = rules[index]!;
    if (target.kind === 'jump') jumps.push({ index, chain: target.chain, goto: target.goto, id });
    else if (target.kind === 'verdict' && unconditional(rules[index]!)) return { last: index, jumps };
  }
  if (!old || tail === 0) return { last: rules.length, jumps };
  const shift = rules.length - before.length;
  for (const jump of old.jumps)
    if (jump.index >= before.length - tail) jumps.push({ ...jump, index: jump.index + shift });
  return { last: old.last + shift, jumps };
}

const hookBits = (hooks: readonly HookName[]): number =>
  hooks.reduce((bits, name) => bits | (1 << HOOK_NAMES.indexOf(name)), 0);

const hookList = (bits: number): string => HOOK_NAMES.filter((_, hook) => bits & (1 << hook)).join(', ');

/** xt_check_match and xt_check_target for one use. */
function checkUse({ extension, data }: Use, context: CheckContext): Refusal | undefined {
  const what = `${extension.kind} ${extension.name}`;
  const { tables, hooks, proto } = extension;
  if (tables && !tables.includes(context.table))
    return { errno: 'EINVAL', reason: `${what}: only valid in ${tables.join(', ')} table, not ${context.table}` };
  if (hooks && context.hooks & ~hookBits(hooks))
    return {
      errno: 'EINVAL',
      reason: `${what}: used from hooks ${hookList(context.hooks)}, but only usable from ${hooks.join(', ')}`,
    };
  if (proto !== undefined && (context.rule.proto !== proto || context.rule.notProto))
    return { errno: 'EINVAL', reason: `${what}: only valid for protocol ${proto}` };
  return extension.check?.(data, context);
}

/** Why the kernel would refuse this rule in this place; undefined if it would take it. */
export function checkRule(rule: RuleSpec, table: TableModel['name'], hooks: number): Refusal | undefined {
  if (rule.matches.length === 0 && rule.target.kind !== 'extension') return undefined;
  const context: CheckContext = { table, hooks, rule };
  for (let i = 0; i < rule.matches.length; i++) {
    const refusal = checkUse(rule.matches[i]!, context);
    if (refusal) return refusal;
  }
  return rule.target.kind === 'extension' ? checkUse(rule.target.use, context) : undefined;
}

/**
 * Everything for which the kernel would refuse the table, in the order in which it would find it. `before` is a table that
 * it took: what is there in the same place, under the same hooks, isn't asked again.
 */
export function* tableErrors(table: TableModel, before?: TableModel): Generator<TableError> {
  const { chains, loop } = reachedRules(table, before);
  if (loop) yield loop;
  const taken = before && reachedRules(before).chains;
  for (const chain of table.chains.values()) {
    const { name, rules } = chain;
    const bits = chains.get(name) ?? 0;
    const old = before?.chains.get(name);
    const oldBits = taken?.get(name) ?? 0;
    if (old?.rules === rules && oldBits === bits) continue;
    const { last } = walkOf(chain);
    const oldLast = old === undefined ? -1 : walkOf(old).last;
    const { head, tail } = sharedEnds(old?.rules ?? [], rules);
    const shift = rules.length - (old?.rules.length ?? 0);
    // Mostly all that the chains have in common is met as before.
    const alike = bits === oldBits && last === rules.length && oldLast === old?.rules.length;
    const end = alike ? rules.length - tail : rules.length;
    for (let i = alike ? head : 0; i < end; i++) {
      const hooks = i <= last ? bits : 0;
      const oldIndex = i < head ? i : i >= rules.length - tail ? i - shift : -1;
      if (oldIndex >= 0 && hooks === (oldIndex <= oldLast ? oldBits : 0)) continue;
      const rule = rules[i]!;
      const refusal = checkRule(rule, table.name, hooks);
      if (refusal) yield new TableError(refusal.errno, 'commit', `${name}, rule ${i + 1}: ${refusal.reason}`, rule.id);
    }
  }
}

/** @throws TableError if the kernel would refuse the table; `before`: see `tableErrors` */
export function checkTable(table: TableModel, before?: TableModel): void {
  for (const error of tableErrors(table, before)) throw error;
}
