/**
 * -m sctp (net/netfilter/xt_sctp.c): FLAGS INVERT (SctpTest bits: what is asked, what of it is negated) SPORTS DPORTS (first
 * << 16 | last) MATCH, eight words of a bit for each chunk type, then the number of types whose flags are asked for and as
 * many words type << 16 | mask << 8 | set. Chunks are met one behind the other; one that is cut or of no length makes the
 * packet impossible, whatever the rule says then.
 */
import type { Packet } from '../packet.js';
import { u16, u8 } from '../wire/bytes.js';
import { argument, hex, rangeText, type Op } from './op.js';

/** XT_SCTP_* */
export const enum SctpTest {
  SPORT = 1 << 0,
  DPORT = 1 << 1,
  CHUNKS = 1 << 2,
}
/** SCTP_CHUNK_MATCH_* */
export const enum ChunkMatch {
  ANY = 1,
  ALL = 2,
  ONLY = 4,
}
const enum Arg {
  FLAGS = 0,
  INVERT = 1,
  SPORTS = 2,
  DPORTS = 3,
  MATCH = 4,
  CHUNKS = 5,
  FLAG_COUNT = 13,
  FLAG_TESTS = 14,
}
const CHUNK_WORDS = 8;
const MAX_FLAG_TESTS = 4;
const HEADER = 12;
const CHUNK_HEADER = 4;

export interface SctpArguments {
  /** SctpTest bits. */
  readonly flags: number;
  readonly invert: number;
  readonly sport: readonly [number, number];
  readonly dport: readonly [number, number];
  readonly match: ChunkMatch;
  readonly chunks: readonly number[];
  readonly chunkFlags: readonly { readonly type: number; readonly mask: number; readonly set: number }[];
}

export function encodeSctp(test: SctpArguments): number[] {
  const chunks = Array.from({ length: CHUNK_WORDS }, () => 0);
  for (const type of test.chunks) chunks[type >> 5]! |= 1 << (type & 31);
  return [
    test.flags,
    test.invert,
    (test.sport[0] << 16) | test.sport[1],
    (test.dport[0] << 16) | test.dport[1],
    test.match,
    ...chunks,
    test.chunkFlags.length,
    ...test.chunkFlags.map(({ type, mask, set }) => (type << 16) | (mask << 8) | set),
  ];
}

export function matchSctp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < HEADER) {
    p.hotdrop = 1;
    return false;
  }
  const flags = program[at + Arg.FLAGS]!;
  const invert = program[at + Arg.INVERT]!;
  if ((flags & SctpTest.SPORT) !== 0) {
    const range = program[at + Arg.SPORTS]!;
    const within = p.sport >= range >>> 16 && p.sport <= (range & 0xffff);
    if (within === ((invert & SctpTest.SPORT) !== 0)) return false;
  }
  if ((flags & SctpTest.DPORT) !== 0) {
    const range = program[at + Arg.DPORTS]!;
    const within = p.dport >= range >>> 16 && p.dport <= (range & 0xffff);
    if (within === ((invert & SctpTest.DPORT) !== 0)) return false;
  }
  return (flags & SctpTest.CHUNKS) === 0 || chunksHold(program, at, p) !== ((invert & SctpTest.CHUNKS) !== 0);
}

/** Types asked for that haven't come yet, for ChunkMatch.ALL. */
const missing = new Int32Array(CHUNK_WORDS);

function chunksHold(program: Int32Array, at: number, p: Packet): boolean {
  const { bytes, end } = p;
  const match = program[at + Arg.MATCH]!;
  const chunks = at + Arg.CHUNKS;
  if (match === ChunkMatch.ALL) for (let i = 0; i < CHUNK_WORDS; i++) missing[i] = program[chunks + i]!;
  let o = p.l4 + HEADER;
  do {
    const length = o + CHUNK_HEADER <= end ? u16(bytes, o + 2) : 0;
    if (length === 0) {
      p.hotdrop = 1;
      return false;
    }
    const type = u8(bytes, o);
    const asked = ((program[chunks + (type >> 5)]! >>> (type & 31)) & 1) !== 0;
    const suits = asked && flagsHold(program, at, type, u8(bytes, o + 1));
    if (match === ChunkMatch.ANY) {
      if (suits) return true;
    } else if (match === ChunkMatch.ALL) {
      if (suits) missing[type >> 5]! &= ~(1 << (type & 31));
    } else if (!suits) return false;
    o += (length + 3) & ~3;
  } while (o < end);
  if (match !== ChunkMatch.ALL) return match === ChunkMatch.ONLY;
  for (let i = 0; i < CHUNK_WORDS; i++) if (missing[i] !== 0) return false;
  return true;
}

function flagsHold(program: Int32Array, at: number, type: number, flags: number): boolean {
  const end = at + Arg.FLAG_TESTS + program[at + Arg.FLAG_COUNT]!;
  for (let i = at + Arg.FLAG_TESTS; i < end; i++) {
    const test = program[i]!;
    if (test >> 16 === type) return (flags & ((test >> 8) & 0xff)) === (test & 0xff);
  }
  return true;
}

export const sctp: Op = {
  name: 'sctp',
  payload: true,
  words: Arg.FLAG_TESTS,
  variable: true,
  check: (a) =>
    argument(a, Arg.FLAG_COUNT) === a.words - Arg.FLAG_TESTS && a.words <= Arg.FLAG_TESTS + MAX_FLAG_TESTS
      ? undefined
      : 'its number of chunk flags is not what it says',
  text: (a) => {
    const words: string[] = [];
    const say = (bit: SctpTest, text: string): void => {
      if (argument(a, Arg.FLAGS) & bit) words.push(`${argument(a, Arg.INVERT) & bit ? '! ' : ''}${text}`);
    };
    const range = (i: Arg): string => rangeText(argument(a, i) >>> 16, argument(a, i) & 0xffff);
    say(SctpTest.SPORT, `sport ${range(Arg.SPORTS)}`);
    say(SctpTest.DPORT, `dport ${range(Arg.DPORTS)}`);
    const chunks = Array.from({ length: CHUNK_WORDS }, (_, i) => hex(argument(a, Arg.CHUNKS + i)));
    const match = argument(a, Arg.MATCH);
    say(
      SctpTest.CHUNKS,
      `${match === ChunkMatch.ANY ? 'any' : match === ChunkMatch.ALL ? 'all' : 'only'} ${chunks.join()}`,
    );
    return words.join(' ');
  },
};
