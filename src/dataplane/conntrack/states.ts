/** Words of connection tracking with the kernel's numbers (nf_conntrack_common.h, nf_conntrack_tcp.h, _sctp.h). */

/** Status bits of a connection (IPS_*). */
export const enum Status {
  /** It began as an expected connection. */
  EXPECTED = 1 << 0,
  SEEN_REPLY = 1 << 1,
  /** Never dropped early. */
  ASSURED = 1 << 2,
  /** It is in the table: its first packet has left. */
  CONFIRMED = 1 << 3,
  SRC_NAT = 1 << 4,
  DST_NAT = 1 << 5,
  NAT_MASK = SRC_NAT | DST_NAT,
  /** Sequence numbers are to be adjusted. */
  SEQ_ADJUST = 1 << 6,
  SRC_NAT_DONE = 1 << 7,
  DST_NAT_DONE = 1 << 8,
  NAT_DONE_MASK = SRC_NAT_DONE | DST_NAT_DONE,
  /** On its way out of the table. */
  DYING = 1 << 9,
  /** Packets do not extend its life. */
  FIXED_TIMEOUT = 1 << 10,
  TEMPLATE = 1 << 11,
  /** It lost a clash and is in the table by its reply tuple only. */
  NAT_CLASH = 1 << 12,
  /** The CT target bound its helper. */
  HELPER = 1 << 13,
}

export const enum TcpState {
  NONE = 0,
  SYN_SENT = 1,
  SYN_RECV = 2,
  ESTABLISHED = 3,
  FIN_WAIT = 4,
  CLOSE_WAIT = 5,
  LAST_ACK = 6,
  TIME_WAIT = 7,
  CLOSE = 8,
  SYN_SENT2 = 9,
}
export const TCP_STATE_NAMES = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SYN_SENT2',
] as const;

export const enum SctpState {
  NONE = 0,
  CLOSED = 1,
  COOKIE_WAIT = 2,
  COOKIE_ECHOED = 3,
  ESTABLISHED = 4,
  SHUTDOWN_SENT = 5,
  SHUTDOWN_RECD = 6,
  SHUTDOWN_ACK_SENT = 7,
  HEARTBEAT_SENT = 8,
}
export const SCTP_STATE_COUNT = 9;
export const SCTP_STATE_NAMES = [
  'NONE',
  'CLOSED',
  'COOKIE_WAIT',
  'COOKIE_ECHOED',
  'ESTABLISHED',
  'SHUTDOWN_SENT',
  'SHUTDOWN_RECD',
  'SHUTDOWN_ACK_SENT',
  'HEARTBEAT_SENT',
] as const;
