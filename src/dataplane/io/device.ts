import type { Batch } from './batch.js';

/**
 * Where packets come from and go to. The caller owns the batch; a device touches it in calls only.
 * One thread uses a device. NFQUEUE, TUN, an in-memory loopback, pcap files, a tracer and a fault injector are devices.
 */
export interface Device {
  readonly capabilities: DeviceCapabilities;

  /**
   * Waits up to `timeoutMs` (−1 = for ever) for packets and writes up to `batch.capacity` of them into the batch.
   * Returns how many; 0 after a timeout or when woken.
   * @throws DeviceClosed when the device is gone for good. Overruns (ENOBUFS) are counted in `stats`, not thrown.
   */
  receive(batch: Batch, timeoutMs: number): number;

  /** Carries out the verdicts of the batch's first `count` packets; where hutter routes, of those not yet sent. */
  send(batch: Batch, count: number): void;

  /**
   * Sends a packet of hutter's own, `bytes[start, end)`, an IPv4 packet with its checksums filled in; by the interface
   * `outdev` where hutter routes, else as the kernel does. `via` (0 = none): the kernel routes it as if it were for this host,
   * and by `outdev` if that isn't 0.
   */
  inject(bytes: Uint8Array, start: number, end: number, mark: number, outdev: number, via: number): void;

  /** From now on packets need not come whole, only their first bytes with all headers (`headers`), or whole again. */
  copyHeaders?(headers: boolean): void;

  /** Whether somebody takes packets from the kernel's queue of this number; absent where there are no queues. */
  isListening?(queue: number): boolean;

  /** Running totals since the device was opened. */
  readonly stats: DeviceStats;

  close(): void;
}

/** A device that a worker lives on: it has the kernel's clocks, and sends and receives by one call. */
export interface LiveDevice extends Device {
  /** `send`, then `receive`. */
  exchange(batch: Batch, count: number, timeoutMs: number): number;
  /** CLOCK_MONOTONIC and CLOCK_REALTIME in milliseconds, when the last call returned. */
  readonly now: number;
  readonly wall: number;
}

export interface DeviceCapabilities {
  readonly name: string;
  /** The kernel routes what the device returns (NFQUEUE); otherwise hutter is the whole router. */
  readonly kernelRoutes: boolean;
  /** Packets can be longer than a link's MTU. */
  readonly gso: boolean;
}

export interface DeviceStats {
  received: number;
  /** Times the kernel said ENOBUFS: packets were lost before hutter saw them. */
  overruns: number;
  /** Verdicts or packets the kernel refused, by the last errno. */
  sendErrors: number;
  lastErrno: number;
}

/** The device is gone: the worker stops or binds it anew. */
export class DeviceClosed extends Error {
  override readonly name = 'DeviceClosed';
}
