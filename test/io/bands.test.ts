/** The three bands of an interface with a rate: which packet goes next and when, by a clock of the test's own. */
import t from 'tap';
import {
  BANDS,
  Bands,
  bandOf,
  bandOfClass,
  countersOfBands,
  sharedBands,
  waitingIn,
} from '../../src/dataplane/io/bands.js';
import { Batch, FULL_SLOT, Meta, META_WORDS, HEADROOM, OutFlag } from '../../src/dataplane/io/batch.js';

const NORMAL = 0x00;
const MINIMISE_DELAY = 0x10;
const MAXIMISE_THROUGHPUT = 0x08;
const MAXIMISE_RELIABILITY = 0x04;
const MINIMISE_COST = 0x02;
/** Bits a second; a packet of 1,000 bytes takes 10 ms. */
const RATE = 800_000;
const SIZE = 1000;
const STEP_US = 10_000;
const BURST = 3000;
const LIMIT = 1000;

interface World {
  bands: Bands;
  put: (tos: number, mark?: number, priority?: number) => void;
  /** The second byte and the mark of the packet that goes at `now` µs; undefined: none. */
  take: (now: number) => [tos: number, mark: number] | undefined;
}

function world(shared: SharedArrayBuffer, counters: SharedArrayBuffer, worker: number): World {
  const bands = new Bands(7, new Int32Array(shared), new Float64Array(counters), worker, RATE);
  const [batch, out] = [new Batch(1, FULL_SLOT), new Batch(1, FULL_SLOT)];
  return {
    bands,
    put(tos, mark = 0, priority) {
      batch.bytes[HEADROOM + 1] = tos;
      batch.bytes[HEADROOM + SIZE - 1] = mark;
      batch.meta[Meta.NEW_OFFSET] = HEADROOM;
      batch.meta[Meta.NEW_LENGTH] = SIZE;
      batch.meta[Meta.OUT_FLAGS] = OutFlag.PAYLOAD | (priority === undefined ? 0 : OutFlag.PRIORITY);
      batch.meta[Meta.NEW_PRIORITY] = priority ?? 0;
      bands.put(batch.bytes, batch.meta, 0);
    },
    take(now) {
      out.meta.fill(-1, 0, META_WORDS);
      if (!bands.take(out, 0, now)) return undefined;
      const at = out.meta[Meta.NEW_OFFSET]!;
      t.equal(out.meta[Meta.SEND_TO], 7);
      return [out.bytes[at + 1]!, out.bytes[at + SIZE - 1]!];
    },
  };
}
const pair = (): [SharedArrayBuffer, SharedArrayBuffer] => [sharedBands(2), countersOfBands(2)];

t.test('the priomap: TOS to band', (t) => {
  const bands = Array.from({ length: 16 }, (_, i) => bandOf(i << 1));
  t.same(bands, [1, 2, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1]);
  t.equal(bandOf(MINIMISE_DELAY), 0, 'minimise-delay is first');
  t.equal(bandOf(NORMAL), 1);
  t.equal(bandOf(MAXIMISE_RELIABILITY), 1);
  t.equal(bandOf(MINIMISE_COST), 2, 'minimise-cost is last');
  t.equal(bandOf(MAXIMISE_THROUGHPUT), 2, 'and so is maximise-throughput');
  t.equal(bandOf(MINIMISE_DELAY | MAXIMISE_THROUGHPUT), 1, 'both: in the middle');
  t.equal(bandOf(0xe0), 1, 'precedence says nothing');
  t.end();
});

t.test('the class that a rule gave comes before TOS', (t) => {
  t.same(
    Array.from({ length: 16 }, (_, i) => bandOfClass(0x10000 | i)),
    [1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
  );
  const [shared, counters] = pair();
  const { put, take } = world(shared, counters, 0);
  put(MINIMISE_DELAY, 1, 2);
  put(MINIMISE_COST, 2, 6);
  put(NORMAL, 3);
  t.same(
    [0, 0, 0].map(() => take(5_000_000)?.[1]),
    [2, 3, 1],
  );
  t.end();
});

t.test('what waits leaves by band, in its order within a band, at the rate', (t) => {
  const [shared, counters] = pair();
  const { bands, put, take } = world(shared, counters, 0);
  let now = 5_000_000;
  for (let i = 0; i < 6; i++) put(MINIMISE_COST, i);
  // The bucket begins full: three packets go at once.
  for (let i = 0; i < BURST / SIZE; i++) t.same(take(now), [MINIMISE_COST, i]);
  t.equal(take(now), undefined, 'then they wait');
  put(NORMAL, 10);
  put(MINIMISE_DELAY, 11);
  put(MINIMISE_DELAY, 12);
  t.same(
    [0, 1, 2].map((band) => waitingIn(shared, band)),
    [2, 1, 3],
  );
  const order: unknown[] = [];
  const times: number[] = [];
  const began = now;
  while (bands.waiting > 0) {
    now += Math.max(1, Math.ceil(bands.wait() * 1000));
    const taken = take(now);
    if (taken === undefined) continue;
    order.push(taken[1]);
    times.push(now - began);
  }
  t.same(order, [11, 12, 10, 3, 4, 5], 'minimise-delay overtakes, minimise-cost comes last');
  // A packet may go as soon as one byte's worth is there, so the first comes at once and the others at the rate.
  t.ok(
    times.slice(1).every((time, i) => Math.abs(time - times[i]! - STEP_US) <= 10),
    `every 10 ms: ${times.join(', ')} µs`,
  );
  t.equal(bands.wait(), -1, 'nothing waits');
  const counts = new Float64Array(counters);
  t.same([counts[0], counts[2], counts[4]], [2, 1, 6], 'sent, by band');
  t.end();
});

t.test('a full band drops what comes, and counts it', (t) => {
  const [shared, counters] = pair();
  const { put, bands } = world(shared, counters, 1);
  for (let i = 0; i < LIMIT + 5; i++) put(MAXIMISE_THROUGHPUT);
  put(MINIMISE_DELAY);
  t.equal(bands.waiting, LIMIT + 1, 'the other bands have room');
  const counts = new Float64Array(counters);
  t.equal(counts[(1 * BANDS + 2) * 2 + 1], 5);
  t.end();
});

t.test("two workers: all of a band before any of the next; a dead worker's bands hold nobody up", (t) => {
  const [shared, counters] = pair();
  const [first, second] = [world(shared, counters, 0), world(shared, counters, 1)];
  first.put(MINIMISE_COST, 1);
  second.put(MINIMISE_DELAY, 2);
  t.equal(first.take(1_000_000), undefined, "the other's is more urgent");
  t.equal(first.bands.wait(), 1, 'it looks again in a millisecond');
  t.same(second.take(1_000_000), [MINIMISE_DELAY, 2]);
  t.same(first.take(1_000_000), [MINIMISE_COST, 1]);
  second.put(MINIMISE_DELAY, 3);
  first.put(MINIMISE_COST, 4);
  t.equal(first.take(2_000_000), undefined);
  world(shared, counters, 1); // started anew: its packets are gone
  t.same(first.take(2_000_000), [MINIMISE_COST, 4]);
  t.end();
});

t.test('the clock wraps', (t) => {
  const [shared, counters] = pair();
  const { put, take } = world(shared, counters, 0);
  const end = 0x7fff_ffff;
  for (let i = 0; i < 5; i++) put(NORMAL, i);
  for (let i = 0; i < 3; i++) t.ok(take(end - 5000));
  t.equal(take(end - 5000), undefined);
  t.ok(take((end + 5001) | 0), 'ten milliseconds later, the number being negative');
  t.equal(take((end + 5002) | 0), undefined);
  t.end();
});
