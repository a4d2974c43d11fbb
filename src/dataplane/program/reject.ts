/**
 * -j REJECT (net/ipv4/netfilter/ipt_REJECT.c): KIND, the kernel's enum ipt_reject_with. The context's `answers` builds and
 * sends what is due; the packet is dropped.
 */
import { argument, type Op } from './op.js';

export const enum RejectWith {
  NET_UNREACHABLE = 0,
  HOST_UNREACHABLE = 1,
  PROTO_UNREACHABLE = 2,
  PORT_UNREACHABLE = 3,
  ECHO_REPLY = 4,
  NET_PROHIBITED = 5,
  HOST_PROHIBITED = 6,
  TCP_RESET = 7,
  ADMIN_PROHIBITED = 8,
}

/** Code of ICMP destination unreachable for a kind; −1 for those that are none. */
export const REJECT_CODES: Int8Array = Int8Array.of(0, 1, 2, 3, -1, 9, 10, -1, 13);

export const encodeREJECT = (kind: RejectWith): number[] => [kind];

export const REJECT: Op = {
  name: 'REJECT',
  payload: true,
  words: 1,
  check: (a) => (argument(a, 0) >= 0 && argument(a, 0) < REJECT_CODES.length ? undefined : 'it has no such answer'),
  text: (a) =>
    [
      'net',
      'host',
      'proto',
      'port',
      'echo-reply',
      'net-prohibited',
      'host-prohibited',
      'tcp-reset',
      'admin-prohibited',
    ][argument(a, 0)] ?? '?',
};
