/**
 * TFTP (RFC 1350; net/netfilter/nf_conntrack_tftp.c): the server answers a read or write request from a port of its own
 * choice to the client's port, which is therefore expected.
 */
import { u16 } from '../../wire/bytes.js';

const OPCODE = 0;
const LEAST = OPCODE + 2;
const READ = 1;
const WRITE = 2;

/** Whether the payload bytes[start, end) of a datagram asks for a transfer. */
export function isRequest(bytes: Uint8Array, start: number, end: number): boolean {
  if (start + LEAST > end) return false;
  const opcode = u16(bytes, start + OPCODE);
  return opcode === READ || opcode === WRITE;
}
