/**
 * Where the IPv4 packet lies in a captured frame: link headers of Ethernet (with VLAN tags, and in 802.3's older form),
 * Linux's cooked captures, BSD's loopback, and packets without one. Read once into the fields of one object.
 */
import { u16, u32, u8 } from '../wire/bytes.js';

/** LINKTYPE_* (www.tcpdump.org/linktypes.html). */
export const enum LinkType {
  NULL = 0,
  ETHERNET = 1,
  /** Values of two systems for packets without a link header. */
  RAW_BSD = 12,
  RAW_OPENBSD = 14,
  RAW = 101,
  LOOP = 108,
  LINUX_SLL = 113,
  IPV4 = 228,
  IPV6 = 229,
  LINUX_SLL2 = 276,
}

/** What a frame is to a router that it reached. */
export const enum FrameKind {
  IPV4 = 0,
  /** Another protocol (ARP, IPv6, …), or too short to tell. */
  OTHER = 1,
  /** It left, by the word of a cooked capture: no neighbour sent it. */
  OUTGOING = 2,
  /** It was for another host's hardware address. */
  OTHER_HOST = 3,
  /** Frames of this link type are not read. */
  UNKNOWN_LINK = 4,
}

const ETHERTYPE_IPV4 = 0x0800;
const VLAN_TYPES: ReadonlySet<number> = new Set([0x8100, 0x88a8, 0x9100]);
/** 802.3: up to here the field is a length, and an LLC header follows. */
const MAX_LENGTH_FIELD = 1500;
const ETHERNET_HEADER = 14;
const SLL_HEADER = 16;
const SLL2_HEADER = 20;
const PACKET_OTHERHOST = 3;
const PACKET_OUTGOING = 4;
const AF_INET = 2;

export class Frame {
  kind: FrameKind = FrameKind.OTHER;
  /** Offset of the IP header. */
  packet = 0;
  /** The sender's hardware address: its offset and length; 0 = none. */
  mac = 0;
  macLength = 0;
  /** VLAN identifiers, the outermost first; one of 0 is a priority alone and left out. */
  readonly vlans: number[] = [];

  /** Reads bytes[start, end); `littleEndian` is the byte order of the machine that captured it. */
  read(linkType: number, bytes: Uint8Array, start: number, end: number, littleEndian: boolean): FrameKind {
    this.mac = 0;
    this.macLength = 0;
    this.vlans.length = 0;
    this.packet = start;
    this.kind = this.find(linkType, bytes, start, end, littleEndian);
    return this.kind;
  }

  private find(linkType: number, bytes: Uint8Array, start: number, end: number, littleEndian: boolean): FrameKind {
    switch (linkType) {
      case LinkType.RAW:
      case LinkType.RAW_BSD:
      case LinkType.RAW_OPENBSD:
      case LinkType.IPV4:
        return this.byVersion(bytes, start, end);
      case LinkType.IPV6:
        return FrameKind.OTHER;
      case LinkType.NULL:
      case LinkType.LOOP: {
        if (end - start < 4) return FrameKind.OTHER;
        const word = u32(bytes, start);
        const swapped = linkType === LinkType.NULL && littleEndian;
        const family = swapped ? u8(bytes, start) | (u8(bytes, start + 1) << 8) : word;
        this.packet = start + 4;
        return family === AF_INET ? this.byVersion(bytes, start + 4, end) : FrameKind.OTHER;
      }
      case LinkType.ETHERNET:
        if (end - start < ETHERNET_HEADER) return FrameKind.OTHER;
        this.mac = start + 6;
        this.macLength = 6;
        return this.byType(bytes, start + 12, end);
      case LinkType.LINUX_SLL: {
        if (end - start < SLL_HEADER) return FrameKind.OTHER;
        this.mac = start + 6;
        this.macLength = Math.min(u16(bytes, start + 4), 8);
        const kind = this.byType(bytes, start + 14, end);
        return kind === FrameKind.IPV4 ? cooked(u16(bytes, start)) : kind;
      }
      case LinkType.LINUX_SLL2: {
        if (end - start < SLL2_HEADER) return FrameKind.OTHER;
        this.mac = start + 12;
        this.macLength = Math.min(u8(bytes, start + 11), 8);
        if (u16(bytes, start) !== ETHERTYPE_IPV4) {
          // Only a tag has more link header behind the cooked one.
          if (!VLAN_TYPES.has(u16(bytes, start))) return FrameKind.OTHER;
          if (end - start < SLL2_HEADER + 4) return FrameKind.OTHER;
          this.tag(u16(bytes, start + SLL2_HEADER));
          const tagged = this.byType(bytes, start + SLL2_HEADER + 2, end);
          return tagged === FrameKind.IPV4 ? cooked(u8(bytes, start + 10)) : tagged;
        }
        const kind = this.byVersion(bytes, start + SLL2_HEADER, end);
        return kind === FrameKind.IPV4 ? cooked(u8(bytes, start + 10)) : kind;
      }
    }
    return FrameKind.UNKNOWN_LINK;
  }

  /** By the EtherType (or length) at `at`, after any tags. */
  private byType(bytes: Uint8Array, at: number, end: number): FrameKind {
    let type = u16(bytes, at);
    while (VLAN_TYPES.has(type)) {
      if (end - at < 6) return FrameKind.OTHER;
      this.tag(u16(bytes, at + 2));
      at += 4;
      type = u16(bytes, at);
    }
    at += 2;
    if (type <= MAX_LENGTH_FIELD) {
      // LLC of SNAP with an EtherType (RFC 1042).
      if (end - at < 8 || u32(bytes, at) !== (0xaaaa0300 | 0) || u16(bytes, at + 4) !== 0) return FrameKind.OTHER;
      type = u16(bytes, at + 6);
      at += 8;
    }
    return type === ETHERTYPE_IPV4 ? this.byVersion(bytes, at, end) : FrameKind.OTHER;
  }

  private byVersion(bytes: Uint8Array, at: number, end: number): FrameKind {
    this.packet = at;
    // What calls itself IPv4 and is empty or of another version is the router's to refuse, but for raw IPv6.
    return at < end && u8(bytes, at) >> 4 === 6 ? FrameKind.OTHER : FrameKind.IPV4;
  }

  private tag(control: number): void {
    if ((control & 0xfff) !== 0) this.vlans.push(control & 0xfff);
  }
}

const cooked = (packetType: number): FrameKind =>
  packetType === PACKET_OUTGOING
    ? FrameKind.OUTGOING
    : packetType === PACKET_OTHERHOST
      ? FrameKind.OTHER_HOST
      : FrameKind.IPV4;
