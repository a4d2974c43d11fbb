/**
 * A device in memory, for tests and benches: frames go in with what a queue would say of them, verdicts and packets come
 * out. It finishes transport checksums as the queue does. Nothing is allocated a packet, so that the heap can be watched
 * over millions of them.
 *
 *     give(frame, facts) … → receive → [the pipeline] → send → onPacket(batch, index)
 *
 * With `repeat` the given frames come round and round, which makes an endless supply.
 */
import { Proto, Verdict } from '../names.js';
import { pseudoSum, sum } from '../wire/checksum.js';
import { setU16, setU32, u32, u8 } from '../wire/bytes.js';
import { ChecksumMode, HEADROOM, InFlag, Meta, META_WORDS, OutFlag } from './batch.js';
import type { Batch } from './batch.js';
import { DeviceClosed } from './device.js';
import type { Device, DeviceCapabilities, DeviceStats } from './device.js';

/** What the queue would say of a frame. All default to 0. */
export interface FrameFacts {
  hook?: number;
  indev?: number;
  outdev?: number;
  mark?: number;
  /** InFlag bits. */
  flags?: number;
  uid?: number;
  gid?: number;
  physindev?: number;
  mac?: Uint8Array;
  /** With InFlag.GSO: bytes of payload in each segment. */
  gsoSize?: number;
  /** With InFlag.CUT: the length before the cut. */
  fullLength?: number;
}

export interface LoopbackOptions {
  /** Whether frames come again after the last one. Default false. */
  repeat?: boolean;
  kernelRoutes?: boolean;
}

export interface LoopbackStats extends DeviceStats {
  accepted: number;
  dropped: number;
  stolen: number;
  queued: number;
  /** Accepted with payload. */
  rewritten: number;
  injected: number;
}

export class LoopbackDevice implements Device {
  readonly capabilities: DeviceCapabilities;
  readonly stats: LoopbackStats = {
    received: 0,
    overruns: 0,
    sendErrors: 0,
    lastErrno: 0,
    accepted: 0,
    dropped: 0,
    stolen: 0,
    queued: 0,
    rewritten: 0,
    injected: 0,
  };
  /** Called for each packet of `send`, after its checksum is finished; `record` is its place in batch.meta. */
  onPacket: ((batch: Batch, record: number) => void) | undefined;
  /** Called for each packet of `inject`. */
  onInject: ((bytes: Uint8Array, start: number, end: number, mark: number, outdev: number) => void) | undefined;

  private readonly frames: Uint8Array[] = [];
  /** The meta record of each frame, META_WORDS words each. */
  private facts = new Int32Array(64 * META_WORDS);
  private next = 0;
  private nextId = 1;
  /** Packets of the batch that have been sent. */
  private sent = 0;
  private readonly repeat: boolean;
  private closed = false;

  constructor(options: LoopbackOptions = {}) {
    this.repeat = options.repeat ?? false;
    this.capabilities = { name: 'loopback', kernelRoutes: options.kernelRoutes ?? true, gso: true };
  }

  /** Adds a frame, an IPv4 packet without link header. The bytes are copied at each `receive`, not here. */
  give(frame: Uint8Array, facts: FrameFacts = {}): void {
    const o = this.frames.length * META_WORDS;
    if (o === this.facts.length) {
      const more = new Int32Array(this.facts.length * 2);
      more.set(this.facts);
      this.facts = more;
    }
    const f = this.facts;
    f[o + Meta.HOOK] = facts.hook ?? 0;
    f[o + Meta.LENGTH] = frame.length;
    f[o + Meta.INDEV] = facts.indev ?? 0;
    f[o + Meta.OUTDEV] = facts.outdev ?? 0;
    f[o + Meta.MARK] = facts.mark ?? 0;
    f[o + Meta.FLAGS] =
      (facts.flags ?? 0) |
      (facts.uid === undefined ? 0 : InFlag.UID) |
      (facts.gid === undefined ? 0 : InFlag.GID) |
      (facts.fullLength === undefined || facts.fullLength === frame.length ? 0 : InFlag.CUT);
    f[o + Meta.PHYSINDEV] = facts.physindev ?? 0;
    f[o + Meta.UID] = facts.uid ?? 0;
    f[o + Meta.GID] = facts.gid ?? 0;
    f[o + Meta.GSO_SIZE] = facts.gsoSize ?? 0;
    f[o + Meta.FULL_LENGTH] = facts.fullLength ?? frame.length;
    if (facts.mac) {
      const padded = new Uint8Array(8);
      padded.set(facts.mac);
      f[o + Meta.MAC_LENGTH] = facts.mac.length;
      f[o + Meta.MAC_HIGH] = u32(padded, 0);
      f[o + Meta.MAC_LOW] = u32(padded, 4);
    }
    this.frames.push(frame);
  }

  /** Forgets all frames given so far. */
  clear(): void {
    this.frames.length = 0;
    this.facts.fill(0);
    this.next = 0;
  }

  /** Never waits: a timeout is over at once. A frame longer than the slot's room is cut, as the queue would. */
  receive(batch: Batch, timeoutMs: number): number {
    void timeoutMs;
    if (this.closed) throw new DeviceClosed('the loopback device is closed');
    this.sent = 0;
    const { meta, bytes, slotSize, capacity } = batch;
    const room = slotSize - HEADROOM;
    const available = this.frames.length;
    let n = 0;
    while (n < capacity) {
      if (this.next === available) {
        if (!this.repeat || available === 0) break;
        this.next = 0;
      }
      const frame = this.frames[this.next]!;
      const from = this.next++ * META_WORDS;
      const to = n * META_WORDS;
      const offset = n * slotSize + HEADROOM;
      for (let w = 0; w < META_WORDS; w++) meta[to + w] = this.facts[from + w]!;
      meta[to + Meta.ID] = this.nextId;
      this.nextId = (this.nextId + 1) | 0;
      meta[to + Meta.OFFSET] = offset;
      if (frame.length > room) {
        meta[to + Meta.LENGTH] = room;
        meta[to + Meta.FLAGS] = meta[to + Meta.FLAGS]! | InFlag.CUT;
        copy(frame, room, bytes, offset);
      } else {
        copy(frame, frame.length, bytes, offset);
      }
      n++;
    }
    this.stats.received += n;
    return n;
  }

  send(batch: Batch, count: number): void {
    const { meta, bytes } = batch;
    const stats = this.stats;
    const from = this.capabilities.kernelRoutes ? 0 : this.sent;
    this.sent = count;
    for (let i = from; i < count; i++) {
      const r = i * META_WORDS;
      switch (meta[r + Meta.VERDICT]) {
        case Verdict.ACCEPT:
        case Verdict.QUEUE:
          if ((meta[r + Meta.OUT_FLAGS]! & OutFlag.PAYLOAD) !== 0) {
            if (!finish(bytes, meta, r)) {
              meta[r + Meta.VERDICT] = Verdict.DROP;
              stats.sendErrors++;
              stats.lastErrno = EMSGSIZE;
              stats.dropped++;
              break;
            }
            stats.rewritten++;
          }
          if (meta[r + Meta.VERDICT] === Verdict.QUEUE) stats.queued++;
          else stats.accepted++;
          break;
        case Verdict.STOLEN:
          stats.stolen++;
          break;
        default:
          stats.dropped++;
      }
      if (this.onPacket) this.onPacket(batch, r);
    }
  }

  inject(bytes: Uint8Array, start: number, end: number, mark: number, outdev: number): void {
    this.stats.injected++;
    if (this.onInject) this.onInject(bytes, start, end, mark, outdev);
  }

  close(): void {
    this.closed = true;
  }
}

const EMSGSIZE = 90;

/** `set` on a subarray would make a view a packet. */
function copy(from: Uint8Array, length: number, to: Uint8Array, at: number): void {
  for (let i = 0; i < length; i++) to[at + i] = from[i]!;
}

/** Finishes the transport checksum by CHECKSUM_MODE, as native/checksum.c does. False: the packet can't go back. */
function finish(bytes: Uint8Array, meta: Int32Array, r: number): boolean {
  const ip = meta[r + Meta.NEW_OFFSET]!;
  const end = ip + meta[r + Meta.NEW_LENGTH]!;
  const mode = meta[r + Meta.CHECKSUM_MODE]!;
  const start = meta[r + Meta.CHECKSUM_START]!;
  const field = meta[r + Meta.CHECKSUM_FIELD]!;
  if ((meta[r + Meta.FLAGS]! & InFlag.CUT) !== 0 || ip < 0 || end <= ip || end - ip > 65_531 || end > bytes.length)
    return false;
  if (mode === ChecksumMode.NONE) return true;
  return finishChecksum(bytes, ip, end, mode, start, field);
}

/**
 * Finishes the transport checksum of the IPv4 packet bytes[ip, end), whose transport header begins at `start` and has
 * its checksum at `field`: ICMP without a pseudo-header, SCTP by CRC32c (RFC 9260 appendix A), all others as TCP and
 * UDP. The slow twin of native/checksum.c. False: the offsets are impossible, and nothing was written.
 */
export function finishChecksum(
  bytes: Uint8Array,
  ip: number,
  end: number,
  mode: ChecksumMode,
  start: number,
  field: number,
): boolean {
  if (end - ip < 20) return false;
  const protocol = u8(bytes, ip + 9);
  const width = protocol === Proto.SCTP ? 4 : 2;
  if (start < ip + 20 || start > end || field < start || field + width > end) return false;
  if (protocol === Proto.SCTP) {
    setU32(bytes, field, 0);
    const crc = crc32c(bytes, start, end);
    for (let i = 0; i < 4; i++) bytes[field + i] = crc >>> (8 * i);
    return true;
  }
  const pseudo =
    protocol === Proto.ICMP ? 0 : pseudoSum(u32(bytes, ip + 12), u32(bytes, ip + 16), protocol, end - start);
  if (mode === ChecksumMode.PSEUDO) {
    setU16(bytes, field, pseudo);
    return true;
  }
  setU16(bytes, field, 0);
  const checksum = ~sum(bytes, start, end, pseudo) & 0xffff;
  setU16(bytes, field, checksum === 0 && protocol === Proto.UDP ? 0xffff : checksum);
  return true;
}

/** CRC32c (Castagnoli) of bytes[start, end), bit by bit. */
function crc32c(bytes: Uint8Array, start: number, end: number): number {
  let crc = -1;
  for (let o = start; o < end; o++) {
    crc ^= u8(bytes, o);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (-(crc & 1) & 0x82f6_3b78);
  }
  return ~crc;
}
