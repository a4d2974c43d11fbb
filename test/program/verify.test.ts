import t from 'tap';
import { Hook, Table } from '../../src/dataplane/names.js';
import { Packet } from '../../src/dataplane/packet.js';
import { dump } from '../../src/dataplane/program/dump.js';
import {
  Chain,
  CHAIN_WORDS,
  entry,
  Header,
  HEADER_WORDS,
  Op,
  Rule,
  RULE_WORDS,
} from '../../src/dataplane/program/format.js';
import { ProgramError, verify } from '../../src/dataplane/program/verify.js';
import { Region, RegionKind } from '../../src/dataplane/program/regions.js';
import { Entry, ENTRY_WORDS, LEAF, LEAF_WORDS, NONE, Root, Tree } from '../../src/dataplane/program/tree.js';
import { packet, random, ruleOf, World } from './lab.js';

const RULES = `*filter
  :INPUT DROP
  :FORWARD ACCEPT
  :a -
  :b -
  -A INPUT -s 10.0.0.0/8 ! -i eth+ -p tcp -m tcp --dport 1:1024 --syn -j a
  -A INPUT -p udp -m multiport --dports 53,67:68 -m limit --limit 3/minute -j LOG --log-prefix "dns: "
  -A INPUT -m recent --name seen --update --seconds 60 --hitcount 4 -j REJECT
  -A INPUT -p icmp -m icmp --icmp-type 8 -g b
  -A INPUT -m recent --name seen --set
  -A a -m mark --mark 1 -j MARK --set-mark 2
  -A a -j b
  -A b -m conntrack --ctstate NEW --ctorigsrc 10.0.0.0/8 -j RETURN
  -A b -f -j DROP`;

/** The program's chain offsets, in order. */
function chains(program: Int32Array): number[] {
  const found: number[] = [];
  for (let at: number = HEADER_WORDS; at < program.length; at = program[at + Chain.NEXT]!) found.push(at);
  return found;
}

t.test('each kind of damage is found, and where it is said', (t) => {
  const w = new World().load(RULES);
  const { words, regions, counters } = w.compiled;
  const limits = { regions, counters };
  verify(words, limits);
  const damaged = (what: string, change: (p: Int32Array) => number, pattern: RegExp, limit = limits): void => {
    const program = Int32Array.from(words);
    const at = change(program);
    try {
      verify(program, limit);
      t.fail(`${what} is not found`);
    } catch (error) {
      t.ok(error instanceof ProgramError, what);
      t.match((error as ProgramError).message, pattern, what);
      if (at >= 0) t.equal((error as ProgramError).offset, at, `${what}: where`);
    }
  };
  const put = (at: number, value: number) => (p: Int32Array) => {
    p[at] = value;
    return at;
  };
  const [input, forward, , a] = chains(words) as [number, number, number, number];
  const rule = input + CHAIN_WORDS;
  const test = rule + RULE_WORDS;
  const target = rule + words[rule + Rule.TARGET]!;
  damaged('magic', put(Header.MAGIC, 7), /not a program/);
  damaged('version', put(Header.VERSION, 9), /version 9/);
  damaged('length', put(Header.LENGTH, words.length + 1), /words are there/);
  damaged('counters', put(Header.COUNTERS, counters + 1), /slab/);
  damaged('regions', put(Header.REGIONS, regions.length + 1), /regions/);
  damaged('depth', put(Header.DEPTH, 1), /nest 2 deep/);
  damaged('chain end', (p) => (put(input + Chain.END, words.length + 1)(p), input), /ends at/);
  damaged('rule count', put(input + Chain.RULES, 3), /rules/);
  damaged('policy', (p) => (put(forward + Chain.POLICY, 7)(p), forward), /policy 7/);
  damaged('policy counter', put(input + Chain.POLICY_COUNTER, counters), /counter/);
  damaged('rule length', (p) => (put(rule + Rule.LENGTH, 100_000)(p), rule), /a rule is cut/);
  damaged('rule counter', put(rule + Rule.COUNTER, -1), /counter -1/);
  damaged('target place', put(rule + Rule.TARGET, 0), /outside the rule/);
  damaged('match', put(test, 999), /unknown match 999/);
  damaged('match bits', put(test, words[test]! | (1 << 20)), /bits/);
  damaged('match length', (p) => (put(test + Op.LENGTH, 3)(p), test), /1 arguments instead of 2/);
  damaged('target', put(target, 999), /unknown target 999/);
  damaged('jump', (p) => (put(target + Op.ARGS, rule)(p), target), /no chain begins/);
  damaged('jump to a built-in chain', (p) => (put(target + Op.ARGS, forward)(p), target), /built-in/);
  const second = a + CHAIN_WORDS + words[a + CHAIN_WORDS]!;
  const jump = second + words[second + Rule.TARGET]!;
  damaged('loop', (p) => (put(jump + Op.ARGS, a)(p), jump), /a loop/);
  damaged('entry', put(Header.ENTRY + 3 * 5 + 1, rule), /no chain begins/);
  damaged('entry of a user’s chain', put(Header.ENTRY + 3 * 5 + 1, a), /user's chain/);
  // A slot's words elsewhere would be another thing's.
  damaged('state', () => -1, /its state is outside|its list is not there/, {
    regions: regions.map(() => new Int32Array(2)),
    counters,
  });
  t.throws(() => verify(new Int32Array(3), limits), /only 3 words/);
  t.end();
});

t.test('what a proof of another program leaves out is what is the same there', (t) => {
  const w = new World().load(RULES);
  const { words, regions, counters } = w.compiled;
  const limits = { regions, counters };
  const proof = verify(words, limits);
  verify(Int32Array.from(words), limits, proof);
  const refused = (program: Int32Array, limit = limits): boolean => {
    try {
      verify(program, limit, proof);
      return false;
    } catch (error) {
      if (error instanceof ProgramError) return true;
      throw error;
    }
  };
  // Each word that a full proof refuses to have changed is refused with an earlier one, too.
  let found = 0;
  for (let at = 0; at < words.length; at++)
    for (const by of [1, -1, 1 << 20]) {
      const program = Int32Array.from(words);
      program[at]! += by;
      let bad = false;
      try {
        verify(program, limits);
      } catch {
        bad = true;
      }
      if (bad) found++;
      if (refused(program) !== bad) throw new Error(`word ${at} by ${by}: ${bad ? 'not found' : 'refused'}`);
    }
  t.ok(found > words.length, `${found} kinds of damage`);
  t.ok(refused(words, { regions: regions.map(() => new Int32Array(2)), counters }), 'state that is no longer there');
  t.end();
});

/** A world whose INPUT has a tree with nodes, leaves, names, a rule that went and one beside it; and the tree's region. */
function grown(): { w: World; tree: number; input: number } {
  const lines = Array.from(
    { length: 40 },
    (_, i) =>
      `-A INPUT -s 10.0.${i}.0/24 -i eth${i % 3} -p ${i & 1 ? 'tcp -m tcp' : 'udp -m udp'} --dport ${i} -j DROP`,
  );
  const w = new World().load(`*filter\n:INPUT ACCEPT\n${lines.join('\n')}`);
  w.compiler.growTrees();
  const table = w.rules.tables[0]!;
  const chain = table.chains.get('INPUT')!;
  const made = ruleOf('-A INPUT -s 11.0.0.1 -j DROP', 'filter', table.chains);
  const rules = [...chain.rules.slice(0, 20), ...made, ...chain.rules.slice(21)];
  w.load({ tables: [{ ...table, chains: new Map(table.chains).set('INPUT', { ...chain, rules }) }] });
  const input = entry(w.compiled.words, Table.FILTER, Hook.INPUT);
  return { w, tree: w.compiled.words[input + Chain.TREE]! - 1, input };
}

t.test('damage of a tree is found, and of the index that says where its rules are', (t) => {
  const { w, tree, input } = grown();
  const { words, regions, counters } = w.compiled;
  const whole = regions[tree]!;
  verify(words, { regions, counters });
  const fault = (program: Int32Array, region: Int32Array): string => {
    try {
      verify(program, { regions: regions.with(tree, region), counters });
      return '';
    } catch (error) {
      if (error instanceof ProgramError) return error.message;
      throw error;
    }
  };
  const inTree = (what: string, change: (tree: Int32Array) => void, pattern: RegExp): void => {
    const region = Int32Array.from(whole);
    change(region);
    t.match(fault(words, region), pattern, what);
  };
  const put = (at: number, value: number) => (of: Int32Array) => void (of[at] = value);
  inTree('nothing', () => undefined, /^$/);
  inTree('kind', put(Region.KIND, RegionKind.RECENT), /not a tree/);
  inTree('version', put(Tree.VERSION, 9), /version 9/);
  inTree('length', put(Tree.LENGTH, whole.length - 1), /words are there/);
  inTree('number of trees', put(Tree.TREES, 9), /9 trees/);
  inTree('place of the entries', put(Tree.ENTRIES, whole.length), /entries are outside/);
  inTree('number of entries', put(Tree.ENTRY_COUNT, 1 << 20), /entries are outside/);
  inTree('number of rules', put(Tree.RULES, 3), /stands for rule/);
  inTree('more rules than the index', put(Tree.RULES, 41), /knows 41 rules, the index 40/);
  inTree('names', put(Tree.IN_NAMES, whole.length), /names are outside/);
  inTree('number of names', put(Tree.OUT_COUNT, -1), /names are outside/);
  const entries = whole[Tree.ENTRIES]!;
  inTree('rules not ascending', put(entries + 2 * ENTRY_WORDS + Entry.RULE, 0), /entry 2 stands for rule 0/);
  const root = Tree.ROOTS;
  const table = whole[root + Root.AT]!;
  t.ok(whole[root + Root.NODE]! >= 0, 'the root is a node');
  inTree('first entry', put(root + Root.FIRST, -1), /begins with entry -1/);
  inTree('size of a table', put(root + Root.NODE, whole[root + Root.NODE]! ^ (2 << 8)), /node/);
  inTree('place of a table', put(root + Root.AT, whole.length - 1), /table is outside/);
  inTree('a table in the header', put(root + Root.AT, 1), /table is outside/);
  inTree('a way round', (of) => of.set(of.subarray(root, root + 2), table), /goes round/);
  inTree('a leaf outside', (of) => of.set([LEAF, whole.length], table), /leaf is outside/);
  inTree('a leaf that is none', (of) => of.set([LEAF, entries], table), /leaf is none/);
  inTree('a node that is neither', (of) => of.set([-5, table], table), /node -5/);
  let leaf = root;
  while (whole[leaf]! >= 0 || whole[whole[leaf + 1]! + LEAF_WORDS] === NONE)
    leaf = whole[leaf]! >= 0 ? whole[leaf + 1]! : leaf + 2;
  const list = whole[leaf + 1]! + LEAF_WORDS;
  inTree('an entry that is none', put(list, whole[Tree.ENTRY_COUNT]!), /lists entry/);
  inTree('a negative one', put(list, -1), /lists entry -1/);
  inTree(
    'a list without an end',
    (of) => {
      for (let i = 0, e = whole[Tree.ENTRY_COUNT]!; i < of.length; i++) if (of[i] === NONE) of[i] = e;
    },
    /lists entry/,
  );

  const inProgram = (what: string, change: (program: Int32Array) => void, pattern: RegExp): void => {
    const program = Int32Array.from(words);
    change(program);
    t.match(fault(program, whole), pattern, what);
  };
  const end = words[input + Chain.END]!;
  const beside = words[input + Chain.NEW]!;
  t.same([beside - end, words[input + Chain.NEXT]! - beside, words[end + 20]], [40, 1, 0], 'one went, one lies beside');
  inProgram('the region', put(input + Chain.TREE, 99), /tree 98 of/);
  inProgram('no tree', put(input + Chain.TREE, 0), /an index, but no tree/);
  inProgram('rules beside it before the index', put(input + Chain.NEW, end - 1), /rules beside the tree/);
  inProgram('rules beside it behind the index', put(input + Chain.NEW, beside + 9), /rules beside the tree/);
  inProgram('a rule that is none', put(end + 3, words[end + 3]! + 1), /index does not have/);
  inProgram('a rule of another chain', put(end + 39, words[input + Chain.NEXT]! + CHAIN_WORDS), /index does not have/);
  inProgram('rules out of order', put(end + 3, words[end + 5]!), /index does not have/);
  inProgram('a rule that neither list has', put(end + 3, 0), /index does not have/);
  inProgram('no rule beside', put(beside, 0), /index does not have/);
  inProgram('one rule twice', put(end + 20, words[end + 19]!), /index does not have/);
  inProgram('the next chain', put(input + Chain.NEXT, beside - 1), /rules beside|next chain/);
  t.end();
});

t.test('a mutated tree is refused, or asked without leaving its bounds', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const { w, tree } = grown();
  const { words, regions, counters } = w.compiled;
  const whole = regions[tree]!;
  let accepted = 0;
  for (let round = 0; round < 10_000; round++) {
    const region = Int32Array.from(whole);
    const at = Region.KIND + next(region.length - Region.KIND);
    const values = [region[at]! + 1, region[at]! - 1, region[next(region.length)]!, next(64), -1, 1 << next(31)];
    region[at] = values[next(values.length)]!;
    try {
      verify(words, { regions: regions.with(tree, region), counters });
    } catch (error) {
      if (!(error instanceof ProgramError)) throw new Error(`seed ${seed}, round ${round}: ${String(error)}`);
      continue;
    }
    accepted++;
    const guarded = new Proxy(region, {
      get(target, key) {
        if (typeof key === 'string' && /^-?\d+$|^NaN$|^undefined$/.test(key) && !(Number(key) in target))
          throw new Error(`seed ${seed}, round ${round}: read at ${key}`);
        return Reflect.get(target, key, target) as unknown;
      },
    });
    w.context.adopt(words, regions.with(tree, guarded), w.counters);
    for (const dst of [5, 20, 39]) {
      const verdict = w.run(packet({ protocol: 6, src: `10.0.${dst}.1`, dport: dst }));
      if (![0, 1].includes(verdict)) throw new Error(`seed ${seed}, round ${round}: verdict ${verdict}`);
    }
  }
  t.ok(accepted > 300, `seed ${seed}: ${accepted} of them ran`);
  t.end();
});

t.test('a mutated program is refused, or runs without leaving its bounds', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const w = new World().load(RULES);
  const { words, regions, counters } = w.compiled;
  let accepted = 0;
  const bytes = packet().bytes;
  for (let round = 0; round < 30_000; round++) {
    const program = Int32Array.from(words);
    for (let changes = 1 + (round % 2); changes > 0; changes--) {
      const at = next(program.length);
      const values = [
        program[at]! + 1,
        program[at]! - 1,
        program[next(program.length)]!,
        next(64),
        -1,
        1 << next(31),
        next(2 ** 32) | 0,
      ];
      program[at] = values[next(values.length)]!;
    }
    try {
      verify(program, { regions, counters });
    } catch (error) {
      if (!(error instanceof ProgramError)) throw new Error(`seed ${seed}, round ${round}: ${String(error)}`);
      continue;
    }
    // Without a chain at the hook nothing is run.
    if (entry(program, Table.FILTER, Hook.INPUT) === 0) continue;
    accepted++;
    // Reads outside of the program would give undefined, and the proxy says so.
    const guarded = new Proxy(program, {
      get(target, key) {
        if (typeof key === 'string' && /^-?\d+$|^NaN$|^undefined$/.test(key) && !(Number(key) in target))
          throw new Error(`seed ${seed}, round ${round}: read at ${key}`);
        return Reflect.get(target, key, target) as unknown;
      },
    });
    dump(program);
    w.compiled = { ...w.compiled, words: guarded };
    w.context.adopt(program, regions, w.counters);
    for (let packets = 0; packets < 4; packets++) {
      const p = packet({ protocol: [6, 17, 1][packets % 3]!, src: '10.1.2.3', dport: 53, tcpFlags: 2, mark: 1 });
      const verdict = w.run(p);
      if (![0, 1].includes(verdict)) throw new Error(`seed ${seed}, round ${round}: verdict ${verdict}`);
    }
  }
  t.ok(accepted > 1000, `seed ${seed}: ${accepted} of them ran`);
  t.equal(w.counters.length, counters * 2);
  t.ok(new Packet().parse(bytes, 64, 104, 0) === 0);
  t.end();
});

t.test('the dump shows chains, rules, tests and targets', (t) => {
  const text = dump(new World().load(RULES).compiled.words);
  for (const piece of [
    'filter INPUT, policy DROP',
    "user's chain",
    '-s 10.0.0.0/8',
    '! -i eth+',
    'tcp dport 1:1024 flags 0x17/0x2',
    'multiport dports 53,67:68',
    'LOG level 4 options 0 prefix "dns: "',
    'MARK xset 0x2/',
    'conntrack state NEW origsrc 10.0.0.0/8',
    'needs connections',
  ])
    t.ok(text.includes(piece), piece);
  t.end();
});
