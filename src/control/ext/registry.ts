/**
 * All extension records, by kind and name. A new extension is a file beside this one and a line here.
 */
import type { Extension } from './record.js';
import { comment } from './comment.js';
import { connlimit } from './connlimit.js';
import { conntrack, state } from './conntrack.js';
import { icmp } from './icmp.js';
import { limit } from './limit.js';
import { LOG } from './log.js';
import { mark, MARK } from './mark.js';
import { multiport } from './multiport.js';
import { DNAT, MASQUERADE, REDIRECT, SNAT } from './nat.js';
import { recent } from './recent.js';
import { REJECT } from './reject.js';
import { tcp } from './tcp.js';
import { TOS } from './tos.js';
import { udp } from './udp.js';

const RECORDS: readonly Extension[] = [
  comment,
  connlimit,
  conntrack,
  DNAT,
  icmp,
  limit,
  LOG,
  mark,
  MARK,
  MASQUERADE,
  multiport,
  recent,
  REDIRECT,
  REJECT,
  SNAT,
  state,
  tcp,
  TOS,
  udp,
];

const matches = new Map<string, Extension>();
const targets = new Map<string, Extension>();
for (const record of RECORDS) {
  const map = record.kind === 'match' ? matches : targets;
  if (map.has(record.name)) throw new Error(`two extension records for ${record.kind} ${record.name}`);
  map.set(record.name, record);
}

/** The match of this name. */
export const matchNamed = (name: string): Extension | undefined => matches.get(name);
/** The target extension of this name; the standard targets and chains are none. */
export const targetNamed = (name: string): Extension | undefined => targets.get(name);
/** Every record, matches first, by name. */
export function allExtensions(): readonly Extension[] {
  const byName = (a: Extension, b: Extension): number => (a.name < b.name ? -1 : 1);
  return [...[...matches.values()].sort(byName), ...[...targets.values()].sort(byName)];
}
