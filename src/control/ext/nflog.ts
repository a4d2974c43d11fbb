/** -j NFLOG: the packet to a netlink group. (libxt_NFLOG.c, xt_NFLOG.c) */
import { encodeNFLOG } from '../../dataplane/program/nflog.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { formatString, string, uint16, uint32 } from './args.js';
import { problem } from '../text/problem.js';
import { defineTarget, option } from './record.js';

export interface NflogData {
  group: number;
  /** --nflog-size was given (XT_NFLOG_F_COPY_LEN): `length` is it; else `length` is what --nflog-range said. */
  sized: boolean;
  length: number;
  threshold: number;
  /** At most 63 bytes. */
  prefix: string;
}

const words = ({ prefix, group, sized, length, threshold }: NflogData, dashes: string): string =>
  (prefix === '' ? '' : ` ${dashes}nflog-prefix${formatString(prefix)}`) +
  (group === 0 ? '' : ` ${dashes}nflog-group ${group}`) +
  (sized ? ` ${dashes}nflog-size ${length}` : length === 0 ? '' : ` ${dashes}nflog-range ${length}`) +
  (threshold === 0 ? '' : ` ${dashes}nflog-threshold ${threshold}`);

export const NFLOG = defineTarget<NflogData>({
  name: 'NFLOG',
  init: () => ({ group: 0, sized: false, length: 0, threshold: 0, prefix: '' }),
  options: [
    option({
      name: 'nflog-group',
      arg: uint16(),
      set: (data, group) => {
        data.group = group;
      },
    }),
    option({
      name: 'nflog-prefix',
      arg: string({ min: 1, size: 64 }),
      set: (data, prefix, { arg }) => {
        if (arg.includes('\n')) problem('Newlines not allowed in --log-prefix');
        data.prefix = prefix;
      },
    }),
    option({
      name: 'nflog-range',
      arg: uint32(),
      excl: ['nflog-size'],
      set: (data, length, { warn }) => {
        warn('warn: --nflog-range has never worked and is no longer supported, please use --nflog-size instead\n');
        data.length = length;
      },
    }),
    option({
      name: 'nflog-size',
      arg: uint32(),
      excl: ['nflog-range'],
      set: (data, length) => {
        data.length = length;
        data.sized = true;
      },
    }),
    option({
      name: 'nflog-threshold',
      arg: uint16(),
      set: (data, threshold) => {
        data.threshold = threshold;
      },
    }),
  ],
  save: (data) => words(data, '--'),
  print: (data) => words(data, ''),
  help: `NFLOG target options:
 --nflog-group NUM		NETLINK group used for logging
 --nflog-range NUM		This option has no effect, use --nflog-size
 --nflog-size NUM		Number of bytes to copy
 --nflog-threshold NUM		Message threshold of in-kernel queue
 --nflog-prefix STRING		Prefix string for log messages
`,
  compile: ({ group, sized, length, prefix }, emit) =>
    emit.target(TargetOp.NFLOG, encodeNFLOG(group, sized ? length : -1, prefix)),
});
