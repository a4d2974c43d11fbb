/**
 * SIP's messages (RFC 3261) as net/netfilter/nf_conntrack_sip.c reads them: a line that names method or status, then headers, by their
 * long or compact names, in any case, their values folded over several lines or listed behind commas. Only what stands there as an IPv4
 * address is found; names are left alone. As in the kernel the search doesn't stop at the empty line before the body.
 *
 * Offsets count from the message's beginning: what a replacement moves, the caller adds. What was found lies in the Message; nothing here
 * allocates. SDP, the usual body, is sdp.ts's.
 */
import { code, DIGIT_0, hasAnyCase, isDigit } from './text.js';

export const PORT = 5060;

/** What the helper remembers of a connection: words of its helper data. */
export const enum Data {
  REGISTER_CSEQ = 0,
  INVITE_CSEQ = 1,
  /** Where the phone listens, if it says in Via that this isn't the port it sends from; 0 = where it sends from. */
  FORCED_PORT = 2,
}

/** Classes of expectations, and how many of each a connection can have (sip_exp_policy). */
export const enum Class {
  SIGNALLING = 0,
  AUDIO = 1,
  VIDEO = 2,
  IMAGE = 3,
}
export const MAX_EXPECTED = [1, 4, 4, 2] as const;

export const enum Found {
  /** It is there and can't be read. */
  UNREADABLE = -1,
  NONE = 0,
  YES = 1,
}

/** A message bytes[start, end), and what was found in it last. */
export class Message {
  bytes: Uint8Array = new Uint8Array(0);
  start = 0;
  end = 0;

  offset = 0;
  length = 0;
  address = 0;
  port = 0;
  /** 0 to 2^32 − 1. */
  number = 0;

  /** Where `nextUri` goes on, and whether that is within a header whose list may have more. */
  next = 0;
  inList = false;
}

export const enum Header {
  CSEQ = 0,
  FROM = 1,
  TO = 2,
  CONTACT = 3,
  VIA_UDP = 4,
  VIA_TCP = 5,
  EXPIRES = 6,
  CONTENT_LENGTH = 7,
}

const enum Value {
  DIGITS = 0,
  /** An address with or without a port. */
  ADDRESS = 1,
  /** The same behind a user's name and `@`, or without. */
  URI = 2,
}

const NAMES = ['cseq', 'from', 'to', 'contact', 'via', 'via', 'expires', 'content-length'].map(code);
const COMPACT_NAMES = ['', 'f', 't', 'm', 'v', 'v', '', 'l'].map(code);
/** What stands before the value. */
const PREFIXES = ['', 'sip:', 'sip:', 'sip:', 'udp ', 'tcp ', '', ''].map(code);
const VALUES: readonly Value[] = [
  Value.DIGITS,
  Value.URI,
  Value.URI,
  Value.URI,
  Value.ADDRESS,
  Value.ADDRESS,
  Value.DIGITS,
  Value.DIGITS,
];

const SCHEME = code('sip:');
const TRANSPORT = code('transport=');
const TRANSPORT_TCP = code('tcp');
const TRANSPORT_UDP = code('udp');
export const EXPIRES = code('expires=');
export const MADDR = code('maddr=');
export const RECEIVED = code('received=');
export const RPORT = code('rport=');
const LIST = code(',');

const SPACE = 0x20;
const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const COLON = 0x3a;
const AT = 0x40;
const DOT = 0x2e;

const isBlank = (c: number): boolean => c === SPACE || c === TAB;
export const isBreak = (c: number): boolean => c === CR || c === LF;
/** The kernel's isalpha(), Latin-1's letters included. */
export function isLetter(c: number): boolean {
  const low = c | 0x20;
  return (low >= 0x61 && low <= 0x7a) || (c >= 0xc0 && c !== 0xd7 && c !== 0xf7);
}

// ---- values ---------------------------------------------------------------------------------------------------------

/** Offset in the bytes behind the digits at `o`. */
export function skipDigits(bytes: Uint8Array, o: number, end: number): number {
  while (o < end && isDigit(bytes[o]!)) o++;
  return o;
}

/**
 * Reads m.address at `o` of the bytes (in4_pton): four numbers, leading zeros allowed, and behind them neither a further dot nor a
 * hexadecimal digit. Returns the offset behind it, −1 when it isn't so.
 */
export function readAddress(m: Message, o: number, end: number): number {
  let address = 0;
  let value = -1;
  for (let parts = 0; ; o++) {
    const c = o < end ? m.bytes[o]! : 0;
    const low = c | 0x20;
    if (isDigit(c)) {
      value = (value < 0 ? 0 : value) * 10 + c - DIGIT_0;
      if (value > 255) return -1;
      continue;
    }
    if (value < 0 || (low >= 0x61 && low <= 0x66)) return -1;
    address = (address << 8) | value;
    value = -1;
    parts++;
    if (c === DOT && parts < 4) continue;
    if (c === DOT || parts !== 4) return -1;
    m.address = address;
    return o;
  }
}

/** Reads m.port at `o`, `:` and 1024 to 65535, or PORT where there is no colon; something must follow. As `readAddress`. */
function readPort(m: Message, o: number, end: number): number {
  const { bytes } = m;
  if (o >= end) return -1;
  m.port = PORT;
  if (bytes[o] !== COLON) return o;
  const behind = skipDigits(bytes, o + 1, end);
  const digits = behind - o - 1;
  if (digits === 0 || digits > 5 || behind === end) return -1;
  let port = 0;
  for (o++; o < behind; o++) port = port * 10 + bytes[o]! - DIGIT_0;
  if (port < 1024 || port > 65535) return -1;
  m.port = port;
  return behind;
}

/** Reads m.number at `o`. Returns whether there is one of at most 11 digits, up to 2^32 − 1; else m.number is 0. */
function readNumber(m: Message, o: number, end: number): boolean {
  const behind = skipDigits(m.bytes, o, end);
  m.number = 0;
  if (behind === o || behind - o > 11) return false;
  let number = 0;
  for (; o < behind; o++) number = number * 10 + m.bytes[o]! - DIGIT_0;
  if (number > 0xffff_ffff) return false;
  m.number = number;
  return true;
}

/** The same for what was found last. */
export const foundNumber = (m: Message): boolean => readNumber(m, m.start + m.offset, m.end);

/** Reads the value of a header of this kind at `o` of the bytes. */
function readValue(m: Message, o: number, value: Value): Found {
  const { bytes, end } = m;
  let behind: number;
  if (value === Value.DIGITS) behind = skipDigits(bytes, o, end);
  else {
    if (value === Value.URI) o = behindUser(bytes, o, end);
    behind = readAddress(m, o, end);
    if (behind >= 0) behind = readPort(m, behind, end);
  }
  if (behind <= o) return Found.UNREADABLE;
  m.offset = o - m.start;
  m.length = behind - o;
  return Found.YES;
}

/** Offset behind the `@` of this line, `o` if there is none. */
function behindUser(bytes: Uint8Array, o: number, end: number): number {
  let at = o;
  while (at < end && bytes[at] !== AT && !isBreak(bytes[at]!)) at++;
  return at < end && bytes[at] === AT ? at + 1 : o;
}

// ---- headers --------------------------------------------------------------------------------------------------------

/** `o` is at a line's end: offset of what goes on behind the blanks of the next line, −1 when that begins a header of its own. */
function continuation(bytes: Uint8Array, o: number, end: number): number {
  if (++o < end && bytes[o - 1] === CR && bytes[o] === LF) o++;
  if (o >= end || !isBlank(bytes[o]!)) return -1;
  while (o < end && isBlank(bytes[o]!)) o++;
  return o;
}

/** Offset behind blanks and one folding, −1 where a value ends instead. */
function skipBlanks(bytes: Uint8Array, o: number, end: number): number {
  while (o < end && isBlank(bytes[o]!)) o++;
  return o < end && isBreak(bytes[o]!) ? continuation(bytes, o, end) : o;
}

/** Offset in the bytes of the next `word` (lower case) in the header's value at `o`, −1 when it ends without. */
function within(bytes: Uint8Array, o: number, end: number, word: Uint8Array): number {
  for (const last = end - word.length; o < last; o++) {
    if (isBreak(bytes[o]!)) {
      o = continuation(bytes, o, end);
      if (o < 0) return -1;
    } else if (hasAnyCase(bytes, o, end, word)) return o;
  }
  return -1;
}

/** `o` is a line's end: the offset in the bytes of the next line's beginning. */
export const lineBehind = (bytes: Uint8Array, o: number, end: number): number =>
  o + 1 < end && bytes[o] === CR && bytes[o + 1] === LF ? o + 2 : o + 1;

/**
 * The first such header that begins behind `from`. What was found is its value; UNREADABLE: m.offset is where that begins.
 */
export function findHeader(m: Message, from: number, header: Header): Found {
  const { bytes, start, end } = m;
  const name = NAMES[header]!;
  const compact = COMPACT_NAMES[header]!;
  const prefix = PREFIXES[header]!;
  for (let o = start + from; o < end; o++) {
    if (!isBreak(bytes[o]!)) continue;
    o = lineBehind(bytes, o, end);
    if (o >= end) break;
    if (isBlank(bytes[o]!)) continue;
    if (hasAnyCase(bytes, o, end, name)) o += name.length;
    else if (compact.length > 0 && o + 1 < end && hasAnyCase(bytes, o, end, compact) && !isLetter(bytes[o + 1]!)) o++;
    else continue;
    // Another header's name may begin so; the search ends there all the same.
    o = skipBlanks(bytes, o, end);
    if (o < 0 || o >= end || bytes[o] !== COLON || ++o >= end) break;
    o = skipBlanks(bytes, o, end);
    if (o < 0) break;
    m.offset = o - start;
    if (prefix.length > 0) {
      o = within(bytes, o, end, prefix);
      if (o < 0) return Found.UNREADABLE;
      o += prefix.length;
    }
    return readValue(m, o, VALUES[header]!);
  }
  return Found.NONE;
}

/** The first header of the kind whose address can be read. */
export function firstUri(m: Message, header: Header): boolean {
  for (let from = 0; ; from = m.offset) {
    const found = findHeader(m, from, header);
    if (found !== Found.UNREADABLE) return found === Found.YES;
  }
}

/** Makes `nextUri` begin. */
export function beginUris(m: Message): void {
  m.next = 0;
  m.inList = false;
}

/** The next readable address of headers of the kind, those behind commas included. */
export function nextUri(m: Message, header: Header): boolean {
  let from = m.next;
  let found = Found.NONE as Found;
  if (m.inList) {
    do {
      found = nextOfList(m, from, header);
      if (found === Found.UNREADABLE) from = m.offset;
    } while (found === Found.UNREADABLE);
  }
  while (found !== Found.YES) {
    found = findHeader(m, from, header);
    if (found === Found.NONE) {
      m.inList = false;
      return false;
    }
    if (found === Found.UNREADABLE) from = m.offset;
  }
  m.inList = true;
  m.next = m.offset + m.length;
  return true;
}

function nextOfList(m: Message, from: number, header: Header): Found {
  const { bytes, start, end } = m;
  const prefix = PREFIXES[header]!;
  let o = within(bytes, start + from, end, LIST);
  if (o >= 0) o = within(bytes, o, end, prefix);
  if (o < 0) return Found.NONE;
  m.offset = o + prefix.length - start;
  return readValue(m, o + prefix.length, VALUES[header]!);
}

/** The address in a request's first line: `INVITE sip:bob@192.0.2.4:5070 SIP/2.0`. */
export function requestUri(m: Message): boolean {
  const { bytes, start, end } = m;
  let o = start;
  while (o < end && isLetter(bytes[o]!)) o++;
  if (o === start || ++o >= end) return false;
  for (const last = end - SCHEME.length; o < last; o++) {
    if (isBreak(bytes[o]!)) return false;
    if (!hasAnyCase(bytes, o, end, SCHEME)) continue;
    o += SCHEME.length;
    break;
  }
  return readValue(m, o, Value.URI) === Found.YES;
}

// ---- parameters of a header, behind `from` --------------------------------------------------------------------------

/** Where in the bytes the value of the parameter `name` begins, −1: there is none before a comma or the header's end. */
function parameter(m: Message, from: number, name: Uint8Array): number {
  const { bytes, start } = m;
  const o = within(bytes, start + from, listEnd(m, from), name);
  return o < 0 ? -1 : o + name.length;
}

function listEnd(m: Message, from: number): number {
  const o = within(m.bytes, m.start + from, m.end, LIST);
  return o < 0 ? m.end : o;
}

export function addressParameter(m: Message, from: number, name: Uint8Array): boolean {
  const o = parameter(m, from, name);
  if (o < 0) return false;
  const behind = readAddress(m, o, listEnd(m, from));
  if (behind < 0) return false;
  m.offset = o - m.start;
  m.length = behind - o;
  return true;
}

export function numberParameter(m: Message, from: number, name: Uint8Array): Found {
  const o = parameter(m, from, name);
  if (o < 0) return Found.NONE;
  const end = listEnd(m, from);
  if (!readNumber(m, o, end)) return Found.UNREADABLE;
  m.offset = o - m.start;
  m.length = skipDigits(m.bytes, o, end) - o;
  return Found.YES;
}

/** Whether the parameter `transport` is missing or names what the connection itself uses. */
export function sameTransport(m: Message, from: number, tcp: boolean): boolean {
  const o = parameter(m, from, TRANSPORT);
  return o < 0 || hasAnyCase(m.bytes, o, m.end, tcp ? TRANSPORT_TCP : TRANSPORT_UDP);
}

// ---- methods --------------------------------------------------------------------------------------------------------

/** Those that are more than passed on, in the order in which they are tried. */
export const enum Method {
  NONE = -1,
  INVITE = 0,
  UPDATE = 1,
  ACK = 2,
  PRACK = 3,
  BYE = 4,
  REGISTER = 5,
}
const METHODS = ['invite', 'update', 'ack', 'prack', 'bye', 'register'].map(code);

const RESPONSE = code('sip/2.0 ');
const VERSION = code('sip/2.0');
/** Shorter ones are nobody's. */
export const LEAST = 'SIP/2.0 200'.length;

/** Whether it is a response (`SIP/2.0 200 OK`); else it is taken for a request. */
export const isResponse = (m: Message): boolean => hasAnyCase(m.bytes, m.start, m.end, RESPONSE);

/** The same for who only looks whether addresses are the sender's. */
export const beginsWithVersion = (m: Message): boolean => hasAnyCase(m.bytes, m.start, m.end, VERSION);

/** Reads a response's status into m.number. */
export const readStatus = (m: Message): boolean => readNumber(m, m.start + RESPONSE.length, m.end);

/** The method that a request begins with. */
export function requestMethod(m: Message): Method {
  for (let i = 0; i < METHODS.length; i++) {
    const method = METHODS[i]!;
    const o = m.start + method.length;
    if (o + 2 > m.end || !hasAnyCase(m.bytes, m.start, m.end, method)) continue;
    if (m.bytes[o] === SPACE && isLetter(m.bytes[o + 1]!)) return i as Method;
  }
  return Method.NONE;
}

/** The method that stands behind the sequence number found last: what a response answers. */
export function answeredMethod(m: Message): Method {
  const o = m.start + m.offset + m.length + 1;
  for (let i = 0; i < METHODS.length; i++) {
    if (i !== Method.ACK && i !== Method.BYE && hasAnyCase(m.bytes, o, m.end, METHODS[i]!)) return i as Method;
  }
  return Method.NONE;
}

/** Where a message in a stream ends, if not here. */
export const enum Ends {
  /** It doesn't say, or its headers go on in the next segment. */
  UNKNOWN = -1,
  /** Its body goes on in the next segment. */
  LATER = -2,
}

/** For messages in a stream: the end in the bytes of the one that begins at `start`, or one of Ends. */
export function messageEnd(m: Message): number {
  if (findHeader(m, 0, Header.CONTENT_LENGTH) !== Found.YES || !foundNumber(m)) return Ends.UNKNOWN;
  const { bytes, end, number } = m;
  if (number > end - m.start) return Ends.UNKNOWN;
  for (let o = m.start + m.offset + m.length; o + 4 <= end; o++) {
    if (bytes[o] !== CR || bytes[o + 1] !== LF || bytes[o + 2] !== CR || bytes[o + 3] !== LF) continue;
    return o + 4 + number > end ? Ends.LATER : o + 4 + number;
  }
  return Ends.UNKNOWN;
}
