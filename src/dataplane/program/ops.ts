/**
 * The operations of the program by number. Each but the plainest has a file of its name in this folder: what its
 * arguments mean, how they are encoded, how it decides. op.ts tells verify.ts and dump.ts about them.
 */

/** Matches: the tests of a rule. */
export const enum MatchOp {
  SRC = 1,
  DST,
  PROTOCOL,
  IN,
  OUT,
  FRAGMENT,
  TCP,
  UDP,
  ICMP,
  STATE,
  CONNTRACK,
  LIMIT,
  MULTIPORT,
  RECENT,
  CONNLIMIT,
  MARK,
  LENGTH,
  TTL,
  /** -m tos and -m dscp. */
  TOS,
  ECN,
  IPRANGE,
  MAC,
  ADDRTYPE,
  STATISTIC,
  STRING,
  U32,
  TIME,
  OWNER,
  PKTTYPE,
  CONNMARK,
  HASHLIMIT,
  QUOTA,
  TCPMSS,
  CONNBYTES,
  HELPER,
  SCTP,
  DCCP,
  AH,
  ESP,
  PHYSDEV,
  RPFILTER,
  REALM,
  CLUSTER,
  BPF,
  CPU,
  CONNLABEL,
  IPCOMP,
  SOCKET,
  RATEEST,
  SET,
}

/** Targets. */
export const enum TargetOp {
  /** A rule without a target: it counts. */
  NONE = 1,
  ACCEPT,
  DROP,
  RETURN,
  JUMP,
  GOTO,
  REJECT,
  LOG,
  /** -j TOS and -j DSCP. */
  TOS,
  MARK,
  MASQUERADE,
  SNAT,
  DNAT,
  REDIRECT,
  NETMAP,
  CONNMARK,
  TTL,
  ECN,
  TCPMSS,
  TCPOPTSTRIP,
  CT,
  CLASSIFY,
  /** -j NFQUEUE and -j QUEUE. */
  NFQUEUE,
  NFLOG,
  TRACE,
  TEE,
  CHECKSUM,
  HMARK,
  RATEEST,
  SET,
}

/** What a target returns beside a Verdict: go on with the next rule (XT_CONTINUE). */
export const CONTINUE = -1;
