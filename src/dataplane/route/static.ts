/**
 * A router's routes when no kernel is asked: longest prefix match over the configured ones, the interfaces' own
 * addresses and subnets. For simulations, replays and tests. Later routes of the same prefix win.
 */
import type { Link } from '../interfaces.js';
import { Answer, Errno, Question, type RouteSource, RouteType } from './routes.js';
import { prefixOf } from './table.js';

/** Addresses in host order. */
export interface StaticRoute {
  dst: number;
  prefixLength: number;
  type: RouteType;
  /** ifindex; 0 for routes that go nowhere (blackhole, unreachable, prohibit). */
  oif: number;
  /** 0 = on the link. */
  gateway: number;
}

export class StaticRoutes implements RouteSource {
  /** By prefix length, network → route. */
  private readonly byLength: Map<number, StaticRoute>[] = Array.from({ length: 33 }, () => new Map());

  constructor(
    routes: readonly StaticRoute[],
    private readonly links: readonly Link[],
  ) {
    for (const { index, addresses } of links) {
      for (const { local, address, prefixLength } of addresses) {
        this.add({ dst: address, prefixLength, type: RouteType.UNICAST, oif: index, gateway: 0 });
        if (prefixLength < 31) {
          const host = prefixLength === 0 ? -1 : (1 << (32 - prefixLength)) - 1;
          this.add({ dst: address | host, prefixLength: 32, type: RouteType.BROADCAST, oif: index, gateway: 0 });
        }
        this.add({ dst: local, prefixLength: 32, type: RouteType.LOCAL, oif: index, gateway: 0 });
      }
    }
    this.add({ dst: 0x7f000000, prefixLength: 8, type: RouteType.LOCAL, oif: 1, gateway: 0 });
    this.add({ dst: -1, prefixLength: 32, type: RouteType.BROADCAST, oif: 0, gateway: 0 });
    for (const route of routes) this.add(route);
  }

  private add(route: StaticRoute): void {
    this.byLength[route.prefixLength]!.set(prefixOf(route.dst, route.prefixLength), route);
  }

  ask(question: Int32Array, answer: Int32Array): void {
    const dst = question[Question.DST]!;
    answer.fill(0);
    if (dst >>> 28 === 0xe) {
      answer[Answer.TYPE] = RouteType.MULTICAST;
      answer[Answer.OIF] = question[Question.IIF]!;
      return;
    }
    for (let length = 32; length >= 0; length--) {
      const route = this.byLength[length]!.get(prefixOf(dst, length));
      if (route === undefined) continue;
      answer[Answer.ERRNO] = ERRNO[route.type] ?? 0;
      answer[Answer.TYPE] = route.type;
      answer[Answer.OIF] = route.oif !== 0 ? route.oif : question[Question.IIF]!;
      answer[Answer.GATEWAY] = route.gateway;
      answer[Answer.PREFSRC] = route.type === RouteType.LOCAL ? dst : this.source(route);
      return;
    }
    answer[Answer.ERRNO] = Errno.NETUNREACH;
  }

  /** The address a packet of the router's own gets on this way. */
  private source(route: StaticRoute): number {
    const addresses = this.links.find(({ index }) => index === route.oif)?.addresses ?? [];
    const hop = route.gateway !== 0 ? route.gateway : route.dst;
    const near = addresses.find((own) => prefixOf(hop ^ own.address, own.prefixLength) === 0);
    return (near ?? addresses[0])?.local ?? 0;
  }
}

/** fib_props' (net/ipv4/fib_semantics.c). */
const ERRNO: Partial<Record<RouteType, number>> = {
  [RouteType.BLACKHOLE]: Errno.INVAL,
  [RouteType.UNREACHABLE]: Errno.HOSTUNREACH,
  [RouteType.PROHIBIT]: Errno.ACCES,
};
