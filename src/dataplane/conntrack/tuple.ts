/** Reads the part of a tuple that the transport header has (nf_ct_get_tuple in net/netfilter/nf_conntrack_core.c). */
import { Proto } from '../names.js';
import { u16, u8 } from '../wire/bytes.js';

/** The header is too short to have one; no `ports` word, as those are int32. */
export const NO_TUPLE = 0x1_0000_0000;

const ICMP_ID = 4;
const ICMP_HEADER = 8;
// Enhanced GRE (RFC 2637 §4.1).
const GRE_VERSION_MASK = 7;
const GRE_PROTOCOL = 2;
const GRE_CALL_ID = 6;
const GRE_HEADER = 4;
const GRE_PPTP_HEADER = 8;
const GRE_PPP = 0x880b;

/** The `ports` word (key.ts) of the header at bytes[l4, end), or NO_TUPLE. */
export function tuplePorts(bytes: Uint8Array, l4: number, end: number, protocol: number): number {
  switch (protocol) {
    case Proto.TCP:
    case Proto.UDP:
    case Proto.UDPLITE:
    case Proto.SCTP:
      if (l4 + 4 > end) return NO_TUPLE;
      return (u16(bytes, l4) << 16) | u16(bytes, l4 + 2);
    case Proto.ICMP:
      if (l4 + ICMP_HEADER > end) return NO_TUPLE;
      return (u16(bytes, l4 + ICMP_ID) << 16) | (u8(bytes, l4) << 8) | u8(bytes, l4 + 1);
    case Proto.GRE:
      // Only version 1 has something like ports, and its source key is known to a PPTP helper alone.
      if (l4 + GRE_HEADER > end || (u8(bytes, l4 + 1) & GRE_VERSION_MASK) !== 1) return 0;
      if (l4 + GRE_PPTP_HEADER > end) return 0;
      if (u16(bytes, l4 + GRE_PROTOCOL) !== GRE_PPP) return NO_TUPLE;
      return u16(bytes, l4 + GRE_CALL_ID);
    default:
      return 0;
  }
}
