/**
 * -j TRACE (net/netfilter/xt_TRACE.c): from here on every rule that the packet matches is told to the context's log sink, at all
 * hooks of this crossing, as ipt_do_table() does for a packet with nf_trace set.
 */
import type { Packet } from '../packet.js';
import type { Op } from './op.js';
import { CONTINUE } from './ops.js';

export function applyTRACE(p: Packet): number {
  p.trace = 1;
  return CONTINUE;
}

export const TRACE: Op = { name: 'TRACE', words: 0, text: () => '' };
