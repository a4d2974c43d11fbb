/**
 * -m cluster (net/netfilter/xt_cluster.c): NODES MASK SEED INVERT. The source of the connection (or of the one that
 * expected it) is hashed to a node; holds for those of MASK. No packet without a connection is anybody's, negated or not.
 */
import { Dir } from '../names.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { JHASH_INITVAL, jhash3 } from './jhash.js';
import { argument, hex, type Op } from './op.js';

export const encodeCluster = (nodes: number, mask: number, seed: number, invert: boolean): number[] => [
  nodes,
  mask,
  seed,
  invert ? 1 : 0,
];

/** jhash_1word() starts from so much more than the seed. */
const ONE_WORD = 4;

/** The kernel hashes the address as it lies in memory, on a little-endian machine. */
const swapped = (address: number): number =>
  (address << 24) | ((address & 0xff00) << 8) | ((address >>> 8) & 0xff00) | (address >>> 24);

export function matchCluster(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  if (p.ct < 0) return false;
  const { table } = context;
  const master = table.master(p.ct);
  const address = table.src(master < 0 ? p.ct : master, Dir.ORIGINAL);
  const hash = jhash3(swapped(address), 0, 0, (program[at + 2]! + JHASH_INITVAL + ONE_WORD) | 0);
  // reciprocal_scale(): at most 32 nodes, which a double holds exactly.
  const node = Math.floor(((hash >>> 0) * program[at]!) / 0x1_0000_0000);
  return (((program[at + 1]! >>> node) & 1) !== 0) !== (program[at + 3]! !== 0);
}

export const cluster: Op = {
  name: 'cluster',
  words: 4,
  connections: true,
  text: (a) =>
    `${argument(a, 3) ? '! ' : ''}nodes ${hex(argument(a, 1))} of ${argument(a, 0)} seed ${hex(argument(a, 2))}`,
};
