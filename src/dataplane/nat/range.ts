/**
 * What a NAT rule allows: a range of addresses, of ports, and how to choose among them (struct nf_nat_range2, whose flag
 * values these are; net/netfilter/nf_nat_core.c). The choice of an address is the kernel's own arithmetic, so that
 * a client keeps its address also where hutter takes a kernel's place. Random numbers come from the system's generator:
 * a guessable port would help whoever forges answers (RFC 6056).
 */
import { randomFillSync } from 'node:crypto';
import { Manip, Proto } from '../names.js';

export const enum RangeFlag {
  /** minAddress … maxAddress count. */
  MAP_IPS = 1 << 0,
  /** minPort … maxPort count. */
  PROTO_SPECIFIED = 1 << 1,
  /** --random: never keep the port, choose at random. */
  PROTO_RANDOM = 1 << 2,
  /** --persistent: the address depends on the client alone, not on where it goes. */
  PERSISTENT = 1 << 3,
  /** --random-fully. */
  PROTO_RANDOM_FULLY = 1 << 4,
  /** The port's distance from basePort is kept (DNAT --to-destination 1.2.3.4:2000-2999/1000). */
  PROTO_OFFSET = 1 << 5,
  PROTO_RANDOM_ALL = PROTO_RANDOM | PROTO_RANDOM_FULLY,
}

/** Random 16-bit numbers, fetched by the thousand. One per worker. */
export class RandomPorts {
  private readonly numbers = new Uint16Array(2048);
  private used = this.numbers.length;

  /** `fill` gives the numbers; tests put their own in. */
  constructor(private readonly fill: (numbers: Uint16Array) => void = (numbers) => void randomFillSync(numbers)) {}

  next(): number {
    if (this.used === this.numbers.length) {
      this.fill(this.numbers);
      this.used = 0;
    }
    return this.numbers[this.used++]!;
  }

  /** 0 … limit − 1 for a limit of 1 … 65536, each as likely as any other but for one part in thousands. */
  below(limit: number): number {
    return (((this.next() << 16) >>> 0) + this.next()) % limit;
  }
}

/** Protocols whose tuples have ports (or call ids) that NAT can choose. */
export function hasPorts(protocol: number): boolean {
  switch (protocol) {
    case Proto.TCP:
    case Proto.UDP:
    case Proto.UDPLITE:
    case Proto.SCTP:
      return true;
    default:
      return false;
  }
}

/** The part of a tuple's ports that `manip` changes: an ICMP query has one identifier for both sides. */
export function portOf(protocol: number, ports: number, manip: Manip): number {
  return manip === Manip.SRC || protocol === Proto.ICMP ? ports >>> 16 : ports & 0xffff;
}

/** The ports word with that part changed. */
export function withPort(protocol: number, ports: number, manip: Manip, port: number): number {
  return manip === Manip.SRC || protocol === Proto.ICMP ? (port << 16) | (ports & 0xffff) : (ports & ~0xffff) | port;
}

/** Whether `port` suits the range; protocols without ports suit any. */
export function inPortRange(protocol: number, port: number, min: number, max: number): boolean {
  return hasPorts(protocol) || protocol === Proto.ICMP || protocol === Proto.GRE ? port >= min && port <= max : true;
}

/** Whether the address lies in min … max, ends included, as unsigned numbers. */
export const inAddressRange = (address: number, min: number, max: number): boolean =>
  address >>> 0 >= min >>> 0 && address >>> 0 <= max >>> 0;

/**
 * The address of min … max for a flow from `src` to `dst` (as they stand before this change): the same for the same
 * pair of hosts, or with `persistent` for the same source (find_best_ips_proto). `zone` is the connection's.
 */
export function chooseAddress(
  src: number,
  dst: number,
  zone: number,
  min: number,
  max: number,
  persistent: boolean,
): number {
  if (min === max) return min;
  const hash = hashAddress(swap(src), persistent ? 0 : swap(dst) ^ zone) >>> 0;
  const size = (max - min + 1) >>> 0;
  // The upper half of hash × size: 64 bits in the kernel, two 16-bit steps here, each exact in a double.
  const low = (hash & 0xffff) * size;
  const high = (hash >>> 16) * size + Math.floor(low / 0x10000);
  return (min + Math.floor(high / 0x10000)) | 0;
}

/** A number's bytes turned round: the kernel hashes addresses as they lie in memory, on little-endian machines. */
const swap = (x: number): number => (x << 24) | ((x & 0xff00) << 8) | ((x >>> 8) & 0xff00) | (x >>> 24);

const rotate = (x: number, bits: number): number => (x << bits) | (x >>> (32 - bits));

/** Jenkins' lookup3 over the words (x, 0, 0, 0), an IPv4 address in a field for IPv6 (include/linux/jhash.h, jhash2). */
function hashAddress(x: number, initial: number): number {
  let a = (0xdeadbeef + (4 << 2) + initial) | 0;
  let b = a;
  let c = a;
  a = (a + x) | 0;
  // Three words are in: mix.
  a = ((a - c) ^ rotate(c, 4)) | 0;
  c = (c + b) | 0;
  b = ((b - a) ^ rotate(a, 6)) | 0;
  a = (a + c) | 0;
  c = ((c - b) ^ rotate(b, 8)) | 0;
  b = (b + a) | 0;
  a = ((a - c) ^ rotate(c, 16)) | 0;
  c = (c + b) | 0;
  b = ((b - a) ^ rotate(a, 19)) | 0;
  a = (a + c) | 0;
  c = ((c - b) ^ rotate(b, 4)) | 0;
  b = (b + a) | 0;
  // The last word is 0: finish.
  c = ((c ^ b) - rotate(b, 14)) | 0;
  a = ((a ^ c) - rotate(c, 11)) | 0;
  b = ((b ^ a) - rotate(a, 25)) | 0;
  c = ((c ^ b) - rotate(b, 16)) | 0;
  a = ((a ^ c) - rotate(c, 4)) | 0;
  b = ((b ^ a) - rotate(a, 14)) | 0;
  return ((c ^ b) - rotate(b, 24)) | 0;
}

/** The ports to choose from when the rule names none, by the port that the flow has now (source translation only). */
export function defaultRange(port: number): { min: number; size: number } {
  return port < 512 ? LOWEST : port < 1024 ? LOW : HIGH;
}
const LOWEST = { min: 1, size: 511 };
/** Ports below 1024 say that root sent it: such a flow keeps one, off those that credentials were passed by. */
const LOW = { min: 600, size: 1023 - 600 + 1 };
const HIGH = { min: 1024, size: 65535 - 1024 + 1 };
