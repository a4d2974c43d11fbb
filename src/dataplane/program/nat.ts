/**
 * The targets of the nat table: SNAT, DNAT (net/netfilter/xt_nat.c), MASQUERADE, REDIRECT and NETMAP (xt_MASQUERADE.c,
 * xt_REDIRECT.c, xt_NETMAP.c). They share their arguments: FLAGS (RangeFlag) MIN_ADDRESS MAX_ADDRESS MIN_PORT MAX_PORT
 * BASE_PORT. The table sees a connection's first packet only; the binding is the connection's.
 */
import { Hook, Manip, Verdict } from '../names.js';
import { RangeFlag } from '../nat/range.js';
import type { Packet } from '../packet.js';

import type { Context } from './context.js';
import { addressText, argument, hex, rangeText, type Op } from './op.js';

const enum Arg {
  FLAGS = 0,
  MIN_ADDRESS = 1,
  MAX_ADDRESS = 2,
  MIN_PORT = 3,
  MAX_PORT = 4,
  BASE_PORT = 5,
  WORDS = 6,
}
/** RFC 1122 §3.2.1.3 */
const LOOPBACK = 0x7f00_0001;

export interface NatRange {
  /** RangeFlag bits. */
  readonly flags: number;
  readonly minAddress?: number;
  readonly maxAddress?: number;
  readonly minPort?: number;
  readonly maxPort?: number;
  readonly basePort?: number;
}

/** For all five. NETMAP: the network's first and last address. */
export const encodeNat = (range: NatRange): number[] => [
  range.flags,
  range.minAddress ?? 0,
  range.maxAddress ?? 0,
  range.minPort ?? 0,
  range.maxPort ?? 0,
  range.basePort ?? 0,
];

export const applySNAT = (context: Context, program: Int32Array, at: number, p: Packet): Verdict =>
  bind(context, program, at, p, Manip.SRC);
export const applyDNAT = (context: Context, program: Int32Array, at: number, p: Packet): Verdict =>
  bind(context, program, at, p, Manip.DST);

function bind(context: Context, program: Int32Array, at: number, p: Packet, manip: Manip): Verdict {
  return context.nat.bind(
    p.ct,
    manip,
    program[at + Arg.FLAGS]!,
    program[at + Arg.MIN_ADDRESS]!,
    program[at + Arg.MAX_ADDRESS]!,
    program[at + Arg.MIN_PORT]!,
    program[at + Arg.MAX_PORT]!,
    program[at + Arg.BASE_PORT]!,
  );
}

/** To an address of the way out; without one the packet is dropped. Source 0.0.0.0 (DHCP) is let be. */
export function applyMASQUERADE(context: Context, program: Int32Array, at: number, p: Packet): Verdict {
  return context.nat.masquerade(
    p.ct,
    program[at + Arg.FLAGS]!,
    context.routes.masqueradeAddress(p),
    context.out,
    program[at + Arg.MIN_PORT]!,
    program[at + Arg.MAX_PORT]!,
  );
}

/** To the router itself: 127.0.0.1 in OUTPUT, else the first address of the interface it came in by, or dropped. */
export function applyREDIRECT(context: Context, program: Int32Array, at: number, p: Packet): Verdict {
  const address = context.hook === Hook.OUTPUT ? LOOPBACK : context.interfaces.primaryAddress(context.in);
  if (address === 0) return Verdict.DROP;
  return context.nat.bind(
    p.ct,
    Manip.DST,
    program[at + Arg.FLAGS]! | RangeFlag.MAP_IPS,
    address,
    address,
    program[at + Arg.MIN_PORT]!,
    program[at + Arg.MAX_PORT]!,
    0,
  );
}

/** The network part of the address is exchanged, its host part kept: source in POSTROUTING and INPUT, else destination. */
export function applyNETMAP(context: Context, program: Int32Array, at: number, p: Packet): Verdict {
  const network = program[at + Arg.MIN_ADDRESS]!;
  const mask = ~(network ^ program[at + Arg.MAX_ADDRESS]!);
  const source = context.hook === Hook.POSTROUTING || context.hook === Hook.INPUT;
  return context.nat.netmap(p.ct, source ? Manip.SRC : Manip.DST, source ? p.src : p.dst, network, mask);
}

const nat = (name: string): Op => ({
  name,
  words: Arg.WORDS,
  connections: true,
  text: (a) => {
    const flags = argument(a, Arg.FLAGS);
    const min = argument(a, Arg.MIN_ADDRESS);
    const max = argument(a, Arg.MAX_ADDRESS);
    const addresses = min === max ? addressText(min) : `${addressText(min)}-${addressText(max)}`;
    const ports = rangeText(argument(a, Arg.MIN_PORT), argument(a, Arg.MAX_PORT));
    return `${flags & RangeFlag.MAP_IPS ? `${addresses} ` : ''}${flags & RangeFlag.PROTO_SPECIFIED ? `ports ${ports} ` : ''}flags ${hex(flags)}`;
  },
});
export const SNAT = nat('SNAT');
export const DNAT = nat('DNAT');
export const MASQUERADE = nat('MASQUERADE');
export const REDIRECT = nat('REDIRECT');
export const NETMAP = nat('NETMAP');
