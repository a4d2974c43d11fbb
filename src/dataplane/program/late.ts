/**
 * What rules may do to a packet that is routed already, and whether it matters: the kernel routes what comes back from the
 * queue, and would look at it. Where it matters packets cross twice (pipeline.ts). The compiler writes the header's words
 * (control/compile/late.ts); how routes are chosen is told by the main thread (shared.ts).
 */
import { Header, ProgramFlag } from './format.js';

/** Bits of Header.LATE and LATE_OWN. */
export const enum LateFlag {
  /** A TOS or DSCP target. */
  TOS = 1 << 0,
  /** CLASSIFY: the kernel gives forwarded packets a priority of its own before FORWARD. */
  CLASS = 1 << 1,
  /** -m policy --dir out: where a packet goes, and whether by IPsec, the kernel tells once it has routed it. */
  POLICY = 1 << 2,
}

/** What routes are chosen by, beside the destination. */
export const enum RoutedBy {
  SOURCE = 1 << 0,
  TOS = 1 << 1,
  /** Protocol or ports. */
  TRANSPORT = 1 << 2,
  /** Several next hops: by a hash, of what an ICMP error quotes, for one. */
  HASH = 1 << 3,
  /** A rule of any kind is there: answers are kept by protocol and ports, too. */
  RULES = 1 << 4,
}

/** Whether packets must cross twice. */
export const enum Twice {
  NEVER = 0,
  /** It depends on the packet. */
  SOME = 1,
  ALL = 2,
}

/** What rules leave a packet's TTL between 1 and 254 for, when it enters FORWARD: all that can. */
export const TTL_MIN = 1;
export const TTL_MAX = 254;

/** Of forwarded packets. `routedBy`: RoutedBy bits; `marks`: bits of the mark that routing rules look at. */
export function forwardedTwice(program: Int32Array, routedBy: number, marks: number): Twice {
  const late = program[Header.LATE]!;
  const min = program[Header.LATE_TTL_MIN]!;
  const max = program[Header.LATE_TTL_MAX]!;
  if ((late & (LateFlag.CLASS | LateFlag.POLICY)) !== 0 || min > max) return Twice.ALL;
  const turned = turns(program, late, program[Header.LATE_MARKS]!, routedBy, marks);
  return turned === Twice.NEVER && (min > TTL_MIN || max < TTL_MAX) ? Twice.SOME : turned;
}

/** Of the router's own packets. */
export const ownTwice = (program: Int32Array, routedBy: number, marks: number): Twice =>
  turns(program, program[Header.LATE_OWN]!, program[Header.LATE_OWN_MARKS]!, routedBy, marks);

/** Whether some packets must cross twice, so that there has to be a diversion for it. */
export function crossesTwice(program: Int32Array, routedBy: number, marks: number): boolean {
  const translates = (program[Header.FLAGS]! & ProgramFlag.NAT) !== 0;
  const by = translates ? routedBy : routedBy & ~(RoutedBy.SOURCE | RoutedBy.TRANSPORT);
  return forwardedTwice(program, by, marks) !== Twice.NEVER || ownTwice(program, by, marks) !== Twice.NEVER;
}

function turns(program: Int32Array, late: number, lateMarks: number, routedBy: number, marks: number): Twice {
  if ((lateMarks & marks) !== 0) return Twice.ALL;
  if ((late & LateFlag.TOS) !== 0 && (routedBy & RoutedBy.TOS) !== 0) return Twice.ALL;
  if ((routedBy & RoutedBy.HASH) !== 0) return Twice.SOME;
  // NAT gives packets another source, also of connections that were there before its rules went.
  const translates = (program[Header.FLAGS]! & ProgramFlag.CONNECTIONS) !== 0;
  return translates && (routedBy & (RoutedBy.SOURCE | RoutedBy.TRANSPORT)) !== 0 ? Twice.SOME : Twice.NEVER;
}
