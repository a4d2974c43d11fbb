/**
 * -m tcp (net/netfilter/xt_tcpudp.c). A second fragment at offset 8 and a header that is cut are impossible packets:
 * the table drops them. Arguments:
 *
 *     SPORTS  DPORTS   first port << 16 | last port
 *     FLAGS            mask << 8 | compare
 *     OPTION           option kind that must be present, 0 = any
 *     INVERT           TcpInvert bits
 */
import type { Packet } from '../packet.js';
import { u8 } from '../wire/bytes.js';
import { argument, hex, rangeText, type Op } from './op.js';

const enum Arg {
  SPORTS = 0,
  DPORTS = 1,
  FLAGS = 2,
  OPTION = 3,
  INVERT = 4,
  WORDS = 5,
}
export const enum TcpInvert {
  SPORTS = 1 << 0,
  DPORTS = 1 << 1,
  FLAGS = 1 << 2,
  OPTION = 1 << 3,
}

export interface PortRange {
  readonly min: number;
  readonly max: number;
  readonly invert?: boolean | undefined;
}
export interface TcpTest {
  readonly sports?: PortRange | undefined;
  readonly dports?: PortRange | undefined;
  /** TcpFlag bits to look at, and those of them that must be set. */
  readonly flags?: { readonly mask: number; readonly set: number; readonly invert?: boolean | undefined } | undefined;
  readonly option?: { readonly kind: number; readonly invert?: boolean | undefined } | undefined;
}

export const encodePorts = (ports: PortRange | undefined): number =>
  ports === undefined ? 0xffff : (ports.min << 16) | ports.max;

export const encodeTcp = (test: TcpTest): number[] => [
  encodePorts(test.sports),
  encodePorts(test.dports),
  test.flags === undefined ? 0 : (test.flags.mask << 8) | test.flags.set,
  test.option?.kind ?? 0,
  (test.sports?.invert ? TcpInvert.SPORTS : 0) |
    (test.dports?.invert ? TcpInvert.DPORTS : 0) |
    (test.flags?.invert ? TcpInvert.FLAGS : 0) |
    (test.option?.invert ? TcpInvert.OPTION : 0),
];

const HEADER = 20;

export function matchTcp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) {
    if (p.fragOffset === 1) p.hotdrop = 1;
    return false;
  }
  if (p.l4Length < HEADER) {
    p.hotdrop = 1;
    return false;
  }
  const invert = program[at + Arg.INVERT]!;
  const sports = program[at + Arg.SPORTS]!;
  if ((p.sport >= sports >>> 16 && p.sport <= (sports & 0xffff)) === ((invert & TcpInvert.SPORTS) !== 0)) return false;
  const dports = program[at + Arg.DPORTS]!;
  if ((p.dport >= dports >>> 16 && p.dport <= (dports & 0xffff)) === ((invert & TcpInvert.DPORTS) !== 0)) return false;
  const flags = program[at + Arg.FLAGS]!;
  if (((p.tcpFlags & (flags >> 8)) === (flags & 0xff)) === ((invert & TcpInvert.FLAGS) !== 0)) return false;
  const option = program[at + Arg.OPTION]!;
  return option === 0 || hasOption(p, option, (invert & TcpInvert.OPTION) !== 0);
}

/** tcp_find_option(): the kernel walks the options as sent, a length of 0 counting as 1. */
function hasOption(p: Packet, kind: number, invert: boolean): boolean {
  const headerLength = (u8(p.bytes, p.l4 + 12) >> 4) << 2;
  if (headerLength < HEADER) {
    p.hotdrop = 1;
    return false;
  }
  if (headerLength === HEADER) return invert;
  if (headerLength > p.l4Length) {
    p.hotdrop = 1;
    return false;
  }
  const end = p.l4 + headerLength;
  for (let o = p.l4 + HEADER; o < end;) {
    const found = u8(p.bytes, o);
    if (found === kind) return !invert;
    // Past the last option the kernel reads a byte of its own stack; taking it as 1 ends the walk likewise.
    if (found < 2 || o + 1 === end) o++;
    else o += u8(p.bytes, o + 1) || 1;
  }
  return invert;
}

export const portsText = (name: string, ports: number, invert: boolean): string =>
  ports === 0xffff && !invert ? '' : ` ${invert ? '! ' : ''}${name} ${rangeText(ports >>> 16, ports & 0xffff)}`;

export const tcp: Op = {
  name: 'tcp',
  words: Arg.WORDS,
  text: (a) => {
    const invert = argument(a, Arg.INVERT);
    const flags = argument(a, Arg.FLAGS);
    const option = argument(a, Arg.OPTION);
    return (
      portsText('sport', argument(a, Arg.SPORTS), (invert & TcpInvert.SPORTS) !== 0) +
      portsText('dport', argument(a, Arg.DPORTS), (invert & TcpInvert.DPORTS) !== 0) +
      (flags === 0 ? '' : ` ${invert & TcpInvert.FLAGS ? '! ' : ''}flags ${hex(flags >> 8)}/${hex(flags & 0xff)}`) +
      (option === 0 ? '' : ` ${invert & TcpInvert.OPTION ? '! ' : ''}option ${option}`)
    ).trimStart();
  },
};
