/**
 * Capture files as a device: frames come in by interface from one or more files, merged by their times, and what leaves is
 * written to a file an interface, with the time of the frame that caused it. hutter is the whole router here.
 *
 * A batch holds one packet, as each has a time of its own: `seconds` and `nanoseconds`, which the caller makes the router's
 * clock. Transport checksums are taken as right, as a network card had verified them. What was captured in part goes on in
 * part; a packet longer than its interface's MTU was put together by the capturing machine and counts as GSO.
 */
import { Hook, Verdict } from '../names.js';
import { setU16, u16, u32, u8 } from '../wire/bytes.js';
import { sealHeader } from '../wire/checksum.js';
import type { Batch } from './batch.js';
import { ChecksumMode, HEADROOM, InFlag, Meta } from './batch.js';
import type { Device, DeviceCapabilities, DeviceStats } from './device.js';
import { Frame, FrameKind } from './frame.js';
import { finishChecksum } from './loopback.js';
import { CaptureError, CaptureReader, type CaptureRecord, type CaptureWriter } from './pcap.js';

/** A capture of what came in by one interface. */
export interface CaptureInput {
  readonly file: string;
  readonly ifindex: number;
  /** Longer packets than this many bytes are GSO's. */
  readonly mtu: number;
  /** VLAN interfaces upon this one: `if0.5` has 5, `if0.5.6` has 5 and 6. Tagged frames of others come in by this one. */
  readonly vlans: ReadonlyMap<string, { ifindex: number; mtu: number }>;
}

/** What came from one file. */
export interface InputTotals {
  readonly file: string;
  readonly ifindex: number;
  /** Frames in the file. */
  frames: number;
  /** Packets that the router got. */
  packets: number;
  bytes: number;
  /** Of these, captured in part. */
  cut: number;
  /** Frames that hold no IPv4 packet. */
  notIpv4: number;
  /** Frames that the capture itself says went out, or were for another host. */
  outgoing: number;
  otherHost: number;
}

/** What left by one interface. */
export interface OutputTotals {
  packets: number;
  bytes: number;
}

/** One file's next frame, and what it is. */
interface Source {
  readonly reader: CaptureReader;
  readonly input: CaptureInput;
  readonly frame: Frame;
  readonly totals: InputTotals;
  record: CaptureRecord | undefined;
}

/** The longest IP header, and the ports and flags behind it. */
const HEAD = 80;

export class CaptureDevice implements Device {
  readonly capabilities: DeviceCapabilities = { name: 'captures', kernelRoutes: false, gso: true };
  readonly stats: DeviceStats = { received: 0, overruns: 0, sendErrors: 0, lastErrno: 0 };
  /** In the order of the inputs. */
  readonly inputs: InputTotals[] = [];
  /** By ifindex. */
  readonly outputs = new Map<number, OutputTotals>();
  /** Of the last packet: its time, the input it came from, and its number there, from 1 as other tools count frames. */
  seconds = 0;
  nanoseconds = 0;
  input = 0;
  number = 0;
  /** The packet's first bytes as they came; `headLength` of them. */
  readonly head = new Uint8Array(HEAD);
  headLength = 0;

  private readonly sources: Source[] = [];
  private sent = 0;

  /**
   * @param writerOf the file of an interface; what leaves by one without a file goes nowhere
   * @throws CaptureError when a file can't be read
   */
  constructor(
    inputs: readonly CaptureInput[],
    private readonly writerOf: (ifindex: number) => CaptureWriter | undefined,
  ) {
    try {
      for (const input of inputs) {
        const { file, ifindex } = input;
        const totals = {
          file,
          ifindex,
          frames: 0,
          packets: 0,
          bytes: 0,
          cut: 0,
          notIpv4: 0,
          outgoing: 0,
          otherHost: 0,
        };
        const source = { reader: CaptureReader.open(file), input, frame: new Frame(), totals, record: undefined };
        this.sources.push(source);
        this.inputs.push(totals);
        this.advance(source);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** The earliest frame's packet; of the same time, the one of the first input. 0: all files are at their end. @throws CaptureError */
  receive(batch: Batch, timeoutMs: number): number {
    void timeoutMs;
    this.sent = 0;
    let first: Source | undefined;
    this.sources.forEach((source, i) => {
      if (source.record === undefined || (first !== undefined && !earlier(source.record, first.record!))) return;
      first = source;
      this.input = i;
    });
    if (first === undefined) return 0;
    this.give(first, batch);
    this.advance(first);
    this.stats.received++;
    return 1;
  }

  /** Writes what the verdicts let go on. */
  send(batch: Batch, count: number): void {
    const { meta, bytes } = batch;
    if (this.sent >= count) return;
    this.sent = count;
    if (meta[Meta.VERDICT] !== Verdict.ACCEPT) return;
    const start = meta[Meta.NEW_OFFSET]!;
    const end = start + meta[Meta.NEW_LENGTH]!;
    const mode = meta[Meta.CHECKSUM_MODE]!;
    // One that was to be finished by a device is finished here; of a packet in part there is nothing to sum.
    if (mode !== ChecksumMode.NONE && (meta[Meta.FLAGS]! & InFlag.CUT) === 0) {
      finishChecksum(bytes, start, end, ChecksumMode.FULL, meta[Meta.CHECKSUM_START]!, meta[Meta.CHECKSUM_FIELD]!);
    }
    this.write(bytes, start, end, meta[Meta.SEND_TO]!);
  }

  inject(bytes: Uint8Array, start: number, end: number, _mark: number, outdev: number): void {
    this.write(bytes, start, end, outdev);
  }

  close(): void {
    for (const { reader } of this.sources.splice(0)) reader.close();
  }

  private write(bytes: Uint8Array, start: number, end: number, outdev: number): void {
    const length = end - start >= 4 ? Math.max(u16(bytes, start + 2), end - start) : end - start;
    const writer = this.writerOf(outdev);
    if (writer === undefined) return;
    writer.write(this.seconds, this.nanoseconds, bytes, start, end, length);
    const totals = this.outputs.get(outdev);
    if (totals === undefined) this.outputs.set(outdev, { packets: 1, bytes: length });
    else {
      totals.packets++;
      totals.bytes += length;
    }
  }

  /** Reads on to the next frame that holds a packet for the router. */
  private advance(source: Source): void {
    const { reader, frame, totals, input } = source;
    for (;;) {
      const record = reader.next();
      source.record = record;
      if (record === undefined) return;
      totals.frames++;
      const { linkType, bytes, start, end } = record;
      let kind = frame.read(linkType, bytes, start, end, record.littleEndian);
      if (kind === FrameKind.IPV4 && record.outbound) kind = FrameKind.OUTGOING;
      switch (kind) {
        case FrameKind.IPV4:
          return;
        case FrameKind.OTHER:
          totals.notIpv4++;
          break;
        case FrameKind.OUTGOING:
          totals.outgoing++;
          break;
        case FrameKind.OTHER_HOST:
          totals.otherHost++;
          break;
        case FrameKind.UNKNOWN_LINK:
          throw new CaptureError(
            `${input.file}, at byte ${record.offset}: frames of link type ${linkType} are not read ` +
              '(Ethernet, Linux cooked, loopback and raw IP are)',
          );
      }
    }
  }

  private give({ record, input, frame, totals }: Source, batch: Batch): void {
    const { meta, bytes, slotSize } = batch;
    const { seconds, nanoseconds, bytes: from, end, length, start } = record!;
    this.seconds = seconds;
    this.nanoseconds = nanoseconds;
    this.number = totals.frames;
    const at = frame.packet;
    const room = slotSize - HEADROOM;
    const captured = Math.min(end - at, room);
    const onWire = length - (at - start);
    bytes.set(from.subarray(at, at + captured), HEADROOM);
    this.headLength = Math.min(captured, HEAD);
    this.head.set(from.subarray(at, at + this.headLength));
    const vlan = frame.vlans.length === 0 ? undefined : input.vlans.get(frame.vlans.join('.'));
    let total = captured >= 4 ? u16(bytes, HEADROOM + 2) : 0;
    // A machine that cuts segments itself has captured a packet of more than 65,535 bytes, or one without a length yet.
    if (total === 0 && captured >= 20 && onWire === captured && onWire <= 0xffff) {
      setU16(bytes, HEADROOM + 2, onWire);
      sealHeader(bytes, HEADROOM, (u8(bytes, HEADROOM) & 15) << 2);
      total = onWire;
    }
    const cut = captured < total && end - start < length;
    const gso = total > (vlan?.mtu ?? input.mtu);
    meta.fill(0);
    meta[Meta.HOOK] = Hook.PREROUTING;
    meta[Meta.OFFSET] = HEADROOM;
    meta[Meta.LENGTH] = captured;
    meta[Meta.INDEV] = vlan?.ifindex ?? input.ifindex;
    meta[Meta.FLAGS] = (cut ? InFlag.CUT : 0) | (gso ? InFlag.GSO : 0);
    meta[Meta.FULL_LENGTH] = cut ? total : captured;
    if (frame.macLength > 0 && frame.mac + 8 <= end) {
      meta[Meta.MAC_LENGTH] = frame.macLength;
      meta[Meta.MAC_HIGH] = u32(from, frame.mac);
      meta[Meta.MAC_LOW] = u32(from, frame.mac + 4) & (frame.macLength >= 8 ? -1 : -1 << (8 * (8 - frame.macLength)));
    }
    totals.packets++;
    totals.bytes += total;
    if (cut) totals.cut++;
  }
}

const earlier = (a: CaptureRecord, b: CaptureRecord): boolean =>
  a.seconds < b.seconds || (a.seconds === b.seconds && a.nanoseconds < b.nanoseconds);
