/**
 * Decision trees against the walk: random rulesets and packets, shrunk where they differ; and rulesets built to hurt.
 * HUTTER_AGREE is how many times longer than in `npm test` to look; HUTTER_SEED repeats a run.
 */
import fc from 'fast-check';
import t from 'tap';
import { CtState } from '../../src/dataplane/names.js';
import { HEADERS } from '../../src/dataplane/io/nfqueue.js';
import { Header, ProgramFlag } from '../../src/dataplane/program/format.js';
import { packet, World } from '../program/lab.js';
import { ADDRESSES, Pair, PORTS, PROTOCOLS, type Sent } from './worlds.js';

const times = Number(process.env.HUTTER_AGREE ?? 1);
const seed = Number(process.env.HUTTER_SEED ?? Date.now() | 0);
t.comment(`seed ${seed}`);

const pick = <T>(...from: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...from);
const maybe = (weight: number, text: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.oneof({ weight: 10, arbitrary: fc.constant('') }, { weight: weight * 10, arbitrary: text });
const bang = pick('', '', '', '! ');
const join = (...parts: fc.Arbitrary<string>[]): fc.Arbitrary<string> =>
  fc.tuple(...parts).map((texts) => texts.filter((text) => text !== '').join(' '));

const network = fc.oneof(
  pick(...ADDRESSES),
  fc.tuple(pick(...ADDRESSES), fc.integer({ min: 0, max: 32 })).map(([a, n]) => `${a}/${n}`),
  pick('10.0.0.1/255.0.0.255', '0.0.0.1/0.0.0.1', '10.0.0.0/255.254.255.0', '1.1.1.1/85.85.85.85'),
);
const ports = fc.oneof(
  pick(...PORTS).map(String),
  fc.tuple(pick(...PORTS), pick(...PORTS)).map(([a, b]) => (a === b ? `${a}` : `${Math.min(a, b)}:${Math.max(a, b)}`)),
);
const portList = fc.array(ports, { minLength: 1, maxLength: 7 }).map((list) => list.join());
const range = fc.tuple(pick(...ADDRESSES), pick(...ADDRESSES)).map(([a, b]) => {
  const value = (text: string): number => text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  return value(a) <= value(b) ? `${a}-${b}` : `${b}-${a}`;
});
const states = fc
  .subarray(['INVALID', 'NEW', 'ESTABLISHED', 'RELATED', 'UNTRACKED'], { minLength: 1 })
  .map((s) => s.join());

const protocol = fc.oneof(
  fc.constant(''),
  join(bang, fc.constant('-p'), pick('tcp', 'udp', 'icmp', '47')),
  fc
    .tuple(pick('tcp', 'udp'), bang, ports, bang, ports)
    .map(([p, b1, sport, b2, dport]) => `-p ${p} -m ${p} ${b1}--sport ${sport} ${b2}--dport ${dport}`),
  fc.tuple(pick('tcp', 'udp'), bang, ports).map(([p, b, dport]) => `-p ${p} -m ${p} ${b}--dport ${dport}`),
  fc.constant('-p tcp -m tcp --dport 80 --tcp-option 2'),
  fc.constant('-p tcp -m tcp --tcp-flags SYN,ACK SYN'),
  fc.tuple(bang, pick('any', '8', '3/1', '0')).map(([b, type]) => `-p icmp -m icmp ${b}--icmp-type ${type}`),
  fc
    .tuple(pick('tcp', 'udp', 'udplite', 'sctp'), bang, pick('sports', 'dports', 'ports'), portList)
    .map(([p, b, side, list]) => `-p ${p} -m multiport ${b}--${side} ${list}`),
);
const rest = fc.oneof(
  { weight: 4, arbitrary: fc.constant('') },
  { weight: 1, arbitrary: fc.tuple(bang, pick('1', '0/1', '2/3')).map(([b, mark]) => `-m mark ${b}--mark ${mark}`) },
  { weight: 1, arbitrary: fc.tuple(bang, pick('0:39', '40:65535')).map(([b, r]) => `-m length ${b}--length ${r}`) },
  { weight: 1, arbitrary: fc.constant('-m limit --limit 5/hour --limit-burst 2') },
  { weight: 1, arbitrary: fc.constant('-m statistic --mode nth --every 3 --packet 1') },
);

const CHAINS = ['a', 'b', 'c'];
const rule = (below: readonly string[]): fc.Arbitrary<string> =>
  join(
    maybe(2, join(bang, fc.constant('-s'), network)),
    maybe(2, join(bang, fc.constant('-d'), network)),
    maybe(0.3, join(bang, fc.constant('-i'), pick('lo', 'if0', 'if+', 'eth1', 'eth10', '+'))),
    maybe(0.1, join(bang, fc.constant('-f'))),
    // What stands in front of the ports may remember or refuse: the tree must not keep a packet from it.
    maybe(0.1, fc.constant('-m limit --limit 5/hour --limit-burst 3')),
    protocol,
    maybe(0.3, join(fc.constant('-m iprange'), bang, pick('--src-range', '--dst-range'), range)),
    maybe(
      0.3,
      fc.tuple(bang, states).map(([b, s]) => `-m conntrack ${b}--ctstate ${s}`),
    ),
    rest,
    pick(
      '-j ACCEPT',
      '-j DROP',
      '-j RETURN',
      '',
      '-j MARK --set-xmark 1/3',
      '-j MARK --xor-mark 2',
      '-j TOS --set-tos 8',
      ...below.flatMap((name) => [`-j ${name}`, `-g ${name}`]),
    ),
  );
const chain = (name: string, below: readonly string[]): fc.Arbitrary<string[]> =>
  fc
    .array(rule(below), { minLength: 0, maxLength: 40, size: 'max' })
    .map((rules) => rules.map((r) => `-A ${name} ${r}`));
const text = fc
  .tuple(pick('ACCEPT', 'DROP'), chain('INPUT', CHAINS), ...CHAINS.map((name, i) => chain(name, CHAINS.slice(i + 1))))
  .map(([policy, ...lists]) =>
    ['*mangle', `:INPUT ${policy}`, ...CHAINS.map((name) => `:${name} -`), ...lists.flat()].join('\n'),
  );

const sent: fc.Arbitrary<Sent> = fc
  .record({
    src: pick(...ADDRESSES),
    dst: pick(...ADDRESSES),
    protocol: pick(...PROTOCOLS),
    sport: pick(...PORTS),
    dport: pick(...PORTS),
    tcpFlags: pick(2, 0x12, 0x10),
    icmpType: pick(8, 0, 3),
    icmpCode: pick(0, 1),
    mark: pick(0, 1, 2),
    odd: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: pick(1, 2, 3, 4) }),
    indev: fc.integer({ min: 0, max: 4 }),
    state: pick(CtState.NEW, CtState.ESTABLISHED, CtState.RELATED, CtState.INVALID, CtState.UNTRACKED, 0),
  })
  .map(({ odd, indev, state, ...fields }) => ({
    fields: {
      ...fields,
      ...(odd === 1 && { fragOffset: 1 }),
      ...(odd === 2 && { fragOffset: 100 }),
      ...(odd === 3 && { transport: [0, 80, 0, 53] }),
      ...(odd === 4 && { transport: [0, 80] }),
      // Others than TCP, UDP and ICMP have ports in front of what they carry.
      ...(odd === 0 &&
        fields.protocol !== 6 &&
        fields.protocol !== 17 &&
        fields.protocol !== 1 && {
          transport: [fields.sport >> 8, fields.sport & 255, fields.dport >> 8, fields.dport & 255, 0, 0, 0, 0],
        }),
    },
    indev,
    outdev: 0,
    state,
  }));
const packets = fc.array(sent, { minLength: 20, maxLength: 60, size: 'max' });

t.test('random rulesets and packets', (t) => {
  fc.assert(
    fc.property(text, packets, (rules, list) => {
      const what = new Pair(rules).differ(list);
      if (what !== undefined) throw new Error(what);
    }),
    { seed, numRuns: 60 * times, endOnFailure: times === 1 },
  );
  t.end();
});

t.test('rules that come, go and move beside a tree', (t) => {
  const edit = fc.record({
    at: fc.nat(60),
    line: rule(CHAINS),
    kind: pick('insert', 'append', 'delete', 'move', 'grow'),
  });
  fc.assert(
    fc.property(text, fc.array(edit, { maxLength: 6 }), packets, (rules, edits, list) => {
      const pair = new Pair(rules);
      for (const { at, line, kind } of edits) {
        if (kind === 'grow') pair.grow();
        else
          pair.edit('INPUT', (old, make) => {
            const i = at % (old.length + 1);
            if (kind === 'append') return [...old, ...make(line)];
            if (kind === 'insert') return [...old.slice(0, i), ...make(line), ...old.slice(i)];
            const left = [...old.slice(0, i), ...old.slice(i + 1)];
            return kind === 'delete' ? left : [...left, ...old.slice(i, i + 1)];
          });
        const what = pair.differ(list);
        if (what !== undefined) throw new Error(`after ${kind}: ${what}`);
      }
    }),
    { seed, numRuns: 30 * times, endOnFailure: times === 1 },
  );
  t.end();
});

t.test('a program that needs no payloads decides by the headers alone', (t) => {
  const payload = Array.from({ length: 600 }, (_, i) => i & 255);
  const plain = text.map((rules) =>
    rules.replaceAll(/-m conntrack (! )?--ctstate \S+/g, '').replaceAll('-j TOS --set-tos 8', '-j MARK --set-mark 2'),
  );
  fc.assert(
    fc.property(plain, packets, (rules, list) => {
      const whole = new World();
      const headers = new World();
      whole.load(rules);
      headers.load(rules);
      if ((headers.compiled.words[Header.FLAGS]! & ProgramFlag.PAYLOAD) !== 0) throw new Error('it needs payloads');
      for (const { fields, indev, outdev, state } of list) {
        const results = [whole, headers].map((world) => {
          const p = packet({ ...fields, payload });
          if (world === headers) p.parse(p.bytes, p.start, Math.min(p.end, p.start + HEADERS), 1);
          p.mark = fields.mark ?? 0;
          p.ctState = state;
          const verdict = world.run(p, 'INPUT', 'mangle', indev, outdev);
          return `verdict ${verdict} mark ${p.mark} hotdrop ${p.hotdrop}`;
        });
        if (results[0] !== results[1]) throw new Error(`${JSON.stringify(fields)}: ${results.join(', by headers ')}`);
      }
    }),
    { seed, numRuns: 30 * times, endOnFailure: times === 1 },
  );
  t.end();
});

const HURT: Record<string, string> = {
  'all wildcards': Array.from(
    { length: 200 },
    (_, i) => `-A INPUT -m mark --mark ${i % 4} -j MARK --set-mark ${(i + 1) % 4}`,
  ).join('\n'),
  'nested prefixes': Array.from({ length: 33 }, (_, i) => `-A INPUT -s 10.0.0.1/${32 - i} -d 10.0.0.2/${i}`).join('\n'),
  'one port a rule': Array.from(
    { length: 300 },
    (_, i) => `-A INPUT -p tcp -m tcp --dport ${i} -j ${i % 3 ? 'DROP' : 'ACCEPT'}`,
  ).join('\n'),
  'long negation lists': Array.from(
    { length: 60 },
    (_, i) =>
      `-A INPUT ! -s 10.0.0.${i} ! -d 10.0.1.${i} -p tcp -m multiport ! --ports ${Array.from({ length: 15 }, (_, j) => i + j * 70).join()}`,
  ).join('\n'),
  '500 chains jumping into each other':
    Array.from({ length: 500 }, (_, i) => `:c${i} -`).join('\n') +
    '\n-A INPUT -j c0\n' +
    Array.from({ length: 499 }, (_, i) =>
      Array.from(
        { length: 13 },
        (_, j) =>
          `-A c${i} -s 10.0.0.${j}/3${j % 3} -p udp -m udp --dport ${j * 8}: -j c${i + 1 + ((i + j) % Math.min(3, 499 - i))}`,
      ).join('\n'),
    ).join('\n'),
};
for (const [name, rules] of Object.entries(HURT))
  t.test(name, (t) => {
    const pair = new Pair(`*mangle\n:INPUT DROP\n${rules}`);
    t.ok(pair.trees >= 1, `${pair.trees} trees`);
    const list = fc.sample(sent, { seed, numRuns: name.startsWith('500') ? 20 : 400 * times });
    const deep = name.startsWith('500') ? list.filter(({ fields }) => fields.protocol !== 17) : list;
    t.equal(pair.differ(deep), undefined);
    t.end();
  });
