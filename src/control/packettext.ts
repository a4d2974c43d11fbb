/** A packet in a few words, for `explain` and `replay`: `tcp 10.0.0.1:4000 > 10.0.0.2:80 tos 0x0`. */
import { Proto, TcpFlag } from '../dataplane/names.js';
import { u16, u32, u8 } from '../dataplane/wire/bytes.js';
import { formatAddress } from './text/address.js';

const NAMES: Readonly<Record<number, string>> = { [Proto.TCP]: 'tcp', [Proto.UDP]: 'udp', [Proto.ICMP]: 'icmp' };

/** @param bytes an IPv4 packet, or as much of it as is there */
export function packetText(bytes: Uint8Array): string {
  if (bytes.length < 20 || u8(bytes, 0) >> 4 !== 4) return `${bytes.length} bytes that are no IPv4 packet`;
  const protocol = u8(bytes, 9);
  const l4 = (u8(bytes, 0) & 15) << 2;
  const later = (u16(bytes, 6) & 0x1fff) !== 0;
  const has = (length: number): boolean => !later && bytes.length >= l4 + length;
  const ports = (protocol === Proto.TCP || protocol === Proto.UDP) && has(4);
  const end = (address: number, port: number): string =>
    formatAddress(u32(bytes, address)) + (ports ? `:${u16(bytes, port)}` : '');
  const icmp = protocol === Proto.ICMP && has(2) ? ` type ${u8(bytes, l4)} code ${u8(bytes, l4 + 1)}` : '';
  const reset = protocol === Proto.TCP && has(14) && (u8(bytes, l4 + 13) & TcpFlag.RST) !== 0 ? ' reset' : '';
  const kind = `${NAMES[protocol] ?? `protocol ${protocol}`}${icmp}${reset}${later ? ' fragment' : ''}`;
  return `${kind} ${end(12, l4)} > ${end(16, l4 + 2)} tos 0x${u8(bytes, 1).toString(16)}`;
}
