/**
 * The house rules' checkers: pure functions from source text to violations, so that each has failing cases of its own
 * in rules.test.ts. house.test.ts turns them on the repository. A violation names file and line.
 */
import ts from 'typescript';

export interface SourceFile {
  /** Path from the repository's root, with forward slashes. */
  readonly name: string;
  readonly text: string;
}

/** "src/x.ts:12: what is wrong", ready to be read and clicked. */
export type Violation = string;

const lineOf = (text: string, position: number): number => text.slice(0, position).split('\n').length;
const at = (file: SourceFile, position: number, message: string): Violation =>
  `${file.name}:${lineOf(file.text, position)}: ${message}`;

/** The dataplane's layers from top to bottom: a file imports from its own layer and from those below. */
const LAYERS = [
  'worker',
  'simulate',
  'pipeline',
  'stack',
  'responder',
  'answer',
  'questions',
  'log',
  'init',
  'program',
  'nat',
  'conntrack',
  'route',
  'ip',
  'offload',
  'packet',
  'io',
  'interfaces',
  'shared',
  'wire',
  'names',
  'inlining',
] as const;

/**
 * What the control plane may know of the dataplane: its formats, and the plumbing that opens devices and asks the
 * kernel. Never what happens to a packet (`packet`, `pipeline`, `nat`) but as a whole (`simulate`), nor the worker itself, which is a thread's
 * entry and is started by its path. `simulate` is the exception: a whole dataplane as one object, for explain and replay.
 */
const CONTROL_MAY_IMPORT: readonly string[] = [
  'simulate',
  'init',
  'program',
  'conntrack',
  'route',
  'io',
  'interfaces',
  'shared',
  'wire',
  'names',
];

/** The layer of a file under src/dataplane/, undefined elsewhere. */
function layerOf(name: string): string | undefined {
  return /^src\/dataplane\/([^/.]+)/.exec(name)?.[1];
}

/** Resolves the relative import `from` of the file `importer` to a path from the repository's root. */
function resolve(importer: string, from: string): string {
  const parts = importer.split('/').slice(0, -1);
  for (const part of from.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '.') parts.push(part);
  }
  return parts.join('/').replace(/\.js$/, '.ts');
}

/** Why `importer` may not import `target` (both paths from the root); undefined when it may. */
function refusal(importer: string, target: string): string | undefined {
  if (!target.startsWith('src/')) return `src imports from ${target}: nothing imports bench/ or test/`;
  if (/^src\/(dataplane\/worker|control\/main)\.ts$/.test(target)) return `nothing imports ${target}`;
  const from = layerOf(importer);
  const to = layerOf(target);
  if (from !== undefined) {
    if (to === undefined) return `the dataplane imports ${target}: imports point from control to dataplane only`;
    const fromRank = LAYERS.indexOf(from as (typeof LAYERS)[number]);
    const toRank = LAYERS.indexOf(to as (typeof LAYERS)[number]);
    if (fromRank < 0) return `'${from}' is no layer of the dataplane: give it a place in LAYERS`;
    if (toRank < 0) return `'${to}' is no layer of the dataplane: give it a place in LAYERS`;
    return toRank < fromRank ? `${from} imports ${to}, which lies above it` : undefined;
  }
  if (to !== undefined && !CONTROL_MAY_IMPORT.includes(to))
    return `control imports ${target}, which is no format of the dataplane`;
  return undefined;
}

/** Imports that point up the data-flow picture, of all kinds: static, re-exported, type-only and dynamic. */
export function importViolations(files: readonly SourceFile[]): Violation[] {
  const violations: Violation[] = [];
  for (const file of files) {
    for (const { fileName, pos } of ts.preProcessFile(file.text, true, true).importedFiles) {
      if (!fileName.startsWith('.')) continue;
      const reason = fileName.endsWith('.js')
        ? refusal(file.name, resolve(file.name, fileName))
        : `import of ${fileName} without its .js ending`;
      if (reason !== undefined) violations.push(at(file, pos, reason));
    }
  }
  return violations;
}

/**
 * Files that do not open with their story: a block comment of at most `longest` lines, before everything but imports.
 * A file of fewer than `small` lines may tell it at the one thing that it declares; a C file that begins with its own
 * header has it there.
 */
export function storyViolations(files: readonly SourceFile[], small = 30, longest = 24): Violation[] {
  const violations: Violation[] = [];
  for (const file of files) {
    const text = file.text.replace(/^#!.*\n/, '').replace(/^(?:import\s[^;]*;\s*)+/, '');
    const opening = /^\s*\/\*\*?[\s\S]*?\*\//.exec(text)?.[0];
    const lines = file.text.split('\n').length;
    const header = file.name.replace(/\.c$/, '.h');
    if (text.startsWith(`#include "${header.slice(header.lastIndexOf('/') + 1)}"`)) {
      if (!files.some((other) => other.name === header)) violations.push(`${file.name}:1: has no ${header}`);
      continue;
    }
    if (opening === undefined) {
      if (lines >= small || !text.includes('/**')) violations.push(`${file.name}:1: opens without its story`);
    } else if (opening.split('\n').length > longest) {
      violations.push(`${file.name}:1: its story is longer than ${longest} lines`);
    }
  }
  return violations;
}

export interface ForbiddenWord {
  readonly pattern: RegExp;
  readonly why: string;
}

/** Every occurrence of a forbidden word. */
export function wordViolations(files: readonly SourceFile[], words: readonly ForbiddenWord[]): Violation[] {
  const violations: Violation[] = [];
  for (const file of files) {
    for (const { pattern, why } of words) {
      for (const match of file.text.matchAll(new RegExp(pattern, 'g'))) {
        violations.push(at(file, match.index, `'${match[0]}': ${why}`));
      }
    }
  }
  return violations;
}

/** Numeric constant expressions as both languages write them: numbers, |, &, ^, ~, <<, >>, +, -, *, parentheses. */
function evaluate(expression: string, known: ReadonlyMap<string, number>): number | undefined {
  const filled = expression
    .replace(/\b(0[xX][0-9a-fA-F_]+|\d[\d_]*)[uUlL]*\b/g, (_, digits: string) =>
      String(Number(digits.replaceAll('_', ''))),
    )
    .replace(/\b[A-Za-z_]\w*\b/g, (name) => String(known.get(name) ?? 'unknown'));
  if (!/^[\d\s|&^~<>+\-*()]+$/.test(filled)) return undefined;
  // The text is nothing but numbers and operators by now.
  return Number(Function(`return (${filled})`)()) | 0;
}

/** Members of a TypeScript `const enum NAME`, by name; empty when the text has no such enum. */
export function enumValues(text: string, name: string): Map<string, number> {
  const values = new Map<string, number>();
  const source = ts.createSourceFile('x.ts', text, ts.ScriptTarget.ES2022);
  const enums = source.statements.filter(ts.isEnumDeclaration).filter((e) => e.name.text === name);
  for (const member of enums[0]?.members ?? []) {
    const value = evaluate(member.initializer?.getText(source) ?? '', values);
    if (value !== undefined) values.set(member.name.getText(source), value);
  }
  return values;
}

/** Every `const NAME = number` and C `#define NAME number` or enumerator `NAME = number` of a text. */
export function constantValues(text: string): Map<string, number> {
  const values = new Map<string, number>();
  const bare = text.replace(/\/\*[\s\S]*?\*\//g, ' ').replace(/\/\/.*$/gm, ' ');
  const definitions = /#define[ \t]+(\w+)[ \t]+(.+)$|(?:^|[{,;\s])(\w+)[ \t]*=[ \t]*([^=,;}\n]+)(?=[,;}\n])/gm;
  for (const [, defined, definition, assigned, assignment] of bare.matchAll(definitions)) {
    const value = evaluate((definition ?? assignment ?? '').trim(), values);
    if (value !== undefined) values.set((defined ?? assigned)!, value);
  }
  return values;
}
