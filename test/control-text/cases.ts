/**
 * Rules and what becomes of them, as data: test/cases/NAME.t for the extensions of ext/NAME.ts, core.t for the rest.
 *
 *     *mangle                     the table of the rows below (filter, if none is named)
 *     :INPUT,OUTPUT               their chains; each row is tried in each
 *     ? reason                    why the real tool can't judge the rows up to the next line of chains
 *     # a remark
 *     rule ; = ; OK               accepted, and saved as it is
 *     rule ; text ; OK            accepted, and saved as text
 *     rule ; ; FAIL               refused
 */
export interface Case {
  readonly line: number;
  readonly table: string;
  readonly chain: string;
  readonly rule: string;
  /** What -S prints behind `-A CHAIN `; undefined: the rule is refused. */
  readonly saved: string | undefined;
  /** The real tool can't judge it here. */
  readonly unjudged: boolean;
}

export function parseCases(text: string): Case[] {
  const cases: Case[] = [];
  let table = 'filter';
  let chains = ['INPUT'];
  let unjudged = false;
  for (const [i, line] of text.split('\n').entries()) {
    if (line === '' || line.startsWith('#')) continue;
    if (line.startsWith('*')) table = line.slice(1);
    else if (line.startsWith('? ')) unjudged = true;
    else if (line.startsWith(':')) {
      chains = line.slice(1).split(',');
      unjudged = false;
    } else {
      const found = /^(.*?) ?; ?(.*?) ?; ?(OK|FAIL)$/.exec(line);
      if (!found || (found[3] === 'FAIL') !== (found[2] === '')) throw new Error(`line ${i + 1}: ${line}: not a case`);
      const rule = found[1]!;
      const saved = found[3] === 'FAIL' ? undefined : found[2] === '=' ? rule : found[2]!;
      for (const chain of chains) cases.push({ line: i + 1, table, chain, rule, saved, unjudged });
    }
  }
  return cases;
}
