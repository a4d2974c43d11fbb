/**
 * The devices that need no kernel, and the two halves of the native boundary that must agree: the batch record in C and
 * TypeScript, and the checksum finished by C and by its slow twin.
 */
import t from 'tap';
import { readFileSync } from 'node:fs';
import { Verdict } from '../../src/dataplane/names.js';
import { Batch, ChecksumMode, HEADROOM, InFlag, Meta, META_WORDS, OutFlag } from '../../src/dataplane/io/batch.js';
import * as batchModule from '../../src/dataplane/io/batch.js';
import { FaultDevice, Random } from '../../src/dataplane/io/fault.js';
import { finishChecksum, LoopbackDevice } from '../../src/dataplane/io/loopback.js';
import { hugeBytes, loadNative } from '../../src/dataplane/io/native.js';
import { TraceDevice } from '../../src/dataplane/io/trace.js';
import { DeviceClosed } from '../../src/dataplane/io/device.js';
import { u16, u32 } from '../../src/dataplane/wire/bytes.js';
import { transportChecksumOk } from '../../src/dataplane/wire/checksum.js';

const seed = Number(process.env['SEED'] ?? Date.now() & 0xffff);

/** An IPv4 packet of `length` bytes, 10.0.0.1 to 10.0.0.2, with the bytes after the header drawn from `random`. */
function frame(length: number, protocol = 17, random = new Random(1)): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 20; i < length; i++) bytes[i] = random.int(256);
  bytes.set([0x45, 0, length >> 8, length, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
  return bytes;
}

t.test('batch.h holds the numbers of batch.ts', (t) => {
  const header = readFileSync('native/batch.h', 'utf8');
  const numbers = new Map<string, number>();
  for (const [, name, value, shift] of header.matchAll(/^ {2}([A-Z_]+) = (\d+)(?: << (\d+))?,/gm))
    numbers.set(name!, Number(value) << Number(shift ?? 0));
  const module = batchModule as unknown as Record<string, number | Record<string, number | string>>;
  const expected = new Map([
    ['META_WORDS', META_WORDS],
    ['HEADROOM', HEADROOM],
    ['VERDICT_DROP', Verdict.DROP],
    ['VERDICT_ACCEPT', Verdict.ACCEPT],
    ['VERDICT_STOLEN', Verdict.STOLEN],
    ['VERDICT_QUEUE', Verdict.QUEUE],
  ]);
  for (const [group, prefix] of [
    ['Meta', 'META_'],
    ['InFlag', 'IN_FLAG_'],
    ['OutFlag', 'OUT_FLAG_'],
    ['ChecksumMode', 'CHECKSUM_MODE_'],
  ] as const)
    for (const [name, value] of Object.entries(module[group]!))
      if (typeof value === 'number') expected.set(prefix + name, value);
  t.ok(expected.size > 30);
  const sorted = (map: Map<string, number>): [string, number][] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  t.same(sorted(numbers), sorted(expected));
  t.end();
});

t.test(`checksums: C and its slow twin agree (SEED=${seed})`, (t) => {
  const random = new Random(seed);
  const native = loadNative();
  const protocols = [1, 6, 17, 47, 132, 136];
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const protocol = protocols[random.int(protocols.length)]!;
    const length = 20 + random.int(round % 100 === 0 ? 60_000 : 200);
    const ip = random.int(4);
    const a = new Uint8Array(ip + length + 3);
    a.set(frame(length, protocol, random), ip);
    for (let i = 12; i < 20; i++) a[ip + i] = random.int(256);
    const b = a.slice();
    const start = ip + 20 + (random.int(8) === 0 ? random.int(60) : 0);
    const field = start + [16, 6, 2, 8, 0][random.int(5)]!;
    const mode = 1 + random.int(2);
    const done = native.checksumFinish(a, ip, ip + length, mode, start, field);
    const twin = finishChecksum(b, ip, ip + length, mode, start, field);
    if (!done) refused++;
    if (done !== twin || Buffer.compare(a, b) !== 0) {
      t.fail(`round ${round}: protocol ${protocol}, length ${length}, mode ${mode}, start ${start}, field ${field}`);
      break;
    }
  }
  t.ok(refused > 0 && refused < 2500, 'both kinds came up');
  t.end();
});

t.test('huge pages are asked for by what is large, and nothing is lost', (t) => {
  const native = loadNative();
  for (const length of [1, 100, 5 << 20]) {
    const bytes = new Uint8Array(new SharedArrayBuffer(length)).fill(7);
    const before = native.adviseHuge(bytes);
    t.ok(before >= 0 && before <= Math.min(length, 2 << 20), 'the first huge page begins within two MiB, or nowhere');
    t.ok(bytes.every((byte) => byte === 7));
  }
  const own = hugeBytes(3 << 20);
  t.same([own.length, own.every((byte) => byte === 0)], [3 << 20, true], 'zeroed memory, as much as was asked for');
  t.equal(native.adviseHuge(own), 0, 'which begins with a huge page');
  t.throws(() => native.adviseHuge(1 as never));
  t.end();
});

t.test('checksums: known answers', (t) => {
  const native = loadNative();
  for (const finish of [finishChecksum, native.checksumFinish]) {
    for (const [protocol, field] of [
      [6, 16],
      [17, 6],
      [1, 2],
    ] as const) {
      const bytes = frame(101, protocol);
      t.ok(finish(bytes, 0, 101, ChecksumMode.FULL, 20, 20 + field));
      t.ok(transportChecksumOk(bytes, 0, 20, 101, protocol));
    }
    // A UDP packet whose sum is 0xffff, so that the computed checksum is 0: it is sent as 0xffff.
    const zero = frame(28, 17);
    zero.fill(0, 20);
    t.ok(finish(zero, 0, 28, ChecksumMode.PSEUDO, 20, 26));
    const pseudo = u16(zero, 26);
    zero[20] = (0xffff - pseudo) >> 8;
    zero[21] = 0xffff - pseudo;
    t.ok(finish(zero, 0, 28, ChecksumMode.FULL, 20, 26));
    t.equal(u16(zero, 26), 0xffff);
    zero[9] = 6;
    // 10.0.0.1 + 10.0.0.2 + protocol 17 + length 8
    t.equal(pseudo, 0x0a00 + 1 + 0x0a00 + 2 + 17 + 8);
    // CRC32c of 32 zero bytes is 0x8a9136aa (RFC 3720 §B.4), stored least byte first; the field counts as zero.
    const sctp = frame(52, 132);
    sctp.fill(0, 20);
    t.ok(finish(sctp, 0, 52, ChecksumMode.FULL, 20, 48));
    t.equal(u32(sctp, 48) >>> 0, 0xaa36918a);
    for (const [start, field, length] of [
      [19, 26, 28],
      [20, 27, 28],
      [20, 19, 28],
      [29, 29, 28],
      [20, 26, 19],
    ] as const)
      t.notOk(finish(frame(28), 0, length, ChecksumMode.FULL, start, field));
  }
  t.end();
});

t.test('loopback: what goes in comes out', (t) => {
  const device = new LoopbackDevice();
  const SLOT = HEADROOM + 384;
  const batch = new Batch(4, SLOT);
  const frames = [28, 60, 100, 300, 400].map((length) => frame(length));
  frames.forEach((bytes, i) => {
    device.give(bytes, { hook: 3, indev: i, outdev: 9, mark: -5, uid: 1000, mac: Uint8Array.of(1, 2, 3, 4, 5, 6) });
  });
  t.equal(device.receive(batch, 0), 4);
  for (let i = 0; i < 4; i++) {
    const word = (meta: Meta): number => batch.meta[i * META_WORDS + meta]!;
    t.equal(word(Meta.ID), i + 1);
    t.equal(word(Meta.HOOK), 3);
    t.equal(word(Meta.INDEV), i);
    t.equal(word(Meta.OUTDEV), 9);
    t.equal(word(Meta.MARK), -5);
    t.equal(word(Meta.UID), 1000);
    t.equal(word(Meta.FLAGS), InFlag.UID);
    t.equal(word(Meta.MAC_HIGH), 0x01020304);
    t.equal(word(Meta.MAC_LOW), 0x05060000);
    t.equal(word(Meta.OFFSET), i * SLOT + HEADROOM);
    t.same(batch.bytes.subarray(word(Meta.OFFSET), word(Meta.OFFSET) + word(Meta.LENGTH)), frames[i]);
  }
  t.equal(device.receive(batch, 0), 1);
  t.equal(batch.meta[Meta.LENGTH], 384, 'cut');
  t.equal(batch.meta[Meta.FULL_LENGTH], 400);
  t.equal(batch.meta[Meta.FLAGS], InFlag.UID | InFlag.CUT);
  batch.meta[Meta.VERDICT] = Verdict.ACCEPT;
  batch.meta[Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
  batch.meta[Meta.NEW_OFFSET] = batch.meta[Meta.OFFSET]!;
  batch.meta[Meta.NEW_LENGTH] = batch.meta[Meta.LENGTH]!;
  device.send(batch, 1);
  t.match(device.stats, { received: 5, accepted: 0, dropped: 1, sendErrors: 1 }, 'a cut packet never goes back');
  t.equal(device.receive(batch, 0), 0);
  device.close();
  t.throws(() => device.receive(batch, 0), DeviceClosed);
  t.end();
});

t.test('loopback: the heap stays flat over a million packets', (t) => {
  const device = new LoopbackDevice({ repeat: true });
  const batch = new Batch(64, 512);
  for (let i = 0; i < 100; i++) device.give(frame(60 + i), { indev: 1 });
  let packets = 0;
  device.onPacket = () => void packets++;
  const go = (count: number): void => {
    const end = packets + count;
    while (packets < end) {
      const n = device.receive(batch, 0);
      for (let i = 0; i < n; i++) {
        const r = i * META_WORDS;
        const offset = batch.meta[r + Meta.OFFSET]!;
        batch.meta[r + Meta.VERDICT] = Verdict.ACCEPT;
        batch.meta[r + Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
        batch.meta[r + Meta.NEW_OFFSET] = offset;
        batch.meta[r + Meta.NEW_LENGTH] = batch.meta[r + Meta.LENGTH]!;
        batch.meta[r + Meta.CHECKSUM_MODE] = ChecksumMode.FULL;
        batch.meta[r + Meta.CHECKSUM_START] = offset + 20;
        batch.meta[r + Meta.CHECKSUM_FIELD] = offset + 26;
      }
      device.send(batch, n);
    }
  };
  go(200_000);
  const before = process.memoryUsage().heapUsed;
  go(1_000_000);
  const growth = process.memoryUsage().heapUsed - before;
  t.ok(growth < 1_000_000, `${growth} bytes over 1,000,000 packets: less than one a packet`);
  t.equal(device.stats.rewritten, packets);
  t.end();
});

t.test(`faults: the same seed does the same, each verdict reaches its packet (SEED=${seed})`, (t) => {
  const run = (): { shown: string[]; kept: Map<number, number>; faults: object } => {
    const inner = new LoopbackDevice();
    const device = new FaultDevice(inner, seed, { lose: 0.1, duplicate: 0.1, truncate: 0.1, corrupt: 0.1 });
    for (let i = 0; i < 1000; i++) inner.give(frame(40 + (i % 50), 17, new Random(i)));
    const kept = new Map<number, number>();
    inner.onPacket = (batch, r) => {
      kept.set(batch.meta[r + Meta.ID]!, batch.meta[r + Meta.VERDICT]!);
      if (batch.meta[r + Meta.VERDICT] === Verdict.ACCEPT)
        t.equal(batch.bytes[batch.meta[r + Meta.NEW_OFFSET]!], 0x77, 'the payload of its own packet');
    };
    const shown: string[] = [];
    const batch = new Batch(32, 512);
    for (let n; (n = device.receive(batch, 0)) > 0;) {
      for (let i = 0; i < n; i++) {
        const r = i * META_WORDS;
        const offset = batch.meta[r + Meta.OFFSET]!;
        shown.push(
          `${batch.meta[r]!} ${Buffer.from(batch.bytes.subarray(offset, offset + batch.meta[r + Meta.LENGTH]!)).toString('hex')}`,
        );
        batch.bytes[offset] = 0x77;
        batch.meta[r + Meta.VERDICT] = Verdict.ACCEPT;
        batch.meta[r + Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
        batch.meta[r + Meta.NEW_OFFSET] = offset;
        batch.meta[r + Meta.NEW_LENGTH] = 1;
        batch.meta[r + Meta.CHECKSUM_MODE] = ChecksumMode.NONE;
        // The inner device would refuse a payload of a packet that it cut itself; this flag is the fault's.
        batch.meta[r + Meta.FLAGS] = 0;
      }
      device.send(batch, n);
    }
    return { shown, kept, faults: device.faults };
  };
  const first = run();
  const second = run();
  t.same(first.shown, second.shown);
  t.same(first.faults, second.faults);
  const { lost, duplicated, truncated, corrupted } = first.faults as Record<string, number>;
  for (const count of [lost, duplicated, truncated, corrupted]) t.ok(count! > 40 && count! < 170, `${count} faults`);
  t.equal(first.shown.length, 1000 - lost! + duplicated!);
  t.equal(first.kept.size, 1000, 'every packet got a verdict beneath');
  t.equal([...first.kept.values()].filter((verdict) => verdict === (Verdict.DROP as number)).length, lost);
  t.end();
});

t.test('trace: a line for each packet and verdict', (t) => {
  const lines: string[] = [];
  const inner = new LoopbackDevice();
  const device = new TraceDevice(inner, (line) => lines.push(line));
  const batch = new Batch(4, 512);
  inner.give(frame(60, 6), { indev: 3, flags: InFlag.GSO });
  device.receive(batch, 0);
  batch.meta[Meta.VERDICT] = Verdict.ACCEPT;
  batch.meta[Meta.OUT_FLAGS] = OutFlag.MARK;
  batch.meta[Meta.NEW_MARK] = 0x75;
  device.send(batch, 1);
  device.inject(frame(28), 0, 28, 1, 0, 0);
  t.same(lines, [
    '> 1 PREROUTING in 3 out 0 mark 0x0 len 60 gso proto 6 10.0.0.1 > 10.0.0.2',
    '< 1 ACCEPT mark 0x75',
    '< inject mark 0x1 len 28 proto 17 10.0.0.1 > 10.0.0.2',
  ]);
  t.equal(inner.stats.injected, 1);
  t.end();
});
