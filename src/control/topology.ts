/**
 * Interfaces as the configuration has them, for a router that asks no kernel: `explain`, `replay` and TUN. They are
 * numbered in the file's order from 2 on; 1 is `lo`, which has no wire.
 */
import { type InterfaceAddress, type Link, LinkFlag, Scope } from '../dataplane/interfaces.js';
import { RouteType } from '../dataplane/route/routes.js';
import type { Config } from './config.js';
import { strictAddress } from './text/address.js';

const LOOPBACK = { local: 0x7f000001, address: 0x7f000001, prefixLength: 8, scope: Scope.HOST, secondary: false };

export const linkOf = (index: number, name: string, addresses: InterfaceAddress[], mtu = 1500): Link => ({
  index,
  name,
  mtu,
  flags: name === 'lo' ? LinkFlag.UP | LinkFlag.LOOPBACK : LinkFlag.UP,
  mac: new Uint8Array(6),
  addresses,
});

/** Reads `192.168.73.1/24`, `192.168.73.1` or `default`, checked before. */
export function readPrefix(text: string): { address: number; prefixLength: number } {
  if (text === 'default') return { address: 0, prefixLength: 0 };
  const [address = '', length = '32'] = text.split('/');
  return { address: strictAddress(address)!, prefixLength: Number(length) };
}

/** As ip(8) adds addresses one by one: a later one of the same subnet is a secondary. */
function addressesOf(texts: readonly string[]): InterfaceAddress[] {
  const addresses: InterfaceAddress[] = [];
  for (const text of texts) {
    const { address: local, prefixLength } = readPrefix(text);
    const secondary = addresses.some((own) => own.prefixLength === prefixLength && reaches(own, local));
    addresses.push({ local, address: local, prefixLength, scope: 0, secondary });
  }
  return addresses;
}

/** The configuration's interfaces, `lo` with its address before them. */
export function linksOf({ interfaces }: Pick<Config, 'interfaces'>): Link[] {
  const links = [linkOf(1, 'lo', [LOOPBACK, ...addressesOf(interfaces['lo']?.addresses ?? [])])];
  for (const [name, { addresses, mtu }] of Object.entries(interfaces))
    if (name !== 'lo') links.push(linkOf(links.length + 1, name, addressesOf(addresses), mtu));
  return links;
}

export const ROUTE_TYPES = {
  unicast: RouteType.UNICAST,
  local: RouteType.LOCAL,
  broadcast: RouteType.BROADCAST,
  blackhole: RouteType.BLACKHOLE,
  unreachable: RouteType.UNREACHABLE,
  prohibit: RouteType.PROHIBIT,
  throw: RouteType.THROW,
} as const;

const reaches = ({ local, prefixLength }: InterfaceAddress, gateway: number): boolean =>
  prefixLength === 0 || (local ^ gateway) >>> (32 - prefixLength) === 0;
