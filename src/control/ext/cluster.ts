/** -m cluster: connections that are this node's share. (libxt_cluster.c, xt_cluster.c) */
import { encodeCluster } from '../../dataplane/program/cluster.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

export interface ClusterData {
  totalNodes: number;
  /** int32 */
  nodeMask: number;
  seed: number;
  invert: boolean;
}

const MAX_NODES = 32;
const hex8 = (value: number): string => `0x${(value >>> 0).toString(16).padStart(8, '0')}`;

export const cluster = defineMatch<ClusterData>({
  name: 'cluster',
  init: () => ({ totalNodes: 0, nodeMask: 0, seed: 0, invert: false }),
  options: [
    option({
      name: 'cluster-total-nodes',
      arg: uint32(1, MAX_NODES),
      mandatory: true,
      set: (data, nodes) => {
        data.totalNodes = nodes;
      },
    }),
    option({
      name: 'cluster-local-node',
      arg: uint32(1, MAX_NODES),
      invert: true,
      excl: ['cluster-local-nodemask'],
      set: (data, node, { invert }) => {
        data.nodeMask = 1 << (node - 1);
        if (invert) data.invert = true;
      },
    }),
    option({
      name: 'cluster-local-nodemask',
      arg: uint32(1, MAX_NODES),
      invert: true,
      excl: ['cluster-local-node'],
      set: (data, mask, { invert }) => {
        data.nodeMask = mask;
        if (invert) data.invert = true;
      },
    }),
    option({
      name: 'cluster-hash-seed',
      arg: uint32(),
      mandatory: true,
      set: (data, seed) => {
        data.seed = seed | 0;
      },
    }),
  ],
  finalCheck: ({ nodeMask, totalNodes }, seen) => {
    const [node, mask] = [seen.has('cluster-local-node'), seen.has('cluster-local-nodemask')];
    if (!node && !mask) problem("cluster match: `--cluster-local-node' or`--cluster-local-nodemask' is missing");
    if (!seen.has('cluster-total-nodes') || !seen.has('cluster-hash-seed') || nodeMask >>> 0 < 2 ** totalNodes) return;
    if (node) problem("cluster match: `--cluster-local-node' must be <= `--cluster-total-nodes'");
    problem("cluster match: `--cluster-local-nodemask' too big for `--cluster-total-nodes'");
  },
  save: ({ totalNodes, nodeMask, seed, invert }) =>
    `${bang(invert)} --cluster-local-nodemask ${hex8(nodeMask)} --cluster-total-nodes ${totalNodes}` +
    ` --cluster-hash-seed ${hex8(seed)}`,
  print: ({ totalNodes, nodeMask, seed, invert }) =>
    ` cluster ${invert ? '!' : ''}node_mask=${hex8(nodeMask)} total_nodes=${totalNodes} hash_seed=${hex8(seed)}`,
  help: `cluster match options:
  --cluster-total-nodes <num>		Set number of total nodes in cluster
  [!] --cluster-local-node <num>	Set the local node number
  [!] --cluster-local-nodemask <num>	Set the local node mask
  --cluster-hash-seed <num>		Set seed value of the Jenkins hash
`,
  compile: ({ totalNodes, nodeMask, seed, invert }, emit) =>
    emit.test(MatchOp.CLUSTER, encodeCluster(totalNodes, nodeMask, seed, invert)),
});
