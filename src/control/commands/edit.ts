/**
 * A table being changed: the operations of libiptc on a working copy, with its errors, and a new TableModel at the end.
 * Chains are copied when first written to, so that what a command leaves alone stays the same object.
 *
 * Which words the tool has for an errno depends on the library function called last, so `operation` follows it
 * (libiptc.c, iptc_fn and TC_STRERROR).
 */
import {
  lastId,
  newId,
  sameRule,
  ZERO,
  type Chain,
  type Counted,
  type Counters,
  type Policy,
  type Rule,
  type RuleSpec,
  type TableModel,
  type Target,
  type Verdict,
} from '../model.js';
import { TableError, type Errno } from '../text/problem.js';

/** Raw counts under an identity, without its base. */
export type Count = (id: number) => Counters;

interface WorkingChain {
  name: string;
  rules: Rule[];
  policy?: Policy;
  readonly hook?: Chain['hook'];
  /** The model's chain, while nothing in it has changed. */
  clean: Chain | undefined;
}

const STANDARD: ReadonlySet<string> = new Set(['ACCEPT', 'DROP', 'QUEUE', 'RETURN']);
export const isVerdict = (name: string): name is Verdict => STANDARD.has(name);

export class TableEdit {
  private readonly chains = new Map<string, WorkingChain>();
  private sorted = true;
  private references: Map<string, number> | undefined;
  /** The identities after this one were made here: the counters that these have were set, and zeroing leaves them. */
  private readonly lastOld = lastId();
  /** libiptc's function of the last call. */
  private operation = 'init';
  changed = false;
  /** Identities of the rules made since someone last took them. */
  added: number[] = [];

  constructor(
    readonly table: TableModel,
    private readonly count: Count,
  ) {
    for (const chain of table.chains.values())
      this.chains.set(chain.name, {
        name: chain.name,
        rules: chain.rules as Rule[],
        ...(chain.policy && { policy: chain.policy }),
        ...(chain.hook && { hook: chain.hook }),
        clean: chain,
      });
  }

  /** Names, built-in chains first, then the others in byte order. */
  chainNames(): string[] {
    this.sort();
    return [...this.chains.keys()];
  }

  isChain = (name: string): boolean => this.chains.has(name);
  isBuiltin = (name: string): boolean => this.chains.get(name)?.hook !== undefined;
  rules = (name: string): readonly Rule[] => this.chains.get(name)?.rules ?? [];
  policy = (name: string): Policy | undefined => this.chains.get(name)?.policy;

  /** How many rules jump to the chain. */
  referencesTo(name: string): number {
    return this.allReferences().get(name) ?? 0;
  }

  /** What a listing shows. */
  counters({ id, base }: Counted): Counters {
    const raw = this.count(id);
    return { packets: raw.packets + base.packets, bytes: raw.bytes + base.bytes };
  }

  /** Rules that are added have an identity of their own and the counters they are to begin with. */
  append(chain: string, rule: Rule): void {
    const found = this.find(chain, 'append');
    this.checkTarget(rule.target);
    this.writable(found).rules.push(this.newRule(rule));
  }

  /** @param index from 0 */
  insert(chain: string, rule: Rule, index: number): void {
    const found = this.find(chain, 'insert');
    if (index > found.rules.length) this.fail('E2BIG');
    this.checkTarget(rule.target);
    this.writable(found).rules.splice(index, 0, this.newRule(rule));
  }

  replace(chain: string, rule: Rule, index: number): void {
    const found = this.find(chain, 'replace');
    const old = found.rules[index] ?? this.fail('E2BIG');
    this.checkTarget(rule.target);
    this.writable(found).rules[index] = this.newRule(rule);
    this.refer(old.target, -1);
  }

  /** The first rule that says the same goes. */
  delete(chain: string, spec: RuleSpec): void {
    const found = this.find(chain, 'delete');
    this.remove(found, this.findRule(found, spec));
  }

  /** Whether there is such a rule; throws if not. */
  check(chain: string, spec: RuleSpec): void {
    this.findRule(this.find(chain, 'delete'), spec);
  }

  deleteNumber(chain: string, index: number): void {
    const found = this.find(chain, 'delete-number');
    if (index >= found.rules.length) this.fail('E2BIG');
    this.remove(found, index);
  }

  flush(chain: string): void {
    const found = this.writable(this.find(chain, 'flush'));
    for (const rule of found.rules) this.refer(rule.target, -1);
    found.rules = [];
  }

  /** All counters of the chain. */
  zero(chain: string): void {
    const found = this.writable(this.find(chain, 'zero'));
    if (found.policy) found.policy = this.zeroed(found.policy);
    found.rules = found.rules.map((rule) => this.zeroed(rule));
  }

  /** @param number from 1 */
  zeroRule(chain: string, number: number): void {
    const found = this.find(chain, 'zero-counter');
    const rule = found.rules[number - 1] ?? this.fail('E2BIG');
    this.writable(found).rules[number - 1] = this.zeroed(rule);
  }

  create(name: string): void {
    this.operation = 'create-chain';
    if (this.chains.has(name) || isVerdict(name)) this.fail('EEXIST');
    this.chains.set(name, { name, rules: [], clean: undefined });
    this.sorted = false;
    this.changed = true;
  }

  deleteChain(name: string): void {
    const found = this.find(name, 'delete-chain');
    this.operation = 'builtin';
    if (found.hook) this.fail('EINVAL', `${name} is a built-in chain`);
    this.operation = 'references';
    if (this.referencesTo(name) > 0) this.fail('EMLINK');
    if (found.rules.length > 0) this.fail('ENOTEMPTY');
    this.chains.delete(name);
    this.changed = true;
  }

  rename(oldName: string, newName: string): void {
    this.operation = 'rename-chain';
    if (this.chains.has(newName) || isVerdict(newName)) this.fail('EEXIST');
    const found = this.chains.get(oldName);
    if (!found || found.hook) {
      this.operation = 'builtin';
      this.fail('ENOENT');
    }
    this.chains.delete(oldName);
    found.name = newName;
    found.clean = undefined;
    this.chains.set(newName, found);
    this.sorted = false;
    this.changed = true;
    for (const chain of this.chains.values()) {
      if (!chain.rules.some((rule) => rule.target.kind === 'jump' && rule.target.chain === oldName)) continue;
      this.writable(chain).rules = chain.rules.map((rule) =>
        rule.target.kind === 'jump' && rule.target.chain === oldName
          ? { ...rule, target: { ...rule.target, chain: newName } }
          : rule,
      );
    }
    const references = this.references?.get(oldName);
    if (references !== undefined) {
      this.references!.delete(oldName);
      this.references!.set(newName, references);
    }
  }

  /** Without counters the policy counts from zero, too. */
  setPolicy(chain: string, policy: string, base: Counters = ZERO): void {
    this.operation = 'set-policy';
    const found = this.chains.get(chain);
    if (!found?.hook) this.fail('ENOENT');
    if (policy !== 'ACCEPT' && policy !== 'DROP') this.fail('EINVAL', `${policy} is no policy`);
    this.writable(found).policy = { verdict: policy, id: newId(), base };
  }

  /**
   * The table as it now is; the one it began as, if nothing was changed. As in libiptc, a swap has the counters of the
   * policies that it does not set begin at zero.
   */
  finish(): TableModel {
    if (!this.changed) return this.table;
    this.sort();
    const chains = new Map<string, Chain>();
    for (const chain of this.chains.values()) {
      if (chain.policy && chain.policy === this.table.chains.get(chain.name)?.policy) {
        chain.policy = this.zeroed(chain.policy);
        chain.clean = undefined;
      }
      chain.clean ??= {
        name: chain.name,
        rules: chain.rules,
        ...(chain.hook && { hook: chain.hook }),
        ...(chain.policy && { policy: chain.policy }),
      };
      chains.set(chain.name, chain.clean);
    }
    return { name: this.table.name, chains };
  }

  private fail(errno: Errno, detail?: string): never {
    throw new TableError(errno, this.operation, detail);
  }

  private find(chain: string, operation: string): WorkingChain {
    this.operation = operation;
    return this.chains.get(chain) ?? this.fail('ENOENT', `no chain ${chain}`);
  }

  /** The chain with rules of its own to change. */
  private writable(chain: WorkingChain): WorkingChain {
    if (chain.clean) {
      chain.rules = [...chain.rules];
      chain.clean = undefined;
    }
    this.changed = true;
    return chain;
  }

  private findRule(chain: WorkingChain, spec: RuleSpec): number {
    this.checkTarget(spec.target);
    const index = chain.rules.findIndex((rule) => sameRule(spec, rule));
    return index < 0 ? this.fail('ENOENT') : index;
  }

  private remove(chain: WorkingChain, index: number): void {
    const [rule] = this.writable(chain).rules.splice(index, 1);
    if (rule) this.refer(rule.target, -1);
  }

  /** libiptc looks a target up among its chains unless it is a verdict; the built-in ones can't be jumped to. */
  private checkTarget(target: Target): void {
    if (target.kind === 'extension') this.operation = 'builtin';
    if (target.kind !== 'jump') return;
    this.operation = 'builtin';
    if (this.isBuiltin(target.chain)) this.fail('EINVAL', `${target.chain} is a built-in chain`);
  }

  private newRule(rule: Rule): Rule {
    this.added.push(rule.id);
    this.refer(rule.target, 1);
    return rule;
  }

  private zeroed<T extends Counted>(counted: T): T {
    if (counted.id > this.lastOld) return counted;
    const raw = this.count(counted.id);
    return { ...counted, base: { packets: -raw.packets, bytes: -raw.bytes } };
  }

  private allReferences(): Map<string, number> {
    if (!this.references) {
      this.references = new Map();
      for (const chain of this.chains.values()) for (const rule of chain.rules) this.refer(rule.target, 1);
    }
    return this.references;
  }

  private refer(target: Target, by: number): void {
    if (target.kind === 'jump' && this.references)
      this.references.set(target.chain, (this.references.get(target.chain) ?? 0) + by);
  }

  private sort(): void {
    if (this.sorted) return;
    const all = [...this.chains.values()];
    const own = all.filter((chain) => !chain.hook).sort((a, b) => (a.name < b.name ? -1 : 1));
    this.chains.clear();
    for (const chain of [...all.filter((each) => each.hook), ...own]) this.chains.set(chain.name, chain);
    this.sorted = true;
  }
}

const MESSAGES: readonly (readonly [string, Errno, string])[] = [
  ['delete-chain', 'ENOTEMPTY', 'Chain is not empty'],
  ['create-chain', 'EEXIST', 'Chain already exists'],
  ['insert', 'E2BIG', 'Index of insertion too big'],
  ['replace', 'E2BIG', 'Index of replacement too big'],
  ['delete-number', 'E2BIG', 'Index of deletion too big'],
  ['zero-counter', 'E2BIG', 'Index of counter too big'],
  ['delete', 'ENOENT', 'Bad rule (does a matching rule exist in that chain?)'],
  ['set-policy', 'ENOENT', 'Bad built-in chain name'],
  ['set-policy', 'EINVAL', 'Bad policy name'],
  ['', 'ENOSYS', 'Will be implemented real soon.  I promise ;)'],
  ['', 'ENOMEM', 'Memory allocation problem'],
  ['', 'ENOENT', 'No chain/target/match by that name'],
];

/** strerror(3). */
const ERRNO_TEXTS: Readonly<Record<Errno, string>> = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  E2BIG: 'Argument list too long',
  EAGAIN: 'Resource temporarily unavailable',
  ENOMEM: 'Cannot allocate memory',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  ENODEV: 'No such device',
  EINVAL: 'Invalid argument',
  EFBIG: 'File too large',
  EMLINK: 'Too many links',
  ERANGE: 'Numerical result out of range',
  ENOSYS: 'Function not implemented',
  ENOTEMPTY: 'Directory not empty',
  ELOOP: 'Too many levels of symbolic links',
  EOPNOTSUPP: 'Operation not supported',
};

export const errnoText = (errno: Errno): string => ERRNO_TEXTS[errno];

/** The tool's words for a failed operation (TC_STRERROR), without a full stop. */
export function tableErrorText({ operation, errno }: TableError): string {
  const found = MESSAGES.find(([of, code]) => (of === '' || of === operation) && code === errno);
  return found?.[2] ?? ERRNO_TEXTS[errno];
}
