/**
 * -m set and -j SET (net/netfilter/xt_set.c): the kernel's sets, asked with what of the packet the set is about. Arguments: FLAGS HOLES
 * LENGTH, for each hole its FIELD and where in the request its value begins, then the request's bytes packed: a message of the
 * ipset subsystem that lacks the packet's values only (io/ipset.ts). Which fields a type of set wants is known when
 * the rule is compiled (control/ext/set.ts).
 *
 * A packet without such a field is in no set (ip_set_get_ip4_port and each type's kadt function, net/netfilter/ipset/).
 */
import { Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, setU32, u16 } from '../wire/bytes.js';
import type { Context } from './context.js';
import { argument, hex, packBytes, type Op } from './op.js';
import { CONTINUE } from './ops.js';

/** What of a packet goes into the request. Values but the interface's name are in network order. */
export const enum SetField {
  SRC = 0,
  DST,
  /** The port, or ICMP's type and code; 0 for protocols without. */
  SPORT,
  DPORT,
  /** The port of a set that is about TCP and UDP only. */
  SPORT_ONLY,
  DPORT_ONLY,
  PROTOCOL,
  /** Its name, 16 bytes. */
  IN,
  OUT,
  MARK,
  /** Source hardware address. */
  MAC,
}

export interface SetHole {
  readonly field: SetField;
  /** In bytes from the request's beginning. */
  readonly at: number;
}

const enum Arg {
  /** 1: no packet is in it. */
  NEVER = 0,
  HOLES = 1,
  /** Of the request, in bytes. */
  LENGTH = 2,
  WORDS = 3,
}
/** The longest request: two names of 32 bytes and an element. */
const MOST_BYTES = 512;
const NAME_BYTES = 16;
const MAC_BYTES = 6;
const FIELD_BYTES = [4, 4, 2, 2, 2, 2, 1, NAME_BYTES, NAME_BYTES, 4, MAC_BYTES];

/** `never`: the rule names fewer dimensions than the set has. */
export const encodeSet = (request: Uint8Array, holes: readonly SetHole[], never = false): number[] => [
  never ? 1 : 0,
  holes.length,
  request.length,
  ...holes.flatMap(({ field, at }) => [field, at]),
  ...packBytes(request),
];

/** One a thread: requests are made and answered one by one. */
const bytes = new Uint8Array(MOST_BYTES);

export const matchSet = (context: Context, program: Int32Array, at: number, p: Packet): boolean =>
  ask(context, program, at, p) === 0;

/** Up to two requests, one behind the other: to add and to delete. Whether they do anything the packet isn't told. */
export function applySET(context: Context, program: Int32Array, at: number, p: Packet): number {
  let request = at + 1;
  for (let i = program[at]!; i > 0; i--) {
    ask(context, program, request, p);
    request += words(program, request);
  }
  return CONTINUE;
}

const words = (program: Int32Array, at: number): number =>
  Arg.WORDS + program[at + Arg.HOLES]! * 2 + ((program[at + Arg.LENGTH]! + 3) >> 2);

/** 0: it is in the set, or was put in or out; −1: the packet has nothing to ask by; else an error. */
function ask(context: Context, program: Int32Array, at: number, p: Packet): number {
  if (program[at + Arg.NEVER] !== 0) return -1;
  const length = program[at + Arg.LENGTH]!;
  const holes = at + Arg.WORDS;
  const request = holes + program[at + Arg.HOLES]! * 2;
  for (let i = 0; i < length; i += 4) setU32(bytes, i, program[request + (i >> 2)]!);
  for (let hole = holes; hole < request; hole += 2) {
    if (!fill(context, p, program[hole]!, program[hole + 1]!)) return -1;
  }
  return context.sets.ask(bytes, length);
}

function fill(context: Context, p: Packet, field: SetField, at: number): boolean {
  switch (field) {
    case SetField.SRC:
      setU32(bytes, at, p.src);
      return true;
    case SetField.DST:
      setU32(bytes, at, p.dst);
      return true;
    case SetField.SPORT:
    case SetField.DPORT:
      return fillPort(p, at, field === SetField.SPORT);
    case SetField.SPORT_ONLY:
    case SetField.DPORT_ONLY:
      if (p.protocol !== Proto.TCP && p.protocol !== Proto.UDP) return false;
      return fillPort(p, at, field === SetField.SPORT_ONLY);
    case SetField.PROTOCOL:
      bytes[at] = p.protocol;
      return true;
    case SetField.IN:
      return fillName(context.interfaces.words, context.in, context.inName, at);
    case SetField.OUT:
      return fillName(context.interfaces.words, context.out, context.outName, at);
    case SetField.MARK:
      setU32(bytes, at, p.mark);
      return true;
    case SetField.MAC:
      if (p.macLength !== MAC_BYTES || context.in === 0) return false;
      setU32(bytes, at, p.macHigh);
      setU16(bytes, at + 4, p.macLow >>> 16);
      return true;
  }
}

/** get_port() of net/netfilter/ipset/ip_set_getport.c. */
function fillPort(p: Packet, at: number, source: boolean): boolean {
  switch (p.protocol) {
    case Proto.TCP:
    case Proto.UDP:
    case Proto.UDPLITE:
    case Proto.SCTP:
      if (p.hasPorts === 0) return false;
      setU16(bytes, at, source ? p.sport : p.dport);
      return true;
    case Proto.ICMP:
      if (p.icmpOk === 0) return false;
      setU16(bytes, at, u16(p.bytes, p.l4));
      return true;
    default:
      setU16(bytes, at, 0);
      return true;
  }
}

/** `name` is its offset in the interfaces' words, where it lies packed big-endian and padded with zeros. */
function fillName(interfaces: Int32Array, ifindex: number, name: number, at: number): boolean {
  if (ifindex === 0) return false;
  for (let i = 0; i < NAME_BYTES; i += 4) setU32(bytes, at + i, interfaces[name + (i >> 2)]!);
  return true;
}

/** Whether a request lies within `limit` words, and its holes within it. */
function checkRequest(program: Int32Array, at: number, limit: number): string | undefined {
  const holes = program[at + Arg.HOLES]!;
  const length = program[at + Arg.LENGTH]!;
  if (limit < Arg.WORDS || holes < 0 || holes > 8 || length < 0 || length > MOST_BYTES || words(program, at) > limit)
    return 'its request is not as long as it says';
  for (let i = 0; i < holes; i++) {
    const hole = at + Arg.WORDS + i * 2;
    const size = FIELD_BYTES[program[hole]!];
    const offset = program[hole + 1]!;
    if (size === undefined || offset < 0 || offset + size > length) return 'a value lies outside its request';
  }
  return undefined;
}

export const set: Op = {
  name: 'set',
  words: Arg.WORDS,
  variable: true,
  invertible: true,
  check: (a) => checkRequest(a.program, a.at, a.words),
  text: (a) => `${argument(a, Arg.NEVER) ? 'never ' : ''}fields ${hex(argument(a, Arg.HOLES))}`,
};

export const SET: Op = {
  name: 'SET',
  words: 1,
  variable: true,
  check: (a) => {
    let at = a.at + 1;
    for (let i = argument(a, 0); i > 0; i--) {
      const problem = checkRequest(a.program, at, a.at + a.words - at);
      if (problem !== undefined) return problem;
      at += words(a.program, at);
    }
    return argument(a, 0) >= 0 ? undefined : 'it has no requests';
  },
  text: (a) => `${argument(a, 0)} requests`,
};
