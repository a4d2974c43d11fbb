/**
 * Session descriptions (SDP, RFC 4566) in the bodies of SIP messages, as net/netfilter/nf_conntrack_sip.c reads them: lines `v=`, `o=`
 * and `c=` of the session, then for each medium a line `m=audio 49170 RTP/AVP 0` and, if it has another address, a `c=` of its own.
 * Offsets and results as in sip.ts.
 */
import { Class, Found, isBreak, isLetter, lineBehind, type Message, readAddress, skipDigits } from './sip.js';
import { code, has, hasAnyCase } from './text.js';

/** Types of lines; `o=` is the owner (RFC 4566: origin). */
export const enum Line {
  NONE = -1,
  VERSION = 0,
  OWNER = 1,
  CONNECTION = 2,
  MEDIA = 3,
}
const TYPES = ['v=', 'o=', 'c=', 'm='].map(code);
/** Length of a line's type with `=`. */
export const TYPE_LENGTH = 2;
const ADDRESS = code('IN IP4 ');
const SPACE = 0x20;

/**
 * The first line of the type that begins behind `from` and before one of type `until`. What was found is its version's digits, its address,
 * or medium and port.
 */
export function findLine(m: Message, from: number, line: Line, until: Line): Found {
  const { bytes, start, end } = m;
  for (let o = start + from; o < end; o++) {
    if (!isBreak(bytes[o]!)) continue;
    o = lineBehind(bytes, o, end);
    if (until !== Line.NONE && hasAnyCase(bytes, o, end, TYPES[until]!)) break;
    if (!hasAnyCase(bytes, o, end, TYPES[line]!)) continue;
    o += TYPE_LENGTH;
    m.offset = o - start;
    let behind: number;
    if (line === Line.OWNER || line === Line.CONNECTION) {
      o = behindAddressType(bytes, o, end);
      behind = o < 0 ? -1 : readAddress(m, o, end);
    } else behind = line === Line.VERSION ? skipDigits(bytes, o, end) : skipMedium(bytes, o, end);
    if (behind <= o) return Found.UNREADABLE;
    m.offset = o - start;
    m.length = behind - o;
    return Found.YES;
  }
  return Found.NONE;
}

function behindAddressType(bytes: Uint8Array, o: number, end: number): number {
  for (const last = end - ADDRESS.length; o < last && !isBreak(bytes[o]!); o++)
    if (has(bytes, o, end, ADDRESS)) return o + ADDRESS.length;
  return -1;
}

/** Offset behind `audio 49170`, `o` when that isn't so. */
function skipMedium(bytes: Uint8Array, o: number, end: number): number {
  let at = o;
  while (at < end && isLetter(bytes[at]!)) at++;
  return at < end && bytes[at] === SPACE ? skipDigits(bytes, at + 1, end) : o;
}

const MEDIA = ['audio ', 'video ', 'image '].map(code);
/** So many media of a description are looked at. */
export const MEDIA_COUNT = MEDIA.length;

/** The class of the medium found last, which then begins with its port; −1 and nothing changed when nobody expects such. */
export function mediumClass(m: Message): Class | -1 {
  const o = m.start + m.offset;
  for (let i = 0; i < MEDIA.length; i++) {
    const medium = MEDIA[i]!;
    if (!has(m.bytes, o, o + m.length, medium)) continue;
    m.offset += medium.length;
    m.length -= medium.length;
    return (Class.AUDIO + i) as Class;
  }
  return -1;
}
