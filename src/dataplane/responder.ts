/**
 * Packets of the router's own making that go out while it handles another: REJECT's answers, ICMP errors, answers to queries,
 * resets, TEE's copies. Each is a packet of its own that crosses OUTPUT and POSTROUTING; answer.ts says what is in it.
 */
import { isLoopback } from './ip/martian.js';
import {
  ANSWER_LENGTH,
  type AnswerOptions,
  buildError,
  buildReply,
  buildReset,
  type ErrorLimit,
  finishReset,
  mayRefuse,
} from './answer.js';
import { tcpSetClosing } from './conntrack/tcp.js';
import { attach, release, type Tracker } from './conntrack/track.js';
import type { Interfaces } from './interfaces.js';
import { InFlag } from './io/batch.js';
import type { Device } from './io/device.js';
import { Segmenter } from './ip/segment.js';
import { CtState, Hook, Proto, Verdict } from './names.js';
import { showTtl } from './nat/rewrite.js';
import { checksumField, completeChecksum, headersLength } from './offload.js';
import { Packet } from './packet.js';
import type { Answers, Context } from './program/context.js';
import { PacketType } from './program/pkttype.js';
import { REJECT_CODES, RejectWith } from './program/reject.js';
import type { RouteQuestions } from './questions.js';
import { Errno, RouteField, type Routes, RouteType } from './route/routes.js';
import { countDrop, drop, DropReason, Stat } from './shared.js';
import { setU16, setU8, u16, u8 } from './wire/bytes.js';
import { sealHeader } from './wire/checksum.js';
import { DestUnreach, IcmpType } from './wire/icmp.js';
import type { Options } from './wire/options.js';

/** What `send` builds beside ICMP errors, no type of those: REJECT's reset, TCP's own, an answer to a query. */
const RESET = -1;
export const OWN_RESET = -2;
export const REPLY = -3;
/** Fields of an IP header. */
const TTL = 8;
const FRAGMENT = 6;
const DONT_FRAGMENT = 0x4000;
const MOST_MTU = 65_535;

/** The hooks that an answer crosses. */
export interface Hooks {
  /** Its time is that of the packet at hand. */
  readonly context: Context;
  /** Not 0: the program asks for connections. */
  readonly tracking: number;
  /** `attached`: the packet has its connection already. */
  output(p: Packet, attached: boolean): Verdict;
  postrouting(p: Packet): Verdict;
}

/** Sends a packet in fragments of `mtu` bytes at most. */
export interface Cutter {
  sendPieces(p: Packet, mtu: number): void;
}

export interface ResponderParts {
  readonly hooks: Hooks;
  readonly tracker: Tracker;
  readonly routes: Routes;
  readonly questions: RouteQuestions;
  readonly interfaces: Interfaces;
  readonly device: Device;
  readonly stats: Float64Array;
  readonly errorLimit: ErrorLimit;
  /** Of the packet at hand. */
  readonly options: Options;
  /** The interface to the router's own sockets, where hutter is the whole router; 0 = none. */
  readonly local: number;
}

export class Responder implements Answers {
  /** Where hutter is the whole router: what cuts answers that are too long. */
  cutter: Cutter | null = null;
  private readonly answer = new Packet();
  private readonly answerToAnswer = new Packet();
  private readonly answerBytes = [new Uint8Array(ANSWER_LENGTH), new Uint8Array(ANSWER_LENGTH)];
  private answerId = 1;
  private readonly answerOptions: AnswerOptions = { bytes: new Uint8Array(40), length: 0 };
  /** TEE's copy, while `copying`. */
  private readonly copy = new Packet();
  private readonly copyBytes = new Uint8Array(MOST_MTU + 1);
  private copying = false;
  private readonly segmenter = new Segmenter();
  private readonly hooks: Hooks;
  private readonly tracker: Tracker;
  private readonly routes: Routes;
  private readonly questions: RouteQuestions;
  private readonly interfaces: Interfaces;
  private readonly device: Device;
  private readonly stats: Float64Array;
  private readonly errorLimit: ErrorLimit;
  private readonly options: Options;
  private readonly local: number;
  private readonly kernelRoutes: boolean;

  constructor(parts: ResponderParts) {
    this.hooks = parts.hooks;
    this.tracker = parts.tracker;
    this.routes = parts.routes;
    this.questions = parts.questions;
    this.interfaces = parts.interfaces;
    this.device = parts.device;
    this.stats = parts.stats;
    this.errorLimit = parts.errorLimit;
    this.options = parts.options;
    this.local = parts.local;
    this.kernelRoutes = parts.device.capabilities.kernelRoutes;
  }

  /** ip_error(), with its own limit beside that of all errors. */
  noRoute(p: Packet, errno: number): Verdict {
    if (this.kernelAnswers(p)) return Verdict.ACCEPT;
    if (errno !== Errno.HOSTUNREACH && errno !== Errno.NETUNREACH && errno !== Errno.ACCES) {
      return this.kernelRoutes ? Verdict.ACCEPT : drop(this.stats, DropReason.BLACKHOLE);
    }
    if (!this.errorLimit.allowRoute(p.src, this.hooks.context.now)) return drop(this.stats, DropReason.NO_ROUTE);
    if (errno === Errno.HOSTUNREACH) return this.answerError(p, IcmpType.DEST_UNREACH, DestUnreach.HOST, 0);
    if (errno === Errno.NETUNREACH) return this.answerError(p, IcmpType.DEST_UNREACH, DestUnreach.NET, 0);
    return this.answerError(p, IcmpType.DEST_UNREACH, DestUnreach.FILTERED, 0);
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
    if (kind === RejectWith.TCP_RESET) this.send(p, RESET, 0, 0);
    else if (mayRefuse(p)) this.send(p, IcmpType.DEST_UNREACH, REJECT_CODES[kind]!, 0);
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
    sealHeader(bytes, 0, p.headerLength);
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
    copy.optionsRead = 0;
    this.copying = true;
    let verdict = this.hooks.output(copy, true);
    if (verdict === Verdict.ACCEPT) verdict = this.hooks.postrouting(copy);
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
  answerError(p: Packet, type: IcmpType, code: number, rest: number): Verdict {
    if (this.kernelAnswers(p)) return Verdict.ACCEPT;
    this.send(p, type, code, rest);
    return drop(this.stats, DropReason.ANSWERED);
  }

  /** Whether an error about the packet belongs to no connection, and says so to rules: the kernel's own then does. */
  kernelAnswers(p: Packet): boolean {
    return this.kernelRoutes && p.ct < 0 && (this.hooks.tracking === 0 || p.ctState !== CtState.UNTRACKED);
  }

  /** `type`: that of an ICMP error, or one of RESET, OWN_RESET, REPLY. */
  send(p: Packet, type: number, code: number, rest: number): void {
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
    // __mkroute_output(): what was turned to 127.0.0.0/8 can't be answered by a wire.
    if (isLoopback(source) && !this.interfaces.isLoopback(words[back + RouteField.OIF]!)) return;
    const options = this.answerOptions;
    options.length = 0;
    if (p.optionsRead !== 0 && type !== RESET) {
      options.length = this.options.echo(
        p.bytes,
        p.start,
        options.bytes,
        0,
        source,
        this.hooks.context.wallMs,
        this.questions,
      );
      if (options.length < 0) return;
    }
    let length: number;
    if (type === RESET) {
      length = buildReset(p, options, bytes, 0);
    } else if (type === OWN_RESET) {
      length = buildReset(p, options, bytes, 0, p.tos);
    } else if (type === REPLY) {
      this.answerId = (this.answerId + 1) & 0xffff;
      length = buildReply(p, this.answerId, this.hooks.context.wallMs, options, bytes, 0);
    } else {
      this.answerId = (this.answerId + 1) & 0xffff;
      // Nothing about what was addressed to many on its link.
      if (p.packetType !== PacketType.HOST) return;
      const mtu = words[back + RouteField.MTU]!;
      length = buildError(p, type, code, rest, source, this.answerId, mtu, options, bytes, 0);
      const unlimited = this.interfaces.isLoopback(words[back + RouteField.OIF]!);
      // Path MTU discovery isn't limited (icmpv4_mask_allow).
      const limited = !unlimited && !(type === IcmpType.DEST_UNREACH && code === DestUnreach.FRAGMENTATION_NEEDED);
      if (length !== 0 && limited) {
        const { now } = this.hooks.context;
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
    answer.optionsRead = 0;
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
    let verdict = this.hooks.output(answer, attached);
    if (verdict === Verdict.ACCEPT) verdict = this.hooks.postrouting(answer);
    // What the table can't tell of it, should it come by lo.
    const keeps = this.hooks.tracking !== 0 && (attached || answer.ct < 0);
    if (!attached && answer.ct >= 0) release(this.tracker, answer);
    if (verdict !== Verdict.ACCEPT) return;
    if (type === RESET) finishReset(answer);
    // NAT can have sent it another way: also to the router itself, which may have nobody there to read it.
    const toItself = answer.dst === p.src ? backToUs : this.questions.addressType(answer.dst, 0) === RouteType.LOCAL;
    if (!this.kernelRoutes && toItself && this.local === 0) {
      countDrop(this.stats, DropReason.UNANSWERED);
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
    this.cutter?.sendPieces(answer, answer.routeMtu);
  }
}
