/**
 * Tuples as numbers. A tuple is source and destination address, one `ports` word and one `key` word. Both words mean
 * what the protocol puts there, as in the kernel's nf_conntrack_tuple:
 *
 *     ports   source part << 16 | destination part      key   protocol | family << 8 | zone << 16
 *
 *     TCP, UDP, UDP-Lite, SCTP   source port, destination port
 *     ICMP                       identifier, type << 8 | code
 *     GRE (version 1, PPTP)      source key, destination key (call ids)
 *     everything else            0, 0   (DCCP too: the kernel's tracker for it is gone since 6.17)
 *
 * Addresses are int32 in host order.
 */
import { Proto } from '../names.js';

export const FAMILY_IPV4 = 4;

export const packPorts = (source: number, destination: number): number => (source << 16) | destination;

/** The key word of an IPv4 tuple. */
export const packKey = (protocol: number, zone: number): number => protocol | (FAMILY_IPV4 << 8) | (zone << 16);
export const keyProtocol = (key: number): number => key & 0xff;
export const keyZone = (key: number): number => key >>> 16;

/** ICMP types that come in pairs: type → type of the answer, −1 for none (nf_conntrack_proto_icmp.c, invmap). */
const ICMP_INVERSE = new Int8Array(256).fill(-1);
for (const [request, reply] of [
  [8, 0],
  [13, 14],
  [15, 16],
  [17, 18],
] as const) {
  ICMP_INVERSE[request] = reply;
  ICMP_INVERSE[reply] = request;
}

/** Whether a tuple of this protocol can be turned round: not so for ICMP messages that have no answer. */
export function invertible(protocol: number, ports: number): boolean {
  return protocol !== Proto.ICMP || ICMP_INVERSE[(ports >> 8) & 0xff]! >= 0;
}

/** The `ports` word of the inverted tuple; defined for invertible ones only. */
export function invertPorts(protocol: number, ports: number): number {
  if (protocol === Proto.ICMP) return (ports & ~0xff00) | (ICMP_INVERSE[(ports >> 8) & 0xff]! << 8);
  return (ports << 16) | (ports >>> 16);
}

/** Seeded hash of a tuple, all 32 bits well mixed (the finalizer of MurmurHash3 after each round). */
export function hashTuple(seed: number, src: number, dst: number, ports: number, key: number): number {
  let h = seed ^ Math.imul(src, 0xcc9e2d51 | 0);
  h = (h << 13) | (h >>> 19);
  h = (Math.imul(h, 5) + (0xe6546b64 | 0)) | 0;
  h ^= Math.imul(dst, 0x1b873593);
  h = (h << 15) | (h >>> 17);
  h = (Math.imul(h, 5) + 0x561ccd1b) | 0;
  h ^= Math.imul(ports, 0xcc9e2d51 | 0);
  h = (h << 13) | (h >>> 19);
  h = (Math.imul(h, 5) + key) | 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b | 0);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35 | 0);
  return h ^ (h >>> 16);
}
