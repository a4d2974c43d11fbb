/** -j TRACE: the kernel reports every rule that the packet meets. (libxt_TRACE.c, xt_TRACE.c) */
import { defineTarget } from './record.js';

export const TRACE = defineTarget<Record<never, never>>({
  name: 'TRACE',
  tables: ['raw'],
  init: () => ({}),
  options: [],
  cannot: () => 'it would report the rules that the kernel runs, and the rules are here',
});
