/**
 * The words of a device's turn (native/turn.h holds the same numbers): what a worker asks of the addon and is told, without
 * arguments, as reading those takes longer than a packet. They are lent to the device together with a batch.
 */
import type { Batch } from './batch.js';

export const enum Turn {
  /** In: records whose verdicts are carried out, from and up to. */
  FROM = 0,
  TO = 1,
  /** In: packets to receive at most; 0: none is asked for. */
  ROOM = 2,
  /** In: milliseconds to wait for them, −1 = for ever. */
  TIMEOUT = 3,
  /** Out: packets received, or −errno. */
  RECEIVED = 4,
  /** Out: CLOCK_MONOTONIC and CLOCK_REALTIME when they were, in milliseconds. */
  NOW = 5,
  WALL = 6,
  /** Out: the first of the device's own totals. */
  STATS = 7,
}

/** Does what the words say. @throws Error when the device's handle is closed */
export type TurnFunction = () => void;

/** A device's turns; `lend` is called for each batch that isn't the one before. */
export class Turns {
  readonly words: Float64Array;
  /** The device's totals among them. */
  readonly stats: Float64Array;
  private batch: Batch | undefined;
  private take: TurnFunction = () => undefined;

  /** @param stats how many totals the device has */
  constructor(
    stats: number,
    private readonly lend: (batch: Batch, words: Float64Array) => TurnFunction,
  ) {
    this.words = new Float64Array(Turn.STATS + stats);
    this.stats = this.words.subarray(Turn.STATS);
  }

  /** Carries out the verdicts of records [from, to), then receives up to `room` packets. Returns Turn.RECEIVED. */
  run(batch: Batch, from: number, to: number, room: number, timeoutMs: number): number {
    const { words } = this;
    if (batch !== this.batch) {
      this.take = this.lend(batch, words);
      this.batch = batch;
    }
    words[Turn.FROM] = from;
    words[Turn.TO] = to;
    words[Turn.ROOM] = room;
    words[Turn.TIMEOUT] = timeoutMs;
    this.take();
    return words[Turn.RECEIVED]! | 0;
  }
}
