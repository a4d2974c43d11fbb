/**
 * Where hutter is the whole router, what the kernel's IP layer does before the first hook and behind the last: fragments are put
 * together, what is for the router is delivered or answered, what is too long is cut (net/ipv4/ip_input.c, ip_output.c,
 * ip_fragment.c, ip_options.c).
 */
import { isDatagram, isSegment } from './answer.js';
import { Setting } from './conntrack/settings.js';
import type { ConntrackTable } from './conntrack/table.js';
import type { Interfaces } from './interfaces.js';
import { type Batch, ChecksumMode, InFlag, Meta, META_WORDS, OutFlag } from './io/batch.js';
import type { Device } from './io/device.js';
import { Proto, Verdict } from './names.js';
import { checksumField, completeChecksum, exceedsMtu, headersLength, segmentLength } from './offload.js';
import { Packet, ParseError, putMarks } from './packet.js';
import type { Context } from './program/context.js';
import { type Cutter, OWN_RESET, REPLY, type Responder } from './responder.js';
import type { RouteQuestions } from './questions.js';
import { RouteType } from './route/routes.js';
import { countDrop, drop, DropReason, Stat } from './shared.js';
import { sealHeader } from './wire/checksum.js';
import { DestUnreach, IcmpType } from './wire/icmp.js';
import type { Options } from './wire/options.js';
import { Fragmenter } from './ip/fragment.js';
import { Fate, Reassembly } from './ip/reassembly.js';
import { Segmenter } from './ip/segment.js';

/** Code of "time exceeded" for fragments whose rest didn't come. */
const REASSEMBLY = 1;
/** RFC 791 §3.2 */
const LEAST_MTU = 68;
const MOST_MTU = 65_535;

export interface StackParts {
  readonly responder: Responder;
  readonly questions: RouteQuestions;
  readonly interfaces: Interfaces;
  readonly table: ConntrackTable;
  readonly device: Device;
  readonly stats: Float64Array;
  /** Its time is that of the packet at hand. */
  readonly context: Context;
  /** Of the packet at hand. */
  readonly options: Options;
  /** The interface to the router's own sockets; 0 = it has none, and hutter answers itself. */
  readonly local: number;
}

export class IpStack implements Cutter {
  private readonly reassembly = new Reassembly();
  private readonly fragmenter = new Fragmenter();
  private readonly segmenter = new Segmenter();
  /** What there is of a packet that never was whole. */
  private readonly pieces = new Packet();
  private readonly responder: Responder;
  private readonly questions: RouteQuestions;
  private readonly interfaces: Interfaces;
  private readonly table: ConntrackTable;
  private readonly device: Device;
  private readonly stats: Float64Array;
  private readonly context: Context;
  private readonly options: Options;
  private readonly local: number;

  constructor(parts: StackParts) {
    this.responder = parts.responder;
    this.questions = parts.questions;
    this.interfaces = parts.interfaces;
    this.table = parts.table;
    this.device = parts.device;
    this.stats = parts.stats;
    this.context = parts.context;
    this.options = parts.options;
    this.local = parts.local;
  }

  /** ip_forward_options() */
  passOptions(p: Packet): void {
    this.options.forward(p.bytes, p.start, this.interfaces.selectAddress(p.outdev, p.nextHop));
    this.sealOptions(p);
  }

  /** The header's sum is right again. */
  private sealOptions(p: Packet): void {
    if (!this.options.changed) return;
    sealHeader(p.bytes, p.start, p.headerLength);
    p.changed = 1;
  }

  /** Puts fragments together: ACCEPT with the whole packet in `p`, or STOLEN or DROP. */
  reassemble(p: Packet): Verdict {
    const store = this.reassembly;
    if ((p.flags & InFlag.CUT) !== 0) return drop(this.stats, DropReason.CUT);
    const { table } = this;
    const fate = store.add(p, this.context.now, table.setting(Setting.IPFRAG_MAX_DIST));
    if (store.restarted) countDrop(this.stats, DropReason.FRAGMENT);
    switch (fate) {
      case Fate.KEPT:
        return Verdict.STOLEN;
      case Fate.WHOLE:
        break;
      case Fate.FULL:
        return drop(this.stats, DropReason.FRAGMENT_STORE);
      default:
        return drop(this.stats, DropReason.FRAGMENT);
    }
    p.flags = InFlag.CSUM_NOT_VERIFIED;
    if (p.parse(p.bytes, p.start, p.bytes.length, 0) !== ParseError.NONE) return drop(this.stats, DropReason.FRAGMENT);
    p.fragmentSize = store.maxSize;
    p.cutCount = store.cutCount;
    return Verdict.ACCEPT;
  }

  /** ip_expire(): "reassembly time exceeded" goes to who sent the router itself half a packet, and to nobody else. */
  giveUpFragments(): void {
    const store = this.reassembly;
    if (store.count === 0) return;
    const p = this.pieces;
    const bytes = this.fragmenter.out;
    p.optionsRead = 0;
    for (;;) {
      const length = store.expire(this.context.now, bytes, 0);
      if (length < 0) return;
      countDrop(this.stats, DropReason.FRAGMENT_TIMEOUT);
      this.stats[Stat.DROPPED]! += 1;
      if (length === 0) continue;
      p.flags = InFlag.CSUM_NOT_VERIFIED;
      p.parse(bytes, 0, length, 1);
      p.indev = store.expiredIndev;
      p.routeType = this.questions.addressType(p.dst, 0);
      if (p.routeType === RouteType.LOCAL) this.responder.send(p, IcmpType.TIME_EXCEEDED, REASSEMBLY, 0);
    }
  }

  /** Behind INPUT: to the router's own sockets, or answered as a host without any. */
  deliver(p: Packet): Verdict {
    if (this.local !== 0) {
      if (p.optionsRead !== 0) this.sealOptions(p);
      // Who receives needs no cutting.
      p.outdev = this.local;
      p.routeMtu = MOST_MTU;
      p.fragmentSize = 0;
      return Verdict.ACCEPT;
    }
    const toUs = p.routeType === RouteType.LOCAL;
    const answers = this.stats[Stat.ANSWERS]!;
    if (p.protocol === Proto.ICMP) {
      if (toUs) this.responder.send(p, REPLY, 0, 0);
    } else if (p.protocol === Proto.TCP) {
      if (toUs && isSegment(p)) this.responder.send(p, OWN_RESET, 0, 0);
    } else if (p.protocol === Proto.UDP || p.protocol === Proto.UDPLITE) {
      // udp_rcv() lets go of the connection before it looks for a socket: the error is attached to none.
      p.ct = -1;
      p.ctState = 0;
      if (toUs && isDatagram(p)) this.responder.send(p, IcmpType.DEST_UNREACH, DestUnreach.PORT, 0);
    } else if (toUs && p.protocol !== Proto.IGMP && p.protocol !== Proto.PIM)
      this.responder.send(p, IcmpType.DEST_UNREACH, DestUnreach.PROTOCOL, 0);
    if (this.stats[Stat.ANSWERS] === answers) return drop(this.stats, DropReason.UNANSWERED);
    this.stats[Stat.ACCEPTED]! += 1;
    return Verdict.STOLEN;
  }

  /** ip_finish_output(): the packet's record says how and where it leaves; what is too long is cut and sent at once. */
  transmit(batch: Batch, i: number, p: Packet): Verdict {
    const meta = batch.meta;
    const m = i * META_WORDS;
    const gso = (p.flags & InFlag.GSO) !== 0;
    const mtu = p.routeMtu;
    const field = checksumField(p);
    let mode = ChecksumMode.NONE;
    if ((p.flags & InFlag.CSUM_PARTIAL) !== 0 && field !== 0) mode = ChecksumMode.PSEUDO;
    const tooLong = gso ? segmentLength(p) > mtu : p.length > mtu;
    if (tooLong || p.fragmentSize !== 0) {
      // Only the router's own come so far: what it forwards was refused before FORWARD.
      if (tooLong && p.dontFragment !== 0 && exceedsMtu(p, mtu)) {
        return this.responder.answerError(p, IcmpType.DEST_UNREACH, DestUnreach.FRAGMENTATION_NEEDED, mtu);
      }
      if (mtu < LEAST_MTU) return drop(this.stats, DropReason.TOO_LONG);
      if ((p.flags & InFlag.CUT) !== 0) return drop(this.stats, DropReason.CUT);
      if (mode !== ChecksumMode.NONE && !gso) completeChecksum(p, p.l4 + field);
      return this.cut(batch, i, p);
    }
    putMarks(meta, m, p);
    if (p.changed !== 0) this.stats[Stat.CHANGED]! += 1;
    meta[m + Meta.OUT_FLAGS]! |= OutFlag.PAYLOAD;
    meta[m + Meta.SEND_TO] = p.outdev;
    meta[m + Meta.FLAGS] = p.flags;
    meta[m + Meta.NEW_OFFSET] = p.start;
    meta[m + Meta.NEW_LENGTH] = p.end - p.start;
    meta[m + Meta.CHECKSUM_MODE] = mode;
    meta[m + Meta.CHECKSUM_START] = p.l4;
    meta[m + Meta.CHECKSUM_FIELD] = p.l4 + field;
    if (gso) meta[m + Meta.GSO_HEADERS] = headersLength(p);
    return Verdict.ACCEPT;
  }

  /** ip_fragment(), ip_finish_output_gso(): a packet leaves in pieces, behind those before it in the batch. */
  private cut(batch: Batch, i: number, p: Packet): Verdict {
    const { fragmenter, segmenter } = this;
    const { fragmentSize } = p;
    const mtu = fragmentSize !== 0 && fragmentSize < p.routeMtu ? fragmentSize : p.routeMtu;
    this.device.send(batch, i);
    if ((p.flags & InFlag.GSO) === 0) this.sendPieces(p, mtu);
    else {
      segmenter.begin(p, headersLength(p), p.gsoSize);
      while (segmenter.next()) {
        fragmenter.begin(segmenter.out, 0, segmenter.length, mtu, false, this.reassembly.cuts, 0);
        while (fragmenter.next()) this.device.inject(fragmenter.out, 0, fragmenter.length, p.mark, p.outdev, 0);
      }
    }
    this.stats[Stat.ACCEPTED]! += 1;
    if (p.changed !== 0) this.stats[Stat.CHANGED]! += 1;
    return Verdict.STOLEN;
  }

  /** Sends the packet in fragments of `mtu` bytes at most. */
  sendPieces(p: Packet, mtu: number): void {
    const { fragmenter } = this;
    const { cuts } = this.reassembly;
    fragmenter.begin(p.bytes, p.start, p.end, mtu, p.fragmentSize !== 0, cuts, p.cutCount);
    while (fragmenter.next()) this.device.inject(fragmenter.out, 0, fragmenter.length, p.mark, p.outdev, 0);
  }
}
