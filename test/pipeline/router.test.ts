/**
 * hutter as the whole router, in memory: what is malformed, truncated, overlapping or too long, from a seeded generator, is
 * counted by a reason and never goes on; fragments come out as what went in; the store has a bound.
 */
import t from 'tap';
import { ErrorLimit } from '../../src/dataplane/answer.js';
import { Random } from '../../src/dataplane/io/fault.js';
import { DROP_REASONS, Stat } from '../../src/dataplane/shared.js';
import type { Outcome } from '../../src/dataplane/simulate.js';
import { InFlag } from '../../src/dataplane/io/batch.js';
import { Fib } from '../../src/dataplane/route/fib.js';
import { checksum, type Ip, decodeIp, echoPacket, ipPacket, tcpPacket, udpPacket } from '../net/frame.js';
import { IF0, IF1, INSIDE, KNOCK, LINKS, ORLOCK, World } from './world.js';

const TRACKING = '*filter\n-A FORWARD -m state --state INVALID -j ACCEPT\nCOMMIT\n';
const NOTHING = '*filter\nCOMMIT\n';
const SEED = Number(process.env['HUTTER_SEED'] ?? 20041);
const LIFETIME_MS = 30_000;

const router = (rules: string): Promise<World> => World.create(rules, { kernelRoutes: false, errorInterval: 0 });
const come = (world: World, packet: Uint8Array): Outcome => world.router.run(packet, { hook: 0, indev: IF0 });
/** What left by the other interface, whole or in pieces; answers go back to ORLOCK. */
const left = (outcome: Outcome): Ip[] =>
  [...(outcome.packet === undefined ? [] : [outcome.packet]), ...outcome.answers]
    .map(decodeIp)
    .filter(({ dst }) => dst !== ORLOCK);
const dropped = (world: World, reason: (typeof DROP_REASONS)[number]): number =>
  world.router.stats[Stat.DROPS + DROP_REASONS.indexOf(reason)]!;

/** Finishes the header's checksum. */
function sealed(packet: Uint8Array): Uint8Array {
  const b = Buffer.from(packet);
  const header = (b[0]! & 15) * 4;
  if (header >= 20 && header <= b.length) {
    b.writeUInt16BE(0, 10);
    b.writeUInt16BE(checksum(b.subarray(0, header)), 10);
  }
  return b;
}

type Maker = (random: Random) => Uint8Array;
const datagram = (random: Random, length = random.int(1400)): Buffer =>
  Buffer.from(
    udpPacket({ src: ORLOCK, dst: KNOCK, sport: 1 + random.int(65_535), dport: 53, data: Buffer.alloc(length, 1) }),
  );
/** Options before a datagram's header ends; `hex` fills whole words. */
function withOptions(random: Random, options: Uint8Array): Uint8Array {
  const plain = datagram(random, 20);
  const b = Buffer.concat([plain.subarray(0, 20), options, plain.subarray(20)]);
  b[0] = 0x40 | ((20 + options.length) / 4);
  b.writeUInt16BE(b.length, 2);
  return sealed(b);
}
const edit = (make: (b: Buffer, random: Random) => void): Maker => {
  return (random) => {
    const b = datagram(random);
    make(b, random);
    return sealed(b);
  };
};

/** None of these may go on, and each has the reasons that it may be counted under. */
const BAD: Record<string, [reasons: readonly string[], make: Maker]> = {
  'fewer bytes than a header': [['truncated'], (random) => datagram(random).subarray(0, random.int(20))],
  'another version': [['not-ipv4'], edit((b, random) => (b[0] = (((random.int(15) + 5) % 16) << 4) | 5))],
  'a header of less than 20 bytes': [['malformed'], edit((b, random) => (b[0] = 0x40 | random.int(5)))],
  'a header longer than the packet': [
    ['malformed'],
    (random) => {
      const b = datagram(random, 0).subarray(0, 20 + random.int(8));
      b[0] = 0x4f;
      return b;
    },
  ],
  'a length less than the header': [['truncated'], edit((b, random) => b.writeUInt16BE(random.int(20), 2))],
  'a length more than came': [
    ['truncated'],
    edit((b, random) => b.writeUInt16BE(b.length + 1 + random.int(60_000 - b.length), 2)),
  ],
  'cut on the way': [
    ['truncated'],
    (random) => {
      const b = datagram(random);
      return b.subarray(0, 20 + random.int(b.length - 20));
    },
  ],
  'a wrong header checksum': [
    ['header-checksum'],
    (random) => {
      const b = datagram(random);
      b[10 + random.int(2)]! ^= 1 + random.int(255);
      return b;
    },
  ],
  'a flipped bit in the header': [
    ['header-checksum', 'not-ipv4', 'malformed', 'truncated'],
    (random) => {
      const b = datagram(random);
      b[random.int(20)]! ^= 1 << random.int(8);
      return b;
    },
  ],
  'a zero-length option': [['malformed'], (random) => withOptions(random, Buffer.of(7 + random.int(200), 0, 0, 0))],
  'an option that runs past the header': [
    ['malformed'],
    (random) => withOptions(random, Buffer.of(7, 5 + random.int(250), 4, 0)),
  ],
  'a source route': [['source-route'], (random) => withOptions(random, Buffer.from('830704c000020100', 'hex'))],
  'a source that nobody has': [
    ['martian-source'],
    edit((b, random) => b.set([[127, 224, 255, 240][random.int(3)]!, 255, 255, 255], 12)),
  ],
  'a destination that nobody has': [['martian-destination'], edit((b) => b.set([127, 0, 0, 1], 16))],
  "the router's own address as source": [['martian-source'], edit((b) => b.set([192, 168, 73, 1], 12))],
};

t.test(`malformed packets are counted and never go on (seed ${SEED})`, async (t) => {
  for (const rules of [NOTHING, TRACKING]) {
    const world = await router(rules);
    const random = new Random(SEED);
    for (const [name, [reasons, make]] of Object.entries(BAD)) {
      const seen = new Set<string>();
      for (let i = 0; i < 300; i++) {
        const packet = make(random);
        const outcome = come(world, packet);
        if (left(outcome).length > 0) t.fail(`${name} went on: ${Buffer.from(packet).toString('hex')}`);
        seen.add(outcome.reason ?? 'no reason');
      }
      t.same(
        [...seen].filter((reason) => !reasons.includes(reason)),
        [],
        `${name}: counted as ${reasons.join(', ')}`,
      );
    }
    t.equal(left(come(world, datagram(random, 8))).length, 1, 'and a good one goes on');
  }
});

t.test(`anything at all does no harm (seed ${SEED})`, async (t) => {
  const world = await router(TRACKING);
  const random = new Random(SEED + 1);
  for (let i = 0; i < 20_000; i++) {
    const b = i % 2 === 0 ? Buffer.alloc(random.int(200)) : datagram(random, random.int(100));
    const from = i % 2 === 0 ? 0 : 20;
    for (let o = from; o < b.length; o++) if (from === 0 || random.int(4) === 0) b[o] = random.int(256);
    if (from !== 0) b.writeUInt16BE(random.int(65_536), 6);
    if (from !== 0) b[9] = random.int(256);
    for (const ip of left(come(world, i % 3 === 0 ? b : sealed(b)))) if (!ip.headerOk) t.fail('a wrong checksum left');
    world.router.now += random.int(40);
  }
  t.equal(left(come(world, datagram(random, 8))).length, 1, 'a good one goes on');
  t.end();
});

/** The pieces [from, to) of a datagram. */
function piece(whole: Uint8Array, id: number, from: number, to: number, more = to < whole.length - 20): Uint8Array {
  const fields = { src: ORLOCK, dst: KNOCK, id, mf: more, fragmentOffset: from };
  return ipPacket(fields, whole[9]!, Buffer.from(whole).subarray(20 + from, 20 + to));
}

t.test(`fragments in any order and number come out as what went in (seed ${SEED})`, async (t) => {
  const world = await router(TRACKING);
  const random = new Random(SEED + 2);
  let joined = 0;
  for (let round = 0; round < 300; round++) {
    const whole = datagram(random, 9 + random.int(round % 10 === 0 ? 65_400 : 6_000));
    const pieces: Uint8Array[] = [];
    for (let from = 0; from < whole.length - 20;) {
      const to = Math.min(whole.length - 20, from + 8 * (1 + random.int(185)));
      pieces.push(piece(whole, round, from, to));
      from = to;
    }
    if (pieces.length < 2) continue;
    for (let i = pieces.length - 1; i > 0; i--) {
      const j = random.int(i + 1);
      [pieces[i], pieces[j]] = [pieces[j]!, pieces[i]!];
    }
    if (random.int(2) === 0) pieces.splice(1, 0, pieces[0]!);
    const out: Ip[] = [];
    for (const fragment of pieces) out.push(...left(come(world, fragment)));
    const payload = Buffer.alloc(whole.length - 20);
    let bytes = 0;
    for (const ip of out) {
      const data = Buffer.from(ip.bytes).subarray(20);
      payload.set(data, ip.fragmentOffset);
      bytes += data.length;
      if (!ip.headerOk || ip.length > 1500 || ip.ttl !== 63) t.fail(`round ${round}: a piece isn't right`);
    }
    if (bytes !== payload.length || !payload.equals(whole.subarray(20))) t.fail(`round ${round}: not what went in`);
    else joined++;
  }
  t.ok(joined > 250, `${joined} datagrams`);
  t.end();
});

t.test('overlaps and datagrams that get too long are given up, whole', async (t) => {
  const world = await router(TRACKING);
  const whole = datagram(new Random(SEED), 3000);
  const families: Record<string, [number, number, boolean?][]> = {
    teardrop: [
      [0, 1480, true],
      [24, 1600, true],
      [1600, 3008],
    ],
    'a tail that begins earlier': [
      [0, 1480, true],
      [1472, 3008],
    ],
    'a head that goes on longer': [
      [1480, 3008],
      [0, 1488, true],
    ],
    'two ends': [
      [0, 800, true],
      [1480, 3008],
      [800, 2000, false],
    ],
    'something behind the end': [
      [800, 2000, false],
      [2000, 3008],
      [0, 800, true],
    ],
    'an empty piece': [
      [0, 800, true],
      [800, 800, true],
      [800, 3008],
    ],
  };
  let id = 1;
  for (const [name, parts] of Object.entries(families)) {
    id++;
    const before = dropped(world, 'fragment');
    const out = parts.flatMap(([from, to, more]) => left(come(world, piece(whole, id, from, to, more))));
    t.same(out, [], `${name}: nothing goes on`);
    t.ok(dropped(world, 'fragment') > before, `${name}: counted`);
  }
  // The ping of death: a last piece beyond 65,535.
  const echo = echoPacket({ src: ORLOCK, dst: INSIDE, data: Buffer.alloc(1472) });
  const pieces: Uint8Array[] = [];
  for (let from = 0; from <= 65_120; from += 1480) {
    const fields = { src: ORLOCK, dst: INSIDE, id: 99, mf: from < 65_120, fragmentOffset: from };
    pieces.push(ipPacket(fields, 1, Buffer.from(echo).subarray(20)));
  }
  t.same(
    pieces.flatMap((fragment) => come(world, fragment).answers),
    [],
    'the ping of death has no answer',
  );
});

t.test('the store is bounded, and empties with time', async (t) => {
  const world = await router(TRACKING);
  world.router.table.writeSetting('ipfrag_max_dist', 0);
  const whole = datagram(new Random(SEED), 3000);
  for (let id = 1; id <= 20_000; id++) come(world, piece(whole, id, 0, 1480));
  const kept = 20_000 - dropped(world, 'fragment-store');
  t.ok(kept > 500 && kept < 4096, `${kept} of 20,000 are kept`);
  world.router.now += LIFETIME_MS - 1;
  const late = (id: number): Ip[] => left(come(world, piece(whole, id, 1480, 3008)));
  t.equal(late(1).length > 0, true, 'at the last moment the rest of one comes');
  world.router.now += 1;
  t.same(late(2), [], 'a millisecond later it is too late');
  t.equal(dropped(world, 'fragment-timeout'), kept - 1, 'the others were given up');
  come(world, piece(whole, 30_001, 0, 1480));
  t.ok(late(30_001).length > 0, 'and there is room');
});

t.test('a piece too far behind the others of its datagram begins it anew (ipfrag_max_dist)', async (t) => {
  const whole = datagram(new Random(SEED), 3000);
  for (const [others, distance, arrives] of [
    [63, 64, true],
    [64, 64, false],
    [64, 0, true],
    [3, 4, true],
    [4, 4, false],
  ] as const) {
    const world = await router(TRACKING);
    world.router.table.writeSetting('ipfrag_max_dist', distance);
    come(world, piece(whole, 1, 0, 1480));
    for (let id = 2; id < 2 + others; id++) come(world, piece(whole, id, 0, 1480));
    const rest = (): boolean => left(come(world, piece(whole, 1, 1480, 3008))).length > 0;
    t.equal(rest(), arrives, `${others} fragments in between, ${distance} allowed`);
    t.equal(dropped(world, 'fragment'), arrives ? 0 : 1);
    if (!arrives)
      t.ok(left(come(world, piece(whole, 1, 0, 1480))).length > 0, 'its first piece once more makes it whole');
  }
});

t.test('errors, all together: a burst, then so many a second (icmp_msgs_per_sec)', async (t) => {
  const world = await router(NOTHING);
  world.router.table.writeSetting('icmp_msgs_per_sec', 500);
  world.router.table.writeSetting('icmp_msgs_burst', 30);
  // What an error costs is left to chance, one on the average; here always one.
  const limit = new ErrorLimit(0, world.router.table, () => 0.5);
  const allowed = (now: number): number => {
    let count = 0;
    for (; limit.allowAny(now); count++) limit.sent();
    return count;
  };
  t.same([0, 0, 19, 20, 39, 60, 1060, 10_000].map(allowed), [30, 0, 0, 10, 0, 20, 30, 30]);
  const errors = (): number => {
    let count = 0;
    for (let host = 1; host < 200; host++) {
      const packet = udpPacket({ src: `192.168.73.${host + 20}`, dst: KNOCK, ttl: 1, sport: 1, dport: 2 });
      count += come(world, packet).answers.length;
    }
    return count;
  };
  world.router.now += 60_000;
  const first = errors();
  t.ok(first >= 15 && first < 100, `${first} of 199 hosts are told that TTL 1 is over`);
  t.equal(errors(), 0, 'and nobody else at the same moment');
});

t.test('half a packet to the router itself: time exceeded in reassembly, if its beginning came', async (t) => {
  const world = await router(NOTHING);
  const echo = echoPacket({ src: ORLOCK, dst: INSIDE, data: Buffer.alloc(2000) });
  const part = (id: number, from: number, to: number): Uint8Array =>
    ipPacket(
      { src: ORLOCK, dst: INSIDE, id, mf: true, fragmentOffset: from },
      1,
      Buffer.from(echo).subarray(20 + from, 20 + to),
    );
  come(world, part(1, 0, 1000));
  come(world, part(2, 1000, 1800));
  world.router.now += LIFETIME_MS;
  const { answers } = come(world, datagram(new Random(SEED), 8));
  t.equal(answers.length, 1, 'one error for two datagrams');
  const error = decodeIp(answers[0]!);
  t.match(error, { src: INSIDE, dst: ORLOCK, icmp: { type: 11, code: 1 } });
  t.equal(Buffer.from(error.icmp!.quote).readUInt16BE(4), 1, 'about the one whose beginning came');
  t.end();
});

t.test('what leaves by which interface, and with which TTL', async (t) => {
  const world = await router(NOTHING);
  const outcome = come(world, datagram(new Random(SEED), 8));
  t.equal(outcome.outdev, IF1);
  t.match(decodeIp(outcome.packet!), { ttl: 63, headerOk: true, checksumOk: true });
});

t.test('a packet for segmentation offload: whole where its segments fit, else cut, or refused with DF', async (t) => {
  const narrow = LINKS.map((link) => (link.index === IF1 ? { ...link, mtu: 576 } : link));
  const data = Buffer.from(Array.from({ length: 4000 }, (_, i) => i & 255));
  const fields = { src: ORLOCK, dst: KNOCK, id: 0xfffe, sport: 1000, dport: 80 };
  const gso = InFlag.GSO | InFlag.CSUM_PARTIAL;
  const send = (world: World, packet: Uint8Array, gsoSize: number): Outcome =>
    world.router.run(packet, { hook: 0, indev: IF0, flags: gso, gsoSize });

  const wide = await router(NOTHING);
  const whole = send(wide, tcpPacket({ ...fields, flags: 24, data }), 1448);
  t.equal(decodeIp(whole.packet!).length, 4040, 'it leaves whole');
  t.same(whole.answers, []);

  const world = await World.create(NOTHING, {
    kernelRoutes: false,
    errorInterval: 0,
    links: narrow,
    routes: Fib.readerOf(narrow),
  });
  const refused = send(world, tcpPacket({ ...fields, df: true, flags: 16, data }), 1448);
  t.match(decodeIp(refused.answers[0]!), { icmp: { type: 3, code: 4, rest: 576 } }, 'with DF it is refused');
  t.equal(send(world, tcpPacket({ ...fields, df: true, flags: 16, data }), 536).answers.length, 0, 'segments that fit');

  for (const [protocol, packet] of [
    ['TCP', tcpPacket({ ...fields, flags: 24, seq: 0xfffffff0, data })],
    ['UDP', udpPacket({ ...fields, data })],
  ] as const) {
    const pieces = left(send(world, packet, 1448));
    t.ok(
      pieces.every(({ length, headerOk, ttl }) => length <= 576 && headerOk && ttl === 63),
      `${protocol}: pieces`,
    );
    const ids = [...new Set(pieces.map(({ id }) => id))];
    t.same(ids, [0xfffe, 0xffff, 0], 'three segments, numbered on');
    const segments = ids.map((id) => {
      const own = pieces.filter((piece) => piece.id === id);
      const payload = Buffer.alloc(own.reduce((sum, { length }) => sum + length - 20, 0));
      for (const { bytes, fragmentOffset } of own) payload.set(Buffer.from(bytes).subarray(20), fragmentOffset);
      return decodeIp(ipPacket({ src: ORLOCK, dst: KNOCK }, packet[9]!, payload));
    });
    t.ok(
      segments.every(({ checksumOk }) => checksumOk),
      `${protocol}: checksums`,
    );
    t.ok(Buffer.concat(segments.map(({ payload }) => payload)).equals(data), `${protocol}: the data`);
    if (protocol !== 'TCP') continue;
    t.same(
      segments.map(({ tcp }) => [tcp!.seq, tcp!.flags]),
      [
        [0xfffffff0, 'ACK'],
        [1432, 'ACK'],
        [2880, 'PSH,ACK'],
      ],
    );
  }
});
