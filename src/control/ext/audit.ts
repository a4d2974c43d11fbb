/** -j AUDIT: a record in the kernel's audit log. (libxt_AUDIT.c, xt_AUDIT.c) */
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineTarget, option } from './record.js';

const TYPES = ['accept', 'drop', 'reject'] as const;

export interface AuditData {
  type: (typeof TYPES)[number];
}

export const AUDIT = defineTarget<AuditData>({
  name: 'AUDIT',
  init: () => ({ type: 'accept' }),
  options: [
    option({
      name: 'type',
      arg: string(),
      mandatory: true,
      set: (data, text) => {
        data.type = TYPES.find((type) => type === text.toLowerCase()) ?? problem(`Bad action type value "${text}"`);
      },
    }),
  ],
  save: ({ type }) => ` --type ${type}`,
  print: ({ type }) => ` AUDIT ${type}`,
  help: `AUDIT target options
  --type TYPE		Action type to be recorded.
`,
  cannot: () => 'only the kernel can write records of packets into its audit log',
});
