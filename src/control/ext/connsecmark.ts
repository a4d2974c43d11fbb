/** -j CONNSECMARK: security marks between packets and connections. (libxt_CONNSECMARK.c, xt_CONNSECMARK.c) */
import { problem } from '../text/problem.js';
import { defineTarget, option } from './record.js';

export interface ConnsecmarkData {
  /** 1 save, 2 restore. */
  mode: number;
}

export const CONNSECMARK = defineTarget<ConnsecmarkData>({
  name: 'CONNSECMARK',
  tables: ['mangle', 'security'],
  init: () => ({ mode: 0 }),
  options: [
    option({
      name: 'save',
      excl: ['restore'],
      set: (data) => {
        data.mode = 1;
      },
    }),
    option({
      name: 'restore',
      excl: ['save'],
      set: (data) => {
        data.mode = 2;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('CONNSECMARK target: parameter required');
  },
  save: ({ mode }) => (mode === 1 ? ' --save' : ' --restore'),
  print: ({ mode }) => ` CONNSECMARK ${mode === 1 ? 'save' : 'restore'}`,
  help: `CONNSECMARK target options:
  --save                   Copy security mark from packet to conntrack
  --restore                Copy security mark from connection to packet
`,
  cannot: () => 'a diverted packet does not carry its security mark',
});
