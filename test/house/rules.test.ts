/** The house rules' checkers on small repositories made up here: what they must find, and what they must let be. */
import t from 'tap';
import { constantValues, enumValues, importViolations, storyViolations, wordViolations } from './rules.js';

const file = (name: string, text: string) => ({ name, text });

t.test('an import up the picture is found, with its line', (t) => {
  const cases: [string, string, RegExp | undefined][] = [
    ['src/dataplane/nat/bind.ts', '../conntrack/table.js', undefined],
    ['src/dataplane/nat/bind.ts', './ports.js', undefined],
    ['src/dataplane/conntrack/table.ts', '../nat/bind.js', /conntrack imports nat, which lies above/],
    ['src/dataplane/packet.ts', './wire/ipv4.js', undefined],
    ['src/dataplane/wire/ipv4.ts', '../packet.js', /wire imports packet/],
    ['src/dataplane/pipeline.ts', './worker.js', /nothing imports src\/dataplane\/worker.ts/],
    ['src/dataplane/io/pcap.ts', '../../control/model.js', /from control to dataplane only/],
    ['src/dataplane/odd.ts', './names.js', /no layer of the dataplane/],
    ['src/control/compile/index.ts', '../../dataplane/program/format.js', undefined],
    ['src/control/compile/index.ts', '../../dataplane/pipeline.js', /no format of the dataplane/],
    ['src/control/explain.ts', '../dataplane/simulate.js', undefined],
    ['src/dataplane/pipeline.ts', './simulate.js', /pipeline imports simulate/],
    ['src/control/explain.ts', '../dataplane/worker.js', /nothing imports src\/dataplane\/worker.ts/],
    ['src/control/compile/index.ts', '../model.js', undefined],
    ['src/control/server.ts', './main.js', /nothing imports src\/control\/main.ts/],
    ['src/control/server.ts', '../../test/x.js', /nothing imports bench\/ or test/],
    ['src/control/server.ts', './model', /without its .js ending/],
  ];
  for (const [from, to, expected] of cases) {
    for (const statement of [
      `import { a } from '${to}';`,
      `import type { A } from '${to}';`,
      `export * from '${to}';`,
      `const a = await import('${to}');`,
      `import {\n  a,\n} from '${to}';`,
    ]) {
      const found = importViolations([file(from, `// first line\n${statement}\n`)]);
      if (expected === undefined) t.same(found, [], `${from}: ${statement}`);
      else {
        t.equal(found.length, 1, `${from}: ${statement}`);
        t.match(found[0], expected);
        t.match(found[0], new RegExp(`^${from}:[234]: `));
      }
    }
  }
  t.same(importViolations([file('src/control/a.ts', `import fs from 'node:fs'; import ts from 'typescript';`)]), []);
  t.same(importViolations([file('src/dataplane/wire/a.ts', `// import x from '../packet.js';`)]), [], 'a comment');
  t.end();
});

t.test('a file without a story is found', (t) => {
  const body = 'export const a = 1;\n'.repeat(40);
  t.same(storyViolations([file('a.ts', body)]), ['a.ts:1: opens without its story']);
  t.same(storyViolations([file('a.ts', `/** What it is. */\n${body}`)]), []);
  t.same(storyViolations([file('a.ts', `import {\n  a,\n} from './a.js';\n/** What it is. */\n${body}`)]), []);
  t.same(storyViolations([file('a.mjs', `#!/usr/bin/env node\n/** What it is. */\n${body}`)]), []);
  t.same(storyViolations([file('a.c', `/* What it is. */\n${body}`)]), []);
  const own = file('x/a.c', `#include "a.h"\n${body}`);
  t.same(storyViolations([own, file('x/a.h', '/* What it is. */\n')]), []);
  t.same(storyViolations([own]), ['x/a.c:1: has no x/a.h']);
  t.same(storyViolations([own, file('x/a.h', body)]), ['x/a.h:1: opens without its story']);
  t.same(storyViolations([file('x/a.c', `#include "b.h"\n${body}`)]), ['x/a.c:1: opens without its story']);
  t.same(storyViolations([file('a.ts', `/**\n${' * line\n'.repeat(30)} */\n${body}`)]), [
    'a.ts:1: its story is longer than 24 lines',
  ]);
  t.same(storyViolations([file('a.ts', '/** One. */\nexport const a = 1;\n')]), []);
  t.same(storyViolations([file('a.ts', 'export const a = 1;\n')]), ['a.ts:1: opens without its story']);
  t.end();
});

t.test('a forbidden word is found wherever it stands', (t) => {
  const words = [{ pattern: /ba+d/, why: 'because' }];
  t.same(wordViolations([file('a.md', 'good\nbaad bad\n')], words), [
    "a.md:2: 'baad': because",
    "a.md:2: 'bad': because",
  ]);
  t.same(wordViolations([file('a.md', 'good\n')], words), []);
  t.end();
});

t.test('numbers are read from both languages', (t) => {
  const enumText = 'export const enum F {\n  A = 1 << 0,\n  /** doc = 3 */\n  B = 0x8000_0000 | 0,\n  C = A | B,\n}';
  t.same(Object.fromEntries(enumValues(enumText, 'F')), { A: 1, B: -0x80000000, C: -0x7fffffff });
  t.equal(enumValues(enumText, 'G').size, 0);
  const c = `
    #define WORDS 32          /* words a record */
    #define ROOM (WORDS * 4)
    // OLD = 9
    enum meta { ID = 0, MARK = 0x10, TOP = 1u << 31, };`;
  t.same(Object.fromEntries(constantValues(c)), { WORDS: 32, ROOM: 128, ID: 0, MARK: 16, TOP: -0x80000000 });
  t.equal(constantValues('export const HEADROOM = 128;').get('HEADROOM'), 128);
  t.end();
});
