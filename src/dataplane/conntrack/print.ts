/**
 * One connection, or what is expected, as `conntrack -L`, `-E` and `-D` of conntrack-tools 1.4.7 print it, from a copy of its words
 * (ConntrackTable.snapshot, or an event's record). The control thread's business, not the packets'.
 */
import { Proto } from '../names.js';
import { Change, EVENT_ENTRY, EventType } from './events.js';
import { ExpectFlag, type Expectation, expectationMaster } from './expect.js';
import { HELPERS } from './helpers/helpers.js';
import { keyProtocol, keyZone } from './key.js';
import { SCTP_STATE_NAMES, Status, TCP_STATE_NAMES } from './states.js';
import { Ct } from './layout.js';
import type { ConntrackTable } from './table.js';

/** As libnetfilter_conntrack names them. */
const PROTOCOL_NAMES: Readonly<Record<number, string>> = {
  [Proto.ICMP]: 'icmp',
  [Proto.TCP]: 'tcp',
  [Proto.UDP]: 'udp',
  [Proto.DCCP]: 'dccp',
  [Proto.GRE]: 'gre',
  [Proto.SCTP]: 'sctp',
  [Proto.UDPLITE]: 'udplite',
};

export interface PrintOptions {
  /** `-o extended`: the network protocol in front. */
  readonly extended?: boolean;
  /** `-o id`. */
  readonly id?: number;
  /** Packets and bytes, which the kernel shows when nf_conntrack_acct is 1. */
  readonly counters?: boolean;
  /** Seconds left; none are printed when it isn't given. */
  readonly seconds?: number;
  /** As in an event: no mark unless there is one or it was changed, no use count. */
  readonly event?: boolean;
  readonly markChanged?: boolean;
  /** Without the state; without the helper. */
  readonly stateless?: boolean;
  readonly helpless?: boolean;
}

const dotted = (address: number): string =>
  `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;

const hex = (value: number): string => `0x${value.toString(16)}`;

const counter = (words: Int32Array, at: number): number => (words[at + 1]! >>> 0) * 0x1_0000_0000 + (words[at]! >>> 0);

/** Addresses and ports (key.ts); `prefix` stands before the addresses' names. */
function tuple(protocol: number, src: number, dst: number, ports: number, prefix = ''): string {
  const source = ports >>> 16;
  const destination = ports & 0xffff;
  const addresses = `${prefix}src=${dotted(src)} ${prefix}dst=${dotted(dst)} `;
  switch (protocol) {
    case Proto.ICMP:
      return `${addresses}type=${destination >> 8} code=${destination & 255} id=${source} `;
    case Proto.GRE:
      return `${addresses}srckey=${hex(source)} dstkey=${hex(destination)} `;
    case Proto.TCP:
    case Proto.UDP:
    case Proto.UDPLITE:
    case Proto.SCTP:
    case Proto.DCCP:
      return `${addresses}sport=${source} dport=${destination} `;
    default:
      return addresses;
  }
}

/** The line, without its end. */
export function printConnection(words: Int32Array, options: PrintOptions = {}): string {
  const protocol = keyProtocol(words[Ct.KEY]!);
  const status = words[Ct.STATUS]!;
  const zone = keyZone(words[Ct.KEY]!);
  const zoneReply = keyZone(words[Ct.REPLY_KEY]!);
  let line = options.extended === true ? 'ipv4     2 ' : '';
  line += `${(PROTOCOL_NAMES[protocol] ?? 'unknown').padEnd(8)} ${protocol} `;
  if (options.seconds !== undefined) line += `${options.seconds} `;
  const state = words[Ct.PROTO]! & 0xff;
  const names = protocol === Proto.TCP ? TCP_STATE_NAMES : protocol === Proto.SCTP ? SCTP_STATE_NAMES : undefined;
  if (names !== undefined && options.stateless !== true) line += `${names[state] ?? 'NONE'} `;
  for (const dir of [0, 1]) {
    const o = dir * Ct.TUPLE_WORDS;
    line += tuple(protocol, words[o + Ct.SRC]!, words[o + Ct.DST]!, words[o + Ct.PORTS]!);
    const its = dir === 0 ? zone : zoneReply;
    if (zone !== zoneReply && its !== 0) line += `${dir === 0 ? 'zone-orig' : 'zone-reply'}=${its} `;
    if (options.counters === true) {
      const o = Ct.COUNTERS + dir * Ct.COUNTER_WORDS;
      line += `packets=${counter(words, o)} bytes=${counter(words, o + 2)} `;
    }
    if (dir === 0 && (status & Status.SEEN_REPLY) === 0) line += '[UNREPLIED] ';
  }
  if ((status & Status.ASSURED) !== 0) line += '[ASSURED] ';
  const mark = words[Ct.MARK]! >>> 0;
  if (options.event !== true || mark !== 0 || options.markChanged === true) line += `mark=${mark} `;
  if (zone === zoneReply && zone !== 0) line += `zone=${zone} `;
  const helper = words[Ct.HELPER]! & 0xff;
  if (helper !== 0 && options.helpless !== true) line += `helper=${HELPERS[helper]!.name} `;
  if (options.event !== true) line += 'use=1 ';
  if (options.id !== undefined) line += `id=${options.id >>> 0} `;
  return line.trimEnd();
}

const EVENT_NAMES: Readonly<Record<number, string>> = {
  [EventType.NEW]: '    [NEW] ',
  [EventType.UPDATE]: ' [UPDATE] ',
  [EventType.DESTROY]: '[DESTROY] ',
};

/** An event's record (EventRing.take) as `conntrack -E` prints it. `now` is the milliseconds of the tables' clock. */
export function printEvent(record: Int32Array, now: number, extended = false): string {
  const words = record.subarray(EVENT_ENTRY);
  const type = record[0]!;
  // Read a moment after it happened: rounded, it is the second that was.
  const seconds = Math.round(((words[Ct.TIMEOUT]! - now) | 0) / 1000);
  const destroyed = type === EventType.DESTROY;
  return (
    (EVENT_NAMES[type] ?? '') +
    printConnection(words, {
      event: true,
      extended,
      counters: destroyed,
      helpless: destroyed,
      markChanged: !destroyed && (record[1]! & Change.MARK) !== 0,
      stateless: !destroyed && (record[1]! & Change.PROTOINFO) === 0,
      ...(destroyed && seconds <= 0 ? {} : { seconds: Math.max(seconds, 0) }),
    })
  );
}

/** An expectation as `conntrack -L expect` prints it; `number` is its record's, `e` what that holds (nextExpectation). */
export function printExpectation(t: ConntrackTable, number: number, e: Expectation): string {
  const master = expectationMaster(t, number);
  const anyPort = e.sport < 0;
  const { protocol } = e;
  const flags = (e.flags & ExpectFlag.PERMANENT) !== 0 ? ['PERMANENT'] : [];
  if ((e.flags & ExpectFlag.INACTIVE) !== 0) flags.push('INACTIVE');
  return (
    `${Math.floor(e.timeoutMs / 1000)} proto=${protocol} ` +
    tuple(protocol, e.src, e.dst, ((anyPort ? 0 : e.sport) << 16) | e.dport) +
    tuple(protocol, e.srcMask, -1, anyPort ? 0xffff : -1, 'mask-') +
    tuple(t.protocol(master), t.src(master, 0), t.dst(master, 0), t.ports(master, 0), 'master-') +
    (flags.length > 0 ? `${flags.join(',')} ` : '') +
    `class=${e.class} helper=${HELPERS[t.helper(master)]!.name}`
  );
}
