/**
 * One connection as `conntrack -L`, `-E` and `-D` of conntrack-tools 1.4.7 print it, from a copy of its words
 * (ConntrackTable.snapshot, or an event's record). The control thread's business, not the packets'.
 */
import { Proto } from '../names.js';
import { Change, EVENT_ENTRY, EventType } from './events.js';
import { HELPERS } from './helpers/helpers.js';
import { keyProtocol, keyZone } from './key.js';
import { SCTP_STATE_NAMES, Status, TCP_STATE_NAMES } from './states.js';
import { Ct } from './table.js';

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

function tuple(words: Int32Array, dir: number): string {
  const o = dir * Ct.TUPLE_WORDS;
  const ports = words[o + Ct.PORTS]!;
  const source = ports >>> 16;
  const destination = ports & 0xffff;
  const addresses = `src=${dotted(words[o + Ct.SRC]!)} dst=${dotted(words[o + Ct.DST]!)} `;
  switch (keyProtocol(words[o + Ct.KEY]!)) {
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
    line += tuple(words, dir);
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
