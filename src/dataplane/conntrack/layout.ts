/**
 * The connection table's memory, words of 32 bits:
 *
 *     header | slots | bucket locks | buckets | source buckets | expectations | entries of 64 words
 *
 * table.ts and pool.ts alone change the header and the slots.
 */
import { SETTING_WORDS } from './settings.js';

/** Words of the header. */
export const enum Head {
  MAGIC = 0,
  VERSION = 1,
  CAPACITY = 2,
  BUCKETS = 3,
  SLOTS = 4,
  SEED = 5,
  /** Counts up when a slot has something in limbo; see `quiesce`. */
  EPOCH = 6,
  FREE_LOCK = 7,
  /** Entry + 1. */
  FREE_HEAD = 8,
  FREE_COUNT = 9,
  /** Entries from here on were never used. */
  FRESH = 10,
  GC_CURSOR = 11,
  /** The table was full: gc also drops what can be dropped early. */
  GC_URGENT = 12,
  EVENT_MASK = 13,
  EXPECT_CAPACITY = 14,
  EXPECT_LOCK = 15,
  EXPECT_COUNT = 16,
  EXPECT_BORN = 17,
  WORKERS = 18,
  /** Offset of the helper data of the first PPTP connection with a call (expect.ts), 0 = none. */
  FIRST_CALL = 19,
  SETTINGS = 32,
}
export const HEADER_WORDS = 128;
if (Head.SETTINGS + SETTING_WORDS > HEADER_WORDS) throw new Error('header too small');

/** Words of a slot; only its owner writes them. */
export const enum Slot {
  LIFE = 0,
  /** The epoch at the last batch edge. */
  SEEN = 1,
  ONLINE = 2,
  /** What a recovery must look at: entry + 1 whose lock is held or being taken. */
  HELD = 3,
  /** Op under way, and its entry. */
  OP = 4,
  OP_ENTRY = 5,
  CACHE_HEAD = 6,
  CACHE_COUNT = 7,
  /** Limbo: entries killed since the epoch last moved, then those waiting for WAIT_EPOCH to be over. */
  LIMBO_HEAD = 8,
  LIMBO_COUNT = 9,
  WAIT_HEAD = 10,
  WAIT_COUNT = 11,
  WAIT_EPOCH = 12,
  /** This slot's share of the number of connections; may be negative. */
  COUNT = 13,
  STATS = 16,
}
export const SLOT_WORDS = 64;
/** Offset of a slot's first word. */
export const slotAt = (slot: number): number => HEADER_WORDS + slot * SLOT_WORDS;

/** Statistics of a slot, as `conntrack -S` names them. */
export const enum Stat {
  FOUND = 0,
  INVALID = 1,
  INSERT = 2,
  INSERT_FAILED = 3,
  DROP = 4,
  EARLY_DROP = 5,
  ERROR = 6,
  SEARCH_RESTART = 7,
  CLASH_RESOLVE = 8,
  CHAINTOOLONG = 9,
  EXPECT_NEW = 10,
  EXPECT_CREATE = 11,
  EXPECT_DELETE = 12,
}
export const STAT_NAMES = [
  'found',
  'invalid',
  'insert',
  'insert_failed',
  'drop',
  'early_drop',
  'error',
  'search_restart',
  'clash_resolve',
  'chaintoolong',
  'expect_new',
  'expect_create',
  'expect_delete',
] as const;

export const STRIPES = 1024;
export const STRIPE_SHIFT = 4;

export const ENTRY_WORDS = 64;
export const ENTRY_SHIFT = 6;
/** Offset of an entry's first word; `base` is that of the entry before entry 0, so that links need no subtraction. */
export const entryAt = (base: number, entry: number): number => base + ((entry + 1) << ENTRY_SHIFT);

/**
 * Words of an entry, by cache line: what a lookup by the original tuple needs, by the reply tuple, the protocol's state,
 * the counters. The tuple words of a direction are at `dir * Ct.TUPLE_WORDS` plus these.
 */
export const enum Ct {
  TUPLE_WORDS = 16,
  /** Link to the next tuple of the bucket (see `linkEntry`), 0 = last. */
  NEXT = 0,
  /** Four words an address; IPv4 uses the first. */
  SRC = 1,
  /** Before this in the list of connections by translated source, entry + 1, 0 = first: a word that an IPv4 address leaves free. */
  PREV_SOURCE = 2,
  DST = 5,
  /** Changes that listeners are yet to be told of: packets that were dropped left them. Likewise such a word. */
  UNTOLD = 6,
  PORTS = 9,
  KEY = 10,

  /** Status bits in the low 24 bits, the place (Place) in the high 8. Change it through setStatus when confirmed. */
  STATUS = 11,
  /** Milliseconds: from now on before the confirmation, the time of death after it. */
  TIMEOUT = 12,
  MARK = 13,
  /** Counts the uses of this entry, to tell its connection from a former one. */
  GENERATION = 14,
  /** Guards the protocol's state and counters when several workers run. */
  LOCK = 15,

  REPLY_SRC = 17,
  REPLY_DST = 21,
  REPLY_PORTS = 25,
  REPLY_KEY = 26,
  /** Entry + 1 of the connection that expected this one in 24 bits, the low 8 bits of its generation above; 0 = none. */
  MASTER = 27,
  /** Helper's number (0 = none) | helper of the master << 8 | events wanted << 16 (0 = all). */
  HELPER = 28,
  /** Interface whose going ends a masqueraded connection (ifindex), 0 = none. */
  NAT_IFINDEX = 29,
  /** Time of the confirmation: seconds since 1970, unsigned. In limbo: the next entry there. */
  START = 30,
  /** Next in the list of connections by translated source, entry + 1. */
  NEXT_SOURCE = 31,

  /** The protocol's 14 words (tcp.ts, udp.ts, sctp.ts say what is in them). */
  PROTO = 32,
  /** Two directions of: correction position, offset before it, offset after it (nf_conntrack_seqadj.h). */
  SEQADJ = 46,
  SEQADJ_WORDS = 3,
  /** Two directions of: packets low, packets high, bytes low, bytes high. */
  COUNTERS = 52,
  COUNTER_WORDS = 4,
  LABELS = 60,
}

/** Who has the entry, in the high byte of Ct.STATUS: 0 the table, else a slot's cache or limbo, its scratch, nobody. */
export const PLACE_SHIFT = 24;
export const PLACE_MASK = 0xff << PLACE_SHIFT;
/** Scratch that is no worker's: a new connection whose packet will come again (crossings.ts). */
export const PLACE_LENT = 0xff;
/** Dead to all but `findLingering`, still in its buckets; gc takes it out. A bit of Ct.STATUS above the kernel's. */
export const LINGERS = 1 << 23;
export const PLACE_SCRATCH = 0x80;
export const PLACE_FREE = 0x7f;
/** The low bits of Ct.STATUS. */
export const STATUS_MASK = 0xff_ffff;

/** Links name a tuple: (entry + 1) << 1 | direction; 0 is none. */
export const linkEntry = (link: number): number => (link >>> 1) - 1;
export const linkDir = (link: number): number => link & 1;

/** Words of an expectation record (expect.ts). */
export const EXPECT_WORDS = 48;

/** Offsets of the parts. */
export interface Layout {
  readonly stripes: number;
  readonly buckets: number;
  readonly sources: number;
  readonly expectations: number;
  readonly entries: number;
}

export function layout(slots: number, buckets: number, expectations: number): Layout {
  const stripes = HEADER_WORDS + slots * SLOT_WORDS;
  const at = stripes + (STRIPES << STRIPE_SHIFT);
  const sources = at + buckets;
  const expect = sources + buckets;
  return { stripes, buckets: at, sources, expectations: expect, entries: expect + expectations * EXPECT_WORDS };
}
