/**
 * All extension records, by kind and name. A new extension is a file beside this one and a line here.
 */
import type { Extension } from './record.js';
import { comment } from './comment.js';
import { limit } from './limit.js';
import { mark, MARK } from './mark.js';
import { tcp } from './tcp.js';
import { udp } from './udp.js';

const RECORDS: readonly Extension[] = [comment, limit, mark, MARK, tcp, udp];

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
