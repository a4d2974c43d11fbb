/**
 * What the kernel verifies when a table is swapped in, with its errnos and in its order: no loops among the chains that
 * packets can reach, then for each rule from top to bottom its matches and its target: table, hooks, protocol, and the
 * extension's own checks (net/ipv4/netfilter/ip_tables.c, translate_table; net/netfilter/x_tables.c, xt_check_match).
 */
import { HOOK_NAMES, type HookName } from '../dataplane/names.js';
import type { CheckContext, Refusal, Use } from './ext/record.js';
import type { Rule, RuleSpec, TableModel } from './model.js';
import { TableError } from './text/problem.js';

export interface Reached {
  /** Hooks from which each rule can be reached: bits 1 << Hook. A rule that is missing can't be reached. */
  readonly hooks: ReadonlyMap<Rule, number>;
  /** ELOOP: a jump into a chain that is being walked; not followed. */
  readonly loop?: TableError;
}

/** Matches everything and looks at nothing. */
const unconditional = (rule: RuleSpec): boolean =>
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

/**
 * Follows every hook's chain through its jumps (mark_source_chains). Behind an unconditional verdict the kernel looks no
 * further, nor does this: rules there are reached by nothing.
 */
export function reachedRules(table: TableModel): Reached {
  const reached = new Map<Rule, number>();
  let loop: TableError | undefined;
  for (const [hook, name] of HOOK_NAMES.entries()) {
    const entry = table.chains.get(name);
    if (!entry) continue;
    const bit = 1 << hook;
    const visited = new Set([entry.name]);
    const walking = new Set([entry.name]);
    const stack = [{ chain: entry, next: 0 }];
    while (stack.length > 0) {
      const here = stack[stack.length - 1]!;
      const rule = here.chain.rules[here.next++];
      if (rule) reached.set(rule, (reached.get(rule) ?? 0) | bit);
      if (!rule || (rule.target.kind === 'verdict' && unconditional(rule))) {
        walking.delete(here.chain.name);
        stack.pop();
        continue;
      }
      if (rule.target.kind !== 'jump') continue;
      const to = table.chains.get(rule.target.chain);
      if (!to) continue;
      if (walking.has(to.name))
        loop ??= new TableError(
          'ELOOP',
          'commit',
          `${here.chain.name}, rule ${here.next}: jumps back into ${to.name}, which leads to it`,
          rule.id,
        );
      if (visited.has(to.name)) continue;
      visited.add(to.name);
      walking.add(to.name);
      stack.push({ chain: to, next: 0 });
    }
  }
  return { hooks: reached, ...(loop && { loop }) };
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

/** Rules that passed, with the hooks under which they did. A rule never changes, so it need not be asked again. */
const passed = new WeakMap<Rule, number>();

/** Why the kernel would refuse this rule in this place; undefined if it would take it. */
export function checkRule(rule: RuleSpec, table: TableModel['name'], hooks: number): Refusal | undefined {
  const context: CheckContext = { table, hooks, rule };
  for (const use of rule.matches) {
    const refusal = checkUse(use, context);
    if (refusal) return refusal;
  }
  return rule.target.kind === 'extension' ? checkUse(rule.target.use, context) : undefined;
}

/** Everything for which the kernel would refuse the table, in the order in which it would find it. */
export function* tableErrors(table: TableModel): Generator<TableError> {
  const { hooks: reached, loop } = reachedRules(table);
  if (loop) yield loop;
  for (const chain of table.chains.values()) {
    for (const [i, rule] of chain.rules.entries()) {
      const hooks = reached.get(rule) ?? 0;
      if (passed.get(rule) === hooks) continue;
      const refusal = checkRule(rule, table.name, hooks);
      if (refusal)
        yield new TableError(refusal.errno, 'commit', `${chain.name}, rule ${i + 1}: ${refusal.reason}`, rule.id);
      else passed.set(rule, hooks);
    }
  }
}

/** @throws TableError if the kernel would refuse the table */
export function checkTable(table: TableModel): void {
  for (const error of tableErrors(table)) throw error;
}
