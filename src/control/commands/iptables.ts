/**
 * The iptables command: carries a read command line out on a table (iptables.c, do_command4). Also for the lines of
 * iptables-restore, which share one table until COMMIT.
 */
import { checkTable } from '../check.js';
import { newId, ZERO, type Rule, type Target, type Verdict } from '../model.js';
import type { Network } from '../text/address.js';
import type { Extension, Use } from '../ext/record.js';
import { Exit, TableError, ToolError } from '../text/problem.js';
import { Do, readCommand, type Command } from '../text/read.js';
import { changedRule, listHeader, listRule, type ListFormat } from '../text/list.js';
import { specText } from '../text/write.js';
import { Unresolved } from './backend.js';
import { isVerdict, type TableEdit } from './edit.js';
import { initErrorText, type Result, type Session } from './session.js';

/** Runs `argv`, the program's name first. */
export async function iptables(session: Session, argv: readonly string[]): Promise<Result> {
  for (;;) {
    const { stdout, stderr } = session;
    try {
      const command = readCommand(argv, {
        program: session.program,
        restore: false,
        table: 'filter',
        names: session.names,
        warn: session.warn,
      });
      if (command.output !== undefined) {
        session.print(command.output);
        return session.result(Exit.OK);
      }
      const edit = openTable(session, command.table);
      execute(command, edit, session);
      if (session.names.waiting) {
        // Only a listing goes on without a name: print it again with all of them.
        await session.names.resolve();
        Object.assign(session, { stdout, stderr });
        continue;
      }
      if (edit.changed) checkTable(edit.finish(), edit.table);
      session.take(edit);
      await session.commit();
      return session.result(Exit.OK);
    } catch (error) {
      if (!(error instanceof Unresolved)) return session.fail(error);
      Object.assign(session, { stdout, stderr });
      await session.names.resolve();
    }
  }
}

function openTable(session: Session, name: string): TableEdit {
  try {
    return session.open(name);
  } catch (error) {
    if (!(error instanceof TableError)) throw error;
    throw new ToolError(Exit.VERSION, `can't initialize iptables table \`${name}': ${initErrorText(error)}`);
  }
}

const RULE_COMMANDS = Do.APPEND | Do.DELETE | Do.CHECK | Do.INSERT | Do.REPLACE;

/** Carries a command out on a working copy. @throws ToolError, TableError */
export function execute(command: Command, edit: TableEdit, session: Session): void {
  const { chain, ruleNumber, verbose } = command;
  const target = command.command & RULE_COMMANDS ? targetOf(command, edit, session) : undefined;
  switch (command.command) {
    case Do.APPEND:
    case Do.INSERT:
    case Do.REPLACE:
    case Do.DELETE:
    case Do.CHECK:
      changeRules(command, target!, edit, session);
      break;
    case Do.DELETE_NUMBER:
      edit.deleteNumber(chain!, ruleNumber - 1);
      break;
    case Do.FLUSH:
      eachChain(edit, chain, true, (name) => {
        if (verbose) session.print(`Flushing chain \`${name}'\n`);
        edit.flush(name);
      });
      break;
    case Do.ZERO:
      zero(command, edit, session);
      break;
    case Do.ZERO_NUMBER:
      edit.zeroRule(chain!, ruleNumber);
      break;
    case Do.LIST:
    case Do.LIST | Do.ZERO:
    case Do.LIST | Do.ZERO_NUMBER:
      list(command, edit, session);
      break;
    case Do.LIST_RULES:
    case Do.LIST_RULES | Do.ZERO:
    case Do.LIST_RULES | Do.ZERO_NUMBER:
      listRules(command, edit, session);
      break;
    case Do.NEW_CHAIN:
      edit.create(chain!);
      break;
    case Do.DELETE_CHAIN:
      eachChain(edit, chain, false, (name) => {
        if (verbose) session.print(`Deleting chain \`${name}'\n`);
        edit.deleteChain(name);
      });
      break;
    case Do.RENAME_CHAIN:
      edit.rename(chain!, command.newName!);
      break;
    case Do.SET_POLICY:
      edit.setPolicy(chain!, command.policy!, command.counters);
      break;
    default:
      throw new ToolError(Exit.PARAMETER, '', true);
  }
  if (command.command & (Do.LIST | Do.LIST_RULES)) {
    if (command.command & Do.ZERO) zero(command, edit, session);
    if (command.command & Do.ZERO_NUMBER) edit.zeroRule(chain!, ruleNumber);
  }
}

/** The named chain, or all (the built-in ones only if `builtin`). The last error is the one reported. */
export function eachChain(
  edit: TableEdit,
  chain: string | undefined,
  builtin: boolean,
  act: (name: string) => void,
): void {
  if (chain !== undefined) {
    act(chain);
    return;
  }
  inOrder(
    edit.chainNames().filter((name) => builtin || !edit.isBuiltin(name)),
    act,
  );
}

/** Does all, even after failures of tables, and then fails with the last. */
function inOrder<T>(items: readonly T[], act: (item: T) => void): void {
  let failure: TableError | undefined;
  for (const item of items) {
    try {
      act(item);
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      failure = error;
    }
  }
  if (failure) throw failure;
}

function zero({ chain, verbose }: Command, edit: TableEdit, session: Session): void {
  eachChain(edit, chain, true, (name) => {
    if (verbose) session.print(`Zeroing chain \`${name}'\n`);
    edit.zero(name);
  });
}

// Rules share them.
const NO_TARGET: Target = { kind: 'none' };
const VERDICTS: Readonly<Record<Verdict, Target>> = {
  ACCEPT: { kind: 'verdict', verdict: 'ACCEPT' },
  DROP: { kind: 'verdict', verdict: 'DROP' },
  QUEUE: { kind: 'verdict', verdict: 'QUEUE' },
  RETURN: { kind: 'verdict', verdict: 'RETURN' },
};

/** What -j or -g means in this table. */
function targetOf(command: Command, edit: TableEdit, session: Session): Target {
  const { jump, goto } = command;
  if (jump === '') return NO_TARGET;
  if (edit.isChain(jump)) {
    if (command.target) session.warn(`Warning: using chain ${jump}, not extension\n`);
    return { kind: 'jump', chain: jump, goto };
  }
  if (command.target) return { kind: 'extension', use: command.target };
  if (!goto && isVerdict(jump)) return VERDICTS[jump];
  const error = new ToolError(
    Exit.PARAMETER,
    goto ? `goto '${jump}' is not a chain` : `Couldn't load target \`${jump}':No such file or directory\n`,
  );
  error.word = command.jumpAt;
  throw error;
}

const nameOf = ({ kind, name }: Extension): string => `-${kind === 'match' ? 'm' : 'j'} ${name}`;

/** Says what hutter, other than the kernel, does not do of a rule: refuses the rule, or warns. */
function judge(matches: readonly Use[], target: Target, session: Session): void {
  for (let i = 0; i < matches.length; i++) judgeUse(matches[i]!, session);
  if (target.kind === 'extension') judgeUse(target.use, session);
}

function judgeUse({ extension, data }: Use, session: Session): void {
  const reason = extension.cannot?.(data);
  if (reason !== undefined) session.refuse(`hutter can't do ${nameOf(extension)}: ${reason}`);
  const lacking = extension.lacks?.(data);
  if (lacking !== undefined) session.warn(`Warning: ${nameOf(extension)}: ${lacking}\n`);
}

/** A rule of its own; written out, so that all rules have one shape in memory. */
function newRule({ rule, counters }: Command, src: Network, dst: Network, target: Target): Rule {
  return {
    src,
    dst,
    notSrc: rule.notSrc,
    notDst: rule.notDst,
    in: rule.in,
    out: rule.out,
    notIn: rule.notIn,
    notOut: rule.notOut,
    proto: rule.proto,
    notProto: rule.notProto,
    fragment: rule.fragment,
    notFragment: rule.notFragment,
    matches: rule.matches,
    target,
    id: newId(),
    base: counters ?? ZERO,
  };
}

function changeRules(command: Command, target: Target, edit: TableEdit, session: Session): void {
  const { sources, destinations } = command;
  if (command.command & (Do.APPEND | Do.INSERT | Do.REPLACE)) judge(command.rule.matches, target, session);
  // Nearly all.
  if (sources.length === 1 && destinations.length === 1)
    changeRule(command, newRule(command, sources[0]!, destinations[0]!, target), edit, session);
  else
    inOrder(
      sources.flatMap((src) => destinations.map((dst) => newRule(command, src, dst, target))),
      (rule) => changeRule(command, rule, edit, session),
    );
}

function changeRule(command: Command, rule: Rule, edit: TableEdit, session: Session): void {
  const chain = command.chain!;
  const index = command.ruleNumber - 1;
  if (command.verbose) session.print(changedRule(rule, session.names));
  switch (command.command) {
    case Do.APPEND:
      edit.append(chain, rule);
      break;
    case Do.INSERT:
      edit.insert(chain, rule, index);
      break;
    case Do.REPLACE:
      edit.replace(chain, rule, index);
      break;
    case Do.DELETE:
      edit.delete(chain, rule);
      break;
    default:
      edit.check(chain, rule);
  }
}

function chainsOf({ chain }: Command, edit: TableEdit): string[] {
  const names = edit.chainNames().filter((name) => chain === undefined || name === chain);
  if (names.length === 0) throw new TableError('ENOENT', 'list', `no chain ${chain ?? ''}`);
  return names;
}

function list(command: Command, edit: TableEdit, session: Session): void {
  const { ruleNumber } = command;
  const format: ListFormat = {
    verbose: command.verbose > 0,
    numeric: command.numeric,
    exact: command.exact,
    lineNumbers: command.lineNumbers,
    names: session.names,
  };
  chainsOf(command, edit).forEach((name, i) => {
    if (i > 0) session.print('\n');
    const policy = edit.policy(name);
    const shown = policy && { verdict: policy.verdict, counters: edit.counters(policy) };
    if (ruleNumber === 0) session.print(listHeader(name, shown, edit.referencesTo(name), format));
    edit.rules(name).forEach((rule, j) => {
      if (ruleNumber === 0 || ruleNumber === j + 1) session.print(listRule(rule, j + 1, edit.counters(rule), format));
    });
  });
}

function listRules(command: Command, edit: TableEdit, session: Session): void {
  const { ruleNumber, verbose } = command;
  const names = chainsOf(command, edit);
  if (ruleNumber === 0)
    for (const name of names) {
      const policy = edit.policy(name);
      if (!policy) {
        session.print(`-N ${name}\n`);
        continue;
      }
      const { packets, bytes } = edit.counters(policy);
      session.print(`-P ${name} ${policy.verdict}${verbose ? ` -c ${packets} ${bytes}` : ''}\n`);
    }
  for (const name of names)
    edit.rules(name).forEach((rule, i) => {
      if (ruleNumber !== 0 && ruleNumber !== i + 1) return;
      session.print(`-A ${name}${specText(rule, verbose ? edit.counters(rule) : undefined)}\n`);
    });
}
