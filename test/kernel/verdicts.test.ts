/**
 * Every option of every match and target decides as its rows say (verdicts.ts), in a simulated router; and none is
 * without a row.
 */
import { readFileSync } from 'node:fs';
import t from 'tap';
import { allExtensions } from '../../src/control/ext/registry.js';
import type { Extension } from '../../src/control/ext/record.js';
import { build, describe } from './packets.js';
import { SimulatedRouter } from './simulated.js';
import {
  JUDGED_IN,
  MATCH_ROWS,
  type MatchRow,
  NO_VERDICT,
  ONE_WAY,
  type Sent,
  TARGET_ROWS,
  WEDNESDAY,
} from './verdicts.js';
import type { Placed } from './wire.js';

/** How often the rule of a row held for the last of the packets. */
async function held({ rule, where, before }: MatchRow, packets: Sent[]): Promise<number> {
  const [table, chain] = where.split(' ') as [string, string];
  const line = `-A ${chain} ${rule}`;
  const own = before[0] === `*${table}` ? [...before, line] : [...before, 'COMMIT', `*${table}`, line];
  const rules = [...(before.length === 0 ? [`*${table}`, line] : own), 'COMMIT', ''].join('\n');
  const router = await SimulatedRouter.load(rules, { wall: WEDNESDAY });
  let times = 0;
  for (const packet of packets) {
    const now = await counted(router, table, chain);
    send(router, packet);
    times = (await counted(router, table, chain)) - now;
  }
  return times;
}

/** What the last rule of a chain has counted. */
async function counted(router: SimulatedRouter, table: string, chain: string): Promise<number> {
  const counts = (await router.counts()).filter((c) => c.table === table && c.rule.startsWith(`-A ${chain} `));
  return Number(counts.at(-1)!.count.split(':')[0]);
}

const send = (router: SimulatedRouter, { port, packet }: Sent): Placed[] => router.send({ port, bytes: build(packet) });

t.test('matches', async (t) => {
  for (const row of MATCH_ROWS) {
    if (row.yes.length > 0) t.equal(await held(row, row.yes), 1, `${row.rule}: holds`);
    if (row.no.length > 0) t.equal(await held(row, row.no), 0, `${row.rule}: doesn't`);
  }
});

t.test('targets', async (t) => {
  for (const { rules, packets, out } of TARGET_ROWS) {
    const router = await SimulatedRouter.load([...rules, 'COMMIT', ''].join('\n'));
    const outcomes = packets.map((packet) => send(router, packet));
    const text = outcomes
      .at(-1)!
      .map(({ bytes }) => describe(bytes))
      .join('\n');
    if (out) t.match(text, out, rules.join(' '));
    else t.equal(text, '', rules.join(' '));
  }
});

/** `match NAME OPTION` or `match NAME ! OPTION`, of every use in a rule. */
function uses(rule: string): string[] {
  const words = rule.match(/"[^"]*"|\S+/g) ?? [];
  const found: string[] = [];
  let extension: Extension | undefined;
  words.forEach((word, i) => {
    const next = words[i + 1];
    if (word === '-m' || word === '-j') {
      const kind = word === '-m' ? 'match' : 'target';
      extension = allExtensions().find((each) => each.kind === kind && each.name === next);
      // A name that stands for another record has options of its own.
      if (extension?.realName !== undefined) found.push(`${kind} ${next}`);
      return;
    }
    const option = extension?.options.find(({ names }) => names.some((name) => word === `--${name}`));
    if (extension === undefined || option === undefined) return;
    found.push(`${extension.kind} ${extension.name} ${words[i - 1] === '!' ? '! ' : ''}${option.names[0]}`);
  });
  return found;
}

t.test('no option is without a verdict', (t) => {
  const yes = new Set(MATCH_ROWS.filter((row) => row.yes.length > 0).flatMap((row) => uses(row.rule)));
  const no = new Set(MATCH_ROWS.filter((row) => row.no.length > 0).flatMap((row) => uses(row.rule)));
  const done = new Set(TARGET_ROWS.flatMap((row) => row.rules.flatMap(uses)));
  const excused = new Set(Object.keys(NO_VERDICT));
  const missing: string[] = [];
  for (const { kind, name, realName, options, compile } of allExtensions()) {
    if (realName !== undefined && !yes.has(`${kind} ${name}`) && !done.has(`${kind} ${name}`) && known(kind, realName))
      missing.push(`${kind} ${name}`);
    if (compile === undefined) continue;
    for (const { names, invert } of options)
      for (const not of invert ? ['', '! '] : ['']) {
        if (excused.has(`${kind} ${name} ${names[0]}`)) continue;
        const use = `${kind} ${name} ${not}${names[0]}`;
        const file = JUDGED_IN[name];
        if (file !== undefined) {
          const text = readFileSync(file, 'utf8');
          // What its negations mean there, the modes say.
          if (not === '' && !names.some((each) => text.includes(`--${each}`))) missing.push(`${use} in ${file}`);
          continue;
        }
        if (kind === 'target') {
          if (!done.has(use)) missing.push(use);
        } else if (ONE_WAY.has(use)) {
          if (!yes.has(use) && !no.has(use)) missing.push(use);
        } else {
          if (!yes.has(use)) missing.push(`${use}: holds`);
          if (!no.has(use)) missing.push(`${use}: doesn't hold`);
        }
      }
  }
  t.same(missing, []);
  t.end();
});

const known = (kind: string, name: string): boolean =>
  allExtensions().some((each) => each.kind === kind && each.name === name && each.compile !== undefined);

t.test('the walk finds what is missing', (t) => {
  t.same(uses('-p tcp -m tcp ! --sport 1 -m state --state NEW -j MARK --set-mark 1'), [
    'match tcp ! source-port',
    'match state',
    'match state state',
    'target MARK set-mark',
  ]);
  t.end();
});
