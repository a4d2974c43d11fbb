/**
 * NAT at the hooks (nf_nat_inet_fn and nf_nat_icmp_reply_translation in net/netfilter/nf_nat_core.c, nf_nat_proto.c). The
 * nat table is asked about a connection's first packet only, once for each side; all others are rewritten as that one
 * was. The pipeline runs the table, between two calls:
 *
 *     let verdict = begin(nat, p, hook);
 *     if (verdict === ASK_RULES) {
 *       verdict = … run the nat chain of this hook …;
 *       if (verdict === Verdict.ACCEPT) verdict = finish(nat, p, hook);
 *     }
 *
 * Errors about a connection are not asked about: their header and the packet they quote are translated together.
 */
import { Status } from '../conntrack/states.js';
import { Ct } from '../conntrack/layout.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { InFlag } from '../io/batch.js';
import { CtState, Dir, Hook, Manip, Proto, Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, u8 } from '../wire/bytes.js';
import { sum, sumOk } from '../wire/checksum.js';
import type { Nat } from './bind.js';
import { rewrite, rewriteHeader } from './rewrite.js';

/** What `begin` answers when the nat table is to be asked; no Verdict. */
export const ASK_RULES = -1;

const ICMP_HEADER = 8;
const ICMP_CHECKSUM = 2;
const ICMP_REDIRECT = 5;
const IP_HEADER = 20;

/** The side that is translated at a hook. */
export const manipAt = (hook: Hook): Manip =>
  hook === Hook.POSTROUTING || hook === Hook.INPUT ? Manip.SRC : Manip.DST;

const doneBit = (manip: Manip): number => (manip === Manip.SRC ? Status.SRC_NAT_DONE : Status.DST_NAT_DONE);

/** Packets without a connection pass as they are. Returns a Verdict or ASK_RULES. */
export function begin(nat: Nat, p: Packet, hook: Hook): Verdict | typeof ASK_RULES {
  const entry = p.ct;
  if (entry < 0) return Verdict.ACCEPT;
  const table = nat.table;
  const e = table.at(entry);
  const status = table.words[e + Ct.STATUS]!;
  const manip = manipAt(hook);
  if (p.ctState !== CtState.ESTABLISHED) {
    if (p.ctState === CtState.RELATED && p.protocol === Proto.ICMP) return translateError(nat, p, hook);
    if ((status & doneBit(manip)) === 0) return ASK_RULES;
  }
  if (hook === Hook.POSTROUTING && p.ctDir === Dir.ORIGINAL) {
    const ifindex = table.words[e + Ct.NAT_IFINDEX]!;
    // Masqueraded with another interface's address: it must begin anew (nf_nat_oif_changed).
    if (ifindex !== 0 && ifindex !== p.outdev) {
      table.kill(entry);
      return Verdict.DROP;
    }
  }
  return (status & changedBit(manip, p.ctDir)) === 0 ? Verdict.ACCEPT : change(table, p, e, manip);
}

/** After the rules have let the packet pass: if none of them bound this side, it is bound to what it has. */
export function finish(nat: Nat, p: Packet, hook: Hook): Verdict {
  const manip = manipAt(hook);
  if ((nat.table.status(p.ct) & doneBit(manip)) === 0) {
    const verdict = nat.bindNull(p.ct, manip);
    if (verdict !== Verdict.ACCEPT) return verdict;
  }
  const e = nat.table.at(p.ct);
  const changed = nat.table.words[e + Ct.STATUS]! & changedBit(manip, p.ctDir);
  return changed === 0 ? Verdict.ACCEPT : change(nat.table, p, e, manip);
}

/** The status bit that says whether packets of `dir` are changed at this side: replies are, where the request wasn't. */
function changedBit(manip: Manip, dir: Dir): number {
  return (manip === Manip.SRC) === (dir === Dir.ORIGINAL) ? Status.SRC_NAT : Status.DST_NAT;
}

/** What `sourceLink` answers beside a link. */
export const UNCHANGED = 0;
export const UNDECIDED = -1;

/**
 * What POSTROUTING will make of the source of a packet that has passed PREROUTING or OUTPUT: a link to the tuple whose
 * destination it becomes; UNCHANGED; or UNDECIDED where the nat table is still to be asked.
 */
export function sourceLink(nat: Nat, p: Packet): number {
  const entry = p.ct;
  if (entry < 0) return UNCHANGED;
  const status = nat.table.status(entry);
  const error = p.ctState === CtState.RELATED && p.protocol === Proto.ICMP;
  if (p.ctState !== CtState.ESTABLISHED && !error && (status & Status.SRC_NAT_DONE) === 0) return UNDECIDED;
  return (status & changedBit(Manip.SRC, p.ctDir)) === 0 ? UNCHANGED : ((entry + 1) << 1) | (p.ctDir ^ 1);
}

/** Rewrites one side of the packet of the connection at offset `e`: it shall look as the answer to the other direction's. */
function change(table: ConntrackTable, p: Packet, e: number, manip: Manip): Verdict {
  const w = table.words;
  const other = e + (p.ctDir ^ 1) * Ct.TUPLE_WORDS;
  const ports = w[other + Ct.PORTS]!;
  const done =
    manip === Manip.SRC
      ? rewrite(p, manip, w[other + Ct.DST]!, p.protocol === Proto.ICMP ? ports >>> 16 : ports & 0xffff)
      : rewrite(p, manip, w[other + Ct.SRC]!, ports >>> 16);
  return done ? Verdict.ACCEPT : Verdict.DROP;
}

/** An ICMP error about the connection: what it quotes went the other way and is changed on its other side. */
function translateError(nat: Nat, p: Packet, hook: Hook): Verdict {
  const table = nat.table;
  const entry = p.ct;
  const manip = manipAt(hook);
  const quoted = p.l4 + ICMP_HEADER;
  if (quoted + IP_HEADER > p.end) return Verdict.DROP;
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0 && !sumOk(sum(p.bytes, p.l4, p.end))) return Verdict.DROP;
  const status = table.status(entry);
  if (u8(p.bytes, p.l4) === ICMP_REDIRECT) {
    // A redirect names a router in its header: with translation it would name the wrong one.
    if ((status & Status.NAT_DONE_MASK) !== Status.NAT_DONE_MASK || (status & Status.NAT_MASK) !== 0)
      return Verdict.DROP;
  }
  if ((status & changedBit(manip, p.ctDir)) === 0) return Verdict.ACCEPT;

  const other = p.ctDir ^ 1;
  const protocol = table.protocol(entry);
  const ports = table.ports(entry, other);
  const done =
    manip === Manip.DST
      ? rewriteHeader(p.bytes, quoted, p.end, protocol, Manip.SRC, table.src(entry, other), ports >>> 16, false)
      : rewriteHeader(
          p.bytes,
          quoted,
          p.end,
          protocol,
          Manip.DST,
          table.dst(entry, other),
          protocol === Proto.ICMP ? ports >>> 16 : ports & 0xffff,
          false,
        );
  if (!done) return Verdict.DROP;
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0) {
    setU16(p.bytes, p.l4 + ICMP_CHECKSUM, 0);
    setU16(p.bytes, p.l4 + ICMP_CHECKSUM, ~sum(p.bytes, p.l4, p.end) & 0xffff);
  }
  const address = manip === Manip.SRC ? table.dst(entry, other) : table.src(entry, other);
  return rewrite(p, manip, address, 0) ? Verdict.ACCEPT : Verdict.DROP;
}
