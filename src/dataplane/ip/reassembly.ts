/**
 * Putting fragments together as the kernel does (net/ipv4/ip_fragment.c, net/ipv4/inet_fragment.c): a fragment that
 * repeats what is there is dropped, one that overlaps takes its whole datagram with it (RFC 5722 for IPv6; the kernel for
 * both). 30 seconds after its first fragment came a datagram is given up; its fragments that came before too many others of the
 * same source's (ipfrag_max_dist) are given up at once, as its identification may have come round. The store is bounded: when it is full nothing new
 * is kept, as at ipfrag_high_thresh. One store a worker; the device brings all fragments of a pair of hosts to one.
 *
 *     datagram → runs, by offset → fragments that came one behind the other → blocks
 */
import type { Packet } from '../packet.js';
import { setU16, u16, u8 } from '../wire/bytes.js';
import { sealHeader } from '../wire/checksum.js';
import { Blocks } from '../io/blocks.js';

/** ipfrag_high_thresh, ipfrag_time. */
const STORE_BYTES = 4 << 20;
const LIFETIME_MS = 30_000;
const DATAGRAMS = 1024;
const BUCKETS = 1024;
const FRAGMENTS = 4096;
const SOURCES = 1024;
const NONE = -1;
const LONGEST = 65_535;
const DONT_FRAGMENT = 0x4000;

/** Words of a datagram. */
const enum D {
  SRC = 0,
  DST,
  /** Identification and protocol. */
  ID,
  /** Bytes of payload, as far as is known. */
  LENGTH,
  /** Bytes of it that are here. */
  MEAT,
  FLAGS,
  /** Longest fragment with its header; longest of those with DF. */
  MAX,
  MAX_DF,
  /** ECN codepoints seen, a bit each. */
  ECN,
  INDEV,
  DEADLINE,
  /** Number of its last fragment among its source's. */
  NUMBER,
  FIRST_RUN,
  LAST_RUN,
  /** In its bucket; in the order of age. */
  NEXT,
  OLDER,
  YOUNGER,
  WORDS,
}
const FIRST_IN = 1;
const LAST_IN = 2;

/** Words of a fragment. A run's own words are those of its first one. */
const enum F {
  OFFSET = 0,
  LENGTH,
  /** Bytes of header that are kept before the payload: the first fragment's. */
  HEADER,
  BLOCK,
  NEXT,
  RUN_END,
  RUN_LAST,
  RUN_NEXT,
  WORDS,
}

export const enum Fate {
  /** Kept: there is no packet for now. */
  KEPT = 0,
  /** The whole datagram lies in the packet's place. */
  WHOLE = 1,
  /** It repeats what is there. */
  DUPLICATE = 2,
  /** It contradicts what is there, or is impossible: its datagram is given up. */
  REFUSED = 3,
  /** No room. */
  FULL = 4,
}

/** ip_frag_ecn_table: by the codepoints seen, what is added to the first header's; −1: a router lied (RFC 3168 §5.3). */
const ECN_OF = Int8Array.from({ length: 16 }, (_, seen) => {
  const notEct = (seen & 1) !== 0;
  if (notEct && seen !== 1) return -1;
  return (seen & 8) !== 0 && seen !== 8 ? 3 : 0;
});

export class Reassembly {
  private readonly blocks: Blocks;
  private readonly datagrams = new Int32Array(DATAGRAMS * D.WORDS);
  private readonly fragments = new Int32Array(FRAGMENTS * F.WORDS);
  private readonly buckets = new Int32Array(BUCKETS).fill(NONE);
  private freeDatagram = 0;
  private freeFragment = 0;
  private oldest = NONE;
  private youngest = NONE;
  /** Datagrams under way. */
  count = 0;
  /** Fragments that came from a source (inet_peer.rid), of as many sources as there are places. */
  private readonly sources = new Int32Array(SOURCES);
  private readonly numbers = new Int32Array(SOURCES);
  /** The fragment added last was too far from those before it, which were given up for it. */
  restarted = false;

  // Of the datagram made whole last.
  /** Longest fragment's length with its header: what goes out is cut no longer than that. */
  maxSize = 0;
  /** Whether its longest fragment said "don't fragment". */
  dontFragment = false;
  /** Where it was cut: offsets into the payload at which its fragments ended, the last one's included. */
  readonly cuts = new Int32Array(FRAGMENTS);
  cutCount = 0;

  constructor(bytes = STORE_BYTES) {
    this.blocks = new Blocks(bytes);
    for (let i = 0; i < DATAGRAMS; i++) this.datagrams[i * D.WORDS + D.NEXT] = i + 1 < DATAGRAMS ? i + 1 : NONE;
    for (let i = 0; i < FRAGMENTS; i++) this.fragments[i * F.WORDS + F.NEXT] = i + 1 < FRAGMENTS ? i + 1 : NONE;
  }

  /**
   * Takes a fragment at `now` (int32 milliseconds). `distance`: as many other fragments of its source may come between two of its
   * datagram's; 0: any number. After WHOLE the datagram lies at p.start, unparsed, in memory that
   * must have room for 65,535 bytes from there.
   */
  add(p: Packet, now: number, distance: number): Fate {
    this.restarted = false;
    let d = this.find(p, now);
    if (d === NONE) return Fate.FULL;
    const g = this.datagrams;
    const number = this.numberOf(p.src);
    if (distance !== 0 && this.tooFar(d, number, distance)) {
      this.remove(d);
      d = this.find(p, now);
      this.restarted = true;
    }
    const o = d * D.WORDS;
    g[o + D.NUMBER] = number;
    const offset = p.fragOffset << 3;
    let end = offset + (p.end - p.start) - p.headerLength;
    if (p.moreFragments === 0) {
      if (end < g[o + D.LENGTH]! || ((g[o + D.FLAGS]! & LAST_IN) !== 0 && end !== g[o + D.LENGTH])) {
        return this.refuse(d);
      }
      g[o + D.FLAGS]! |= LAST_IN;
      g[o + D.LENGTH] = end;
    } else {
      end &= ~7;
      if (end > g[o + D.LENGTH]!) {
        if ((g[o + D.FLAGS]! & LAST_IN) !== 0) return this.refuse(d);
        g[o + D.LENGTH] = end;
      }
    }
    if (end <= offset) return this.refuse(d);
    const fate = this.insert(d, p, offset, end);
    if (fate !== Fate.KEPT) {
      if (fate === Fate.REFUSED) this.remove(d);
      return fate;
    }
    g[o + D.MEAT]! += end - offset;
    if (offset === 0) g[o + D.FLAGS]! |= FIRST_IN;
    g[o + D.ECN]! |= 1 << (p.tos & 3);
    g[o + D.INDEV] = p.indev;
    const size = end - offset + p.headerLength;
    if (size > g[o + D.MAX]!) g[o + D.MAX] = size;
    if (p.dontFragment !== 0 && size > g[o + D.MAX_DF]!) g[o + D.MAX_DF] = size;
    if (g[o + D.FLAGS] !== (FIRST_IN | LAST_IN) || g[o + D.MEAT] !== g[o + D.LENGTH]) return Fate.KEPT;
    return this.join(d, p);
  }

  private numberOf(source: number): number {
    const slot = (Math.imul(source, 0x9e3779b1) >>> 16) & (SOURCES - 1);
    if (this.sources[slot] !== source) {
      this.sources[slot] = source;
      this.numbers[slot] = 0;
    }
    return ++this.numbers[slot]!;
  }

  /** ip_frag_too_far(); a source that lost its place in between counts from the start and is near. */
  private tooFar(d: number, number: number, distance: number): boolean {
    const o = d * D.WORDS;
    return this.datagrams[o + D.FIRST_RUN] !== NONE && ((number - this.datagrams[o + D.NUMBER]!) | 0) > distance;
  }

  /** The datagram of a fragment, a new one if need be; −1: no room. */
  private find(p: Packet, now: number): number {
    const g = this.datagrams;
    const id = (u16(p.bytes, p.start + 4) << 8) | p.protocol;
    const b = (Math.imul(p.src ^ Math.imul(p.dst, 0x9e3779b1) ^ id, 0x85ebca6b) >>> 16) & (BUCKETS - 1);
    for (let d = this.buckets[b]!; d !== NONE; d = g[d * D.WORDS + D.NEXT]!) {
      const o = d * D.WORDS;
      if (g[o + D.SRC] === p.src && g[o + D.DST] === p.dst && g[o + D.ID] === id) return d;
    }
    const d = this.freeDatagram;
    if (d === NONE) return NONE;
    const o = d * D.WORDS;
    this.freeDatagram = g[o + D.NEXT]!;
    g.fill(0, o, o + D.WORDS);
    g[o + D.SRC] = p.src;
    g[o + D.DST] = p.dst;
    g[o + D.ID] = id;
    g[o + D.FIRST_RUN] = NONE;
    g[o + D.LAST_RUN] = NONE;
    g[o + D.DEADLINE] = (now + LIFETIME_MS) | 0;
    g[o + D.NEXT] = this.buckets[b]!;
    this.buckets[b] = d;
    g[o + D.OLDER] = this.youngest;
    g[o + D.YOUNGER] = NONE;
    if (this.youngest === NONE) this.oldest = d;
    else g[this.youngest * D.WORDS + D.YOUNGER] = d;
    this.youngest = d;
    this.count++;
    return d;
  }

  /** inet_frag_queue_insert() */
  private insert(d: number, p: Packet, offset: number, end: number): Fate {
    const g = this.datagrams;
    const f = this.fragments;
    const o = d * D.WORDS;
    const last = g[o + D.LAST_RUN]!;
    let before = NONE;
    if (last !== NONE && f[last * F.WORDS + F.RUN_END]! < end) {
      if (offset < f[last * F.WORDS + F.RUN_END]!) return Fate.REFUSED;
      before = last;
    } else {
      for (let run = g[o + D.FIRST_RUN]!; run !== NONE; run = f[run * F.WORDS + F.RUN_NEXT]!) {
        const r = run * F.WORDS;
        if (end <= f[r + F.OFFSET]!) break;
        if (offset < f[r + F.RUN_END]!) {
          return offset >= f[r + F.OFFSET]! && end <= f[r + F.RUN_END]! ? Fate.DUPLICATE : Fate.REFUSED;
        }
        before = run;
      }
    }
    const header = offset === 0 ? p.headerLength : 0;
    const payload = p.start + p.headerLength;
    const i = this.freeFragment;
    const block = i === NONE ? NONE : this.blocks.put(p.bytes, payload - header, payload + end - offset);
    if (block === NONE) {
      if (g[o + D.FIRST_RUN] === NONE) this.remove(d);
      return Fate.FULL;
    }
    const n = i * F.WORDS;
    this.freeFragment = f[n + F.NEXT]!;
    f[n + F.OFFSET] = offset;
    f[n + F.LENGTH] = end - offset;
    f[n + F.HEADER] = header;
    f[n + F.BLOCK] = block;
    f[n + F.NEXT] = NONE;
    f[n + F.RUN_END] = end;
    f[n + F.RUN_LAST] = i;
    if (before === last && last !== NONE && f[last * F.WORDS + F.RUN_END] === offset) {
      const r = last * F.WORDS;
      f[f[r + F.RUN_LAST]! * F.WORDS + F.NEXT] = i;
      f[r + F.RUN_LAST] = i;
      f[r + F.RUN_END] = end;
      return Fate.KEPT;
    }
    if (before === NONE) {
      f[n + F.RUN_NEXT] = g[o + D.FIRST_RUN]!;
      g[o + D.FIRST_RUN] = i;
    } else {
      f[n + F.RUN_NEXT] = f[before * F.WORDS + F.RUN_NEXT]!;
      f[before * F.WORDS + F.RUN_NEXT] = i;
    }
    if (f[n + F.RUN_NEXT] === NONE) g[o + D.LAST_RUN] = i;
    return Fate.KEPT;
  }

  /** ip_frag_reasm() */
  private join(d: number, p: Packet): Fate {
    const g = this.datagrams;
    const f = this.fragments;
    const o = d * D.WORDS;
    const bytes = p.bytes;
    const ecn = ECN_OF[g[o + D.ECN]!]!;
    const first = g[o + D.FIRST_RUN]! * F.WORDS;
    const header = f[first + F.HEADER]!;
    const length = header + g[o + D.LENGTH]!;
    if (ecn < 0 || length > LONGEST || p.start + length > bytes.length) return this.refuse(d);
    this.maxSize = g[o + D.MAX]!;
    this.dontFragment = g[o + D.MAX_DF] === g[o + D.MAX];
    this.cutCount = 0;
    this.blocks.get(f[first + F.BLOCK]!, 0, header, bytes, p.start);
    const payload = p.start + header;
    for (let run = g[o + D.FIRST_RUN]!; run !== NONE; run = f[run * F.WORDS + F.RUN_NEXT]!) {
      for (let i = run; i !== NONE; i = f[i * F.WORDS + F.NEXT]!) {
        const n = i * F.WORDS;
        this.blocks.get(f[n + F.BLOCK]!, f[n + F.HEADER]!, f[n + F.LENGTH]!, bytes, payload + f[n + F.OFFSET]!);
        this.cuts[this.cutCount++] = f[n + F.OFFSET]! + f[n + F.LENGTH]!;
      }
    }
    this.remove(d);
    bytes[p.start + 1] = u8(bytes, p.start + 1) | ecn;
    setU16(bytes, p.start + 2, length);
    setU16(bytes, p.start + 6, this.dontFragment ? DONT_FRAGMENT : 0);
    sealHeader(bytes, p.start, header);
    return Fate.WHOLE;
  }

  private refuse(d: number): Fate {
    this.remove(d);
    return Fate.REFUSED;
  }

  /**
   * Gives up one datagram whose time is over: puts what came of its first fragment to bytes[at, …), if that came, and
   * returns its length; 0: it didn't come; −1: no datagram is over. `bytes` must have room for a whole packet.
   */
  expire(now: number, bytes: Uint8Array, at: number): number {
    const d = this.oldest;
    if (d === NONE) return -1;
    const o = d * D.WORDS;
    if (((now - this.datagrams[o + D.DEADLINE]!) | 0) < 0) return -1;
    let length = 0;
    if ((this.datagrams[o + D.FLAGS]! & FIRST_IN) !== 0) {
      const n = this.datagrams[o + D.FIRST_RUN]! * F.WORDS;
      length = this.fragments[n + F.HEADER]! + this.fragments[n + F.LENGTH]!;
      this.blocks.get(this.fragments[n + F.BLOCK]!, 0, length, bytes, at);
    }
    this.expiredIndev = this.datagrams[o + D.INDEV]!;
    this.remove(d);
    return length;
  }
  /** Interface by which the datagram that `expire` gave up last came. */
  expiredIndev = 0;

  private remove(d: number): void {
    const g = this.datagrams;
    const f = this.fragments;
    const o = d * D.WORDS;
    for (let run = g[o + D.FIRST_RUN]!; run !== NONE;) {
      const nextRun = f[run * F.WORDS + F.RUN_NEXT]!;
      for (let i = run; i !== NONE;) {
        const n = i * F.WORDS;
        const next = f[n + F.NEXT]!;
        this.blocks.release(f[n + F.BLOCK]!);
        f[n + F.NEXT] = this.freeFragment;
        this.freeFragment = i;
        i = next;
      }
      run = nextRun;
    }
    const hash = Math.imul(g[o + D.SRC]! ^ Math.imul(g[o + D.DST]!, 0x9e3779b1) ^ g[o + D.ID]!, 0x85ebca6b);
    const b = (hash >>> 16) & (BUCKETS - 1);
    if (this.buckets[b] === d) this.buckets[b] = g[o + D.NEXT]!;
    else {
      let before = this.buckets[b]!;
      while (g[before * D.WORDS + D.NEXT] !== d) before = g[before * D.WORDS + D.NEXT]!;
      g[before * D.WORDS + D.NEXT] = g[o + D.NEXT]!;
    }
    const older = g[o + D.OLDER]!;
    const younger = g[o + D.YOUNGER]!;
    if (older === NONE) this.oldest = younger;
    else g[older * D.WORDS + D.YOUNGER] = younger;
    if (younger === NONE) this.youngest = older;
    else g[younger * D.WORDS + D.OLDER] = older;
    g[o + D.NEXT] = this.freeDatagram;
    this.freeDatagram = d;
    this.count--;
  }
}
