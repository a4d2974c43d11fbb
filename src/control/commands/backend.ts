/** What the commands work on: a ruleset that is swapped whole, its counters, and names. */
import { EMPTY_RULESET, ZERO, type Counters, type Ruleset } from '../model.js';
import type { Names } from '../ext/record.js';
import { looseAddress } from '../text/address.js';
import { NO_SUCH_HOST } from '../text/write.js';

export interface Backend {
  /** The ruleset in force. */
  ruleset(): Ruleset;
  /** One atomic swap. A CommitError has changed nothing. */
  commit(next: Ruleset): Promise<void>;
  /** Packets and bytes counted under an identity, without its base; zeros for one not seen yet. */
  count(id: number): Counters;
  /** Addresses (int32, host order) of a host name; or why there is none, in the words of gai_strerror(3). */
  host(name: string): Promise<readonly number[] | string>;
  /** Name of an address. */
  hostName(addr: number): Promise<string | undefined>;
  /** Names.setProblem */
  setProblem?(name: string): string | undefined;
}

/** The swap was refused. */
export class CommitError extends Error {
  constructor(
    /** One sentence without program name and full stop. */
    message: string,
    /** Exit code. */
    readonly code = 1,
  ) {
    super(message);
  }
}

/** A ruleset in memory, for tests and for looking at files. */
export class MemoryBackend implements Backend {
  readonly counted = new Map<number, Counters>();
  commits = 0;

  constructor(
    private current: Ruleset = EMPTY_RULESET,
    /** As /etc/hosts. */
    private readonly hosts: Readonly<Record<string, string>> = {},
    /** What is said of other names. */
    private readonly noHost = NO_SUCH_HOST,
  ) {}

  ruleset(): Ruleset {
    return this.current;
  }
  commit(next: Ruleset): Promise<void> {
    this.current = next;
    this.commits++;
    return Promise.resolve();
  }
  count(id: number): Counters {
    return this.counted.get(id) ?? ZERO;
  }
  host(name: string): Promise<readonly number[] | string> {
    const address = Object.hasOwn(this.hosts, name) ? looseAddress(this.hosts[name]!) : undefined;
    return Promise.resolve(address === undefined ? this.noHost : [address]);
  }
  hostName(addr: number): Promise<string | undefined> {
    return Promise.resolve(Object.keys(this.hosts).find((name) => looseAddress(this.hosts[name]!) === addr));
  }
}

/** A name whose address is not known yet: look it up and start again. */
export class Unresolved extends Error {
  constructor(name: string) {
    super(`${name} is not looked up yet`);
  }
}

/**
 * Names for the parser and the printer, which can't wait: `host` throws Unresolved at a name's first sight, `hostName`
 * goes on without; `resolve` then looks up all that was missed.
 */
export class Lookups implements Names {
  private readonly addresses = new Map<string, readonly number[] | string>();
  private readonly names = new Map<number, string | undefined>();
  private readonly missed = new Map<string | number, Promise<void>>();

  constructor(private readonly backend: Pick<Backend, 'host' | 'hostName' | 'setProblem'>) {}

  host(name: string): readonly number[] | string {
    const known = this.addresses.get(name);
    if (known !== undefined) return known;
    this.missed.set(
      name,
      this.backend.host(name).then((found) => {
        this.addresses.set(name, found);
      }),
    );
    throw new Unresolved(name);
  }

  hostName(addr: number): string | undefined {
    if (!this.names.has(addr) && !this.missed.has(addr))
      this.missed.set(
        addr,
        this.backend.hostName(addr).then((name) => {
          this.names.set(addr, name);
        }),
      );
    return this.names.get(addr);
  }

  setProblem(name: string): string | undefined {
    return this.backend.setProblem?.(name);
  }

  /** Whether an answer would have been something else if names were known. */
  get waiting(): boolean {
    return this.missed.size > 0;
  }

  async resolve(): Promise<void> {
    const waiting = [...this.missed.values()];
    this.missed.clear();
    await Promise.all(waiting);
  }
}
