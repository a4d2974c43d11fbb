/**
 * State regions: Int32Arrays in shared memory for what rules remember between packets. Every region begins with LOCK, a
 * word as conntrack/lock.ts has it, and KIND. A region either belongs to one thing (a `recent` list) whose file says
 * what follows and owns a kind, or is a chunk of small slots (`limit`, `quota`, …) that many rules share; slots that
 * need a lock take their chunk's, for a few instructions.
 */
import { lock, unlock } from '../conntrack/lock.js';
import type { Context } from './context.js';
import type { Arguments } from './op.js';

export const enum Region {
  LOCK = 0,
  KIND = 1,
  /** Where the region's own words begin. */
  BODY = 2,
}

export const enum RegionKind {
  SLOTS = 0,
  RECENT = 1,
  CONNLIMIT = 2,
  HASHLIMIT = 3,
  TREE = 4,
  RATEEST = 5,
}

/** For Op.check: whether region number `region` has a slot of `size` words at `offset`; else a sentence. */
export function checkSlot(a: Arguments, region: number, offset: number, size: number): string | undefined {
  const words = a.regions[region];
  const there = words !== undefined && words[Region.KIND] === RegionKind.SLOTS;
  return there && offset >= Region.BODY && offset + size <= words.length
    ? undefined
    : 'its state is outside its region';
}

export function lockRegion(context: Context, region: Int32Array): void {
  lock(region, Region.LOCK, context.owner);
}
export function unlockRegion(region: Int32Array): void {
  unlock(region, Region.LOCK);
}
