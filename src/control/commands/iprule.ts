/**
 * `hutter rule`: which routing table is asked for which packet, with the words, texts and exit codes of iproute2's `ip rule`.
 *
 *     rule [list [SELECTOR]] | flush | add|del SELECTOR ACTION
 */
import { ANY_PACKET, type PolicyRule, RouteError, RuleAction } from '../../dataplane/route/fib.js';
import { Errno } from '../../dataplane/route/routes.js';
import { prefixOf } from '../../dataplane/route/table.js';
import { parseProtocol, protocolName } from '../protocols.js';
import { readTable, tableName } from '../routename.js';
import { formatAddress } from '../text/address.js';
import {
  IpError,
  lacking,
  matches,
  type Printed,
  printed,
  readNumber,
  type RoutingView,
  USAGE,
  Words,
  wrong,
} from './ip.js';

export const HELP = `Usage: hutter rule [ list [ SELECTOR ] ]
       hutter rule flush
       hutter rule { add | del } SELECTOR ACTION
SELECTOR := [ not ] [ from PREFIX ] [ to PREFIX ] [ tos TOS ] [ fwmark MARK[/MASK] ] [ iif DEV ] [ oif DEV ]
            [ pref NUMBER ] [ ipproto PROTOCOL ] [ sport NUMBER[-NUMBER] ] [ dport NUMBER[-NUMBER] ]
ACTION := table TABLE | blackhole | unreachable | prohibit | goto PREF | nop
TABLE := main | default | local | NUMBER
`;
const LACKING = [
  'nat',
  'map-to',
  'realms',
  'uidrange',
  'tun_id',
  'l3mdev',
  'protocol',
  'suppress_prefixlength',
  'suppress_ifgroup',
];
const ACTIONS: Readonly<Record<string, RuleAction>> = {
  unicast: RuleAction.TABLE,
  blackhole: RuleAction.BLACKHOLE,
  unreachable: RuleAction.UNREACHABLE,
  prohibit: RuleAction.PROHIBIT,
  nop: RuleAction.NOP,
};

const KNOWN = new Set<RuleAction>([...Object.values(ACTIONS), RuleAction.GOTO]);

/** What a command says of a rule; absent: nothing. */
type Given = { -readonly [K in keyof PolicyRule]?: PolicyRule[K] };

/** Runs one command, in a single step. */
export function runRule(argv: readonly string[], view: RoutingView): Generator<void, Printed> {
  return printed((print) => {
    const words = new Words(argv);
    const word = words.left === 0 ? 'list' : words.next();
    if (['list', 'lst', 'show'].some((name) => matches(word, name))) list(words, view, print);
    else if (matches(word, 'add')) modify('add', words, view);
    else if (matches(word, 'delete')) modify('del', words, view);
    else if (matches(word, 'flush')) view.fib.setRules(view.fib.rules.filter(({ priority }) => priority === 0));
    else if (matches(word, 'help')) throw new IpError(USAGE, HELP);
    else throw new IpError(USAGE, `Command "${word}" is unknown, try "hutter rule help".\n`);
    return [];
  });
}

function modify(how: 'add' | 'del', words: Words, { fib }: RoutingView): void {
  if (words.left === 0) throw new IpError(1, `"hutter rule ${how}" requires arguments.\n`);
  const given = read(words, how);
  if (((given.tos ?? 0) & 3) !== 0) throw new RouteError(Errno.INVAL, 'Invalid dsfield (tos): ECN bits must be 0');
  if (how === 'del') {
    fib.removeRule((rule) => agrees(rule, given));
    return;
  }
  if (given.action !== undefined && !KNOWN.has(given.action)) throw new RouteError(Errno.INVAL);
  // fib_default_rule_pref(): just before the second.
  const second = fib.rules[1]?.priority ?? 0;
  fib.addRule({ ...ANY_PACKET, priority: Math.max(0, second - 1), ...given });
}

/** rule_find(): whether a rule is as the command says; `not` and whether a table is asked, which is no type, aside. */
const agrees = (rule: PolicyRule, given: Given): boolean =>
  (Object.keys(given) as (keyof PolicyRule)[]).every(
    (key) => key === 'not' || JSON.stringify(rule[key]) === JSON.stringify(given[key]),
  );

function read(words: Words, how: 'add' | 'del' | 'list'): Given {
  const given: Given = {};
  while (words.left > 0) {
    let word = words.next();
    if (word === 'not') given.not = true;
    else if (word === 'from') {
      const { address, length } = words.prefix();
      given.src = address;
      given.srcLength = length;
    } else if (matches(word, 'preference') || matches(word, 'order') || matches(word, 'priority'))
      given.priority = words.number('preference value is invalid\n');
    else if (word === 'tos' || matches(word, 'dsfield')) given.tos = words.tos('TOS value is invalid\n');
    else if (word === 'fwmark') Object.assign(given, markOf(words.next()));
    else if (LACKING.includes(word)) throw lacking('rule', word);
    else if (matches(word, 'table') || word === 'lookup') {
      const name = words.next();
      const table = readTable(name);
      if (table === undefined) throw wrong(name, 'invalid table ID\n');
      given.table = table;
      given.action ??= RuleAction.TABLE;
    } else if (word === 'dev' || word === 'iif') given.iif = nameOf(words.next(), '"iif"/"dev" not a valid ifname');
    else if (word === 'oif') given.oif = nameOf(words.next(), '"oif" not a valid ifname');
    else if (word === 'ipproto') given.protocol = protocolOf(words.next());
    else if (word === 'sport' || word === 'dport') given[word] = portsOf(words.next(), word);
    else if (matches(word, 'goto')) {
      const target = words.number('invalid target\n');
      given.action = RuleAction.GOTO;
      given.goto = target;
    } else {
      if (word === 'type') word = words.next();
      if (matches(word, 'help')) throw new IpError(USAGE, HELP);
      const action = Object.hasOwn(ACTIONS, word) ? ACTIONS[word] : readNumber(word);
      if (action !== undefined && how !== 'list') given.action = action;
      else if (word !== 'to' && how !== 'list') throw wrong(word, 'Failed to parse rule type');
      else {
        const { address, length } = words.prefix(word === 'to' ? words.next() : word);
        given.dst = address;
        given.dstLength = length;
      }
    }
  }
  return given;
}

function markOf(word: string): { mark: number; markMask: number } {
  const [text = '', maskText] = word.split('/');
  const mark = readNumber(text);
  if (mark === undefined) throw wrong(word, 'fwmark value is invalid\n');
  const mask = maskText === undefined ? 0xffffffff : readNumber(maskText);
  if (mask === undefined) throw wrong(maskText!, 'fwmask value is invalid\n');
  return { mark: mark | 0, markMask: mask | 0 };
}

function nameOf(word: string, what: string): string {
  if (!/^[^/\s]{1,15}$/.test(word)) throw wrong(word, what);
  return word;
}

function protocolOf(word: string): number {
  try {
    const number = parseProtocol(word);
    if (number <= 255) return number;
  } catch {
    // Said below.
  }
  throw wrong(word, 'Invalid "ipproto" value\n');
}

function portsOf(word: string, key: 'sport' | 'dport'): [number, number] {
  const [, first, last] = /^(\d+)(?:-(\d+))?$/.exec(word) ?? [];
  if (first === undefined) throw wrong(word, 'invalid port range\n');
  const range: [number, number] = [Number(first), Number(last ?? first)];
  if (range[0] === 0 || range[0] > range[1] || range[1] > 65_534)
    throw new RouteError(Errno.INVAL, `Invalid ${key} range`);
  return range;
}

function list(words: Words, { fib, links }: RoutingView, print: (text: string) => void): void {
  words.family = true;
  const { src, srcLength, dst, dstLength, ...chosen } = read(words, 'list');
  const names = new Set(links().map(({ name }) => name));
  const priorities = new Set(fib.rules.map(({ priority }) => priority));
  for (const rule of fib.rules) {
    const listed =
      (src === undefined || (rule.srcLength > 0 && prefixOf(rule.src ^ src, srcLength!) === 0)) &&
      (dst === undefined || (rule.dstLength > 0 && prefixOf(rule.dst ^ dst, dstLength!) === 0)) &&
      agrees(rule, chosen);
    if (listed) print(formatRule(rule, names, priorities));
  }
}

const formatPrefix = (address: number, length: number): string =>
  length === 32 ? formatAddress(address) : `${formatAddress(address)}/${length}`;
const hex = (number: number): string => `0x${(number >>> 0).toString(16)}`;
const formatPorts = ([first, last]: readonly [number, number]): string =>
  first === last ? `${first}` : `${first}-${last}`;

/** print_rule() */
function formatRule(rule: PolicyRule, names: ReadonlySet<string>, priorities: ReadonlySet<number>): string {
  const { priority, action, table, not, src, srcLength, dst, dstLength, iif, oif, mark, markMask, tos } = rule;
  const { protocol, sport, dport } = rule;
  const device = (name: string): string => (names.has(name) ? name : `${name} [detached]`);
  let text = `${priority}:\t${not ? 'not ' : ''}from ${srcLength === 0 ? 'all' : formatPrefix(src, srcLength)}`;
  if (dstLength !== 0) text += ` to ${formatPrefix(dst, dstLength)}`;
  if (tos !== 0) text += ` tos 0x${tos.toString(16).padStart(2, '0')}`;
  if (mark !== 0 || markMask !== 0) text += ` fwmark ${hex(mark)}${markMask === -1 ? '' : `/${hex(markMask)}`}`;
  if (iif !== '') text += ` iif ${device(iif)}`;
  if (oif !== '') text += ` oif ${device(oif)}`;
  if (protocol !== 0) text += ` ipproto ${protocolName(protocol) ?? `ipproto-${protocol}`}`;
  if (sport !== undefined) text += ` sport ${formatPorts(sport)}`;
  if (dport !== undefined) text += ` dport ${formatPorts(dport)}`;
  switch (action) {
    case RuleAction.TABLE:
      return `${text} lookup ${tableName(table)}\n`;
    case RuleAction.GOTO:
      return `${text} goto ${rule.goto}${priorities.has(rule.goto) ? '' : ' [unresolved]'}\n`;
    case RuleAction.NOP:
      return `${text} nop\n`;
    default:
      return `${text} ${REFUSALS[action]}\n`;
  }
}

const REFUSALS = {
  [RuleAction.BLACKHOLE]: 'blackhole',
  [RuleAction.UNREACHABLE]: 'unreachable',
  [RuleAction.PROHIBIT]: 'prohibit',
} as const;
