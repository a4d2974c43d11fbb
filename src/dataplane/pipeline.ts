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
 * puts fragments together, routes, answers and cuts (`kernelRoutes` false; stack.ts). What can go no further (no route, TTL at its end, too long) is answered
 * here when it has a connection (responder.ts, `answerError`); else it goes back as PREROUTING left it, and the kernel answers.
 */
import type { ErrorLimit } from './answer.js';
import { isReserved } from './conntrack/crossings.js';
import { isAttachedError, isIcmpError } from './conntrack/icmp.js';
import { linkDir, linkEntry } from './conntrack/layout.js';
import { bindHelper, confirm, findLoopback, release, track, type Tracker } from './conntrack/track.js';
import type { Interfaces } from './interfaces.js';
import { type Batch, ChecksumMode, InFlag, Meta, META_WORDS, OutFlag } from './io/batch.js';
import type { Device } from './io/device.js';
import type { Sets } from './io/ipset.js';
import { isMartianDestination, isMartianSource } from './ip/martian.js';
import { CtState, Hook, Ipsec, LinkMark, PrivateMark, Proto, Table, Verdict } from './names.js';
import type { Nat } from './nat/bind.js';
import { followExpected, help, Helpers } from './nat/help.js';
import { setReserved, showTtl } from './nat/rewrite.js';
import { ASK_RULES, begin, finish, sourceLink, UNDECIDED, UNCHANGED } from './nat/translate.js';
import { checksumField, exceedsMtu } from './offload.js';
import { Packet, ParseError, putMarks } from './packet.js';
import { Context, type LogSink } from './program/context.js';
import { Chain, entry, Header, ProgramFlag } from './program/format.js';
import { forwardedTwice, ownTwice, RoutedBy, Twice } from './program/late.js';
import { PacketType } from './program/pkttype.js';
import { policy, run } from './program/run.js';
import { RouteQuestions } from './questions.js';
import { type Hooks, Responder } from './responder.js';
import { RouteField, type Routes, RouteType, SourceCheck } from './route/routes.js';
import { countDrop, drop, DropReason, Stat } from './shared.js';
import { IpStack } from './stack.js';
import { u16 } from './wire/bytes.js';
import { headerChecksum } from './wire/checksum.js';
import { DestUnreach, HEADER_LENGTH as ICMP_HEADER, IcmpType } from './wire/icmp.js';
import { Options, SOURCE_ROUTE } from './wire/options.js';

/** All hosts of this subnet, the only group the router is in. */
const ALL_HOSTS = 0xe0000001 | 0;
/** An IP header without options, and its checksum. */
const IP_HEADER = 20;
const HEADER_CHECKSUM = 10;

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

export class Pipeline implements Hooks {
  private readonly packet = new Packet();
  private readonly options = new Options();
  readonly context: Context;
  private readonly tracker: Tracker;
  private readonly nat: Nat;
  private readonly helpers: Helpers;
  private readonly routes: Routes;
  private readonly interfaces: Interfaces;
  private readonly stats: Float64Array;
  private readonly questions: RouteQuestions;
  private readonly responder: Responder;

  /** False: nobody routes what is sent, hutter is the whole router. */
  private readonly kernelRoutes: boolean;
  /** What hutter does beside the hooks where it is the whole router; null: the kernel does. */
  private readonly stack: IpStack | null = null;
  /** What an error quotes. */
  private readonly quote = new Packet();

  private program: Int32Array = new Int32Array(0);
  /** 1: the program asks for connections. Numbers, as V8 tests them faster than booleans. */
  tracking = 0;
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

  constructor(parts: PipelineParts) {
    const { device, errorLimit, interfaces, local = 0, routes, stats, tracker } = parts;
    const { options } = this;
    const questions = new RouteQuestions(routes, interfaces);
    const responder = new Responder({
      hooks: this,
      tracker,
      routes,
      questions,
      interfaces,
      device,
      stats,
      errorLimit,
      options,
      local,
    });
    this.questions = questions;
    this.responder = responder;
    this.context = new Context({
      interfaces,
      table: tracker.table,
      nat: parts.nat,
      log: parts.log,
      sets: parts.sets,
      answers: responder,
      routes: questions,
      hz: parts.hz,
      worker: parts.worker,
    });
    this.tracker = tracker;
    this.nat = parts.nat;
    this.helpers = new Helpers(parts.nat, interfaces);
    followExpected(parts.nat, tracker);
    this.routes = routes;
    this.interfaces = interfaces;
    this.stats = stats;
    this.kernelRoutes = device.capabilities.kernelRoutes;
    if (this.kernelRoutes) return;
    const { context } = this;
    const { table } = tracker;
    this.stack = new IpStack({ responder, questions, interfaces, table, device, stats, context, options, local });
    responder.cutter = this.stack;
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
    this.stack?.giveUpFragments();
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
      countDrop(stats, this.kernelRoutes ? DropReason.MALFORMED : MALFORMED_REASONS[malformed]);
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
    p.routeType = RouteType.NONE;
    p.gsoSize = meta[m + Meta.GSO_SIZE]!;

    let verdict: Verdict;
    if (this.kernelRoutes) {
      this.comesAgain = 0;
      if (hook === Hook.POSTROUTING) verdict = this.again(p);
      else verdict = hook === Hook.OUTPUT ? this.fromHere(p) : this.fromNetwork(p);
    } else {
      p.fragmentSize = 0;
      p.optionsRead = 0;
      this.routes.place = i;
      verdict = hook === Hook.OUTPUT ? this.fromSocket(p) : this.fromWire(p);
      if (verdict === Verdict.ACCEPT) verdict = this.stack!.transmit(batch, i, p);
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
      p.routeType = this.questions.addressType(p.dst, 0);
      return p.routeType === RouteType.UNICAST ? Verdict.ACCEPT : this.input(p);
    }
    if (!this.kernelRoutes) {
      if (isMartianSource(p.src, p.dst)) return drop(this.stats, DropReason.MARTIAN_SOURCE);
      if (isMartianDestination(p.src, p.dst)) return drop(this.stats, DropReason.MARTIAN_DESTINATION);
    }
    const words = this.routes.words;
    const route = this.routes.input(p.dst, p.src, p.indev, p.mark, p.tos, p.protocol, (p.sport << 16) | p.dport);
    const check = words[route + RouteField.CHECK]!;
    const type: RouteType = words[route + RouteField.TYPE]!;
    const toMany = type === RouteType.BROADCAST || type === RouteType.MULTICAST;
    // The bridge may pass it on without a look at routes, sources and TTL: only the kernel knows for whom the frame was.
    if (p.physindev !== 0 && this.kernelRoutes && type !== RouteType.LOCAL && !toMany) return this.twice(p, p.mark);
    if (check !== SourceCheck.OK && !(toMany && this.kernelRoutes && this.isOwnCopy(p))) {
      return drop(this.stats, check === SourceCheck.MARTIAN ? DropReason.MARTIAN_SOURCE : DropReason.REVERSE_PATH);
    }
    if (p.headerLength > IP_HEADER) {
      const problem = this.readOptions(p, type);
      // Who can't read an option says so; a packet that names its own way is not let in.
      if (problem === SOURCE_ROUTE) {
        return drop(this.stats, this.kernelRoutes ? DropReason.MALFORMED : DropReason.SOURCE_ROUTE);
      }
      if (problem !== 0) {
        if (this.responder.kernelAnswers(p)) return Verdict.ACCEPT;
        p.routeType = type;
        this.responder.send(p, IcmpType.PARAMETER_PROBLEM, 0, problem << 24);
        return drop(this.stats, DropReason.MALFORMED);
      }
    }
    const errno = words[route + RouteField.ERRNO]!;
    if (errno !== 0) return this.responder.noRoute(p, errno);
    p.routeType = type;
    if (type === RouteType.LOCAL || toMany) {
      if (this.kernelRoutes) return this.forSockets(p);
      if (type === RouteType.MULTICAST && p.dst !== ALL_HOSTS) return drop(this.stats, DropReason.MULTICAST);
      return this.deliver(p);
    }
    if (type !== RouteType.UNICAST) return this.kernelRoutes ? Verdict.ACCEPT : drop(this.stats, DropReason.BLACKHOLE);

    // ip_forward(): what was not addressed to this host on its link is dropped, by the kernel; where it answers the next two itself,
    // it must see the packet as it came.
    if (p.packetType !== PacketType.HOST) return Verdict.ACCEPT;
    if (p.ttl <= 1) return this.responder.answerError(p, IcmpType.TIME_EXCEEDED, 0, 0);
    const mtu = words[route + RouteField.MTU]!;
    if (p.dontFragment !== 0 && p.length > mtu && exceedsMtu(p, mtu)) {
      return this.responder.answerError(p, IcmpType.DEST_UNREACH, DestUnreach.FRAGMENTATION_NEEDED, mtu);
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
    if (!this.kernelRoutes && p.headerLength > IP_HEADER) this.stack!.passOptions(p);
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
      p.optionsRead = 1;
    }
    return this.options.read(p.bytes, p.start, p.headerLength, writes, address, this.context.wallMs, this.questions);
  }

  // ---- where hutter is the whole router ----

  /** In by an interface: ip_rcv(), then the way of `fromNetwork`. */
  private fromWire(p: Packet): Verdict {
    if (headerChecksum(p.bytes, p.start, p.headerLength) !== u16(p.bytes, p.start + HEADER_CHECKSUM)) {
      return drop(this.stats, DropReason.HEADER_CHECKSUM);
    }
    // nf_defrag_ipv4: before the first rule, where connections are tracked.
    if (this.tracking !== 0 && (p.fragOffset | p.moreFragments) !== 0) {
      const fate = this.stack!.reassemble(p);
      if (fate !== Verdict.ACCEPT) return fate;
    }
    return this.fromNetwork(p);
  }

  /** In by `local`, from a socket of the router's own: it has no route yet. */
  private fromSocket(p: Packet): Verdict {
    p.indev = 0;
    if (this.tracking && (p.fragOffset | p.moreFragments) !== 0) {
      const fate = this.stack!.reassemble(p);
      if (fate !== Verdict.ACCEPT) return fate;
    }
    const words = this.routes.words;
    const source = this.interfaces.isOwn(p.src) ? p.src : 0;
    const route = this.routes.output(p.dst, source, 0, p.mark, p.tos, p.protocol, (p.sport << 16) | p.dport);
    const errno = words[route + RouteField.ERRNO]!;
    if (errno !== 0) return this.responder.noRoute(p, errno);
    p.routeType = words[route + RouteField.TYPE]!;
    if (p.routeType !== RouteType.UNICAST && p.routeType !== RouteType.BROADCAST) {
      return drop(this.stats, DropReason.MULTICAST);
    }
    p.outdev = words[route + RouteField.OIF]!;
    const verdict = this.fromHere(p);
    if (p.routeMtu === 0) p.routeMtu = this.routes.words[route + RouteField.MTU]!;
    return verdict;
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
    const { quote } = this;
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
    if (crossings === null || !this.diverted) return drop(this.stats, DropReason.SECOND_CROSSING);
    if ((p.flags & InFlag.CUT) !== 0) return drop(this.stats, DropReason.CUT);
    if (!crossings.keep(p)) return drop(this.stats, DropReason.SECOND_CROSSING);
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
    if (crossings === null || !crossings.restore(p)) return drop(this.stats, DropReason.SECOND_CROSSING);
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
        return drop(this.stats, check === SourceCheck.MARTIAN ? DropReason.MARTIAN_SOURCE : DropReason.REVERSE_PATH);
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
    const now = this.questions.ownRoute(p, p.src, (p.sport << 16) | p.dport);
    const outdev = words[now + RouteField.OIF]!;
    const gateway = words[now + RouteField.GATEWAY]!;
    return this.differs(this.questions.ownRoute(p, src, ports), outdev, gateway);
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
      if (track(this.tracker, p, Hook.PREROUTING) !== Verdict.ACCEPT) return drop(this.stats, DropReason.CONNTRACK);
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

  /** ip_local_deliver(), where hutter is the whole router. */
  private deliver(p: Packet): Verdict {
    const stack = this.stack!;
    if ((p.fragOffset | p.moreFragments) !== 0) {
      const fate = stack.reassemble(p);
      if (fate !== Verdict.ACCEPT) return fate;
    }
    const verdict = this.input(p);
    return verdict === Verdict.ACCEPT ? stack.deliver(p) : verdict;
  }

  private forward(p: Packet): Verdict {
    this.enter(Hook.FORWARD, p.indev, p.outdev, p);
    const verdict = this.table(Table.MANGLE, Hook.FORWARD, p);
    return verdict === Verdict.ACCEPT ? this.filter(Hook.FORWARD, p) : verdict;
  }

  /** `attached`: an answer of hutter's own, which belongs to the connection of the packet it answers. */
  output(p: Packet, attached: boolean): Verdict {
    this.enter(Hook.OUTPUT, 0, p.outdev, p);
    // An error of the kernel's own is attached to what it is about before its first hook (icmp.c, nf_ct_attach).
    const kernels = p === this.packet && (p.flags & InFlag.UID) === 0;
    if (this.tracking !== 0 && kernels && isIcmpError(p) && isAttachedError(p, this.interfaces.isOwn(p.dst))) {
      track(this.tracker, p, Hook.OUTPUT);
      if (p.ct >= 0) attached = true;
      // What is about nothing is no less attached to it: -j CT passes it by.
      else p.ctState = this.isAboutUntracked(p) ? CtState.INVALID : 0;
    }
    let verdict = this.table(Table.RAW, Hook.OUTPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (this.tracking !== 0 && !attached && track(this.tracker, p, Hook.OUTPUT) !== Verdict.ACCEPT) {
      return drop(this.stats, DropReason.CONNTRACK);
    }
    const { src, dst, mark, tos } = p;
    verdict = this.table(Table.MANGLE, Hook.OUTPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if ((p.mark !== mark || p.tos !== tos || p.src !== src || p.dst !== dst) && !this.reroute(p)) {
      return drop(this.stats, DropReason.NO_ROUTE);
    }
    const before = p.dst;
    verdict = this.translate(Hook.OUTPUT, p);
    if (verdict !== Verdict.ACCEPT) return verdict;
    if (p.dst !== before && !this.reroute(p)) return drop(this.stats, DropReason.NO_ROUTE);
    return this.filter(Hook.OUTPUT, p);
  }

  postrouting(p: Packet): Verdict {
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
    return verdict === Verdict.ACCEPT ? verdict : drop(this.stats, DropReason.NAT);
  }

  private confirm(p: Packet): Verdict {
    if (p.ct < 0) return Verdict.ACCEPT;
    bindHelper(this.tracker, p);
    if (help(this.helpers, p, this.interfaces.isLoopback(p.indev)) !== Verdict.ACCEPT) {
      return drop(this.stats, DropReason.HELPER);
    }
    return confirm(this.tracker, p) === Verdict.ACCEPT ? Verdict.ACCEPT : drop(this.stats, DropReason.CONNTRACK);
  }

  /** ip_route_me_harder(): a packet of the router's own goes by another way since its key changed. */
  private reroute(p: Packet): boolean {
    const route = this.questions.ownRoute(p, p.src, (p.sport << 16) | p.dport);
    if (this.routes.words[route + RouteField.ERRNO] !== 0) return false;
    this.routedMark = p.mark;
    p.outdev = this.routes.words[route + RouteField.OIF]!;
    p.nextHop = 0;
    p.routeMtu = this.routes.words[route + RouteField.MTU]!;
    return true;
  }

  /** Writes what goes back to the device: the mark if it changed, the bytes if they did, and how to finish their sum. */
  private giveBack(meta: Int32Array, m: number, p: Packet): void {
    putMarks(meta, m, p);
    if (p.changed === 0) return;
    if ((p.flags & InFlag.CUT) !== 0) {
      meta[m + Meta.VERDICT] = drop(this.stats, DropReason.CUT);
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
}

/** Of a malformed packet that no kernel saw before, by ParseError. */
const MALFORMED_REASONS: Readonly<Record<ParseError, DropReason>> = {
  [ParseError.NONE]: DropReason.MALFORMED,
  [ParseError.TOO_SHORT]: DropReason.TRUNCATED,
  [ParseError.NOT_IPV4]: DropReason.NOT_IPV4,
  [ParseError.HEADER_LENGTH]: DropReason.MALFORMED,
  [ParseError.TOTAL_LENGTH]: DropReason.TRUNCATED,
};

/** Protocols that every kernel speaks. */
const isCommon = (protocol: number): boolean =>
  protocol === Proto.ICMP || protocol === Proto.TCP || protocol === Proto.UDP || protocol === Proto.IGMP;
