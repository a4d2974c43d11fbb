/**
 * Which of the kernel's packet queues have a listener (/proc/net/netfilter/nfnetlink_queue), for `-j NFQUEUE --queue-bypass`.
 * One object a worker. The list is read when it is asked for and older than LIFE_MS.
 */
import { readFileSync } from 'node:fs';

const LIST = '/proc/thread-self/net/netfilter/nfnetlink_queue';
const LIFE_MS = 200;

export class Queues {
  private listening = new Set<number>();
  private read = -Infinity;

  /** `now` in milliseconds of any clock that doesn't go back. */
  has(queue: number, now: number): boolean {
    if (now - this.read >= LIFE_MS) {
      this.read = now;
      this.listening = queuesIn(readFileSync(LIST, 'latin1'));
    }
    return this.listening.has(queue);
  }
}

/** A line a queue: its number, then its listener's port id and more. */
export const queuesIn = (text: string): Set<number> =>
  new Set(text.split('\n').flatMap((line) => (line.trim() === '' ? [] : [Number.parseInt(line, 10)])));
