/**
 * -m owner (net/netfilter/xt_owner.c): MATCH INVERT (OwnerTest bits) UID_MIN UID_MAX GID_MIN GID_MAX, unsigned. The queue
 * tells uid and gid of the sending socket's file. The kernel's own sockets, which send ICMP errors and TCP resets, have no
 * file; nor has the answer to a SYN as the queue shows it, which is its listener's.
 */
import { InFlag } from '../io/batch.js';
import { Hook, Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { argument, type Op } from './op.js';

/** XT_OWNER_* */
export const enum OwnerTest {
  UID = 1 << 0,
  GID = 1 << 1,
  SOCKET = 1 << 2,
}

export const encodeOwner = (
  match: number,
  invert: number,
  uidMin: number,
  uidMax: number,
  gidMin: number,
  gidMax: number,
): number[] => [match, invert, uidMin | 0, uidMax | 0, gidMin | 0, gidMax | 0];

export function matchOwner(program: Int32Array, at: number, p: Packet): boolean {
  const match = program[at]!;
  const invert = program[at + 1]!;
  if ((p.flags & InFlag.UID) === 0 && !hasSocket(p)) return (match ^ invert) === 0;
  if ((match & invert & OwnerTest.SOCKET) !== 0) return false;
  if ((p.flags & InFlag.UID) === 0) return ((match ^ invert) & (OwnerTest.UID | OwnerTest.GID)) === 0;
  if ((match & OwnerTest.UID) !== 0) {
    const uid = p.uid >>> 0;
    const within = uid >= program[at + 2]! >>> 0 && uid <= program[at + 3]! >>> 0;
    if (within === ((invert & OwnerTest.UID) !== 0)) return false;
  }
  if ((match & OwnerTest.GID) !== 0) {
    const gid = p.gid >>> 0;
    const within = gid >= program[at + 4]! >>> 0 && gid <= program[at + 5]! >>> 0;
    if (within === ((invert & OwnerTest.GID) !== 0)) return false;
  }
  return true;
}

/** Whether a packet without an owner comes from a socket of the kernel's. */
const hasSocket = (p: Packet): boolean =>
  p.hook === Hook.OUTPUT &&
  (p.flags & InFlag.NO_SOCKET) === 0 &&
  (p.protocol === Proto.ICMP || p.protocol === Proto.TCP);

export const owner: Op = {
  name: 'owner',
  words: 6,
  text: (a) => {
    const say = (bit: number, text: string): string =>
      argument(a, 0) & bit ? ` ${argument(a, 1) & bit ? '! ' : ''}${text}` : '';
    return (
      say(OwnerTest.SOCKET, 'socket-exists') +
      say(OwnerTest.UID, `uid ${argument(a, 2) >>> 0}-${argument(a, 3) >>> 0}`) +
      say(OwnerTest.GID, `gid ${argument(a, 4) >>> 0}-${argument(a, 5) >>> 0}`)
    ).trimStart();
  },
};
