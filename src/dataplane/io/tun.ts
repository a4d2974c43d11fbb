/**
 * TUN interfaces as a device: one queue of each interface, one worker. Here hutter is the whole router: what the pipeline
 * accepts goes out by the interface in Meta.SEND_TO, from Meta.NEW_OFFSET. The interfaces themselves are the main
 * thread's (control/tun.ts): a worker that dies loses none.
 *
 * `send` may be called before the batch is decided to its end, with a growing count, so that what `inject` sends keeps
 * its place in the order. Writing to a TUN never waits: where an interface has a rate, packets wait in its bands (bands.ts)
 * instead, and leave them at the next `receive` or `send`. Life-cycle and batches: native/tun.c.
 */
import { Verdict } from '../names.js';
import { Bands } from './bands.js';
import { Batch, FULL_SLOT, Meta, META_WORDS } from './batch.js';
import type { DeviceCapabilities, DeviceStats, LiveDevice } from './device.js';
import { loadNative } from './native.js';
import type { Native, TunPortsHandle } from './native.js';
import { Turn, Turns } from './turn.js';

/** The turn's totals, in tun.c's order. */
const enum Stat {
  RECEIVED = 0,
  SENT,
  MALFORMED,
  SEND_ERRORS,
  LAST_ERRNO,
  COUNT,
}

/** One interface as a worker gets it. */
export interface TunPort {
  /** Descriptor of this worker's queue. */
  fd: number;
  ifindex: number;
  /** Hook at which its packets come in: PREROUTING, or OUTPUT for the one to the router's own sockets. */
  hook: number;
  /** Bits a second on the way out, 0 = no limit; with a rate, what its bands share (bands.ts). */
  rate: number;
  bands?: SharedArrayBuffer;
  counters?: SharedArrayBuffer;
}

/** Packets that leave the bands at a time. */
const RELEASED = 8;

export interface TunOptions {
  readonly ports: readonly TunPort[];
  /** This worker's number. */
  readonly worker: number;
  /** A Waker's descriptor that ends `receive` early. */
  readonly wakeFd: number;
}

export class TunDevice implements LiveDevice {
  readonly capabilities: DeviceCapabilities = { name: 'tun', kernelRoutes: false, gso: true };
  private readonly native: Native = loadNative();
  private readonly handle: TunPortsHandle;
  private readonly turns: Turns;
  private readonly totals: DeviceStats = { received: 0, overruns: 0, sendErrors: 0, lastErrno: 0 };
  /** Packets of the batch that have been sent. */
  private sent = 0;
  private readonly rated: readonly Bands[];
  /** Packets on their way from the bands to their interfaces; only where there are bands. */
  private readonly released: Batch;
  /** Of a packet of hutter's own: its checksum is finished. */
  private readonly record = new Int32Array(META_WORDS);

  constructor({ ports, worker, wakeFd }: TunOptions) {
    this.rated = ports.flatMap(({ ifindex, rate, bands, counters }) =>
      bands === undefined || counters === undefined
        ? []
        : [new Bands(ifindex, new Int32Array(bands), new Float64Array(counters), worker, rate)],
    );
    this.released = new Batch(this.rated.length === 0 ? 1 : RELEASED, this.rated.length === 0 ? 64 : FULL_SLOT);
    const words = Int32Array.from(ports.flatMap(({ fd, ifindex, hook }) => [fd, ifindex, hook]));
    this.handle = this.native.tunAttach(words, wakeFd);
    this.turns = new Turns(Stat.COUNT, (batch, turn) =>
      this.native.tunLend(this.handle, batch.bytes, batch.meta, turn, batch.slotSize),
    );
  }

  receive(batch: Batch, timeoutMs: number): number {
    this.sent = 0;
    return this.exchange(batch, 0, timeoutMs);
  }

  send(batch: Batch, count: number): void {
    if (this.rated.length > 0) {
      this.putAside(batch, count);
      this.release();
    }
    if (count <= this.sent) return;
    this.turns.run(batch, this.sent, count, 0, 0);
    this.sent = count;
  }

  exchange(batch: Batch, count: number, timeoutMs: number): number {
    const isRated = this.rated.length > 0;
    if (isRated) this.putAside(batch, count);
    const timeout = isRated ? this.untilRelease(timeoutMs) : timeoutMs;
    const n = this.turns.run(batch, this.sent, count, batch.capacity, timeout);
    this.sent = 0;
    if (isRated) this.release();
    return n;
  }

  get now(): number {
    return this.turns.words[Turn.NOW]!;
  }
  get wall(): number {
    return this.turns.words[Turn.WALL]!;
  }
  /** The same object at each call, brought up to date: as of the last turn. */
  get stats(): DeviceStats {
    const { totals } = this;
    const w = this.turns.stats;
    totals.received = w[Stat.RECEIVED]!;
    totals.sendErrors = w[Stat.SEND_ERRORS]!;
    totals.lastErrno = w[Stat.LAST_ERRNO]!;
    return totals;
  }

  /** What goes by an interface with a rate waits in the bands and is no longer the batch's. */
  private putAside(batch: Batch, count: number): void {
    const { meta, bytes } = batch;
    for (let i = this.sent; i < count; i++) {
      const m = i * META_WORDS;
      if (meta[m + Meta.VERDICT] !== (Verdict.ACCEPT as number)) continue;
      const bands = this.bandsOf(meta[m + Meta.SEND_TO]!);
      if (bands === undefined) continue;
      bands.put(bytes, meta, m);
      meta[m + Meta.VERDICT] = Verdict.STOLEN;
    }
  }

  private bandsOf(ifindex: number): Bands | undefined {
    for (let i = 0; i < this.rated.length; i++) if (this.rated[i]!.ifindex === ifindex) return this.rated[i];
    return undefined;
  }

  /** Lets go what may go now. */
  private release(): void {
    const { rated, released } = this;
    const now = ((this.now * 1000) % 0x1_0000_0000) | 0;
    for (let i = 0; i < rated.length; i++) {
      for (;;) {
        let n = 0;
        while (n < RELEASED && rated[i]!.take(released, n, now)) n++;
        if (n > 0) this.native.tunSend(this.handle, released.bytes, released.meta, 0, n);
        if (n < RELEASED) break;
      }
    }
  }

  private untilRelease(timeoutMs: number): number {
    let timeout = timeoutMs;
    for (let i = 0; i < this.rated.length; i++) {
      const wait = this.rated[i]!.wait();
      if (wait >= 0 && (timeout < 0 || wait < timeout)) timeout = wait;
    }
    return timeout;
  }

  inject(bytes: Uint8Array, start: number, end: number, _mark: number, outdev: number): void {
    const bands = this.rated.length === 0 ? undefined : this.bandsOf(outdev);
    if (bands !== undefined) {
      const record = this.record;
      record[Meta.NEW_OFFSET] = start;
      record[Meta.NEW_LENGTH] = end - start;
      bands.put(bytes, record, 0);
      return;
    }
    this.native.tunInject(this.handle, bytes, start, end, outdev);
  }

  /** Writes for each port, in the order of the options, 0 or the errno that it ended with. */
  states(out: Int32Array): void {
    this.native.tunStates(this.handle, out);
  }

  /** Lets go of an interface, whose descriptor is about to be closed. */
  leave(ifindex: number): void {
    this.native.tunLeave(this.handle, ifindex);
  }

  /** The interfaces stay. */
  close(): void {
    this.native.close(this.handle);
  }
}
