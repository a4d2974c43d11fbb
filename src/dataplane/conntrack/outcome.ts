/** What a protocol's tracker says of a packet (the kernel's return values of nf_conntrack_*_packet). */
export const enum Outcome {
  /** The packet is dropped. */
  DROP = 0,
  ACCEPT = 1,
  /** It passes without a connection, INVALID. */
  INVALID = 2,
  /** The connection was removed: look up again and begin a new one. */
  REPEAT = 3,
}
