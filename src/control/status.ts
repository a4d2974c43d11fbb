/**
 * What `hutter status` says, as JSON (stable: fields are added, never renamed) and as text. Rates are over the second
 * before, from a sampler that runs beside the router.
 */
import { existsSync, readFileSync } from 'node:fs';
import { Hook, HOOK_NAMES } from '../dataplane/names.js';
import { DROP_REASONS, Stat, STAT_COUNT } from '../dataplane/shared.js';
import type { WorkerTotals } from './router.js';

export interface Status {
  version: string;
  pid: number;
  /** Seconds since `up`. */
  uptime: number;
  control: string;
  device: string;
  /** iptables flavour that holds the diversion. */
  flavour: string;
  fail: 'open' | 'closed';
  keep: string[];
  /** Whether the program tracks connections (and the kernel puts fragments together). */
  tracking: boolean;
  workers: WorkerStatus[];
  /** By hook, in the packet's order. */
  hooks: Record<string, { packets: number; bytes: number; packetsPerSecond: number }>;
  accepted: number;
  dropped: number;
  changed: number;
  /** Packets that came a second time, after they were routed. */
  crossedAgain: number;
  /** Packets hutter itself sent. */
  answers: number;
  answersFailed: number;
  sendErrors: number;
  /** Lines of LOG and TRACE that found no room in a worker's ring, or in the log's file. */
  logLost: number;
  /** What `conntrack -E` should have shown, had its rings had room. */
  eventsLost: number;
  routeQuestions: number;
  /** Times the kernel lost packets because a socket's memory was full (ENOBUFS). */
  overruns: number;
  /** Dropped by hutter itself, by reason; rules' drops are in `dropped` too. */
  drops: Record<string, number>;
  flows: { count: number; max: number };
  rules: Record<string, number>;
  /** Chains with a decision tree, and larger ones that wait for one, or for one with their newest rules. */
  trees: { grown: number; growing: number };
  /** TUN: hutter's own interfaces. */
  interfaces: InterfaceStatus[];
  /** What the kernel chooses routes by beside the destination: source, tos, mark, transport, hash. */
  routing: string[];
  /** Traffic that hutter doesn't handle, and what becomes of it. */
  unhandled: string[];
}

export interface InterfaceStatus {
  name: string;
  /** Of its other side; '' = the router's own. */
  namespace: string;
  state: 'up' | 'gone';
  /** Packets that hutter took from it, and those that it wrote to it. */
  received: number;
  sent: number;
  /** Lost on the way to hutter, as `queue-length` packets were waiting; and lost behind it, as the other side took none. */
  overflows: number;
  refused: number;
  /** Bits a second on the way out; 0 = no limit, and its bands are idle. */
  rate: number;
  bands: BandStatus[];
}
/** One of the three bands that order what waits for an interface with a rate. */
export interface BandStatus {
  waiting: number;
  sent: number;
  dropped: number;
}

export interface WorkerStatus {
  number: number;
  queue: number;
  state: string;
  restarts: number;
  packets: number;
  batches: number;
  /** Milliseconds from a full batch to the next one, at most, since the worker began. */
  longestBatchMs: number;
  /** In the queue now, waiting. */
  waiting: number;
  /** The kernel dropped them: queue full. */
  queueDropped: number;
  /** The kernel dropped them: they couldn't be handed over. */
  userDropped: number;
}

/** One line of /proc/net/netfilter/nfnetlink_queue. */
export interface QueueLine {
  waiting: number;
  queueDropped: number;
  userDropped: number;
}

/** seq_show() of net/netfilter/nfnetlink_queue.c: number, port id, waiting, mode, range, dropped, user dropped, id, 1. */
export function parseQueues(listing: string): Map<number, QueueLine> {
  const queues = new Map<number, QueueLine>();
  for (const line of listing.split('\n')) {
    const fields = line.trim().split(/\s+/).map(Number);
    if (fields.length < 8) continue;
    queues.set(fields[0]!, { waiting: fields[2]!, queueDropped: fields[5]!, userDropped: fields[6]! });
  }
  return queues;
}

export function readQueues(): Map<number, QueueLine> {
  const file = '/proc/net/netfilter/nfnetlink_queue';
  return parseQueues(existsSync(file) ? readFileSync(file, 'utf8') : '');
}

/** Sums of all workers, by Stat. */
export function sumStats(totals: readonly WorkerTotals[]): Float64Array {
  const sum = new Float64Array(STAT_COUNT);
  for (const { stats } of totals) stats.forEach((value, i) => (sum[i]! += value));
  return sum;
}

/** Packets a second by hook, from two looks a second apart. */
export class RateSampler {
  private readonly timer: NodeJS.Timeout;
  private last: Float64Array;
  private lastTime = performance.now();
  /** By Hook. */
  readonly rates = new Float64Array(HOOK_NAMES.length);

  constructor(private readonly totals: () => readonly WorkerTotals[]) {
    this.last = sumStats(totals());
    this.timer = setInterval(() => this.sample(), 1000);
    this.timer.unref();
  }

  private sample(): void {
    const now = performance.now();
    const sum = sumStats(this.totals());
    const seconds = (now - this.lastTime) / 1000;
    for (let hook: Hook = Hook.PREROUTING; hook < HOOK_NAMES.length; hook++)
      this.rates[hook] = Math.max(0, (sum[Stat.PACKETS + hook]! - this.last[Stat.PACKETS + hook]!) / seconds);
    this.last = sum;
    this.lastTime = now;
  }

  stop(): void {
    clearInterval(this.timer);
  }
}

/** The parts of the status that come from the counters. */
export function statusOfStats(
  totals: readonly WorkerTotals[],
  rates: Float64Array,
  queueBase: number,
  queues: ReadonlyMap<number, QueueLine>,
): Pick<
  Status,
  | 'workers'
  | 'hooks'
  | 'accepted'
  | 'dropped'
  | 'changed'
  | 'crossedAgain'
  | 'answers'
  | 'answersFailed'
  | 'sendErrors'
  | 'logLost'
  | 'routeQuestions'
  | 'overruns'
  | 'drops'
> {
  const sum = sumStats(totals);
  return {
    workers: totals.map(({ number, state, restarts, stats }) => ({
      number,
      queue: queueBase + number,
      state,
      restarts,
      packets: stats[Stat.PACKETS + Hook.PREROUTING]! + stats[Stat.PACKETS + Hook.OUTPUT]!,
      batches: stats[Stat.BATCHES]!,
      longestBatchMs: Math.round(stats[Stat.LONGEST_BATCH]! * 1000) / 1000,
      ...(queues.get(queueBase + number) ?? { waiting: 0, queueDropped: 0, userDropped: 0 }),
    })),
    hooks: Object.fromEntries(
      HOOK_NAMES.map((name, hook) => [
        name,
        {
          packets: sum[Stat.PACKETS + hook]!,
          bytes: sum[Stat.BYTES + hook]!,
          packetsPerSecond: Math.round(rates[hook]!),
        },
      ]),
    ),
    accepted: sum[Stat.ACCEPTED]!,
    dropped: sum[Stat.DROPPED]!,
    changed: sum[Stat.CHANGED]!,
    crossedAgain: sum[Stat.CROSSED_AGAIN]!,
    answers: sum[Stat.ANSWERS]!,
    answersFailed: sum[Stat.ANSWERS_FAILED]!,
    sendErrors: sum[Stat.SEND_ERRORS]!,
    logLost: sum[Stat.LOG_LOST]!,
    routeQuestions: sum[Stat.ROUTE_QUESTIONS]!,
    overruns: sum[Stat.OVERRUNS]!,
    drops: Object.fromEntries(DROP_REASONS.map((reason, i) => [reason, sum[Stat.DROPS + i]!])),
  };
}

/** What hutter leaves to others in this namespace. */
export function unhandled(): string[] {
  const forwarding = readFlag('/proc/sys/net/ipv6/conf/all/forwarding');
  const present = existsSync('/proc/sys/net/ipv6') && !readFlag('/proc/sys/net/ipv6/conf/all/disable_ipv6');
  if (!present) return [];
  return [
    forwarding
      ? 'IPv6: the kernel forwards it under its own ip6tables rules; hutter sees none of it'
      : "IPv6: the router's own traffic is under the kernel's ip6tables rules; nothing is forwarded",
  ];
}
const readFlag = (file: string): boolean => existsSync(file) && readFileSync(file, 'utf8').trim() !== '0';

/** For people. */
export function formatStatus(status: Status): string {
  const { workers, hooks, drops, flows, rules, trees } = status;
  const lines = [
    `hutter ${status.version}, pid ${status.pid}, up ${duration(status.uptime)}, control ${status.control}`,
    ...(status.device === 'tun' ? status.interfaces.map(interfaceLine) : diversionLines(status)),
    `rules      ${Object.entries(rules)
      .map(([table, count]) => `${table} ${count}`)
      .join(', ')}; connections are ${status.tracking ? 'tracked' : 'not tracked: no rule needs them'}`,
    ...(trees.grown + trees.growing === 0
      ? []
      : [`trees      ${trees.grown} chains have one, ${trees.growing} wait for one`]),
    `flows      ${flows.count} of at most ${flows.max}`,
    '',
    table(
      ['hook', 'packets/s', 'packets', 'bytes'],
      Object.entries(hooks).map(([name, hook]) => [name, hook.packetsPerSecond, hook.packets, hook.bytes]),
    ),
    '',
    table(
      ['worker', 'queue', 'state', 'restarts', 'packets', 'waiting', 'full', 'lost'],
      workers.map((w) => [w.number, w.queue, w.state, w.restarts, w.packets, w.waiting, w.queueDropped, w.userDropped]),
    ),
    '',
    `accepted ${status.accepted}, of these changed ${status.changed}; dropped ${status.dropped}; ` +
      `answered ${status.answers}`,
  ];
  const own = Object.entries(drops).filter(([, count]) => count > 0);
  if (own.length > 0) lines.push(`dropped by hutter itself: ${own.map(([name, n]) => `${name} ${n}`).join(', ')}`);
  const troubles = [
    [status.overruns, 'overruns of the queue socket'],
    [status.sendErrors, 'verdicts the kernel refused'],
    [status.answersFailed, 'answers that could not be sent'],
    [status.logLost, 'LOG lines lost'],
    [status.eventsLost, 'connection events lost'],
  ] as const;
  for (const [count, text] of troubles) if (count > 0) lines.push(`${count} ${text}`);
  for (const text of status.unhandled) lines.push(`not handled  ${text}`);
  return lines.join('\n') + '\n';
}

function diversionLines(status: Status): string[] {
  return [
    `device     ${status.device}, diverted by iptables ${status.flavour}` +
      (status.keep.length > 0 ? `, not diverted: ${status.keep.join(', ')}` : ''),
    ...(status.routing.length === 0 ? [] : [`routing    chosen by ${status.routing.join(', ')}, too`]),
    ...(status.crossedAgain === 0 ? [] : [`crossings  ${status.crossedAgain} packets came a second time`]),
    status.fail === 'open'
      ? 'fail       open: when a queue is full or hutter is gone, packets pass UNFILTERED and UNTRANSLATED'
      : 'fail       closed: when a queue is full or hutter is gone, packets are dropped',
  ];
}

function interfaceLine(status: InterfaceStatus): string {
  const { name, namespace, state, received, sent, overflows, refused, rate, bands } = status;
  const where = namespace === '' ? 'here' : `in ${namespace}`;
  const counts = bands.map(({ waiting, sent, dropped }) => `${waiting} waiting, ${sent} sent, ${dropped} dropped`);
  const egress = rate === 0 ? 'no rate, so its bands are idle' : `${rate} bit/s; bands: ${counts.join('; ')}`;
  const lost = [
    ...(overflows === 0 ? [] : [`${overflows} lost before it, its queue was full`]),
    ...(refused === 0 ? [] : [`${refused} refused by the other side`]),
  ];
  const traffic = [`received ${received}`, `sent ${sent}`, ...lost].join(', ');
  return `tun        ${name} ${where}, ${state}; ${state === 'gone' ? '' : `${traffic}; `}${egress}`;
}

function duration(seconds: number): string {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** First column left, numbers right. */
function table(head: readonly string[], rows: readonly (string | number)[][]): string {
  const cells = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i]!.length)));
  return cells
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
