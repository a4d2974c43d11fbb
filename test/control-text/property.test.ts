/**
 * What must hold of every rule: text that hutter prints reads back as the same rule, is printed the same again, and no
 * line, however mangled, ends in anything but the language's own errors.
 */
import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { runIptables } from '../../src/control/commands/run.js';
import type { Extension, Use } from '../../src/control/ext/record.js';
import { matchNamed, targetNamed } from '../../src/control/ext/registry.js';
import { sameRule, type RuleSpec, type Target } from '../../src/control/model.js';
import { readCommand } from '../../src/control/text/read.js';
import { splitWords } from '../../src/control/text/words.js';
import { NO_NAMES, specText } from '../../src/control/text/write.js';
import { ToolError } from '../../src/control/text/problem.js';
import { parseCases } from './cases.js';

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
t.comment(`SEED=${seed}`);
const parameters = { seed, numRuns: 2000 };

const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const port = fc.integer({ min: 0, max: 65535 });
const bytes = (max: number): fc.Arbitrary<string> =>
  fc
    .array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: max })
    .map((codes) => String.fromCharCode(...codes).replaceAll('\n', '.'));

/** Masks contiguous or with holes; the address has nothing outside its mask, as after reading. */
const network = fc
  .tuple(
    int32,
    fc.oneof(
      int32,
      fc.integer({ min: 0, max: 32 }).map((n) => (n === 0 ? 0 : (-1 << (32 - n)) | 0)),
    ),
  )
  .map(([addr, mask]) => ({ addr: addr & mask, mask }));
const device = fc.oneof(fc.constant(''), fc.stringMatching(/^[a-z][a-z0-9.]{0,13}\+?$/));

const use = (kind: 'match' | 'target', name: string, data: object): Use => ({
  extension: (kind === 'match' ? matchNamed(name) : targetNamed(name)) as Extension,
  data,
});
const range = fc.tuple(port, port).map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
const everyPort = ([low, high]: readonly [number, number]): boolean => low === 0 && high === 65535;

const tcp = fc
  .record({
    sport: range,
    dport: range,
    notSport: fc.boolean(),
    notDport: fc.boolean(),
    option: fc.integer({ min: 0, max: 255 }),
    notOption: fc.boolean(),
    flagMask: fc.integer({ min: 0, max: 63 }),
    flags: fc.integer({ min: 0, max: 63 }),
    notFlags: fc.boolean(),
  })
  .map((data) => ({
    ...data,
    // What no text can say: a negated nothing.
    notSport: data.notSport && !everyPort(data.sport),
    notDport: data.notDport && !everyPort(data.dport),
    notOption: data.notOption && data.option !== 0,
    flags: data.flagMask === 0 && !data.notFlags ? 0 : data.flags,
  }));
const multiport = fc.record({
  side: fc.constantFrom('sports', 'dports', 'ports'),
  ranges: fc.array(range, { minLength: 1, maxLength: 7 }),
  invert: fc.boolean(),
});
const matchesOfTcp = [
  tcp.map((data) => use('match', 'tcp', data)),
  multiport.map((data) => use('match', 'multiport', data)),
];
const matches = [
  fc.record({ text: bytes(255) }).map((data) => use('match', 'comment', data)),
  fc.record({ mark: int32, mask: int32, invert: fc.boolean() }).map((data) => use('match', 'mark', data)),
  fc
    .record({
      limit: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      upto: fc.boolean(),
      daddr: fc.boolean(),
      mask: fc.integer({ min: 0, max: 32 }).map((n) => (n === 0 ? 0 : (-1 << (32 - n)) | 0)),
    })
    .map((data) => use('match', 'connlimit', data)),
  fc
    .record({
      type: fc.integer({ min: 0, max: 254 }),
      code: fc.option(fc.integer({ min: 0, max: 255 })),
      invert: fc.boolean(),
    })
    .map(({ type, code, invert }) => use('match', 'icmp', { type, codeMin: code ?? 0, codeMax: code ?? 255, invert })),
];
const targets: fc.Arbitrary<Target>[] = [
  fc.constant({ kind: 'none' }),
  fc.constantFrom('ACCEPT', 'DROP', 'RETURN', 'QUEUE').map((verdict) => ({ kind: 'verdict', verdict }) as Target),
  fc
    .record({ level: fc.integer({ min: 0, max: 7 }), flags: fc.constantFrom(0, 1, 3, 15, 47), prefix: bytes(29) })
    .map((data) => ({ kind: 'extension', use: use('target', 'LOG', data) })),
  fc.record({ mark: int32, mask: int32 }).map((data) => ({ kind: 'extension', use: use('target', 'MARK', data) })),
  fc
    .record({ value: fc.integer({ min: 0, max: 255 }), mask: fc.integer({ min: 0, max: 255 }) })
    .map((data) => ({ kind: 'extension', use: use('target', 'TOS', data) })),
];

const rule: fc.Arbitrary<RuleSpec> = fc.boolean().chain((isTcp) =>
  fc
    .record({
      src: network,
      dst: network,
      notSrc: fc.boolean(),
      notDst: fc.boolean(),
      in: device,
      out: device,
      notIn: fc.boolean(),
      notOut: fc.boolean(),
      proto: isTcp ? fc.constant(6) : fc.integer({ min: 0, max: 255 }),
      notProto: isTcp ? fc.constant(false) : fc.boolean(),
      fragment: fc.boolean(),
      notFragment: fc.boolean(),
      matches: fc.array(fc.oneof(...matches, ...(isTcp ? matchesOfTcp : [])), { maxLength: 3 }),
      target: fc.oneof(...targets),
    })
    .map((spec) => ({
      ...spec,
      notIn: spec.notIn && spec.in !== '',
      notOut: spec.notOut && spec.out !== '',
      notProto: spec.notProto && spec.proto !== 0,
      notFragment: spec.notFragment && spec.fragment,
    })),
);

const context = {
  program: 'iptables-restore',
  restore: true,
  table: 'filter',
  names: NO_NAMES,
  warn: (): void => undefined,
};
function read(text: string): RuleSpec {
  const command = readCommand(['iptables-restore', '-A', 'FORWARD', ...splitWords(text)], context);
  const { jump } = command;
  const target: Target = command.target
    ? { kind: 'extension', use: command.target }
    : jump === ''
      ? { kind: 'none' }
      : { kind: 'verdict', verdict: jump as 'ACCEPT' };
  return { ...command.rule, src: command.sources[0]!, dst: command.destinations[0]!, target };
}

void t.test('a printed rule reads back as the same rule', (t) => {
  fc.assert(
    fc.property(rule, (spec) => {
      const text = specText(spec);
      const again = read(text);
      if (!sameRule(spec, again)) throw new Error(`${text}\n${specText(again)}`);
      return specText(again) === text;
    }),
    parameters,
  );
  t.pass();
  t.end();
});

/** Every rule of the cases that is accepted somewhere, and every word of them. */
const rows = readdirSync('test/cases')
  .filter((name) => name.endsWith('.t'))
  .flatMap((name) => parseCases(readFileSync(`test/cases/${name}`, 'latin1')));
const words = [...new Set(rows.flatMap((row) => splitWords(row.rule)))];

void t.test('canonical text is a fixed point', (t) => {
  for (const { saved } of rows) if (saved !== undefined) t.equal(specText(read(saved)).trim(), saved);
  t.end();
});

void t.test('mangled lines end in the language’s own errors only', async (t) => {
  const letters = fc.string({
    unit: fc.integer({ min: 1, max: 255 }).map((c) => String.fromCharCode(c)),
    maxLength: 12,
  });
  const line = fc
    .array(fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...words) }, { weight: 1, arbitrary: letters }), {
      maxLength: 12,
    })
    .map((parts) => parts.join(' '));
  fc.assert(
    fc.property(line, (text) => {
      try {
        readCommand(['iptables-restore', '-A', 'INPUT', ...splitWords(text)], context);
      } catch (error) {
        if (!(error instanceof ToolError)) throw error;
      }
    }),
    { ...parameters, numRuns: 20_000 },
  );
  // Whole files: whatever they hold, an exit code and no exception, and an error leaves the ruleset alone.
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(line, letters, fc.constant('*filter'), fc.constant('COMMIT'))),
      async (lines) => {
        const backend = new MemoryBackend();
        const before = backend.ruleset();
        const { code } = await runIptables(
          'iptables-restore',
          [],
          lines.map((text) => `-A INPUT ${text}\n`).join(''),
          backend,
        );
        return code === 0 || backend.ruleset() === before;
      },
    ),
    { ...parameters, numRuns: 500 },
  );
  t.pass();
});

void t.test('long lines and many words are refused', async (t) => {
  const backend = new MemoryBackend();
  for (const line of [
    `-A INPUT -m comment --comment ${'x'.repeat(1 << 20)}\n`,
    `-A INPUT ${'! '.repeat(1 << 19)}\n`,
    `${'x'.repeat(1 << 20)}\n`,
    `-A INPUT ${'-f '.repeat(300)}\n`,
  ]) {
    const { code, stderr } = await runIptables('iptables-restore', [], `*filter\n${line}COMMIT\n`, backend);
    t.equal(code, 2, stderr.slice(0, 200));
  }
  t.equal(backend.commits, 0);
});
