/**
 * Where LOG's and TRACE's lines go: a file that is appended to, or standard error. Written on the main thread, line by line.
 *
 * A full disk or a closed terminal doesn't stop the router: lines are lost then, which is counted, and told once when it begins
 * and once when it is over. What was written of a line that didn't fit stays, and the next begins on a line of its own.
 */
import { openSync, writeSync } from 'node:fs';
import { reason } from './config.js';

export class LogFile {
  private readonly fd: number;
  private torn = false;
  /** Lines lost since one could be written; 0: all is well. */
  private failing = 0;
  /** Lines lost since the start. */
  lost = 0;

  /**
   * @param path `-` is standard error
   * @param say told when lines begin to be lost and when they no longer are
   * @param write of node:fs; tests have their own
   * @throws what openSync throws
   */
  constructor(
    private readonly path: string,
    private readonly say: (text: string) => void,
    private readonly write: (fd: number, bytes: Uint8Array) => number = writeSync,
  ) {
    this.fd = path === '-' ? 2 : openSync(path, 'a', 0o640);
  }

  /** One line without its line feed; each character is a byte (Latin-1). */
  line(text: string): void {
    const bytes = Buffer.from(`${this.torn ? '\n' : ''}${text}\n`, 'latin1');
    let done = 0;
    try {
      while (done < bytes.length) done += this.write(this.fd, bytes.subarray(done));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === undefined) throw error;
      // Of a line feed alone nothing is torn off.
      if (done > 0) this.torn = done > (this.torn ? 1 : 0);
      this.lost++;
      if (this.failing++ === 0) this.say(`LOG lines are lost: can't write to the log ${this.path}: ${reason(error)}`);
      return;
    }
    this.torn = false;
    if (this.failing === 0) return;
    this.say(`the log ${this.path} is written again; ${this.failing} lines were lost`);
    this.failing = 0;
  }
}
