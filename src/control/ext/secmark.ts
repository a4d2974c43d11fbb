/** -j SECMARK: gives the packet a security mark. (libxt_SECMARK.c revision 1, xt_SECMARK.c) */
import { string } from './args.js';
import { defineTarget, option } from './record.js';

export interface SecmarkData {
  /** At most 255 bytes. */
  context: string;
}

export const SECMARK = defineTarget<SecmarkData>({
  name: 'SECMARK',
  revision: 1,
  tables: ['mangle', 'security'],
  init: () => ({ context: '' }),
  options: [
    option({
      name: 'selctx',
      arg: string({ size: 256 }),
      mandatory: true,
      set: (data, context) => {
        data.context = context;
      },
    }),
  ],
  save: ({ context }) => ` --selctx ${context}`,
  print: ({ context }) => ` SECMARK selctx ${context}`,
  help: `SECMARK target options:
  --selctx value                     Set the SELinux security context
`,
  cannot: () => 'a diverted packet does not carry its security mark',
});
