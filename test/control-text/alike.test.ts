/**
 * A line that is read after another of its kind (text/alike.ts) is read as it is alone: the same rule, or the same
 * complaint. Between the two a chain is declared in one file and not in the other; a declaration has what was kept forgotten.
 */
import { readdirSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { checkFile } from '../../src/control/commands/checkfile.js';
import { runIptables } from '../../src/control/commands/run.js';
import { Session } from '../../src/control/commands/session.js';
import { AlikeLines } from '../../src/control/text/alike.js';
import { parseCases } from './cases.js';

// The language is judged here, not what hutter can do.
Session.prototype.refuse = () => undefined;

let found = 0;
const { find } = AlikeLines.prototype;
AlikeLines.prototype.find = function (line) {
  const command = find.call(this, line);
  if (command !== undefined) found++;
  return command;
};

/** All that a file leads to, and how many lines were found by iptables-restore. */
async function outcome(lines: readonly string[], options: readonly string[]): Promise<{ all: unknown; hits: number }> {
  const text = lines.map((line) => `${line}\n`).join('');
  const backend = new MemoryBackend();
  const before = found;
  const restored = await runIptables('iptables-restore', options, text, backend);
  const hits = found - before;
  const { stdout } = await runIptables('iptables-save', ['-c'], '', backend);
  const { findings } = await checkFile(text);
  return { all: { restored, saved: stdout.replace(/^#.*\n/gm, ''), findings }, hits };
}

/** Whether the second was found by the first. */
async function same(t: Test, table: string, first: string, second: string, options: string[] = []): Promise<boolean> {
  const reset = ':forgotten - [0:0]';
  const alike = await outcome([`*${table}`, first, '', second, reset, 'COMMIT'], options);
  const alone = await outcome([`*${table}`, first, reset, second, '', 'COMMIT'], options);
  t.strictSame(alike.all, alone.all, `${table}: ${first} / ${second}`);
  t.equal(alone.hits, 0);
  return alike.hits > 0;
}

/** In place of an argument of its own. */
const ARGUMENTS = ['1', '7x', '65536', '9,8', '0x10', '3:2', '10.1.2.3/24'];

void t.test('every row of test/cases with other arguments', async (t) => {
  let hits = 0;
  for (const file of readdirSync('test/cases').filter((name) => name.endsWith('.t'))) {
    const seen = new Set<string>();
    for (const { table, chain, rule, saved } of parseCases(readFileSync(`test/cases/${file}`, 'latin1'))) {
      if (saved === undefined || seen.has(rule)) continue;
      seen.add(rule);
      const line = `-A ${chain} ${rule}`;
      for (const own of new Set(line.match(/(?<= )\d[^ ]*/g) ?? []))
        for (const argument of ARGUMENTS)
          if (await same(t, table, line, line.replaceAll(` ${own}`, ` ${argument}`))) hits++;
    }
  }
  t.ok(hits > 1000, `${hits} were found by the row`);
});

const long = '1'.repeat(1024);
void t.test('lines that look alike', async (t) => {
  const pairs: readonly (readonly [hit: boolean, first: string, second: string])[] = [
    [true, '-A INPUT -s 1.2.3.4 -j DROP', '-A INPUT -s 10.1.2.3/9 -j DROP'],
    [true, '-A INPUT -s 1.2.3.4 -d 5.6.7.8 -j DROP', '-A INPUT -s 8.7.6.5 -d 4.3.2.1/24 -j DROP'],
    [true, '-A INPUT --source 1.2.3.4 -j DROP', '-A INPUT --source 8.7.6.5 -j DROP'],
    [true, '-A INPUT ! -s 1.2.3.4 -p 6 --dport 80', '-A INPUT ! -s 1.2.3.5 -p 6 --dport 81:82'],
    [true, '-I INPUT -s 1.2.3.4', '-I INPUT -s 1.2.3.5'],
    [true, '-A INPUT -s 1.2.3.4,5.6.7.8', '-A INPUT -s 1.2.3.5'],
    [true, '-A INPUT -p tcp --dport 1 --sport 2', '-A INPUT -p tcp --dport 3 --sport 4'],
    [true, '-A INPUT -p tcp --dport 1 --tcp-flags SYN ACK', '-A INPUT -p tcp --dport 2 --tcp-flags SYN ACK'],
    [true, '-A INPUT -m tcp -p tcp ! --dport 1', '-A INPUT -m tcp -p tcp ! --dport 2'],
    [true, '-A INPUT -m tcp --dport 1 -p tcp', '-A INPUT -m tcp --dport 2 -p tcp'],
    [true, '-A INPUT -m tcp --dport 1 -m udp -p udp --dport 1', '-A INPUT -m tcp --dport 2 -m udp -p udp --dport 3'],
    [true, '[1:2] -A INPUT -s 1.2.3.4', '[3:4] -A INPUT -s 1.2.3.5'],
    [true, '-A INPUT -s 1.2.3.4', '-A INPUT -s 1.2.3.4'],
    [true, '-A INPUT -j LOG --log-prefix 1', '-A INPUT -j LOG --log-prefix 2x'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s 1.2.3.4/33'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s 1.2.3'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s 1.2.3.4,5.6.7.8'],
    [false, '-A INPUT ! -s 1.2.3.4', '-A INPUT ! -s 1.2.3.4,5.6.7.8'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s 1.2.3.4"5"'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s 1.2.3.4\t-j DROP'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s  1.2.3.4'],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s '],
    [false, '-A INPUT -s 1.2.3.4', '-A INPUT -s ""'],
    [false, '-A INPUT -s 1.2.3.4 -s 1.2.3.4', '-A INPUT -s 1.2.3.5 -s 1.2.3.5'],
    [false, '-A INPUT -p tcp --dport 80', '-A INPUT -p tcp --dport 70000'],
    [false, '-A INPUT -p tcp --dport 80', '-A INPUT -p tcp --dport 8"0"'],
    [false, '-A INPUT -p tcp --dport 80', `-A INPUT -p tcp --dport ${long}`],
    [false, '-I INPUT 1 -s 1.2.3.4', '-I INPUT 2 -s 1.2.3.5'],
    [
      false,
      '-A INPUT -m comment --comment "a -s 1.2.3.4 b" -s 1.2.3.4',
      '-A INPUT -m comment --comment "a -s 5.6.7.8 b" -s 1.2.3.4',
    ],
    [
      false,
      '-A INPUT -m comment --comment "a -s 1.2.3.4 b" -s1.2.3.4',
      '-A INPUT -m comment --comment "a -s 5.6.7.8 b" -s1.2.3.4',
    ],
    [false, '-A INPUT -m comment --comment "a --dport 1"', '-A INPUT -m comment --comment "a --dport 2"'],
    [false, '-N -s', '-N -d'],
    [false, '-N 1', '-E 1 2'],
    [false, '-A INPUT -p tcp --dport ! 1', '-A INPUT -p tcp --dport ! 2'],
    [false, '-A INPUT -s 1.2.3.4 -6', '-A INPUT -s 1.2.3.5 -6'],
  ];
  for (const [hit, first, second] of pairs)
    t.equal(await same(t, 'filter', first, second), hit, `${first} / ${second}`);
  const counted = ['[1:2] -A INPUT -s 1.2.3.4', '[3:4] -A INPUT -s 1.2.3.4'] as const;
  t.notOk(await same(t, 'filter', ...counted, ['-c']), 'counters are the own of a line');
  t.ok(await same(t, 'filter', counted[0], counted[1], ['-v', '-v']), 'counted and told');
});

void t.test('a name that became a chain since, another table', async (t) => {
  const backend = new MemoryBackend();
  const text = [
    '*filter',
    '-A INPUT -j TCPMSS --set-mss 100 -p tcp --syn',
    ':TCPMSS - [0:0]',
    '-A INPUT -j TCPMSS --set-mss 100 -p tcp --syn',
    'COMMIT',
    '',
  ].join('\n');
  const { code, stderr } = await runIptables('iptables-restore', [], text, backend);
  t.equal(code, 2);
  t.match(stderr, /unknown option "--set-mss"\nError occurred at line: 4\n/);
  const drop = '-A PREROUTING -s 1.2.3.4 -j DROP';
  const tables = ['*mangle', drop, 'COMMIT', '*nat', drop, 'COMMIT', ''].join('\n');
  const refused = await runIptables('iptables-restore', [], tables, backend);
  t.match(refused.stderr, /The "nat" table is not intended for filtering/);
  t.match(refused.stderr, /Error occurred at line: 5\n/);
});

void t.test('more kinds than are kept', async (t) => {
  const backend = new MemoryBackend();
  const rules = Array.from({ length: 10_000 }, (_, i) => `-A INPUT -s 1.2.3.4/32 -m comment --comment x${i % 5000}`);
  const text = ['*filter', ...rules, 'COMMIT', ''].join('\n');
  t.equal((await runIptables('iptables-restore', [], text, backend)).code, 0);
  const { stdout } = await runIptables('iptables-save', [], '', backend);
  t.strictSame(
    stdout.split('\n').filter((line) => line.startsWith('-A')),
    rules,
  );
});
