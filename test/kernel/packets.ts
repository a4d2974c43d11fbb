/**
 * Packets as scenarios describe them, built into bytes, and bytes taken apart for comparison. Written apart from
 * src/dataplane on purpose: a judge trusts nothing that it judges. Addresses are dotted, numbers in host order.
 */

export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
export const ESP = 50;
export const AH = 51;
export const SCTP = 132;
export const UDPLITE = 136;

/** What a packet carries, by protocol. Payloads are Latin-1 text. */
export type Transport =
  | {
      proto: typeof TCP;
      sport: number;
      dport: number;
      seq: number;
      ack: number;
      /** The flag byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32. */
      flags: number;
      window: number;
      /** Hex, a multiple of four bytes. */
      options?: string;
      payload?: string;
    }
  | { proto: typeof UDP; sport: number; dport: number; payload?: string; noSum?: boolean }
  | { proto: typeof ICMP; type: number; code: number; rest: number; payload?: string }
  /** `chunks` in hex, each a multiple of four bytes long. */
  | { proto: typeof SCTP; sport: number; dport: number; tag: number; chunks: string }
  /** Anything else, in hex. */
  | { proto: number; raw: string };

/** What is wrong with a packet, or odd. Applied in this order. */
export interface Oddity {
  /** The transport header's own length field: TCP's data offset in words, UDP's length. */
  headerLength?: number;
  /** Added to the transport checksum: it is as wrong whatever the ports. */
  checksum?: number;
  /** Only so many bytes behind the IP header are sent, and the total length says so. */
  cut?: number;
  /** Written into the IP header's total length as it is. */
  totalLength?: number;
  /** XORed into the IP header's checksum. */
  ipChecksum?: number;
}

export interface PacketSpec {
  src: string;
  dst: string;
  ttl?: number;
  tos?: number;
  id?: number;
  df?: boolean;
  /** The reserved bit of the flags is set. */
  reserved?: boolean;
  /** IP options in hex, a multiple of four bytes. */
  ipOptions?: string;
  l4: Transport;
  odd?: Oddity;
}

/** The Internet checksum's sum, folded, not inverted. */
export function sum16(bytes: Uint8Array, start = 0, end = bytes.length, first = 0): number {
  let sum = first;
  for (let i = start; i < end; i += 2) sum += (bytes[i]! << 8) | (i + 1 < end ? bytes[i + 1]! : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

const addressBytes = (address: string): number[] => address.split('.').map(Number);
export const addressAt = (bytes: Uint8Array, at: number): string => bytes.subarray(at, at + 4).join('.');

/** The pseudo-header's sum of an IP packet whose transport part has `length` bytes. */
const pseudo = (packet: Uint8Array, length: number): number => sum16(packet, 12, 20, packet[9]! + length);

/** Where the transport checksum lies in its header, −1 if the protocol has none that we know. */
export function checksumField(proto: number): number {
  if (proto === TCP) return 16;
  if (proto === UDP || proto === UDPLITE) return 6;
  return proto === ICMP ? 2 : -1;
}

/** CRC-32C, bit by bit (RFC 9260, appendix A). */
function crc32c(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/** The SCTP checksum of a whole packet, as it should be and as it is. */
function sctpSums(packet: Uint8Array, l4: number): [number, number] {
  const copy = Buffer.from(packet.subarray(l4));
  const is = copy.readUInt32LE(8);
  copy.writeUInt32LE(0, 8);
  return [crc32c(copy), is];
}

/** Writes the right transport checksum into a whole packet. */
export function fixTransport(packet: Buffer): void {
  const l4 = (packet[0]! & 15) * 4;
  const field = checksumField(packet[9]!);
  if (packet[9] === SCTP && l4 + 12 <= packet.length) packet.writeUInt32LE(sctpSums(packet, l4)[0], l4 + 8);
  if (field < 0 || l4 + field + 2 > packet.length) return;
  packet.writeUInt16BE(0, l4 + field);
  const first = packet[9] === ICMP ? 0 : pseudo(packet, packet.length - l4);
  const value = ~sum16(packet, l4, packet.length, first) & 0xffff;
  packet.writeUInt16BE(value === 0 && packet[9] === UDP ? 0xffff : value, l4 + field);
}

export function fixHeader(packet: Buffer): void {
  packet.writeUInt16BE(0, 10);
  packet.writeUInt16BE(~sum16(packet, 0, (packet[0]! & 15) * 4) & 0xffff, 10);
}

function transportBytes(l4: Transport): Buffer {
  if ('raw' in l4) return Buffer.from(l4.raw, 'hex');
  if (l4.proto === SCTP) {
    const common = Buffer.alloc(12);
    common.writeUInt16BE(l4.sport, 0);
    common.writeUInt16BE(l4.dport, 2);
    common.writeUInt32BE(l4.tag >>> 0, 4);
    return Buffer.concat([common, Buffer.from(l4.chunks, 'hex')]);
  }
  const payload = Buffer.from(l4.payload ?? '', 'latin1');
  if (l4.proto === TCP) {
    const options = Buffer.from(l4.options ?? '', 'hex');
    const header = Buffer.alloc(20);
    header.writeUInt16BE(l4.sport, 0);
    header.writeUInt16BE(l4.dport, 2);
    header.writeUInt32BE(l4.seq >>> 0, 4);
    header.writeUInt32BE(l4.ack >>> 0, 8);
    header[12] = ((20 + options.length) / 4) << 4;
    header[13] = l4.flags;
    header.writeUInt16BE(l4.window, 14);
    return Buffer.concat([header, options, payload]);
  }
  const header = Buffer.alloc(8);
  if (l4.proto === UDP) {
    header.writeUInt16BE(l4.sport, 0);
    header.writeUInt16BE(l4.dport, 2);
    header.writeUInt16BE(8 + payload.length, 4);
  } else {
    header[0] = l4.type;
    header[1] = l4.code;
    header.writeUInt32BE(l4.rest >>> 0, 4);
  }
  return Buffer.concat([header, payload]);
}

/** The packet's bytes, from the IP header on. */
export function build(spec: PacketSpec): Buffer {
  const { l4, odd = {} } = spec;
  const options = Buffer.from(spec.ipOptions ?? '', 'hex');
  const head = Buffer.alloc(20);
  const transport = transportBytes(l4);
  const start = 20 + options.length;
  head[0] = 0x40 | (start / 4);
  head[1] = spec.tos ?? 0;
  head.writeUInt16BE(start + transport.length, 2);
  head.writeUInt16BE(spec.id ?? 1, 4);
  head.writeUInt16BE((spec.df ? 0x4000 : 0) | (spec.reserved ? 0x8000 : 0), 6);
  head[8] = spec.ttl ?? 64;
  head[9] = l4.proto;
  head.set(addressBytes(spec.src), 12);
  head.set(addressBytes(spec.dst), 16);
  let packet = Buffer.concat([head, options, transport]);
  if (odd.headerLength !== undefined) {
    if (l4.proto === TCP) packet[start + 12] = (odd.headerLength & 15) << 4;
    if (l4.proto === UDP) packet.writeUInt16BE(odd.headerLength & 0xffff, start + 4);
  }
  fixTransport(packet);
  if (l4.proto === UDP && 'noSum' in l4 && l4.noSum) packet.writeUInt16BE(0, start + 6);
  const field = checksumField(l4.proto);
  if (odd.checksum && field >= 0 && start + field + 2 <= packet.length) {
    packet.writeUInt16BE(sum16(packet, start + field, start + field + 2, odd.checksum), start + field);
  }
  if (odd.checksum && l4.proto === SCTP) packet[start + 8]! ^= 1;
  if (odd.cut !== undefined && odd.cut < transport.length) {
    packet = packet.subarray(0, start + odd.cut);
    packet.writeUInt16BE(packet.length, 2);
  }
  if (odd.totalLength !== undefined) packet.writeUInt16BE(odd.totalLength & 0xffff, 2);
  fixHeader(packet);
  if (odd.ipChecksum) packet.writeUInt16BE(packet.readUInt16BE(10) ^ odd.ipChecksum, 10);
  return packet;
}

/**
 * Cuts a packet into fragments of at most `size` payload bytes (a multiple of eight), each of which begins `overlap` bytes (fewer
 * of such) before the end of the one before it.
 */
export function fragment(packet: Buffer, size: number, overlap = 0): Buffer[] {
  const start = (packet[0]! & 15) * 4;
  const pieces: Buffer[] = [];
  for (let at = start, end = 0; end < packet.length; at = end - overlap) {
    end = Math.min(at + size, packet.length);
    const piece = Buffer.concat([packet.subarray(0, start), packet.subarray(at, end)]);
    piece.writeUInt16BE(piece.length, 2);
    const flags = (packet[6]! << 8) & 0x8000;
    piece.writeUInt16BE(((at - start) >> 3) | (end < packet.length ? 0x2000 : 0) | flags, 6);
    fixHeader(piece);
    pieces.push(piece);
  }
  return pieces;
}

/** Who speaks to whom. ICMP queries have their identifier in both ports. */
export interface Ends {
  src: string;
  dst: string;
  sport: number;
  dport: number;
}

const QUERIES = new Set([0, 8, 13, 14, 15, 16, 17, 18]);

/** An ICMP query or its answer, which have an identifier. */
export const isQuery = (l4: Transport | undefined): boolean => l4 !== undefined && 'type' in l4 && QUERIES.has(l4.type);

/** Where a packet's ports begin, 0 if it has none (protocol, fragment, too short). ICMP: its identifier. */
function portsAt(packet: Uint8Array, start: number): number {
  const l4 = start + (packet[start]! & 15) * 4;
  if ((((packet[start + 6]! << 8) | packet[start + 7]!) & 0x1fff) !== 0) return 0;
  const proto = packet[start + 9]!;
  if ((proto === TCP || proto === UDP || proto === SCTP || proto === UDPLITE) && l4 + 4 <= packet.length) return l4;
  if (proto === ICMP && l4 + 6 <= packet.length && QUERIES.has(packet[l4]!)) return l4 + 4;
  return 0;
}

export function endsOf(packet: Buffer, start = 0): Ends {
  const at = portsAt(packet, start);
  const isId = packet[start + 9] === ICMP;
  return {
    src: addressAt(packet, start + 12),
    dst: addressAt(packet, start + 16),
    sport: at === 0 ? 0 : packet.readUInt16BE(at),
    dport: at === 0 ? 0 : packet.readUInt16BE(isId ? at : at + 2),
  };
}

/** A checksum at `field` follows what it covers: the sum was `from` and is `to` (RFC 1624). */
export function follow(packet: Buffer, field: number, from: number, to: number): void {
  if (from === to) return;
  const old = ~packet.readUInt16BE(field) & 0xffff;
  packet.writeUInt16BE(~sum16(packet, 0, 0, old + (~from & 0xffff) + to) & 0xffff, field);
}

/** The packet with other ends; its checksums change by what changed, so that a wrong one stays as wrong as it was. */
export function withEnds(packet: Buffer, ends: Ends, start = 0): Buffer {
  const result = Buffer.from(packet);
  result.set(addressBytes(ends.src), start + 12);
  result.set(addressBytes(ends.dst), start + 16);
  const at = portsAt(packet, start);
  const proto = packet[start + 9]!;
  if (at !== 0) {
    result.writeUInt16BE(ends.sport, at);
    if (proto !== ICMP) result.writeUInt16BE(ends.dport, at + 2);
  }
  follow(result, start + 10, sum16(packet, start + 12, start + 20), sum16(result, start + 12, start + 20));
  const l4 = start + (packet[start]! & 15) * 4;
  if (proto === SCTP) {
    if (start === 0 && l4 + 12 <= packet.length) {
      const [should, is] = sctpSums(packet, l4);
      if (should === is) fixTransport(result);
    }
    return result;
  }
  const field = l4 + checksumField(proto);
  const none = proto === UDP && packet.readUInt16BE(Math.min(field, packet.length - 2)) === 0;
  if (at === 0 || field + 2 > packet.length || none) return result;
  const ports = (bytes: Buffer): number => sum16(bytes, at, proto === ICMP ? at + 2 : at + 4);
  const addresses = (bytes: Buffer): number => (proto === ICMP ? 0 : sum16(bytes, start + 12, start + 20));
  follow(result, field, sum16(packet, 0, 0, ports(packet) + addresses(packet)), ports(result) + addresses(result));
  return result;
}

/** How far checksums are off: 0 = right. `transport` undefined: not to be told (fragment, short, unknown protocol). */
export function wrongness(
  packet: Uint8Array,
  start = 0,
): { header: number; transport: number | undefined; none: boolean } {
  const l4 = start + (packet[start]! & 15) * 4;
  const off = (value: number): number => (value === 0xffff ? 0 : value);
  const header = off(sum16(packet, start, l4));
  const field = checksumField(packet[start + 9]!);
  const fragmented = (((packet[start + 6]! << 8) | packet[start + 7]!) & 0x3fff) !== 0;
  if (packet[start + 9] === SCTP && l4 + 12 <= packet.length && !fragmented) {
    const [should, is] = sctpSums(packet, l4);
    return { header, transport: should === is ? 0 : 1, none: false };
  }
  if (field < 0 || l4 + field + 2 > packet.length || fragmented) return { header, transport: undefined, none: false };
  const none = packet[start + 9] === UDP && packet[l4 + 6] === 0 && packet[l4 + 7] === 0;
  const whole = packet.subarray(start);
  const first = packet[start + 9] === ICMP ? 0 : pseudo(whole, packet.length - l4);
  return { header, transport: none ? 0 : off(sum16(packet, l4, packet.length, first)), none };
}

const FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'];

/** One line for people. */
export function describe(packet: Buffer, start = 0): string {
  if (packet.length < start + 20) return `${packet.length - start} bytes`;
  const ends = endsOf(packet, start);
  const proto = packet[start + 9]!;
  const l4 = start + (packet[start]! & 15) * 4;
  const wrong = wrongness(packet, start);
  const words: string[] = [];
  if (proto === TCP && packet.length >= l4 + 16) {
    const flags = FLAGS.filter((_, i) => packet[l4 + 13]! & (1 << i)).join(',') || 'none';
    words.push(`TCP ${ends.src}:${ends.sport} > ${ends.dst}:${ends.dport} ${flags}`);
    words.push(
      `seq=${packet.readUInt32BE(l4 + 4)} ack=${packet.readUInt32BE(l4 + 8)} win=${packet.readUInt16BE(l4 + 14)}`,
    );
    const data = l4 + (packet[l4 + 12]! >> 4) * 4;
    words.push(`off=${packet[l4 + 12]! >> 4} data=${packet.length - data}`);
    if (data > l4 + 20) words.push(`OPTIONS ${packet.toString('hex', l4 + 20, data)}`);
  } else if (proto === UDP) words.push(`UDP ${ends.src}:${ends.sport} > ${ends.dst}:${ends.dport}`);
  else if (proto === SCTP && packet.length >= l4 + 16) {
    words.push(`SCTP ${ends.src}:${ends.sport} > ${ends.dst}:${ends.dport} chunk=${packet[l4 + 12]}`);
    words.push(`tag=${packet.readUInt32BE(l4 + 4).toString(16)}`);
  } else if (proto === ICMP && packet.length >= l4 + 8) {
    words.push(`ICMP ${ends.src} > ${ends.dst} type=${packet[l4]} code=${packet[l4 + 1]}`);
    words.push(`rest=${packet.readUInt32BE(l4 + 4).toString(16)}`);
  } else words.push(`proto ${proto} ${ends.src} > ${ends.dst}`);
  words.push(`len=${packet.length - start} ttl=${packet[start + 8]} tos=${packet[start + 1]!.toString(16)}`);
  words.push(`id=${packet.readUInt16BE(start + 4)} frag=${packet.readUInt16BE(start + 6).toString(16)}`);
  if (wrong.header !== 0 && start === 0) words.push('IPSUM!');
  if (wrong.transport) words.push(`SUM!${wrong.transport.toString(16)}`);
  if (isError(packet, start) && packet.length >= l4 + 28) words.push(`[about ${describe(packet, l4 + 8)}]`);
  return words.join(' ');
}

/** An ICMP error, which quotes a packet. */
export function isError(packet: Buffer, start = 0): boolean {
  const l4 = start + (packet[start]! & 15) * 4;
  const fragmented = (packet.readUInt16BE(start + 6) & 0x1fff) !== 0;
  return packet[start + 9] === ICMP && !fragmented && packet.length > l4 && [3, 4, 5, 11, 12].includes(packet[l4]!);
}
