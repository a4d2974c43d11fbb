/** -j CHECKSUM: fills in a transport checksum that was left to a device. (libxt_CHECKSUM.c, xt_CHECKSUM.c) */
import { TargetOp } from '../../dataplane/program/ops.js';
import { defineTarget, option } from './record.js';

export const CHECKSUM = defineTarget<Record<never, never>>({
  name: 'CHECKSUM',
  tables: ['mangle'],
  init: () => ({}),
  options: [option({ name: 'checksum-fill', mandatory: true })],
  save: () => ' --checksum-fill',
  print: () => ' CHECKSUM fill',
  help: `CHECKSUM target options
  --checksum-fill			Fill in packet checksum.
`,
  compile: (_data, emit) => emit.target(TargetOp.CHECKSUM, []),
});
