/**
 * Network scanners (SANE's protocol; net/netfilter/nf_conntrack_sane.c): to a request of eight bytes that begins with
 * SANE_NET_START the server answers with status, two zero bytes and the port on which it waits for the data connection.
 */
import { u16, u32 } from '../../wire/bytes.js';

const REQUEST = 8;
const NET_START = 7;
const REPLY = 8;
const STATUS = 0;
const ZERO = STATUS + 4;
const PORT = ZERO + 2;

/** Whether bytes[start, end), which the client sent, asks for a scan; −1: it is no request at all, and changes nothing. */
export function isStart(bytes: Uint8Array, start: number, end: number): number {
  if (end - start !== REQUEST) return -1;
  return u32(bytes, start) === NET_START ? 1 : 0;
}

/** The port in the server's answer bytes[start, end) to such a request, −1 when it refused. */
export function portOf(bytes: Uint8Array, start: number, end: number): number {
  if (end - start < REPLY || u32(bytes, start + STATUS) !== 0 || u16(bytes, start + ZERO) !== 0) return -1;
  return u16(bytes, start + PORT);
}
