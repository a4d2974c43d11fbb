/**
 * What the main thread and the workers share, and how they talk: the control block (epochs, acknowledgements), the
 * statistics, the rings, and the messages on a worker's port. The main thread makes all of it; a worker gets it in its
 * WorkerInit (init.ts) and never frees anything.
 *
 * A worker's event loop never turns: it looks at the control block at every batch edge and takes its messages itself
 * (receiveMessageOnPort) when EPOCH has moved. The main thread posts first, then moves EPOCH, then wakes the worker
 * through its eventfd; so a worker that sees the new epoch finds the message.
 */
import { Verdict } from './names.js';

/** Words of the control block, an Int32Array. */
export const enum Control {
  /** Moves with every message posted to the workers. */
  EPOCH = 0,
  /** Moves with every notice about links or addresses: names, MTUs and addresses are read anew. */
  LINK_EPOCH = 1,
  /** Moves with every notice that could change a route: answers about routes are dropped. */
  ROUTE_EPOCH = 2,
  /** What routes are chosen by beside the destination (RoutedBy bits of program/late.ts). */
  ROUTED_BY = 3,
  /** Bits of the mark that routing rules look at. */
  ROUTED_MARKS = 4,
  /** 1: the diversion is there by which packets come a second time. */
  CROSSING = 5,
  WORKERS = 16,
}
/** Words of each worker's part, which begins at WORKERS + number * WORKER_WORDS. */
export const WORKER_WORDS = 16;
export const enum WorkerWord {
  /** EPOCH up to which this worker has taken its messages; the answer to `publish`. */
  ACK = 0,
  /** WorkerState. */
  STATE = 1,
}
export const enum WorkerState {
  STARTING = 0,
  RUNNING = 1,
  STOPPED = 2,
}
export const MAX_WORKERS = 64;
export const CONTROL_WORDS = Control.WORKERS + MAX_WORKERS * WORKER_WORDS;

export const workerWord = (worker: number, word: WorkerWord): number => Control.WORKERS + worker * WORKER_WORDS + word;

/** Why hutter itself (not a rule) dropped or refused something. Names as `status` prints them. */
export const DROP_REASONS = [
  'malformed', // the IP header is impossible
  'martian-source', // a source that no neighbour can have
  'reverse-path', // rp_filter=1 would have dropped it
  'conntrack', // conntrack said drop (a clash, a full table)
  'nat', // no free mapping, or no address to masquerade with
  'cut', // the queue cut the packet and it would have to go back rewritten
  'second-crossing', // it had to come a second time and couldn't, or nobody knew it then
  'no-route', // no way there, and its sender has been told so often enough
  'helper', // an announcement (ftp's, say) that can't be carried out
  'answered', // an ICMP error of hutter's own told the sender why
  // Where hutter is the whole router:
  'not-ipv4', // another version of IP
  'truncated', // shorter than its header says
  'header-checksum', // the IP header's sum is wrong
  'martian-destination', // an address that nobody can be reached by
  'source-route', // an option that names the way
  'fragment', // it contradicts or repeats another fragment, or the datagram became too long
  'fragment-timeout', // a datagram's last fragment didn't come in time
  'fragment-store', // no room to keep a fragment
  'too-long', // the way out takes less than IPv4's least, 68 bytes
  'blackhole', // its route says so
  'multicast', // for a group; nothing forwards to many
  'unanswered', // for the router itself, which has no answer to it
] as const;
export const enum DropReason {
  MALFORMED = 0,
  MARTIAN_SOURCE = 1,
  REVERSE_PATH = 2,
  CONNTRACK = 3,
  NAT = 4,
  CUT = 5,
  SECOND_CROSSING = 6,
  NO_ROUTE = 7,
  HELPER = 8,
  ANSWERED = 9,
  NOT_IPV4 = 10,
  TRUNCATED = 11,
  HEADER_CHECKSUM = 12,
  MARTIAN_DESTINATION = 13,
  SOURCE_ROUTE = 14,
  FRAGMENT = 15,
  FRAGMENT_TIMEOUT = 16,
  FRAGMENT_STORE = 17,
  TOO_LONG = 18,
  BLACKHOLE = 19,
  MULTICAST = 20,
  UNANSWERED = 21,
}

/** Running totals of one worker, a Float64Array in shared memory (exact up to 2^53), written by that worker alone. */
export const enum Stat {
  /** Packets that met a hook: PACKETS + Hook. One that is forwarded counts in PREROUTING, FORWARD and POSTROUTING. */
  PACKETS = 0,
  BYTES = 5,
  ACCEPTED = 10,
  /** Dropped by a rule or policy. */
  DROPPED = 11,
  CHANGED = 12,
  BATCHES = 13,
  /** Times the kernel said ENOBUFS. */
  OVERRUNS = 14,
  SEND_ERRORS = 15,
  /** Questions put to the kernel about routes. */
  ROUTE_QUESTIONS = 16,
  /** Packets that hutter itself sent (REJECT). */
  ANSWERS = 17,
  ANSWERS_FAILED = 18,
  /** LOG records that found no room in the ring. */
  LOG_LOST = 19,
  /** Packets that came a second time. */
  CROSSED_AGAIN = 20,
  /** DROPS + DropReason. */
  DROPS = 21,
  /** Milliseconds between two batches at most, the first of them full: how long packets that waited had to wait. */
  LONGEST_BATCH = 48,
}
export const STAT_COUNT = 64;

/** One program with all that it names. */
export interface Publication {
  /** Over a SharedArrayBuffer; verified. */
  words: Int32Array;
  /** State regions by number. */
  regions: Int32Array[];
  /** This worker's counter slab; when it grew, the worker copies its old one into it before use. */
  counters: Float64Array;
}

export type WorkerMessage =
  | { type: 'publish'; publication: Publication }
  | { type: 'settings'; strictReversePath: number[] }
  /** An interface is gone (TUN): its descriptor is let go of. The routes by it went before. */
  | { type: 'gone'; ifindex: number }
  /** Nothing but to be acknowledged: what was taken out of shared memory before is read no more. */
  | { type: 'edge' }
  | { type: 'stop' }
  /** For tests: throw, while holding the lock of a connection (−1 = of none). */
  | { type: 'fail'; entry: number };

/**
 * A ring of records from one thread (a worker) to one other (the main thread). A record is a word of length and that
 * many bytes, padded to words; a record that doesn't fit is lost and counted by the writer. HEAD is written by the
 * writer, TAIL by the reader, each after the bytes it speaks of, so that neither sees what isn't there.
 */
export class Ring {
  private static readonly HEAD = 0;
  private static readonly TAIL = 16;
  private static readonly DATA = 32;
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  private readonly capacity: number;
  private position = 0;

  /** `capacity` in bytes, a power of two. */
  static create(capacity: number): SharedArrayBuffer {
    return new SharedArrayBuffer(Ring.DATA * 4 + capacity);
  }

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.bytes = new Uint8Array(buffer, Ring.DATA * 4);
    this.capacity = this.bytes.length;
  }

  /** Begins a record of exactly `length` bytes; false when there is no room. Follow with `put*`, then `commit`. */
  begin(length: number): boolean {
    const head = this.words[Ring.HEAD]!;
    const used = (head - Atomics.load(this.words, Ring.TAIL)) >>> 0;
    if (used + 4 + ((length + 3) & ~3) > this.capacity) return false;
    this.position = head;
    this.putWord(length);
    return true;
  }

  /** Little-endian. */
  putWord(value: number): void {
    this.putByte(value);
    this.putByte(value >> 8);
    this.putByte(value >> 16);
    this.putByte(value >> 24);
  }

  putByte(value: number): void {
    this.bytes[this.position & (this.capacity - 1)] = value;
    this.position = (this.position + 1) | 0;
  }

  putBytes(from: Uint8Array, start: number, end: number): void {
    for (let i = start; i < end; i++) this.putByte(from[i]!);
  }

  commit(): void {
    Atomics.store(this.words, Ring.HEAD, (this.position + 3) & ~3);
  }

  /** The reader's side: all records that are there, each a copy. */
  drain(): Uint8Array[] {
    const records: Uint8Array[] = [];
    const head = Atomics.load(this.words, Ring.HEAD);
    let tail = this.words[Ring.TAIL]!;
    const at = (i: number): number => this.bytes[i & (this.capacity - 1)]!;
    while (tail !== head) {
      const length = at(tail) | (at(tail + 1) << 8) | (at(tail + 2) << 16) | (at(tail + 3) << 24);
      records.push(this.copy(tail + 4, length));
      tail = (tail + 4 + ((length + 3) & ~3)) | 0;
    }
    Atomics.store(this.words, Ring.TAIL, tail);
    return records;
  }

  private copy(from: number, length: number): Uint8Array {
    const record = new Uint8Array(length);
    const start = from & (this.capacity - 1);
    const first = Math.min(length, this.capacity - start);
    record.set(this.bytes.subarray(start, start + first));
    record.set(this.bytes.subarray(0, length - first), first);
    return record;
  }
}

/** Why a packet is told of. */
export const enum LogKind {
  /** -j LOG */
  LOG = 0,
  /** -j NFLOG */
  NFLOG = 1,
  /** -j TRACE: it matched a rule, or met a policy. */
  TRACE = 2,
  /** -j TRACE: it came to the end of a user's chain whose last rule is the one named. */
  TRACE_RETURN = 3,
}

/**
 * A record in the ring: words, then the prefix's bytes, then the packet's first ones. A record needs no program to be
 * read; a trace's rule is known by its counter slot.
 */
export const enum LogRecord {
  KIND = 0,
  /** LOG's level, NFLOG's group, a trace's counter slot. */
  NUMBER = 1,
  /** LOG's --log-tcp-sequence … bits (XT_LOG_*). */
  OPTIONS = 2,
  HOOK = 3,
  INDEV = 4,
  OUTDEV = 5,
  MARK = 6,
  PHYSINDEV = 7,
  PHYSOUTDEV = 8,
  /** −1 = unknown. */
  UID = 9,
  GID = 10,
  MAC_LENGTH = 11,
  MAC_HIGH = 12,
  MAC_LOW = 13,
  PREFIX_LENGTH = 14,
  WORDS = 15,
}
/** Bytes of the packet that a LOG record keeps: the longest IP header, the longest TCP header, an ICMP error's quote. */
export const LOG_SNAP = 192;

/** Counts a packet that is dropped, in a worker's totals. */
export function countDrop(stats: Float64Array, reason: DropReason): void {
  stats[Stat.DROPS + reason]! += 1;
}

export function drop(stats: Float64Array, reason: DropReason): Verdict {
  countDrop(stats, reason);
  return Verdict.DROP;
}
