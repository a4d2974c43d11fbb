/**
 * The SIP helper at work (net/netfilter/nf_conntrack_sip.c, nf_nat_sip.c; the kernel's parameters at their defaults). What a phone says
 * of itself in REGISTER makes its registrar's calls expected; what both ends say of their media in SDP makes those expected (RTP at an even
 * port, RTCP at the next), from the other end of the signalling alone. Where the connection is translated, addresses that are its ends are
 * rewritten in the first line, in Via, Contact, From and To, and media get ports that are free outside.
 *
 * One Sip a worker: it holds the message under work. As that grows its beginning moves towards the headroom, its end stays.
 */
import {
  expect,
  Expectation,
  ExpectFlag,
  ExpectResult,
  expectNothing,
  findExpectation,
  findTranslated,
  Follow,
  helperData,
  refreshExpectation,
  withdraw,
} from '../conntrack/expect.js';
import { findLine, Line, MEDIA_COUNT, mediumClass, TYPE_LENGTH } from '../conntrack/helpers/sdp.js';
import * as sip from '../conntrack/helpers/sip.js';
import { Class, Data, Found, Header, MAX_EXPECTED, Message, Method } from '../conntrack/helpers/sip.js';
import { decimal, dotted } from '../conntrack/helpers/text.js';
import { adjustSequence } from '../conntrack/seqadj.js';
import { Status } from '../conntrack/states.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { Dir, Manip, Proto, Verdict } from '../names.js';
import { Packet } from '../packet.js';
import { u32 } from '../wire/bytes.js';
import { expectAtFreePort } from './announced.js';
import type { Nat } from './bind.js';
import { replacePayload } from './payload.js';
import { RangeFlag } from './range.js';
import { rewrite } from './rewrite.js';

const EXPECTATION_MS = 180_000;
/** A longer registration would not fit the table's clock. */
const MAX_EXPIRES_S = 2_000_000;
/** Media are not expected by name, but by class. */
const MEDIA = (1 << Class.AUDIO) | (1 << Class.VIDEO) | (1 << Class.IMAGE);
const SIGNALLING = 1 << Class.SIGNALLING;
const COLON = 0x3a;
/** `255.255.255.255:65535` is the longest that is written. */
const TEXT = 21;
const TCP_SEQ = 4;
const UDP_HEADER = 8;

export class Sip {
  private readonly m = new Message();
  private readonly text = new Uint8Array(TEXT);
  private readonly rtp = new Expectation();
  private readonly rtcp = new Expectation();
  /** One that is there already. */
  private readonly other = new Expectation();

  private p = new Packet();
  /** Offset of the connection's Data in the table's words. */
  private data = 0;
  private translated = false;
  /** The packet's ends as its sender knows them, and what they are for its receiver. */
  private src = 0;
  private sport = 0;
  private dst = 0;
  private dport = 0;
  private mappedSrc = 0;
  private mappedSport = 0;
  private mappedDst = 0;
  private mappedDport = 0;
  /** Where the media of a description shall go. */
  private mediaAddress = 0;

  private readonly table: ConntrackTable;

  constructor(private readonly nat: Nat) {
    this.table = nat.table;
  }

  /** Reads the payload at `payload` of a packet with a connection; what is dropped the kernel drops, too. */
  read(p: Packet, payload: number): Verdict {
    const { table, m } = this;
    if (p.end - payload < sip.LEAST) return Verdict.ACCEPT;
    const data = helperData(table, p.ct);
    if (data < 0) return Verdict.ACCEPT;
    const other = p.ctDir ^ 1;
    const ports = table.ports(p.ct, p.ctDir);
    const mapped = table.ports(p.ct, other);
    this.p = p;
    this.data = data;
    this.translated = (table.status(p.ct) & Status.NAT_MASK) !== 0;
    this.src = table.src(p.ct, p.ctDir);
    this.sport = ports >>> 16;
    this.dst = table.dst(p.ct, p.ctDir);
    this.dport = ports & 0xffff;
    this.mappedSrc = table.dst(p.ct, other);
    this.mappedSport = mapped & 0xffff;
    this.mappedDst = table.src(p.ct, other);
    this.mappedDport = mapped >>> 16;
    m.bytes = p.bytes;
    m.start = payload;
    m.end = p.end;
    return p.protocol === Proto.TCP ? this.stream() : this.message();
  }

  /** The messages in a segment; a last one that isn't whole is left alone. */
  private stream(): Verdict {
    const { table, m, p } = this;
    const before = p.length;
    for (;;) {
      m.end = p.end;
      const end = sip.messageEnd(m);
      // The kernel forgets here what it has changed in messages before it.
      if (end === sip.Ends.LATER) return Verdict.ACCEPT;
      if (end === sip.Ends.UNKNOWN) break;
      m.end = end;
      const verdict = this.message();
      if (verdict !== Verdict.ACCEPT) return verdict;
      m.start = end;
    }
    if (p.length !== before) {
      table.lockEntry(p.ct);
      adjustSequence(table, p.ct, p.ctDir, u32(p.bytes, p.l4 + TCP_SEQ), p.length - before);
      table.unlockEntry(p.ct);
    }
    return Verdict.ACCEPT;
  }

  private message(): Verdict {
    const verdict = sip.isResponse(this.m) ? this.response() : this.request();
    if (verdict !== Verdict.ACCEPT || !this.translated) return verdict;
    return this.translate() ? Verdict.ACCEPT : Verdict.DROP;
  }

  private request(): Verdict {
    const { m, data } = this;
    const { words } = this.table;
    if (sip.firstUri(m, Header.VIA_UDP) && m.port !== this.sport && m.address === this.src) {
      words[data + Data.FORCED_PORT] = m.port;
    }
    const method = sip.requestMethod(m);
    if (method === Method.NONE) return Verdict.ACCEPT;
    if (!this.sequence()) return Verdict.DROP;
    const cseq = m.number | 0;
    switch (method) {
      case Method.INVITE: {
        expectNothing(this.table, this.p.ct, MEDIA);
        const verdict = this.description();
        if (verdict === Verdict.ACCEPT) words[data + Data.INVITE_CSEQ] = cseq;
        return verdict;
      }
      case Method.BYE:
        expectNothing(this.table, this.p.ct, MEDIA);
        return Verdict.ACCEPT;
      case Method.REGISTER:
        return this.register(cseq);
      default:
        return this.description();
    }
  }

  private response(): Verdict {
    const { m, data } = this;
    const { words } = this.table;
    if (m.end - m.start < sip.LEAST) return Verdict.ACCEPT;
    if (!sip.readStatus(m) || m.number === 0) return Verdict.DROP;
    const status = m.number;
    if (!this.sequence()) return Verdict.DROP;
    const cseq = m.number | 0;
    switch (sip.answeredMethod(m)) {
      case Method.INVITE:
      case Method.UPDATE:
      case Method.PRACK:
        if (status >= 100 && status <= 299) return this.description();
        if (words[data + Data.INVITE_CSEQ] === cseq) expectNothing(this.table, this.p.ct, MEDIA);
        return Verdict.ACCEPT;
      case Method.REGISTER:
        return this.registered(status, cseq);
      default:
        return Verdict.ACCEPT;
    }
  }

  /** Reads the number of CSeq. */
  private sequence(): boolean {
    return sip.findHeader(this.m, 0, Header.CSEQ) === Found.YES && sip.foundNumber(this.m);
  }

  /** Seconds that Expires says, 0 without. */
  private expires(): number {
    return sip.findHeader(this.m, 0, Header.EXPIRES) === Found.YES && sip.foundNumber(this.m) ? this.m.number : 0;
  }

  // ---- registrations --------------------------------------------------------------------------------------------------

  /** Where the phone wants to be called, which is expected for good, and not before the registrar has said yes. */
  private register(cseq: number): Verdict {
    const { table, m, p } = this;
    // An expected connection can't register again.
    if ((table.status(p.ct) & Status.EXPECTED) !== 0) return Verdict.ACCEPT;
    let expires = this.expires();
    if (!sip.firstUri(m, Header.CONTACT)) return Verdict.ACCEPT;
    const { offset, length, address, port } = m;
    // For itself alone.
    if (address !== this.src || !sip.sameTransport(m, offset + length, p.protocol === Proto.TCP)) return Verdict.ACCEPT;
    const found = sip.numberParameter(m, offset + length, sip.EXPIRES);
    if (found === Found.UNREADABLE) return Verdict.DROP;
    if (found === Found.YES) expires = m.number;
    if (expires !== 0) {
      const e = this.prepare(this.rtp, Class.SIGNALLING, address, port);
      e.protocol = p.protocol;
      e.helper = table.helper(p.ct);
      e.flags = ExpectFlag.PERMANENT | ExpectFlag.INACTIVE;
      const done = this.translated
        ? this.expectCalls(e, offset, length)
        : expect(table, p.ct, e) === ExpectResult.ADDED;
      if (!done) return Verdict.DROP;
    }
    table.words[this.data + Data.REGISTER_CSEQ] = cseq;
    return Verdict.ACCEPT;
  }

  /** Expects calls at a port that is free outside, and writes that into Contact. */
  private expectCalls(e: Expectation, offset: number, length: number): boolean {
    const { table, p } = this;
    const forced = table.words[this.data + Data.FORCED_PORT]!;
    const { dst, dport } = e;
    this.follow(e);
    if (dport === (forced === 0 ? this.sport : forced)) e.dport = this.mappedSport;
    if (expectAtFreePort(this.nat, p.ct, e) === 0) return false;
    if (e.dst === dst && e.dport === dport) return true;
    if (this.replace(offset, length, this.writeEnd(e.dst, e.dport))) return true;
    withdraw(table, p.ct, e);
    return false;
  }

  /** The registrar's answer lists where the phone can be called, and for how long. */
  private registered(status: number, cseq: number): Verdict {
    const { table, m, p } = this;
    // Late answers to requests that were repeated.
    if (table.words[this.data + Data.REGISTER_CSEQ] !== cseq) return Verdict.ACCEPT;
    if (status >= 100 && status <= 199) return Verdict.ACCEPT;
    if (status >= 200 && status <= 299) {
      const expires = this.expires();
      sip.beginUris(m);
      while (sip.nextUri(m, Header.CONTACT)) {
        const { address, port } = m;
        const behind = m.offset + m.length;
        if (address !== this.dst || !sip.sameTransport(m, behind, p.protocol === Proto.TCP)) continue;
        const found = sip.numberParameter(m, behind, sip.EXPIRES);
        if (found === Found.UNREADABLE) return Verdict.DROP;
        const seconds = found === Found.YES ? m.number : expires;
        if (seconds === 0) break;
        const ms = Math.min(seconds, MAX_EXPIRES_S) * 1000;
        if (refreshExpectation(table, p.ct, Class.SIGNALLING, address, port, p.protocol, ms)) return Verdict.ACCEPT;
      }
    }
    expectNothing(table, p.ct, SIGNALLING);
    return Verdict.ACCEPT;
  }

  // ---- media ----------------------------------------------------------------------------------------------------------

  /** Expects the media of a message's session description, if it has one. */
  private description(): Verdict {
    const { m, translated } = this;
    if (findLine(m, 0, Line.VERSION, Line.NONE) !== Found.YES) return Verdict.ACCEPT;
    const session = m.offset;
    const hasCommon = findLine(m, session, Line.CONNECTION, Line.MEDIA) === Found.YES;
    const common = m.address;
    let known = hasCommon;
    this.mediaAddress = common;
    let at = session;
    for (let media = 0; media < MEDIA_COUNT && findLine(m, at, Line.MEDIA, Line.NONE) === Found.YES;) {
      const itsClass = mediumClass(m);
      at = m.offset;
      const { length } = m;
      if (itsClass < 0) {
        at += length;
        continue;
      }
      // Port 0: the medium isn't used.
      if (!sip.foundNumber(m) || m.number === 0) continue;
      const port = m.number;
      if (port < 1024 || port > 65535) return Verdict.DROP;
      const hasOwn = findLine(m, at, Line.CONNECTION, Line.MEDIA) === Found.YES;
      if (!hasOwn && !hasCommon) return Verdict.DROP;
      this.mediaAddress = hasOwn ? m.address : common;
      known = true;
      if (!this.expectMedium(itsClass as Class, port, at, length)) return Verdict.DROP;
      if (hasOwn && translated) {
        if (this.setAddress(at, Line.CONNECTION) !== Found.YES || !this.setContentLength()) return Verdict.DROP;
      }
      media++;
    }
    if (!translated || !known) return Verdict.ACCEPT;
    if (this.setAddress(session, Line.OWNER) !== Found.YES) return Verdict.DROP;
    if (this.setAddress(session, Line.CONNECTION) === Found.UNREADABLE) return Verdict.DROP;
    return this.setContentLength() ? Verdict.ACCEPT : Verdict.DROP;
  }

  /** set_expected_rtp_rtcp: the port's text is at `offset`. */
  private expectMedium(itsClass: Class, wanted: number, offset: number, length: number): boolean {
    const { table, p, other } = this;
    // Media of somebody else are none of the helper's business (direct_media).
    if (this.mediaAddress !== this.src) return true;
    // Another call of the same phone may have it expected. Where both are translated, both ends may be inside, and reach each other directly.
    let port = wanted;
    let direct = false;
    let expected = false;
    while (!expected) {
      const zone = table.zone(p.ct, 0);
      const master = findExpectation(table, this.mappedDst, this.mediaAddress, port, Proto.UDP, zone, other);
      if (master < 0 || master === p.ct || table.helper(master) !== table.helper(p.ct) || other.class !== itsClass)
        break;
      if (!direct && this.translated && (other.savedAddress !== other.dst || other.savedPort !== other.dport)) {
        this.mediaAddress = other.savedAddress;
        port = other.savedPort;
        direct = true;
      } else expected = true;
    }
    port &= ~1;
    if (direct && !this.setPort(offset, length, port)) return false;
    if (expected) return true;

    const rtp = this.prepare(this.rtp, itsClass, this.mediaAddress, port);
    const rtcp = this.prepare(this.rtcp, itsClass, this.mediaAddress, port + 1);
    if (this.translated && !direct) return this.expectTranslated(rtp, rtcp, offset, length);
    // Another medium or connection with the same ends will do.
    const first = expect(table, p.ct, rtp, true);
    if (first !== ExpectResult.ADDED && first !== ExpectResult.EXISTS) return false;
    const second = expect(table, p.ct, rtcp, true);
    if (second === ExpectResult.ADDED || second === ExpectResult.EXISTS) return true;
    if (first === ExpectResult.ADDED) withdraw(table, p.ct, rtp);
    return false;
  }

  /** Expects a medium at a pair of ports that is free outside (nf_nat_sdp_media). */
  private expectTranslated(rtp: Expectation, rtcp: Expectation, offset: number, length: number): boolean {
    const { table, p } = this;
    const first = rtp.dport;
    this.follow(rtp);
    this.follow(rtcp);
    this.mediaAddress = rtp.dst;
    let port = first;
    for (; ; port += 2) {
      // Port 0 is nobody's: there the kernel's search ends.
      if (port === 0 || port > 65535) return false;
      rtp.dport = port;
      let result = expect(table, p.ct, rtp, true);
      if (result === ExpectResult.BUSY) continue;
      if (result !== ExpectResult.ADDED) return false;
      rtcp.dport = port + 1;
      result = expect(table, p.ct, rtcp, true);
      if (result === ExpectResult.ADDED) break;
      withdraw(table, p.ct, rtp);
      if (result !== ExpectResult.BUSY) return false;
    }
    if (port === first || this.setPort(offset, length, port)) return true;
    withdraw(table, p.ct, rtp);
    withdraw(table, p.ct, rtcp);
    return false;
  }

  /** From the other end of the signalling to `dst`. */
  private prepare(e: Expectation, itsClass: Class, dst: number, dport: number): Expectation {
    e.src = this.mappedDst;
    e.srcMask = -1;
    e.dst = dst;
    e.sport = -1;
    e.dport = dport;
    e.protocol = Proto.UDP;
    e.dir = 0;
    e.class = itsClass;
    e.flags = 0;
    e.helper = 0;
    e.timeoutMs = EXPECTATION_MS;
    e.maxExpected = MAX_EXPECTED[itsClass]!;
    e.savedAddress = 0;
    e.savedPort = 0;
    e.nat = Follow.NOTHING;
    return e;
  }

  /** What comes to the translated address goes to where `e` was for. */
  private follow(e: Expectation): void {
    e.savedAddress = e.dst;
    e.savedPort = e.dport;
    if (this.src !== this.mappedSrc) e.dst = this.mappedSrc;
    e.dir = this.p.ctDir ^ 1;
    e.nat = Follow.SIGNALLING;
  }

  // ---- rewriting ------------------------------------------------------------------------------------------------------

  /** Replaces addresses that are an end of this connection by what that is on the other side; false: there is no room (nf_nat_sip). */
  private translate(): boolean {
    const { table, m, p } = this;
    const request = !sip.beginsWithVersion(m);
    if (request && sip.requestUri(m) && !this.mapEnd()) return false;
    if (sip.firstUri(m, p.protocol === Proto.TCP ? Header.VIA_TCP : Header.VIA_UDP)) {
      const own = request
        ? m.address === this.src && m.port === this.sport
        : m.address === this.dst && m.port === this.dport;
      if (own && !this.mapVia()) return false;
    }
    sip.beginUris(m);
    // Where one became shorter, as many bytes behind it are passed over, as in the kernel (mended after 7.1).
    while (sip.nextUri(m, Header.CONTACT)) if (!this.mapEnd()) return false;
    if (sip.firstUri(m, Header.FROM) && !this.mapEnd()) return false;
    if (sip.firstUri(m, Header.TO) && !this.mapEnd()) return false;
    const forced = table.words[this.data + Data.FORCED_PORT]!;
    if (p.ctDir !== Dir.REPLY || forced === 0 || p.protocol !== Proto.UDP) return true;
    return rewrite(p, Manip.DST, p.dst, forced) && replacePayload(p, p.l4 + UDP_HEADER, 0, this.text, 0);
  }

  /** Address, and the parameters that say where answers shall go (RFC 3261 §18.2.2, RFC 3581), of the topmost Via. */
  private mapVia(): boolean {
    const { m } = this;
    const behind = m.offset + m.length + m.start;
    if (!this.mapEnd()) return false;
    const at = behind - m.start;
    if (sip.addressParameter(m, at, sip.MADDR) && m.address === this.src && m.address !== this.mappedSrc) {
      if (!this.replace(m.offset, m.length, dotted(this.text, 0, this.mappedSrc))) return false;
    }
    if (sip.addressParameter(m, at, sip.RECEIVED) && m.address === this.dst && m.address !== this.mappedDst) {
      if (!this.replace(m.offset, m.length, dotted(this.text, 0, this.mappedDst))) return false;
    }
    if (sip.numberParameter(m, at, sip.RPORT) !== Found.YES || m.number < 1024) return true;
    if (m.number !== this.dport || m.number === this.mappedDport) return true;
    return this.replace(m.offset, m.length, decimal(this.text, 0, this.mappedDport));
  }

  /** Replaces the address and port found last if they are an end of this connection (map_addr). */
  private mapEnd(): boolean {
    const { m } = this;
    let address: number;
    let port: number;
    if (m.address === this.src && m.port === this.sport) {
      address = this.mappedSrc;
      port = this.mappedSport;
    } else if (m.address === this.dst && m.port === this.dport) {
      const forced = this.table.words[this.data + Data.FORCED_PORT]!;
      address = this.mappedDst;
      port = forced === 0 ? this.mappedDport : forced;
    } else return true;
    if (m.address === address && m.port === port) return true;
    return this.replace(m.offset, m.length, this.writeEnd(address, port));
  }

  /** Writes the media address into the line; UNREADABLE: there is no room. */
  private setAddress(from: number, line: Line): Found {
    const { m } = this;
    if (findLine(m, from, line, Line.MEDIA) !== Found.YES) return Found.NONE;
    return this.replace(m.offset, m.length, dotted(this.text, 0, this.mediaAddress)) ? Found.YES : Found.UNREADABLE;
  }

  private setPort(offset: number, length: number, port: number): boolean {
    return this.replace(offset, length, decimal(this.text, 0, port)) && this.setContentLength();
  }

  /** Makes Content-Length that of the description; false: there is none. */
  private setContentLength(): boolean {
    const { m } = this;
    if (findLine(m, 0, Line.VERSION, Line.NONE) !== Found.YES) return false;
    const length = m.end - m.start - m.offset + TYPE_LENGTH;
    if (sip.findHeader(m, 0, Header.CONTENT_LENGTH) !== Found.YES) return false;
    return this.replace(m.offset, m.length, decimal(this.text, 0, length));
  }

  private writeEnd(address: number, port: number): number {
    const o = dotted(this.text, 0, address);
    this.text[o] = COLON;
    return decimal(this.text, o + 1, port);
  }

  /** Puts the first `written` bytes of the text in the place of what is at `offset`; the message's beginning moves. */
  private replace(offset: number, length: number, written: number): boolean {
    const { m } = this;
    if (!replacePayload(this.p, m.start + offset, length, this.text, written)) return false;
    m.start -= written - length;
    return true;
  }
}

/**
 * nf_nat_sip_expected: to whom it is for, and from whom it seems to come: a medium whose sender announced its own in the same call
 * from where that is expected, else a packet of the master's end from where the master's come.
 */
export function followSignalling(nat: Nat, e: Expectation, pair: Expectation, entry: number, master: number): void {
  const { table } = nat;
  const specified = RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED;
  const src = table.src(entry, Dir.ORIGINAL);
  const sport = table.ports(entry, Dir.ORIGINAL) >>> 16;
  nat.bind(entry, Manip.DST, specified, e.savedAddress, e.savedAddress, e.savedPort, e.savedPort, 0);
  if (e.class !== Class.SIGNALLING && findTranslated(table, master, e.protocol, src, sport, pair)) {
    nat.bind(entry, Manip.SRC, specified, pair.dst, pair.dst, pair.dport, pair.dport, 0);
  } else if (src === table.src(master, e.dir)) {
    const from = table.dst(master, e.dir ^ 1);
    nat.bind(entry, Manip.SRC, RangeFlag.MAP_IPS, from, from, 0, 0, 0);
  }
}
