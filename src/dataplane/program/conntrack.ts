/**
 * -m conntrack (net/netfilter/xt_conntrack.c, revision 3). Arguments:
 *
 *     FLAGS INVERT   CtTest bits: what is looked at, what is negated (DIRECTION negated asks for REPLY)
 *     STATE          CtState bits    STATUS   Status bits    PROTOCOL
 *     EXPIRES        first and last second that the connection may have left
 *     SIDES          for origsrc, origdst, replsrc, repldst: ADDRESS MASK PORTS (first << 16 | last)
 *
 * A packet without a connection passes only if its state was asked for and suits, whatever else is asked.
 */
import { Status } from '../conntrack/states.js';
import { Ct } from '../conntrack/layout.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { CtState, Dir } from '../names.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { addressText, argument, maskText, rangeText, type Op } from './op.js';
import { stateNames, stateOf } from './state.js';

/** XT_CONNTRACK_* (include/uapi/linux/netfilter/xt_conntrack.h) */
export const enum CtTest {
  STATE = 1 << 0,
  PROTO = 1 << 1,
  ORIGSRC = 1 << 2,
  ORIGDST = 1 << 3,
  REPLSRC = 1 << 4,
  REPLDST = 1 << 5,
  STATUS = 1 << 6,
  EXPIRES = 1 << 7,
  ORIGSRC_PORT = 1 << 8,
  ORIGDST_PORT = 1 << 9,
  REPLSRC_PORT = 1 << 10,
  REPLDST_PORT = 1 << 11,
  DIRECTION = 1 << 12,
}
const ADDRESSES = CtTest.ORIGSRC | CtTest.ORIGDST | CtTest.REPLSRC | CtTest.REPLDST;
const PORTS = CtTest.ORIGSRC_PORT | CtTest.ORIGDST_PORT | CtTest.REPLSRC_PORT | CtTest.REPLDST_PORT;

const enum Arg {
  FLAGS = 0,
  INVERT = 1,
  STATE = 2,
  STATUS = 3,
  PROTOCOL = 4,
  EXPIRES = 5,
  SIDES = 7,
  WORDS = 19,
}

const SIDE_WORDS = 3;

export interface SideTest {
  readonly address?: number;
  readonly mask?: number;
  readonly minPort?: number;
  readonly maxPort?: number;
}
export interface ConntrackTest {
  /** CtTest bits. */
  readonly flags: number;
  readonly invert: number;
  readonly state?: number;
  readonly status?: number;
  readonly protocol?: number;
  /** Seconds. */
  readonly expires?: readonly [number, number];
  /** origsrc, origdst, replsrc, repldst */
  readonly sides?: readonly [SideTest, SideTest, SideTest, SideTest];
}

export const encodeConntrack = (test: ConntrackTest): number[] => [
  test.flags,
  test.invert,
  test.state ?? 0,
  test.status ?? 0,
  test.protocol ?? 0,
  (test.expires?.[0] ?? 0) | 0,
  (test.expires?.[1] ?? 0) | 0,
  ...[0, 1, 2, 3].flatMap((i) => {
    const side = test.sides?.[i];
    return [side?.address ?? 0, side?.mask ?? 0, ((side?.minPort ?? 0) << 16) | (side?.maxPort ?? 0)];
  }),
];

export function matchConntrack(context: Context, program: Int32Array, at: number, p: Packet): boolean {
  const flags = program[at + Arg.FLAGS]!;
  const invert = program[at + Arg.INVERT]!;
  const table = context.table;
  const entry = p.ct;
  const status = entry < 0 ? 0 : table.status(entry);
  if ((flags & CtTest.STATE) !== 0) {
    let state = stateOf(p);
    if ((status & Status.SRC_NAT) !== 0) state |= CtState.SNAT;
    if ((status & Status.DST_NAT) !== 0) state |= CtState.DNAT;
    if (((state & program[at + Arg.STATE]!) !== 0) === ((invert & CtTest.STATE) !== 0)) return false;
  }
  if (entry < 0) return (flags & CtTest.STATE) !== 0;
  if ((flags & CtTest.DIRECTION) !== 0 && (p.ctDir === Dir.ORIGINAL) === ((invert & CtTest.DIRECTION) !== 0))
    return false;
  if ((flags & ADDRESSES) !== 0 && !addressesHold(program, at, flags, invert, table, entry)) return false;
  if (
    (flags & CtTest.PROTO) !== 0 &&
    (table.protocol(entry) === program[at + Arg.PROTOCOL]!) === ((invert & CtTest.PROTO) !== 0)
  )
    return false;
  if ((flags & PORTS) !== 0 && !portsHold(program, at, flags, invert, table, entry)) return false;
  if (
    (flags & CtTest.STATUS) !== 0 &&
    ((status & program[at + Arg.STATUS]!) !== 0) === ((invert & CtTest.STATUS) !== 0)
  )
    return false;
  if ((flags & CtTest.EXPIRES) !== 0) {
    const seconds =
      (status & Status.CONFIRMED) === 0
        ? unconfirmedSeconds(context, table.expires(entry))
        : Math.floor(table.expires(entry) / 1000);
    const within = seconds >= program[at + Arg.EXPIRES]! >>> 0 && seconds <= program[at + Arg.EXPIRES + 1]! >>> 0;
    if (within === ((invert & CtTest.EXPIRES) !== 0)) return false;
  }
  return true;
}

/** Jiffies begin at -300 * HZ, so that it shows early where they are taken to begin at 0 (linux/jiffies.h). */
const FIRST_JIFFY_S = -300;

/**
 * Whole seconds that an unconfirmed connection has left by nf_ct_expires(): it takes the `timeout` that the connection will
 * have (milliseconds) for a moment in time.
 */
function unconfirmedSeconds(context: Context, timeout: number): number {
  const { ticks, hz } = context;
  const left = (Math.floor((timeout * hz) / 1000) - (ticks + FIRST_JIFFY_S * hz)) | 0;
  return left <= 0 ? 0 : Math.floor(left / hz);
}

function addressesHold(
  program: Int32Array,
  at: number,
  flags: number,
  invert: number,
  table: ConntrackTable,
  entry: number,
): boolean {
  const words = table.words;
  const e = table.at(entry);
  for (let side = 0; side < 4; side++) {
    const bit = CtTest.ORIGSRC << side;
    if ((flags & bit) === 0) continue;
    const a = at + Arg.SIDES + side * SIDE_WORDS;
    const address = words[e + (side >> 1) * Ct.TUPLE_WORDS + ((side & 1) === 0 ? Ct.SRC : Ct.DST)]!;
    if ((((address ^ program[a]!) & program[a + 1]!) === 0) === ((invert & bit) !== 0)) return false;
  }
  return true;
}

/** "Ports" of ICMP are the identifier and type << 8 | code, as in the kernel's tuples. */
function portsHold(
  program: Int32Array,
  at: number,
  flags: number,
  invert: number,
  table: ConntrackTable,
  entry: number,
): boolean {
  for (let side = 0; side < 4; side++) {
    const bit = CtTest.ORIGSRC_PORT << side;
    if ((flags & bit) === 0) continue;
    const range = program[at + Arg.SIDES + side * SIDE_WORDS + 2]!;
    const ports = table.ports(entry, side >> 1);
    const port = (side & 1) === 0 ? ports >>> 16 : ports & 0xffff;
    if ((port >= range >>> 16 && port <= (range & 0xffff)) === ((invert & bit) !== 0)) return false;
  }
  return true;
}

export const conntrack: Op = {
  name: 'conntrack',
  words: Arg.WORDS,
  connections: true,
  text: (a) => {
    const flags = argument(a, Arg.FLAGS);
    const parts: string[] = [];
    const say = (bit: number, text: string): void => {
      if (flags & bit) parts.push(`${argument(a, Arg.INVERT) & bit ? '! ' : ''}${text}`);
    };
    say(CtTest.STATE, `state ${stateNames(argument(a, Arg.STATE))}`);
    say(CtTest.DIRECTION, 'original');
    say(CtTest.PROTO, `proto ${argument(a, Arg.PROTOCOL)}`);
    ['origsrc', 'origdst', 'replsrc', 'repldst'].forEach((name, side) => {
      const i = Arg.SIDES + side * SIDE_WORDS;
      say(CtTest.ORIGSRC << side, `${name} ${addressText(argument(a, i))}${maskText(argument(a, i + 1))}`);
      const ports = argument(a, i + 2);
      say(CtTest.ORIGSRC_PORT << side, `${name}port ${rangeText(ports >>> 16, ports & 0xffff)}`);
    });
    say(CtTest.STATUS, `status ${argument(a, Arg.STATUS)}`);
    say(CtTest.EXPIRES, `expires ${rangeText(argument(a, Arg.EXPIRES) >>> 0, argument(a, Arg.EXPIRES + 1) >>> 0)}`);
    return parts.join(' ');
  },
};
