/**
 * Looks at a file for iptables-restore without a router: everything that is wrong with it, not the first error alone, and
 * what iptables-save would print had it been loaded on empty tables. What hutter speaks but can't carry out is a warning.
 */
import { tableErrors } from '../check.js';
import type { Ruleset } from '../model.js';
import { TableError, ToolError } from '../text/problem.js';
import { rulesElsewhere, unmetRules } from '../unmet.js';
import { splitLines } from '../text/words.js';
import { MemoryBackend, Unresolved, type Backend } from './backend.js';
import { tableErrorText } from './edit.js';
import { RestoreReader } from './restore.js';
import { save } from './save.js';
import { Session } from './session.js';

export interface Finding {
  readonly severity: 'error' | 'warning';
  /** From 1. */
  readonly line: number;
  /** From 1, in bytes. */
  readonly column: number;
  /** One or more sentences, no line feed. */
  readonly message: string;
}

export interface FileReport {
  /** By line and column. */
  readonly findings: readonly Finding[];
  /** The tables as far as they could be read; whole if there is no error. */
  readonly ruleset: Ruleset;
  /** What iptables-save would print. */
  readonly saved: string;
  /** Lines of rules and policies, by their ids; policies that the file doesn't set have none. */
  readonly lines: ReadonlyMap<number, number>;
}

export interface FileOptions {
  /** Looks host names up; without it no name is known. */
  readonly names?: Pick<Backend, 'host' | 'hostName'>;
  /** Take the counters in the file over, as iptables-restore -c does. */
  readonly counters?: boolean;
  /** Warn of rules that no packet can meet. */
  readonly unmet?: boolean;
  /** With `unmet`: all interfaces that packets can come or go by; any where it is left out. */
  readonly interfaces?: readonly string[] | undefined;
}

/** A session that takes refusals and warnings as findings. */
class CheckSession extends Session {
  readonly findings: Finding[] = [];

  override refuse(reason: string): void {
    this.add('warning', 1, reason);
  }

  add(severity: Finding['severity'], column: number, message: string, line = this.line): void {
    this.findings.push({ severity, line, column, message: message.trim().replace(/\s*\n\s*/g, ' ') });
  }
}

/** @param text byte string (text/problem.ts) */
export async function checkFile(text: string, options: FileOptions = {}): Promise<FileReport> {
  const backend = new MemoryBackend();
  if (options.names) {
    const { names } = options;
    backend.host = (name) => names.host(name);
    backend.hostName = (addr) => names.hostName(addr);
  }
  const session = new CheckSession('iptables-restore', backend);
  session.line = 0;
  const reader = new RestoreReader(
    session,
    { counters: options.counters ?? false, verbose: 0, test: false, noflush: false, table: undefined },
    'iptables-restore',
  );
  const lineOfRule = new Map<number, number>();
  /** A table line was refused: its lines say nothing until the next one. */
  let skipping = false;
  for (const line of splitLines(text)) {
    session.line++;
    if (skipping && !line.startsWith('*')) {
      if (line.startsWith('COMMIT')) skipping = false;
      continue;
    }
    skipping = false;
    const { edit } = reader;
    if (edit && line === 'COMMIT\n') {
      reader.edit = undefined;
      kernelErrors(session, lineOfRule, () => tableErrors(edit.finish()));
      session.take(edit);
      continue;
    }
    if (!(await take(session, reader, line)) && line.startsWith('*') && !edit) skipping = true;
    if (reader.ended) {
      session.add('error', 1, 'ends iptables-restore: nothing below is read');
      reader.ended = false;
    }
    for (const id of (reader.edit ?? edit)?.added.splice(0) ?? []) lineOfRule.set(id, session.line);
    const policy = line.startsWith(':') ? reader.edit?.policy(line.slice(1).split(/\s/)[0]!) : undefined;
    if (policy !== undefined) lineOfRule.set(policy.id, session.line);
  }
  if (reader.edit) {
    session.add('error', 1, 'COMMIT expected', session.line + 1);
    session.take(reader.edit);
  }
  await session.commit();
  const { stdout } = await save(new Session('iptables-save', backend), [
    'iptables-save',
    ...(options.counters ? ['-c'] : []),
  ]);
  if (options.unmet) {
    unmetWarnings(session, lineOfRule, backend.ruleset());
    for (const { rule, name } of rulesElsewhere(backend.ruleset(), options.interfaces))
      session.add(
        'warning',
        1,
        `no packet can meet this rule: the configuration has no interface ${name}`,
        lineOfRule.get(rule),
      );
  }
  const findings = session.findings.sort((a, b) => a.line - b.line || a.column - b.column);
  return { findings, ruleset: backend.ruleset(), saved: stdout, lines: lineOfRule };
}

/** Reads a line, waiting for names; false if it was refused. */
async function take(session: CheckSession, reader: RestoreReader, line: string): Promise<boolean> {
  for (;;) {
    const { length } = session.findings;
    session.stderr = '';
    reader.newLine();
    try {
      reader.take(line);
      if (session.stderr !== '') session.add('warning', 1, session.stderr);
      return true;
    } catch (error) {
      session.findings.length = length;
      if (error instanceof Unresolved) {
        await session.names.resolve();
        continue;
      }
      if (!(error instanceof ToolError)) throw error;
      const column = 1 + reader.offsetOf(error.word ?? 0);
      session.add('error', column, lineText(error, session));
      return false;
    }
  }
}

/** "line N failed" says nothing to someone who sees the line: the reason was logged. */
function lineText(error: ToolError, session: CheckSession): string {
  const reason = session.log.splice(0).join('; ');
  if (!error.plain || !/ line \d+ failed\n$/.test(error.message)) return error.message;
  return reason === '' ? 'not a line of a rules file, or outside a table' : reason;
}

/** Rules that went again, by -D or -F in the file, have no say. */
function unmetWarnings(session: CheckSession, lineOfRule: ReadonlyMap<number, number>, ruleset: Ruleset): void {
  for (const { rule, by } of unmetRules(ruleset)) {
    const taker = by === undefined ? undefined : lineOfRule.get(by);
    const reason =
      by === undefined ? 'its conditions exclude each other' : `line ${taker} takes all packets that it could match`;
    session.add('warning', 1, `no packet can meet this rule: ${reason}`, lineOfRule.get(rule));
  }
}

function kernelErrors(
  session: CheckSession,
  lineOfRule: ReadonlyMap<number, number>,
  errors: () => Iterable<TableError>,
): void {
  for (const error of errors()) {
    const line = error.ruleId === undefined ? undefined : lineOfRule.get(error.ruleId);
    session.add('error', 1, error.detail === '' ? tableErrorText(error) : error.detail, line);
  }
}
