/**
 * What waits for an interface with a rate: three bands by TOS, as Linux's default queue has them (net/sched/sch_generic.c,
 * pfifo_fast: prio2band), the first always before the second, the second before the third. Each worker has bands of
 * its own; the tokens and how many wait where are shared, so that all of a band go before any of the next.
 *
 *     shared, int32: tokens in bytes, microseconds of the last refill, then for each worker how many wait in each band
 *     counters, double: for each worker and band packets sent, packets dropped
 */
import { Blocks } from './blocks.js';
import { type Batch, HEADROOM, Meta, META_WORDS, OutFlag } from './batch.js';
import { Verdict } from '../names.js';

export const BANDS = 3;
/** Packets a band holds (txqueuelen), and bytes of all bands of a worker. */
const LIMIT = 1000;
const BYTES = 4 << 20;
const LEAST_BURST = 3_000;
const BURST_S = 0.005;

const enum Shared {
  TOKENS = 0,
  LAST = 1,
  WAITING = 2,
}

/**
 * Band by the four TOS bits (tos >> 1 & 15), ip_tos2prio and prio2band together: minimise-delay first, minimise-cost (alone)
 * and maximise-throughput (without delay) last. The bit of minimise-cost has become one of ECN's since, for which newer kernels put it
 * in the middle; here it means what the administrator who sets it means.
 */
const BAND_OF = Uint8Array.of(1, 2, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0, 1, 1, 1, 1);
export const bandOf = (tos: number): number => BAND_OF[(tos >> 1) & 15]!;
/** Band by the priority that CLASSIFY gave, of which that queue looks at four bits (prio2band). */
const BAND_OF_CLASS = Uint8Array.of(1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
export const bandOfClass = (priority: number): number => BAND_OF_CLASS[priority & 15]!;

export const sharedBands = (workers: number): SharedArrayBuffer =>
  new SharedArrayBuffer((Shared.WAITING + workers * BANDS) * 4);
export const countersOfBands = (workers: number): SharedArrayBuffer => new SharedArrayBuffer(workers * BANDS * 2 * 8);

/** How many wait in a band, all workers together. */
export function waitingIn(shared: SharedArrayBuffer, band: number): number {
  const words = new Int32Array(shared);
  let waiting = 0;
  for (let at = Shared.WAITING + band; at < words.length; at += BANDS) waiting += Atomics.load(words, at);
  return waiting;
}

/** Words of the record that are kept with a packet. */
const KEPT = [Meta.FLAGS, Meta.CHECKSUM_MODE, Meta.GSO_SIZE, Meta.GSO_TYPE, Meta.GSO_HEADERS] as const;
const enum Q {
  BLOCK = 0,
  LENGTH,
  /** Where the checksum begins and lies, from the packet's start. */
  CHECKSUM_START,
  CHECKSUM_FIELD,
  KEPT,
  WORDS = 9,
}

/** One worker's bands of one interface. */
export class Bands {
  private readonly blocks = new Blocks(BYTES);
  private readonly queues = Array.from({ length: BANDS }, () => new Int32Array(LIMIT * Q.WORDS));
  private readonly heads = new Int32Array(BANDS);
  private readonly lengths = new Int32Array(BANDS);
  private readonly mine: number;
  private readonly bytesPerMicrosecond: number;
  private readonly burst: number;
  /** Packets that wait here. */
  waiting = 0;

  /** `rate`: bits a second, above 0. */
  constructor(
    readonly ifindex: number,
    private readonly shared: Int32Array,
    private readonly counters: Float64Array,
    private readonly worker: number,
    rate: number,
  ) {
    this.bytesPerMicrosecond = rate / 8e6;
    this.burst = Math.max(LEAST_BURST, Math.floor((rate / 8) * BURST_S));
    this.mine = Shared.WAITING + worker * BANDS;
    // What waited in a worker that died is gone.
    for (let band = 0; band < BANDS; band++) Atomics.store(shared, this.mine + band, 0);
  }

  /** Takes the packet of record `m` of `meta`; it is dropped and counted when its band is full. */
  put(bytes: Uint8Array, meta: Int32Array, m: number): void {
    const start = meta[m + Meta.NEW_OFFSET]!;
    const length = meta[m + Meta.NEW_LENGTH]!;
    const classified = (meta[m + Meta.OUT_FLAGS]! & OutFlag.PRIORITY) !== 0;
    const band = classified ? bandOfClass(meta[m + Meta.NEW_PRIORITY]!) : bandOf(bytes[start + 1]!);
    const count = this.lengths[band]!;
    const block = count === LIMIT ? -1 : this.blocks.put(bytes, start, start + length);
    if (block < 0) {
      this.counters[(this.worker * BANDS + band) * 2 + 1]! += 1;
      return;
    }
    const queue = this.queues[band]!;
    const q = ((this.heads[band]! + count) % LIMIT) * Q.WORDS;
    queue[q + Q.BLOCK] = block;
    queue[q + Q.LENGTH] = length;
    queue[q + Q.CHECKSUM_START] = meta[m + Meta.CHECKSUM_START]! - start;
    queue[q + Q.CHECKSUM_FIELD] = meta[m + Meta.CHECKSUM_FIELD]! - start;
    for (let i = 0; i < KEPT.length; i++) queue[q + Q.KEPT + i] = meta[m + KEPT[i]!]!;
    this.lengths[band] = count + 1;
    this.waiting++;
    Atomics.add(this.shared, this.mine + band, 1);
  }

  /** Puts the packet whose turn it is into place `slot` of `out`, to be sent; false: none may go at `now` (microseconds). */
  take(out: Batch, slot: number, now: number): boolean {
    if (this.waiting === 0) return false;
    this.refill(now);
    if (Atomics.load(this.shared, Shared.TOKENS) <= 0) return false;
    let band = 0;
    while (this.lengths[band] === 0) band++;
    if (this.othersBefore(band)) return false;
    const queue = this.queues[band]!;
    const q = this.heads[band]! * Q.WORDS;
    const length = queue[q + Q.LENGTH]!;
    const m = slot * META_WORDS;
    const offset = slot * out.slotSize + HEADROOM;
    const { meta } = out;
    this.blocks.get(queue[q + Q.BLOCK]!, 0, length, out.bytes, offset);
    this.blocks.release(queue[q + Q.BLOCK]!);
    meta[m + Meta.VERDICT] = Verdict.ACCEPT;
    meta[m + Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
    meta[m + Meta.SEND_TO] = this.ifindex;
    meta[m + Meta.NEW_OFFSET] = offset;
    meta[m + Meta.NEW_LENGTH] = length;
    meta[m + Meta.CHECKSUM_START] = offset + queue[q + Q.CHECKSUM_START]!;
    meta[m + Meta.CHECKSUM_FIELD] = offset + queue[q + Q.CHECKSUM_FIELD]!;
    for (let i = 0; i < KEPT.length; i++) meta[m + KEPT[i]!] = queue[q + Q.KEPT + i]!;
    this.heads[band] = (this.heads[band]! + 1) % LIMIT;
    this.lengths[band]! -= 1;
    this.waiting--;
    Atomics.sub(this.shared, this.mine + band, 1);
    Atomics.sub(this.shared, Shared.TOKENS, length);
    this.counters[(this.worker * BANDS + band) * 2]! += 1;
    return true;
  }

  /** Milliseconds until a packet may go; −1: none waits. */
  wait(): number {
    if (this.waiting === 0) return -1;
    const missing = 1 - Atomics.load(this.shared, Shared.TOKENS);
    // With tokens left, others' packets go first.
    return missing <= 0 ? 1 : missing / this.bytesPerMicrosecond / 1000;
  }

  /** Whether another worker has a packet of a more urgent band. */
  private othersBefore(band: number): boolean {
    const { shared } = this;
    for (let at = Shared.WAITING as number; at < shared.length; at += BANDS) {
      if (at === this.mine) continue;
      for (let i = 0; i < band; i++) if (Atomics.load(shared, at + i) > 0) return true;
    }
    return false;
  }

  /** Adds the bytes that the rate allowed since the last refill; whoever moves LAST adds them. */
  private refill(now: number): void {
    const { shared } = this;
    const last = Atomics.load(shared, Shared.LAST);
    const passed = (now - last) | 0;
    if (passed === 0) return;
    const from = last >>> 0;
    const per = this.bytesPerMicrosecond;
    // Whole bytes up to a moment, so that no fraction is lost between two refills.
    const bytes = passed < 0 ? this.burst : Math.floor((from + passed) * per) - Math.floor(from * per);
    if (bytes === 0 || Atomics.compareExchange(shared, Shared.LAST, last, now) !== last) return;
    for (;;) {
      const tokens = Atomics.load(shared, Shared.TOKENS);
      const more = Math.min(this.burst, tokens + bytes);
      if (Atomics.compareExchange(shared, Shared.TOKENS, tokens, more) === tokens) return;
    }
  }
}
