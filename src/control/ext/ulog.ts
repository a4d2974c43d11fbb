/** -j ULOG: the packet to a netlink group. Kernels from 3.17 on have NFLOG in its place. (libipt_ULOG.c) */
import { problem } from '../text/problem.js';
import { formatString, string, uint64, uint8 } from './args.js';
import { defineTarget, option } from './record.js';

export interface UlogData {
  /** From 1. */
  group: number;
  /** At most 31 bytes. */
  prefix: string;
  copyRange: bigint;
  threshold: bigint;
}

const MAX_GROUP = 32;
const MAX_THRESHOLD = 50n;
const low32 = (value: bigint): bigint => BigInt.asUintN(32, value);

export const ULOG = defineTarget<UlogData>({
  name: 'ULOG',
  init: () => ({ group: 1, prefix: '', copyRange: 0n, threshold: 1n }),
  options: [
    option({
      name: 'ulog-nlgroup',
      arg: uint8(1, MAX_GROUP),
      set: (data, group) => {
        data.group = group;
      },
    }),
    option({
      name: 'ulog-prefix',
      arg: string({ min: 1, size: 32 }),
      set: (data, prefix, { arg }) => {
        if (arg.includes('\n')) problem('Newlines not allowed in --ulog-prefix');
        data.prefix = prefix;
      },
    }),
    option({
      name: 'ulog-cprange',
      arg: uint64(),
      set: (data, range) => {
        data.copyRange = range;
      },
    }),
    option({
      name: 'ulog-qthreshold',
      arg: uint64(1n, MAX_THRESHOLD),
      set: (data, threshold) => {
        data.threshold = threshold;
      },
    }),
  ],
  save: ({ group, prefix, copyRange, threshold }) =>
    (prefix === '' ? '' : ` --ulog-prefix${formatString(prefix)}`) +
    (group === 1 ? '' : ` --ulog-nlgroup ${group}`) +
    (copyRange === 0n ? '' : ` --ulog-cprange ${low32(copyRange)}`) +
    (threshold === 1n ? '' : ` --ulog-qthreshold ${threshold}`),
  print: ({ group, prefix, copyRange, threshold }) =>
    ` ULOG copy_range ${low32(copyRange)} nlgroup ${group}` +
    (prefix === '' ? '' : ` prefix "${prefix}"`) +
    ` queue_threshold ${threshold}`,
  help: `ULOG target options:
 --ulog-nlgroup nlgroup		NETLINK group used for logging
 --ulog-cprange size		Bytes of each packet to be passed
 --ulog-qthreshold		Threshold of in-kernel queue
 --ulog-prefix prefix		Prefix log messages with this prefix.
`,
  cannot: () => 'no kernel from 3.17 on has it; LOG writes to the log here',
});
