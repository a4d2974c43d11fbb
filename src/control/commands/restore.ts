/**
 * iptables-restore: a file of tables, read line by line as the tool does (iptables-restore.c). Other than the tool, which
 * commits table by table, nothing is swapped before the whole file has been read: an error anywhere changes nothing.
 */
import { checkTable } from '../check.js';
import { AlikeLines } from '../text/alike.js';
import { Getopt, longTable } from '../text/getopt.js';
import { Exit, problem, TableError, ToolError } from '../text/problem.js';
import { MAX_NAME, readCommand, VERSION, type Command, type ReadContext } from '../text/read.js';
import { MAX_WORDS, plainWords, splitCounters, splitLines, splitWords, wordsAt } from '../text/words.js';
import { CommitError, Unresolved } from './backend.js';
import { errnoText, tableErrorText, type TableEdit } from './edit.js';
import { eachChain, execute } from './iptables.js';
import type { Result, Session } from './session.js';

const LONGS = longTable([
  { name: 'counters', argument: 0, code: 'c' },
  { name: 'verbose', argument: 0, code: 'v' },
  { name: 'version', argument: 0, code: 'V' },
  { name: 'test', argument: 0, code: 't' },
  { name: 'help', argument: 0, code: 'h' },
  { name: 'noflush', argument: 0, code: 'n' },
  { name: 'modprobe', argument: 1, code: 'M' },
  { name: 'table', argument: 1, code: 'T' },
  { name: 'wait', argument: 2, code: 'w' },
  { name: 'wait-interval', argument: 2, code: 'W' },
]);

const USAGE = `Usage: iptables-restore [-c] [-v] [-V] [-t] [-h] [-n] [-w secs] [-W usecs] [-T table] [-M command] [file]
	   [ --counters ]
	   [ --verbose ]
	   [ --version]
	   [ --test ]
	   [ --help ]
	   [ --noflush ]
	   [ --wait=<seconds>
	   [ --table=<TABLE> ]
	   [ --modprobe=<command> ]
`;

export interface RestoreOptions {
  counters: boolean;
  verbose: number;
  test: boolean;
  noflush: boolean;
  /** Only this table. */
  table: string | undefined;
}

/** Runs `argv`, the program's name first; `input` is the file named there, or standard input. */
export async function restore(session: Session, argv: readonly string[], input: string): Promise<Result> {
  session.line = 0;
  try {
    const options = readOptions(session, argv);
    if (typeof options === 'number') return session.result(options);
    const reader = new RestoreReader(session, options, argv[0]!);
    for (const line of splitLines(input)) {
      session.line++;
      for (;;) {
        const { stdout, stderr } = session;
        try {
          reader.take(line);
          break;
        } catch (error) {
          if (!(error instanceof Unresolved)) throw error;
          Object.assign(session, { stdout, stderr });
          await session.names.resolve();
        }
      }
      if (reader.ended) break;
    }
    if (!reader.ended) reader.end();
    if (!options.test) await session.commit();
    return session.result(Exit.OK);
  } catch (error) {
    if (error instanceof CommitError) {
      session.warn(`iptables-restore: ${error.message}.\n`);
      return session.result(error.code);
    }
    return session.fail(error);
  }
}

/** The options, or the exit code if they end the program. */
export function readOptions(session: Session, argv: readonly string[]): RestoreOptions | number {
  const getopt = new Getopt(argv, 'bcvVthnwWM:T:', false);
  const options: RestoreOptions = { counters: false, verbose: 0, test: false, noflush: false, table: undefined };
  let wait = false;
  let interval = false;
  /** An argument apart: the word that follows, if it is no option. */
  const number = (attached: string | undefined): string | undefined => {
    const next = argv[getopt.index];
    if (attached !== undefined || next === undefined || next.startsWith('-') || next.startsWith('!')) return attached;
    getopt.index++;
    return next;
  };
  for (let got = getopt.next([LONGS]); got; got = getopt.next([LONGS])) {
    const arg = got.kind === 'option' ? got.arg : undefined;
    switch (got.kind === 'option' ? got.code : '?') {
      case 'b':
        session.warn('-b/--binary option is not implemented\n');
        break;
      case 'c':
        options.counters = true;
        break;
      case 'v':
        options.verbose++;
        break;
      case 'V':
        session.print(`iptables-restore v${VERSION} (legacy)\n`);
        return Exit.OK;
      case 't':
        options.test = true;
        break;
      case 'h':
        session.warn(USAGE);
        return Exit.OK;
      case 'n':
        options.noflush = true;
        break;
      case 'w': {
        const text = number(arg);
        if (text !== undefined && !/^[ \t-\r]*[+-]?\d/.test(text)) problem('wait seconds not numeric');
        wait = text === undefined || !/^[ \t-\r]*[+-]?0+$/.test(text);
        break;
      }
      case 'W': {
        const text = number(arg) ?? problem('wait interval value required');
        const found = /^[ \t-\r]*\+?(\d+)/.exec(text) ?? problem('wait interval not numeric');
        if (Number(found[1]) > 999999) problem(`too long usec wait ${found[1]} > 999999 usec`);
        session.warn('Ignoring deprecated --wait-interval option.\n');
        interval = true;
        break;
      }
      case 'M':
        break;
      case 'T':
        options.table = arg;
        break;
      default:
        if (got.kind === 'unknown' || got.kind === 'missing') session.warn(`${argv[0]}: ${got.text}\n`);
        session.warn("Try `iptables-restore -h' for more information.\n");
        return Exit.OTHER;
    }
  }
  if (getopt.words.length > 1) {
    session.warn('Unknown arguments found on commandline\n');
    return Exit.OTHER;
  }
  if (interval && !wait) {
    session.warn('Option --wait-interval requires option --wait\n');
    return Exit.OTHER;
  }
  return options;
}

/** A line did not come to a good end: `iptables-restore: line N failed`. */
const lineFailed = (line: number): ToolError =>
  new ToolError(Exit.OTHER, `iptables-restore: line ${line} failed\n`, true);

/** Reads the lines of a file, one `take` each; a line that throws Unresolved has had no effect and is taken again. */
export class RestoreReader {
  /** The table that is open, between `*NAME` and COMMIT. */
  edit: TableEdit | undefined;
  /** -h or -V ended the program, as they do in the tool: what was committed before stands. */
  ended = false;
  /** The command that was read last, its offset in the line, and the place of its words in argv. */
  private text = '';
  private textFrom = 0;
  private wordsInArgv = 0;
  private readonly context: ReadContext;
  /** Name of the last table line. */
  private current = '';
  /** The words of argv that each of its lines begins with. */
  private given: string[] = [];
  private readonly announced = new Set<string>();
  /** Since the last line that changes what `readCommand` is given beside the line. */
  private alike: AlikeLines;
  /** Reading a line led to a warning. */
  private warned = false;

  constructor(
    private readonly session: Session,
    private readonly options: RestoreOptions,
    private readonly program: string,
  ) {
    this.alike = new AlikeLines(session.names);
    this.context = {
      program: session.program,
      restore: true,
      // Every line is given its table by -t.
      table: '',
      names: session.names,
      announced: this.announced,
      warn: (text) => {
        this.warned = true;
        session.warn(text);
      },
    };
  }

  /** Offset in the line of the word with this index in argv; 0 if the line has no such word. */
  offsetOf(index: number): number {
    const word = wordsAt(this.text)[index - this.wordsInArgv];
    return word ? this.textFrom + word.at : 0;
  }

  /** Nothing was read yet of a new line. */
  newLine(): void {
    this.text = '';
  }

  take(text: string): void {
    const { session, options, edit } = this;
    if (text === '\n') return;
    if (text.startsWith('#')) {
      if (options.verbose) session.print(text);
      return;
    }
    if (edit && text === 'COMMIT\n') this.commit(edit);
    else if (!edit && text.startsWith('*')) this.open(text);
    else if (edit && text.startsWith(':')) this.declare(edit, text);
    else if (edit) this.rule(edit, text);
    else if (options.table === undefined || options.table === this.current) throw lineFailed(session.line);
  }

  end(): void {
    if (this.edit)
      throw new ToolError(Exit.OTHER, `iptables-restore: COMMIT expected at line ${this.session.line + 1}\n`, true);
  }

  private commit(edit: TableEdit): void {
    const { session } = this;
    this.edit = undefined;
    if (this.options.test) return;
    try {
      if (edit.changed) checkTable(edit.finish(), edit.table);
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      session.note(error);
      throw lineFailed(session.line);
    }
    session.take(edit);
  }

  private open(text: string): void {
    const { session, options } = this;
    const name = plainWords(text.slice(1))[0];
    if (name === undefined) problem(`iptables-restore: line ${session.line} table name invalid`);
    this.current = name.slice(0, 32);
    this.alike = new AlikeLines(this.session.names);
    this.given = [this.program, '-t', this.current];
    if (!options.noflush) for (let i = 0; i < options.verbose; i++) this.given.push('-v');
    if (options.table !== undefined && options.table !== name) return;
    let edit: TableEdit;
    try {
      edit = session.open(name);
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      problem(`iptables-restore: unable to initialize table '${name}'`);
    }
    this.edit = edit;
    if (options.noflush) return;
    eachChain(edit, undefined, true, (chain) => {
      if (options.verbose) session.print(`Flushing chain \`${chain}'\n`);
      edit.flush(chain);
    });
    eachChain(edit, undefined, false, (chain) => {
      if (options.verbose) session.print(`Deleting chain \`${chain}'\n`);
      edit.deleteChain(chain);
    });
  }

  private declare(edit: TableEdit, text: string): void {
    const { session, options } = this;
    const [chain, policy, counters] = plainWords(text.slice(1));
    if (chain === undefined) problem(`iptables-restore: line ${session.line} chain name invalid`);
    if (chain.length > MAX_NAME) problem(`Invalid chain name \`${chain}' (${MAX_NAME} chars max)`);
    if (!edit.isBuiltin(chain)) {
      if (options.noflush && edit.isChain(chain)) {
        edit.flush(chain);
      } else {
        try {
          edit.create(chain);
        } catch (error) {
          if (!(error instanceof TableError)) throw error;
          problem(`error creating chain '${chain}':${errnoText(error.errno)}`);
        }
      }
    }
    if (policy === undefined) problem(`iptables-restore: line ${session.line} policy invalid`);
    if (policy !== '-') {
      let base = { packets: 0n, bytes: 0n };
      if (options.counters) {
        const found = /^\[[ \t-\r]*(\d+):[ \t-\r]*(\d+)/.exec(counters ?? '');
        if (!found) problem(`invalid policy counters for chain '${chain}'`);
        base = { packets: BigInt(found[1]!), bytes: BigInt(found[2]!) };
      }
      try {
        edit.setPolicy(chain, policy, base);
      } catch (error) {
        if (!(error instanceof TableError)) throw error;
        throw new ToolError(
          Exit.OTHER,
          `Can't set policy \`${policy}' on \`${chain}' line ${session.line}: ${tableErrorText(error)}`,
        );
      }
    }
    this.announced.add(chain);
    this.alike = new AlikeLines(this.session.names);
  }

  private rule(edit: TableEdit, text: string): void {
    const { session } = this;
    const command = this.read(text);
    if (command.output !== undefined) {
      session.print(command.output);
      // A line for ip6tables is passed over.
      this.ended = command.output !== '';
      return;
    }
    try {
      execute(command, edit, session);
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      session.note(error);
      throw lineFailed(session.line);
    }
  }

  private read(text: string): Command {
    this.text = '';
    const counted = splitCounters(text, this.session.line);
    const counters = this.options.counters && counted ? ['--set-counters', counted.packets, counted.bytes] : [];
    const rest = counted?.rest ?? text;
    const given = this.given.length + counters.length;
    // Counters are the line's own, and no word of it.
    const known = counters.length > 0 ? undefined : this.alike.find(rest);
    const argv = known ? [] : [...this.given, ...counters, ...splitWords(rest, MAX_WORDS - given)];
    this.text = rest;
    this.textFrom = counted ? text.indexOf(rest) : 0;
    this.wordsInArgv = given;
    if (known) return known;
    this.warned = false;
    const command = readCommand(argv, this.context);
    if (counters.length === 0 && !this.warned && command.output === undefined) this.alike.keep(rest, command, given);
    return command;
  }
}
