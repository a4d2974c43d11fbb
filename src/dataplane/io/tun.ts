/**
 * TUN interfaces as a device: one queue of each interface, one worker. Here hutter is the whole router: what the pipeline
 * accepts goes out by the interface in Meta.SEND_TO, from Meta.NEW_OFFSET. The interfaces themselves are the main
 * thread's (control/tun.ts): a worker that dies loses none.
 *
 * `send` may be called before the batch is decided to its end, with a growing count, so that what `inject` sends keeps
 * its place in the order. Life-cycle and batches: native/tun.c.
 */
import type { Batch } from './batch.js';
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
}

export interface TunOptions {
  readonly ports: readonly TunPort[];
  /** A Waker's descriptor that ends `receive` early. */
  readonly wakeFd: number;
}

export class TunDevice implements Device {
  readonly capabilities: DeviceCapabilities = { name: 'tun', kernelRoutes: false, gso: true };
  private readonly native: Native = loadNative();
  private readonly handle: TunPortsHandle;
  private readonly words = new Float64Array(Stat.COUNT);
  private readonly totals: DeviceStats = { received: 0, overruns: 0, sendErrors: 0, lastErrno: 0 };
  /** Packets of the batch that have been sent. */
  private sent = 0;

  constructor({ ports, wakeFd }: TunOptions) {
    const words = Int32Array.from(ports.flatMap(({ fd, ifindex, hook }) => [fd, ifindex, hook]));
    this.handle = this.native.tunAttach(words, wakeFd);
  }

  receive(batch: Batch, timeoutMs: number): number {
    this.sent = 0;
    return this.native.tunReceive(this.handle, batch.bytes, batch.meta, batch.capacity, batch.slotSize, timeoutMs);
  }

  send(batch: Batch, count: number): void {
    if (count <= this.sent) return;
    this.native.tunSend(this.handle, batch.bytes, batch.meta, this.sent, count);
    this.sent = count;
  }

  inject(bytes: Uint8Array, start: number, end: number, _mark: number, outdev: number): void {
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

  /** The same object at each call, brought up to date. */
  get stats(): DeviceStats {
    const { words, totals } = this;
    this.native.tunStats(this.handle, words);
    totals.received = words[Stat.RECEIVED]!;
    totals.sendErrors = words[Stat.SEND_ERRORS]!;
    totals.lastErrno = words[Stat.LAST_ERRNO]!;
    return totals;
  }

  /** The interfaces stay. */
  close(): void {
    this.native.close(this.handle);
  }
}
