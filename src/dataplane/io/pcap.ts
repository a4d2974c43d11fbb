/**
 * Capture files: pcap (microseconds, nanoseconds, both byte orders, Kuznetsov's longer records) and pcapng, read and
 * written as a stream; no more than one record is in memory. What the frames hold is frame.ts's business.
 *
 * Sources: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng. An error names file, offset and cause; a file that ends within
 * a record is an error, too, after all whole records were given.
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** The file isn't a capture, or is damaged; the message names the file and where in it. */
export class CaptureError extends Error {
  override readonly name = 'CaptureError';
}

/** One captured frame. The reader makes one object and fills it anew; `bytes[start, end)` holds until the next record. */
export interface CaptureRecord {
  /** Since 1970, UTC, whole; and the rest in nanoseconds. */
  seconds: number;
  nanoseconds: number;
  /** LINKTYPE_* (www.tcpdump.org/linktypes.html). */
  linkType: number;
  bytes: Uint8Array;
  start: number;
  end: number;
  /** Bytes on the wire; `end - start` of them were captured. */
  length: number;
  /** pcapng's epb_flags say that the frame was going out. */
  outbound: boolean;
  /** The file's byte order; LINKTYPE_NULL's family is in the order of the machine that wrote it. */
  littleEndian: boolean;
  /** Where in the file the record begins. */
  offset: number;
}

const PCAP_MICRO = 0xa1b2c3d4;
const PCAP_NANO = 0xa1b23c4d;
/** Alexey Kuznetsov's patch: 8 bytes more a record. */
const PCAP_MODIFIED = 0xa1b2cd34;
const PCAP_HEADER = 24;
const RECORD_HEADER = 16;
const MODIFIED_RECORD_HEADER = 24;

const SECTION_HEADER = 0x0a0d0d0a;
const INTERFACE_DESCRIPTION = 1;
const OLD_PACKET = 2;
const SIMPLE_PACKET = 3;
const ENHANCED_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
/** Blocks that matter beside section headers; all others are passed over. */
const READ: ReadonlySet<number> = new Set([INTERFACE_DESCRIPTION, OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET]);
/** Type and length before a block's body, the length again behind it. */
const BLOCK_HEAD = 8;
const BLOCK_TAIL = 4;
const OPTION_END = 0;
const IF_TSRESOL = 9;
const IF_TSOFFSET = 14;
const EPB_FLAGS = 2;
const EPB_OUTBOUND = 2;

/** No frame is longer; what says so is damage. libpcap's MAXIMUM_SNAPLEN. */
const MAX_FRAME = 262_144;
/** Room for options beside a frame, and for a section header's own. */
const MAX_BLOCK = MAX_FRAME + (1 << 20);
const BUFFER = 1 << 18;

/** pcapng's idea of an interface. */
interface Described {
  linkType: number;
  /** 0 = unlimited. */
  snapLength: number;
  /** Ticks a second. */
  resolution: bigint;
  /** Seconds added to each time. */
  offset: number;
}

/** Reads a capture file from its beginning; `next` until it returns undefined, then `close`. */
export class CaptureReader {
  readonly format: 'pcap' | 'pcapng';
  private buffer = Buffer.alloc(BUFFER);
  private view = new DataView(this.buffer.buffer);
  /** Unread bytes are buffer[at, filled); buffer[0] is the file's byte `base`. */
  private at = 0;
  private filled = 0;
  private base = 0;
  private little = true;
  private readonly record: CaptureRecord;
  // pcap
  private recordHeader = RECORD_HEADER;
  private nanosecondsATick = 1000;
  private linkType = 0;
  private limit = MAX_FRAME;
  // pcapng
  private interfaces: Described[] = [];

  /**
   * @param name what errors call it
   * @throws CaptureError when it can't be read or is no capture
   */
  static open(name: string): CaptureReader {
    let fd: number;
    try {
      fd = openSync(name, 'r');
    } catch (error) {
      throw new CaptureError(`can't read ${name}: ${systemReason(error)}`);
    }
    try {
      return new CaptureReader(fd, name);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  private constructor(
    private readonly fd: number,
    private readonly name: string,
  ) {
    this.record = {
      seconds: 0,
      nanoseconds: 0,
      linkType: 0,
      bytes: this.buffer,
      start: 0,
      end: 0,
      length: 0,
      outbound: false,
      littleEndian: true,
      offset: 0,
    };
    if (!this.have(4)) this.fail(0, this.filled === 0 ? 'it is empty' : 'too short for a capture');
    const magic = this.view.getUint32(this.at, true);
    if (magic === SECTION_HEADER) {
      this.format = 'pcapng';
      return;
    }
    this.format = 'pcap';
    this.readPcapHeader(magic);
  }

  /** The next frame, in the reader's one record; undefined at the file's end. @throws CaptureError */
  next(): CaptureRecord | undefined {
    return this.format === 'pcap' ? this.nextPcap() : this.nextBlock();
  }

  close(): void {
    closeSync(this.fd);
  }

  private readPcapHeader(first: number): void {
    const known = (magic: number): boolean => magic === PCAP_MICRO || magic === PCAP_NANO || magic === PCAP_MODIFIED;
    this.little = known(first);
    const magic = this.u32(this.at);
    if (!known(magic)) {
      const bytes = [0, 1, 2, 3].map((i) => this.buffer[this.at + i]!.toString(16).padStart(2, '0')).join(' ');
      this.fail(0, `it begins with ${bytes}, which is neither pcap nor pcapng`);
    }
    if (!this.have(PCAP_HEADER)) this.fail(0, 'it ends within the header');
    const [major, minor] = [this.u16(this.at + 4), this.u16(this.at + 6)];
    if (major !== 2 || minor < 4) this.fail(4, `version ${major}.${minor} of pcap is not read, 2.4 is`);
    if (magic === PCAP_NANO) this.nanosecondsATick = 1;
    if (magic === PCAP_MODIFIED) this.recordHeader = MODIFIED_RECORD_HEADER;
    this.record.littleEndian = this.little;
    // The bits above are about frame check sequences.
    this.linkType = this.u32(this.at + 20) & 0x03ff_ffff;
    this.at += PCAP_HEADER;
  }

  private nextPcap(): CaptureRecord | undefined {
    const offset = this.base + this.at;
    if (!this.have(1)) return undefined;
    if (!this.have(this.recordHeader)) this.fail(offset, 'it ends within a record');
    const { record } = this;
    const captured = this.u32(this.at + 8);
    if (captured > this.limit)
      this.fail(offset, `a record of ${captured} bytes; no frame is longer than ${this.limit}`);
    record.seconds = this.u32(this.at);
    record.nanoseconds = this.u32(this.at + 4) * this.nanosecondsATick;
    if (record.nanoseconds >= 1e9) {
      record.seconds += Math.floor(record.nanoseconds / 1e9);
      record.nanoseconds %= 1e9;
    }
    record.linkType = this.linkType;
    record.outbound = false;
    const length = this.u32(this.at + 12);
    if (!this.have(this.recordHeader + captured)) this.fail(offset, 'it ends within a record');
    this.give(offset, this.at + this.recordHeader, captured, length);
    this.at += this.recordHeader + captured;
    return record;
  }

  /** Reads blocks up to the next with a frame. */
  private nextBlock(): CaptureRecord | undefined {
    for (;;) {
      const offset = this.base + this.at;
      if (!this.have(1)) return undefined;
      if (!this.have(BLOCK_HEAD + BLOCK_TAIL)) this.fail(offset, 'it ends within a block');
      // A section header reads the same either way; the byte order of its length is only known behind it.
      if (this.u32(this.at) === SECTION_HEADER) this.readByteOrder(offset);
      const type = this.u32(this.at);
      const length = this.u32(this.at + 4);
      if (length < BLOCK_HEAD + BLOCK_TAIL || length % 4 !== 0) this.fail(offset, `a block of ${length} bytes`);
      if (type !== SECTION_HEADER && !READ.has(type)) {
        this.skip(offset, length);
        continue;
      }
      if (length > MAX_BLOCK)
        this.fail(offset, `a block of ${length} bytes; none that matters is longer than ${MAX_BLOCK}`);
      if (!this.have(length)) this.fail(offset, 'it ends within a block');
      const again = this.u32(this.at + length - BLOCK_TAIL);
      if (again !== length) this.fail(offset, `a block of ${length} bytes that ends as one of ${again}`);
      const frame = this.readBlock(type, offset, this.at + BLOCK_HEAD, this.at + length - BLOCK_TAIL);
      this.at += length;
      if (frame) return this.record;
    }
  }

  private readByteOrder(offset: number): void {
    const little = this.view.getUint32(this.at + BLOCK_HEAD, true) === BYTE_ORDER_MAGIC;
    if (!little && this.view.getUint32(this.at + BLOCK_HEAD, false) !== BYTE_ORDER_MAGIC)
      this.fail(offset + BLOCK_HEAD, 'a section without its byte-order magic');
    this.little = little;
    this.record.littleEndian = little;
  }

  /** The block whose body is buffer[at, end); whether it holds a frame, which then is in `record`. */
  private readBlock(type: number, offset: number, at: number, end: number): boolean {
    const need = (bytes: number): void => {
      if (end - at < bytes) this.fail(offset, `a block of type ${type} that is too short`);
    };
    const { record } = this;
    switch (type) {
      case SECTION_HEADER: {
        need(16);
        const major = this.u16(at + 4);
        if (major !== 1) this.fail(offset, `version ${major} of pcapng is not read, 1 is`);
        this.interfaces = [];
        return false;
      }
      case INTERFACE_DESCRIPTION:
        need(8);
        this.interfaces.push(this.describe(offset, at, end));
        return false;
      case SIMPLE_PACKET: {
        need(4);
        const { linkType, snapLength } = this.described(0, offset);
        const length = this.u32(at);
        const captured = Math.min(length, snapLength === 0 ? length : snapLength);
        if (captured > end - at - 4) this.fail(offset, `a frame of ${captured} bytes in a shorter block`);
        // It has no time: it keeps that of the frame before.
        record.linkType = linkType;
        record.outbound = false;
        this.give(offset, at + 4, captured, length);
        return true;
      }
      default: {
        need(20);
        const number = type === ENHANCED_PACKET ? this.u32(at) : this.u16(at);
        const { linkType, resolution, offset: seconds } = this.described(number, offset);
        const captured = this.u32(at + 12);
        if (captured > end - at - 20) this.fail(offset, `a frame of ${captured} bytes in a shorter block`);
        const ticks = (BigInt(this.u32(at + 4)) << 32n) | BigInt(this.u32(at + 8));
        record.seconds = Number(ticks / resolution) + seconds;
        record.nanoseconds = Number(((ticks % resolution) * 1_000_000_000n) / resolution);
        record.linkType = linkType;
        const flags = this.option(at + 20 + pad(captured), end, EPB_FLAGS, 4);
        record.outbound = flags !== 0 && (this.u32(flags) & 3) === EPB_OUTBOUND;
        this.give(offset, at + 20, captured, this.u32(at + 16));
        return true;
      }
    }
  }

  private described(number: number, offset: number): Described {
    const found = this.interfaces[number];
    if (found === undefined) this.fail(offset, `a frame of interface ${number}, which no block before it describes`);
    return found;
  }

  private describe(offset: number, at: number, end: number): Described {
    const resolution = this.option(at + 8, end, IF_TSRESOL, 1);
    const shift = this.option(at + 8, end, IF_TSOFFSET, 8);
    const code = resolution === 0 ? 6 : this.buffer[resolution]!;
    const exponent = code & 0x7f;
    // 2⁻⁶³ and 10⁻¹⁹ of a second are the finest whose second still has a number of 64 bits.
    if (exponent > ((code & 0x80) !== 0 ? 63 : 19)) this.fail(offset, `an interface whose if_tsresol is ${code}`);
    return {
      linkType: this.u16(at),
      snapLength: this.u32(at + 4),
      resolution: ((code & 0x80) !== 0 ? 2n : 10n) ** BigInt(exponent),
      offset: shift === 0 ? 0 : Number(this.view.getBigInt64(shift, this.little)),
    };
  }

  /** Where the value of option `code` (of `length` bytes) begins among the options in buffer[at, end); 0 = it isn't there. */
  private option(at: number, end: number, code: number, length: number): number {
    while (end - at >= 4) {
      const found = this.u16(at);
      const size = this.u16(at + 2);
      if (found === OPTION_END || at + 4 + size > end) return 0;
      if (found === code && size === length) return at + 4;
      at += 4 + pad(size);
    }
    return 0;
  }

  private give(offset: number, start: number, captured: number, length: number): void {
    const { record } = this;
    record.offset = offset;
    record.bytes = this.buffer;
    record.start = start;
    record.end = start + captured;
    record.length = Math.max(length, captured);
  }

  private u16(at: number): number {
    return this.view.getUint16(at, this.little);
  }
  private u32(at: number): number {
    return this.view.getUint32(at, this.little);
  }

  /** Sees to it that `count` unread bytes are in the buffer, from `at` on; false: the file ends before. */
  private have(count: number): boolean {
    if (this.filled - this.at >= count) return true;
    this.buffer.copyWithin(0, this.at, this.filled);
    this.filled -= this.at;
    this.base += this.at;
    this.at = 0;
    if (count > this.buffer.length) {
      const larger = Buffer.alloc(pad(count) * 2);
      this.buffer.copy(larger, 0, 0, this.filled);
      this.buffer = larger;
      this.view = new DataView(larger.buffer, larger.byteOffset);
    }
    while (this.filled < count) {
      const read = this.read();
      if (read === 0) return false;
      this.filled += read;
    }
    return true;
  }

  private read(): number {
    try {
      return readSync(this.fd, this.buffer, this.filled, this.buffer.length - this.filled, null);
    } catch (error) {
      throw new CaptureError(`can't read ${this.name}: ${systemReason(error)}`);
    }
  }

  /** Passes over a block that need not fit into the buffer. */
  private skip(offset: number, length: number): void {
    let left = length;
    while (left > 0) {
      if (!this.have(1)) this.fail(offset, 'it ends within a block');
      const step = Math.min(left, this.filled - this.at);
      this.at += step;
      left -= step;
    }
  }

  private fail(offset: number, cause: string): never {
    throw new CaptureError(`${this.name}, at byte ${offset}: ${cause}`);
  }
}

export interface CaptureWriterOptions {
  format?: 'pcap' | 'pcapng';
  /** LINKTYPE_*, default 101: packets that begin with their IP header. */
  linkType?: number;
  /** Frames longer than this are cut. Default 262,144. */
  snapLength?: number;
  /** Default nanoseconds. */
  resolution?: 'microseconds' | 'nanoseconds';
}

export const LINKTYPE_RAW = 101;

/** Writes a capture file, little-endian whatever the machine; what is written is on disk after `close`. */
export class CaptureWriter {
  private readonly buffer = Buffer.alloc(BUFFER + MAX_BLOCK);
  private filled = 0;
  private readonly pcapng: boolean;
  private readonly nano: boolean;
  private readonly snapLength: number;

  /** Makes the file anew. @throws CaptureError */
  static create(name: string, options: CaptureWriterOptions = {}): CaptureWriter {
    try {
      return new CaptureWriter(openSync(name, 'w'), name, options);
    } catch (error) {
      if (error instanceof CaptureError) throw error;
      throw new CaptureError(`can't write ${name}: ${systemReason(error)}`);
    }
  }

  private constructor(
    private readonly fd: number,
    private readonly name: string,
    {
      format = 'pcap',
      linkType = LINKTYPE_RAW,
      snapLength = MAX_FRAME,
      resolution = 'nanoseconds',
    }: CaptureWriterOptions,
  ) {
    this.pcapng = format === 'pcapng';
    this.nano = resolution === 'nanoseconds';
    this.snapLength = Math.min(snapLength, MAX_FRAME);
    if (this.pcapng) {
      this.words(SECTION_HEADER, 28, BYTE_ORDER_MAGIC, 1, -1, -1, 28);
      // if_tsresol, one byte and its padding, then the end of options.
      const options = [(1 << 16) | IF_TSRESOL, this.nano ? 9 : 6, OPTION_END];
      this.words(INTERFACE_DESCRIPTION, 32, linkType, this.snapLength, ...options, 32);
    } else {
      this.words(this.nano ? PCAP_NANO : PCAP_MICRO, (4 << 16) | 2, 0, 0, this.snapLength, linkType);
    }
  }

  /** Writes one frame, bytes[start, end); `length` is its length on the wire, where more than that was captured elsewhere. */
  write(
    seconds: number,
    nanoseconds: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    length = end - start,
  ): void {
    const captured = Math.min(end - start, this.snapLength);
    const wire = Math.max(length, end - start);
    const fraction = this.nano ? nanoseconds : Math.floor(nanoseconds / 1000);
    if (this.pcapng) {
      const ticks = BigInt(seconds) * (this.nano ? 1_000_000_000n : 1_000_000n) + BigInt(fraction);
      const block = 32 + pad(captured);
      this.words(ENHANCED_PACKET, block, 0, Number(ticks >> 32n), Number(ticks & 0xffff_ffffn), captured, wire);
      this.bytes(bytes, start, captured);
      this.words(block);
    } else {
      this.words(seconds, fraction, captured, wire);
      this.bytes(bytes, start, captured);
    }
    if (this.filled >= BUFFER) this.flush();
  }

  /** @throws CaptureError when the last bytes can't be written. */
  close(): void {
    this.flush();
    closeSync(this.fd);
  }

  private words(...words: readonly number[]): void {
    for (const word of words) this.filled = this.buffer.writeInt32LE(word | 0, this.filled);
  }

  private bytes(from: Uint8Array, start: number, count: number): void {
    this.buffer.set(from.subarray(start, start + count), this.filled);
    this.filled += count;
    if (!this.pcapng) return;
    const end = this.filled + pad(count) - count;
    this.buffer.fill(0, this.filled, end);
    this.filled = end;
  }

  private flush(): void {
    try {
      for (let done = 0; done < this.filled;) done += writeSync(this.fd, this.buffer, done, this.filled - done);
    } catch (error) {
      throw new CaptureError(`can't write ${this.name}: ${systemReason(error)}`);
    }
    this.filled = 0;
  }
}

/** Blocks and options are padded to 32 bits. */
const pad = (length: number): number => (length + 3) & ~3;

function systemReason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (
    { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'it is a directory', ENOSPC: 'the disk is full' }[
      code ?? ''
    ] ?? message
  );
}
