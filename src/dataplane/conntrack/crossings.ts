/**
 * Packets on their way between two crossings: routed by the kernel after the first, they come again in POSTROUTING
 * (pipeline.ts). What was found out about them is kept here meanwhile, in memory that all workers share, as what NAT did
 * to a destination can bring the packet to another queue.
 *
 *     header | heads by packet | heads by flow | records
 *
 * A packet is known again by what the kernel leaves alone: addresses, length, identification, fragment, the first words of
 * its transport header. Two packets equal in all of that are of one flow, and either may have the other's record. A new connection isn't in the
 * table yet: it belongs to the packets whose records name it, and is discarded with the last of them unless one has
 * confirmed it. A later packet of the same flow finds it here, as it had found it in the table if nothing crossed twice.
 *
 * What goes by lo crosses at OUTPUT and at PREROUTING. It is kept here, too, where the table can't tell what it was: one that isn't
 * part of a connection, and an answer attached to one.
 *
 * Records are changed under one lock. What never comes again is forgotten after EXPIRY_MS; what a dead worker was at, by
 * `recover`.
 */
import { Ipsec, Proto } from '../names.js';
import type { Packet } from '../packet.js';
import { u16, u32 } from '../wire/bytes.js';
import { forget } from './expect.js';
import { lock, unlock } from './lock.js';
import type { ConntrackTable } from './table.js';

/** Packets on their way at most: those of a few full queues. */
const RECORDS = 1 << 14;
const HEADS = 1 << 12;
/** The kernel takes microseconds, a queue before POSTROUTING some more. */
const EXPIRY_MS = 5_000;
const SWEEP_MS = 1_000;

const enum H {
  LOCK = 0,
  /** Record + 1 of the first free one; those from FRESH on were never used. */
  FREE = 1,
  FRESH = 2,
  COUNT = 3,
  SWEPT = 4,
  /** Of the hash of packets: nobody outside can choose packets that lie in one list. */
  SEED = 5,
  WORDS = 16,
}
const PACKETS = H.WORDS;
const FLOWS = PACKETS + HEADS;
const FIRST = FLOWS + HEADS;

const enum R {
  STATE = 0,
  /** Next with the same head, record + 1; of a free record the next free one. */
  NEXT_PACKET = 1,
  NEXT_FLOW = 2,
  KEY = 3,
  /** Connection + 1, 0 = none. */
  ENTRY = 10,
  GENERATION = 11,
  /** 1: the connection was new, and the record is in the list of its flow. */
  NEW = 12,
  BORN = 13,
  CT_STATE = 14,
  CT_DIR = 15,
  EVENTS = 16,
  HOOK = 17,
  INDEV = 18,
  PHYSINDEV = 19,
  MAC_LENGTH = 20,
  MAC_HIGH = 21,
  MAC_LOW = 22,
  MARK = 23,
  PRIORITY = 24,
  BITS = 25,
  WORDS = 26,
}
const CLASSIFIED = 1;
/** It came with the reserved bit set. */
const WAS_RESERVED = 2;
/** It came by IPsec; where it goes is told anew. */
const IPSEC_IN = 4;
const KEY_WORDS = R.ENTRY - R.KEY;

/** A record's state; IN_HAND plus the slot of the worker that has its packet. */
const enum State {
  FREE = 0,
  AWAY = 1,
  IN_HAND = 2,
}

/** The reserved bit of an IP header's flags (RFC 791). */
const RESERVED = 0x8000;
const FLAGS = 6;
const ID = 4;

export class Crossings {
  private readonly words: Int32Array;
  private readonly key = new Int32Array(KEY_WORDS);
  /** The record that the packet at hand has, −1 = none. */
  mine = -1;
  /** Whether the packet that was restored last came with its header's reserved bit set. */
  reserved = false;

  static create(): SharedArrayBuffer {
    const shared = new SharedArrayBuffer((FIRST + RECORDS * R.WORDS) * 4);
    new Int32Array(shared)[H.SEED] = Math.random() * 0x1_0000_0000;
    return shared;
  }

  /** A thread's view, which goes with its view of the table. */
  constructor(
    shared: SharedArrayBuffer,
    private readonly table: ConntrackTable,
  ) {
    this.words = new Int32Array(shared);
  }

  /** Packets on their way. */
  get count(): number {
    return this.words[H.COUNT]!;
  }

  /**
   * The new connection of this original tuple that a packet on its way has, −1 = none. The packet at hand then shares it.
   * @param key packKey of protocol and zone
   */
  findNew(src: number, dst: number, ports: number, key: number): number {
    const w = this.words;
    if (w[H.COUNT] === 0) return -1;
    const { table } = this;
    this.lock();
    let found = -1;
    const head = FLOWS + flowHash(src, dst, ports, key);
    for (let next = w[head]!; next !== 0 && found < 0; next = w[at(next - 1) + R.NEXT_FLOW]!) {
      const r = at(next - 1);
      const entry = w[r + R.ENTRY]! - 1;
      if (!table.isLent(entry) || table.generation(entry) !== w[r + R.GENERATION]) continue;
      if (
        table.src(entry, 0) === src &&
        table.dst(entry, 0) === dst &&
        table.ports(entry, 0) === ports &&
        table.key(entry, 0) === key
      ) {
        found = entry;
      }
    }
    if (found >= 0) {
      const record = this.take();
      if (record < 0) found = -1;
      else {
        this.mine = record;
        this.fill(at(record), found, 1);
        this.linkFlow(record, head);
      }
    }
    this.unlock();
    return found;
  }

  /**
   * Keeps what is known of a packet that will come again. A new connection belongs to the record from here on. False:
   * there is no room.
   */
  keep(p: Packet): boolean {
    return this.put(p, p.ctDir === 0);
  }

  /** The same for a packet that comes again by lo: an answer holds the new connection that it is attached to. */
  keepLooped(p: Packet): void {
    const { mine } = this;
    this.mine = -1;
    this.put(p, true);
    this.mine = mine;
  }

  /** `holds`: a new connection is the packet's as well. */
  private put(p: Packet, holds: boolean): boolean {
    const { table, words: w } = this;
    const isNew = p.ct >= 0 && !table.isConfirmed(p.ct) && holds;
    this.readKey(p);
    this.lock();
    let record = this.mine;
    if (record < 0) {
      record = this.take();
      if (record < 0) {
        this.unlock();
        return false;
      }
      this.fill(at(record), p.ct, isNew ? 1 : 0);
      if (isNew) {
        table.lend(p.ct);
        this.linkFlow(record, FLOWS + this.flowOf(p.ct));
      }
    }
    const r = at(record);
    for (let i = 0; i < KEY_WORDS; i++) w[r + R.KEY + i] = this.key[i]!;
    w[r + R.CT_STATE] = p.ctState;
    w[r + R.CT_DIR] = p.ctDir;
    w[r + R.EVENTS] = isNew ? table.pendingEvents : 0;
    w[r + R.HOOK] = p.hook;
    w[r + R.INDEV] = p.indev;
    w[r + R.PHYSINDEV] = p.physindev;
    w[r + R.MAC_LENGTH] = p.macLength;
    w[r + R.MAC_HIGH] = p.macHigh;
    w[r + R.MAC_LOW] = p.macLow;
    w[r + R.MARK] = p.mark;
    w[r + R.PRIORITY] = p.classified !== 0 ? p.priority : 0;
    w[r + R.BITS] =
      (p.classified !== 0 ? CLASSIFIED : 0) |
      (isReserved(p) ? WAS_RESERVED : 0) |
      ((p.ipsec & Ipsec.IN) !== 0 ? IPSEC_IN : 0);
    w[r + R.STATE] = State.AWAY;
    const head = PACKETS + this.keyHash();
    w[r + R.NEXT_PACKET] = w[head]!;
    w[head] = record + 1;
    this.unlock();
    this.mine = -1;
    return true;
  }

  /** The packet at hand has a new connection that an answer to it, by lo, holds as well. */
  share(entry: number): void {
    if (this.mine >= 0) return;
    this.lock();
    const record = this.take();
    if (record >= 0) {
      this.fill(at(record), entry, 1);
      this.table.lend(entry);
      this.linkFlow(record, FLOWS + this.flowOf(entry));
      this.mine = record;
    }
    this.unlock();
  }

  /** Takes the packet's record into hand: its offset, or 0 when nothing is known of it. */
  private claim(p: Packet): number {
    const { table, words: w } = this;
    this.readKey(p);
    this.lock();
    const head = PACKETS + this.keyHash();
    let record = w[head]! - 1;
    while (record >= 0 && !this.hasKey(at(record))) record = w[at(record) + R.NEXT_PACKET]! - 1;
    if (record < 0) {
      this.unlock();
      return 0;
    }
    unlink(w, head, record, R.NEXT_PACKET);
    const r = at(record);
    w[r + R.STATE] = State.IN_HAND + table.slot;
    this.mine = record;
    this.unlock();
    return r;
  }

  /** Gives a packet that comes again what was kept of it. False: nothing is known of it, or its connection is gone. */
  restore(p: Packet): boolean {
    const { words: w } = this;
    const r = this.claim(p);
    if (r === 0) return false;
    p.hook = w[r + R.HOOK]!;
    p.indev = w[r + R.INDEV]!;
    p.physindev = w[r + R.PHYSINDEV]!;
    p.macLength = w[r + R.MAC_LENGTH]!;
    p.macHigh = w[r + R.MAC_HIGH]!;
    p.macLow = w[r + R.MAC_LOW]!;
    p.mark = w[r + R.MARK]!;
    p.priority = w[r + R.PRIORITY]!;
    p.classified = w[r + R.BITS]! & CLASSIFIED;
    this.reserved = (w[r + R.BITS]! & WAS_RESERVED) !== 0;
    if ((w[r + R.BITS]! & IPSEC_IN) !== 0) p.ipsec |= Ipsec.IN;
    return this.reattach(p, r);
  }

  /**
   * Gives a packet that has come by lo the connection and state that were kept of it; a connection that has ended meanwhile leaves
   * the state. False: nothing was kept.
   */
  restoreLooped(p: Packet): boolean {
    if (this.words[H.COUNT] === 0) return false;
    const r = this.claim(p);
    if (r === 0) return false;
    this.reattach(p, r);
    return true;
  }

  private reattach(p: Packet, r: number): boolean {
    const { table, words: w } = this;
    p.ctState = w[r + R.CT_STATE]!;
    p.ctDir = w[r + R.CT_DIR]!;
    const entry = w[r + R.ENTRY]! - 1;
    if (entry < 0) return true;
    if (table.generation(entry) !== w[r + R.GENERATION] || !table.isLive(entry)) return false;
    p.ct = entry;
    table.pendingEvents = w[r + R.EVENTS]!;
    return true;
  }

  /** The packet at hand lets go of its new connection. True: nobody else has it, and the caller discards it. */
  leave(): boolean {
    const record = this.mine;
    if (record < 0) return true;
    this.mine = -1;
    this.lock();
    const last = this.drop(record);
    this.unlock();
    return last;
  }

  /** The packet at hand is done with. */
  done(): void {
    const record = this.mine;
    this.mine = -1;
    this.lock();
    this.abandon(record);
  }

  /** Forgets what never came again; now and then, by one worker at a time. */
  sweep(now: number): void {
    const w = this.words;
    if (w[H.COUNT] === 0) return;
    const swept = Atomics.load(w, H.SWEPT);
    const since = (now - swept) | 0;
    if (since >= 0 && since < SWEEP_MS) return;
    if (Atomics.compareExchange(w, H.SWEPT, swept, now) !== swept) return;
    for (let record = 0; record < w[H.FRESH]!; record++) {
      const r = at(record);
      if (w[r + R.STATE] !== State.AWAY || ((now - w[r + R.BORN]!) | 0) < EXPIRY_MS) continue;
      this.lock();
      if (w[r + R.STATE] === State.AWAY && ((now - w[r + R.BORN]!) | 0) >= EXPIRY_MS) {
        for (let i = 0; i < KEY_WORDS; i++) this.key[i] = w[r + R.KEY + i]!;
        unlink(w, PACKETS + this.keyHash(), record, R.NEXT_PACKET);
        this.abandon(record);
      } else this.unlock();
    }
  }

  /** Mends what the dead owner of a slot left; `dead` is its lock word. By the control thread, before the slot is used again. */
  recover(slot: number, dead: number): void {
    const w = this.words;
    Atomics.compareExchange(w, H.LOCK, dead, 0);
    for (let record = 0; record < w[H.FRESH]!; record++) {
      if (w[at(record) + R.STATE] !== State.IN_HAND + slot) continue;
      this.lock();
      this.abandon(record);
    }
  }

  /** Lets go of a record that is in no list of packets, and of the lock. */
  private abandon(record: number): void {
    const { table, words: w } = this;
    const r = at(record);
    const entry = w[r + R.ENTRY]! - 1;
    const isNew = w[r + R.NEW] !== 0;
    const generation = w[r + R.GENERATION];
    const last = this.drop(record);
    this.unlock();
    if (!isNew || !last || !table.isLent(entry) || table.generation(entry) !== generation) return;
    forget(table, entry);
    table.discard(entry);
  }

  /** Nobody confirms a new connection that packets share, or moves its state, but who holds this. */
  lock(): void {
    lock(this.words, H.LOCK, this.table.owner);
  }

  unlock(): void {
    unlock(this.words, H.LOCK);
  }

  // ---- under the lock ----

  /** A record in hand, −1 when all are in use. */
  private take(): number {
    const w = this.words;
    let record = w[H.FREE]! - 1;
    if (record >= 0) w[H.FREE] = w[at(record) + R.NEXT_PACKET]!;
    else {
      record = w[H.FRESH]!;
      if (record === RECORDS) return -1;
      w[H.FRESH] = record + 1;
    }
    w[H.COUNT] = w[H.COUNT]! + 1;
    const r = at(record);
    w[r + R.STATE] = State.IN_HAND + this.table.slot;
    w[r + R.NEXT_PACKET] = 0;
    w[r + R.NEXT_FLOW] = 0;
    return record;
  }

  private fill(r: number, entry: number, isNew: number): void {
    const w = this.words;
    w[r + R.ENTRY] = entry + 1;
    w[r + R.GENERATION] = entry < 0 ? 0 : this.table.generation(entry);
    w[r + R.NEW] = isNew;
    w[r + R.BORN] = this.table.now;
  }

  /** Frees a record that is in no list of packets. True when no other record has its new connection. */
  private drop(record: number): boolean {
    const w = this.words;
    const r = at(record);
    let last = true;
    if (w[r + R.NEW] !== 0) {
      const entry = w[r + R.ENTRY]!;
      const head = FLOWS + this.flowOf(entry - 1);
      if (unlink(w, head, record, R.NEXT_FLOW)) {
        for (let next = w[head]!; next !== 0; next = w[at(next - 1) + R.NEXT_FLOW]!) {
          const other = at(next - 1);
          if (w[other + R.ENTRY] === entry && w[other + R.GENERATION] === w[r + R.GENERATION]) last = false;
        }
      }
    }
    w[r + R.STATE] = State.FREE;
    w[r + R.NEXT_PACKET] = w[H.FREE]!;
    w[H.FREE] = record + 1;
    w[H.COUNT] = w[H.COUNT]! - 1;
    return last;
  }

  private linkFlow(record: number, head: number): void {
    const w = this.words;
    w[at(record) + R.NEXT_FLOW] = w[head]!;
    w[head] = record + 1;
  }

  private flowOf(entry: number): number {
    const { table } = this;
    return flowHash(table.src(entry, 0), table.dst(entry, 0), table.ports(entry, 0), table.key(entry, 0));
  }

  // ---- how a packet is known again ----

  private readKey(p: Packet): void {
    const { bytes, start, l4 } = p;
    const k = this.key;
    k[0] = p.src;
    k[1] = p.dst;
    k[2] = (u16(bytes, start + ID) << 16) | p.length;
    k[3] = (p.protocol << 16) | (u16(bytes, start + FLAGS) & ~RESERVED);
    k[4] = p.l4Length >= 4 ? u32(bytes, l4) : 0;
    k[5] = p.l4Length >= 8 ? u32(bytes, l4 + 4) : 0;
    // A checksum is finished on the way, by the device.
    if (p.protocol === Proto.UDP || p.protocol === Proto.UDPLITE) k[5] &= 0xffff0000;
    k[6] = p.tcpOk !== 0 ? u32(bytes, l4 + 8) : 0;
  }

  private keyHash(): number {
    let h = this.words[H.SEED]!;
    for (let i = 0; i < KEY_WORDS; i++) h = Math.imul(h ^ this.key[i]!, 0x9e3779b1 | 0) ^ (h >>> 15);
    return (h ^ (h >>> 16)) & (HEADS - 1);
  }

  private hasKey(r: number): boolean {
    const w = this.words;
    for (let i = 0; i < KEY_WORDS; i++) if (w[r + R.KEY + i] !== this.key[i]) return false;
    return true;
  }
}

const at = (record: number): number => FIRST + record * R.WORDS;

function flowHash(src: number, dst: number, ports: number, key: number): number {
  const h = Math.imul(src, 0x9e3779b1 | 0) ^ Math.imul(dst, 0x85ebca6b | 0) ^ Math.imul(ports ^ key, 0x27d4eb2f);
  return (h ^ (h >>> 15)) & (HEADS - 1);
}

/** Takes a record out of the list at `head`; false when it isn't there. */
function unlink(w: Int32Array, head: number, record: number, link: number): boolean {
  let before = head;
  while (w[before] !== 0) {
    const next = w[before]! - 1;
    if (next === record) {
      w[before] = w[at(next) + link]!;
      return true;
    }
    before = at(next) + link;
  }
  return false;
}

/** Whether the header's reserved bit is set, by which the diversion knows a packet that is to come again. */
export const isReserved = (p: Packet): boolean => (u16(p.bytes, p.start + FLAGS) & RESERVED) !== 0;
