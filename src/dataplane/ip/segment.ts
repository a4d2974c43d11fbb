/**
 * Cutting a segmentation-offload packet in software (net/ipv4/af_inet.c, inet_gso_segment; tcp_offload.c, udp_offload.c),
 * where its segments are too long for the way out and may be fragmented: no device does both. One object a worker.
 */
import { Proto, TcpFlag } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, setU32, setU8, u16, u32, u8 } from '../wire/bytes.js';
import { pseudoSum, sealHeader, sum } from '../wire/checksum.js';

const TCP_SEQUENCE = 4;
const TCP_FLAGS = 13;
const TCP_CHECKSUM = 16;
const UDP_LENGTH = 4;
const UDP_CHECKSUM = 6;
/** Flags of the last segment only, and of the first only. */
const LAST_ONLY = TcpFlag.FIN | TcpFlag.PSH;

/** Cuts one packet after the other: `begin`, then `next` until it says false. */
export class Segmenter {
  /** The segment, a whole packet with its checksums finished, lies in out[0, length). */
  readonly out = new Uint8Array(65_536);
  length = 0;

  private p: Packet | undefined;
  private headers = 0;
  private size = 0;
  private at = 0;
  private count = 0;

  /** `p`: TCP or UDP; `headers`: bytes before its payload; `size`: payload of each segment, above 0. */
  begin(p: Packet, headers: number, size: number): void {
    this.p = p;
    this.headers = headers;
    this.size = size;
    this.at = 0;
    this.count = 0;
  }

  /** Makes the next segment; false when there is none. */
  next(): boolean {
    const { p, headers, size, out, at } = this;
    if (p === undefined) return false;
    const payload = p.end - p.start - headers;
    if (at >= payload) return false;
    const part = payload - at < size ? payload - at : size;
    const from = p.bytes;
    for (let o = 0; o < headers; o++) out[o] = from[p.start + o]!;
    for (let o = 0; o < part; o++) out[headers + o] = from[p.start + headers + at + o]!;
    this.length = headers + part;
    setU16(out, 2, this.length);
    setU16(out, 4, (u16(out, 4) + this.count) & 0xffff);
    sealHeader(out, 0, p.headerLength);
    const l4 = p.headerLength;
    let field = l4 + UDP_CHECKSUM;
    if (p.protocol === Proto.TCP) {
      field = l4 + TCP_CHECKSUM;
      let flags = u8(out, l4 + TCP_FLAGS);
      if (at + part < payload) flags &= ~LAST_ONLY;
      if (at > 0) flags &= ~TcpFlag.CWR;
      setU8(out, l4 + TCP_FLAGS, flags);
      setU32(out, l4 + TCP_SEQUENCE, (u32(out, l4 + TCP_SEQUENCE) + at) | 0);
    } else setU16(out, l4 + UDP_LENGTH, this.length - l4);
    setU16(out, field, 0);
    const checksum = ~sum(out, l4, this.length, pseudoSum(p.src, p.dst, p.protocol, this.length - l4)) & 0xffff;
    setU16(out, field, checksum === 0 && p.protocol === Proto.UDP ? 0xffff : checksum);
    this.at = at + part;
    this.count++;
    return true;
  }
}
