/**
 * Changing what a packet carries (net/netfilter/nf_nat_helper.c): a helper replaces an address in the payload by another,
 * and the packet becomes longer or shorter. Its headers move, into the slot's headroom or out of it, so that the packet
 * stays in one piece and its tail where it is. Later segments of the connection are renumbered (`renumber`).
 */
import { ackOffset, adjustSequence, seqOffset } from '../conntrack/seqadj.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { InFlag } from '../io/batch.js';
import { Proto, TcpFlag } from '../names.js';
import type { Packet } from '../packet.js';
import { setU16, u16, u32, u8 } from '../wire/bytes.js';
import { pseudoSum, sealHeader, sum } from '../wire/checksum.js';
import { setTcpU32 } from './rewrite.js';

const TOTAL_LENGTH = 2;
const MAX_LENGTH = 65535;
/** Of the headroom that much is the device's, which puts a header of its own before the packet (virtio). */
const DEVICE_ROOM = 16;

/** Whether `replacePayload` may make the packet up to `growth` bytes longer. */
export const roomFor = (p: Packet, growth: number): boolean =>
  growth <= p.headroom - DEVICE_ROOM && p.length + growth <= MAX_LENGTH;

const UDP_LENGTH = 4;
const UDP_CHECKSUM = 6;

const TCP_SEQ = 4;
const TCP_ACK = 8;
const TCP_DATA_OFFSET = 12;
const TCP_CHECKSUM = 16;
const TCP_HEADER = 20;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_SACK = 5;
const SACK_BLOCK = 8;

/** Length of the TCP header with options. */
export const tcpHeaderLength = (p: Packet): number => (u8(p.bytes, p.l4 + TCP_DATA_OFFSET) >> 4) << 2;

/**
 * Replaces bytes[at, at + length), which lie in the packet's payload, by the first `newLength` bytes of `text`; lengths
 * and checksums follow. TCP and UDP only. False, with nothing changed, when the packet would become too long.
 */
export function replacePayload(p: Packet, at: number, length: number, text: Uint8Array, newLength: number): boolean {
  const bytes = p.bytes;
  const growth = newLength - length;
  if (!roomFor(p, growth)) return false;
  if (growth !== 0) {
    bytes.copyWithin(p.start - growth, p.start, at);
    p.start -= growth;
    p.headroom -= growth;
    p.l4 -= growth;
    p.length += growth;
    p.l4Length += growth;
    at -= growth;
    setU16(bytes, p.start + TOTAL_LENGTH, p.length);
    sealHeader(bytes, p.start, p.headerLength);
  }
  if (p.protocol === Proto.UDP) setU16(bytes, p.l4 + UDP_LENGTH, p.l4Length);
  for (let i = 0; i < newLength; i++) bytes[at + i] = text[i]!;
  p.changed = 1;
  if ((p.flags & InFlag.CSUM_PARTIAL) !== 0) return true;
  const checksum = p.l4 + (p.protocol === Proto.TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
  if (p.protocol === Proto.UDP && u16(bytes, checksum) === 0) return true;
  setU16(bytes, checksum, 0);
  const value = ~sum(bytes, p.l4, p.end, pseudoSum(p.src, p.dst, p.protocol, p.l4Length)) & 0xffff;
  setU16(bytes, checksum, value === 0 && p.protocol === Proto.UDP ? 0xffff : value);
  return true;
}

/** `replacePayload` in a segment of a tracked TCP connection: what follows it is renumbered from then on. */
export function replaceTcpPayload(
  table: ConntrackTable,
  p: Packet,
  at: number,
  length: number,
  text: Uint8Array,
  newLength: number,
): boolean {
  if (!replacePayload(p, at, length, text, newLength)) return false;
  table.lockEntry(p.ct);
  adjustSequence(table, p.ct, p.ctDir, u32(p.bytes, p.l4 + TCP_SEQ), newLength - length);
  table.unlockEntry(p.ct);
  return true;
}

/**
 * Renumbers a segment of a connection with Status.SEQ_ADJUST: sequence number, and where it acknowledges that and SACK blocks. False
 * when its header or an option is cut: then it is to be dropped.
 */
export function renumber(table: ConntrackTable, p: Packet): boolean {
  const { bytes, l4 } = p;
  if (p.l4Length < TCP_HEADER) return false;
  const entry = p.ct;
  const other = p.ctDir ^ 1;
  table.lockEntry(entry);
  const seq = u32(bytes, l4 + TCP_SEQ);
  const ack = u32(bytes, l4 + TCP_ACK);
  setTcpU32(p, l4 + TCP_SEQ, (seq + seqOffset(table, entry, p.ctDir, seq)) | 0);
  if ((p.tcpFlags & TcpFlag.ACK) === 0) {
    table.unlockEntry(entry);
    return true;
  }
  setTcpU32(p, l4 + TCP_ACK, (ack - ackOffset(table, entry, other, ack)) | 0);
  const done = adjustSack(table, p, other);
  table.unlockEntry(entry);
  return done;
}

function adjustSack(table: ConntrackTable, p: Packet, other: number): boolean {
  const bytes = p.bytes;
  const end = p.l4 + tcpHeaderLength(p);
  if (end > p.end) return false;
  let o = p.l4 + TCP_HEADER;
  while (o < end) {
    const kind = u8(bytes, o);
    if (kind === OPTION_END) return true;
    if (kind === OPTION_NOP) {
      o++;
      continue;
    }
    if (o + 1 === end) return false;
    const length = u8(bytes, o + 1);
    if (length < 2 || o + length > end) return false;
    if (kind === OPTION_SACK && length >= 2 + SACK_BLOCK && (length - 2) % SACK_BLOCK === 0) {
      for (let at = o + 2; at < o + length; at += 4) {
        const edge = u32(bytes, at);
        setTcpU32(p, at, (edge - ackOffset(table, p.ct, other, edge)) | 0);
      }
    }
    o += length;
  }
  return true;
}
