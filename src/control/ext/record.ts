/**
 * The extension record: everything the control plane knows about one match or target, in one place. Parser, printer,
 * checker, --help, the compatibility table, the compiler and the coverage test all read it.
 *
 * One file an extension, `ext/NAME.ts` (lower case: a match and a target of one name, mark and MARK, share a file, since
 * not every file system tells them apart), exporting records made by `defineMatch` and `defineTarget`, and a line in
 * registry.ts. A record has
 *
 *   names      name, alias records (`realName`: `state` is a `conntrack` that prints as `state`)
 *   language   options (names, argument type, negation, exclusions, requirements), init, finalCheck, save, print, help
 *   legality   tables, hooks, protocols, check: what the kernel verifies when the table is swapped
 *   meaning    compile (emits words for the data plane), or `cannot` with the reason why hutter can't evaluate it
 *
 * The data D of a use mirrors the kernel's info struct as a plain object (numbers, strings, booleans, arrays; no class,
 * no undefined), since -D and -C compare data deeply, as the tool compares bytes. int32 for addresses and marks, host
 * order. It is built by `init`, filled by the options' `set` in the order of the command line, and frozen in the model.
 *
 * Texts are the tool's: `save` and `print` return what the tool's functions print, beginning with a blank
 * (` --dport 22`), without ` -m NAME`. Error texts of guided options come from the framework; `problem(text)` throws one
 * of the extension's own. A minimal example is comment.ts; own parsing is in tcp.ts; NAT shares code in nat.ts.
 */
import type { SetType } from '../../dataplane/io/ipset.js';
import type { HookName, TableName } from '../../dataplane/names.js';
import type { Network } from '../text/address.js';
import type { Errno } from '../text/problem.js';
import type { ArgType } from './args.js';

/** The part of a rule that extensions may look at, as far as it has been read when they are asked. */
export interface RuleHead {
  /** Protocol number of -p, 0 = all. */
  readonly proto: number;
  /** `! -p`. */
  readonly notProto: boolean;
  /** Present once the rule is whole (check, compile, print), absent while options are read. */
  readonly src?: Network;
  readonly dst?: Network;
  readonly notSrc?: boolean;
  readonly notDst?: boolean;
  readonly matches?: readonly Use[];
}

/** Names from outside. Both throw `Unresolved` while an answer is awaited; the command is then run again. */
export interface Names {
  /** Addresses of a host name, in the resolver's order; or why there is none, as gai_strerror(3) says it. */
  host(name: string): readonly number[] | string;
  /** Host name of an address, for listing without -n. */
  hostName(addr: number): string | undefined;
  /** Why a rule can't be about the set of this name, in the tool's words; undefined if it can, or where nobody knows. */
  setProblem?(name: string): string | undefined;
}

/** One option being read. */
export interface OptionCall<D> {
  /** Argument as given; '' for options that take none. */
  readonly arg: string;
  /** `!` stood before the option (or, the old way, before its argument). */
  readonly invert: boolean;
  /** The option's name as its table has it (abbreviations are resolved), without dashes. */
  readonly option: string;
  /** The extension's name as messages say it. */
  readonly extension: string;
  readonly data: D;
  readonly rule: RuleHead;
  readonly names: Names;
  /** Ids of the extension's options given so far, this one not included. */
  readonly seen: Seen;
  /** Takes the next word of the command line as a second argument; undefined if there is none or it begins with - or !. */
  nextWord(): string | undefined;
  /** Prints a line on stderr without failing. */
  warn(text: string): void;
}

/** Ids of an extension's options. */
export interface Seen {
  has(id: string): boolean;
  readonly size: number;
}

/** One option of an extension. Made by `option`, which ties `set`'s value to `arg`'s type. */
export interface Option<D> {
  /** Names without dashes; the first is the option's id, which `excl`, `also` and `seen` refer to. */
  readonly names: readonly [string, ...string[]];
  /** Absent: the option takes no argument. */
  readonly arg?: ArgType<unknown>;
  readonly invert: boolean;
  /** May be given more than once. */
  readonly multi: boolean;
  readonly mandatory: boolean;
  /** Ids of options it can't be used with. */
  readonly excl: readonly string[];
  /** Ids of options it needs. */
  readonly also: readonly string[];
  set(data: D, value: unknown, call: OptionCall<D>): void;
}

export interface OptionSpec<D, V> {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly arg?: ArgType<V>;
  readonly invert?: boolean;
  readonly multi?: boolean;
  readonly mandatory?: boolean;
  readonly excl?: readonly string[];
  readonly also?: readonly string[];
  set?(data: D, value: V, call: OptionCall<D>): void;
}

/** Makes an option; `set` gets the value that `arg` reads (`true` where there is no argument). */
export function option<D, V = true>(spec: OptionSpec<D, V>): Option<D> {
  const { set } = spec;
  return {
    names: [spec.name, ...(spec.aliases ?? [])],
    ...(spec.arg && { arg: spec.arg as ArgType<unknown> }),
    invert: spec.invert ?? false,
    multi: spec.multi ?? false,
    mandatory: spec.mandatory ?? false,
    excl: spec.excl ?? [],
    also: spec.also ?? [],
    set: (data, value, call) => {
      set?.(data, value as V, call);
    },
  };
}

/** What `save`, `print` and `alias` may ask for. */
export interface PrintContext {
  readonly rule: RuleHead;
  /** -n: numbers instead of names. `save` ignores it: saved text is always numeric. */
  readonly numeric: boolean;
  readonly names: Names;
}

/** Where a rule stands when the kernel's checks are made. */
export interface CheckContext {
  readonly table: TableName;
  /** Bit 1 << Hook for every hook from which the rule can be reached; 0 in a chain that nothing jumps to. */
  readonly hooks: number;
  readonly rule: RuleHead;
}

/** Why the kernel would refuse a use: its errno, and a sentence for people. */
export interface Refusal {
  readonly errno: Errno;
  readonly reason: string;
}

/**
 * Takes what a rule becomes. Words are what the evaluator's `encode…` function made of the arguments; `op` is its number
 * in the program format. A match may emit several tests (all must hold) or none (always true).
 */
export interface Emitter {
  test(op: number, words: readonly number[], invert?: boolean): void;
  target(op: number, words: readonly number[]): void;
}

/** What `compile` may ask for. */
export interface CompileContext {
  readonly table: TableName;
  readonly rule: RuleHead;
  /** Identity of the rule: survives swaps that leave the rule alone. */
  readonly ruleId: number;
  /** Position of this use among the rule's matches (targets: −1): part of the key of a rule's own state. */
  readonly index: number;
  /** Kernel ticks a second: what the kernel counts in jiffies, the data plane does, too. */
  readonly hz: number;
  /**
   * Number of the state region with this key; made zeroed with so many words, and filled by `init`, if the running ruleset
   * has none or a smaller one. Uses with one key share one region. `own` prefixes the rule's identity and index.
   */
  region(key: string, words: number, init: (region: Int32Array, replaced?: Int32Array) => void): number;
  /** That region's words, to see whether those who share it agree. */
  regionWords(region: number): Int32Array;
  readonly own: (key: string) => string;
  /** The type of one of the kernel's sets; undefined: there is none of this name. Refuses the rule where no kernel is asked. */
  setType(name: string): SetType | undefined;
  /** A few words of this use's own in a region shared with others; made zeroed and filled by `init` on first sight. */
  slot(
    words: number,
    init: (region: Int32Array, offset: number) => void,
  ): { readonly region: number; readonly offset: number };
  /** Refuses the rule: the kernel would have, or the data plane can't. The reason follows the extension's name. */
  fail(reason: string): never;
}

export interface ExtensionSpec<D> {
  /** As after -m or -j, at most 28 bytes. */
  readonly name: string;
  /** The record whose data, `save`, `print` and `compile` uses of this name get (`state` → `conntrack`). */
  readonly realName?: string;
  /** With `realName`: say "Notice: the X match is converted into Y match …" (the tool's older conversions do). */
  readonly noticeConversion?: boolean;
  /** Revision the tool picks on current kernels; shown in the compatibility table. */
  readonly revision?: number;
  init(): D;
  readonly options: readonly Option<D>[];
  /**
   * Options are read by the extension alone, as extensions from before the guided parser do: the framework then makes
   * none of the checks of repetition, negation, exclusion and requirement; `set` does, with its own texts.
   */
  readonly plain?: boolean;
  /** After the last option, before the framework's own check of mandatory, excl and also. */
  finalCheck?(data: D, seen: Seen, call: { warn(text: string): void; rule: RuleHead }): void;
  /** Canonical text. Absent: the extension prints nothing of its own. */
  save?(data: D, context: PrintContext): string;
  /** Text of -L. Absent: nothing (targets) or `NAME ` (matches). */
  print?(data: D, context: PrintContext): string;
  /** Name to save under, where it depends on the data. */
  alias?(data: D): string;
  /** Text of -h, newline at the end. Absent: "NAME does not take any options". */
  readonly help?: string;
  /** Tables in which the kernel has it; absent: all. */
  readonly tables?: readonly TableName[];
  /** Hooks at which the kernel has it; absent: all. */
  readonly hooks?: readonly HookName[];
  /** The protocol the rule must name (not negated); absent: any. */
  readonly proto?: number;
  /** The kernel's further checks (checkentry). */
  check?(data: D, context: CheckContext): Refusal | undefined;
  /** Equality for -D and -C where deep equality of the data isn't it. */
  same?(a: D, b: D): boolean;
  /** Turns a use into program words. Absent while its evaluator isn't there; the compiler then refuses it by name. */
  compile?(data: D, emit: Emitter, context: CompileContext): void;
  /**
   * Why hutter can't evaluate it ("needs what a diverted packet does not carry"), or can't with these arguments. `up`,
   * iptables and iptables-restore refuse the use by name with this reason; `check --save` prints it canonically and
   * warns.
   */
  cannot?(data: D): string | undefined;
  /** What hutter leaves undone of it, nothing of which lets a packet pass: the rule is taken, and this is said on stderr. */
  lacks?(data: D): string | undefined;
  /** What it does to a packet that would matter to the kernel if it routed it anew, or asks of its route; absent: nothing. */
  late?(data: D): Late;
}

/** See dataplane/program/late.ts. */
export interface Late {
  /** Bits of the mark that change. */
  readonly marks?: number;
  readonly tos?: boolean;
  /** The traffic control class. */
  readonly class?: boolean;
  /** Asks for the IPsec policy of the way out. */
  readonly policy?: boolean;
  readonly ttl?: { readonly set: number } | { readonly up: number } | { readonly down: number };
}

/**
 * Data types differ from record to record; registry and model hold them with the type forgotten. The members are
 * methods, not function properties, so that TypeScript lets them.
 */
export interface Extension<D = unknown> extends ExtensionSpec<D> {
  readonly kind: 'match' | 'target';
}

export const defineMatch = <D>(spec: ExtensionSpec<D>): Extension<D> => ({ ...spec, kind: 'match' });
export const defineTarget = <D>(spec: ExtensionSpec<D>): Extension<D> => ({ ...spec, kind: 'target' });

/** One use of an extension in a rule. `data` is of the record's own D. */
export interface Use {
  readonly extension: Extension;
  readonly data: unknown;
}
