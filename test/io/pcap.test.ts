import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t from 'tap';
import { Frame, FrameKind, LinkType } from '../../src/dataplane/io/frame.js';
import { CaptureError, CaptureReader, CaptureWriter } from '../../src/dataplane/io/pcap.js';

const folder = mkdtempSync(path.join(tmpdir(), 'hutter-pcap-'));
t.teardown(() => {
  rmSync(folder, { recursive: true });
});
const file = path.join(folder, 'capture');

interface Seen {
  seconds: number;
  nanoseconds: number;
  linkType: number;
  bytes: number[];
  length: number;
}

function readAll(name = file): Seen[] {
  const reader = CaptureReader.open(name);
  const seen: Seen[] = [];
  for (let r = reader.next(); r !== undefined; r = reader.next()) {
    const { seconds, nanoseconds, linkType, length } = r;
    seen.push({ seconds, nanoseconds, linkType, bytes: [...r.bytes.subarray(r.start, r.end)], length });
  }
  reader.close();
  return seen;
}

/** A file put together word by word, in either byte order, without the writer. */
class Maker {
  private readonly parts: Buffer[] = [];
  constructor(private readonly little: boolean) {}
  get length(): number {
    return this.parts.reduce((sum, part) => sum + part.length, 0);
  }
  u8(...values: number[]): this {
    this.parts.push(Buffer.from(values));
    return this;
  }
  zeros(count: number): this {
    this.parts.push(Buffer.alloc(count));
    return this;
  }
  u16(...values: number[]): this {
    for (const value of values) this.number(BigInt(value), 2);
    return this;
  }
  u32(...values: number[]): this {
    for (const value of values) this.number(BigInt(value), 4);
    return this;
  }
  u64(value: bigint): this {
    return this.number(value, 8);
  }
  /** High word first in either order, as pcapng has its times. */
  time(ticks: bigint): this {
    return this.u32(Number(ticks >> 32n), Number(ticks & 0xffffffffn));
  }
  private number(value: bigint, size: number): this {
    const bytes = Buffer.alloc(size);
    for (let i = 0; i < size; i++) bytes[this.little ? i : size - 1 - i] = Number((value >> BigInt(8 * i)) & 0xffn);
    this.parts.push(bytes);
    return this;
  }
  block(type: number, body: (maker: Maker) => void): this {
    const inner = new Maker(this.little);
    body(inner);
    while (inner.length % 4 !== 0) inner.u8(0);
    const length = inner.length + 12;
    this.u32(type, length);
    this.parts.push(...inner.parts);
    return this.u32(length);
  }
  section(length = -1n): this {
    return this.block(0x0a0d0d0a, (m) => m.u32(0x1a2b3c4d).u16(1, 0).u64(BigInt.asUintN(64, length)));
  }
  bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}

const frame = fc.record({
  seconds: fc.nat(0xffffffff),
  nanoseconds: fc.nat(999_999_999),
  bytes: fc.uint8Array({ maxLength: 300 }),
  more: fc.nat(100),
});

t.test('what is written is read again, in both formats and resolutions', (t) => {
  const formats = fc.constantFrom('pcap' as const, 'pcapng' as const);
  const resolutions = fc.constantFrom('microseconds' as const, 'nanoseconds' as const);
  const snap = fc.constantFrom(64, 262_144);
  const property = fc.property(
    formats,
    resolutions,
    snap,
    fc.array(frame),
    (format, resolution, snapLength, frames) => {
      const writer = CaptureWriter.create(file, { format, resolution, snapLength, linkType: 1 });
      for (const { seconds, nanoseconds, bytes, more } of frames)
        writer.write(seconds, nanoseconds, bytes, 0, bytes.length, bytes.length + more);
      writer.close();
      const seen = readAll();
      t.same(
        seen,
        frames.map(({ seconds, nanoseconds, bytes, more }) => ({
          seconds,
          nanoseconds: resolution === 'nanoseconds' ? nanoseconds : nanoseconds - (nanoseconds % 1000),
          linkType: 1,
          bytes: [...bytes.subarray(0, snapLength)],
          length: bytes.length + more,
        })),
      );
    },
  );
  fc.assert(property, { numRuns: 100 });
  t.end();
});

t.test('more than the buffer holds, and a block that is longer', (t) => {
  const big = new Uint8Array(200_000).fill(7);
  for (const format of ['pcap', 'pcapng'] as const) {
    const writer = CaptureWriter.create(file, { format });
    for (let i = 0; i < 20; i++) writer.write(i, i, big, 0, big.length - i);
    writer.close();
    t.same(
      readAll().map(({ bytes, seconds }) => [bytes.length, seconds, bytes.every((b) => b === 7)]),
      Array.from({ length: 20 }, (_, i) => [big.length - i, i, true]),
    );
  }
  const maker = new Maker(true).section().block(0x0bad, (m) => m.zeros(700_000));
  maker.block(1, (m) => m.u16(101, 0).u32(0)).block(3, (m) => m.u32(2).u8(1, 2));
  writeFileSync(file, maker.bytes());
  t.same(readAll(), [{ seconds: 0, nanoseconds: 0, linkType: 101, bytes: [1, 2], length: 2 }]);
  t.end();
});

t.test('pcap of every magic, in both byte orders', (t) => {
  for (const little of [true, false]) {
    for (const [magic, nanoseconds, extra] of [
      [0xa1b2c3d4, 5000, 0],
      [0xa1b23c4d, 5, 0],
      [0xa1b2cd34, 5000, 8],
    ] as const) {
      const maker = new Maker(little).u32(magic).u16(2, 4).u32(0, 0, 96, 1);
      for (const length of [3, 0]) {
        maker.u32(1_700_000_000, 5, length, 60).u8(...Buffer.alloc(extra));
        maker.u8(...[1, 2, 3].slice(0, length));
      }
      writeFileSync(file, maker.bytes());
      const common = { seconds: 1_700_000_000, nanoseconds, linkType: 1, length: 60 };
      t.same(
        readAll(),
        [
          { ...common, bytes: [1, 2, 3] },
          { ...common, bytes: [] },
        ],
        `${magic.toString(16)} ${little ? 'little' : 'big'}-endian`,
      );
    }
  }
  t.end();
});

t.test(
  'pcapng: times by if_tsresol and if_tsoffset, all kinds of packet blocks, sections of either byte order',
  (t) => {
    const resolutions: [number | undefined, bigint][] = [
      [undefined, 10n ** 6n],
      [6, 10n ** 6n],
      [9, 10n ** 9n],
      [3, 1000n],
      [0, 1n],
      [0x80 | 20, 1n << 20n],
    ];
    const maker = [true, false].map((little) => {
      const m = new Maker(little).section();
      for (const [code] of resolutions)
        m.block(1, (b) => {
          b.u16(101, 0).u32(4);
          if (code !== undefined)
            b.u16(2, 3).u8(0x69, 0x66, 0x30, 0).u16(9, 1).u8(code, 0, 0, 0).u16(14, 8).u64(100n).u32(0);
        });
      resolutions.forEach(([, ticks], i) =>
        m.block(6, (b) =>
          b
            .u32(i)
            .time(1_000_000n * ticks + ticks / 2n)
            .u32(3, 70)
            .u8(1, 2, 3, 0),
        ),
      );
      m.block(5, (b) => b.u32(0, 0, 0));
      m.block(2, (b) => b.u16(1, 7).time(42_000_001n).u32(1, 1).u8(9));
      m.block(3, (b) => b.u32(1500).u8(5, 6, 7, 8));
      return m.bytes();
    });
    writeFileSync(file, Buffer.concat(maker));
    const half = resolutions.map(([code, ticks], i) => ({
      seconds: 1_000_000 + (code === undefined ? 0 : 100),
      nanoseconds: ticks === 1n ? 0 : 500_000_000,
      linkType: 101,
      bytes: [1, 2, 3],
      length: 70,
      i,
    }));
    const old = { seconds: 142, nanoseconds: 1000, linkType: 101, bytes: [9], length: 1 };
    const simple = { ...old, bytes: [5, 6, 7, 8], length: 1500 };
    const expected = [...half.map(({ i, ...rest }) => (void i, rest)), old, simple];
    t.same(readAll(), [...expected, ...expected]);
    t.end();
  },
);

t.test('pcapng says which way a frame went', (t) => {
  const maker = new Maker(true).section().block(1, (m) => m.u16(1, 0).u32(0));
  for (const flags of [1, 2, 0x22])
    maker.block(6, (m) => m.u32(0, 0, 0, 0, 0).u16(1, 2).u8(65, 66, 0, 0).u16(2, 4).u32(flags, 0));
  maker.block(6, (m) => m.u32(0, 0, 0, 0, 0));
  writeFileSync(file, maker.bytes());
  const reader = CaptureReader.open(file);
  const ways = [];
  for (let r = reader.next(); r !== undefined; r = reader.next()) ways.push(r.outbound);
  reader.close();
  t.same(ways, [false, true, true, false]);
  t.end();
});

t.test('damage: file, offset and cause; whole records before it are given', (t) => {
  const pcap = (m: Maker): Maker => m.u32(0xa1b2c3d4).u16(2, 4).u32(0, 0, 65_535, 101);
  const idb = (m: Maker): Maker => m.section().block(1, (b) => b.u16(101, 0).u32(0));
  const cases: [Maker, number, string][] = [
    [new Maker(true), 0, 'at byte 0: it is empty'],
    [new Maker(true).u8(1, 2), 0, 'at byte 0: too short for a capture'],
    [
      new Maker(true).u8(0x89, 0x50, 0x4e, 0x47),
      0,
      'at byte 0: it begins with 89 50 4e 47, which is neither pcap nor pcapng',
    ],
    [new Maker(true).u32(0xa1b2c3d4), 0, 'at byte 0: it ends within the header'],
    [
      new Maker(true).u32(0xa1b2c3d4).u16(2, 3).u32(0, 0, 0, 0),
      0,
      'at byte 4: version 2.3 of pcap is not read, 2.4 is',
    ],
    [pcap(new Maker(true)).u32(0, 0, 1, 1).u8(1).u32(0, 0), 1, 'at byte 41: it ends within a record'],
    [pcap(new Maker(true)).u32(0, 0, 4, 4).u8(1), 0, 'at byte 24: it ends within a record'],
    [
      pcap(new Maker(false)).u32(0, 0, 0xffffff, 4),
      0,
      'at byte 24: a record of 16777215 bytes; no frame is longer than 262144',
    ],
    [new Maker(true).u32(0x0a0d0d0a, 28, 0), 0, 'at byte 8: a section without its byte-order magic'],
    [
      new Maker(true).u32(0x0a0d0d0a, 28, 0x1a2b3c4d).u16(2, 0).u32(0, 0, 28),
      0,
      'at byte 0: version 2 of pcapng is not read, 1 is',
    ],
    [new Maker(true).u32(0x0a0d0d0a, 13, 0x1a2b3c4d), 0, 'at byte 0: a block of 13 bytes'],
    [idb(new Maker(false)).u32(6, 32).u32(0, 0), 0, 'at byte 48: it ends within a block'],
    [idb(new Maker(false)).u32(99, 32).u32(0, 0), 0, 'at byte 48: it ends within a block'],
    [
      idb(new Maker(true)).block(6, (m) => m.u32(1, 0, 0, 0, 0)),
      0,
      'at byte 48: a frame of interface 1, which no block before it describes',
    ],
    [
      idb(new Maker(true)).block(6, (m) => m.u32(0, 0, 0, 9, 9, 0)),
      0,
      'at byte 48: a frame of 9 bytes in a shorter block',
    ],
    [idb(new Maker(true)).u32(3, 16, 0, 20), 0, 'at byte 48: a block of 16 bytes that ends as one of 20'],
    [idb(new Maker(true)).block(6, (m) => m.u32(0)), 0, 'at byte 48: a block of type 6 that is too short'],
    [
      new Maker(true).section().block(1, (b) => b.u16(101, 0).u32(0).u16(9, 1).u8(0xff, 0, 0, 0)),
      0,
      'at byte 28: an interface whose if_tsresol is 255',
    ],
  ];
  for (const [maker, records, cause] of cases) {
    writeFileSync(file, maker.bytes());
    let seen = 0;
    const open = (): void => {
      const reader = CaptureReader.open(file);
      try {
        while (reader.next() !== undefined) seen++;
      } finally {
        reader.close();
      }
    };
    t.throws(open, new CaptureError(`${file}, ${cause}`), cause);
    t.equal(seen, records);
  }
  t.throws(
    () => CaptureReader.open(path.join(folder, 'none')),
    new CaptureError(`can't read ${folder}/none: no such file`),
  );
  t.throws(() => CaptureWriter.create(folder), new CaptureError(`can't write ${folder}: it is a directory`));
  t.end();
});

t.test('random damage never does more than refuse', (t) => {
  const writer = CaptureWriter.create(file, { format: 'pcapng' });
  for (let i = 0; i < 20; i++) writer.write(i, 0, new Uint8Array(i), 0, i);
  writer.close();
  const whole = readFileSync(file);
  const property = fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, value, length) => {
    const damaged = Buffer.from(whole);
    damaged[at] = value;
    writeFileSync(file, damaged.subarray(0, length));
    try {
      return readAll().length <= 20;
    } catch (error) {
      return error instanceof CaptureError;
    }
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }));
  t.end();
});

/** An IPv4 header of a UDP packet without payload, 1.2.3.4 to 5.6.7.8, ports 9 and 10. */
const IP = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x6a, 0xbd, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 0, 8, 0, 0];
const MAC = [2, 0, 0, 0, 0, 9];
const ETHERNET = [2, 0, 0, 0, 0, 1, ...MAC];

t.test('where the packet lies in a frame', (t) => {
  const sll = (type: number, proto: number[] = [8, 0]): number[] => [0, type, 0, 1, 0, 6, ...MAC, 0, 0, ...proto];
  const sll2 = (type: number, proto: number[] = [8, 0]): number[] => [
    ...proto,
    0,
    0,
    0,
    0,
    0,
    3,
    0,
    1,
    type,
    6,
    ...MAC,
    0,
    0,
  ];
  const cases: [string, LinkType, number[], FrameKind, number[]?][] = [
    ['raw', LinkType.RAW, [], FrameKind.IPV4],
    ['raw, as BSD has it', LinkType.RAW_BSD, [], FrameKind.IPV4],
    ['raw, as OpenBSD has it', LinkType.RAW_OPENBSD, [], FrameKind.IPV4],
    ['IPv4', LinkType.IPV4, [], FrameKind.IPV4],
    ['IPv6', LinkType.IPV6, [], FrameKind.OTHER],
    ['null, little-endian', LinkType.NULL, [2, 0, 0, 0], FrameKind.IPV4],
    ['null with IPv6', LinkType.NULL, [24, 0, 0, 0], FrameKind.OTHER],
    ['loop', LinkType.LOOP, [0, 0, 0, 2], FrameKind.IPV4],
    ['Ethernet', LinkType.ETHERNET, [...ETHERNET, 8, 0], FrameKind.IPV4],
    ['ARP', LinkType.ETHERNET, [...ETHERNET, 8, 6], FrameKind.OTHER],
    ['VLAN', LinkType.ETHERNET, [...ETHERNET, 0x81, 0, 0x20, 100, 8, 0], FrameKind.IPV4, [100]],
    ['QinQ', LinkType.ETHERNET, [...ETHERNET, 0x88, 0xa8, 0, 7, 0x81, 0, 1, 0, 8, 0], FrameKind.IPV4, [7, 256]],
    ['a priority alone', LinkType.ETHERNET, [...ETHERNET, 0x81, 0, 0xe0, 0, 8, 0], FrameKind.IPV4],
    ['802.3 with SNAP', LinkType.ETHERNET, [...ETHERNET, 0, 36, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], FrameKind.IPV4],
    ['802.3 without', LinkType.ETHERNET, [...ETHERNET, 0, 36, 0x42, 0x42, 3, 0, 0, 0, 8, 0], FrameKind.OTHER],
    ['cooked', LinkType.LINUX_SLL, sll(0), FrameKind.IPV4],
    ['cooked, going out', LinkType.LINUX_SLL, sll(4), FrameKind.OUTGOING],
    ["cooked, another host's", LinkType.LINUX_SLL, sll(3), FrameKind.OTHER_HOST],
    ['cooked VLAN', LinkType.LINUX_SLL, [...sll(0, [0x81, 0]), 0, 5, 8, 0], FrameKind.IPV4, [5]],
    ['cooked 2', LinkType.LINUX_SLL2, sll2(0), FrameKind.IPV4],
    ['cooked 2, going out', LinkType.LINUX_SLL2, sll2(4), FrameKind.OUTGOING],
    ['cooked 2 VLAN', LinkType.LINUX_SLL2, [...sll2(0, [0x81, 0]), 0, 5, 8, 0], FrameKind.IPV4, [5]],
    ['cooked 2 ARP', LinkType.LINUX_SLL2, sll2(0, [8, 6]), FrameKind.OTHER],
    ['802.11', 105 as LinkType, [], FrameKind.UNKNOWN_LINK],
  ];
  const found = new Frame();
  for (const [name, linkType, header, kind, vlans = []] of cases) {
    const bytes = Uint8Array.from([...header, ...IP]);
    t.equal(found.read(linkType, bytes, 0, bytes.length, true), kind, name);
    if (kind === FrameKind.IPV4) t.same([found.packet, found.vlans], [header.length, vlans], name);
    if (found.macLength > 0) t.same([...bytes.subarray(found.mac, found.mac + found.macLength)], MAC, name);
    // However little of it was captured, nothing past the end is read for the packet's place.
    for (let length = 0; length < header.length; length++) {
      const short = found.read(linkType, bytes.subarray(0, length), 0, length, true);
      t.ok(short !== FrameKind.IPV4 || found.packet <= length, `${name}, ${length} bytes`);
    }
  }
  const big = Uint8Array.from([0, 0, 0, 2, ...IP]);
  t.equal(found.read(LinkType.NULL, big, 0, big.length, false), FrameKind.IPV4, 'null, big-endian');
  t.end();
});

t.test('tcpdump reads what is written, and its own copies are read', (t) => {
  const bytes = Uint8Array.from(IP);
  for (const format of ['pcap', 'pcapng'] as const) {
    const writer = CaptureWriter.create(file, { format });
    writer.write(1_700_000_000, 123_456_789, bytes, 0, bytes.length);
    writer.write(1_700_000_001, 5, bytes, 0, 24, 28);
    writer.close();
    const { stdout, stderr } = spawnSync('tcpdump', ['--nano', '-ttnr', file], { encoding: 'utf8' });
    t.match(stdout, '1700000000.123456789 IP 1.2.3.4.9 > 5.6.7.8.10: UDP, length 0\n', stderr);
    t.match(stdout, '1700000001.000000005 IP 1.2.3.4.9 > 5.6.7.8.10:  [|udp]', 'cut within the header');
    const copy = path.join(folder, 'copy');
    t.equal(spawnSync('tcpdump', ['--nano', '-r', file, '-w', copy]).status, 0);
    t.same(readAll(copy), readAll());
  }
  t.end();
});
