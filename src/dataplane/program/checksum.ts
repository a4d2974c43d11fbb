/**
 * -j CHECKSUM (net/netfilter/xt_CHECKSUM.c), without arguments: fills in the transport checksum of a packet that was to
 * get it from its device, unless the packet is to be cut up later.
 */
import { InFlag } from '../io/batch.js';
import { Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, setU32 } from '../wire/bytes.js';
import { pseudoSum, sum } from '../wire/checksum.js';
import { sctpChecksum } from '../wire/crc32c.js';
import type { Op } from './op.js';
import { CONTINUE } from './ops.js';

const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;
const SCTP_CHECKSUM = 8;

export function applyCHECKSUM(p: Packet): number {
  if ((p.flags & (InFlag.CSUM_PARTIAL | InFlag.GSO)) !== InFlag.CSUM_PARTIAL || p.fragOffset !== 0) return CONTINUE;
  // A packet without its end can't be summed here; it keeps its device's promise, as it goes back unchanged.
  if ((p.flags & InFlag.CUT) !== 0) return CONTINUE;
  const { bytes, l4, end } = p;
  switch (p.protocol) {
    case Proto.TCP:
    case Proto.UDP: {
      const field = l4 + (p.protocol === Proto.TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
      if (field + 2 > end) return CONTINUE;
      setU16(bytes, field, 0);
      const checksum = ~sum(bytes, l4, end, pseudoSum(p.src, p.dst, p.protocol, end - l4)) & 0xffff;
      // A sum of 0 would say that there is none (RFC 768); the kernel writes 0xffff for every protocol.
      setU16(bytes, field, checksum === 0 ? 0xffff : checksum);
      break;
    }
    case Proto.SCTP:
      if (l4 + SCTP_CHECKSUM + 4 > end) return CONTINUE;
      setU32(bytes, l4 + SCTP_CHECKSUM, sctpChecksum(bytes, l4, end));
      break;
    default:
      return CONTINUE;
  }
  p.flags &= ~InFlag.CSUM_PARTIAL;
  p.changed = 1;
  return CONTINUE;
}

export const CHECKSUM: Op = { name: 'CHECKSUM', words: 0, payload: true, text: () => 'fill' };
