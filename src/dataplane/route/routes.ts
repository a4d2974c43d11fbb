/**
 * Where a packet goes: answers of the kernel about routes, kept until something changes. One object a worker.
 *
 * The kernel routes what the queue gives back; hutter asks it beforehand because -o, the MTU and MASQUERADE need the
 * answer earlier. An answer lives in a direct-mapped table of flat words and is dropped as a whole by `forget` when the
 * main thread saw a notice of links, addresses, routes, rules or nexthops.
 */
import type { Interfaces } from '../interfaces.js';

/** RTN_* (include/uapi/linux/rtnetlink.h): what kind of route the kernel found. */
export const enum RouteType {
  NONE = 0,
  UNICAST = 1,
  LOCAL = 2,
  BROADCAST = 3,
  ANYCAST = 4,
  MULTICAST = 5,
  BLACKHOLE = 6,
  UNREACHABLE = 7,
  PROHIBIT = 8,
  THROW = 9,
}

/**
 * Words of a question. Addresses host order; IIF 0 asks as for a packet of the router's own; UID −1 = none; PLACE: that of the
 * batch's packet to which DST belongs, −1 = none.
 */
export const enum Question {
  DST = 0,
  SRC = 1,
  IIF = 2,
  OIF = 3,
  MARK = 4,
  TOS = 5,
  PROTOCOL = 6,
  SPORT = 7,
  DPORT = 8,
  UID = 9,
  PLACE = 10,
  WORDS = 11,
}

/** Words of an answer. ERRNO 0 and a TYPE, or a positive ERRNO (EHOSTUNREACH, ENETUNREACH, EACCES, EINVAL, EXDEV …). */
export const enum Answer {
  ERRNO = 0,
  TYPE = 1,
  OIF = 2,
  /** 0 = the destination is on the link. */
  GATEWAY = 3,
  /** Source the kernel would choose for a packet of its own. */
  PREFSRC = 4,
  /** The route's own MTU in bytes; 0 = the interface's. */
  MTU = 5,
  REALM = 6,
  WORDS = 7,
}

/** errno values of answers and of refused changes, as the kernel has them (include/uapi/asm-generic/errno.h). */
export const enum Errno {
  NOENT = 2,
  SRCH = 3,
  AGAIN = 11,
  ACCES = 13,
  EXIST = 17,
  XDEV = 18,
  NODEV = 19,
  INVAL = 22,
  NETDOWN = 100,
  NETUNREACH = 101,
  NOBUFS = 105,
  HOSTUNREACH = 113,
}

/** Who answers: the kernel through rtnetlink, or a table in tests. */
export interface RouteSource {
  ask(question: Int32Array, answer: Int32Array): void;
}

/** What is kept with an answer, in RouteField.CHECK. */
export const enum SourceCheck {
  OK = 0,
  /** The source is one of the router's own addresses: no neighbour can have sent it (fib_validate_source). */
  MARTIAN = 1,
  /** rp_filter had dropped it: the way back is by another interface (1), or there is none (2). */
  REVERSE_PATH = 2,
}

/** Words of a kept answer, from the offset that `input` and `output` return. */
export const enum RouteField {
  ERRNO = 10,
  TYPE = 11,
  OIF = 12,
  GATEWAY = 13,
  PREFSRC = 14,
  /** In bytes: the route's own, else the interface's. */
  MTU = 15,
  REALM = 16,
  CHECK = 17,
  EPOCH = 18,
}
const ENTRY_WORDS = 20;
const ENTRIES = 1 << 14;

export class Routes {
  /** Kept answers; read at the offsets that lookups return, plus a RouteField. */
  readonly words = new Int32Array(ENTRIES * ENTRY_WORDS);
  /** How often the kernel was asked. */
  questions = 0;
  /** Routes are chosen by protocol and ports, too, somewhere: they become part of the key. */
  policy = false;
  /** Place in the batch of the packet at hand. */
  place = -1;
  private epoch = 1;
  private strict = new Set<number>();
  private loose = new Set<number>();
  private readonly question = new Int32Array(Question.WORDS);
  private readonly answer = new Int32Array(Answer.WORDS);
  private readonly reverse = new Int32Array(Answer.WORDS);

  constructor(
    private readonly source: RouteSource,
    private readonly interfaces: Interfaces,
  ) {}

  /** Drops every kept answer. */
  forget(): void {
    this.epoch = (this.epoch + 1) | 0;
  }

  /** Interfaces on which a source must be reached back the same way (rp_filter=1 before hutter relaxed it). */
  setStrictReversePath(ifindexes: readonly number[]): void {
    this.strict = new Set(ifindexes);
    this.forget();
  }

  /** Interfaces on which a source must be reachable by some interface (rp_filter=2). */
  setLooseReversePath(ifindexes: readonly number[]): void {
    this.loose = new Set(ifindexes);
    this.forget();
  }

  /** The route of a packet that came in by `indev`: offset of the kept answer in `words`. */
  input(dst: number, src: number, indev: number, mark: number, tos: number, protocol: number, ports: number): number {
    return this.lookup(dst, src, indev, 0, mark, tos, protocol, ports);
  }

  /** The route of a packet of the router's own; `src` 0 = not chosen yet, `outdev` 0 = not bound to one. */
  output(dst: number, src: number, outdev: number, mark: number, tos: number, protocol: number, ports: number): number {
    return this.lookup(dst, src, 0, outdev, mark, tos, protocol, ports);
  }

  private lookup(
    dst: number,
    src: number,
    iif: number,
    oif: number,
    mark: number,
    tos: number,
    protocol: number,
    ports: number,
  ): number {
    const w = this.words;
    // Routes see the six DSCP bits; the two ECN bits say nothing about the way.
    const dscp = tos & 0xfc;
    const transport = this.policy === true ? protocol : 0;
    const keyPorts = this.policy === true ? ports : 0;
    const rest = mark ^ (iif << 8) ^ (oif << 16) ^ (dscp << 22) ^ transport ^ keyPorts;
    const h = Math.imul(dst, 0x9e3779b1 | 0) ^ Math.imul(src, 0x85ebca6b | 0) ^ Math.imul(rest, 0x27d4eb2f);
    const o = ((h ^ (h >>> 15)) & (ENTRIES - 1)) * ENTRY_WORDS;
    if (
      w[o + RouteField.EPOCH] === this.epoch &&
      w[o + Question.DST] === dst &&
      w[o + Question.SRC] === src &&
      w[o + Question.IIF] === iif &&
      w[o + Question.OIF] === oif &&
      w[o + Question.MARK] === mark &&
      w[o + Question.TOS] === dscp &&
      w[o + Question.PROTOCOL] === transport &&
      w[o + Question.SPORT] === keyPorts
    ) {
      return o;
    }
    w[o + Question.DST] = dst;
    w[o + Question.SRC] = src;
    w[o + Question.IIF] = iif;
    w[o + Question.OIF] = oif;
    w[o + Question.MARK] = mark;
    w[o + Question.TOS] = dscp;
    w[o + Question.PROTOCOL] = transport;
    w[o + Question.SPORT] = keyPorts;
    this.put(dst, src, iif, oif, mark, dscp, protocol, ports, this.place);
    this.source.ask(this.question, this.answer);
    this.questions++;
    for (let i = 0; i < Answer.WORDS; i++) w[o + RouteField.ERRNO + i] = this.answer[i]!;
    if (w[o + RouteField.MTU] === 0) w[o + RouteField.MTU] = this.interfaces.mtu(w[o + RouteField.OIF]!);
    w[o + RouteField.CHECK] = iif === 0 ? SourceCheck.OK : this.checkSource(src, dst, iif, mark, dscp);
    w[o + RouteField.EPOCH] = this.epoch;
    return o;
  }

  private checkSource(src: number, dst: number, iif: number, mark: number, dscp: number): SourceCheck {
    if (src === 0 || this.interfaces.isLoopback(iif)) return SourceCheck.OK;
    if (this.interfaces.isOwn(src)) return SourceCheck.MARTIAN;
    const strict = this.strict.has(iif);
    if (!strict && !this.loose.has(iif)) return SourceCheck.OK;
    // __fib_validate_source() asks for the way back with the addresses exchanged; a packet's destination that is not
    // the router's own can't be asked for as a source, so policy by source is not seen here.
    this.put(src, this.interfaces.isOwn(dst) ? dst : 0, 0, 0, mark, dscp, 0, 0, -1);
    this.source.ask(this.question, this.reverse);
    this.questions++;
    const reverse = this.reverse;
    const back = reverse[Answer.ERRNO] === 0 && reverse[Answer.TYPE] === (RouteType.UNICAST as number);
    return back && (!strict || reverse[Answer.OIF] === iif) ? SourceCheck.OK : SourceCheck.REVERSE_PATH;
  }

  private put(
    dst: number,
    src: number,
    iif: number,
    oif: number,
    mark: number,
    tos: number,
    protocol: number,
    ports: number,
    place: number,
  ): void {
    const q = this.question;
    q[Question.DST] = dst;
    q[Question.SRC] = src;
    q[Question.IIF] = iif;
    q[Question.OIF] = oif;
    q[Question.MARK] = mark;
    q[Question.TOS] = tos;
    q[Question.PROTOCOL] = protocol;
    q[Question.SPORT] = ports >>> 16;
    q[Question.DPORT] = ports & 0xffff;
    q[Question.UID] = -1;
    q[Question.PLACE] = place;
  }
}
