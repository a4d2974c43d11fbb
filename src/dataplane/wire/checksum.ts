/**
 * The Internet checksum (RFC 1071) and its incremental update (RFC 1624, eqn. 3). Sums are 16-bit numbers in host order
 * of the big-endian words; a "sum" is folded and not complemented, a "checksum" is complemented as it stands in headers.
 */
import { setU16, u16, u32 } from './bytes.js';

/** Folds to 16 bits a sum of at most 2^32 − 1. */
export function fold(sum: number): number {
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Folded sum of bytes[start, end), an odd last byte padded with zero; `initial` is a folded sum to start from. */
export function sum(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  let total = initial;
  let o = start;
  for (; o + 1 < end; o += 2) total += (bytes[o]! << 8) | bytes[o + 1]!;
  if (o < end) total += bytes[o]! << 8;
  return fold(total);
}

/** Folded sum of the IPv4 pseudo-header (RFC 9293 §3.1) of a transport segment of `length` bytes. */
export function pseudoSum(src: number, dst: number, protocol: number, length: number): number {
  return fold((src >>> 16) + (src & 0xffff) + (dst >>> 16) + (dst & 0xffff) + protocol + length);
}

/** Checksum of an IPv4 header of `headerLength` bytes at `start`, its checksum field taken as zero. */
export function headerChecksum(bytes: Uint8Array, start: number, headerLength: number): number {
  const whole = sum(bytes, start, start + headerLength);
  return ~fold(whole + (~u16(bytes, start + 10) & 0xffff)) & 0xffff;
}

/** Writes that checksum into the header. */
export function sealHeader(bytes: Uint8Array, start: number, headerLength: number): void {
  setU16(bytes, start + 10, headerChecksum(bytes, start, headerLength));
}

/** The checksum after one 16-bit word it covers changes from `from` to `to`. */
export function update16(checksum: number, from: number, to: number): number {
  return ~fold((~checksum & 0xffff) + (~from & 0xffff) + to) & 0xffff;
}

/** The checksum after a 32-bit word it covers, aligned to 16 bits, changes. */
export function update32(checksum: number, from: number, to: number): number {
  return (
    ~fold((~checksum & 0xffff) + (~from & 0xffff) + ((~from >>> 16) & 0xffff) + (to & 0xffff) + (to >>> 16)) & 0xffff
  );
}

/** Whether a sum that covers its own checksum is right; that of no bytes or zeros only is, too (nf_ip_checksum). */
export const sumOk = (sum: number): boolean => sum === 0xffff || sum === 0;

/** Whether bytes[l4, end) has a right TCP, UDP (0 = none was made) or ICMP checksum. */
export function transportChecksumOk(
  bytes: Uint8Array,
  ipStart: number,
  l4: number,
  end: number,
  protocol: number,
): boolean {
  if (protocol === 1) return sumOk(sum(bytes, l4, end));
  if (protocol === 17 && l4 + 8 <= end && u16(bytes, l4 + 6) === 0) return true;
  const pseudo = pseudoSum(u32(bytes, ipStart + 12), u32(bytes, ipStart + 16), protocol, end - l4);
  return sum(bytes, l4, end, pseudo) === 0xffff;
}
