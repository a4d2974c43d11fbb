/** Names that iproute2 has for numbers of routes, as its files in /etc/iproute2 have them from the beginning. */
import { RouteType } from '../dataplane/route/routes.js';

const TABLES: Readonly<Record<string, number>> = { default: 253, main: 254, local: 255 };

/** `main`, `100`, `0x64`: a table's number, or undefined. */
export function readTable(text: string): number | undefined {
  const number = TABLES[text] ?? (/^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : -1);
  return number >= 1 && number <= 0xffffffff ? number : undefined;
}

export const tableName = (number: number): string => nameIn(TABLES, number) ?? String(number);

/** Who made a route (RTPROT_*). */
export const PROTOCOLS: Readonly<Record<string, number>> = {
  unspec: 0,
  redirect: 1,
  kernel: 2,
  boot: 3,
  static: 4,
  gated: 8,
  ra: 9,
  mrt: 10,
  zebra: 11,
  bird: 12,
  dnrouted: 13,
  xorp: 14,
  ntk: 15,
  dhcp: 16,
  keepalived: 18,
  babel: 42,
  openr: 99,
  bgp: 186,
  isis: 187,
  ospf: 188,
  rip: 189,
  eigrp: 192,
};

/** How far a route leads (RT_SCOPE_*). */
export const SCOPES: Readonly<Record<string, number>> = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 };

export const TYPES: Readonly<Record<string, RouteType>> = {
  unicast: RouteType.UNICAST,
  local: RouteType.LOCAL,
  broadcast: RouteType.BROADCAST,
  brd: RouteType.BROADCAST,
  anycast: RouteType.ANYCAST,
  multicast: RouteType.MULTICAST,
  blackhole: RouteType.BLACKHOLE,
  unreachable: RouteType.UNREACHABLE,
  prohibit: RouteType.PROHIBIT,
  throw: RouteType.THROW,
};

/** The number's first name in a list of names. */
export const nameIn = (names: Readonly<Record<string, number>>, number: number): string | undefined =>
  Object.keys(names).find((name) => names[name] === number);
