/** -m nfacct: counts into an object of nfacct(8). (libxt_nfacct.c, xt_nfacct.c) */
import { problem } from '../text/problem.js';
import { formatString, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface NfacctData {
  name: string;
}

const NAME_BYTES = 32;

export const nfacct = defineMatch<NfacctData>({
  name: 'nfacct',
  init: () => ({ name: '' }),
  options: [
    option({
      name: 'nfacct-name',
      arg: string({ min: 1, size: NAME_BYTES }),
      mandatory: true,
      set: (data, name, { arg }) => {
        if (arg.includes('\n')) problem('Newlines not allowed in --nfacct-name');
        data.name = name;
      },
    }),
  ],
  // The blank before the name is the tool's and the string's own.
  save: ({ name }) => ` --nfacct-name ${formatString(name)}`,
  print: ({ name }) => ` nfacct-name ${formatString(name)}`,
  help: `nfacct match options:
 --nfacct-name STRING		Name of accouting area
`,
  cannot: () => 'the counters of nfacct(8) live in the kernel',
});
