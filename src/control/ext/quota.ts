/** -m quota: so many bytes and no more. (libxt_quota.c, xt_quota.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeQuota, initQuota, QUOTA_STATE_WORDS } from '../../dataplane/program/quota.js';
import { bang, uint64 } from './args.js';
import { defineMatch, option } from './record.js';

export interface QuotaData {
  /** Bytes. */
  quota: bigint;
  invert: boolean;
}

export const quota = defineMatch<QuotaData>({
  name: 'quota',
  init: () => ({ quota: 0n, invert: false }),
  options: [
    option({
      name: 'quota',
      arg: uint64(),
      invert: true,
      mandatory: true,
      set: (data, bytes, { invert }) => {
        data.quota = bytes;
        data.invert = invert;
      },
    }),
  ],
  save: ({ quota, invert }) => `${bang(invert)} --quota ${quota}`,
  print: ({ quota }) => ` quota: ${quota} bytes`,
  help: `quota match options:
[!] --quota quota		quota (bytes)
`,
  compile: ({ quota, invert }, emit, { slot }) => {
    const { region, offset } = slot(QUOTA_STATE_WORDS, (words, at) => initQuota(words, at, quota));
    emit.test(MatchOp.QUOTA, encodeQuota(invert, region, offset));
  },
});
