/**
 * Rules that no packet can meet: those that an earlier one of their chain leaves nothing (it takes every packet that they could
 * match, and decides), and those whose own conditions exclude each other. Of a rule's conditions those are looked at that a decision
 * tree can tell apart (compile/tree/rule.ts): addresses, protocol, ports, ICMP types, interfaces, connection states. What only several
 * rules together take away isn't found, nor what another chain decides.
 *
 * A rule's boxes lie in one of an earlier rule where each of its ranges does. Boxes whose addresses are prefixes, nearly all, are
 * kept by their two prefixes: a box is looked for under each pair of lengths that occurs, not among all.
 */
import { Op, OP_MASK, Rule as R, RULE_WORDS } from '../dataplane/program/format.js';
import { MatchOp } from '../dataplane/program/ops.js';
import { Key, KEYS } from '../dataplane/program/tree.js';
import { Lowerer } from './compile/lower.js';
import { RegionStore } from './compile/regions.js';
import { Boxes } from './compile/tree/boxes.js';
import { addRule, collectNames, Names } from './compile/tree/rule.js';
import type { Chain, Rule, Ruleset, TableModel } from './model.js';

export interface Unmet {
  /** Id of the rule. */
  readonly rule: number;
  /** Id of the rule that leaves it nothing; undefined: its conditions exclude each other. */
  readonly by?: number;
}

/** Matches that boxes can express; a rule with others takes less than its boxes. */
const EXPRESSED = new Set(['tcp', 'udp', 'icmp', 'multiport', 'iprange', 'state', 'conntrack', 'comment']);
/** Extension targets behind which nothing of the chain is met. */
const DECIDING = new Set(['REJECT', 'SNAT', 'DNAT', 'MASQUERADE', 'REDIRECT', 'NETMAP', 'NFQUEUE']);
/** They look at the transport header, which a fragment past the first hasn't got. */
const TRANSPORT = new Set<number>([MatchOp.TCP, MatchOp.UDP, MatchOp.ICMP, MatchOp.MULTIPORT]);
/** The kernel's usual one; nothing here depends on it. */
const HZ = 250;

/** In the order of tables, chains and rules. */
export function* unmetRules({ tables }: Ruleset): Generator<Unmet> {
  for (const table of tables) for (const chain of table.chains.values()) yield* unmetIn(table, chain);
}

/**
 * Rules that name an interface which is none of `interfaces`, all that packets come and go by. The kernel takes such rules, as interfaces
 * can come; hutter's own on TUN don't.
 */
export function* rulesElsewhere(
  { tables }: Ruleset,
  interfaces: readonly string[] | undefined,
): Generator<{ rule: number; name: string }> {
  if (interfaces === undefined) return;
  const none = (name: string): boolean =>
    name !== '' &&
    !interfaces.some((each) => (name.endsWith('+') ? each.startsWith(name.slice(0, -1)) : each === name));
  for (const { chains } of tables)
    for (const { rules } of chains.values())
      for (const { id, in: from, out, notIn, notOut } of rules) {
        if (!notIn && none(from)) yield { rule: id, name: from };
        if (!notOut && none(out)) yield { rule: id, name: out };
      }
}

function* unmetIn(table: TableModel, { rules }: Chain): Generator<Unmet> {
  const lowerer = new Lowerer(new RegionStore(), HZ);
  const looked = rules.map((rule) => look(rule, table, lowerer));
  const [ins, outs] = [new Names(), new Names()];
  for (const { words } of looked) collectNames(words, ins, outs);
  const boxes = new Boxes(rules.length);
  const takers = new Takers(boxes, looked);
  for (const [i, { words }] of looked.entries()) {
    const first = boxes.count;
    addRule(boxes, i, words, ins, outs);
    const rule = rules[i]!.id;
    const by = takers.of(first, i);
    if (first === boxes.count) yield { rule };
    else if (by >= 0) yield { rule, by: rules[by]!.id };
    // What isn't met takes nothing that is left.
    else takers.add(first);
  }
}

/** A rule as boxes see it. */
interface Look {
  readonly words: Int32Array;
  /** It matches nothing but what has a transport header, as its tests ask for. */
  readonly transport: boolean;
}

function look(rule: Rule, table: TableModel, lowerer: Lowerer): Look {
  const matches = rule.matches.filter(({ extension }) => EXPRESSED.has(extension.name));
  const whole = matches.length === rule.matches.length && !rule.fragment && !rule.notFragment;
  const { target } = rule;
  const decides = whole && target.kind === 'extension' && DECIDING.has(target.use.extension.name);
  const seen: Rule = {
    ...rule,
    matches,
    // Boxes are about whole packets; of -f they would know nothing.
    fragment: false,
    notFragment: false,
    target: decides
      ? { kind: 'verdict', verdict: 'ACCEPT' }
      : whole && target.kind !== 'extension'
        ? target
        : { kind: 'none' },
  };
  lowerer.length = 0;
  lowerer.add(seen, table.name, 0);
  const words = lowerer.words.slice(0, lowerer.length);
  let transport = false;
  for (let at = RULE_WORDS; at < words[R.TARGET]!; at += words[at + Op.LENGTH]!)
    if (TRANSPORT.has(words[at]! & OP_MASK)) transport = true;
  return { words, transport };
}

/** Boxes of rules that decide, by what contains what. */
class Takers {
  /** By pair of prefix lengths, then by the prefixes; and those whose addresses are none. */
  private readonly shapes = new Map<number, Map<number, number[]>>();
  private readonly odd: number[] = [];

  constructor(
    private readonly boxes: Boxes,
    private readonly looked: readonly Look[],
  ) {}

  /** From box `first` on. */
  add(first: number): void {
    const { boxes } = this;
    for (let box = first; box < boxes.count; box++) {
      if (boxes.final[box] === 0) continue;
      const src = prefixLength(boxes, box, Key.SRC);
      const dst = prefixLength(boxes, box, Key.DST);
      if (src < 0 || dst < 0) {
        this.odd.push(box);
        continue;
      }
      const shape = src * 64 + dst;
      let byPrefix = this.shapes.get(shape);
      if (byPrefix === undefined) this.shapes.set(shape, (byPrefix = new Map()));
      const key = pair(boxes.low[box * KEYS + Key.SRC]!, boxes.low[box * KEYS + Key.DST]!);
      const same = byPrefix.get(key);
      if (same === undefined) byPrefix.set(key, [box]);
      else same.push(box);
    }
  }

  /** The rule that takes all boxes from `first` on, or the last of several; −1 if one is left. */
  of(first: number, rule: number): number {
    let by = -1;
    for (let box = first; box < this.boxes.count; box++) {
      const taker = this.taker(box, this.looked[rule]!.transport);
      if (taker < 0) return -1;
      by = Math.max(by, taker);
    }
    return by;
  }

  private taker(box: number, transport: boolean): number {
    const { low, high } = this.boxes;
    const at = box * KEYS;
    for (const [shape, byPrefix] of this.shapes) {
      const src = maskOf(shape >> 6);
      const dst = maskOf(shape & 63);
      // Both ends of the range have to lie below the prefix.
      if (((low[at + Key.SRC]! ^ high[at + Key.SRC]!) & src) !== 0) continue;
      if (((low[at + Key.DST]! ^ high[at + Key.DST]!) & dst) !== 0) continue;
      const key = pair((low[at + Key.SRC]! & src) >>> 0, (low[at + Key.DST]! & dst) >>> 0);
      const found = byPrefix.get(key)?.find((each) => this.contains(each, box, transport));
      if (found !== undefined) return this.boxes.rule[found]!;
    }
    const odd = this.odd.find((each) => this.contains(each, box, transport));
    return odd === undefined ? -1 : this.boxes.rule[odd]!;
  }

  private contains(outer: number, inner: number, transport: boolean): boolean {
    const { low, high, rule } = this.boxes;
    // A rule about ports leaves fragments; one that isn't would meet them.
    if (!transport && this.looked[rule[outer]!]!.transport) return false;
    for (let key = 0; key < KEYS; key++)
      if (low[outer * KEYS + key]! > low[inner * KEYS + key]! || high[outer * KEYS + key]! < high[inner * KEYS + key]!)
        return false;
    return true;
  }
}

const maskOf = (length: number): number => (length === 0 ? 0 : -1 << (32 - length));
/** Two addresses as one key; equal pairs have equal keys, and others seldom. */
const pair = (a: number, b: number): number => a * 0x20_0000 + (b % 0x20_0000);

/** Length of the prefix that the box's range of addresses is; −1 if it is none. */
function prefixLength(boxes: Boxes, box: number, key: Key): number {
  const low = boxes.low[box * KEYS + key]!;
  const high = boxes.high[box * KEYS + key]!;
  const length = Math.clz32(low ^ high);
  const mask = maskOf(length);
  return (low & ~mask) === 0 && (high | mask) === -1 ? length : -1;
}
