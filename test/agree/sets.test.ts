/**
 * Filter sets in ClassBench's shapes, as rules: trees against the walk, and against the filters themselves. Seeded sets; with
 * HUTTER_CLASSBENCH also every FILE.filters.gz of that folder, on the headers of its FILE.trace.gz.
 */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { generate, readFilters, readTrace, rulesText, SHAPES } from '../../bench/classbench.js';
import type { Boxes } from '../../src/control/compile/tree/boxes.js';
import { addressText } from '../../src/dataplane/program/op.js';
import { Key, KEYS } from '../../src/dataplane/program/tree.js';
import { Pair, type Sent } from './worlds.js';

const times = Number(process.env.HUTTER_AGREE ?? 1);
const folder = process.env.HUTTER_CLASSBENCH;
const PACKETS = 300;

/** Headers number `every`, 2 × `every`, … as packets. */
function packets(keys: Int32Array, count: number): { sent: Sent; keys: Int32Array }[] {
  const headers = keys.length / KEYS;
  const every = Math.max(1, Math.floor(headers / count));
  return Array.from({ length: Math.min(count, headers) }, (_, i) => {
    const own = keys.subarray(i * every * KEYS, (i * every + 1) * KEYS);
    const [src, dst, protocol, sport, dport] = own as unknown as [number, number, number, number, number];
    const fields = { src: addressText(src), dst: addressText(dst), protocol, sport, dport };
    return { sent: { fields, indev: 2, outdev: 3, state: 0 }, keys: own };
  });
}

/** The first filter that holds the headers, −1 = none. */
function first({ low, high, count }: Boxes, keys: Int32Array): number {
  for (let i = 0; i < count; i++) {
    let d = 0;
    for (; d <= Key.DPORT; d++) {
      const value = d <= Key.DST ? keys[d]! >>> 0 : keys[d]!;
      if (value < low[i * KEYS + d]! || value > high[i * KEYS + d]!) break;
    }
    if (d > Key.DPORT) return i;
  }
  return -1;
}

function agree(t: Test, filters: Boxes, trace: Int32Array): void {
  const pair = new Pair(rulesText(filters));
  t.equal(pair.trees, 1);
  const list = packets(trace, PACKETS * times);
  t.equal(
    pair.differ(
      list.map(({ sent }) => sent),
      'FORWARD',
    ),
    undefined,
  );
  // Of packets with ports the rule that counts is the filter's.
  const ported = list.filter(({ sent: { fields } }) => fields.protocol === 6 || fields.protocol === 17);
  const expected = new Map<number, number>();
  for (const { keys } of ported) {
    const filter = first(filters, keys);
    expected.set(filter, (expected.get(filter) ?? 0) + 1);
  }
  const fresh = new Pair(rulesText(filters));
  t.equal(
    fresh.differ(
      ported.map(({ sent }) => sent),
      'FORWARD',
    ),
    undefined,
  );
  for (const [filter, count] of expected) {
    fresh.asks.rules = fresh.rules;
    const found = fresh.asks.count('FORWARD', filter + 1)[0];
    if (found !== count) return void t.fail(`rule ${filter + 1} counts ${found} of ${count} packets`);
  }
  t.ok(expected.size > 10, `${expected.size} rules were met`);
}

for (const shape of SHAPES)
  t.test(`${shape}, seeded`, (t) => {
    const seed = Date.now() | 0;
    t.comment(`seed ${seed}`);
    const { filters, trace } = generate(shape, 400, PACKETS * times, seed);
    agree(t, filters, trace);
    t.end();
  });

if (folder !== undefined)
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.filters.gz')))
    t.test(file, (t) => {
      const of = path.join(folder, file.replace('.filters.gz', ''));
      agree(t, readFilters(`${of}.filters.gz`), readTrace(`${of}.trace.gz`));
      t.end();
    });
