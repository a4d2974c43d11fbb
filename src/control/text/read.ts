/**
 * Reads a command line of iptables into a Command: options in any order, extensions loaded as they are named, each
 * complaint in the tool's words and in the order in which the tool would come to it (iptables/xshared.c, do_parse).
 * Pure: nothing is looked up but names, nothing is changed. A line of iptables-restore is read by the same function.
 *
 * More lenient than 1.8.9 in two things that it lost and old scripts have: `!` between option and argument, and
 * arguments attached to -s -d -p -i -o -j (`-s1.2.3.4`, `--source=1.2.3.4`), where 1.8.9 takes the whole word.
 */
import { matchNamed, targetNamed } from '../ext/registry.js';
import type { Extension, Names, Option, OptionCall, RuleHead, Seen, Use } from '../ext/record.js';
import { type Counters, type RuleSpec } from '../model.js';
import { parseProtocol, protocolName } from '../protocols.js';
import { looseAddress, networkAddress, prefixMask, type Network } from './address.js';
import { Getopt, longTable, type LongOption, type LongTable } from './getopt.js';
import { helpText } from './help.js';
import { wholeNumber } from './numbers.js';
import { Exit, problem, ToolError } from './problem.js';

export const VERSION = '1.8.9';

/** Commands, as the tool's bits (CMD_*): -L and -S may stand with -Z. */
export const enum Do {
  NONE = 0,
  INSERT = 1 << 0,
  DELETE = 1 << 1,
  DELETE_NUMBER = 1 << 2,
  REPLACE = 1 << 3,
  APPEND = 1 << 4,
  LIST = 1 << 5,
  FLUSH = 1 << 6,
  ZERO = 1 << 7,
  NEW_CHAIN = 1 << 8,
  DELETE_CHAIN = 1 << 9,
  SET_POLICY = 1 << 10,
  RENAME_CHAIN = 1 << 11,
  LIST_RULES = 1 << 12,
  ZERO_NUMBER = 1 << 13,
  CHECK = 1 << 14,
}
const COMMAND_LETTERS = 'IDDRALFZNXPESZC';

/** Options that every command knows, as the tool's bits (OPT_*); OPTION_LETTERS has their letters. */
const enum Opt {
  NUMERIC = 1 << 0,
  SOURCE = 1 << 1,
  DESTINATION = 1 << 2,
  PROTOCOL = 1 << 3,
  JUMP = 1 << 4,
  VERBOSE = 1 << 5,
  EXACT = 1 << 6,
  IN = 1 << 7,
  OUT = 1 << 8,
  LINE_NUMBERS = 1 << 9,
  COUNTERS = 1 << 10,
  FRAGMENT = 1 << 11,
}
const OPTION_LETTERS = 'nsdpjvxio0cf';
const INVERTIBLE = Opt.SOURCE | Opt.DESTINATION | Opt.PROTOCOL | Opt.IN | Opt.OUT | Opt.FRAGMENT;
const RULE_OPTIONS =
  Opt.SOURCE | Opt.DESTINATION | Opt.PROTOCOL | Opt.JUMP | Opt.IN | Opt.OUT | Opt.COUNTERS | Opt.FRAGMENT;
const LISTING = Opt.NUMERIC | Opt.EXACT | Opt.LINE_NUMBERS;

/** Options that a command does not take, by the position of the command's bit. */
const ILLEGAL: readonly number[] = [
  /* INSERT */ LISTING,
  /* DELETE */ LISTING | Opt.COUNTERS,
  /* DELETE_NUMBER */ LISTING | RULE_OPTIONS,
  /* REPLACE */ LISTING,
  /* APPEND */ LISTING,
  /* LIST */ RULE_OPTIONS,
  /* FLUSH */ LISTING | RULE_OPTIONS,
  /* ZERO */ LISTING | RULE_OPTIONS,
  /* NEW_CHAIN */ LISTING | RULE_OPTIONS,
  /* DELETE_CHAIN */ LISTING | RULE_OPTIONS,
  /* SET_POLICY */ LISTING | (RULE_OPTIONS & ~Opt.COUNTERS),
  /* RENAME_CHAIN */ LISTING | RULE_OPTIONS,
  /* LIST_RULES */ LISTING | RULE_OPTIONS,
  /* ZERO_NUMBER */ LISTING | RULE_OPTIONS,
  /* CHECK */ LISTING | Opt.COUNTERS,
];

const SHORTS = 'A:C:D:E:F::I:L::M:N:P:VX::Z::c:d:i:j:o:p:s:t:R:S::W::46bfg:h::m:nvw::x';
const long = (name: string, argument: 0 | 1 | 2, code: string): LongOption => ({ name, argument, code });
const LONGS = longTable([
  long('append', 1, 'A'),
  long('delete', 1, 'D'),
  long('check', 1, 'C'),
  long('insert', 1, 'I'),
  long('replace', 1, 'R'),
  long('list', 2, 'L'),
  long('list-rules', 2, 'S'),
  long('flush', 2, 'F'),
  long('zero', 2, 'Z'),
  long('new-chain', 1, 'N'),
  long('delete-chain', 2, 'X'),
  long('rename-chain', 1, 'E'),
  long('policy', 1, 'P'),
  long('source', 1, 's'),
  long('destination', 1, 'd'),
  long('src', 1, 's'),
  long('dst', 1, 'd'),
  long('protocol', 1, 'p'),
  long('in-interface', 1, 'i'),
  long('jump', 1, 'j'),
  long('table', 1, 't'),
  long('match', 1, 'm'),
  long('numeric', 0, 'n'),
  long('out-interface', 1, 'o'),
  long('verbose', 0, 'v'),
  long('wait', 2, 'w'),
  long('wait-interval', 2, 'W'),
  long('exact', 0, 'x'),
  long('fragments', 0, 'f'),
  long('version', 0, 'V'),
  long('help', 2, 'h'),
  long('line-numbers', 0, '0'),
  long('modprobe', 1, 'M'),
  long('set-counters', 1, 'c'),
  long('goto', 1, 'g'),
  long('ipv4', 0, '4'),
  long('ipv6', 0, '6'),
]);

/** What the tool's standard target stands for. */
const STANDARD: ReadonlySet<string> = new Set(['ACCEPT', 'DROP', 'QUEUE', 'RETURN', 'standard']);
const STANDARD_HELP = {
  name: 'standard',
  help: 'standard match options:\n(If target is DROP, ACCEPT, RETURN or nothing)\n',
};

/** Longest name of a chain, match or target, in bytes (XT_EXTENSION_MAXNAMELEN − 1). */
export const MAX_NAME = 28;

/** What a reading needs from around it. */
export interface ReadContext {
  /** `iptables` or `iptables-restore`: named in messages. */
  readonly program: string;
  /** A line of iptables-restore. */
  readonly restore: boolean;
  /** Table if the line names none. */
  readonly table: string;
  readonly names: Names;
  /** Names that are chains even though a target is called so (declared in the file that is read). */
  readonly announced?: ReadonlySet<string>;
  /** Takes a line for stderr. */
  readonly warn: (text: string) => void;
}

/** A command line, read. */
export interface Command {
  /** Do bits. */
  readonly command: number;
  readonly table: string;
  /** undefined: all chains. */
  readonly chain: string | undefined;
  /** 1 = first; 0 = none given. */
  readonly ruleNumber: number;
  readonly newName: string | undefined;
  readonly policy: string | undefined;
  /** How often -v was given. */
  readonly verbose: number;
  readonly numeric: boolean;
  readonly exact: boolean;
  readonly lineNumbers: boolean;
  /** -c; undefined if not given. */
  readonly counters: Counters | undefined;
  /** Seconds of -w: 0 not given, −1 for ever. */
  readonly wait: number;
  /** The rule without addresses and target; it stands for one rule for each pair of `sources` and `destinations`. */
  readonly rule: Omit<RuleSpec, 'src' | 'dst' | 'target'>;
  readonly sources: readonly Network[];
  readonly destinations: readonly Network[];
  /** Indexes of the words that -s and -d took; 0 = not given. */
  readonly sourceAt: number;
  readonly destinationAt: number;
  /** What -j or -g names; '' = nothing. Whether that is a chain only the table knows. */
  readonly jump: string;
  /** Index of that word. */
  readonly jumpAt: number;
  readonly goto: boolean;
  /** The extension of that name, if there is one. */
  readonly target: Use | undefined;
  /** How the matches and the target came to be, in this order. */
  readonly loaded: readonly Loaded[];
  /** Print this and end well: -h and -V. */
  readonly output: string | undefined;
}

/** An option of an extension, as it was given. */
interface GivenOption {
  readonly option: Option<unknown>;
  readonly invert: boolean;
  /** '' for options that take none. */
  readonly arg: string;
  /** Index in argv of the argument's word, or of the option's where it has none of its own. */
  readonly at: number;
  /** What was known of the rule then. */
  readonly rule: RuleHead;
  /** Words taken beside the argument. */
  readonly more: readonly string[];
}

/** An extension and all its options. `extension` is the record as named, an alias perhaps. */
export interface Loaded {
  readonly extension: Extension;
  readonly given: readonly GivenOption[];
}

/** An extension whose options are being read. */
interface Loading extends Loaded {
  given: readonly GivenOption[];
  readonly data: unknown;
  readonly seen: SeenList;
  /** A later use of the same name takes the options now. */
  completed: boolean;
  /** Index of the word that named it. */
  readonly word: number;
}

/** A list and one more: those of a rule are short, and one that grows by push gets room for seventeen. */
const more = <T>(list: readonly T[], item: T): readonly T[] => (list.length === 0 ? [item] : [...list, item]);

/** Few options are given: a list is smaller than a set. */
class SeenList implements Seen {
  private ids: readonly string[] = [];
  has(id: string): boolean {
    return this.ids.includes(id);
  }
  get size(): number {
    return this.ids.length;
  }
  add(id: string): void {
    if (!this.has(id)) this.ids = more(this.ids, id);
  }
}

interface OptionCode {
  readonly extension: Extension;
  readonly option: Option<unknown>;
}

const longsOf = new WeakMap<Extension, LongTable>();
/** The long options of an extension; all names of one option share a code. */
function extensionLongs(extension: Extension): LongTable {
  let longs = longsOf.get(extension);
  if (!longs) {
    longs = longTable(
      extension.options.flatMap((option): LongOption[] => {
        const code: OptionCode = { extension, option };
        return option.names.map((name) => ({ name, argument: option.arg ? 1 : 0, code }));
      }),
    );
    longsOf.set(extension, longs);
  }
  return longs;
}

/** The core's go first, then the extensions', the newest first. */
const CORE: readonly LongTable[] = [LONGS];
const extended = new WeakMap<readonly LongTable[], Map<Extension, readonly LongTable[]>>();
/** Rules load the same extensions again and again. */
function withExtension(longs: readonly LongTable[], extension: Extension): readonly LongTable[] {
  let known = extended.get(longs);
  if (!known) extended.set(longs, (known = new Map()));
  let more = known.get(extension);
  if (!more) known.set(extension, (more = [LONGS, extensionLongs(extension), ...longs.slice(1)]));
  return more;
}

const DEPRECATED_NOT =
  'Using intrapositioned negation (`--option ! this`) is deprecated in favor of extrapositioned (`! --option this`).\n';

/** Reads `argv` (with the program's name first). Throws ToolError, or Unresolved from `names`. */
export function readCommand(argv: readonly string[], context: ReadContext): Command {
  return new Reader(argv, context).read();
}

class Reader {
  private readonly getopt: Getopt;
  private longs: readonly LongTable[] = CORE;
  private command: number = Do.NONE;
  private options = 0;
  private inverted = 0;
  private invert = false;
  private table: string;
  private tableSet = false;
  private chain: string | undefined;
  private ruleNumber = 0;
  private newName: string | undefined;
  private policy: string | undefined;
  private verbose = 0;
  private wait = 0;
  private waitInterval = false;
  private protocolName: string | undefined;
  private protocolUsed = false;
  private source: string | undefined;
  private destination: string | undefined;
  private in = '';
  private out = '';
  private packets = 0n;
  private bytes = 0n;
  private jump = '';
  private goto = false;
  private matches: readonly Loading[] = [];
  private target: Loading | undefined;
  private helped: readonly Pick<Extension, 'name' | 'help'>[] = [];
  /** Word to blame for what is found wrong after the last option. */
  private blamed: number | undefined;
  private sourceAt = 0;
  private destinationAt = 0;
  private jumpAt = 0;
  private head: RuleHead = { proto: 0, notProto: false };

  constructor(
    private readonly argv: readonly string[],
    private readonly context: ReadContext,
  ) {
    this.getopt = new Getopt(argv, SHORTS, true);
    this.table = context.table;
  }

  read(): Command {
    try {
      return this.readAll();
    } catch (error) {
      if (error instanceof ToolError)
        error.word ??= Math.min(this.blamed ?? this.getopt.index - 1, this.argv.length - 1);
      throw error;
    }
  }

  private readAll(): Command {
    for (;;) {
      const got = this.getopt.next(this.longs);
      if (got === undefined) break;
      if (got.kind === 'word') {
        this.word(got.arg);
        continue;
      }
      if (got.kind !== 'option') {
        this.notAnOption(got.kind);
        continue;
      }
      if (typeof got.code === 'object') {
        this.extensionOption(got.code as OptionCode, got.arg);
      } else {
        const output = this.coreOption(got.code as string, got.arg);
        if (output !== undefined) return this.result([], [], output);
      }
      this.invert = false;
    }
    return this.finish();
  }

  private word(arg: string): void {
    if (arg !== '!') throw new ToolError(Exit.PARAMETER, `Bad argument \`${arg}'\n`, true);
    if (this.invert) problem('multiple consecutive ! not allowed');
    this.invert = true;
  }

  /** Perhaps it is an option of the protocol's match, which -p implies. */
  private notAnOption(kind: 'missing' | 'unknown'): void {
    const implied = this.impliedMatch();
    if (implied) {
      this.protocolUsed = true;
      this.load(implied);
      this.merge(implied);
      this.getopt.index--;
      return;
    }
    problem(
      kind === 'missing' ? `option "${this.getopt.last}" requires an argument` : `unknown option "${this.getopt.last}"`,
    );
  }

  private impliedMatch(): Extension | undefined {
    if (this.protocolName === undefined || this.protocolUsed) return undefined;
    const number = wholeNumber(this.protocolName, 0, 255);
    const name = number === undefined ? this.protocolName : protocolName(number, (this.options & Opt.NUMERIC) !== 0);
    return name === undefined ? undefined : matchNamed(name);
  }

  /** A fresh use at the end of the matches; options go to the last of a name. */
  private load(extension: Extension): void {
    const { matches } = this;
    for (let i = 0; i < matches.length; i++)
      if (matches[i]!.extension.name === extension.name) matches[i]!.completed = true;
    this.matches = more(matches, this.begin(extension));
  }

  private begin(extension: Extension): Loading {
    return {
      extension,
      given: NOT_GIVEN,
      data: extension.init(),
      seen: new SeenList(),
      completed: false,
      word: this.lastWord,
    };
  }

  private merge(extension: Extension): void {
    this.longs = withExtension(this.longs, extension);
  }

  private extensionOption({ extension, option }: OptionCode, given: string | undefined): void {
    const loading = extension.kind === 'target' ? this.target : this.openMatch(extension);
    if (!loading) problem(`Unknown arg "${given ?? '(null)'}"`);
    const id = option.names[0];
    const { name } = extension;
    let { invert } = this;
    let arg = given ?? '';
    if (option.arg && option.invert && arg === '!' && this.takeOldNot(invert)) {
      invert = true;
      arg = this.argv[this.getopt.index++]!;
    }
    if (!extension.plain) {
      if ((!option.multi || option.excl.includes(id)) && loading.seen.has(id))
        problem(`${name}: option "--${id}" can only be used once.\n`);
      if (invert && !option.invert) problem(`${name}: option "--${id}" cannot be inverted.\n`);
    }
    let taken: readonly string[] = NO_WORDS;
    const asGiven = { option, invert, arg, at: this.lastWord, rule: this.head };
    giveOption(
      loading,
      asGiven,
      this.context.names,
      () => {
        const word = this.argv[this.getopt.index];
        if (word === undefined || word.startsWith('-') || word.startsWith('!')) return undefined;
        this.getopt.index++;
        taken = more(taken, word);
        return word;
      },
      this.context.warn,
    );
    loading.given = more(loading.given, { ...asGiven, more: taken });
  }

  private openMatch(extension: Extension): Loading | undefined {
    const { matches } = this;
    for (let i = 0; i < matches.length; i++)
      if (matches[i]!.extension === extension && !matches[i]!.completed) return matches[i];
    return undefined;
  }

  /** The old place of `!`, between option and argument. 1.8.9 reads it no more; the rulesets that have it still do. */
  private takeOldNot(already: boolean): boolean {
    const next = this.argv[this.getopt.index];
    if (next === undefined || next.startsWith('-') || next === '!') return false;
    this.context.warn(DEPRECATED_NOT);
    if (already) problem("Multiple `!' flags not allowed");
    return true;
  }

  /** xs_has_arg: a word follows that is neither option nor negation. */
  private follows(): boolean {
    const next = this.argv[this.getopt.index];
    return next !== undefined && !next.startsWith('-') && !next.startsWith('!');
  }

  private addCommand(command: number, beside: number = Do.NONE): void {
    if (this.invert) problem("unexpected '!' flag");
    const clash = this.command & ~beside;
    if (clash) problem(`Cannot use -${letter(COMMAND_LETTERS, command)} with -${letter(COMMAND_LETTERS, clash)}`);
    this.command |= command;
  }

  private setOption(option: number): void {
    if (this.options & option) problem(`multiple -${letter(OPTION_LETTERS, option)} flags not allowed`);
    this.options |= option;
    if (this.invert) {
      if (!(option & INVERTIBLE)) problem(`cannot have ! before -${letter(OPTION_LETTERS, option)}`);
      this.inverted |= option;
    }
  }

  /**
   * Argument of -p, -s, -d, -i, -o and -j. The tool takes the last word whole, so that what stands in one word with its option
   * (`-ptcp`, `--jump=ACCEPT`) is read with it. All but -j can be negated, the old way, too.
   */
  private negatable(): string {
    const arg = this.getopt.last;
    if (arg !== '!' || !this.takeOldNot(this.invert)) return arg;
    this.invert = true;
    return this.argv[this.getopt.index++]!;
  }

  private rulePosition(): number {
    const word = this.argv[this.getopt.index++]!;
    return wholeNumber(word, 1, 0x7fffffff) ?? problem(`Invalid rule number \`${word}'`);
  }

  private optionalChain(attached: string | undefined): void {
    if (attached !== undefined) this.chain = attached;
    else if (this.follows()) this.chain = this.argv[this.getopt.index++]!;
  }

  /** Reads an option of the core; text to print if the command ends with it. */
  private coreOption(code: string, optional: string | undefined): string | undefined {
    const arg = optional ?? '';
    switch (code) {
      case 'A':
        this.addCommand(Do.APPEND);
        this.chain = arg;
        break;
      case 'C':
        this.addCommand(Do.CHECK);
        this.chain = arg;
        break;
      case 'D':
        this.addCommand(Do.DELETE);
        this.chain = arg;
        if (this.follows()) {
          this.ruleNumber = this.rulePosition();
          this.command = Do.DELETE_NUMBER;
        }
        break;
      case 'R':
        this.addCommand(Do.REPLACE);
        this.chain = arg;
        if (!this.follows()) problem('-R requires a rule number');
        this.ruleNumber = this.rulePosition();
        break;
      case 'I':
        this.addCommand(Do.INSERT);
        this.chain = arg;
        this.ruleNumber = this.follows() ? this.rulePosition() : 1;
        break;
      case 'L':
      case 'S':
        this.addCommand(code === 'L' ? Do.LIST : Do.LIST_RULES, Do.ZERO | Do.ZERO_NUMBER);
        this.optionalChain(optional);
        if (this.follows()) this.ruleNumber = this.rulePosition();
        break;
      case 'F':
        this.addCommand(Do.FLUSH);
        this.optionalChain(optional);
        break;
      case 'Z':
        this.addCommand(Do.ZERO, Do.LIST | Do.LIST_RULES);
        this.optionalChain(optional);
        if (this.follows()) {
          this.ruleNumber = this.rulePosition();
          this.command = Do.ZERO_NUMBER;
        }
        break;
      case 'N':
        this.checkChainName(arg);
        this.addCommand(Do.NEW_CHAIN);
        this.chain = arg;
        break;
      case 'X':
        this.addCommand(Do.DELETE_CHAIN);
        this.optionalChain(optional);
        break;
      case 'E':
        this.addCommand(Do.RENAME_CHAIN);
        this.chain = arg;
        if (!this.follows()) problem('-E requires old-chain-name and new-chain-name');
        this.newName = this.argv[this.getopt.index++]!;
        break;
      case 'P':
        this.addCommand(Do.SET_POLICY);
        this.chain = arg;
        if (!this.follows()) problem('-P requires a chain and a policy');
        this.policy = this.argv[this.getopt.index++]!;
        break;
      case 'h':
        return this.help();
      case 'V':
        return this.invert ? `Not ${VERSION} (legacy) ;-)\n` : `${this.context.program} v${VERSION} (legacy)\n`;
      case 'p':
        this.readProtocol();
        break;
      case 's':
        this.source = this.negatable();
        this.sourceAt = this.getopt.index - 1;
        this.setOption(Opt.SOURCE);
        break;
      case 'd':
        this.destination = this.negatable();
        this.destinationAt = this.getopt.index - 1;
        this.setOption(Opt.DESTINATION);
        break;
      case 'i':
        if (arg === '') problem('Empty interface is likely to be undesired');
        this.in = this.readInterface(Opt.IN);
        break;
      case 'o':
        if (arg === '') problem('Empty interface is likely to be undesired');
        this.out = this.readInterface(Opt.OUT);
        break;
      case 'g':
        this.setOption(Opt.JUMP);
        this.goto = true;
        this.jumpAt = this.getopt.index - 1;
        this.jump = targetName(arg);
        break;
      case 'j':
        this.setOption(Opt.JUMP);
        this.readJump(this.getopt.last);
        break;
      case 'f':
        this.setOption(Opt.FRAGMENT);
        break;
      case 'm':
        this.readMatch(arg);
        break;
      case 'v':
        if (this.verbose === 0) this.setOption(Opt.VERBOSE);
        this.verbose++;
        break;
      case 'n':
        this.setOption(Opt.NUMERIC);
        break;
      case 'x':
        this.setOption(Opt.EXACT);
        break;
      case '0':
        this.setOption(Opt.LINE_NUMBERS);
        break;
      case 't':
        if (this.invert) problem('unexpected ! flag before --table');
        if (this.context.restore && this.tableSet)
          problem(`The -t option cannot be used in ${this.context.program}.\n`);
        this.table = arg;
        this.tableSet = true;
        break;
      case 'w':
        if (this.context.restore) problem("You cannot use `-w' from iptables-restore");
        this.wait = this.waitTime(optional);
        break;
      case 'W':
        if (this.context.restore) problem("You cannot use `-W' from iptables-restore");
        this.readWaitInterval(optional);
        break;
      case 'M':
        break;
      case 'c':
        this.readCounters(arg);
        break;
      case '4':
        break;
      case '6':
        if (this.context.restore) return '';
        throw new ToolError(Exit.PARAMETER, '', true);
      default:
        // `b` is in the option string and means nothing.
        if (this.impliedMatch()) {
          this.notAnOption('unknown');
          break;
        }
        problem(`Unknown arg "${optional ?? '(null)'}"`);
    }
    return undefined;
  }

  private help(): string {
    if (this.matches.length === 0 && this.protocolName !== undefined) {
      const implied = matchNamed(this.protocolName);
      if (implied) this.load(implied);
    }
    return helpText(
      this.context.program,
      [...this.helped].reverse(),
      this.matches.map((each) => each.extension),
    );
  }

  private readProtocol(): void {
    const raw = this.negatable();
    const arg = /[A-Z]/.test(raw) ? raw.replace(/[A-Z]/g, (c) => c.toLowerCase()) : raw;
    this.setOption(Opt.PROTOCOL);
    this.protocolName = arg;
    const proto = parseProtocol(arg);
    const notProto = (this.inverted & Opt.PROTOCOL) !== 0;
    if (proto === 0 && notProto) problem('rule would never match protocol');
    this.head = { proto, notProto };
  }

  private readInterface(option: number): string {
    const arg = this.negatable();
    this.setOption(option);
    if (arg.length > 15) problem(`interface name \`${arg}' must be shorter than IFNAMSIZ (15)`);
    if (/[/ ]/.test(arg))
      this.context.warn(
        `Warning: weird character in interface \`${arg}' ('/' and ' ' are not allowed by the kernel).\n`,
      );
    return arg;
  }

  private findTarget(name: string): Extension | undefined {
    return this.context.announced?.has(name) ? undefined : targetNamed(name);
  }

  private readJump(name: string): void {
    this.jumpAt = this.getopt.index - 1;
    this.jump = targetName(name);
    if (STANDARD.has(name)) this.helped = more(this.helped, STANDARD_HELP);
    const extension = this.findTarget(name);
    if (!extension) return;
    this.helped = more(this.helped, extension);
    if (extension.realName !== undefined && extension.noticeConversion)
      this.context.warn(
        `Notice: The ${name} target is converted into ${extension.realName} target in rule listing and saving.\n`,
      );
    this.target = this.begin(extension);
    this.merge(extension);
  }

  private readMatch(given: string): void {
    if (this.invert) problem('unexpected ! flag before --match');
    if (given.length > MAX_NAME) problem(`Invalid match name "${given}" (${MAX_NAME} chars max)`);
    const name = /^(icmpv6|ipv6-icmp)$/.test(given) ? 'icmp6' : given;
    const extension = matchNamed(name);
    if (!extension) problem(`Couldn't load match \`${name}':No such file or directory\n`);
    if (extension.realName !== undefined && extension.noticeConversion)
      this.context.warn(
        `Notice: the ${name} match is converted into ${extension.realName} match in rule listing and saving.\n`,
      );
    const before = this.matches.length;
    this.load(extension);
    for (let i = 0; i < before; i++) if (this.matches[i]!.extension === extension) return;
    this.merge(extension);
  }

  private checkChainName(name: string): void {
    if (name.length > MAX_NAME) problem(`chain name \`${name}' too long (must be under ${MAX_NAME + 1} chars)`);
    if (name.startsWith('-') || name.startsWith('!')) problem(`chain name not allowed to start with \`${name[0]}'`);
    if (name === '' || STANDARD.has(name) || this.findTarget(name))
      problem('chain name may not clash with target name');
    if (/[ \t-\r]/.test(name)) problem(`Invalid chain name \`${name}'`);
  }

  private waitTime(attached: string | undefined): number {
    const text = attached ?? (this.follows() ? this.argv[this.getopt.index++]! : undefined);
    if (text === undefined) return -1;
    const found = /^[ \t-\r]*([+-]?)(0[xX][0-9a-fA-F]+|\d+)/.exec(text);
    if (!found) problem('wait seconds not numeric');
    const digits = found[2]!;
    const value = /^0[0-7]+$/.test(digits) ? parseInt(digits, 8) : Number(digits);
    return found[1] === '-' ? -value : value;
  }

  private readWaitInterval(attached: string | undefined): void {
    const text = attached ?? (this.follows() ? this.argv[this.getopt.index++]! : undefined);
    if (text === undefined) problem('wait interval value required');
    const found = /^[ \t-\r]*\+?(\d+)/.exec(text);
    if (!found) problem('wait interval not numeric');
    if (Number(found[1]) > 999999) problem(`too long usec wait ${found[1]} > 999999 usec`);
    this.context.warn('Ignoring deprecated --wait-interval option.\n');
    this.waitInterval = true;
  }

  private readCounters(arg: string): void {
    this.setOption(Opt.COUNTERS);
    const comma = arg.indexOf(',', 1);
    let bytes = comma < 0 ? undefined : arg.slice(comma + 1);
    if (bytes === undefined && this.follows()) bytes = this.argv[this.getopt.index++]!;
    if (bytes === undefined) problem('-c requires packet and byte counter');
    this.packets = counter(arg) ?? problem('-c packet counter not numeric');
    this.bytes = counter(bytes) ?? problem('-c byte counter not numeric');
  }

  private finish(): Command {
    if (this.table === 'nat' && (this.policy === 'DROP' || this.jump === 'DROP'))
      problem('\nThe "nat" table is not intended for filtering, the use of DROP is therefore inhibited.\n\n');
    if (this.wait === 0 && this.waitInterval) problem('--wait-interval only makes sense with --wait\n');
    for (let i = 0; i < this.matches.length; i++) this.finalCheck(this.matches[i]!);
    if (this.target) this.finalCheck(this.target);
    this.blamed = undefined;
    if (this.getopt.index < this.argv.length) problem('unknown arguments found on commandline');
    if (this.command === Do.NONE) problem('no command specified');
    if (this.invert) problem('nothing appropriate following !');

    const rules = this.command & (Do.REPLACE | Do.INSERT | Do.DELETE | Do.APPEND | Do.CHECK);
    const none = rules ? ANY : NONE;
    this.blamed = this.sourceAt;
    const sources = this.source === undefined ? none : readNetworks(this.source, this.context.names);
    this.blamed = this.destinationAt;
    const destinations = this.destination === undefined ? none : readNetworks(this.destination, this.context.names);
    this.blamed = undefined;
    if ((sources.length > 1 || destinations.length > 1) && this.inverted & (Opt.SOURCE | Opt.DESTINATION))
      problem('! not allowed with multiple source or destination IP addresses');
    if (this.command === Do.REPLACE && (sources.length !== 1 || destinations.length !== 1))
      problem('Replacement rule does not specify a unique address');
    this.checkOptions();
    if (this.chain !== undefined && this.chain.length > MAX_NAME)
      problem(`chain name \`${this.chain}' too long (must be under ${MAX_NAME + 1} chars)`);
    if (rules || this.command === Do.DELETE_NUMBER) {
      if ((this.chain === 'PREROUTING' || this.chain === 'INPUT') && this.options & Opt.OUT)
        problem(`Can't use -o with ${this.chain}\n`);
      if ((this.chain === 'POSTROUTING' || this.chain === 'OUTPUT') && this.options & Opt.IN)
        problem(`Can't use -i with ${this.chain}\n`);
    }
    return this.result(sources, destinations, undefined);
  }

  private checkOptions(): void {
    let illegal = 0;
    for (let j = 0; j < ILLEGAL.length; j++) if (this.command & (1 << j)) illegal |= ILLEGAL[j]!;
    if ((this.options & illegal) === 0) return;
    for (let i = 0; i < OPTION_LETTERS.length; i++) {
      const option = 1 << i;
      if (!(this.options & option)) continue;
      let legal = 0;
      for (let j = 0; j < ILLEGAL.length; j++) {
        if (!(this.command & (1 << j))) continue;
        if (!(ILLEGAL[j]! & option)) legal = 1;
        else if (legal === 0) legal = -1;
      }
      if (legal === -1) problem(`Illegal option \`-${OPTION_LETTERS[i]}' with this command`);
    }
  }

  private get lastWord(): number {
    return this.getopt.index - 1;
  }

  private finalCheck({ extension, data, seen, word }: Loading): void {
    this.blamed = word;
    if (extension.finalCheck) extension.finalCheck(data, seen, { warn: this.context.warn, rule: this.head });
    if (extension.plain) return;
    const { name } = extension;
    const { options } = extension;
    for (let i = 0; i < options.length; i++) {
      const option = options[i]!;
      const id = option.names[0];
      if (option.mandatory && !seen.has(id)) problem(`${name}: option "--${id}" must be specified\n`);
      if ((option.also.length === 0 && option.excl.length === 0) || !seen.has(id)) continue;
      for (const other of options) {
        const otherId = other.names[0];
        if (other === option) continue;
        if (option.also.includes(otherId) && !seen.has(otherId))
          problem(`${name}: option "--${id}" also requires "--${otherId}".\n`);
        if (option.excl.includes(otherId) && seen.has(otherId))
          problem(`${name}: option "--${id}" cannot be used together with "--${otherId}".\n`);
      }
    }
  }

  private result(sources: readonly Network[], destinations: readonly Network[], output: string | undefined): Command {
    return {
      command: this.command,
      table: this.table,
      chain: this.chain,
      ruleNumber: this.ruleNumber,
      newName: this.newName,
      policy: this.policy,
      verbose: this.verbose,
      numeric: (this.options & Opt.NUMERIC) !== 0,
      exact: (this.options & Opt.EXACT) !== 0,
      lineNumbers: (this.options & Opt.LINE_NUMBERS) !== 0,
      counters: this.options & Opt.COUNTERS ? { packets: this.packets, bytes: this.bytes } : undefined,
      wait: this.wait,
      rule: {
        notSrc: (this.inverted & Opt.SOURCE) !== 0,
        notDst: (this.inverted & Opt.DESTINATION) !== 0,
        in: this.in,
        out: this.out,
        notIn: (this.inverted & Opt.IN) !== 0,
        notOut: (this.inverted & Opt.OUT) !== 0,
        proto: this.head.proto,
        notProto: this.head.notProto,
        fragment: (this.options & Opt.FRAGMENT) !== 0,
        notFragment: (this.inverted & Opt.FRAGMENT) !== 0,
        matches: this.matches.map(useOf),
      },
      sources,
      destinations,
      sourceAt: this.sourceAt,
      destinationAt: this.destinationAt,
      jump: this.jump,
      jumpAt: this.jumpAt,
      goto: this.goto,
      target: this.target && useOf(this.target),
      loaded: this.target ? [...this.matches, this.target] : this.matches,
      output,
    };
  }
}

function giveOption(
  { extension, data, seen }: Pick<Loading, 'extension' | 'data' | 'seen'>,
  { option, invert, arg, rule }: Omit<GivenOption, 'more'>,
  names: Names,
  nextWord: () => string | undefined,
  warn: (text: string) => void,
): void {
  const id = option.names[0];
  const { name } = extension;
  const call: OptionCall<unknown> = {
    arg,
    invert,
    option: id,
    extension: name,
    data,
    rule,
    names,
    seen,
    nextWord,
    warn,
  };
  const value = option.arg ? option.arg.parse(call as OptionCall<never>) : true;
  option.set(data, value, call);
  seen.add(id);
}

/**
 * A use of the same extension with the same options, whose arguments at some indexes are others. @throws ToolError where
 * one can't be read, or it led to a warning; Unresolved from `names`
 */
export function readAgain(
  { extension, given }: Loaded,
  argument: (at: number) => string | undefined,
  rule: RuleHead,
  names: Names,
): Use {
  const again = { extension, data: extension.init(), seen: new SeenList() };
  for (let i = 0; i < given.length; i++) {
    const option = given[i]!;
    let taken = 0;
    giveOption(
      again,
      { ...option, arg: argument(option.at) ?? option.arg },
      names,
      () => option.more[taken++],
      problem,
    );
  }
  extension.finalCheck?.(again.data, again.seen, { warn: problem, rule });
  return useOf(again);
}

const NOT_GIVEN: readonly GivenOption[] = [];
const NO_WORDS: readonly string[] = [];

/** The use that a rule keeps: of the real extension, where the name was an alias. */
function useOf({ extension, data }: Pick<Loading, 'extension' | 'data'>): Use {
  if (extension.realName === undefined) return { extension, data };
  const find = extension.kind === 'match' ? matchNamed : targetNamed;
  return { extension: find(extension.realName) ?? extension, data };
}

/** No address given: any, or none is asked for. */
const ANY: readonly Network[] = [{ addr: 0, mask: 0 }];
const NONE: readonly Network[] = [];

/** Letter of the highest bit. */
const letter = (letters: string, bits: number): string => letters[31 - Math.clz32(bits)] ?? '?';

function targetName(name: string): string {
  if (name === '') problem('Invalid target name (too short)');
  if (name.length > MAX_NAME) problem(`Invalid target name \`${name}' (${MAX_NAME} chars max)`);
  if (/[ \t-\r]/.test(name)) problem(`Invalid target name \`${name}'`);
  return name;
}

/** sscanf("%llu") */
function counter(text: string): bigint | undefined {
  const found = /^[ \t-\r]*([+-]?)(\d+)/.exec(text);
  if (!found) return undefined;
  const value = BigInt(found[2]!);
  if (value > 0xffff_ffff_ffff_ffffn) return 0xffff_ffff_ffff_ffffn;
  return found[1] === '-' ? BigInt.asUintN(64, -value) : value;
}

/** The tool's -s and -d: `address[/mask][,…]`; a host name may stand for several addresses. */
export function readNetworks(text: string, names: Names): readonly Network[] {
  return text.includes(',') ? text.split(',').flatMap((part) => readNetwork(part, names)) : readNetwork(text, names);
}

function readNetwork(text: string, names: Names): readonly Network[] {
  const item = text.charCodeAt(0) <= 32 ? text.replace(/^[ \t-\r]+/, '') : text;
  if (item.length > 255) problem('Hostname too long');
  const slash = item.lastIndexOf('/');
  const mask = slash < 0 ? -1 : readMask(item.slice(slash + 1));
  // With a mask of nothing the name does not matter.
  const name = mask === 0 ? '0.0.0.0' : slash < 0 ? item : item.slice(0, slash);
  const address = looseAddress(name) ?? networkAddress(name);
  if (address !== undefined) return [{ addr: address & mask, mask }];
  const addresses = names.host(name);
  if (typeof addresses === 'string' || addresses.length === 0) problem(`host/network \`${name}' not found`);
  return addresses.map((addr) => ({ addr: addr & mask, mask }));
}

function readMask(text: string): number {
  const dotted = text.includes('.') ? looseAddress(text, true) : undefined;
  if (dotted !== undefined) return dotted;
  return prefixMask(wholeNumber(text, 0, 32) ?? problem(`invalid mask \`${text}' specified`));
}
