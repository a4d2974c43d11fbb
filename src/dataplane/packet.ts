/**
 * The packet record: one parse of a packet into integers; nobody reads headers afterwards to decide.
 *
 * One record a worker, filled anew by `parse` for each packet. All fields are 32-bit signed integers, so that V8 keeps
 * them unboxed: compare addresses and marks with `===`, order them only after `>>> 0`. Ports, lengths and offsets are
 * never negative. `bytes` is the batch's memory; offsets are absolute in it.
 *
 * Rewrites (NAT, TOS, TTL) change the bytes and the fields together, through nat/rewrite.ts and its like, and set
 * `changed`; transport checksums are kept by incremental update where the packet carries a whole one.
 */
import { HEADROOM, Meta, OutFlag } from './io/batch.js';
import { Proto } from './names.js';
import { u16, u32, u8 } from './wire/bytes.js';

/** Why `parse` refuses a packet; 0 is success. */
export const enum ParseError {
  NONE = 0,
  TOO_SHORT = 1,
  NOT_IPV4 = 2,
  HEADER_LENGTH = 3,
  TOTAL_LENGTH = 4,
}

export class Packet {
  bytes: Uint8Array = new Uint8Array(0);

  // Network header (RFC 791).
  /** 4; 6 to come. */
  family = 4;
  /** Offset of the IP header. */
  start = 0;
  /** Free bytes before `start`, into which the packet may grow. */
  headroom = 0;
  /** Offset just past the packet's last byte present (the IP total length is obeyed; link padding is left out). */
  end = 0;
  /** Total length by the IP header: what `-m length` sees and what counters add. */
  length = 0;
  /** Length of the IP header with options. */
  headerLength = 20;
  tos = 0;
  ttl = 0;
  protocol = 0;
  src = 0;
  dst = 0;
  /** Fragment offset in units of 8 bytes. */
  fragOffset = 0;
  moreFragments = 0;
  dontFragment = 0;

  // Transport header; `l4` is its offset. Fields below are 0 where the header is absent, cut or another protocol's.
  l4 = 0;
  /** Bytes from `l4` to `end`. */
  l4Length = 0;
  /**
   * 1 when the ports are there to read: TCP, UDP, UDP-Lite, SCTP, DCCP, first fragment, and the first four bytes are
   * present. The protocol's whole header may still be cut: matches check `l4Length` themselves, as the kernel does.
   */
  hasPorts = 0;
  sport = 0;
  dport = 0;
  /** TCP flags byte (TcpFlag bits); valid when `tcpOk`. */
  tcpFlags = 0;
  /** 1 when a whole TCP header of 20 bytes is present in a first fragment. */
  tcpOk = 0;
  /** ICMP type and code; valid when `icmpOk`. */
  icmpType = 0;
  icmpCode = 0;
  /** 1 when at least the first four bytes of an ICMP header are present in a first fragment. */
  icmpOk = 0;

  // What the device says.
  hook = 0;
  /** ifindex, 0 = none. `outdev` is set by the route in FORWARD, POSTROUTING and OUTPUT. */
  indev = 0;
  outdev = 0;
  /** Ports of a bridge by which it came, and leaves; the second is known where it comes from the kernel's POSTROUTING. */
  physindev = 0;
  physoutdev = 0;
  mark = 0;
  /** InFlag bits. */
  flags = 0;
  uid = 0;
  gid = 0;
  macLength = 0;
  macHigh = 0;
  macLow = 0;
  /** Bytes of payload in each segment of a GSO packet; 0: the device doesn't tell. */
  gsoSize = 0;

  // What the pipeline finds out.
  /** Kind of its route (RouteType), 0 before it has one; the next hop, 0 = not known; the way's MTU, 0 = not asked for yet. */
  routeType = 0;
  nextHop = 0;
  routeMtu = 0;
  /** It came in fragments, the longest of this many bytes; 0 = it came whole. Which reassembly's cuts it keeps. */
  fragmentSize = 0;
  cutCount = 0;
  /** 1: its IP options have been read, and written into (hutter being the whole router). */
  optionsRead = 0;
  /** Entry of the connection in the table, −1 = none (INVALID, UNTRACKED, or not tracked at all). */
  ct = -1;
  /** Dir within the connection. */
  ctDir = 0;
  /** One CtState bit of INVALID, NEW, ESTABLISHED, RELATED, UNTRACKED. */
  ctState = 0;
  /** What the CT target asks of tracking: original zone | reply zone << 16, helper's number, wanted events; 0 = as usual. */
  ctZones = 0;
  ctHelper = 0;
  ctEvents = 0;
  /** 1: a rule gave it the traffic control class `priority` (major << 16 | minor). */
  classified = 0;
  priority = 0;
  /** 1: the bytes differ from what came and go back with the verdict. */
  changed = 0;
  /** Set by a match that finds the packet impossible (`hotdrop` in the kernel): the table's verdict is DROP. */
  hotdrop = 0;
  /** How it was addressed on its link (PACKET_*: 0 to this host, 1 broadcast, 2 multicast); told while a rule asks. */
  packetType = 0;
  /** Whether it came, and goes, by IPsec (Ipsec bits); told while a rule asks. */
  ipsec = 0;
  /** 1: TRACE has it told which rules it matches. */
  trace = 0;

  /**
   * Forgets what an earlier packet left; then the IP and transport headers of bytes[start, limit) are parsed. `cut` (not
   * 0): the packet's end is missing, its total length may lie past `limit`.
   */
  parse(bytes: Uint8Array, start: number, limit: number, cut = 0): ParseError {
    this.bytes = bytes;
    this.start = start;
    this.headroom = start < HEADROOM ? start : HEADROOM;
    this.family = 4;
    this.ct = -1;
    this.ctDir = 0;
    this.ctState = 0;
    this.ctZones = 0;
    this.ctHelper = 0;
    this.ctEvents = 0;
    this.classified = 0;
    this.changed = 0;
    this.hotdrop = 0;
    this.trace = 0;
    if (limit - start < 20) return ParseError.TOO_SHORT;
    const first = u8(bytes, start);
    if (first >> 4 !== 4) return ParseError.NOT_IPV4;
    const headerLength = (first & 15) << 2;
    if (headerLength < 20 || start + headerLength > limit) return ParseError.HEADER_LENGTH;
    const length = u16(bytes, start + 2);
    if (length < headerLength || (start + length > limit && cut === 0)) return ParseError.TOTAL_LENGTH;
    this.headerLength = headerLength;
    this.length = length;
    this.end = start + length > limit ? limit : start + length;
    this.tos = u8(bytes, start + 1);
    const frag = u16(bytes, start + 6);
    this.fragOffset = frag & 0x1fff;
    this.moreFragments = (frag >> 13) & 1;
    this.dontFragment = (frag >> 14) & 1;
    this.ttl = u8(bytes, start + 8);
    this.protocol = u8(bytes, start + 9);
    this.src = u32(bytes, start + 12);
    this.dst = u32(bytes, start + 16);
    this.parseTransport();
    return ParseError.NONE;
  }

  /** Reads the transport header's fields again, for a caller that changed its bytes. */
  parseTransport(): void {
    const bytes = this.bytes;
    const l4 = this.start + this.headerLength;
    const l4Length = this.end - l4;
    this.l4 = l4;
    this.l4Length = l4Length;
    this.hasPorts = 0;
    this.sport = 0;
    this.dport = 0;
    this.tcpFlags = 0;
    this.tcpOk = 0;
    this.icmpType = 0;
    this.icmpCode = 0;
    this.icmpOk = 0;
    if (this.fragOffset !== 0 || l4Length < 4) return;
    switch (this.protocol) {
      case Proto.TCP:
        if (l4Length >= 20) {
          this.tcpOk = 1;
          this.tcpFlags = u8(bytes, l4 + 13);
        }
        this.readPorts(bytes, l4);
        break;
      case Proto.UDP:
      case Proto.UDPLITE:
      case Proto.SCTP:
      case Proto.DCCP:
        this.readPorts(bytes, l4);
        break;
      case Proto.ICMP:
        this.icmpOk = 1;
        this.icmpType = u8(bytes, l4);
        this.icmpCode = u8(bytes, l4 + 1);
        break;
    }
  }

  private readPorts(bytes: Uint8Array, l4: number): void {
    this.hasPorts = 1;
    this.sport = u16(bytes, l4);
    this.dport = u16(bytes, l4 + 2);
  }
}

/** Writes into a packet's record, which begins at `m`, its mark if that changed, and its class if a rule gave it one. */
export function putMarks(meta: Int32Array, m: number, p: Packet): void {
  if (p.mark !== meta[m + Meta.MARK]) {
    meta[m + Meta.NEW_MARK] = p.mark;
    meta[m + Meta.OUT_FLAGS]! |= OutFlag.MARK;
  }
  if (p.classified !== 0) {
    meta[m + Meta.NEW_PRIORITY] = p.priority;
    meta[m + Meta.OUT_FLAGS]! |= OutFlag.PRIORITY;
  }
}
