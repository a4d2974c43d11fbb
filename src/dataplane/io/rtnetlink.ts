/**
 * What the kernel knows of this thread's namespace: links with their addresses, routes, rules, neighbours; the route of
 * one packet; and notices of change. Dumps make objects and are for starts and changes, `ask` is for the packet's way
 * and makes none. The addon moves the bytes, the attributes of dumps are read here (rtnetlink(7), include/uapi/linux/
 * rtnetlink.h, if_link.h, if_addr.h, fib_rules.h, neighbour.h). Addresses are int32 in host order.
 */
import { getSystemErrorMap } from 'node:util';
import type { InterfaceAddress, Link } from '../interfaces.js';
import { loadNative } from './native.js';
import type { MonitorHandle, Native, RtnetlinkHandle } from './native.js';
import { LITTLE, netlinkMessage, NLM_F_EXCL } from './netlink.js';

const enum Rtm {
  NEWLINK = 16,
  GETLINK = 18,
  NEWADDR = 20,
  GETADDR = 22,
  NEWROUTE = 24,
  DELROUTE = 25,
  GETROUTE = 26,
  NEWNEIGH = 28,
  GETNEIGH = 30,
  NEWRULE = 32,
  GETRULE = 34,
}
const AF_UNSPEC = 0;
const AF_INET = 2;
const IFA_F_SECONDARY = 0x01;
// Of requests for change.
const NLM_F_CREATE = 0x400;
const IFF_UP = 1;
const IFLA_MTU = 4;
const IFLA_TXQLEN = 13;
const IFLA_STATS64 = 23;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PREFSRC = 7;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;
const RTM_F_CLONED = 0x200;
/** NLA_TYPE_MASK: without the nested and byte-order bits. */
const TYPE_MASK = 0x3fff;

export interface KernelLink extends Link {
  /** ARPHRD_*: 1 Ethernet, 772 loopback, 65534 none (TUN). */
  type: number;
  /** The driver's kind ("veth", "bridge", "tun"), '' when it has none. */
  kind: string;
  /** ifindex of the bridge or bond it belongs to, 0 = none. */
  master: number;
  addresses: KernelAddress[];
}
export interface KernelAddress extends InterfaceAddress {
  /** 0 = none. */
  broadcast: number;
  /** IFA_F_*. */
  flags: number;
}

/** Of struct rtnl_link_stats64, as of the kernel: it sends what a TUN's reader reads. */
export interface LinkCounters {
  received: number;
  sent: number;
  receiveDropped: number;
  sendDropped: number;
}

export interface KernelRoute {
  dst: number;
  prefixLength: number;
  tos: number;
  /** RTN_*. */
  type: number;
  scope: number;
  protocol: number;
  table: number;
  priority: number;
  prefsrc: number;
  /** Bytes; 0 = the link's. */
  mtu: number;
  /** Ways to go; more than one: the kernel chooses by a hash. */
  hops: { oif: number; gateway: number; weight: number }[];
}

export interface KernelRule {
  priority: number;
  /** FR_ACT_*: 1 to a table, 6 blackhole, 7 unreachable, 8 prohibit. */
  action: number;
  table: number;
  /** Set: the rule holds where its conditions don't. */
  invert: boolean;
  src: number;
  srcLength: number;
  dst: number;
  dstLength: number;
  tos: number;
  mark: number;
  markMask: number;
  iif: string;
  oif: string;
  /** It chooses by protocol, ports or user, too. */
  byTransport: boolean;
  /** It chooses by TOS. */
  byTos: boolean;
}

export interface KernelNeighbour {
  ifindex: number;
  address: number;
  mac: Uint8Array;
  /** NUD_*. */
  state: number;
}

/** What a burst of notices was about; the numbers are in native/rtnetlink.c, too. */
export const enum Notice {
  LINK = 1,
  ADDRESS = 2,
  ROUTE = 4,
  RULE = 8,
  NEXTHOP = 16,
  NETCONF = 32,
  /** Some were lost (ENOBUFS): anything may have changed. */
  OVERRUN = 64,
}

export class Rtnetlink {
  private readonly native: Native = loadNative();
  private readonly handle: RtnetlinkHandle;

  /** `namespace`: a file such as /run/netns/NAME; this thread's own when absent. */
  constructor(namespace = '') {
    this.handle = this.native.rtnetlinkOpen(namespace);
  }

  /** All links, each with its IPv4 addresses in the kernel's order. */
  links(): KernelLink[] {
    const links = new Map<number, KernelLink>();
    for (const m of this.dump(Rtm.GETLINK, Rtm.NEWLINK, AF_UNSPEC, 16)) {
      const index = m.view.getInt32(4, LITTLE);
      links.set(index, {
        index,
        name: m.text(3),
        mtu: m.u32(4),
        flags: m.view.getUint32(8, LITTLE),
        mac: m.bytes(1).slice(),
        type: m.view.getUint16(2, LITTLE),
        kind: m.nested(18).text(1),
        master: m.u32(10),
        addresses: [],
      });
    }
    for (const m of this.dump(Rtm.GETADDR, Rtm.NEWADDR, AF_INET, 8)) {
      const flags = m.has(8) ? m.u32(8) : m.view.getUint8(2);
      const address = m.address(1);
      links.get(m.view.getInt32(4, LITTLE))?.addresses.push({
        local: m.has(2) ? m.address(2) : address,
        address,
        prefixLength: m.view.getUint8(1),
        scope: m.view.getUint8(3),
        secondary: (flags & IFA_F_SECONDARY) !== 0,
        broadcast: m.address(4),
        flags,
      });
    }
    return [...links.values()];
  }

  /** What the link of this name has counted; undefined: there is none. */
  counters(name: string): LinkCounters | undefined {
    const link = this.dump(Rtm.GETLINK, Rtm.NEWLINK, AF_UNSPEC, 16).find((m) => m.text(3) === name);
    if (link === undefined) return undefined;
    const stats = link.bytes(IFLA_STATS64);
    const view = new DataView(stats.buffer, stats.byteOffset, stats.byteLength);
    const word = (i: number): number => Number(view.getBigUint64(i * 8, LITTLE));
    return { received: word(0), sent: word(1), receiveDropped: word(6), sendDropped: word(7) };
  }

  /** The IPv4 routes of all tables. */
  routes(): KernelRoute[] {
    return this.dump(Rtm.GETROUTE, Rtm.NEWROUTE, AF_INET, 12)
      .filter((m) => (m.view.getUint32(8, LITTLE) & RTM_F_CLONED) === 0)
      .map((m) => ({
        dst: m.address(1),
        prefixLength: m.view.getUint8(1),
        tos: m.view.getUint8(3),
        table: m.has(15) ? m.u32(15) : m.view.getUint8(4),
        protocol: m.view.getUint8(5),
        scope: m.view.getUint8(6),
        type: m.view.getUint8(7),
        priority: m.u32(6),
        prefsrc: m.address(7),
        mtu: m.nested(8).u32(2),
        hops: m.has(9) ? nextHops(m.bytes(9)) : [{ oif: m.u32(4), gateway: m.address(5), weight: 1 }],
      }));
  }

  /** The IPv4 policy rules, in the order in which they are asked. */
  rules(): KernelRule[] {
    return this.dump(Rtm.GETRULE, Rtm.NEWRULE, AF_INET, 12).map((m) => ({
      priority: m.u32(6),
      action: m.view.getUint8(7),
      table: m.has(15) ? m.u32(15) : m.view.getUint8(4),
      invert: (m.view.getUint32(8, LITTLE) & 2) !== 0,
      src: m.address(2),
      srcLength: m.view.getUint8(2),
      dst: m.address(1),
      dstLength: m.view.getUint8(1),
      tos: m.view.getUint8(3),
      mark: m.u32(10) | 0,
      markMask: m.u32(16) | 0,
      iif: m.text(3),
      oif: m.text(17),
      // FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE
      byTransport: m.has(20) || m.has(22) || m.has(23) || m.has(24),
      // FRA_DSCP
      byTos: m.view.getUint8(3) !== 0 || m.has(25),
    }));
  }

  /** The IPv4 neighbours (ARP). */
  neighbours(): KernelNeighbour[] {
    return this.dump(Rtm.GETNEIGH, Rtm.NEWNEIGH, AF_INET, 12).map((m) => ({
      ifindex: m.view.getInt32(4, LITTLE),
      address: m.address(1),
      mac: m.bytes(2).slice(),
      state: m.view.getUint16(8, LITTLE),
    }));
  }

  /**
   * The kernel's route for one packet; words as Question and Answer in route/routes.ts. With an incoming interface it
   * is the answer of input routing: LOCAL, UNICAST, … or the errno the packet would be dropped or refused for (EINVAL:
   * martian, reverse path, blackhole; EHOSTUNREACH, ENETUNREACH, EACCES). MTU is the route's own, not a path's.
   */
  ask(question: Int32Array, answer: Int32Array): void {
    this.native.rtnetlinkRouteGet(this.handle, question, answer);
  }

  /** Brings a link up with this MTU; `queueLength`: packets that may wait to be sent. @throws RequestError */
  bringUp(ifindex: number, mtu: number, queueLength: number): void {
    const header = new Uint8Array(16);
    const view = new DataView(header.buffer);
    view.setInt32(4, ifindex, LITTLE);
    view.setUint32(8, IFF_UP, LITTLE);
    view.setUint32(12, IFF_UP, LITTLE);
    this.request('setting the link up', Rtm.NEWLINK, 0, header, [
      [IFLA_MTU, word(mtu, LITTLE)],
      [IFLA_TXQLEN, word(queueLength, LITTLE)],
    ]);
  }

  /** Gives a link an address; the subnet's route comes with it. @throws RequestError */
  addAddress(ifindex: number, address: number, prefixLength: number): void {
    const header = new Uint8Array(8);
    const view = new DataView(header.buffer);
    header[0] = AF_INET;
    header[1] = prefixLength;
    view.setInt32(4, ifindex, LITTLE);
    const bytes = word(address, false);
    this.request('adding the address', Rtm.NEWADDR, NLM_F_CREATE | NLM_F_EXCL, header, [
      [IFA_LOCAL, bytes],
      [IFA_ADDRESS, bytes],
    ]);
  }

  /** Adds a unicast route to the main table; `gateway` and `source` 0 = none. @throws RequestError */
  addRoute(ifindex: number, dst: number, prefixLength: number, gateway: number, source = 0): void {
    const flags = NLM_F_CREATE | NLM_F_EXCL;
    this.changeRoute('adding the route', Rtm.NEWROUTE, flags, ifindex, dst, prefixLength, gateway, source);
  }

  /** Takes a route away that `addRoute` made, without a gateway. @throws RequestError */
  removeRoute(ifindex: number, dst: number, prefixLength: number, source = 0): void {
    this.changeRoute('removing the route', Rtm.DELROUTE, 0, ifindex, dst, prefixLength, 0, source);
  }

  private changeRoute(
    what: string,
    type: Rtm,
    flags: number,
    ifindex: number,
    dst: number,
    prefixLength: number,
    gateway: number,
    source: number,
  ): void {
    const header = new Uint8Array(12);
    header[0] = AF_INET;
    header[1] = prefixLength;
    header[4] = RT_TABLE_MAIN;
    header[5] = RTPROT_STATIC;
    header[6] = gateway === 0 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    header[7] = RTN_UNICAST;
    const attributes: [number, Uint8Array][] = [[RTA_OIF, word(ifindex, LITTLE)]];
    if (prefixLength > 0) attributes.push([RTA_DST, word(dst, false)]);
    if (gateway !== 0) attributes.push([RTA_GATEWAY, word(gateway, false)]);
    if (source !== 0) attributes.push([RTA_PREFSRC, word(source, false)]);
    this.request(what, type, flags, header, attributes);
  }

  private request(
    what: string,
    type: Rtm,
    flags: number,
    header: Uint8Array,
    attributes: [number, Uint8Array][],
  ): void {
    const message = netlinkMessage(type, flags, header, attributes);
    const errno = this.native.rtnetlinkRequest(this.handle, message);
    if (errno !== 0) throw new RequestError(what, errno);
  }

  close(): void {
    this.native.close(this.handle);
  }

  private dump(request: Rtm, wanted: Rtm, family: number, headerLength: number): Message[] {
    const bytes = this.native.rtnetlinkDump(this.handle, request, family);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const messages: Message[] = [];
    for (let at = 0; at + 16 <= bytes.length;) {
      const length = view.getUint32(at, LITTLE);
      if (length < 16 || at + length > bytes.length) break;
      if (view.getUint16(at + 4, LITTLE) === (wanted as number))
        messages.push(new Message(bytes.subarray(at + 16, at + length), headerLength));
      at += (length + 3) & ~3;
    }
    return messages;
  }
}

/** Hears of changes, by `drain` at a time of one's own or by `watch` from the event loop; one thread uses it. */
export class Monitor {
  private readonly native: Native = loadNative();
  private readonly handle: MonitorHandle = this.native.monitorOpen();

  /** Notice bits since the last call; never waits. */
  drain(): number {
    return this.native.monitorDrain(this.handle);
  }

  /** Calls back with Notice bits at each burst. Once a monitor; it doesn't keep the process alive. */
  watch(callback: (notices: number) => void): void {
    this.native.monitorWatch(this.handle, callback);
  }

  close(): void {
    this.native.close(this.handle);
  }
}

/** The kernel refused a change. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
  constructor(
    what: string,
    /** Positive. */
    readonly errno: number,
  ) {
    super(`${what}: ${getSystemErrorMap().get(-errno)?.[1] ?? `errno ${errno}`}`);
  }
}

/** An attribute of one 32-bit word. */
function word(value: number, little: boolean): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value, little);
  return bytes;
}

const EMPTY = new Uint8Array(0);

/** A family header and the attributes after it. Missing attributes read as 0, '' and no bytes. */
class Message {
  readonly view: DataView;
  private readonly attributes = new Map<number, Uint8Array>();

  constructor(bytes: Uint8Array, headerLength: number) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = headerLength; at + 4 <= bytes.length;) {
      const length = this.view.getUint16(at, LITTLE);
      if (length < 4 || at + length > bytes.length) break;
      this.attributes.set(this.view.getUint16(at + 2, LITTLE) & TYPE_MASK, bytes.subarray(at + 4, at + length));
      at += (length + 3) & ~3;
    }
  }

  has(type: number): boolean {
    return this.attributes.has(type);
  }
  bytes(type: number): Uint8Array {
    return this.attributes.get(type) ?? EMPTY;
  }
  u32(type: number): number {
    const b = this.bytes(type);
    return b.length < 4 ? 0 : new DataView(b.buffer, b.byteOffset).getUint32(0, LITTLE);
  }
  /** An IPv4 address, from network order. */
  address(type: number): number {
    const b = this.bytes(type);
    return b.length < 4 ? 0 : new DataView(b.buffer, b.byteOffset).getInt32(0, false);
  }
  text(type: number): string {
    const b = this.bytes(type);
    return Buffer.from(b.buffer, b.byteOffset, b.at(-1) === 0 ? b.length - 1 : b.length).toString('latin1');
  }
  nested(type: number): Message {
    return new Message(this.bytes(type), 0);
  }
}

/** struct rtnexthop: length, flags, weight − 1, ifindex, attributes. */
function nextHops(bytes: Uint8Array): KernelRoute['hops'] {
  const hops: KernelRoute['hops'] = [];
  for (let at = 0; at + 8 <= bytes.length;) {
    const length = new DataView(bytes.buffer, bytes.byteOffset + at).getUint16(0, LITTLE);
    if (length < 8) break;
    const hop = new Message(bytes.subarray(at, at + length), 8);
    hops.push({ oif: hop.view.getInt32(4, LITTLE), gateway: hop.address(5), weight: hop.view.getUint8(3) + 1 });
    at += (length + 3) & ~3;
  }
  return hops;
}
