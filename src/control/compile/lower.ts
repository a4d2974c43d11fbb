/**
 * Rules become words: their tests in the order in which the kernel makes them (addresses, interfaces, protocol, fragment,
 * then the matches as given) and their target. What a match or target means is its record's `compile`. One object a
 * compile: it is the emitter and the context of every record that it asks, and gathers the words one behind the other.
 */
import type { SetType, SetTypes } from '../../dataplane/io/ipset.js';
import type { TableName } from '../../dataplane/names.js';
import * as basics from '../../dataplane/program/basics.js';
import { MATCHES, TARGETS } from '../../dataplane/program/catalog.js';
import { INVERT, Op, Rule as R, RULE_WORDS } from '../../dataplane/program/format.js';
import { encodeNFQUEUE } from '../../dataplane/program/nfqueue.js';
import type { Op as OpRecord } from '../../dataplane/program/op.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import type { CompileContext, Emitter, Use } from '../ext/record.js';
import type { Rule } from '../model.js';
import type { RegionStore } from './regions.js';

/** What a rule needs beside its words. */
export interface Needs {
  /** State it uses. */
  readonly keys: readonly string[];
  /** Some operation looks at the packet's connection. */
  readonly connections: boolean;
  /** Some operation looks behind the packet's headers or changes it. */
  readonly payload: boolean;
  /** What the kernel must mark packets for (bits of MARKED_FLAGS). */
  readonly marked: number;
}

/** Why a rule can't be compiled. */
export class RuleError extends Error {
  override readonly name = 'RuleError';
}

export class Lowerer implements Emitter, CompileContext {
  /** The rules so far, in the first `length` words. A jump's argument is 0: where its chain lies is known later. */
  words = new Int32Array(1024);
  length = 0;
  /** Keys of state that was not there before. */
  readonly made: string[] = [];

  table: TableName = 'filter';
  rule!: Rule;
  ruleId = 0;
  index = 0;
  private start = 0;
  private keys: string[] = [];
  private connections = false;
  private payload = false;
  private marked = 0;
  private targets = 0;

  /**
   * @param hz kernel ticks a second
   * @param sets who knows the kernel's sets; undefined where nobody does
   */
  constructor(
    private readonly regions: RegionStore,
    readonly hz: number,
    private readonly sets?: SetTypes,
  ) {}

  /**
   * Adds a rule of `table` that counts in slot `counter`. Returns what it needs; undefined: nothing.
   * @throws RuleError naming the match or target that the data plane can't carry out
   */
  add(rule: Rule, table: TableName, counter: number): Needs | undefined {
    this.rule = rule;
    this.ruleId = rule.id;
    this.table = table;
    this.start = this.take(RULE_WORDS);
    this.words[this.start + R.COUNTER] = counter;
    this.keys = NO_KEYS;
    this.connections = false;
    this.payload = false;
    this.marked = 0;
    this.targets = 0;
    const { src, dst, notSrc, notDst } = rule;
    // These look at headers alone: there is nothing to note.
    if (src.mask !== 0 || notSrc) this.operation(MatchOp.SRC, basics.encodeAddress(src.addr, src.mask), notSrc);
    if (dst.mask !== 0 || notDst) this.operation(MatchOp.DST, basics.encodeAddress(dst.addr, dst.mask), notDst);
    if (rule.in !== '' || rule.notIn) this.operation(MatchOp.IN, basics.encodeInterface(rule.in), rule.notIn);
    if (rule.out !== '' || rule.notOut) this.operation(MatchOp.OUT, basics.encodeInterface(rule.out), rule.notOut);
    if (rule.proto !== 0) this.operation(MatchOp.PROTOCOL, basics.encodeProtocol(rule.proto), rule.notProto);
    if (rule.fragment || rule.notFragment) this.operation(MatchOp.FRAGMENT, NO_WORDS, rule.notFragment);
    for (let i = 0; i < rule.matches.length; i++) this.use(rule.matches[i]!, i);
    this.addTarget(rule);
    this.words[this.start + R.LENGTH] = this.length - this.start;
    const { keys, connections, payload, marked } = this;
    return keys.length > 0 || connections || payload || marked !== 0
      ? { keys, connections, payload, marked }
      : undefined;
  }

  private addTarget({ target }: Rule): void {
    switch (target.kind) {
      case 'none':
        this.target(TargetOp.NONE, NO_WORDS);
        break;
      case 'verdict':
        if (target.verdict === 'QUEUE') this.target(TargetOp.NFQUEUE, encodeNFQUEUE(0, 1, 0));
        else this.target(VERDICTS[target.verdict], NO_WORDS);
        break;
      case 'jump':
        this.target(target.goto ? TargetOp.GOTO : TargetOp.JUMP, NOWHERE);
        break;
      case 'extension':
        this.use(target.use, -1);
        if (this.targets !== 1)
          throw new RuleError(`target ${target.use.extension.name} compiles to ${this.targets} targets`);
    }
  }

  private use({ extension, data }: Use, index: number): void {
    const reason = extension.cannot?.(data);
    if (reason !== undefined) throw new RuleError(`${extension.kind} ${extension.name}: ${reason}`);
    if (extension.compile === undefined)
      throw new RuleError(`${extension.kind} ${extension.name} is not evaluated by this version of hutter`);
    this.index = index;
    extension.compile(data, this, this);
  }

  test(op: number, args: readonly number[], invert = false): void {
    this.operation(op, args, invert);
    this.note(MATCHES.get(op), args);
  }

  target(op: number, args: readonly number[]): void {
    if (this.targets++ === 0) this.words[this.start + R.TARGET] = this.length - this.start;
    this.operation(op, args, false);
    this.note(TARGETS.get(op), args);
  }

  private note(op: OpRecord | undefined, args: readonly number[]): void {
    const connections = op?.connections ?? false;
    this.connections ||= typeof connections === 'function' ? connections(args) : connections;
    this.payload ||= op?.payload ?? false;
    this.marked |= op?.marked ?? 0;
  }

  private operation(op: number, args: readonly number[], invert: boolean): void {
    const length = Op.ARGS + args.length;
    const at = this.take(length);
    const { words } = this;
    words[at] = invert ? op | INVERT : op;
    words[at + Op.LENGTH] = length;
    for (let i = 0; i < args.length; i++) words[at + Op.ARGS + i] = args[i]!;
  }

  /** Room for so many words more; the offset of the first. */
  private take(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.words.length) {
      const larger = new Int32Array(Math.max(this.length, this.words.length * 2));
      larger.set(this.words);
      this.words = larger;
    }
    return at;
  }

  private needKey(key: string): void {
    if (this.keys === NO_KEYS) this.keys = [];
    this.keys.push(key);
    if (this.regions.find(key) === undefined) this.made.push(key);
  }

  // What records take out of their context by name.

  readonly region: CompileContext['region'] = (key, size, init) => {
    this.needKey(key);
    return this.regions.region(key, size, init);
  };
  readonly setType = (name: string): SetType | undefined => {
    const { sets, fail } = this;
    return sets === undefined ? fail(NO_KERNEL) : sets.typeOf(name);
  };
  readonly regionWords = (number: number): Int32Array => this.regions.get(number);
  readonly slot: CompileContext['slot'] = (size, init) => {
    const key = this.own(`${this.keys.length}`);
    this.needKey(key);
    return this.regions.slot(key, size, init);
  };
  readonly own = (key: string): string => `${this.ruleId}/${this.index}/${key}`;
  readonly fail = (why: string): never => {
    const { matches, target } = this.rule;
    const use = this.index >= 0 ? matches[this.index] : target.kind === 'extension' ? target.use : undefined;
    throw new RuleError(`${use?.extension.kind ?? 'rule'} ${use?.extension.name ?? ''}: ${why}`);
  };
}

const NO_KERNEL = "the sets of ipset(8) are the kernel's, which only a running router asks";
const NO_KEYS: string[] = [];
const NO_WORDS: readonly number[] = [];
const NOWHERE: readonly number[] = [0];
const VERDICTS = { ACCEPT: TargetOp.ACCEPT, DROP: TargetOp.DROP, RETURN: TargetOp.RETURN } as const;
