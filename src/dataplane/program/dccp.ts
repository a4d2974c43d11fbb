/**
 * -m dccp (net/netfilter/xt_dccp.c; RFC 4340 §5): ASKED INVERT (DccpTest bits) SPORTS DPORTS (first << 16 | last) TYPES (bits
 * 1 << packet type) OPTION. A header that is cut, or too short for its type where an option is asked for, makes the packet
 * impossible, whatever the rule says then.
 */
import type { Packet } from '../packet.js';
import { u8 } from '../wire/bytes.js';
import { argument, hex, rangeText, type Op } from './op.js';

/** XT_DCCP_* */
export const enum DccpTest {
  SPORT = 1 << 0,
  DPORT = 1 << 1,
  TYPE = 1 << 2,
  OPTION = 1 << 3,
}
const enum Arg {
  ASKED = 0,
  INVERT = 1,
  SPORTS = 2,
  DPORTS = 3,
  TYPES = 4,
  OPTION = 5,
  WORDS = 6,
}

export interface DccpArguments {
  /** DccpTest bits. */
  readonly asked: number;
  readonly invert: number;
  readonly sport: readonly [number, number];
  readonly dport: readonly [number, number];
  readonly types: number;
  readonly option: number;
}

export const encodeDccp = (test: DccpArguments): number[] => [
  test.asked,
  test.invert,
  (test.sport[0] << 16) | test.sport[1],
  (test.dport[0] << 16) | test.dport[1],
  test.types,
  test.option,
];

const GENERIC_HEADER = 12;
const DATA_OFFSET = 4;
const TYPE = 8;
/** The sequence number takes four bytes more when X is set. */
const LONG_SEQUENCE = 4;
/** Bytes behind the generic header by packet type: Request, Response, Data, Ack, DataAck, CloseReq, Close, Reset, Sync, SyncAck. */
const TYPE_HEADERS = [4, 12, 0, 8, 8, 8, 8, 12, 8, 8];
const RESET_HEADER = 12;
/** Options below are a byte alone. */
const FIRST_LONG_OPTION = 2;

export function matchDccp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < GENERIC_HEADER) {
    p.hotdrop = 1;
    return false;
  }
  const asked = program[at + Arg.ASKED]!;
  const invert = program[at + Arg.INVERT]!;
  if ((asked & DccpTest.SPORT) !== 0) {
    const range = program[at + Arg.SPORTS]!;
    const within = p.sport >= range >>> 16 && p.sport <= (range & 0xffff);
    if (within === ((invert & DccpTest.SPORT) !== 0)) return false;
  }
  if ((asked & DccpTest.DPORT) !== 0) {
    const range = program[at + Arg.DPORTS]!;
    const within = p.dport >= range >>> 16 && p.dport <= (range & 0xffff);
    if (within === ((invert & DccpTest.DPORT) !== 0)) return false;
  }
  const byte = u8(p.bytes, p.l4 + TYPE);
  const type = (byte >> 1) & 15;
  if ((asked & DccpTest.TYPE) !== 0) {
    if ((((program[at + Arg.TYPES]! >> type) & 1) !== 0) === ((invert & DccpTest.TYPE) !== 0)) return false;
  }
  if ((asked & DccpTest.OPTION) === 0) return true;
  const header = GENERIC_HEADER + ((byte & 1) !== 0 ? LONG_SEQUENCE : 0) + (TYPE_HEADERS[type] ?? RESET_HEADER);
  return hasOption(p, header, program[at + Arg.OPTION]!) !== ((invert & DccpTest.OPTION) !== 0);
}

function hasOption(p: Packet, header: number, option: number): boolean {
  const { bytes, l4 } = p;
  const headers = u8(bytes, l4 + DATA_OFFSET) << 2;
  if (headers < header || (headers > header && headers > p.l4Length)) {
    p.hotdrop = 1;
    return false;
  }
  const end = l4 + headers;
  for (let o = l4 + header; o < end;) {
    const kind = u8(bytes, o);
    if (kind === option) return true;
    // The kernel reads a length past the last byte; whatever that is, no option is left.
    if (kind < FIRST_LONG_OPTION || o + 1 >= end) o++;
    else o += u8(bytes, o + 1) || 1;
  }
  return false;
}

export const dccp: Op = {
  name: 'dccp',
  payload: true,
  words: Arg.WORDS,
  text: (a) => {
    const words: string[] = [];
    const say = (bit: DccpTest, text: string): void => {
      if (argument(a, Arg.ASKED) & bit) words.push(`${argument(a, Arg.INVERT) & bit ? '! ' : ''}${text}`);
    };
    const range = (i: Arg): string => rangeText(argument(a, i) >>> 16, argument(a, i) & 0xffff);
    say(DccpTest.SPORT, `sport ${range(Arg.SPORTS)}`);
    say(DccpTest.DPORT, `dport ${range(Arg.DPORTS)}`);
    say(DccpTest.TYPE, `types ${hex(argument(a, Arg.TYPES))}`);
    say(DccpTest.OPTION, `option ${argument(a, Arg.OPTION)}`);
    return words.join(' ');
  },
};
