/**
 * The NFQUEUE bench: packets a second through the kernel alone and with the article's rules, C loops on the queue, npm
 * `nfqueue`, hutter. The sender has one core and the routing process another. One flow, then 64 hosts.
 */
import { acceptLoop, articleRules, hutter, kernel, npmNfqueue, rewriteLoop } from './contenders.js';
import { hold, type Limit, type Ratio, type Result } from './contest.js';
import type { Options } from './main.js';
import { ROUTER_OUT } from './net.js';
import { check, load, STREAM_COLUMNS } from './stream.js';

const RATIOS: readonly Ratio[] = [
  { left: 'hutter, filter', right: 'C accept', figure: 'pps', atLeast: 0.95 },
  { left: 'hutter, article + SNAT', right: 'C rewrite', figure: 'pps', atLeast: 0.95 },
  // In shares of what was offered: no more of it than the loop loses, give or take a fiftieth.
  { left: 'hutter, filter', right: 'C accept', figure: 'lost', atMost: 1, orBy: 0.02 },
  { left: 'hutter, article + SNAT', right: 'C rewrite', figure: 'lost', atMost: 1, orBy: 0.02 },
  { left: 'hutter, filter', right: 'npm nfqueue, accept', figure: 'pps' },
  { left: 'hutter, article + SNAT', right: 'kernel, article + SNAT', figure: 'pps' },
  { left: 'C accept', right: 'kernel forwarding', figure: 'pps' },
];

/** Microseconds of processor time a packet outside the kernel. */
const LIMITS: readonly Limit[] = [
  { of: 'hutter, filter', figure: 'userUs', atMost: 0.25 },
  { of: 'hutter, article + SNAT', figure: 'userUs', atMost: 0.35 },
];

export async function run(options: Options): Promise<Record<string, Result>> {
  const contenders = [
    kernel('kernel forwarding'),
    kernel('kernel, article + SNAT', articleRules('all'), ROUTER_OUT),
    npmNfqueue,
    acceptLoop(),
    hutter('hutter, filter', articleRules('filter')),
    rewriteLoop(),
    hutter('hutter, article + SNAT', articleRules('all'), ROUTER_OUT),
  ];
  const results: Record<string, Result> = {};
  for (const hosts of options.flows === undefined ? [1, 64] : [options.flows]) {
    const title = hosts === 1 ? 'one flow' : `${hosts} hosts, a flow each`;
    results[title] = await hold(
      {
        title: `${title}, 18-byte UDP datagrams as fast as one core sends`,
        contenders,
        columns: STREAM_COLUMNS,
        ratios: RATIOS,
        limits: LIMITS,
        async measure(net, contender, router) {
          await check(net, contender);
          return load(net, contender, router, options, { hosts, ports: 1 });
        },
      },
      options,
    );
  }
  return results;
}
