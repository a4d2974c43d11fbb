/**
 * -j NFQUEUE and -j QUEUE (net/netfilter/xt_NFQUEUE.c): FIRST TOTAL FLAGS (1 bypass, 2 cpu fanout). The packet goes on to
 * another queue of the kernel; with bypass and nobody there, it is as good as accepted. With several, the kernel hashes the addresses' lesser and greater and the protocol with a
 * seed of its own: which queue a pair of hosts gets is free, that it keeps it is not.
 */
import { Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, type Op } from './op.js';

export const enum QueueFlag {
  BYPASS = 1 << 0,
  CPU_FANOUT = 1 << 1,
}

export const encodeNFQUEUE = (first: number, total: number, flags: number): number[] => [first, total, flags];

export function applyNFQUEUE(context: Context, program: Int32Array, at: number, p: Packet): Verdict {
  const flags = program[at + 2]!;
  const total = program[at + 1]!;
  let queue = program[at]!;
  if (total > 1) queue += (flags & QueueFlag.CPU_FANOUT) !== 0 ? context.worker % total : spread(p) % total;
  if ((flags & QueueFlag.BYPASS) !== 0 && !context.answers.isListening(queue)) return Verdict.ACCEPT;
  context.queueNumber = queue;
  return Verdict.QUEUE;
}

/** The same for both directions of a pair of hosts. */
function spread(p: Packet): number {
  const a = p.src >>> 0;
  const b = p.dst >>> 0;
  let h = Math.imul(a < b ? a : b, 0x9e37_79b1) ^ Math.imul(a < b ? b : a, 0x85eb_ca6b) ^ p.protocol;
  h = Math.imul(h ^ (h >>> 15), 0x2c1b_3c6d);
  return (h ^ (h >>> 13)) >>> 0;
}

export const NFQUEUE: Op = {
  name: 'NFQUEUE',
  words: 3,
  check: (a) =>
    argument(a, 0) >= 0 && argument(a, 1) >= 1 && argument(a, 0) + argument(a, 1) <= 0x1_0000
      ? undefined
      : 'its queues are out of range',
  text: (a) => `queues ${argument(a, 0)}+${argument(a, 1)} flags ${argument(a, 2)}`,
};
