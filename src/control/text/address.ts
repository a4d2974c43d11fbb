/**
 * IPv4 addresses and masks as text. Addresses are int32 in host order. Three readers, since the tool has three: the
 * core's (`10.1` is 10.1.0.0, octal and hex per part), the strict dotted quad of inet_pton, and names through a lookup.
 */
import { prefixNumber, wholeNumber } from './numbers.js';

/** networks(5) as Debian has it, for getnetbyname and getnetbyaddr. */
const NETWORKS: readonly (readonly [string, number])[] = [
  ['default', 0],
  ['loopback', 0x7f000000],
  ['link-local', 0xa9fe0000 | 0],
];
/** Address of a named network. */
export const networkAddress = (name: string): number | undefined => NETWORKS.find(([known]) => known === name)?.[1];

/** An address as -L shows it without -n: host name, network name, or number. */
export const anyName = (addr: number, names: { hostName(addr: number): string | undefined }): string =>
  names.hostName(addr) ?? NETWORKS.find(([, known]) => known === addr)?.[0] ?? formatAddress(addr);

/** An address with its mask; `10.0.0.0/8` is { addr: 0x0a000000, mask: 0xff000000 | 0 }. */
export interface Network {
  readonly addr: number;
  readonly mask: number;
}

/** Dotted quad. */
export const formatAddress = (addr: number): string =>
  `${addr >>> 24}.${(addr >>> 16) & 255}.${(addr >>> 8) & 255}.${addr & 255}`;

/** Mask of a prefix length 0..32. */
export const prefixMask = (bits: number): number => (bits === 0 ? 0 : (0xffffffff << (32 - bits)) | 0);

/** Prefix length of a mask, −1 if its ones are not contiguous. */
export function maskBits(mask: number): number {
  const bits = Math.clz32(~mask);
  return prefixMask(bits) === mask ? bits : -1;
}

/** As -s and -d are saved: always with a mask, by length where that is possible. */
export function formatNetwork({ addr, mask }: Network): string {
  const bits = maskBits(mask);
  return `${formatAddress(addr)}/${bits < 0 ? formatAddress(mask) : bits}`;
}

/** xtables_ipmask_to_numeric: nothing for a host, `/24`, or `/255.0.255.0`. */
export function formatMask(mask: number): string {
  const bits = maskBits(mask);
  return bits === 32 ? '' : bits < 0 ? `/${formatAddress(mask)}` : `/${bits}`;
}

/** inet_pton(AF_INET): four decimal parts of up to three digits, no leading zeros. */
export function strictAddress(text: string): number | undefined {
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return undefined;
  let addr = 0;
  for (const part of text.split('.')) {
    if (Number(part) > 255) return undefined;
    addr = (addr << 8) | Number(part);
  }
  return addr;
}

/** A dotted quad as nearly all are: decimal, without leading zeros. */
function plainAddress(text: string, end = text.length): number | undefined {
  let addr = 0;
  let part = -1;
  let dots = 0;
  for (let i = 0; i < end; i++) {
    const c = text.charCodeAt(i);
    if (c === 46) {
      if (part < 0 || dots++ === 3) return undefined;
      addr = (addr << 8) | part;
      part = -1;
    } else {
      if (c < 48 || c > 57 || part === 0) return undefined;
      part = (part < 0 ? 0 : part * 10) + c - 48;
      if (part > 255) return undefined;
    }
  }
  return dots === 3 && part >= 0 ? (addr << 8) | part : undefined;
}

/** A network as nearly all are: a plain address, perhaps with a decimal length behind it. */
export function plainNetwork(text: string): Network | undefined {
  const slash = text.lastIndexOf('/');
  if (slash < 0) {
    const addr = plainAddress(text);
    return addr === undefined ? undefined : { addr, mask: -1 };
  }
  let bits = -1;
  for (let i = slash + 1; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c < 48 || c > 57 || bits === 0) return undefined;
    bits = (bits < 0 ? 0 : bits * 10) + c - 48;
  }
  const addr = bits < 0 || bits > 32 ? undefined : plainAddress(text, slash);
  if (addr === undefined) return undefined;
  const mask = prefixMask(bits);
  return { addr: addr & mask, mask };
}

/**
 * xtables_numeric_to_ipaddr and _ipmask: parts in any base; as an address, missing parts are zeros on the right (only
 * for one to three parts); as a mask, all four must be there. The tool reads through a buffer of 19 characters.
 */
export function looseAddress(text: string, asMask = false): number | undefined {
  const plain = plainAddress(text);
  if (plain !== undefined) return plain;
  const parts = text.slice(0, 19).split('.');
  if (parts.length > 4) parts.splice(3, parts.length - 3, parts.slice(3).join('.'));
  if (asMask && parts.length < 4) return undefined;
  let addr = 0;
  for (let i = 0; i < 4; i++) {
    const part = parts[i];
    const value = part === undefined ? 0 : wholeNumber(part, 0, 255);
    if (value === undefined) return undefined;
    addr = (addr << 8) | value;
  }
  return addr;
}

/** inet_aton, which getaddrinfo uses: one to four parts in any base, the last of which fills what is left. */
export function atonAddress(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length > 4 || !/^\d/.test(text)) return undefined;
  let addr = 0;
  for (let i = 0; i < parts.length; i++) {
    const last = i === parts.length - 1;
    const room = last ? 8 * (4 - i) : 8;
    const part = parts[i]!;
    if (!/^\d/.test(part)) return undefined;
    const found = prefixNumber(part, 0, 2 ** room - 1);
    if (!found || found.end !== part.length) return undefined;
    addr = last ? addr | found.value | 0 : addr | (found.value << (24 - 8 * i));
  }
  return addr;
}
