/**
 * What a tree costs a packet, estimated: packets are made up inside the boxes, early and late ones alike, and followed as
 * dataplane/program/tree.ts would. Deterministic, so the same rules always get the same tree.
 */
import { Key, KEYS, LEAF_WORDS, NONE, Root, ROOT_WORDS, Tree } from '../../../dataplane/program/tree.js';
import type { Boxes } from './boxes.js';

/** Boxes that packets are made in, at most. */
const SAMPLES = 512;
/** Of a tree that is begun, a node, and an entry that is looked at. */
const ROOT_COST = 2;
const NODE_COST = 1;
const ENTRY_COST = 1;

/** Steps a packet on the mean. */
export function cost(words: Int32Array, boxes: Boxes): number {
  if (boxes.count === 0) return 0;
  const step = Math.max(1, Math.floor(boxes.count / SAMPLES));
  const keys = new Uint32Array(KEYS);
  let random = 0x9e3779b9;
  let sum = 0;
  let count = 0;
  for (let box = 0; box < boxes.count; box += step, count++) {
    for (let d = 0; d < KEYS; d++) {
      random ^= random << 13;
      random ^= random >>> 17;
      random ^= random << 5;
      const low = boxes.low[box * KEYS + d]!;
      keys[d] = low + ((random >>> 0) % (boxes.high[box * KEYS + d]! - low + 1));
    }
    sum += steps(words, boxes, keys);
  }
  return sum / count;
}

/** To the first box that holds the keys and ends the way. */
function steps(words: Int32Array, boxes: Boxes, keys: Uint32Array): number {
  let best = NONE;
  let sum = 0;
  for (let t = 0; t < words[Tree.TREES]!; t++) {
    const root = Tree.ROOTS + t * ROOT_WORDS;
    if (words[root + Root.FIRST]! >= best) continue;
    sum += ROOT_COST;
    let node = words[root + Root.NODE]!;
    let at = words[root + Root.AT]!;
    while (node >= 0) {
      const child = at + (((keys[node & 7]! >>> (node >>> 3)) & (node >>> 8)) << 1);
      node = words[child]!;
      at = words[child + 1]!;
      sum += NODE_COST;
    }
    for (let list = at + LEAF_WORDS; words[list]! < best; list++) {
      sum += ENTRY_COST;
      if (boxes.final[words[list]!] === 0 || !holds(boxes, words[list]!, keys)) continue;
      best = words[list]!;
      break;
    }
  }
  return sum;
}

/** As the entry's test does: by the five-tuple. */
function holds(boxes: Boxes, box: number, keys: Uint32Array): boolean {
  for (let d: number = Key.SRC; d <= Key.DPORT; d++)
    if (keys[d]! < boxes.low[box * KEYS + d]! || keys[d]! > boxes.high[box * KEYS + d]!) return false;
  return true;
}
