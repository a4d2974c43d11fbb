/**
 * What network tests are written with: the article's network around a router run by either engine, captures, and the
 * conditions to wait for. Needs root, network namespaces and /dev/net/tun, and fails (never skips) without them.
 *
 *     orlock ----- inside [ router ] outside ----- knock
 *     192.168.73.4   .1             128.61.70.47   128.61.70.200 (and other addresses of the outside world)
 */
import { accessSync, constants } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Test } from 'tap';
import { type Host, startHost } from '../../src/control/lab/hosts.js';
import { type Namespace, Network, closeAllOnSignals, sweep, until } from '../../src/control/lab/netns.js';
import { ENGINES, Engine, type EngineName, type HutterOptions } from './engine.js';
import { type Ip, decodeFrame } from './frame.js';

export { until };

const PREFIX = 'hutter-test';

export const ORLOCK = '192.168.73.4';
export const KNOCK = '128.61.70.200';
export const ROUTER_INSIDE = '192.168.73.1';
export const ROUTER_OUTSIDE = '128.61.70.47';

export interface TopologyOptions {
  inside?: { dev: string; router: string; host: string };
  outside?: { dev: string; router: string; host: string; more?: string[] };
  mtu?: { inside?: number; outside?: number };
  /** Whether devices may leave checksums and segmentation to the receiver, as they do by default. */
  offload?: boolean;
  /** Of the router, set before the engine starts; with TUN those that hutter has a setting for. */
  sysctl?: Record<string, number>;
  /** Routes of the router beside those to its links. */
  routes?: { to: string; via?: string; type?: 'blackhole' | 'unreachable' | 'prohibit' }[];
  /** hutter on TUN: bits a second that leave for knock. */
  rate?: number;
  /** hutter on TUN: CPUs that take over what is written to the hosts. */
  cpus?: string;
  /** Whether hutter on TUN has sockets of its own (default), or answers as a router without any. */
  local?: boolean;
  /** Names that the router's processes know, to addresses. */
  hosts?: Record<string, string>;
  up?: HutterOptions;
}

export interface Topology {
  network: Network;
  /** The router's rules. */
  fw: Engine;
  orlock: Host;
  /** Programs on the router itself. */
  router: Host;
  knock: Host;
}

let checked = false;

/** Throws, saying what is missing, where network tests cannot run. */
export function requireNetwork(): void {
  if (checked) return;
  if (process.getuid?.() !== 0) throw new Error('network tests need root: run them by sudo or in a privileged machine');
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch {
    throw new Error('network tests need /dev/net/tun: load the tun module');
  }
  closeAllOnSignals();
  sweep();
  checked = true;
}

/** An empty network that goes when the test ends. */
export function network(t: Test): Network {
  requireNetwork();
  const net = new Network(PREFIX);
  t.teardown(() => net.close());
  return net;
}

/** Builds the article's network around a router run by `engine`; it goes when the test ends. */
export async function topology(t: Test, engine: EngineName, options: TopologyOptions = {}): Promise<Topology> {
  const net = network(t);
  const inside = options.inside ?? { dev: 'if0', router: `${ROUTER_INSIDE}/24`, host: `${ORLOCK}/24` };
  const outside = options.outside ?? { dev: 'if1', router: `${ROUTER_OUTSIDE}/24`, host: `${KNOCK}/24` };
  const at = { orlock: net.namespace('orlock'), router: net.namespace('router'), knock: net.namespace('knock') };
  if (options.hosts) at.router.hosts(options.hosts);
  const tun = engine === 'hutter-tun';
  const up = tun ? await tunOptions(net, at, options, inside, outside) : options.up;
  if (!tun) {
    joinByLinks(net, at, options, inside, outside);
    for (const { to, via, type = '' } of options.routes ?? [])
      at.router.ip(`route add ${type} ${to} ${via === undefined ? '' : `via ${via}`}`);
  }
  if (options.sysctl && !tun) at.router.sysctl(options.sysctl);
  if (options.offload === false && !tun) await withoutOffload(at, inside.dev, outside.dev);
  const [orlock, router, knock, fw] = await Promise.all([
    startHost(at.orlock),
    startHost(at.router),
    startHost(at.knock),
    Engine.start(engine, net, at.router, up),
  ]);
  if (options.offload === false && tun) {
    for (const ns of [at.orlock, at.knock]) await mustRun(ns, 'ethtool', ['-K', 'eth0', 'tx', 'off', 'tso', 'off']);
  }
  return { network: net, fw, orlock, router, knock };
}

type Side = NonNullable<TopologyOptions['outside']>;
type Places = Record<'orlock' | 'router' | 'knock', Namespace>;

function joinByLinks(net: Network, at: Places, options: TopologyOptions, inside: Side, outside: Side): void {
  net.link(
    { at: at.router, dev: inside.dev, addresses: [inside.router] },
    { at: at.orlock, dev: 'eth0', addresses: [inside.host] },
    options.mtu?.inside,
  );
  net.link(
    { at: at.router, dev: outside.dev, addresses: [outside.router] },
    { at: at.knock, dev: 'eth0', addresses: [outside.host, ...(outside.more ?? [])] },
    options.mtu?.outside,
  );
  at.orlock.ip(`route add default via ${inside.router.split('/')[0]}`);
  at.knock.ip(`route add default via ${outside.router.split('/')[0]}`);
}

async function withoutOffload(at: Places, inside: string, outside: string): Promise<void> {
  for (const [ns, dev] of [
    [at.router, inside],
    [at.router, outside],
    [at.orlock, 'eth0'],
    [at.knock, 'eth0'],
  ] as const)
    await mustRun(ns, 'ethtool', ['-K', dev, 'tx', 'off', 'tso', 'off', 'gso', 'off', 'gro', 'off']);
}

async function mustRun(ns: Namespace, command: string, args: string[]): Promise<void> {
  const result = await ns.run(command, args);
  if (result.code !== 0) throw new Error(`${command}: ${result.stderr}`);
}

/** Those that hutter has a setting for, beside interfaces'. */
const OWN_SETTING = /^net\.ipv4\.(icmp_msgs_\w+|ipfrag_max_dist)$/;
/** net.ipv4.conf.IF.rp_filter */
const REVERSE_PATHS = ['off', 'strict', 'loose'];

/** The same network with TUN interfaces instead of links: hutter makes them, in the hosts' namespaces. */
async function tunOptions(
  net: Network,
  at: Places,
  options: TopologyOptions,
  inside: Side,
  outside: Side,
): Promise<HutterOptions> {
  const side = ({ dev, router, host, more = [] }: Side, ns: Namespace, mtu = 1500, rate = 0): [string, unknown] => [
    dev,
    {
      addresses: [router],
      mtu,
      rate,
      'rp-filter': REVERSE_PATHS[options.sysctl?.[`net.ipv4.conf.${dev}.rp_filter`] ?? 0],
      namespace: ns.name,
      peer: {
        name: 'eth0',
        addresses: [host, ...more],
        routes: [{ to: 'default', via: router.split('/')[0] }],
        cpus: options.cpus,
      },
    },
  ];
  const config = {
    device: 'tun',
    local: options.local ?? true,
    'icmp-ratelimit': options.sysctl?.['net.ipv4.icmp_ratelimit'] ?? 1000,
    sysctl: Object.fromEntries(
      Object.entries(options.sysctl ?? {})
        .filter(([name]) => OWN_SETTING.test(name))
        .map(([name, value]) => [name.replace('net.ipv4.', ''), value]),
    ),
    routes: options.routes ?? [],
    interfaces: Object.fromEntries([
      side(inside, at.orlock, options.mtu?.inside),
      side(outside, at.knock, options.mtu?.outside, options.rate),
    ]),
  };
  const file = path.join(net.dir, 'router.yaml');
  await writeFile(file, JSON.stringify(config));
  return { ...options.up, args: ['--config', file, ...(options.up?.args ?? [])] };
}

/** The engines whose router has the kernel's own interfaces. */
export const ON_LINKS: readonly EngineName[] = ['kernel', 'hutter'];

/** Runs `body` once for each engine of this run as a subtest of its own, the kernel first. */
export function onEachEngine(
  t: Test,
  body: (t: Test, engine: EngineName) => Promise<void>,
  among: readonly EngineName[] = ENGINES,
): void {
  for (const engine of ENGINES.filter((name) => among.includes(name))) void t.test(engine, (t) => body(t, engine));
}

/**
 * Runs `body` on each engine and demands that what it returns (addresses, codes, bytes, counters: whatever was seen)
 * is the same on hutter as on the kernel.
 */
export function agree(
  t: Test,
  title: string,
  body: (t: Test, engine: EngineName) => Promise<unknown>,
  among: readonly EngineName[] = ENGINES,
): void {
  void t.test(title, async (t) => {
    const seen = new Map<EngineName, unknown>();
    const engines = ENGINES.filter((name) => among.includes(name));
    for (const engine of engines) {
      await t.test(engine, async (t) => {
        seen.set(engine, await body(t, engine));
      });
    }
    if (engines.length < 2) return;
    for (const engine of engines.slice(1)) {
      if (!seen.has(engine) || !seen.has('kernel')) t.fail('one engine ended early');
      else t.same(seen.get(engine), seen.get('kernel'), `${engine} did as the kernel does`);
    }
  });
}

/** Forgets all rules and closes all programs' sockets: a clean table for the next case. */
export async function clear({ fw, orlock, router, knock }: Topology): Promise<void> {
  await Promise.all([fw.load(''), orlock.reset(), router.reset(), knock.reset()]);
}

/** A capture on a device of a host. */
export class Capture {
  private readonly seen: Ip[] = [];

  private constructor(
    private readonly host: Host,
    private readonly id: number,
  ) {}

  /** Starts capturing IPv4 by a pcap filter; packets from the moment it resolves are seen. */
  static async start(host: Host, device = 'eth0', filter = 'ip'): Promise<Capture> {
    return new Capture(host, await host.capture({ device, filter }));
  }

  /** All packets seen so far. */
  async packets(): Promise<Ip[]> {
    for (const frame of await this.host.captured({ id: this.id, from: this.seen.length })) {
      const ip = decodeFrame(frame);
      if (ip) this.seen.push(ip);
    }
    return this.seen;
  }

  /** The place of a packet among those seen, from 0; -1 if it is another capture's. */
  indexOf(ip: Ip): number {
    return this.seen.indexOf(ip);
  }

  /** Waits for a packet that `wanted` accepts; `what` names it in the error. */
  async until(what: string, wanted: (ip: Ip) => boolean): Promise<Ip> {
    try {
      return await until(what, async () => (await this.packets()).find(wanted));
    } catch (error) {
      const seen = this.seen.map((ip) => `  ${describe(ip)}`).join('\n');
      throw new Error(`${(error as Error).message}; seen:\n${seen}`, { cause: error });
    }
  }
}

/** One line about a packet. */
export function describe(ip: Ip): string {
  const port = (value: number | undefined): string => (value === undefined ? '' : `:${value}`);
  const detail = ip.tcp
    ? `tcp ${ip.tcp.flags}`
    : ip.icmp
      ? `icmp ${ip.icmp.type}/${ip.icmp.code}`
      : `proto ${ip.proto}`;
  return `${ip.src}${port(ip.sport)} > ${ip.dst}${port(ip.dport)} ${detail} ttl ${ip.ttl} tos ${ip.tos} len ${ip.length}`;
}
