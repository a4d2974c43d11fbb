/* The Internet checksum over memory, and a device's finishing of transport checksums (ChecksumMode in batch.ts). */
#ifndef HUTTER_CHECKSUM_H
#define HUTTER_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Folded one's complement sum of the bytes, as the machine's own 16-bit words: store it as it is (RFC 1071 §2B, byte
 * order independence). An odd last byte is padded with zero.
 */
uint16_t checksum_sum(const uint8_t *bytes, size_t length, uint64_t initial);

/*
 * Finishes the transport checksum of the IPv4 packet ip[0, length): `start` and `field` are offsets from `ip` of the
 * transport header and its checksum; `mode` is a CHECKSUM_MODE. ICMP has no pseudo-header, SCTP's is a CRC32c (RFC 9260
 * appendix A); every other protocol is summed as TCP and UDP are. Returns 0, or -1 when the offsets are impossible.
 */
int checksum_finish(uint8_t *ip, size_t length, int mode, size_t start, size_t field);

#endif
