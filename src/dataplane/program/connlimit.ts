/**
 * -m connlimit (net/netfilter/xt_connlimit.c): REGION LIMIT MASK FLAGS (1 = at most LIMIT, else more than that; 2 = by
 * destination). The region holds the connections counted (conntrack/count.ts); a packet for which it has no room, or
 * that has no tuple, is dropped.
 */
import { countConnections, countRegionWords, initCountRegion } from '../conntrack/count.js';
import { packKey } from '../conntrack/key.js';
import { Status } from '../conntrack/states.js';
import { NO_TUPLE, tuplePorts } from '../conntrack/tuple.js';
import { Dir } from '../names.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { argument, maskText, type Op } from './op.js';
import { Region, RegionKind } from './regions.js';

const enum Arg {
  REGION = 0,
  LIMIT = 1,
  MASK = 2,
  FLAGS = 3,
  WORDS = 4,
}
const enum Flag {
  UPTO = 1 << 0,
  DESTINATION = 1 << 1,
}

/** Connections that one rule can count. */
export const COUNTED_CONNECTIONS = 65_536;
export const connlimitWords = (): number => countRegionWords(COUNTED_CONNECTIONS);
export const initConnlimit = (region: Int32Array): void =>
  initCountRegion(region, COUNTED_CONNECTIONS, RegionKind.CONNLIMIT);

export interface ConnlimitTest {
  readonly limit: number;
  /** At or below the limit, else above. */
  readonly upto: boolean;
  readonly destination: boolean;
  readonly mask: number;
}

export const encodeConnlimit = (region: number, test: ConnlimitTest): number[] => [
  region,
  test.limit | 0,
  test.mask,
  (test.upto ? Flag.UPTO : 0) | (test.destination ? Flag.DESTINATION : 0),
];

export function matchConnlimit(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const table = context.table;
  const flags = program[at + Arg.FLAGS]!;
  const address = ((flags & Flag.DESTINATION) !== 0 ? p.dst : p.src) & program[at + Arg.MASK]!;
  const region = context.regions[program[at + Arg.REGION]!]!;
  let count: number;
  if (p.ct >= 0) {
    const src = table.src(p.ct, Dir.ORIGINAL);
    const dst = table.dst(p.ct, Dir.ORIGINAL);
    const ports = table.ports(p.ct, Dir.ORIGINAL);
    const key = table.key(p.ct, Dir.ORIGINAL);
    const zone = table.zone(p.ct, Dir.ORIGINAL);
    const assured = (table.status(p.ct) & Status.ASSURED) !== 0;
    const reply = table.key(p.ct, Dir.REPLY);
    count = countConnections(region, table, address, zone, src, dst, ports, key, reply, assured);
  } else {
    const ports = p.fragOffset === 0 ? tuplePorts(p.bytes, p.l4, p.end, p.protocol) : NO_TUPLE;
    const key = packKey(p.protocol, 0);
    count = ports === NO_TUPLE ? 0 : countConnections(region, table, address, 0, p.src, p.dst, ports, key, key, false);
  }
  if (count === 0) {
    p.hotdrop = 1;
    return false;
  }
  return count > program[at + Arg.LIMIT]! >>> 0 !== ((flags & Flag.UPTO) !== 0);
}

export const connlimit: Op = {
  name: 'connlimit',
  words: Arg.WORDS,
  connections: true,
  check: (a) => {
    const region = a.regions[argument(a, Arg.REGION)];
    return region?.[Region.KIND] === RegionKind.CONNLIMIT && region.length >= connlimitWords()
      ? undefined
      : 'its counts are not there';
  },
  text: (a) =>
    `${argument(a, Arg.FLAGS) & Flag.UPTO ? 'upto' : 'above'} ${argument(a, Arg.LIMIT) >>> 0} by ` +
    `${argument(a, Arg.FLAGS) & Flag.DESTINATION ? 'dst' : 'src'}${maskText(argument(a, Arg.MASK))}`,
};
