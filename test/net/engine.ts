/**
 * The engines a network test runs on: the kernel's own netfilter, driven by iptables-legacy (the judge), hutter by the
 * kernel's queue, and hutter by TUN interfaces. All are driven by the same shell lines, in which `iptables`,
 * `iptables-save` and `iptables-restore` mean the engine's, so an article's command can be run exactly as printed.
 *
 * HUTTER_TEST_ENGINE=kernel, hutter or hutter-tun limits a run to one of them.
 */
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ask } from '../../src/control/cli/client.js';
import { type Namespace, type Network, type Output, type RunOptions, until } from '../../src/control/lab/netns.js';

export type EngineName = 'kernel' | 'hutter' | 'hutter-tun';

/** A rule or a chain's policy with its counters, as `iptables-save -c` tells them. */
export interface Counted {
  table: string;
  /** `-A INPUT …`, or `-P INPUT ACCEPT` for a built-in chain's policy. */
  rule: string;
  packets: number;
  bytes: number;
}

const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const BIN = path.join(ROOT, 'dist/bin');
const LEGACY_DIR = ['/usr/sbin', '/sbin'].find((dir) => existsSync(path.join(dir, 'iptables-legacy'))) ?? '/usr/sbin';
const COMMANDS = ['iptables', 'iptables-save', 'iptables-restore'];
const BUILT_IN: Record<string, string[]> = {
  raw: ['PREROUTING', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
};

/** Every table empty and accepting, in iptables-restore's format. */
export const EMPTY_RULES = Object.entries(BUILT_IN)
  .map(([table, chains]) => `*${table}\n${chains.map((chain) => `:${chain} ACCEPT [0:0]\n`).join('')}COMMIT\n`)
  .join('');

/** The engines this run is to use, the judge first. */
export const ENGINES: readonly EngineName[] = (() => {
  const only = process.env['HUTTER_TEST_ENGINE'];
  if (only === undefined) return ['kernel', 'hutter', 'hutter-tun'];
  if (only !== 'kernel' && only !== 'hutter' && only !== 'hutter-tun')
    throw new Error(`HUTTER_TEST_ENGINE=${only}: kernel, hutter or hutter-tun`);
  return [only];
})();

export interface HutterOptions {
  /** More arguments of `hutter up`. */
  args?: string[];
  env?: NodeJS.ProcessEnv;
}

export class Engine {
  /** `hutter up`, while it runs. */
  process: ChildProcess | undefined;
  private stderr = '';
  private stdout = '';
  private readonly commandDir: string;

  private constructor(
    readonly name: EngineName,
    readonly ns: Namespace,
    private readonly network: Network,
  ) {
    this.commandDir = path.join(network.dir, `commands-${ns.role}`);
    mkdirSync(this.commandDir);
    for (const command of COMMANDS) {
      const real =
        name === 'kernel'
          ? path.join(LEGACY_DIR, command.replace('iptables', 'iptables-legacy'))
          : `${process.execPath} ${path.join(BIN, `hutter-${command}.cjs`)}`;
      const file = path.join(this.commandDir, command);
      writeFileSync(file, `#!/bin/sh\nHUTTER_CONTROL='${this.control}' exec ${real} "$@"\n`);
      chmodSync(file, 0o755);
    }
  }

  /** Makes `ns` a router under this engine, forwarding, with empty rules. */
  static async start(name: EngineName, network: Network, ns: Namespace, options: HutterOptions = {}): Promise<Engine> {
    const engine = new Engine(name, ns, network);
    ns.sysctl({ 'net.ipv4.ip_forward': 1 });
    if (name !== 'kernel') await engine.up(options);
    return engine;
  }

  /** The command `hutter`. */
  readonly hutterFile = path.join(BIN, 'hutter.mjs');

  /** Where hutter's control socket is. */
  get control(): string {
    return path.join(this.network.dir, `${this.ns.role}.sock`);
  }

  /** Starts `hutter up` with `rules` and waits until it answers. Throws with what it said if it ends instead. */
  async up({ args = [], env = {} }: HutterOptions = {}, rules = EMPTY_RULES): Promise<void> {
    const file = path.join(this.network.dir, `${this.ns.role}.rules`);
    writeFileSync(file, rules);
    const child = this.hutter(['up', '--rules', file, '--control', this.control, ...args], env);
    this.process = child;
    await until(
      'hutter up answers',
      async () => {
        if (child.exitCode !== null || child.signalCode !== null) {
          throw new Error(`hutter up ended (${child.signalCode ?? child.exitCode}):\n${this.stderr}`);
        }
        return (
          existsSync(this.control) &&
          (await this.command('iptables-save', []).then(
            () => true,
            () => false,
          ))
        );
      },
      { timeoutMs: 15_000, everyMs: 50 },
    );
  }

  /** Starts the hutter program with some arguments in the router; its words are kept for `said` and `log`. */
  hutter(args: string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    const child = this.ns.spawn(process.execPath, [path.join(BIN, 'hutter.mjs'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, HUTTER_CONTROL: this.control, ...env },
    });
    child.stdout?.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    return child;
  }

  /** Ends `hutter up` by a signal; resolves with its exit code (or 128 + signal) when it is gone. */
  async down(signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
    const child = this.process;
    this.process = undefined;
    if (!child) return 0;
    child.kill(signal);
    await until('hutter up ends', () => child.exitCode !== null || child.signalCode !== null, { timeoutMs: 10_000 });
    return child.exitCode ?? 128;
  }

  /** All hutter has said since the start, both streams. */
  get said(): string {
    return this.stdout + this.stderr;
  }

  /** Runs a shell line in the router, `iptables…` meaning this engine's. Never throws for what it did. */
  sh(line: string, options: RunOptions = {}): Promise<Output> {
    const env = {
      ...process.env,
      LC_ALL: 'C',
      ...options.env,
      HUTTER_CONTROL: this.control,
      PATH: `${this.commandDir}:${process.env['PATH']}`,
    };
    return this.ns.run('sh', ['-c', line], { ...options, env });
  }

  /** As `sh`, but throws with the words of a line that failed. Returns its standard output. */
  async ok(line: string, options: RunOptions = {}): Promise<string> {
    const result = await this.sh(line, options);
    if (result.code !== 0) throw new Error(`${this.name}: ${line}\nended with ${result.code}: ${result.stderr}`);
    return result.stdout;
  }

  /** As `ok`, of one command without a shell: hutter is asked over its control socket, which takes no process. */
  async command(command: string, args: string[], input = ''): Promise<string> {
    if (this.name === 'kernel') return this.ok([command, ...args].join(' '), { input });
    let out = '';
    let err = '';
    const code = await new Promise<number>((resolve) =>
      ask(
        this.control,
        { program: command, argv: args, stdin: input },
        ({ stdout, stderr }) => {
          out += stdout ?? '';
          err += stderr ?? '';
        },
        resolve,
      ),
    );
    if (code !== 0) throw new Error(`hutter: ${command} ${args.join(' ')}\nended with ${code}: ${err}`);
    return out;
  }

  /** Runs `ip LINE` (`route …`, `rule …`) for each line on the tables that route for this engine: with TUN hutter's own. */
  async ip(lines: readonly string[], input = ''): Promise<Output[]> {
    if (this.name === 'hutter-tun') {
      const outputs: Output[] = [];
      for (const line of lines) outputs.push(await this.routing(line.split(' '), input));
      return outputs;
    }
    const run = (line: string): string => `ip ${line} 2>"$err"; printf '\\036%s\\036' $?; cat "$err"; printf '\\037'`;
    const script = `err=$(mktemp); ${lines.map(run).join('; ')}; rm "$err"`;
    const { stdout } = await this.ns.run('sh', ['-c', script]);
    return stdout.split('\x1f', lines.length).map((each) => {
      const [out = '', code, stderr = ''] = each.split('\x1e');
      // `table all` is of all families.
      return { code: Number(code), stdout: out.replace(/^.*(?:::|ff00).*\n/gm, ''), stderr };
    });
  }

  private routing([program = '', ...argv]: string[], stdin: string): Promise<Output> {
    return new Promise((resolve) => {
      const output = { stdout: '', stderr: '' };
      ask(
        this.control,
        { program, argv, stdin },
        ({ stdout = '', stderr = '' }) => {
          output.stdout += stdout;
          output.stderr += stderr;
        },
        (code) => resolve({ ...output, code }),
      );
    });
  }

  /** Loads a whole ruleset; tables that it doesn't name become empty. */
  async load(rules: string): Promise<void> {
    const named = new Set([...rules.matchAll(/^\*(\w+)/gm)].map((match) => match[1]));
    const rest = EMPTY_RULES.split(/(?<=COMMIT\n)/).filter((block) => !named.has(/^\*(\w+)/.exec(block)?.[1]));
    await this.command('iptables-restore', [], rest.join('') + rules);
  }

  /** Every rule's and policy's counters. */
  async counters(): Promise<Counted[]> {
    const result: Counted[] = [];
    let table = '';
    for (const line of (await this.command('iptables-save', ['-c'])).split('\n')) {
      const policy = /^:(\S+) (ACCEPT|DROP) \[(\d+):(\d+)\]$/.exec(line);
      const rule = /^\[(\d+):(\d+)\] (.*)$/.exec(line);
      if (line.startsWith('*')) table = line.slice(1);
      else if (policy) {
        const [, chain, name, packets, bytes] = policy;
        result.push({ table, rule: `-P ${chain} ${name}`, packets: Number(packets), bytes: Number(bytes) });
      } else if (rule) {
        result.push({ table, rule: rule[3]!, packets: Number(rule[1]), bytes: Number(rule[2]) });
      }
    }
    return result;
  }

  /** The counters of the only rule whose text contains every one of `words`; throws unless there is exactly one. */
  async counter(...words: string[]): Promise<Counted> {
    const all = await this.counters();
    const found = all.filter((entry) => words.every((word) => `-t ${entry.table} ${entry.rule}`.includes(word)));
    if (found.length !== 1) {
      const rules = all.map((entry) => `  -t ${entry.table} ${entry.rule}`).join('\n');
      throw new Error(`${found.length} rules with "${words.join('" and "')}" among\n${rules}`);
    }
    return found[0]!;
  }
}
