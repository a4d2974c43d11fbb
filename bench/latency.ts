/**
 * Round trips of small UDP datagrams under light load: what a contender adds to the kernel's own forwarding. Both
 * directions cross its queue. hutter takes part as it is, and looking for packets before it sleeps (`--busy-poll`).
 */
import { acceptLoop, articleRules, hutter, kernel, rewriteLoop } from './contenders.js';
import { fixed, hold, type Column, type Result } from './contest.js';
import type { Options } from './main.js';
import { type Network, ROUTER_OUT, SENDER, SENDER_CORE, SINK_FIRST, sleep } from './net.js';
import { peer } from './peers.js';
import { warmUp } from './stream.js';

/** Below the ports of the other benches' streams, which the sink takes away in its kernel. */
const PORT = 6999;
const WARM_UP_MS = 1000;
const BUSY_POLL = ['--busy-poll', '100'];

export interface RoundTrips {
  readonly count: number;
  readonly lost: number;
  /** Microseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly longest: number;
}

/** Round trips while `during` goes on. */
export async function ping(net: Network, during: () => Promise<unknown>): Promise<RoundTrips> {
  const args = ['--to', SINK_FIRST, '--port', `${PORT}`];
  const client = net.start('sender', peer('udp-ping'), args, SENDER_CORE);
  await during();
  const trips = await client.stop<RoundTrips>();
  if (trips === undefined || trips.count === 0) throw new Error(`no answer came back: ${client.lastWords}`);
  return trips;
}

/** Starts what answers `ping`, on the same core: the other one is the router's. */
export const answer = (net: Network) =>
  net.start('sink', peer('udp-ping'), ['--listen', `${PORT}`, '--at', SINK_FIRST], SENDER_CORE).ready();

const micros = (title: string, figure: string, of?: 'most'): Column => ({
  title,
  figure,
  show: fixed(1),
  ...(of && { of }),
});

export function run(options: Options): Promise<Result> {
  const beyond = 'kernel forwarding';
  return hold(
    {
      title: 'round trips of UDP, 1,000 a second',
      contenders: [
        kernel('kernel forwarding'),
        acceptLoop(true),
        hutter('hutter, filter', articleRules('filter')),
        rewriteLoop(true),
        hutter('hutter, article + SNAT', articleRules('all'), ROUTER_OUT),
        hutter('hutter, filter, busy', articleRules('filter'), SENDER, BUSY_POLL),
        hutter('hutter, article + SNAT, busy', articleRules('all'), ROUTER_OUT, BUSY_POLL),
      ],
      columns: [
        micros('p50 µs', 'p50'),
        micros('p99 µs', 'p99'),
        micros('longest µs', 'longest', 'most'),
        { title: 'lost', figure: 'lost', show: fixed(0), of: 'sum' },
      ],
      ratios: [
        { left: 'hutter, filter', right: 'C accept', figure: 'p50', beyond, atMost: 1.2 },
        { left: 'hutter, article + SNAT', right: 'C rewrite', figure: 'p50', beyond, atMost: 1.2 },
        { left: 'hutter, filter, busy', right: 'C accept', figure: 'p50', beyond, atMost: 1.2 },
        { left: 'hutter, article + SNAT, busy', right: 'C rewrite', figure: 'p50', beyond, atMost: 1.2 },
        { left: 'hutter, filter', right: 'C accept', figure: 'p99', beyond, atMost: 1.2, orBy: 20 },
        { left: 'hutter, article + SNAT', right: 'C rewrite', figure: 'p99', beyond, atMost: 1.2, orBy: 20 },
      ],
      async measure(net, contender) {
        await warmUp(net, contender);
        await answer(net);
        await ping(net, () => sleep(WARM_UP_MS));
        return { ...(await ping(net, () => sleep(options.seconds * 1000))) };
      },
    },
    options,
  );
}
