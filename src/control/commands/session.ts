/**
 * One run of a program against a backend: working copies of tables, output, and the errors' way to stderr and exit code.
 * Nothing reaches the backend before `commit`.
 */
import { emptyTable, tableOf, withTable, type Counters, type Ruleset } from '../model.js';
import { TABLE_NAMES, type TableName } from '../../dataplane/names.js';
import { Exit, problem, TableError, ToolError } from '../text/problem.js';
import { VERSION } from '../text/read.js';
import { CommitError, Lookups, type Backend } from './backend.js';
import { errnoText, TableEdit, tableErrorText } from './edit.js';

export type Program = 'iptables' | 'iptables-save' | 'iptables-restore';

/** What a program leaves behind. Texts are byte strings (text/problem.ts). */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Reasons that the kernel would have written to its log: not part of the tool's output. */
  readonly log: readonly string[];
}

export class Session {
  stdout = '';
  stderr = '';
  readonly log: string[] = [];
  /** Line of the file that is read; −1 outside iptables-restore. */
  line = -1;
  readonly names: Lookups;
  private ruleset: Ruleset;
  /** Counts as first read in this run: what is shown is what is zeroed. */
  private readonly counts = new Map<number, Counters>();

  constructor(
    readonly program: Program,
    readonly backend: Backend,
  ) {
    this.names = new Lookups(backend);
    this.ruleset = backend.ruleset();
  }

  print(text: string): void {
    this.stdout += text;
  }
  warn = (text: string): void => {
    this.stderr += text;
  };

  /** The tables in use, first used last. */
  tableNames(): TableName[] {
    return this.ruleset.tables.map((table) => table.name);
  }

  /** A working copy of a table, which comes into use by this. @throws TableError if there is no such table */
  open(name: string): TableEdit {
    if (name.length >= 32) throw new TableError('EINVAL', 'init');
    if (!(TABLE_NAMES as readonly string[]).includes(name)) throw new TableError('ENOENT', 'init');
    let table = tableOf(this.ruleset, name as TableName);
    if (!table) {
      table = emptyTable(name as TableName);
      this.ruleset = withTable(this.ruleset, table);
    }
    return new TableEdit(table, (id) => {
      let counts = this.counts.get(id);
      if (!counts) this.counts.set(id, (counts = this.backend.count(id)));
      return counts;
    });
  }

  /** Takes a working copy over as the table to be committed. */
  take(edit: TableEdit): void {
    if (edit.changed) this.ruleset = withTable(this.ruleset, edit.finish());
  }

  /** Swaps all that was taken over, at once. */
  async commit(): Promise<void> {
    if (this.ruleset !== this.backend.ruleset()) await this.backend.commit(this.ruleset);
  }

  result(code: number): Result {
    return { code, stdout: this.stdout, stderr: this.stderr, log: this.log };
  }

  /** Ends the run by an error: its text as the tool prints it, its exit code. Errors of another kind are thrown on. */
  fail(error: unknown): Result {
    if (error instanceof ToolError) {
      this.warn(this.toolErrorText(error));
      return this.result(error.status);
    }
    if (error instanceof TableError) {
      // Programs ask for chains that may not be there all the time: that is worth no line.
      if (error.detail !== '' && (error.errno !== 'ENOENT' || error.operation === 'commit'))
        this.log.push(error.detail);
      const hint = error.errno === 'EINVAL' ? ". Run `dmesg' for more information." : '.';
      this.warn(`${this.program}: ${tableErrorText(error)}${hint}\n`);
      return this.result(error.errno === 'EAGAIN' ? Exit.RESOURCE : Exit.OTHER);
    }
    if (error instanceof CommitError) {
      this.warn(`${this.program}: ${error.message}.\n`);
      return this.result(error.code);
    }
    throw error;
  }

  /** A rule says what hutter can't do. Replaced where a file is only looked at. */
  refuse(reason: string): void {
    problem(reason);
  }

  /** Keeps the reason of a failure for which the tool has no words. */
  note(error: TableError): void {
    this.log.push(error.detail === '' ? tableErrorText(error) : error.detail);
  }

  private toolErrorText(error: ToolError): string {
    const { program } = this;
    let text = error.plain ? error.message : `${program} v${VERSION} (legacy): ${error.message}\n`;
    if (error.status === Exit.PARAMETER) {
      if (this.line >= 0) text += `Error occurred at line: ${this.line}\n`;
      text += `Try \`${program} -h' or '${program} --help' for more information.\n`;
    } else if (error.status === Exit.VERSION) {
      text += `Perhaps ${program} or your kernel needs to be upgraded.\n`;
    }
    return text;
  }
}

/** TC_INIT's words for why a table can't be had. */
export function initErrorText({ errno }: TableError): string {
  if (errno === 'ENOENT') return 'Table does not exist (do you need to insmod?)';
  if (errno === 'EPERM') return 'Permission denied (you must be root)';
  return errno === 'EINVAL' ? 'Module is wrong version' : errnoText(errno);
}
