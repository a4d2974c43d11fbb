/**
 * The end of masqueraded connections (net/netfilter/nf_nat_masquerade.c): when the interface goes down or loses the address
 * that they were given, what comes later could no longer be translated back. The worker or main thread that hears of it
 * from rtnetlink calls these, between `online` and `offline` of its table view.
 */
import { Ct } from '../conntrack/layout.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { Dir } from '../names.js';

/** Forgets what was masqueraded by the interface; returns how many connections. */
export function forgetInterface(table: ConntrackTable, ifindex: number): number {
  return table.killWhere((t, entry) => t.words[t.at(entry) + Ct.NAT_IFINDEX] === ifindex);
}

/** Forgets what was masqueraded as this address of the interface; returns how many connections. */
export function forgetAddress(table: ConntrackTable, ifindex: number, address: number): number {
  return table.killWhere(
    (t, entry) => t.words[t.at(entry) + Ct.NAT_IFINDEX] === ifindex && t.dst(entry, Dir.REPLY) === address,
  );
}
