/** What a table had before isn't checked again: the errors must be those of a look at everything. */
import t from 'tap';
import { tableErrors, walkOf } from '../../src/control/check.js';
import type { Rule, TableModel } from '../../src/control/model.js';
import { random, ruleOf, ruleset } from '../program/lab.js';

const NAMES = ['INPUT', 'OUTPUT', 'a', 'b', 'c'];
const LINES = [
  '-j a',
  '-j b',
  '-g c',
  '-j ACCEPT',
  '-p tcp -j ACCEPT',
  '-j DROP',
  '-m physdev --physdev-out eth0',
  '-p tcp -j TCPMSS --clamp-mss-to-pmtu',
  '',
];

/** Without what is known of the chains from before. */
function unknown(table: TableModel): TableModel {
  const chains = [...table.chains].map(([name, chain]) => [name, { ...chain, rules: [...chain.rules] }] as const);
  return { ...table, chains: new Map(chains) };
}
const errors = (table: TableModel, before?: TableModel): string[] =>
  [...tableErrors(table, before)].map(({ errno, detail }) => `${errno} ${detail}`);

t.test('a table checked beside the one before is as one checked anew', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  let taken = ruleset('*filter\n:INPUT ACCEPT\n:a -\n:b -\n:c -').tables[0]!;
  let refused = 0;
  let accepted = 0;
  for (let round = 0; round < 3000; round++) {
    const name = NAMES[next(NAMES.length)]!;
    const chain = taken.chains.get(name)!;
    const made: Rule[] = Array.from({ length: next(3) }, () =>
      ruleOf(`-A ${name} ${LINES[next(LINES.length)]!}`, 'filter', taken.chains),
    ).flat();
    const at = next(chain.rules.length + 1);
    const rules = next(20) === 0 ? made : [...chain.rules.slice(0, at), ...made, ...chain.rules.slice(at + next(3))];
    const table: TableModel = { ...taken, chains: new Map(taken.chains).set(name, { ...chain, rules }) };
    const found = errors(table, taken);
    const fresh = errors(unknown(table));
    if (found.join('\n') !== fresh.join('\n'))
      throw new Error(`seed ${seed}, round ${round}: ${found.join('; ')} instead of ${fresh.join('; ')}`);
    if (found.length === 0) {
      taken = table;
      accepted++;
    } else refused++;
  }
  t.ok(accepted > 300 && refused > 100, `seed ${seed}: ${accepted} taken, ${refused} refused`);
  t.end();
});

t.test('behind a verdict that goes rules are reached', (t) => {
  const table = ruleset('*filter\n:a -\n-A INPUT -j ACCEPT\n-A INPUT -j a').tables[0]!;
  const chain = table.chains.get('INPUT')!;
  t.match(walkOf(chain), { last: 0, jumps: [] });
  const rest = { ...chain, rules: chain.rules.slice(1) };
  t.match(walkOf(rest, chain), { last: 1, jumps: [{ index: 0, chain: 'a' }] });
  t.end();
});
