/**
 * The door to the language: runs one of the three programs on a backend, one at a time for each backend, and gives back
 * what it printed and its exit code. `-w`'s limit on waiting is kept.
 */
import { Exit, ToolError } from '../text/problem.js';
import { readCommand } from '../text/read.js';
import { NO_NAMES } from '../text/write.js';
import type { Backend } from './backend.js';
import { iptables } from './iptables.js';
import { restore } from './restore.js';
import { save } from './save.js';
import { Session, type Program, type Result } from './session.js';

/** The last run on each backend; the next one waits for it. */
const last = new WeakMap<Backend, Promise<unknown>>();

/**
 * @param argv arguments without the program's name, byte strings
 * @param stdin for iptables-restore: the file it names, or else standard input
 */
export async function runIptables(
  program: Program,
  argv: readonly string[],
  stdin: string,
  backend: Backend,
): Promise<Result> {
  const before = last.get(backend) ?? Promise.resolve();
  const seconds = program === 'iptables' ? waitSeconds(argv) : 0;
  if (seconds > 0 && !(await within(before, seconds))) {
    const stderr =
      "Can't lock /run/xtables.lock: Resource temporarily unavailable\n" +
      `Another app is currently holding the xtables lock. Stopped waiting after ${seconds}s.\n`;
    return { code: Exit.RESOURCE, stdout: '', stderr, log: [] };
  }
  const run = before.then(() => start(program, [program, ...argv], stdin, new Session(program, backend)));
  last.set(
    backend,
    run.catch(() => undefined),
  );
  return run;
}

function start(program: Program, argv: readonly string[], stdin: string, session: Session): Promise<Result> {
  switch (program) {
    case 'iptables':
      return iptables(session, argv);
    case 'iptables-save':
      return save(session, argv);
    case 'iptables-restore':
      return restore(session, argv, stdin);
  }
}

/** Whether it ends in time. */
async function within(promise: Promise<unknown>, seconds: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => {
      resolve(false);
    }, seconds * 1000);
  });
  try {
    return await Promise.race([promise.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** -w's argument where it can be told without names; what else is wrong with the line is said later. */
function waitSeconds(argv: readonly string[]): number {
  if (!argv.some((arg) => arg.startsWith('-w') || arg.startsWith('--w'))) return 0;
  try {
    const context = { program: 'iptables', restore: false, table: 'filter', names: NO_NAMES, warn: () => undefined };
    return readCommand(['iptables', ...argv], context).wait;
  } catch (error) {
    if (error instanceof ToolError) return 0;
    throw error;
  }
}
