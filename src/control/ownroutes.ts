/**
 * The routing tables of a router that owns its interfaces, as commands change them while packets flow: a change is in the
 * tables at once, workers look up without locks, and what it replaced is used again when all have passed a batch edge. One
 * command at a time.
 */
import { setImmediate } from 'node:timers/promises';
import { Interfaces, type Link } from '../dataplane/interfaces.js';
import { RoutedBy } from '../dataplane/program/late.js';
import type { Fib } from '../dataplane/route/fib.js';
import { Errno, RouteField, Routes, SourceCheck } from '../dataplane/route/routes.js';
import type { Printed, RoutingView } from './commands/ip.js';
import { isBatch, runBatch, runRoute } from './commands/iproute.js';
import { runRule } from './commands/iprule.js';
import type { LocalRoutes } from './localroutes.js';
import type { Router } from './router.js';

/** Milliseconds for which a long change keeps the thread from other commands. */
const SLICE_MS = 10;

/** Takes the steps to their end, and gives the thread to others between some of them. */
async function inSlices<T>(steps: Generator<void, T>): Promise<T> {
  for (let until = performance.now() + SLICE_MS; ;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    if (performance.now() < until) continue;
    await setImmediate();
    until = performance.now() + SLICE_MS;
  }
}

export interface OwnRoutesOptions {
  fib: Fib;
  links: readonly Link[];
  /** ifindexes by how the reverse path is checked on them. */
  strict: readonly number[];
  loose: readonly number[];
  /** Where the router's own sockets are. */
  local: LocalRoutes | undefined;
}

export class OwnRoutes {
  readonly fib: Fib;
  private links: readonly Link[];
  private readonly interfaces = new Interfaces();
  private readonly check: Routes;
  private readonly local: LocalRoutes | undefined;
  private router: Router | undefined;
  /** The command at hand has changed a route; the prefixes, address and length, for `local`. */
  private moved = false;
  private readonly changed = new Map<string, [number, number]>();
  private last: Promise<unknown> = Promise.resolve();

  constructor({ fib, links, strict, loose, local }: OwnRoutesOptions) {
    this.fib = fib;
    this.links = links;
    this.local = local;
    this.interfaces.replace(links);
    this.check = new Routes(fib, this.interfaces);
    this.check.setStrictReversePath(strict);
    this.check.setLooseReversePath(loose);
    fib.onChange = (dst, length) => {
      this.moved = true;
      if (local !== undefined) this.changed.set(`${dst}/${length}`, [dst, length]);
    };
  }

  /** Workers run. */
  follow(router: Router): void {
    this.router = router;
    this.tellPorts();
    router.routesChanged();
  }

  /** Runs `route` or `rule`; what it changed is in force when it resolves. */
  run(program: 'route' | 'rule', argv: readonly string[], stdin: string): Promise<Printed> {
    const view: RoutingView = {
      fib: this.fib,
      links: () => this.links,
      sourceErrno: (dst, src, iif, mark, tos) => this.sourceErrno(dst, src, iif, mark, tos),
    };
    const batch = (): Generator<void, Printed> => runBatch(stdin, view, argv[1]);
    return this.alone(async () => {
      const rules = this.fib.rules;
      const steps = program === 'rule' ? runRule : isBatch(argv) ? batch : runRoute;
      const printed = await inSlices(steps(argv, view));
      if (this.moved || this.fib.rules !== rules) await this.settle();
      return printed;
    });
  }

  /** An interface is gone, and the routes by it with it; resolves when no worker uses its descriptor any more. */
  forget(ifindex: number): Promise<void> {
    return this.alone(async () => {
      this.links = this.links.filter(({ index }) => index !== ifindex);
      this.interfaces.replace(this.links);
      this.fib.setLinks(this.links);
      await this.router?.forgetInterface(ifindex);
      await this.settle();
    });
  }

  private alone<T>(task: () => Promise<T>): Promise<T> {
    const run = this.last.then(task);
    this.last = run.catch(() => undefined);
    return run;
  }

  /** Whether protocol and ports choose a way; packets are routed once. */
  private tellPorts(): void {
    this.router?.setRouting(this.fib.byPorts ? RoutedBy.RULES : 0, 0, false);
  }

  private async settle(): Promise<void> {
    this.check.forget();
    if (this.local !== undefined) await inSlices(this.local.follow(this.fib, this.links, [...this.changed.values()]));
    this.changed.clear();
    this.moved = false;
    this.tellPorts();
    await this.router?.passRouteEdge();
    this.fib.release();
  }

  private sourceErrno(dst: number, src: number, iif: number, mark: number, tos: number): number {
    const check = this.check.words[this.check.input(dst, src, iif, mark, tos, 0, 0) + RouteField.CHECK];
    if (check === SourceCheck.MARTIAN) return Errno.INVAL;
    return check === SourceCheck.REVERSE_PATH ? Errno.XDEV : 0;
  }
}
