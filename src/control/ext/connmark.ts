/** -m connmark: the mark of the packet's connection. (libxt_connmark.c revision 1, xt_connmark.c) */
import { bang, formatValueMask, markMask } from './args.js';
import { defineMatch, option } from './record.js';

export interface ConnmarkData {
  mark: number;
  mask: number;
  invert: boolean;
}

export const connmark = defineMatch<ConnmarkData>({
  name: 'connmark',
  revision: 1,
  init: () => ({ mark: 0, mask: 0, invert: false }),
  options: [
    option({
      name: 'mark',
      arg: markMask,
      invert: true,
      mandatory: true,
      set: (data, { value, mask }, { invert }) => {
        data.mark = value;
        data.mask = mask;
        data.invert = invert;
      },
    }),
  ],
  save: ({ mark, mask, invert }) => `${bang(invert)} --mark${formatValueMask(mark, mask)}`,
  print: ({ mark, mask, invert }) => ` connmark match ${invert ? '!' : ''}${formatValueMask(mark, mask)}`,
  help: `connmark match options:
[!] --mark value[/mask]    Match ctmark value with optional mask
`,
});
