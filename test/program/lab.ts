/** For the program's tests: packets made by hand, rulesets from text, and one worker's context with a clock of its own. */
import { Compiler, type Compiled } from '../../src/control/compile/index.js';
import {
  emptyTable,
  newId,
  withTable,
  ZERO,
  type Chain,
  type Rule,
  type Ruleset,
  type Target,
} from '../../src/control/model.js';
import { readCommand, type Command } from '../../src/control/text/read.js';
import { NO_NAMES } from '../../src/control/text/write.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Interfaces } from '../../src/dataplane/interfaces.js';
import { HOOK_NAMES, TABLE_NAMES, Proto, type Hook, type HookName, type TableName } from '../../src/dataplane/names.js';
import { Nat } from '../../src/dataplane/nat/bind.js';
import { Packet, ParseError } from '../../src/dataplane/packet.js';
import { Context, type Routes } from '../../src/dataplane/program/context.js';
import { entry } from '../../src/dataplane/program/format.js';
import { unpackText } from '../../src/dataplane/program/op.js';
import { run } from '../../src/dataplane/program/run.js';
import { setU16, setU32 } from '../../src/dataplane/wire/bytes.js';
import { headerChecksum } from '../../src/dataplane/wire/checksum.js';

/** A 32-bit xorshift, so that a failing run can be repeated by its seed. */
export function random(seed: number): (below: number) => number {
  let x = seed | 0 || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

export const ip = (text: string): number => text.split('.').reduce((sum, part) => (sum << 8) | Number(part), 0);

export interface Fields {
  src?: string;
  dst?: string;
  protocol?: number;
  tos?: number;
  ttl?: number;
  /** In units of 8 bytes. */
  fragOffset?: number;
  moreFragments?: boolean;
  /** Everything behind the IP header; the next fields make one when it is absent. */
  transport?: readonly number[];
  sport?: number;
  dport?: number;
  tcpFlags?: number;
  tcpOptions?: readonly number[];
  icmpType?: number;
  icmpCode?: number;
  payload?: readonly number[];
  mark?: number;
}

const pair = (n: number): [number, number] => [n >> 8, n & 255];

function transport(f: Fields): number[] {
  const payload = [...(f.payload ?? [])];
  const ports = [...pair(f.sport ?? 1024), ...pair(f.dport ?? 80)];
  switch (f.protocol ?? Proto.TCP) {
    case Proto.TCP: {
      const options = [...(f.tcpOptions ?? [])];
      while (options.length % 4 !== 0) options.push(0);
      const offset = ((20 + options.length) / 4) << 4;
      return [...ports, 0, 0, 0, 1, 0, 0, 0, 0, offset, f.tcpFlags ?? 0x10, 0, 0, 0, 0, 0, 0, ...options, ...payload];
    }
    case Proto.UDP:
      return [...ports, ...pair(8 + payload.length), 0, 0, ...payload];
    case Proto.ICMP:
      return [f.icmpType ?? 8, f.icmpCode ?? 0, 0, 0, 0, 1, 0, 1, ...payload];
    default:
      return payload;
  }
}

/** A parsed packet; the transport checksum is left 0. */
export function packet(f: Fields = {}): Packet {
  const behind = f.transport ?? transport(f);
  const bytes = new Uint8Array(64 + 20 + behind.length + 64);
  const o = 64;
  bytes[o] = 0x45;
  bytes[o + 1] = f.tos ?? 0;
  setU16(bytes, o + 2, 20 + behind.length);
  setU16(bytes, o + 6, (f.moreFragments ? 0x2000 : 0) | (f.fragOffset ?? 0));
  bytes[o + 8] = f.ttl ?? 64;
  bytes[o + 9] = f.protocol ?? Proto.TCP;
  setU32(bytes, o + 12, ip(f.src ?? '192.168.73.4'));
  setU32(bytes, o + 16, ip(f.dst ?? '128.61.70.200'));
  setU16(bytes, o + 10, headerChecksum(bytes, o, 20));
  bytes.set(behind, o + 20);
  const p = new Packet();
  const error = p.parse(bytes, o, o + 20 + behind.length, 0);
  if (error !== ParseError.NONE) throw new Error(`parse error ${error}`);
  p.mark = f.mark ?? 0;
  return p;
}

/** Words of a line; quotes as the shell has them. */
const words = (line: string): string[] =>
  Array.from(line.matchAll(/"([^"]*)"|(\S+)/g), (found) => found[1] ?? found[2]!);

function read(line: string, table: string): Command {
  return readCommand(['iptables', ...words(line)], {
    program: 'iptables',
    restore: true,
    table,
    names: NO_NAMES,
    warn: () => undefined,
  });
}

function targetOf(command: Command, chains: ReadonlyMap<string, Chain>): Target {
  if (command.target !== undefined) return { kind: 'extension', use: command.target };
  switch (command.jump) {
    case '':
      return { kind: 'none' };
    case 'ACCEPT':
    case 'DROP':
    case 'QUEUE':
    case 'RETURN':
      return { kind: 'verdict', verdict: command.jump };
  }
  if (!chains.has(command.jump)) throw new Error(`no chain ${command.jump}`);
  return { kind: 'jump', chain: command.jump, goto: command.goto };
}

/** Rules of a line, several where it has several addresses. */
export function ruleOf(line: string, table: TableName, chains: ReadonlyMap<string, Chain>): Rule[] {
  const command = read(line, table);
  const target = targetOf(command, chains);
  return command.sources.flatMap((src) =>
    command.destinations.map((dst) => ({ ...command.rule, src, dst, target, id: newId(), base: ZERO })),
  );
}

/** A ruleset from text like iptables-save's: `*filter`, `:INPUT DROP`, `:mine -`, `-A INPUT …`. */
export function ruleset(text: string): Ruleset {
  let rules: Ruleset = { tables: [] };
  let table = emptyTable('filter');
  const put = (chain: Chain): void => {
    table = { ...table, chains: new Map([...table.chains, [chain.name, chain]]) };
  };
  for (const line of text.split('\n').map((each) => each.trim())) {
    if (line === '' || line.startsWith('#') || line === 'COMMIT') continue;
    if (line.startsWith('*')) {
      if (table.chains.size > 0) rules = withTable(rules, table);
      table = emptyTable(line.slice(1) as TableName);
    } else if (line.startsWith(':')) {
      const [name, policy] = line.slice(1).split(/\s+/) as [string, string];
      const known = table.chains.get(name);
      if (known?.policy === undefined) put({ name, rules: [] });
      else put({ ...known, policy: { ...known.policy, verdict: policy as 'ACCEPT' | 'DROP' } });
    } else {
      const name = /^-A (\S+)/.exec(line)?.[1];
      const chain = name === undefined ? undefined : table.chains.get(name);
      if (chain === undefined) throw new Error(`no chain in ${line}`);
      put({ ...chain, rules: [...chain.rules, ...ruleOf(line, table.name, table.chains)] });
    }
  }
  return withTable(rules, table);
}

/** One worker that runs rulesets; what targets ask for is written down. */
export class World {
  readonly interfaces = new Interfaces();
  readonly compiler: Compiler;
  readonly context: Context;
  readonly table = ConntrackTable.attach(ConntrackTable.create({ max: 64, workers: 1, seed: 1 }), 0);
  readonly logged: string[] = [];
  readonly rejected: number[] = [];
  rules: Ruleset = { tables: [] };
  compiled!: Compiled;
  counters = new Float64Array(0);
  /** Types of sets by name. */
  readonly setTypes = new Map([['hutter', { name: 'hash:ip,port,ip', family: 2 }]]);
  /** Answers requests about sets. */
  sets: (message: Uint8Array) => number = () => -1;
  /** For TCPMSS. */
  pathMtu = 1500;
  /** The kernel's queues that somebody listens to. */
  readonly listening = new Set<number>();
  /** For rpfilter. */
  realm = 0;
  wayBack: Routes['isWayBack'] = () => true;
  /** RTN_* by address, for addrtype. */
  readonly types = new Map<number, number>();

  constructor(hz = 1000) {
    this.compiler = new Compiler(hz, { typeOf: (name) => this.setTypes.get(name) });
    this.interfaces.replace(
      ['lo', 'if0', 'if1', 'eth10'].map((name, i) => ({
        index: i + 1,
        name,
        mtu: 1500,
        flags: i === 0 ? 8 : 0,
        mac: new Uint8Array(6),
        addresses: [],
      })),
    );
    this.context = new Context({
      interfaces: this.interfaces,
      table: this.table,
      nat: new Nat(this.table),
      log: {
        log: (_p, _context, program, at) => void this.logged.push(unpackText(program, at + 3, program[at + 2]!)),
        nflog: (_p, _context, program, at) =>
          void this.logged.push(`nflog ${program[at]} ${unpackText(program, at + 3, program[at + 2]!)}`),
        trace: (_p, _context, counter) => void this.logged.push(`trace ${counter}`),
        traceReturn: (_p, _context, _program, chain) => void this.logged.push(`trace end of ${chain}`),
      },
      answers: {
        reject: (_p, _context, kind) => void this.rejected.push(kind),
        duplicate: () => undefined,
        isListening: (queue) => this.listening.has(queue),
      },
      sets: { ask: (message, length) => this.sets(message.slice(0, length)) },
      routes: {
        masqueradeAddress: () => ip('128.61.70.47'),
        addressType: (address) => this.types.get(address) ?? 1,
        pathMtu: () => this.pathMtu,
        realm: () => this.realm,
        isWayBack: (p, mark, loose, acceptLocal) => this.wayBack(p, mark, loose, acceptLocal),
      },
      hz,
      worker: 0,
    });
    this.context.setTime(1_000_000, Date.UTC(2004, 1, 11));
  }

  load(rules: string | Ruleset): this {
    this.rules = typeof rules === 'string' ? ruleset(rules) : rules;
    this.compiled = this.compiler.compile(this.rules);
    const grown = new Float64Array(this.compiled.counters * 2);
    grown.set(this.counters.subarray(0, grown.length));
    this.counters = grown;
    this.context.adopt(this.compiled.words, this.compiled.regions, grown);
    for (const slot of this.compiled.retiredCounters) grown.fill(0, slot * 2, slot * 2 + 2);
    this.compiler.release(this.compiled);
    return this;
  }

  /** Milliseconds go by. */
  wait(ms: number): void {
    this.at(this.now + ms);
  }
  now = 1_000_000;
  at(ms: number): void {
    this.now = ms;
    this.context.setTime(ms, Date.UTC(2004, 1, 11) + ms - 1_000_000);
    this.table.edge(ms | 0, 0);
  }

  /** Runs a chain and returns the verdict; 0 DROP, 1 ACCEPT. */
  run(p: Packet, hook: HookName = 'INPUT', table: TableName = 'filter', indev = 2, outdev = 0): number {
    const hookNumber = HOOK_NAMES.indexOf(hook) as Hook;
    p.hotdrop = 0;
    this.context.enter(hookNumber, indev, outdev);
    return run(
      this.context,
      this.compiled.words,
      entry(this.compiled.words, TABLE_NAMES.indexOf(table), hookNumber),
      p,
    );
  }

  /** Packets and bytes of a rule (from 1) or, with 0, of the policy. */
  count(chain: string, rule: number, table: TableName = 'filter'): [number, number] {
    const found = this.rules.tables.find((each) => each.name === table)!.chains.get(chain)!;
    const slot = this.compiler.slots.of(rule === 0 ? found.policy!.id : found.rules[rule - 1]!.id)!;
    return [this.counters[slot * 2]!, this.counters[slot * 2 + 1]!];
  }
}

/** Whether one rule's tests hold for the packet: INPUT's policy is DROP and the rule accepts. */
export function matches(rule: string, p: Packet, world = new World()): boolean {
  world.load(`*filter\n:INPUT DROP\n-A INPUT ${rule} -j ACCEPT`);
  return world.run(p) === 1;
}
