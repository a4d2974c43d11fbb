/**
 * -m addrtype (net/netfilter/xt_addrtype.c): FLAGS SOURCE DESTINATION. SOURCE and DESTINATION are masks of
 * 1 << RTN_*, 0 = not asked; FLAGS are XT_ADDRTYPE_*. The types come from the local addresses (inet_dev_addr_type).
 */
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, hex, type Op } from './op.js';

export const enum AddressTest {
  INVERT_SOURCE = 1 << 0,
  INVERT_DESTINATION = 1 << 1,
  LIMIT_IN = 1 << 2,
  LIMIT_OUT = 1 << 3,
}

export const encodeAddrtype = (flags: number, source: number, destination: number): number[] => [
  flags,
  source,
  destination,
];

export function matchAddrtype(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const flags = program[at]!;
  const source = program[at + 1]!;
  const destination = program[at + 2]!;
  let ifindex = 0;
  if ((flags & AddressTest.LIMIT_IN) !== 0) ifindex = context.in;
  else if ((flags & AddressTest.LIMIT_OUT) !== 0) ifindex = context.out;
  if (
    source !== 0 &&
    (((source >> context.routes.addressType(p.src, ifindex)) & 1) !== 0) === ((flags & AddressTest.INVERT_SOURCE) !== 0)
  )
    return false;
  return (
    destination === 0 ||
    (((destination >> context.routes.addressType(p.dst, ifindex)) & 1) !== 0) !==
      ((flags & AddressTest.INVERT_DESTINATION) !== 0)
  );
}

export const addrtype: Op = {
  name: 'addrtype',
  words: 3,
  text: (a) => `flags ${hex(argument(a, 0))} src ${hex(argument(a, 1))} dst ${hex(argument(a, 2))}`,
};
