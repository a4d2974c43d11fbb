/**
 * The house rules, held over the repository's own files. Each says why it is there; the checkers themselves are in
 * rules.ts and have their failing cases in rules.test.ts.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import {
  constantValues,
  enumValues,
  importViolations,
  storyViolations,
  wordViolations,
  type SourceFile,
} from './rules.js';

const SKIPPED = new Set(['node_modules', 'dist', 'build', '.git', '.tap']);

/** The repository's text files below `folder`, by their paths from the root. */
function read(folder: string, extensions: readonly string[]): SourceFile[] {
  const files: SourceFile[] = [];
  const walk = (directory: string): void => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      const name = path.posix.join(directory, entry.name);
      // In a work tree of git's own, .git is a file.
      if (SKIPPED.has(entry.name)) continue;
      if (entry.isDirectory()) walk(name);
      else if (extensions.includes(path.extname(entry.name)) && !entry.name.endsWith('.d.ts'))
        files.push({ name, text: readFileSync(name, 'utf8') });
    }
  };
  if (existsSync(folder)) walk(folder);
  return files;
}

const CODE = ['.ts', '.mjs', '.js', '.c', '.h'];
const TEXT = [...CODE, '.md', '.json', '.yml', '.yaml', '.gyp', '.rules', '.t', '.sh', ''];

t.test('imports point only down the data-flow picture', (t) => {
  // A cycle between folders once found is never worth its undoing; and a main thread that imports the worker runs it.
  const files = read('src', ['.ts']);
  t.ok(files.length > 5, 'the sources are found');
  t.same(importViolations(files), []);
  t.end();
});

t.test('every file opens with its story', (t) => {
  // Whoever opens a file should know what it is, which thread runs it and what it owns before the first declaration.
  t.same(storyViolations([...read('src', CODE), ...read('native', CODE), ...read('bench', CODE)]), []);
  t.end();
});

t.test('the language’s texts are ASCII', (t) => {
  // They are byte strings: a reason with a typographic apostrophe came out as another byte, and tools read these lines.
  const folders = ['ext', 'text', 'commands'].map((name) => `src/control/${name}`);
  const violations = wordViolations(
    folders.flatMap((folder) => read(folder, ['.ts'])),
    [{ pattern: /(?<=\n(?! *(?:\*|\/\/|\/\*))[^\n]*)[^\t\n -~]/, why: 'no byte string outside a comment has it' }],
  );
  t.same(violations, []);
  t.end();
});

t.test('nothing names a registry, a mirror or somebody’s directories', (t) => {
  // A lock file with one machine's registry in it installs nowhere else; a path from one disk exists on no other.
  const violations = wordViolations(read('.', TEXT), [
    { pattern: /registry\.[a-z]+js\.org/, why: 'leave the registry to the user’s npm' },
    { pattern: /\b(?:deb|security|ftp)\.debian\.org/, why: 'leave the mirror to the machine’s apt' },
    { pattern: /"resolved": "http/, why: 'npm config set omit-lockfile-registry-resolved true' },
    { pattern: /(?<![\w.])\/(?:work|home|root|Users)\/[\w.]/, why: 'a path of one machine' },
    { pattern: /(?<![\w.])\.\.\/shared\//, why: 'the repository stands alone' },
    { pattern: /(?<![\w.])\/tmp\/(?:w|i\d|bash_jobs)\b/, why: 'a path of one machine' },
  ]);
  // This file has to name what it forbids.
  t.same(
    violations.filter((v) => !/^test\/house\/[\w.]+:/.test(v)),
    [],
  );
  t.end();
});

t.test('no test is parked', (t) => {
  // A skipped test is read as a passing one. Repair it, or delete it and say why in the commit.
  const violations = wordViolations(read('test', ['.ts']), [
    { pattern: /\b(?:t|test)\.(?:skip|todo)\(|\{\s*(?:skip|todo):\s*(?:true|['"])/, why: 'never park a test' },
    { pattern: /\bt\.only\(|\{\s*only:\s*true/, why: 'runs nothing else' },
  ]);
  t.same(
    violations.filter((v) => !/^test\/house\/[\w.]+:/.test(v)),
    [],
  );
  t.end();
});

t.test('what is built is not committed', (t) => {
  // Native objects of one Node version fail to load in another, with a message that blames the user.
  const tracked = existsSync('.git') ? execFileSync('git', ['ls-files'], { encoding: 'utf8' }).split('\n') : [];
  t.same(
    tracked.filter((name) => /^(?:dist|build|node_modules)\/|\.(?:node|o|so)$/.test(name)),
    [],
  );
  t.end();
});

t.test('native/turn.h says the same numbers as io/turn.ts', (t) => {
  const turn = enumValues(readFileSync('src/dataplane/io/turn.ts', 'utf8'), 'Turn');
  t.ok(turn.size > 1, 'Turn is found');
  t.same(
    Object.fromEntries(constantValues(readFileSync('native/turn.h', 'utf8'))),
    Object.fromEntries([...turn].map(([name, value]) => [`TURN_${name}`, value])),
  );
  t.end();
});

t.test('native/batch.h says the same numbers as io/batch.ts', (t) => {
  // Nothing else notices a field that moved: the addon would write a mark where the pipeline reads a length.
  const header = constantValues(readFileSync('native/batch.h', 'utf8'));
  const batch = readFileSync('src/dataplane/io/batch.ts', 'utf8');
  const names = readFileSync('src/dataplane/names.ts', 'utf8');
  const expected = new Map<string, number>();
  for (const [prefix, text, name] of [
    ['META_', batch, 'Meta'],
    ['IN_FLAG_', batch, 'InFlag'],
    ['OUT_FLAG_', batch, 'OutFlag'],
    ['CHECKSUM_MODE_', batch, 'ChecksumMode'],
    ['VERDICT_', names, 'Verdict'],
  ] as const) {
    const values = enumValues(text, name);
    t.ok(values.size > 1, `${name} is found`);
    for (const [member, value] of values) expected.set(prefix + member, value);
  }
  for (const name of ['META_WORDS', 'HEADROOM']) expected.set(name, constantValues(batch).get(name)!);
  t.same(Object.fromEntries(header), Object.fromEntries(expected));
  t.end();
});
