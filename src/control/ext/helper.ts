/** -m helper: connections that belong to a helper's. (libxt_helper.c, xt_helper.c) */
import { encodeHelper } from '../../dataplane/program/helper.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { bang, formatString, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface HelperData {
  /** '' = any. */
  name: string;
  invert: boolean;
}

const NAME_BYTES = 30;

export const helper = defineMatch<HelperData>({
  name: 'helper',
  init: () => ({ name: '', invert: false }),
  options: [
    option({
      name: 'helper',
      arg: string({ size: NAME_BYTES }),
      invert: true,
      mandatory: true,
      set: (data, name, { invert }) => {
        data.name = name;
        data.invert = invert;
      },
    }),
  ],
  save: ({ name, invert }) => `${bang(invert)} --helper${formatString(name)}`,
  print: ({ name, invert }) => ` helper match ${invert ? '! ' : ''}"${name}"`,
  help: `helper match options:
[!] --helper string        Match helper identified by string
`,
  compile: ({ name, invert }, emit) => emit.test(MatchOp.HELPER, encodeHelper(name, invert)),
});
