/**
 * -m udp (net/netfilter/xt_tcpudp.c): SPORTS DPORTS (first << 16 | last) INVERT (1 source, 2 destination). A cut header
 * makes the packet impossible. UDP-Lite is not UDP here either: the rule's -p says 17.
 */
import type { Packet } from '../packet.js';
import { argument, type Op } from './op.js';
import { encodePorts, portsText, type PortRange } from './tcp.js';

export interface UdpTest {
  readonly sports?: PortRange | undefined;
  readonly dports?: PortRange | undefined;
}

export const encodeUdp = (test: UdpTest): number[] => [
  encodePorts(test.sports),
  encodePorts(test.dports),
  (test.sports?.invert ? 1 : 0) | (test.dports?.invert ? 2 : 0),
];

const HEADER = 8;

export function matchUdp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < HEADER) {
    p.hotdrop = 1;
    return false;
  }
  const invert = program[at + 2]!;
  const sports = program[at]!;
  if ((p.sport >= sports >>> 16 && p.sport <= (sports & 0xffff)) === ((invert & 1) !== 0)) return false;
  const dports = program[at + 1]!;
  return (p.dport >= dports >>> 16 && p.dport <= (dports & 0xffff)) !== ((invert & 2) !== 0);
}

export const udp: Op = {
  name: 'udp',
  words: 3,
  text: (a) =>
    (
      portsText('sport', argument(a, 0), (argument(a, 2) & 1) !== 0) +
      portsText('dport', argument(a, 1), (argument(a, 2) & 2) !== 0)
    ).trimStart(),
};
