/**
 * `bench routes`: longest prefix match in a table of a million prefixes, beside a DIR-24-8 loop in C on the same table and the
 * same addresses. All write down what they found; answers that differ end the bench. Nanoseconds are processor time. hutter's
 * lookups are those of its workers: of a batch's addresses together, and of one address after the other.
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
  defaultNode,
  lookup,
  Node,
  prefixOf,
  type RouteSet,
  RoutingTable,
  wideOf,
} from '../src/dataplane/route/table.js';
import { memoryFor, type Together, together } from '../src/dataplane/route/together.js';
import type { Options } from './main.js';
import { peer } from './peers.js';
import { type Spread, spread } from './stats.js';

// As workers have it.
setFlagsFromString('--max-inlined-bytecode-size-cumulative=4000');

const ROUTES = 1_000_000;
const ADDRESSES = 1 << 20;
const NEXT_HOPS = 250;
/** Packets of a worker's batch. */
const BATCH = 64;
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
  readonly together: Together;
  /** Places in `words` for the addresses and for the nodes found. */
  readonly addresses: number;
  readonly nodes: number;
  readonly bytes: number;
  readonly buildMs: number;
}

function build({ routes, addresses }: Workload): Built {
  const memory = memoryFor(ROUTES * 72 + 2 * ADDRESSES);
  const words = new Int32Array(memory.buffer);
  loadNative().adviseHuge(new Uint8Array(words.buffer));
  const arena = new Arena(words.subarray(0, ROUTES * 72), 1);
  words.set(addresses, ROUTES * 72);
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
  return {
    words,
    table: table.offset,
    together: together(memory),
    addresses: ROUTES * 72,
    nodes: ROUTES * 72 + ADDRESSES,
    bytes: arena.used * 4,
    buildMs: (user + system) / 1000,
  };
}

/** Finds the node of every address, and leaves them where `Built.nodes` says. */
type Pass = (built: Built) => void;

const inBatches: Pass = ({ words, table, together, addresses, nodes }) => {
  const wide = wideOf(words, table);
  for (let i = 0; i < ADDRESSES; i += BATCH) together(wide, addresses + i, nodes + i, BATCH);
};

/**
 * Four a turn: V8's loops begin each turn with a check that keeps the processor from waiting for several loads at once, which is
 * the loop's cost and not the lookup's.
 */
const oneByOne: Pass = ({ words, table, addresses, nodes }) => {
  for (let i = 0; i < ADDRESSES; i += 4) {
    const from = addresses + i;
    const to = nodes + i;
    words[to] = lookup(words, table, words[from]!);
    words[to + 1] = lookup(words, table, words[from + 1]!);
    words[to + 2] = lookup(words, table, words[from + 2]!);
    words[to + 3] = lookup(words, table, words[from + 3]!);
  }
};

/** Nanoseconds a lookup, one round. */
function measure(built: Built, pass: Pass): number {
  const before = process.cpuUsage();
  for (let lookups = 0; ;) {
    pass(built);
    lookups += ADDRESSES;
    const { user, system } = process.cpuUsage(before);
    if (user + system >= ROUND_MS * 1000) return ((user + system) * 1000) / lookups;
  }
}

/** @throws Error when the nodes found are not those with the next hops that the C loop found */
function compare({ words, table, addresses, nodes }: Built, found: Int32Array): void {
  for (let i = 0; i < ADDRESSES; i++) {
    const node = words[nodes + i]! || defaultNode(words, table);
    const hop = node === 0 ? 0 : words[node + Node.ALIASES]!;
    if (hop !== found[i]) throw new Error(`address ${words[addresses + i]! >>> 0}: ${hop}, not ${found[i]}`);
  }
}

export interface Looked {
  readonly routes: number;
  readonly lookups: number;
  /** Nanoseconds a lookup: medians. */
  readonly ns: number;
  readonly singleNs: number;
  readonly cNs: number;
  /** hutter's time by the C loop's, of interleaved rounds. */
  readonly ratio: Spread;
  readonly singleRatio: Spread;
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
    const ours: number[] = [];
    const single: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round < options.pairs; round++) {
      const c = spawnSync(peer('dir24'), [file('table'), file('trace'), file('answers'), String(ROUND_MS)]);
      if (c.status !== 0) throw new Error(`dir24: ${c.stderr.toString()}`);
      theirs.push(Number(c.stdout.toString()));
      const bytes = readFileSync(file('answers'));
      const found = new Int32Array(bytes.buffer, bytes.byteOffset, ADDRESSES);
      ours.push(measure(built, inBatches));
      compare(built, found);
      single.push(measure(built, oneByOne));
      compare(built, found);
    }
    const result: Looked = {
      routes: ROUTES,
      lookups: ADDRESSES,
      ns: spread(ours).median,
      singleNs: spread(single).median,
      cNs: spread(theirs).median,
      ratio: spread(ours.map((ns, i) => ns / theirs[i]!)),
      singleRatio: spread(single.map((ns, i) => ns / theirs[i]!)),
      bytes: built.bytes,
      buildMs: Math.round(built.buildMs),
    };
    if (!options.json) report(result);
    return result;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report({ routes, lookups, ns, singleNs, cNs, ratio, singleRatio, bytes, buildMs }: Looked): void {
  const mib = (bytes / 2 ** 20).toFixed(1);
  const of = ({ median, low, high }: Spread): string =>
    `${median.toFixed(2)} (${low.toFixed(2)}..${high.toFixed(2)}) of the C loop`;
  console.log(`${routes} prefixes, ${mib} MiB, built in ${buildMs} ms; ${lookups} addresses, all answers equal`);
  console.log(`C, DIR-24-8           ${cNs.toFixed(1)} ns a lookup`);
  console.log(`hutter, a batch of ${BATCH}  ${ns.toFixed(1)} ns a lookup, ${of(ratio)}, at most 1.5`);
  console.log(`hutter, one by one    ${singleNs.toFixed(1)} ns a lookup, ${of(singleRatio)}`);
}
