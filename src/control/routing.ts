/**
 * Routes and routing rules as the configuration has them, in routing tables of the router's own (dataplane/route/fib.ts): for
 * `replay`, and for devices behind which no kernel routes.
 */
import type { Link } from '../dataplane/interfaces.js';
import {
  ANY_PACKET,
  DEFAULT_RULES,
  Fib,
  type PolicyRule,
  RouteError,
  RouteProtocol,
  RuleAction,
} from '../dataplane/route/fib.js';
import { prefixOf } from '../dataplane/route/table.js';
import { type Config, ConfigError, placeIn } from './config.js';
import { parseProtocol } from './protocols.js';
import { readTable } from './routename.js';
import { strictAddress } from './text/address.js';
import { readPrefix, ROUTE_TYPES } from './topology.js';

const ACTIONS = {
  blackhole: RuleAction.BLACKHOLE,
  unreachable: RuleAction.UNREACHABLE,
  prohibit: RuleAction.PROHIBIT,
} as const;

/**
 * The tables with what addresses bring along and what the configuration says, with room for `room` routes.
 * @throws ConfigError naming line and column
 */
export function fibOf(config: Config, links: readonly Link[], room = 10_000): Fib {
  const fib = new Fib({ routes: Math.max(room, config.routes.length * 2) });
  fib.setLinks(links);
  config.routes.forEach(({ to, via, dev, type, src, metric, mtu, table, tos, onlink }, i) => {
    const at = (key: string): string => placeIn(config, ['routes', i, key]);
    const { address, prefixLength } = readPrefix(to);
    if (prefixOf(address, prefixLength) !== address)
      throw new ConfigError(`${at('to')}: the route to ${to}: its address has bits below the prefix`);
    const link = dev === undefined ? undefined : links.find(({ name }) => name === dev);
    if (dev !== undefined && link === undefined) throw new ConfigError(`${at('dev')}: unknown interface ${dev}`);
    try {
      fib.add({
        dst: address,
        prefixLength,
        type: ROUTE_TYPES[type],
        protocol: RouteProtocol.STATIC,
        ...(via !== undefined && { gateway: strictAddress(via)! }),
        ...(link !== undefined && { oif: link.index }),
        ...(src !== undefined && { source: strictAddress(src)! }),
        ...(table !== undefined && { table: readTable(String(table))! }),
        ...(metric !== undefined && { metric }),
        ...(mtu !== undefined && { mtu }),
        ...(tos !== undefined && { tos }),
        ...(onlink !== undefined && { onlink }),
      });
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
      throw new ConfigError(`${at('to')}: the route to ${to}: ${error.message}`);
    }
  });
  const rules = config['routing-rules'].map((rule, i): PolicyRule => {
    const from = rule.from === undefined ? undefined : readPrefix(rule.from === 'all' ? 'default' : rule.from);
    const to = rule.to === undefined ? undefined : readPrefix(rule.to === 'all' ? 'default' : rule.to);
    const [mark = 0, mask] = rule.mark === undefined ? [] : String(rule.mark).split('/').map(Number);
    return {
      ...ANY_PACKET,
      priority: rule.priority ?? 32765 - (config['routing-rules'].length - 1 - i),
      action: rule.action === undefined ? RuleAction.TABLE : ACTIONS[rule.action],
      ...(rule.table !== undefined && { table: readTable(String(rule.table))! }),
      not: rule.not ?? false,
      ...(from !== undefined && { src: from.address, srcLength: from.prefixLength }),
      ...(to !== undefined && { dst: to.address, dstLength: to.prefixLength }),
      iif: rule.iif ?? '',
      oif: rule.oif ?? '',
      ...(rule.mark !== undefined && { mark: mark | 0, markMask: (mask ?? -1) | 0 }),
      tos: rule.tos ?? 0,
      protocol: rule.proto === undefined ? 0 : parseProtocol(rule.proto),
      sport: rule.sport === undefined ? undefined : portsOf(rule.sport),
      dport: rule.dport === undefined ? undefined : portsOf(rule.dport),
    };
  });
  fib.setRules([...DEFAULT_RULES, ...rules]);
  fib.release();
  return fib;
}

function portsOf(ports: number | string): [number, number] {
  const [first = 0, last = first] = String(ports).split('-').map(Number);
  return [first, last];
}
