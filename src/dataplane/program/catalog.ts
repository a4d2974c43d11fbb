/** Every operation by number, for verify.ts and dump.ts. An operation that isn't listed here can't be in a program. */
import { addrtype } from './addrtype.js';
import { ah, esp, ipcomp } from './ah.js';
import * as basics from './basics.js';
import { connlimit } from './connlimit.js';
import { CHECKSUM } from './checksum.js';
import { CLASSIFY } from './classify.js';
import { CONNMARK, connmark } from './connmark.js';
import { conntrack } from './conntrack.js';
import { CT } from './ct.js';
import { ECN, ecn } from './ecn.js';
import { HMARK } from './hmark.js';
import { icmp } from './icmp.js';
import { iprange } from './iprange.js';
import { length } from './length.js';
import { limit } from './limit.js';
import { LOG } from './log.js';
import { mac } from './mac.js';
import { MARK, mark } from './mark.js';
import { multiport } from './multiport.js';
import { DNAT, MASQUERADE, NETMAP, REDIRECT, SNAT } from './nat.js';
import { NFQUEUE } from './nfqueue.js';
import { bpf } from './bpf.js';
import { cluster } from './cluster.js';
import { connbytes } from './connbytes.js';
import { connlabel } from './connlabel.js';
import { dccp } from './dccp.js';
import { hashlimit } from './hashlimit.js';
import { helper } from './helper.js';
import { physdev } from './physdev.js';
import { quota } from './quota.js';
import { rpfilter } from './rpfilter.js';
import { sctp } from './sctp.js';
import { argument, type Op } from './op.js';
import { MatchOp, TargetOp } from './ops.js';
import { NFLOG } from './nflog.js';
import { owner } from './owner.js';
import { RATEEST, rateest } from './rateest.js';
import { pkttype } from './pkttype.js';
import { policy } from './policy.js';
import { realm } from './realm.js';
import { recent } from './recent.js';
import { REJECT } from './reject.js';
import { SET, set } from './set.js';
import { state } from './state.js';
import { statistic } from './statistic.js';
import { string } from './string.js';
import { tcp } from './tcp.js';
import { TCPMSS, tcpmss } from './tcpmss.js';
import { TCPOPTSTRIP } from './tcpoptstrip.js';
import { TEE } from './tee.js';
import { time } from './time.js';
import { TOS, tos } from './tos.js';
import { TRACE } from './trace.js';
import { TTL, ttl } from './ttl.js';
import { u32 } from './u32.js';
import { udp } from './udp.js';

export const MATCHES: ReadonlyMap<number, Op> = new Map<number, Op>([
  [MatchOp.SRC, basics.source],
  [MatchOp.DST, basics.destination],
  [MatchOp.PROTOCOL, basics.protocol],
  [MatchOp.IN, basics.inInterface],
  [MatchOp.OUT, basics.outInterface],
  [MatchOp.FRAGMENT, basics.fragment],
  [MatchOp.TCP, tcp],
  [MatchOp.UDP, udp],
  [MatchOp.ICMP, icmp],
  [MatchOp.STATE, state],
  [MatchOp.CONNTRACK, conntrack],
  [MatchOp.CONNMARK, connmark],
  [MatchOp.RECENT, recent],
  [MatchOp.CONNLIMIT, connlimit],
  [MatchOp.MULTIPORT, multiport],
  [MatchOp.LIMIT, limit],
  [MatchOp.MARK, mark],
  [MatchOp.LENGTH, length],
  [MatchOp.TTL, ttl],
  [MatchOp.TOS, tos],
  [MatchOp.ECN, ecn],
  [MatchOp.IPRANGE, iprange],
  [MatchOp.MAC, mac],
  [MatchOp.ADDRTYPE, addrtype],
  [MatchOp.STATISTIC, statistic],
  [MatchOp.STRING, string],
  [MatchOp.U32, u32],
  [MatchOp.TIME, time],
  [MatchOp.OWNER, owner],
  [MatchOp.TCPMSS, tcpmss],
  [MatchOp.AH, ah],
  [MatchOp.ESP, esp],
  [MatchOp.RATEEST, rateest],
  [MatchOp.IPCOMP, ipcomp],
  [MatchOp.HASHLIMIT, hashlimit],
  [MatchOp.QUOTA, quota],
  [MatchOp.CONNBYTES, connbytes],
  [MatchOp.CONNLABEL, connlabel],
  [MatchOp.HELPER, helper],
  [MatchOp.SCTP, sctp],
  [MatchOp.DCCP, dccp],
  [MatchOp.PHYSDEV, physdev],
  [MatchOp.RPFILTER, rpfilter],
  [MatchOp.CLUSTER, cluster],
  [MatchOp.BPF, bpf],
  [MatchOp.SET, set],
  [MatchOp.REALM, realm],
  [MatchOp.PKTTYPE, pkttype],
  [MatchOp.POLICY, policy],
]);

const plain = (name: string): Op => ({ name, words: 0, text: () => '' });
const toChain = (name: string): Op => ({ name, words: 1, text: (a) => `@${argument(a, 0)}` });

export const TARGETS: ReadonlyMap<number, Op> = new Map<number, Op>([
  [TargetOp.NONE, plain('(count)')],
  [TargetOp.ACCEPT, plain('ACCEPT')],
  [TargetOp.DROP, plain('DROP')],
  [TargetOp.RETURN, plain('RETURN')],
  [TargetOp.JUMP, toChain('jump')],
  [TargetOp.GOTO, toChain('goto')],
  [TargetOp.REJECT, REJECT],
  [TargetOp.LOG, LOG],
  [TargetOp.TOS, TOS],
  [TargetOp.MARK, MARK],
  [TargetOp.MASQUERADE, MASQUERADE],
  [TargetOp.SNAT, SNAT],
  [TargetOp.DNAT, DNAT],
  [TargetOp.REDIRECT, REDIRECT],
  [TargetOp.NETMAP, NETMAP],
  [TargetOp.TTL, TTL],
  [TargetOp.ECN, ECN],
  [TargetOp.NFQUEUE, NFQUEUE],
  [TargetOp.CONNMARK, CONNMARK],
  [TargetOp.TCPMSS, TCPMSS],
  [TargetOp.TCPOPTSTRIP, TCPOPTSTRIP],
  [TargetOp.CT, CT],
  [TargetOp.CHECKSUM, CHECKSUM],
  [TargetOp.HMARK, HMARK],
  [TargetOp.NFLOG, NFLOG],
  [TargetOp.TRACE, TRACE],
  [TargetOp.TEE, TEE],
  [TargetOp.RATEEST, RATEEST],
  [TargetOp.CLASSIFY, CLASSIFY],
  [TargetOp.SET, SET],
]);
