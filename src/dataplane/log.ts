/**
 * LOG's way out of a worker: a record of what the line will say goes into the worker's ring; the main thread makes the
 * text (control/log.ts). A record that finds no room is lost and counted, as the kernel's own log does under load.
 */
import { InFlag } from './io/batch.js';
import type { Packet } from './packet.js';
import type { Context, LogSink } from './program/context.js';
import { LogArg } from './program/log.js';
import { LOG_SNAP, LogRecord, type Ring, Stat } from './shared.js';

const TTL_OFFSET = 8;

export class LogWriter implements LogSink {
  constructor(
    private readonly ring: Ring,
    private readonly stats: Float64Array,
  ) {}

  log(p: Packet, context: Context, program: Int32Array, at: number): void {
    const ring = this.ring;
    const prefixLength = program[at + LogArg.LENGTH]!;
    const snap = Math.min(p.end - p.start, LOG_SNAP);
    if (!ring.begin(LogRecord.WORDS * 4 + prefixLength + snap)) {
      this.stats[Stat.LOG_LOST]! += 1;
      return;
    }
    // The words of LogRecord, in order.
    ring.putWord(program[at + LogArg.LEVEL]!);
    ring.putWord(program[at + LogArg.OPTIONS]!);
    ring.putWord(context.hook);
    ring.putWord(context.in);
    ring.putWord(context.out);
    ring.putWord(p.mark);
    ring.putWord(p.physindev);
    ring.putWord((p.flags & InFlag.UID) !== 0 ? p.uid : -1);
    ring.putWord((p.flags & InFlag.GID) !== 0 ? p.gid : -1);
    ring.putWord(p.macLength);
    ring.putWord(p.macHigh);
    ring.putWord(p.macLow);
    ring.putWord(prefixLength);
    for (let i = 0; i < prefixLength; i++) {
      ring.putByte(program[at + LogArg.PREFIX + (i >> 2)]! >> (24 - ((i & 3) << 3)));
    }
    // In FORWARD the packet's TTL is already one less than its bytes say.
    ring.putBytes(p.bytes, p.start, p.start + TTL_OFFSET);
    ring.putByte(p.ttl);
    ring.putBytes(p.bytes, p.start + TTL_OFFSET + 1, p.start + snap);
    ring.commit();
  }
}
