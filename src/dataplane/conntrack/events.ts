/**
 * What `conntrack -E` shows. Changes to the connection of the packet at hand gather as bits in `pendingEvents`; when the
 * packet has passed its last hook they become one record (nf_ct_deliver_cached_events). A record is a copy of the entry
 * with its type, written to the slot's own ring, so that there is one writer and one reader and no lock. When nobody
 * listens, all that is left of this is one test of a number that each view fetches at its batch edges.
 *
 *     ring     HEAD (written, counts records) TAIL (read) LOST RECORDS, then records of RECORD_WORDS
 *     record   type, changes, the entry's words
 */
import { Status } from './states.js';
import { Ct, ENTRY_WORDS } from './layout.js';
import type { ConntrackTable, EventSink } from './table.js';

/** Types, as bits for `ConntrackTable.listen`. */
export const enum EventType {
  NEW = 1 << 0,
  UPDATE = 1 << 1,
  DESTROY = 1 << 2,
  ALL = NEW | UPDATE | DESTROY,
}

/** What changed (bits numbered as enum ip_conntrack_events). */
export const enum Change {
  NEW = 1 << 0,
  RELATED = 1 << 1,
  DESTROY = 1 << 2,
  REPLY = 1 << 3,
  ASSURED = 1 << 4,
  PROTOINFO = 1 << 5,
  HELPER = 1 << 6,
  MARK = 1 << 7,
  SEQADJ = 1 << 8,
  LABEL = 1 << 10,
}

const HEAD = 0;
const TAIL = 1;
const LOST = 2;
const RECORDS = 3;
const RING_HEADER = 16;
const TYPE = 0;
const CHANGES = 1;
/** Offset of the entry's words in a record. */
export const EVENT_ENTRY = 2;
export const RECORD_WORDS = EVENT_ENTRY + ENTRY_WORDS;

export class EventRing implements EventSink {
  private readonly words: Int32Array;
  private readonly records: number;

  /** @param records a power of two */
  static create(records = 1024): SharedArrayBuffer {
    if (records < 1 || (records & (records - 1)) !== 0)
      throw new RangeError(`event ring of ${records}: a power of two`);
    const shared = new SharedArrayBuffer((RING_HEADER + records * RECORD_WORDS) * 4);
    new Int32Array(shared)[RECORDS] = records;
    return shared;
  }

  constructor(shared: SharedArrayBuffer) {
    this.words = new Int32Array(shared);
    this.records = this.words[RECORDS]!;
  }

  /** Writes a record when somebody listens for its type; a full ring loses it and counts that. */
  record(type: number, entry: number, changes: number, table: ConntrackTable): void {
    if ((table.eventMask & type) === 0) return;
    const w = this.words;
    const head = w[HEAD]!;
    if (((head - Atomics.load(w, TAIL)) | 0) >= this.records) {
      Atomics.add(w, LOST, 1);
      return;
    }
    const at = RING_HEADER + (head & (this.records - 1)) * RECORD_WORDS;
    w[at + TYPE] = type;
    w[at + CHANGES] = changes;
    const from = table.at(entry);
    for (let i = 0; i < ENTRY_WORDS; i++) w[at + EVENT_ENTRY + i] = table.words[from + i]!;
    Atomics.store(w, HEAD, (head + 1) | 0);
  }

  /** The reader's side: copies the next record to `out` (RECORD_WORDS words); false when there is none. */
  take(out: Int32Array): boolean {
    const w = this.words;
    const tail = w[TAIL]!;
    if (tail === Atomics.load(w, HEAD)) return false;
    const at = RING_HEADER + (tail & (this.records - 1)) * RECORD_WORDS;
    for (let i = 0; i < RECORD_WORDS; i++) out[i] = w[at + i]!;
    Atomics.store(w, TAIL, (tail + 1) | 0);
    return true;
  }

  /** Records lost since the last call. */
  takeLost(): number {
    return Atomics.exchange(this.words, LOST, 0);
  }
}

/** Events of this connection for which the CT target has listeners told (`--ctevents`), as Change bits; all unless it was set. */
function wanted(table: ConntrackTable, entry: number): number {
  const mask = table.eventFilter(entry);
  return mask === 0 ? ~0 : mask;
}

/** Tells the listeners, in one record, what has happened to the connection since the last call; nothing more of one that is dying. */
export function deliverEvents(table: ConntrackTable, entry: number): void {
  const untold = table.at(entry) + Ct.UNTOLD;
  const changes = table.pendingEvents | table.words[untold]!;
  table.pendingEvents = 0;
  table.words[untold] = 0;
  if (table.eventMask === 0 || table.events === null || (changes & wanted(table, entry)) === 0) return;
  if ((table.status(entry) & Status.DYING) !== 0) return;
  const type = (changes & (Change.NEW | Change.RELATED)) !== 0 ? EventType.NEW : EventType.UPDATE;
  table.events.record(type, entry, changes, table);
}

/** Keeps what has happened to the connection for the next call of `deliverEvents`. */
export function keepEvents(table: ConntrackTable, entry: number): void {
  if (table.eventMask !== 0) table.words[table.at(entry) + Ct.UNTOLD]! |= table.pendingEvents;
  table.pendingEvents = 0;
}
