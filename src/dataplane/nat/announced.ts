/** Ports that helpers announce outside (nf_nat_exp_find_port in net/netfilter/nf_nat_helper.c). */
import { expect, type Expectation, ExpectResult } from '../conntrack/expect.js';
import type { Nat } from './bind.js';

/** Ports tried for an announcement whose own is taken. */
const MAX_ATTEMPTS = 128;

/** Expects `e` at its own port, or at one above it that is free; returns the port, 0 when there is none. */
export function expectAtFreePort(nat: Nat, master: number, e: Expectation): number {
  const first = e.dport;
  const range = 65535 - first;
  let attempts = Math.min(range, MAX_ATTEMPTS);
  for (;;) {
    const result = expect(nat.table, master, e);
    if (result === ExpectResult.ADDED) return e.dport;
    if (result !== ExpectResult.BUSY || --attempts < 0) return 0;
    e.dport = first + nat.random.below(range);
  }
}
