/**
 * The one configuration format, YAML, for `up`, `replay`, `explain` and `lab`: what the router's interfaces, addresses
 * and routes are, and its settings. Checked against one schema; an error names file, line and column. Options on the
 * command line win over the file (see `settingsFrom`).
 *
 * With NFQUEUE the kernel has the interfaces and routes: those named here must exist, nothing is configured.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isMap, isNode, isPair, isScalar, LineCounter, parseDocument, type Document } from 'yaml';
import { z } from 'zod';
import { READ_HELPERS } from '../dataplane/conntrack/helpers/helpers.js';
import { settingFault } from '../dataplane/conntrack/settings.js';
import { MAX_WORKERS } from '../dataplane/shared.js';
import { cpuMask } from './cpus.js';
import { parseProtocol } from './protocols.js';
import { readTable } from './routename.js';

/** Wrong configuration; the message is whole sentences for the person at the terminal, one line an error. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** The connection table has slots for so many beside the control thread's. */
const MOST_WORKERS = Math.min(MAX_WORKERS, 61);
/** TUN: name of the interface to the router's own sockets. */
export const LOCAL_NAME = 'hutter';
export const DEFAULT_CONTROL = '/run/hutter/control.sock';

const octet = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const dottedQuad = new RegExp(`^${octet}(?:\\.${octet}){3}$`);
const prefix = new RegExp(`^${octet}(?:\\.${octet}){3}/(?:3[0-2]|[12]?\\d)$`);

const address = z.string().regex(dottedQuad, 'is not an IPv4 address such as 192.168.73.1');
const addressWithLength = z.string().regex(prefix, 'is not an address with prefix length such as 192.168.73.1/24');
const destination = z.union([z.literal('default'), addressWithLength, address], {
  error: 'is not `default`, an address or a prefix such as 10.0.0.0/8',
});
/** dev_valid_name() in net/core/dev.c: 1 to 15 bytes, no slash, colon or space; not "." or "..". */
const interfaceName = z
  .string()
  .regex(/^(?!\.{1,2}$)[^/:\s]{1,15}$/, 'is not an interface name (1 to 15 characters, no slash, colon or space)');
const mtu = z.int().min(68, 'is below 68, the least MTU of IPv4 (RFC 791)').max(65_535);

/** `lo`, `eth0`: an interface; `tcp/22`, `udp/53`: a service of the router itself. */
const keepItem = z
  .string()
  .refine((item) => parseKeep(item) !== undefined, 'is not an interface, tcp/PORT or udp/PORT (such as lo or tcp/22)');

const helperPattern = new RegExp(`^(?:${READ_HELPERS.join('|')})(?::([1-9]\\d{0,4}))?$`);
const isHelper = (item: string): boolean => {
  const found = helperPattern.exec(item);
  return found !== null && Number(found[1] ?? 1) <= 65_535;
};
const helperMessage = `is not a connection helper (${READ_HELPERS.join(', ')}), with or without a port as in ftp:2121`;

const table = z
  .union([z.int(), z.string()], { error: 'is not a routing table' })
  .refine((name) => readTable(String(name)) !== undefined, 'is not a routing table (main, default, local or a number)');
/** IPTOS_RT_MASK: what routes look at of it. */
const routeTos = z.int().refine((tos) => (tos & ~0x1c) === 0, 'has other bits than 0x1c, which no route looks at');
const selector = z.union([z.literal('all'), addressWithLength, address], {
  error: 'is not `all`, an address or a prefix such as 10.0.0.0/8',
});
const ports = z.union(
  [z.int().min(1).max(65_535), z.string().refine(isPortRange, 'is not a port or a range such as 1000-2000')],
  {
    error: 'is not a port or a range such as 1000-2000',
  },
);

const cpus = z
  .union([z.int().min(0), z.string()], { error: 'is not a list of CPUs such as 0-2,5' })
  .refine((list) => cpuMask(String(list)) !== undefined, 'is not a list of CPUs such as 0-2,5');

const schema = z.strictObject({
  device: z.enum(['nfqueue', 'tun'], { error: 'is not nfqueue or tun' }).optional(),
  rules: z.string().min(1).optional(),
  workers: z.int().min(1).max(MOST_WORKERS).optional(),
  'queue-base': z.int().min(0).max(65_535).optional(),
  'queue-length': z.int().min(1).max(1_048_576).optional(),
  'busy-poll': z.int().min(0).max(1000).optional(),
  fanout: z.enum(['hosts', 'cpu'], { error: 'is not hosts or cpu' }).optional(),
  control: z.string().min(1).optional(),
  fail: z.enum(['open', 'closed'], { error: 'is not open or closed' }).optional(),
  keep: z.array(keepItem).optional(),
  log: z.string().min(1).optional(),
  connections: z.int().min(64).max(8_000_000).optional(),
  helpers: z.array(z.string().refine(isHelper, helperMessage)).optional(),
  /** Of connection tracking, under the kernel's names below net.netfilter. */
  sysctl: z
    .record(z.string(), z.number({ error: 'is no number' }))
    .superRefine((settings, context) => {
      for (const [name, value] of Object.entries(settings)) {
        const fault = name === 'nf_conntrack_max' ? 'that is `connections`' : settingFault(name, value);
        if (fault !== undefined)
          context.addIssue({ code: 'custom', path: [name], message: `can't be set: ${fault}`, input: settings });
      }
    })
    .optional(),
  /** TUN: the router's own sockets are reached through INPUT and leave through OUTPUT. */
  local: z.boolean().optional(),
  /** TUN: milliseconds that an ICMP error to one destination costs, as net.ipv4.icmp_ratelimit; 0 = no limit. */
  'icmp-ratelimit': z.int().min(0).max(3_600_000).optional(),
  interfaces: z
    .record(
      interfaceName,
      z.strictObject({
        addresses: z.array(addressWithLength).default([]),
        mtu: mtu.default(1500),
        /** TUN: the namespace of the device's other side (a name, a path, a process id); the router's own when absent. */
        namespace: z
          .union([z.string().min(1), z.int().min(1)], { error: 'is no namespace: name, path or pid' })
          .optional(),
        /** TUN: what the other side is given. */
        peer: z
          .strictObject({
            name: interfaceName.optional(),
            addresses: z.array(addressWithLength).default([]),
            routes: z.array(z.strictObject({ to: destination, via: address.optional() })).default([]),
            /** CPUs that take over what hutter writes to it. */
            cpus: cpus.optional(),
          })
          .optional(),
        /** TUN: whether a packet's source must be reachable, and by the same interface; off when absent. */
        'rp-filter': z.enum(['off', 'loose', 'strict'], { error: 'is not off, loose or strict' }).optional(),
        /** TUN: bits a second on the way out; 0 is no limit. */
        rate: z.number().min(0).optional(),
      }),
    )
    .default({}),
  routes: z
    .array(
      z.strictObject({
        to: destination,
        via: address.optional(),
        dev: interfaceName.optional(),
        type: z
          .enum(['unicast', 'local', 'broadcast', 'blackhole', 'unreachable', 'prohibit', 'throw'], {
            error: 'is not a type of route (unicast, local, broadcast, blackhole, unreachable, prohibit, throw)',
          })
          .default('unicast'),
        /** Source of the router's own packets on this way. */
        src: address.optional(),
        metric: z.int().min(0).max(0xffffffff).optional(),
        mtu: mtu.optional(),
        table: table.optional(),
        tos: routeTos.optional(),
        /** The gateway is on the link, whatever the addresses say. */
        onlink: z.boolean().optional(),
      }),
    )
    .default([]),
  /** As `ip rule` has them, before main and default. */
  'routing-rules': z
    .array(
      z.strictObject({
        priority: z.int().min(1).max(32_765).optional(),
        not: z.boolean().optional(),
        from: selector.optional(),
        to: selector.optional(),
        iif: interfaceName.optional(),
        oif: interfaceName.optional(),
        mark: z
          .union([z.int().min(0).max(0xffffffff), z.string()])
          .refine(isMark, 'is not a mark such as 5 or 0x5/0xff')
          .optional(),
        tos: routeTos.optional(),
        proto: z.string().refine(isProtocol, 'is not a protocol').optional(),
        sport: ports.optional(),
        dport: ports.optional(),
        table: table.optional(),
        action: z
          .enum(['blackhole', 'unreachable', 'prohibit'], { error: 'is not blackhole, unreachable or prohibit' })
          .optional(),
      }),
    )
    .default([]),
});

export type Config = z.infer<typeof schema>;

function isMark(mark: number | string): boolean {
  const parts = String(mark).split('/');
  return parts.length <= 2 && parts.every((part) => /^(0x[0-9a-f]+|\d+)$/i.test(part) && Number(part) <= 0xffffffff);
}

function isPortRange(text: string): boolean {
  const [, first, last] = /^(\d{1,5})-(\d{1,5})$/.exec(text) ?? [];
  return first !== undefined && Number(first) >= 1 && Number(first) <= Number(last) && Number(last) <= 65_535;
}

function isProtocol(text: string): boolean {
  try {
    return parseProtocol(text) >= 0;
  } catch {
    return false;
  }
}

/** Of each configuration that was read from a text, where in it a value stands. */
const places = new WeakMap<Config, (at: readonly PropertyKey[]) => string>();

/** `FILE:LINE:COLUMN` of the value at `path` in a configuration's text, for errors that are found later. */
export const placeIn = (config: Config, at: readonly PropertyKey[]): string => places.get(config)?.(at) ?? 'config';

/** One thing that is left undiverted. */
export type Keep = { interface: string } | { protocol: 'tcp' | 'udp'; port: number };

/** Reads `lo` or `tcp/22`; undefined when it is neither. */
export function parseKeep(item: string): Keep | undefined {
  const service = /^(tcp|udp)\/(\d{1,5})$/.exec(item);
  if (service) {
    const port = Number(service[2]);
    return port >= 1 && port <= 65_535 ? { protocol: service[1] as 'tcp' | 'udp', port } : undefined;
  }
  return interfaceName.safeParse(item).success ? { interface: item } : undefined;
}

/** Checks `--helpers`. @throws ConfigError */
export function parseHelpers(items: readonly string[]): string[] {
  for (const item of items) if (!isHelper(item)) throw new ConfigError(`--helpers: ${item} ${helperMessage}`);
  return [...items];
}

/**
 * Reads and checks a configuration. Paths in it (`rules`) are taken from the file's own directory.
 * @throws ConfigError naming file, line and column of each mistake.
 */
export function loadConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`can't read ${file}: ${reason(error)}`);
  }
  const config = parseConfig(text, file);
  if (config.rules !== undefined) config.rules = path.resolve(path.dirname(file), config.rules);
  return config;
}

/** As `loadConfig`, from text; `file` is the name that errors give. */
export function parseConfig(text: string, file = 'config'): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  if (document.errors.length > 0)
    throw new ConfigError(document.errors.map((error) => `${at(error.pos[0])}: ${error.message}`).join('\n'));

  const result = schema.safeParse(document.toJS() ?? {});
  if (!result.success) {
    const messages = result.error.issues.flatMap((issue) => {
      if (issue.code === 'unrecognized_keys')
        return issue.keys.map(
          (key) => `${at(offsetOf(document, [...issue.path, key], true))}: unknown setting \`${key}\``,
        );
      const inKey = issue.code === 'invalid_key';
      const message = inKey ? (issue.issues[0]?.message ?? issue.message) : issue.message;
      const what = issue.path.length === 0 ? 'the configuration' : `\`${issue.path.join('.')}\``;
      return [`${at(offsetOf(document, issue.path, inKey))}: ${what} ${phrase(message)}`];
    });
    throw new ConfigError(messages.join('\n'));
  }
  const { interfaces, routes } = result.data;
  routes.forEach((route, i) => {
    const where = (key: string): string => at(offsetOf(document, ['routes', i, key], false));
    if (route.type === 'unicast' && route.via === undefined && route.dev === undefined)
      throw new ConfigError(`${where('to')}: the route to ${route.to} needs \`via\` or \`dev\``);
    if (route.dev !== undefined && Object.keys(interfaces).length > 0 && !(route.dev in interfaces))
      throw new ConfigError(`${where('dev')}: unknown interface ${route.dev}: it isn't among \`interfaces\``);
  });
  result.data['routing-rules'].forEach((rule, i) => {
    if (rule.table !== undefined || rule.action !== undefined) return;
    const where = at(offsetOf(document, ['routing-rules', i], false));
    throw new ConfigError(`${where}: the routing rule needs \`table\` or \`action\``);
  });
  places.set(result.data, (path) => at(offsetOf(document, path, false)));
  return result.data;
}

/** "Invalid input: expected int, received string" → "must be int, not string". */
function phrase(message: string): string {
  const expected = /^Invalid input: expected (\w+), received (\w+)/.exec(message);
  if (expected) return `must be ${article(expected[1]!)}, not ${article(expected[2]!)}`;
  if (message.startsWith('Too small: expected string')) return 'must not be empty';
  const bound = /^Too (?:small|big): expected (?:number|int)(?: to (?:be|have))? (>=|<=|>|<)(.+)$/.exec(message);
  if (bound)
    return `must be ${{ '>=': 'at least', '<=': 'at most', '>': 'above', '<': 'below' }[bound[1]!]} ${bound[2]}`;
  return message;
}
const article = (type: string): string =>
  ({
    int: 'a whole number',
    number: 'a number',
    string: 'text',
    array: 'a list',
    object: 'a mapping',
    record: 'a mapping',
    boolean: 'true or false',
    null: 'nothing',
  })[type] ?? type;

/** Where in the text the value (or, with `key`, its key) at `path` stands; the nearest parent's place when it is absent. */
function offsetOf(document: Document, at: readonly PropertyKey[], key: boolean): number {
  let node: unknown = document.contents;
  let offset = 0;
  for (const [depth, step] of at.entries()) {
    if (isNode(node) && node.range) offset = node.range[0];
    if (isMap(node)) {
      const pair = node.items.find((item) => isPair(item) && isScalar(item.key) && String(item.key.value) === step);
      if (pair && isNode(pair.key) && pair.key.range) offset = pair.key.range[0];
      node = pair?.value;
      if (key && depth === at.length - 1) return offset;
    } else {
      node = isNode(node) && 'items' in node ? (node.items as unknown[])[Number(step)] : undefined;
    }
  }
  return isNode(node) && node.range ? node.range[0] : offset;
}

/** An error's text without the call that made it. */
export function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOENT':
      return 'no such file or directory';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'EISDIR':
      return 'it is a directory';
    case 'ENOSPC':
      return 'no space left on the device';
    case 'EROFS':
      return 'the file system is read-only';
    default:
      return message;
  }
}
