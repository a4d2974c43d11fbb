/**
 * Sequence numbers of a TCP connection whose payload changes its length (net/netfilter/nf_conntrack_seqadj.c): for each
 * direction the place of the latest change, and by how much numbers differ before and after it. Differences are
 * (number seen by the receiver) − (number sent). The caller holds the entry's lock.
 */
import { Status } from './states.js';
import { Ct } from './layout.js';
import type { ConntrackTable } from './table.js';

const POSITION = 0;
const BEFORE = 1;
const AFTER = 2;

const at = (t: ConntrackTable, entry: number, dir: number): number => t.at(entry) + Ct.SEQADJ + dir * Ct.SEQADJ_WORDS;

/** By how much a sequence number `seq` sent in direction `dir` is to be changed (nf_ct_seq_offset). */
export function seqOffset(t: ConntrackTable, entry: number, dir: number, seq: number): number {
  const w = t.words;
  const o = at(t, entry, dir);
  return ((seq - w[o + POSITION]!) | 0) > 0 ? w[o + AFTER]! : w[o + BEFORE]!;
}

/**
 * By how much an acknowledgement `ack` of numbers sent in direction `dir`, as the receiver sees them, is to be changed
 * back (nf_ct_seq_adjust): subtract it.
 */
export function ackOffset(t: ConntrackTable, entry: number, dir: number, ack: number): number {
  const w = t.words;
  const o = at(t, entry, dir);
  return ((ack - w[o + BEFORE]! - w[o + POSITION]!) | 0) > 0 ? w[o + AFTER]! : w[o + BEFORE]!;
}

/** Payload at `seq` of direction `dir` grew by `by` bytes (nf_ct_seqadj_set). */
export function adjustSequence(t: ConntrackTable, entry: number, dir: number, seq: number, by: number): void {
  if (by === 0) return;
  t.setStatus(entry, Status.SEQ_ADJUST);
  const w = t.words;
  const o = at(t, entry, dir);
  if (w[o + BEFORE] === w[o + AFTER] || ((w[o + POSITION]! - seq) | 0) < 0) {
    w[o + POSITION] = seq;
    w[o + BEFORE] = w[o + AFTER]!;
    w[o + AFTER] = (w[o + AFTER]! + by) | 0;
  }
}
