/** Which rule a traced packet met: counter slots back to their rules and policies, for TRACE's lines. */
import { unconditional } from './check.js';
import type { FindRule, TracedRule } from './log.js';
import type { Ruleset } from './model.js';

/** Finds rules of `ruleset` by the counter slot that `slotOf` gives their identity. */
export function ruleFinder(ruleset: Ruleset, slotOf: (id: number) => number | undefined): FindRule {
  const rules = new Map<number, TracedRule>();
  const note = (id: number, met: TracedRule): void => {
    const slot = slotOf(id);
    if (slot !== undefined) rules.set(slot, met);
  };
  for (const { name: table, chains } of ruleset.tables)
    for (const chain of chains.values()) {
      const builtIn = chain.policy !== undefined;
      const where = { table, chain: chain.name, builtIn };
      chain.rules.forEach((rule, i) => {
        note(rule.id, { ...where, rule: i + 1, ends: rule.target.kind === 'verdict' && unconditional(rule) });
      });
      if (chain.policy) note(chain.policy.id, { ...where, rule: chain.rules.length + 1, ends: true });
    }
  return (counter) => rules.get(counter);
}
