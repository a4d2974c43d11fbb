/**
 * getopt_long as glibc does it under an option string that begins with `-` (or not): clusters, values attached or
 * apart, `--name=value`, unambiguous abbreviations, non-options in their place. The table of long options may grow
 * between two calls, as extensions are loaded while the line is read. Errors are results, never messages.
 */

/** One long option. `code` tells options apart: two names with one code are no ambiguity. */
export interface LongOption {
  readonly name: string;
  /** 0 none, 1 required, 2 optional (attached only). */
  readonly argument: 0 | 1 | 2;
  readonly code: unknown;
}

/** Long options that come as one: the core's, or an extension's. */
export interface LongTable {
  readonly options: readonly LongOption[];
  /** The first of each name. */
  readonly byName: ReadonlyMap<string, LongOption>;
}
export function longTable(options: readonly LongOption[]): LongTable {
  return { options, byName: new Map([...options].reverse().map((option) => [option.name, option])) };
}

/** Arguments that each short option takes, by letter. */
const parsedShorts = new Map<string, ReadonlyMap<string, 0 | 1 | 2>>();
function shortsOf(text: string): ReadonlyMap<string, 0 | 1 | 2> {
  let shorts = parsedShorts.get(text);
  if (!shorts) {
    const found = [...text.matchAll(/([^:])(:{0,2})/g)];
    shorts = new Map(found.map((option) => [option[1]!, option[2]!.length as 0 | 1 | 2]));
    parsedShorts.set(text, shorts);
  }
  return shorts;
}

export type Got =
  /** A short or long option; `code` is the character or the long option's code. */
  | { readonly kind: 'option'; readonly code: unknown; readonly option?: LongOption; readonly arg: string | undefined }
  /** A word that is no option (only with `inOrder`). */
  | { readonly kind: 'word'; readonly arg: string }
  /** A required argument is missing. `text`: what glibc would print after the program's name. */
  | { readonly kind: 'missing'; readonly text: string }
  /** No such option, an ambiguous one, or an argument where none may be. */
  | { readonly kind: 'unknown'; readonly text: string };

export class Getopt {
  /** Index of the next word. */
  index = 1;
  /** What is left of a cluster of short options. */
  private rest = '';
  private readonly shorts: ReadonlyMap<string, 0 | 1 | 2>;
  /** Words that were passed over, when not in order. */
  readonly words: string[] = [];

  /**
   * @param argv with the program's name first
   * @param shorts as for getopt, without a leading `-` or `:`
   * @param inOrder give words that are no options in their place; otherwise they are collected in `words`
   */
  constructor(
    readonly argv: readonly string[],
    shorts: string,
    private readonly inOrder: boolean,
  ) {
    this.shorts = shortsOf(shorts);
  }

  /** The word before the next: what the tool quotes when it complains. */
  get last(): string {
    return this.argv[this.index - 1] ?? '';
  }

  /** The next option, or undefined at the end. `long`: tables, of which the earlier ones go first. */
  next(long: readonly LongTable[]): Got | undefined {
    if (this.rest === '') {
      for (;;) {
        const word = this.argv[this.index];
        if (word === undefined) return undefined;
        if (word === '--') {
          this.index++;
          if (!this.inOrder) {
            this.words.push(...this.argv.slice(this.index));
            this.index = this.argv.length;
          }
          return undefined;
        }
        if (word.startsWith('-') && word !== '-') break;
        this.index++;
        if (this.inOrder) return { kind: 'word', arg: word };
        this.words.push(word);
      }
      const word = this.argv[this.index]!;
      if (word.startsWith('--')) return this.long(word.slice(2), long);
      this.rest = word.slice(1);
    }
    return this.short();
  }

  private long(text: string, tables: readonly LongTable[]): Got {
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    this.index++;
    let option: LongOption | undefined;
    for (let i = 0; i < tables.length && option === undefined; i++) option = tables[i]!.byName.get(name);
    if (!option) {
      const candidates = tables.flatMap((table) => table.options.filter((each) => each.name.startsWith(name)));
      option = candidates[0];
      if (!option) return { kind: 'unknown', text: `unrecognized option '--${text}'` };
      if (candidates.some((each) => each.argument !== option!.argument || each.code !== option!.code)) {
        const list = candidates.map((each) => ` '--${each.name}'`).join('');
        return { kind: 'unknown', text: `option '--${text}' is ambiguous; possibilities:${list}` };
      }
    }
    const { code } = option;
    if (equals >= 0) {
      if (option.argument === 0)
        return { kind: 'unknown', text: `option '--${option.name}' doesn't allow an argument` };
      return { kind: 'option', code, option, arg: text.slice(equals + 1) };
    }
    if (option.argument !== 1) return { kind: 'option', code, option, arg: undefined };
    if (this.index >= this.argv.length)
      return { kind: 'missing', text: `option '--${option.name}' requires an argument` };
    return { kind: 'option', code, option, arg: this.argv[this.index++]! };
  }

  private short(): Got {
    const letter = this.rest[0]!;
    this.rest = this.rest.slice(1);
    if (this.rest === '') this.index++;
    const argument = this.shorts.get(letter);
    if (argument === undefined) return { kind: 'unknown', text: `invalid option -- '${letter}'` };
    if (argument === 0) return { kind: 'option', code: letter, arg: undefined };
    if (this.rest !== '') {
      const arg = this.rest;
      this.rest = '';
      this.index++;
      return { kind: 'option', code: letter, arg };
    }
    if (argument === 2) return { kind: 'option', code: letter, arg: undefined };
    if (this.index >= this.argv.length) return { kind: 'missing', text: `option requires an argument -- '${letter}'` };
    return { kind: 'option', code: letter, arg: this.argv[this.index++]! };
  }
}
