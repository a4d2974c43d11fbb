import t from 'tap';
import { InFlag } from '../../src/dataplane/io/batch.js';
import { Manip, Proto } from '../../src/dataplane/names.js';
import { rewrite, rewriteHeader, setTcpU32, setTos, setTtl } from '../../src/dataplane/nat/rewrite.js';
import { Packet } from '../../src/dataplane/packet.js';
import { setU16, u16, u32 } from '../../src/dataplane/wire/bytes.js';
import { pseudoSum, sum } from '../../src/dataplane/wire/checksum.js';
import { crc32c } from '../../src/dataplane/wire/crc32c.js';
import { ROOM, ip, packet, packetBytes, random, slowCrc32c, wrongPacket, type Fields } from './packets.js';

const PROTOCOLS = [Proto.TCP, Proto.UDP, Proto.UDPLITE, Proto.SCTP, Proto.ICMP, Proto.GRE, 99] as const;

function randomFields(next: () => number, protocol: number): Fields {
  return {
    protocol,
    src: next() | 0,
    dst: next() | 0,
    sport: next() & 0xffff,
    dport: next() & 0xffff,
    type: 8,
    rest: next() | 0,
    seq: next() | 0,
    ack: next() | 0,
    ipOptions: new Uint8Array((next() % 4) * 4).fill(1),
    options: new Uint8Array((next() % 6) * 4).fill(1),
    payload: Uint8Array.from({ length: next() % 60 }, () => next() & 0xff),
  };
}

t.test('CRC32c: RFC 3720 B.4’s vectors', (t) => {
  t.equal(~crc32c(new Uint8Array(32), 0, 32, -1), 0x8a9136aa | 0);
  t.equal(~crc32c(new Uint8Array(32).fill(255), 0, 32, -1), 0x62a8ab43);
  const text = new TextEncoder().encode('123456789');
  t.equal(~crc32c(text, 0, 9, -1), 0xe3069283 | 0);
  t.equal(slowCrc32c(text), 0x839206e3 | 0, 'and the slow twin, as SCTP orders its bytes');
  t.end();
});

t.test('every protocol, both sides: fields, bytes and checksums', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  for (let round = 0; round < 4000; round++) {
    const protocol = PROTOCOLS[round % PROTOCOLS.length]!;
    const fields = randomFields(next, protocol);
    if (protocol === Proto.GRE) fields.payload = Uint8Array.of(0, 0, 8, 0, 1, 2, 3, 4);
    const p = packet(fields);
    if (wrongPacket(p) !== '') t.fail(`the test's own packet: ${wrongPacket(p)}`);
    const manip = round & 8 ? Manip.DST : Manip.SRC;
    const address = next() | 0;
    const port = next() & 0xffff;
    const where = `seed ${seed} round ${round} protocol ${protocol}`;
    if (!rewrite(p, manip, address, port)) t.fail(`${where}: refused`);
    if (wrongPacket(p) !== '') t.fail(`${where}: ${wrongPacket(p)}`);
    const again = new Packet();
    again.parse(p.bytes, p.start, p.end);
    for (const key of ['src', 'dst', 'sport', 'dport', 'ttl', 'tos', 'length', 'l4Length'] as const)
      if (again[key] !== p[key]) t.fail(`${where}: ${key} is ${p[key]}, the bytes say ${again[key]}`);
    const expected: Fields = { ...fields };
    if (manip === Manip.SRC) expected.src = address;
    else expected.dst = address;
    if (p.hasPorts) expected[manip === Manip.SRC ? 'sport' : 'dport'] = port;
    if (protocol === Proto.ICMP) expected.rest = (port << 16) | (fields.rest! & 0xffff);
    // Beside checksums that have two ways to say zero, the packet is the one that would have been sent so.
    const made = packetBytes(expected);
    const got = p.bytes.subarray(p.start, p.end);
    let different = 0;
    for (let i = 0; i < made.length; i++) if (made[i] !== got[i]) different++;
    if (different > 4) t.fail(`${where}: ${different} bytes differ from the packet made anew`);
    if (p.changed !== 1) t.fail(`${where}: changed not set`);
  }
  t.pass(`seed ${seed}`);
  t.end();
});

t.test('UDP: no checksum stays none, a computed 0 goes out as 0xffff', (t) => {
  const none = packet({ protocol: Proto.UDP, src: 1, dst: 2, sport: 3, dport: 4, noChecksum: true });
  t.ok(rewrite(none, Manip.SRC, ip('10.0.0.1'), 99));
  t.equal(u16(none.bytes, none.l4 + 6), 0);
  // Choose the port so that the new sum is 0xffff, whose complement is 0.
  const p = packet({ protocol: Proto.UDP, src: 1, dst: 2, sport: 0, dport: 4 });
  const before = ~u16(p.bytes, p.l4 + 6) & 0xffff;
  t.ok(rewrite(p, Manip.SRC, 1, 0xffff - before));
  t.equal(u16(p.bytes, p.l4 + 6), 0xffff);
  t.equal(wrongPacket(p), '');
  // UDP-Lite always has one (RFC 3828 §3.1): even a field of 0 is updated.
  const lite = packet({ protocol: Proto.UDPLITE, src: 1, dst: 2, sport: 3, dport: 4 });
  setU16(lite.bytes, lite.l4 + 6, 0);
  t.ok(rewrite(lite, Manip.SRC, 1, 0x103));
  t.equal(u16(lite.bytes, lite.l4 + 6), 0xfeff);
  t.end();
});

t.test('a checksum that the device will fill in is left alone, except SCTP’s', (t) => {
  for (const protocol of [Proto.TCP, Proto.UDP]) {
    const p = packet({ protocol, src: ip('10.1.2.3'), dst: ip('10.4.5.6'), sport: 1000, dport: 80 });
    const at = p.l4 + (protocol === Proto.TCP ? 16 : 6);
    const pseudo = pseudoSum(p.src, p.dst, protocol, p.l4Length);
    setU16(p.bytes, at, pseudo);
    p.flags = InFlag.CSUM_PARTIAL;
    t.ok(rewrite(p, Manip.SRC, ip('1.2.3.4'), 2000));
    t.equal(u16(p.bytes, at), pseudo, `protocol ${protocol}`);
    t.equal(p.sport, 2000);
    t.equal(sum(p.bytes, p.start, p.start + 20), 0xffff, 'the IP header has its checksum');
  }
  const sctp = packet({ protocol: Proto.SCTP, src: 1, dst: 2, sport: 3, dport: 4, payload: new Uint8Array(16) });
  sctp.bytes.fill(0, sctp.l4 + 8, sctp.l4 + 12);
  sctp.flags = InFlag.CSUM_PARTIAL;
  t.ok(rewrite(sctp, Manip.DST, 5, 6));
  t.equal(wrongPacket(sctp), '');
  t.end();
});

t.test('ICMP: only queries and their answers have an identifier', (t) => {
  for (let type = 0; type < 20; type++) {
    const p = packet({ protocol: Proto.ICMP, src: 1, dst: 2, type, rest: 0x11223344 });
    t.ok(rewrite(p, Manip.SRC, 3, 0xabcd));
    const has = [0, 8, 13, 14, 15, 16, 17, 18].includes(type);
    t.equal(u32(p.bytes, p.l4 + 4), has ? 0xabcd3344 | 0 : 0x11223344, `type ${type}`);
    t.equal(wrongPacket(p), '');
  }
  t.end();
});

t.test('GRE: version 1 has the destination’s call id, unknown versions are refused', (t) => {
  const greBytes = (version: number): Uint8Array => {
    const b = packetBytes({ protocol: 99, src: 1, dst: 2 });
    const whole = new Uint8Array(28);
    whole.set(b);
    whole[9] = Proto.GRE;
    setU16(whole, 2, 28);
    setU16(whole, 20, 0x2000 | version);
    setU16(whole, 22, 0x880b);
    setU16(whole, 26, 7);
    setU16(whole, 10, 0);
    setU16(whole, 10, ~sum(whole, 0, 20) & 0xffff);
    return whole;
  };
  const gre = (version: number): Packet => packet(greBytes(version));
  const enhanced = gre(1);
  t.ok(rewrite(enhanced, Manip.DST, 9, 0x1234));
  t.equal(u16(enhanced.bytes, enhanced.l4 + 6), 0x1234);
  t.equal(wrongPacket(enhanced), '');
  const source = gre(1);
  t.ok(rewrite(source, Manip.SRC, 9, 0x1234));
  t.equal(u16(source.bytes, source.l4 + 6), 7);
  const plain = gre(0);
  t.ok(rewrite(plain, Manip.DST, 9, 0x1234));
  t.equal(u16(plain.bytes, plain.l4 + 6), 7);
  t.notOk(rewrite(gre(2), Manip.DST, 9, 1));
  t.ok(rewrite(gre(2), Manip.SRC, 9, 1));
  t.end();
});

t.test('DCCP has no tracker any more: the address alone changes', (t) => {
  const p = packet({ protocol: Proto.DCCP, src: 1, dst: 2, sport: 3, dport: 4 });
  const before = p.bytes.slice(p.l4, p.end);
  t.ok(rewrite(p, Manip.SRC, 9, 0));
  t.same(p.bytes.slice(p.l4, p.end), before);
  t.same([p.src, p.sport, p.dport], [9, 3, 4]);
  t.end();
});

t.test('cut short: refused with nothing changed, or rewritten without a checksum', (t) => {
  const whole = packetBytes({ protocol: Proto.TCP, src: 1, dst: 2, sport: 3, dport: 4 });
  for (const [protocol, least] of [
    [Proto.TCP, 8],
    [Proto.UDP, 8],
    [Proto.UDPLITE, 8],
    [Proto.SCTP, 8],
    [Proto.ICMP, 8],
    [Proto.GRE, 8],
  ] as const) {
    const b = whole.slice();
    b[9] = protocol;
    if (protocol === Proto.ICMP) b[20] = 8;
    if (protocol === Proto.GRE) b.fill(0, 20);
    const before = b.slice();
    t.notOk(rewriteHeader(b, 0, 20 + least - 1, protocol, Manip.SRC, 9, 10, false), `protocol ${protocol}`);
    t.same(b, before);
    t.ok(rewriteHeader(b, 0, 20 + least, protocol, Manip.SRC, 9, 10, false));
    t.equal(u32(b, 12), 9);
  }
  const quoted = whole.slice(0, 28);
  const full = whole.slice();
  t.ok(rewriteHeader(quoted, 0, 28, Proto.TCP, Manip.DST, 9, 10, false));
  t.equal(u16(quoted, 22), 10);
  t.ok(rewriteHeader(full, 0, 40, Proto.TCP, Manip.DST, 9, 10, false));
  t.not(u16(full, 36), u16(whole, 36), 'with twenty bytes there is a checksum to keep');
  t.notOk(rewriteHeader(whole, 0, 19, Proto.TCP, Manip.DST, 9, 10, false));
  t.end();
});

t.test('TOS, TTL and TCP numbers keep their checksums', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  for (let round = 0; round < 2000; round++) {
    const p = packet(randomFields(next, Proto.TCP));
    const tos = next() & 255;
    const ttl = next() & 255;
    setTos(p, tos);
    setTtl(p, ttl);
    setTcpU32(p, p.l4 + 4, next() | 0);
    setTcpU32(p, p.l4 + 8, next() | 0);
    if (p.l4Length > 26) setTcpU32(p, p.l4 + 21, next() | 0);
    if (wrongPacket(p) !== '') t.fail(`seed ${seed} round ${round}: ${wrongPacket(p)}`);
    if (p.bytes[p.start + 1] !== tos || p.tos !== tos || p.bytes[p.start + 8] !== ttl || p.ttl !== ttl)
      t.fail(`seed ${seed} round ${round}: not what was set`);
  }
  const same = packet({ protocol: Proto.UDP, src: 1, dst: 2, ttl: 7 });
  setTtl(same, 7);
  setTos(same, 0);
  t.equal(same.changed, 0, 'setting what is there changes nothing');
  t.equal(same.start, ROOM);
  t.end();
});
