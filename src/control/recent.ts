/**
 * `hutter recent`: the lists of `-m recent` as /proc/net/xt_recent has them, names, contents and what may be written there.
 * Times are kernel ticks since the machine's start.
 */
import { isRecentChange, readRecent, writeRecent } from '../dataplane/program/recent.js';
import type { RegionStore } from './compile/regions.js';
import type { CommandOutput } from './conntrack.js';

/** Lists lie in regions under these keys (ext/recent.ts). */
const KEY = 'recent/';
export const HELP = 'Usage: hutter recent [LIST [+ADDRESS | -ADDRESS | /]...]\n';

/**
 * Without arguments the lists' names; with a list its contents, or what is to be done to it: `+ADDRESS` adds or touches,
 * `-ADDRESS` removes, `/` empties. What is wrong is said before anything changes. The exit code: 0, 1 no such list, 2 wrong
 * use. `now` in ticks, `owner` the caller's lock word.
 */
export function runRecent(
  regions: RegionStore,
  argv: readonly string[],
  now: number,
  owner: number,
  out: CommandOutput,
): number {
  const refuse = (code: number, text: string): number => {
    out.stderr(`hutter: recent: ${text}\n`);
    return code;
  };
  const [name, ...changes] = argv;
  if (name === '-h' || name === '--help') {
    out.stdout(HELP);
    return 0;
  }
  const lists = new Map(regions.keys(KEY));
  if (name === undefined) {
    for (const each of [...lists.keys()].sort()) out.stdout(`${each}\n`);
    return 0;
  }
  const number = lists.get(name);
  if (number === undefined) return refuse(1, `no rule has a list \`${name}'`);
  const list = regions.get(number);
  if (changes.length === 0) {
    out.stdout(readRecent(list, owner));
    return 0;
  }
  const wrong = changes.find((change) => !isRecentChange(change));
  if (wrong !== undefined)
    return refuse(2, `\`${wrong}': Invalid argument: +ADDRESS adds or touches, -ADDRESS removes, / empties the list`);
  for (const change of changes) writeRecent(list, change, now, owner);
  return 0;
}
