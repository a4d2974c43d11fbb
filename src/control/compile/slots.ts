/**
 * Counter slots: which words of the workers' slabs belong to which rule or policy, by identity, so that an unchanged rule
 * keeps its slot through every swap. A slot whose owner is gone is used again only after every worker runs a program
 * without it and the caller has zeroed it (`release`): until then a worker may still count there.
 */
export class CounterSlots {
  private slots = new Map<number, number>();
  private free: number[] = [];
  private end = 0;

  /** The slot of `id`, a new one if it has none. */
  take(id: number): number {
    let slot = this.slots.get(id);
    if (slot === undefined) {
      slot = this.free.pop() ?? this.end++;
      this.slots.set(id, slot);
    }
    return slot;
  }

  /** The slot of `id`, if it has one. */
  of(id: number): number | undefined {
    return this.slots.get(id);
  }

  /** How many have an owner. */
  get used(): number {
    return this.slots.size;
  }

  /** Slots handed out so far: a slab has room for two doubles for each. */
  get length(): number {
    return this.end;
  }

  /** The slots of these identities, zeroed in every slab, may be used again. */
  release(ids: readonly number[]): void {
    for (const id of ids) {
      const slot = this.slots.get(id);
      if (slot !== undefined) this.free.push(slot);
      this.slots.delete(id);
    }
  }
}
