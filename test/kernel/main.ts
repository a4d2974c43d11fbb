/**
 * `npm run test:kernel -- --minutes N [--seed S] [--flows N] [--scenario FILE] [--case TEXT] [--out DIR] [--workers N]
 * [--fanout cpu] [--simulated]`:
 * the long judge. Runs what verdicts.ts says of each option, the cases with a name, then seeded scenarios until the time is over,
 * shrinks every divergence into a file of DIR, and prints how much was compared and what it had in it. With `--fanout cpu` the packets
 * of a flow go to all workers in turn. `--scenario` runs one file, `--case` the cases whose name has that text, and tells what
 * happened to each packet. `--random-only` leaves out rows and cases. With `--simulated` hutter is in this
 * process, the whole router, on a clock of its own. Exit code 1 when anything differed.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { closeAllOnSignals } from '../../src/control/lab/netns.js';
import { Arena, NEEDS_CONNECTIONS } from './arena.js';
import { CASES } from './cases.js';
import { Coverage } from './coverage.js';
import { type Court, run, shrink } from './judge.js';
import { Random } from './random.js';
import { CHOOSING, covered, FORGETFUL, makeCommands, makeRules, makeTuning, missing } from './rules.js';
import type { Scenario } from './scenario.js';
import { forSimulation, SimulatedArena } from './simulated.js';
import { makeTraffic } from './traffic.js';
import { matchScenario, TARGET_ROWS, targetScenario } from './verdicts.js';

const DEFAULT_FLOWS = 40;
/** A defect differs in every run of its seed. */
export const RETRIES = 4;

/** The scenario of a seed. */
export function scenarioOf(seed: number, flows = DEFAULT_FLOWS): Scenario {
  const r = new Random(seed);
  const changing = r.once(5);
  let rules = makeRules(r);
  while (changing && FORGETFUL.test(rules)) rules = makeRules(r);
  const commands = changing ? makeCommands(r) : [];
  const tuning = Array.from({ length: r.once(3) ? 1 + r.below(3) : 0 }, () => makeTuning(r));
  // Where no rule asks, frames to many meet FORWARD, and cluster makes them what they aren't (docs/DIFFERENCES.md).
  const toMany = /-m pkttype/.test(rules) && !/-m cluster/.test(rules) && !changing;
  // Where nothing is tracked, rules see fragments; but INPUT of the kernel sees none even then (docs/DIFFERENCES.md).
  const whole = !NEEDS_CONNECTIONS.test(rules) || commands.length > 0;
  // What the router's programs have cut up themselves comes back in pieces by lo (docs/DIFFERENCES.md).
  const ownWhole = /-A (OUTPUT|u\d) .*-j (DNAT|REDIRECT|NETMAP)/.test(rules) || changing;
  const calls = !changing && !CHOOSING.test(rules);
  return {
    seed,
    rules,
    events: makeTraffic(r, { flows, whole, ownWhole, toMany, calls, commands: [...commands, ...tuning] }),
  };
}

const say = (text: string): void => void process.stdout.write(`${text}\n`);

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string' },
      flows: { type: 'string', default: String(DEFAULT_FLOWS) },
      scenario: { type: 'string' },
      case: { type: 'string' },
      out: { type: 'string', default: 'build/judge' },
      workers: { type: 'string', default: '1' },
      fanout: { type: 'string', default: 'hosts' },
      'random-only': { type: 'boolean', default: false },
      simulated: { type: 'boolean', default: false },
      faults: { type: 'string', default: '10' },
    },
  });
  closeAllOnSignals();
  const fanout = values.fanout === 'cpu' ? 'cpu' : 'hosts';
  const real = await Arena.open({ workers: Number(values.workers), fanout });
  const arena: Court = values.simulated ? new SimulatedArena(real) : real;
  const fit = (scenario: Scenario): Scenario => (values.simulated ? forSimulation(scenario) : scenario);
  try {
    if (values.scenario !== undefined)
      return await tell(arena, JSON.parse(readFileSync(values.scenario, 'utf8')) as Scenario);
    if (values.case !== undefined) {
      let worst = 0;
      for (const scenario of CASES.filter(({ name }) => name.includes(values.case!))) {
        say(scenario.name);
        worst = Math.max(worst, await tell(arena, scenario));
      }
      return worst;
    }
    const first = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed);
    const end = Date.now() + Number(values.minutes) * 60_000;
    let [packets, rulesets, refused, faults, unsteady] = [0, 0, 0, 0, 0];
    let seed = first;
    const coverage = new Coverage();
    say(`matches and targets: ${covered().join(' ')}`);
    if (missing().length > 0) say(`not generated: ${missing().join(' ')}`);
    const named =
      values['random-only'] || values.simulated ? [] : [matchScenario(), ...TARGET_ROWS.map(targetScenario), ...CASES];
    for (const scenario of named) {
      let verdict = await run(arena, scenario);
      packets += verdict.packets;
      for (let tries = 0; verdict.divergence && tries < RETRIES; tries++) verdict = await run(arena, scenario);
      if (!verdict.divergence) continue;
      faults++;
      if ('name' in scenario) say(String(scenario.name));
      await tell(arena, scenario);
    }
    for (; Date.now() < end && faults < Number(values.faults); seed++) {
      const scenario = fit(scenarioOf(seed, Number(values.flows)));
      const verdict = await run(arena, scenario);
      packets += verdict.packets;
      if (verdict.packets > 0) rulesets++;
      else refused++;
      coverage.note(scenario, verdict.collisions);
      if (!verdict.divergence) continue;
      // A machine that is very busy can hold up frames: what differs differs again, each time.
      let again = verdict;
      for (let tries = 0; again.divergence && tries < RETRIES; tries++) again = await run(arena, scenario);
      if (!again.divergence) {
        unsteady++;
        say(`seed ${seed}: once, and not again: ${verdict.divergence.what}`);
        continue;
      }
      faults++;
      say(`seed ${seed}: ${verdict.divergence.what}`);
      const least = verdict.divergence.what.startsWith('loading')
        ? scenario
        : await shrink(arena, scenario, verdict.divergence.what, () => undefined);
      mkdirSync(values.out, { recursive: true });
      const file = path.join(values.out, `${seed}.json`);
      writeFileSync(file, JSON.stringify(least, null, 1) + '\n');
      say(`  as ${file}:`);
      await tell(arena, least);
    }
    for (const line of coverage.lines()) say(line);
    say(
      `${packets} packets, ${rulesets} rulesets, seeds ${first} to ${seed - 1} (${refused} refused by both): ${faults} divergences, ${unsteady} seen once only`,
    );
    return faults === 0 ? 0 : 1;
  } finally {
    const { words } = real;
    await real.close();
    if (/failed/.test(words)) say(words);
  }
}

/** Runs a scenario and prints its rules, what each packet became, and the verdict. */
async function tell(arena: Court, scenario: Scenario): Promise<number> {
  const { divergence, packets } = await run(arena, scenario, true);
  say(scenario.rules.replace(/^:.*ACCEPT \[0:0\]\n/gm, '').replace(/^/gm, '    '));
  for (const line of divergence?.story ?? []) say(`    ${line.replaceAll('\n', '\n    ')}`);
  say(divergence ? `  ${divergence.what}\n` : `  ${packets} packets, no difference\n`);
  return divergence ? 1 : 0;
}

if (process.argv[1]?.endsWith('kernel/main.js')) process.exitCode = await main();
