/**
 * What rules, NAT and the router itself ask of addresses and routes beyond the one route that a packet takes
 * (net/ipv4/fib_frontend.c, net/ipv4/devinet.c and what of netfilter calls them). Nothing is remembered here: the routes' own
 * cache answers.
 */
import type { Interfaces } from './interfaces.js';
import type { Packet } from './packet.js';
import type { Routes as Questions } from './program/context.js';
import type { Addresses } from './wire/options.js';
import { RouteField, type Routes, RouteType } from './route/routes.js';

/** Of 240.0.0.0/4, to which no route but the default one leads. */
const NOBODY = 0xf0000001 | 0;

export class RouteQuestions implements Questions, Addresses {
  constructor(
    private readonly routes: Routes,
    private readonly interfaces: Interfaces,
  ) {}

  isOurs(address: number): boolean {
    return this.addressType(address, 0) !== RouteType.UNICAST;
  }

  /** The route of a packet of the router's own from `src`; only what is the router's can be asked for as a source. */
  ownRoute(p: Packet, src: number, ports: number): number {
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
}
