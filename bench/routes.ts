/**
 * `bench routes`: longest prefix match in a table of a million prefixes, beside a DIR-24-8 loop in C on the same table and the
 * same addresses. Both write down what they found; answers that differ end the bench. Nanoseconds are processor time.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { loadNative } from '../src/dataplane/io/native.js';
import {
  ALIAS_WORDS,
  Arena,
  lookup,
  Node,
  prefixOf,
  type RouteSet,
  RoutingTable,
} from '../src/dataplane/route/table.js';
import type { Options } from './main.js';
import { peer } from './peers.js';
import { type Spread, spread } from './stats.js';

// As workers have it.
setFlagsFromString('--max-inlined-bytecode-size-cumulative=4000');

const ROUTES = 1_000_000;
const ADDRESSES = 1 << 20;
const NEXT_HOPS = 250;
const SEED = 0x726f7574;
const ROUND_MS = 300;
/** Of every thousand prefixes of the Internet's table how many have which length; those longer than 24 are a provider's own. */
const LENGTHS: Readonly<Record<number, number>> = {
  8: 1,
  12: 1,
  14: 2,
  15: 2,
  16: 14,
  17: 9,
  18: 15,
  19: 27,
  20: 46,
  21: 55,
  22: 112,
  23: 103,
  24: 593,
  26: 4,
  28: 4,
  30: 4,
  32: 8,
};

/** xorshift, seeded. */
function random(seed: number): () => number {
  let x = seed | 0;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

interface Workload {
  /** Address, length, next hop; no prefix twice. */
  readonly routes: Int32Array;
  readonly addresses: Int32Array;
}

function workload(): Workload {
  const next = random(SEED);
  const lengths = Object.entries(LENGTHS).flatMap(([length, share]) => Array<number>(share).fill(Number(length)));
  const routes = new Int32Array(ROUTES * 3);
  const seen = Array.from({ length: 33 }, () => new Set<number>());
  for (let i = 0; i < ROUTES;) {
    const length = lengths[next() % lengths.length]!;
    // 1.0.0.0 to 223.255.255.255
    const address = prefixOf(((1 + (next() % 223)) << 24) | (next() >>> 8), length);
    if (seen[length]!.size === seen[length]!.add(address).size) continue;
    routes.set([address, length, 1 + (next() % NEXT_HOPS)], i++ * 3);
  }
  const addresses = Int32Array.from({ length: ADDRESSES }, () => {
    if (next() % 10 === 0) return next() | 0;
    const i = (next() % ROUTES) * 3;
    const length = routes[i + 1]!;
    return routes[i]! | (length === 32 ? 0 : next() >>> length);
  });
  return { routes, addresses };
}

interface Built {
  readonly words: Int32Array;
  readonly table: number;
  readonly bytes: number;
  readonly buildMs: number;
}

function build({ routes }: Workload): Built {
  const words = new Int32Array(new SharedArrayBuffer(ROUTES * 72 * 4));
  loadNative().adviseHuge(new Uint8Array(words.buffer));
  const arena = new Arena(words, 1);
  const sets = Array.from({ length: NEXT_HOPS + 1 }, (_, hop): RouteSet => {
    const set = new Int32Array(ALIAS_WORDS);
    set[0] = hop;
    return { words: set };
  });
  const before = process.cpuUsage();
  const table = new RoutingTable(arena);
  table.begin();
  for (let i = 0; i < routes.length; i += 3) table.set(routes[i]!, routes[i + 1]!, sets[routes[i + 2]!]);
  table.end();
  const { user, system } = process.cpuUsage(before);
  return { words, table: table.offset, bytes: arena.used * 4, buildMs: (user + system) / 1000 };
}

const hop = (words: Int32Array, table: number, address: number): number => {
  const node = lookup(words, table, address);
  return node === 0 ? 0 : words[node + Node.ALIASES]!;
};

/**
 * Next hop of each address, by the lookup that workers have. Four a turn: V8's loops begin each turn with a check that keeps the
 * processor from waiting for several loads at once, which is the loop's cost and not the lookup's.
 */
function pass(words: Int32Array, table: number, addresses: Int32Array, answers: Int32Array): void {
  for (let i = 0; i < addresses.length; i += 4) {
    answers[i] = hop(words, table, addresses[i]!);
    answers[i + 1] = hop(words, table, addresses[i + 1]!);
    answers[i + 2] = hop(words, table, addresses[i + 2]!);
    answers[i + 3] = hop(words, table, addresses[i + 3]!);
  }
}

/** Nanoseconds a lookup, one round. */
function measure({ words, table }: Built, addresses: Int32Array, answers: Int32Array): number {
  const before = process.cpuUsage();
  let lookups = 0;
  for (let spent = 0; spent < ROUND_MS * 1000;) {
    pass(words, table, addresses, answers);
    lookups += addresses.length;
    const { user, system } = process.cpuUsage(before);
    spent = user + system;
    if (spent >= ROUND_MS * 1000) return (spent * 1000) / lookups;
  }
  return 0;
}

export interface Looked {
  readonly routes: number;
  readonly lookups: number;
  /** Nanoseconds a lookup: medians. */
  readonly ns: number;
  readonly cNs: number;
  /** hutter's time by the C loop's, of interleaved rounds. */
  readonly ratio: Spread;
  readonly bytes: number;
  readonly buildMs: number;
}

export function run(options: Options): Looked {
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-bench-'));
  try {
    const load = workload();
    const file = (name: string): string => path.join(folder, name);
    writeFileSync(file('table'), new Uint8Array(load.routes.buffer));
    writeFileSync(file('trace'), new Uint8Array(load.addresses.buffer));
    const built = build(load);
    const answers = new Int32Array(ADDRESSES);
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < options.pairs; round++) {
      const c = spawnSync(peer('dir24'), [file('table'), file('trace'), file('answers'), String(ROUND_MS)]);
      if (c.status !== 0) throw new Error(`dir24: ${c.stderr.toString()}`);
      theirs.push(Number(c.stdout.toString()));
      ours.push(measure(built, load.addresses, answers));
      const bytes = readFileSync(file('answers'));
      const found = new Int32Array(bytes.buffer, bytes.byteOffset, ADDRESSES);
      const wrong = answers.findIndex((answer, i) => answer !== found[i]);
      if (wrong >= 0)
        throw new Error(`address ${load.addresses[wrong]! >>> 0}: ${answers[wrong]}, not ${found[wrong]}`);
    }
    const result: Looked = {
      routes: ROUTES,
      lookups: ADDRESSES,
      ns: spread(ours).median,
      cNs: spread(theirs).median,
      ratio: spread(ours.map((ns, i) => ns / theirs[i]!)),
      bytes: built.bytes,
      buildMs: Math.round(built.buildMs),
    };
    if (!options.json) report(result);
    return result;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report({ routes, lookups, ns, cNs, ratio, bytes, buildMs }: Looked): void {
  const mib = (bytes / 2 ** 20).toFixed(1);
  console.log(`${routes} prefixes, ${mib} MiB, built in ${buildMs} ms; ${lookups} addresses, all answers equal`);
  console.log(`hutter       ${ns.toFixed(1)} ns a lookup`);
  console.log(`C, DIR-24-8  ${cNs.toFixed(1)} ns a lookup`);
  console.log(
    `ratio        ${ratio.median.toFixed(2)} (${ratio.low.toFixed(2)}..${ratio.high.toFixed(2)}), at most 1.5`,
  );
}
