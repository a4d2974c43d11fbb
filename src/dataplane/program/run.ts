/**
 * Runs one table's chain on a packet, as ipt_do_table() does (net/ipv4/netfilter/ip_tables.c): rules in order; a rule
 * whose tests all hold is counted, then its target decides. A verified program only: nothing is checked here.
 * Whatever a test finds impossible (`hotdrop`) is dropped at once. RETURN and the end of a chain go back to the rule
 * behind the jump, past all gotos; with no jump open, the built-in chain's policy decides and is counted.
 *
 * In a chain with a decision tree (tree.ts), rules that can't match the packet are passed over; the others are met in order
 * all the same, with all their tests.
 */
import { Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import { matchDestination, matchFragment, matchInterface, matchProtocol, matchSource } from './basics.js';
import type { Context } from './context.js';
import { Chain, CHAIN_WORDS, INVERT, Op, OP_MASK, Rule, RULE_WORDS } from './format.js';
import { CONTINUE, MatchOp, TargetOp } from './ops.js';
import { matchAddrtype } from './addrtype.js';
import { matchAh, matchEsp, matchIpcomp } from './ah.js';
import { matchBpf } from './bpf.js';
import { matchCluster } from './cluster.js';
import { matchConnbytes } from './connbytes.js';
import { matchConnlabel } from './connlabel.js';
import { matchDccp } from './dccp.js';
import { matchHashlimit } from './hashlimit.js';
import { matchHelper } from './helper.js';
import { matchPhysdev } from './physdev.js';
import { matchQuota } from './quota.js';
import { matchRpfilter } from './rpfilter.js';
import { matchSctp } from './sctp.js';
import { matchConnlimit } from './connlimit.js';
import { applyCHECKSUM } from './checksum.js';
import { applyCLASSIFY } from './classify.js';
import { applyCONNMARK, matchConnmark } from './connmark.js';
import { matchConntrack } from './conntrack.js';
import { applyCT } from './ct.js';
import { applyECN, matchEcn } from './ecn.js';
import { applyHMARK } from './hmark.js';
import { matchIcmp } from './icmp.js';
import { matchIprange } from './iprange.js';
import { matchLength } from './length.js';
import { matchLimit } from './limit.js';
import { matchMac } from './mac.js';
import { applyMARK, matchMark } from './mark.js';
import { matchMultiport } from './multiport.js';
import { applyDNAT, applyMASQUERADE, applyNETMAP, applyREDIRECT, applySNAT } from './nat.js';
import { applyNFQUEUE } from './nfqueue.js';
import { matchOwner } from './owner.js';
import { applyRATEEST, matchRateest } from './rateest.js';
import { matchPkttype } from './pkttype.js';
import { matchPolicy } from './policy.js';
import { matchRealm } from './realm.js';
import { matchRecent } from './recent.js';
import { applySET, matchSet } from './set.js';
import { matchState } from './state.js';
import { matchStatistic } from './statistic.js';
import { matchString } from './string.js';
import { matchTcp } from './tcp.js';
import { applyTCPMSS, matchTcpmss } from './tcpmss.js';
import { applyTCPOPTSTRIP } from './tcpoptstrip.js';
import { applyTEE } from './tee.js';
import { matchTime } from './time.js';
import { applyTOS, matchTos } from './tos.js';
import { applyTRACE } from './trace.js';
import { applyTTL, matchTtl } from './ttl.js';
import { matchU32 } from './u32.js';
import { beginRules, nextRule, ordinary } from './tree.js';
import { matchUdp } from './udp.js';

/** Past every chain's end: left by RETURN, not by its last rule. */
const RETURNED = 0x7fff_ffff;

/** `chain` is the offset of a built-in chain (format.ts `entry`). For Verdict.QUEUE see Context.queueNumber. */
export function run(context: Context, program: Int32Array, chain: number, p: Packet): Verdict {
  const counters = context.counters;
  const stack = context.stack;
  const bottom = context.top;
  let top = bottom;
  let here = chain;
  let at = chain + CHAIN_WORDS;
  // −1: the chain at hand was not looked at yet.
  let end = -1;
  // The region of its tree plus one, 0 = no tree to ask, and how far the rules beside the tree were looked at.
  let tree = 0;
  let beside = 0;
  for (;;) {
    if (end < 0) {
      end = program[here + Chain.END]!;
      tree = program[here + Chain.TREE]!;
      if (tree !== 0) {
        if (ordinary(p)) {
          beside = program[here + Chain.NEW]!;
          beginRules(context, context.regions[tree - 1]!, p);
        } else tree = 0;
      }
    }
    if (tree !== 0 && at < end) {
      const next = program[here + Chain.NEXT]!;
      while (beside < next && program[beside]! < at) beside++;
      at = nextRule(context, context.regions[tree - 1]!, program, end, at);
      if (beside < next && program[beside]! < at) at = program[beside]!;
    }
    if (at >= end) {
      if (p.trace !== 0 && at === end && here !== chain) context.log.traceReturn(p, context, program, here);
      if (top === bottom) return policy(context, program, chain, p);
      top -= 2;
      at = stack[top]!;
      here = stack[top + 1]!;
      end = -1;
      continue;
    }
    const next = at + program[at + Rule.LENGTH]!;
    const target = at + program[at + Rule.TARGET]!;
    let test = at + RULE_WORDS;
    while (test < target) {
      const op = program[test]!;
      // The tests that most rules have are made here: a call costs as much as they do.
      let holds: boolean;
      switch (op & OP_MASK) {
        case MatchOp.SRC:
          holds = matchSource(program, test + Op.ARGS, p);
          break;
        case MatchOp.DST:
          holds = matchDestination(program, test + Op.ARGS, p);
          break;
        case MatchOp.PROTOCOL:
          holds = matchProtocol(program, test + Op.ARGS, p);
          break;
        case MatchOp.IN:
          holds = matchInterface(program, test + Op.ARGS, context.interfaces.words, context.inName);
          break;
        case MatchOp.OUT:
          holds = matchInterface(program, test + Op.ARGS, context.interfaces.words, context.outName);
          break;
        case MatchOp.TCP:
          holds = matchTcp(program, test + Op.ARGS, p);
          break;
        case MatchOp.STATE:
          holds = matchState(program, test + Op.ARGS, p);
          break;
        default:
          holds = evaluate(context, program, op & OP_MASK, test + Op.ARGS, p);
      }
      if (holds === ((op & INVERT) !== 0)) break;
      test += program[test + Op.LENGTH]!;
    }
    if (test < target) {
      if (p.hotdrop !== 0) return Verdict.DROP;
      at = next;
      continue;
    }
    const counter = program[at + Rule.COUNTER]! << 1;
    counters[counter]! += 1;
    counters[counter + 1]! += p.length;
    if (p.trace !== 0) context.log.trace(p, context, counter >> 1);
    // A negated test found the packet impossible: the rule holds, its target acts, and whatever that says the packet goes.
    if (p.hotdrop !== 0) {
      if (program[target + Op.OP]! > TargetOp.GOTO) {
        context.top = top;
        apply(context, program, target, p);
        context.top = bottom;
      }
      return Verdict.DROP;
    }
    switch (program[target + Op.OP]!) {
      case TargetOp.NONE:
        at = next;
        break;
      case TargetOp.ACCEPT:
        return Verdict.ACCEPT;
      case TargetOp.DROP:
        return Verdict.DROP;
      case TargetOp.RETURN:
        at = RETURNED;
        break;
      case TargetOp.JUMP:
        stack[top] = next;
        stack[top + 1] = here;
        top += 2;
        here = program[target + Op.ARGS]!;
        at = here + CHAIN_WORDS;
        end = -1;
        break;
      case TargetOp.GOTO:
        here = program[target + Op.ARGS]!;
        at = here + CHAIN_WORDS;
        end = -1;
        break;
      default: {
        // A target may run tables of its own (an answer's OUTPUT); their jumps go above ours.
        context.top = top;
        const verdict = apply(context, program, target, p);
        context.top = bottom;
        if (verdict !== CONTINUE) return verdict;
        at = next;
        // It may have changed what the tree is asked by, and asked other trees.
        end = -1;
      }
    }
  }
}

/** The end of a built-in chain: its policy decides and is counted. */
export function policy(context: Context, program: Int32Array, chain: number, p: Packet): Verdict {
  const counters = context.counters;
  const counter = program[chain + Chain.POLICY_COUNTER]! << 1;
  counters[counter]! += 1;
  counters[counter + 1]! += p.length;
  if (p.trace !== 0) context.log.trace(p, context, counter >> 1);
  return program[chain + Chain.POLICY]!;
}

/** The other tests. */
function evaluate(context: Context, program: Int32Array, op: number, at: number, p: Packet): boolean {
  switch (op) {
    case MatchOp.FRAGMENT:
      return matchFragment(p);
    case MatchOp.UDP:
      return matchUdp(program, at, p);
    case MatchOp.ICMP:
      return matchIcmp(program, at, p);
    case MatchOp.CONNTRACK:
      return matchConntrack(context, program, at, p);
    case MatchOp.CONNMARK:
      return matchConnmark(context, program, at, p);
    case MatchOp.RECENT:
      return matchRecent(context, program, at, p);
    case MatchOp.CONNLIMIT:
      return matchConnlimit(context, program, at, p);
    case MatchOp.MULTIPORT:
      return matchMultiport(program, at, p);
    case MatchOp.LIMIT:
      return matchLimit(context, program, at);
    case MatchOp.MARK:
      return matchMark(program, at, p);
    case MatchOp.LENGTH:
      return matchLength(program, at, p);
    case MatchOp.TTL:
      return matchTtl(program, at, p);
    case MatchOp.TOS:
      return matchTos(program, at, p);
    case MatchOp.ECN:
      return matchEcn(program, at, p);
    case MatchOp.IPRANGE:
      return matchIprange(program, at, p);
    case MatchOp.MAC:
      return matchMac(context, program, at, p);
    case MatchOp.ADDRTYPE:
      return matchAddrtype(context, program, at, p);
    case MatchOp.STATISTIC:
      return matchStatistic(context, program, at);
    case MatchOp.STRING:
      return matchString(program, at, p);
    case MatchOp.U32:
      return matchU32(program, at, p);
    case MatchOp.TIME:
      return matchTime(context, program, at);
    case MatchOp.OWNER:
      return matchOwner(program, at, p);
    case MatchOp.TCPMSS:
      return matchTcpmss(program, at, p);
    case MatchOp.AH:
      return matchAh(program, at, p);
    case MatchOp.ESP:
      return matchEsp(program, at, p);
    case MatchOp.RATEEST:
      return matchRateest(context, program, at);
    case MatchOp.IPCOMP:
      return matchIpcomp(program, at, p);
    case MatchOp.HASHLIMIT:
      return matchHashlimit(context, program, at, p);
    case MatchOp.QUOTA:
      return matchQuota(context, program, at, p);
    case MatchOp.CONNBYTES:
      return matchConnbytes(context, program, at, p);
    case MatchOp.CONNLABEL:
      return matchConnlabel(context, program, at, p);
    case MatchOp.HELPER:
      return matchHelper(context, program, at, p);
    case MatchOp.SCTP:
      return matchSctp(program, at, p);
    case MatchOp.DCCP:
      return matchDccp(program, at, p);
    case MatchOp.PHYSDEV:
      return matchPhysdev(context, program, at, p);
    case MatchOp.RPFILTER:
      return matchRpfilter(context, program, at, p);
    case MatchOp.CLUSTER:
      return matchCluster(context, program, at, p);
    case MatchOp.BPF:
      return matchBpf(program, at, program[at - Op.ARGS + Op.LENGTH]! - Op.ARGS, p);
    case MatchOp.SET:
      return matchSet(context, program, at, p);
    case MatchOp.REALM:
      return matchRealm(context, program, at, p);
    case MatchOp.PKTTYPE:
      return matchPkttype(program, at, p);
    case MatchOp.POLICY:
      return matchPolicy(program, at, p);
  }
  return false;
}

/** Carries out an extension target; a Verdict or CONTINUE. */
function apply(context: Context, program: Int32Array, target: number, p: Packet): number {
  const at = target + Op.ARGS;
  switch (program[target + Op.OP]!) {
    case TargetOp.LOG:
      context.log.log(p, context, program, at);
      return CONTINUE;
    case TargetOp.NFLOG:
      context.log.nflog(p, context, program, at);
      return CONTINUE;
    case TargetOp.TRACE:
      return applyTRACE(p);
    case TargetOp.REJECT:
      context.answers.reject(p, context, program[at]!);
      return Verdict.DROP;
    case TargetOp.TOS:
      return applyTOS(program, at, p);
    case TargetOp.MARK:
      return applyMARK(program, at, p);
    case TargetOp.SNAT:
      return applySNAT(context, program, at, p);
    case TargetOp.DNAT:
      return applyDNAT(context, program, at, p);
    case TargetOp.MASQUERADE:
      return applyMASQUERADE(context, program, at, p);
    case TargetOp.REDIRECT:
      return applyREDIRECT(context, program, at, p);
    case TargetOp.NETMAP:
      return applyNETMAP(context, program, at, p);
    case TargetOp.TTL:
      return applyTTL(program, at, p);
    case TargetOp.ECN:
      return applyECN(program, at, p);
    case TargetOp.NFQUEUE:
      return applyNFQUEUE(context, program, at, p);
    case TargetOp.CONNMARK:
      return applyCONNMARK(context, program, at, p);
    case TargetOp.TCPMSS:
      return applyTCPMSS(context, program, at, p);
    case TargetOp.TCPOPTSTRIP:
      return applyTCPOPTSTRIP(program, at, p);
    case TargetOp.CT:
      return applyCT(program, at, p);
    case TargetOp.CHECKSUM:
      return applyCHECKSUM(p);
    case TargetOp.HMARK:
      return applyHMARK(context, program, at, p);
    case TargetOp.RATEEST:
      return applyRATEEST(context, program, at, p);
    case TargetOp.CLASSIFY:
      return applyCLASSIFY(program, at, p);
    case TargetOp.TEE:
      return applyTEE(context, program, at, p);
    case TargetOp.SET:
      return applySET(context, program, at, p);
  }
  return CONTINUE;
}
