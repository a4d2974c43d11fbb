/**
 * The one batch record (native/batch.h holds the same numbers): what a device and the pipeline tell each other about up
 * to `capacity` packets. One worker owns a batch; it is filled by `Device.receive`, decided upon in place, and read by
 * `Device.send`.
 *
 * `bytes` holds `capacity` slots of `slotSize` bytes. A packet begins at the offset in Meta.OFFSET, with HEADROOM free
 * bytes before it. `slotSize` is an odd multiple of 64 on purpose: slots a page apart would share cache sets.
 * `meta` holds `capacity` records of META_WORDS 32-bit words; numbers are host order, addresses of interfaces are
 * kernel ifindexes, 0 = none.
 */

export const META_WORDS = 32;

export const enum Meta {
  /** In: the queue's packet id. */
  ID = 0,
  /** In: Hook at which the packet was diverted. */
  HOOK = 1,
  /** In: offset of the IP header in `bytes`. */
  OFFSET = 2,
  /** In: bytes of the packet present from OFFSET. */
  LENGTH = 3,
  /** In: ifindex the packet came in by (0 in OUTPUT). */
  INDEV = 4,
  /** In: ifindex it leaves by, known in OUTPUT only. */
  OUTDEV = 5,
  /** In: the packet's mark. */
  MARK = 6,
  /** In: InFlag bits. */
  FLAGS = 7,
  /** In: bridge port it came in by, and (known in POSTROUTING only) the one that a bridge sends it by. */
  PHYSINDEV = 8,
  PHYSOUTDEV = 9,
  /** In: the sending socket's uid and gid; meaningful with InFlag.UID, InFlag.GID. */
  UID = 10,
  GID = 11,
  /** In: length of the source hardware address (0 = none), then its bytes, big-endian in two words. */
  MAC_LENGTH = 12,
  MAC_HIGH = 13,
  MAC_LOW = 14,
  /** In: the packet's length before the queue cut it (equals LENGTH unless InFlag.CUT). */
  FULL_LENGTH = 15,

  /** Out: Verdict. */
  VERDICT = 16,
  /** Out: the mark to set; meaningful with OutFlag.MARK. */
  NEW_MARK = 17,
  /** Out: OutFlag bits. */
  OUT_FLAGS = 18,
  /** Out: with OutFlag.PAYLOAD, offset and length in `bytes` of the packet that goes back. */
  NEW_OFFSET = 19,
  NEW_LENGTH = 20,
  /** Out: how the device shall finish the transport checksum of a payload that goes back (ChecksumMode). */
  CHECKSUM_MODE = 21,
  /** Out: offset in `bytes` of the transport header, and of its checksum field; the sum runs to the packet's end. */
  CHECKSUM_START = 22,
  CHECKSUM_FIELD = 23,
  /** Out: for devices that send (TUN, pcap): ifindex to leave by. For Verdict.QUEUE: the queue number. */
  SEND_TO = 24,
  /** In: with InFlag.GSO from a device that says so (TUN), bytes of payload in each segment; 0 = not told. */
  GSO_SIZE = 25,
  /** In: VIRTIO_NET_HDR_GSO_*, passed on as it came. */
  GSO_TYPE = 26,
  /** Out: bytes of all headers before a GSO packet's payload. */
  GSO_HEADERS = 27,
  /** Out: the traffic control class (skb->priority); meaningful with OutFlag.PRIORITY. */
  NEW_PRIORITY = 28,
}

export const enum InFlag {
  /** The transport checksum is not filled in: it holds the pseudo-header's sum (CHECKSUM_PARTIAL). */
  CSUM_PARTIAL = 1 << 0,
  /** A segmentation-offload packet: longer than any MTU, the kernel cuts it up later. */
  GSO = 1 << 1,
  /** Nobody has verified the transport checksum yet. */
  CSUM_NOT_VERIFIED = 1 << 2,
  /** The queue cut the packet's end off: it must never go back with payload. */
  CUT = 1 << 3,
  UID = 1 << 4,
  GID = 1 << 5,
  /** No socket sends it: a reset of hutter's own. */
  NO_SOCKET = 1 << 6,
}

export const enum OutFlag {
  MARK = 1 << 0,
  PAYLOAD = 1 << 1,
  PRIORITY = 1 << 2,
}

export const enum ChecksumMode {
  /** Nothing to do: the bytes are right as they are. */
  NONE = 0,
  /** Compute the whole checksum: TCP, UDP (a computed 0 is sent as 0xffff), with the IPv4 pseudo-header. */
  FULL = 1,
  /** Write the folded pseudo-header sum only, uncomplemented, as CHECKSUM_PARTIAL wants it. */
  PSEUDO = 2,
}

/** Free bytes before each packet, so that it can grow in place: a segment full of SIP does by some 40 a message. */
export const HEADROOM = 256;

export class Batch {
  readonly meta: Int32Array;

  /** @param bytes zeroed memory for the slots */
  constructor(
    readonly capacity: number,
    readonly slotSize: number,
    readonly bytes: Uint8Array = new Uint8Array(capacity * slotSize),
  ) {
    this.meta = new Int32Array(capacity * META_WORDS);
  }
}

/** Room for the longest queued packet (65,531 bytes), netlink's framing and the headroom; an odd multiple of 64. */
export const FULL_SLOT = 66_624;
