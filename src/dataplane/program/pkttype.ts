/**
 * -m pkttype (net/netfilter/xt_pkttype.c): TYPE, how the packet was addressed on its link. The queue doesn't tell; the diversion
 * marks what was for many (control/divert.ts) while a program asks (ProgramFlag.PACKET_TYPE).
 */
import type { Packet } from '../packet.js';
import { ProgramFlag } from './format.js';
import { argument, type Op } from './op.js';

/** PACKET_* (include/uapi/linux/if_packet.h) */
export const enum PacketType {
  HOST = 0,
  BROADCAST = 1,
  MULTICAST = 2,
}

export const encodePkttype = (type: number): number[] => [type];

export const matchPkttype = (program: Int32Array, at: number, p: Packet): boolean => p.packetType === program[at]!;

export const pkttype: Op = {
  name: 'pkttype',
  words: 1,
  invertible: true,
  marked: ProgramFlag.PACKET_TYPE,
  text: (a) => `${argument(a, 0)}`,
};
