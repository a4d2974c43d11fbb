/**
 * Locks in shared memory. A lock is one word: 0 is free, else its owner, which is the holder's slot number and the number
 * of its life (`ownerWord`), so that what a dead worker held can be told from what its successor holds.
 * Held for a few hundred instructions at most; a waiter spins, then sleeps by the millisecond until the holder or
 * `ConntrackTable.recover` lets go.
 */

/** @param slot 0..125 @param life counts a slot's owners; 24 bits of it are kept */
export const ownerWord = (slot: number, life: number): number => (slot + 1) | (life << 8);

const SPINS = 200;

export function lock(words: Int32Array, at: number, owner: number): void {
  if (Atomics.compareExchange(words, at, 0, owner) !== 0) lockSlowly(words, at, owner);
}

export function unlock(words: Int32Array, at: number): void {
  Atomics.store(words, at, 0);
}

function lockSlowly(words: Int32Array, at: number, owner: number): void {
  for (;;) {
    let holder = 0;
    for (let spin = 0; spin < SPINS; spin++) {
      holder = Atomics.load(words, at);
      if (holder === 0 && Atomics.compareExchange(words, at, 0, owner) === 0) return;
    }
    if (holder !== 0) Atomics.wait(words, at, holder, 1);
  }
}
