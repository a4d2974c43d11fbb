/**
 * The article's network, built of namespaces, with a real `hutter up` in the middle:
 *
 *     orlock ---------------- if0 [ hutter ] if1 ---------------- knock
 *     192.168.73.4   192.168.73.1        128.61.70.47   128.61.70.200, a web server
 *
 * `openLab` builds it, `close` of its network takes it away. The router is driven through its control socket only.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Request, ask } from '../cli/client.js';
import type { Status } from '../status.js';
import { type Host, startHost } from './hosts.js';
import { type Namespace, Network, PREFIX_LAB, until } from './netns.js';

export const ORLOCK = '192.168.73.4';
export const KNOCK = '128.61.70.200';
export const ROUTER_INSIDE = '192.168.73.1';
export const ROUTER_OUTSIDE = '128.61.70.47';
/** What knock's web server says. */
export const PAGE = 'Who is there? Knock.\n';
/** What answers at orlock's port 6346. */
export const SHARE = 'orlock shares\n';
export const SHARE_PORT = 6346;
/** What knock's mail server says. */
export const MAIL = '220 knock\r\n';
/** A UDP port of knock that answers with what it hears. */
export const ECHO_PORT = 7007;

const RULES = 'examples/simple-firewall.rules';
const START_TIMEOUT_MS = 20_000;

export interface LabOptions {
  /** Ends after the checks. */
  once?: boolean;
  /** `tun`: hutter has interfaces of its own in the hosts' namespaces; else they are joined to it by links. */
  device?: string;
  /** Passed on to `hutter up`. */
  workers?: number;
}

/** A rule or policy and how often it was met. */
export interface RuleCount {
  /** `-t nat -A POSTROUTING …`; `-t filter -P FORWARD DROP` for a policy. */
  rule: string;
  packets: number;
}

export interface Lab {
  network: Network;
  orlock: Host;
  knock: Host;
  router: Router;
  /** The rules file loaded. */
  rules: string;
}

/** How long a router that no longer answers may take to be seen as ended: its socket closes before its parent hears. */
const END_TIMEOUT_MS = 2000;

/** The `hutter up` of the lab. */
export class Router {
  private words = '';
  private readonly end: Promise<void>;

  constructor(
    private readonly child: ChildProcess,
    readonly control: string,
  ) {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => (this.words = (this.words + chunk.toString()).slice(-65_536)));
    }
    this.end = new Promise((resolve) => child.once('close', () => resolve()));
  }

  /** What it has printed, the last 64 KiB. */
  get said(): string {
    return this.words.trim();
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Why `error` came: that the router ended, with what it said, if it has; else the error itself. */
  async cause(error: unknown): Promise<unknown> {
    const timeout = new AbortController();
    const waited = setTimeout(END_TIMEOUT_MS, undefined, { signal: timeout.signal }).catch(() => undefined);
    await Promise.race([this.end, waited]);
    timeout.abort();
    return this.running ? error : new Error(`hutter up ended:\n${this.said}`, { cause: error });
  }

  /** One command over the control socket; its standard output. Throws with its words if it fails. */
  command(program: string, ...argv: string[]): Promise<string> {
    const request: Request = { program, argv };
    let out = '';
    let err = '';
    return new Promise((resolve, reject) => {
      ask(
        this.control,
        request,
        ({ stdout, stderr }) => {
          out += stdout ?? '';
          err += stderr ?? '';
        },
        (code) => (code === 0 ? resolve(out) : reject(new Error(err.trim() || `${program} ended with ${code}`))),
      );
    });
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.command('status', '--json')) as Status;
  }

  /** Every rule and policy with its packets, from iptables-save -c. */
  async ruleCounts(): Promise<RuleCount[]> {
    const counts: RuleCount[] = [];
    let table = '';
    for (const line of (await this.command('iptables-save', '-c')).split('\n')) {
      const policy = /^:(\S+) (ACCEPT|DROP) \[(\d+):\d+\]/.exec(line);
      const rule = /^\[(\d+):\d+\] (.*)$/.exec(line);
      if (line.startsWith('*')) table = line.slice(1);
      else if (policy) counts.push({ rule: `-t ${table} -P ${policy[1]} ${policy[2]}`, packets: Number(policy[3]) });
      else if (rule) counts.push({ rule: `-t ${table} ${rule[2]}`, packets: Number(rule[1]) });
    }
    return counts;
  }

  /** Packets that met the only rule containing all of `words`. */
  async packets(...words: string[]): Promise<number> {
    const found = (await this.ruleCounts()).filter(({ rule }) => words.every((word) => rule.includes(word)));
    if (found.length !== 1) throw new Error(`${found.length} rules contain ${words.join(' and ')}`);
    return found[0]!.packets;
  }
}

/** Builds the network, starts the programs on its hosts and the router; on failure nothing is left. */
export async function openLab(options: LabOptions): Promise<Lab> {
  const network = new Network(PREFIX_LAB);
  try {
    return await build(network, options);
  } catch (error) {
    await network.close();
    throw error;
  }
}

async function build(network: Network, options: LabOptions): Promise<Lab> {
  const inside = network.namespace('orlock');
  const middle = network.namespace('hutter');
  const outside = network.namespace('knock');
  const sides: [Namespace, string, string, string][] = [
    [inside, 'if0', ROUTER_INSIDE, ORLOCK],
    [outside, 'if1', ROUTER_OUTSIDE, KNOCK],
  ];
  const rules = path.join(packageRoot(), RULES);
  const control = path.join(network.dir, 'control.sock');
  const args = ['up', '--rules', rules, '--control', control];
  if (options.device === 'tun') {
    // hutter makes the interfaces itself, in the hosts' namespaces.
    const interfaces = sides.map(([host, dev, own, address]) => [
      dev,
      {
        addresses: [`${own}/24`],
        namespace: host.name,
        peer: { name: 'eth0', addresses: [`${address}/24`], routes: [{ to: 'default', via: own }] },
      },
    ]);
    const config = path.join(network.dir, 'lab.yaml');
    writeFileSync(config, JSON.stringify({ device: 'tun', interfaces: Object.fromEntries(interfaces) }));
    args.push('--config', config);
  } else {
    for (const [host, dev, own, address] of sides) {
      network.link(
        { at: middle, dev, addresses: [`${own}/24`] },
        { at: host, dev: 'eth0', addresses: [`${address}/24`] },
      );
      host.ip(`route add default via ${own}`);
    }
    middle.sysctl({ 'net.ipv4.ip_forward': 1 });
  }
  if (options.workers !== undefined) args.push('--workers', String(options.workers));
  const [orlock, knock, router] = await Promise.all([
    startHost(inside),
    startHost(outside),
    startRouter(middle, control, args),
  ]);
  await Promise.all([
    knock.serve({ port: 80, body: PAGE }),
    knock.listen({ port: 25, greet: MAIL }),
    knock.udpListen({ port: ECHO_PORT, echo: true }),
    orlock.listen({ port: SHARE_PORT, greet: SHARE }),
    orlock.listen({ port: 80, greet: 'private\n' }),
  ]);
  return { network, orlock, knock, router, rules };
}

async function startRouter(at: Namespace, control: string, args: string[]): Promise<Router> {
  const child = at.spawn(process.execPath, [process.argv[1]!, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const router = new Router(child, control);
  await until(
    'hutter up answers at its control socket',
    async () => {
      if (!router.running) throw await router.cause(undefined);
      return (
        existsSync(control) &&
        (await router.status().then(
          () => true,
          () => false,
        ))
      );
    },
    { timeoutMs: START_TIMEOUT_MS, everyMs: 25 },
  );
  return router;
}

/** The folder of package.json, above this file both in dist/src and in a bundle. */
function packageRoot(): string {
  let dir = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(dir, 'package.json'))) {
    if (dir === path.dirname(dir)) throw new Error('no package.json above the program: the installation is incomplete');
    dir = path.dirname(dir);
  }
  return dir;
}
