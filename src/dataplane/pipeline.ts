/**
 * The packet's way through the router, and the only place that knows its order:
 *
 *     --->PRE------>[ROUTE]--->FWD---------->POST------>        order inside one hook:
 *        raw           |       mangle   ^    mangle               raw → conntrack → mangle → nat(dst) → filter → security
 *        conntrack     |       filter   |    nat (src)            POST: mangle → nat(src) → helper, confirm
 *        mangle        |                |    confirm
 *        nat (dst)     |             [ROUTE]
 *                      v                |
 *                     IN mangle       OUT raw, conntrack
 *                     |  filter        ^  mangle, nat (dst)
 *                     |  nat (src)     |  filter
 *                     v  confirm       |
 *
 * From the kernel's queue a packet crosses once, at PREROUTING or OUTPUT, and every later hook of its way runs in that
 * visit; the kernel then really routes what comes back. Where what the later hooks do could turn it to another way, it goes
 * back as it was routed, and comes a second time in POSTROUTING, where they run (`twice`, `again`). From a TUN it comes raw, and hutter is the kernel, too: it checks,
 * puts fragments together, routes, answers and cuts (`kernelRoutes` false; ip/). What can go no further (no route, TTL at its end, too long) is answered
 * here when it has a connection (see answerError); else it goes back as PREROUTING left it, and the kernel answers.
 */
import {
  ANSWER_LENGTH,
  type AnswerOptions,
  buildError,
  buildReply,
  buildReset,
  ErrorLimit,
  finishReset,
  isDatagram,
  isSegment,
  mayRefuse,
} from './answer.js';
import { tcpSetClosing } from './conntrack/tcp.js';
import { Setting } from './conntrack/settings.js';
import { isReserved } from './conntrack/crossings.js';
import { attach, bindHelper, confirm, findLoopback, release, track, type Tracker } from './conntrack/track.js';
import { isAttachedError, isIcmpError } from './conntrack/icmp.js';
import type { Interfaces } from './interfaces.js';
import { type Batch, ChecksumMode, InFlag, Meta, META_WORDS, OutFlag } from './io/batch.js';
import type { Device } from './io/device.js';
import type { Sets } from './io/ipset.js';
import { Fragmenter } from './ip/fragment.js';
import { isMartianDestination, isMartianSource } from './ip/martian.js';
import { Fate, Reassembly } from './ip/reassembly.js';
import { Segmenter } from './ip/segment.js';
import { linkDir, linkEntry } from './conntrack/table.js';
import { CtState, Hook, Ipsec, LinkMark, PrivateMark, Proto, Table, Verdict } from './names.js';
import type { Nat } from './nat/bind.js';
import { followExpected, help, Helpers } from './nat/help.js';
import { setReserved, showTtl } from './nat/rewrite.js';
import { ASK_RULES, begin, finish, sourceLink, UNDECIDED, UNCHANGED } from './nat/translate.js';
import { Packet, ParseError } from './packet.js';
import { type Answers, Context, type LogSink, type Routes as AddressQuestions } from './program/context.js';
import { Chain, entry, Header, ProgramFlag } from './program/format.js';
import { forwardedTwice, ownTwice, RoutedBy, Twice } from './program/late.js';
import { PacketType } from './program/pkttype.js';
import { REJECT_CODES, RejectWith } from './program/reject.js';
import { policy, run } from './program/run.js';
import { Errno, RouteField, type Routes, RouteType, SourceCheck } from './route/routes.js';
import { DropReason, Stat } from './shared.js';
import { setU16, setU8, u16, u8 } from './wire/bytes.js';
import { headerChecksum, pseudoSum, sum } from './wire/checksum.js';
import { IcmpType } from './wire/icmp.js';
import { type Addresses, Options, SOURCE_ROUTE } from './wire/options.js';

/** What `sendAnswer` builds beside ICMP errors, no type of those: REJECT's reset, TCP's own, an answer to a query. */
const RESET = -1;
const OWN_RESET = -2;
const REPLY = -3;
/** Of 240.0.0.0/4, to which no route but the default one leads. */
const NOBODY = 0xf0000001 | 0;
/** All hosts of this subnet, the only group the router is in. */
const ALL_HOSTS = 0xe0000001 | 0;
const NET_UNREACHABLE = 0;
const HOST_UNREACHABLE = 1;
const FRAGMENTATION_NEEDED = 4;
const PROTOCOL_UNREACHABLE = 2;
const PORT_UNREACHABLE = 3;
const FILTERED = 13;
const REASSEMBLY = 1;
/** An IP header without options, and its checksum. */
const IP_HEADER = 20;
const HEADER_CHECKSUM = 10;
const TTL = 8;
const FRAGMENT = 6;
const DONT_FRAGMENT = 0x4000;
const UDP_HEADER = 8;
const ICMP_HEADER = 8;
/** RFC 791 §3.2 */
const LEAST_MTU = 68;
const MOST_MTU = 65_535;

/** The parts a pipeline is put together from; all belong to one worker. */
export interface PipelineParts {
  tracker: Tracker;
  nat: Nat;
  routes: Routes;
  interfaces: Interfaces;
  /** Where answers are sent from. */
  device: Device;
  /** Stat totals. */
  stats: Float64Array;
  errorLimit: ErrorLimit;
  log: LogSink;
  /** Sets that rules look into. */
  sets: Sets;
  /** Kernel ticks a second. */
  hz: number;
  /** The worker's number. */
  worker: number;
  /** Where hutter is the whole router: the interface to its own sockets; 0 = it has none, and answers itself. */
  local?: number;
}

export class Pipeline implements Answers, AddressQuestions, Addresses {
  private readonly packet = new Packet();
  private readonly answer = new Packet();
  private readonly answerToAnswer = new Packet();
  private readonly answerBytes = [new Uint8Array(ANSWER_LENGTH), new Uint8Array(ANSWER_LENGTH)];
  private answerId = 1;
  /** TEE's copy, while `copying`. */
  private readonly copy = new Packet();
  private readonly copyBytes = new Uint8Array(MOST_MTU + 1);
  private copying = false;
  private readonly options = new Options();
  /** 1: those of the packet at hand have been read, and written into. */
  private optionsRead = 0;
  private readonly answerOptions: AnswerOptions = { bytes: new Uint8Array(40), length: 0 };
  private readonly context: Context;
  private readonly tracker: Tracker;
  private readonly nat: Nat;
  private readonly helpers: Helpers;
  private readonly routes: Routes;
  private readonly interfaces: Interfaces;
  private readonly device: Device;
  private readonly stats: Float64Array;
  private readonly errorLimit: ErrorLimit;

  /** False: nobody routes what is sent, hutter is the whole router. */
  private readonly kernelRoutes: boolean;
  private readonly local: number;
  private readonly reassembly: Reassembly | undefined;
  private readonly fragmenter = new Fragmenter();
  private readonly segmenter = new Segmenter();
  private readonly pieces = new Packet();

  private program: Int32Array = new Int32Array(0);
  /** 1: the program asks for connections. Numbers, as V8 tests them faster than booleans. */
  private tracking = 0;
  /** Packets can come a second time: the diversion is there. Without it those that must are dropped. */
  private diverted = false;
  /** What routes are chosen by (RoutedBy), and the bits of the mark that routing rules look at. */
  private routedBy = 0;
  private routedMarks = 0;
  /** Whether packets must come a second time: forwarded ones, and the router's own. */
  private forwarded: Twice = Twice.NEVER;
  private own: Twice = Twice.NEVER;

  /** The mark that a packet of the router's own was routed by last. */
  private routedMark = 0;
  /** 1: the packet at hand goes back to come again. */
  private comesAgain = 0;
  private wallMs = 0;

  constructor(parts: PipelineParts) {
    this.context = new Context({
      interfaces: parts.interfaces,
      table: parts.tracker.table,
      nat: parts.nat,
      log: parts.log,
      sets: parts.sets,
      answers: this,
      routes: this,
      hz: parts.hz,
      worker: parts.worker,
    });
    this.tracker = parts.tracker;
    this.nat = parts.nat;
    this.helpers = new Helpers(parts.nat, parts.interfaces);
    followExpected(parts.nat, parts.tracker);
    this.routes = parts.routes;
    this.interfaces = parts.interfaces;
    this.device = parts.device;
    this.stats = parts.stats;
    this.errorLimit = parts.errorLimit;
    this.kernelRoutes = parts.device.capabilities.kernelRoutes;
    this.local = parts.local ?? 0;
    if (!this.kernelRoutes) this.reassembly = new Reassembly();
  }

  /** The packet that was visited last goes back to come a second time. */
  get crossesTwice(): boolean {
    return this.comesAgain !== 0;
  }

  /** Milliseconds as int32, as `setTime` had it. */
  get now(): number {
    return this.context.now;
  }

  /** Once a batch: milliseconds of the monotonic clock and of the wall clock. */
  setTime(monotonicMs: number, wallMs: number): void {
    this.context.setTime(monotonicMs, wallMs);
    this.wallMs = wallMs;
    if (this.reassembly !== undefined && this.reassembly.count !== 0) this.giveUpFragments(this.reassembly);
    if (this.tracker.crossings !== null) this.tracker.crossings.sweep(this.context.now);
  }

  /** How the kernel chooses routes, and whether the diversion is there by which packets come a second time. */
  setRouting(routedBy: number, routedMarks: number, diverted: boolean): void {
    this.routedBy = routedBy;
    this.routedMarks = routedMarks;
    this.diverted = diverted && this.kernelRoutes;
    this.judgeCrossings();
  }

  private judgeCrossings(): void {
    if (!this.kernelRoutes) return;
    this.forwarded = forwardedTwice(this.program, this.routedBy, this.routedMarks);
    this.own = ownTwice(this.program, this.routedBy, this.routedMarks);
    this.tracker.table.crossesTwice = this.forwarded !== Twice.NEVER || this.own !== Twice.NEVER;
  }

  /** Interfaces were read anew. */
  forgetInterfaces(): void {
    this.context.forgetNames();
  }

  /** Takes up a verified program with its state, between two packets. */
  adopt(program: Int32Array, regions: readonly Int32Array[], counters: Float64Array): void {
    this.context.adopt(program, regions, counters);
    this.program = program;
    this.tracking = program[Header.FLAGS]! & ProgramFlag.CONNECTIONS;
    this.judgeCrossings();
  }

  /** Decides upon packet `i` of the batch and writes the outcome into its record. */
  visit(batch: Batch, i: number): void {
    const meta = batch.meta;
    const m = i * META_WORDS;
    const p = this.packet;
    const stats = this.stats;
    const offset = meta[m + Meta.OFFSET]!;
    const flags = meta[m + Meta.FLAGS]!;
    p.flags = flags;
    meta[m + Meta.OUT_FLAGS] = 0;
    meta[m + Meta.CHECKSUM_MODE] = ChecksumMode.NONE;
    const malformed = p.parse(batch.bytes, offset, offset + meta[m + Meta.LENGTH]!, flags & InFlag.CUT);
    if (malformed !== ParseError.NONE) {
      this.countDrop(this.kernelRoutes ? DropReason.MALFORMED : MALFORMED_REASONS[malformed]);
      stats[Stat.DROPPED]! += 1;
      meta[m + Meta.VERDICT] = Verdict.DROP;
      return;
    }
    const hook = meta[m + Meta.HOOK]!;
    p.hook = hook;
    p.indev = meta[m + Meta.INDEV]!;
    p.outdev = meta[m + Meta.OUTDEV]!;
    p.physindev = meta[m + Meta.PHYSINDEV]!;
    p.physoutdev = meta[m + Meta.PHYSOUTDEV]!;
    p.uid = meta[m + Meta.UID]!;
    p.gid = meta[m + Meta.GID]!;
    p.macLength = meta[m + Meta.MAC_LENGTH]!;
    p.macHigh = meta[m + Meta.MAC_HIGH]!;
    p.macLow = meta[m + Meta.MAC_LOW]!;
    this.readMark(p, meta[m + Meta.MARK]!);
    p.gsoSize = meta[m + Meta.GSO_SIZE]!;

    let verdict: Verdict;
    if (this.kernelRoutes) {
      this.comesAgain = 0;
      if (hook === Hook.POSTROUTING) verdict = this.again(p);
      else verdict = hook === Hook.OUTPUT ? this.fromHere(p) : this.fromNetwork(p);
    } else {
      p.fragmentSize = 0;
      this.optionsRead = 0;
      this.routes.place = i;
      verdict = hook === Hook.OUTPUT ? this.fromSocket(p) : this.fromWire(p);
      if (verdict === Verdict.ACCEPT) verdict = this.transmit(batch, i, p);
    }
    // A first packet that did not make it to the last hook leaves nothing behind.
    if (p.ct >= 0) release(this.tracker, p);
    const { crossings } = this.tracker;
    if (crossings !== null && crossings.mine >= 0) crossings.done();
    meta[m + Meta.VERDICT] = verdict;
    if (verdict === Verdict.ACCEPT) {
      if (this.comesAgain === 0) stats[Stat.ACCEPTED]! += 1;
      if (this.kernelRoutes) this.giveBack(meta, m, p);
    } else if (verdict === Verdict.STOLEN) {
      // Sent in pieces, taken by the router itself, or kept for the rest of its datagram.
    } else {
      stats[Stat.DROPPED]! += 1;
      if (verdict === Verdict.QUEUE) meta[m + Meta.SEND_TO] = this.context.queueNumber;
    }
  }

  /** The packet's mark without what is hutter's, and what the diversion says by it: how it was addressed, IPsec. */
  private readMark(p: Packet, mark: number): void {
    p.packetType = 0;
    p.ipsec = 0;
    p.mark = mark & ~PrivateMark.ALL;
    // On lo nothing is for many or by IPsec, and the mark is an answer's of hutter's own, with all that its rules set.
    if (mark >= 0 || (p.hook === Hook.PREROUTING && this.interfaces.isLoopback(p.indev))) return;
    const link = mark & LinkMark.ALL;
    if (link === LinkMark.IPSEC) p.ipsec = p.hook === Hook.PREROUTING ? Ipsec.IN : Ipsec.OUT;
    else if (p.hook === Hook.PREROUTING && link === LinkMark.BROADCAST) p.packetType = PacketType.BROADCAST;
    else if (p.hook === Hook.PREROUTING && link === LinkMark.MULTICAST) p.packetType = PacketType.MULTICAST;
    else return;
    p.mark = mark & ~LinkMark.ALL;
  }

  /** In by PREROUTING: PRE → route → (local? IN : FWD → POST). */
  private fromNetwork(p: Packet): Verdict {
    p.outdev = 0;
    const verdict = this.prerouting(p);
    if (verdict !== Verdict.ACCEPT) return verdict;

    const looped = this.interfaces.isLoopback(p.indev);
    if (looped && p.headerLength > IP_HEADER && this.readOptions(p, RouteType.LOCAL) !== 0) return Verdict.ACCEPT;
    // It was routed on its way out; the kernel doesn't route it again, nor would RTM_GETROUTE answer for it.
    if (looped) {
      p.routeType = this.addressType(p.dst, 0);
      return p.routeType === RouteType.UNICAST ? Verdict.ACCEPT : this.input(p);
    }
    if (!this.kernelRoutes) {
      if (isMartianSource(p.src, p.dst)) return this.drop(DropReason.MARTIAN_SOURCE);
      if (isMartianDestination(p.src, p.dst)) return this.drop(DropReason.MARTIAN_DESTINATION);
    }
    const words = this.routes.words;
    const route = this.routes.input(p.dst, p.src, p.indev, p.mark, p.tos, p.protocol, (p.sport << 16) | p.dport);
    const check = words[route + RouteField.CHECK]!;
    const type: RouteType = words[route + RouteField.TYPE]!;
    const toMany = type === RouteType.BROADCAST || type === RouteType.MULTICAST;
    // The bridge may pass it on without a look at routes, sources and TTL: only the kernel knows for whom the frame was.
    if (p.physindev !== 0 && this.kernelRoutes && type !== RouteType.LOCAL && !toMany) return this.twice(p, p.mark);
    if (check !== SourceCheck.OK && !(toMany && this.kernelRoutes && this.isOwnCopy(p))) {
      return this.drop(check === SourceCheck.MARTIAN ? DropReason.MARTIAN_SOURCE : DropReason.REVERSE_PATH);
    }
    if (p.headerLength > IP_HEADER) {
      const problem = this.readOptions(p, type);
      // Who can't read an option says so; a packet that names its own way is not let in.
      if (problem === SOURCE_ROUTE) {
        return this.drop(this.kernelRoutes ? DropReason.MALFORMED : DropReason.SOURCE_ROUTE);
      }
      if (problem !== 0) {
        if (this.kernelAnswers(p)) return Verdict.ACCEPT;
        p.routeType = type;
        this.sendAnswer(p, IcmpType.PARAMETER_PROBLEM, 0, problem << 24);
        return this.drop(DropReason.MALFORMED);
      }
    }
    const errno = words[route + RouteField.ERRNO]!;
    if (errno !== 0) return this.noRoute(p, errno);
    p.routeType = type;
    if (type === RouteType.LOCAL || toMany) {
      if (this.kernelRoutes) return this.forSockets(p);
      if (type === RouteType.MULTICAST && p.dst !== ALL_HOSTS) return this.drop(DropReason.MULTICAST);
      return this.deliver(p);
    }
    if (type !== RouteType.UNICAST) return this.kernelRoutes ? Verdict.ACCEPT : this.drop(DropReason.BLACKHOLE);

    // ip_forward(): what was not addressed to this host on its link is dropped, by the kernel; where it answers the next two itself,
    // it must see the packet as it came.
    if (p.packetType !== PacketType.HOST) return Verdict.ACCEPT;
    if (p.ttl <= 1) return this.answerError(p, IcmpType.TIME_EXCEEDED, 0, 0);
    const mtu = words[route + RouteField.MTU]!;
    if (p.dontFragment !== 0 && p.length > mtu && this.exceeds(p, mtu)) {
      return this.answerError(p, IcmpType.DEST_UNREACH, FRAGMENTATION_NEEDED, mtu);
    }
    const outdev = words[route + RouteField.OIF]!;
    const gateway = words[route + RouteField.GATEWAY]!;
    if (this.forwarded !== Twice.NEVER && this.forwardsTwice(p, outdev, gateway)) return this.twice(p, p.mark);
    if (this.diverted && isReserved(p)) return this.twice(p, p.mark);
    p.outdev = outdev;
    p.nextHop = gateway !== 0 ? gateway : p.dst;
    p.routeMtu = mtu;
    // Rules see the packet with the TTL that it will leave with (those that read its bytes, by showTtl).
    p.ttl--;
    if (this.kernelRoutes === false) showTtl(p);
    const forwarded = this.forward(p);
    if (forwarded !== Verdict.ACCEPT) return forwarded;
    if (!this.kernelRoutes && p.headerLength > IP_HEADER) this.passOptions(p);
    const sent = this.postrouting(p);
    if (sent !== Verdict.ACCEPT || !this.kernelRoutes) return sent;
    // The kernel will lower it again.
    p.ttl++;
    showTtl(p);
    return Verdict.ACCEPT;
  }

  /** ip_rcv_options(): 0, SOURCE_ROUTE, or the offset of the byte that is wrong. What the kernel will write, it writes itself. */
  private readOptions(p: Packet, type: RouteType): number {
    const writes = !this.kernelRoutes;
    let address = 0;
    if (writes) {
      if (type === RouteType.LOCAL) address = p.dst;
      else if (p.src === 0) address = this.interfaces.selectAddress(p.indev, p.src);
      else address = this.routes.words[this.routes.output(p.src, 0, 0, 0, 0, 0, 0) + RouteField.PREFSRC]!;
      this.optionsRead = 1;
    }
    return this.options.read(p.bytes, p.start, p.headerLength, writes, address, this.wallMs, this);
  }

  isOurs(address: number): boolean {
    return this.addressType(address, 0) !== RouteType.UNICAST;
  }

  /** ip_error(), with its own limit beside that of all errors. */
  private noRoute(p: Packet, errno: number): Verdict {
    if (this.kernelAnswers(p)) return Verdict.ACCEPT;
    if (errno !== Errno.HOSTUNREACH && errno !== Errno.NETUNREACH && errno !== Errno.ACCES) {
      return this.kernelRoutes ? Verdict.ACCEPT : this.drop(DropReason.BLACKHOLE);
    }
    if (!this.errorLimit.allowRoute(p.src, this.context.now)) return this.drop(DropReason.NO_ROUTE);
    if (errno === Errno.HOSTUNREACH) return this.answerError(p, IcmpType.DEST_UNREACH, HOST_UNREACHABLE, 0);
    if (errno === Errno.NETUNREACH) return this.answerError(p, IcmpType.DEST_UNREACH, NET_UNREACHABLE, 0);
    return this.answerError(p, IcmpType.DEST_UNREACH, FILTERED, 0);
  }

  /** ip_exceeds_mtu(): of a packet longer than `mtu` that says "don't fragment". */
  private exceeds(p: Packet, mtu: number): boolean {
    if ((p.flags & InFlag.GSO) !== 0) return this.segmentLength(p) > mtu;
    // What came in fragments may leave in fragments of that size, DF or not.
    return p.fragmentSize === 0 || p.fragmentSize > mtu;
  }

  /** Length of the packets that a GSO packet becomes; 0: the device doesn't tell. */
  private segmentLength(p: Packet): number {
    return p.gsoSize === 0 ? 0 : headersLength(p) + p.gsoSize;
  }

  // ---- where hutter is the whole router ----

  /** ip_forward_options() */
  private passOptions(p: Packet): void {
    this.options.forward(p.bytes, p.start, this.interfaces.selectAddress(p.outdev, p.nextHop));
    this.sealOptions(p);
  }

  /** The header's sum is right again. */
  private sealOptions(p: Packet): void {
    if (!this.options.changed) return;
    setU16(p.bytes, p.start + HEADER_CHECKSUM, headerChecksum(p.bytes, p.start, p.headerLength));
    p.changed = 1;
  }

  /** In by an interface: ip_rcv(), then the way of `fromNetwork`. */
  private fromWire(p: Packet): Verdict {
    if (headerChecksum(p.bytes, p.start, p.headerLength) !== u16(p.bytes, p.start + HEADER_CHECKSUM)) {
      return this.drop(DropReason.HEADER_CHECKSUM);
    }
    // nf_defrag_ipv4: before the first rule, where connections are tracked.
    if (this.tracking !== 0 && (p.fragOffset | p.moreFragments) !== 0) {
      const fate = this.reassemble(p);
      if (fate !== Verdict.ACCEPT) return fate;
    }
    return this.fromNetwork(p);
  }

  /** In by `local`, from a socket of the router's own: it has no route yet. */
  private fromSocket(p: Packet): Verdict {
    p.indev = 0;
    if (this.tracking && (p.fragOffset | p.moreFragments) !== 0) {
      const fate = this.reassemble(p);
      if (fate !== Verdict.ACCEPT) return fate;
    }
    const words = this.routes.words;
    const source = this.interfaces.isOwn(p.src) ? p.src : 0;
    const route = this.routes.output(p.dst, source, 0, p.mark, p.tos, p.protocol, (p.sport << 16) | p.dport);
    const errno = words[route + RouteField.ERRNO]!;
    if (errno !== 0) return this.noRoute(p, errno);
    p.routeType = words[route + RouteField.TYPE]!;
    if (p.routeType !== RouteType.UNICAST && p.routeType !== RouteType.BROADCAST) {
      return this.drop(DropReason.MULTICAST);
    }
    p.outdev = words[route + RouteField.OIF]!;
    const verdict = this.fromHere(p);
    if (p.routeMtu === 0) p.routeMtu = this.routes.words[route + RouteField.MTU]!;
    return verdict;
  }

  /** Puts fragments together: ACCEPT with the whole packet in `p`, or STOLEN or DROP. */
  private reassemble(p: Packet): Verdict {
    const store = this.reassembly!;
    if ((p.flags & InFlag.CUT) !== 0) return this.drop(DropReason.CUT);
    const { table } = this.tracker;
    const fate = store.add(p, this.context.now, table.setting(Setting.IPFRAG_MAX_DIST));
    if (store.restarted) this.countDrop(DropReason.FRAGMENT);
    switch (fate) {
      case Fate.KEPT:
        return Verdict.STOLEN;
      case Fate.WHOLE:
        break;
      case Fate.FULL:
        return this.drop(DropReason.FRAGMENT_STORE);
      default:
        return this.drop(DropReason.FRAGMENT);
    }
    p.flags = InFlag.CSUM_NOT_VERIFIED;
    // Before INPUT it has been routed already.
    const { routeType } = p;
    if (p.parse(p.bytes, p.start, p.bytes.length, 0) !== ParseError.NONE) return this.drop(DropReason.FRAGMENT);
    p.routeType = routeType;
    p.fragmentSize = store.maxSize;
    p.cutCount = store.cutCount;
    return Verdict.ACCEPT;
  }

  /** ip_expire(): "reassembly time exceeded" goes to who sent the router itself half a packet, and to nobody else. */
  private giveUpFragments(store: Reassembly): void {
    const p = this.pieces;
    const bytes = this.fragmenter.out;
    this.optionsRead = 0;
    for (;;) {
      const length = store.expire(this.context.now, bytes, 0);
      if (length < 0) return;
      this.countDrop(DropReason.FRAGMENT_TIMEOUT);
      this.stats[Stat.DROPPED]! += 1;
      if (length === 0) continue;
      p.flags = InFlag.CSUM_NOT_VERIFIED;
      p.parse(bytes, 0, length, 1);
      p.indev = store.expiredIndev;
      p.routeType = this.addressType(p.dst, 0);
      if (p.routeType === RouteType.LOCAL) this.sendAnswer(p, IcmpType.TIME_EXCEEDED, REASSEMBLY, 0);
    }
  }

  /** ip_local_deliver(): to the router's own sockets, or answered as a host without any. */
  private deliver(p: Packet): Verdict {
    if ((p.fragOffset | p.moreFragments) !== 0) {
      const fate = this.reassemble(p);
      if (fate !== Verdict.ACCEPT) return fate;
    }
    const verdict = this.input(p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (this.local !== 0) {
      if (this.optionsRead !== 0) this.sealOptions(p);
      // Who receives needs no cutting.
      p.outdev = this.local;
      p.routeMtu = MOST_MTU;
      p.fragmentSize = 0;
      return Verdict.ACCEPT;
    }
    const toUs = p.routeType === RouteType.LOCAL;
    const answers = this.stats[Stat.ANSWERS]!;
    if (p.protocol === Proto.ICMP) {
      if (toUs) this.sendAnswer(p, REPLY, 0, 0);
    } else if (p.protocol === Proto.TCP) {
      if (toUs && isSegment(p)) this.sendAnswer(p, OWN_RESET, 0, 0);
    } else if (p.protocol === Proto.UDP || p.protocol === Proto.UDPLITE) {
      if (toUs && isDatagram(p)) this.sendAnswer(p, IcmpType.DEST_UNREACH, PORT_UNREACHABLE, 0);
    } else if (toUs && p.protocol !== Proto.IGMP && p.protocol !== Proto.PIM)
      this.sendAnswer(p, IcmpType.DEST_UNREACH, PROTOCOL_UNREACHABLE, 0);
    if (this.stats[Stat.ANSWERS] === answers) return this.drop(DropReason.UNANSWERED);
    this.stats[Stat.ACCEPTED]! += 1;
    return Verdict.STOLEN;
  }

  /** ip_finish_output(): the packet's record says how and where it leaves; what is too long is cut and sent at once. */
  private transmit(batch: Batch, i: number, p: Packet): Verdict {
    const meta = batch.meta;
    const m = i * META_WORDS;
    const gso = (p.flags & InFlag.GSO) !== 0;
    const mtu = p.routeMtu;
    const field = checksumField(p);
    let mode = ChecksumMode.NONE;
    if ((p.flags & InFlag.CSUM_PARTIAL) !== 0 && field !== 0) mode = ChecksumMode.PSEUDO;
    const tooLong = gso ? this.segmentLength(p) > mtu : p.length > mtu;
    if (tooLong || p.fragmentSize !== 0) {
      // Only the router's own come so far: what it forwards was refused before FORWARD.
      if (tooLong && p.dontFragment !== 0 && this.exceeds(p, mtu)) {
        return this.answerError(p, IcmpType.DEST_UNREACH, FRAGMENTATION_NEEDED, mtu);
      }
      if (mtu < LEAST_MTU) return this.drop(DropReason.TOO_LONG);
      if ((p.flags & InFlag.CUT) !== 0) return this.drop(DropReason.CUT);
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
    if ((p.flags & InFlag.GSO) === 0) this.sendPieces(p, mtu, fragmenter);
    else {
      segmenter.begin(p, headersLength(p), p.gsoSize);
      while (segmenter.next()) {
        fragmenter.begin(segmenter.out, 0, segmenter.length, mtu, false, this.reassembly!.cuts, 0);
        while (fragmenter.next()) this.device.inject(fragmenter.out, 0, fragmenter.length, p.mark, p.outdev, 0);
      }
    }
    this.stats[Stat.ACCEPTED]! += 1;
    if (p.changed !== 0) this.stats[Stat.CHANGED]! += 1;
    return Verdict.STOLEN;
  }

  private sendPieces(p: Packet, mtu: number, fragmenter: Fragmenter): void {
    const cuts = this.reassembly!.cuts;
    fragmenter.begin(p.bytes, p.start, p.end, mtu, p.fragmentSize !== 0, cuts, p.cutCount);
    while (fragmenter.next()) this.device.inject(fragmenter.out, 0, fragmenter.length, p.mark, p.outdev, 0);
  }

  /**
   * The kernel gives a copy of what the router sends to many back to itself, by the interface it left by: the one case
   * of an own source on a wire. Where connections are tracked, its connection tells it from a forgery.
   */
  private isOwnCopy(p: Packet): boolean {
    return this.interfaces.isOwn(p.src) && (this.tracking === 0 || (p.ct >= 0 && this.tracker.table.isConfirmed(p.ct)));
  }

  /** In by OUTPUT: OUT → route → POST. */
  private fromHere(p: Packet): Verdict {
    p.indev = 0;
    p.nextHop = 0;
    p.routeMtu = 0;
    this.routedMark = p.mark;
    const verdict = this.output(p, false);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (this.own !== Twice.NEVER && this.ownGoesTwice(p)) return this.twice(p, this.routedMark);
    if (this.diverted && isReserved(p)) return this.twice(p, this.routedMark);
    const sent = this.postrouting(p);
    if (this.tracking !== 0 && p.ct < 0 && sent === Verdict.ACCEPT && this.interfaces.isLoopback(p.outdev)) {
      this.tracker.crossings?.keepLooped(p);
    }
    return sent;
  }

  /** In for the kernel's sockets. If nobody speaks the packet's protocol the kernel says so, and looks at what the packet was. */
  private forSockets(p: Packet): Verdict {
    const verdict = this.input(p);
    if (verdict === Verdict.ACCEPT && p.ctState === CtState.UNTRACKED && !isCommon(p.protocol)) {
      this.tracker.crossings?.keepLooped(p);
    }
    return verdict;
  }

  /** Whether the kernel's error is about a packet for the router that wasn't to be tracked. */
  private isAboutUntracked(p: Packet): boolean {
    const quote = this.pieces;
    const start = p.l4 + ICMP_HEADER;
    if (start > p.end || quote.parse(p.bytes, start, p.end, 1) !== ParseError.NONE) return false;
    return (
      this.tracker.crossings !== null &&
      this.tracker.crossings.restoreLooped(quote) &&
      quote.ctState === CtState.UNTRACKED
    );
  }

  // ---- the second crossing ----

  /**
   * The packet goes back as it was routed, with `mark`, to come again in POSTROUTING, known by the reserved bit of its header.
   * A bit of the mark wouldn't do: routing rules compare the whole of it.
   */
  private twice(p: Packet, mark: number): Verdict {
    const { crossings } = this.tracker;
    if (crossings === null || !this.diverted) return this.drop(DropReason.SECOND_CROSSING);
    if ((p.flags & InFlag.CUT) !== 0) return this.drop(DropReason.CUT);
    if (!crossings.keep(p)) return this.drop(DropReason.SECOND_CROSSING);
    // What happened to a connection in the table is told now; a new one is in the record's care.
    if (p.ct >= 0 && this.tracker.table.isConfirmed(p.ct)) release(this.tracker, p);
    p.ct = -1;
    this.comesAgain = 1;
    p.mark = mark;
    setReserved(p, true);
    return Verdict.ACCEPT;
  }

  /** In by POSTROUTING, by the way that the kernel has chosen and with the TTL that it will leave with: (FWD →) POST. */
  private again(p: Packet): Verdict {
    const { crossings } = this.tracker;
    if (crossings === null || !crossings.restore(p)) return this.drop(DropReason.SECOND_CROSSING);
    this.stats[Stat.CROSSED_AGAIN]! += 1;
    setReserved(p, crossings.reserved);
    p.routeType = RouteType.UNICAST;
    p.nextHop = 0;
    p.routeMtu = 0;
    if (p.hook === Hook.OUTPUT) return this.postrouting(p);
    if (p.physoutdev === 0) {
      const { words } = this.routes;
      const route = this.routes.input(p.dst, p.src, p.indev, p.mark, p.tos, p.protocol, (p.sport << 16) | p.dport);
      const check = words[route + RouteField.CHECK]!;
      // It came by a bridge's port but is routed: nobody has looked at its source yet.
      if (p.physindev !== 0 && check !== SourceCheck.OK) {
        return this.drop(check === SourceCheck.MARTIAN ? DropReason.MARTIAN_SOURCE : DropReason.REVERSE_PATH);
      }
      if (words[route + RouteField.OIF] === p.outdev) {
        const gateway = words[route + RouteField.GATEWAY]!;
        p.nextHop = gateway !== 0 ? gateway : p.dst;
        p.routeMtu = words[route + RouteField.MTU]!;
      }
    }
    const forwarded = this.forward(p);
    return forwarded === Verdict.ACCEPT ? this.postrouting(p) : forwarded;
  }

  /** Whether the kernel could send a forwarded packet by another way, or not at all, after what FORWARD and POSTROUTING do. */
  private forwardsTwice(p: Packet, outdev: number, gateway: number): boolean {
    if (this.forwarded === Twice.ALL) return true;
    const { program, routes } = this;
    const ttl = p.ttl - 1;
    if (ttl < program[Header.LATE_TTL_MIN]! || ttl > program[Header.LATE_TTL_MAX]!) return true;
    const source = this.sourceAhead(p);
    if (source === UNCHANGED) return false;
    if (source === UNDECIDED) return true;
    const { table } = this.tracker;
    const src = table.dst(linkEntry(source), linkDir(source));
    const ports = (table.ports(linkEntry(source), linkDir(source)) << 16) | p.dport;
    const route = routes.input(p.dst, src, p.indev, p.mark, p.tos, p.protocol, ports);
    return this.differs(route, outdev, gateway);
  }

  /** The same for a packet of the router's own, after POSTROUTING. */
  private ownGoesTwice(p: Packet): boolean {
    if (this.interfaces.isLoopback(p.outdev)) return false;
    if (this.own === Twice.ALL) return true;
    const source = this.sourceAhead(p);
    if (source === UNCHANGED) return false;
    if (source === UNDECIDED) return true;
    const { table } = this.tracker;
    const { words } = this.routes;
    const src = table.dst(linkEntry(source), linkDir(source));
    const ports = (table.ports(linkEntry(source), linkDir(source)) << 16) | p.dport;
    const now = this.ownRoute(p, p.src, (p.sport << 16) | p.dport);
    const outdev = words[now + RouteField.OIF]!;
    const gateway = words[now + RouteField.GATEWAY]!;
    return this.differs(this.ownRoute(p, src, ports), outdev, gateway);
  }

  /** The source that POSTROUTING will give the packet, as far as routes look at it (sourceLink). */
  private sourceAhead(p: Packet): number {
    const { routedBy } = this;
    // The kernel's hash is over what an error quotes, and over no ports where a fragment has none.
    if ((routedBy & RoutedBy.HASH) !== 0 && (isIcmpError(p) || (p.fragOffset | p.moreFragments) !== 0))
      return UNDECIDED;
    if ((routedBy & (RoutedBy.SOURCE | RoutedBy.TRANSPORT)) === 0) return UNCHANGED;
    const chain = entry(this.program, Table.NAT, Hook.POSTROUTING);
    // Without rules a source keeps its address, but perhaps not its port.
    const settled = (routedBy & RoutedBy.TRANSPORT) === 0 && (chain === 0 || this.program[chain + Chain.RULES] === 0);
    const source = sourceLink(this.nat, p);
    return source === UNDECIDED && settled ? UNCHANGED : source;
  }

  private differs(route: number, outdev: number, gateway: number): boolean {
    const words = this.routes.words;
    return (
      words[route + RouteField.ERRNO] !== 0 ||
      words[route + RouteField.TYPE] !== RouteType.UNICAST ||
      words[route + RouteField.OIF] !== outdev ||
      words[route + RouteField.GATEWAY] !== gateway
    );
  }

  // ---- the hooks ----

  private prerouting(p: Packet): Verdict {
    this.enter(Hook.PREROUTING, p.indev, 0, p);
    // A packet on the loopback interface was here in OUTPUT: it keeps the connection and state it got there.
    const looped = this.tracking !== 0 && this.interfaces.isLoopback(p.indev);
    const { crossings } = this.tracker;
    const known = looped && crossings !== null && crossings.restoreLooped(p);
    // What was part of nothing there is looked at anew, whatever has ended lately.
    const anew = known && p.ct < 0 && p.ctState === CtState.INVALID;
    if (anew) p.ctState = 0;
    if (looped && !known) findLoopback(this.tracker, p);
    let verdict = this.table(Table.RAW, Hook.PREROUTING, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (this.tracking !== 0 && p.ct < 0 && (anew || (!known && !(looped && findLoopback(this.tracker, p))))) {
      if (track(this.tracker, p, Hook.PREROUTING) !== Verdict.ACCEPT) return this.drop(DropReason.CONNTRACK);
    }
    verdict = this.table(Table.MANGLE, Hook.PREROUTING, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    return this.translate(Hook.PREROUTING, p);
  }

  private input(p: Packet): Verdict {
    this.enter(Hook.INPUT, p.indev, 0, p);
    let verdict = this.table(Table.MANGLE, Hook.INPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    verdict = this.filter(Hook.INPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    verdict = this.translate(Hook.INPUT, p);
    return verdict === Verdict.ACCEPT ? this.confirm(p) : verdict;
  }

  private forward(p: Packet): Verdict {
    this.enter(Hook.FORWARD, p.indev, p.outdev, p);
    const verdict = this.table(Table.MANGLE, Hook.FORWARD, p);
    return verdict === Verdict.ACCEPT ? this.filter(Hook.FORWARD, p) : verdict;
  }

  /** `attached`: an answer of hutter's own, which belongs to the connection of the packet it answers. */
  private output(p: Packet, attached: boolean): Verdict {
    this.enter(Hook.OUTPUT, 0, p.outdev, p);
    // An error of the kernel's own is attached to what it is about before its first hook (icmp.c, nf_ct_attach).
    const kernels = p === this.packet && (p.flags & InFlag.UID) === 0;
    if (this.tracking !== 0 && kernels && isIcmpError(p) && isAttachedError(p)) {
      track(this.tracker, p, Hook.OUTPUT);
      if (p.ct >= 0) attached = true;
      // What is about nothing is no less attached to it: -j CT passes it by.
      else p.ctState = this.isAboutUntracked(p) ? CtState.INVALID : 0;
    }
    let verdict = this.table(Table.RAW, Hook.OUTPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (this.tracking !== 0 && !attached && track(this.tracker, p, Hook.OUTPUT) !== Verdict.ACCEPT) {
      return this.drop(DropReason.CONNTRACK);
    }
    const { src, dst, mark, tos } = p;
    verdict = this.table(Table.MANGLE, Hook.OUTPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if ((p.mark !== mark || p.tos !== tos || p.src !== src || p.dst !== dst) && !this.reroute(p)) {
      return this.drop(DropReason.NO_ROUTE);
    }
    const before = p.dst;
    verdict = this.translate(Hook.OUTPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (p.dst !== before && !this.reroute(p)) return this.drop(DropReason.NO_ROUTE);
    return this.filter(Hook.OUTPUT, p);
  }

  private postrouting(p: Packet): Verdict {
    this.enter(Hook.POSTROUTING, p.indev, p.outdev, p);
    let verdict = this.table(Table.MANGLE, Hook.POSTROUTING, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    verdict = this.translate(Hook.POSTROUTING, p);
    return verdict === Verdict.ACCEPT ? this.confirm(p) : verdict;
  }

  private enter(hook: Hook, indev: number, outdev: number, p: Packet): void {
    this.context.enter(hook, indev, outdev);
    this.stats[Stat.PACKETS + hook]! += 1;
    this.stats[Stat.BYTES + hook]! += p.length;
  }

  private table(table: Table, hook: Hook, p: Packet): Verdict {
    const program = this.program;
    const chain = entry(program, table, hook);
    if (chain === 0) return Verdict.ACCEPT;
    // Most tables are empty at most hooks.
    return program[chain + Chain.RULES] === 0
      ? policy(this.context, program, chain, p)
      : run(this.context, program, chain, p);
  }

  /** The security table comes right behind filter wherever that is. */
  private filter(hook: Hook, p: Packet): Verdict {
    const verdict = this.table(Table.FILTER, hook, p);
    return verdict === Verdict.ACCEPT ? this.table(Table.SECURITY, hook, p) : verdict;
  }

  /** The nat table is asked once a connection and side, then every packet is rewritten. */
  private translate(hook: Hook, p: Packet): Verdict {
    if (p.ct < 0) return Verdict.ACCEPT;
    let verdict = begin(this.nat, p, hook);
    if (verdict === ASK_RULES) {
      const asked = this.table(Table.NAT, hook, p);
      if (asked !== Verdict.ACCEPT) return asked;
      verdict = finish(this.nat, p, hook);
    }
    return verdict === Verdict.ACCEPT ? verdict : this.drop(DropReason.NAT);
  }

  private confirm(p: Packet): Verdict {
    if (p.ct < 0) return Verdict.ACCEPT;
    bindHelper(this.tracker, p);
    if (help(this.helpers, p, this.interfaces.isLoopback(p.indev)) !== Verdict.ACCEPT) {
      return this.drop(DropReason.HELPER);
    }
    return confirm(this.tracker, p) === Verdict.ACCEPT ? Verdict.ACCEPT : this.drop(DropReason.CONNTRACK);
  }

  /** ip_route_me_harder(): a packet of the router's own goes by another way since its key changed. */
  private reroute(p: Packet): boolean {
    const route = this.ownRoute(p, p.src, (p.sport << 16) | p.dport);
    if (this.routes.words[route + RouteField.ERRNO] !== 0) return false;
    this.routedMark = p.mark;
    p.outdev = this.routes.words[route + RouteField.OIF]!;
    p.nextHop = 0;
    p.routeMtu = this.routes.words[route + RouteField.MTU]!;
    return true;
  }

  /** The route of a packet of the router's own from `src`; only what is the router's can be asked for as a source. */
  private ownRoute(p: Packet, src: number, ports: number): number {
    const source = this.interfaces.isOwn(src) ? src : 0;
    return this.routes.output(p.dst, source, 0, p.mark, p.tos, p.protocol, ports);
  }

  /** TCPMSS: the route's MTU and that of the way back; a source that can't be reached sets no limit. */
  pathMtu(p: Packet): number {
    const { routes } = this;
    let mtu = p.routeMtu;
    if (mtu === 0) {
      const ports = (p.sport << 16) | p.dport;
      mtu = routes.words[routes.output(p.dst, p.src, p.outdev, p.mark, p.tos, p.protocol, ports) + RouteField.MTU]!;
    }
    const back = routes.output(p.src, 0, 0, 0, 0, 0, 0);
    if (routes.words[back + RouteField.ERRNO] !== 0) return mtu;
    const backMtu = routes.words[back + RouteField.MTU]!;
    return backMtu < mtu ? backMtu : mtu;
  }

  realm(p: Packet): number {
    const { routes } = this;
    const ports = (p.sport << 16) | p.dport;
    const route =
      p.indev !== 0
        ? routes.input(p.dst, p.src, p.indev, p.mark, p.tos, p.protocol, ports)
        : this.ownRoute(p, p.src, ports);
    return routes.words[route + RouteField.REALM]!;
  }

  isWayBack(p: Packet, mark: number, loose: boolean, acceptLocal: boolean): boolean {
    // Rules look the source up in the tables as it is; a route is not made to a group or to everybody, nor to 0.0.0.0,
    // which has none of its own but the default one's.
    const many = p.src >>> 28 === 0xe || p.src === -1;
    const dst = p.src === 0 ? NOBODY : p.src;
    const { words } = this.routes;
    // Nor can one by a wire be asked for from 127.0.0.0/8.
    const source = p.dst >>> 24 !== 127 && this.interfaces.isOwn(p.dst) ? p.dst : 0;
    const route = this.routes.output(dst, source, 0, mark, p.tos, 0, 0);
    if (words[route + RouteField.ERRNO] !== 0) return false;
    const type: RouteType = words[route + RouteField.TYPE]!;
    if (type === RouteType.LOCAL) return acceptLocal && (loose || this.interfaces.has(p.indev, p.src));
    if (type !== RouteType.UNICAST && !many) return false;
    return loose || words[route + RouteField.OIF] === p.indev;
  }

  /** MASQUERADE's source: inet_select_addr() of the way out, towards the next hop. */
  masqueradeAddress(p: Packet): number {
    let nextHop = p.nextHop;
    if (nextHop === 0) {
      const route = this.routes.output(p.dst, 0, p.outdev, p.mark, p.tos, p.protocol, (p.sport << 16) | p.dport);
      const gateway = this.routes.words[route + RouteField.GATEWAY]!;
      nextHop = gateway !== 0 ? gateway : p.dst;
    }
    return this.interfaces.selectAddress(p.outdev, nextHop);
  }

  /**
   * inet_dev_addr_type(): what the local table says of an address, UNICAST when it says nothing. `ifindex` (not 0): only
   * what is that interface's own counts.
   */
  addressType(address: number, ifindex: number): number {
    if (address === 0 || address === -1) return RouteType.BROADCAST;
    if (address >>> 28 === 0xe) return RouteType.MULTICAST;
    const route = this.routes.output(address, 0, 0, 0, 0, 0, 0);
    const words = this.routes.words;
    const type: RouteType = words[route + RouteField.ERRNO] === 0 ? words[route + RouteField.TYPE]! : RouteType.UNICAST;
    if (type === RouteType.LOCAL) {
      return ifindex === 0 || this.interfaces.has(ifindex, address) ? type : RouteType.UNICAST;
    }
    if (type !== RouteType.BROADCAST && type !== RouteType.ANYCAST) return RouteType.UNICAST;
    return ifindex === 0 || words[route + RouteField.OIF] === ifindex ? type : RouteType.UNICAST;
  }

  isListening(queue: number): boolean {
    return this.device.isListening?.(queue) ?? false;
  }

  /** REJECT: builds the answer, runs it through OUTPUT and POSTROUTING with the connection attached, and sends it. */
  reject(p: Packet, context: Context, kind: RejectWith): void {
    // A copy may be made of an answer that is on its way.
    if (p === this.copy) return;
    if (p.routeType === RouteType.BROADCAST || p.routeType === RouteType.MULTICAST) return;
    const { hook, in: indev, out: outdev } = context;
    // The kernel's own replies to queries leave under the lock that its errors need: they are never answered.
    const { protocol, icmpType } = p;
    const isReply = icmpType === IcmpType.ECHO_REPLY || icmpType === IcmpType.TIMESTAMP_REPLY;
    if (p.hook === Hook.OUTPUT && protocol === Proto.ICMP && isReply && (p.flags & InFlag.UID) === 0) return;
    if (kind === RejectWith.TCP_RESET) this.sendAnswer(p, RESET, 0, 0);
    else if (mayRefuse(p)) this.sendAnswer(p, IcmpType.DEST_UNREACH, REJECT_CODES[kind]!, 0);
    context.enter(hook, indev, outdev);
  }

  /**
   * nf_dup_ipv4(): a copy of the packet goes to `gateway`, by the interface `oif` if that isn't 0, through OUTPUT and POSTROUTING, and
   * belongs to no connection. What is longer than the way's MTU is lost, but for segmentation offload: that is cut.
   */
  duplicate(p: Packet, context: Context, gateway: number, oif: number): void {
    // No copies of copies.
    if (this.copying || (p.flags & InFlag.CUT) !== 0) return;
    const { words } = this.routes;
    const route = this.routes.output(gateway, 0, oif, 0, p.tos, 0, 0);
    if (words[route + RouteField.ERRNO] !== 0) return;
    const { hook, in: indev, out: outdev } = context;
    const { copy } = this;
    showTtl(p);
    const bytes = this.copyBytes;
    const length = p.end - p.start;
    for (let i = 0; i < length; i++) bytes[i] = p.bytes[p.start + i]!;
    if (hook === Hook.PREROUTING || hook === Hook.INPUT) setU8(bytes, TTL, u8(bytes, TTL) - 1);
    setU16(bytes, FRAGMENT, u16(bytes, FRAGMENT) | DONT_FRAGMENT);
    setU16(bytes, HEADER_CHECKSUM, headerChecksum(bytes, 0, p.headerLength));
    copy.flags = p.flags & (InFlag.GSO | InFlag.CSUM_PARTIAL);
    copy.parse(bytes, 0, length, 0);
    copy.hook = Hook.OUTPUT;
    copy.indev = 0;
    copy.outdev = words[route + RouteField.OIF]!;
    copy.mark = p.mark;
    copy.macLength = 0;
    copy.ct = -1;
    copy.ctState = CtState.UNTRACKED;
    copy.routeType = p.routeType;
    copy.nextHop = gateway;
    copy.routeMtu = words[route + RouteField.MTU]!;
    copy.gsoSize = p.gsoSize;
    this.copying = true;
    let verdict = this.output(copy, true);
    if (verdict === Verdict.ACCEPT) verdict = this.postrouting(copy);
    // What changed in OUTPUT is routed anew, by its destination.
    const rerouted = copy.nextHop === 0;
    if (verdict === Verdict.ACCEPT) {
      const outdev = this.kernelRoutes ? (rerouted ? 0 : oif) : copy.outdev;
      this.sendCopy(copy, rerouted ? 0 : gateway, outdev);
    }
    this.copying = false;
    context.enter(hook, indev, outdev);
  }

  private sendCopy(copy: Packet, gateway: number, outdev: number): void {
    const { device, segmenter } = this;
    const { routeMtu } = copy;
    if ((copy.flags & InFlag.GSO) === 0) {
      if (!this.kernelRoutes && copy.length > routeMtu) return;
      const field = checksumField(copy);
      if ((copy.flags & InFlag.CSUM_PARTIAL) !== 0 && field !== 0 && copy.fragOffset === 0) {
        completeChecksum(copy, copy.l4 + field);
      }
      device.inject(copy.bytes, copy.start, copy.end, 0, outdev, gateway);
      return;
    }
    const headers = headersLength(copy);
    segmenter.begin(copy, headers, copy.gsoSize !== 0 ? copy.gsoSize : routeMtu - headers);
    while (segmenter.next()) device.inject(segmenter.out, 0, segmenter.length, 0, outdev, gateway);
  }

  /**
   * What the kernel would answer itself, once the packet is back with it. It attaches its errors to the packet's connection;
   * from what they quote that can't be told where the connection isn't confirmed, or two have the same ends: so the
   * error about a tracked packet is sent from here, and the packet ends here; likewise about one that isn't to be tracked.
   */
  private answerError(p: Packet, type: IcmpType, code: number, rest: number): Verdict {
    if (this.kernelAnswers(p)) return Verdict.ACCEPT;
    this.sendAnswer(p, type, code, rest);
    return this.drop(DropReason.ANSWERED);
  }

  /** Whether an error about the packet belongs to no connection, and says so to rules: the kernel's own then does. */
  private kernelAnswers(p: Packet): boolean {
    return this.kernelRoutes && p.ct < 0 && (this.tracking === 0 || p.ctState !== CtState.UNTRACKED);
  }

  /** `type`: that of an ICMP error, or one of RESET, OWN_RESET, REPLY. */
  private sendAnswer(p: Packet, type: number, code: number, rest: number): void {
    // A reset that is refused in OUTPUT is answered, too.
    const about = p === this.answer ? 1 : 0;
    const answer = about === 0 ? this.answer : this.answerToAnswer;
    const bytes = this.answerBytes[about]!;
    const words = this.routes.words;
    const back = this.routes.output(p.src, 0, 0, 0, 0, 0, 0);
    if (words[back + RouteField.ERRNO] !== 0) return;
    const isError = type >= 0;
    const toUs = p.routeType === RouteType.LOCAL || this.interfaces.isLoopback(p.outdev);
    const source = toUs || !isError ? p.dst : words[back + RouteField.PREFSRC]!;
    const options = this.answerOptions;
    options.length = 0;
    if (this.optionsRead !== 0 && about === 0 && type !== RESET) {
      options.length = this.options.echo(p.bytes, p.start, options.bytes, 0, source, this.wallMs, this);
      if (options.length < 0) return;
    }
    let length: number;
    if (type === RESET) {
      length = buildReset(p, options, bytes, 0);
    } else if (type === OWN_RESET) {
      length = buildReset(p, options, bytes, 0, p.tos);
    } else if (type === REPLY) {
      this.answerId = (this.answerId + 1) & 0xffff;
      length = buildReply(p, this.answerId, this.wallMs, options, bytes, 0);
    } else {
      this.answerId = (this.answerId + 1) & 0xffff;
      // Nothing about what was addressed to many on its link.
      if (p.packetType !== PacketType.HOST) return;
      const mtu = words[back + RouteField.MTU]!;
      length = buildError(p, type, code, rest, source, this.answerId, mtu, options, bytes, 0);
      const unlimited = this.interfaces.isLoopback(words[back + RouteField.OIF]!);
      // Path MTU discovery isn't limited (icmpv4_mask_allow).
      const limited = !unlimited && !(type === IcmpType.DEST_UNREACH && code === FRAGMENTATION_NEEDED);
      if (length !== 0 && limited) {
        const { now } = this.context;
        if (!this.errorLimit.allowAny(now) || !this.errorLimit.allow(p.src, now)) return;
        this.errorLimit.sent();
      }
    }
    if (length === 0) return;
    answer.flags = type === RESET ? InFlag.CSUM_PARTIAL | InFlag.NO_SOCKET : 0;
    answer.parse(bytes, 0, length);
    if (type === OWN_RESET) finishReset(answer);
    answer.hook = Hook.OUTPUT;
    answer.indev = 0;
    answer.outdev = words[back + RouteField.OIF]!;
    answer.mark = 0;
    answer.macLength = 0;
    // What is refused on its way is answered as about the packet that it answers.
    answer.routeType = p.routeType;
    answer.nextHop = 0;
    answer.routeMtu = words[back + RouteField.MTU]!;
    answer.fragmentSize = 0;
    // TCP's own resets and answers to queries meet conntrack as any packet does.
    const attached = p.ct >= 0 && type !== OWN_RESET && type !== REPLY;
    if (attached) {
      attach(answer, p);
      if (type === RESET) tcpSetClosing(this.tracker.table, p.ct);
    } else if (p.ctState === CtState.UNTRACKED && type !== OWN_RESET && type !== REPLY) {
      // The kernel attaches it to nothing, which is more than not attaching it: -j CT passes it by.
      answer.ctState = CtState.INVALID;
    }
    const backToUs = words[back + RouteField.TYPE] === RouteType.LOCAL;
    let verdict = this.output(answer, attached);
    if (verdict === Verdict.ACCEPT) verdict = this.postrouting(answer);
    // What the table can't tell of it, should it come by lo.
    const keeps = this.tracking !== 0 && (attached || answer.ct < 0);
    if (!attached && answer.ct >= 0) release(this.tracker, answer);
    if (verdict !== Verdict.ACCEPT) return;
    if (type === RESET) finishReset(answer);
    // NAT can have sent it another way: also to the router itself, which may have nobody there to read it.
    const toItself = answer.dst === p.src ? backToUs : this.addressType(answer.dst, 0) === RouteType.LOCAL;
    if (!this.kernelRoutes && toItself && this.local === 0) {
      this.countDrop(DropReason.UNANSWERED);
      return;
    }
    this.stats[Stat.ANSWERS]! += 1;
    if (this.kernelRoutes || toItself || answer.length <= answer.routeMtu) {
      const { crossings } = this.tracker;
      if (crossings !== null && toItself && keeps) {
        if (attached && !this.tracker.table.isConfirmed(p.ct)) crossings.share(p.ct);
        crossings.keepLooped(answer);
      }
      const outdev = toItself ? this.local : answer.outdev;
      this.device.inject(answer.bytes, answer.start, answer.end, answer.mark, outdev, 0);
      return;
    }
    this.sendPieces(answer, answer.routeMtu, this.fragmenter);
  }

  /** Writes what goes back to the device: the mark if it changed, the bytes if they did, and how to finish their sum. */
  private giveBack(meta: Int32Array, m: number, p: Packet): void {
    putMarks(meta, m, p);
    if (p.changed === 0) return;
    if ((p.flags & InFlag.CUT) !== 0) {
      meta[m + Meta.VERDICT] = this.drop(DropReason.CUT);
      return;
    }
    if (this.comesAgain === 0) this.stats[Stat.CHANGED]! += 1;
    meta[m + Meta.OUT_FLAGS]! |= OutFlag.PAYLOAD;
    meta[m + Meta.NEW_OFFSET] = p.start;
    meta[m + Meta.NEW_LENGTH] = p.end - p.start;
    if ((p.flags & (InFlag.CSUM_PARTIAL | InFlag.GSO)) === 0 || p.fragOffset !== 0) return;
    const field = checksumField(p);
    if (field === 0) return;
    // The kernel takes a changed packet for one with no checksum done. One to be cut up needs the pseudo-header's sum
    // only, and anything else corrupts every UDP segment; one for a local socket is not cut up, and needs it whole.
    const leaves = p.hook === Hook.OUTPUT ? !this.interfaces.isLoopback(p.outdev) : p.routeType === RouteType.UNICAST;
    const cutUp = (p.flags & InFlag.GSO) !== 0 && leaves;
    meta[m + Meta.CHECKSUM_MODE] = cutUp ? ChecksumMode.PSEUDO : ChecksumMode.FULL;
    meta[m + Meta.CHECKSUM_START] = p.l4;
    meta[m + Meta.CHECKSUM_FIELD] = p.l4 + field;
  }

  private drop(reason: DropReason): Verdict {
    this.countDrop(reason);
    return Verdict.DROP;
  }

  private countDrop(reason: DropReason): void {
    this.stats[Stat.DROPS + reason]! += 1;
  }
}

/** Of a malformed packet that no kernel saw before, by ParseError. */
const MALFORMED_REASONS: Readonly<Record<ParseError, DropReason>> = {
  [ParseError.NONE]: DropReason.MALFORMED,
  [ParseError.TOO_SHORT]: DropReason.TRUNCATED,
  [ParseError.NOT_IPV4]: DropReason.NOT_IPV4,
  [ParseError.HEADER_LENGTH]: DropReason.MALFORMED,
  [ParseError.TOTAL_LENGTH]: DropReason.TRUNCATED,
};

/** The packet's mark, if it changed, and its class, if a rule gave it one. */
function putMarks(meta: Int32Array, m: number, p: Packet): void {
  if (p.mark !== meta[m + Meta.MARK]) {
    meta[m + Meta.NEW_MARK] = p.mark;
    meta[m + Meta.OUT_FLAGS]! |= OutFlag.MARK;
  }
  if (p.classified !== 0) {
    meta[m + Meta.NEW_PRIORITY] = p.priority;
    meta[m + Meta.OUT_FLAGS]! |= OutFlag.PRIORITY;
  }
}

/** Protocols that every kernel speaks. */
const isCommon = (protocol: number): boolean =>
  protocol === Proto.ICMP || protocol === Proto.TCP || protocol === Proto.UDP || protocol === Proto.IGMP;

/** Offset of the checksum in the transport header whose sum a device may be left to do; 0: there is none. */
function checksumField(p: Packet): number {
  if (p.protocol === Proto.TCP) return 16;
  return p.protocol === Proto.UDP || p.protocol === Proto.UDPLITE ? 6 : 0;
}

/** Computes the transport checksum at `at`, which the sender left to its device. */
function completeChecksum(p: Packet, at: number): void {
  const { bytes, l4, end } = p;
  setU16(bytes, at, 0);
  const checksum = ~sum(bytes, l4, end, pseudoSum(p.src, p.dst, p.protocol, end - l4)) & 0xffff;
  setU16(bytes, at, checksum === 0 && p.protocol !== Proto.TCP ? 0xffff : checksum);
}

/** Bytes before a GSO packet's payload. */
function headersLength(p: Packet): number {
  const transport = p.protocol === Proto.TCP ? (p.tcpOk !== 0 ? (u8(p.bytes, p.l4 + 12) >> 4) << 2 : 0) : UDP_HEADER;
  return p.l4 - p.start + transport;
}
