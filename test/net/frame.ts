/**
 * Packets as tests see them: captured Ethernet frames decoded into plain objects, and packets built from such. Written
 * apart from src/dataplane/wire on purpose, so that the tests don't trust what they test. Host order, addresses dotted.
 */

export interface Ip {
  src: string;
  dst: string;
  proto: number;
  ttl: number;
  tos: number;
  id: number;
  /** Total length from the header, bytes. */
  length: number;
  df: boolean;
  mf: boolean;
  /** In bytes. */
  fragmentOffset: number;
  headerOk: boolean;
  sport?: number;
  dport?: number;
  tcp?: { flags: string; seq: number; ack: number; window: number };
  icmp?: { type: number; code: number; rest: number; quote: Uint8Array };
  /** Transport payload (after TCP's options or the 8 bytes of UDP and ICMP). */
  payload: Uint8Array;
  /** Whether the transport checksum is right (a UDP checksum of 0 counts as right). */
  checksumOk: boolean;
  /** The packet's bytes from the IP header to its total length. */
  bytes: Uint8Array;
}

const ETHERNET_LEN = 14;
const ETHERTYPE_IPV4 = 0x0800;
export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
const TCP_FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'];

/** The Internet checksum of some byte strings one after the other (all but the last of even length). */
export function checksum(...parts: Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) for (let i = 0; i < part.length; i++) sum += part[i]! << (i % 2 === 0 ? 8 : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

const dotted = (bytes: Buffer, at: number): string => bytes.subarray(at, at + 4).join('.');

function pseudo(packet: Buffer, proto: number, length: number): Buffer {
  return Buffer.concat([packet.subarray(12, 20), Buffer.from([0, proto, length >> 8, length & 0xff])]);
}

/** Decodes an Ethernet frame; undefined if it isn't IPv4. */
export function decodeFrame(frame: Uint8Array): Ip | undefined {
  const buffer = Buffer.from(frame.buffer, frame.byteOffset, frame.length);
  if (buffer.length < ETHERNET_LEN + 20 || buffer.readUInt16BE(12) !== ETHERTYPE_IPV4) return undefined;
  return decodeIp(buffer.subarray(ETHERNET_LEN));
}

/** Decodes an IPv4 packet; trailing bytes beyond its length are ignored. */
export function decodeIp(bytes: Uint8Array): Ip {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const length = all.readUInt16BE(2);
  const b = all.subarray(0, length);
  const headerLength = (b[0]! & 15) * 4;
  const fragment = b.readUInt16BE(6);
  const proto = b[9]!;
  const l4 = b.subarray(headerLength);
  const ip: Ip = {
    src: dotted(b, 12),
    dst: dotted(b, 16),
    proto,
    ttl: b[8]!,
    tos: b[1]!,
    id: b.readUInt16BE(4),
    length,
    df: (fragment & 0x4000) !== 0,
    mf: (fragment & 0x2000) !== 0,
    fragmentOffset: (fragment & 0x1fff) * 8,
    headerOk: checksum(b.subarray(0, headerLength)) === 0,
    payload: l4,
    checksumOk: false,
    bytes: b,
  };
  if (ip.fragmentOffset !== 0) return ip;
  if ((proto === TCP || proto === UDP) && l4.length >= 8) {
    ip.sport = l4.readUInt16BE(0);
    ip.dport = l4.readUInt16BE(2);
    ip.checksumOk = checksum(pseudo(b, proto, l4.length), l4) === 0 || (proto === UDP && l4.readUInt16BE(6) === 0);
  }
  if (proto === TCP && l4.length >= 20) {
    ip.tcp = {
      flags: TCP_FLAGS.filter((_, bit) => l4[13]! & (1 << bit)).join(','),
      seq: l4.readUInt32BE(4),
      ack: l4.readUInt32BE(8),
      window: l4.readUInt16BE(14),
    };
    ip.payload = l4.subarray((l4[12]! >> 4) * 4);
  } else if (proto === UDP) ip.payload = l4.subarray(8);
  else if (proto === ICMP && l4.length >= 8) {
    ip.icmp = { type: l4[0]!, code: l4[1]!, rest: l4.readUInt32BE(4), quote: l4.subarray(8) };
    ip.payload = l4.subarray(8);
    ip.checksumOk = checksum(l4) === 0;
  }
  return ip;
}

export interface IpFields {
  src: string;
  dst: string;
  ttl?: number;
  tos?: number;
  id?: number;
  df?: boolean;
  mf?: boolean;
  /** In bytes, a multiple of 8. */
  fragmentOffset?: number;
}

/** An IPv4 packet around a transport segment. */
export function ipPacket(fields: IpFields, proto: number, segment: Uint8Array): Uint8Array {
  const b = Buffer.alloc(20 + segment.length);
  b[0] = 0x45;
  b[1] = fields.tos ?? 0;
  b.writeUInt16BE(b.length, 2);
  b.writeUInt16BE(fields.id ?? 0x4242, 4);
  b.writeUInt16BE((fields.df ? 0x4000 : 0) | (fields.mf ? 0x2000 : 0) | ((fields.fragmentOffset ?? 0) >> 3), 6);
  b[8] = fields.ttl ?? 64;
  b[9] = proto;
  Buffer.from(fields.src.split('.').map(Number)).copy(b, 12);
  Buffer.from(fields.dst.split('.').map(Number)).copy(b, 16);
  b.writeUInt16BE(checksum(b.subarray(0, 20)), 10);
  b.set(segment, 20);
  return b;
}

/** A UDP datagram with its checksum. */
export function udpPacket(fields: IpFields & { sport: number; dport: number; data?: Uint8Array }): Uint8Array {
  const data = fields.data ?? Buffer.from('hello');
  const segment = Buffer.alloc(8 + data.length);
  segment.writeUInt16BE(fields.sport, 0);
  segment.writeUInt16BE(fields.dport, 2);
  segment.writeUInt16BE(segment.length, 4);
  segment.set(data, 8);
  const packet = Buffer.from(ipPacket(fields, UDP, segment));
  packet.writeUInt16BE(checksum(pseudo(packet, UDP, segment.length), segment) || 0xffff, 26);
  return packet;
}

/** A TCP segment without options. `flags` as a bit set, FIN 1, SYN 2, RST 4, PSH 8, ACK 16. */
export function tcpPacket(
  fields: IpFields & { sport: number; dport: number; flags: number; seq?: number; ack?: number; data?: Uint8Array },
): Uint8Array {
  const data = fields.data ?? new Uint8Array(0);
  const segment = Buffer.alloc(20 + data.length);
  segment.writeUInt16BE(fields.sport, 0);
  segment.writeUInt16BE(fields.dport, 2);
  segment.writeUInt32BE(fields.seq ?? 1000, 4);
  segment.writeUInt32BE(fields.ack ?? 0, 8);
  segment[12] = 5 << 4;
  segment[13] = fields.flags;
  segment.writeUInt16BE(64240, 14);
  segment.set(data, 20);
  const packet = Buffer.from(ipPacket(fields, TCP, segment));
  packet.writeUInt16BE(checksum(pseudo(packet, TCP, segment.length), segment), 36);
  return packet;
}

/** An ICMP echo request. */
export function echoPacket(fields: IpFields & { ident?: number; seq?: number; data?: Uint8Array }): Uint8Array {
  const data = fields.data ?? Buffer.from('abcdefghijklmnopqrstuvwxyz012345');
  const segment = Buffer.alloc(8 + data.length);
  segment[0] = 8;
  segment.writeUInt16BE(fields.ident ?? 7, 4);
  segment.writeUInt16BE(fields.seq ?? 1, 6);
  segment.set(data, 8);
  segment.writeUInt16BE(checksum(segment), 2);
  return ipPacket(fields, ICMP, segment);
}

/** An ICMP message of any kind; `rest` is what follows its checksum. */
export function icmpPacket(fields: IpFields, type: number, code: number, rest: Uint8Array): Uint8Array {
  const segment = Buffer.concat([Buffer.of(type, code, 0, 0), rest]);
  segment.writeUInt16BE(checksum(segment), 2);
  return ipPacket(fields, ICMP, segment);
}
