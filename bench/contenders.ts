/**
 * Who takes part in the network benches: the kernel with rules of its own, the C loops on the queue, npm `nfqueue`, and
 * hutter. Each prepares the router's namespace and says which process routes, if it is not the kernel alone.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Network, type Program, ROUTER_CORE, ROUTER_OUT, SENDER, sleep, until } from './net.js';
import { peer } from './peers.js';

const ROOT = path.resolve(import.meta.dirname, '../..');
export const HUTTER = path.join(ROOT, 'dist/bin/hutter.mjs');
/** The article's firewall: filter, SNAT, a port forward, TOS. */
const ARTICLE = path.join(ROOT, 'examples/simple-firewall.rules');
const QUEUE = 10;
/** Packets a queue holds: hutter's own default, so that the C loops lose as much or as little for want of room. */
const QUEUE_LENGTH = 4096;

export interface Contender {
  readonly name: string;
  /** Source address that the sink must see. */
  readonly source: string;
  /** Prepares the router's namespace; returns the process that routes, if it is not the kernel alone. */
  start(net: Network): Promise<Program | undefined>;
  /** Why it can't take part, undefined if it can. */
  missing?(): string | undefined;
}

/** The tables of the article's firewall, all or the filter table alone. */
export function articleRules(tables: 'all' | 'filter'): string {
  const text = readFileSync(ARTICLE, 'utf8');
  return tables === 'all'
    ? text
    : text.slice(text.indexOf('*filter'), text.indexOf('COMMIT', text.indexOf('*filter')) + 7);
}

/** The kernel with `rules`, by the given flavour of iptables. */
export const kernel = (name: string, rules = '', source = SENDER, flavour: 'legacy' | 'nft' = 'legacy'): Contender => ({
  name,
  source,
  start(net) {
    if (rules !== '') net.exec('router', `iptables-${flavour}-restore`, [], rules);
    return Promise.resolve(undefined);
  },
});

/** `hutter up` with `rules` and one worker, when its trees have grown: its processor time stands still. */
export const hutter = (name: string, rules: string, source = SENDER, args: readonly string[] = []): Contender => ({
  name,
  source,
  async start(net) {
    const folder = mkdtempSync(path.join(tmpdir(), 'hutter-bench-'));
    const file = path.join(folder, 'rules');
    writeFileSync(file, rules);
    const control = path.join(folder, 'control');
    const up = ['up', '--rules', file, '--control', control, '--workers', '1'];
    const all = [HUTTER, ...up, '--queue-base', `${QUEUE}`, '--queue-length', `${QUEUE_LENGTH}`, ...args];
    const program = net.start('router', process.execPath, all, ROUTER_CORE);
    program.control = control;
    program.child.on('close', () => rmSync(folder, { recursive: true, force: true }));
    // Its greeting comes when it diverts and answers.
    await until('hutter to be up', () => program.stdout.includes('\n') || !program.running, 60_000);
    if (!program.running) throw new Error(`hutter up ended: ${program.lastWords}`);
    for (let last = -1, quiet = 0; quiet < 3 && program.running;) {
      const { user, system } = program.cpu();
      quiet = user + system - last <= 10_000 ? quiet + 1 : 0;
      last = user + system;
      await sleep(200);
    }
    return program;
  },
  missing: () => (existsSync(HUTTER) ? undefined : 'not built: npm run build'),
});

/** The diversion that hutter makes, by the same tool, for the loops that have none of their own: what comes in by `devices`. */
function divert(net: Network, devices: readonly string[]): void {
  const queue = devices.map((device) => `-A PREROUTING -i ${device} -j NFQUEUE --queue-num ${QUEUE}`);
  const rules = [
    '*raw',
    ':PREROUTING ACCEPT',
    ':OUTPUT ACCEPT',
    '-A PREROUTING -j CT --notrack',
    ...queue,
    'COMMIT',
    '',
  ];
  net.exec('router', 'iptables-restore', [], rules.join('\n'));
}

/** `both`: the loop meets the way back, too, as hutter does. */
export const acceptLoop = (both = false): Contender => ({
  name: 'C accept',
  source: SENDER,
  start(net) {
    divert(net, both ? ['if0', 'if1'] : ['if0']);
    return net.start('router', peer('nfq-accept'), [`${QUEUE}`, `${QUEUE_LENGTH}`], ROUTER_CORE).ready();
  },
});

export const rewriteLoop = (both = false): Contender => ({
  name: 'C rewrite',
  source: ROUTER_OUT,
  start(net) {
    // A translator's packet comes from one of the router's own addresses: the kernel must be told to let it.
    net.sysctl('router', 'net.ipv4.conf.if0.accept_local', '1');
    net.sysctl('router', 'net.ipv4.conf.if0.rp_filter', '2');
    divert(net, both ? ['if0', 'if1'] : ['if0']);
    const args = [`${QUEUE}`, ROUTER_OUT, `${QUEUE_LENGTH}`, ...(both ? [SENDER] : [])];
    return net.start('router', peer('nfq-rewrite'), args, ROUTER_CORE).ready();
  },
});

export const npmNfqueue: Contender = {
  name: 'npm nfqueue, accept',
  source: SENDER,
  start(net) {
    divert(net, ['if0']);
    const script = path.join(import.meta.dirname, 'npm-nfqueue.js');
    return net.start('router', process.execPath, [script, `${QUEUE}`], ROUTER_CORE).ready();
  },
  missing: () =>
    existsSync(path.join(ROOT, 'node_modules/nfqueue/build/Release/nfqueue.node'))
      ? undefined
      : 'not built here: it needs libnetfilter-queue-dev and `npm rebuild nfqueue`',
};
