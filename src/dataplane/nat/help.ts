/**
 * Helpers at work (nf_confirm in net/netfilter/nf_conntrack_proto.c; nf_conntrack_ftp.c, nf_nat_ftp.c and the like for
 * the others): behind the last hook, before the confirmation, a packet of a connection with a helper is read. What it
 * announces is expected, and where the connection is translated the announcement is rewritten to the address that the
 * other side knows. Then sequence numbers are adjusted to earlier rewritings. An expected connection is translated as
 * its master is, before any rule sees it.
 *
 * One Helpers a worker: it holds the records that the work needs.
 */
import {
  endCall,
  expect,
  Expectation,
  ExpectFlag,
  expectNothing,
  ExpectResult,
  Follow,
  helperData,
  listCall,
} from '../conntrack/expect.js';
import * as amanda from '../conntrack/helpers/amanda.js';
import * as ftp from '../conntrack/helpers/ftp.js';
import { FTP_WORDS, FtpMatch, Found } from '../conntrack/helpers/ftp.js';
import { Helper, HELPERS } from '../conntrack/helpers/helpers.js';
import * as irc from '../conntrack/helpers/irc.js';
import * as pptp from '../conntrack/helpers/pptp.js';
import * as sane from '../conntrack/helpers/sane.js';
import { decimal } from '../conntrack/helpers/text.js';
import * as tftp from '../conntrack/helpers/tftp.js';
import { Status } from '../conntrack/states.js';
import { Ct } from '../conntrack/layout.js';
import type { ConntrackTable } from '../conntrack/table.js';
import type { Tracker } from '../conntrack/track.js';
import type { Interfaces } from '../interfaces.js';
import { CtState, Dir, Hook, Manip, Proto, Verdict } from '../names.js';
import type { Packet } from '../packet.js';
import { u32 } from '../wire/bytes.js';
import { expectAtFreePort } from './announced.js';
import type { Nat } from './bind.js';
import { renumber, replacePayload, replaceTcpPayload, roomFor, tcpHeaderLength } from './payload.js';
import { RangeFlag } from './range.js';
import { followSignalling, Sip } from './sip.js';

const TCP_SEQ = 4;
const TCP_HEADER = 20;
const UDP_HEADER = 8;
const NEWLINE = 0x0a;
/** No announcement is longer. */
const TEXT = 32;

export class Helpers {
  readonly expectation = new Expectation();
  readonly ftp = new FtpMatch();
  readonly irc = new irc.IrcMatch();
  readonly amanda = new amanda.AmandaMatch();
  readonly sip: Sip;
  readonly text = new Uint8Array(TEXT);
  /** Packets that a helper has dropped: an announcement in pieces, or one that can't be carried out. */
  dropped = 0;

  /** @param interfaces who knows broadcast addresses; without it nobody answers to one */
  constructor(
    readonly nat: Nat,
    readonly interfaces?: Pick<Interfaces, 'broadcastMask'>,
  ) {
    this.sip = new Sip(nat);
  }
}

/** Lets expected connections follow their masters' translation. */
export function followExpected(nat: Nat, tracker: Tracker): void {
  const pair = new Expectation();
  tracker.onExpected = ({ expectation }, entry, master) => {
    // Of a call's two directions one has come.
    if (expectation.protocol === Proto.GRE) expectNothing(nat.table, master);
    if (expectation.nat === Follow.MASTER) follow(nat, expectation, entry, master);
    else if (expectation.nat === Follow.SIGNALLING) followSignalling(nat, expectation, pair, entry, master);
  };
}

/**
 * nf_nat_follow_master: from where the master's packets of that direction go, to where they come from. pptp_nat_expected: a call id
 * is the client's, so a call's first packet from there has its source's changed.
 */
function follow(nat: Nat, e: Expectation, entry: number, master: number): void {
  const table = nat.table;
  const port = e.savedPort;
  const specified = RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED;
  const bySource = e.protocol === Proto.GRE && e.dir === Dir.ORIGINAL;
  const from = table.dst(master, e.dir ^ 1);
  nat.bind(entry, Manip.SRC, bySource ? specified : RangeFlag.MAP_IPS, from, from, port, port, 0);
  const to = table.src(master, e.dir ^ 1);
  nat.bind(entry, Manip.DST, bySource ? RangeFlag.MAP_IPS : specified, to, to, port, port, 0);
}

/**
 * The packet is about to leave: its helper reads it, and its sequence numbers are adjusted. `loopback`: it comes in by
 * the loopback interface, and was adjusted when it went out. Returns Verdict.
 */
export function help(h: Helpers, p: Packet, loopback: boolean): Verdict {
  if (p.ct < 0) return Verdict.ACCEPT;
  const table = h.nat.table;
  const e = table.at(p.ct);
  const helper: Helper = table.words[e + Ct.HELPER]! & 0xff;
  const adjust = !loopback && (table.words[e + Ct.STATUS]! & Status.SEQ_ADJUST) !== 0;
  if (helper === Helper.NONE && !adjust) return Verdict.ACCEPT;
  // An error about the connection is no part of it.
  if (p.ctState === CtState.RELATED && p.protocol === Proto.ICMP) {
    // But one about an answer counts for the kernel as a message.
    if (helper === Helper.SIP && p.ctDir === Dir.ORIGINAL) table.refresh(p.ct, SIGNALLING_MS);
    return Verdict.ACCEPT;
  }
  let verdict = Verdict.ACCEPT;
  if (helper === Helper.FTP) verdict = helpFtp(h, table, p);
  else if (helper === Helper.TFTP) verdict = helpTftp(h, table, p);
  else if (helper === Helper.IRC) verdict = helpIrc(h, table, p);
  else if (helper === Helper.NETBIOS_NS || helper === Helper.SNMP) helpBroadcast(h, table, p, helper);
  else if (helper === Helper.AMANDA) verdict = helpAmanda(h, table, p);
  else if (helper === Helper.SANE) verdict = helpSane(h, table, p);
  else if (helper === Helper.PPTP) verdict = helpPptp(h, table, p);
  else if (helper === Helper.SIP || helper === Helper.SIP_TCP) verdict = helpSip(h, table, p);
  if (verdict === Verdict.ACCEPT && adjust && !renumber(table, p)) verdict = Verdict.DROP;
  if (verdict !== Verdict.ACCEPT) h.dropped++;
  return verdict;
}

/** Offset of a TCP segment's payload; −1 when there is none. */
function tcpPayload(p: Packet): number {
  if (p.protocol !== Proto.TCP || p.l4Length < TCP_HEADER) return -1;
  const o = p.l4 + tcpHeaderLength(p);
  return o < p.end ? o : -1;
}

/** Begins an expectation of the other direction's end: `dport` at what the packet's sender is on the other side. */
function prepare(
  h: Helpers,
  table: ConntrackTable,
  p: Packet,
  helper: Helper,
  dir: number,
  dport: number,
): Expectation {
  const e = h.expectation;
  e.src = table.src(p.ct, dir ^ 1);
  e.srcMask = -1;
  e.dst = table.dst(p.ct, dir ^ 1);
  e.sport = -1;
  e.dport = dport;
  e.protocol = HELPERS[helper]!.protocol;
  e.dir = dir ^ 1;
  e.class = 0;
  e.flags = 0;
  e.helper = Helper.NONE;
  e.timeoutMs = HELPERS[helper]!.timeoutMs;
  e.maxExpected = HELPERS[helper]!.maxExpected;
  e.savedAddress = 0;
  e.savedPort = dport;
  e.nat = Follow.NOTHING;
  return e;
}

const expected = (table: ConntrackTable, p: Packet, e: Expectation): Verdict =>
  expect(table, p.ct, e) === ExpectResult.ADDED ? Verdict.ACCEPT : Verdict.DROP;

function helpFtp(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  // Until there was traffic both ways nobody has anything to announce.
  if (p.ctState !== CtState.ESTABLISHED) return Verdict.ACCEPT;
  const payload = tcpPayload(p);
  if (payload < 0) return Verdict.ACCEPT;
  const data = helperData(table, p.ct);
  if (data < 0) return Verdict.ACCEPT;
  const at = data + p.ctDir * FTP_WORDS;
  const seq = u32(p.bytes, p.l4 + TCP_SEQ);
  const nextLine = p.bytes[p.end - 1] === NEWLINE;
  const next = (seq + p.end - payload) | 0;

  table.lockEntry(p.ct);
  const begins = ftp.beginsLine(table.words, at, seq);
  table.unlockEntry(p.ct);
  if (begins) {
    const m = h.ftp;
    m.address = table.src(p.ct, p.ctDir);
    const found = ftp.search(p.bytes, payload, p.end, p.ctDir, m);
    if (found === Found.PARTIAL) return Verdict.DROP;
    // Another address than the sender's own would let it open holes to others (the kernel's loose=0).
    if (found === Found.MATCH && m.address === table.src(p.ct, p.ctDir)) {
      if (announceFtp(h, table, p) !== Verdict.ACCEPT) return Verdict.DROP;
    }
  }
  if (nextLine) {
    table.lockEntry(p.ct);
    ftp.rememberLine(table.words, at, next);
    table.unlockEntry(p.ct);
  }
  return Verdict.ACCEPT;
}

function announceFtp(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  const m = h.ftp;
  const e = prepare(h, table, p, Helper.FTP, p.ctDir, m.port);
  if ((table.status(p.ct) & Status.NAT_MASK) === 0) return expected(table, p, e);
  if (!roomFor(p, TEXT)) return Verdict.DROP;
  e.nat = Follow.MASTER;
  const port = expectAtFreePort(h.nat, p.ct, e);
  if (port === 0) return Verdict.DROP;
  const length = ftp.write(h.text, m.kind, e.dst, port);
  return replaceTcpPayload(table, p, m.offset, m.length, h.text, length) ? Verdict.ACCEPT : Verdict.DROP;
}

function helpTftp(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  if (p.protocol !== Proto.UDP || !tftp.isRequest(p.bytes, p.l4 + UDP_HEADER, p.end)) return Verdict.ACCEPT;
  // Always the client's port as the server sees it, whoever sent this.
  const e = prepare(h, table, p, Helper.TFTP, Dir.ORIGINAL, table.ports(p.ct, Dir.REPLY) & 0xffff);
  if ((table.status(p.ct) & Status.NAT_MASK) !== 0) {
    e.nat = Follow.MASTER;
    e.savedPort = table.ports(p.ct, Dir.ORIGINAL) >>> 16;
  }
  return expected(table, p, e);
}

/**
 * nf_conntrack_broadcast_help(): what a process of the router asks all hosts of a subnet is answered by each from its own
 * address.
 */
function helpBroadcast(h: Helpers, table: ConntrackTable, p: Packet, helper: Helper): void {
  if (p.hook !== Hook.OUTPUT || p.ctDir !== Dir.ORIGINAL) return;
  const mask = h.interfaces?.broadcastMask(p.outdev, p.dst) ?? 0;
  if (mask === 0) return;
  const e = prepare(h, table, p, helper, Dir.ORIGINAL, table.ports(p.ct, Dir.REPLY) & 0xffff);
  e.srcMask = mask;
  e.sport = HELPERS[helper]!.port;
  e.flags = ExpectFlag.PERMANENT;
  expect(table, p.ct, e);
  table.refresh(p.ct, HELPERS[helper]!.timeoutMs);
}

function helpIrc(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  if (p.ctDir !== Dir.ORIGINAL || p.ctState !== CtState.ESTABLISHED) return Verdict.ACCEPT;
  const payload = tcpPayload(p);
  if (payload < 0) return Verdict.ACCEPT;
  const m = h.irc;
  const mapped = table.dst(p.ct, Dir.REPLY);
  if (!irc.search(p.bytes, payload, p.end, table.src(p.ct, Dir.ORIGINAL), mapped, m)) return Verdict.ACCEPT;
  const e = prepare(h, table, p, Helper.IRC, Dir.ORIGINAL, m.port);
  // Anybody may come: the one that the request is for is no part of this connection.
  e.src = 0;
  e.srcMask = 0;
  if ((table.status(p.ct) & Status.NAT_MASK) === 0) return expected(table, p, e);
  if (!roomFor(p, TEXT)) return Verdict.DROP;
  e.nat = Follow.MASTER;
  const port = expectAtFreePort(h.nat, p.ct, e);
  if (port === 0) return Verdict.DROP;
  const length = irc.write(h.text, mapped, port);
  return replaceTcpPayload(table, p, m.offset, m.length, h.text, length) ? Verdict.ACCEPT : Verdict.DROP;
}

/** Answers can take their time. */
const AMANDA_MS = 300_000;

function helpAmanda(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  if (p.ctDir === Dir.ORIGINAL || p.protocol !== Proto.UDP) return Verdict.ACCEPT;
  table.refresh(p.ct, AMANDA_MS);
  const m = h.amanda;
  for (let stream = 0; stream < amanda.STREAM_COUNT; stream++) {
    if (!amanda.search(p.bytes, p.l4 + UDP_HEADER, p.end, stream, m)) continue;
    if (m.port === 0) break;
    const e = prepare(h, table, p, Helper.AMANDA, Dir.REPLY, m.port);
    e.protocol = Proto.TCP;
    if ((table.status(p.ct) & Status.NAT_MASK) === 0) {
      if (expected(table, p, e) !== Verdict.ACCEPT) return Verdict.DROP;
      continue;
    }
    if (!roomFor(p, TEXT)) return Verdict.DROP;
    e.nat = Follow.MASTER;
    const port = expectAtFreePort(h.nat, p.ct, e);
    if (port === 0) return Verdict.DROP;
    if (!replacePayload(p, m.offset, m.length, h.text, decimal(h.text, 0, port))) return Verdict.DROP;
  }
  return Verdict.ACCEPT;
}

function helpSane(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  if (p.ctState !== CtState.ESTABLISHED) return Verdict.ACCEPT;
  const payload = tcpPayload(p);
  if (payload < 0) return Verdict.ACCEPT;
  const data = helperData(table, p.ct);
  if (data < 0) return Verdict.ACCEPT;
  const { words } = table;
  if (p.ctDir === Dir.ORIGINAL) {
    const starts = sane.isStart(p.bytes, payload, p.end);
    if (starts >= 0) words[data] = starts;
    return Verdict.ACCEPT;
  }
  if (words[data] === 0) return Verdict.ACCEPT;
  words[data] = 0;
  const port = sane.portOf(p.bytes, payload, p.end);
  // As in the kernel, it doesn't follow the master's translation.
  return port < 0 ? Verdict.ACCEPT : expected(table, p, prepare(h, table, p, Helper.SANE, Dir.REPLY, port));
}

/** sip_timeout: signalling is quiet while people talk. */
const SIGNALLING_MS = 3_600_000;

function helpSip(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  if (p.protocol === Proto.TCP && p.ctState !== CtState.ESTABLISHED) return Verdict.ACCEPT;
  const payload = p.protocol === Proto.TCP ? tcpPayload(p) : p.l4 + UDP_HEADER;
  if (payload < 0 || payload >= p.end) return Verdict.ACCEPT;
  table.refresh(p.ct, SIGNALLING_MS);
  return h.sip.read(p, payload);
}

function helpPptp(h: Helpers, table: ConntrackTable, p: Packet): Verdict {
  if (p.ctState !== CtState.ESTABLISHED) return Verdict.ACCEPT;
  const payload = tcpPayload(p);
  if (payload < 0) return Verdict.ACCEPT;
  const message = pptp.messageOf(p.bytes, payload, p.end);
  if (message === 0) return Verdict.ACCEPT;
  const data = helperData(table, p.ct);
  if (data < 0) return Verdict.ACCEPT;
  const { words } = table;
  const body = payload + pptp.BODY;
  const translated = (table.status(p.ct) & Status.NAT_MASK) !== 0;
  const client = p.ctDir === Dir.ORIGINAL;

  table.lockEntry(p.ct);
  const outcome = (client ? pptp.fromClient : pptp.fromServer)(words, data, message, p.bytes, body);
  if (client && message === pptp.Message.OUT_CALL_REQUEST && outcome !== pptp.Outcome.INVALID && translated) {
    // The client's id is known to be free on the other side if it is the connection's port there.
    pptp.setClientCall(words, data + pptp.Data.NAT_CALLS, pptp.clientCall(words[data + pptp.Data.CALLS]!));
    pptp.setClientCall(words, data + pptp.Data.CALLS, table.ports(p.ct, Dir.REPLY) & 0xffff);
  }
  const calls = words[data + pptp.Data.CALLS]!;
  const inside = translated ? pptp.clientCall(words[data + pptp.Data.NAT_CALLS]!) : pptp.clientCall(calls);
  table.unlockEntry(p.ct);

  if (outcome === pptp.Outcome.INVALID) return Verdict.ACCEPT;
  if (outcome === pptp.Outcome.END) endCall(table, p.ct);
  if (outcome === pptp.Outcome.CALL) expectCall(h, table, p, data, inside, calls, translated);
  if (!translated) return Verdict.ACCEPT;
  const at = client ? pptp.ownIdAt(message) : pptp.peersIdAt(message);
  if (at < 0) return Verdict.ACCEPT;
  const id = client ? pptp.clientCall(calls) : inside;
  h.text[0] = id >> 8;
  h.text[1] = id & 0xff;
  return replacePayload(p, body + at, 2, h.text, 2) ? Verdict.ACCEPT : Verdict.DROP;
}

/** exp_gre(): packets of a call, whoever begins. `inside`: the client's id as the client knows it. */
function expectCall(
  h: Helpers,
  table: ConntrackTable,
  p: Packet,
  data: number,
  inside: number,
  calls: number,
  translated: boolean,
): void {
  const server = pptp.serverCall(calls);
  const outside = pptp.clientCall(calls);
  for (let dir = Dir.ORIGINAL as number; dir <= Dir.REPLY; dir++) {
    const e = prepare(h, table, p, Helper.PPTP, dir ^ 1, dir === Dir.ORIGINAL ? server : outside);
    e.protocol = Proto.GRE;
    e.sport = dir === Dir.ORIGINAL ? inside : server;
    e.nat = translated ? Follow.MASTER : Follow.NOTHING;
    e.savedPort = dir === Dir.ORIGINAL ? outside : inside;
    if (expected(table, p, e) !== Verdict.ACCEPT) return dir === Dir.REPLY ? expectNothing(table, p.ct) : undefined;
  }
  if (!listCall(table, data, (inside << 16) | server, (server << 16) | outside)) expectNothing(table, p.ct);
}
