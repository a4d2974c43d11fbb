import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import {
  ALIAS_WORDS,
  Arena,
  defaultNode,
  FLAT,
  lookup,
  lookupChain,
  Node,
  prefixOf,
  type RouteSet,
  RoutingTable,
  TableFull,
  wideOf,
} from '../../src/dataplane/route/table.js';
import { memoryFor, together } from '../../src/dataplane/route/together.js';
import { random } from '../nat/packets.js';

/** Sets that are told apart by the first word of their only route. */
const SETS: RouteSet[] = Array.from({ length: 6 }, (_, i) => {
  const words = new Int32Array(ALIAS_WORDS * (1 + (i % 2)));
  words[0] = 100 + i;
  return { words };
});

interface Prefix {
  address: number;
  length: number;
  set: number;
}

/** The slow twin: all prefixes in a list. */
class Linear {
  readonly prefixes = new Map<string, Prefix>();
  set(address: number, length: number, set: number | undefined): void {
    const key = `${address}/${length}`;
    if (set === undefined) this.prefixes.delete(key);
    else this.prefixes.set(key, { address, length, set });
  }
  /** Sets of all prefixes that hold `dst`, the longest first; /0 is not tried again after the same routes. */
  chain(dst: number): number[] {
    const found = [...this.prefixes.values()]
      .filter(({ address, length }) => prefixOf(dst, length) === address)
      .sort((a, b) => b.length - a.length);
    const sets = found.map(({ set }) => 100 + set);
    return found.at(-1)?.length === 0 && sets.at(-1) === sets.at(-2) ? sets.slice(0, -1) : sets;
  }
}

function chainOf(words: Int32Array, table: number, dst: number): number[] {
  const found: number[] = [];
  const last = defaultNode(words, table);
  for (let node = lookup(words, table, dst); node !== 0;) {
    if (words[node + Node.PARENT] === FLAT) {
      const chain = lookupChain(words, table, dst);
      assert.equal(words[chain + Node.ALIASES], words[node + Node.ALIASES]);
      node = chain;
    }
    if (words[node + Node.COUNT] !== 0) found.push(words[node + Node.ALIASES]!);
    node = words[node + Node.PARENT]! || (node === last ? 0 : last);
  }
  return found;
}

const create = (size = 1 << 20): { words: Int32Array; arena: Arena; table: RoutingTable } => {
  const words = new Int32Array(size);
  const arena = new Arena(words, 16);
  return { words, arena, table: new RoutingTable(arena) };
};

/** Addresses that lie near each other, so that prefixes nest and share blocks. */
const address = fc.tuple(fc.constantFrom(0, 10, 192), fc.constantFrom(0, 1, 255), fc.constantFrom(0, 7), fc.nat(255));
const change = fc.record({
  address: address.map(([a, b, c, d]) => (a << 24) | (b << 16) | (c << 8) | d),
  length: fc.nat(32),
  set: fc.option(fc.nat(SETS.length - 1), { nil: undefined }),
});

t.test('every lookup and its way to shorter prefixes, after any changes, is that of a list of prefixes', (t) => {
  const property = fc.property(fc.array(change, { maxLength: 120 }), fc.boolean(), (changes, atOnce) => {
    const { words, arena, table } = create();
    const linear = new Linear();
    const make = (): void => {
      for (const { address: full, length, set } of changes) {
        const prefix = prefixOf(full, length);
        table.set(prefix, length, set === undefined ? undefined : SETS[set]);
        linear.set(prefix, length, set);
        if (!atOnce) arena.release();
      }
    };
    if (atOnce) table.begin();
    make();
    if (atOnce) table.end();
    for (const { address: full, length } of changes)
      for (const dst of [full, prefixOf(full, length), full ^ 1, full ^ 0x100, full ^ 0x10000, ~full])
        assert.deepEqual(chainOf(words, table.offset, dst), linear.chain(dst));
    const listed = [...table.entries()].map((entry) => `${entry.address}/${entry.length} ${SETS.indexOf(entry.set)}`);
    assert.deepEqual(listed.sort(), [...linear.prefixes].map(([key, { set }]) => `${key} ${set}`).sort());
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 150 }));
  t.end();
});

t.test('what is taken out leaves nothing behind', (t) => {
  const { arena, table } = create(1 << 21);
  const next = random(7);
  const prefixes = Array.from({ length: 1000 }, (_, i) => {
    const length = 8 + (next() % 25);
    return { address: prefixOf(i % 3 === 0 ? next() : (10 << 24) | (next() & 0x3ffff), length), length };
  });
  const fill = (): void => {
    for (const { address: prefix, length } of prefixes) table.set(prefix, length, SETS[length % SETS.length]);
    for (const { address: prefix, length } of prefixes) table.set(prefix, length, undefined);
    arena.release();
  };
  fill();
  const { used } = arena;
  for (let i = 0; i < 3; i++) fill();
  t.equal(arena.used, used, 'the same memory serves again');
  t.equal(table.count, 0);
  t.end();
});

t.test('memory given back is not used before the readers have passed', (t) => {
  const { words, arena, table } = create();
  for (let i = 0; i < 40; i++) table.set((10 << 24) | (i << 8), 24, SETS[0]);
  arena.release();
  // A reader that stands at the list it found.
  const before = words.slice();
  const { used } = arena;
  for (let i = 0; i < 40; i++) {
    table.set((10 << 24) | (i << 8) | 4, 30, SETS[1]);
    table.set((10 << 24) | (i << 8) | 4, 30, undefined);
  }
  const from = lookup(before, table.offset, (10 << 24) | 4);
  t.same(words.slice(from, from + 10), before.slice(from, from + 10));
  t.ok(arena.used > used);
  t.end();
});

t.test('a table without room refuses, and is what it was', (t) => {
  const { words, arena, table } = create(70_000);
  const linear = new Linear();
  const next = random(3);
  let refused = 0;
  for (let i = 0; i < 400; i++) {
    const length = next() % 33;
    const prefix = prefixOf((10 << 24) | (next() & 0xffff), length);
    const set = next() % SETS.length;
    try {
      table.set(prefix, length, SETS[set]);
      linear.set(prefix, length, set);
    } catch (error) {
      if (!(error instanceof TableFull)) throw error;
      refused++;
    }
    arena.release();
  }
  t.ok(refused > 0 && linear.prefixes.size > 10, `${refused} refused`);
  for (let i = 0; i < 2000; i++) {
    const dst = (10 << 24) | (next() & 0xffff);
    assert.deepEqual(chainOf(words, table.offset, dst), linear.chain(dst));
  }
  t.end();
});

t.test('very many prefixes, looked at by 24 bits, and what is left of them', (t) => {
  const most = 200_000 * 72 + 3 * (1 << 24);
  const memory = memoryFor(most + 128);
  const words = new Int32Array(memory.buffer);
  const arena = new Arena(words.subarray(0, most), 16);
  const table = new RoutingTable(arena);
  const lookTogether = together(memory);
  /** Of the addresses how many have another node when up to 64 are looked up together. */
  const differ = (addresses: readonly number[]): number => {
    let count = 0;
    for (let i = 0; i < addresses.length; i += 61) {
      const some = addresses.slice(i, i + 61);
      words.set(some, most);
      lookTogether(wideOf(words, table.offset), most, most + 64, some.length);
      some.forEach((dst, j) => {
        const node = words[most + 64 + j]! || defaultNode(words, table.offset);
        if (node !== lookup(words, table.offset, dst)) count++;
      });
    }
    return count;
  };
  const next = random(42);
  const twin = Array.from({ length: 33 }, () => new Map<number, number>());
  const all: [prefix: number, length: number][] = [];
  const put = (prefix: number, length: number, set: number | undefined): void => {
    table.set(prefix, length, set === undefined ? undefined : SETS[set]);
    if (set === undefined) twin[length]!.delete(prefix);
    else twin[length]!.set(prefix, set);
  };
  const wrong = (addresses: number): number => {
    let count = 0;
    for (let i = 0; i < addresses; i++) {
      // Half of them in some prefix that is or was there.
      const dst = i % 2 === 0 ? next() | 0 : all[next() % all.length]![0] | (next() & 1);
      const expected: number[] = [];
      for (let length = 32; length >= 0; length--) {
        const set = twin[length]!.get(prefixOf(dst, length));
        if (set !== undefined) expected.push(100 + set);
      }
      if (chainOf(words, table.offset, dst).join() !== expected.join()) count++;
    }
    return count;
  };
  table.begin();
  while (table.count < 200_000) {
    const length = next() % 8 === 0 ? 9 + (next() % 24) : 24;
    const prefix = prefixOf(next(), length);
    if (!twin[length]!.has(prefix)) all.push([prefix, length]);
    put(prefix, length, next() % SETS.length);
  }
  table.end();
  t.equal(wrong(50_000), 0);
  const addresses = all.map(([prefix], i) => (i % 2 === 0 ? prefix | (next() & 255) : next() | 0));
  t.equal(differ(addresses), 0, 'together as one by one');
  for (let i = 0; i < 300; i++) {
    const [prefix, length] = all[next() % all.length]!;
    put(prefix, length, i % 3 === 0 ? undefined : next() % SETS.length);
    arena.release();
  }
  t.equal(wrong(20_000), 0, 'after changes one by one');
  t.equal(differ(addresses), 0, 'together, too');
  table.set(0, 0, SETS[5]);
  t.equal(differ(addresses), 0, 'and with a default route');
  t.ok(
    addresses.some((dst) => lookup(words, table.offset, dst) === defaultNode(words, table.offset)),
    'which some take',
  );
  table.set(0, 0, undefined);
  table.begin();
  for (const [prefix, length] of all.slice(0, -30_000)) put(prefix, length, undefined);
  table.end();
  arena.release();
  t.equal(wrong(20_000), 0, 'when most of them are gone');
  const { used } = arena;
  table.begin();
  for (let i = 0; i < 70_000; i++) put(prefixOf(all[i]![0], all[i]![1]), all[i]![1], next() % SETS.length);
  table.end();
  t.equal(wrong(20_000), 0, 'and when many are there again');
  t.ok(arena.used - used < 1 << 22, 'what was given back is used again');
  t.end();
});

t.test('built in steps: between two of them every lookup finds what was before or what will be', (t) => {
  const { words, arena, table } = create(20_000 * 72 + (1 << 20));
  const next = random(43);
  const prefixes = Array.from({ length: 20_000 }, (): [number, number] => {
    const length = next() % 8 === 0 ? 9 + (next() % 24) : 24;
    return [prefixOf(((next() % 4) << 30) | (next() >>> 2), length), length];
  });
  const asked = Array.from({ length: 200 }, () => prefixes[next() % prefixes.length]![0]);
  const answers = (): string[] => asked.map((dst) => chainOf(words, table.offset, dst).join());
  const give = (set: number): string[][] => {
    table.begin();
    for (const [address, length] of prefixes) table.set(address, length, SETS[set]);
    const seen: string[][] = [answers()];
    for (const steps = table.ending(); steps.next().done !== true;) seen.push(answers());
    seen.push(answers());
    arena.release();
    return seen;
  };
  const first = give(0);
  t.ok(
    first.slice(0, -1).every((found) => found.every((chain) => chain === '')),
    'a first table is found when all of it is there',
  );
  const second = give(1);
  t.ok(second.length > 10, `${second.length - 2} steps`);
  t.same(second[0], first.at(-1), 'nothing is seen before the end of the changes');
  t.ok(second.at(-1)!.every((chain) => /^(101,?)+$/.test(chain)));
  t.ok(
    second.every((found) => found.every((chain) => /^((100,?)+|(101,?)+)$/.test(chain))),
    'never a mixture',
  );
  t.end();
});
