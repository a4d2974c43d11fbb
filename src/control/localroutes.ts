/**
 * Routes in hutter's own namespace to all that hutter has routes to, by the interface to the router's own sockets: what they
 * send comes to hutter, which routes it by tables and rules. A route that the namespace has by other ways stays.
 */
import type { Link } from '../dataplane/interfaces.js';
import { RequestError, type Rtnetlink } from '../dataplane/io/rtnetlink.js';
import type { Fib } from '../dataplane/route/fib.js';
import { RouteType } from '../dataplane/route/routes.js';
import { formatAddress } from './text/address.js';

const EEXIST = 17;

export class LocalRoutes {
  /** Source of each route that is there, by prefix. */
  private readonly placed = new Map<string, number>();

  /** `kernel`: hutter's own namespace; `ifindex`: the interface there. */
  constructor(
    private readonly kernel: Rtnetlink,
    private readonly ifindex: number,
    private readonly say: (text: string) => void,
  ) {}

  /** Makes the namespace's routes to these prefixes what they are in the tables, one a step. */
  *follow(
    fib: Fib,
    links: readonly Link[],
    prefixes: readonly (readonly [dst: number, length: number])[],
  ): Generator<void> {
    for (const [dst, length] of prefixes) {
      const key = `${formatAddress(dst)}/${length}`;
      const route = fib.waysTo(dst, length).find(({ type }) => type === RouteType.UNICAST);
      const first = links.find(({ index }) => index === route?.oif)?.addresses[0]?.local ?? 0;
      const wanted = route === undefined ? undefined : route.source !== 0 ? route.source : first;
      const known = this.placed.get(key);
      if (wanted === known) continue;
      yield;
      try {
        this.placed.delete(key);
        if (known !== undefined) this.kernel.removeRoute(this.ifindex, dst, length, known);
        if (wanted !== undefined) {
          this.kernel.addRoute(this.ifindex, dst, length, 0, wanted);
          this.placed.set(key, wanted);
        }
      } catch (error) {
        if (!(error instanceof RequestError)) throw error;
        if (error.errno === EEXIST)
          this.say(`warning: this namespace has a route to ${key} already: the router's own sockets go that way`);
        else this.say(`warning: the router's own sockets and ${key}: ${error.message}`);
      }
    }
  }

  close(): void {
    this.kernel.close();
  }
}
