/**
 * CRC32c (Castagnoli), SCTP's checksum (RFC 9260 appendix A). SCTP writes it with its least significant byte first;
 * `sctpChecksum` gives the number that a big-endian write (`setU32`) puts into the header in that order.
 */

const REFLECTED_POLYNOMIAL = 0x82f63b78;

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ REFLECTED_POLYNOMIAL : crc >>> 1;
  return crc;
});

/** Goes on with `crc` (start: −1; the result is not complemented yet) over bytes[start, end). */
export function crc32c(bytes: Uint8Array, start: number, end: number, crc: number): number {
  for (let o = start; o < end; o++) crc = TABLE[(crc ^ bytes[o]!) & 0xff]! ^ (crc >>> 8);
  return crc;
}

const CHECKSUM = 8;

/** The checksum of the SCTP packet bytes[l4, end), its own field taken as zero; the common header (12 bytes) is there. */
export function sctpChecksum(bytes: Uint8Array, l4: number, end: number): number {
  let crc = crc32c(bytes, l4, l4 + CHECKSUM, -1);
  for (let i = 0; i < 4; i++) crc = TABLE[crc & 0xff]! ^ (crc >>> 8);
  crc = ~crc32c(bytes, l4 + CHECKSUM + 4, end, crc);
  return ((crc & 0xff) << 24) | ((crc & 0xff00) << 8) | ((crc >>> 8) & 0xff00) | (crc >>> 24);
}
