/**
 * All extension records, by kind and name. A new extension is a file beside this one and a line here.
 */
import type { Extension } from './record.js';
import { addrtype } from './addrtype.js';
import { ah, esp, ipcomp } from './ah.js';
import { AUDIT } from './audit.js';
import { bpf } from './bpf.js';
import { cgroup } from './cgroup.js';
import { CHECKSUM } from './checksum.js';
import { CLASSIFY } from './classify.js';
import { cluster } from './cluster.js';
import { CLUSTERIP } from './clusterip.js';
import { comment } from './comment.js';
import { connbytes } from './connbytes.js';
import { connlabel } from './connlabel.js';
import { connlimit } from './connlimit.js';
import { CONNMARK, connmark } from './connmark.js';
import { CONNSECMARK } from './connsecmark.js';
import { conntrack, state } from './conntrack.js';
import { cpu } from './cpu.js';
import { CT, NOTRACK } from './ct.js';
import { dccp } from './dccp.js';
import { devgroup } from './devgroup.js';
import { DSCP, dscp } from './dscp.js';
import { ECN, ecn } from './ecn.js';
import { hashlimit } from './hashlimit.js';
import { helper } from './helper.js';
import { HMARK } from './hmark.js';
import { icmp } from './icmp.js';
import { IDLETIMER } from './idletimer.js';
import { iprange } from './iprange.js';
import { ipvs } from './ipvs.js';
import { LED } from './led.js';
import { length } from './length.js';
import { limit } from './limit.js';
import { LOG } from './log.js';
import { mac } from './mac.js';
import { mark, MARK } from './mark.js';
import { multiport } from './multiport.js';
import { DNAT, MASQUERADE, NETMAP, REDIRECT, SNAT } from './nat.js';
import { nfacct } from './nfacct.js';
import { NFLOG } from './nflog.js';
import { NFQUEUE } from './nfqueue.js';
import { osf } from './osf.js';
import { owner } from './owner.js';
import { physdev } from './physdev.js';
import { pkttype } from './pkttype.js';
import { policy } from './policy.js';
import { quota } from './quota.js';
import { RATEEST, rateest } from './rateest.js';
import { realm } from './realm.js';
import { recent } from './recent.js';
import { REJECT } from './reject.js';
import { rpfilter } from './rpfilter.js';
import { sctp } from './sctp.js';
import { SECMARK } from './secmark.js';
import { SET, set } from './set.js';
import { socket } from './socket.js';
import { statistic } from './statistic.js';
import { string } from './string.js';
import { SYNPROXY } from './synproxy.js';
import { tcp } from './tcp.js';
import { TCPMSS, tcpmss } from './tcpmss.js';
import { TCPOPTSTRIP } from './tcpoptstrip.js';
import { TEE } from './tee.js';
import { time } from './time.js';
import { TOS, tos } from './tos.js';
import { TPROXY } from './tproxy.js';
import { TRACE } from './trace.js';
import { TTL, ttl } from './ttl.js';
import { u32 } from './u32.js';
import { udp } from './udp.js';
import { ULOG } from './ulog.js';

const RECORDS: readonly Extension[] = [
  addrtype,
  ah,
  AUDIT,
  bpf,
  cgroup,
  CHECKSUM,
  CLASSIFY,
  cluster,
  CLUSTERIP,
  comment,
  connbytes,
  connlabel,
  connlimit,
  CONNMARK,
  CONNSECMARK,
  connmark,
  conntrack,
  cpu,
  CT,
  dccp,
  devgroup,
  DNAT,
  DSCP,
  dscp,
  ECN,
  ecn,
  esp,
  hashlimit,
  helper,
  HMARK,
  icmp,
  IDLETIMER,
  ipcomp,
  iprange,
  ipvs,
  LED,
  length,
  limit,
  LOG,
  mac,
  MARK,
  mark,
  MASQUERADE,
  multiport,
  NETMAP,
  nfacct,
  NFLOG,
  NFQUEUE,
  NOTRACK,
  osf,
  owner,
  physdev,
  pkttype,
  policy,
  quota,
  RATEEST,
  rateest,
  realm,
  recent,
  REDIRECT,
  REJECT,
  rpfilter,
  sctp,
  SECMARK,
  SET,
  set,
  SNAT,
  socket,
  state,
  statistic,
  string,
  SYNPROXY,
  tcp,
  TCPMSS,
  tcpmss,
  TCPOPTSTRIP,
  TEE,
  time,
  TOS,
  tos,
  TPROXY,
  TRACE,
  TTL,
  ttl,
  u32,
  udp,
  ULOG,
];

const matches = new Map<string, Extension>();
const targets = new Map<string, Extension>();
for (const record of RECORDS) {
  const map = record.kind === 'match' ? matches : targets;
  if (map.has(record.name)) throw new Error(`two extension records for ${record.kind} ${record.name}`);
  map.set(record.name, record);
}

/** The match of this name. */
export const matchNamed = (name: string): Extension | undefined => matches.get(name);
/** The target extension of this name; the standard targets and chains are none. */
export const targetNamed = (name: string): Extension | undefined => targets.get(name);
/** Every record, matches first, by name. */
export function allExtensions(): readonly Extension[] {
  const byName = (a: Extension, b: Extension): number => (a.name < b.name ? -1 : 1);
  return [...[...matches.values()].sort(byName), ...[...targets.values()].sort(byName)];
}
