/** A verified decision tree (tree.ts) as lines that a person can read: nodes with their windows, leaves with their boxes. */
import { addressText, rangeText } from './op.js';
import { Entry, ENTRY_WORDS, LEAF_WORDS, NONE, Root, ROOT_WORDS, Tree } from './tree.js';

const KEY_NAMES = ['src', 'dst', 'protocol', 'sport', 'dport', 'in', 'out', 'state'] as const;

export function dumpTree(words: Int32Array): string[] {
  const lines: string[] = [];
  for (let t = 0; t < words[Tree.TREES]!; t++) {
    const root = Tree.ROOTS + t * ROOT_WORDS;
    lines.push(`tree ${t}, from entry ${words[root + Root.FIRST]}`);
    dumpNode(words, words[root + Root.NODE]!, words[root + Root.AT]!, '  ', lines);
  }
  return lines;
}

function dumpNode(words: Int32Array, node: number, at: number, indent: string, lines: string[]): void {
  if (node < 0) {
    for (let list = at + LEAF_WORDS; words[list] !== NONE; list++) lines.push(indent + entryText(words, words[list]!));
    return;
  }
  const shift = (node >>> 3) & 31;
  const children = (node >>> 8) + 1;
  const width = 31 - Math.clz32(children);
  lines.push(`${indent}${KEY_NAMES[node & 7]} bits ${shift} to ${shift + width - 1}`);
  for (let c = 0; c < children;) {
    const child = at + c * 2;
    let last = c;
    while (last + 1 < children && words[at + last * 2 + 3] === words[child + 1]) last++;
    lines.push(`${indent}  ${c === last ? c : `${c} to ${last}`}:`);
    dumpNode(words, words[child]!, words[child + 1]!, `${indent}    `, lines);
    c = last + 1;
  }
}

function entryText(words: Int32Array, entry: number): string {
  const e = words[Tree.ENTRIES]! + entry * ENTRY_WORDS;
  const address = (at: number): string => {
    const first = words[at]!;
    return `${addressText(first)} to ${addressText((first + words[at + 1]!) | 0)}`;
  };
  const ports = (word: number): string => rangeText(word >>> 16, word & 0xffff);
  const protocols = words[e + Entry.PROTOCOLS]!;
  return (
    `rule ${words[e + Entry.RULE]! + 1}: src ${address(e + Entry.SRC)}, dst ${address(e + Entry.DST)}, ` +
    `protocol ${rangeText(protocols >>> 8, protocols & 0xff)}, ` +
    `sport ${ports(words[e + Entry.SPORTS]!)}, dport ${ports(words[e + Entry.DPORTS]!)}`
  );
}
