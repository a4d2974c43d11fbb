/**
 * Ends a worker's wait: a thread blocked in poll() can be reached neither by a message nor by terminate(). The thread
 * that makes a waker owns its descriptor and closes it after the worker has gone; the worker gets the number `fd` and
 * opens its device with it. A process with a worker that waits for ever can't exit: wake first.
 */
import { loadNative } from './native.js';
import type { Native, WakerHandle } from './native.js';

export class Waker {
  private readonly native: Native = loadNative();
  private readonly handle: WakerHandle = this.native.wakerOpen();
  /** To be given to one worker. */
  readonly fd = this.native.wakerFd(this.handle);

  wake(): void {
    this.native.wakerWake(this.handle);
  }

  close(): void {
    this.native.close(this.handle);
  }
}

/** Waits for a wake-up on a waker's `fd` alone, up to `timeoutMs` (−1 = for ever). Returns whether it came. */
export const waitForWake = (fd: number, timeoutMs: number): boolean => loadNative().wakerWait(fd, timeoutMs) === 1;
