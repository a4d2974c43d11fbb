/** One thread of stress.test.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { invertPorts, packKey, packPorts } from '../../src/dataplane/conntrack/key.js';
import { lock } from '../../src/dataplane/conntrack/lock.js';
import { Head, linkDir, linkEntry } from '../../src/dataplane/conntrack/layout.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Status } from '../../src/dataplane/conntrack/states.js';
import { Proto } from '../../src/dataplane/names.js';
import { Bench, random } from './harness.js';

export interface StressData {
  shared: SharedArrayBuffer;
  slot: number;
  seed: number;
  steps: number;
  mode: 'churn' | 'flows' | 'die';
}

const { shared, slot, seed, steps, mode } = workerData as StressData;
const table = ConntrackTable.attach(shared, slot);
const next = random(seed + slot * 7919);
const key = packKey(Proto.UDP, 0);
const result = { inserted: 0, clashes: 0, killed: 0, wrong: 0, packets: 0 };

if (mode === 'churn') {
  // All threads insert, find and kill the same few tuples.
  table.online();
  for (let i = 0; i < steps; i++) {
    if (i % 64 === 0) {
      if (next() % 50 === 0) {
        table.offline();
        table.online();
      }
      table.edge((i / 64) | 0, 0);
      table.tidy(true);
    }
    const ports = packPorts(next() % 200, 53);
    const link = table.find(1, 2, ports, key, key);
    if (link !== 0) {
      const entry = linkEntry(link);
      if (table.ports(entry, linkDir(link)) !== ports || table.src(entry, linkDir(link)) !== 1) result.wrong++;
      if (next() % 2 === 0 && table.kill(entry)) result.killed++;
      continue;
    }
    const entry = table.create(1, 2, ports, Proto.UDP, 0, 0);
    if (entry < 0) continue;
    table.refresh(entry, 1_000_000);
    table.setStatus(entry, Status.SRC_NAT_DONE);
    if (next() % 4 === 0) table.discard(entry);
    else if (table.insert(entry) === 0) {
      result.inserted++;
      const back = table.find(2, 1, invertPorts(Proto.UDP, ports), key, key);
      if (back !== 0 && linkDir(back) !== 1) result.wrong++;
    } else {
      result.clashes++;
      table.discard(entry);
    }
  }
  table.edge(((steps / 64) | 0) + 1, 0);
  table.offline();
} else if (mode === 'flows') {
  // Slot 0 sends one direction of every flow, slot 1 the other.
  const bench = new Bench({}, shared, slot);
  for (let i = 0; i < steps; i++) {
    if (i % 64 === 0) bench.wait(1);
    const sport = 1000 + (i % 50);
    const state = bench.udp(slot === 0 ? '>' : '<', sport);
    if (state.endsWith('!') || state === 'INVALID') result.wrong++;
    else result.packets++;
  }
  bench.table.edge(bench.table.now, 0);
  bench.table.offline();
} else {
  // Dies in the midst of an insertion, with all kinds of locks held: stripes', an entry's, the free list's, the expectations'.
  table.online();
  const entry = table.create(1, 2, packPorts(7, 7), Proto.UDP, 0, 0);
  table.refresh(entry, 1000);
  if (table.insert(entry) !== 0) throw new Error('not inserted');
  const scratch = table.create(1, 2, packPorts(8, 8), Proto.UDP, 0, 0);
  table.refresh(scratch, 1000);
  table.lockEntry(entry);
  table.lockExpectations();
  lock(table.words, Head.FREE_LOCK, table.owner);
  table.insertUntil(scratch);
  parentPort!.postMessage({ life: table.life, entry, scratch });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
parentPort!.postMessage(result);
