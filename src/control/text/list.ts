/**
 * iptables -L: columns for people. Widths, blanks and words are the tool's (xshared.c, iptables.c: list_entries,
 * print_firewall). The other form, one rule in running text, is what -v prints when it changes a rule.
 */
import type { Names, PrintContext } from '../ext/record.js';
import type { Counters, RuleSpec, Target } from '../model.js';
import { protocolName } from '../protocols.js';
import { anyName, formatAddress, formatMask, type Network } from './address.js';

export interface ListFormat {
  /** -v: counters and interfaces. */
  readonly verbose: boolean;
  /** -n */
  readonly numeric: boolean;
  /** -x: counters in full. */
  readonly exact: boolean;
  readonly lineNumbers: boolean;
  readonly names: Names;
}

/** K is 1,000 here, rounded half up at each step. */
function shortNumber(value: bigint, width: number): string {
  if (value <= 99999n) return `${String(value).padStart(width)} `;
  let number = value;
  for (const unit of 'KMGT') {
    number = BigInt.asUintN(64, number + 500n) / 1000n;
    if (number <= 9999n || unit === 'T') return `${String(number).padStart(Math.max(width - 1, 0))}${unit} `;
  }
  return '';
}

const number = (value: bigint, exact: boolean): string =>
  exact ? `${String(value).padStart(8)} ` : shortNumber(value, 5);

/** The line over a chain and the columns' names. `policy` is that of a built-in chain, with its counters. */
export function listHeader(
  chain: string,
  policy: { readonly verdict: string; readonly counters: Counters } | undefined,
  references: number,
  format: ListFormat,
): string {
  const plain = (value: bigint): string => (format.exact ? `${value} ` : shortNumber(value, 0));
  const counted = policy && format.verbose;
  let text = `Chain ${chain} (`;
  if (policy) text += `policy ${policy.verdict}`;
  else text += `${references} references`;
  if (counted) text += ` ${plain(policy.counters.packets)}packets, ${plain(policy.counters.bytes)}bytes`;
  text += ')\n';
  if (format.lineNumbers) text += 'num  ';
  if (format.verbose) text += format.exact ? '    pkts      bytes ' : ' pkts bytes ';
  text += 'target     prot opt';
  if (format.verbose) text += ' in     out    ';
  return `${text} source               destination         \n`;
}

/** What the target column shows. */
export function targetColumn(target: Target): string {
  switch (target.kind) {
    case 'none':
      return '';
    case 'verdict':
      return target.verdict;
    case 'jump':
      return target.chain;
    case 'extension':
      return target.use.extension.name;
  }
}

function network({ addr, mask }: Network, context: PrintContext): string {
  if (context.numeric) return formatAddress(addr) + formatMask(mask);
  if (mask === 0) return 'anywhere';
  return anyName(addr, context.names) + formatMask(mask);
}

const not = (negated: boolean): string => (negated ? '!' : ' ');

/** Interface column: 17 bytes fit. */
const interfaceColumn = (name: string, negated: boolean, any: string): string =>
  `${negated ? '!' : ''}${name === '' ? any : name}`.slice(0, 17);

/** What the extensions say, behind the columns. */
function extensions(rule: RuleSpec, context: PrintContext): string {
  let text = '';
  if (rule.target.kind === 'jump' && rule.target.goto) text += '[goto] ';
  for (const { extension, data } of rule.matches)
    text += extension.print ? extension.print(data, context) : `${extension.name} `;
  if (rule.target.kind === 'extension') {
    const { extension, data } = rule.target.use;
    text += extension.print?.(data, context) ?? '';
  }
  return text;
}

/** A rule's line under listHeader. `line` counts from 1. */
export function listRule(rule: RuleSpec, line: number, counters: Counters, format: ListFormat): string {
  const context: PrintContext = { rule, numeric: format.numeric, names: format.names };
  const any = format.numeric ? '*' : 'any';
  let text = format.lineNumbers ? `${String(line).padEnd(4)} ` : '';
  if (format.verbose) text += number(counters.packets, format.exact) + number(counters.bytes, format.exact);
  text += `${targetColumn(rule.target).padEnd(9)} ${not(rule.notProto)}`;
  const protocol = format.numeric ? undefined : protocolName(rule.proto);
  text += `${(protocol ?? String(rule.proto)).padEnd(4)} `;
  text += `${rule.notFragment ? '!' : '-'}${rule.fragment ? 'f' : '-'} `;
  if (format.verbose)
    text += ` ${interfaceColumn(rule.in, rule.notIn, any).padEnd(6)} ${interfaceColumn(rule.out, rule.notOut, any).padEnd(6)} `;
  text += `${not(rule.notSrc)}${network(rule.src, context).padEnd(19)} `;
  text += `${not(rule.notDst)}${network(rule.dst, context).padEnd(19)} `;
  return `${text}${extensions(rule, context)}\n`;
}

/** The line that -v prints for a rule that is added, deleted or checked. */
export function changedRule(rule: RuleSpec, names: Names): string {
  const context: PrintContext = { rule, numeric: true, names };
  const protocol = protocolName(rule.proto, true) ?? String(rule.proto);
  let text = `${targetColumn(rule.target)} ${not(rule.notProto)}${protocol} `;
  text += `opt ${rule.notFragment ? '!' : '-'}${rule.fragment ? 'f' : '-'} `;
  text += `in ${interfaceColumn(rule.in, rule.notIn, '*')} out ${interfaceColumn(rule.out, rule.notOut, '*')} `;
  text += `${not(rule.notSrc)}${network(rule.src, context)} ${not(rule.notDst)}-> ${network(rule.dst, context)}  `;
  return `${text}${extensions(rule, context)}\n`;
}
