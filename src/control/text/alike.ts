/**
 * Lines that are alike. A large file holds few kinds of rules and each of them many times, with other addresses and ports.
 * What the first of a kind was read as is kept; for another, only the arguments in which it differs are read, by the same
 * functions. Reading a whole line is several times that, above all while V8 hasn't compiled all that it takes.
 *
 * Two lines are of a kind if they have the same words but for networks behind -s and -d and arguments of long options that
 * begin with a digit. One object for lines that are read in one and the same context.
 */
import type { Names } from '../ext/record.js';
import { plainNetwork, type Network } from './address.js';
import { ToolError } from './problem.js';
import { readAgain, type Command } from './read.js';
import { evenWords, isPlain } from './words.js';

/** Most kinds that are kept: a file of which no line is like another isn't to be held twice. */
const MAX_KINDS = 4096;

/** The first of a kind, and what the others have of their own. */
interface Kind {
  readonly command: Command;
  /** Words of argv before the line's. */
  readonly before: number;
  /** Whether the networks of -s and -d are their own, and indexes of the command's `loaded` that are. */
  readonly source: boolean;
  readonly destination: boolean;
  readonly loaded: readonly number[];
}

export class AlikeLines {
  private readonly kinds = new Map<string, Kind>();
  // Of the line that was asked for last: what it has in common with its kind, and three numbers for each word of its own:
  // the word's index, its offset, its end.
  private common = '';
  private readonly own: number[] = [];

  constructor(private readonly names: Names) {}

  /** The command of a line, if one of its kind was read before. @throws Unresolved from `names` */
  find(line: string): Command | undefined {
    this.divide(line);
    const kind = this.kinds.get(this.common);
    return kind && this.another(kind, line);
  }

  /**
   * Takes in what the line that was not found last was read as. Nobody was warned, and nothing is to be printed.
   * `before`: words of argv before the line's.
   */
  keep(line: string, command: Command, before: number): void {
    if (evenWords(line) === undefined) return;
    const { own } = this;
    let [source, destination] = [false, false];
    const loaded = new Set<number>();
    for (let i = 0; i < own.length; i += 3) {
      const at = before + own[i]!;
      const of = command.loaded.findIndex(({ given }) => given.some((option) => option.at === at));
      if (at === command.sourceAt) source = true;
      else if (at === command.destinationAt) destination = true;
      else if (of >= 0) loaded.add(of);
      // Something else, and so may be what stands there in another line.
      else return;
    }
    if (this.kinds.size === MAX_KINDS) this.kinds.clear();
    this.kinds.set(this.common, { command, before, source, destination, loaded: [...loaded] });
  }

  /** As if the line were plain, with single blanks. Of a kind that is kept, all but the own words is. */
  private divide(line: string): void {
    const { own } = this;
    own.length = 0;
    let common = '';
    let from = 0;
    let taken = false;
    for (let at = 0, index = 0; at < line.length; index++) {
      const blank = line.indexOf(' ', at);
      const end = blank >= 0 ? blank : line.endsWith('\n') ? line.length - 1 : line.length;
      const first = line.charCodeAt(at);
      if (taken && first >= ZERO && first <= NINE) {
        own.push(index, at, end);
        common += line.slice(from, at) + OWN;
        from = end;
      }
      const second = line.charCodeAt(at + 1);
      taken = first === DASH && (second === DASH || ((second === S || second === D) && end === at + 2));
      at = end + 1;
    }
    this.common = common + line.slice(from);
  }

  /** Own word of the line by its index. */
  private word(line: string, index: number): string | undefined {
    const { own } = this;
    for (let i = 0; i < own.length; i += 3) if (own[i] === index) return line.slice(own[i + 1], own[i + 2]);
    return undefined;
  }

  private another(kind: Kind, line: string): Command | undefined {
    if (!isPlain(line)) return undefined;
    const { command, before } = kind;
    const sources = kind.source ? this.network(line, command.sourceAt - before) : command.sources;
    const destinations = kind.destination ? this.network(line, command.destinationAt - before) : command.destinations;
    // What isn't simple is read as a whole; so is what is wrong, for the sake of what is said of it.
    if (sources === undefined || destinations === undefined) return undefined;
    if (kind.loaded.length === 0) return { ...command, sources, destinations };
    let { rule, target } = command;
    const matches = [...rule.matches];
    try {
      for (const index of kind.loaded) {
        const use = readAgain(command.loaded[index]!, (at) => this.word(line, at - before), rule, this.names);
        if (index < matches.length) matches[index] = use;
        else target = use;
      }
    } catch (error) {
      if (error instanceof ToolError) return undefined;
      throw error;
    }
    rule = { ...rule, matches };
    return { ...command, sources, destinations, rule, target };
  }

  private network(line: string, index: number): readonly Network[] | undefined {
    const network = plainNetwork(this.word(line, index)!);
    return network && [network];
  }
}

/** Stands for a word of the line's own; no line has a NUL. */
const OWN = '\0';
const [ZERO, NINE, DASH, S, D] = [48, 57, 45, 115, 100];
