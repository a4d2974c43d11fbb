/**
 * -j HMARK (net/netfilter/xt_HMARK.c): the packet's mark becomes a hash of its addresses, ports and protocol, the same for
 * both directions: SRC_MASK DST_MASK PORT_MASK PORT_SET PROTOCOL_MASK SEED MODULUS OFFSET CONNECTION. PORT_* hold the
 * source port in their upper half, or the SPI. An ICMP error counts as the packet that it quotes. With CONNECTION the
 * original tuple's source and the reply's are taken; a packet without one keeps its mark.
 */
import { Dir, Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { portsOffset } from '../wire/ports.js';
import { u16, u32, u8 } from '../wire/bytes.js';
import type { Context } from './context.js';
import { JHASH_INITVAL, jhash3 } from './jhash.js';
import { setMark } from './mark.js';
import { argument, hex, type Op } from './op.js';
import { CONTINUE } from './ops.js';

const enum Arg {
  SRC_MASK = 0,
  DST_MASK = 1,
  PORT_MASK = 2,
  PORT_SET = 3,
  PROTOCOL_MASK = 4,
  SEED = 5,
  MODULUS = 6,
  OFFSET = 7,
  CONNECTION = 8,
  WORDS = 9,
}

export interface Hmark {
  readonly srcMask: number;
  readonly dstMask: number;
  readonly portMask: number;
  readonly portSet: number;
  readonly protocolMask: number;
  readonly seed: number;
  /** 1 … 2^32 − 1, as int32 or not. */
  readonly modulus: number;
  readonly offset: number;
  readonly connection: boolean;
}

export const encodeHMARK = (h: Hmark): number[] => [
  h.srcMask,
  h.dstMask,
  h.portMask,
  h.portSet,
  h.protocolMask,
  h.seed,
  h.modulus,
  h.offset,
  h.connection ? 1 : 0,
];

/** jhash_3words() starts from so much more than the seed. */
const THREE_WORDS = 12;

/** hash · modulus / 2^32, rounded down (reciprocal_scale), without leaving exact doubles. */
function scale(hash: number, modulus: number): number {
  const low = Math.floor(((hash & 0xffff) * modulus) / 0x1_0000);
  return Math.floor(((hash >>> 16) * modulus + low) / 0x1_0000);
}

const ICMP_HEADER = 8;
const IP_HEADER = 20;
const MORE_OR_OFFSET = 0x3fff;
const isError = (type: number): boolean => type === 3 || type === 4 || type === 5 || type === 11 || type === 12;

/** Masked ports, the larger first. */
function orderedPorts(program: Int32Array, at: number, ports: number): number {
  const masked = (ports & program[at + Arg.PORT_MASK]!) | program[at + Arg.PORT_SET]!;
  const source = masked >>> 16;
  const destination = masked & 0xffff;
  return destination > source ? (destination << 16) | source : masked;
}

export function applyHMARK(context: Context, program: Int32Array, at: number, p: Packet): number {
  let src: number;
  let dst: number;
  let protocol: number;
  let ports = 0;
  if (program[at + Arg.CONNECTION]! !== 0) {
    if (p.ct < 0) return CONTINUE;
    const table = context.table;
    src = table.src(p.ct, Dir.ORIGINAL);
    dst = table.src(p.ct, Dir.REPLY);
    protocol = table.protocol(p.ct);
    if (protocol !== Proto.ICMP) {
      const both = (table.ports(p.ct, Dir.ORIGINAL) & 0xffff_0000) | (table.ports(p.ct, Dir.REPLY) >>> 16);
      ports = orderedPorts(program, at, both);
    }
  } else {
    const { bytes, end } = p;
    let header = p.start;
    if (p.protocol === Proto.ICMP && p.l4 + ICMP_HEADER <= end && isError(u8(bytes, p.l4))) {
      header = p.l4 + ICMP_HEADER;
      if (header + IP_HEADER > end) return CONTINUE;
    }
    src = u32(bytes, header + 12);
    dst = u32(bytes, header + 16);
    protocol = u8(bytes, header + 9);
    const offset = portsOffset(protocol);
    if (offset >= 0 && (u16(bytes, header + 6) & MORE_OR_OFFSET) === 0) {
      const o = header + ((u8(bytes, header) & 15) << 2) + offset;
      if (o + 4 <= end) ports = orderedPorts(program, at, u32(bytes, o));
    }
  }
  src &= program[at + Arg.SRC_MASK]!;
  dst &= program[at + Arg.DST_MASK]!;
  const ordered = src >>> 0 <= dst >>> 0;
  const initial = (program[at + Arg.SEED]! + JHASH_INITVAL + THREE_WORDS) | 0;
  const hash = jhash3(ordered ? src : dst, ordered ? dst : src, ports, initial);
  const spread = hash ^ (protocol & program[at + Arg.PROTOCOL_MASK]!);
  setMark(p, (scale(spread, program[at + Arg.MODULUS]! >>> 0) + program[at + Arg.OFFSET]!) | 0);
  return CONTINUE;
}

export const HMARK: Op = {
  name: 'HMARK',
  words: Arg.WORDS,
  connections: (args) => args[Arg.CONNECTION] !== 0,
  check: (a) => (argument(a, Arg.MODULUS) === 0 ? 'its modulus is 0' : undefined),
  text: (a) =>
    `${argument(a, Arg.CONNECTION) ? 'ct ' : ''}src ${hex(argument(a, Arg.SRC_MASK))} dst ${hex(argument(a, Arg.DST_MASK))}` +
    ` ports ${hex(argument(a, Arg.PORT_MASK))} | ${hex(argument(a, Arg.PORT_SET))}` +
    ` proto ${hex(argument(a, Arg.PROTOCOL_MASK))} seed ${hex(argument(a, Arg.SEED))}` +
    ` mod ${argument(a, Arg.MODULUS) >>> 0} + ${argument(a, Arg.OFFSET) >>> 0}`,
};
