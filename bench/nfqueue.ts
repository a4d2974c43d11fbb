/**
 * The NFQUEUE bench: one stream of small UDP datagrams crosses a router namespace, and what routes it is changed between
 * measurements: the kernel alone and with the article's rules, C loops on the queue, npm `nfqueue`, hutter. The sender has
 * one core and the routing process another. The sink counts in the kernel, so that no third process takes part.
 *
 * Each contender is first checked at a gentle rate: every datagram must arrive, undamaged and from the right source.
 * Under load it must then account for all: sent = delivered + dropped by the queue, which never fails open.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Options } from './main.js';
import {
  machineBusy,
  Network,
  ROUTER_CORE,
  ROUTER_OUT,
  SENDER,
  SENDER_CORE,
  SINK_FIRST,
  sleep,
  until,
  type Program,
} from './net.js';
import { peer } from './peers.js';
import { ratios, showRatio, spread, table, type Spread } from './stats.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
const HUTTER = path.join(ROOT, 'dist/bin/hutter.mjs');
/** The article's firewall: filter, SNAT, a port forward, TOS. */
const ARTICLE = path.join(ROOT, 'examples/simple-firewall.rules');
const PORT = 7000;
const QUEUE = 10;
/** Packets a queue holds: hutter's own default, so that the C loops lose as much or as little for want of room. */
const QUEUE_LENGTH = 4096;
const WARM_UP_MS = 1000;
/** Fewer than any contender's queue holds (npm nfqueue keeps the kernel's 1,024), so that none may be lost. */
const CHECKED_DATAGRAMS = 1000;
const CHECK_RATE = 5000;
/** How long the last of them may take on a busy machine. */
const CHECK_PATIENCE_MS = 10_000;

interface Contender {
  readonly name: string;
  /** Source address that the sink must see. */
  readonly source: string;
  /** Prepares the router namespace; returns the process that routes, if it is not the kernel alone. */
  start(net: Network): Promise<Program | undefined>;
  /** Why it cannot take part, undefined if it can. */
  missing?(): string | undefined;
}

/** One contender's one measurement. */
interface Measure {
  readonly pps: number;
  readonly offeredPps: number;
  /** Share of the offered packets that the queue dropped. */
  readonly lost: number;
  /** Packets that nobody accounts for, sent minus delivered minus dropped, over the whole run. */
  readonly unaccounted: number;
  /** Microseconds a delivered packet: the routing process's, and the whole machine's. */
  readonly userUs: number;
  readonly systemUs: number;
  readonly machineUs: number;
}

/** The diversion that hutter makes, by the same tool, for the loops that have none of their own. */
function divert(net: Network): void {
  const rules = ['*raw', ':PREROUTING ACCEPT', ':OUTPUT ACCEPT', '-A PREROUTING -j CT --notrack'];
  net.exec(
    'router',
    'iptables-restore',
    [],
    [...rules, `-A PREROUTING -i if0 -j NFQUEUE --queue-num ${QUEUE}`, 'COMMIT', ''].join('\n'),
  );
}

/** The tables of the article's firewall, all or the filter table alone. */
function articleRules(tables: 'all' | 'filter'): string {
  const text = readFileSync(ARTICLE, 'utf8');
  return tables === 'all'
    ? text
    : text.slice(text.indexOf('*filter'), text.indexOf('COMMIT', text.indexOf('*filter')) + 7);
}

function hutter(tables: 'all' | 'filter'): (net: Network) => Promise<Program> {
  return async (net) => {
    const folder = mkdtempSync(path.join(tmpdir(), 'hutter-bench-'));
    const rules = path.join(folder, 'rules');
    const control = path.join(folder, 'control');
    writeFileSync(rules, articleRules(tables));
    const args = ['up', '--rules', rules, '--control', control, '--workers', '1', '--queue-base', String(QUEUE)];
    const program = net.start('router', process.execPath, [HUTTER, ...args], ROUTER_CORE);
    program.child.on('close', () => rmSync(folder, { recursive: true, force: true }));
    // Its greeting comes when it diverts and answers.
    await until('hutter to be up', () => program.stdout.includes('\n') || !program.running, 30_000);
    if (!program.running) throw new Error(`hutter up ended: ${program.lastWords}`);
    return program;
  };
}

const hutterMissing = (): string | undefined => (existsSync(HUTTER) ? undefined : 'not built: npm run build');

/** A translator's packet comes from one of the router's own addresses: the kernel must be told to let it. */
function letOwnSourcesPass(net: Network): void {
  net.sysctl('router', 'net.ipv4.conf.if0.accept_local', '1');
  net.sysctl('router', 'net.ipv4.conf.if0.rp_filter', '2');
}

const CONTENDERS: readonly Contender[] = [
  { name: 'kernel forwarding', source: SENDER, start: () => Promise.resolve(undefined) },
  {
    name: 'kernel, article + SNAT',
    source: ROUTER_OUT,
    start(net) {
      net.exec('router', 'iptables-legacy-restore', [], articleRules('all'));
      return Promise.resolve(undefined);
    },
  },
  {
    name: 'npm nfqueue, accept',
    source: SENDER,
    start(net) {
      divert(net);
      const script = path.join(import.meta.dirname, 'npm-nfqueue.js');
      return net.start('router', process.execPath, [script, String(QUEUE)], ROUTER_CORE).ready();
    },
    missing: () =>
      existsSync(path.join(ROOT, 'node_modules/nfqueue/build/Release/nfqueue.node'))
        ? undefined
        : 'not built here: it needs libnetfilter-queue-dev and `npm rebuild nfqueue`',
  },
  {
    name: 'C accept',
    source: SENDER,
    start(net) {
      divert(net);
      return net.start('router', peer('nfq-accept'), [String(QUEUE), String(QUEUE_LENGTH)], ROUTER_CORE).ready();
    },
  },
  {
    name: 'hutter, filter',
    source: SENDER,
    start: hutter('filter'),
    missing: hutterMissing,
  },
  {
    name: 'C rewrite',
    source: ROUTER_OUT,
    start(net) {
      letOwnSourcesPass(net);
      divert(net);
      const args = [String(QUEUE), ROUTER_OUT, String(QUEUE_LENGTH)];
      return net.start('router', peer('nfq-rewrite'), args, ROUTER_CORE).ready();
    },
  },
  {
    name: 'hutter, article + SNAT',
    source: ROUTER_OUT,
    start: hutter('all'),
    missing: hutterMissing,
  },
];

/** The ratios that the project is held to: a over b. */
const RATIOS: readonly (readonly [string, string])[] = [
  ['hutter, filter', 'C accept'],
  ['hutter, article + SNAT', 'C rewrite'],
  ['hutter, filter', 'npm nfqueue, accept'],
  ['hutter, article + SNAT', 'kernel, article + SNAT'],
  ['C accept', 'kernel forwarding'],
];

function blast(net: Network, options: Options, more: readonly string[]): Program {
  const target = ['--to', SINK_FIRST, '--port', String(PORT), '--hosts', String(options.flows)];
  return net.start('sender', peer('udp-blast'), [...target, ...more], SENDER_CORE);
}

/** Sends gently and has every datagram checked. @throws Error saying what was wrong. */
async function check(net: Network, contender: Contender, options: Options): Promise<void> {
  const sink = net.start('sink', peer('udp-sink'), ['--port', String(PORT), '--source', contender.source]);
  await sink.ready();
  const before = net.counters('sink', 'if1').received;
  const sender = blast(net, options, ['--count', String(CHECKED_DATAGRAMS), '--pps', String(CHECK_RATE)]);
  await sender.end();
  const deadline = performance.now() + CHECK_PATIENCE_MS;
  while (net.counters('sink', 'if1').received < before + CHECKED_DATAGRAMS && performance.now() < deadline)
    await sleep(20);
  await sleep(300);
  const result = await sink.stop<{ received: number; damaged: number; foreign: number; badChecksums: number }>();
  const right = { received: CHECKED_DATAGRAMS, damaged: 0, foreign: 0, badChecksums: 0 };
  if (JSON.stringify(result) !== JSON.stringify(right)) {
    throw new Error(`${contender.name}: of ${CHECKED_DATAGRAMS} datagrams the sink says ${JSON.stringify(result)}`);
  }
}

/** Has the sink's kernel take every datagram of the stream that has the right source, and count it. */
function countAtSink(net: Network, source: string): void {
  const rule = ['-p', 'udp', '-s', source, '--dport', String(PORT), '-j', 'DROP'];
  net.exec('sink', 'iptables-legacy', ['-t', 'raw', '-F']);
  net.exec('sink', 'iptables-legacy', ['-t', 'raw', '-A', 'PREROUTING', ...rule]);
}

const countedAtSink = (net: Network): number =>
  Number(/^\[(\d+):\d+\] -A PREROUTING/m.exec(net.exec('sink', 'iptables-legacy-save', ['-c', '-t', 'raw']))![1]);

async function measure(net: Network, contender: Contender, options: Options): Promise<Measure> {
  const router = await contender.start(net);
  try {
    await check(net, contender, options);
    countAtSink(net, contender.source);
    const sender = blast(net, options, []);
    const snapshot = () => ({
      at: performance.now(),
      offered: net.counters('sender', 'if0').sent,
      arrived: net.counters('sink', 'if1').received,
      drops: router ? net.queueDrops() : { queue: 0, user: 0 },
      cpu: router?.cpu() ?? { user: 0, system: 0 },
      busy: machineBusy(),
    });
    await sleep(WARM_UP_MS);
    const a = snapshot();
    await sleep(options.seconds * 1000);
    const b = snapshot();
    const sent = (await sender.stop<{ sent: number }>())?.sent ?? NaN;
    // What is still in the queue comes through; then the account is made up.
    let last = -1;
    await until('the queue to run empty', () => last === (last = net.counters('sink', 'if1').received));
    await sleep(100);
    const drops = router ? net.queueDrops() : { queue: 0, user: 0 };
    const unaccounted = sent - countedAtSink(net) - drops.queue - drops.user;

    const seconds = (b.at - a.at) / 1000;
    const delivered = b.arrived - a.arrived;
    const offered = b.offered - a.offered;
    const perPacket = (us: number): number => us / Math.max(delivered, 1);
    if (router && !router.running) throw new Error(`${contender.name} ended under load: ${router.lastWords}`);
    return {
      pps: delivered / seconds,
      offeredPps: offered / seconds,
      lost: (b.drops.queue + b.drops.user - a.drops.queue - a.drops.user) / Math.max(offered, 1),
      unaccounted,
      userUs: perPacket(b.cpu.user - a.cpu.user),
      systemUs: perPacket(b.cpu.system - a.cpu.system),
      machineUs: perPacket(b.busy - a.busy),
    };
  } finally {
    // hutter takes its diversion back; the rest goes with the namespaces.
    await router?.stop();
  }
}

export interface Result {
  readonly contenders: Readonly<Record<string, { readonly runs: readonly Measure[]; readonly failed?: string }>>;
  readonly ratios: Readonly<Record<string, Spread>>;
}

export async function run(options: Options): Promise<Result> {
  const say = (text: string): void => void (options.json ? process.stderr : process.stdout).write(text);
  const failed = new Map<string, string>();
  const runs = new Map<string, Measure[]>(CONTENDERS.map(({ name }) => [name, []]));
  let net: Network | undefined;
  const interrupted = (): void => void Promise.resolve(net?.close()).then(() => process.exit(130));
  process.on('SIGINT', interrupted).on('SIGTERM', interrupted);
  try {
    for (let round = 0; round < options.pairs; round++) {
      // Every other round runs backwards, so that nobody always follows the same neighbour.
      for (const contender of round % 2 ? CONTENDERS.toReversed() : CONTENDERS) {
        const { name } = contender;
        const reason = failed.get(name) ?? contender.missing?.();
        if (reason !== undefined) {
          failed.set(name, reason);
          continue;
        }
        say(`round ${round + 1}/${options.pairs}: ${name.padEnd(24)}`);
        // New namespaces each time: a table once looked at stays, and costs every packet after it.
        net = new Network();
        try {
          await net.open();
          const result = await measure(net, contender, options);
          runs.get(name)!.push(result);
          say(`${Math.round(result.pps).toLocaleString('en')} packets/s\n`);
        } catch (error) {
          failed.set(name, (error as Error).message);
          say(`failed: ${(error as Error).message}\n`);
        } finally {
          await net.close();
        }
      }
    }
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  }

  const result: Record<string, Spread> = {};
  for (const [a, b] of RATIOS) {
    const [left, right] = [runs.get(a)!, runs.get(b)!];
    if (failed.has(a) || failed.has(b)) continue;
    result[`${a} / ${b}`] = ratios(
      left.map((m) => m.pps),
      right.map((m) => m.pps),
    );
  }
  if (!options.json) print(runs, failed, result, options, say);
  if (failed.size > 0) process.exitCode = 1;
  const contenders = Object.fromEntries(
    [...runs].map(([name, list]) => {
      const why = failed.get(name);
      return [name, why === undefined ? { runs: list } : { runs: list, failed: why }];
    }),
  );
  return { contenders, ratios: result };
}

function print(
  runs: ReadonlyMap<string, readonly Measure[]>,
  failed: ReadonlyMap<string, string>,
  result: Readonly<Record<string, Spread>>,
  options: Options,
  say: (text: string) => void,
): void {
  const rows = [['', 'packets/s', 'quartiles', 'dropped', 'unaccounted', 'user µs', 'system µs', 'machine µs']];
  for (const [name, list] of runs) {
    if (list.length === 0) {
      rows.push([name, '-', '', '', '', '', '', '']);
      continue;
    }
    const of = (key: keyof Measure): Spread => spread(list.map((m) => m[key]));
    const pps = of('pps');
    const thousands = (value: number): string => `${(value / 1000).toFixed(1)}k`;
    rows.push([
      name,
      thousands(pps.median),
      `${thousands(pps.low)}..${thousands(pps.high)}`,
      `${(of('lost').median * 100).toFixed(1)} %`,
      String(list.reduce((sum, m) => sum + m.unaccounted, 0)),
      of('userUs').median.toFixed(2),
      of('systemUs').median.toFixed(2),
      of('machineUs').median.toFixed(2),
    ]);
  }
  const flows = options.flows === 1 ? 'one flow' : `${options.flows} hosts, a flow each`;
  say(
    `\n${options.pairs} rounds of ${options.seconds} s, ${flows}, 18-byte UDP datagrams sent as fast as one core can\n`,
  );
  say(`${table(rows)}\n\nprocessor time is a delivered packet's; user and system are the routing process's own\n\n`);
  for (const [name, ratio] of Object.entries(result)) say(`${name}: ${showRatio(ratio)}\n`);
  for (const [name, reason] of failed) say(`${name}: did not take part: ${reason}\n`);
}
