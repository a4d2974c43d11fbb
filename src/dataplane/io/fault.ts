/**
 * A device that does badly on purpose: of another device's packets it loses some, shows some twice, cuts some short and
 * flips bits in some, by a seed. Same seed, same faults. A lost packet is dropped at the device beneath; of a packet
 * shown twice the first verdict counts; cut and damaged packets are so only for the one who receives them.
 */
import { Verdict } from '../names.js';
import { Batch, InFlag, Meta, META_WORDS, OutFlag } from './batch.js';
import type { Device, DeviceCapabilities, DeviceStats } from './device.js';

/** How likely each fault is for a packet, 0..1. */
export interface Faults {
  lose?: number;
  duplicate?: number;
  /** LENGTH is shorter than what came; half of the time the queue's CUT flag says so. */
  truncate?: number;
  /** One to eight bits are flipped anywhere in the packet. */
  corrupt?: number;
}

export interface FaultStats {
  lost: number;
  duplicated: number;
  truncated: number;
  corrupted: number;
}

/** Seeded numbers: a Weyl sequence through a 32-bit mixer. Good enough to choose faults with. */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = seed | 0;
  }
  /** 0 ≤ x < 1. */
  next(): number {
    this.state = (this.state + 0x9e37_79b9) | 0;
    let x = this.state;
    x = Math.imul(x ^ (x >>> 16), 0x21f0_aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a_2d97);
    return ((x ^ (x >>> 15)) >>> 0) / 0x1_0000_0000;
  }
  /** 0 ≤ n < below. */
  int(below: number): number {
    return Math.floor(this.next() * below);
  }
}

export class FaultDevice implements Device {
  readonly faults: FaultStats = { lost: 0, duplicated: 0, truncated: 0, corrupted: 0 };
  private readonly random: Random;
  private inner: Batch | undefined;
  private innerCount = 0;
  /** For each packet shown, its record in the inner batch; −1 for a second showing. */
  private origin = new Int32Array(0);

  constructor(
    private readonly device: Device,
    seed: number,
    private readonly odds: Faults,
  ) {
    this.random = new Random(seed);
  }

  get capabilities(): DeviceCapabilities {
    return this.device.capabilities;
  }
  get stats(): DeviceStats {
    return this.device.stats;
  }

  receive(batch: Batch, timeoutMs: number): number {
    // Half as many, so that each could be shown twice.
    const capacity = Math.max(1, batch.capacity >> 1);
    if (this.inner?.capacity !== capacity || this.inner.slotSize !== batch.slotSize) {
      this.inner = new Batch(capacity, batch.slotSize);
      this.origin = new Int32Array(batch.capacity);
    }
    const inner = this.inner;
    const { random, odds, faults } = this;
    const n = this.device.receive(inner, timeoutMs);
    this.innerCount = n;
    let shown = 0;
    for (let i = 0; i < n; i++) {
      inner.meta[i * META_WORDS + Meta.VERDICT] = Verdict.DROP;
      inner.meta[i * META_WORDS + Meta.OUT_FLAGS] = 0;
      if (random.next() < (odds.lose ?? 0)) {
        faults.lost++;
        continue;
      }
      this.show(batch, shown, i, i);
      shown++;
      if (random.next() < (odds.duplicate ?? 0) && shown + (n - i - 1) < batch.capacity) {
        faults.duplicated++;
        this.show(batch, shown, i, -1);
        shown++;
      }
    }
    return shown;
  }

  send(batch: Batch, count: number): void {
    const inner = this.inner;
    if (!inner) return;
    for (let i = 0; i < count; i++) {
      const origin = this.origin[i]!;
      if (origin < 0) continue;
      const from = i * META_WORDS;
      const to = origin * META_WORDS;
      for (let w = Meta.VERDICT as number; w < META_WORDS; w++) inner.meta[to + w] = batch.meta[from + w]!;
      if ((batch.meta[from + Meta.OUT_FLAGS]! & OutFlag.PAYLOAD) === 0) continue;
      const shift = origin * batch.slotSize - i * batch.slotSize;
      const start = batch.meta[from + Meta.NEW_OFFSET]!;
      inner.bytes.set(batch.bytes.subarray(start, start + batch.meta[from + Meta.NEW_LENGTH]!), start + shift);
      for (const w of [Meta.NEW_OFFSET, Meta.CHECKSUM_START, Meta.CHECKSUM_FIELD])
        inner.meta[to + w] = inner.meta[to + w]! + shift;
    }
    this.device.send(inner, this.innerCount);
  }

  inject(bytes: Uint8Array, start: number, end: number, mark: number, outdev: number, via: number): void {
    this.device.inject(bytes, start, end, mark, outdev, via);
  }

  close(): void {
    this.device.close();
  }

  /** Copies inner packet `from` to place `to` of the batch, with its faults. */
  private show(batch: Batch, to: number, from: number, origin: number): void {
    const inner = this.inner!;
    const { random, odds, faults } = this;
    const { meta, bytes } = batch;
    const r = to * META_WORDS;
    meta.set(inner.meta.subarray(from * META_WORDS, (from + 1) * META_WORDS), r);
    this.origin[to] = origin;
    const offset = meta[r + Meta.OFFSET]! + (to - from) * batch.slotSize;
    const length = meta[r + Meta.LENGTH]!;
    const start = meta[r + Meta.OFFSET]!;
    bytes.set(inner.bytes.subarray(start, start + length), offset);
    meta[r + Meta.OFFSET] = offset;
    if (random.next() < (odds.truncate ?? 0)) {
      faults.truncated++;
      meta[r + Meta.LENGTH] = random.int(length);
      if (random.next() < 0.5) meta[r + Meta.FLAGS] = meta[r + Meta.FLAGS]! | InFlag.CUT;
      else meta[r + Meta.FULL_LENGTH] = meta[r + Meta.LENGTH]!;
    }
    if (random.next() < (odds.corrupt ?? 0) && meta[r + Meta.LENGTH]! > 0) {
      faults.corrupted++;
      for (let flips = 1 + random.int(8); flips > 0; flips--) {
        const at = offset + random.int(meta[r + Meta.LENGTH]!);
        bytes[at] = bytes[at]! ^ (1 << random.int(8));
      }
    }
  }
}
