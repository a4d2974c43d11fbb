/**
 * -m connlimit (net/netfilter/xt_connlimit.c): REGION LIMIT MASK FLAGS (1 = at most LIMIT, else more than that; 2 = by
 * destination). The region holds the connections counted (conntrack/count.ts); a packet for which it has no room, or
 * that has no tuple, is dropped.
 */
import { Asking, countConnections, countRegionWords, initCountRegion } from '../conntrack/count.js';
import { packKey } from '../conntrack/key.js';
import { Status } from '../conntrack/states.js';
import { linkEntry } from '../conntrack/layout.js';
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
  const { ct } = p;
  let { src, dst } = p;
  let ports = 0;
  let key = 0;
  let reply = 0;
  let status = 0;
  if (ct >= 0) {
    src = table.src(ct, Dir.ORIGINAL);
    dst = table.dst(ct, Dir.ORIGINAL);
    ports = table.ports(ct, Dir.ORIGINAL);
    key = table.key(ct, Dir.ORIGINAL);
    reply = table.key(ct, Dir.REPLY);
    status = table.status(ct);
  } else {
    ports = p.fragOffset === 0 ? tuplePorts(p.bytes, p.l4, p.end, p.protocol) : NO_TUPLE;
    if (ports === NO_TUPLE) {
      p.hotdrop = 1;
      return false;
    }
    // Of none, not yet in one, or INVALID: it may say all the same whose it is, and counts by its own tuple.
    key = reply = packKey(p.protocol, 0);
    const link = table.find(src, dst, ports, key, key);
    if (link !== 0) status = table.status(linkEntry(link));
  }
  let asking = Asking.JOINS;
  if ((status & Status.CONFIRMED) !== 0) {
    const onlyAsks = (status & Status.ASSURED) !== 0 && !context.interfaces.isLoopback(p.indev);
    asking = onlyAsks ? Asking.LOOKS : Asking.JOINS_LATE;
  }
  const zone = ct < 0 ? 0 : table.zone(ct, Dir.ORIGINAL);
  const count = countConnections(region, table, context.ticks, asking, address, zone, src, dst, ports, key, reply);
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
