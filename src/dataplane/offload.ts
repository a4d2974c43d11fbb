/**
 * What segmentation and checksum offload leave undone in a packet: checksums that hold the pseudo-header's sum only, and lengths of
 * what a packet longer than any MTU becomes when it is cut up.
 */
import { InFlag } from './io/batch.js';
import { Proto } from './names.js';
import type { Packet } from './packet.js';
import { setU16, u8 } from './wire/bytes.js';
import { pseudoSum, sum } from './wire/checksum.js';

const UDP_HEADER = 8;

/** Offset of the checksum in the transport header whose sum a device may be left to do; 0: there is none. */
export function checksumField(p: Packet): number {
  if (p.protocol === Proto.TCP) return 16;
  return p.protocol === Proto.UDP || p.protocol === Proto.UDPLITE ? 6 : 0;
}

/** Computes the transport checksum at `at`, which the sender left to its device. */
export function completeChecksum(p: Packet, at: number): void {
  const { bytes, l4, end } = p;
  setU16(bytes, at, 0);
  const checksum = ~sum(bytes, l4, end, pseudoSum(p.src, p.dst, p.protocol, end - l4)) & 0xffff;
  setU16(bytes, at, checksum === 0 && p.protocol !== Proto.TCP ? 0xffff : checksum);
}

/** Bytes before a GSO packet's payload. */
export function headersLength(p: Packet): number {
  const transport = p.protocol === Proto.TCP ? (p.tcpOk !== 0 ? (u8(p.bytes, p.l4 + 12) >> 4) << 2 : 0) : UDP_HEADER;
  return p.l4 - p.start + transport;
}

/** Length of the packets that a GSO packet becomes; 0: the device doesn't tell. */
export const segmentLength = (p: Packet): number => (p.gsoSize === 0 ? 0 : headersLength(p) + p.gsoSize);

/** ip_exceeds_mtu(): of a packet longer than `mtu` that says "don't fragment". */
export function exceedsMtu(p: Packet, mtu: number): boolean {
  if ((p.flags & InFlag.GSO) !== 0) return segmentLength(p) > mtu;
  // What came in fragments may leave in fragments of that size, DF or not.
  return p.fragmentSize === 0 || p.fragmentSize > mtu;
}
