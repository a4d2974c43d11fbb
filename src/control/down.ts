/**
 * `hutter down`: undoes what a run that was killed left in this network namespace. Interfaces of hutter's own leave nothing: they
 * go with the process that has them open.
 */
import { DivertError, runningRouter, undoDiversion } from './divert.js';

/** Prints what was undone; the exit code. */
export function down(): number {
  if (process.getuid?.() !== 0) {
    process.stderr.write('hutter: down changes rules and sysctls of the kernel: run it as root\n');
    return 1;
  }
  const running = runningRouter();
  if (running !== undefined) {
    process.stderr.write(
      `hutter: a router runs here (pid ${running.pid}, control socket ${running.control}): end it with kill ${running.pid}\n`,
    );
    return 1;
  }
  try {
    const done = undoDiversion();
    process.stdout.write(done.length === 0 ? 'nothing to undo\n' : done.map((line) => `${line}\n`).join(''));
    return 0;
  } catch (error) {
    if (!(error instanceof DivertError)) throw error;
    process.stderr.write(`hutter: ${error.message}\n`);
    return 1;
  }
}
