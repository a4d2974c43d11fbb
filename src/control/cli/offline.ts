/**
 * What the iptables commands say where no router answers: help, version, and what is wrong with their arguments, for
 * which the real tools need neither root nor kernel. Loaded by the client only then.
 */
import { MemoryBackend } from '../commands/backend.js';
import { readOptions as readRestore } from '../commands/restore.js';
import { readOptions as readSave } from '../commands/save.js';
import { Session, type Program } from '../commands/session.js';
import { Exit } from '../text/problem.js';
import { readCommand } from '../text/read.js';
import type { Answer, Request } from './client.js';

/** undefined: the arguments are in order, and a router is needed to carry them out. */
export function answerAlone({ program, argv }: Request): Answer | undefined {
  const session = new Session(program as Program, new MemoryBackend());
  try {
    const code = ended(session, [program, ...argv]);
    return code === undefined ? undefined : session.result(code);
  } catch (error) {
    return session.fail(error);
  }
}

/** The exit code, if nothing is left to do. */
function ended(session: Session, argv: readonly string[]): number | undefined {
  if (session.program !== 'iptables') {
    const options = session.program === 'iptables-save' ? readSave(session, argv) : readRestore(session, argv);
    return typeof options === 'number' ? options : undefined;
  }
  const { output } = readCommand(argv, {
    program: session.program,
    restore: false,
    table: 'filter',
    // Whether a host has an address doesn't matter yet.
    names: { host: () => [0], hostName: () => undefined },
    warn: session.warn,
  });
  if (output !== undefined) session.print(output);
  return output === undefined ? undefined : Exit.OK;
}
