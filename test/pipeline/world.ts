/** The article's router in memory: rules from text, packets by their fields. */
import { runIptables } from '../../src/control/commands/run.js';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { Compiler } from '../../src/control/compile/index.js';
import { formatLogRecord } from '../../src/control/log.js';
import type { Ruleset } from '../../src/control/model.js';
import { ruleFinder } from '../../src/control/trace.js';
import { type Outcome, Simulation, type SimulationOptions } from '../../src/dataplane/simulate.js';
import type { Publication } from '../../src/dataplane/shared.js';
import type { Link } from '../../src/dataplane/interfaces.js';
import { Hook } from '../../src/dataplane/names.js';
import type { FrameFacts } from '../../src/dataplane/io/loopback.js';
import { Fib } from '../../src/dataplane/route/fib.js';
import { Packet } from '../../src/dataplane/packet.js';
import { type Fields, ip, packetBytes, text } from '../nat/packets.js';

export const ORLOCK = '192.168.73.4';
export const INSIDE = '192.168.73.1';
export const OUTSIDE = '128.61.70.47';
export const KNOCK = '128.61.70.200';
export const IF0 = 2;
export const IF1 = 3;

const link = (index: number, name: string, flags: number, address: string, prefixLength: number): Link => ({
  index,
  name,
  mtu: 1500,
  flags,
  mac: Uint8Array.of(2, 0, 0, 0, 0, index),
  addresses: [
    { local: ip(address), address: ip(address), prefixLength, scope: index === 1 ? 254 : 0, secondary: false },
  ],
});

export const LINKS: readonly Link[] = [
  link(1, 'lo', 0x9, '127.0.0.1', 8),
  link(IF0, 'if0', 0x1, INSIDE, 24),
  link(IF1, 'if1', 0x1, OUTSIDE, 24),
];

export class World {
  private counters = new Float64Array(0);
  private readonly compiler = new Compiler(1000);
  readonly router: Simulation;
  /** All workers, `router` the first; they share connections, rules and counters. */
  readonly workers: readonly Simulation[];

  private constructor(
    readonly backend: MemoryBackend,
    options: Partial<SimulationOptions>,
  ) {
    const all = {
      links: LINKS,
      routes: Fib.readerOf(LINKS),
      program: this.compile(backend.ruleset()),
      ...options,
    };
    const first = new Simulation(all);
    this.router = first;
    this.workers = Array.from({ length: options.workers ?? 1 }, (_, worker) =>
      worker === 0 ? first : new Simulation({ ...all, joins: { first, worker } }),
    );
  }

  /** `rules` in iptables-restore's format. */
  static async create(rules: string, options: Partial<SimulationOptions> = {}): Promise<World> {
    return new World(await restored(rules, new MemoryBackend()), options);
  }

  async restore(rules: string): Promise<void> {
    await restored(rules, this.backend);
    const program = this.compile(this.backend.ruleset());
    for (const worker of this.workers) worker.adopt(program);
  }

  private compile(ruleset: Ruleset): Publication {
    const compiled = this.compiler.compile(ruleset);
    const counters = new Float64Array(compiled.counters * 2);
    counters.set(this.counters);
    for (const slot of compiled.retiredCounters) counters.fill(0, slot * 2, slot * 2 + 2);
    this.counters = counters;
    this.compiler.release(compiled);
    return { words: compiled.words, regions: compiled.regions, counters };
  }

  /** A packet comes in by an interface. */
  arrives(indev: number, fields: PacketFields, facts: FrameFacts = {}): Seen {
    return see(this.router.run(frame(fields), { hook: Hook.PREROUTING, indev, ...facts }));
  }

  /** A process of the router sends a packet. */
  sends(outdev: number, fields: PacketFields, facts: FrameFacts = {}): Seen {
    return see(this.router.run(frame(fields), { hook: Hook.OUTPUT, outdev, ...facts }));
  }

  /** Packets counted by the rule or policy at this place (1 = first rule, 0 = policy). */
  counted(table: string, chain: string, number: number): number {
    return this.counters[this.counterAt(table, chain, number)]!;
  }

  /** The same with its bytes, as iptables-save -c has it: `packets:bytes`. */
  countedText(table: string, chain: string, number: number): string {
    const at = this.counterAt(table, chain, number);
    return `${this.counters[at]!}:${this.counters[at + 1]!}`;
  }

  /** LOG's and TRACE's lines of an outcome. */
  lines({ logs }: Outcome): string[] {
    const find = ruleFinder(this.backend.ruleset(), (id) => this.compiler.slots.of(id));
    const link = (ifindex: number): Link | undefined => LINKS.find(({ index }) => index === ifindex);
    return logs.map((record) => formatLogRecord(record, link, find));
  }

  private counterAt(table: string, chain: string, number: number): number {
    const found = this.backend
      .ruleset()
      .tables.find(({ name }) => name === table)!
      .chains.get(chain)!;
    const id = number === 0 ? found.policy!.id : found.rules[number - 1]!.id;
    return this.compiler.slots.of(id)! * 2;
  }
}

export type PacketFields = Omit<Fields, 'src' | 'dst'> & { src: string; dst: string };

const frame = ({ src, dst, ...rest }: PacketFields): Uint8Array => packetBytes({ src: ip(src), dst: ip(dst), ...rest });

/** An outcome with its packet's fields read. */
export interface Seen extends Outcome {
  src: string;
  dst: string;
  sport: number;
  dport: number;
  fields: Packet;
}

function see(outcome: Outcome): Seen {
  const fields = read(outcome.packet ?? new Uint8Array(0));
  return { ...outcome, fields, src: text(fields.src), dst: text(fields.dst), sport: fields.sport, dport: fields.dport };
}

export function read(packet: Uint8Array): Packet {
  const fields = new Packet();
  fields.parse(packet, 0, packet.length);
  return fields;
}

async function restored(rules: string, backend: MemoryBackend): Promise<MemoryBackend> {
  const result = await runIptables('iptables-restore', [], rules, backend);
  if (result.code !== 0) throw new Error(result.stderr);
  return backend;
}
