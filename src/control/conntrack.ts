/**
 * `hutter conntrack`: lists, deletes, counts and follows the router's connections, and lists what is expected, with the options,
 * texts and exit codes of conntrack-tools 1.4.7, so that scripts which read them need not notice. Counters are always printed,
 * as the kernel does with nf_conntrack_acct=1. A CPU in -S is a worker here.
 */
import { EVENT_ENTRY, EventType } from '../dataplane/conntrack/events.js';
import { Expectation, flushExpectations, nextExpectation } from '../dataplane/conntrack/expect.js';
import { keyProtocol } from '../dataplane/conntrack/key.js';
import { printConnection, printEvent, printExpectation } from '../dataplane/conntrack/print.js';
import { Ct, ENTRY_WORDS, Stat, STAT_NAMES, STATUS_MASK } from '../dataplane/conntrack/layout.js';
import type { ConntrackTable } from '../dataplane/conntrack/table.js';
import { SCTP_STATE_NAMES, Status, TCP_STATE_NAMES } from '../dataplane/conntrack/states.js';
import { Proto } from '../dataplane/names.js';

const TOOL = 'conntrack v1.4.7 (conntrack-tools)';
const TRY = "Try `conntrack -h' or 'conntrack --help' for more information.\n";

/** Wrong usage; the tool's text and exit code 2. */
class UsageError extends Error {}

export interface CommandOutput {
  stdout: (text: string) => void;
  stderr: (text: string) => void;
}

/** What -E needs: `onEvent` for each event's record (conntrack/events.ts) until the promise resolves. */
export type Follow = (onEvent: (record: Int32Array) => void) => Promise<void>;
type EventKind = 'NEW' | 'UPDATE' | 'DESTROY';
const KINDS: Readonly<Record<EventType, EventKind | ''>> = {
  [EventType.NEW]: 'NEW',
  [EventType.UPDATE]: 'UPDATE',
  [EventType.DESTROY]: 'DESTROY',
  [EventType.ALL]: '',
};

type Command = 'L' | 'D' | 'F' | 'S' | 'C' | 'E';
/** The tool's commands that hutter has not, and its options that choose by what hutter's connections lack. */
const LACKING: Readonly<Record<string, string>> = {
  I: 'create connections',
  A: 'create connections',
  U: 'change connections',
  G: 'get one connection: list it with -L',
  z: "zero connections' counters",
  l: 'choose by labels',
};
const LONG_COMMANDS: Readonly<Record<string, Command>> = {
  dump: 'L',
  delete: 'D',
  flush: 'F',
  stats: 'S',
  count: 'C',
  event: 'E',
};

/** An address under a mask. */
interface Net {
  address: number;
  mask: number;
}
interface Query {
  command: Command;
  /** Of expectations, not of connections. */
  expect: boolean;
  /** Connections there are none of. */
  ipv6: boolean;
  protocol?: number;
  origSrc?: Net;
  origDst?: Net;
  replySrc?: Net;
  replyDst?: Net;
  /** Translated source, destination; a zero mask asks for any. */
  srcNat?: Net;
  dstNat?: Net;
  anyNat?: Net;
  mark?: { value: number; mask: number };
  status: number;
  /** UNREPLIED asks for the lack of a bit. */
  unreplied: boolean;
  zone?: number;
  origSport?: number;
  origDport?: number;
  replySport?: number;
  replyDport?: number;
  icmpType?: number;
  icmpCode?: number;
  icmpId?: number;
  state?: number;
  events: Set<EventKind>;
  outputs: Set<string>;
}

const PROTOCOLS: Readonly<Record<string, number>> = {
  tcp: Proto.TCP,
  udp: Proto.UDP,
  udplite: Proto.UDPLITE,
  dccp: Proto.DCCP,
  sctp: Proto.SCTP,
  icmp: Proto.ICMP,
  gre: Proto.GRE,
};

/** Runs one conntrack command; the exit code. `follow` serves -E and ends when the client goes. */
export async function runConntrack(
  table: ConntrackTable,
  slots: number,
  argv: readonly string[],
  out: CommandOutput,
  follow: Follow,
): Promise<number> {
  let query: Query;
  try {
    if (argv.length === 0 || argv.includes('-h') || argv.includes('--help')) {
      out.stdout(HELP);
      return 0;
    }
    if (argv.includes('-V') || argv.includes('--version')) {
      out.stdout(`${TOOL}\n`);
      return 0;
    }
    query = parse(argv);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    out.stderr(`${TOOL}: ${error.message}\n${TRY}`);
    return 2;
  }
  return query.expect ? runExpect(table, slots, query.command, out) : runFlows(table, slots, query, out, follow);
}

/** One command about expectations. */
function runExpect(table: ConntrackTable, slots: number, command: Command, out: CommandOutput): number {
  if (command === 'L') {
    let count = 0;
    const e = new Expectation();
    for (let n = nextExpectation(table, -1, e); n >= 0; n = nextExpectation(table, n, e)) {
      out.stdout(`${printExpectation(table, n, e)}\n`);
      count++;
    }
    out.stderr(`${TOOL}: ${count} expectations have been shown.\n`);
  } else if (command === 'F') {
    flushExpectations(table);
    out.stderr(`${TOOL}: expectation table has been emptied.\n`);
  } else if (command === 'C') out.stdout(`${table.expectations()}\n`);
  else showStats(table, slots, Stat.EXPECT_NEW, STAT_NAMES.length, out);
  return 0;
}

/** What each worker has counted, from a figure up to another; each is a CPU of conntrack's. */
function showStats(table: ConntrackTable, slots: number, from: number, to: number, out: CommandOutput): void {
  for (let slot = 0; slot < slots; slot++) {
    const counts = STAT_NAMES.slice(from, to).map((name, i) => `${name}=${table.stat(slot, from + i)} `);
    out.stdout(`cpu=${String(slot).padEnd(4)}\t${counts.join('')}\n`);
  }
}

async function runFlows(
  table: ConntrackTable,
  slots: number,
  query: Query,
  out: CommandOutput,
  follow: Follow,
): Promise<number> {
  switch (query.command) {
    case 'L': {
      let count = 0;
      const words = new Int32Array(ENTRY_WORDS);
      for (let entry = table.next(-1); entry >= 0; entry = table.next(entry)) {
        if (!table.snapshot(entry, words) || !wanted(words, query)) continue;
        out.stdout(flowLine(words, table.expires(entry), entry, query.outputs));
        count++;
      }
      out.stderr(`${TOOL}: ${count} flow entries have been shown.\n`);
      return 0;
    }
    case 'D': {
      let count = 0;
      const words = new Int32Array(ENTRY_WORDS);
      table.online();
      for (let entry = table.next(-1); entry >= 0; entry = table.next(entry)) {
        if (!table.snapshot(entry, words) || !wanted(words, query)) continue;
        const expires = table.expires(entry);
        if (!table.kill(entry)) continue;
        out.stdout(flowLine(words, expires, entry, query.outputs));
        count++;
      }
      table.offline();
      out.stderr(`${TOOL}: ${count} flow entries have been deleted.\n`);
      return count > 0 ? 0 : 1;
    }
    case 'F':
      table.online();
      table.flush();
      table.offline();
      out.stderr(`${TOOL}: connection tracking table has been emptied.\n`);
      return 0;
    case 'C':
      out.stdout(`${table.total()}\n`);
      return 0;
    case 'S':
      showStats(table, slots, Stat.FOUND, Stat.EXPECT_NEW, out);
      return 0;
    case 'E': {
      let count = 0;
      await follow((record) => {
        const kind = KINDS[record[0] as EventType];
        if (kind === '' || !query.events.has(kind) || !wanted(record.subarray(EVENT_ENTRY), query)) return;
        count++;
        const stamp = query.outputs.has('timestamp') ? timestamp() : '';
        out.stdout(`${stamp}${printEvent(record, table.now, query.outputs.has('extended'))}
`);
      });
      out.stderr(`${TOOL}: ${count} flow events have been shown.\n`);
      return 0;
    }
  }
}

/** `-o id`: tells connections apart that use one entry after the other. */
const flowId = (words: Int32Array, entry: number): number =>
  (Math.imul(entry + 1, 0x9e37_79b1) ^ words[Ct.GENERATION]!) >>> 0 || 1;

/** A connection's line; `expires` is what it has left in milliseconds. */
function flowLine(words: Int32Array, expires: number, entry: number, outputs: ReadonlySet<string>): string {
  const line = printConnection(words, {
    counters: true,
    seconds: Math.floor(expires / 1000),
    extended: outputs.has('extended'),
    ...(outputs.has('id') && { id: flowId(words, entry) }),
  });
  return `${line}\n`;
}

/** `-o timestamp`: seconds and microseconds. */
function timestamp(): string {
  const now = Date.now();
  return `[${Math.floor(now / 1000)}.${String((now % 1000) * 1000).padEnd(6, '0')}]\t`;
}

const protocolOf = (words: Int32Array): number => keyProtocol(words[Ct.KEY]!);

function wanted(words: Int32Array, query: Query): boolean {
  const within = (net: Net | undefined, at: number): boolean =>
    net === undefined || (words[at]! & net.mask) === net.address;
  const { status } = query;
  const has = words[Ct.STATUS]! & STATUS_MASK;
  const ports = words[Ct.PORTS]!;
  const replyPorts = words[Ct.REPLY_PORTS]!;
  const is = (asked: number | undefined, value: number): boolean => asked === undefined || asked === value;
  const translated = (net: Net | undefined, bit: Status, at: number): boolean =>
    net === undefined || ((has & bit) !== 0 && within(net, at));
  return (
    !query.ipv6 &&
    is(query.protocol, protocolOf(words)) &&
    within(query.origSrc, Ct.SRC) &&
    within(query.origDst, Ct.DST) &&
    within(query.replySrc, Ct.REPLY_SRC) &&
    within(query.replyDst, Ct.REPLY_DST) &&
    translated(query.srcNat, Status.SRC_NAT, Ct.REPLY_DST) &&
    translated(query.dstNat, Status.DST_NAT, Ct.REPLY_SRC) &&
    (query.anyNat === undefined ||
      translated(query.anyNat, Status.SRC_NAT, Ct.REPLY_DST) ||
      translated(query.anyNat, Status.DST_NAT, Ct.REPLY_SRC)) &&
    (query.mark === undefined || (words[Ct.MARK]! & query.mark.mask) === (query.mark.value & query.mark.mask)) &&
    (has & status) === status &&
    !(query.unreplied && (has & Status.SEEN_REPLY) !== 0) &&
    is(query.zone, words[Ct.KEY]! >>> 16) &&
    is(query.origSport, ports >>> 16) &&
    is(query.origDport, ports & 0xffff) &&
    is(query.replySport, replyPorts >>> 16) &&
    is(query.replyDport, replyPorts & 0xffff) &&
    is(query.icmpType, (ports >> 8) & 0xff) &&
    is(query.icmpCode, ports & 0xff) &&
    is(query.icmpId, ports >>> 16) &&
    is(query.state, words[Ct.PROTO]! & 0xff)
  );
}

/** Long options with a value → their short letter, or a name of our own. */
const LONG: Readonly<Record<string, string>> = {
  create: 'I',
  add: 'A',
  update: 'U',
  get: 'G',
  zero: 'z',
  label: 'l',
  src: 's',
  'orig-src': 's',
  dst: 'd',
  'orig-dst': 'd',
  'reply-src': 'r',
  'reply-dst': 'q',
  protonum: 'p',
  proto: 'p',
  family: 'f',
  status: 'u',
  zone: 'w',
  mark: 'm',
  'event-mask': 'e',
  output: 'o',
  'src-nat': 'n',
  'dst-nat': 'g',
  'any-nat': 'j',
  'buffer-size': 'b',
};
/** Options of a protocol (libct_proto_*.c): known only after -p. */
const PORT_OPTIONS: Readonly<Record<string, 'origSport' | 'origDport' | 'replySport' | 'replyDport'>> = {
  sport: 'origSport',
  'orig-port-src': 'origSport',
  dport: 'origDport',
  'orig-port-dst': 'origDport',
  'reply-port-src': 'replySport',
  'reply-port-dst': 'replyDport',
};
const ICMP_OPTIONS: Readonly<Record<string, 'icmpType' | 'icmpCode' | 'icmpId'>> = {
  'icmp-type': 'icmpType',
  'icmp-code': 'icmpCode',
  'icmp-id': 'icmpId',
};
/** What those are called that have no place with some commands: all but t, b and e choose among connections. */
const NAMES: Readonly<Record<string, string>> = {
  s: 'src',
  d: 'dst',
  r: 'reply-src',
  q: 'reply-dst',
  p: 'protonum',
  u: 'status',
  w: 'zone',
  m: 'mark',
  n: 'src-nat',
  g: 'dst-nat',
  j: 'any-nat',
  t: 'timeout',
  b: 'buffer-size',
  e: 'event-mask',
};
const VALUED = 'sdrqpfuwmeotb';
const OPTIONAL = 'ngj';

function parse(argv: readonly string[]): Query {
  const query: Query = {
    command: 'L',
    expect: false,
    ipv6: false,
    status: 0,
    unreplied: false,
    events: new Set(['NEW', 'UPDATE', 'DESTROY']),
    outputs: new Set(),
  };
  let command: Command | undefined;
  const given: string[] = [];
  const words = [...argv];
  const take = (option: string, joined: string | undefined): string => {
    const value = joined ?? words.shift();
    if (value === undefined) throw new UsageError(`option \`${option}' requires an argument`);
    return value;
  };
  while (words.length > 0) {
    const word = words.shift()!;
    const long = /^--([^=]+)(?:=(.*))?$/.exec(word);
    const short = /^-(\w)(.*)$/.exec(word);
    let letter: string;
    let joined: string | undefined;
    if (long) {
      const name = long[1]!;
      joined = long[2];
      const asCommand = LONG_COMMANDS[name];
      if (asCommand === undefined && LONG[name] === undefined) {
        protocolOption(query, name, take, joined);
        continue;
      }
      letter = asCommand ?? LONG[name]!;
    } else if (short) {
      letter = short[1]!;
      joined = short[2] === '' ? undefined : short[2];
    } else throw new UsageError(`unknown argument \`${word}'`);

    given.push(letter);
    if ('LDFSCE'.includes(letter)) {
      if (command !== undefined) throw new UsageError('Invalid commands combination');
      command = letter as Command;
      const [next] = words;
      if (next !== undefined && !next.startsWith('-')) {
        const table = ['conntrack', 'expect', 'dying', 'unconfirmed'].find((name) => name.startsWith(next));
        if (table === undefined) throw new UsageError(`unknown type \`${next}'`);
        if (table === 'dying' || table === 'unconfirmed')
          throw new UsageError(`hutter has no table \`${table}' to show`);
        query.expect = table === 'expect';
        words.shift();
      }
    } else if (LACKING[letter] !== undefined) throw new UsageError(`hutter can't ${LACKING[letter]}`);
    else if (OPTIONAL.includes(letter)) {
      const value = joined ?? (words[0]?.startsWith('-') === false ? words.shift() : undefined);
      const net = value === undefined ? { address: 0, mask: 0 } : parseNet(value);
      query[({ n: 'srcNat', g: 'dstNat', j: 'anyNat' } as const)[letter as 'n' | 'g' | 'j']] = net;
    } else if (VALUED.includes(letter)) setOption(query, letter, take(word, joined));
    else throw new UsageError(`unknown option \`${word}'`);
  }
  if (command === undefined) throw new UsageError('You need to supply parameters');
  query.command = command;
  if (query.expect && (command === 'D' || command === 'E'))
    throw new UsageError(`hutter can't ${command === 'D' ? 'delete' : 'follow'} expectations`);
  const choosable = !query.expect && (command === 'L' || command === 'D' || command === 'E');
  const illegal = given.find(
    (letter) =>
      (command === 'L' && 'tb'.includes(letter)) ||
      (command !== 'E' && letter === 'e') ||
      (!choosable && NAMES[letter] !== undefined),
  );
  if (illegal !== undefined) throw new UsageError(`Illegal option \`--${NAMES[illegal]}' with this command`);
  return query;
}

function protocolOption(
  query: Query,
  name: string,
  take: (option: string, joined: string | undefined) => string,
  joined: string | undefined,
): void {
  const port = PORT_OPTIONS[name];
  const icmp = ICMP_OPTIONS[name];
  const { protocol } = query;
  if (port && [Proto.TCP, Proto.UDP, Proto.UDPLITE, Proto.SCTP].includes(protocol as Proto))
    query[port] = parseNumber(take(`--${name}`, joined), 65_535);
  else if (icmp && protocol === Proto.ICMP) query[icmp] = parseNumber(take(`--${name}`, joined), 65_535);
  else if (name === 'state' && (protocol === Proto.TCP || protocol === Proto.SCTP)) {
    const text = take('--state', joined);
    const names: readonly string[] = protocol === Proto.TCP ? TCP_STATE_NAMES : SCTP_STATE_NAMES;
    const state = names.indexOf(text);
    if (state < 0) throw new UsageError(`unknown ${protocol === Proto.TCP ? 'TCP' : 'SCTP'} state \`${text}'`);
    query.state = state;
  } else throw new UsageError(`unknown option \`--${name}'`);
}

function setOption(query: Query, letter: string, value: string): void {
  switch (letter) {
    case 's':
      query.origSrc = parseNet(value);
      return;
    case 'd':
      query.origDst = parseNet(value);
      return;
    case 'r':
      query.replySrc = parseNet(value);
      return;
    case 'q':
      query.replyDst = parseNet(value);
      return;
    case 'p': {
      const number = /^\d+$/.test(value) ? Number(value) : PROTOCOLS[value.toLowerCase()];
      if (number === undefined || number > 255) throw new UsageError(`\`${value}' unsupported protocol`);
      query.protocol = number;
      return;
    }
    case 'f':
      if (value !== 'ipv4' && value !== 'ipv6') throw new UsageError(`\`${value}' unsupported protocol`);
      query.ipv6 = value === 'ipv6';
      return;
    case 'm': {
      const parts = /^(0x[0-9a-f]+|\d+)(?:\/(0x[0-9a-f]+|\d+))?$/i.exec(value);
      if (!parts) throw new UsageError(`\`${value}' is not a mark`);
      query.mark = { value: Number(parts[1]) | 0, mask: parts[2] === undefined ? -1 : Number(parts[2]) | 0 };
      return;
    }
    case 'u':
      for (const name of value.split(',')) {
        const bit = STATUS_BITS[name];
        if (bit === undefined && name !== 'UNREPLIED' && name !== 'UNSET')
          throw new UsageError(`Bad parameter \`${name}'`);
        if (bit === undefined) query.unreplied = true;
        else query.status |= bit;
      }
      return;
    case 'w':
      query.zone = parseNumber(value, 65_535);
      return;
    case 'e':
      query.events = new Set();
      for (const name of value.split(',')) {
        if (name === 'ALL') query.events = new Set(['NEW', 'UPDATE', 'DESTROY']);
        else if (name === 'NEW' || name === 'DESTROY') query.events.add(name);
        else if (name === 'UPDATE' || name === 'UPDATES') query.events.add('UPDATE');
        else throw new UsageError(`Bad parameter \`${name}'`);
      }
      return;
    case 'o':
      for (const name of value.split(',')) {
        if (name === 'xml' || name === 'save') throw new UsageError(`hutter can't print connections as \`${name}'`);
        if (!['extended', 'id', 'timestamp', 'ktimestamp', 'labels', 'userspace'].includes(name))
          throw new UsageError(`Bad parameter \`${name}'`);
        query.outputs.add(name);
      }
      return;
    default:
      // -t, -b: of no meaning to what hutter lists.
      return;
  }
}

const STATUS_BITS: Readonly<Record<string, number>> = {
  ASSURED: Status.ASSURED,
  SEEN_REPLY: Status.SEEN_REPLY,
  FIXED_TIMEOUT: Status.FIXED_TIMEOUT,
  EXPECTED: Status.EXPECTED,
  SRC_NAT: Status.SRC_NAT,
  DST_NAT: Status.DST_NAT,
  CONFIRMED: Status.CONFIRMED,
};

function parseNumber(text: string, max: number): number {
  const value = Number(text);
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text) || value > max)
    throw new UsageError(`\`${text}' is not a number up to ${max}`);
  return value;
}

function parseNet(text: string): Net {
  const [host = '', length] = text.split('/');
  const bytes = host.split('.').map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : 256));
  const bits = length === undefined ? 32 : /^\d{1,2}$/.test(length) ? Number(length) : 33;
  if (bytes.length !== 4 || bytes.some((byte) => byte > 255)) throw new UsageError(`Invalid IP address \`${text}'`);
  if (bits > 32) throw new UsageError('Invalid netmask');
  const mask = bits === 0 ? 0 : -1 << (32 - bits);
  const address = (bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!;
  return { address: address & mask, mask };
}

export const HELP = `hutter conntrack: the router's connections, with conntrack-tools' options
Commands:
  -L [options]   list connections           -D [options]   delete those that match
  -E [options]   follow events              -F             forget all connections
  -C             how many there are         -S             statistics of each worker
  -L, -F, -C and -S take the word expect: of what helpers have read to be coming

Options:
  -s, -d, --orig-src, --orig-dst ADDRESS[/LENGTH]   the original direction's addresses
  -r, -q, --reply-src, --reply-dst ADDRESS[/LENGTH] the reply direction's
  -p PROTOCOL                                       tcp, udp, udplite, sctp, icmp, gre or a number; then
     --sport, --dport, --reply-port-src, --reply-port-dst, --state, --icmp-type, --icmp-code, --icmp-id
  -n, -g, -j [ADDRESS]                              translated source, destination, either
  -m MARK[/MASK]   -u STATUS[,...]   -w ZONE   -e NEW,UPDATE,DESTROY   -o extended,id,timestamp
`;
