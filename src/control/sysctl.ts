/**
 * `hutter sysctl`: the settings of the running router's connection tracking (dataplane/conntrack/settings.ts), in the words of
 * sysctl(8), procps 4.0.2. A change holds for the next packet; what a connection was given stays its own.
 */
import type { ConntrackTable } from '../dataplane/conntrack/table.js';
import { SETTINGS } from '../dataplane/conntrack/settings.js';
import type { CommandOutput } from './conntrack.js';
import { wholeNumber } from './text/numbers.js';

export const HELP = `
Usage:
 hutter sysctl [options] [variable[=value] ...]

Options:
  -a, --all     display all variables
  -e, --ignore  ignore unknown variables errors
  -n, --values  print only values of the given variable(s)
  -N, --names   print variable names without values
  -q, --quiet   do not echo variable set
  -w, --write   enable writing a value to variable
`;
const OPTIONS: Readonly<Record<string, string>> = {
  '--all': 'a',
  '--ignore': 'e',
  '--values': 'n',
  '--names': 'N',
  '--quiet': 'q',
  '--write': 'w',
  '--help': 'h',
};
const LETTERS = Object.values(OPTIONS).join('');
/** How many connections there are: to be read only. */
const COUNT = 'nf_conntrack_count';

/** The name that a setting has for sysctl. */
const keyOf = (name: string): string => (name.startsWith('nf_') ? `net.netfilter.${name}` : `net.ipv4.${name}`);

/**
 * Shows variables, or sets them in turn: one that can't be is told, and the next has its turn, as sysctl(8) does it. The exit code: 1
 * if any couldn't. `own`: hutter is the whole router, and has settings of net.ipv4 too.
 */
export function runSysctl(table: ConntrackTable, own: boolean, argv: readonly string[], out: CommandOutput): number {
  const names = [...Object.keys(SETTINGS).filter((name) => own || name.startsWith('nf_')), COUNT];
  const keys = new Map(names.map((name) => [keyOf(name), name]));
  const flags = new Set<string>();
  const words: string[] = [];
  for (const word of argv) {
    if (!/^-./.test(word)) {
      words.push(word);
      continue;
    }
    for (const letter of OPTIONS[word] ?? word.slice(1)) {
      if (word.startsWith('--') ? OPTIONS[word] === undefined : !LETTERS.includes(letter)) {
        out.stderr(`sysctl: ${word} is no option of hutter's${HELP}`);
        return 1;
      }
      flags.add(letter);
    }
  }
  if (flags.has('h')) {
    out.stdout(HELP);
    return 0;
  }

  const valueOf = (name: string): string => String(name === COUNT ? table.total() : table.readSetting(name));
  const show = (key: string, value = valueOf(keys.get(key)!)): void => {
    out.stdout(flags.has('N') ? `${key}\n` : flags.has('n') ? `${value}\n` : `${key} = ${value}\n`);
  };
  if (flags.has('a')) {
    for (const key of [...keys.keys()].sort()) show(key);
    return 0;
  }
  if (words.length === 0) {
    out.stderr(flags.size === 0 ? HELP : "sysctl: no variables specified\nTry `sysctl --help' for more information.\n");
    return 1;
  }

  let code = 0;
  const refuse = (text: string): void => {
    out.stderr(`sysctl: ${text}\n`);
    code = 1;
  };
  words.forEach((word, i) => {
    const [, variable = '', value] = /^([^=]*?)\s*(?:=\s*(.*?)\s*)?$/s.exec(word)!;
    const key = variable.replaceAll('/', '.');
    const name = keys.get(key);
    if (flags.has('w') && value === undefined) return refuse(`command line(${i}): invalid syntax, continuing...`);
    if (name === undefined) {
      // A folder: all that is below it.
      const below = [...keys.keys()].filter((each) => each.startsWith(`${key}.`)).sort();
      if (below.length > 0 && value === undefined) return below.forEach((each) => show(each));
      if (flags.has('e')) return;
      return refuse(`cannot stat /proc/sys/${variable.replaceAll('.', '/')}: No such file or directory`);
    }
    if (value === undefined) return show(key);
    const invalid = `setting key "${key}": Invalid argument`;
    // What nobody may write is no failure.
    if (name === COUNT) return out.stderr(`sysctl: ${invalid}\n`);
    try {
      table.writeSetting(name, wholeNumber(value) ?? NaN);
    } catch {
      return refuse(invalid);
    }
    // As it was given, `0x20` say.
    if (!flags.has('q')) show(key, value);
  });
  return code;
}
