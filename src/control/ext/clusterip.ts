/** -j CLUSTERIP: several nodes share an address. Kernels from 6.5 on have it no more. (libipt_CLUSTERIP.c) */
import { problem } from '../text/problem.js';
import { etherMac, string, uint16, uint32 } from './args.js';
import { defineTarget, option } from './record.js';

const MODES = ['sourceip', 'sourceip-sourceport', 'sourceip-sourceport-destport'] as const;

export interface ClusteripData {
  /** --new: without it the rule takes part in what another one made, and nothing else is said. */
  fresh: boolean;
  mode: (typeof MODES)[number];
  /** Six bytes. */
  mac: readonly number[];
  totalNodes: number;
  localNode: number;
  /** uint32 */
  seed: number;
}

const MAX_NODES = 16;
const macText = (mac: readonly number[]): string =>
  mac.map((byte) => byte.toString(16).toUpperCase().padStart(2, '0')).join(':');

export const CLUSTERIP = defineTarget<ClusteripData>({
  name: 'CLUSTERIP',
  init: () => ({ fresh: false, mode: 'sourceip', mac: [0, 0, 0, 0, 0, 0], totalNodes: 0, localNode: 0, seed: 0 }),
  options: [
    option({
      name: 'new',
      set: (data) => {
        data.fresh = true;
      },
    }),
    option({
      name: 'hashmode',
      arg: string(),
      also: ['new'],
      set: (data, text) => {
        data.mode = MODES.find((mode) => mode === text) ?? problem(`Unknown hashmode "${text}"`);
      },
    }),
    option({
      name: 'clustermac',
      arg: etherMac,
      also: ['new'],
      set: (data, mac) => {
        if ((mac[0]! & 1) === 0) problem('MAC has to be a multicast ethernet address');
        data.mac = mac;
      },
    }),
    option({
      name: 'total-nodes',
      arg: uint16(0, MAX_NODES),
      also: ['new'],
      set: (data, nodes) => {
        data.totalNodes = nodes;
      },
    }),
    option({
      name: 'local-node',
      arg: uint16(0, MAX_NODES),
      also: ['new'],
      set: (data, node) => {
        data.localNode = node;
      },
    }),
    option({
      name: 'hash-init',
      arg: uint32(),
      also: ['new'],
      set: (data, seed) => {
        data.seed = seed;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    const needed = ['new', 'hashmode', 'clustermac', 'total-nodes', 'local-node'];
    if (seen.size > 0 && !needed.every((each) => seen.has(each)))
      problem('CLUSTERIP target: Invalid parameter combination');
  },
  save: ({ fresh, mode, mac, totalNodes, localNode, seed }) =>
    fresh
      ? ` --new --hashmode ${mode} --clustermac ${macText(mac)} --total-nodes ${totalNodes}` +
        ` --local-node ${localNode} --hash-init ${seed}`
      : '',
  print: ({ fresh, mode, mac, totalNodes, localNode, seed }) =>
    ' CLUSTERIP' +
    (fresh
      ? ` hashmode=${mode} clustermac=${macText(mac)} total_nodes=${totalNodes} local_node=${localNode} hash_init=${seed}`
      : ''),
  help: `CLUSTERIP target options:
  --new			 Create a new ClusterIP
  --hashmode <mode>		 Specify hashing mode
					sourceip
					sourceip-sourceport
					sourceip-sourceport-destport
  --clustermac <mac>		 Set clusterIP MAC address
  --total-nodes <num>		 Set number of total nodes in cluster
  --local-node <num>		 Set the local node number
  --hash-init <num>		 Set init value of the Jenkins hash
`,
  // Nodes count from 1; the kernel sees to it, not the tool.
  check: ({ fresh, localNode }) =>
    fresh && localNode === 0 ? { errno: 'EINVAL', reason: 'CLUSTERIP: bad local_nodes[0] 0' } : undefined,
  cannot: () => "answering ARP for an address that several nodes share is the kernel's",
});
