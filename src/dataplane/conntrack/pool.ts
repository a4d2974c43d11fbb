/**
 * Where entries of the connection table are that aren't in it: free ones, in a list for all and in a cache a slot; and
 * those in a slot's limbo, which somebody may still be reading.
 *
 * Lookups take no lock: who finds an entry may use it until its batch ends. So an entry that was taken out of the table waits until
 * every thread that was looking has passed a batch edge (`quiesce`) or looks no more (`offline`). An epoch counts up when a slot
 * closes its limbo; a thread notes at each edge which one it has seen. One view a thread, of its own slot.
 */
import {
  Ct,
  entryAt,
  Head,
  PLACE_FREE,
  PLACE_MASK,
  PLACE_SCRATCH,
  PLACE_SHIFT,
  Slot,
  slotAt,
  STATUS_MASK,
} from './layout.js';
import { lock, unlock } from './lock.js';

/** Entries that a cache takes from the list, or gives back, at a time. */
const REFILL = 32;
/** Entries in a slot's cache at most. */
export const CACHE_MAX = 2 * REFILL;

export class EntryPool {
  private readonly slotAt: number;
  /** What `Ct.STATUS` is in this slot's cache and limbo, and of its scratch. */
  private readonly cached: number;
  private readonly scratch: number;

  /**
   * @param base offset of the entry before entry 0  @param capacity entries in all  @param workers the last slot's number
   * @param owner this view in lock words (lock.ts)
   */
  constructor(
    private readonly words: Int32Array,
    private readonly base: number,
    private readonly capacity: number,
    private readonly workers: number,
    slot: number,
    private readonly owner: number,
  ) {
    this.slotAt = slotAt(slot);
    this.cached = (slot + 1) << PLACE_SHIFT;
    this.scratch = (PLACE_SCRATCH | (slot + 1)) << PLACE_SHIFT;
  }

  private at(entry: number): number {
    return entryAt(this.base, entry);
  }

  // ---- batch edges ------------------------------------------------------------------------------------------------

  /** Begins to look at the table. */
  online(): void {
    const w = this.words;
    Atomics.store(w, this.slotAt + Slot.ONLINE, 1);
    // What it saw when it was online last keeps entries waiting, which is harmless.
    Atomics.store(w, this.slotAt + Slot.SEEN, Atomics.load(w, Head.EPOCH));
  }

  /** Says that this thread keeps no index and will look at nothing until `online`: before it waits for packets. */
  offline(): void {
    this.quiesce();
    Atomics.store(this.words, this.slotAt + Slot.ONLINE, 0);
  }

  /** Says that this thread keeps no index of an entry, and frees what all threads have said so about. */
  quiesce(): void {
    const w = this.words;
    const s = this.slotAt;
    if (w[s + Slot.WAIT_HEAD] === 0 && w[s + Slot.LIMBO_HEAD] === 0) {
      Atomics.store(w, s + Slot.SEEN, Atomics.load(w, Head.EPOCH));
      return;
    }
    if (w[s + Slot.WAIT_HEAD] === 0) this.closeLimbo();
    Atomics.store(w, s + Slot.SEEN, Atomics.load(w, Head.EPOCH));
    if (!this.allPast(w[s + Slot.WAIT_EPOCH]!)) return;
    let next = w[s + Slot.WAIT_HEAD]!;
    while (next !== 0) {
      const entry = next - 1;
      next = w[this.at(entry) + Ct.START]!;
      this.free(entry);
    }
    w[s + Slot.WAIT_HEAD] = 0;
    w[s + Slot.WAIT_COUNT] = 0;
    if (w[s + Slot.LIMBO_HEAD] !== 0) {
      this.closeLimbo();
      Atomics.store(w, s + Slot.SEEN, Atomics.load(w, Head.EPOCH));
    }
  }

  private closeLimbo(): void {
    const w = this.words;
    const s = this.slotAt;
    w[s + Slot.WAIT_EPOCH] = Atomics.add(w, Head.EPOCH, 1);
    w[s + Slot.WAIT_COUNT] = w[s + Slot.LIMBO_COUNT]!;
    w[s + Slot.WAIT_HEAD] = w[s + Slot.LIMBO_HEAD]!;
    w[s + Slot.LIMBO_HEAD] = 0;
    w[s + Slot.LIMBO_COUNT] = 0;
  }

  private allPast(epoch: number): boolean {
    const w = this.words;
    for (let slot = 0; slot <= this.workers; slot++) {
      const s = slotAt(slot);
      if (Atomics.load(w, s + Slot.ONLINE) !== 0 && ((Atomics.load(w, s + Slot.SEEN) - epoch) | 0) <= 0) return false;
    }
    return true;
  }

  // ---- entries ----------------------------------------------------------------------------------------------------

  /** An entry marked as this slot's scratch, which nobody else knows; −1 when there is none. */
  take(): number {
    const w = this.words;
    const s = this.slotAt;
    if (w[s + Slot.CACHE_HEAD] === 0 && !this.refill()) return -1;
    const entry = w[s + Slot.CACHE_HEAD]! - 1;
    const e = this.at(entry);
    w[s + Slot.CACHE_HEAD] = w[e + Ct.NEXT]!;
    w[s + Slot.CACHE_COUNT] = w[s + Slot.CACHE_COUNT]! - 1;
    w[s + Slot.COUNT] = w[s + Slot.COUNT]! + 1;
    Atomics.store(w, e + Ct.STATUS, this.scratch);
    return entry;
  }

  /** Takes a scratch entry back. */
  give(entry: number): void {
    const s = this.slotAt;
    this.words[s + Slot.COUNT] = this.words[s + Slot.COUNT]! - 1;
    this.free(entry);
  }

  /** Takes an entry back that is out of the table; somebody may still be reading it. */
  retire(entry: number): void {
    const w = this.words;
    const s = this.slotAt;
    const e = this.at(entry);
    w[e + Ct.START] = w[s + Slot.LIMBO_HEAD]!;
    w[s + Slot.LIMBO_HEAD] = entry + 1;
    w[s + Slot.LIMBO_COUNT] = w[s + Slot.LIMBO_COUNT]! + 1;
    Atomics.or(w, e + Ct.STATUS, this.cached);
    w[s + Slot.COUNT] = w[s + Slot.COUNT]! - 1;
  }

  private free(entry: number): void {
    const w = this.words;
    const s = this.slotAt;
    const e = this.at(entry);
    Atomics.store(w, e + Ct.STATUS, this.cached);
    w[e + Ct.NEXT] = w[s + Slot.CACHE_HEAD]!;
    w[s + Slot.CACHE_HEAD] = entry + 1;
    w[s + Slot.CACHE_COUNT] = w[s + Slot.CACHE_COUNT]! + 1;
    if (w[s + Slot.CACHE_COUNT]! > CACHE_MAX) this.flushCache();
  }

  private refill(): boolean {
    const w = this.words;
    const s = this.slotAt;
    lock(w, Head.FREE_LOCK, this.owner);
    let n = 0;
    while (n < REFILL) {
      let entry = w[Head.FREE_HEAD]! - 1;
      if (entry >= 0) {
        w[Head.FREE_HEAD] = w[this.at(entry) + Ct.NEXT]!;
        w[Head.FREE_COUNT] = w[Head.FREE_COUNT]! - 1;
      } else {
        entry = w[Head.FRESH]!;
        if (entry >= this.capacity) break;
        w[Head.FRESH] = entry + 1;
      }
      const e = this.at(entry);
      w[e + Ct.STATUS] = this.cached;
      w[e + Ct.NEXT] = w[s + Slot.CACHE_HEAD]!;
      w[s + Slot.CACHE_HEAD] = entry + 1;
      n++;
    }
    w[s + Slot.CACHE_COUNT] = w[s + Slot.CACHE_COUNT]! + n;
    unlock(w, Head.FREE_LOCK);
    return n > 0;
  }

  /** Gives half of the cache back to all. */
  private flushCache(): void {
    const w = this.words;
    const s = this.slotAt;
    lock(w, Head.FREE_LOCK, this.owner);
    for (let n = 0; n < REFILL; n++) {
      const entry = w[s + Slot.CACHE_HEAD]! - 1;
      const e = this.at(entry);
      w[s + Slot.CACHE_HEAD] = w[e + Ct.NEXT]!;
      w[e + Ct.STATUS] = PLACE_FREE << PLACE_SHIFT;
      w[e + Ct.NEXT] = w[Head.FREE_HEAD]!;
      w[Head.FREE_HEAD] = entry + 1;
    }
    w[Head.FREE_COUNT] = w[Head.FREE_COUNT]! + REFILL;
    w[s + Slot.CACHE_COUNT] = w[s + Slot.CACHE_COUNT]! - REFILL;
    unlock(w, Head.FREE_LOCK);
  }

  // ---- when a thread dies, and for tests --------------------------------------------------------------------------

  /**
   * Takes over what a dead thread had: scratch, cache and limbo. If it died in the free list, that is made anew. `dead`: that
   * thread in lock words.
   */
  inherit(slot: number, dead: number): void {
    const w = this.words;
    const broken = Atomics.load(w, Head.FREE_LOCK) === dead;
    if (!broken) lock(w, Head.FREE_LOCK, this.owner);
    else Atomics.store(w, Head.FREE_LOCK, this.owner);
    if (broken) {
      w[Head.FREE_HEAD] = 0;
      w[Head.FREE_COUNT] = 0;
    }
    const end = Math.min(w[Head.FRESH]!, this.capacity);
    for (let entry = 0; entry < end; entry++) {
      const e = this.at(entry);
      const place = (w[e + Ct.STATUS]! & PLACE_MASK) >>> PLACE_SHIFT;
      if (place === PLACE_FREE && broken) {
        w[e + Ct.NEXT] = w[Head.FREE_HEAD]!;
        w[Head.FREE_HEAD] = entry + 1;
        w[Head.FREE_COUNT] = w[Head.FREE_COUNT]! + 1;
      } else if (place === slot + 1 || place === (PLACE_SCRATCH | (slot + 1))) {
        // Scratch was counted by the dead slot, retire() discounts it; the others were not.
        if (place === slot + 1) w[this.slotAt + Slot.COUNT] = w[this.slotAt + Slot.COUNT]! + 1;
        Atomics.and(w, e + Ct.STATUS, STATUS_MASK);
        this.retire(entry);
      } else if (place === 0 && w[e + Ct.STATUS] === 0 && broken) {
        // Taken from FRESH, not yet marked.
        w[this.slotAt + Slot.COUNT] = w[this.slotAt + Slot.COUNT]! + 1;
        this.retire(entry);
      }
    }
    unlock(w, Head.FREE_LOCK);
  }

  /** Where all entries are; the sum is the capacity while nobody changes anything. */
  census(): { free: number; used: number; limbo: number; scratch: number } {
    const w = this.words;
    const fresh = Math.min(w[Head.FRESH]!, this.capacity);
    const census = { free: this.capacity - fresh, used: 0, limbo: 0, scratch: 0 };
    for (let entry = 0; entry < fresh; entry++) {
      const place = w[this.at(entry) + Ct.STATUS]! >>> PLACE_SHIFT;
      if (place === 0) census.used++;
      else if ((place & PLACE_SCRATCH) !== 0) census.scratch++;
      else census.free++;
    }
    for (let slot = 0; slot <= this.workers; slot++) {
      const limbo = w[slotAt(slot) + Slot.LIMBO_COUNT]! + w[slotAt(slot) + Slot.WAIT_COUNT]!;
      census.limbo += limbo;
      census.free -= limbo;
    }
    return census;
  }
}
