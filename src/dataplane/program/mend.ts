/**
 * After a worker died: frees the locks of regions that it held, and puts in order what it may have left half done. A list of
 * `recent`, connlimit's counts and a table of hashlimit's are then emptied, as their links can't be trusted, and an estimator
 * begins anew; slots are single words, or are right
 * at every moment at which a thread can die. Run by the control plane before the worker is started anew.
 */
import { mendCountRegion } from '../conntrack/count.js';
import { unlock } from '../conntrack/lock.js';
import { mendRateest } from './rateest.js';
import { mendHashlimit } from './hashlimit.js';
import { mendRecent } from './recent.js';
import { Region, RegionKind } from './regions.js';

/** `deadOwner` is the lock word of the worker in the life that ended (ConntrackTable.ownerOf). */
export function mendRegions(regions: readonly Int32Array[], deadOwner: number): void {
  for (const region of regions) {
    if (Atomics.load(region, Region.LOCK) !== deadOwner) continue;
    if (region[Region.KIND] === RegionKind.RECENT) mendRecent(region);
    else if (region[Region.KIND] === RegionKind.CONNLIMIT) mendCountRegion(region);
    else if (region[Region.KIND] === RegionKind.RATEEST) mendRateest(region);
    else if (region[Region.KIND] === RegionKind.HASHLIMIT) mendHashlimit(region);
    unlock(region, Region.LOCK);
  }
}
