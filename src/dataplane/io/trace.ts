/**
 * A device that writes a line for each packet another device receives, each verdict it is given, and each packet it is
 * asked to send. It makes strings: for looking, not for speed.
 *
 *     > 17 PREROUTING in 3 out 0 mark 0x0 len 60 proto 6 10.7.1.2 > 10.7.2.2
 *     < 17 ACCEPT mark 0x75 payload 60
 */
import { HOOK_NAMES } from '../names.js';
import { u32, u8 } from '../wire/bytes.js';
import type { Batch } from './batch.js';
import { InFlag, Meta, META_WORDS, OutFlag } from './batch.js';
import type { Device, DeviceCapabilities, DeviceStats } from './device.js';

const VERDICTS = ['DROP', 'ACCEPT', 'STOLEN', 'QUEUE'];
const FLAGS = [
  [InFlag.CSUM_PARTIAL, 'partial'],
  [InFlag.GSO, 'gso'],
  [InFlag.CSUM_NOT_VERIFIED, 'unverified'],
  [InFlag.CUT, 'cut'],
] as const;

export class TraceDevice implements Device {
  constructor(
    private readonly device: Device,
    private readonly write: (line: string) => void,
  ) {}

  get capabilities(): DeviceCapabilities {
    return this.device.capabilities;
  }
  get stats(): DeviceStats {
    return this.device.stats;
  }

  receive(batch: Batch, timeoutMs: number): number {
    const n = this.device.receive(batch, timeoutMs);
    for (let i = 0; i < n; i++) {
      const r = i * META_WORDS;
      const word = (meta: Meta): number => batch.meta[r + meta]!;
      const flags = FLAGS.filter(([bit]) => (word(Meta.FLAGS) & bit) !== 0).map(([, name]) => ` ${name}`);
      this.write(
        `> ${word(Meta.ID) >>> 0} ${HOOK_NAMES[word(Meta.HOOK)] ?? word(Meta.HOOK)} in ${word(Meta.INDEV)} ` +
          `out ${word(Meta.OUTDEV)} mark ${hex(word(Meta.MARK))} len ${word(Meta.FULL_LENGTH)}${flags.join('')} ` +
          packet(batch.bytes, word(Meta.OFFSET), word(Meta.LENGTH)),
      );
    }
    return n;
  }

  send(batch: Batch, count: number): void {
    for (let i = 0; i < count; i++) {
      const r = i * META_WORDS;
      const word = (meta: Meta): number => batch.meta[r + meta]!;
      const mark = (word(Meta.OUT_FLAGS) & OutFlag.MARK) !== 0 ? ` mark ${hex(word(Meta.NEW_MARK))}` : '';
      const payload = (word(Meta.OUT_FLAGS) & OutFlag.PAYLOAD) !== 0 ? ` payload ${word(Meta.NEW_LENGTH)}` : '';
      this.write(`< ${word(Meta.ID) >>> 0} ${VERDICTS[word(Meta.VERDICT)] ?? word(Meta.VERDICT)}${mark}${payload}`);
    }
    this.device.send(batch, count);
  }

  inject(bytes: Uint8Array, start: number, end: number, mark: number, outdev: number, via: number): void {
    this.write(`< inject mark ${hex(mark)} len ${end - start} ${packet(bytes, start, end - start)}`);
    this.device.inject(bytes, start, end, mark, outdev, via);
  }

  close(): void {
    this.device.close();
  }
}

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
const address = (value: number): string =>
  `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;

function packet(bytes: Uint8Array, offset: number, length: number): string {
  if (length < 20) return 'no IPv4 header';
  const from = address(u32(bytes, offset + 12));
  return `proto ${u8(bytes, offset + 9)} ${from} > ${address(u32(bytes, offset + 16))}`;
}
