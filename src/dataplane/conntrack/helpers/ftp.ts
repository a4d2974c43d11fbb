/**
 * FTP's control connection (RFC 959, 1123 §4.1.2.6, 2428; net/netfilter/nf_conntrack_ftp.c): finds the address and port
 * of the next data connection in PORT and EPRT (client) and in the answers 227 and 229 (server). A command counts only at
 * the beginning of a line, so for each direction the two latest sequence numbers after a line's end are remembered, in
 * FTP_WORDS words kept with the connection (start: all 0). Nothing here allocates; the match is the caller's record.
 */
import { Dir } from '../../names.js';
import { code, decimal, DIGIT_0, isDigit } from './text.js';

/** What a direction remembers: two sequence numbers, then how many of them are known. */
export const FTP_WORDS = 3;
const COUNT = 2;
const REMEMBERED = 2;

/** How the data connection was announced, and so how an announcement is written. */
export const enum FtpKind {
  PORT = 0,
  PASV = 1,
  EPRT = 2,
  EPSV = 3,
}

export const enum Found {
  /** A command that begins and doesn't end in this packet: dropped, as the kernel does, so that it comes whole. */
  PARTIAL = -1,
  NONE = 0,
  MATCH = 1,
}

/** What `search` found. */
export class FtpMatch {
  kind = FtpKind.PORT;
  /** Offset in the bytes, and length, of the text that names address and port. */
  offset = 0;
  length = 0;
  /** EPSV names no address: then it is left as the caller set it. */
  address = 0;
  port = 0;
  /** What `find` leaves: the numbers that it read. */
  readonly numbers = new Int32Array(6);
}

const PORT = code('port');
const EPRT = code('eprt');
const PASSIVE = code('227 ');
const EXTENDED_PASSIVE = code('229 ');
const SPACE = 0x20;
const CARRIAGE_RETURN = 0x0d;
const OPEN = 0x28;
const COMMA = 0x2c;
const DOT = 0x2e;

const lower = (c: number): number => (c >= 0x41 && c <= 0x5a ? c + 0x20 : c);

/** Looks into the payload bytes[start, end), not empty, sent in direction `dir`. */
export function search(bytes: Uint8Array, start: number, end: number, dir: number, m: FtpMatch): Found {
  let found: Found;
  if (dir === Dir.ORIGINAL) {
    found = command(bytes, start, end, PORT);
    if (found === Found.MATCH) {
      m.kind = FtpKind.PORT;
      m.offset = skip(bytes, start + PORT.length, end, SPACE);
      return m.offset < 0 ? Found.PARTIAL : done(m, sixNumbers(bytes, m.offset, end, CARRIAGE_RETURN, m));
    }
    if (found !== Found.NONE) return found;
    found = command(bytes, start, end, EPRT);
    if (found === Found.MATCH) {
      m.kind = FtpKind.EPRT;
      m.offset = skip(bytes, start + EPRT.length, end, SPACE);
      return m.offset < 0 ? Found.PARTIAL : done(m, extendedPort(bytes, m.offset, end, m));
    }
    return found;
  }
  found = command(bytes, start, end, PASSIVE);
  if (found === Found.MATCH) {
    m.kind = FtpKind.PASV;
    // RFC 1123 §4.1.2.6: the parentheses may be missing, the numbers begin at the first digit.
    let o = start + PASSIVE.length;
    while (o < end && !isDigit(bytes[o]!)) o++;
    m.offset = o;
    return o === end ? Found.PARTIAL : done(m, sixNumbers(bytes, o, end, -1, m));
  }
  if (found !== Found.NONE) return found;
  found = command(bytes, start, end, EXTENDED_PASSIVE);
  if (found === Found.MATCH) {
    m.kind = FtpKind.EPSV;
    m.offset = skip(bytes, start + EXTENDED_PASSIVE.length, end, OPEN);
    return m.offset < 0 ? Found.PARTIAL : done(m, extendedPassive(bytes, m.offset, end, m));
  }
  return found;
}

function done(m: FtpMatch, length: number): Found {
  m.length = length;
  return length === 0 ? Found.PARTIAL : Found.MATCH;
}

/** Whether the payload begins with `word` (lower case); PARTIAL when it is nothing but the word or its beginning. */
function command(bytes: Uint8Array, start: number, end: number, word: Uint8Array): Found {
  const length = Math.min(end - start, word.length);
  for (let i = 0; i < length; i++) if (lower(bytes[start + i]!) !== word[i]) return Found.NONE;
  return end - start <= word.length ? Found.PARTIAL : Found.MATCH;
}

/** Offset just past the next `c`; −1 when none is there. */
function skip(bytes: Uint8Array, o: number, end: number, c: number): number {
  for (; o < end; o++) if (bytes[o] === c) return o + 1;
  return -1;
}

/**
 * Reads `count` numbers separated by `separator` into m.numbers; the character after the last must be `terminator`
 * (−1: any that is neither digit nor separator). Returns the length of their text, 0 when it isn't so.
 */
function numbers(
  bytes: Uint8Array,
  start: number,
  end: number,
  count: number,
  separator: number,
  terminator: number,
  m: FtpMatch,
): number {
  const array = m.numbers;
  array.fill(0);
  let i = 0;
  for (let o = start; o < end && i < count; o++) {
    const c = bytes[o]!;
    // Numbers wrap at 32 bits, as the kernel's do.
    if (isDigit(c)) array[i] = Math.imul(array[i]!, 10) + c - DIGIT_0;
    else if (c === separator) i++;
    else return (c === terminator || terminator < 0) && i === count - 1 ? o - start : 0;
  }
  return 0;
}

function setAddress(m: FtpMatch): void {
  const n = m.numbers;
  m.address = (n[0]! << 24) | (n[1]! << 16) | (n[2]! << 8) | n[3]!;
}

/** `192,168,1,1,5,6` */
function sixNumbers(bytes: Uint8Array, start: number, end: number, terminator: number, m: FtpMatch): number {
  const length = numbers(bytes, start, end, 6, COMMA, terminator, m);
  if (length === 0) return 0;
  setAddress(m);
  m.port = ((m.numbers[4]! << 8) | m.numbers[5]!) & 0xffff;
  return length;
}

/** The delimiter at `o` (RFC 2428: printable, no digit), 0 when it is none. */
function delimiter(bytes: Uint8Array, o: number): number {
  const c = bytes[o]!;
  return isDigit(c) || c < 33 || c > 126 ? 0 : c;
}

/** `|1|132.235.1.2|6275|` */
function extendedPort(bytes: Uint8Array, start: number, end: number, m: FtpMatch): number {
  if (end - start <= 3) return 0;
  const mark = delimiter(bytes, start);
  if (mark === 0 || bytes[start + 2] !== mark || bytes[start + 1] !== DIGIT_0 + 1) return 0;
  const length = numbers(bytes, start + 3, end, 4, DOT, mark, m);
  if (length === 0) return 0;
  setAddress(m);
  return portNumber(bytes, start, start + 3 + length + 1, end, mark, m);
}

/** `|||6446|` */
function extendedPassive(bytes: Uint8Array, start: number, end: number, m: FtpMatch): number {
  if (end - start <= 3) return 0;
  const mark = delimiter(bytes, start);
  if (mark === 0 || bytes[start + 1] !== mark || bytes[start + 2] !== mark) return 0;
  return portNumber(bytes, start, start + 3, end, mark, m);
}

/** Reads the port at `o` up to the delimiter; returns the length from `start` through it, 0 when it isn't so. */
function portNumber(bytes: Uint8Array, start: number, o: number, end: number, mark: number, m: FtpMatch): number {
  let port = 0;
  for (; o < end; o++) {
    const c = bytes[o]!;
    if (c === mark) {
      if (port === 0) return 0;
      m.port = port;
      return o + 1 - start;
    }
    if (!isDigit(c)) return 0;
    port = (port * 10 + c - DIGIT_0) & 0xffff;
  }
  return 0;
}

/** Whether a segment that begins at `seq` begins a line, as far as is known; `at`: the direction's FTP_WORDS. */
export function beginsLine(words: Int32Array, at: number, seq: number): boolean {
  const count = words[at + COUNT]!;
  for (let i = 0; i < count; i++) if (words[at + i] === seq) return true;
  return false;
}

/** Remembers that a line ends before `seq`; of three, the two latest stay. */
export function rememberLine(words: Int32Array, at: number, seq: number): void {
  if (beginsLine(words, at, seq)) return;
  const count = words[at + COUNT]!;
  if (count < REMEMBERED) {
    words[at + count] = seq;
    words[at + COUNT] = count + 1;
    return;
  }
  const oldest = at + (((words[at]! - words[at + 1]!) | 0) < 0 ? 0 : 1);
  if (((seq - words[oldest]!) | 0) > 0) words[oldest] = seq;
}

/** Writes the announcement of `address` and `port` in the way of `kind`; returns its length, at most 27. */
export function write(out: Uint8Array, kind: FtpKind, address: number, port: number): number {
  const bar = 0x7c;
  let o = 0;
  if (kind === FtpKind.EPSV) {
    out[o++] = bar;
    out[o++] = bar;
    out[o++] = bar;
    o = decimal(out, o, port);
    out[o++] = bar;
    return o;
  }
  const extended = kind === FtpKind.EPRT;
  if (extended) {
    out[o++] = bar;
    out[o++] = DIGIT_0 + 1;
    out[o++] = bar;
  }
  for (let shift = 24; shift >= 0; shift -= 8) {
    o = decimal(out, o, (address >>> shift) & 255);
    if (shift !== 0) out[o++] = extended ? DOT : COMMA;
  }
  if (extended) {
    out[o++] = bar;
    o = decimal(out, o, port);
    out[o++] = bar;
    return o;
  }
  out[o++] = COMMA;
  o = decimal(out, o, port >> 8);
  out[o++] = COMMA;
  return decimal(out, o, port & 255);
}
