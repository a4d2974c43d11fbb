/** -j NFQUEUE: the packet to another queue. (libxt_NFQUEUE.c revision 3, xt_NFQUEUE.c) */
import { encodeNFQUEUE, QueueFlag } from '../../dataplane/program/nfqueue.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { uint16, uint16Range } from './args.js';
import { defineTarget, option } from './record.js';

export interface NfqueueData {
  first: number;
  total: number;
  /** QueueFlag bits. */
  flags: number;
}

const words = ({ first, total, flags }: NfqueueData, dashes: string, name: string): string =>
  (total > 1 ? ` ${name}balance ${first}:${first + total - 1}` : ` ${name}num ${first}`) +
  (flags & QueueFlag.BYPASS ? ` ${dashes}bypass` : '') +
  (flags & QueueFlag.CPU_FANOUT ? ` ${dashes}cpu-fanout` : '');

export const NFQUEUE = defineTarget<NfqueueData>({
  name: 'NFQUEUE',
  revision: 3,
  init: () => ({ first: 0, total: 1, flags: 0 }),
  options: [
    option({
      name: 'queue-num',
      arg: uint16(),
      excl: ['queue-balance'],
      set: (data, first) => {
        data.first = first;
        data.total = 1;
      },
    }),
    option({
      name: 'queue-balance',
      arg: uint16Range(2),
      excl: ['queue-num'],
      set: (data, range, { arg }) => {
        const [first, last] = range;
        if (last === undefined) problem(`Bad range "${arg}"`);
        if (first! >= last) problem(`${first} should be less than ${last}`);
        data.first = first!;
        data.total = last - first! + 1;
      },
    }),
    option({
      name: 'queue-bypass',
      set: (data) => {
        data.flags |= QueueFlag.BYPASS;
      },
    }),
    option({
      name: 'queue-cpu-fanout',
      also: ['queue-balance'],
      set: (data) => {
        data.flags |= QueueFlag.CPU_FANOUT;
      },
    }),
  ],
  save: (data) => words(data, '--queue-', '--queue-'),
  print: (data) => ` NFQUEUE${words(data, '', '')}`,
  help: `NFQUEUE target options
  --queue-num value            Send packet to QUEUE number <value>.
                               Valid queue numbers are 0-65535
  --queue-balance first:last   Balance flows between queues <value> to <value>.
  --queue-bypass               Bypass Queueing if no queue instance exists.
  --queue-cpu-fanout	Use current CPU (no hashing)
`,
  check: ({ total }) =>
    // The number of queues has sixteen bits: 65,536 reads as none.
    total > 0xffff ? { errno: 'EINVAL', reason: 'NFQUEUE: number of total queues is 0' } : undefined,
  compile: ({ first, total, flags }, emit) => emit.target(TargetOp.NFQUEUE, encodeNFQUEUE(first, total, flags)),
});
