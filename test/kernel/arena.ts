/**
 * The judge's arena: two routers alike in everything but who filters, each with three far ends.
 *
 *     10.1.0.2-5      e0 --- if0  10.1.0.1/24
 *     198.51.100.10-12, and all else behind .254
 *                     e1 --- if1  198.51.100.1/24, 198.51.100.2/24
 *     10.2.0.2-4      e2 --- if2  10.2.0.1/24, MTU 1300
 *
 * Nobody lives at the far ends: frames are put there and taken up by wire.c. IP neighbours are permanent, IPv6 is off,
 * checksums are whole on the wire, and the rate limits of ICMP errors are off.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { SETTINGS } from '../../src/dataplane/conntrack/settings.js';
import { type Namespace, Network, until } from '../../src/control/lab/netns.js';
import type { CommandEvent } from './scenario.js';
import { BUILTIN_CHAINS } from '../../src/dataplane/names.js';
import { mac, Wire } from './wire.js';

const PORTS = 3;
export const ADDRESSES = [['10.1.0.1/24'], ['198.51.100.1/24', '198.51.100.2/24'], ['10.2.0.1/24']];
/** What fits onto each: some is too long for if2. */
export const MTUS = [1500, 1500, 1300];
export const DEFAULT_GATEWAY = '198.51.100.254';
/** Rules can translate to anybody there: nobody is asked for, or errors would come seconds later. */
const NEIGHBOURS = ['10.1.0.', '198.51.100.', '10.2.0.'].map((network) =>
  Array.from({ length: 255 }, (_, i) => `${network}${i}`),
);
/** A comment of rules that `onlyKernel` holds: they aren't counted. */
export const FAULT = 'hutter-judge-fault';
const HUTTER = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../bin/hutter.mjs');
/** No rules, and the policies that a table begins with: a restore that names none leaves those of the last scenario. */
const EMPTY = (['raw', 'mangle', 'nat', 'filter'] as const)
  .map((table) =>
    [`*${table}`, ...BUILTIN_CHAINS[table].map((chain) => `:${chain} ACCEPT [0:0]`), 'COMMIT\n'].join('\n'),
  )
  .join('');

/** A rule or policy as iptables-save -c tells it. */
export interface Count {
  table: string;
  /** `-A CHAIN …`, or `:CHAIN POLICY`. */
  rule: string;
  count: string;
}

export interface Refusal {
  code: number;
  text: string;
}

/** The settings of connection tracking that both can change. */
const DEFAULTS = Object.entries(SETTINGS)
  .filter(([name]) => /^nf_/.test(name) && !/_max$/.test(name))
  .map(([name, { initial }]) => `net.netfilter.${name}=${initial}`);

/** How hutter is started. */
export interface ArenaOptions {
  workers?: number;
  /** Who gets a packet: the worker of its pair of hosts, or of the core that it came in on, so that a flow meets all of them. */
  fanout?: 'hosts' | 'cpu';
}

export class Arena {
  readonly simulated = false;
  /** For the judge's own test: rules that the kernel alone gets, behind a scenario's. */
  onlyKernel = '';
  /** Settings of connection tracking may not be the defaults. */
  private tuned = false;

  private constructor(
    private readonly network: Network,
    private readonly kernel: Namespace,
    private readonly hutter: Namespace,
    private readonly control: Control,
    readonly wire: Wire,
    private readonly said: () => string,
    private readonly told: readonly [Told, Told],
    private readonly followed: Control,
    private readonly workers: number,
  ) {}

  static async open(options: ArenaOptions = {}): Promise<Arena> {
    const network = new Network('hutter-judge');
    try {
      const sides = ['k', 'h'].map((side) => router(network, side));
      const [kernel, hutter] = [sides[0]!.router, sides[1]!.router];
      kernel.sysctl({ 'net.netfilter.nf_conntrack_acct': 1 });
      const rules = path.join(network.dir, 'rules');
      const socket = path.join(network.dir, 'control');
      writeFileSync(rules, EMPTY);
      const { workers = 1 } = options;
      const args = ['up', '--rules', rules, '--control', socket, '--workers', `${workers}`];
      args.push('--fanout', options.fanout ?? 'hosts');
      const child = hutter.spawn(process.execPath, [HUTTER, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
      let words = '';
      child.stdout!.on('data', (chunk: Buffer) => (words += chunk.toString()));
      child.stderr!.on('data', (chunk: Buffer) => (words += chunk.toString()));
      await until(
        'hutter up',
        () => {
          if (child.exitCode !== null) throw new Error(`hutter up ended (${child.exitCode}): ${words}`);
          return Promise.resolve(existsSync(socket));
        },
        { timeoutMs: 15_000, everyMs: 20 },
      );
      const control = await Control.open(socket);
      const places = sides.flatMap(({ router, far }) => [router, far].map(({ name }) => `/run/netns/${name}`));
      const wire = Wire.start(network.dir, places, PORTS, options.fanout === 'cpu');
      const told: [Told, Told] = [new Told(), new Told()];
      const follow = kernel.spawn('conntrack', ['-E'], { stdio: ['ignore', 'pipe', 'ignore'] });
      follow.stdout!.on('data', (chunk: Buffer) => told[0].hear(chunk.toString('latin1')));
      const followed = await Control.open(socket, (text) => told[1].hear(text));
      // It ends with the arena.
      followed.ask({ program: 'conntrack', argv: ['-E'] }).catch(() => undefined);
      return new Arena(network, kernel, hutter, control, wire, () => words, told, followed, workers);
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.wire.close();
    this.control.close();
    this.followed.close();
    await this.network.close();
  }

  /** What `hutter up` has said. */
  get words(): string {
    return this.said();
  }

  /** Empties both routers: rules, connections, rule state. */
  async clear(): Promise<void> {
    const [kernel, hutter] = await Promise.all([this.restoreKernel(EMPTY), this.restoreHutter(EMPTY)]);
    if (kernel || hutter) throw new Error(`clearing: ${kernel?.text ?? ''}${hutter?.text ?? ''}`);
    if (this.tuned) await this.command({ program: 'sysctl', argv: ['-q', '-w', ...DEFAULTS] });
    this.tuned = false;
    // What errors have taught the routers about paths goes with them.
    const forget = 'echo 1 > /proc/sys/net/ipv4/route/flush';
    const cleared = await Promise.all([
      this.within(this.kernel, 'sh', ['-c', `conntrack -F && ${forget}`], ''),
      this.within(this.hutter, 'sh', ['-c', forget], ''),
      this.control.ask({ program: 'conntrack', argv: ['-F'] }),
    ]);
    // What stays behind would be taken for a divergence of the next scenario.
    for (const { code, stderr } of cleared) if (code !== 0) throw new Error(`clearing: ${stderr}`);
  }

  /** Loads rules on both; what each said if it refused. */
  async load(rules: string): Promise<[Refusal | undefined, Refusal | undefined]> {
    for (const told of this.told) told.forget();
    const refusals = await Promise.all([this.restoreKernel(rules), this.restoreHutter(rules)]);
    if (this.onlyKernel !== '') await this.inKernel('iptables-legacy-restore', ['--noflush'], this.onlyKernel);
    return refusals;
  }

  /** The administrator's command on both; how each refused it. */
  async command({
    program,
    argv,
    stdin = '',
  }: Omit<CommandEvent, 'kind' | 'id'>): Promise<[Refusal | undefined, Refusal | undefined]> {
    const real = program.replace('iptables', 'iptables-legacy');
    if (program === 'sysctl') this.tuned = true;
    const answers = await Promise.all([this.inKernel(real, argv, stdin), this.control.ask({ program, argv, stdin })]);
    return answers.map(({ code, stderr }) => (code === 0 ? undefined : { code, text: stderr })) as [
      Refusal | undefined,
      Refusal | undefined,
    ];
  }

  /** Every rule's and policy's counters on both. */
  async counts(): Promise<[Count[], Count[]]> {
    const [kernel, hutter] = await Promise.all([
      this.inKernel('iptables-legacy-save', ['-c'], ''),
      this.control.ask({ program: 'iptables-save', argv: ['-c'] }),
    ]);
    return [kernel, hutter].map(({ stdout }) => countsOf(stdout)) as [Count[], Count[]];
  }

  /** Both connection tables, for a report. */
  async connections(): Promise<[string, string]> {
    const [kernel, hutter] = await Promise.all([
      this.inKernel('conntrack', ['-L'], ''),
      this.control.ask({ program: 'conntrack', argv: ['-L'] }),
    ]);
    return [kernel.stdout, hutter.stdout];
  }

  /** The lists of `-m recent` and what is expected, on both. */
  async kept(): Promise<[string[], string[]]> {
    const lists = 'cd /proc/net/xt_recent && for list in *; do [ -f "$list" ] && sed "s/^/$list: /" "$list"; done';
    const kernel = await Promise.all([
      this.inKernel('sh', ['-c', `${lists}; true`], ''),
      this.inKernel('conntrack', ['-L', 'expect'], ''),
    ]);
    const ask = async (program: string, ...argv: string[]): Promise<string[]> =>
      linesOf((await this.control.ask({ program, argv })).stdout);
    const hutter = await ask('conntrack', '-L', 'expect');
    for (const name of await ask('recent'))
      hutter.push(...(await ask('recent', name)).map((line) => `${name}: ${line}`));
    return [kernel.flatMap(({ stdout }) => linesOf(stdout)), hutter];
  }

  /** What `conntrack -E` has told on both since the rules were loaded. */
  events(): [string[], string[]] | undefined {
    if (this.workers > 1) return undefined;
    return [this.told[0].lines, this.told[1].lines];
  }

  private async restoreKernel(rules: string): Promise<Refusal | undefined> {
    const { code, stderr } = await this.inKernel('iptables-legacy-restore', [], rules);
    return code === 0 ? undefined : { code, text: stderr };
  }

  private async restoreHutter(rules: string): Promise<Refusal | undefined> {
    const { code, stderr } = await this.control.ask({ program: 'iptables-restore', argv: [], stdin: rules });
    return code === 0 ? undefined : { code, text: stderr };
  }

  private inKernel(command: string, args: string[], input: string): Promise<Answer> {
    return this.within(this.kernel, command, args, input);
  }

  private within(where: Namespace, command: string, args: string[], input: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const child = spawn('nsenter', [`--net=/run/netns/${where.name}`, command, ...args]);
      let stdout = '';
      let stderr = '';
      child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString('latin1')));
      child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('latin1')));
      child.on('error', reject);
      child.on('close', (code) => resolve({ code: code ?? 128, stdout, stderr }));
      // A command that reads none may be gone before this is written.
      child.stdin.on('error', () => undefined);
      child.stdin.end(input);
    });
  }
}

/** A router and its far ends. */
function router(network: Network, side: string): { router: Namespace; far: Namespace } {
  const router = network.namespace(`${side}-router`);
  const far = network.namespace(`${side}-far`);
  for (let i = 0; i < PORTS; i++) {
    router.ip(
      `link add if${i} address ${mac(false, i)} type veth peer name e${i} address ${mac(true, i)} netns ${far.name}`,
    );
    far.ip(`link set e${i} mtu ${MTUS[i]} arp off up`);
    router.ip(
      ...ADDRESSES[i]!.map((address) => `address add ${address} dev if${i}`),
      `link set if${i} mtu ${MTUS[i]} up`,
    );
    const strangers = NEIGHBOURS[i]!.filter((host) => !ADDRESSES[i]!.includes(`${host}/24`));
    router.ip(...strangers.map((host) => `neigh replace ${host} lladdr ${mac(true, i)} nud permanent dev if${i}`));
    const ethtool = spawnSync('ip', [
      'netns',
      'exec',
      router.name,
      'ethtool',
      '-K',
      `if${i}`,
      'tx',
      'off',
      'rx',
      'off',
    ]);
    if (ethtool.status !== 0) throw new Error(`ethtool: ${ethtool.stderr.toString()}`);
  }
  router.ip(`route add default via ${DEFAULT_GATEWAY}`);
  router.sysctl({
    'net.ipv4.ip_forward': 1,
    'net.ipv4.icmp_ratelimit': 0,
    'net.ipv4.icmp_msgs_per_sec': 1_000_000,
    'net.ipv4.icmp_msgs_burst': 1_000_000,
    'net.ipv4.tcp_invalid_ratelimit': 0,
    'net.ipv4.ipfrag_high_thresh': 64 << 20,
    'net.ipv4.ipfrag_time': 600,
    'net.ipv4.ipfrag_max_dist': 0,
    'net.ipv4.conf.all.send_redirects': 0,
    'net.ipv4.conf.all.accept_redirects': 0,
    'net.ipv4.conf.default.send_redirects': 0,
    'net.ipv4.conf.all.rp_filter': 0,
    ...Object.fromEntries(
      Array.from({ length: PORTS }, (_, i) => [
        [`net.ipv4.conf.if${i}.send_redirects`, 0],
        [`net.ipv4.conf.if${i}.accept_redirects`, 0],
        [`net.ipv4.conf.if${i}.rp_filter`, 0],
      ]).flat(),
    ),
  });
  // Unreachable and prohibited destinations are answered at a rate that no namespace can set.
  router.ip('route add blackhole 100.64.0.0/10');
  return { router, far };
}

const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '');

/** Rules for which both sides track connections. */
export const NEEDS_CONNECTIONS =
  /-m (conntrack|state|connlimit|connmark|connbytes|connlabel|helper|cluster)|-j (SNAT|DNAT|MASQUERADE|REDIRECT|NETMAP|CONNMARK|CT(?! --notrack))/;

/** Reads what iptables-save -c prints. */
export function countsOf(save: string): Count[] {
  const result: Count[] = [];
  let table = '';
  for (const line of save.split('\n')) {
    const policy = /^(:\S+ \S+) \[(\d+:\d+)\]$/.exec(line);
    const rule = /^\[(\d+:\d+)\] (.*)$/.exec(line);
    if (line.startsWith('*')) table = line.slice(1);
    else if (policy) result.push({ table, rule: policy[1]!, count: policy[2]! });
    else if (rule && !rule[2]!.includes(FAULT)) result.push({ table, rule: rule[2]!, count: rule[1]! });
  }
  // A table nobody has touched isn't there in the kernel; it is there, and empty, in hutter.
  const used = new Set(result.filter(({ rule }) => rule.startsWith('-A')).map((entry) => entry.table));
  return result.filter((entry) => used.has(entry.table));
}

interface Answer {
  code: number;
  stdout: string;
  stderr: string;
}

/** Lines that come as they like. */
class Told {
  lines: string[] = [];
  private rest = '';

  hear(text: string): void {
    const lines = (this.rest + text).split('\n');
    this.rest = lines.pop()!;
    this.lines.push(...lines);
  }
  forget(): void {
    this.lines = [];
  }
}

/** One connection to hutter's control socket, kept. */
class Control {
  private text = '';
  private current: { answer: Answer; done: (answer: Answer) => void; failed: (error: Error) => void } | undefined;

  private constructor(
    private readonly socket: Socket,
    private readonly hear: ((stdout: string) => void) | undefined,
  ) {
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.take(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => this.current?.failed(new Error('hutter has closed its control socket')));
  }

  /** The file is there a moment before somebody listens. `hear`: of an answer that doesn't end. */
  static async open(file: string, hear?: (stdout: string) => void): Promise<Control> {
    let control: Control | undefined;
    const attempt = (): Promise<boolean> =>
      new Promise((resolve) => {
        const socket = connect(file);
        socket.once('error', () => resolve(false));
        socket.once('connect', () => {
          control = new Control(socket, hear);
          resolve(true);
        });
      });
    await until('the control socket', attempt, { timeoutMs: 5_000, everyMs: 20 });
    return control!;
  }

  ask(request: { program: string; argv: string[]; stdin?: string }): Promise<Answer> {
    return new Promise((done, failed) => {
      this.current = { answer: { code: 0, stdout: '', stderr: '' }, done, failed };
      this.socket.write(JSON.stringify(request) + '\n');
    });
  }

  close(): void {
    this.socket.destroy();
  }

  private take(chunk: string): void {
    this.text += chunk;
    for (let end = this.text.indexOf('\n'); end >= 0; end = this.text.indexOf('\n')) {
      const line = JSON.parse(this.text.slice(0, end)) as Partial<Answer>;
      this.text = this.text.slice(end + 1);
      const { current } = this;
      if (!current) continue;
      if (this.hear) this.hear(line.stdout ?? '');
      else current.answer.stdout += line.stdout ?? '';
      current.answer.stderr += line.stderr ?? '';
      if (line.code !== undefined) {
        this.current = undefined;
        current.done({ ...current.answer, code: line.code });
      }
    }
  }
}
