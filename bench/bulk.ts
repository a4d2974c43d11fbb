/**
 * Bulk transfer: one TCP connection by iperf3 across the router, segmentation offload on. Both directions cross each
 * contender's queue. The server must see the source that the contender promises.
 */
import { acceptLoop, articleRules, type Contender, hutter, kernel, rewriteLoop } from './contenders.js';
import { type Figures, fixed, hold, type Result } from './contest.js';
import type { Options } from './main.js';
import { machineBusy, type Network, type Program, ROUTER_OUT, SINK_FIRST, sleep } from './net.js';

const PORT = 5201;
const WARM_UP_S = 1;

/** Rules that headers are enough for: the kernel copies no payload. */
const WITHOUT_CONNECTIONS = [
  '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]',
  `-A FORWARD -i if0 -j ACCEPT\n-A FORWARD -i if1 -p tcp -m tcp --sport ${PORT} ! --syn -j ACCEPT\nCOMMIT\n`,
].join('\n');

interface ServerReport {
  readonly error?: string;
  readonly start: { readonly accepted_connection: { readonly host: string } };
  readonly end: { readonly sum_received: { readonly bits_per_second: number; readonly bytes: number } };
}

export function run(options: Options): Promise<Result> {
  return hold(
    {
      title: 'bulk TCP, one connection, segmentation offload on',
      contenders: [
        kernel('kernel forwarding'),
        acceptLoop(true),
        hutter('hutter, filter', articleRules('filter')),
        hutter('hutter, no connections', WITHOUT_CONNECTIONS),
        kernel('kernel, article + SNAT', articleRules('all'), ROUTER_OUT),
        rewriteLoop(true),
        hutter('hutter, article + SNAT', articleRules('all'), ROUTER_OUT),
      ],
      columns: [
        { title: 'Gbit/s', figure: 'gbits', show: fixed(2) },
        { title: 'user µs/MB', figure: 'userUs', show: fixed(1) },
        { title: 'system µs/MB', figure: 'systemUs', show: fixed(1) },
        { title: 'machine µs/MB', figure: 'machineUs', show: fixed(1) },
      ],
      ratios: [
        { left: 'hutter, filter', right: 'C accept', figure: 'gbits', atLeast: 0.9 },
        { left: 'hutter, no connections', right: 'C accept', figure: 'gbits', atLeast: 0.9 },
        { left: 'hutter, article + SNAT', right: 'C rewrite', figure: 'gbits', atLeast: 0.9 },
        { left: 'hutter, article + SNAT', right: 'kernel, article + SNAT', figure: 'gbits', atLeast: 0.7 },
        { left: 'C rewrite', right: 'kernel, article + SNAT', figure: 'gbits' },
      ],
      measure: (net, contender, router) => measureBulk(net, contender, router, options),
    },
    options,
  );
}

/** One connection from the sender to the sink. @throws Error when the sink sees another source than promised */
export async function measureBulk(
  net: Network,
  contender: Contender,
  router: Program | undefined,
  options: Options,
): Promise<Figures> {
  const server = net.start('sink', 'iperf3', ['-s', '-1', '-J', '-p', `${PORT}`]);
  // It says nothing when it listens (JSON comes at the end).
  await sleep(500);
  const pace = ['-t', `${options.seconds}`, '-O', `${WARM_UP_S}`];
  const before = { busy: machineBusy(), cpu: router?.cpu() ?? { user: 0, system: 0 } };
  const client = net.start('sender', 'iperf3', ['-c', SINK_FIRST, '-p', `${PORT}`, ...pace, '-J']);
  await client.end((options.seconds + 15) * 1000);
  const after = { busy: machineBusy(), cpu: router?.cpu() ?? { user: 0, system: 0 } };
  await server.end(5000);
  const report = JSON.parse(server.stdout || '{"error":"iperf3 -s said nothing"}') as ServerReport;
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  const { host } = report.start.accepted_connection;
  if (host !== contender.source) throw new Error(`the server saw a connection from ${host}, not ${contender.source}`);
  const { bits_per_second: rate } = report.end.sum_received;
  // The warm-up's bytes cost processor time, too.
  const megabytes = (rate / 8e6) * (options.seconds + WARM_UP_S);
  return {
    gbits: rate / 1e9,
    userUs: (after.cpu.user - before.cpu.user) / megabytes,
    systemUs: (after.cpu.system - before.cpu.system) / megabytes,
    machineUs: (after.busy - before.busy) / megabytes,
  };
}
