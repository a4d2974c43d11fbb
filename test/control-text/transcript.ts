/**
 * Transcripts: what the tool answers to commands, as data (test/cases/*.transcript). A blank line begins anew with empty
 * tables; `#` is a remark. Words are split at blanks; double quotes hold them together, `\n` and `\r` stand for themselves.
 *
 *     $ -N a                 iptables; also `$save -c` and `$restore -n`
 *     < *filter              a line of the command's input; without a feed at its end if it ends in `\`
 *     text                   a line of stdout, indented by two blanks
 *     ! text                 a line of stderr; a carriage return is shown as `\r`
 *     = 1                    the exit code, where it isn't 0
 */
import type { Outcome, Step } from './real.js';
import { timeless } from './real.js';

export interface Exchange extends Outcome {
  readonly step: Step;
  /** Line of the command in the file. */
  readonly line: number;
}

export function splitArguments(text: string): string[] {
  const found = text.match(/(?:"(?:[^"\\]|\\.)*"|[^\s"])+/g) ?? [];
  return found.map((word) =>
    word
      .replace(/"((?:[^"\\]|\\.)*)"/g, '$1')
      .replace(/\\([nr"\\])/g, (_, c: string) => ({ n: '\n', r: '\r' })[c] ?? c),
  );
}

/** A transcript as cases of exchanges. */
export function parseTranscript(text: string): Exchange[][] {
  const cases: Exchange[][] = [[]];
  const lines = text.split('\n');
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!;
    if (line === '') {
      if (cases.at(-1)!.length > 0) cases.push([]);
      continue;
    }
    if (line.startsWith('#')) continue;
    const command = /^\$(save|restore|) ?(.*)$/.exec(line);
    if (!command) throw new Error(`line ${i + 1}: ${line}: not a command`);
    const program = command[1] === '' ? 'iptables' : (`iptables-${command[1]}` as Step['program']);
    const at = i + 1;
    let [stdin, stdout, stderr, code] = ['', '', '', 0];
    for (; i + 1 < lines.length && /^(<| {2}|!|= )/.test(lines[i + 1]!); i++) {
      const part = lines[i + 1]!;
      if (part.startsWith('<')) {
        const input = part.slice(2);
        stdin += input.endsWith('\\') ? input.slice(0, -1) : `${input}\n`.replace(/\\r\n$/, '\r\n');
      } else if (part.startsWith('!')) stderr += `${part.slice(2)}\n`;
      else if (part.startsWith('= ')) code = Number(part.slice(2));
      else stdout += `${part.slice(2)}\n`;
    }
    cases.at(-1)!.push({ step: { program, argv: splitArguments(command[2]!), stdin }, line: at, stdout, stderr, code });
  }
  return cases.filter((exchanges) => exchanges.length > 0);
}

/** An outcome in the transcript's form. */
export function outcomeText({ stdout, stderr, code }: Outcome): string {
  const lines = (text: string, prefix: string): string =>
    timeless(text)
      .replace(/\n$/, '')
      .replaceAll('\r', '\\r')
      .split('\n')
      .map((line) => (text === '' ? '' : `${prefix}${line}\n`))
      .join('');
  return lines(stdout, '  ') + lines(stderr, '! ') + (code === 0 ? '' : `= ${code}\n`);
}

/** The transcript with outcomes put in for those it has. */
export function rewriteTranscript(text: string, outcomes: readonly (readonly Outcome[])[]): string {
  const flat = outcomes.flat();
  return text
    .split('\n')
    .filter((line) => !/^( {2}|!|= )/.test(line))
    .join('\n')
    .replace(/^\$.*\n(<.*\n)*/gm, (command) => command + outcomeText(flat.shift()!));
}
