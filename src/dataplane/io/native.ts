/**
 * The native addon, typed. It is plumbing: descriptors, batches, errno; no rules. Each thread loads its own instance, and
 * a handle belongs to the thread that opened it; descriptors close with `close`, with garbage collection, or with the
 * thread. Functions that fail throw an Error with `code` ("EPERM"), `errno` and `syscall`; see `NativeError`.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TurnFunction } from './turn.js';

declare const kind: unique symbol;
/** An open descriptor of the addon. */
export interface Handle<Kind extends string> {
  readonly [kind]: Kind;
}
export type NfqueueHandle = Handle<'nfqueue'>;
export type WakerHandle = Handle<'waker'>;
export type InjectHandle = Handle<'inject'>;
export type RtnetlinkHandle = Handle<'rtnetlink'>;
export type MonitorHandle = Handle<'monitor'>;
export type TunHandle = Handle<'tun'>;
export type TunPortsHandle = Handle<'tun-ports'>;
export type NetfilterHandle = Handle<'netfilter'>;

/** What the addon throws. */
export interface NativeError extends Error {
  readonly code: string;
  /** Positive errno. */
  readonly errno: number;
  /** The system call or netlink request that failed. */
  readonly syscall: string;
}

export interface Native {
  close(handle: Handle<string>): void;

  /** Binds queue `queue` and starts copying packets; `capacity` is the longest batch that will be received. */
  nfqueueOpen(
    queue: number,
    copyRange: number,
    maxLength: number,
    flags: number,
    wakeFd: number,
    capacity: number,
  ): NfqueueHandle;
  /** The queue's turn with this batch (io/turn.ts), whose totals are nfqueue.c's STAT_*; it replaces the one lent before. */
  nfqueueLend(
    handle: NfqueueHandle,
    bytes: Uint8Array,
    meta: Int32Array,
    words: Float64Array,
    slotSize: number,
  ): TurnFunction;
  /** How many bytes of each packet are copied from now on. @throws with errno */
  nfqueueCopy(handle: NfqueueHandle, bytes: number): void;
  nfqueueProbe(handle: NfqueueHandle): void;
  nfqueueUnbind(handle: NfqueueHandle): void;

  wakerOpen(): WakerHandle;
  wakerFd(handle: WakerHandle): number;
  wakerWake(handle: WakerHandle): void;
  /** 1 when woken, 0 after the timeout. */
  wakerWait(fd: number, timeoutMs: number): number;

  injectOpen(): InjectHandle;
  /** `via`: next hop, 0 = the packet's destination; with it `oif`: ifindex, 0 = any. 0 or a positive errno. */
  injectSend(
    handle: InjectHandle,
    bytes: Uint8Array,
    start: number,
    end: number,
    mark: number,
    via: number,
    oif: number,
  ): number;

  /** `namespace`: a file such as /run/netns/NAME, '' = this thread's own. */
  rtnetlinkOpen(namespace: string): RtnetlinkHandle;
  /** Sends one request, header included; 0 or the errno it is answered with. */
  rtnetlinkRequest(handle: RtnetlinkHandle, message: Uint8Array): number;
  /** The messages that answer a dump request of `type` (RTM_GET…) for an address family. */
  rtnetlinkDump(handle: RtnetlinkHandle, type: number, family: number): Uint8Array;
  /** `question` and `answer` are the words of route/routes.ts; nothing is allocated. */
  rtnetlinkRouteGet(handle: RtnetlinkHandle, question: Int32Array, answer: Int32Array): void;
  monitorOpen(): MonitorHandle;
  monitorDrain(handle: MonitorHandle): number;
  monitorWatch(handle: MonitorHandle, callback: (notices: number) => void): void;

  /**
   * Makes the TUN interface `name` with so many queues in a namespace; it goes when the handle is closed. `mask`: the CPUs that take
   * over what is written to it, as in rps_cpus; '' = none.
   */
  tunOpen(namespace: string, name: string, queues: number, mask: string): TunHandle;
  /** Descriptor of a queue, for `tunAttach` in any thread; the handle keeps it. */
  tunFd(handle: TunHandle, queue: number): number;
  /** A worker's descriptors: `ports` holds descriptor, ifindex and Hook of each interface. */
  tunAttach(ports: Int32Array, wakeFd: number): TunPortsHandle;
  /** The interfaces' turn with this batch (io/turn.ts), whose totals are tun.c's STAT_*; it replaces the one lent before. */
  tunLend(
    handle: TunPortsHandle,
    bytes: Uint8Array,
    meta: Int32Array,
    words: Float64Array,
    slotSize: number,
  ): TurnFunction;
  /** Writes the accepted packets among records [from, to) of a batch that isn't lent. */
  tunSend(handle: TunPortsHandle, bytes: Uint8Array, meta: Int32Array, from: number, to: number): void;
  /** Writes the finished packet bytes[start, end) to an interface. */
  tunInject(handle: TunPortsHandle, bytes: Uint8Array, start: number, end: number, ifindex: number): void;
  /** For each port in `tunAttach`'s order 0, or the errno it ended with. */
  tunStates(handle: TunPortsHandle, out: Int32Array): void;
  /** Nothing more is read from or written to this interface. */
  tunLeave(handle: TunPortsHandle, ifindex: number): void;

  /** @throws with errno */
  netfilterOpen(): NetfilterHandle;
  /** Sends a netlink message to the socket with this address, an unsigned number; 0 or a positive errno. */
  netfilterSend(handle: NetfilterHandle, portid: number, message: Uint8Array): number;
  /**
   * Asks the kernel; the request's sequence number is filled in. Length of the answer, which is copied into `answer` as far as it has
   * room; 0: acknowledged; else −error, an errno or one of the subsystem's own.
   */
  netfilterAsk(handle: NetfilterHandle, request: Uint8Array, length: number, answer: Uint8Array): number;

  /** Name of an interface in this thread's namespace, '' when there is none. */
  ifName(ifindex: number): string;

  /** The fast twin of `finishChecksum` in loopback.ts. */
  checksumFinish(bytes: Uint8Array, ip: number, end: number, mode: number, start: number, field: number): boolean;

  /** Asks the kernel for huge pages below this memory, as far as it covers whole ones. Bytes before the first of these. */
  adviseHuge(bytes: Uint8Array): number;
}

let loaded: Native | undefined;

/**
 * The addon, loaded on first use. It lies in build/Release of the package, which is above this module both in dist/src
 * and in the bundles of dist/bin.
 * @throws Error that says what to do when it isn't built, or was built for another Node.
 */
export function loadNative(): Native {
  if (loaded) return loaded;
  const here = path.dirname(fileURLToPath(import.meta.url));
  let folder = here;
  while (!existsSync(path.join(folder, 'package.json')) && path.dirname(folder) !== folder)
    folder = path.dirname(folder);
  const file = path.join(folder, 'build', 'Release', 'hutter.node');
  if (!existsSync(file))
    throw new Error(`the native addon is not built (${file} is missing): run "npm run build:native" in ${folder}`);
  try {
    loaded = createRequire(import.meta.url)(file) as Native;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`the native addon ${file} cannot be loaded (${reason}): run "npm rebuild" in ${folder}`, { cause });
  }
  return loaded;
}

const HUGE_PAGE = 2 << 20;

/** Zeroed memory in huge pages of its own, where the kernel has them. */
export function hugeBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length + 2 * HUGE_PAGE);
  const from = loadNative().adviseHuge(bytes);
  return bytes.subarray(from, from + length);
}

/** Whether an error came from a system call in the addon. */
export const isNativeError = (error: unknown): error is NativeError => error instanceof Error && 'syscall' in error;
