/**
 * Writes docs/EXTENSIONS.md from the extension records: what each match and target takes, where it is legal, and whether
 * hutter decides by it. With --check it writes nothing and fails if the file isn't what it would write. What is refused only
 * with some arguments is found with the rows of test/cases. Reads dist: `npm run docs` builds first.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { allExtensions, matchNamed, targetNamed } from '../dist/src/control/ext/registry.js';
import { readCommand } from '../dist/src/control/text/read.js';
import { splitWords } from '../dist/src/control/text/words.js';
import { parseCases } from '../dist/test/control-text/cases.js';

process.chdir(path.join(path.dirname(fileURLToPath(import.meta.url)), '..'));
const FILE = 'docs/EXTENSIONS.md';
const CASES = 'test/cases';

const HEAD = `# Matches and targets

Written by \`npm run docs\` from the records in \`src/control/ext\`; don't edit. All of these are read and printed as iptables 1.8.9 does, by the
commands and by \`hutter check\`. What hutter can't decide by is refused by name, with the reason, where a router would have to: by \`hutter
up\`, \`iptables\` and \`iptables-restore\`; \`hutter check --save\` prints it and warns.

\`[!]\` before an option: it can be negated. No table or chain named: legal in all. The chains are those that a packet comes to the rule from.
`;

const words = (record) => (record.kind === 'match' ? `-m ${record.name}` : `-j ${record.name}`);
const cell = (text) => text.replaceAll('|', '\\|');

function optionText(option) {
  const [name, ...aliases] = option.names.map((each) => `--${each}`);
  const text = [name, ...aliases].join(', ') + (option.arg ? ` ${option.arg.about}` : '');
  return `\`${option.invert ? '[!] ' : ''}${text}\`${option.mandatory ? ' (needed)' : ''}`;
}

/** Why uses in the cases' rows are refused, or only warned of, by the record's words. */
function remarks() {
  const found = new Map();
  const names = { host: () => [0x0a000001], hostName: () => undefined };
  for (const file of readdirSync(CASES)
    .filter((name) => name.endsWith('.t'))
    .sort())
    for (const { table, chain, rule, saved } of parseCases(readFileSync(`${CASES}/${file}`, 'latin1'))) {
      if (saved === undefined) continue;
      const argv = ['iptables', '-A', chain, ...splitWords(rule)];
      const command = readCommand(argv, { program: 'iptables', restore: false, table, names, warn: () => undefined });
      for (const { extension, data } of [...command.rule.matches, ...(command.target ? [command.target] : [])]) {
        const reason = extension.cannot?.(data);
        const lacking = extension.lacks?.(data);
        if (reason === undefined && lacking === undefined) continue;
        const remark = reason === undefined ? `warns: ${lacking}` : `refused with some arguments: ${reason}`;
        if (!found.has(words(extension))) found.set(words(extension), remark);
      }
    }
  return found;
}

function decides(record, remarked) {
  const real =
    record.realName === undefined ? record : (record.kind === 'match' ? matchNamed : targetNamed)(record.realName);
  const prefix = real === record ? '' : `as \`${words(real)}\`: `;
  const never = real.cannot?.(real.init());
  if (never !== undefined && !real.compile) return `${prefix}refused: ${never}`;
  if (!real.compile) return `${prefix}refused: not evaluated yet`;
  const partly = remarked.get(words(real));
  return prefix + (partly === undefined ? 'decides' : `decides; ${partly}`);
}

function section(title, records, remarked) {
  const rows = records.map((record) => {
    const options = record.options.map(optionText).join('<br>') || 'none';
    const where = [record.tables?.join(', '), record.hooks?.join(', ')].filter(Boolean).join('; ');
    const proto = record.proto === undefined ? '' : `\`-p ${record.proto}\``;
    return `| \`${words(record)}\` | ${cell(options)} | ${[where, proto].filter(Boolean).join('; ')} | ${cell(decides(record, remarked))} |\n`;
  });
  return `\n## ${title}\n\n| | options | legal | hutter |\n|---|---|---|---|\n${rows.join('')}`;
}

const byName = (a, b) => (a.name.toLowerCase() < b.name.toLowerCase() ? -1 : 1);
const records = [...allExtensions()].sort(byName);
const remarked = remarks();
const text =
  HEAD +
  section(
    'Matches',
    records.filter(({ kind }) => kind === 'match'),
    remarked,
  ) +
  section(
    'Targets',
    records.filter(({ kind }) => kind === 'target'),
    remarked,
  );

if (!process.argv.includes('--check')) writeFileSync(FILE, text);
else if (readFileSync(FILE, 'utf8') !== text) {
  process.stderr.write(`${FILE} is not what the records say: run \`npm run docs\`\n`);
  process.exitCode = 1;
}
