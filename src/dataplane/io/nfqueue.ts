/**
 * The kernel's packet queue as a device: one queue, one worker. What it receives the kernel has taken out of its way at
 * the hook in Meta.HOOK; the verdict gives it back. `send` must cover the whole batch before the next `receive`: packets
 * without a verdict are dropped then, and counted.
 *
 * A queue is dead when the kernel no longer knows it as ours (unbound, its namespace gone): `receive` throws
 * DeviceClosed, and the worker opens a new device. Life-cycle and batches: native/nfqueue.c.
 */
import { existsSync, readFileSync } from 'node:fs';
import { PrivateMark } from '../names.js';
import { FULL_SLOT } from './batch.js';
import type { Batch } from './batch.js';
import { DeviceClosed } from './device.js';
import type { DeviceCapabilities, DeviceStats, LiveDevice } from './device.js';
import { isNativeError, loadNative } from './native.js';
import type { InjectHandle, Native, NfqueueHandle } from './native.js';
import { Queues } from './queues.js';
import { Turn, Turns } from './turn.js';

/** NFQA_CFG_F_* (include/uapi/linux/netfilter/nfnetlink_queue.h). CONNTRACK stays off: hutter tracks itself. */
const enum ConfigFlag {
  FAIL_OPEN = 1 << 0,
  GSO = 1 << 2,
  UID_GID = 1 << 3,
}

/** Bytes of a slot that are not the packet: the lead, and netlink's attributes at their longest. */
const SLOT_OVERHEAD = FULL_SLOT - 65_531;

/** Bytes that hold a packet's headers, those that ICMP errors quote among them. */
export const HEADERS = 256;

/** The turn's totals, in nfqueue.c's order. */
const enum Stat {
  RECEIVED = 0,
  OVERRUNS,
  MALFORMED,
  CUT,
  REFUSED,
  UNDECIDED,
  SEND_ERRORS,
  LAST_ERRNO,
  COUNT,
}

export interface NfqueueOptions {
  /** Queue number, 0..65535. */
  readonly queue: number;
  /** The longest batch that will be received into. Default 128. */
  readonly capacity?: number;
  /** Size of the batch's slots, from which follows how many bytes of a packet are copied. Default FULL_SLOT: all. */
  readonly slotSize?: number;
  /** Packets the kernel holds before it says the queue is full. Default 4096. */
  readonly maxLength?: number;
  /** Let packets pass when the queue is full, instead of dropping them. Default false. */
  readonly failOpen?: boolean;
  /** Whether segmentation-offload packets come whole. Default true. */
  readonly gso?: boolean;
  /** A Waker's descriptor that ends `receive` early. */
  readonly wakeFd?: number;
}

export interface NfqueueStats extends DeviceStats {
  /** Messages without a packet in them; a packet that lost its payload is dropped. */
  malformed: number;
  /** Packets longer than what the queue copies. */
  cut: number;
  /** Verdicts that the kernel refused (ENOENT: it no longer held the packet). */
  refused: number;
  /** Packets for which no verdict was given. */
  undecided: number;
}

/** Why a queue can't be opened, in one sentence that says what to do. */
export class NfqueueError extends Error {
  override readonly name = 'NfqueueError';
  constructor(
    readonly reason: 'taken' | 'permission' | 'unsupported' | 'other',
    message: string,
    readonly errno: number,
    /** The step that failed. */
    readonly syscall: string,
    cause: unknown,
  ) {
    super(message, { cause });
  }
}

const CAPABILITIES: DeviceCapabilities = { name: 'nfqueue', kernelRoutes: true, gso: true };

export class NfqueueDevice implements LiveDevice {
  readonly capabilities: DeviceCapabilities;
  private readonly native: Native = loadNative();
  private readonly queue: number;
  private readonly whole: number;
  private copied: number;
  private readonly capacity: number;
  private readonly handle: NfqueueHandle;
  private readonly injector: InjectHandle;
  private readonly turns: Turns;
  private readonly queues = new Queues();
  private injectErrors = 0;
  private injectErrno = 0;
  private readonly totals: NfqueueStats = {
    received: 0,
    overruns: 0,
    sendErrors: 0,
    lastErrno: 0,
    malformed: 0,
    cut: 0,
    refused: 0,
    undecided: 0,
  };

  /** @throws NfqueueError when the queue is taken, the kernel hasn't nfnetlink_queue, or the process may not. */
  constructor(options: NfqueueOptions) {
    const { queue, capacity = 128, slotSize = FULL_SLOT, maxLength = 4096, failOpen = false, gso = true } = options;
    if (!Number.isInteger(queue) || queue < 0 || queue > 65_535)
      throw new RangeError(`queue number ${String(queue)} is not within 0..65535`);
    if (slotSize <= SLOT_OVERHEAD + 20) throw new RangeError(`slots of ${String(slotSize)} bytes hold no packet`);
    this.queue = queue;
    this.capacity = capacity;
    this.capabilities = gso ? CAPABILITIES : { ...CAPABILITIES, gso: false };
    const flags = (gso ? ConfigFlag.GSO : 0) | (failOpen ? ConfigFlag.FAIL_OPEN : 0) | ConfigFlag.UID_GID;
    this.whole = Math.min(65_531, slotSize - SLOT_OVERHEAD);
    this.copied = this.whole;
    try {
      this.handle = this.native.nfqueueOpen(queue, this.whole, maxLength, flags, options.wakeFd ?? -1, capacity);
    } catch (error) {
      throw explain(error, queue);
    }
    this.turns = new Turns(Stat.COUNT, ({ bytes, meta, slotSize }, words) =>
      this.native.nfqueueLend(this.handle, bytes, meta, words, slotSize),
    );
    try {
      this.injector = this.native.injectOpen();
    } catch (error) {
      this.native.close(this.handle);
      throw explain(error, queue);
    }
  }

  receive(batch: Batch, timeoutMs: number): number {
    return this.exchange(batch, 0, timeoutMs);
  }

  send(batch: Batch, count: number): void {
    this.turns.run(batch, 0, count, 0, 0);
  }

  exchange(batch: Batch, count: number, timeoutMs: number): number {
    const capacity = batch.capacity < this.capacity ? batch.capacity : this.capacity;
    const n = this.turns.run(batch, 0, count, capacity, timeoutMs);
    if (n < 0) throw new DeviceClosed(`queue ${String(this.queue)} is gone (errno ${String(-n)})`);
    return n;
  }

  get now(): number {
    return this.turns.words[Turn.NOW]!;
  }
  get wall(): number {
    return this.turns.words[Turn.WALL]!;
  }

  /** Holds for packets that the kernel queues from now on; those that wait come as they are. */
  copyHeaders(headers: boolean): void {
    const length = headers ? Math.min(HEADERS, this.whole) : this.whole;
    if (length === this.copied) return;
    this.native.nfqueueCopy(this.handle, length);
    this.copied = length;
  }

  /** The packet leaves past the diversion, in fragments where it must. `mark`: without the private bits. */
  inject(bytes: Uint8Array, start: number, end: number, mark: number, outdev: number, via: number): void {
    const errno = this.native.injectSend(
      this.injector,
      bytes,
      start,
      end,
      mark | PrivateMark.INJECTED,
      via,
      via === 0 ? 0 : outdev,
    );
    if (errno !== 0) {
      this.injectErrors++;
      this.injectErrno = errno;
    }
  }

  isListening(queue: number): boolean {
    return this.queues.has(queue, performance.now());
  }

  /** Asks whether the kernel still knows the queue: if not, the next `receive` throws DeviceClosed. */
  probe(): void {
    this.native.nfqueueProbe(this.handle);
  }

  /** The same object at each call, brought up to date: as of the last turn. */
  get stats(): NfqueueStats {
    const w = this.turns.stats;
    const totals = this.totals;
    totals.received = w[Stat.RECEIVED]!;
    totals.overruns = w[Stat.OVERRUNS]!;
    totals.malformed = w[Stat.MALFORMED]!;
    totals.cut = w[Stat.CUT]!;
    totals.refused = w[Stat.REFUSED]!;
    totals.undecided = w[Stat.UNDECIDED]!;
    totals.sendErrors = w[Stat.SEND_ERRORS]! + w[Stat.REFUSED]! + this.injectErrors;
    totals.lastErrno = this.injectErrno !== 0 ? this.injectErrno : w[Stat.LAST_ERRNO]!;
    return totals;
  }

  /** Packets in flight are dropped by the kernel. */
  close(): void {
    this.native.close(this.handle);
    this.native.close(this.injector);
  }
}

/** Who holds a queue, by the kernel's table: a netlink port, which for a process's first socket is its id. */
function ownerOf(queue: number): string {
  try {
    for (const line of readFileSync('/proc/thread-self/net/netfilter/nfnetlink_queue', 'utf8').split('\n')) {
      const [number, port] = line.trim().split(/\s+/);
      if (number !== String(queue) || port === undefined) continue;
      return existsSync(`/proc/${port}`)
        ? ` (process ${port}, ${readFileSync(`/proc/${port}/comm`, 'utf8').trim()})`
        : ` (netlink port ${port})`;
    }
  } catch {
    // The name is a help, not a need.
  }
  return '';
}

function explain(error: unknown, queue: number): unknown {
  if (!isNativeError(error)) return error;
  const { errno, syscall, code } = error;
  const of = (reason: NfqueueError['reason'], message: string): NfqueueError =>
    new NfqueueError(reason, message, errno, syscall, error);
  if (syscall === 'NFQNL_CFG_CMD_BIND' && (code === 'EPERM' || code === 'EBUSY' || code === 'EEXIST')) {
    return of(
      'taken',
      `queue ${String(queue)} is taken by another program${ownerOf(queue)}: choose others with --queue-base`,
    );
  }
  if (code === 'EPERM')
    return of('permission', 'no permission for packet queues: run as root or with CAP_NET_ADMIN and CAP_NET_RAW');
  if ((syscall === 'nfnetlink_queue' && code === 'EINVAL') || code === 'EPROTONOSUPPORT')
    return of('unsupported', 'this kernel has no packet queues: load the module nfnetlink_queue');
  return of('other', `queue ${String(queue)} cannot be opened: ${error.message}`);
}
