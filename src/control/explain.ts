/**
 * `hutter explain`: one packet, described in words, goes through the rules in this process, and each rule that it matched
 * is printed in the order of its way, with its fate and who decided it. No router is asked, nothing is sent.
 *
 * Interfaces and routes are the configuration's. Without one the packet names them: with `in=` alone it is for the router
 * itself, with `in=` and `out=` it is forwarded, with `out=` alone it is the router's own.
 */
import type { Link } from '../dataplane/interfaces.js';
import { Hook, HOOK_NAMES, Proto, TABLE_NAMES, TcpFlag, Verdict } from '../dataplane/names.js';
import { Fib, FibReader, type RouteSpec } from '../dataplane/route/fib.js';
import { type RouteSource, RouteType } from '../dataplane/route/routes.js';
import { Stat } from '../dataplane/shared.js';
import { type Outcome, Simulation } from '../dataplane/simulate.js';
import { setU16, setU32, u32 } from '../dataplane/wire/bytes.js';
import { pseudoSum, sealHeader, sum } from '../dataplane/wire/checksum.js';
import { CompileError, Compiler } from './compile/index.js';
import { type Config, ConfigError, loadConfig } from './config.js';
import { type Chain, type Ruleset, type TableModel, tableOf } from './model.js';
import { packetText } from './packettext.js';
import { parseProtocol, protocolName } from './protocols.js';
import { portOfName } from './services.js';
import { fibOf } from './routing.js';
import { loadRules, RulesRefused } from './rules.js';
import { strictAddress } from './text/address.js';
import { ruleText } from './text/write.js';
import { linkOf, linksOf } from './topology.js';

export interface ExplainOptions {
  rules?: string;
  config?: string;
  json?: boolean;
}

/** The description of the packet can't be understood. */
class PacketError extends Error {
  override readonly name = 'PacketError';
}

/** @returns exit code: 0 whatever the packet's fate is, 1 for rules that can't be loaded, 2 for a packet that makes no sense */
export async function explain(description: readonly string[], options: ExplainOptions): Promise<number> {
  try {
    const config = options.config === undefined ? undefined : loadConfig(options.config);
    const ruleset = await loadRules(options.rules ?? config?.rules);
    const report = follow(readPacket(description), ruleset, config);
    process.stdout.write(options.json ? JSON.stringify(report) + '\n' : asText(report));
    return 0;
  } catch (error) {
    if (error instanceof RulesRefused) process.stderr.write(error.message, 'latin1');
    else if (error instanceof PacketError || error instanceof ConfigError || error instanceof CompileError) {
      process.stderr.write(`hutter: ${error.message}\n`);
    } else throw error;
    return error instanceof PacketError ? 2 : 1;
  }
}

const FLAGS: Readonly<Record<string, TcpFlag>> = {
  fin: TcpFlag.FIN,
  syn: TcpFlag.SYN,
  rst: TcpFlag.RST,
  psh: TcpFlag.PSH,
  ack: TcpFlag.ACK,
  urg: TcpFlag.URG,
};

interface Described {
  in: string;
  out: string;
  src: number;
  dst: number;
  mark: number;
  bytes: Uint8Array;
}

/** `in=if0 src=192.168.73.4 dst=8.8.8.8 proto=tcp dport=80 flags=syn`, in one argument or several. */
function readPacket(description: readonly string[]): Described {
  const words = description.flatMap((text) => text.split(/\s+/)).filter((word) => word !== '');
  const given = new Map<string, string>();
  for (const word of words) {
    const [, key, value] = /^([a-z]+)=(.+)$/.exec(word) ?? [];
    if (key === undefined || value === undefined) throw new PacketError(`'${word}' is not KEY=VALUE`);
    if (!KEYS.includes(key)) throw new PacketError(`'${key}' is no part of a packet; known are ${KEYS.join(', ')}`);
    given.set(key, value);
  }
  const address = (key: string): number => {
    const text = given.get(key);
    if (text === undefined) throw new PacketError(`the packet needs ${key}=ADDRESS`);
    const value = strictAddress(text);
    if (value === undefined) throw new PacketError(`${key}=${text} is not an IPv4 address`);
    return value;
  };
  const number = (key: string, most: number, otherwise: number): number => {
    const text = given.get(key);
    if (text === undefined) return otherwise;
    const value = Number(text);
    if (!/^(0x[0-9a-f]+|\d+)$/i.test(text) || value > most)
      throw new PacketError(`${key}=${text} is not within 0 to ${most}`);
    return value;
  };
  const protocolText = given.get('proto') ?? 'udp';
  const protocol = /^\d+$/.test(protocolText) ? Number(protocolText) : protocolNumber(protocolText);
  if (!given.has('in') && !given.has('out'))
    throw new PacketError('the packet needs in=INTERFACE, out=INTERFACE or both');
  const l4 = transport(protocol, given, number);
  const length = number('length', 65_535, 20 + l4.length);
  if (length < 20 + l4.length)
    throw new PacketError(`length=${length} is too short: its headers take ${20 + l4.length}`);
  const bytes = new Uint8Array(length);
  const src = address('src');
  const dst = address('dst');
  bytes[0] = 0x45;
  bytes[1] = number('tos', 255, 0);
  setU16(bytes, 2, length);
  bytes[8] = number('ttl', 255, 64);
  bytes[9] = protocol;
  setU32(bytes, 12, src);
  setU32(bytes, 16, dst);
  sealHeader(bytes, 0, 20);
  bytes.set(l4, 20);
  finish(bytes, protocol);
  return {
    in: given.get('in') ?? '',
    out: given.get('out') ?? '',
    src,
    dst,
    mark: number('mark', 0xffffffff, 0) | 0,
    bytes,
  };
}

const KEYS = [
  'in',
  'out',
  'src',
  'dst',
  'proto',
  'sport',
  'dport',
  'flags',
  'type',
  'code',
  'tos',
  'ttl',
  'length',
  'mark',
];

function protocolNumber(name: string): number {
  try {
    return parseProtocol(name);
  } catch {
    throw new PacketError(`proto=${name} is not a protocol`);
  }
}

function transport(
  protocol: number,
  given: ReadonlyMap<string, string>,
  number: (key: string, most: number, otherwise: number) => number,
): Uint8Array {
  const header = new Uint8Array(protocol === Proto.TCP ? 20 : 8);
  const others = protocol === Proto.ICMP ? ['sport', 'dport', 'flags'] : ['type', 'code'];
  if (protocol !== Proto.TCP) others.push('flags');
  const name = protocolName(protocol) ?? `protocol ${protocol}`;
  const stray = others.find((key) => given.has(key));
  if (stray !== undefined) throw new PacketError(`${stray}=${given.get(stray)}: a packet of ${name} has no ${stray}`);
  if (protocol === Proto.ICMP) {
    header[0] = number('type', 255, 8);
    header[1] = number('code', 255, 0);
    return header;
  }
  const port = (key: string, otherwise: number): number => {
    const text = given.get(key);
    if (text === undefined || /^\d/.test(text)) return number(key, 65_535, otherwise);
    const named = portOfName(text, name);
    if (named === undefined) throw new PacketError(`${key}=${text} is neither a port nor a service of ${name}`);
    return named;
  };
  setU16(header, 0, port('sport', 40_000));
  setU16(header, 2, port('dport', 0));
  if (protocol === Proto.TCP) {
    header[12] = 5 << 4;
    for (const name of (given.get('flags') ?? 'syn').split(',')) {
      const flag = FLAGS[name.toLowerCase()];
      if (flag === undefined) throw new PacketError(`flags=${name}: known are ${Object.keys(FLAGS).join(', ')}`);
      header[13]! |= flag;
    }
  }
  return header;
}

/** UDP's length, and the transport checksum. */
function finish(bytes: Uint8Array, protocol: number): void {
  const length = bytes.length - 20;
  if (protocol === Proto.UDP) setU16(bytes, 24, length);
  const field = protocol === Proto.TCP ? 36 : protocol === Proto.UDP ? 26 : protocol === Proto.ICMP ? 22 : 0;
  if (field === 0) return;
  const pseudo = protocol === Proto.ICMP ? 0 : pseudoSum(u32(bytes, 12), u32(bytes, 16), protocol, length);
  setU16(bytes, field, ~sum(bytes, 20, bytes.length, pseudo) & 0xffff || 0xffff);
}

/** A rule or policy that the packet met. */
interface Met {
  table: string;
  chain: string;
  /** 0 = the policy. */
  rule: number;
  text: string;
}
interface Report {
  /** Hooks the packet met, with what it matched there. */
  way: { hook: string; met: Met[]; /** False: it is the answer that met it. */ own: boolean }[];
  verdict: string;
  /** Why, when no rule decided. */
  reason?: string;
  packet?: string;
  mark?: string;
  answers: string[];
}

function follow(packet: Described, ruleset: Ruleset, config: Config | undefined): Report {
  const { links, routes } = config === undefined ? assumedWorld(packet) : configuredWorld(config);
  const indexOf = (name: string): number => {
    const link = links.find((candidate) => candidate.name === name);
    if (link === undefined) throw new PacketError(`no interface ${name} in the configuration`);
    return link.index;
  };
  const compiler = new Compiler(1000);
  const compiled = compiler.compile(ruleset);
  const counters = new Float64Array(compiled.counters * 2);
  const simulation = new Simulation({
    links,
    routes,
    program: { ...compiled, counters },
  });
  const facts =
    packet.in === ''
      ? { hook: Hook.OUTPUT, outdev: indexOf(packet.out), mark: packet.mark }
      : { hook: Hook.PREROUTING, indev: indexOf(packet.in), mark: packet.mark };
  const outcome = simulation.run(packet.bytes, facts);
  const counted = (id: number): boolean => {
    const slot = compiler.slots.of(id);
    return slot !== undefined && counters[slot * 2]! > 0;
  };
  const way = HOOK_NAMES.map((hook, number) => ({
    hook,
    met: TABLE_NAMES.flatMap((name) => {
      const table = tableOf(ruleset, name);
      const chain = table?.chains.get(hook);
      return table === undefined || chain === undefined ? [] : metIn(table, chain, counted);
    }),
    passed: simulation.stats[Stat.PACKETS + number]! > 0,
  })).filter(({ passed }) => passed);
  // The hooks' numbers are in the order of every packet's way. What came in by the network and meets OUTPUT is an answer.
  const own = (hook: string): boolean =>
    packet.in === '' || outcome.verdict === Verdict.ACCEPT || !AFTER.includes(hook);
  const hops = way.map(({ hook, met }) => ({ hook, met, own: own(hook) }));
  return { way: hops, ...fate(outcome) };
}

/** What the packet matched in a chain and in those that it was sent to from there, in order. */
function metIn(table: TableModel, chain: Chain, counted: (id: number) => boolean): Met[] {
  const met: Met[] = [];
  chain.rules.forEach((rule, i) => {
    if (!counted(rule.id)) return;
    met.push({ table: table.name, chain: chain.name, rule: i + 1, text: ruleText(chain.name, rule) });
    const next = rule.target.kind === 'jump' ? table.chains.get(rule.target.chain) : undefined;
    if (next !== undefined) met.push(...metIn(table, next, counted));
  });
  if (chain.policy !== undefined && counted(chain.policy.id)) {
    met.push({ table: table.name, chain: chain.name, rule: 0, text: `-P ${chain.name} ${chain.policy.verdict}` });
  }
  return met;
}

/** Hooks of what the router sends itself. */
const AFTER: readonly string[] = ['OUTPUT', 'POSTROUTING'];
const VERDICTS = ['DROP', 'ACCEPT', 'STOLEN', 'QUEUE'] as const;

function fate(outcome: Outcome): Omit<Report, 'way'> {
  const { verdict, packet, mark, answers, reason } = outcome;
  return {
    verdict: VERDICTS[verdict] ?? String(verdict),
    ...(reason !== undefined && { reason }),
    ...(verdict === Verdict.ACCEPT && packet !== undefined && { packet: packetText(packet) }),
    ...(mark !== 0 && { mark: `0x${(mark >>> 0).toString(16)}` }),
    answers: answers.map(packetText),
  };
}

function asText({ way, verdict, reason, packet, mark, answers }: Report): string {
  const lines = way.flatMap(({ hook, met, own }) => [
    own ? hook : `${hook}, the answer`,
    ...met.map(
      ({ table, rule, text }) => `  ${table.padEnd(7)}${rule === 0 ? 'policy' : `rule ${rule}`.padEnd(6)}  ${text}`,
    ),
  ]);
  const last = way.findLast(({ own }) => own)?.met.at(-1);
  const by = reason !== undefined ? `hutter: ${reason}` : last === undefined ? 'no rule' : last.text;
  lines.push(`${verdict} by ${by}`);
  if (packet !== undefined) lines.push(`goes on as ${packet}${mark === undefined ? '' : ` mark ${mark}`}`);
  for (const answer of answers) lines.push(`answered with ${answer}`);
  return lines.join('\n') + '\n';
}

interface RouterWorld {
  links: readonly Link[];
  routes: RouteSource;
}

function assumedWorld(packet: Described): RouterWorld {
  const { links, routes } = assumed(packet);
  return { links, routes: Fib.readerOf(links, routes) };
}

function configuredWorld(config: Config): RouterWorld {
  const links = linksOf(config);
  return { links, routes: new FibReader(fibOf(config, links).shared) };
}

/** What the packet's own words say of the router. */
function assumed({ in: indev, out, src, dst }: Described): { links: Link[]; routes: RouteSpec[] } {
  const links = [linkOf(1, 'lo', [])];
  const add = (name: string): Link => {
    const known = links.find((link) => link.name === name);
    if (known !== undefined) return known;
    const link = linkOf(links.length + 1, name, []);
    links.push(link);
    return link;
  };
  const routes: RouteSpec[] = [];
  const way = (address: number, prefixLength: number, oif: number, type = RouteType.UNICAST): void => {
    routes.push({ dst: address, prefixLength, type, oif });
  };
  if (indev !== '') way(src, 32, add(indev).index);
  if (out !== '') way(0, 0, add(out).index);
  else way(dst, 32, 1, RouteType.LOCAL);
  return { links, routes };
}
