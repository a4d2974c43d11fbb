/**
 * Packets put aside: a pool of blocks of one size, chained. The memory is taken once and is the limit; nothing is
 * allocated afterwards. One pool a worker.
 */
const BLOCK = 2048;
const NONE = -1;

export class Blocks {
  private readonly memory: Uint8Array;
  /** Of each block the one behind it in its packet, or in the list of free ones. */
  private readonly next: Int32Array;
  private free = 0;
  /** Blocks in use. */
  used = 0;

  /** `bytes`: the pool's size. */
  constructor(bytes: number) {
    const count = Math.max(1, Math.floor(bytes / BLOCK));
    this.memory = new Uint8Array(count * BLOCK);
    this.next = Int32Array.from({ length: count }, (_, i) => (i + 1 < count ? i + 1 : NONE));
  }

  /** Keeps a copy of from[start, end); returns its first block, −1 when there is no room. */
  put(from: Uint8Array, start: number, end: number): number {
    const wanted = Math.max(1, Math.ceil((end - start) / BLOCK));
    if (this.used + wanted > this.next.length) return NONE;
    const { memory, next } = this;
    const first = this.free;
    let block = first;
    for (let i = 1, at = start; ; i++, at += BLOCK) {
      const base = block * BLOCK - at;
      const stop = at + BLOCK < end ? at + BLOCK : end;
      for (let o = at; o < stop; o++) memory[base + o] = from[o]!;
      if (i === wanted) break;
      block = next[block]!;
    }
    this.free = next[block]!;
    next[block] = NONE;
    this.used += wanted;
    return first;
  }

  /** Copies bytes [skip, skip + length) of the packet that begins in `block`. */
  get(block: number, skip: number, length: number, to: Uint8Array, at: number): void {
    const { memory, next } = this;
    while (skip >= BLOCK) {
      block = next[block]!;
      skip -= BLOCK;
    }
    while (length > 0) {
      const part = length < BLOCK - skip ? length : BLOCK - skip;
      const base = block * BLOCK + skip;
      for (let o = 0; o < part; o++) to[at + o] = memory[base + o]!;
      at += part;
      length -= part;
      skip = 0;
      block = next[block]!;
    }
  }

  /** Gives the packet's blocks back. */
  release(block: number): void {
    const { next } = this;
    let last = block;
    let count = 1;
    while (next[last] !== NONE) {
      last = next[last]!;
      count++;
    }
    next[last] = this.free;
    this.free = block;
    this.used -= count;
  }
}
