/**
 * `bench classify`: decision trees over five-tuples, one core. With --filters and --trace a pair of ClassBench files; without,
 * seeded sets of the three classic shapes. Beside them DPDK's rte_acl where dpdk-test-acl is installed. Rates are
 * packets a second of this process's own processor time, so that neighbours on the machine count less.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { addressText } from '../src/dataplane/program/op.js';
import { Key, KEYS, classifyBatch, NONE } from '../src/dataplane/program/tree.js';
import { treeFault } from '../src/dataplane/program/verify-tree.js';
import { build } from '../src/control/compile/tree/build.js';
import type { Boxes } from '../src/control/compile/tree/boxes.js';
import { generate, readFilters, readTrace, SHAPES } from './classbench.js';
import type { Options } from './main.js';
import { spread, table } from './stats.js';

export interface Classified {
  readonly rules: number;
  readonly lookups: number;
  /** Million lookups a second of processor time; the median round. */
  readonly mpps: number;
  readonly buildMs: number;
  readonly bytes: number;
  /** Nodes on the way to the leaves, all trees together: at worst, and on the mean over what leaves hold. */
  readonly depthMax: number;
  readonly depthMean: number;
  /** Answers that differ from a walk through the filters; with --verify. */
  readonly mismatches?: number;
  /** rte_acl's rates in the same run, where it is installed. */
  readonly scalar?: number;
  readonly avx2?: number;
}

const ROUND_MS = 200;

function measure(words: Int32Array, keys: Int32Array, rounds: number): number {
  const count = keys.length / KEYS;
  const answers = new Int32Array(count);
  const pass = (): number => {
    classifyBatch(words, keys, count, answers);
    let sum = 0;
    for (let i = 0; i < count; i += 64) sum = (sum * 31 + answers[i]!) | 0;
    return sum;
  };
  const expected = pass();
  const rates = Array.from({ length: rounds }, () => {
    const before = process.cpuUsage();
    let passes = 0;
    let spent = { user: 0, system: 0 };
    while (spent.user + spent.system < ROUND_MS * 1000) {
      if (pass() !== expected) throw new Error('another answer than the first time');
      passes++;
      spent = process.cpuUsage(before);
    }
    return (passes * count) / (spent.user + spent.system);
  });
  return spread(rates).median;
}

/** How many of the answers a walk through the filters in order gives otherwise. */
function mismatches(words: Int32Array, filters: Boxes, keys: Int32Array): number {
  const count = keys.length / KEYS;
  const answers = new Int32Array(count);
  classifyBatch(words, keys, count, answers);
  const { low, high } = filters;
  const known = new Map<string, number>();
  let wrong = 0;
  for (let i = 0; i < count; i++) {
    const k = i * KEYS;
    const name = keys.subarray(k, k + KEYS).join();
    let first = known.get(name);
    if (first === undefined) {
      first = NONE;
      const src = keys[k]! >>> 0;
      const dst = keys[k + Key.DST]! >>> 0;
      for (let f = 0; f < filters.count; f++) {
        const b = f * KEYS;
        if (src < low[b]! || src > high[b]! || dst < low[b + 1]! || dst > high[b + 1]!) continue;
        if ([Key.PROTOCOL, Key.SPORT, Key.DPORT].some((d) => keys[k + d]! < low[b + d]! || keys[k + d]! > high[b + d]!))
          continue;
        first = f;
        break;
      }
      known.set(name, first);
    }
    if (answers[i] !== first) wrong++;
  }
  return wrong;
}

function classifySet(filters: Boxes, trace: Int32Array, options: Options): Classified {
  const { words, shape } = build(filters);
  const fault = treeFault(words);
  if (fault !== undefined) throw new Error(`the tree is unsound: ${fault}`);
  return {
    rules: filters.count,
    lookups: trace.length / KEYS,
    mpps: measure(words, trace, options.pairs),
    buildMs: shape.buildMs,
    bytes: shape.bytes,
    depthMax: shape.depthMax,
    depthMean: shape.depthMean,
    ...(options.verify && { mismatches: mismatches(words, filters, trace) }),
    ...peer(filters, trace),
  };
}

/** rte_acl on the same set and trace: processor time of many passes less that of one. Nothing where it isn't installed. */
function peer(filters: Boxes, trace: Int32Array): { scalar?: number; avx2?: number } {
  if (spawnSync('sh', ['-c', 'command -v dpdk-test-acl']).status !== 0 || filters.count > 20_000) return {};
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-acl-'));
  try {
    const count = trace.length / KEYS;
    const length = (b: number, key: Key): number => Math.clz32(filters.low[b + key]! ^ filters.high[b + key]!);
    const lines = Array.from({ length: filters.count }, (_, i) => {
      const b = i * KEYS;
      const at = (key: Key): string => `${filters.low[b + key]!} : ${filters.high[b + key]!}`;
      const any = filters.low[b + Key.PROTOCOL] !== filters.high[b + Key.PROTOCOL];
      const protocol = any ? '0x00/0x00' : `0x${filters.low[b + Key.PROTOCOL]!.toString(16).padStart(2, '0')}/0xFF`;
      const address = (key: Key): string => `${addressText(filters.low[b + key]!)}/${length(b, key)}`;
      return `@${address(Key.SRC)}\t${address(Key.DST)}\t${at(Key.SPORT)}\t${at(Key.DPORT)}\t${protocol}\t0x0000/0x0000`;
    });
    writeFileSync(path.join(folder, 'rules'), lines.join('\n') + '\n');
    const headers = Array.from({ length: count }, (_, i) =>
      [Key.SRC, Key.DST, Key.SPORT, Key.DPORT, Key.PROTOCOL].map((key) => trace[i * KEYS + key]! >>> 0).join('\t'),
    );
    writeFileSync(path.join(folder, 'trace'), headers.join('\n') + '\n');
    const spent = (alg: string, iterations: number): number => {
      const args = `--no-huge -m 2000 --no-pci --file-prefix=hutter${process.pid} -- --rulesf=rules --tracef=trace`;
      const command = `dpdk-test-acl ${args} --tracenum=${count} --iter=${iterations} --alg=${alg} --verbose=0`;
      // The shell's `times` says what its children spent.
      const result = spawnSync('sh', ['-c', `${command} >/dev/null 2>&1 || exit 1; times`], { cwd: folder });
      const found = /(\d+)m([\d.]+)s \d+m[\d.]+s\s*$/.exec(result.stdout.toString());
      if (result.status !== 0 || found === null) throw new Error(`dpdk-test-acl --alg=${alg} failed`);
      return Number(found[1]) * 60 + Number(found[2]);
    };
    const rate = (alg: string): number => (30 * count) / (spent(alg, 31) - spent(alg, 1)) / 1e6;
    return { scalar: rate('scalar'), avx2: rate('avx2') };
  } catch (error) {
    console.error(`no comparison: ${error instanceof Error ? error.message : String(error)}`);
    return {};
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const HEAD = ['', 'rules', 'Mpps', 'scalar', 'avx2', 'build ms', 'KiB', 'depth', 'mean', 'wrong'];

const row = (name: string, r: Classified): string[] => [
  name,
  `${r.rules}`,
  r.mpps.toFixed(1),
  r.scalar?.toFixed(1) ?? '',
  r.avx2?.toFixed(1) ?? '',
  r.buildMs.toFixed(0),
  (r.bytes / 1024).toFixed(0),
  `${r.depthMax}`,
  r.depthMean.toFixed(1),
  r.mismatches === undefined ? 'unchecked' : `${r.mismatches}`,
];

/** @throws Error when an answer is wrong: no rate is quoted then. */
export async function run(options: Options): Promise<unknown> {
  const { filters, trace } = options;
  const check = (name: string, r: Classified): Classified => {
    if (!options.json) console.log(table([HEAD, row(name, r)]));
    if ((r.mismatches ?? 0) > 0) process.exitCode = 1;
    return r;
  };
  if (filters !== undefined && trace !== undefined)
    return Promise.resolve(check(path.basename(filters), classifySet(readFilters(filters), readTrace(trace), options)));
  if (filters !== undefined || trace !== undefined) throw new Error('--filters and --trace belong together');
  const results: Record<string, Classified> = {};
  for (const shape of SHAPES)
    for (const count of [100, 1000, 10_000, 100_000]) {
      const set = generate(shape, count, 100_000, count);
      results[`${shape} ${count}`] = check(`${shape} ${count}`, classifySet(set.filters, set.trace, options));
    }
  return results;
}
