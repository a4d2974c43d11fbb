/**
 * `hutter replay`: captures go through the rules in this process as if the router had stood there: frames by interface,
 * merged by time, the clock taken from them; what leaves is written to captures. No router is asked, nothing is sent, no
 * root is needed. The same input makes the same output, to the byte.
 *
 * The router is the whole one: routes, TTL, errors, fragments, and its own addresses, where no service listens.
 */
import { mkdirSync, readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';
import type { Link } from '../dataplane/interfaces.js';
import { CaptureDevice, type CaptureInput, type InputTotals } from '../dataplane/io/captures.js';
import { CaptureError, CaptureWriter } from '../dataplane/io/pcap.js';
import { HOOK_NAMES, Verdict } from '../dataplane/names.js';
import { FibReader } from '../dataplane/route/fib.js';
import { DROP_REASONS, Stat } from '../dataplane/shared.js';
import { type Outcome, Simulation } from '../dataplane/simulate.js';
import { MemoryBackend } from './commands/backend.js';
import { checkFile, type FileReport } from './commands/checkfile.js';
import { tableText } from './commands/save.js';
import { Session } from './commands/session.js';
import { CompileError, Compiler } from './compile/index.js';
import { type Config, ConfigError, loadConfig, reason } from './config.js';
import { runConntrack } from './conntrack.js';
import { hostAddresses, hostNameOf } from './keeper.js';
import { type FindRule, formatLogRecord } from './log.js';
import { type Chain, EMPTY_RULESET, type Ruleset, type TableModel } from './model.js';
import { packetText } from './packettext.js';
import { fibOf } from './routing.js';
import { linksOf } from './topology.js';
import { ruleText } from './text/write.js';
import { ruleFinder } from './trace.js';

export interface ReplayOptions {
  rules?: string;
  config: string;
  /** `DEV=FILE`, each. */
  in: readonly string[];
  out: string;
  format?: 'pcap' | 'pcapng';
  json?: boolean;
  why?: boolean;
}

/** The command line makes no sense. */
class UsageError extends Error {
  override readonly name = 'UsageError';
}
/** The rules have errors, which have been told. */
class RulesError extends Error {
  override readonly name = 'RulesError';
}

/** @returns exit code: 0 whatever became of the packets, 1 for files that can't be used, 2 for wrong usage */
export async function replay(options: ReplayOptions): Promise<number> {
  try {
    const config = loadConfig(options.config);
    const file = options.rules ?? config.rules;
    const rules = file === undefined ? NO_RULES : await readRules(file);
    const run = new Replay(config, rules, file ?? '', options);
    const report = await run.toTheEnd((dropped) => {
      if (!options.json) process.stdout.write(droppedText(dropped) + '\n');
    });
    process.stdout.write(options.json ? JSON.stringify(report) + '\n' : asText(report));
    return 0;
  } catch (error) {
    if (error instanceof RulesError) return 1;
    if (!EXPECTED.some((kind) => error instanceof kind)) throw error;
    for (const line of (error as Error).message.split('\n')) process.stderr.write(`hutter: ${line}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}
const EXPECTED = [UsageError, ConfigError, CaptureError, CompileError];

type Rules = Pick<FileReport, 'ruleset' | 'lines'>;
const NO_RULES: Rules = { ruleset: EMPTY_RULESET, lines: new Map() };

async function readRules(file: string): Promise<Rules> {
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch (error) {
    throw new ConfigError(`can't read ${file}: ${reason(error)}`);
  }
  const report = await checkFile(text, { names: { host: hostAddresses, hostName: hostNameOf } });
  for (const { severity, line, column, message } of report.findings)
    process.stderr.write(`${file}:${line}:${column}: ${severity}: ${message}\n`, 'latin1');
  if (report.findings.some(({ severity }) => severity === 'error')) throw new RulesError();
  return report;
}

/** A rule or policy that can end a packet's way. */
interface Decider {
  table: string;
  chain: string;
  /** 0 = the policy. */
  rule: number;
  /** In the rules file; 0 = a policy that it doesn't set. */
  line: number;
  text: string;
}
/** A packet that was dropped. */
interface Dropped {
  time: string;
  interface: string;
  /** Of the frame in its file, from 1. */
  frame: number;
  packet: string;
  by: string;
}
/** The report, as `--json` has it: fields are added, never renamed. */
interface Report {
  first: string | undefined;
  last: string | undefined;
  interfaces: Record<
    string,
    { in: Omit<InputTotals, 'ifindex'>[]; out: { file: string; packets: number; bytes: number } }
  >;
  hooks: Record<string, { packets: number; bytes: number }>;
  accepted: number;
  dropped: number;
  changed: number;
  /** Packets of the router's own. */
  answers: number;
  drops: { rules: (Decider & { packets: number })[]; reasons: Record<string, number> };
  log: { time: string; line: string }[];
  connections: string[];
  /** As iptables-save -c. */
  saved: string;
  why?: Dropped[];
}

/** Of what is left to chance; any number but 0. */
const SEED = 0x68757474;
const CONNECTIONS = 262_144;

class Replay {
  private readonly links: readonly Link[];
  private readonly writers = new Map<number, CaptureWriter>();
  private readonly files = new Map<number, string>();
  private readonly device: CaptureDevice;
  private readonly simulation: Simulation;
  private readonly compiler = new Compiler(1000);
  private readonly findRule: FindRule;
  private readonly counters: Float64Array;
  private readonly deciders: { decider: Decider; slot: number; packets: number; drops: number }[] = [];
  private readonly log: Report['log'] = [];
  private readonly why: Dropped[] = [];

  constructor(
    config: Config,
    private readonly rules: Rules,
    private readonly rulesFile: string,
    private readonly options: ReplayOptions,
  ) {
    this.links = linksOf(config);
    const fib = fibOf(config, this.links);
    const compiled = this.compiler.compile(rules.ruleset);
    const program = this.compiler.growTrees() ? this.compiler.compile(rules.ruleset) : compiled;
    this.counters = new Float64Array(program.counters * 2);
    this.findRule = ruleFinder(rules.ruleset, (id) => this.compiler.slots.of(id));
    this.collectDeciders(rules.ruleset);
    const inputs = this.inputs(config);
    this.openOutputs(inputs);
    this.device = new CaptureDevice(inputs, (ifindex) => this.writers.get(ifindex));
    this.simulation = new Simulation({
      links: this.links,
      routes: new FibReader(fib.shared),
      program: { ...program, counters: this.counters },
      device: this.device,
      connections: config.connections ?? CONNECTIONS,
      helpers: config.helpers ?? [],
      errorInterval: config['icmp-ratelimit'] ?? 1000,
      routesByPorts: fib.byPorts,
      strictReversePath: this.filtered(config, 'strict'),
      looseReversePath: this.filtered(config, 'loose'),
      seed: SEED,
    });
    for (const [name, value] of Object.entries(config.sysctl ?? {})) this.simulation.table.writeSetting(name, value);
  }

  async toTheEnd(onDropped: (dropped: Dropped) => void): Promise<Report> {
    const { simulation, device } = this;
    let first: string | undefined;
    try {
      while (simulation.receive()) {
        this.setClock(first === undefined);
        first ??= this.time();
        const answers = simulation.stats[Stat.ANSWERS];
        const outcome = simulation.decide();
        for (const record of outcome.logs) this.log.push({ time: this.time(), line: this.logLine(record) });
        const by = outcome.verdict === Verdict.DROP ? this.dropper(outcome) : undefined;
        if (by === undefined) {
          if (simulation.stats[Stat.ANSWERS] !== answers || outcome.verdict !== Verdict.ACCEPT) this.noteCounts();
        } else if (this.options.why) {
          const name = this.nameOf(device.inputs[device.input]!.ifindex);
          const packet = packetText(device.head.subarray(0, device.headLength));
          const dropped = { time: this.time(), interface: name, frame: device.number, packet, by };
          if (this.options.json) this.why.push(dropped);
          onDropped(dropped);
        }
      }
    } finally {
      device.close();
      for (const writer of this.writers.values()) writer.close();
    }
    return this.report(first, first === undefined ? undefined : this.time());
  }

  /** The router's clock never goes back, whatever the captures say. */
  private setClock(first: boolean): void {
    const { seconds, nanoseconds } = this.device;
    const ms = seconds * 1000 + Math.floor(nanoseconds / 1e6);
    if (first) this.simulation.wall = ms;
    else if (ms > this.simulation.wall) this.simulation.advance(ms - this.simulation.wall);
  }

  /** Who ended the packet's way, in words. */
  private dropper({ reason: own }: Outcome): string {
    const found = this.noteCounts();
    if (own !== undefined) return `hutter: ${own}`;
    if (found === undefined) return 'a match that finds it impossible';
    found.drops++;
    const { line, text } = found.decider;
    return line === 0 ? text : `${this.rulesFile}:${line}: ${text}`;
  }

  /** The first rule or policy that counted since the last call. */
  private noteCounts(): (typeof this.deciders)[number] | undefined {
    let found;
    for (const decider of this.deciders) {
      const packets = this.counters[decider.slot * 2]!;
      if (packets === decider.packets) continue;
      decider.packets = packets;
      found ??= decider;
    }
    return found;
  }

  /** In the order of a packet's way, with OUTPUT last: an answer's end is not the packet's. */
  private collectDeciders(ruleset: Ruleset): void {
    const seen = new Set<string>();
    for (const hook of HOOK_ORDER)
      for (const table of ruleset.tables) {
        const chain = table.chains.get(hook);
        if (chain !== undefined) this.collectFrom(table, chain, seen);
      }
  }

  private collectFrom(table: TableModel, chain: Chain, seen: Set<string>): void {
    const key = `${table.name} ${chain.name}`;
    if (seen.has(key)) return;
    seen.add(key);
    const add = (id: number, rule: number, text: string): void => {
      const slot = this.compiler.slots.of(id);
      const line = this.rules.lines.get(id) ?? 0;
      const decider = { table: table.name, chain: chain.name, rule, line, text };
      if (slot !== undefined) this.deciders.push({ decider, slot, packets: 0, drops: 0 });
    };
    chain.rules.forEach((rule, i) => {
      const { target } = rule;
      if (target.kind === 'jump') {
        const to = table.chains.get(target.chain);
        if (to !== undefined) this.collectFrom(table, to, seen);
      } else if (
        target.kind === 'verdict'
          ? target.verdict === 'DROP'
          : target.kind === 'extension' && target.use.extension.name === 'REJECT'
      ) {
        add(rule.id, i + 1, ruleText(chain.name, rule));
      }
    });
    if (chain.policy?.verdict === 'DROP') add(chain.policy.id, 0, `-P ${chain.name} DROP`);
  }

  private inputs(config: Config): CaptureInput[] {
    return this.options.in.map((text) => {
      const [, dev, file] = /^([^=]+)=(.+)$/.exec(text) ?? [];
      if (dev === undefined || file === undefined) throw new UsageError(`--in ${text}: it takes INTERFACE=FILE`);
      const link = this.links.find(({ name }) => name === dev);
      if (link === undefined || dev === 'lo') {
        const known = Object.keys(config.interfaces).join(', ');
        throw new UsageError(`--in ${text}: the configuration has no interface ${dev} (it has ${known})`);
      }
      const vlans = new Map<string, { ifindex: number; mtu: number }>();
      for (const { name, index, mtu } of this.links)
        if (name.startsWith(`${dev}.`)) vlans.set(name.slice(dev.length + 1), { ifindex: index, mtu });
      return { file, ifindex: link.index, mtu: link.mtu, vlans };
    });
  }

  private openOutputs(inputs: readonly CaptureInput[]): void {
    const { out, format = 'pcap' } = this.options;
    try {
      mkdirSync(out, { recursive: true });
    } catch (error) {
      throw new CaptureError(`can't make ${out}: ${reason(error)}`);
    }
    const read = new Set(inputs.map(({ file }) => realPath(file)));
    for (const { name, index } of this.links) {
      if (name === 'lo') continue;
      const file = path.join(out, `${name}.${format}`);
      if (read.has(realPath(file))) throw new UsageError(`--out ${out}: ${file} is read from`);
      this.files.set(index, file);
    }
    for (const [index, file] of this.files) this.writers.set(index, CaptureWriter.create(file, { format }));
  }

  private filtered({ interfaces }: Config, how: 'strict' | 'loose'): number[] {
    return this.links.filter(({ name }) => interfaces[name]?.['rp-filter'] === how).map(({ index }) => index);
  }

  private nameOf(ifindex: number): string {
    return this.links.find(({ index }) => index === ifindex)?.name ?? `if${ifindex}`;
  }

  private logLine(record: Uint8Array): string {
    const link = (ifindex: number): Link | undefined => this.links.find(({ index }) => index === ifindex);
    const line = formatLogRecord(record, link, this.findRule);
    return Buffer.from(line, 'latin1').toString();
  }

  /** Of the packet at hand: 2026-01-31T12:00:00.123456789Z */
  private time(): string {
    const { seconds, nanoseconds } = this.device;
    const whole = new Date(seconds * 1000);
    // Damage can put a time past what a Date holds.
    if (Number.isNaN(whole.getTime())) return `${seconds}.${String(nanoseconds).padStart(9, '0')}`;
    return `${whole.toISOString().slice(0, -5)}.${String(nanoseconds).padStart(9, '0')}Z`;
  }

  private async report(first: string | undefined, last: string | undefined): Promise<Report> {
    const { simulation, device, options } = this;
    const { stats } = simulation;
    const interfaces: Report['interfaces'] = {};
    for (const [index, file] of this.files) {
      const { packets, bytes } = device.outputs.get(index) ?? { packets: 0, bytes: 0 };
      const inputs = device.inputs.filter(({ ifindex }) => ifindex === index);
      interfaces[this.nameOf(index)] = {
        in: inputs.map(({ ifindex, ...totals }) => (void ifindex, totals)),
        out: { file, packets, bytes },
      };
    }
    return {
      first,
      last,
      interfaces,
      hooks: Object.fromEntries(
        HOOK_NAMES.map((hook, i) => [hook, { packets: stats[Stat.PACKETS + i]!, bytes: stats[Stat.BYTES + i]! }]),
      ),
      accepted: stats[Stat.ACCEPTED]!,
      dropped: stats[Stat.DROPPED]!,
      changed: stats[Stat.CHANGED]!,
      answers: stats[Stat.ANSWERS]!,
      drops: {
        rules: this.deciders
          .filter(({ drops }) => drops > 0)
          .map(({ decider, drops }) => ({ ...decider, text: utf8(decider.text), packets: drops })),
        reasons: Object.fromEntries(
          DROP_REASONS.map((name, i) => [name, stats[Stat.DROPS + i]!] as const).filter(([, count]) => count > 0),
        ),
      },
      log: this.log,
      connections: await this.connections(),
      saved: this.saved(),
      ...(options.why && options.json && { why: this.why }),
    };
  }

  private async connections(): Promise<string[]> {
    const lines: string[] = [];
    const out = { stdout: (text: string) => void lines.push(text.trimEnd()), stderr: () => undefined };
    await runConntrack(this.simulation.table, 1, ['-L'], out, () => Promise.resolve());
    return lines;
  }

  /** As iptables-save -c, without its lines that say when. */
  private saved(): string {
    const backend = new MemoryBackend(this.rules.ruleset);
    for (const table of this.rules.ruleset.tables)
      for (const { policy, rules } of table.chains.values())
        for (const counted of policy === undefined ? rules : [policy, ...rules]) {
          const slot = this.compiler.slots.of(counted.id);
          if (slot === undefined) continue;
          const [packets, bytes] = [this.counters[slot * 2]!, this.counters[slot * 2 + 1]!];
          backend.counted.set(counted.id, { packets: BigInt(packets), bytes: BigInt(bytes) });
        }
    const session = new Session('iptables-save', backend);
    return utf8(
      session
        .tableNames()
        .map((name) => tableText(session, name, true))
        .join(''),
    );
  }
}

const HOOK_ORDER = ['PREROUTING', 'INPUT', 'FORWARD', 'POSTROUTING', 'OUTPUT'] as const;

/** Texts of the language are byte strings. */
const utf8 = (bytes: string): string => Buffer.from(bytes, 'latin1').toString();

function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return path.resolve(file);
  }
}

const droppedText = ({ time, interface: name, frame, packet, by }: Dropped): string =>
  `${time} ${name} #${frame} ${packet}: dropped by ${utf8(by)}`;

function asText(report: Report): string {
  const { first, last, interfaces, hooks, drops } = report;
  const lines = [first === undefined ? 'no packets' : `${first} to ${last!}`];
  for (const [name, { in: inputs, out }] of Object.entries(interfaces)) {
    for (const { file, frames, packets, bytes, cut, notIpv4, outgoing, otherHost } of inputs) {
      const aside = [
        [cut, 'captured in part'],
        [notIpv4, 'not IPv4'],
        [outgoing, 'outgoing'],
        [otherHost, 'for other hosts'],
      ].flatMap(([count, what]) => (count === 0 ? [] : [`, ${count} ${what}`]));
      lines.push(`${name} in   ${packets} packets, ${bytes} bytes, of ${frames} frames in ${file}${aside.join('')}`);
    }
    lines.push(`${name} out  ${out.packets} packets, ${out.bytes} bytes to ${out.file}`);
  }
  const { accepted, dropped, changed, answers } = report;
  lines.push(`${accepted} accepted (${changed} of all changed), ${dropped} dropped, ${answers} of the router's own`);
  lines.push(
    Object.entries(hooks)
      .map(([hook, { packets }]) => `${hook} ${packets}`)
      .join('  '),
  );
  const section = (title: string, rows: readonly string[]): void => {
    if (rows.length > 0) lines.push('', title, ...rows.map((row) => `  ${row}`));
  };
  section('dropped by', [
    ...drops.rules.map(
      ({ table, line, text, packets }) => `${packets}  ${table} ${text}${line === 0 ? '' : `  (line ${line})`}`,
    ),
    ...Object.entries(drops.reasons).map(([name, packets]) => `${packets}  hutter: ${name}`),
  ]);
  section(
    'log',
    report.log.map(({ time, line }) => `${time} ${line}`),
  );
  section('connections left', report.connections);
  section(
    'counters',
    report.saved
      .trimEnd()
      .split('\n')
      .filter((line) => line !== ''),
  );
  return lines.join('\n') + '\n';
}
