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
import type { Device, DeviceCapabilities, DeviceStats } from './device.js';
import { loadNative } from './native.js';
import type { Native, TunPortsHandle } from './native.js';

/** Words of tunStats, in tun.c's order. */
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

export class TunDevice implements Device {
  readonly capabilities: DeviceCapabilities = { name: 'tun', kernelRoutes: false, gso: true };
  private readonly native: Native = loadNative();
  private readonly handle: TunPortsHandle;
  private readonly words = new Float64Array(Stat.COUNT);
  /** As of the last `states`: asking the addon at each batch would cost as much as a packet. */
  readonly stats: DeviceStats = { received: 0, overruns: 0, sendErrors: 0, lastErrno: 0 };
  /** Packets of the batch that have been sent. */
  private sent = 0;
  private readonly rated: readonly Bands[];
  /** Packets on their way from the bands to their interfaces; only where there are bands. */
  private readonly released: Batch;
  /** Of a packet of hutter's own: its checksum is finished. */
  private readonly record = new Int32Array(META_WORDS);
  /** performance.now() counts from this thread's start; all threads must tell the same time. */
  private readonly clockOffset: number;

  constructor({ ports, worker, wakeFd }: TunOptions) {
    const [seconds, nanoseconds] = process.hrtime();
    this.clockOffset = seconds * 1e3 + nanoseconds / 1e6 - performance.now();
    this.rated = ports.flatMap(({ ifindex, rate, bands, counters }) =>
      bands === undefined || counters === undefined
        ? []
        : [new Bands(ifindex, new Int32Array(bands), new Float64Array(counters), worker, rate)],
    );
    this.released = new Batch(this.rated.length === 0 ? 1 : RELEASED, this.rated.length === 0 ? 64 : FULL_SLOT);
    const words = Int32Array.from(ports.flatMap(({ fd, ifindex, hook }) => [fd, ifindex, hook]));
    this.handle = this.native.tunAttach(words, wakeFd);
  }

  receive(batch: Batch, timeoutMs: number): number {
    this.sent = 0;
    const { bytes, meta, capacity, slotSize } = batch;
    const timeout = this.rated.length === 0 ? timeoutMs : this.untilRelease(timeoutMs);
    const n = this.native.tunReceive(this.handle, bytes, meta, capacity, slotSize, timeout);
    if (this.rated.length > 0) this.release();
    return n;
  }

  send(batch: Batch, count: number): void {
    if (this.rated.length > 0) {
      this.putAside(batch, count);
      this.release();
    }
    if (count <= this.sent) return;
    this.native.tunSend(this.handle, batch.bytes, batch.meta, this.sent, count);
    this.sent = count;
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
    const now = (((performance.now() + this.clockOffset) * 1000) % 0x1_0000_0000) | 0;
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

  /** Writes for each port, in the order of the options, 0 or the errno that it ended with; brings `stats` up to date. */
  states(out: Int32Array): void {
    const { words, stats } = this;
    this.native.tunStates(this.handle, out);
    this.native.tunStats(this.handle, words);
    stats.received = words[Stat.RECEIVED]!;
    stats.sendErrors = words[Stat.SEND_ERRORS]!;
    stats.lastErrno = words[Stat.LAST_ERRNO]!;
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
