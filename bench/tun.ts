/**
 * hutter on TUN interfaces beside a C loop that copies packets between two of them, with the same offloads: packets a
 * second of small datagrams, and bulk TCP. The loop routes, checks and decides nothing, so it is what the interfaces cost.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { measureBulk } from './bulk.js';
import { articleRules, type Contender, HUTTER } from './contenders.js';
import { fixed, hold, type Result, thousands } from './contest.js';
import type { Options } from './main.js';
import { machineBusy, type Network, type Program, ROUTER_CORE, ROUTER_OUT, SENDER, sleep } from './net.js';
import { peer } from './peers.js';
import { blast, check } from './stream.js';

const WARM_UP_MS = 1000;
const QUEUE_LENGTH = 1000;

/** The links of `Network` go; what the contender makes in their places gets their names. */
function takeLinksAway(net: Network): void {
  net.ip('sender', 'link del if0');
  net.ip('sink', 'link del if1');
}

/** Addresses and routes of both ends, as `Network.open` gave them to the links. */
function addressEnds(net: Network): void {
  net.ip('sender', `addr add ${SENDER}/24 dev if0`);
  net.ip('sink', 'addr add 128.61.70.200/24 dev if1');
  // As many packets as the check sends may wait: on a busy machine nobody reads for a while.
  net.ip('sender', `link set if0 up txqueuelen ${QUEUE_LENGTH}`);
  net.ip('sink', `link set if1 up txqueuelen ${QUEUE_LENGTH}`);
  net.ip('sender', 'route add default dev if0');
  net.ip('sink', 'route add 192.168.73.0/24 dev if1');
}

const tunLoop: Contender = {
  name: 'C loop',
  source: SENDER,
  async start(net) {
    takeLinksAway(net);
    const ends = [net.namespace('sender'), 'if0', net.namespace('sink'), 'if1'];
    const program = await net.start('router', peer('tun-loop'), ends, ROUTER_CORE).ready();
    addressEnds(net);
    return program;
  },
};

const hutterOnTun = (name: string, rules: string, source = SENDER): Contender => ({
  name,
  source,
  async start(net) {
    takeLinksAway(net);
    const folder = mkdtempSync(path.join(tmpdir(), 'hutter-bench-'));
    const config = {
      device: 'tun',
      workers: 1,
      control: path.join(folder, 'control'),
      rules: path.join(folder, 'rules'),
      interfaces: {
        if0: { addresses: ['192.168.73.1/24'], namespace: net.namespace('sender') },
        if1: { addresses: [`${ROUTER_OUT}/24`], namespace: net.namespace('sink') },
      },
      routes: [{ to: '128.61.71.0/24', via: '128.61.70.200' }],
    };
    writeFileSync(config.rules, rules);
    writeFileSync(path.join(folder, 'config'), JSON.stringify(config));
    const program = net.start(
      'router',
      process.execPath,
      [HUTTER, 'up', '--config', path.join(folder, 'config')],
      ROUTER_CORE,
    );
    program.child.on('close', () => rmSync(folder, { recursive: true, force: true }));
    await program.ready('is up');
    addressEnds(net);
    return program;
  },
});

const CONTENDERS = [
  tunLoop,
  hutterOnTun('hutter, no rules', '*filter\nCOMMIT\n'),
  hutterOnTun('hutter, filter', articleRules('filter')),
  hutterOnTun('hutter, article + SNAT', articleRules('all'), ROUTER_OUT),
];
const bars = (figure: string) => [
  { left: 'hutter, no rules', right: 'C loop', figure, atLeast: 0.9 },
  { left: 'hutter, article + SNAT', right: 'C loop', figure, atLeast: 0.9 },
];

export async function run(options: Options): Promise<Record<string, Result>> {
  const stream = await hold(
    {
      title: 'small datagrams between two TUN interfaces',
      contenders: CONTENDERS,
      columns: [
        { title: 'packets/s', figure: 'pps', show: thousands },
        { title: 'offered', figure: 'offeredPps', show: thousands },
        { title: 'user µs', figure: 'userUs', show: fixed(2) },
        { title: 'system µs', figure: 'systemUs', show: fixed(2) },
        { title: 'machine µs', figure: 'machineUs', show: fixed(2) },
      ],
      ratios: bars('pps'),
      async measure(net, contender, router) {
        await check(net, contender);
        return rate(net, router, options.seconds);
      },
    },
    options,
  );
  const bulk = await hold(
    {
      title: 'bulk TCP between two TUN interfaces, one connection, segmentation offload on',
      contenders: CONTENDERS,
      columns: [
        { title: 'Gbit/s', figure: 'gbits', show: fixed(2) },
        { title: 'user µs/MB', figure: 'userUs', show: fixed(1) },
        { title: 'system µs/MB', figure: 'systemUs', show: fixed(1) },
        { title: 'machine µs/MB', figure: 'machineUs', show: fixed(1) },
      ],
      ratios: bars('gbits'),
      measure: (net, contender, router) => measureBulk(net, contender, router, options),
    },
    options,
  );
  return { stream, bulk };
}

/** Datagrams as fast as the sender can; what a full TUN queue drops is the sender's kernel's. */
async function rate(net: Network, router: Program | undefined, seconds: number): Promise<Record<string, number>> {
  const sender = blast(net, { hosts: 1, ports: 1 });
  const look = () => ({
    at: performance.now(),
    offered: net.counters('sender', 'if0').sent,
    arrived: net.counters('sink', 'if1').received,
    cpu: router?.cpu() ?? { user: 0, system: 0 },
    busy: machineBusy(),
  });
  await sleep(WARM_UP_MS);
  const a = look();
  await sleep(seconds * 1000);
  const b = look();
  await sender.stop();
  const delivered = Math.max(1, b.arrived - a.arrived);
  const elapsed = (b.at - a.at) / 1000;
  return {
    pps: delivered / elapsed,
    offeredPps: (b.offered - a.offered) / elapsed,
    userUs: (b.cpu.user - a.cpu.user) / delivered,
    systemUs: (b.cpu.system - a.cpu.system) / delivered,
    machineUs: (b.busy - a.busy) / delivered,
  };
}
