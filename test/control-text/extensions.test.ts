/** docs/EXTENSIONS.md says of every match and target what its record says. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { allExtensions } from '../../src/control/ext/registry.js';

t.test('the table is what the records say', (t) => {
  const { status, stderr } = spawnSync(process.execPath, ['scripts/extensions.mjs', '--check'], { encoding: 'utf8' });
  t.equal(status, 0, stderr);
  t.end();
});

t.test('it has a row for each, and each of its options', (t) => {
  const rows = readFileSync('docs/EXTENSIONS.md', 'utf8').split('\n');
  for (const { kind, name, options } of allExtensions()) {
    const row = rows.find((line) => line.startsWith(`| \`${kind === 'match' ? '-m' : '-j'} ${name}\` |`));
    t.ok(row, name);
    for (const option of options) for (const each of option.names) t.match(row, `--${each}`, name);
  }
  t.end();
});
