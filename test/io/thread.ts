/**
 * A worker thread of threads.test.ts: accepts everything from its queue, and waits for ever in between. It ends, or
 * throws, with its device and a monitor open.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Verdict } from '../../src/dataplane/names.js';
import { Batch, FULL_SLOT, Meta, META_WORDS } from '../../src/dataplane/io/batch.js';
import { NfqueueDevice } from '../../src/dataplane/io/nfqueue.js';
import { Monitor } from '../../src/dataplane/io/rtnetlink.js';

export interface Task {
  queue: number;
  wakeFd: number;
  /** Counts; [0] packets, [1] returns from receive, [2] state: 1 waiting, 2 told to stop, 3 throw. */
  words: Int32Array;
}

const { queue, wakeFd, words } = workerData as Task;
const device = new NfqueueDevice({ queue, wakeFd });
new Monitor().watch(() => undefined);
const batch = new Batch(32, FULL_SLOT);
parentPort!.postMessage('open');
Atomics.store(words, 2, 1);
while (Atomics.load(words, 2) === 1) {
  const n = device.receive(batch, -1);
  Atomics.add(words, 1, 1);
  for (let i = 0; i < n; i++) batch.meta[i * META_WORDS + Meta.VERDICT] = Verdict.ACCEPT;
  if (n > 0) device.send(batch, n);
  Atomics.add(words, 0, n);
}
if (Atomics.load(words, 2) === 3) throw new Error('on purpose');
