/**
 * New flows: every datagram begins a UDP flow that has to be tracked and masqueraded; hutter beside the kernel's conntrack and
 * MASQUERADE. No flow comes twice within a run. The kernel's table is kept from filling by a short timeout, hutter's by its size.
 */
import { type Contender, hutter, kernel } from './contenders.js';
import { hold, type Result } from './contest.js';
import type { Options } from './main.js';
import { ROUTER_OUT } from './net.js';
import { check, load, STREAM_COLUMNS } from './stream.js';

const RULES = [
  '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]',
  '-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -i if0 -j ACCEPT\nCOMMIT',
  '*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]',
  '-A POSTROUTING -o if1 -j MASQUERADE\nCOMMIT\n',
].join('\n');
/** All addresses of the sink's network, and ports enough for every datagram of a run. */
const FLOWS = { hosts: 254, ports: 50_000 };

export function run(options: Options): Promise<Result> {
  const byKernel = kernel('kernel, MASQUERADE', RULES, ROUTER_OUT);
  const contenders: Contender[] = [
    {
      ...byKernel,
      async start(net) {
        const none = await byKernel.start(net);
        net.sysctl('router', 'net.netfilter.nf_conntrack_udp_timeout', '1');
        return none;
      },
    },
    hutter('hutter, MASQUERADE', RULES, ROUTER_OUT, ['--connections', '4000000']),
  ];
  return hold(
    {
      title: 'every datagram a new UDP flow, masqueraded',
      contenders,
      columns: STREAM_COLUMNS,
      ratios: [{ left: 'hutter, MASQUERADE', right: 'kernel, MASQUERADE', figure: 'pps', atLeast: 0.6 }],
      async measure(net, contender, router) {
        await check(net, contender);
        return load(net, contender, router, options, FLOWS);
      },
    },
    options,
  );
}
