/**
 * Proves a program safe to run before its first use, so that run.ts needs no checks: every offset is a chain's beginning,
 * chains, rules and tests fill their spans exactly, operations are known and have the arguments that they read, counters
 * and state lie in range, jumps make no loop where packets come and never open more than the header's DEPTH. Control plane,
 * once a swap; rules that a program proven before had, word for word, aren't read into again.
 */
import { HOOK_COUNT, HOOK_NAMES, TABLE_COUNT, TABLE_NAMES, Verdict } from '../names.js';
import { MATCHES, TARGETS } from './catalog.js';
import {
  Chain,
  CHAIN_WORDS,
  Header,
  HEADER_WORDS,
  INVERT,
  MAGIC,
  Op,
  OP_MASK,
  POLICY_RETURN,
  Rule,
  RULE_WORDS,
  VERSION,
} from './format.js';
import type { Op as OpRecord } from './op.js';
import { TargetOp } from './ops.js';
import { Region, RegionKind } from './regions.js';
import { Tree } from './tree.js';
import { treeFault } from './verify-tree.js';

/** What a program may refer to. */
export interface Limits {
  readonly regions: readonly Int32Array[];
  /** Slots of a worker's counter slab. */
  readonly counters: number;
}

/** What is wrong, and the offset (in words) where. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError';
  constructor(
    readonly offset: number,
    what: string,
  ) {
    super(`program, word ${offset}: ${what}`);
  }
}

/** A program that was found safe. What it proves of rules holds for as long as its words are left alone. */
export interface Proof {
  readonly program: Int32Array;
  readonly regions: readonly Int32Array[];
  /** By counter slot: the offset of the rule that counts there, 0 = none. */
  readonly rules: Int32Array;
}

interface Jump {
  readonly to: number;
  readonly at: number;
  readonly goto: boolean;
  /** No rule before it takes every packet. */
  readonly met: boolean;
}

/**
 * `earlier`: a proof whose program has not been changed since.
 * @throws ProgramError that says where, for the first thing that is wrong.
 */
export function verify(program: Int32Array, limits: Limits, earlier?: Proof): Proof {
  const fail = (offset: number, what: string): never => {
    throw new ProgramError(offset, what);
  };
  if (program.length < HEADER_WORDS) fail(0, `only ${program.length} words`);
  if (program[Header.MAGIC] !== MAGIC) fail(Header.MAGIC, 'not a program');
  if (program[Header.VERSION] !== VERSION) fail(Header.VERSION, `version ${program[Header.VERSION]}, not ${VERSION}`);
  if (program[Header.LENGTH] !== program.length)
    fail(Header.LENGTH, `length ${program[Header.LENGTH]}, but ${program.length} words are there`);
  const counters = program[Header.COUNTERS]!;
  if (counters < 0 || counters > limits.counters)
    fail(Header.COUNTERS, `${counters} counters, but the slab has ${limits.counters}`);
  const regions = program[Header.REGIONS]!;
  if (regions < 0 || regions > limits.regions.length)
    fail(Header.REGIONS, `${regions} regions, but ${limits.regions.length} exist`);
  const known = limits.regions.slice(0, regions);
  const proof: Proof = { program, regions: known, rules: new Int32Array(counters) };
  const trusted =
    earlier !== undefined && earlier.regions.every((r, i) => r === known[i] || !holdsState(r)) ? earlier : NOTHING;

  const before = new Comparison(program, trusted);

  const chains = new Map<number, Jump[]>();
  for (let at = HEADER_WORDS; at < program.length;) {
    if (at + CHAIN_WORDS > program.length) fail(at, 'a chain is cut');
    const end = program[at + Chain.END]!;
    if (end < at + CHAIN_WORDS || end > program.length) fail(at, `a chain ends at ${end}`);
    const next = program[at + Chain.NEXT]!;
    if (next < end || next > program.length) fail(at + Chain.NEXT, `the next chain at ${next}`);
    chains.set(at, verifyChain(proof, at, end, before, fail));
    at = next;
  }

  for (const [at, jumps] of chains)
    for (const jump of jumps) {
      if (!chains.has(jump.to)) fail(jump.at, `jumps to ${jump.to}, where no chain begins`);
      if (program[jump.to + Chain.POLICY] !== POLICY_RETURN) fail(jump.at, `jumps to a built-in chain (from ${at})`);
    }
  const depth = new Map<number, number>();
  let deepest = 0;
  for (let table = 0; table < TABLE_COUNT; table++)
    for (let hook = 0; hook < HOOK_COUNT; hook++) {
      const slot = Header.ENTRY + table * HOOK_COUNT + hook;
      const at = program[slot]!;
      if (at === 0) continue;
      const name = `${TABLE_NAMES[table]} ${HOOK_NAMES[hook]}`;
      if (!chains.has(at)) fail(slot, `${name} begins at ${at}, where no chain begins`);
      if (program[at + Chain.POLICY] === POLICY_RETURN) fail(slot, `${name} is a user's chain`);
      deepest = Math.max(deepest, depthOf(at, chains, depth, fail));
    }
  if (program[Header.DEPTH]! < deepest || program[Header.DEPTH]! > chains.size)
    fail(Header.DEPTH, `depth ${program[Header.DEPTH]}, but jumps nest ${deepest} deep`);
  return proof;
}

/** Whether arguments of rules can have been proven by this region: trees and what stands for none hold no state. */
const holdsState = (region: Int32Array): boolean =>
  region.length > Region.BODY && region[Region.KIND] !== RegionKind.TREE;

const NOTHING: Proof = { program: new Int32Array(0), regions: [], rules: new Int32Array(0) };

/** Words that are compared at once. */
const SPAN = 8192;

/** Finds rules of a program in one that was proven before. Their jumps may lead elsewhere. */
class Comparison {
  private readonly bytes: Buffer;
  private readonly oldBytes: Buffer;
  /** Up to here the words are those that lie `shift` further in the earlier program. */
  private equal = 0;
  private shift = 0;

  constructor(
    private readonly program: Int32Array,
    private readonly earlier: Proof,
  ) {
    this.bytes = bytesOf(program);
    this.oldBytes = bytesOf(earlier.program);
  }

  /** Whether the earlier program had the rule of so many words at `at`, word for word. `end`: its chain's. */
  has(at: number, length: number, end: number): boolean {
    const { program, earlier } = this;
    const counter = program[at + Rule.COUNTER]!;
    const from = counter < earlier.rules.length ? earlier.rules[counter]! : 0;
    if (from === 0) return false;
    if (at + length <= this.equal && from - at === this.shift) return true;
    const old = earlier.program;
    const span = Math.min(SPAN, end - at, old.length - from);
    if (this.bytes.compare(this.oldBytes, from * 4, (from + span) * 4, at * 4, (at + span) * 4) === 0) {
      this.equal = at + span;
      this.shift = from - at;
      if (length <= span) return true;
    }
    for (let i = 0; i < length; i++) if (program[at + i] !== old[from + i]) return false;
    return true;
  }
}

const bytesOf = (words: Int32Array): Buffer => Buffer.from(words.buffer, words.byteOffset, words.byteLength);

/** Targets that end the chain for every packet that comes to them. */
const FINAL: ReadonlySet<number> = new Set([TargetOp.ACCEPT, TargetOp.DROP, TargetOp.RETURN, TargetOp.NFQUEUE]);

type Fail = (offset: number, what: string) => never;

/** The jumps of a chain, which is otherwise proven whole. */
function verifyChain(proof: Proof, chain: number, end: number, earlier: Comparison, fail: Fail): Jump[] {
  const { program } = proof;
  const counters = proof.rules.length;
  const policy = program[chain + Chain.POLICY]!;
  if (policy !== POLICY_RETURN && policy !== Verdict.ACCEPT && policy !== Verdict.DROP) fail(chain, `policy ${policy}`);
  const policyCounter = program[chain + Chain.POLICY_COUNTER]!;
  if (policy !== POLICY_RETURN && (policyCounter < 0 || policyCounter >= counters))
    fail(chain + Chain.POLICY_COUNTER, `counter ${policyCounter} of ${counters}`);
  verifyTree(program, chain, proof.regions, fail);
  const grown = program[chain + Chain.TREE] !== 0;
  // Both lists of the index ascend, as the rules do.
  const besides = program[chain + Chain.NEW]!;
  const next = program[chain + Chain.NEXT]!;
  let inTree = end;
  let beside = besides;
  const jumps: Jump[] = [];
  let met = true;
  let rules = 0;
  for (let at = chain + CHAIN_WORDS; at < end; rules++) {
    const length = at + RULE_WORDS <= end ? program[at + Rule.LENGTH]! : 0;
    if (length < RULE_WORDS + Op.ARGS || length > end - at) fail(at, 'a rule is cut');
    const counter = program[at + Rule.COUNTER]!;
    if (counter < 0 || counter >= counters) fail(at + Rule.COUNTER, `counter ${counter} of ${counters}`);
    if (!earlier.has(at, length, end)) verifyRule(proof, at, length, fail);
    proof.rules[counter] = at;
    if (grown) {
      while (inTree < besides && program[inTree] === 0) inTree++;
      if (inTree < besides && program[inTree] === at) inTree++;
      else if (beside < next && program[beside] === at) beside++;
      else fail(at, 'a rule that the index does not have');
    }
    const target = at + program[at + Rule.TARGET]!;
    const op = program[target]!;
    if (op === TargetOp.JUMP || op === TargetOp.GOTO)
      jumps.push({ to: program[target + Op.ARGS]!, at: target, goto: op === TargetOp.GOTO, met });
    else if (target === at + RULE_WORDS && FINAL.has(op)) met = false;
    at += length;
  }
  if (rules !== program[chain + Chain.RULES]) fail(chain + Chain.RULES, `${rules} rules, not as many as it says`);
  while (inTree < besides && program[inTree] === 0) inTree++;
  if (inTree < besides) fail(inTree, `a rule at ${program[inTree]}`);
  if (beside < next) fail(beside, `a rule at ${program[beside]}`);
  return jumps;
}

/** A rule of so many words, whose counter is known to be one. */
function verifyRule({ program, regions }: Proof, at: number, length: number, fail: Fail): void {
  const target = at + program[at + Rule.TARGET]!;
  if (target < at + RULE_WORDS || target + Op.ARGS > at + length)
    fail(at + Rule.TARGET, 'its target is outside the rule');
  for (let test = at + RULE_WORDS; test < target; test += program[test + Op.LENGTH]!) {
    const word = program[test]!;
    const record = MATCHES.get(word & OP_MASK) ?? fail(test, `unknown match ${word & OP_MASK}`);
    if ((word & ~OP_MASK & ~INVERT) !== 0 || ((word & INVERT) !== 0 && !record.invertible))
      fail(test, `${record.name}: bits ${word & ~OP_MASK}`);
    verifyArguments(program, test, target, record, regions, fail);
  }
  const record = TARGETS.get(program[target]!) ?? fail(target, `unknown target ${program[target]}`);
  verifyArguments(program, target, at + length, record, regions, fail);
  if (target + program[target + Op.LENGTH]! !== at + length) fail(target, `${record.name} is not the rule's end`);
}

/** The tree of a chain, if it has one, and where its index lies: each rule is found by one of its two lists. */
function verifyTree(program: Int32Array, chain: number, regions: readonly Int32Array[], fail: Fail): void {
  const tree = program[chain + Chain.TREE]!;
  const begin = program[chain + Chain.END]!;
  const beside = program[chain + Chain.NEW]!;
  const end = program[chain + Chain.NEXT]!;
  if (beside < begin || beside > end) fail(chain + Chain.NEW, `rules beside the tree at ${beside}`);
  if (tree === 0) {
    if (end > begin) fail(chain + Chain.NEXT, 'an index, but no tree');
    return;
  }
  const words = regions[tree - 1] ?? fail(chain + Chain.TREE, `tree ${tree - 1} of ${regions.length} regions`);
  const fault = treeFault(words);
  if (fault !== undefined) fail(chain + Chain.TREE, `tree ${tree - 1}: ${fault}`);
  if (words[Tree.RULES]! > beside - begin)
    fail(chain + Chain.TREE, `tree ${tree - 1} knows ${words[Tree.RULES]} rules, the index ${beside - begin}`);
}

function verifyArguments(
  program: Int32Array,
  at: number,
  end: number,
  record: OpRecord,
  regions: readonly Int32Array[],
  fail: Fail,
): void {
  const length = at + Op.ARGS <= end ? program[at + Op.LENGTH]! : 0;
  if (length < Op.ARGS || length > end - at) fail(at, `${record.name} is cut`);
  const words = length - Op.ARGS;
  if (record.variable ? words < record.words : words !== record.words)
    fail(at, `${record.name}: ${words} arguments instead of ${record.words}`);
  const what = record.check?.({ program, at: at + Op.ARGS, words, regions });
  if (what !== undefined) fail(at, `${record.name}: ${what}`);
}

/** Jumps that can be open at once from the chain at `start`; a goto opens none. Without recursion: chains can be deep. */
function depthOf(start: number, chains: ReadonlyMap<number, Jump[]>, depth: Map<number, number>, fail: Fail): number {
  const OPEN = -1;
  const path: { chain: number; next: number; deepest: number }[] = [];
  const enter = (chain: number): void => {
    depth.set(chain, OPEN);
    path.push({ chain, next: 0, deepest: 0 });
  };
  if (!depth.has(start)) enter(start);
  while (path.length > 0) {
    const here = path[path.length - 1]!;
    const jump = chains.get(here.chain)![here.next];
    if (jump?.met !== true) {
      depth.set(here.chain, here.deepest);
      path.pop();
      continue;
    }
    const below = depth.get(jump.to);
    if (below === OPEN) fail(jump.at, `a loop: back to the chain at ${jump.to}`);
    if (below === undefined) {
      enter(jump.to);
      continue;
    }
    here.deepest = Math.max(here.deepest, below + (jump.goto ? 0 : 1));
    here.next++;
  }
  return depth.get(start)!;
}
