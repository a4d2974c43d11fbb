/**
 * IPv4 options (RFC 791 §3.1), read as the kernel reads them once a packet has its route (net/ipv4/ip_options.c,
 * __ip_options_compile). A router writes as it reads: its address into a record route, the time into a timestamp, zeros behind
 * the end. What it found says what goes into the options of an answer (`echo`, __ip_options_echo).
 */
import { setU32, setU8, u32, u8 } from './bytes.js';

/** What `read` says of a source route (LSRR, SSRR), which is dropped unless accept_source_route is on. */
export const SOURCE_ROUTE = -1;

const END = 0;
const NOOP = 1;
const RECORD_ROUTE = 7;
const TIMESTAMP = 68;
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;
const ROUTER_ALERT = 148;
/** Commercial IP security option: a kernel with NetLabel looks its domain up, and knows none unless told. */
const CIPSO = 134;
const CIPSO_LEAST = 8;
const BEFORE_OPTIONS = 20;
const ADDRESS = 4;
/** Low half of a timestamp's fourth byte: time alone, address and time, time at addresses that the sender named. */
const TIME_ONLY = 0;
const WITH_ADDRESS = 1;
const PRESPECIFIED = 3;
const FORM = 15;
const DAY_MS = 86_400_000;

/** Milliseconds since midnight, UTC, of `wallMs` since 1970. */
export const timeOfDay = (wallMs: number): number => (wallMs % DAY_MS) | 0;

/** Says of an address whether it is anything but another host's (inet_addr_type() is not RTN_UNICAST). */
export interface Addresses {
  isOurs(address: number): boolean;
}

export class Options {
  /** Offsets from the header's start; 0: there is none. */
  private recordRoute = 0;
  private timestamp = 0;
  private cipso = 0;
  private sourceRoute = 0;
  /** In an answer these are written anew. */
  private needsRecord = false;
  private needsAddress = false;
  private needsTime = false;
  /** A router's own bytes are in the options: the header's checksum isn't right any more. */
  changed = false;

  /** For a packet without options, or whose options were not read. */
  clear(): void {
    this.recordRoute = 0;
    this.timestamp = 0;
    this.cipso = 0;
    this.sourceRoute = 0;
    this.needsRecord = false;
    this.needsAddress = false;
    this.needsTime = false;
    this.changed = false;
  }

  /**
   * `b[start, start + headerLength)`: an IP header, present as a whole. 0: nothing is wrong with its options; SOURCE_ROUTE;
   * otherwise the offset from `start` of the byte that is wrong, for "parameter problem". With `write` what a router writes is
   * written, up to the mistake if there is one: `address` is its own as seen from the sender (fib_compute_spec_dst).
   */
  read(
    b: Uint8Array,
    start: number,
    headerLength: number,
    write: boolean,
    address: number,
    wallMs: number,
    addresses: Addresses,
  ): number {
    this.clear();
    const end = start + headerLength;
    for (let at = start + BEFORE_OPTIONS; at < end;) {
      const kind = u8(b, at);
      if (kind === END) {
        if (write) this.blank(b, at + 1, end);
        break;
      }
      if (kind === NOOP) {
        at++;
        continue;
      }
      const here = at - start;
      if (at + 2 > end) return here;
      const length = u8(b, at + 1);
      if (length < 2 || at + length > end) return here;
      let problem = 0;
      switch (kind) {
        case LOOSE_SOURCE_ROUTE:
        case STRICT_SOURCE_ROUTE:
          if (length < 3) problem = here + 1;
          else if (u8(b, at + 2) < 4) problem = here + 2;
          else if (this.sourceRoute !== 0) problem = here;
          else this.sourceRoute = here;
          break;
        case RECORD_ROUTE:
          problem = this.readRecordRoute(b, at, here, length, write, address);
          break;
        case TIMESTAMP:
          problem = this.readTimestamp(b, at, here, length, write, address, wallMs, addresses);
          break;
        case ROUTER_ALERT:
          if (length < 4) problem = here + 1;
          break;
        case CIPSO:
          if (this.cipso !== 0) problem = here;
          else {
            this.cipso = here;
            problem = here + (length < CIPSO_LEAST ? 1 : 2);
          }
          break;
      }
      if (problem !== 0) return problem;
      at += length;
    }
    return this.sourceRoute !== 0 ? SOURCE_ROUTE : 0;
  }

  private blank(b: Uint8Array, from: number, to: number): void {
    for (let at = from; at < to; at++) {
      if (u8(b, at) === END) continue;
      setU8(b, at, END);
      this.changed = true;
    }
  }

  private readRecordRoute(
    b: Uint8Array,
    at: number,
    here: number,
    length: number,
    write: boolean,
    address: number,
  ): number {
    if (this.recordRoute !== 0) return here;
    if (length < 3) return here + 1;
    // Pointers count from 1 at the option's kind.
    const pointer = u8(b, at + 2);
    if (pointer < 4) return here + 2;
    if (pointer <= length) {
      if (pointer + 3 > length) return here + 2;
      if (write) {
        setU32(b, at + pointer - 1, address);
        setU8(b, at + 2, pointer + ADDRESS);
        this.changed = true;
      }
      this.needsRecord = true;
    }
    this.recordRoute = here;
    return 0;
  }

  private readTimestamp(
    b: Uint8Array,
    at: number,
    here: number,
    length: number,
    write: boolean,
    address: number,
    wallMs: number,
    addresses: Addresses,
  ): number {
    if (this.timestamp !== 0) return here;
    if (length < 4) return here + 1;
    const pointer = u8(b, at + 2);
    if (pointer < 5) return here + 2;
    const flags = u8(b, at + 3);
    const form = flags & FORM;
    const both = form === WITH_ADDRESS || form === PRESPECIFIED;
    if (pointer <= length && pointer + (both ? 7 : 3) > length) return here + 2;
    if (pointer > length && form !== PRESPECIFIED) {
      if (flags >> 4 === 15) return here + 3;
      if (write) {
        setU8(b, at + 3, flags + 16);
        this.changed = true;
      }
    }
    this.timestamp = here;
    if (pointer > length || (form !== TIME_ONLY && !both)) return 0;
    if (form === PRESPECIFIED && !addresses.isOurs(u32(b, at + pointer - 1))) return 0;
    this.needsAddress = form === WITH_ADDRESS;
    this.needsTime = true;
    if (!write) return 0;
    if (form === WITH_ADDRESS) setU32(b, at + pointer - 1, address);
    setU32(b, at + pointer - 1 + (both ? ADDRESS : 0), timeOfDay(wallMs));
    setU8(b, at + 2, pointer + (both ? 2 * ADDRESS : ADDRESS));
    this.changed = true;
    return 0;
  }

  /** ip_forward_options(): the address that the packet leaves from takes the place of the one that `read` recorded. */
  forward(b: Uint8Array, start: number, address: number): void {
    if (!this.needsRecord) return;
    const at = start + this.recordRoute;
    setU32(b, at + u8(b, at + 2) - 5, address);
    this.changed = true;
  }

  /**
   * Writes to out[to, …) the options of an answer to the packet b[start, …) that was read last with `write`: its record route and
   * timestamp, with what the router, answering from `source`, has to say in them. Returns their length, a multiple of 4; −1: there can
   * be no answer, as they have no room for that, or it would go by a way that the packet names.
   */
  echo(
    b: Uint8Array,
    start: number,
    out: Uint8Array,
    to: number,
    source: number,
    wallMs: number,
    addresses: Addresses,
  ): number {
    let at = to;
    if (this.recordRoute !== 0) {
      const length = copyOption(b, start + this.recordRoute, out, at);
      const pointer = u8(out, at + 2);
      if (this.needsRecord && pointer <= length) {
        if (pointer + 3 > length) return -1;
        setU32(out, at + pointer - 1, source);
        setU8(out, at + 2, pointer + ADDRESS);
      }
      at += length;
    }
    if (this.timestamp !== 0) {
      const length = copyOption(b, start + this.timestamp, out, at);
      if (!this.stamp(out, at, length, source, wallMs, addresses)) return -1;
      at += length;
    }
    if (this.sourceRoute !== 0 && visited(b, start + this.sourceRoute)) return -1;
    if (this.cipso !== 0) at += copyOption(b, start + this.cipso, out, at);
    while (((at - to) & 3) !== 0) setU8(out, at++, END);
    return at - to;
  }

  private stamp(
    out: Uint8Array,
    at: number,
    length: number,
    source: number,
    wallMs: number,
    addresses: Addresses,
  ): boolean {
    let pointer = u8(out, at + 2);
    if (pointer > length) return true;
    if (this.needsAddress) {
      if (pointer + 3 > length) return false;
      setU32(out, at + pointer - 1, source);
      pointer += ADDRESS;
    }
    if (this.needsTime) {
      if (pointer + 3 > length) return false;
      if ((u8(out, at + 3) & FORM) !== PRESPECIFIED) {
        setU32(out, at + pointer - 1, timeOfDay(wallMs));
        pointer += ADDRESS;
      } else if (pointer + 7 <= length && addresses.isOurs(u32(out, at + pointer - 1))) {
        setU32(out, at + pointer - 1 + ADDRESS, timeOfDay(wallMs));
        pointer += 2 * ADDRESS;
      }
    }
    setU8(out, at + 2, pointer);
    return true;
  }
}

/** Whether a source route has an address behind its pointer's: the first that the way back would lead to. */
function visited(b: Uint8Array, at: number): boolean {
  const pointer = u8(b, at + 2);
  const end = u8(b, at + 1) + 1;
  return (pointer < end ? pointer : end) >= 8;
}

/** Copies the option at b[from] to out[to]; returns its length. */
function copyOption(b: Uint8Array, from: number, out: Uint8Array, to: number): number {
  const length = u8(b, from + 1);
  for (let i = 0; i < length; i++) setU8(out, to + i, u8(b, from + i));
  return length;
}
