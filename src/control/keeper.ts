/**
 * Keeps the ruleset in force, as the commands see it: compiles a new one, has every worker take it up, and only then
 * calls it the ruleset. Reads what the workers counted. Commands come one at a time (commands/run.ts), so swaps do, too.
 */
import { lookup, lookupService } from 'node:dns/promises';
import { type Backend, CommitError } from './commands/backend.js';
import { type Compiled, CompileError, Compiler } from './compile/index.js';
import { type Counters, type Ruleset, ZERO } from './model.js';
import type { Router } from './router.js';
import { looseAddress } from './text/address.js';

export class Keeper implements Backend {
  private router: Router | undefined;
  private compiled: Compiled;
  readonly compiler: Compiler;

  /**
   * @param current the ruleset to begin with
   * @param hz the kernel's timer frequency
   * @param onTracking called when a program begins to track connections, before it runs, and when none does any more
   * @throws CompileError
   */
  constructor(
    private current: Ruleset,
    hz: number,
    private readonly onTracking: (connections: boolean) => void,
  ) {
    this.compiler = new Compiler(hz);
    this.compiled = this.compiler.compile(current);
  }

  /** The program in force. */
  get program(): Compiled {
    return this.compiled;
  }

  /** The workers run the first program. */
  attach(router: Router): void {
    this.router = router;
  }

  ruleset(): Ruleset {
    return this.current;
  }

  /**
   * Puts `next` in force; resolves when no worker runs the old one any more.
   * @throws CommitError, and then all is as before
   */
  async commit(next: Ruleset): Promise<void> {
    const { router, compiler } = this;
    if (router === undefined) throw new Error('no workers to run rules');
    const compiled = this.compile(next);
    // Fragments are put together before rules ask for connections, and until the last such rule is gone.
    if (compiled.connections && !this.compiled.connections) this.onTracking(true);
    await router.publish(compiled);
    if (!compiled.connections && this.compiled.connections) this.onTracking(false);
    this.compiled = compiled;
    this.current = next;
    router.clearCounters(compiled.retiredCounters);
    compiler.release(compiled);
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

  host(name: string): Promise<readonly number[]> {
    return hostAddresses(name);
  }

  hostName(address: number): Promise<string | undefined> {
    return hostNameOf(address);
  }
}

/** IPv4 addresses of a host by the system's resolver, in its order; none when there is no such host. */
export async function hostAddresses(name: string): Promise<number[]> {
  try {
    const found = await lookup(name, { all: true, family: 4, verbatim: true });
    return found.map(({ address }) => looseAddress(address)!);
  } catch {
    return [];
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
