/**
 * Choosing the translation of a new connection (net/netfilter/nf_nat_core.c, nf_nat_setup_info): for each side once, before
 * the connection is in the table. What is chosen becomes its reply tuple; packets are rewritten after that alone. A
 * choice is free if no connection in the table has that reply tuple; two workers may still choose alike at one moment,
 * then the second fails to insert, and its packet is dropped. When no port is free the last one tried is kept and
 * comes to the same end, as in the kernel.
 *
 * One Nat a worker: it holds the tuple under work. Tuples here are as the first packet leaves (the reply, turned round).
 */
import { invertPorts } from '../conntrack/key.js';
import { Status, TcpState } from '../conntrack/states.js';
import { Ct, linkDir, linkEntry } from '../conntrack/layout.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { Dir, Manip, Proto, Verdict } from '../names.js';
import {
  chooseAddress,
  defaultRange,
  hasPorts,
  inAddressRange,
  inPortRange,
  portOf,
  RandomPorts,
  RangeFlag,
  withPort,
} from './range.js';

/** Ports tried from one starting point; the next tries are half as many. */
const MAX_ATTEMPTS = 128;
const MIN_ATTEMPTS = 16;
/** With so few attempts left, a finished TCP connection gives up its port. */
const HARDER = MAX_ATTEMPTS / 4;

export class Nat {
  /** Times a translation was sought among ports and none was free. */
  exhausted = 0;

  private src = 0;
  private dst = 0;
  private ports = 0;

  constructor(
    readonly table: ConntrackTable,
    readonly random: RandomPorts = new RandomPorts(),
  ) {}

  /**
   * Binds one side of an unconfirmed connection to a place in the range. `flags` are RangeFlag bits; addresses are int32
   * in host order, ports (ICMP: identifiers) 0 to 65535. A confirmed connection keeps what it has. Returns Verdict.
   */
  bind(
    entry: number,
    manip: Manip,
    flags: number,
    minAddress: number,
    maxAddress: number,
    minPort: number,
    maxPort: number,
    basePort: number,
  ): Verdict {
    const table = this.table;
    if (table.isConfirmed(entry)) return Verdict.ACCEPT;
    const doneBit = manip === Manip.SRC ? Status.SRC_NAT_DONE : Status.DST_NAT_DONE;
    if ((table.status(entry) & doneBit) !== 0) return Verdict.DROP;
    const protocol = table.protocol(entry);
    const src = table.dst(entry, Dir.REPLY);
    const dst = table.src(entry, Dir.REPLY);
    const ports = invertPorts(protocol, table.ports(entry, Dir.REPLY));
    this.src = src;
    this.dst = dst;
    this.ports = ports;
    this.choose(entry, protocol, manip, flags, minAddress, maxAddress, minPort, maxPort, basePort);
    let bits: number = doneBit;
    if (this.src !== src || this.dst !== dst || this.ports !== ports) {
      table.alterReply(entry, this.dst, this.src, invertPorts(protocol, this.ports));
      bits |= manip === Manip.SRC ? Status.SRC_NAT : Status.DST_NAT;
    }
    table.setStatus(entry, bits);
    return Verdict.ACCEPT;
  }

  /** The side that no rule wants changed: it keeps its address, and its port unless another connection has it. */
  bindNull(entry: number, manip: Manip): Verdict {
    const table = this.table;
    const address = manip === Manip.SRC ? table.dst(entry, Dir.REPLY) : table.src(entry, Dir.REPLY);
    return this.bind(entry, manip, RangeFlag.MAP_IPS, address, address, 0, 0, 0);
  }

  /**
   * MASQUERADE: source translation to `address`, the outgoing interface's (the route knows it; 0 = it has none, and the
   * packet is dropped). The connection ends with that address or interface, see masquerade.ts.
   */
  masquerade(
    entry: number,
    flags: number,
    address: number,
    ifindex: number,
    minPort: number,
    maxPort: number,
  ): Verdict {
    const table = this.table;
    // A sender without an address yet (DHCP) is not to be masqueraded.
    if (table.src(entry, Dir.ORIGINAL) === 0) return Verdict.ACCEPT;
    if (address === 0) return Verdict.DROP;
    if (!table.isConfirmed(entry)) table.words[table.at(entry) + Ct.NAT_IFINDEX] = ifindex;
    return this.bind(entry, Manip.SRC, flags | RangeFlag.MAP_IPS, address, address, minPort, maxPort, 0);
  }

  /** NETMAP: the network part of `manip`'s address (as the packet has it, `address`) becomes that of `network`. */
  netmap(entry: number, manip: Manip, address: number, network: number, mask: number): Verdict {
    const to = (address & ~mask) | (network & mask);
    return this.bind(entry, manip, RangeFlag.MAP_IPS, to, to, 0, 0, 0);
  }

  /** get_unique_tuple */
  private choose(
    entry: number,
    protocol: number,
    manip: Manip,
    flags: number,
    minAddress: number,
    maxAddress: number,
    minPort: number,
    maxPort: number,
    basePort: number,
  ): void {
    const random = (flags & RangeFlag.PROTO_RANDOM_ALL) !== 0;
    const { src, dst, ports } = this;
    // What suits already stays, and a source that has a translation keeps it for its next connections.
    if (manip === Manip.SRC && !random) {
      if (this.inRange(protocol, flags, minAddress, maxAddress, minPort, maxPort)) {
        if (!this.usedAsItIs(entry, protocol)) return;
      } else if (this.findMapping(entry, protocol, flags, minAddress, maxAddress, minPort, maxPort)) {
        if (!this.used(entry, protocol)) return;
      }
      this.src = src;
      this.ports = ports;
    }
    if ((flags & RangeFlag.MAP_IPS) !== 0) {
      const zone = this.table.zone(entry, Dir.ORIGINAL);
      const persistent = (flags & RangeFlag.PERSISTENT) !== 0;
      const address = chooseAddress(src, dst, zone, minAddress, maxAddress, persistent);
      if (manip === Manip.SRC) this.src = address;
      else this.dst = address;
    }
    if (!random) {
      if ((flags & RangeFlag.PROTO_SPECIFIED) === 0) {
        if (!this.used(entry, protocol)) return;
      } else if (
        (flags & RangeFlag.PROTO_OFFSET) === 0 &&
        inPortRange(protocol, portOf(protocol, ports, manip), minPort, maxPort) &&
        (minPort === maxPort || !this.used(entry, protocol))
      ) {
        return;
      }
    }
    this.choosePort(entry, protocol, manip, flags, minPort, maxPort, basePort);
  }

  /** Whether the tuple as it is suits a source range. */
  private inRange(
    protocol: number,
    flags: number,
    minAddress: number,
    maxAddress: number,
    minPort: number,
    maxPort: number,
  ): boolean {
    if ((flags & RangeFlag.MAP_IPS) !== 0 && !inAddressRange(this.src, minAddress, maxAddress)) return false;
    return (
      (flags & RangeFlag.PROTO_SPECIFIED) === 0 ||
      inPortRange(protocol, portOf(protocol, this.ports, Manip.SRC), minPort, maxPort)
    );
  }

  /** Takes over the source part of a connection from the same source whose translation suits the range, if any. */
  private findMapping(
    entry: number,
    protocol: number,
    flags: number,
    minAddress: number,
    maxAddress: number,
    minPort: number,
    maxPort: number,
  ): boolean {
    const table = this.table;
    const { src, ports } = this;
    const zone = table.zone(entry, Dir.ORIGINAL);
    const sport = ports >>> 16;
    for (
      let other = table.nextBySource(-1, src, sport, protocol, zone);
      other >= 0;
      other = table.nextBySource(other, src, sport, protocol, zone)
    ) {
      this.src = table.dst(other, Dir.REPLY);
      const mapped = invertPorts(protocol, table.ports(other, Dir.REPLY));
      this.ports = (mapped & ~0xffff) | (ports & 0xffff);
      if (this.inRange(protocol, flags, minAddress, maxAddress, minPort, maxPort)) return true;
    }
    this.src = src;
    this.ports = ports;
    return false;
  }

  /** nf_nat_l4proto_unique_tuple */
  private choosePort(
    entry: number,
    protocol: number,
    manip: Manip,
    flags: number,
    minPort: number,
    maxPort: number,
    basePort: number,
  ): void {
    const specified = (flags & RangeFlag.PROTO_SPECIFIED) !== 0;
    const port = portOf(protocol, this.ports, manip);
    let min: number;
    let size: number;
    if (protocol === Proto.ICMP) {
      min = specified ? minPort : 0;
      size = specified ? maxPort - minPort + 1 : 65536;
    } else if (protocol === Proto.GRE) {
      // Without a PPTP connection behind it nobody knows what the keys mean.
      if (!this.table.hasMaster(entry)) return;
      min = specified ? minPort : 1;
      size = specified ? maxPort - minPort + 1 : 65535;
    } else if (!hasPorts(protocol)) {
      return;
    } else if (specified) {
      min = Math.min(minPort, maxPort);
      size = Math.abs(maxPort - minPort) + 1;
    } else {
      // A service's port is never changed for one that the rule doesn't name.
      if (manip === Manip.DST) return;
      const range = defaultRange(port);
      min = range.min;
      size = range.size;
    }
    if (size <= 0) return;

    let offset = 0;
    if ((flags & RangeFlag.PROTO_OFFSET) !== 0) offset = (port - basePort) & 0xffff;
    else if ((flags & RangeFlag.PROTO_RANDOM_ALL) !== 0 || manip !== Manip.DST) offset = this.random.next();

    let attempts = Math.min(size, MAX_ATTEMPTS);
    for (;;) {
      for (let i = 0; i < attempts; i++) {
        this.ports = withPort(protocol, this.ports, manip, (min + (offset % size)) & 0xffff);
        if (!this.usedHarder(entry, protocol, attempts - i)) return;
        offset = (offset + 1) & 0xffff;
      }
      if (attempts >= size || attempts < MIN_ATTEMPTS) break;
      attempts >>= 1;
      offset = this.random.next();
    }
    this.exhausted++;
  }

  /** Whether another connection has the reply tuple that goes with the tuple. */
  private used(entry: number, protocol: number): boolean {
    return this.table.taken(entry, this.dst, this.src, invertPorts(protocol, this.ports));
  }

  /**
   * The same for a tuple that isn't changed at all: if the two ends of a flow (of UDP, say) were seen as new ones at the same time
   * by two workers, the second to confirm gives way, and must not get another port here (nf_nat_used_tuple_new).
   */
  private usedAsItIs(entry: number, protocol: number): boolean {
    const table = this.table;
    if (!this.used(entry, protocol)) return false;
    // These don't allow two to become one (allow_clash of the kernel's trackers).
    if (protocol === Proto.TCP || protocol === Proto.SCTP || protocol === Proto.ICMP) return true;
    const changes = Status.NAT_MASK | Status.SEQ_ADJUST;
    if ((table.status(entry) & changes) !== 0) return true;
    const keyOriginal = table.key(entry, Dir.ORIGINAL);
    const keyReply = table.key(entry, Dir.REPLY);
    let link = table.find(this.src, this.dst, this.ports, keyOriginal, keyReply);
    if (link === 0) {
      link = table.find(this.dst, this.src, invertPorts(protocol, this.ports), keyOriginal, keyReply);
      if (link === 0) return false;
    }
    const other = linkEntry(link);
    if ((table.status(other) & changes) !== 0) return true;
    return !table.sameEnds(table.at(other), table.at(entry) + Ct.TUPLE_WORDS);
  }

  /**
   * The same when ports run short: a TCP connection that is over (TIME_WAIT or later) and was translated gives its tuple
   * to a new one whose sequence numbers are past its own, so that its late segments are invalid there.
   */
  private usedHarder(entry: number, protocol: number, attemptsLeft: number): boolean {
    const table = this.table;
    const own = table.at(entry);
    const words = table.words;
    if (attemptsLeft > HARDER || protocol !== Proto.TCP || tcpState(words[own + Ct.PROTO]!) !== TcpState.SYN_SENT) {
      return this.used(entry, protocol);
    }
    const link = table.find(
      this.dst,
      this.src,
      invertPorts(protocol, this.ports),
      table.key(entry, Dir.ORIGINAL),
      table.key(entry, Dir.REPLY),
    );
    if (link === 0) return false;
    const other = linkEntry(link);
    if (linkDir(link) === Dir.ORIGINAL || other === entry) return true;
    const its = table.at(other);
    const status = table.status(other);
    if (tcpState(words[its + Ct.PROTO]!) < TcpState.TIME_WAIT) return true;
    if ((status & (Status.FIXED_TIMEOUT | Status.DYING)) !== 0 || (status & Status.SRC_NAT) === 0) return true;
    if (((words[own + TCP_END]! - words[its + TCP_END]!) | 0) <= 0) return true;
    return !table.kill(other);
  }
}

const tcpState = (word: number): number => word & 0xff;
/** The end of what the original direction has sent (tcp.ts). */
const TCP_END = Ct.PROTO + 1;
