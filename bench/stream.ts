/**
 * One stream of small UDP datagrams through a contender: first gently, when every datagram must arrive undamaged and from
 * the right source; then as fast as one core can send. Under load what the queue took must come out: delivered = queued −
 * dropped, or the contender is out. The sink counts in the kernel, so that no third process takes part.
 */
import type { Contender } from './contenders.js';
import type { Column, Figures } from './contest.js';
import { fixed, percent, thousands } from './contest.js';
import type { Options } from './main.js';
import { machineBusy, type Network, type Program, SENDER_CORE, SINK_FIRST, sleep, until } from './net.js';
import { peer } from './peers.js';

const PORT = 7000;
/** Long enough for what a program compiles while it runs. */
const WARM_UP_MS = 2500;
/** Fewer than any contender's queue holds (npm nfqueue keeps the kernel's 1,024), so that none may be lost. */
const CHECKED_DATAGRAMS = 1000;
const CHECK_RATE = 5000;
/** How long the last of them may take on a busy machine. */
const CHECK_PATIENCE_MS = 10_000;

/** To whom datagrams go in turn; every pair of host and port is a flow. */
export interface Flows {
  readonly hosts: number;
  readonly ports: number;
  /** Source port, so that another stream goes on with the same flows; without it each begins new ones. */
  readonly from?: number;
}

/** Figures of `load`. Processor times are microseconds a delivered packet: the routing process's, and the whole machine's. */
export const STREAM_COLUMNS: readonly Column[] = [
  { title: 'packets/s', figure: 'pps', show: thousands },
  { title: 'offered', figure: 'offeredPps', show: thousands },
  { title: 'dropped', figure: 'lost', show: percent },
  { title: 'user µs', figure: 'userUs', show: fixed(2) },
  { title: 'system µs', figure: 'systemUs', show: fixed(2) },
  { title: 'machine µs', figure: 'machineUs', show: fixed(2) },
];

export function blast(net: Network, flows: Flows, more: readonly string[] = []): Program {
  const { hosts, ports, from = 0 } = flows;
  const target = ['--to', SINK_FIRST, '--port', `${PORT}`, '--hosts', `${hosts}`, '--ports', `${ports}`];
  return net.start('sender', peer('udp-blast'), [...target, '--from', `${from}`, ...more], SENDER_CORE);
}

/** Sends gently and has every datagram checked. @throws Error saying what was wrong. */
export async function check(net: Network, contender: Contender): Promise<void> {
  const sink = net.start('sink', peer('udp-sink'), ['--port', `${PORT}`, '--source', contender.source]);
  await sink.ready();
  const before = net.counters('sink', 'if1').received;
  const pace = ['--count', `${CHECKED_DATAGRAMS}`, '--pps', `${CHECK_RATE}`];
  await blast(net, { hosts: 1, ports: 1 }, pace).end();
  const deadline = performance.now() + CHECK_PATIENCE_MS;
  while (net.counters('sink', 'if1').received < before + CHECKED_DATAGRAMS && performance.now() < deadline)
    await sleep(20);
  await sleep(300);
  const result = await sink.stop<{ received: number; damaged: number; foreign: number; badChecksums: number }>();
  const right = { received: CHECKED_DATAGRAMS, damaged: 0, foreign: 0, badChecksums: 0 };
  if (JSON.stringify(result) !== JSON.stringify(right))
    throw new Error(`of ${CHECKED_DATAGRAMS} datagrams the sink says ${JSON.stringify(result)}`);
}

/** Has the sink's kernel take every datagram of the stream that has the right source, and count it. */
export function countAtSink(net: Network, source: string): void {
  const rule = ['-p', 'udp', '-s', source, '--dport', `${PORT}:65535`, '-j', 'DROP'];
  net.exec('sink', 'iptables-legacy', ['-t', 'raw', '-F']);
  net.exec('sink', 'iptables-legacy', ['-t', 'raw', '-A', 'PREROUTING', ...rule]);
}

export const countedAtSink = (net: Network): number =>
  Number(/^\[(\d+):\d+\] -A PREROUTING/m.exec(net.exec('sink', 'iptables-legacy-save', ['-c', '-t', 'raw']))![1]);

/** A stream that nobody measures, before something that takes its time for itself. */
export async function warmUp(net: Network, contender: Contender): Promise<void> {
  countAtSink(net, contender.source);
  const sender = blast(net, { hosts: 1, ports: 1 });
  await sleep(WARM_UP_MS);
  await sender.stop();
  await queueEmpty(net);
}

/** Waits until nothing arrives at the sink any more. */
export async function queueEmpty(net: Network): Promise<void> {
  let last = -1;
  await until('the queue to run empty', () => last === (last = net.counters('sink', 'if1').received), 30_000);
  await sleep(200);
}

/** Loads the contender. @throws Error when packets are lost that nobody dropped. */
export async function load(
  net: Network,
  contender: Contender,
  router: Program | undefined,
  options: Options,
  flows: Flows,
  warmUpMs = WARM_UP_MS,
): Promise<Figures> {
  countAtSink(net, contender.source);
  const empty = { taken: 0, queue: 0, user: 0 };
  const queue = (): typeof empty => (router ? net.queue() : empty);
  const before = queue();
  const sender = blast(net, flows);
  const snapshot = () => ({
    at: performance.now(),
    offered: net.counters('sender', 'if0').sent,
    arrived: net.counters('sink', 'if1').received,
    drops: queue(),
    cpu: router?.cpu() ?? { user: 0, system: 0 },
    busy: machineBusy(),
  });
  await sleep(warmUpMs);
  const a = snapshot();
  await sleep(options.seconds * 1000);
  const b = snapshot();
  const sent = (await sender.stop<{ sent: number }>())?.sent ?? NaN;
  // What is still in the queue comes through; then the account is made up.
  await queueEmpty(net);
  const after = queue();
  const through = countedAtSink(net);
  const lostAfter = after.taken - before.taken - through;
  if (router?.running && lostAfter !== 0)
    throw new Error(`${lostAfter} of ${after.taken - before.taken} packets that the queue took never came out`);
  const seconds = (b.at - a.at) / 1000;
  const delivered = b.arrived - a.arrived;
  const offered = b.offered - a.offered;
  const perPacket = (us: number): number => us / Math.max(delivered, 1);
  return {
    pps: delivered / seconds,
    offeredPps: offered / seconds,
    lost: (b.drops.queue + b.drops.user - a.drops.queue - a.drops.user) / Math.max(offered, 1),
    /** Sent and neither delivered nor dropped by the queue: lost by the kernel on the way. */
    elsewhere: sent - through - (after.queue + after.user - before.queue - before.user),
    userUs: perPacket(b.cpu.user - a.cpu.user),
    systemUs: perPacket(b.cpu.system - a.cpu.system),
    machineUs: perPacket(b.busy - a.busy),
  };
}
