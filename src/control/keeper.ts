/**
 * Keeps the ruleset in force, as the commands see it: compiles a new one, has every worker take it up, and only then
 * calls it the ruleset; decision trees are grown behind that, in a thread of their own. Reads what the workers counted. Commands come one at a time (commands/run.ts), so swaps do, too.
 */
import type { SetTypes } from '../dataplane/io/ipset.js';
import { setProblem } from './ext/set.js';
import { existsSync } from 'node:fs';
import { lookup, lookupService } from 'node:dns/promises';
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';
import { type Backend, CommitError } from './commands/backend.js';
import { type Compiled, CompileError, Compiler } from './compile/index.js';
import type { FindRule, TracedRule } from './log.js';
import { type Counters, type Ruleset, ZERO } from './model.js';
import type { Built } from './compile/tree/build.js';
import type { Router } from './router.js';
import { looseAddress } from './text/address.js';
import { NO_SUCH_HOST } from './text/write.js';
import { ruleFinder } from './trace.js';

/** A chain's tree is grown anew when more rules lie beside it. */
const SLACK = 32;
/** Commands often come one behind the other. */
const SETTLE_MS = 50;

export class Keeper implements Backend {
  private router: Router | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private pool: Piscina | undefined;
  private timer: NodeJS.Timeout | undefined;
  private growing = false;
  private closed = false;
  private compiled: Compiled;
  private finder: { ruleset: Ruleset; find: FindRule } | undefined;
  readonly compiler: Compiler;

  /**
   * @param current the ruleset to begin with
   * @param hz the kernel's timer frequency
   * @param onTracking called when a program begins to track connections, before it runs, and when none does any more
   * @param onProgram called with each program but the first before it runs
   * @param sets who knows the kernel's sets
   * @throws CompileError
   */
  constructor(
    private current: Ruleset,
    hz: number,
    private readonly onTracking: (connections: boolean) => void,
    private readonly onProgram: (program: Int32Array) => void,
    private readonly sets?: SetTypes,
  ) {
    this.compiler = new Compiler(hz, sets);
    this.compiled = this.compiler.compile(current);
  }

  /** The program in force. */
  get program(): Compiled {
    return this.compiled;
  }

  /** Chains with a decision tree, and those that wait for one. */
  get trees(): { grown: number; growing: number } {
    return this.compiler.treeCounts(SLACK);
  }

  /** The workers run the first program. */
  attach(router: Router): void {
    this.router = router;
    this.compiler.release(this.compiled);
    this.growSoon();
  }

  ruleset(): Ruleset {
    return this.current;
  }

  /**
   * Puts `next` in force; resolves when no worker runs the old one any more.
   * @throws CommitError, and then all is as before
   */
  async commit(next: Ruleset): Promise<void> {
    await this.inTurn(() => this.enforce(next));
    this.growSoon();
  }

  /** Ends what grows in the background. */
  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.timer);
    await this.turn;
    await this.pool?.destroy();
  }

  /** Swaps of programs must not overlap. */
  private inTurn<T>(act: () => Promise<T>): Promise<T> {
    const done = this.turn.then(act);
    this.turn = done.catch(() => undefined);
    return done;
  }

  private async enforce(next: Ruleset): Promise<void> {
    const { router, compiler } = this;
    if (router === undefined) throw new Error('no workers to run rules');
    const compiled = this.compile(next);
    // Fragments are put together before rules ask for connections, and until the last such rule is gone.
    if (compiled.connections && !this.compiled.connections) this.onTracking(true);
    this.onProgram(compiled.words);
    const everywhere = await router.publish(compiled);
    if (!compiled.connections && this.compiled.connections) this.onTracking(false);
    this.compiled = compiled;
    this.current = next;
    router.clearCounters(compiled.retiredCounters);
    compiler.release(compiled, everywhere);
  }

  /** Large chains get their trees a little later, by another swap: until then they walk what no tree knows. */
  private growSoon(): void {
    if (this.growing || this.closed || this.trees.growing === 0) return;
    this.growing = true;
    this.timer = setTimeout(() => {
      void this.grow()
        .catch((error: unknown) => {
          // Nothing is lost but speed.
          if (!this.closed)
            process.emitWarning(`no decision tree: ${error instanceof Error ? error.message : String(error)}`);
        })
        .finally(() => {
          this.growing = false;
        });
    }, SETTLE_MS);
    this.timer.unref();
  }

  private async grow(): Promise<void> {
    for (;;) {
      const stale = this.compiler.staleTrees(SLACK);
      if (stale.length === 0 || this.closed) return;
      const built: Built[] = [];
      for (const { words } of stale) built.push(await this.build(words));
      await this.inTurn(async () => {
        stale.forEach((chain, i) => {
          this.compiler.plant(chain, built[i]!);
        });
        if (!this.closed) await this.enforce(this.current);
      });
    }
  }

  /** By a thread of its own, which ends when it has had nothing to do for a while. */
  private async build(rules: Int32Array): Promise<Built> {
    if (this.pool === undefined) {
      const { Piscina } = await import('piscina');
      this.pool = new Piscina({
        filename: treeWorkerFile(),
        minThreads: 0,
        maxThreads: 1,
        idleTimeout: 10_000,
        recordTiming: false,
      });
    }
    return (await this.pool.run(rules)) as Built;
  }

  private compile(next: Ruleset): Compiled {
    try {
      return this.compiler.compile(next);
    } catch (error) {
      throw error instanceof CompileError ? new CommitError(error.message) : error;
    }
  }

  count(id: number): Counters {
    const slot = this.compiler.slots.of(id);
    if (slot === undefined || this.router === undefined) return ZERO;
    return { packets: BigInt(this.router.packets(slot)), bytes: BigInt(this.router.bytes(slot)) };
  }

  /** A rule or policy in force by its counter slot, for traces. */
  traced(counter: number): TracedRule | undefined {
    if (this.finder?.ruleset !== this.current) {
      const find = ruleFinder(this.current, (id) => this.compiler.slots.of(id));
      this.finder = { ruleset: this.current, find };
    }
    return this.finder.find(counter);
  }

  host(name: string): Promise<readonly number[] | string> {
    return hostAddresses(name);
  }

  setProblem(name: string): string | undefined {
    return this.sets === undefined ? undefined : setProblem(name, this.sets.typeOf(name));
  }

  hostName(address: number): Promise<string | undefined> {
    return hostNameOf(address);
  }
}

/** gai_strerror(3) of glibc, by libuv's numbers. */
const RESOLVER_ERRORS: Readonly<Record<number, string>> = {
  [-3000]: 'Address family for hostname not supported',
  [-3001]: 'Temporary failure in name resolution',
  [-3004]: 'Non-recoverable failure in name resolution',
  [-3006]: 'Memory allocation failure',
  [-3007]: 'No address associated with hostname',
};

/** IPv4 addresses of a host by the system's resolver, in its order; or why there are none, in the resolver's words. */
export async function hostAddresses(name: string): Promise<number[] | string> {
  try {
    const found = await lookup(name, { all: true, family: 4, verbatim: true });
    // An IPv6 address is "found" as itself, whatever family is asked for.
    const addresses = found.flatMap(({ address }) => looseAddress(address) ?? []);
    return addresses.length > 0 ? addresses : RESOLVER_ERRORS[-3000]!;
  } catch (error) {
    return RESOLVER_ERRORS[(error as NodeJS.ErrnoException).errno ?? 0] ?? NO_SUCH_HOST;
  }
}

/** Name of an address by the system's resolver. */
export async function hostNameOf(address: number): Promise<string | undefined> {
  const text = `${address >>> 24}.${(address >> 16) & 255}.${(address >> 8) & 255}.${address & 255}`;
  try {
    const { hostname } = await lookupService(text, 0);
    return hostname === text ? undefined : hostname;
  } catch {
    return undefined;
  }
}

/** The bundle beside this one, or the module on its own where nothing is bundled. */
function treeWorkerFile(): string {
  const bundled = fileURLToPath(new URL('./tree-worker.mjs', import.meta.url));
  return existsSync(bundled) ? bundled : fileURLToPath(new URL('./compile/tree/worker.js', import.meta.url));
}
