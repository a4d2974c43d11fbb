/**
 * Two workers on one connection table give the verdicts of one: a flow's directions are split between them. So they are beside the
 * kernel with `npm run test:kernel -- --workers 2 --fanout cpu`, and both at once in test/conntrack/stress.test.ts.
 */
import t from 'tap';
import { run } from './judge.js';
import { scenarioOf } from './main.js';
import { forSimulation, WorkersCourt } from './simulated.js';

const SEED = Number(process.env['HUTTER_TEST_SEED'] ?? 48_020);
const RULESETS = 25;
/** A first packet that another worker has seen and that was dropped counts for some milliseconds. */
const HAS_GRACE = /connlimit/;

t.test(`two workers, seeds from ${SEED}`, async (t) => {
  let packets = 0;
  for (let seed = SEED; seed < SEED + RULESETS; seed++) {
    const scenario = forSimulation(scenarioOf(seed));
    if (HAS_GRACE.test(scenario.rules)) continue;
    const verdict = await run(new WorkersCourt(2), scenario);
    t.equal(verdict.divergence?.what, undefined, `seed ${seed}`);
    packets += verdict.packets;
  }
  t.comment(`${packets} packets`);
  t.ok(packets > 1000);
});
