/**
 * One rule becomes words: its tests in the order in which the kernel makes them (addresses, interfaces, protocol,
 * fragment, then the matches as given) and its target. What a match or target means is its record's `compile`.
 */
import type { TableName } from '../../dataplane/names.js';
import * as basics from '../../dataplane/program/basics.js';
import { MATCHES, TARGETS } from '../../dataplane/program/catalog.js';
import { INVERT, Op, RULE_WORDS } from '../../dataplane/program/format.js';
import { encodeNFQUEUE } from '../../dataplane/program/nfqueue.js';
import type { Op as OpRecord } from '../../dataplane/program/op.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import type { CompileContext, Emitter, Use } from '../ext/record.js';
import type { Rule } from '../model.js';
import type { RegionStore } from './regions.js';

/** A rule in words, with the places that are filled in when the whole is put together. */
export interface Lowered {
  readonly words: Int32Array;
  /** The chain its target jumps to; the offset is that of the target's argument. */
  readonly jump?: { readonly chain: string; readonly offset: number };
  /** State it uses. */
  readonly keys: readonly string[];
  /** Some operation looks at the packet's connection. */
  readonly connections: boolean;
  /** Hooks it was lowered for. */
  readonly hooks: number;
}

/** Why a rule can't be compiled. */
export class RuleError extends Error {
  override readonly name = 'RuleError';
}

export interface LowerOptions {
  readonly table: TableName;
  readonly hooks: number;
  readonly counter: number;
  readonly regions: RegionStore;
  readonly hz: number;
}

/** @throws RuleError naming the match or target that the data plane can't carry out. */
export function lower(rule: Rule, options: LowerOptions): Lowered {
  const words: number[] = [0, options.counter, 0];
  const keys: string[] = [];
  let connections = false;
  let targets = 0;

  const emit: Emitter = {
    test(op, args, invert = false) {
      words.push(op | (invert ? INVERT : 0), Op.ARGS + args.length, ...args);
      connections ||= needsConnections(MATCHES.get(op), args);
    },
    target(op, args) {
      if (targets++ === 0) words[2] = words.length;
      words.push(op, Op.ARGS + args.length, ...args);
      connections ||= needsConnections(TARGETS.get(op), args);
    },
  };

  const anywhere = (mask: number, not: boolean): boolean => mask === 0 && !not;
  if (!anywhere(rule.src.mask, rule.notSrc))
    emit.test(MatchOp.SRC, basics.encodeAddress(rule.src.addr, rule.src.mask), rule.notSrc);
  if (!anywhere(rule.dst.mask, rule.notDst))
    emit.test(MatchOp.DST, basics.encodeAddress(rule.dst.addr, rule.dst.mask), rule.notDst);
  if (rule.in !== '' || rule.notIn) emit.test(MatchOp.IN, basics.encodeInterface(rule.in), rule.notIn);
  if (rule.out !== '' || rule.notOut) emit.test(MatchOp.OUT, basics.encodeInterface(rule.out), rule.notOut);
  if (rule.proto !== 0) emit.test(MatchOp.PROTOCOL, basics.encodeProtocol(rule.proto), rule.notProto);
  if (rule.fragment || rule.notFragment) emit.test(MatchOp.FRAGMENT, [], rule.notFragment);

  rule.matches.forEach((use, index) => compileUse(use, index));
  let jump: Lowered['jump'];
  const { target } = rule;
  switch (target.kind) {
    case 'none':
      emit.target(TargetOp.NONE, []);
      break;
    case 'verdict':
      if (target.verdict === 'QUEUE') emit.target(TargetOp.NFQUEUE, encodeNFQUEUE(0, 1, 0));
      else emit.target(VERDICTS[target.verdict], []);
      break;
    case 'jump':
      emit.target(target.goto ? TargetOp.GOTO : TargetOp.JUMP, [0]);
      jump = { chain: target.chain, offset: words.length - 1 };
      break;
    case 'extension':
      compileUse(target.use, -1);
      if (targets !== 1) throw new RuleError(`target ${target.use.extension.name} compiles to ${targets} targets`);
  }
  words[0] = words.length;
  return { words: Int32Array.from(words), ...(jump && { jump }), keys, connections, hooks: options.hooks };

  function compileUse(use: Use, index: number): void {
    const { extension } = use;
    const what = `${extension.kind} ${extension.name}`;
    const reason = extension.cannot?.(use.data);
    if (reason !== undefined) throw new RuleError(`${what}: ${reason}`);
    if (extension.compile === undefined) throw new RuleError(`${what} is not evaluated by this version of hutter`);
    const context: CompileContext = {
      table: options.table,
      hooks: options.hooks,
      rule,
      ruleId: rule.id,
      index,
      hz: options.hz,
      region(key, size, init) {
        keys.push(key);
        return options.regions.region(key, size, init);
      },
      slot(size, init) {
        const key = `${rule.id}/${index}/${keys.length}`;
        keys.push(key);
        return options.regions.slot(key, size, init);
      },
      own: (key) => `${rule.id}/${index}/${key}`,
      fail(why) {
        throw new RuleError(`${what}: ${why}`);
      },
    };
    extension.compile(use.data, emit, context);
  }
}

const VERDICTS = { ACCEPT: TargetOp.ACCEPT, DROP: TargetOp.DROP, RETURN: TargetOp.RETURN } as const;

function needsConnections(op: OpRecord | undefined, args: readonly number[]): boolean {
  const needs = op?.connections ?? false;
  return typeof needs === 'function' ? needs(args) : needs;
}

/** Words that a rule has at least: -j ACCEPT alone. */
export const MIN_RULE = RULE_WORDS + Op.ARGS;
