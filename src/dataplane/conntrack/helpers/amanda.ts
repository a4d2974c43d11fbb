/**
 * Amanda's backups (net/netfilter/nf_conntrack_amanda.c): the client that is to be saved answers the server's request with a line
 * `CONNECT DATA 10081 MESG 10082 INDEX 10083`, the ports on which it waits for the server's TCP connections.
 */
import { code, DIGIT_0 } from './text.js';

const CONNECT = code('CONNECT ');
const STREAMS = ['DATA ', 'MESG ', 'INDEX '].map(code);
export const STREAM_COUNT = 3;
const NEWLINE = 0x0a;
const MAX_DIGITS = 5;

/** What `search` found: a port as text, bytes[offset, offset + length). */
export class AmandaMatch {
  offset = 0;
  length = 0;
  port = 0;
}

/** Offset behind the first `word` within bytes[o, end), −1 when there is none. */
function behind(bytes: Uint8Array, o: number, end: number, word: Uint8Array): number {
  for (; o + word.length <= end; o++) {
    let i = 0;
    while (i < word.length && bytes[o + i] === word[i]) i++;
    if (i === word.length) return o + i;
  }
  return -1;
}

/**
 * Looks into the payload bytes[start, end) for the port of stream number `stream` (0 to STREAM_COUNT − 1). False when it
 * isn't named there. A port of 0 means that the line is wrong, and no further stream counts.
 */
export function search(bytes: Uint8Array, start: number, end: number, stream: number, m: AmandaMatch): boolean {
  const line = behind(bytes, start, end, CONNECT);
  if (line < 0) return false;
  let stop = line;
  while (stop < end && bytes[stop] !== NEWLINE) stop++;
  if (stop === end) return false;
  const o = behind(bytes, line, stop, STREAMS[stream]!);
  if (o < 0) return false;
  m.offset = o;
  m.port = 0;
  let length = 0;
  for (; length < MAX_DIGITS && o + length < stop; length++) {
    const digit = bytes[o + length]! - DIGIT_0;
    if (digit < 0 || digit > 9) break;
    m.port = (m.port * 10 + digit) & 0xffff;
  }
  m.length = length;
  return true;
}
