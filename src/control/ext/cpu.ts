/** -m cpu: the processor that handles the packet. (libxt_cpu.c, xt_cpu.c) */
import { bang, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

export interface CpuData {
  cpu: number;
  invert: boolean;
}

export const cpu = defineMatch<CpuData>({
  name: 'cpu',
  init: () => ({ cpu: 0, invert: false }),
  options: [
    option({
      name: 'cpu',
      arg: uint32(),
      invert: true,
      mandatory: true,
      set: (data, cpu, { invert }) => {
        data.cpu = cpu;
        data.invert = invert;
      },
    }),
  ],
  save: ({ cpu, invert }) => `${bang(invert)} --cpu ${cpu}`,
  print: ({ cpu, invert }) => ` cpu ${invert ? '! ' : ''}${cpu}`,
  help: `cpu match options:
[!] --cpu number   Match CPU number
`,
  cannot: () => 'the processor that took a packet in is not told by the queue',
});
