/**
 * What the rules of a ruleset may do to packets that the kernel has routed already, for the program's header
 * (dataplane/program/late.ts says what follows from it). Every rule where packets can come counts as met, as often as jumps lead to it.
 */
import { Header } from '../../dataplane/program/format.js';
import { LateFlag, TTL_MAX, TTL_MIN } from '../../dataplane/program/late.js';
import type { HookName, TableName } from '../../dataplane/names.js';
import { walkOf } from '../check.js';
import type { Late, Use } from '../ext/record.js';
import type { Chain, RuleSpec, Ruleset, TableModel } from '../model.js';

/** Of some rules together. TTL: by how much it can rise and fall (255 at most), the least and the greatest it is set to. */
export interface Effect {
  readonly flags: number;
  readonly marks: number;
  readonly up: number;
  readonly down: number;
  readonly low: number;
  readonly high: number;
}
const NOTHING: Effect = { flags: 0, marks: 0, up: 0, down: 0, low: Infinity, high: -Infinity };

const sum = (a: Effect, b: Effect): Effect => ({
  flags: a.flags | b.flags,
  marks: a.marks | b.marks,
  up: Math.min(a.up + b.up, 255),
  down: Math.min(a.down + b.down, 255),
  low: Math.min(a.low, b.low),
  high: Math.max(a.high, b.high),
});

function effectOf({ marks = 0, tos = false, class: isClass = false, policy = false, ttl }: Late): Effect {
  const flags = (tos ? LateFlag.TOS : 0) | (isClass ? LateFlag.CLASS : 0) | (policy ? LateFlag.POLICY : 0);
  const effect = { ...NOTHING, flags, marks };
  if (ttl === undefined) return effect;
  if ('set' in ttl) return { ...effect, low: ttl.set, high: ttl.set };
  return 'up' in ttl ? { ...effect, up: ttl.up } : { ...effect, down: ttl.down };
}

/** What a rule may do; undefined: nothing. */
export function lateEffect({ matches, target }: RuleSpec): Effect | undefined {
  if (matches.length === 0 && target.kind !== 'extension') return undefined;
  let effect: Effect | undefined;
  const add = ({ extension, data }: Use): void => {
    if (extension.late !== undefined) effect = sum(effect ?? NOTHING, effectOf(extension.late(data)));
  };
  for (let i = 0; i < matches.length; i++) add(matches[i]!);
  if (target.kind === 'extension') add(target.use);
  return effect;
}

/** The effects of a chain's own rules, those that have any. A list that is the same need not be read twice. */
export type Effects = readonly { readonly of: Effect }[];

const known = new WeakMap<Effects, Effect>();

function together(effects: Effects): Effect {
  let effect = known.get(effects);
  if (effect === undefined) known.set(effects, (effect = effects.reduce((all, { of }) => sum(all, of), NOTHING)));
  return effect;
}

/** Of a chain and all that it leads to. There are no loops where packets come. */
function whole(table: TableModel, name: string, effectsOf: EffectsOf, done: Map<string, Effect>): Effect {
  const before = done.get(name);
  const chain = table.chains.get(name);
  if (before !== undefined || chain === undefined) return before ?? NOTHING;
  let effect = together(effectsOf(table.name, chain));
  for (const { chain: to } of walkOf(chain).jumps) {
    const below = whole(table, to, effectsOf, done);
    if (below !== NOTHING) effect = sum(effect, below);
  }
  done.set(name, effect);
  return effect;
}

type EffectsOf = (table: TableName, chain: Chain) => Effects;

/** Where a packet of the router's own is no longer routed anew. */
const OWN: readonly (readonly [HookName, readonly TableName[]])[] = [
  ['OUTPUT', ['raw', 'nat', 'filter', 'security']],
  ['POSTROUTING', ['mangle', 'nat']],
];
const FORWARDED: readonly (readonly [HookName, readonly TableName[]])[] = [
  ['FORWARD', ['mangle', 'filter', 'security']],
  ['POSTROUTING', ['mangle', 'nat']],
];

/** Writes the header's words. `effectsOf`: what `lateEffect` tells of a chain's rules. */
export function writeLate({ tables }: Ruleset, effectsOf: EffectsOf, words: Int32Array): void {
  const done = new Map(tables.map((table) => [table.name, new Map<string, Effect>()]));
  const at = (places: typeof OWN): Effect =>
    places
      .flatMap(([hook, names]) =>
        tables
          .filter(({ name }) => names.includes(name))
          .map((table) => whole(table, hook, effectsOf, done.get(table.name)!)),
      )
      .reduce(sum, NOTHING);
  const forwarded = at(FORWARDED);
  const own = at(OWN);
  words[Header.LATE] = forwarded.flags;
  words[Header.LATE_MARKS] = forwarded.marks;
  words[Header.LATE_OWN] = own.flags;
  words[Header.LATE_OWN_MARKS] = own.marks;
  // What is set can be raised or lowered afterwards.
  const never = forwarded.high + forwarded.up > TTL_MAX || forwarded.low - forwarded.down < TTL_MIN;
  words[Header.LATE_TTL_MIN] = never ? 256 : TTL_MIN + forwarded.down;
  words[Header.LATE_TTL_MAX] = never ? -1 : TTL_MAX - forwarded.up;
}
