/**
 * Every row of test/cases/*.t, judged by hutter's parser and printer and by the real tool. A walk over the extension
 * records demands rows: for each option of each at least one accepted, one that prints differently and one refused.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { runIptables } from '../../src/control/commands/run.js';
import { Session } from '../../src/control/commands/session.js';
import { allExtensions } from '../../src/control/ext/registry.js';
import { splitWords } from '../../src/control/text/words.js';
import { parseCases, type Case } from './cases.js';
import { noJudge, runReal, type Outcome, type Step } from './real.js';

// The language is judged here, not what hutter can do.
Session.prototype.refuse = () => undefined;
const FOLDER = 'test/cases';
const files = readdirSync(FOLDER).filter((name) => name.endsWith('.t'));
const casesOf = (file: string): Case[] => parseCases(readFileSync(`${FOLDER}/${file}`, 'latin1'));

const append = ({ table, chain, rule }: Case): Step => ({
  program: 'iptables',
  argv: ['-t', table, '-v', '-A', chain, ...splitWords(rule)],
});
/** As administrators look at rules: with counters, and with names for ports and protocols. */
const look = (table: string, chain: string): Step[] =>
  [['-n', '-v'], []].map((how) => ({ program: 'iptables', argv: ['-t', table, ...how, '-L', chain] }));
/** Of a longer name -v prints more than the rule then has. */
const CUT = 'CT --timeout short';
const list = (table: string, chain: string): Step => ({ program: 'iptables', argv: ['-t', table, '-S', chain] });
const rulesOf = ({ stdout }: Outcome): string[] =>
  stdout
    .split('\n')
    .filter((line) => line.startsWith('-A '))
    .map((line) => line.replace(/^-A \S+ ?/, ''));
const name = (file: string, { line, table, chain, rule }: Case): string => `${file}:${line}: ${table} ${chain} ${rule}`;

for (const file of files) {
  const cases = casesOf(file);
  void t.test(`${file}: hutter`, async (t) => {
    for (const each of cases) {
      const backend = new MemoryBackend();
      const run = ({ program, argv }: Step): Promise<Outcome> => runIptables(program, argv, '', backend);
      const { code } = await run(append(each));
      const rules = rulesOf(await run(list(each.table, each.chain)));
      t.equal(rules.length, code === 0 ? 1 : 0, name(file, each));
      t.equal(rules[0], each.saved, name(file, each));
      if (each.saved === undefined) continue;
      // Canonical text reads back as the same rule.
      const check = await run({
        ...append(each),
        argv: ['-t', each.table, '-C', each.chain, ...splitWords(each.saved)],
      });
      t.equal(check.code, 0, `${name(file, each)}: -C ${each.saved}: ${check.stderr}`);
    }
  });
  void t.test(`${file}: the real tool`, async (t) => {
    const reason = noJudge();
    if (reason !== undefined) {
      t.fail(reason);
      return;
    }
    const cases = casesOf(file).filter(({ unjudged }) => !unjudged);
    // One chain takes all of its rows; what was accepted is then listed in their order.
    const places = [...new Set(cases.map(({ table, chain }) => `${table} ${chain}`))];
    const lists = places.map((place) => list(place.split(' ')[0]!, place.split(' ')[1]!));
    const looks = places.flatMap((place) => look(place.split(' ')[0]!, place.split(' ')[1]!));
    const outcomes = runReal([[...cases.map(append), ...lists, ...looks]])[0]!;
    const listed = new Map(places.map((place, i) => [place, rulesOf(outcomes[cases.length + i]!)]));
    cases.forEach((each, i) => {
      const { code, stderr } = outcomes[i]!;
      const saved = code === 0 ? listed.get(`${each.table} ${each.chain}`)!.shift() : undefined;
      t.equal(saved, each.saved, `${name(file, each)}: ${stderr}`);
    });
    t.same([...listed.values()].flat(), [], 'every listed rule belongs to a row');
    // The same rows, one after another, in hutter: what -v says of each, and how they are listed.
    const backend = new MemoryBackend(undefined, { localhost: '127.0.0.1' });
    for (const [i, each] of cases.entries()) {
      if (each.saved === undefined) continue;
      const { program, argv } = append(each);
      const { stdout } = await runIptables(program, argv, '', backend);
      if (!each.rule.includes(CUT)) t.equal(stdout, outcomes[i]!.stdout, `${name(file, each)}: -v`);
    }
    for (const [i, { program, argv }] of looks.entries()) {
      const { stdout } = await runIptables(program, argv, '', backend);
      t.equal(stdout, outcomes[cases.length + lists.length + i]!.stdout, argv.join(' '));
    }
  });
}

void t.test('every option of every extension has rows', (t) => {
  const all = files.flatMap(casesOf);
  for (const extension of allExtensions()) {
    const uses = new RegExp(`-[mj] ${extension.name}( |$)|-p ${extension.name} `);
    const own = all.filter(({ rule, saved }) => uses.test(rule) || (saved !== undefined && uses.test(saved)));
    t.ok(
      own.some(({ saved }) => saved !== undefined),
      `${extension.kind} ${extension.name}: an accepted row`,
    );
    for (const option of extension.options) {
      const given = own.filter(({ rule }) => {
        const words = splitWords(rule);
        return option.names.some((each) => words.some((word) => word === `--${each}` || word.startsWith(`--${each}=`)));
      });
      const what = `${extension.kind} ${extension.name} --${option.names[0]}`;
      t.ok(
        given.some(({ saved }) => saved !== undefined),
        `${what}: an accepted row`,
      );
      t.ok(
        given.some(({ saved, rule }) => saved !== undefined && saved !== rule),
        `${what}: a row printed differently`,
      );
      t.ok(
        given.some(({ saved }) => saved === undefined),
        `${what}: a refused row`,
      );
    }
  }
  t.end();
});
void t.test('the help of every extension is the real tool’s', async (t) => {
  const reason = noJudge();
  if (reason !== undefined) t.fail(reason);
  else {
    const steps = allExtensions().map(({ kind, name }): Step => ({
      program: 'iptables',
      argv: [kind === 'match' ? '-m' : '-j', name, '-h'],
    }));
    const real = runReal([steps])[0]!;
    for (const [i, { program, argv }] of steps.entries()) {
      const got = await runIptables(program, argv, '', new MemoryBackend());
      t.equal(got.stdout, real[i]!.stdout, argv.join(' '));
    }
  }
});

t.ok(existsSync(`${FOLDER}/core.t`), 'there are cases');
