/**
 * Rules as text, the way iptables-save and iptables -S print them: one canonical form for each rule, which read.ts
 * reads back into an equal rule.
 */
import type { Names, PrintContext, Use } from '../ext/record.js';
import { bang } from '../ext/args.js';
import type { Counters, RuleSpec, Target } from '../model.js';
import { protocolName } from '../protocols.js';
import { formatNetwork, type Network } from './address.js';

/** gai_strerror(EAI_NONAME) */
export const NO_SUCH_HOST = 'Name or service not known';

/** For text that needs no names. */
export const NO_NAMES: Names = { host: () => NO_SUCH_HOST, hostName: () => undefined };

function network(letter: string, value: Network, not: boolean): string {
  if (value.addr === 0 && value.mask === 0 && !not) return '';
  return `${bang(not)} -${letter} ${formatNetwork(value)}`;
}

/** A pattern of `+` alone is no condition to the tool. */
const interfaceText = (letter: string, name: string, not: boolean): string =>
  name === '' || name === '+' ? '' : `${bang(not)} -${letter} ${name}`;

/** Name under which a use is saved. */
export function savedName({ extension, data }: Use): string {
  return extension.alias?.(data) ?? extension.name;
}

const saved = (use: Use, context: PrintContext): string => use.extension.save?.(use.data, context) ?? '';

function targetText(target: Target, context: PrintContext): string {
  switch (target.kind) {
    case 'none':
      return '';
    case 'verdict':
      return ` -j ${target.verdict}`;
    case 'jump':
      return ` -${target.goto ? 'g' : 'j'} ${target.chain}`;
    case 'extension':
      return ` -j ${savedName(target.use)}${saved(target.use, context)}`;
  }
}

/** The rule without `-A CHAIN`; begins with a blank unless it is empty. `counters` go where -S -v puts them. */
export function specText(rule: RuleSpec, counters?: Counters): string {
  const context: PrintContext = { rule, numeric: true, names: NO_NAMES };
  let text = network('s', rule.src, rule.notSrc) + network('d', rule.dst, rule.notDst);
  text += interfaceText('i', rule.in, rule.notIn) + interfaceText('o', rule.out, rule.notOut);
  if (rule.proto !== 0) text += `${bang(rule.notProto)} -p ${protocolName(rule.proto) ?? rule.proto}`;
  if (rule.fragment) text += `${bang(rule.notFragment)} -f`;
  for (const use of rule.matches) text += ` -m ${savedName(use)}${saved(use, context)}`;
  if (counters) text += ` -c ${counters.packets} ${counters.bytes}`;
  return text + targetText(rule.target, context);
}

/** `-A CHAIN …` */
export const ruleText = (chain: string, rule: RuleSpec): string => `-A ${chain}${specText(rule)}`;
