/**
 * ICMP (net/netfilter/nf_conntrack_proto_icmp.c): queries and their answers are connections by identifier; errors belong
 * to the connection of the packet that they quote, in either direction and whatever NAT did to it, and are RELATED.
 */
import { Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { u16, u32, u8 } from '../wire/bytes.js';
import { sum, sumOk } from '../wire/checksum.js';
import { HEADER_LENGTH, IcmpType, isError } from '../wire/icmp.js';
import { withSourceKey } from './expect.js';
import { invertible, invertPorts, packKey } from './key.js';
import { Outcome } from './outcome.js';
import { Setting } from './settings.js';
import { Ct, linkEntry } from './layout.js';
import type { ConntrackTable } from './table.js';
import { NO_TUPLE, tuplePorts } from './tuple.js';

/** RFC 1122 §3.2.2: what is above is unknown and discarded. */
const LAST_TYPE = 18;

const ECHO = 8;
const TIMESTAMP = 13;
const INFORMATION = 15;
const ADDRESS_MASK = 17;

// Codes.
const HOST_UNREACHABLE = 1;
const PROTOCOL_UNREACHABLE = 2;
const FRAGMENTATION_NEEDED = 4;

// IPv4 header (RFC 791).
const IP_FRAGMENT = 6;
const IP_PROTOCOL = 9;
const IP_SRC = 12;
const IP_DST = 16;
const IP_HEADER = 20;

/** What the quoted packet says. */
export const enum Quote {
  /** No error message: the packet is tracked as others are. */
  NONE = 0,
  /** INVALID: short, a bad checksum, an unknown type, or about nothing that we know. */
  INVALID = -1,
}

/**
 * Looks at an ICMP packet before it is tracked (nf_conntrack_icmpv4_error): a Quote, or the link of the tuple that the
 * quoted packet's answer would have, which names connection and direction of the error.
 */
export function quotedLink(t: ConntrackTable, p: Packet, zones: number, verify: boolean): number {
  if (p.l4Length < HEADER_LENGTH) return Quote.INVALID;
  if (verify && !sumOk(sum(p.bytes, p.l4, p.end))) return Quote.INVALID;
  if (p.icmpType > LAST_TYPE) return Quote.INVALID;
  if (!isError(p.icmpType)) return Quote.NONE;
  const link = quoted(t, p, zones, true);
  if (link === 0) return Quote.INVALID;
  // An error goes where answers to the quoted packet go; from elsewhere it is somebody else's, or a forgery.
  const tuple = t.at(linkEntry(link)) + (link & 1) * Ct.TUPLE_WORDS;
  return t.words[tuple + Ct.DST] === p.dst ? link : Quote.INVALID;
}

/**
 * The link of the quoted packet's tuple, or with `inverted` of its answer's; 0 when there is none.
 * @param zones original zone | reply zone << 16
 */
export function quoted(t: ConntrackTable, p: Packet, zones: number, inverted: boolean): number {
  const b = p.bytes;
  const start = p.l4 + HEADER_LENGTH;
  if (start + IP_HEADER > p.end || (u16(b, start + IP_FRAGMENT) & 0x1fff) !== 0) return 0;
  const l4 = start + (u8(b, start) & 15) * 4;
  if (l4 > p.end) return 0;
  const protocol = u8(b, start + IP_PROTOCOL);
  let ports = tuplePorts(b, l4, p.end, protocol);
  if (ports === NO_TUPLE) return 0;
  const src = u32(b, start + IP_SRC);
  const dst = u32(b, start + IP_DST);
  if (protocol === Proto.GRE) ports = withSourceKey(t, src, dst, ports);
  const keyOriginal = packKey(protocol, zones & 0xffff);
  const keyReply = packKey(protocol, zones >>> 16);
  if (!inverted) return t.find(src, dst, ports | 0, keyOriginal, keyReply);
  if (!invertible(protocol, ports)) return 0;
  return t.find(dst, src, invertPorts(protocol, ports), keyOriginal, keyReply);
}

/** A query or an answer; only queries can begin a connection. */
export function icmpPacket(t: ConntrackTable, p: Packet, entry: number, dir: number): Outcome {
  const type = (t.words[t.at(entry) + Ct.PORTS]! >> 8) & 0xff;
  if (type !== ECHO && type !== TIMESTAMP && type !== INFORMATION && type !== ADDRESS_MASK) return Outcome.INVALID;
  t.refresh(entry, t.setting(Setting.ICMP_TIMEOUT));
  t.accountPacket(entry, dir, p.length);
  return Outcome.ACCEPT;
}

/**
 * Whether the kernel still holds the connection when it sends this error of its own: about a protocol that nobody speaks, a
 * neighbour that doesn't answer, and to the router itself about options it can't read and a packet too long for its way. About a
 * datagram that no socket wants it has let go of it (udp_rcv), and what it says to others of a packet that goes no further is about one
 * without a connection: about those that have one the pipeline speaks. `own`: the error is for the router itself.
 */
export function isAttachedError(p: Packet, own: boolean): boolean {
  if (p.icmpType === IcmpType.PARAMETER_PROBLEM) return own;
  if (p.icmpType !== IcmpType.DEST_UNREACH) return false;
  return (
    p.icmpCode === HOST_UNREACHABLE ||
    p.icmpCode === PROTOCOL_UNREACHABLE ||
    (p.icmpCode === FRAGMENTATION_NEEDED && own)
  );
}

/** Whether the packet is an ICMP error with its type there to read. */
export const isIcmpError = (p: Packet): boolean => p.protocol === Proto.ICMP && p.icmpOk !== 0 && isError(p.icmpType);
