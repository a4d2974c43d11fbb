/** Netlink messages as bytes: a header, the subsystem's own header, attributes padded to four bytes (netlink(7)). */
import { endianness } from 'node:os';

/** Netlink speaks the machine's own byte order. */
export const LITTLE = endianness() === 'LE';

export const NLM_F_REQUEST = 0x01;
export const NLM_F_ACK = 0x04;
export const NLM_F_EXCL = 0x200;
export const NLMSG_HEADER = 16;
/** struct nfgenmsg of the netfilter subsystems: family, version, and a number in network order. */
export const NFGENMSG = 4;
export const NLA_HEADER = 4;
export const NLA_F_NESTED = 1 << 15;
export const NLA_F_NET_BYTEORDER = 1 << 14;

/** A type, with its flags, and the bytes of its value. */
export type Attribute = readonly [number, ArrayLike<number>];

export const padded = (length: number): number => (length + 3) & ~3;

/** A number of 32 bits in network order. */
export const be32 = (value: number): number[] => [value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255];

/** Attributes one behind the other: the value of one that nests them. */
export function attributeBytes(attributes: readonly Attribute[]): Uint8Array {
  const bytes = new Uint8Array(attributes.reduce((sum, [, value]) => sum + padded(NLA_HEADER + value.length), 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [type, value] of attributes) {
    view.setUint16(at, NLA_HEADER + value.length, LITTLE);
    view.setUint16(at + 2, type, LITTLE);
    bytes.set(value, at + NLA_HEADER);
    at += padded(NLA_HEADER + value.length);
  }
  return bytes;
}

/** A whole message; its sequence number and sender are 0. */
export function netlinkMessage(
  type: number,
  flags: number,
  header: ArrayLike<number>,
  attributes: readonly Attribute[],
): Uint8Array {
  const body = attributeBytes(attributes);
  const message = new Uint8Array(NLMSG_HEADER + header.length + body.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, message.length, LITTLE);
  view.setUint16(4, type, LITTLE);
  view.setUint16(6, flags, LITTLE);
  message.set(header, NLMSG_HEADER);
  message.set(body, NLMSG_HEADER + header.length);
  return message;
}

/** The attributes in bytes[from, end) by type without flags; of several with one type the last. */
export function readAttributes(bytes: Uint8Array, from: number, end: number): Map<number, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = new Map<number, Uint8Array>();
  for (let at = from; at + NLA_HEADER <= end;) {
    const length = view.getUint16(at, LITTLE);
    if (length < NLA_HEADER || at + length > end) break;
    found.set(view.getUint16(at + 2, LITTLE) & 0x3fff, bytes.subarray(at + NLA_HEADER, at + length));
    at += padded(length);
  }
  return found;
}
