/**
 * `bench growth`: what a command costs the daemon whose chain has 10,000 rules already. Rules are appended, inserted at random
 * places, deleted by number and deleted by their text, in turns, each by a request of its own to the control socket; trees
 * grow meanwhile as they do. A cost is the main thread's processor time as the scheduler counts it, from the request until
 * its answer, with what the command left to do within the pause behind it. Root.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { generate, rulesText, SHAPES } from './classbench.js';
import type { Options } from './main.js';
import { sleep } from './net.js';
import { need, Place, Router } from './router.js';
import { spread, table } from './stats.js';

const RULES = 10_000;
const PAUSE_MS = 5;

/** Milliseconds of the daemon's main thread. */
export interface Cost {
  readonly median: number;
  readonly p99: number;
  readonly worst: number;
  readonly count: number;
}
type Command = 'append' | 'insert' | 'delete by number' | 'delete by text';

/** Milliseconds that the main thread of a process has run. */
const threadMs = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6;

/** A rule that no other is like. */
const ruleOf = (n: number): string[] =>
  `-s 10.${n >> 16}.${(n >> 8) & 255}.${n & 255} -p tcp --dport ${1024 + (n % 60_000)} -j ACCEPT`.split(' ');

function costOf(values: readonly number[]): Cost {
  const sorted = values.toSorted((a, b) => a - b);
  const { median, count } = spread(values);
  return { median, p99: sorted[Math.ceil(count * 0.99) - 1]!, worst: sorted[count - 1]!, count };
}

/** `rounds` times each command. */
async function growth(rules: string, rounds: number): Promise<Record<Command, Cost>> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-growth-'));
  const place = new Place('growth');
  let router: Router | undefined;
  const costs: Record<Command, number[]> = { append: [], insert: [], 'delete by number': [], 'delete by text': [] };
  try {
    router = await Router.start(place, folder);
    await router.load(rules);
    const { pid } = router;
    const chain = 'FORWARD';
    const command = async (name: Command, ...argv: string[]): Promise<void> => {
      const before = threadMs(pid);
      await router!.ask('iptables', argv);
      await sleep(PAUSE_MS);
      costs[name].push(threadMs(pid) - before);
    };
    // Places by a fixed sequence, so that two runs do the same.
    let random = 1;
    const position = (): string => `${1 + ((random = (random * 48271) % 0x7fffffff) % RULES)}`;
    for (let n = 0; n < rounds; n++) {
      await command('append', '-A', chain, ...ruleOf(2 * n));
      await command('insert', '-I', chain, position(), ...ruleOf(2 * n + 1));
      await command('delete by number', '-D', chain, position());
      await command('delete by text', '-D', chain, ...ruleOf(2 * n));
    }
  } finally {
    await router?.stop();
    place.close();
    rmSync(folder, { recursive: true, force: true });
  }
  return Object.fromEntries(Object.entries(costs).map(([name, values]) => [name, costOf(values)])) as Record<
    Command,
    Cost
  >;
}

const HEAD = ['ms', 'median', 'p99', 'worst', 'n'];

/** --pairs: rounds, a hundred times each command. */
export async function run(options: Options): Promise<unknown> {
  need('growth', [
    ['nsenter', 'util-linux'],
    ['ip', 'iproute2'],
  ]);
  const results: Record<string, Record<Command, Cost>> = {};
  for (const shape of SHAPES) {
    const name = `${shape} ${RULES}`;
    const result = await growth(rulesText(generate(shape, RULES, 0, RULES).filters), 100 * options.pairs);
    results[name] = result;
    if (options.json) continue;
    const rows = Object.entries(result).map(([what, { median, p99, worst, count }]) => [
      `${name}: ${what}`,
      ...[median, p99, worst].map((ms) => ms.toFixed(1)),
      `${count}`,
    ]);
    console.log(table([HEAD, ...rows]));
  }
  return results;
}
