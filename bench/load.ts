/**
 * `bench load`: how long a rules file takes from text to enforced (every worker runs the new rules, walked where there is no
 * tree yet) and to its decision trees in place, beside iptables-legacy-restore of the same file. Each has a network
 * namespace of its own; times are those of the whole command, with its program's start. Both must then save the same
 * rules. Without --rules: seeded sets of the three classic shapes. Root.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { generate, rulesText, SHAPES } from './classbench.js';
import type { Options } from './main.js';
import { need, Place, Router } from './router.js';
import { spread, table } from './stats.js';

/** Milliseconds; medians over the rounds. */
export interface Loaded {
  readonly rules: number;
  /** iptables-legacy-restore. */
  readonly legacyMs: number;
  /** hutter-iptables-restore into a router just started, to its exit: every worker runs the rules then. */
  readonly enforcedMs: number;
  /** From the same beginning until no larger chain lacks its tree. */
  readonly treeMs: number;
  /** Both once more, into the router that has the rules. */
  readonly reloadMs: number;
  readonly reloadTreeMs: number;
  /** `node -e 0`, which is part of hutter's times. */
  readonly nodeMs: number;
}

/** A save without what differs from run to run: comments and counters. */
const ruleLines = (save: string): string => save.replace(/^#.*\n|\[\d+:\d+\]/gm, '');

async function loadFile(rules: string, rounds: number): Promise<Loaded> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-load-'));
  const places: Place[] = [];
  const place = (what: string): Place => {
    const made = new Place(what);
    places.push(made);
    return made;
  };
  let router: Router | undefined;
  const times = { legacy: [], enforced: [], tree: [], reload: [], reloadTree: [], node: [] } as Record<
    string,
    number[]
  >;
  try {
    const kernel = place('legacy');
    for (let round = 0; round < rounds; round++) {
      times['legacy']!.push(kernel.run('iptables-legacy-restore', [], rules).ms);
      times['node']!.push(kernel.run(process.execPath, ['-e', '0']).ms);
      const own = place(`hutter${round}`);
      router = await Router.start(own, folder);
      const first = await router.load(rules);
      times['enforced']!.push(first.enforced);
      times['tree']!.push(first.tree);
      times['legacy']!.push(kernel.run('iptables-legacy-restore', [], rules).ms);
      const again = await router.load(rules);
      times['reload']!.push(again.enforced);
      times['reloadTree']!.push(again.tree);
      const saves = [kernel.run('iptables-legacy-save', []), router.client('iptables-save', [])];
      const [theirs, ours] = saves.map(({ stdout }) => ruleLines(stdout));
      if (theirs !== ours) throw new Error('hutter and iptables-legacy save other rules');
      await router.stop();
      router = undefined;
    }
  } finally {
    await router?.stop();
    for (const each of places) each.close();
    rmSync(folder, { recursive: true, force: true });
  }
  const median = (name: string): number => spread(times[name]!).median;
  return {
    rules: rules.match(/^(\[\d+:\d+\] )?-[AI] /gm)?.length ?? 0,
    legacyMs: median('legacy'),
    enforcedMs: median('enforced'),
    treeMs: median('tree'),
    reloadMs: median('reload'),
    reloadTreeMs: median('reloadTree'),
    nodeMs: median('node'),
  };
}

const HEAD = [
  'ms',
  'rules',
  'legacy',
  'enforced',
  'tree',
  'reload',
  'tree',
  'node -e 0',
  'enforced less node / legacy',
];

const row = (name: string, r: Loaded): string[] => [
  name,
  `${r.rules}`,
  ...[r.legacyMs, r.enforcedMs, r.treeMs, r.reloadMs, r.reloadTreeMs, r.nodeMs].map((ms) => ms.toFixed(0)),
  ((r.enforcedMs - r.nodeMs) / r.legacyMs).toFixed(1),
];

/** @throws Error when something is missing, or the two save other rules: no time is quoted then. */
export async function run(options: Options): Promise<unknown> {
  need('load', [
    ['iptables-legacy-restore', 'iptables'],
    ['nsenter', 'util-linux'],
    ['ip', 'iproute2'],
  ]);
  const measure = async (name: string, rules: string): Promise<Loaded> => {
    const result = await loadFile(rules, options.pairs);
    if (!options.json) console.log(table([HEAD, row(name, result)]));
    return result;
  };
  if (options.rules !== undefined) {
    if (!existsSync(options.rules)) throw new Error(`no file ${options.rules}`);
    return measure(path.basename(options.rules), readFileSync(options.rules, 'latin1'));
  }
  const results: Record<string, Loaded> = {};
  for (const shape of SHAPES)
    for (const count of [1000, 10_000, 100_000]) {
      const name = `${shape} ${count}`;
      results[name] = await measure(name, rulesText(generate(shape, count, 0, count).filters));
    }
  return results;
}
