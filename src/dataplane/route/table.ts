/**
 * Routing tables in shared memory: longest prefix match, changed by one thread while others look up without locks.
 *
 * A table with few prefixes is one list. A larger one is looked at by 16, 8 and 8 bits of the address: blocks of entries,
 * and lists of up to LIST_MOST prefixes where a block would be nearly empty, which bounds the memory by the number of
 * prefixes. An entry is one word: 0 nothing, > 0 the node that holds the routes of the longest prefix, < 0 (bits inverted)
 * offset << 1 | 1 for a list, offset << 1 for a block.
 *
 * The routes of a prefix are a chain: a node's PARENT is that of the next shorter prefix, for a lookup that can't use any
 * of the node's own. Nodes are shared by all prefixes with the same routes and the same parent. /0 is no entry but a word of
 * the table, so that a new default route touches nothing else.
 *
 * For a table of very many prefixes there are 64 MiB more: an entry for each 24 bits of the address, so that nearly every lookup
 * reads one word and finds the routes, as in DIR-24-8. What it names for a prefix of up to 24 bits is a flat node: one for
 * all prefixes with the same routes, without a parent, so that the nodes that lookups meet are few. For the parents one looks as
 * in a smaller table. Where there is nothing the entry names a node without routes. A batch's addresses are looked up there
 * together (together.ts).
 *
 * A change builds new lists, blocks and nodes and stores one word where they begin. What it replaced is used again only
 * after `release`, which the caller calls when every reader has passed a batch edge.
 */

/** Words of a table's descriptor, which stays where it is. */
const enum Root {
  /** Offset of 65,536 entries, by the address's upper half; 0: LIST is the table. */
  BLOCK = 0,
  LIST = 1,
  /** Node of /0. */
  DEFAULT = 2,
  /** Offset of 2^24 entries, by the address's upper 24 bits; 0: there are none. */
  WIDE = 3,
  WORDS = 4,
}

/** Words of a node: PARENT, COUNT, then ALIAS_WORDS for each of its routes, in the order in which they are tried. */
export const enum Node {
  /** The next shorter prefix's node; 0: /0 or nothing; FLAT: `lookupChain` knows. */
  PARENT = 0,
  COUNT = 1,
  ALIASES = 2,
}

/** PARENT of a flat node. */
export const FLAT = -1;

/** Words of one route of a prefix: what `Fib` (fib.ts) writes and reads, of no meaning here. */
export const ALIAS_WORDS = 8;

/** Words of a list: how many, the entry where none fits, then mask, address and entry of each, the longest mask first. */
const enum List {
  COUNT = 0,
  ELSE = 1,
  ITEMS = 2,
  ITEM_WORDS = 3,
}
const LIST_MOST = 8;
/** A table of more prefixes than this is looked at by its upper half. */
const ROOT_LIST_MOST = 16;
/** And again as one list when it has no more than this. */
const ROOT_LIST_LEAST = 8;
const HALF = 1 << 16;
/** A table of more prefixes than this is looked at by 24 bits, where there is room, and of no more than that no longer. */
const WIDE_MOST = 1 << 16;
const WIDE_LEAST = 1 << 15;
/** Words that such a table takes. */
export const WIDE = 1 << 24;
const BLOCK = 256;
/** Upper halves that are built in one step, less 1. */
const STEP = 63;

/** The node for `dst` in the table at `table`; 0 = none. For /0 take `defaultNode` when a chain ends. */
export function lookup(w: Int32Array, table: number, dst: number): number {
  const wide = w[table + Root.WIDE]!;
  if (wide === 0) return lookupChain(w, table, dst);
  const e = w[wide + (dst >>> 8)]!;
  // Nearly always; a processor that guesses wrong here has to wait for the entry.
  if (e > 0) return e;
  const node = (~e & 1) !== 0 ? scan(w, ~e >>> 1, dst) : w[(~e >>> 1) + (dst & 255)]!;
  return node !== 0 ? node : w[table + Root.DEFAULT]!;
}

/** As `lookup`; the node is one that knows its parent. */
export function lookupChain(w: Int32Array, table: number, dst: number): number {
  const block = w[table + Root.BLOCK]!;
  let e = block !== 0 ? w[block + (dst >>> 16)]! : w[table + Root.LIST]!;
  if (e < 0) {
    const p = ~e;
    if ((p & 1) !== 0) e = scan(w, p >>> 1, dst);
    else {
      e = w[(p >>> 1) + ((dst >>> 8) & 255)]!;
      if (e < 0) {
        const q = ~e;
        e = (q & 1) !== 0 ? scan(w, q >>> 1, dst) : w[(q >>> 1) + (dst & 255)]!;
      }
    }
  }
  return e !== 0 ? e : w[table + Root.DEFAULT]!;
}

/** Offset of the table's entries by 24 bits; 0 = it has none, as it is small. */
export const wideOf = (w: Int32Array, table: number): number => w[table + Root.WIDE]!;

/** Node of the table's /0; 0 = it has none. */
export const defaultNode = (w: Int32Array, table: number): number => w[table + Root.DEFAULT]!;

function scan(w: Int32Array, list: number, dst: number): number {
  const end = list + List.ITEMS + w[list + List.COUNT]! * List.ITEM_WORDS;
  for (let i = list + List.ITEMS; i < end; i += List.ITEM_WORDS) if ((dst & w[i]!) === w[i + 1]!) return w[i + 2]!;
  return w[list + List.ELSE]!;
}

/** No room for what a change needs. Nothing was changed. */
export class TableFull extends Error {
  override readonly name = 'TableFull';
}

const FULL = 'the routing tables have no room for more routes';

/** Pieces of no more words lie beside each other in slabs: lists and nodes, which lookups end in, stay in the caches. */
const SMALL_MOST = 32;
const SLAB = 4096;

/** Parts of the shared memory, taken and given back by one thread. */
export class Arena {
  private readonly free = new Map<number, number[]>();
  private readonly retired: [offset: number, size: number][] = [];
  /** What is left of the slab at hand. */
  private slab = 0;
  private slabEnd = 0;

  constructor(
    readonly words: Int32Array,
    private next: number,
  ) {}

  /** Words that nobody uses, of any content. @throws TableFull */
  take(size: number): number {
    const known = this.free.get(size)?.pop();
    if (known !== undefined) return known;
    if (size > SMALL_MOST) return this.cut(size);
    if (this.slabEnd - this.slab < size) {
      this.slab = this.cut(SLAB);
      this.slabEnd = this.slab + SLAB;
    }
    const offset = this.slab;
    this.slab += size;
    return offset;
  }

  private cut(size: number): number {
    if (this.next + size > this.words.length) throw new TableFull(FULL);
    const offset = this.next;
    this.next += size;
    return offset;
  }

  /** @throws TableFull when fewer words than `size` are left. */
  need(size: number): void {
    // Of a slab less is left over than the largest of its pieces.
    if (this.next + size + SLAB * (1 + Math.ceil(size / (SLAB - SMALL_MOST) / SMALL_MOST)) > this.words.length)
      throw new TableFull(FULL);
  }

  /** Words that nobody ever took. */
  get left(): number {
    return this.words.length - this.next;
  }

  /** Nobody finds these words any more, but a reader may be about to look at them. */
  retire(offset: number, size: number): void {
    this.retired.push([offset, size]);
  }

  /** Every reader has passed a batch edge since all that is retired was last found. */
  release(): void {
    for (const [offset, size] of this.retired.splice(0)) {
      const list = this.free.get(size);
      if (list === undefined) this.free.set(size, [offset]);
      else list.push(offset);
    }
  }

  /** Words taken so far, free ones included. */
  get used(): number {
    return this.next - (this.slabEnd - this.slab);
  }
}

/** The routes of one prefix, in order: words for a node. Equal ones should be one object, as nodes are shared by it. */
export interface RouteSet {
  /** A multiple of ALIAS_WORDS. */
  readonly words: Int32Array;
}

/** A node as its writer knows it. */
class Chain {
  users = 0;
  readonly children = new Map<RouteSet, Chain>();
  constructor(
    readonly offset: number,
    readonly set: RouteSet,
    readonly parent: Chain | undefined,
  ) {}
}

/** A flat node as its writer knows it. */
interface Flat {
  readonly offset: number;
  /** Prefixes with these routes. */
  uses: number;
}

/** Prefixes of 17 to 32 bits with the same upper half, ascending by length, then address. */
class Bucket {
  readonly addresses: number[] = [];
  readonly lengths: number[] = [];
  readonly sets: RouteSet[] = [];
  /** Undefined: just added. */
  readonly chains: (Chain | undefined)[] = [];

  /** Index of the prefix; below 0: ~index where it belongs. */
  find(address: number, length: number): number {
    let low = 0;
    let high = this.addresses.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.lengths[middle]! - length || (this.addresses[middle]! >>> 0) - (address >>> 0);
      if (order === 0) return middle;
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return ~low;
  }
}

/** A prefix of 1 to 16 bits. */
interface Short {
  address: number;
  length: number;
  set: RouteSet;
  /** Undefined: to be found anew. */
  chain: Chain | undefined;
}

/** A prefix and its routes. */
export interface Entry {
  /** Host order. */
  readonly address: number;
  readonly length: number;
  readonly set: RouteSet;
}

/** One table's writer. */
export class RoutingTable {
  /** Where readers find it. */
  readonly offset: number;
  /** Prefixes in it, /0 aside. */
  count = 0;
  private readonly words: Int32Array;
  private readonly tops = new Map<RouteSet, Chain>();
  private readonly buckets = new Map<number, Bucket>();
  private readonly shorts = new Map<number, Short>();
  private zero: Chain | undefined;
  private readonly flats = new Map<RouteSet, Flat>();
  /** A node without routes, with room for one: who reads on finds zeros. */
  private readonly nothing: number;
  /** Nodes whose users have others now, and lose them when the new ones are in place. */
  private readonly outdated: Chain[] = [];
  /** Where the entries by 24 bits are; 0 = there are none. */
  private wide = 0;
  /** Words of the longest set so far. */
  private widest = 0;
  /** Upper halves to be built anew, between `begin` and `end`. */
  private dirty: Set<number> | undefined;
  private depth = 0;

  /** @throws TableFull */
  constructor(private readonly arena: Arena) {
    this.words = arena.words;
    this.offset = arena.take(Root.WORDS);
    this.words.fill(0, this.offset, this.offset + Root.WORDS);
    this.nothing = arena.take(Node.ALIASES + ALIAS_WORDS);
    this.words.fill(0, this.nothing, this.nothing + Node.ALIASES + ALIAS_WORDS);
  }

  /** The prefix's routes. `address` has no bits below the prefix. */
  get(address: number, length: number): RouteSet | undefined {
    if (length === 0) return this.zero?.set;
    if (length <= 16) return this.shorts.get(shortKey(address, length))?.set;
    const bucket = this.buckets.get(address >>> 16);
    const at = bucket?.find(address, length) ?? -1;
    return at < 0 ? undefined : bucket!.sets[at];
  }

  /** Many changes at once: each part of the table is built once, by the `end` of the outermost `begin`. */
  begin(): void {
    this.dirty ??= new Set();
    this.depth++;
  }
  end(): void {
    const steps = this.ending();
    while (steps.next().done !== true);
  }

  /** As `end`, in steps between which other things can be done, but no change of the table. */
  *ending(): Generator<void> {
    if (--this.depth > 0) return;
    const dirty = this.dirty!;
    this.dirty = undefined;
    yield* this.rebuild(dirty);
  }

  /**
   * Gives a prefix its routes, or (undefined) takes it out. `address` has no bits below the prefix.
   * @throws TableFull before anything is changed
   */
  set(address: number, length: number, set: RouteSet | undefined): void {
    this.begin();
    try {
      this.widest = Math.max(this.widest, set?.words.length ?? 0);
      if (length === 0) this.setDefault(set);
      else if (length <= 16) this.setShort(address, length, set);
      else this.setLong(address, length, set);
    } finally {
      this.end();
    }
  }

  /** All prefixes in the kernel's order: by address, the longest of one address first. */
  *entries(): Generator<Entry> {
    const all: Entry[] = [];
    if (this.zero !== undefined) all.push({ address: 0, length: 0, set: this.zero.set });
    for (const { address, length, set } of this.shorts.values()) all.push({ address, length, set });
    for (const bucket of this.buckets.values())
      bucket.addresses.forEach((address, i) => all.push({ address, length: bucket.lengths[i]!, set: bucket.sets[i]! }));
    yield* all.sort((a, b) => (a.address >>> 0) - (b.address >>> 0) || b.length - a.length);
  }

  private setDefault(set: RouteSet | undefined): void {
    const old = this.zero;
    if (set === old?.set) return;
    this.arena.need(Node.ALIASES + this.widest);
    this.zero = set === undefined ? undefined : this.take(set, undefined);
    Atomics.store(this.words, this.offset + Root.DEFAULT, this.zero?.offset ?? 0);
    if (old !== undefined) this.drop(old);
  }

  private setShort(address: number, length: number, set: RouteSet | undefined): void {
    const key = shortKey(address, length);
    const known = this.shorts.get(key);
    if (known?.set === set) return;
    const first = address >>> 16;
    const after = first + (1 << (16 - length));
    let below = 1;
    for (let half = first; half < after; half++) below += this.buckets.get(half)?.addresses.length ?? 0;
    this.needFor(below + this.shorts.size, false);
    if (set === undefined) this.shorts.delete(key);
    else this.shorts.set(key, { address, length, set, chain: known?.chain });
    this.count += (set === undefined ? 0 : 1) - (known === undefined ? 0 : 1);
    if (set === undefined && known?.chain !== undefined) this.outdated.push(known.chain);
    this.use(known?.set, set);
    for (let longer = length; longer <= 16; longer++)
      for (let half = first; half < after; half += 1 << (16 - longer)) {
        const short = this.shorts.get(longer * HALF + half);
        if (short?.chain === undefined) continue;
        this.outdated.push(short.chain);
        short.chain = undefined;
      }
    for (let half = first; half < after; half++) this.dirty!.add(half);
  }

  private setLong(address: number, length: number, set: RouteSet | undefined): void {
    const half = address >>> 16;
    let bucket = this.buckets.get(half);
    const at = bucket?.find(address, length) ?? -1;
    const before = at < 0 ? undefined : bucket!.sets[at];
    if (set === before) return;
    this.needFor((bucket?.addresses.length ?? 0) + 1, true);
    this.use(before, set);
    if (bucket === undefined) {
      bucket = new Bucket();
      this.buckets.set(half, bucket);
    }
    if (set === undefined) {
      const [chain] = bucket.chains.splice(at, 1);
      for (const list of [bucket.addresses, bucket.lengths, bucket.sets]) list.splice(at, 1);
      if (chain !== undefined) this.outdated.push(chain);
      if (bucket.addresses.length === 0) this.buckets.delete(half);
      this.count--;
    } else if (at >= 0) {
      bucket.sets[at] = set;
    } else {
      bucket.addresses.splice(~at, 0, address);
      bucket.lengths.splice(~at, 0, length);
      bucket.sets.splice(~at, 0, set);
      bucket.chains.splice(~at, 0, undefined);
      this.count++;
    }
    this.dirty!.add(half);
  }

  /** Room for new lists and nodes of so many prefixes, and for blocks where they may be needed. @throws TableFull */
  private needFor(prefixes: number, blocks: boolean): void {
    const lists = List.ITEMS + List.ITEM_WORDS + Node.ALIASES + this.widest;
    const whole = this.count === ROOT_LIST_MOST ? HALF + ROOT_LIST_MOST * (lists + BLOCK) : 0;
    this.arena.need(
      prefixes * (lists + (blocks ? Math.ceil((2 * BLOCK) / LIST_MOST) : 0)) + (blocks ? BLOCK : 0) + whole,
    );
  }

  /** A prefix has other routes than before. */
  private use(before: RouteSet | undefined, set: RouteSet | undefined): void {
    if (before !== undefined) this.flats.get(before)!.uses--;
    if (set === undefined) return;
    let flat = this.flats.get(set);
    if (flat === undefined) {
      flat = { offset: this.putNode(set, FLAT), uses: 0 };
      this.flats.set(set, flat);
    }
    flat.uses++;
  }

  /** What `use` left without a prefix goes when no entry names it any more. */
  private dropFlats(): void {
    for (const [set, { offset, uses }] of this.flats)
      if (uses === 0) {
        this.flats.delete(set);
        this.arena.retire(offset, Node.ALIASES + set.words.length);
      }
  }

  private putNode(set: RouteSet, parent: number): number {
    const offset = this.arena.take(Node.ALIASES + set.words.length);
    this.words[offset + Node.PARENT] = parent;
    this.words[offset + Node.COUNT] = set.words.length / ALIAS_WORDS;
    this.words.set(set.words, offset + Node.ALIASES);
    return offset;
  }

  private *rebuild(dirty: ReadonlySet<number>): Generator<void> {
    const { words, offset } = this;
    const block = words[offset + Root.BLOCK]!;
    const wide = words[offset + Root.WIDE]!;
    if (wide !== 0 && this.count <= WIDE_LEAST) {
      Atomics.store(words, offset + Root.WIDE, 0);
      this.arena.retire(wide, WIDE);
      this.wide = 0;
    } else if (wide === 0 && this.count > WIDE_MOST && this.arena.left > 2 * WIDE) {
      // Readers find it when all of it is there.
      this.wide = this.arena.take(WIDE);
      for (let at = 0; at < WIDE; at += HALF) {
        words.fill(0, this.wide + at, this.wide + at + HALF);
        yield;
      }
      dirty = new Set(Array.from({ length: HALF }, (_, half) => half));
    }
    if (this.count <= (block === 0 ? ROOT_LIST_MOST : ROOT_LIST_LEAST)) {
      for (const half of dirty) this.assign(half);
      this.storeList(offset + Root.LIST, this.all(), 0);
      if (block !== 0) {
        Atomics.store(words, offset + Root.BLOCK, 0);
        this.retireBlock(block, HALF);
      }
    } else if (block === 0) {
      const fresh = this.arena.take(HALF);
      words.fill(0, fresh, fresh + HALF);
      for (let half = 0; half < HALF; half++) {
        this.buildHalf(fresh, half);
        if ((half & STEP) === STEP) yield;
      }
      Atomics.store(words, offset + Root.BLOCK, fresh);
      this.storeLeaf(offset + Root.LIST, 0);
    } else {
      let built = 0;
      for (const half of dirty) {
        this.buildHalf(block, half);
        if ((++built & STEP) === STEP) yield;
      }
    }
    if (this.wide !== wide && this.wide !== 0) Atomics.store(words, offset + Root.WIDE, this.wide);
    for (const chain of this.outdated.splice(0)) this.drop(chain);
    this.dropFlats();
  }

  /** Every prefix but /0, for a list. */
  private all(): Item[] {
    const items: Item[] = [];
    for (const short of this.shorts.values())
      items.push({ address: short.address, length: short.length, entry: this.shortChain(short).offset });
    for (const { addresses, lengths, chains } of this.buckets.values())
      addresses.forEach((address, i) => items.push({ address, length: lengths[i]!, entry: chains[i]!.offset }));
    return items;
  }

  private buildHalf(root: number, half: number): void {
    const cover = this.assign(half);
    const bucket = this.buckets.get(half);
    const at = root + half;
    if (bucket === undefined) this.storeLeaf(at, cover.top?.offset ?? 0);
    else if (bucket.addresses.length <= LIST_MOST) this.storeList(at, itemsOf(bucket), cover.top?.offset ?? 0);
    else
      this.storeBlock(at, (block) => {
        for (let i = 0; i < BLOCK; i++) {
          const below = cover.below.get(i);
          const here = cover.entries[i]?.offset ?? 0;
          if (below === undefined) this.storeLeaf(block + i, here);
          else if (below.indexes.length <= LIST_MOST) this.storeList(block + i, itemsOf(bucket, below.indexes), here);
          else
            this.storeBlock(block + i, (last) => {
              for (let j = 0; j < BLOCK; j++) this.storeLeaf(last + j, below.entries[j]?.offset ?? 0);
            });
        }
      });
    if (this.wide !== 0) this.buildWide(half, this.words[at]!, cover);
  }

  /** The 256 entries of an upper half, whose entry is `above`; they own nothing of what they name. */
  private buildWide(half: number, above: number, { top, entries, below }: Cover): void {
    const { words } = this;
    const flat = (chain: Chain | undefined): number =>
      chain === undefined ? this.nothing : this.flats.get(chain.set)!.offset;
    const block = above < 0 && (~above & 1) === 0 ? ~above >>> 1 : 0;
    for (let i = 0; i < BLOCK; i++) {
      const longer = block === 0 ? above : words[block + i]!;
      const entry = below.has(i) ? longer : flat(entries.length === 0 ? top : entries[i]);
      Atomics.store(words, this.wide + half * BLOCK + i, entry);
    }
  }

  /** Gives the prefixes of one upper half their nodes, from the shortest to the longest. */
  private assign(half: number): Cover {
    let top: Chain | undefined;
    for (let length = 16; length > 0 && top === undefined; length--) {
      const short = this.shorts.get(shortKey(prefixOf(half << 16, length), length));
      if (short !== undefined) top = this.shortChain(short);
    }
    const bucket = this.buckets.get(half);
    const below = new Map<number, { entries: (Chain | undefined)[]; indexes: number[] }>();
    if (bucket === undefined) return { top, entries: [], below };
    const entries = new Array<Chain | undefined>(BLOCK).fill(top);
    bucket.addresses.forEach((address, i) => {
      const length = bucket.lengths[i]!;
      const third = (address >>> 8) & 255;
      let into = entries;
      let first = third;
      let count = 1 << (24 - length);
      if (length > 24) {
        let group = below.get(third);
        if (group === undefined) {
          group = { entries: new Array<Chain | undefined>(BLOCK).fill(entries[third]), indexes: [] };
          below.set(third, group);
        }
        group.indexes.push(i);
        into = group.entries;
        first = address & 255;
        count = 1 << (32 - length);
      }
      const chain = this.take(bucket.sets[i]!, into[first]);
      const old = bucket.chains[i];
      if (old !== undefined) this.outdated.push(old);
      bucket.chains[i] = chain;
      into.fill(chain, first, first + count);
    });
    return { top, entries, below };
  }

  private shortChain(short: Short): Chain {
    if (short.chain !== undefined) return short.chain;
    let parent: Chain | undefined;
    for (let length = short.length - 1; length > 0 && parent === undefined; length--) {
      const above = this.shorts.get(shortKey(prefixOf(short.address, length), length));
      if (above !== undefined) parent = this.shortChain(above);
    }
    short.chain = this.take(short.set, parent);
    return short.chain;
  }

  /** The node of these routes under that parent, known or new; one user more. */
  private take(set: RouteSet, parent: Chain | undefined): Chain {
    const siblings = parent?.children ?? this.tops;
    let chain = siblings.get(set);
    if (chain === undefined) {
      chain = new Chain(this.putNode(set, parent?.offset ?? 0), set, parent);
      siblings.set(set, chain);
      if (parent !== undefined) parent.users++;
    }
    chain.users++;
    return chain;
  }

  /** One user less. */
  private drop(chain: Chain): void {
    if (--chain.users > 0) return;
    (chain.parent?.children ?? this.tops).delete(chain.set);
    this.arena.retire(chain.offset, Node.ALIASES + chain.set.words.length);
    if (chain.parent !== undefined) this.drop(chain.parent);
  }

  private storeLeaf(at: number, entry: number): void {
    const old = this.words[at]!;
    if (old === entry) return;
    Atomics.store(this.words, at, entry);
    this.retireEntry(old);
  }

  private storeList(at: number, items: Item[], otherwise: number): void {
    if (items.length === 0) {
      this.storeLeaf(at, otherwise);
      return;
    }
    const { words } = this;
    const size = listSize(items.length);
    const list = this.arena.take(size);
    words[list + List.COUNT] = items.length;
    words[list + List.ELSE] = otherwise;
    items.sort((a, b) => b.length - a.length || (a.address >>> 0) - (b.address >>> 0));
    items.forEach(({ address, length, entry }, i) => {
      const item = list + List.ITEMS + i * List.ITEM_WORDS;
      words[item] = -1 << (32 - length);
      words[item + 1] = address;
      words[item + 2] = entry;
    });
    const old = words[at]!;
    Atomics.store(words, at, ~((list << 1) | 1));
    this.retireEntry(old);
  }

  /** Has `fill` write a block, the one that is there or a new one that readers find when it is whole. */
  private storeBlock(at: number, fill: (block: number) => void): void {
    const old = this.words[at]!;
    if (old < 0 && (~old & 1) === 0) {
      fill(~old >>> 1);
      return;
    }
    const block = this.arena.take(BLOCK);
    this.words.fill(0, block, block + BLOCK);
    fill(block);
    Atomics.store(this.words, at, ~(block << 1));
    this.retireEntry(old);
  }

  private retireEntry(entry: number): void {
    if (entry >= 0) return;
    const p = ~entry;
    if ((p & 1) === 0) this.retireBlock(p >>> 1, BLOCK);
    else this.arena.retire(p >>> 1, listSize(this.words[(p >>> 1) + List.COUNT]!));
  }

  private retireBlock(block: number, size: number): void {
    for (let i = 0; i < size; i++) this.retireEntry(this.words[block + i]!);
    this.arena.retire(block, size);
  }
}

/** What lies under an upper half: nodes by the third byte, and by the fourth where prefixes are longer than 24 bits. */
interface Cover {
  /** Of the longest prefix of up to 16 bits. */
  readonly top: Chain | undefined;
  readonly entries: readonly (Chain | undefined)[];
  readonly below: ReadonlyMap<
    number,
    { readonly entries: readonly (Chain | undefined)[]; readonly indexes: readonly number[] }
  >;
}

/** A prefix in a list. */
interface Item {
  readonly address: number;
  readonly length: number;
  readonly entry: number;
}

function itemsOf({ addresses, lengths, chains }: Bucket, indexes?: readonly number[]): Item[] {
  const item = (i: number): Item => ({ address: addresses[i]!, length: lengths[i]!, entry: chains[i]!.offset });
  return indexes?.map(item) ?? addresses.map((_, i) => item(i));
}

const listSize = (items: number): number => List.ITEMS + items * List.ITEM_WORDS;
const shortKey = (address: number, length: number): number => length * HALF + (address >>> 16);

/** The address's first `length` bits (0 to 32), the others 0. */
export const prefixOf = (address: number, length: number): number =>
  length === 0 ? 0 : address & (-1 << (32 - length));
