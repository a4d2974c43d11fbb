/**
 * The addon in worker threads: a queue each, woken while they wait, and nothing left open when a thread ends.
 */
import t from 'tap';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { Waker, waitForWake } from '../../src/dataplane/io/waker.js';
import type { Task } from './thread.js';
import { becomeRouter, run, until } from './router.js';

const { a, b } = await becomeRouter(import.meta.url);
a.run('ping', '-c', '1', '-W', '1', '10.7.1.1');
b.run('ping', '-c', '1', '-W', '1', '10.7.2.1');
for (const [device, queue] of [
  ['in0', '20'],
  ['out0', '21'],
] as const)
  run('iptables-legacy', '-t', 'raw', '-A', 'PREROUTING', '-i', device, '-j', 'NFQUEUE', '--queue-num', queue);
const bound = (): string[] =>
  readFileSync('/proc/thread-self/net/netfilter/nfnetlink_queue', 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.trim().split(/\s+/)[0]!);

const start = async (
  queue: number,
): Promise<{ worker: Worker; waker: Waker; words: Int32Array; gone: Promise<unknown> }> => {
  const waker = new Waker();
  const words = new Int32Array(new SharedArrayBuffer(12));
  const task: Task = { queue, wakeFd: waker.fd, words };
  const worker = new Worker(new URL('thread.js', import.meta.url), { workerData: task });
  worker.on('error', () => undefined);
  const gone = new Promise((resolve) => worker.once('exit', resolve));
  await new Promise((resolve) => worker.once('message', resolve));
  return { worker, waker, words, gone };
};

t.test('two threads, a queue each', async (t) => {
  const first = await start(20);
  const second = await start(21);
  t.same(bound().sort(), ['20', '21']);
  t.equal(first.words[0]! + second.words[0]!, 0);
  a.run('ping', '-c', '20', '-i', '0.01', '-W', '1', '10.7.2.2');
  t.ok(
    await until(
      () => undefined,
      () => Atomics.load(first.words, 0) === 20 && Atomics.load(second.words, 0) === 20,
    ),
    'requests by one, answers by the other',
  );

  const returns = Atomics.load(first.words, 1);
  first.waker.wake();
  t.ok(
    await until(
      () => undefined,
      () => Atomics.load(first.words, 1) === returns + 1,
    ),
    'a wake-up ends one wait',
  );
  await new Promise((resolve) => setTimeout(resolve, 30));
  t.equal(Atomics.load(first.words, 1), returns + 1, 'and only one');

  // One ends by itself, one throws, both with their devices open.
  Atomics.store(first.words, 2, 2);
  first.waker.wake();
  Atomics.store(second.words, 2, 3);
  second.waker.wake();
  await first.worker.terminate();
  await second.gone;
  first.waker.close();
  second.waker.close();
  t.same(bound(), [], 'their queues are free');
});

t.test('a thread is ended while it waits', async (t) => {
  const { worker, waker, gone } = await start(20);
  const ended = worker.terminate();
  waker.wake();
  await ended;
  await gone;
  t.same(bound(), []);
  waker.close();
});

t.test('a waker alone', (t) => {
  const waker = new Waker();
  t.notOk(waitForWake(waker.fd, 0));
  waker.wake();
  waker.wake();
  t.ok(waitForWake(waker.fd, 0));
  t.notOk(waitForWake(waker.fd, 0), 'wake-ups do not add up');
  waker.close();
  t.throws(() => {
    waker.wake();
  }, /closed/);
  t.end();
});
