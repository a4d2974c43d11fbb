/**
 * A million live flows, tracked and translated: packets a second beside a thousand flows, the memory that they take, the
 * longest round trip of a bystander meanwhile, and what is left of established flows when spoofed SYNs fill the table.
 */
import type { Status } from '../src/control/status.js';
import { articleRules, type Contender, HUTTER, hutter, kernel } from './contenders.js';
import { type Column, type Figures, fixed, hold, type Limit, percent, type Result, thousands } from './contest.js';
import { answer, ping } from './latency.js';
import type { Options } from './main.js';
import { type Network, type Program, ROUTER_OUT, SENDER, SENDER_CORE, SINK_FIRST, sleep } from './net.js';
import { peer } from './peers.js';
import { blast, check, countAtSink, countedAtSink, load, queueEmpty } from './stream.js';

const HOSTS = 250;
/** Hosts times ports. */
const FEW = { hosts: HOSTS, ports: 4 };
const MANY = { hosts: HOSTS, ports: 4000, from: 6998 };
const MIB = 1 << 20;
/**
 * Room for the flows, those of the check and the bystander's, and what is over but not yet swept up (ten seconds' worth at most). As in
 * the kernel, unanswered flows are dropped early once the table is full; here none may be.
 */
const TABLE = 1_600_000;
/** A table that a flood fills in a second. */
const SMALL_TABLE = 20_000;

/** Sends every flow one datagram, within a UDP flow's 30 seconds. Returns how many came through, and so live. */
async function begin(net: Network, source: string): Promise<number> {
  countAtSink(net, source);
  const flows = MANY.hosts * MANY.ports;
  await blast(net, MANY, ['--count', `${flows}`, '--pps', '60000']).end(120_000);
  await queueEmpty(net);
  return countedAtSink(net);
}

async function flows(
  net: Network,
  contender: Contender,
  router: Program | undefined,
  options: Options,
): Promise<Figures> {
  await check(net, contender);
  await answer(net);
  const few = await load(net, contender, router, options, FEW);
  const before = router?.memory() ?? NaN;
  const live = await begin(net, contender.source);
  const grown = ((router?.memory() ?? NaN) - before) / MIB;
  // The bystander's round trips come on top of a table that lives and expires.
  const { longest, lost } = await ping(net, () => sleep(options.seconds * 1000));
  await begin(net, contender.source);
  const many = await load(net, contender, router, options, MANY);
  return {
    pps: many['pps']!,
    live,
    fewPps: few['pps']!,
    kept: many['pps']! / few['pps']!,
    userUs: many['userUs']!,
    grownMiB: grown,
    longestMs: longest / 1000,
    pingsLost: lost,
    longestBatchMs: longestBatch(net, router),
  };
}

/** Milliseconds that packets which waited had to wait for the worker to take them, at most, since it began. */
function longestBatch(net: Network, router: Program | undefined): number {
  if (router?.control === undefined) return NaN;
  const status = net.exec('router', process.execPath, [HUTTER, 'status', '--json', '--control', router.control]);
  return (JSON.parse(status) as Status).workers[0]!.longestBatchMs;
}

const COLUMNS: readonly Column[] = [
  { title: 'packets/s', figure: 'pps', show: thousands },
  { title: 'live flows', figure: 'live', show: thousands },
  { title: 'at 1,000 flows', figure: 'fewPps', show: thousands },
  { title: 'kept', figure: 'kept', show: fixed(2) },
  { title: 'user µs', figure: 'userUs', show: fixed(2) },
  { title: 'grown MiB', figure: 'grownMiB', show: fixed(0), of: 'most' },
  { title: 'longest trip ms', figure: 'longestMs', show: fixed(1), of: 'most' },
  { title: 'longest batch ms', figure: 'longestBatchMs', show: fixed(1), of: 'most' },
  { title: 'pings lost', figure: 'pingsLost', show: fixed(0), of: 'sum' },
];

/** A flood of spoofed SYNs for some milliseconds; returns how many. */
async function sendSyns(net: Network, ms: number): Promise<number> {
  const args = ['--to', SINK_FIRST, '--port', '80', '--pps', '50000'];
  const flood = net.start('sender', peer('syn-flood'), args, SENDER_CORE);
  await sleep(ms);
  return (await flood.stop<{ sent: number }>())?.sent ?? 0;
}

/** Round trips of an established, answered flow, before and while the flood goes on. */
async function flood(net: Network, options: Options): Promise<Figures> {
  // The sources of the flood have a way back, and nobody answers: its entries stay half-open.
  net.ip('router', `route add 10.0.0.0/8 via ${SENDER}`);
  net.exec('sink', 'iptables-legacy', ['-t', 'raw', '-A', 'PREROUTING', '-p', 'tcp', '-j', 'DROP']);
  await answer(net);
  // The time in which V8 compiles what a flood needs.
  await sendSyns(net, 2500);
  // A flow is assured when it has lived two seconds with answers.
  const calm = await ping(net, () => sleep(options.seconds * 1000));
  let flooded = 0;
  const stormy = await ping(net, async () => {
    await sleep(3000);
    flooded = await sendSyns(net, options.seconds * 1000);
  });
  if (flooded < SMALL_TABLE) throw new Error(`${flooded} SYNs don't fill a table of ${SMALL_TABLE}`);
  return { lost: stormy.lost / stormy.count, p50: stormy.p50, calmP50: calm.p50, longest: stormy.longest / 1000 };
}

const HUTTER_ALL = 'hutter, article + SNAT';
const LIMITS: readonly Limit[] = [
  // What is kept says nothing where fewer lived: the others begin anew while it is measured.
  { of: HUTTER_ALL, figure: 'live', atLeast: 990_000 },
  { of: HUTTER_ALL, figure: 'kept', atLeast: 0.8 },
  { of: HUTTER_ALL, figure: 'grownMiB', atMost: 256 },
  { of: HUTTER_ALL, figure: 'longestMs', atMost: 10 },
  { of: HUTTER_ALL, figure: 'longestBatchMs', atMost: 10 },
];

export async function run(options: Options): Promise<Record<string, Result>> {
  const all = articleRules('all');
  const live = await hold(
    {
      title: 'a million live flows with SNAT',
      contenders: [hutter(HUTTER_ALL, all, ROUTER_OUT, ['--connections', `${TABLE}`])],
      columns: COLUMNS,
      ratios: [],
      limits: LIMITS,
      measure: (net, contender, router) => flows(net, contender, router, options),
    },
    options,
  );
  const syns = await hold(
    {
      title: 'an established flow while spoofed SYNs fill the table',
      contenders: [
        kernel('kernel, article + SNAT', all, ROUTER_OUT),
        hutter(HUTTER_ALL, all, ROUTER_OUT, ['--connections', `${SMALL_TABLE}`]),
      ],
      columns: [
        { title: 'lost', figure: 'lost', show: percent, of: 'most' },
        { title: 'p50 µs', figure: 'p50', show: fixed(1) },
        { title: 'calm p50 µs', figure: 'calmP50', show: fixed(1) },
        { title: 'longest ms', figure: 'longest', show: fixed(1), of: 'most' },
      ],
      ratios: [],
      limits: [{ of: HUTTER_ALL, figure: 'lost', atMost: 0 }],
      measure: (net) => flood(net, options),
    },
    options,
  );
  return { 'million flows': live, 'SYN flood': syns };
}
