/**
 * A program as text that a person can read: chains with the offsets at which they begin, rules numbered as iptables numbers
 * them, with their counter, tests and target.
 */
import { HOOK_COUNT, HOOK_NAMES, TABLE_COUNT, TABLE_NAMES, Verdict } from '../names.js';
import { MATCHES, TARGETS } from './catalog.js';
import {
  Chain,
  CHAIN_WORDS,
  Header,
  HEADER_WORDS,
  INVERT,
  Op,
  OP_MASK,
  POLICY_RETURN,
  ProgramFlag,
  Rule,
  RULE_WORDS,
} from './format.js';
import { dumpTree } from './dump-tree.js';
import type { Op as OpRecord } from './op.js';

/** `program` must be verified. With its `regions` the decision trees behind their chains, too. */
export function dump(program: Int32Array, regions: readonly Int32Array[] = []): string {
  const names = new Map<number, string[]>();
  for (let table = 0; table < TABLE_COUNT; table++)
    for (let hook = 0; hook < HOOK_COUNT; hook++) {
      const at = program[Header.ENTRY + table * HOOK_COUNT + hook]!;
      if (at !== 0) names.set(at, [...(names.get(at) ?? []), `${TABLE_NAMES[table]} ${HOOK_NAMES[hook]}`]);
    }
  const flags = program[Header.FLAGS]!;
  const lines = [
    `program of ${program.length} words, ${program[Header.COUNTERS]} counters, ${program[Header.REGIONS]} regions, ` +
      `depth ${program[Header.DEPTH]}` +
      (flags & ProgramFlag.CONNECTIONS ? ', needs connections' : '') +
      (flags & ProgramFlag.NAT ? ', nat' : '') +
      (flags & ProgramFlag.PAYLOAD ? ', needs payloads' : '') +
      (flags & ProgramFlag.PACKET_TYPE ? ', needs packet types' : '') +
      (flags & ProgramFlag.POLICY ? ', needs IPsec policies' : ''),
  ];
  for (let chain = HEADER_WORDS; chain < program.length; chain = program[chain + Chain.NEXT]!) {
    const policy = program[chain + Chain.POLICY]!;
    const end = program[chain + Chain.END]!;
    lines.push('');
    lines.push(
      policy === POLICY_RETURN
        ? `@${chain} user's chain`
        : `@${chain} ${names.get(chain)?.join(', ') ?? 'unused'}, policy ${policy === Verdict.ACCEPT ? 'ACCEPT' : 'DROP'} ` +
            `(counter ${program[chain + Chain.POLICY_COUNTER]})`,
    );
    for (let at = chain + CHAIN_WORDS, number = 1; at < end; at += program[at + Rule.LENGTH]!, number++) {
      const target = at + program[at + Rule.TARGET]!;
      const parts: string[] = [];
      for (let test = at + RULE_WORDS; test < target; test += program[test + Op.LENGTH]!) {
        const invert = (program[test]! & INVERT) !== 0 ? '! ' : '';
        parts.push(invert + operation(program, test, MATCHES.get(program[test]! & OP_MASK)!));
      }
      parts.push(`→ ${operation(program, target, TARGETS.get(program[target]!)!)}`);
      lines.push(`  ${number} [${program[at + Rule.COUNTER]}] ${parts.join('  ')}`);
    }
    const tree = regions[program[chain + Chain.TREE]! - 1];
    if (tree !== undefined) lines.push(...dumpTree(tree).map((line) => `  ${line}`));
  }
  return lines.join('\n') + '\n';
}

function operation(program: Int32Array, at: number, record: OpRecord): string {
  const text = record.text({ program, at: at + Op.ARGS, words: program[at + Op.LENGTH]! - Op.ARGS, regions: [] });
  return text === '' ? record.name : `${record.name} ${text}`;
}
