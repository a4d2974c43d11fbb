/**
 * The way out of a worker for what LOG, NFLOG and TRACE tell: a record of what will be said goes into the worker's ring; the main
 * thread makes a line or a message of it (control/log.ts, control/nflog.ts). A record that finds no room is lost and counted, as the kernel's
 * own are under load.
 */
import { InFlag } from './io/batch.js';
import { showTtl } from './nat/rewrite.js';
import type { Packet } from './packet.js';
import type { Context, LogSink } from './program/context.js';
import { CHAIN_WORDS, Chain, Rule } from './program/format.js';
import { LogArg, LogOption } from './program/log.js';
import { NflogArg } from './program/nflog.js';
import { LOG_SNAP, LogKind, LogRecord, type Ring, Stat } from './shared.js';

/** NF_LOG_DEFAULT_MASK (include/net/netfilter/nf_log.h), with which the kernel traces. */
const TRACE_OPTIONS = LogOption.TCP_SEQUENCE | LogOption.TCP_OPTIONS | LogOption.IP_OPTIONS | LogOption.UID;
const NO_WORDS = new Int32Array(0);

export class LogWriter implements LogSink {
  constructor(
    private readonly ring: Ring,
    private readonly stats: Float64Array,
  ) {}

  log(p: Packet, context: Context, program: Int32Array, at: number): void {
    const options = program[at + LogArg.OPTIONS]!;
    const length = program[at + LogArg.LENGTH]!;
    this.write(
      LogKind.LOG,
      program[at + LogArg.LEVEL]!,
      options,
      p,
      context,
      LOG_SNAP,
      program,
      at + LogArg.PREFIX,
      length,
    );
  }

  nflog(p: Packet, context: Context, program: Int32Array, at: number): void {
    const size = program[at + NflogArg.SIZE]!;
    const length = program[at + NflogArg.LENGTH]!;
    const snap = size < 0 ? p.length : size;
    this.write(
      LogKind.NFLOG,
      program[at + NflogArg.GROUP]!,
      0,
      p,
      context,
      snap,
      program,
      at + NflogArg.PREFIX,
      length,
    );
  }

  trace(p: Packet, context: Context, counter: number): void {
    this.write(LogKind.TRACE, counter, TRACE_OPTIONS, p, context, LOG_SNAP, NO_WORDS, 0, 0);
  }

  /** A chain is known by its last rule; the end of one without rules isn't told. */
  traceReturn(p: Packet, context: Context, program: Int32Array, chain: number): void {
    const end = program[chain + Chain.END]!;
    let last = -1;
    for (let at = chain + CHAIN_WORDS; at < end; at += program[at + Rule.LENGTH]!) last = at;
    if (last < 0) return;
    const counter = program[last + Rule.COUNTER]!;
    this.write(LogKind.TRACE_RETURN, counter, TRACE_OPTIONS, p, context, LOG_SNAP, NO_WORDS, 0, 0);
  }

  /** `most` bytes of the packet; the prefix is `length` bytes packed from `program[prefix]`. */
  private write(
    kind: LogKind,
    number: number,
    options: number,
    p: Packet,
    context: Context,
    most: number,
    program: Int32Array,
    prefix: number,
    length: number,
  ): void {
    const ring = this.ring;
    const snap = Math.min(p.end - p.start, most);
    if (!ring.begin(LogRecord.WORDS * 4 + length + snap)) {
      this.stats[Stat.LOG_LOST]! += 1;
      return;
    }
    // The words of LogRecord, in order.
    ring.putWord(kind);
    ring.putWord(number);
    ring.putWord(options);
    ring.putWord(context.hook);
    ring.putWord(context.in);
    ring.putWord(context.out);
    ring.putWord(p.mark);
    ring.putWord(p.physindev);
    ring.putWord(p.physoutdev);
    ring.putWord((p.flags & InFlag.UID) !== 0 ? p.uid : -1);
    ring.putWord((p.flags & InFlag.GID) !== 0 ? p.gid : -1);
    ring.putWord(p.macLength);
    ring.putWord(p.macHigh);
    ring.putWord(p.macLow);
    ring.putWord(length);
    for (let i = 0; i < length; i++) ring.putByte(program[prefix + (i >> 2)]! >> (24 - ((i & 3) << 3)));
    showTtl(p);
    ring.putBytes(p.bytes, p.start, p.start + snap);
    ring.commit();
  }
}
