import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import { packKey, packPorts } from '../../src/dataplane/conntrack/key.js';
import { Head, layout, linkEntry } from '../../src/dataplane/conntrack/layout.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Proto } from '../../src/dataplane/names.js';
import type { StressData } from './stress.worker.js';

type Result = Record<'inserted' | 'clashes' | 'killed' | 'wrong' | 'packets', number>;

function start(data: StressData): Worker {
  return new Worker(new URL('./stress.worker.js', import.meta.url), { workerData: data });
}
const answer = <T>(worker: Worker): Promise<T> =>
  new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));

/** Everything that a table must hold to when nobody works on it; leaves it empty. */
function checkAndEmpty(t: Test, control: ConntrackTable, workers: number): void {
  const census = control.census();
  t.equal(census.free + census.used + census.limbo + census.scratch, control.capacity, 'no entry is lost');
  t.equal(census.scratch, 0, 'none is left half made');
  t.equal(control.total(), census.used, 'the count is right');
  let found = 0;
  for (let e = control.next(-1); e >= 0; e = control.next(e)) {
    const key = control.key(e, 0);
    for (const dir of [0, 1]) {
      const link = control.find(control.src(e, dir), control.dst(e, dir), control.ports(e, dir), key, key);
      if (link === 0 || linkEntry(link) !== e) t.fail(`entry ${e} is not found by tuple ${dir}`);
    }
    found++;
  }
  t.equal(found, census.used, 'all that are used are listed');
  control.flush();
  control.quiesce();
  for (let slot = 0; slot < workers; slot++) {
    // What sits in a finished worker's limbo is freed by the slot's next thread.
    const next = ConntrackTable.attach(control.shared, slot);
    next.quiesce();
    next.quiesce();
  }
  control.quiesce();
  t.same(control.census(), { free: control.capacity, used: 0, limbo: 0, scratch: 0 }, 'all are free in the end');
  t.equal(control.total(), 0);
  const { words, expectCapacity } = control;
  const { sources, expectations } = layout(workers + 1, words[Head.BUCKETS]!, expectCapacity);
  t.ok(
    words.subarray(sources, expectations).every((first) => first === 0),
    'none is left in the lists by source',
  );
}

for (const workers of [2, 4]) {
  t.test(`${workers} threads insert, find and kill the same tuples`, async (t) => {
    const seed = Date.now() | 0;
    t.comment(`seed ${seed}`);
    const shared = ConntrackTable.create({ max: 500, workers });
    const control = ConntrackTable.attach(shared, workers);
    const threads = Array.from({ length: workers }, (_, slot) =>
      start({ shared, slot, seed, steps: 40_000, mode: 'churn' }),
    );
    const results = await Promise.all(threads.map((worker) => answer<Result>(worker)));
    const sum = (key: keyof Result): number => results.reduce((total, result) => total + result[key], 0);
    t.equal(sum('wrong'), 0, 'no lookup found another’s entry');
    t.ok(sum('inserted') > 500 && sum('killed') > 500);
    t.equal(sum('inserted') - sum('killed'), control.total(), 'inserted less killed are there');
    checkAndEmpty(t, control, workers);
  });
}

t.test('two threads have a direction of each flow: every packet is counted, every flow is one', async (t) => {
  const shared = ConntrackTable.create({ max: 1000, workers: 2 });
  const control = ConntrackTable.attach(shared, 2);
  const steps = 20_000;
  const results = await Promise.all(
    [0, 1].map((slot) => answer<Result>(start({ shared, slot, seed: 1, steps, mode: 'flows' }))),
  );
  t.equal(results[0]!.wrong + results[1]!.wrong, 0, 'clashes are resolved, nothing is dropped');
  let flows = 0;
  let packets = 0;
  for (let e = control.next(-1); e >= 0; e = control.next(e)) {
    flows++;
    packets += control.packets(e, 0) + control.packets(e, 1);
  }
  t.equal(flows, 50);
  t.equal(packets, 2 * steps);
  checkAndEmpty(t, control, 2);
});

t.test('a thread dies in the midst of an insertion, with locks held: recover mends it', async (t) => {
  const shared = ConntrackTable.create({ max: 100, workers: 2 });
  const control = ConntrackTable.attach(shared, 2);
  const worker = start({ shared, slot: 0, seed: 1, steps: 0, mode: 'die' });
  // As the router's is, which drops a connection's expectations.
  control.onRemove = () => {
    control.lockExpectations();
    control.unlockExpectations();
  };
  const { life, entry, scratch } = await answer<{ life: number; entry: number; scratch: number }>(worker);
  await worker.terminate();
  const key = packKey(Proto.UDP, 0);
  control.recover(0, life);
  t.equal(linkEntry(control.find(1, 2, packPorts(7, 7), key, key)), entry, 'what was inserted stays');
  t.equal(control.find(1, 2, packPorts(8, 8), key, key), 0, 'what was not is undone');
  t.equal(control.find(2, 1, packPorts(8, 8), key, key), 0);
  t.not(scratch, entry);
  const next = ConntrackTable.attach(shared, 0);
  next.lockEntry(entry);
  next.unlockEntry(entry);
  const again = next.create(1, 2, packPorts(8, 8), Proto.UDP, 0, 0);
  next.refresh(again, 1000);
  t.equal(next.insert(again), 0, 'its locks are free');
  checkAndEmpty(t, control, 2);
});
