/**
 * `hutter route`: the routes of a router that owns its interfaces, with the words, texts and exit codes of iproute2's
 * `ip route`. One next hop a route.
 *
 *     route [list [SELECTOR]] | flush SELECTOR | get ADDRESS … | add|del|change|replace|append|prepend ROUTE
 *     route -batch [FILE]                 the commands come from a file or (also as -) from stdin, one a line
 */
import { type AddHow, type Route, RouteError, type RouteSpec, TableId } from '../../dataplane/route/fib.js';
import { Answer, Errno, Question, RouteType } from '../../dataplane/route/routes.js';
import { prefixOf } from '../../dataplane/route/table.js';
import { parseProtocol } from '../protocols.js';
import { nameIn, PROTOCOLS, readTable, SCOPES, tableName, TYPES } from '../routename.js';
import { formatAddress } from '../text/address.js';
import {
  answers,
  inSteps,
  IpError,
  lacking,
  matches,
  type Printed,
  printed,
  REFUSED,
  type RoutingView,
  USAGE,
  Words,
  wrong,
} from './ip.js';

export const HELP = `Usage: hutter route [ list [ SELECTOR ] ]
       hutter route flush SELECTOR
       hutter route get ADDRESS [ from ADDRESS ] [ iif DEV ] [ oif DEV ] [ tos TOS ] [ mark NUMBER ]
                                [ ipproto PROTOCOL ] [ sport NUMBER ] [ dport NUMBER ]
       hutter route { add | del | change | replace | append | prepend } ROUTE
       hutter route -batch [ FILE ]
SELECTOR := [ root PREFIX ] [ match PREFIX ] [ exact PREFIX ] [ table TABLE | table all ] [ dev DEV ] [ via ADDRESS ]
            [ src ADDRESS ] [ proto PROTO ] [ type TYPE ] [ scope SCOPE ] [ tos TOS ] [ metric NUMBER ]
ROUTE := [ TYPE ] PREFIX [ via ADDRESS ] [ dev DEV ] [ onlink ] [ table TABLE ] [ metric NUMBER ] [ tos TOS ]
         [ src ADDRESS ] [ mtu NUMBER ] [ scope SCOPE ] [ proto PROTO ]
TYPE := unicast | local | broadcast | anycast | multicast | blackhole | unreachable | prohibit | throw
TABLE := main | default | local | NUMBER
SCOPE := global | site | link | host | NUMBER
`;
const NONE = 0;
const LINES_A_STEP = 64;
/** RTAX_MTU is cut to this by the kernel (ip_metrics_convert). */
const MOST_MTU = 65_535 - 15;
/** RTNL_HANDLE's commands in iproute2's order: the first that a cut word fits is meant. */
const CHANGES: readonly (readonly [string, AddHow | 'del'])[] = [
  ['add', 'add'],
  ['change', 'change'],
  ['chg', 'change'],
  ['replace', 'replace'],
  ['prepend', 'prepend'],
  ['append', 'append'],
  ['delete', 'del'],
];
/** What iproute2 knows and hutter's routes don't have. */
const LACKING = [
  'as',
  'advmss',
  'congctl',
  'cwnd',
  'encap',
  'expires',
  'fastopen_no_cookie',
  'features',
  'hoplimit',
  'initcwnd',
  'initrwnd',
  'nhid',
  'pervasive',
  'pref',
  'quickack',
  'realms',
  'reordering',
  'rto_min',
  'rtt',
  'rttvar',
  'ssthresh',
  'ttl-propagate',
  'uid',
  'vrf',
  'weight',
  'window',
];

/** Whether the commands are what the client read from a file or its stdin: `runBatch`. */
export const isBatch = (argv: readonly string[]): boolean =>
  argv.length <= 2 && (argv[0] === '-batch' || argv[0] === '-b');

/** Runs one command, in steps: a million routes can be listed, or go. */
export const runRoute = (argv: readonly string[], view: RoutingView): Generator<void, Printed> =>
  printed((print) => command(argv, view, print));

function* command(argv: readonly string[], view: RoutingView, print: (text: string) => void): Generator<void> {
  const words = new Words(argv);
  const word = words.left === 0 ? 'list' : words.next();
  if (['list', 'show', 'lst'].some((name) => matches(word, name))) yield* list(words, view, print);
  else if (matches(word, 'get')) get(words, view, print);
  else if (matches(word, 'help')) throw new IpError(USAGE, HELP);
  else if (matches(word, 'flush')) yield* flush(words, view);
  else {
    const change = CHANGES.find(([name]) => matches(word, name));
    if (change === undefined) throw new IpError(USAGE, `Command "${word}" is unknown, try "hutter route help".\n`);
    modify(change[1], words, view);
  }
}

/**
 * Each line is a command; the first that fails ends it, and what went before stays, as with `ip -batch`. In steps of some lines, between
 * which other things can be done. `file`: what errors call it.
 */
export function* runBatch(stdin: string, view: RoutingView, file = '-'): Generator<void, Printed> {
  const lines = stdin.split('\n');
  let stdout = '';
  for (let at = 0; at < lines.length;) {
    const first = at;
    let failure: Printed | undefined;
    const run = function* (): Generator<void> {
      for (; at < lines.length; at++) {
        const result = yield* printed((print) => batchLine(lines[at]!, view, print));
        stdout += result.stdout;
        if (result.code !== 0) {
          failure = result;
          return;
        }
        if (at % LINES_A_STEP === 0) yield;
      }
    };
    yield* view.fib.changing(run());
    // A gateway that only a new route reaches is found when that is built: the line is tried once more.
    if (failure === undefined || at > first) continue;
    return { code: 1, stdout, stderr: `${failure.stderr}Command failed ${file}:${at + 1}\n` };
  }
  return { code: 0, stdout, stderr: '' };
}

function batchLine(line: string, view: RoutingView, print: (text: string) => void): Iterable<void> {
  const comment = line.indexOf('#');
  const words = (comment < 0 ? line : line.slice(0, comment)).split(/\s+/).filter((word) => word !== '');
  if (words[0] === 'route') words.shift();
  return words.length === 0 ? [] : command(words, view, print);
}

function modify(how: AddHow | 'del', words: Words, { fib, links }: RoutingView): void {
  const spec: { -readonly [K in keyof RouteSpec]: RouteSpec[K] } = { dst: 0, prefixLength: 0 };
  let known = false;
  const nextHop = (word: string): boolean => {
    if (word === 'via') {
      if (words.peek() === 'inet') words.next();
      spec.gateway = words.address();
    } else if (word === 'dev' || word === 'oif') spec.oif = words.device(links()).index;
    else if (word === 'onlink') spec.onlink = true;
    else return false;
    return true;
  };
  while (words.left > 0) {
    const word = words.next();
    if (nextHop(word)) continue;
    if (word === 'src') spec.source = words.address();
    else if (word === 'tos' || matches(word, 'dsfield')) spec.tos = words.tos('"tos" value is invalid\n');
    else if (matches(word, 'metric') || matches(word, 'priority') || word === 'preference')
      spec.metric = words.number('"metric" value is invalid\n');
    else if (word === 'scope') spec.scope = words.named(SCOPES, 'invalid "scope" value\n', 255);
    else if (word === 'mtu') {
      if (words.peek() === 'lock') throw lacking('route', 'mtu lock');
      spec.mtu = Math.min(words.number('"mtu" value is invalid\n'), MOST_MTU);
    } else if (word === 'nexthop') oneHop(words, nextHop);
    else if (matches(word, 'protocol')) spec.protocol = words.named(PROTOCOLS, '"protocol" value is invalid\n', 255);
    else if (matches(word, 'table')) spec.table = tableOf(words.next(), '"table" value is invalid\n');
    else if (LACKING.includes(word)) throw lacking('route', word);
    else {
      let to = word === 'to' ? words.next() : word;
      if (Object.hasOwn(TYPES, to)) {
        spec.type = TYPES[to]!;
        to = words.next();
      }
      if (matches(to, 'help')) throw new IpError(USAGE, HELP);
      if (known) throw new IpError(USAGE, `Error: either "to" is duplicate, or "${to}" is a garbage.\n`);
      const { address, length } = words.prefix(to);
      spec.dst = address;
      spec.prefixLength = length;
      known = true;
    }
  }
  if (!known) throw new IpError(USAGE, HELP);
  if (((spec.tos ?? 0) & 3) !== 0) throw new RouteError(Errno.INVAL, 'Invalid dsfield (tos): ECN bits must be 0');
  const { type } = spec;
  if (type === RouteType.LOCAL || type === RouteType.BROADCAST || type === RouteType.ANYCAST)
    spec.table ??= TableId.LOCAL;
  if (how === 'del') fib.remove(spec);
  else fib.add(spec, how);
}

/** `nexthop via … dev …`, once. */
function oneHop(words: Words, nextHop: (word: string) => boolean): void {
  if (words.left === 0) throw new IpError(USAGE, 'Error: unexpected end of line after "nexthop"\n');
  while (words.left > 0) {
    const word = words.next();
    if (word === 'nexthop') throw lacking('route', 'a second nexthop');
    if (word === 'weight') words.next();
    else if (!nextHop(word))
      throw new IpError(USAGE, `Error: "nexthop" or end of line is expected instead of "${word}"\n`);
  }
}

function tableOf(word: string, what: string): number {
  // The kernel takes table 0 for main.
  const table = word === '0' || word === 'unspec' ? TableId.MAIN : readTable(word);
  if (table === undefined) throw wrong(word, what);
  return table;
}

/** What `list` and `flush` choose by; 0 and undefined: anything. */
interface Selector {
  table: number | undefined;
  /** Prefixes within this one. */
  root?: { address: number; length: number };
  /** Prefixes around this one. */
  match?: { address: number; length: number };
  oif?: number;
  gateway?: { address: number; length: number };
  source?: { address: number; length: number };
  protocol?: number;
  type?: RouteType;
  scope?: number;
  tos?: number;
  metric?: number;
}

function selectorOf(words: Words, { links }: RoutingView): Selector {
  const chosen: Selector = { table: TableId.MAIN };
  while (words.left > 0) {
    let word = words.next();
    if (matches(word, 'table')) {
      const table = words.next();
      chosen.table = table === 'all' ? undefined : tableOf(table, 'table id value is invalid\n');
    } else if (word === 'tos' || matches(word, 'dsfield')) chosen.tos = words.tos('TOS value is invalid\n');
    else if (matches(word, 'protocol')) {
      if (words.peek() === 'all') words.next();
      else chosen.protocol = words.named(PROTOCOLS, 'invalid "protocol"\n', 255);
    } else if (matches(word, 'scope')) {
      if (words.peek() === 'all') words.next();
      else chosen.scope = words.named(SCOPES, 'invalid "scope"\n', 255);
    } else if (matches(word, 'type')) chosen.type = words.named(TYPES, 'node type value is invalid\n', 11);
    else if (word === 'dev' || word === 'oif' || word === 'iif') chosen.oif = words.device(links()).index;
    else if (word === 'via') chosen.gateway = words.prefix();
    else if (word === 'src') chosen.source = words.prefix();
    else if (matches(word, 'metric') || matches(word, 'priority') || word === 'preference')
      chosen.metric = words.number('"metric" value is invalid\n');
    else if (['cloned', 'cached', 'vrf', 'nhid', 'realms', 'from'].includes(word)) throw lacking('route', word);
    else {
      if (word === 'to') word = words.next();
      if (matches(word, 'root')) chosen.root = words.prefix();
      else if (matches(word, 'match')) chosen.match = words.prefix();
      else {
        chosen.match = words.prefix(matches(word, 'exact') ? words.next() : word);
        chosen.root = chosen.match;
      }
    }
  }
  return chosen;
}

const covers = (of: { address: number; length: number } | undefined, address: number, length: number): boolean =>
  of === undefined || (length >= of.length && prefixOf(address ^ of.address, of.length) === 0);

/** @throws IpError when there is no such table */
function* selected(chosen: Selector, { fib }: RoutingView, ended: string): Generator<Route> {
  const { table, root, match, oif, gateway, source, protocol, type, scope, tos, metric } = chosen;
  if (table !== undefined && !fib.has(table))
    throw new IpError(REFUSED, `Error: ipv4: FIB table does not exist.\n${ended} terminated\n`);
  for (const route of fib.routes(table)) {
    if (!covers(root, route.dst, route.prefixLength)) continue;
    if (match !== undefined && route.prefixLength > match.length) continue;
    if (match !== undefined && prefixOf(route.dst ^ match.address, route.prefixLength) !== 0) continue;
    if (oif !== undefined && route.oif !== oif) continue;
    if (gateway !== undefined && (route.gateway === 0 || !covers(gateway, route.gateway, 32))) continue;
    if (source !== undefined && (route.source === 0 || !covers(source, route.source, 32))) continue;
    if (protocol !== undefined && route.protocol !== protocol) continue;
    if (type !== undefined && route.type !== type) continue;
    if (scope !== undefined && route.scope !== scope) continue;
    if (tos !== undefined && route.tos !== tos) continue;
    if (metric !== undefined && route.metric !== metric) continue;
    yield route;
  }
}

function* list(words: Words, view: RoutingView, print: (text: string) => void): Generator<void> {
  const chosen = selectorOf(words, view);
  yield* inSteps(selected(chosen, view, 'Dump'), (route) => print(formatRoute(route, chosen, view)));
}

function* flush(words: Words, view: RoutingView): Generator<void> {
  if (words.left === 0) throw new IpError(1, '"hutter route flush" requires arguments.\n');
  // There has been none since Linux 3.6; scripts flush it all the same.
  if (words.left === 1 && words.peek() === 'cache') return;
  const gone: Route[] = [];
  yield* inSteps(selected(selectorOf(words, view), view, 'Flush'), (route) => gone.push(route));
  yield* view.fib.changing(inSteps(gone, (route) => view.fib.remove(route)));
}

const formatPrefix = (address: number, length: number): string =>
  length === 0 ? 'default' : length === 32 ? formatAddress(address) : `${formatAddress(address)}/${length}`;
const deviceName = (ifindex: number, { links }: RoutingView): string =>
  links().find(({ index }) => index === ifindex)?.name ?? `if${ifindex}`;
const hex = (number: number): string => `0x${number.toString(16).padStart(2, '0')}`;

/** print_route(): what was asked for isn't said again. */
function formatRoute(route: Route, chosen: Selector, view: RoutingView): string {
  const { table, dst, prefixLength, tos, metric, type, scope, protocol, oif, gateway, source, mtu, onlink } = route;
  let text = type === RouteType.UNICAST ? '' : `${nameIn(TYPES, type)} `;
  text += `${formatPrefix(dst, prefixLength)} `;
  if (tos !== 0 && chosen.tos === undefined) text += `tos ${hex(tos)} `;
  if (gateway !== 0 && chosen.gateway?.length !== 32) text += `via ${formatAddress(gateway)} `;
  if (oif !== 0 && chosen.oif === undefined) text += `dev ${deviceName(oif, view)} `;
  if (table !== (TableId.MAIN as number) && chosen.table === undefined) text += `table ${tableName(table)} `;
  if (protocol !== PROTOCOLS['boot'] && chosen.protocol === undefined)
    text += `proto ${nameIn(PROTOCOLS, protocol) ?? protocol} `;
  if (scope !== 0 && chosen.scope === undefined) text += `scope ${nameIn(SCOPES, scope) ?? scope} `;
  if (source !== 0 && chosen.source?.length !== 32) text += `src ${formatAddress(source)} `;
  if (metric !== 0 && chosen.metric === undefined) text += `metric ${metric} `;
  if (onlink) text += 'onlink ';
  if (mtu !== 0) text += `mtu ${mtu} `;
  return text + '\n';
}

/** `route get`: what a packet of the router's own, or with `iif` one that comes in there, would meet. */
function get(words: Words, view: RoutingView, print: (text: string) => void): void {
  const { fib, links } = view;
  const question = new Int32Array(Question.WORDS);
  const answer = new Int32Array(Answer.WORDS);
  question[Question.UID] = -1;
  let known = false;
  let from: number | undefined;
  let iif = '';
  while (words.left > 0) {
    const word = words.next();
    if (word === 'from') {
      const next = words.next();
      from = words.prefix(matches(next, 'help') ? '' : next).address;
      question[Question.SRC] = from;
    } else if (word === 'iif') {
      const link = words.device(links());
      iif = link.name;
      question[Question.IIF] = link.index;
    } else if (word === 'dev' || word === 'oif') question[Question.OIF] = words.device(links()).index;
    else if (word === 'tos' || matches(word, 'dsfield')) question[Question.TOS] = words.tos('TOS value is invalid\n');
    else if (matches(word, 'mark')) question[Question.MARK] = words.number('invalid mark value');
    else if (matches(word, 'ipproto')) question[Question.PROTOCOL] = protocolOf(words.next());
    else if (matches(word, 'sport')) question[Question.SPORT] = words.number('invalid sport\n', 65_535);
    else if (matches(word, 'dport')) question[Question.DPORT] = words.number('invalid dport\n', 65_535);
    else if (['uid', 'vrf', 'notify', 'connected', 'fibmatch'].includes(word)) throw lacking('route', word);
    else {
      const to = word === 'to' ? words.next() : word;
      if (matches(to, 'help')) throw new IpError(USAGE, HELP);
      question[Question.DST] = words.prefix(to).address;
      known = true;
    }
  }
  if (!known) throw new IpError(1, 'need at least a destination address\n');
  const incoming = question[Question.IIF] !== NONE;
  const dst = question[Question.DST]!;
  const refused = incoming
    ? view.sourceErrno(
        dst,
        question[Question.SRC]!,
        question[Question.IIF]!,
        question[Question.MARK]!,
        question[Question.TOS]!,
      )
    : from !== undefined && !fib.owns(from)
      ? Errno.NETUNREACH
      : 0;
  const tos = refused === 0 ? fib.ask(question, answer) : 0;
  const errno = refused !== 0 ? refused : answer[Answer.ERRNO]!;
  if (errno !== 0) throw new IpError(REFUSED, answers(errno));
  const type: RouteType = answer[Answer.TYPE]!;
  const mark = question[Question.MARK]! >>> 0;
  let text = type === RouteType.UNICAST ? '' : `${nameIn(TYPES, type)} `;
  text += `${formatAddress(dst)} `;
  if (from !== undefined) text += `from ${formatAddress(from)} `;
  if (tos !== 0) text += `tos ${hex(tos)} `;
  if (answer[Answer.GATEWAY] !== 0) text += `via ${formatAddress(answer[Answer.GATEWAY]!)} `;
  text += `dev ${deviceName(answer[Answer.OIF]!, view)} `;
  if (!incoming && from === undefined) text += `src ${formatAddress(answer[Answer.PREFSRC]!)} `;
  if (mark !== 0) text += `mark ${mark >= 16 ? `0x${mark.toString(16)}` : mark} `;
  if (!incoming) text += 'uid 0 ';
  text += '\n    cache ';
  const flags = CACHE_FLAGS[type];
  if (flags !== undefined) text += `<${incoming || type !== RouteType.MULTICAST ? flags : 'mc'}> `;
  if (answer[Answer.MTU] !== 0) text += `mtu ${answer[Answer.MTU]} `;
  if (iif !== '') text += `iif ${iif} `;
  print(text + '\n');
}

const CACHE_FLAGS: Partial<Record<RouteType, string>> = {
  [RouteType.LOCAL]: 'local',
  [RouteType.BROADCAST]: 'local,brd',
  [RouteType.MULTICAST]: 'local,mc',
};

function protocolOf(word: string): number {
  try {
    const number = parseProtocol(word);
    if (number <= 255) return number;
  } catch {
    // Said below.
  }
  throw wrong(word, 'Invalid "ipproto" value\n');
}
