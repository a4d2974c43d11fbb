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
import { packet, random, World } from './lab.js';

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
