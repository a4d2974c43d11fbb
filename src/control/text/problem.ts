/**
 * What ends a command: a message, an exit status, and how the tool dresses it up. The parser, the extensions and the
 * table operations throw these and nothing else; commands/run.ts turns them into stderr and exit code.
 *
 * All text of the language (arguments, files, output) is held as byte strings: one character a byte, as `latin1` decodes
 * it, so that a comment in any encoding goes in and out unchanged and lengths are the tool's.
 */

/** Exit codes of xtables (include/xtables.h, enum xtables_exittype). */
export const enum Exit {
  OK = 0,
  OTHER = 1,
  PARAMETER = 2,
  VERSION = 3,
  RESOURCE = 4,
}

/** A failure that the tool announces as `PROGRAM vVERSION: MESSAGE`. */
export class ToolError extends Error {
  constructor(
    readonly status: Exit,
    message: string,
    /** Print the message as it is, without program and version before it. */
    readonly plain = false,
  ) {
    super(message);
  }
  /** Index in argv of the word that is to blame, as far as the reader knows. */
  word: number | undefined;
}

/** Errno values that libiptc and the kernel give back for a ruleset operation. */
export type Errno =
  | 'ENOENT'
  | 'EINVAL'
  | 'EEXIST'
  | 'ENOTEMPTY'
  | 'EMLINK'
  | 'E2BIG'
  | 'ELOOP'
  | 'EPERM'
  | 'ENOMEM'
  | 'EAGAIN'
  | 'EBUSY'
  | 'ERANGE'
  | 'EOPNOTSUPP'
  | 'ENOSYS'
  | 'EFBIG'
  | 'ENODEV';

/**
 * A table operation, or the swap of the table, failed: `iptables: REASON.`, exit code 1. In iptables-restore only
 * `iptables-restore: line N failed` is said.
 */
export class TableError extends Error {
  constructor(
    readonly errno: Errno,
    /** The operation that failed, which chooses the tool's words for the errno. */
    readonly operation: string,
    /** What was wrong, in hutter's words: what the kernel would write to its log. Not part of the tool's output. */
    readonly detail = '',
    /** Identity of the rule that was refused, if it was one. */
    readonly ruleId?: number,
  ) {
    super(`${operation}: ${errno}${detail && `: ${detail}`}`);
  }
}

/** Throws a parameter problem (exit code 2). `message` is what follows `iptables v1.8.9 (legacy): `. */
export function problem(message: string): never {
  throw new ToolError(Exit.PARAMETER, message);
}
