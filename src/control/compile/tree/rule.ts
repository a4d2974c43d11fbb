/**
 * What a rule's words ask of the key words, as boxes. Read from the program's own words, so that a tree can't disagree with
 * the walk. Boxes may be larger than the rule (what they can't express is tested anyway), never smaller.
 *
 * Only tests up to the first that remembers something or can call a packet impossible count: a packet must meet that one
 * even where a later test would refuse it. For the packets a tree is asked about (tree.ts `ordinary`) the tests of ports
 * and ICMP types call none impossible.
 */
import { CtState, Proto } from '../../../dataplane/names.js';
import { Op, INVERT, OP_MASK, Rule, RULE_WORDS } from '../../../dataplane/program/format.js';
import { RangeTest } from '../../../dataplane/program/iprange.js';
import { PortSide } from '../../../dataplane/program/multiport.js';
import { MatchOp, TargetOp } from '../../../dataplane/program/ops.js';
import { TcpInvert } from '../../../dataplane/program/tcp.js';
import { Key, KEYS } from '../../../dataplane/program/tree.js';
import { unpackText } from '../../../dataplane/program/op.js';
import { KEY_LIMITS, type Boxes } from './boxes.js';

/** First and last value of a key, unsigned. */
type Range = readonly [number, number];
/** Ranges by key; undefined = any. A packet is in it when each key is in one of its ranges. */
type Product = readonly (readonly Range[] | undefined)[];

/** A rule becomes at most so many boxes; tests that would make more are left to the walk. */
const MAX_BOXES = 64;

/** Names of interfaces as ranges of 16 characters each, for all rules of a chain. */
export class Names {
  private readonly starts = new Set<string>();
  private sorted: string[] | undefined;

  /** The names that the eight words at `at` (program/basics.ts) stand for, from the first to before the last; '' = no end. */
  static span(words: Int32Array, at: number): readonly [string, string] {
    let length = 0;
    while (length < 16 && ((words[at + 4 + (length >> 2)]! >>> ((3 - (length & 3)) << 3)) & 0xff) !== 0) length++;
    const first = unpackText(words, at, 16);
    let last = length - 1;
    while (last >= 0 && first.charCodeAt(last) === 0xff) last--;
    if (last < 0) return [first, ''];
    return [first, (first.slice(0, last) + String.fromCharCode(first.charCodeAt(last) + 1)).padEnd(16, '\0')];
  }

  collect(words: Int32Array, at: number): void {
    for (const start of Names.span(words, at)) if (start > FIRST_NAME) this.starts.add(start);
  }

  /** Where ranges begin, ascending, without the very first. */
  get list(): readonly string[] {
    return (this.sorted ??= [...this.starts].sort((a, b) => (a < b ? -1 : 1)));
  }

  /** Ranges' numbers for the words at `at`. */
  range(words: Int32Array, at: number): Range {
    const [first, after] = Names.span(words, at);
    const number = (name: string): number => (name <= FIRST_NAME ? 0 : this.list.indexOf(name) + 1);
    return [number(first), after === '' ? this.list.length : number(after) - 1];
  }
}
const FIRST_NAME = '\0'.repeat(16);

/** Collects what `addRule` must know of all rules before the first. */
export function collectNames(words: Int32Array, ins: Names, outs: Names): void {
  for (let at = RULE_WORDS; at < words[Rule.TARGET]!; at += words[at + Op.LENGTH]!) {
    const op = words[at]! & OP_MASK;
    if (op === MatchOp.IN) ins.collect(words, at + Op.ARGS);
    else if (op === MatchOp.OUT) outs.collect(words, at + Op.ARGS);
  }
}

/** Adds the boxes of rule `number`, whose words these are. None: it matches no ordinary packet. */
export function addRule(boxes: Boxes, number: number, words: Int32Array, ins: Names, outs: Names): void {
  let products: Product[] = [new Array<undefined>(KEYS).fill(undefined)];
  let exact = true;
  const target = words[Rule.TARGET]!;
  for (let at = RULE_WORDS; at < target; at += words[at + Op.LENGTH]!) {
    const parts = constrain(words, at, products, ins, outs);
    if (parts === 'barrier') {
      exact = false;
      break;
    }
    if (!parts.exact) exact = false;
    if (parts.any === undefined) continue;
    const narrowed = products.flatMap((product) => parts.any!.map((part) => intersect(product, part)));
    if (narrowed.reduce((sum, product) => sum + size(product), 0) > MAX_BOXES) exact = false;
    else products = narrowed;
    if (parts.barrier) break;
  }
  const final = exact && FINAL.has(words[target]!);
  for (const product of products)
    for (const ranges of combinations(product)) {
      const i = boxes.add(number, final) * KEYS;
      ranges.forEach((range, key) => {
        if (range === undefined) return;
        boxes.low[i + key] = range[0];
        boxes.high[i + key] = range[1];
      });
    }
}

/** Targets behind which nothing of the chain is met. */
const FINAL: ReadonlySet<number> = new Set([
  TargetOp.ACCEPT,
  TargetOp.DROP,
  TargetOp.RETURN,
  TargetOp.GOTO,
  TargetOp.REJECT,
]);

interface Parts {
  /** The test holds in any of these only; undefined: it can't be said. */
  readonly any?: readonly Product[];
  /** And it does hold there. */
  readonly exact: boolean;
  /** It can call a packet impossible: what comes behind must not keep the packet from it. */
  readonly barrier?: boolean;
}
const UNKNOWN: Parts = { exact: false };

function constrain(
  words: Int32Array,
  test: number,
  products: readonly Product[],
  ins: Names,
  outs: Names,
): Parts | 'barrier' {
  const invert = (words[test]! & INVERT) !== 0;
  const at = test + Op.ARGS;
  const arg = (i: number): number => words[at + i]!;
  const only = (key: Key, ranges: readonly Range[], not = invert, exact = true): Parts => ({
    any: [product([key, not ? complement(ranges, KEY_LIMITS[key]!) : ranges])],
    exact,
  });
  const proto = (...numbers: number[]): boolean =>
    products.every((p) => p[Key.PROTOCOL]?.every(([low, high]) => low === high && numbers.includes(low)));
  switch (words[test]! & OP_MASK) {
    case MatchOp.SRC:
    case MatchOp.DST: {
      const key = (words[test]! & OP_MASK) === MatchOp.SRC ? Key.SRC : Key.DST;
      const ranges = masked(arg(0), arg(1));
      if (ranges !== undefined) return only(key, ranges);
      return invert ? UNKNOWN : only(key, [[(arg(0) & arg(1)) >>> 0, (arg(0) | ~arg(1)) >>> 0]], false, false);
    }
    case MatchOp.PROTOCOL:
      return only(Key.PROTOCOL, [[arg(0), arg(0)]]);
    case MatchOp.IN:
      return only(Key.IN, [ins.range(words, at)]);
    case MatchOp.OUT:
      return only(Key.OUT, [outs.range(words, at)]);
    case MatchOp.FRAGMENT:
      // Of ordinary packets none is one.
      return invert ? { any: [product()], exact: true } : { any: [], exact: true };
    case MatchOp.STATE: {
      const mask = arg(0) & (CtState.UNTRACKED * 2 - 1);
      const ranges: Range[] = [];
      for (let bit = 0; bit < 5; bit++) if ((mask >> bit) & 1) ranges.push([bit, bit]);
      return only(Key.STATE, merge(ranges));
    }
    case MatchOp.TCP: {
      if (!proto(Proto.TCP)) return 'barrier';
      const not = arg(4);
      const sports = ports(arg(0), (not & TcpInvert.SPORTS) !== 0);
      const dports = ports(arg(1), (not & TcpInvert.DPORTS) !== 0);
      const flags = arg(2) !== 0 || (not & TcpInvert.FLAGS) !== 0;
      // A malformed list of options is impossible, but only where the ports fit.
      return {
        any: [product([Key.SPORT, sports], [Key.DPORT, dports])],
        exact: !flags && arg(3) === 0,
        barrier: arg(3) !== 0,
      };
    }
    case MatchOp.UDP:
      if (!proto(Proto.UDP)) return 'barrier';
      return {
        any: [product([Key.SPORT, ports(arg(0), (arg(2) & 1) !== 0)], [Key.DPORT, ports(arg(1), (arg(2) & 2) !== 0)])],
        exact: true,
      };
    case MatchOp.ICMP: {
      if (!proto(Proto.ICMP)) return 'barrier';
      const type = arg(0);
      const ranges: Range[] = [type === 255 ? [0, 0xffff] : [(type << 8) | arg(1), (type << 8) | arg(2)]];
      return only(Key.DPORT, ranges, arg(3) !== 0);
    }
    case MatchOp.MULTIPORT: {
      if (!proto(Proto.TCP, Proto.UDP, Proto.UDPLITE, Proto.SCTP, Proto.DCCP)) return 'barrier';
      const listed = merge(
        Array.from({ length: arg(2) }, (_, i): Range => [arg(3 + i) >>> 16, arg(3 + i) & 0xffff]).filter(
          ([low, high]) => low <= high,
        ),
      );
      const not = arg(1) !== 0;
      const ranges = not ? complement(listed, 0xffff) : listed;
      const sports: [Key, readonly Range[]] = [Key.SPORT, ranges];
      const dports: [Key, readonly Range[]] = [Key.DPORT, ranges];
      if (arg(0) === PortSide.SOURCE) return { any: [product(sports)], exact: true };
      if (arg(0) === PortSide.DESTINATION) return { any: [product(dports)], exact: true };
      return { any: not ? [product(sports, dports)] : [product(sports), product(dports)], exact: true };
    }
    case MatchOp.IPRANGE: {
      const flags = arg(0);
      const of = (i: number, not: number): readonly Range[] => {
        const [low, high] = [arg(i) >>> 0, arg(i + 1) >>> 0];
        const ranges: Range[] = low <= high ? [[low, high]] : [];
        return (flags & not) !== 0 ? complement(ranges, 0xffffffff) : ranges;
      };
      const parts: [Key, readonly Range[]][] = [];
      if ((flags & RangeTest.SRC) !== 0) parts.push([Key.SRC, of(1, RangeTest.SRC_INVERT)]);
      if ((flags & RangeTest.DST) !== 0) parts.push([Key.DST, of(3, RangeTest.DST_INVERT)]);
      return { any: [product(...parts)], exact: true };
    }
    // These look at the packet or its connection, and at nothing else.
    case MatchOp.CONNTRACK:
    case MatchOp.MARK:
    case MatchOp.LENGTH:
    case MatchOp.TTL:
    case MatchOp.TOS:
    case MatchOp.ADDRTYPE:
    case MatchOp.OWNER:
      return UNKNOWN;
  }
  return 'barrier';
}

function product(...parts: readonly (readonly [Key, readonly Range[]])[]): Product {
  const result = new Array<readonly Range[] | undefined>(KEYS).fill(undefined);
  for (const [key, ranges] of parts) result[key] = ranges;
  return result;
}

const intersect = (a: Product, b: Product): Product =>
  a.map((ranges, key) => {
    const others = b[key];
    if (ranges === undefined) return others;
    if (others === undefined) return ranges;
    return ranges.flatMap(([low, high]) =>
      others.map(([l, h]): Range => [Math.max(low, l), Math.min(high, h)]).filter(([l, h]) => l <= h),
    );
  });

const size = (p: Product): number => p.reduce((n, ranges) => n * (ranges?.length ?? 1), 1);

function* combinations(
  p: Product,
  key = 0,
  chosen: (Range | undefined)[] = [],
): Generator<readonly (Range | undefined)[]> {
  if (key === p.length) yield chosen.slice();
  else
    for (const range of p[key] ?? [undefined]) {
      chosen[key] = range;
      yield* combinations(p, key + 1, chosen);
    }
}

const ports = (word: number, not: boolean): readonly Range[] => {
  const [low, high] = [word >>> 16, word & 0xffff];
  const ranges: Range[] = low <= high ? [[low, high]] : [];
  return not ? complement(ranges, 0xffff) : ranges;
};

/** Ranges in order, those that touch made one. */
function merge(ranges: readonly Range[]): Range[] {
  const merged: [number, number][] = [];
  for (const [low, high] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = merged[merged.length - 1];
    if (last !== undefined && low <= last[1] + 1) last[1] = Math.max(last[1], high);
    else merged.push([low, high]);
  }
  return merged;
}

/** What `ranges` leave of 0 … limit. */
function complement(ranges: readonly Range[], limit: number): Range[] {
  const left: Range[] = [];
  let next = 0;
  for (const [low, high] of merge(ranges)) {
    if (low > next) left.push([next, low - 1]);
    next = high + 1;
  }
  if (next <= limit) left.push([next, limit]);
  return left;
}

/** The addresses that masked are `address`: one range, a few where the mask has holes, undefined where they are many. */
function masked(address: number, mask: number): Range[] | undefined {
  if ((address & ~mask) !== 0) return [];
  // Bits below the lowest one of the mask vary within a range; holes above it make ranges.
  const tail = mask === 0 ? 32 : 31 - Math.clz32(mask & -mask);
  const holes: number[] = [];
  for (let bit = tail; bit < 32; bit++) if (((mask >>> bit) & 1) === 0) holes.push(bit);
  if (mask === 0) return [[0, 0xffffffff]];
  if (holes.length > 4) return undefined;
  const low = tail === 0 ? 0 : (1 << tail) - 1;
  return Array.from({ length: 1 << holes.length }, (_, n): Range => {
    const base = holes.reduce((bits, bit, i) => bits | (((n >> i) & 1) << bit), address);
    return [base >>> 0, (base | low) >>> 0];
  });
}
