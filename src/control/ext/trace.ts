/** -j TRACE: every rule that the packet meets is written to the log. (libxt_TRACE.c, xt_TRACE.c) */
import { TargetOp } from '../../dataplane/program/ops.js';
import { defineTarget } from './record.js';

export const TRACE = defineTarget<Record<never, never>>({
  name: 'TRACE',
  tables: ['raw'],
  init: () => ({}),
  options: [],
  compile: (_data, emit) => emit.target(TargetOp.TRACE, []),
});
