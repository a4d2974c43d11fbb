/** ICMP (RFC 792): names of what the router sends and reads. `o` is the offset of the ICMP header. */
import { u8 } from './bytes.js';

export const enum IcmpType {
  ECHO_REPLY = 0,
  DEST_UNREACH = 3,
  SOURCE_QUENCH = 4,
  REDIRECT = 5,
  ECHO = 8,
  TIME_EXCEEDED = 11,
  PARAMETER_PROBLEM = 12,
  TIMESTAMP = 13,
  TIMESTAMP_REPLY = 14,
  INFO_REQUEST = 15,
  INFO_REPLY = 16,
  ADDRESS_MASK = 17,
  ADDRESS_MASK_REPLY = 18,
}
/** Codes of "destination unreachable" that the router sends (RFC 792, RFC 1812 §5.2.7.1). */
export const enum DestUnreach {
  NET = 0,
  HOST = 1,
  PROTOCOL = 2,
  PORT = 3,
  FRAGMENTATION_NEEDED = 4,
  FILTERED = 13,
}
/** NR_ICMP_TYPES: the last type the kernel knows. */
const LAST_TYPE = 18;
export const HEADER_LENGTH = 8;

export const type = (b: Uint8Array, o: number): number => u8(b, o);

/** Whether a message of this type reports an error about another packet, which it quotes. */
export function isError(type: number): boolean {
  return (
    type === IcmpType.DEST_UNREACH ||
    type === IcmpType.SOURCE_QUENCH ||
    type === IcmpType.REDIRECT ||
    type === IcmpType.TIME_EXCEEDED ||
    type === IcmpType.PARAMETER_PROBLEM
  );
}

/** Types of errors, discarded ones and router discovery: bit 1 << type (net/ipv4/icmp.c, icmp_pointers[].error). */
const UNANSWERED = 0b1_1110_1111_1110;

/** Whether no error may be sent about a message of this type: it is one itself, or unknown (RFC 1122 §3.2.2). */
export const answersForbidden = (type: number): boolean => type > LAST_TYPE || ((UNANSWERED >> type) & 1) !== 0;
