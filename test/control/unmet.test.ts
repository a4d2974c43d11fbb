/** Rules that no packet can meet: by example, and that under seeded random rules none of those found is ever counted. */
import t from 'tap';
import { checkFile } from '../../src/control/commands/checkfile.js';
import { unmetRules } from '../../src/control/unmet.js';
import { CtState, Proto } from '../../src/dataplane/names.js';
import { packet, random, World } from '../program/lab.js';

/** Each rule, and by which line it is said to be taken: 0 none, −1 its conditions exclude each other. */
const EXAMPLES: readonly (readonly [name: string, rules: readonly (readonly [string, number])[]])[] = [
  [
    'ports and addresses within an earlier rule’s',
    [
      ['-p tcp --dport 1:1000 -j ACCEPT', 0],
      ['-s 10.0.0.0/8 -p tcp --dport 22 -j DROP', 3],
      ['-p tcp --dport 1000:1001 -j DROP', 0],
      ['-p udp --dport 22 -j DROP', 0],
    ],
  ],
  [
    'a rule that only matches at times, or goes on, takes nothing',
    [
      ['-p tcp --dport 22 -m limit --limit 1/s -j DROP', 0],
      ['-p tcp --dport 22 -j LOG', 0],
      ['-p tcp --dport 22', 0],
      ['-p tcp --dport 22 -j DROP', 0],
      ['-p tcp --dport 22 -m limit --limit 1/s -j DROP', 6],
    ],
  ],
  [
    'a rule about ports leaves fragments',
    [
      ['-p tcp --dport 0:65535 -j ACCEPT', 0],
      ['-p tcp -j DROP', 0],
      ['-p tcp --dport 5 -j DROP', 3],
      ['-f -p tcp -j DROP', 4],
    ],
  ],
  [
    'interfaces, ranges, states, lists',
    [
      ['-i eth+ -j ACCEPT', 0],
      ['-i eth0 -j DROP', 3],
      ['-i et+ -j DROP', 0],
      ['-m iprange --src-range 1.1.1.1-1.1.1.9 -j DROP', 0],
      ['-s 1.1.1.2/31 -j DROP', 6],
      ['-s 1.1.1.8/30 -j DROP', 0],
      ['-m state --state NEW -m conntrack --ctstate ESTABLISHED -j DROP', -1],
      ['-m state --state NEW,INVALID -j DROP', 0],
      ['-m state --state INVALID -j DROP', 10],
      ['-p tcp -m multiport --dports 22,80 -j DROP', 0],
      ['-p tcp -m tcp --dport 80 -j ACCEPT', 12],
      ['-p icmp --icmp-type 8 -j REJECT', 0],
      ['-p icmp --icmp-type echo-request -j ACCEPT', 14],
    ],
  ],
];

t.test('interfaces that a configuration lacks', async (t) => {
  const text = [
    '*filter',
    ...['-i if0', '-i if9', '-o if9', '! -i if9', '-i if+', '-i eth+', '-i +', '-i if0 -o lo', '-s 10.0.0.1'].map(
      (rule) => `-A FORWARD ${rule}`,
    ),
    'COMMIT\n',
  ].join('\n');
  const report = async (interfaces?: string[]): Promise<string[]> =>
    (await checkFile(text, { unmet: true, interfaces })).findings.map(({ line, message }) => `${line} ${message}`);
  t.same(await report(), []);
  const none = 'no packet can meet this rule: the configuration has no interface';
  t.same(await report(['if0', 'if1']), [`3 ${none} if9`, `4 ${none} if9`, `7 ${none} eth+`, `9 ${none} lo`]);
});

for (const [name, rules] of EXAMPLES)
  t.test(name, async (t) => {
    const text = `*filter\n:INPUT DROP\n${rules.map(([rule]) => `-A INPUT ${rule}\n`).join('')}COMMIT\n`;
    const { findings } = await checkFile(text, { unmet: true });
    const said = new Map(findings.map(({ line, message }) => [line, Number(/line (\d+)/.exec(message)?.[1] ?? -1)]));
    for (const [i, [rule, by]] of rules.entries()) t.equal(said.get(i + 3) ?? 0, by, rule);
    t.same((await checkFile(text)).findings, [], 'nothing unless it is asked for');
  });

t.test('what is found is never met', (t) => {
  const SEED = 20_040_211;
  const below = random(SEED);
  const pick = <T>(...values: T[]): T => values[below(values.length)]!;
  const rule = (): string =>
    [
      pick('', '', `${pick('', '! ')}-s 10.0.0.${pick('0/24', '0/30', '2', '1/0.0.0.1')}`),
      pick('', '', `-d 10.0.1.${pick('0/24', '1')}`),
      pick('', '', '', `${pick('', '! ')}-i ${pick('if0', 'if1', 'if+')}`),
      pick('', `-m state --state ${pick('NEW', 'NEW,ESTABLISHED', 'INVALID')}`),
      pick(
        '',
        '-p tcp',
        `-p tcp -m tcp ${pick('', '! ')}--dport ${pick('1', '1:2', '2:3', '0:65535')}`,
        `-p udp -m multiport --ports ${pick('1', '1,3', '1:2')}`,
      ),
      pick('', '', '', '-f', '! -f', '-m limit --limit 1/s'),
      pick('-j ACCEPT', '-j DROP', '-j RETURN', '-j LOG', ''),
    ].join(' ');
  let found = 0;
  for (let round = 0; round < 150; round++) {
    const rules = Array.from({ length: 10 }, rule);
    const world = new World().load(`*filter\n:INPUT DROP\n${rules.map((each) => `-A INPUT ${each}\n`).join('')}`);
    const unmet = new Set([...unmetRules(world.rules)].map((each) => each.rule));
    found += unmet.size;
    for (let i = 0; i < 150; i++) {
      const p = packet({
        src: `10.0.0.${below(5)}`,
        dst: `10.0.1.${below(3)}`,
        protocol: pick(Proto.TCP, Proto.UDP, Proto.ICMP),
        sport: below(5),
        dport: below(5),
        fragOffset: pick(0, 0, 0, 5),
      });
      p.ctState = pick(CtState.NEW, CtState.ESTABLISHED, CtState.INVALID);
      world.run(p, 'INPUT', 'filter', pick(2, 3));
    }
    const chain = world.rules.tables[0]!.chains.get('INPUT')!;
    for (const [i, { id }] of chain.rules.entries())
      if (unmet.has(id)) t.equal(world.count('INPUT', i + 1)[0], 0, `seed ${SEED}, round ${round}: ${rules[i]}`);
  }
  t.ok(found > 100, `${found} found`);
  t.end();
});
