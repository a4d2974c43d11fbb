import t from 'tap';
import { CompileError, type Compiled, Compiler } from '../../src/control/compile/index.js';
import { RegionStore } from '../../src/control/compile/regions.js';
import { CounterSlots } from '../../src/control/compile/slots.js';
import { defineMatch } from '../../src/control/ext/record.js';
import type { Ruleset, TableModel } from '../../src/control/model.js';
import { Header, ProgramFlag } from '../../src/dataplane/program/format.js';
import { Region } from '../../src/dataplane/program/regions.js';
import { dump } from '../../src/dataplane/program/dump.js';
import { packet, random, ruleOf, ruleset, World } from '../program/lab.js';

/** The ruleset with another list of rules in a chain. */
function withRules(rules: Ruleset, chain: string, change: (old: TableModel) => readonly unknown[]): Ruleset {
  const table = rules.tables[0]!;
  const found = table.chains.get(chain)!;
  const chains = new Map(table.chains).set(chain, { ...found, rules: change(table) as typeof found.rules });
  return { tables: [{ ...table, chains }, ...rules.tables.slice(1)] };
}
const rulesOf = (table: TableModel, chain = 'INPUT') => table.chains.get(chain)!.rules;

t.test('unchanged rules keep their counters through a swap', (t) => {
  const w = new World().load('*filter\n:INPUT DROP\n-A INPUT -p udp -j ACCEPT\n-A INPUT -p tcp -j ACCEPT');
  w.run(packet());
  w.run(packet());
  w.load(
    withRules(w.rules, 'INPUT', (table) => [
      ...ruleOf('-A INPUT -p icmp -j DROP', 'filter', table.chains),
      ...rulesOf(table),
    ]),
  );
  t.same(
    [1, 2, 3].map((rule) => w.count('INPUT', rule)[0]),
    [0, 0, 2],
  );
  w.run(packet());
  t.same(w.count('INPUT', 3)[0], 3);
  t.end();
});

t.test('a slot is used again only after release', (t) => {
  const slots = new CounterSlots();
  t.same([slots.take(10), slots.take(11), slots.take(10)], [0, 1, 0]);
  t.equal(slots.take(12), 2, 'a worker may still count in slot 0');
  t.equal(slots.take(10), 0, 'and the program without it may never come about');
  slots.release([10]);
  t.equal(slots.take(13), 0);
  t.equal(slots.of(10), undefined);
  t.equal(slots.length, 3);
  t.end();
});

t.test('state slots and regions, likewise', (t) => {
  const store = new RegionStore();
  const a = store.slot('a', 3, (region, offset) => region.fill(7, offset, offset + 3));
  const b = store.slot('b', 3, () => undefined);
  t.match(
    store.slot('a', 3, () => t.fail('is there already')),
    a,
  );
  t.equal(a.region, b.region, 'small things share a chunk');
  t.ok(a.offset >= Region.BODY);
  const own = store.region('list', 50, (region) => void (region[9] = 1));
  t.equal(
    store.region('list', 40, () => t.fail('is there already')),
    own,
  );
  t.not(store.slot('c', 3, () => undefined).offset, a.offset);
  store.release(['a', 'list']);
  const again = store.slot('d', 3, (region, offset) => t.equal(region[offset], 0, 'zeroed'));
  t.equal(again.offset, a.offset);
  t.equal(store.list()[own]!.length, Region.BODY, 'a hole is an empty region');
  t.equal(
    store.region('other', 60, () => undefined),
    own,
    'its number is free',
  );
  for (let i = 0; i < 5000; i++) store.slot(`many ${i}`, 3, () => undefined);
  const places = Array.from({ length: 5000 }, (_, i) => store.slot(`many ${i}`, 3, () => t.fail('made twice')));
  t.equal(new Set(places.map((place) => `${place.region}/${place.offset}`)).size, 5000);
  t.ok(places.every((place) => place.offset + 3 <= store.get(place.region).length));
  t.end();
});

t.test('a compile that fails says where, and changes nothing', (t) => {
  const w = new World().load('*filter\n:INPUT DROP\n-A INPUT -m recent --set -j ACCEPT');
  w.run(packet());
  const list = w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!);
  const bad = defineMatch<object>({
    name: 'psychic',
    init: () => ({}),
    options: [],
    cannot: () => 'needs a crystal ball',
  });
  const broken = withRules(w.rules, 'INPUT', (table) => [
    ...rulesOf(table),
    ...ruleOf('-A INPUT -m recent --rcheck --hitcount 60', 'filter', table.chains),
    { ...rulesOf(table)[0]!, id: -5, matches: [{ extension: bad, data: {} }] },
  ]);
  const error = t.throws(() => w.compiler.compile(broken)) as CompileError;
  t.ok(error instanceof CompileError);
  t.same([error.table, error.chain, error.ruleNumber], ['filter', 'INPUT', 3]);
  t.equal(error.message, 'filter INPUT, rule 3: match psychic: needs a crystal ball');
  t.equal(w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!), list, 'the list is still the old one');
  t.same(w.load(w.rules).count('INPUT', 1)[0], 1);
  const unknown = defineMatch<object>({ name: 'later', init: () => ({}), options: [] });
  t.throws(
    () =>
      w.compiler.compile(
        withRules(w.rules, 'INPUT', (table) => [
          { ...rulesOf(table)[0]!, id: -6, matches: [{ extension: unknown, data: {} }] },
        ]),
      ),
    { message: 'filter INPUT, rule 1: match later is not evaluated by this version of hutter' },
  );
  t.end();
});

t.test('a loop is refused by name', (t) => {
  const rules = ruleset('*filter\n:a -\n:b -\n-A INPUT -j a\n-A a -j b\n-A b -p tcp\n-A b -j a');
  t.throws(() => new Compiler(1000).compile(rules), { message: 'filter b, rule 2: loop by way of a' });
  t.end();
});

t.test('a loop that no packet comes to is none, as in the kernel', (t) => {
  const w = new World();
  const loop = '*filter\n:INPUT DROP\n:a -\n:b -\n-A a -j b\n-A b -j a';
  t.equal(w.load(loop).run(packet()), 0, 'no rule leads there');
  t.equal(w.load(`${loop}\n-A INPUT -j ACCEPT\n-A INPUT -j a`).run(packet()), 1, 'a rule takes every packet before');
  t.equal(w.compiled.words[Header.DEPTH], 0);
  t.throws(() => new Compiler(1000).compile(ruleset(`${loop}\n-A INPUT -p tcp -j ACCEPT\n-A INPUT -j a`)), {
    message: 'filter b, rule 1: loop by way of a',
  });
  t.end();
});

/** The program's text without what depends on the order in which rules came. */
const shape = ({ words }: Compiled): string => dump(words).replace(/\[\d+\]|\(counter \d+\)|\d+ counters/g, '');

t.test('a program made of the one before is the one made anew', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const compiler = new Compiler(1000);
  const NAMES = ['INPUT', 'FORWARD', 'a', 'b', 'c'];
  const line = (chain: number): string => {
    const tests = [`-s 10.${next(3)}.0.0/16 `, '-p tcp -m tcp --dport 80 ', '-m state --state NEW ', '-i eth0 ', ''];
    // Chains jump to later ones only: no loops.
    const targets = ['ACCEPT', 'DROP', 'RETURN', ...NAMES.slice(Math.max(2, chain + 1))];
    return `-A ${NAMES[chain]} ${tests[next(tests.length)]}-j ${targets[next(targets.length)]}`;
  };
  let rules = ruleset('*filter\n:INPUT ACCEPT\n:a -\n:b -\n:c -');
  let swaps = 0;
  for (let round = 0; round < 400; round++) {
    const chain = next(NAMES.length);
    const made = Array.from({ length: next(4) }, () => ruleOf(line(chain), 'filter', rules.tables[0]!.chains)).flat();
    const old = rulesOf(rules.tables[0]!, NAMES[chain]);
    const at = next(old.length + 1);
    const gone = next(3);
    const kind = next(8);
    rules = withRules(rules, NAMES[chain]!, () => {
      if (kind === 0) return [];
      if (kind === 1) return old.map((rule) => ({ ...rule }));
      if (kind === 2) return [...old].reverse();
      return [...old.slice(0, at), ...made, ...old.slice(at + gone)];
    });
    if (next(10) === 0) {
      // A chain that nobody jumps to goes and comes again.
      const table = rules.tables[0]!;
      const chains = new Map(table.chains);
      chains.delete('FORWARD');
      const without: Ruleset = { tables: [{ ...table, chains }] };
      compiler.release(compiler.compile(without), true);
    }
    const compiled = compiler.compile(rules);
    if (shape(compiled) !== shape(new Compiler(1000).compile(rules))) throw new Error(`seed ${seed}, round ${round}`);
    // Some never come into force.
    if (next(5) === 0) continue;
    compiler.release(compiled, true);
    swaps++;
    const used = [...rules.tables[0]!.chains.values()].reduce(
      (n, { rules: { length }, policy }) => n + length + (policy ? 1 : 0),
      0,
    );
    const held = [...rules.tables[0]!.chains.values()].flatMap((c) => c.rules.map(({ id }) => compiler.slots.of(id)));
    if (new Set(held).size !== held.length || held.includes(undefined) || compiler.slots.used !== used)
      throw new Error(`seed ${seed}, round ${round}: ${compiler.slots.used} slots for ${used} counters`);
  }
  t.ok(swaps > 200, `${swaps} swaps`);
  t.end();
});

t.test('the memory of a program that nobody reads serves the one after the next', (t) => {
  const compiler = new Compiler(1000);
  const swap = (reuse: boolean): ArrayBufferLike => {
    const compiled = compiler.compile(ruleset('*filter\n-A INPUT -s 10.0.0.1 -j DROP'));
    compiler.release(compiled, reuse);
    return compiled.words.buffer;
  };
  const [first, second, third, fourth] = [swap(true), swap(true), swap(false), swap(true)];
  t.not(second, first, 'the one in force stays');
  t.equal(third, first);
  t.not(fourth, second, 'somebody may read it still');
  t.not(fourth, third);
  t.end();
});

t.test('a renamed chain is still jumped to', (t) => {
  const w = new World().load('*filter\n:INPUT DROP\n:a -\n-A INPUT -j a\n-A a -j ACCEPT');
  const table = w.rules.tables[0]!;
  const chains = new Map(table.chains);
  const [jump] = rulesOf(table);
  chains.set('b', { ...chains.get('a')!, name: 'b' }).delete('a');
  chains.set('INPUT', {
    ...chains.get('INPUT')!,
    rules: [{ ...jump!, target: { kind: 'jump', chain: 'b', goto: false } }],
  });
  t.equal(w.run(packet()), 1);
  t.equal(w.load({ tables: [{ ...table, chains }] }).run(packet()), 1);
  t.same(w.count('b', 1)[0], 2, 'and counts on');
  t.end();
});

t.test('the program says whether it needs connections, as the kernel’s modules would', (t) => {
  const flags = (text: string): number => new Compiler(1000).compile(ruleset(text)).words[Header.FLAGS]!;
  const needs = (rule: string, table = 'filter', chain = 'INPUT'): boolean =>
    (flags(`*${table}\n-A ${chain} ${rule}`) & ProgramFlag.CONNECTIONS) !== 0;
  t.equal(needs('-p tcp --dport 80 -j ACCEPT'), false);
  t.equal(needs('-m limit --limit 1/sec -j LOG'), false);
  t.equal(needs('-m recent --set'), false);
  t.equal(needs('-m state --state NEW'), true);
  t.equal(needs('-m conntrack --ctstatus ASSURED'), true);
  t.equal(needs('-j MASQUERADE', 'nat', 'POSTROUTING'), true);
  t.equal(needs('-j SNAT --to-source 1.2.3.4', 'nat', 'POSTROUTING'), true);
  t.equal(needs('-p tcp -j DNAT --to-destination 1.2.3.4', 'nat', 'PREROUTING'), true);
  t.equal(needs('-p tcp -j REDIRECT', 'nat', 'OUTPUT'), true);
  t.equal(needs('-j ACCEPT', 'nat', 'OUTPUT'), false, 'a nat table alone does not');
  t.equal(flags('*nat\n-A OUTPUT -j ACCEPT') & ProgramFlag.NAT, ProgramFlag.NAT);
  t.equal(flags('*nat\n*filter\n-A INPUT -j ACCEPT') & ProgramFlag.NAT, 0);
  t.end();
});

t.test('a zeroed rule, the same in a new object, keeps its words and state', (t) => {
  const w = new World().load('*filter\n:INPUT DROP\n-A INPUT -m limit --limit 1/hour --limit-burst 1 -j ACCEPT');
  t.equal(w.run(packet()), 1);
  w.load(withRules(w.rules, 'INPUT', (table) => rulesOf(table).map((rule) => ({ ...rule }))));
  t.equal(w.run(packet()), 0);
  t.same(w.count('INPUT', 1)[0], 1);
  t.end();
});

t.test('what only the old program used is freed by release', (t) => {
  const compiler = new Compiler(1000);
  const text = '*filter\n-A INPUT -m limit --limit 1/hour\n-A INPUT -m recent --set';
  for (let i = 0; i < 300; i++) compiler.release(compiler.compile(ruleset(text)));
  const last = compiler.compile(ruleset(text));
  t.ok(last.counters < 20, `${last.counters} slots`);
  t.ok(last.regions.length < 6, `${last.regions.length} regions`);
  t.end();
});
