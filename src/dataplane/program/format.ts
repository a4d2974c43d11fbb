/**
 * The program: what the compiler emits and the workers run. One flat Int32Array in shared memory, built whole, verified
 * (verify.ts) before its first use, never changed afterwards, dumpable as text (dump.ts). Offsets are in words from the
 * program's start; 0 stands for "none".
 *
 *     header   MAGIC VERSION LENGTH FLAGS COUNTERS REGIONS DEPTH, six words for late.ts,  then ENTRY[table * HOOK_COUNT + hook]: offset of a chain
 *     chain    POLICY POLICY_COUNTER RULES END NEXT TREE NEW  then its rules, one behind the other, then its index
 *     rule     LENGTH COUNTER TARGET  then its tests, one behind the other; its target last
 *     test     OP | INVERT  LENGTH  arguments      (matches; -s -d -p -i -o -f are tests like any other)
 *     target   OP           LENGTH  arguments
 *
 *     index    where the rules of the chain's tree are now, in the order in which it knows them (0 = gone); then, from NEW,
 *              the rules that it doesn't know, ascending. Offsets like all others. Empty without a tree.
 *
 * LENGTH counts the words of the whole thing, itself included. Each match and target says in its own file of this folder
 * what its arguments mean. A rule's COUNTER is its slot in every worker's counter slab. State that outlives a packet
 * (limit's credit, recent's lists) lies in regions: Int32Arrays in shared memory that arguments name by number.
 */
import { HOOK_COUNT, TABLE_COUNT, type Hook, type Table } from '../names.js';

/** "HTR1" */
export const MAGIC = 0x48545231;
export const VERSION = 4;

export const enum Header {
  MAGIC = 0,
  VERSION = 1,
  LENGTH = 2,
  FLAGS = 3,
  /** Counter slots the program uses: every COUNTER is below. */
  COUNTERS = 4,
  /** State regions the program uses: every region argument is below. */
  REGIONS = 5,
  /** The most jumps that can be open at once: no loops, so it is bounded. */
  DEPTH = 6,
  /** What rules do to packets that are routed already (late.ts): LateFlag bits in FORWARD and POSTROUTING. */
  LATE = 7,
  /** Bits of the mark that they may change there. */
  LATE_MARKS = 8,
  /** Behind the last time that a packet of the router's own is routed: in filter OUTPUT and POSTROUTING. */
  LATE_OWN = 9,
  LATE_OWN_MARKS = 10,
  /** A packet that enters FORWARD with a TTL within these leaves with one from 1 to 254. */
  LATE_TTL_MIN = 11,
  LATE_TTL_MAX = 12,
  ENTRY = 13,
}
export const HEADER_WORDS = Header.ENTRY + TABLE_COUNT * HOOK_COUNT;

export const enum ProgramFlag {
  /** Some rule needs connections: track them, and have the kernel put fragments together. */
  CONNECTIONS = 1 << 0,
  /** The nat table holds at least one rule. */
  NAT = 1 << 1,
  /** Packets are tracked, changed, quoted or read behind their headers: the device must give them whole. */
  PAYLOAD = 1 << 2,
  /** Some operation looks at how packets were addressed on their link. */
  PACKET_TYPE = 1 << 3,
  /** Some operation looks at IPsec policies. */
  POLICY = 1 << 4,
}

/** Of these, what the kernel must mark packets for before they are diverted. */
export const MARKED_FLAGS = [ProgramFlag.PACKET_TYPE, ProgramFlag.POLICY] as const;

export const enum Chain {
  /** Verdict of a built-in chain's policy; POLICY_RETURN for a user's chain. */
  POLICY = 0,
  POLICY_COUNTER = 1,
  RULES = 2,
  /** Offset just past the last rule. */
  END = 3,
  /** Offset just past its index: the next chain, or the program's end. */
  NEXT = 4,
  /** Number of the region with its decision tree (tree.ts) plus one; 0: its rules are walked in order. */
  TREE = 5,
  /** Offset of the part of its index that lists rules beside the tree. */
  NEW = 6,
}
export const CHAIN_WORDS = 7;
export const POLICY_RETURN = -1;

export const enum Rule {
  LENGTH = 0,
  COUNTER = 1,
  /** Offset of the target from the rule's start. */
  TARGET = 2,
}
export const RULE_WORDS = 3;

/**
 * In a test's first word, beside the operation: the test holds when the operation does not. Operations with several
 * options to negate, or that can find a packet impossible, keep their negations in their arguments instead.
 */
export const INVERT = 1 << 16;
export const OP_MASK = 0xffff;

/** First words of a test or target. */
export const enum Op {
  OP = 0,
  LENGTH = 1,
  ARGS = 2,
}

/** Where a table's chain for a hook begins; 0 = the table has none there. */
export function entry(program: Int32Array, table: Table, hook: Hook): number {
  return program[Header.ENTRY + table * HOOK_COUNT + hook]!;
}
