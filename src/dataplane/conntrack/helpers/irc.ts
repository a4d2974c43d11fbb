/**
 * IRC's DCC requests (net/netfilter/nf_conntrack_irc.c): a client sends `PRIVMSG nick :\1DCC SEND file 3232235777 5000\1`
 * and then waits for a connection on that address, a decimal number, and port. Only the client's side of the connection
 * is looked at, and of a packet the first 4095 bytes.
 */
import { code, decimal, DIGIT_0, has, hasAnyCase, isDigit } from './text.js';

const MAX_SEARCH = 4095;

const PRIVMSG = code('privmsg ');
const DCC = code('\x01DCC ');
const REQUESTS = ['SEND ', 'CHAT ', 'MOVE ', 'TSEND ', 'SCHAT '].map(code);
const SPACE = 0x20;
const COLON = 0x3a;
const NEWLINE = 0x0a;
const CARRIAGE_RETURN = 0x0d;
/** `t AAAAAAAA P\1\n` and what stands before it: less can't hold a request. */
const LEAST = 26;

/** What `search` found. */
export class IrcMatch {
  /** Offset in the bytes, and length, of the text `address port`. */
  offset = 0;
  length = 0;
  address = 0;
  port = 0;
}

/**
 * Looks into the payload bytes[start, limit). A request counts only if its address is `own` or `mapped` (the client's,
 * before and after NAT) and its port isn't 0: others are forged.
 */
export function search(
  bytes: Uint8Array,
  start: number,
  limit: number,
  own: number,
  mapped: number,
  m: IrcMatch,
): boolean {
  const end = Math.min(limit, start + MAX_SEARCH);
  let o = start;
  while (o < end - 10 && (bytes[o] === SPACE || bytes[o] === CARRIAGE_RETURN || bytes[o] === NEWLINE)) o++;
  if (o < end - 10) {
    if (!hasAnyCase(bytes, o, end, PRIVMSG)) return false;
    o += PRIVMSG.length;
  }
  while (o < end - LEAST) {
    if (bytes[o] !== SPACE || bytes[o + 1] !== COLON) {
      o++;
      continue;
    }
    o += 2;
    // Only the very beginning of the message can be a request.
    if (!has(bytes, o, end, DCC)) return false;
    o += DCC.length;
    for (const request of REQUESTS) {
      if (!has(bytes, o, end, request)) continue;
      o += request.length;
      if (parse(bytes, o, end, m) && (m.address === own || m.address === mapped) && m.port !== 0) return true;
    }
  }
  return false;
}

/** Reads `argument address port` at `o`; a newline must follow within the packet. */
function parse(bytes: Uint8Array, o: number, end: number, m: IrcMatch): boolean {
  while (bytes[o++] !== SPACE) if (o > end - 12) return false;
  let newline = o;
  while (newline < end && bytes[newline] !== NEWLINE) newline++;
  if (newline === end) return false;
  m.offset = o;
  let address = 0;
  for (; isDigit(bytes[o]!); o++) address = (Math.imul(address, 10) + bytes[o]! - DIGIT_0) | 0;
  while (bytes[o] === SPACE) o++;
  let port = 0;
  for (; isDigit(bytes[o]!); o++) port = (port * 10 + bytes[o]! - DIGIT_0) & 0xffff;
  m.address = address;
  m.port = port;
  m.length = o - m.offset;
  return true;
}

/** Writes `address port`; returns its length, at most 16. */
export function write(out: Uint8Array, address: number, port: number): number {
  let o = decimal(out, 0, address >>> 0);
  out[o++] = SPACE;
  o = decimal(out, o, port);
  return o;
}
