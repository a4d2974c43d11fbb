/**
 * The field's words as numbers: hooks, tables, verdicts, connection states, protocols. Values are the kernel's where it
 * has them (include/uapi/linux/netfilter.h, netfilter_ipv4.h, netfilter/nf_conntrack_common.h), so that numbers from
 * the queue need no mapping. Const enums: the bundler writes the numbers into the hot loops.
 */

/** NF_INET_*: the five points of the packet's way. */
export const enum Hook {
  PREROUTING = 0,
  INPUT = 1,
  FORWARD = 2,
  OUTPUT = 3,
  POSTROUTING = 4,
}
export const HOOK_COUNT = 5;
export const HOOK_NAMES = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'] as const;
export type HookName = (typeof HOOK_NAMES)[number];

/** Tables, in the order in which they meet a packet inside one hook. */
export const enum Table {
  RAW = 0,
  MANGLE = 1,
  NAT = 2,
  FILTER = 3,
  SECURITY = 4,
}
export const TABLE_COUNT = 5;
export const TABLE_NAMES = ['raw', 'mangle', 'nat', 'filter', 'security'] as const;
export type TableName = (typeof TABLE_NAMES)[number];

/** The built-in chains of each table, in the order in which iptables-save prints them. */
export const BUILTIN_CHAINS: Readonly<Record<TableName, readonly HookName[]>> = {
  raw: ['PREROUTING', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
  security: ['INPUT', 'FORWARD', 'OUTPUT'],
};

/** NF_*: what becomes of a packet. STOLEN: hutter took it over, the kernel gets no packet back. */
export const enum Verdict {
  DROP = 0,
  ACCEPT = 1,
  STOLEN = 2,
  QUEUE = 3,
}

/** What `-m conntrack --ctstate` asks for. A packet's `ctState` is one of the first five; SNAT and DNAT are of the flow. */
export const enum CtState {
  INVALID = 1 << 0,
  NEW = 1 << 1,
  ESTABLISHED = 1 << 2,
  RELATED = 1 << 3,
  UNTRACKED = 1 << 4,
  SNAT = 1 << 5,
  DNAT = 1 << 6,
}

/** Direction of a packet within its connection (IP_CT_DIR_*). */
export const enum Dir {
  ORIGINAL = 0,
  REPLY = 1,
}

/** Which side of the address pair NAT rewrites (NF_NAT_MANIP_*). PREROUTING and OUTPUT do DST, INPUT and POSTROUTING SRC. */
export const enum Manip {
  SRC = 0,
  DST = 1,
}

/** Whether a packet was protected by IPsec when it came, and will be when it leaves. */
export const enum Ipsec {
  IN = 1 << 0,
  OUT = 1 << 1,
}

/** IP protocol numbers (IANA). */
export const enum Proto {
  ICMP = 1,
  IGMP = 2,
  IPIP = 4,
  TCP = 6,
  UDP = 17,
  DCCP = 33,
  GRE = 47,
  ESP = 50,
  AH = 51,
  ICMPV6 = 58,
  PIM = 103,
  IPCOMP = 108,
  SCTP = 132,
  UDPLITE = 136,
}

/** TCP header flags (RFC 9293 §3.1), as in byte 13. */
export const enum TcpFlag {
  FIN = 0x01,
  SYN = 0x02,
  RST = 0x04,
  PSH = 0x08,
  ACK = 0x10,
  URG = 0x20,
  ECE = 0x40,
  CWR = 0x80,
}

/**
 * The bit of the packet mark that belongs to hutter: refused in users' rules, hidden from matching. It is on packets that
 * hutter itself sends, so that the diversion lets them by.
 */
export const enum PrivateMark {
  INJECTED = 0x8000_0000 | 0,
  ALL = 0x8000_0000 | 0,
}

/**
 * What the diversion writes into the upper three bits of packets' marks, while some rule asks for it: they were addressed to
 * many on their link (-m pkttype), they came or go by IPsec (-m policy).
 */
export const enum LinkMark {
  BROADCAST = 0xc000_0000 | 0,
  MULTICAST = 0xa000_0000 | 0,
  IPSEC = 0xe000_0000 | 0,
  ALL = 0xe000_0000 | 0,
}
