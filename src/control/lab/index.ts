/**
 * `hutter lab`: builds the article's network, shows that its firewall does what the article says, then lets one watch
 * it at work until Ctrl-C. With `once` it ends after the checks. Whatever way it ends, nothing is left behind.
 */
import path from 'node:path';
import { CHECKS } from './checks.js';
import { type Lab, type LabOptions, openLab } from './lab.js';
import { PREFIX_LAB, sweep } from './netns.js';
import { keepBusy, watch } from './view.js';

export type { LabOptions };

const INTERRUPTED = 130;

/** Runs the lab; the exit code: 0, 1 if a check failed or the lab could not be built, 130 if stopped before its end. */
export async function runLab(options: LabOptions = {}): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('hutter: the lab builds network namespaces: run it as root\n');
    return 1;
  }
  const stop = new AbortController();
  let interrupted = false;
  const interrupt = (): void => {
    interrupted = true;
    stop.abort();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  sweep();
  let lab: Lab | undefined;
  try {
    const started = performance.now();
    say(`building the article's network: ${PREFIX_LAB}-${process.pid}-…: orlock, hutter, knock`);
    lab = await openLab(options);
    say(`${lab.router.said.split('\n')[0] ?? 'hutter runs'}`);
    say(`rules: ${path.relative(process.cwd(), lab.rules)}; ready in ${seconds(started)}\n`);
    const failed = await check(lab, stop.signal);
    if (interrupted) return INTERRUPTED;
    say(`\n${CHECKS.length - failed} of ${CHECKS.length} checks passed, ${seconds(started)} after the start`);
    if (options.once) return failed === 0 ? 0 : 1;
    await Promise.all([
      keepBusy(lab, stop.signal),
      watch(lab, stop.signal).finally(() => stop.abort()), // a router that ended ends the traffic, too
    ]);
    return failed === 0 ? 0 : 1;
  } catch (error) {
    if (interrupted && lab !== undefined) return INTERRUPTED;
    process.stderr.write(`hutter: lab: ${(error as Error).message}\n`);
    return 1;
  } finally {
    await lab?.network.close();
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, interrupt);
  }
}

/** Runs the checks in order, printing each; how many failed. */
async function check(lab: Lab, stop: AbortSignal): Promise<number> {
  const width = Math.max(...CHECKS.map(({ title }) => title.length));
  let failed = 0;
  for (const { title, run } of CHECKS) {
    if (stop.aborted) break;
    try {
      const seen = await run(lab);
      say(`  ok    ${title.padEnd(width)}  ${seen}`);
    } catch (error) {
      if (stop.aborted) break;
      failed++;
      say(`  FAIL  ${title.padEnd(width)}  ${(error as Error).message}`);
      if (!lab.router.running) throw await lab.router.cause(error);
    }
  }
  return failed;
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
