/**
 * Files for iptables-restore with a wrong or odd line (test/cases/broken.lines) at each of several places: hutter and the
 * real tool, asked now, print the same and end with the same code. A file that ends with an error has changed nothing in hutter;
 * one that doesn't leaves both with the same tables.
 */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { runIptables } from '../../src/control/commands/run.js';
import { noJudge, runReal, timeless, type Outcome, type Step } from './real.js';

const BEFORE = `*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [7:8]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:old - [0:0]
[3:4] -A INPUT -s 10.9.9.9/32 -j old
COMMIT
`;
const FILE = [
  '*filter',
  ':INPUT DROP [1:2]',
  ':mine - [0:0]',
  '-A INPUT -i lo -j ACCEPT',
  '[5:6] -A INPUT -p tcp -m tcp --dport 22 -j mine',
  'COMMIT',
  '*nat',
  '-A PREROUTING -p tcp -j REDIRECT --to-ports 80',
  'COMMIT',
];
/** What stands before the line: the table's name, a rule, another table's name; and in some files nothing, a COMMIT, or all. */
const PLACES = [1, 4, 7];
const OUTSIDE = [0, 6, FILE.length];
const OPTIONS: readonly string[][] = [[], ['-c'], ['-n'], ['-n', '-c'], ['-t'], ['-T', 'filter'], ['-T', 'nat']];

const unescape = (line: string): string =>
  line.replace(/\\([trse])/g, (_, c: string) => ({ t: '\t', r: '\r', s: ' ', e: '' })[c]!);
const lines = readFileSync('test/cases/broken.lines', 'latin1')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith(';'))
  .map(unescape);

const save: Step = { program: 'iptables-save', argv: ['-c'] };
/** A file for tables that have something in them already. */
const restore = (argv: readonly string[], file: readonly string[]): Step[] => [
  { program: 'iptables-restore', argv: ['-c'], stdin: BEFORE },
  { program: 'iptables-restore', argv, stdin: file.map((line) => `${line}\n`).join('') },
  save,
];
const cases = [
  ...lines.flatMap((line, i) => [
    ...PLACES.map((place) => restore([], FILE.toSpliced(place, 0, line))),
    // Each option, and each place outside of tables, with some of the lines.
    restore(OPTIONS[i % OPTIONS.length]!, FILE.toSpliced(4, 0, line)),
    ...(i % 4 === 0 ? [restore([], FILE.toSpliced(OUTSIDE[i % 3]!, 0, line))] : []),
  ]),
  ...OPTIONS.flatMap((argv) =>
    [
      [],
      FILE,
      FILE.map((line) => `${line}\r`),
      FILE.filter((line) => line !== 'COMMIT'),
      FILE.slice(0, -1),
      FILE.slice(0, 1),
      FILE.toSpliced(4, 0, `-A INPUT -m comment --comment ${'x'.repeat(20_000)}`),
      FILE.toSpliced(4, 0, `-A INPUT${' -j ACCEPT'.repeat(200)}`),
    ].map((file) => restore(argv, file)),
  ),
];

t.test('as the real tool', async (t) => {
  const reason = noJudge();
  if (reason !== undefined) t.fail(reason);
  t.ok(lines.length > 150, 'there are lines');
  const real = runReal(cases);
  let refused = 0;
  for (const [i, steps] of cases.entries()) {
    const backend = new MemoryBackend(undefined, {}, 'Temporary failure in name resolution');
    // The judge's namespace has all tables in use.
    for (const table of ['raw', 'mangle', 'nat', 'filter'])
      await runIptables('iptables', ['-t', table, '-L', '-n'], '', backend);
    const got: Outcome[] = [];
    const run = async ({ program, argv, stdin }: Step): Promise<Outcome> =>
      runIptables(program, argv, stdin ?? '', backend);
    for (const step of [steps[0]!, save, steps[1]!, save]) got.push(await run(step));
    const { argv, stdin } = steps[1]!;
    const name = `${argv.join(' ')} ${stdin}`;
    const said = ({ code, stdout, stderr }: Outcome): object => ({ code, stdout: timeless(stdout), stderr });
    t.same(said(got[2]!), said(real[i]![1]!), name);
    const changed = tables(got[3]!);
    if (got[2]!.code === 0) t.same(changed, tables(real[i]![2]!), name);
    else t.same(changed, tables(got[1]!), `changes nothing: ${name}`);
    if (got[2]!.code !== 0) refused++;
  }
  t.ok(refused > cases.length / 2 && refused < cases.length, `${refused} of ${cases.length} files refused`);
});

/** What iptables-save says of each table, whatever their order. */
function tables({ stdout }: Outcome): string[] {
  return stdout
    .replace(/^#.*\n/gm, '')
    .split('COMMIT\n')
    .filter((text) => text !== '')
    .sort();
}
