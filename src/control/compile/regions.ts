/**
 * The memory of rules by key: an own region for the large (a `recent` list, connlimit's tree), a slot in a chunk for the
 * small. A key that the next program names, too, keeps its memory and its number; one that no program names any more is
 * given back after the workers have left the old program (`release`). Numbers are stable: words compiled once stay right.
 */
import { Region, RegionKind } from '../../dataplane/program/regions.js';

/** Where a rule's state lies. */
export interface Place {
  readonly region: number;
  readonly offset: number;
}

interface Held extends Place {
  readonly words: number;
  readonly own: boolean;
}

const CHUNK_WORDS = 4096;

const shared = (words: number): Int32Array => new Int32Array(new SharedArrayBuffer(words * 4));

export class RegionStore {
  private readonly held = new Map<string, Held>();
  private readonly regions: (Int32Array | undefined)[] = [];
  /** What stands in the place of a region that is gone. */
  private readonly empty = shared(Region.BODY);
  /** Free slots by their size. */
  private readonly slots = new Map<number, Place[]>();
  /** Regions that were replaced since `begin`. */
  private replaced: { key: string; held: Held; region: Int32Array | undefined }[] = [];
  private chunk = -1;
  private chunkEnd = CHUNK_WORDS;

  /** Before a compile. */
  begin(): void {
    this.replaced = [];
  }
  /** After one that failed: what was replaced is as before; what was made new is retired with the next that succeeds. */
  rollback(): void {
    for (const { key, held, region } of this.replaced.reverse()) {
      this.regions[held.region] = region;
      this.held.set(key, held);
    }
    this.replaced = [];
  }

  /** By number; holes are filled with an empty region. */
  list(): Int32Array[] {
    return this.regions.map((region) => region ?? this.empty);
  }

  get(number: number): Int32Array {
    return this.regions[number] ?? this.empty;
  }

  /** The number of the region with this key, if there is one. */
  find(key: string): number | undefined {
    return this.held.get(key)?.region;
  }
  /** Every key that begins with `prefix`, with its region's number. */
  *keys(prefix: string): Iterable<[string, number]> {
    for (const [key, place] of this.held) if (key.startsWith(prefix)) yield [key.slice(prefix.length), place.region];
  }

  /**
   * The region with this key; if there is none, or it is too small, a zeroed one of `words` words, which `init` fills.
   * A region that is replaced for its size loses what it held, but for what `init` takes over from it.
   */
  region(key: string, words: number, init: (region: Int32Array, replaced?: Int32Array) => void): number {
    const held = this.held.get(key);
    if (held !== undefined && held.words >= words) return held.region;
    const region = shared(words);
    init(region, held && this.regions[held.region]);
    if (held !== undefined) this.replaced.push({ key, held, region: this.regions[held.region] });
    // The old one may still be in use by the running program, whose list of regions holds it.
    const number = held?.region ?? this.vacantNumber();
    this.regions[number] = region;
    this.held.set(key, { region: number, offset: 0, words, own: true });
    return number;
  }

  /** The slot with this key; if there is none, zeroed words of a chunk, which `init` fills. */
  slot(key: string, words: number, init: (region: Int32Array, offset: number) => void): Place {
    const held = this.held.get(key);
    if (held !== undefined) return held;
    const place = this.slots.get(words)?.pop() ?? this.newSlot(words);
    const region = this.regions[place.region]!;
    region.fill(0, place.offset, place.offset + words);
    init(region, place.offset);
    this.held.set(key, { ...place, words, own: false });
    return place;
  }

  /** The memory of these keys may be used again: no worker runs a program that names them. */
  release(keys: readonly string[]): void {
    for (const key of keys) {
      const held = this.held.get(key);
      if (held === undefined) continue;
      this.held.delete(key);
      if (held.own) this.regions[held.region] = undefined;
      else {
        const free = this.slots.get(held.words);
        if (free) free.push(held);
        else this.slots.set(held.words, [held]);
      }
    }
  }

  private vacantNumber(): number {
    const vacant = this.regions.indexOf(undefined);
    return vacant < 0 ? this.regions.push(undefined) - 1 : vacant;
  }

  private newSlot(words: number): Place {
    if (this.chunkEnd + words > CHUNK_WORDS) {
      this.chunk = this.vacantNumber();
      const region = shared(CHUNK_WORDS);
      region[Region.KIND] = RegionKind.SLOTS;
      this.regions[this.chunk] = region;
      this.chunkEnd = Region.BODY;
    }
    const place = { region: this.chunk, offset: this.chunkEnd };
    this.chunkEnd += words;
    return place;
  }
}
