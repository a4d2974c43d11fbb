/** Makes and judges packets for the nat tests: checksums are summed anew here, never updated. */
import { HEADROOM } from '../../src/dataplane/io/batch.js';
import { Packet, ParseError } from '../../src/dataplane/packet.js';
import { Proto } from '../../src/dataplane/names.js';
import { setU16, setU32, u16, u32 } from '../../src/dataplane/wire/bytes.js';
import { headerChecksum, pseudoSum, sum } from '../../src/dataplane/wire/checksum.js';

/** Room before and after a packet, as in a batch's slot. */
export const ROOM = HEADROOM;

/** A 32-bit xorshift, so that a failing run can be repeated by its seed. */
export function random(seed: number): () => number {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

export const ip = (text: string): number => text.split('.').reduce((sum, part) => (sum << 8) | Number(part), 0);
export const text = (address: number): string => [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');

export interface Fields {
  protocol: number;
  src: number;
  dst: number;
  sport?: number;
  dport?: number;
  /** ICMP type and code. */
  type?: number;
  code?: number;
  /** ICMP or ICMP error's second word; echo: id << 16 | sequence. */
  rest?: number;
  seq?: number;
  ack?: number;
  flags?: number;
  /** TCP options, a multiple of 4 bytes. */
  options?: Uint8Array;
  /** IP options, a multiple of 4 bytes. */
  ipOptions?: Uint8Array;
  payload?: Uint8Array;
  /** UDP: send no checksum. */
  noChecksum?: boolean;
  ttl?: number;
}

/** CRC32c bit by bit (RFC 9260 appendix A), the slow twin of wire/crc32c.ts; the number as SCTP's header holds it. */
export function slowCrc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  crc = ~crc;
  return new DataView(Uint8Array.of(crc, crc >> 8, crc >> 16, crc >> 24).buffer).getInt32(0);
}

/** The transport header and payload, checksum field still 0, and where that field is (−1 = none). */
function transport(f: Fields): [Uint8Array, number] {
  const payload = f.payload ?? new Uint8Array(0);
  const make = (header: number, checksum: number): [Uint8Array, number] => {
    const b = new Uint8Array(header + payload.length);
    b.set(payload, header);
    return [b, checksum];
  };
  const ports = (b: Uint8Array): void => {
    setU16(b, 0, f.sport ?? 0);
    setU16(b, 2, f.dport ?? 0);
  };
  switch (f.protocol) {
    case Proto.TCP: {
      const options = f.options ?? new Uint8Array(0);
      const header = 20 + options.length;
      const [b, at] = make(header, 16);
      ports(b);
      setU32(b, 4, f.seq ?? 0);
      setU32(b, 8, f.ack ?? 0);
      b[12] = (header >> 2) << 4;
      b[13] = f.flags ?? 0x10;
      setU16(b, 14, 0xfaf0);
      b.set(options, 20);
      return [b, at];
    }
    case Proto.UDP:
    case Proto.UDPLITE: {
      const [b, at] = make(8, f.noChecksum ? -1 : 6);
      ports(b);
      setU16(b, 4, f.protocol === Proto.UDP ? b.length : 0);
      return [b, at];
    }
    case Proto.SCTP: {
      const [b] = make(12, -1);
      ports(b);
      setU32(b, 8, slowCrc32c(b));
      return [b, -1];
    }
    case Proto.DCCP: {
      const [b, at] = make(12, 6);
      ports(b);
      b[4] = 3;
      return [b, at];
    }
    case Proto.ICMP: {
      const [b, at] = make(8, 2);
      b[0] = f.type ?? 8;
      b[1] = f.code ?? 0;
      setU32(b, 4, f.rest ?? 0);
      return [b, at];
    }
    default:
      return make(0, -1);
  }
}

/** The bytes of an IPv4 packet with all its checksums right. */
export function packetBytes(f: Fields): Uint8Array {
  const [l4, checksum] = transport(f);
  const options = f.ipOptions ?? new Uint8Array(0);
  const headerLength = 20 + options.length;
  const b = new Uint8Array(headerLength + l4.length);
  b[0] = 0x40 | (headerLength >> 2);
  setU16(b, 2, b.length);
  setU16(b, 4, 0x1234);
  setU16(b, 6, 0x4000);
  b[8] = f.ttl ?? 64;
  b[9] = f.protocol;
  setU32(b, 12, f.src);
  setU32(b, 16, f.dst);
  b.set(options, 20);
  setU16(b, 10, headerChecksum(b, 0, headerLength));
  b.set(l4, headerLength);
  if (checksum >= 0) {
    const pseudo = f.protocol === Proto.ICMP ? 0 : pseudoSum(f.src, f.dst, f.protocol, l4.length);
    const value = ~sum(b, headerLength, b.length, pseudo) & 0xffff;
    const udp = f.protocol === Proto.UDP || f.protocol === Proto.UDPLITE;
    setU16(b, headerLength + checksum, udp && value === 0 ? 0xffff : value);
  }
  return b;
}

/** A Packet over those bytes, with room around them. */
export function packet(f: Fields | Uint8Array): Packet {
  const made = f instanceof Uint8Array ? f : packetBytes(f);
  const bytes = new Uint8Array(ROOM + made.length + ROOM);
  bytes.set(made, ROOM);
  const p = new Packet();
  const error = p.parse(bytes, ROOM, ROOM + made.length);
  if (error !== ParseError.NONE) throw new Error(`parse error ${error}`);
  p.flags = 0;
  return p;
}

/** What is wrong with the packet in b[start, end), '' = nothing; quoted packets (in ICMP errors) only by header. */
export function wrong(b: Uint8Array, start: number, end: number): string {
  const headerLength = (b[start]! & 15) << 2;
  if (u16(b, start + 2) !== end - start) return `total length ${u16(b, start + 2)}, is ${end - start}`;
  if (u16(b, start + 10) !== headerChecksum(b, start, headerLength)) return 'IP header checksum';
  const l4 = start + headerLength;
  const protocol = b[start + 9]!;
  const pseudo = pseudoSum(u32(b, start + 12), u32(b, start + 16), protocol, end - l4);
  switch (protocol) {
    case Proto.TCP:
    case Proto.DCCP:
      return sum(b, l4, end, pseudo) === 0xffff ? '' : 'checksum';
    case Proto.UDP:
      if (u16(b, l4 + 4) !== end - l4) return 'UDP length';
      return u16(b, l4 + 6) === 0 || sum(b, l4, end, pseudo) === 0xffff ? '' : 'UDP checksum';
    case Proto.UDPLITE:
      return u16(b, l4 + 6) !== 0 && sum(b, l4, end, pseudo) === 0xffff ? '' : 'UDP-Lite checksum';
    case Proto.SCTP: {
      const copy = b.slice(l4, end);
      setU32(copy, 8, 0);
      return u32(b, l4 + 8) === slowCrc32c(copy) ? '' : 'SCTP checksum';
    }
    case Proto.ICMP:
      return sum(b, l4, end) === 0xffff ? '' : 'ICMP checksum';
    default:
      return '';
  }
}

export const wrongPacket = (p: Packet): string => wrong(p.bytes, p.start, p.end);
