/**
 * Changing addresses, ports and header bytes of a packet: bytes, checksums and Packet fields together (kernel:
 * net/netfilter/nf_nat_proto.c). Checksums are updated incrementally (RFC 1624). A transport checksum that its device
 * is yet to fill in (InFlag.CSUM_PARTIAL) is left alone; SCTP's is computed even then, as no device does it for us.
 *
 * `rewriteHeader` works on any IPv4 header in the bytes, so that packets quoted in ICMP errors go the same way; they may
 * end after 8 bytes of transport header, and then have no checksum to keep. Protocols that the kernel has no tracker for
 * (DCCP since 6.17) keep their transport header as it is.
 */
import { InFlag } from '../io/batch.js';
import { Manip, Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, setU32, u16, u32, u8 } from '../wire/bytes.js';
import { update16, update32 } from '../wire/checksum.js';
import { sctpChecksum } from '../wire/crc32c.js';

// IPv4 header (RFC 791).
const TOS_WORD = 0;
const FLAGS_WORD = 6;
const RESERVED = 0x8000;
const TTL_WORD = 8;
const HEADER_CHECKSUM = 10;
const SOURCE = 12;
const DESTINATION = SOURCE + 4;
const MIN_HEADER = DESTINATION + 4;

// All protocols with ports have them first.
const SOURCE_PORT = 0;
const DESTINATION_PORT = SOURCE_PORT + 2;
/** What an ICMP error quotes at least (RFC 792). */
const QUOTED = 8;

const TCP_CHECKSUM = 16;
const TCP_HEADER = 20;
const UDP_CHECKSUM = 6;
const UDP_HEADER = 8;
const SCTP_CHECKSUM = 8;
const SCTP_HEADER = 12;
const ICMP_CHECKSUM = 2;
const ICMP_ID = 4;
const ICMP_HEADER = 8;
const GRE_VERSION = 0x0007;
const GRE_CALL_ID = 6;
const GRE_HEADER = 8;

/** Whether this ICMP type carries an identifier (RFC 792, RFC 950): queries and their answers. */
function icmpHasId(type: number): boolean {
  switch (type) {
    case 0: // echo reply
    case 8: // echo
    case 13: // timestamp
    case 14: // timestamp reply
    case 15: // information request
    case 16: // information reply
    case 17: // address mask
    case 18: // address mask reply
      return true;
    default:
      return false;
  }
}

/**
 * Gives the packet's source (Manip.SRC) or destination (Manip.DST) a new address and port, keeping every checksum.
 * `port` is the ICMP identifier for ICMP queries, the call id for enhanced GRE, and unused for protocols without ports.
 * Returns false, with nothing changed, when the packet is too short for that: it is to be dropped.
 */
export function rewrite(p: Packet, manip: Manip, address: number, port: number): boolean {
  const partial = (p.flags & InFlag.CSUM_PARTIAL) !== 0;
  if (!rewriteHeader(p.bytes, p.start, p.end, p.protocol, manip, address, port, partial)) return false;
  if (manip === Manip.SRC) {
    p.src = address;
    if (p.hasPorts !== 0 && p.protocol !== Proto.DCCP) p.sport = port;
  } else {
    p.dst = address;
    if (p.hasPorts !== 0 && p.protocol !== Proto.DCCP) p.dport = port;
  }
  p.changed = 1;
  return true;
}

/**
 * The same for the IPv4 header at `ip` whose packet ends before `end`, taken as one of `protocol`; `partial`: its
 * transport checksum isn't filled in. Returns false, with nothing changed, when it is too short.
 */
export function rewriteHeader(
  bytes: Uint8Array,
  ip: number,
  end: number,
  protocol: number,
  manip: Manip,
  address: number,
  port: number,
  partial: boolean,
): boolean {
  if (ip + MIN_HEADER > end) return false;
  const l4 = ip + ((u8(bytes, ip) & 15) << 2);
  const field = ip + (manip === Manip.SRC ? SOURCE : DESTINATION);
  const from = u32(bytes, field);
  const portAt = l4 + (manip === Manip.SRC ? SOURCE_PORT : DESTINATION_PORT);
  switch (protocol) {
    case Proto.TCP: {
      if (l4 + QUOTED > end) return false;
      if (l4 + TCP_HEADER <= end && !partial)
        replace(bytes, l4 + TCP_CHECKSUM, from, address, u16(bytes, portAt), port);
      setU16(bytes, portAt, port);
      break;
    }
    case Proto.UDP:
    case Proto.UDPLITE: {
      if (l4 + UDP_HEADER > end) return false;
      const at = l4 + UDP_CHECKSUM;
      // 0 says that a UDP sender made no checksum (RFC 768); UDP-Lite knows no such thing (RFC 3828).
      if (!partial && (u16(bytes, at) !== 0 || protocol === Proto.UDPLITE)) {
        replace(bytes, at, from, address, u16(bytes, portAt), port);
        if (u16(bytes, at) === 0) setU16(bytes, at, 0xffff);
      }
      setU16(bytes, portAt, port);
      break;
    }
    case Proto.SCTP: {
      if (l4 + QUOTED > end) return false;
      setU16(bytes, portAt, port);
      if (l4 + SCTP_HEADER <= end) setU32(bytes, l4 + SCTP_CHECKSUM, sctpChecksum(bytes, l4, end));
      break;
    }
    case Proto.ICMP: {
      if (l4 + ICMP_HEADER > end) return false;
      if (!icmpHasId(u8(bytes, l4))) break;
      const at = l4 + ICMP_CHECKSUM;
      setU16(bytes, at, update16(u16(bytes, at), u16(bytes, l4 + ICMP_ID), port));
      setU16(bytes, l4 + ICMP_ID, port);
      break;
    }
    case Proto.GRE: {
      if (l4 + GRE_HEADER > end) return false;
      // Only the destination's call id is in the header, and only in version 1 (RFC 2637); later ones nobody knows.
      if (manip !== Manip.DST) break;
      const version = u16(bytes, l4) & GRE_VERSION;
      if (version > 1) return false;
      if (version === 1) setU16(bytes, l4 + GRE_CALL_ID, port);
      break;
    }
  }
  const checksum = ip + HEADER_CHECKSUM;
  setU16(bytes, checksum, update32(u16(bytes, checksum), from, address));
  setU32(bytes, field, address);
  return true;
}

/** Updates the checksum at `at` for an address of the pseudo-header and a port. */
function replace(bytes: Uint8Array, at: number, from: number, to: number, fromPort: number, toPort: number): void {
  setU16(bytes, at, update16(update32(u16(bytes, at), from, to), fromPort, toPort));
}

/** Changes the type-of-service byte (RFC 791; DSCP and ECN, RFC 2474, RFC 3168) with the header checksum. */
export function setTos(p: Packet, tos: number): void {
  if (p.tos === tos) return;
  setHeaderWord(p, TOS_WORD, (u8(p.bytes, p.start) << 8) | tos);
  p.tos = tos;
}

/** Changes the time to live with the header checksum. */
export function setTtl(p: Packet, ttl: number): void {
  if (p.ttl === ttl) return;
  setHeaderWord(p, TTL_WORD, (ttl << 8) | p.protocol);
  p.ttl = ttl;
}

/**
 * Writes the record's TTL into the header, for who reads bytes: between FORWARD and the end of its way it is one less than
 * theirs. The kernel takes that step again itself, so the bytes don't go back for its sake.
 */
export function showTtl(p: Packet): void {
  if (u8(p.bytes, p.start + TTL_WORD) === p.ttl) return;
  const { changed } = p;
  setHeaderWord(p, TTL_WORD, (p.ttl << 8) | p.protocol);
  p.changed = changed;
}

/** Sets or clears the reserved bit of the header's flags. */
export function setReserved(p: Packet, on: boolean): void {
  const flags = u16(p.bytes, p.start + FLAGS_WORD);
  setHeaderWord(p, FLAGS_WORD, on ? flags | RESERVED : flags & ~RESERVED);
}

function setHeaderWord(p: Packet, offset: number, value: number): void {
  const bytes = p.bytes;
  const at = p.start + offset;
  const checksum = p.start + HEADER_CHECKSUM;
  setU16(bytes, checksum, update16(u16(bytes, checksum), u16(bytes, at), value));
  setU16(bytes, at, value);
  p.changed = 1;
}

/** Changes a 32-bit number at `at` of the TCP header, anywhere in it, with the TCP checksum. */
export function setTcpU32(p: Packet, at: number, value: number): void {
  const bytes = p.bytes;
  const from = u32(bytes, at);
  if (from === value) return;
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0) {
    const checksum = p.l4 + TCP_CHECKSUM;
    // At an odd place the bytes weigh the other way round (RFC 1071 §2 B).
    const odd = ((at - p.l4) & 1) !== 0;
    setU16(bytes, checksum, update32(u16(bytes, checksum), odd ? rotate8(from) : from, odd ? rotate8(value) : value));
  }
  setU32(bytes, at, value);
  p.changed = 1;
}

const rotate8 = (x: number): number => (x << 8) | (x >>> 24);
