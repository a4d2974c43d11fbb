/**
 * A router's own routes: what the kernel's forwarding information base does (net/ipv4/fib_*.c), for a router that owns
 * its interfaces. Tables of routes, and rules that say which table is asked (as `ip rule`), in one piece of shared memory.
 *
 * `Fib` is the control thread's side: it checks and makes changes, and has the routes that addresses bring along. `FibReader`
 * answers a worker's questions without locks. After changes workers forget the answers they keep (Routes.forget); when
 * all have passed a batch edge, `Fib.release` lets what was replaced be used again.
 *
 * One next hop a route; nothing is chosen by neighbours' states or the way's load.
 */
import { isLoopback } from '../ip/martian.js';
import { type Link, LinkFlag, Scope } from '../interfaces.js';
import { Meta, META_WORDS } from '../io/batch.js';
import {
  ALIAS_WORDS,
  Arena,
  defaultNode,
  FLAT,
  lookup,
  lookupChain,
  Node,
  prefixOf,
  type RouteSet,
  RoutingTable,
  TableFull,
  WIDE,
  wideOf,
} from './table.js';
import { memoryFor, type Together, together } from './together.js';
import { Answer, Errno, Question, type RouteSource, RouteType } from './routes.js';

/** Tables that have a name (include/uapi/linux/rtnetlink.h). */
export const enum TableId {
  DEFAULT = 253,
  MAIN = 254,
  LOCAL = 255,
}
/** RTPROT_*: who made a route. */
export const enum RouteProtocol {
  UNSPEC = 0,
  KERNEL = 2,
  BOOT = 3,
  STATIC = 4,
}

/** Addresses in host order. */
export interface Route {
  readonly table: number;
  /** No bits below the prefix. */
  readonly dst: number;
  readonly prefixLength: number;
  /** 0 = any; else the packet's TOS & 0x1c must be it. */
  readonly tos: number;
  readonly metric: number;
  readonly type: RouteType;
  readonly scope: number;
  readonly protocol: number;
  /** ifindex; 0 for types that lead nowhere. */
  readonly oif: number;
  /** 0 = on the link. */
  readonly gateway: number;
  /** Preferred source; 0 = the interface's. */
  readonly source: number;
  /** 0 = the interface's. */
  readonly mtu: number;
  /** The gateway is taken to be on the link. */
  readonly onlink: boolean;
}

/** What a caller must say of a route; the rest is filled in as iproute2 does. */
export type RouteSpec = Pick<Route, 'dst' | 'prefixLength'> & Partial<Route>;

/** FR_ACT_*. */
export const enum RuleAction {
  TABLE = 1,
  GOTO = 2,
  NOP = 3,
  BLACKHOLE = 6,
  UNREACHABLE = 7,
  PROHIBIT = 8,
}

/** One rule; a packet must meet all that is not 0 (or −1 for ports and users). */
export interface PolicyRule {
  readonly priority: number;
  readonly action: RuleAction;
  /** The table to ask. */
  readonly table: number;
  /** RuleAction.GOTO: priority of the rule to go on with, a later one. */
  readonly goto: number;
  readonly not: boolean;
  readonly src: number;
  readonly srcLength: number;
  readonly dst: number;
  readonly dstLength: number;
  /** Interface names; '' = any. `lo` as `iif`: packets of the router's own. */
  readonly iif: string;
  readonly oif: string;
  readonly mark: number;
  readonly markMask: number;
  /** 0 = any, else compared with the packet's TOS & 0x1c. */
  readonly tos: number;
  /** 0 = any. */
  readonly protocol: number;
  /** First and last port, or undefined. */
  readonly sport: readonly [number, number] | undefined;
  readonly dport: readonly [number, number] | undefined;
}

export const ANY_PACKET: Omit<PolicyRule, 'priority'> = {
  action: RuleAction.TABLE,
  table: TableId.MAIN,
  goto: 0,
  not: false,
  src: 0,
  srcLength: 0,
  dst: 0,
  dstLength: 0,
  iif: '',
  oif: '',
  mark: 0,
  markMask: 0,
  tos: 0,
  protocol: 0,
  sport: undefined,
  dport: undefined,
};

/** What the kernel begins with. */
export const DEFAULT_RULES: readonly PolicyRule[] = [
  { ...ANY_PACKET, priority: 0, table: TableId.LOCAL },
  { ...ANY_PACKET, priority: 32766, table: TableId.MAIN },
  { ...ANY_PACKET, priority: 32767, table: TableId.DEFAULT },
];

/** A change that is refused, and was not made. */
export class RouteError extends Error {
  override readonly name = 'RouteError';
  constructor(
    readonly errno: Errno,
    /** A sentence of the kernel's beside the errno, or ''. */
    readonly detail = '',
  ) {
    super(detail !== '' ? detail : ERRNO_TEXT[errno]);
  }
}

/** strerror(3). */
const ERRNO_TEXT: Readonly<Record<Errno, string>> = {
  [Errno.NOENT]: 'No such file or directory',
  [Errno.SRCH]: 'No such process',
  [Errno.AGAIN]: 'Resource temporarily unavailable',
  [Errno.ACCES]: 'Permission denied',
  [Errno.EXIST]: 'File exists',
  [Errno.XDEV]: 'Invalid cross-device link',
  [Errno.NODEV]: 'No such device',
  [Errno.INVAL]: 'Invalid argument',
  [Errno.NETDOWN]: 'Network is down',
  [Errno.NETUNREACH]: 'Network is unreachable',
  [Errno.NOBUFS]: 'No buffer space available',
  [Errno.HOSTUNREACH]: 'No route to host',
};

/** Words of one route among a prefix's (table.ts, Node). */
const enum Alias {
  /** RouteType, scope << 8, TOS << 16. */
  KIND = 0,
  ERRNO = 1,
  OIF = 2,
  GATEWAY = 3,
  /** Source for packets of the router's own; for LOCAL 0 = the destination. */
  SOURCE = 4,
  MTU = 5,
}

/** Readers that may look up a batch's addresses together, and addresses of one. */
const MOST_READERS = 64;
const TOGETHER = 64;

/** Words at the shared memory's beginning. */
const enum Head {
  MAGIC = 0,
  /** Offset of the rules: how many, then RuleWord.WORDS each. */
  RULES = 1,
  /** Offset of the links: how many, then LinkWord.WORDS each. */
  LINKS = 2,
  LOOPBACK = 3,
  WORDS = 16,
}
/** Behind those: TOGETHER addresses of each reader, and then the nodes found for them. */
const ADDRESSES: number = Head.WORDS;
const NODES = ADDRESSES + MOST_READERS * TOGETHER;
const FIRST_FREE = NODES + MOST_READERS * TOGETHER;
const MAGIC = 0x46494231;

const enum RuleWord {
  ACTION = 0,
  /** Offset of the table's descriptor. */
  TABLE = 1,
  SRC = 2,
  SRC_MASK = 3,
  DST = 4,
  DST_MASK = 5,
  /** ifindex; 0 = any, −1 = of an interface that isn't there. */
  IIF = 6,
  OIF = 7,
  MARK = 8,
  MARK_MASK = 9,
  TOS = 10,
  PROTOCOL = 11,
  /** First << 16 | last port; 0 = any. */
  SPORTS = 12,
  DPORTS = 13,
  NOT = 14,
  /** Index of the rule to go on with. */
  GOTO = 15,
  WORDS = 16,
}

const enum LinkWord {
  IFINDEX = 0,
  UP = 1,
  /** inet_select_addr() at link and at universe scope. */
  NEAR_SOURCE = 2,
  SOURCE = 3,
  WORDS = 4,
}

/** Of the IP header: the destination. */
const DESTINATION = 16;

/** INET_DSCP_LEGACY_TOS_MASK: the bits of TOS that routes and rules look at. */
const TOS_MASK = 0x1c;

/** fib_props (net/ipv4/fib_semantics.c): what a route of a type answers, and how far it may lead. */
const PROPS: Readonly<Record<RouteType, { errno: number; scope: Scope }>> = {
  [RouteType.NONE]: { errno: 0, scope: Scope.NOWHERE },
  [RouteType.UNICAST]: { errno: 0, scope: Scope.UNIVERSE },
  [RouteType.LOCAL]: { errno: 0, scope: Scope.HOST },
  [RouteType.BROADCAST]: { errno: 0, scope: Scope.LINK },
  [RouteType.ANYCAST]: { errno: 0, scope: Scope.LINK },
  [RouteType.MULTICAST]: { errno: 0, scope: Scope.UNIVERSE },
  [RouteType.BLACKHOLE]: { errno: Errno.INVAL, scope: Scope.UNIVERSE },
  [RouteType.UNREACHABLE]: { errno: Errno.HOSTUNREACH, scope: Scope.UNIVERSE },
  [RouteType.PROHIBIT]: { errno: Errno.ACCES, scope: Scope.UNIVERSE },
  [RouteType.THROW]: { errno: Errno.AGAIN, scope: Scope.UNIVERSE },
};

export interface FibOptions {
  /** Routes that surely fit; address space is taken for them, memory as they come. Default 100,000, at most 2,000,000. */
  routes?: number;
}

/** Words for a route that surely suffice: lists and blocks under 64 (table.ts), and something for what is being replaced. */
const WORDS_A_ROUTE = 72;
const SMALL = 1 << 20;
/** Of so many routes one table may be looked at by 24 bits. */
const MANY = 1_000_000;
export const MOST_ROUTES = 2_000_000;

export type AddHow = 'add' | 'replace' | 'change' | 'append' | 'prepend';

/** A route but for its place. */
type Way = Omit<Route, 'table' | 'dst' | 'prefixLength'>;

/** The routes of a prefix, in the order in which they are tried; one object for all prefixes that have the same. */
interface Ways extends RouteSet {
  readonly key: string;
  readonly ways: readonly Way[];
  /** Prefixes. */
  users: number;
}

/** The control thread's side. */
export class Fib {
  readonly shared: SharedArrayBuffer;
  /** What `shared` is of, where a table may become so large that a batch's lookups are better made together. */
  readonly memory: WebAssembly.Memory | undefined;
  private readonly words: Int32Array;
  private readonly arena: Arena;
  private readonly tables = new Map<number, RoutingTable>();
  private readonly sets = new Map<string, Ways>();
  private readonly own: FibReader;
  private list: readonly PolicyRule[] = DEFAULT_RULES;
  private links: readonly Link[] = [];
  private rulesAt = 0;
  private linksAt = 0;
  /** Changes at once, one within the other. */
  private depth = 0;
  /** Tables that have had routes. */
  private readonly known = new Set<number>([TableId.LOCAL, TableId.MAIN]);
  /** Told of each prefix whose routes, in whatever table, have changed. */
  onChange: ((dst: number, prefixLength: number) => void) | undefined;

  constructor(options: FibOptions = {}) {
    const routes = Math.min(options.routes ?? 100_000, MOST_ROUTES);
    const words = SMALL + routes * WORDS_A_ROUTE + (routes >= MANY ? WIDE : 0);
    if (routes >= MANY) this.memory = memoryFor(words);
    this.shared = this.memory?.buffer ?? new SharedArrayBuffer(words * 4);
    this.words = new Int32Array(this.shared);
    this.arena = new Arena(this.words, FIRST_FREE);
    this.words[Head.MAGIC] = MAGIC;
    this.publishLinks();
    this.publishRules();
    this.own = new FibReader(this.shared);
  }

  /** A reader of tables that don't change: what the interfaces' addresses bring along, and some routes. */
  static readerOf(links: readonly Link[], routes: readonly RouteSpec[] = []): FibReader {
    const fib = new Fib({ routes: 1000 + routes.length * 2 });
    fib.setLinks(links);
    for (const route of routes) fib.add(route);
    return fib.own;
  }

  /** Every reader has passed a batch edge since the last change. */
  release(): void {
    this.arena.release();
  }

  /** In order of priority. */
  get rules(): readonly PolicyRule[] {
    return this.list;
  }

  /** Whether protocol or ports can choose a way. */
  get byPorts(): boolean {
    return this.list.some(({ protocol, sport, dport }) => protocol !== 0 || sport !== undefined || dport !== undefined);
  }

  /** Answers as a worker's reader would, for `route get`; returns the TOS that the route is for, 0 = any. */
  ask(question: Int32Array, answer: Int32Array): number {
    this.own.ask(question, answer);
    return this.own.routeTos;
  }

  /**
   * The router's interfaces. The routes of their addresses (fib_add_ifaddr) come and go with them, as do the routes of others
   * through an interface that went or is down, or whose preferred source did.
   */
  setLinks(links: readonly Link[]): void {
    const before = this.links;
    this.links = links;
    this.publishLinks();
    this.publishRules();
    const up = new Map(links.filter(({ flags }) => (flags & LinkFlag.UP) !== 0).map((link) => [link.index, link]));
    const locals = new Set(links.flatMap(({ addresses }) => addresses.map(({ local }) => local)));
    const wanted = links.flatMap((link) => addressRoutes(link));
    const keep = new Set(wanted.map(routeKey));
    // One that was there with its address may have been deleted since: that stays so.
    const had = new Set(before.flatMap((link) => addressRoutes(link)).map(routeKey));
    this.change(() => {
      for (const route of [...this.routes()]) {
        const ofAddress = route.protocol === (RouteProtocol.KERNEL as number);
        const gone =
          (ofAddress && !keep.has(routeKey(route))) ||
          (route.oif !== 0 && !up.has(route.oif) && !(ofAddress && route.type === RouteType.LOCAL)) ||
          (route.source !== 0 && !locals.has(route.source) && route.type !== RouteType.LOCAL);
        if (gone) this.take(route);
      }
      for (const route of wanted) {
        const key = routeKey(route);
        if (!had.has(key) && !this.of(route).some((known) => routeKey(known) === key)) this.put(route, 'append');
      }
    });
    // What is left takes its source from the interface as it now is.
    if (before.length > 0) this.renew();
  }

  /** All routes of a table, or of all tables, in the order in which the kernel lists them. */
  *routes(table?: number): Generator<Route> {
    // By the lists that the kernel keeps its tables in (fib_new_table), the newest of one first.
    const numbers = [...this.tables.keys()].reverse().sort((a, b) => (a & 255) - (b & 255));
    for (const number of numbers) {
      if (table !== undefined && number !== table) continue;
      for (const { address, length, set } of this.tables.get(number)!.entries())
        for (const way of (set as Ways).ways) yield routeOf(way, number, address, length);
    }
  }

  /** Number of prefixes in all tables. */
  get size(): number {
    let size = 0;
    for (const table of this.tables.values()) size += table.count;
    return size;
  }

  /** All tables' routes to this very prefix. */
  waysTo(dst: number, prefixLength: number): Route[] {
    return [...this.tables.keys()].flatMap((table) => this.of({ table, dst, prefixLength }));
  }

  /** Whether there is or was a route in the table, which the kernel makes then. */
  has(table: number): boolean {
    return this.known.has(table);
  }

  /** Many changes at once: lookups see them when the outermost ends. */
  change(changes: () => void): void {
    if (this.depth++ === 0) for (const table of this.tables.values()) table.begin();
    try {
      changes();
    } finally {
      if (--this.depth === 0) for (const table of this.tables.values()) table.end();
    }
  }

  /** As `change`, in steps between which other things can be done, but no change of routes. Small tables change in one. */
  *changing(changes: Iterable<void>): Generator<void> {
    if (this.depth++ === 0) for (const table of this.tables.values()) table.begin();
    try {
      yield* changes;
    } finally {
      if (--this.depth === 0) for (const table of this.tables.values()) yield* table.ending();
    }
  }

  /** Adds a route (`add`: none with its prefix, TOS and metric may be there). @throws RouteError */
  add(spec: RouteSpec, how: AddHow = 'add'): Route {
    const route = this.check(complete(spec));
    this.put(route, how);
    return route;
  }

  /**
   * Takes the first route out that is what `spec` says: prefix, table and TOS must be the same, whatever else is given, too.
   * @throws RouteError
   */
  remove(spec: RouteSpec): Route {
    const found = this.of({ table: TableId.MAIN, ...spec }).find(
      (route) =>
        route.tos === (spec.tos ?? 0) &&
        (spec.type === undefined || route.type === spec.type) &&
        (spec.scope === undefined || route.scope === spec.scope) &&
        (spec.source === undefined || route.source === spec.source) &&
        (spec.protocol === undefined || route.protocol === spec.protocol) &&
        (spec.oif === undefined || route.oif === spec.oif) &&
        (spec.gateway === undefined || route.gateway === spec.gateway) &&
        (!spec.metric || route.metric === spec.metric) &&
        (!spec.mtu || route.mtu === spec.mtu),
    );
    if (found === undefined) throw new RouteError(Errno.SRCH);
    this.take(found);
    return found;
  }

  /** Takes the place of all rules. @throws RouteError */
  setRules(rules: readonly PolicyRule[]): void {
    const before = this.list;
    // Stable: of equal priorities the one added first comes first.
    this.list = [...rules].sort((a, b) => a.priority - b.priority);
    try {
      this.publishRules();
    } catch (error) {
      this.list = before;
      throw error;
    }
  }

  /** As fib_nl_newrule(): behind those of the same priority. @throws RouteError */
  addRule(rule: PolicyRule): void {
    if (this.list.some((known) => sameRule(known, rule))) throw new RouteError(Errno.EXIST);
    if (rule.action === RuleAction.GOTO && rule.goto <= rule.priority)
      throw new RouteError(Errno.INVAL, 'Backward goto not supported');
    this.setRules([...this.list, rule]);
  }

  /** Takes the first rule out for which `is` holds. @throws RouteError */
  removeRule(is: (rule: PolicyRule) => boolean): void {
    const at = this.list.findIndex(is);
    if (at < 0) throw new RouteError(Errno.NOENT);
    this.setRules(this.list.toSpliced(at, 1));
  }

  private table(number: number): RoutingTable {
    let table = this.tables.get(number);
    if (table === undefined) {
      table = new RoutingTable(this.arena);
      this.tables.set(number, table);
      if (this.depth > 0) table.begin();
    }
    return table;
  }

  /** The routes of the prefix, in order. */
  private of({ table, dst, prefixLength }: Pick<Route, 'table' | 'dst' | 'prefixLength'>): readonly Route[] {
    const set = this.tables.get(table)?.get(dst, prefixLength) as Ways | undefined;
    return set?.ways.map((way) => routeOf(way, table, dst, prefixLength)) ?? [];
  }

  /** fib_create_info(). */
  private check(route: Route): Route {
    const { type, scope, gateway, oif, source } = route;
    if (prefixOf(route.dst, route.prefixLength) !== route.dst)
      throw new RouteError(Errno.INVAL, 'Invalid prefix for given prefix length');
    const props = PROPS[type];
    if (props.scope > scope) throw new RouteError(Errno.INVAL, 'Invalid scope');
    if (props.errno !== 0) {
      if (gateway !== 0 || oif !== 0)
        throw new RouteError(Errno.INVAL, 'Gateway, device and multipath can not be specified for this route type');
      return route;
    }
    if (scope > (Scope.HOST as number)) throw new RouteError(Errno.INVAL, 'Invalid scope');
    let checked = route;
    if (scope === (Scope.HOST as number)) {
      if (gateway !== 0) throw new RouteError(Errno.INVAL, 'Route with host scope can not have a gateway');
      if (this.link(oif) === undefined) throw new RouteError(Errno.NODEV);
    } else if (gateway !== 0) {
      checked = { ...route, oif: route.onlink ? this.onLink(route) : this.gatewayInterface(route) };
    } else {
      const link = this.link(oif);
      if (link === undefined) throw new RouteError(Errno.NODEV);
      if ((link.flags & LinkFlag.UP) === 0) throw new RouteError(Errno.NETDOWN, 'Device for nexthop is not up');
    }
    if (source !== 0 && !this.owns(source)) throw new RouteError(Errno.INVAL, 'Invalid prefsrc address');
    return checked;
  }

  /** fib_check_nh_v4_gw() with onlink. */
  private onLink({ gateway, oif }: Route): number {
    const link = this.link(oif);
    if (link === undefined) throw new RouteError(Errno.NODEV, 'Nexthop device required for onlink');
    if ((link.flags & LinkFlag.UP) === 0) throw new RouteError(Errno.NETDOWN, 'Nexthop device is not up');
    if (this.owns(gateway)) throw new RouteError(Errno.INVAL, 'Nexthop has invalid gateway');
    return oif;
  }

  /** fib_check_nh_v4_gw(): the gateway must be on a link already. */
  private gatewayInterface({ gateway, oif, scope, table }: Route): number {
    const near = Math.max(scope + 1, Scope.LINK);
    const found = this.own.findNear(this.tables.get(table)?.offset ?? 0, gateway, oif, near);
    if (found === 0) throw new RouteError(Errno.INVAL, 'Nexthop has invalid gateway');
    return found;
  }

  private link(index: number): Link | undefined {
    return this.links.find((link) => link.index === index);
  }

  /** Whether the address is one of the router's own (inet_addr_type). */
  owns(address: number): boolean {
    return this.own.isLocal(this.tables.get(TableId.LOCAL)?.offset ?? 0, address);
  }

  /** fib_table_insert(). */
  private put(route: Route, how: AddHow): void {
    const known = this.of(route);
    const rank = ({ tos, metric }: Route): number => -tos * 2 ** 32 + metric;
    const first = known.findIndex((other) => other.tos === route.tos && other.metric === route.metric);
    if (first < 0) {
      if (how === 'change') throw new RouteError(Errno.NOENT);
      const at = known.findIndex((other) => rank(other) > rank(route));
      this.store(route, known.toSpliced(at < 0 ? known.length : at, 0, route));
      return;
    }
    if (how === 'add') throw new RouteError(Errno.EXIST);
    const same = known.findIndex((other) => routeKey(other) === routeKey(route));
    if (how === 'replace' || how === 'change') {
      if (same >= 0 && same !== first) throw new RouteError(Errno.EXIST);
      this.store(route, known.with(first, route));
      return;
    }
    if (same >= 0) throw new RouteError(Errno.EXIST);
    const end = known.findLastIndex((other) => other.tos === route.tos && other.metric === route.metric) + 1;
    this.store(route, known.toSpliced(how === 'append' ? end : first, 0, route));
  }

  private take(route: Route): void {
    const key = routeKey(route);
    this.store(
      route,
      this.of(route).filter((other) => routeKey(other) !== key),
    );
  }

  private store({ table, dst, prefixLength }: Route, routes: readonly Route[]): void {
    const into = this.table(table);
    const before = into.get(dst, prefixLength) as Ways | undefined;
    const set = routes.length === 0 ? undefined : this.setOf(routes.map(wayOf));
    try {
      into.set(dst, prefixLength, set);
    } catch (error) {
      if (error instanceof TableFull) throw new RouteError(Errno.NOBUFS, error.message);
      throw error;
    }
    if (set !== undefined) {
      set.users++;
      this.sets.set(set.key, set);
    }
    if (before !== undefined && --before.users === 0) this.sets.delete(before.key);
    this.known.add(table);
    this.onChange?.(dst, prefixLength);
  }

  /** One object for the same routes, whatever their prefix. */
  private setOf(ways: readonly Way[]): Ways {
    let key = '';
    for (const way of ways) key += `${keyOf(way)} ${this.sourceOf(way)};`;
    const known = this.sets.get(key);
    if (known !== undefined) return known;
    const words = new Int32Array(ways.length * ALIAS_WORDS);
    ways.forEach((way, i) => this.encode(way, words, i * ALIAS_WORDS));
    return { key, words, ways, users: 0 };
  }

  /** What the router's own packets have as their source on this way, if nothing else. */
  private sourceOf({ type, scope, oif, gateway, source }: Way): number {
    const given = source !== 0 || type === RouteType.LOCAL;
    return given ? source : selectAddress(this.links, oif, gateway, scope);
  }

  private encode(way: Way, words: Int32Array, at: number): void {
    const { type, scope, tos, oif, gateway, mtu } = way;
    words[at + Alias.KIND] = type | (scope << 8) | (tos << 16);
    words[at + Alias.ERRNO] = PROPS[type].errno;
    words[at + Alias.OIF] = oif;
    words[at + Alias.GATEWAY] = gateway;
    words[at + Alias.SOURCE] = this.sourceOf(way);
    words[at + Alias.MTU] = mtu;
  }

  /** Addresses changed, and so may have the sources that routes without one of their own take. */
  private renew(): void {
    const renewed = new Map<RouteSet, Ways>();
    for (const set of this.sets.values()) {
      const now = this.setOf(set.ways);
      if (now !== set) renewed.set(set, now);
    }
    if (renewed.size === 0) return;
    for (const table of this.tables.values()) {
      table.begin();
      for (const { address, length, set } of table.entries()) {
        const now = renewed.get(set);
        if (now === undefined) continue;
        table.set(address, length, now);
        now.users++;
        this.sets.set(now.key, now);
        if (--(set as Ways).users === 0) this.sets.delete((set as Ways).key);
      }
      table.end();
    }
  }

  private publishRules(): void {
    for (const { action, table } of this.list) if (action === RuleAction.TABLE) this.table(table);
    const size = 1 + this.list.length * RuleWord.WORDS;
    const at = this.arena.take(size);
    const { words } = this;
    words[at] = this.list.length;
    this.list.forEach((rule, i) => {
      const o = at + 1 + i * RuleWord.WORDS;
      words[o + RuleWord.ACTION] = rule.action;
      words[o + RuleWord.TABLE] = rule.action === RuleAction.TABLE ? this.table(rule.table).offset : 0;
      words[o + RuleWord.SRC] = rule.src;
      words[o + RuleWord.SRC_MASK] = prefixOf(-1, rule.srcLength);
      words[o + RuleWord.DST] = rule.dst;
      words[o + RuleWord.DST_MASK] = prefixOf(-1, rule.dstLength);
      words[o + RuleWord.IIF] = this.named(rule.iif);
      words[o + RuleWord.OIF] = this.named(rule.oif);
      words[o + RuleWord.MARK] = rule.mark;
      words[o + RuleWord.MARK_MASK] = rule.markMask;
      words[o + RuleWord.TOS] = rule.tos;
      words[o + RuleWord.PROTOCOL] = rule.protocol;
      words[o + RuleWord.SPORTS] = rule.sport === undefined ? 0 : (rule.sport[0] << 16) | rule.sport[1];
      words[o + RuleWord.DPORTS] = rule.dport === undefined ? 0 : (rule.dport[0] << 16) | rule.dport[1];
      words[o + RuleWord.NOT] = rule.not ? 1 : 0;
      words[o + RuleWord.GOTO] = this.list.findIndex(({ priority }) => priority === rule.goto);
    });
    Atomics.store(words, Head.RULES, at);
    if (this.rulesAt !== 0) this.arena.retire(this.rulesAt, 1 + words[this.rulesAt]! * RuleWord.WORDS);
    this.rulesAt = at;
  }

  private publishLinks(): void {
    const size = 1 + this.links.length * LinkWord.WORDS;
    const at = this.arena.take(size);
    const { words, links } = this;
    words[at] = links.length;
    links.forEach(({ index, flags }, i) => {
      const o = at + 1 + i * LinkWord.WORDS;
      words[o + LinkWord.IFINDEX] = index;
      words[o + LinkWord.UP] = flags & LinkFlag.UP;
      words[o + LinkWord.NEAR_SOURCE] = selectAddress(links, index, 0, Scope.LINK);
      words[o + LinkWord.SOURCE] = selectAddress(links, index, 0, Scope.UNIVERSE);
    });
    words[Head.LOOPBACK] = links.find(({ flags }) => (flags & LinkFlag.LOOPBACK) !== 0)?.index ?? 0;
    Atomics.store(words, Head.LINKS, at);
    if (this.linksAt !== 0) this.arena.retire(this.linksAt, 1 + words[this.linksAt]! * LinkWord.WORDS);
    this.linksAt = at;
  }

  private named(name: string): number {
    if (name === '') return 0;
    return this.links.find((link) => link.name === name)?.index ?? -1;
  }
}

/** A worker's side: answers as the kernel would to RTM_GETROUTE. */
export class FibReader implements RouteSource {
  private readonly w: Int32Array;
  // The flow that is asked about.
  private dst = 0;
  private src = 0;
  private iif = 0;
  private oif = 0;
  private mark = 0;
  private tos = 0;
  private protocol = 0;
  private sport = 0;
  private dport = 0;
  private scope = 0;
  /** TOS of the route that answered last; 0 = it takes any. */
  routeTos = 0;
  private readonly together: Together | undefined;
  /** Where its addresses and their nodes are, and of which table they were last looked up; 0 = of none. */
  private readonly addresses: number;
  private readonly nodes: number;
  private ahead = 0;
  /** Of the flow that is asked about: its address's place among them, −1 = none. */
  private place = -1;

  /** `memory`: what `shared` is of, for a reader that looks up addresses ahead; `reader` tells it from others (0 to MOST_READERS − 1). */
  constructor(shared: SharedArrayBuffer, memory?: WebAssembly.Memory, reader = 0) {
    this.w = new Int32Array(shared);
    if (this.w[Head.MAGIC] !== MAGIC) throw new Error('these are no routing tables');
    if (memory !== undefined) this.together = together(memory);
    this.addresses = ADDRESSES + reader * TOGETHER;
    this.nodes = NODES + reader * TOGETHER;
  }

  /**
   * Looks up the destinations of a batch's packets in the first table that is so large that lookups wait for memory: until the next
   * call, a question whose Question.PLACE is the packet's place finds it done.
   */
  lookAhead(bytes: Uint8Array, meta: Int32Array, count: number): void {
    this.ahead = 0;
    if (this.together === undefined || count > TOGETHER) return;
    const table = this.largeTable();
    if (table === 0) return;
    const { w, addresses } = this;
    for (let i = 0; i < count; i++) {
      const at = meta[i * META_WORDS + Meta.OFFSET]! + DESTINATION;
      w[addresses + i] = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    }
    if (count > 0) this.together(wideOf(w, table), addresses, this.nodes, count);
    this.ahead = table;
  }

  /** Of those that rules name, the first that is looked at by 24 bits; 0 = none. */
  private largeTable(): number {
    const { w } = this;
    const rules = Atomics.load(w, Head.RULES);
    const end = rules + 1 + w[rules]! * RuleWord.WORDS;
    for (let rule = rules + 1; rule < end; rule += RuleWord.WORDS) {
      const table = w[rule + RuleWord.ACTION] === (RuleAction.TABLE as number) ? w[rule + RuleWord.TABLE]! : 0;
      if (table !== 0 && wideOf(w, table) !== 0) return table;
    }
    return 0;
  }

  ask(question: Int32Array, answer: Int32Array): void {
    answer.fill(0);
    this.routeTos = 0;
    this.place = question[Question.PLACE]!;
    this.dst = question[Question.DST]!;
    this.src = question[Question.SRC]!;
    this.oif = question[Question.OIF]!;
    this.mark = question[Question.MARK]!;
    this.tos = question[Question.TOS]! & TOS_MASK;
    this.protocol = question[Question.PROTOCOL]!;
    this.sport = question[Question.SPORT]!;
    this.dport = question[Question.DPORT]!;
    this.scope = Scope.UNIVERSE;
    const iif = question[Question.IIF]!;
    if (iif !== 0) this.input(iif, answer);
    else this.output(answer);
  }

  /** ip_route_input_rcu(), but for whether the source can be (routes.ts has that). */
  private input(iif: number, answer: Int32Array): void {
    const { dst, src, w } = this;
    this.iif = iif;
    this.oif = 0;
    if (isMulticast(dst)) {
      answer[Answer.TYPE] = RouteType.MULTICAST;
      answer[Answer.OIF] = iif;
      return;
    }
    const loopback = w[Head.LOOPBACK]!;
    if (isMulticast(src) || src === -1) {
      answer[Answer.ERRNO] = Errno.INVAL;
      return;
    }
    if (dst === -1 || (src === 0 && dst === 0)) {
      answer[Answer.TYPE] = RouteType.BROADCAST;
      answer[Answer.OIF] = loopback;
      return;
    }
    const strange = src === 0 || dst === 0 || (iif !== loopback && (isLoopback(src) || isLoopback(dst)));
    if (strange) {
      answer[Answer.ERRNO] = Errno.INVAL;
      return;
    }
    const alias = this.resolve();
    if (alias < 0) {
      answer[Answer.ERRNO] = -alias;
      return;
    }
    const type: RouteType = w[alias + Alias.KIND]! & 0xff;
    if (type !== RouteType.UNICAST && type !== RouteType.LOCAL && type !== RouteType.BROADCAST) {
      answer[Answer.ERRNO] = Errno.INVAL;
      return;
    }
    this.give(alias, type, answer);
    if (type !== RouteType.UNICAST) answer[Answer.OIF] = loopback;
  }

  /** ip_route_output_key_hash_rcu(). */
  private output(answer: Int32Array): void {
    const { w, oif } = this;
    const loopback = w[Head.LOOPBACK]!;
    this.iif = loopback;
    if (isMulticast(this.src) || this.src === -1) {
      answer[Answer.ERRNO] = Errno.INVAL;
      return;
    }
    const link = oif === 0 ? 0 : this.link(oif);
    if (oif !== 0) {
      if (link === 0 || w[link + LinkWord.UP] === 0) {
        answer[Answer.ERRNO] = link === 0 ? Errno.NODEV : Errno.NETUNREACH;
        return;
      }
      if (isLocalMulticast(this.dst) || this.dst === -1) {
        this.direct(link, LinkWord.NEAR_SOURCE, answer);
        return;
      }
    }
    if (this.dst === 0) {
      // "This host": its own loopback address, or the source that was chosen.
      answer[Answer.TYPE] = RouteType.LOCAL;
      answer[Answer.OIF] = loopback;
      answer[Answer.PREFSRC] = this.src !== 0 ? this.src : LOOPBACK_ADDRESS;
      return;
    }
    const alias = this.resolve();
    if (alias < 0) {
      // Bound to an interface, a packet goes out there even without a route.
      if (link !== 0) this.direct(link, isMulticast(this.dst) ? LinkWord.SOURCE : LinkWord.NEAR_SOURCE, answer);
      else answer[Answer.ERRNO] = -alias;
      return;
    }
    const type: RouteType = w[alias + Alias.KIND]! & 0xff;
    this.give(alias, this.kind(type), answer);
    if (this.src !== 0) answer[Answer.PREFSRC] = this.src;
    if (type === RouteType.LOCAL) {
      if (answer[Answer.PREFSRC] === 0) answer[Answer.PREFSRC] = this.dst;
      answer[Answer.OIF] = loopback;
    }
  }

  /** Addresses for many have their type whatever the route's. */
  private kind(type: RouteType): RouteType {
    if (this.dst === -1) return RouteType.BROADCAST;
    return isMulticast(this.dst) ? RouteType.MULTICAST : type;
  }

  private direct(link: number, source: LinkWord, answer: Int32Array): void {
    answer[Answer.TYPE] = this.kind(RouteType.UNICAST);
    answer[Answer.OIF] = this.oif;
    answer[Answer.PREFSRC] = this.src !== 0 ? this.src : this.w[link + source]!;
  }

  private give(alias: number, type: RouteType, answer: Int32Array): void {
    const { w } = this;
    this.routeTos = w[alias + Alias.KIND]! >> 16;
    answer[Answer.TYPE] = type;
    answer[Answer.OIF] = w[alias + Alias.OIF]!;
    answer[Answer.GATEWAY] = w[alias + Alias.GATEWAY]!;
    answer[Answer.PREFSRC] = w[alias + Alias.SOURCE]!;
    answer[Answer.MTU] = w[alias + Alias.MTU]!;
  }

  /** Offset of the link's words; 0 = it isn't there. */
  private link(ifindex: number): number {
    const { w } = this;
    const links = Atomics.load(w, Head.LINKS);
    const end = links + 1 + w[links]! * LinkWord.WORDS;
    for (let o = links + 1; o < end; o += LinkWord.WORDS) if (w[o + LinkWord.IFINDEX] === ifindex) return o;
    return 0;
  }

  /** fib_lookup() by the rules: offset of the route, or −errno. */
  private resolve(): number {
    const { w } = this;
    const rules = Atomics.load(w, Head.RULES);
    const count = w[rules]!;
    for (let i = 0; i < count; i++) {
      const rule = rules + 1 + i * RuleWord.WORDS;
      if (this.meets(rule) === (w[rule + RuleWord.NOT] !== 0)) continue;
      const action: RuleAction = w[rule + RuleWord.ACTION]!;
      if (action === RuleAction.TABLE) {
        const alias = this.find(w[rule + RuleWord.TABLE]!);
        if (alias !== 0) {
          const errno = w[alias + Alias.ERRNO]!;
          if (errno === 0) return alias;
          if (errno !== Errno.AGAIN) return -errno;
        }
      } else if (action === RuleAction.GOTO) {
        const to = w[rule + RuleWord.GOTO]!;
        if (to > i) i = to - 1;
      } else if (action !== RuleAction.NOP) {
        return -RULE_ERRNO[action];
      }
    }
    return -Errno.NETUNREACH;
  }

  private meets(rule: number): boolean {
    const { w } = this;
    if (w[rule + RuleWord.IIF] !== 0 && w[rule + RuleWord.IIF] !== this.iif) return false;
    if (w[rule + RuleWord.OIF] !== 0 && w[rule + RuleWord.OIF] !== this.oif) return false;
    if (((this.mark ^ w[rule + RuleWord.MARK]!) & w[rule + RuleWord.MARK_MASK]!) !== 0) return false;
    if (((this.src ^ w[rule + RuleWord.SRC]!) & w[rule + RuleWord.SRC_MASK]!) !== 0) return false;
    if (((this.dst ^ w[rule + RuleWord.DST]!) & w[rule + RuleWord.DST_MASK]!) !== 0) return false;
    if (w[rule + RuleWord.TOS] !== 0 && w[rule + RuleWord.TOS] !== this.tos) return false;
    if (w[rule + RuleWord.PROTOCOL] !== 0 && w[rule + RuleWord.PROTOCOL] !== this.protocol) return false;
    return within(this.sport, w[rule + RuleWord.SPORTS]!) && within(this.dport, w[rule + RuleWord.DPORTS]!);
  }

  /** fib_table_lookup(): offset of the first route that fits, from the longest prefix to the shortest; 0 = none. */
  private find(table: number): number {
    const { w } = this;
    const last = defaultNode(w, table);
    for (let node = this.nodeOf(table); node !== 0;) {
      const aliases = node + Node.ALIASES;
      const end = aliases + w[node + Node.COUNT]! * ALIAS_WORDS;
      for (let alias = aliases; alias < end; alias += ALIAS_WORDS) {
        const kind = w[alias + Alias.KIND]!;
        const tos = kind >> 16;
        if (tos !== 0 && tos !== this.tos) continue;
        if (((kind >> 8) & 0xff) < this.scope) continue;
        if (w[alias + Alias.ERRNO] !== 0) return alias;
        if (this.oif === 0 || this.oif === w[alias + Alias.OIF]) return alias;
      }
      const parent = w[node + Node.PARENT]!;
      if (parent === FLAT) node = lookupChain(w, table, this.dst);
      else node = parent !== 0 ? parent : node === last ? 0 : last;
    }
    return 0;
  }

  private nodeOf(table: number): number {
    const { w, dst, place } = this;
    if (place < 0 || table !== this.ahead || w[this.addresses + place] !== dst) return lookup(w, table, dst);
    const node = w[this.nodes + place]!;
    return node !== 0 ? node : defaultNode(w, table);
  }

  /** The interface by which a gateway is on a link, asked in `table` (0 = none) and then by all rules; 0 = none. */
  findNear(table: number, gateway: number, oif: number, scope: number): number {
    const { w } = this;
    this.place = -1;
    this.dst = gateway;
    this.src = 0;
    this.oif = oif;
    this.iif = w[Head.LOOPBACK]!;
    this.mark = 0;
    this.tos = 0;
    this.protocol = 0;
    this.scope = scope;
    let alias = table === 0 ? 0 : this.find(table);
    if (alias === 0 || w[alias + Alias.ERRNO] !== 0) alias = this.resolve();
    if (alias <= 0) return 0;
    const type: RouteType = w[alias + Alias.KIND]! & 0xff;
    return type === RouteType.UNICAST || type === RouteType.LOCAL ? w[alias + Alias.OIF]! : 0;
  }

  /** inet_addr_type() says LOCAL: by the table of that name. */
  isLocal(table: number, address: number): boolean {
    if (table === 0) return false;
    this.place = -1;
    this.dst = address;
    this.oif = 0;
    this.tos = 0;
    this.scope = Scope.UNIVERSE;
    const alias = this.find(table);
    return alias !== 0 && (this.w[alias + Alias.KIND]! & 0xff) === RouteType.LOCAL;
  }
}

/** FR_ACT_* that refuse (fib4_rule_action). */
const RULE_ERRNO = {
  [RuleAction.BLACKHOLE]: Errno.INVAL,
  [RuleAction.UNREACHABLE]: Errno.NETUNREACH,
  [RuleAction.PROHIBIT]: Errno.ACCES,
} as const;

const LOOPBACK_ADDRESS = 0x7f000001;
const isMulticast = (address: number): boolean => address >>> 28 === 0xe;
/** 224.0.0.0/24. */
const isLocalMulticast = (address: number): boolean => address >>> 8 === 0xe00000;
const within = (port: number, range: number): boolean =>
  range === 0 || (port >= range >>> 16 && port <= (range & 0xffff));

/** Fills in what iproute2 does for `ip route add` (iproute_modify). */
export function complete(spec: RouteSpec): Route {
  const type = spec.type ?? RouteType.UNICAST;
  const gateway = spec.gateway ?? 0;
  const own = type === RouteType.LOCAL || type === RouteType.BROADCAST || type === RouteType.ANYCAST;
  const far = type === RouteType.UNICAST && gateway === 0 ? Scope.LINK : Scope.UNIVERSE;
  const near = type === RouteType.BROADCAST || type === RouteType.ANYCAST || type === RouteType.MULTICAST;
  return {
    table: spec.table ?? (own ? TableId.LOCAL : TableId.MAIN),
    dst: spec.dst,
    prefixLength: spec.prefixLength,
    tos: spec.tos ?? 0,
    metric: spec.metric ?? 0,
    type,
    scope: spec.scope ?? (type === RouteType.LOCAL ? Scope.HOST : near ? Scope.LINK : far),
    protocol: spec.protocol ?? RouteProtocol.BOOT,
    oif: spec.oif ?? 0,
    gateway,
    source: spec.source ?? 0,
    mtu: spec.mtu ?? 0,
    onlink: spec.onlink ?? false,
  };
}

const wayOf = ({ tos, metric, type, scope, protocol, oif, gateway, source, mtu, onlink }: Route): Way => ({
  tos,
  metric,
  type,
  scope,
  protocol,
  oif,
  gateway,
  source,
  mtu,
  onlink,
});

/** The way to that prefix; written out, as V8 takes a hundred times as long to spread an object of so many parts. */
const routeOf = (way: Way, table: number, dst: number, prefixLength: number): Route => ({
  table,
  dst,
  prefixLength,
  tos: way.tos,
  metric: way.metric,
  type: way.type,
  scope: way.scope,
  protocol: way.protocol,
  oif: way.oif,
  gateway: way.gateway,
  source: way.source,
  mtu: way.mtu,
  onlink: way.onlink,
});

/** What makes two routes the same. */
const routeKey = (route: Route): string => `${route.table} ${route.dst} ${route.prefixLength} ${keyOf(route)}`;

const keyOf = (way: Way): string =>
  `${way.tos} ${way.metric} ${way.type} ${way.scope} ${way.protocol} ${way.oif} ${way.gateway} ${way.source} ${way.mtu} ${way.onlink}`;

const sameRule = (a: PolicyRule, b: PolicyRule): boolean => JSON.stringify(a) === JSON.stringify(b);

/** fib_add_ifaddr(): what an interface's addresses bring along. */
function addressRoutes({ index, flags, addresses }: Link): Route[] {
  const routes: Route[] = [];
  const add = (type: RouteType, dst: number, prefixLength: number, source: number): void => {
    const table = type === RouteType.UNICAST ? TableId.MAIN : TableId.LOCAL;
    const dev = { type, table, oif: index, source, protocol: RouteProtocol.KERNEL };
    const route = complete({ dst: prefixOf(dst, prefixLength), prefixLength, ...dev });
    if (!routes.some((known) => routeKey(known) === routeKey(route))) routes.push(route);
  };
  const up = (flags & LinkFlag.UP) !== 0;
  for (const { local, address, prefixLength, secondary } of addresses) {
    add(RouteType.LOCAL, local, 32, local);
    if (!up) continue;
    const net = prefixOf(address, prefixLength);
    if (net === 0 || secondary || (net === local && prefixLength === 32)) continue;
    add((flags & LinkFlag.LOOPBACK) !== 0 ? RouteType.LOCAL : RouteType.UNICAST, net, prefixLength, local);
    if (prefixLength < 31) add(RouteType.BROADCAST, net | ~prefixOf(-1, prefixLength), 32, local);
  }
  return routes;
}

/** inet_select_addr(): the interface's first primary address in the next hop's subnet, else its first, else another's. */
function selectAddress(links: readonly Link[], oif: number, nextHop: number, scope: number): number {
  const here = links.find(({ index }) => index === oif);
  let first = 0;
  for (const own of here?.addresses ?? []) {
    if (own.secondary || own.scope > scope) continue;
    if (nextHop === 0 || prefixOf(nextHop ^ own.address, own.prefixLength) === 0) return own.local;
    if (first === 0) first = own.local;
  }
  if (first !== 0) return first;
  for (const link of links)
    for (const own of link.addresses)
      if (!own.secondary && own.scope !== (Scope.LINK as number) && own.scope <= scope) return own.local;
  return 0;
}
