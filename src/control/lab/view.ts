/**
 * The lab's live view: once a second what the router does, asked over its control socket. On a terminal it redraws the
 * screen with plain ANSI; in a pipe or on a dumb terminal it prints a line. Draws only; the traffic is `keepBusy`'s.
 */
import type { Status } from '../status.js';
import { type Lab, KNOCK, ORLOCK, ROUTER_OUTSIDE, type RuleCount, SHARE_PORT } from './lab.js';

const REDRAW_MS = 1000;
const BUSIEST = 8;
const PASSING = /-P \S+ ACCEPT$/;
const CLEAR = '\x1b[H\x1b[J';
const HIDE_CURSOR = '\x1b[?25l';
const SHOW_CURSOR = '\x1b[?25h';
const BOLD = '\x1b[1m';
const PLAIN = '\x1b[0m';
const FALLBACK_COLUMNS = 100;
const PAUSE_MS = 40;

/** Redraws until `stop` is aborted or the router ends; resolves then. Throws what the router said if it ended. */
export async function watch(lab: Lab, stop: AbortSignal, out: NodeJS.WriteStream = process.stdout): Promise<void> {
  const screen = out.isTTY && process.env['TERM'] !== 'dumb';
  if (screen) out.write(HIDE_CURSOR);
  try {
    let before = await lab.router.ruleCounts();
    let time = performance.now();
    while (await pause(REDRAW_MS, stop)) {
      const [status, counts] = await Promise.all([lab.router.status(), lab.router.ruleCounts()]);
      const now = performance.now();
      const busiest = busiestRules(before, counts, (now - time) / 1000);
      before = counts;
      time = now;
      const columns = out.columns ?? FALLBACK_COLUMNS;
      out.write(screen ? CLEAR + draw(status, busiest, columns) : `${line(status, busiest)}\n`);
    }
  } catch (error) {
    throw await lab.router.cause(error);
  } finally {
    if (screen) out.write(SHOW_CURSOR);
  }
}

interface Rate {
  rule: string;
  packets: number;
  perSecond: number;
}

/** The rules that counted most between two looks; those that never counted are left out, as are policies that let pass. */
function busiestRules(before: readonly RuleCount[], after: readonly RuleCount[], seconds: number): Rate[] {
  const old = new Map(before.map(({ rule, packets }) => [rule, packets]));
  return after
    .map(({ rule, packets }) => ({ rule, packets, perSecond: (packets - (old.get(rule) ?? 0)) / seconds }))
    .filter(({ rule, packets }) => packets > 0 && !PASSING.test(rule))
    .sort((a, b) => b.perSecond - a.perSecond || b.packets - a.packets)
    .slice(0, BUSIEST);
}

/** The whole screen. */
export function draw(status: Status, busiest: readonly Rate[], columns: number): string {
  const lines: string[] = [];
  const title = (text: string): number => lines.push('', `${BOLD}${text}${PLAIN}`);
  lines.push(
    `${BOLD}hutter${PLAIN} ${status.version}   up ${Math.floor(status.uptime)} s   workers ${status.workers.length}   Ctrl-C ends`,
  );
  lines.push(`orlock ${ORLOCK} --- if0 hutter if1 ${ROUTER_OUTSIDE} --- knock ${KNOCK}`);
  title('packets by hook            /s        total          bytes');
  for (const [hook, { packetsPerSecond, packets, bytes }] of Object.entries(status.hooks)) {
    lines.push(`  ${hook.padEnd(16)}${pad(packetsPerSecond, 10)}${pad(packets, 13)}${pad(bytes, 15)}`);
  }
  title('flows and fates');
  lines.push(`  flows ${status.flows.count} of ${status.flows.max}`);
  lines.push(`  accepted ${status.accepted}   dropped ${status.dropped}   answered by the router ${status.answers}`);
  lines.push(`  ${drops(status) || 'no packet was lost'}`);
  title('busiest rules               /s     packets');
  for (const { rule, packets, perSecond } of busiest) {
    lines.push(`  ${pad(Math.round(perSecond), 28)}${pad(packets, 12)}  ${rule}`);
  }
  return lines.map((text) => clip(text, columns)).join('\n') + '\n';
}

/** The same in one line. */
export function line(status: Status, busiest: readonly Rate[]): string {
  const hooks = Object.entries(status.hooks).map(([hook, { packetsPerSecond }]) => `${hook} ${packetsPerSecond}/s`);
  const top = busiest[0];
  return [
    hooks.join(' '),
    `flows ${status.flows.count}`,
    `dropped ${status.dropped}`,
    drops(status),
    top ? `busiest ${top.rule} ${Math.round(top.perSecond)}/s` : '',
  ]
    .filter(Boolean)
    .join('  ');
}

/** What was dropped for a reason other than a rule. */
function drops(status: Status): string {
  const reasons = Object.entries(status.drops).filter(([, count]) => count > 0);
  const queue = status.workers.reduce((sum, { queueDropped, userDropped }) => sum + queueDropped + userDropped, 0);
  if (queue > 0) reasons.push(['queue full', queue]);
  return reasons.map(([reason, count]) => `${reason} ${count}`).join('   ');
}

const pad = (value: number, width: number): string => String(value).padStart(width);

/** Cuts to the terminal's width, not counting escape sequences (they stand in short lines only). */
function clip(text: string, columns: number): string {
  return text.length <= columns || text.includes('\x1b') ? text : text.slice(0, columns);
}

/** A little of everything, so that there is something to see: pages, mail, pings, and what the firewall refuses. */
export async function keepBusy(lab: Lab, stop: AbortSignal): Promise<void> {
  const { orlock, knock } = lab;
  const ways: [number, () => Promise<unknown>][] = [
    [PAUSE_MS, () => orlock.fetch({ url: `http://${KNOCK}/` })],
    [PAUSE_MS * 5, () => knock.connect({ host: ROUTER_OUTSIDE, port: SHARE_PORT, read: true })],
    [PAUSE_MS * 10, () => orlock.connect({ host: KNOCK, port: 25, read: true })],
    [PAUSE_MS * 10, () => knock.connect({ host: ROUTER_OUTSIDE, port: 113 })],
    [PAUSE_MS * 20, () => knock.udpProbe({ host: ROUTER_OUTSIDE, port: 7000 })],
    [PAUSE_MS * 20, () => knock.connect({ host: ORLOCK, port: 80 })],
  ];
  await Promise.all(
    ways.map(async ([everyMs, act]) => {
      // A failure is something to see in the view, not an end of it.
      while (await pause(everyMs, stop)) await act().catch(() => undefined);
    }),
  );
}

/** Waits; false, at once, when `stop` is aborted. */
function pause(ms: number, stop: AbortSignal): Promise<boolean> {
  if (stop.aborted) return Promise.resolve(false);
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      resolve(false);
    };
    const timer = setTimeout(() => {
      stop.removeEventListener('abort', end);
      resolve(true);
    }, ms);
    stop.addEventListener('abort', end, { once: true });
  });
}
