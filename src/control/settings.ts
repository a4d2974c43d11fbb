/**
 * What `up` is told: the command line's options first, then the configuration file's, then defaults.
 */
import { availableParallelism } from 'node:os';
import {
  type Config,
  ConfigError,
  DEFAULT_CONTROL,
  type Keep,
  loadConfig,
  parseConfig,
  parseHelpers,
  parseKeep,
  placeIn,
} from './config.js';
import type { Fanout } from './divert.js';

/** Everything that `up` is told, defaults filled in. */
export interface Settings {
  rules: string | undefined;
  device: 'nfqueue' | 'tun';
  workers: number;
  queueBase: number;
  queueLength: number;
  /** Microseconds that a worker looks for the next packet before it sleeps. */
  busyPoll: number;
  fanout: Fanout;
  control: string;
  fail: 'open' | 'closed';
  keep: Keep[];
  log: string;
  connections: number;
  helpers: string[];
  /** Connection tracking's settings by their sysctl names. */
  sysctl: Readonly<Record<string, number>>;
  interfaces: Config['interfaces'];
  /** As read, for what TUN makes of it: routes, routing rules and their places in the file. */
  config: Config;
  /** TUN: an interface to the router's own sockets. */
  local: boolean;
  /** TUN: milliseconds that an ICMP error to one destination costs; 0 = no limit. */
  icmpRatelimit: number;
}

/** @throws ConfigError */
export function settingsFrom(options: Record<string, unknown>): Settings {
  const given = options as Partial<{
    rules: string;
    config: string;
    device: 'nfqueue' | 'tun';
    workers: number;
    queueBase: number;
    queueLength: number;
    busyPoll: number;
    fanout: Fanout;
    control: string;
    fail: 'open' | 'closed';
    keep: string[];
    log: string;
    connections: number;
    helpers: string[];
  }>;
  const config: Config = given.config === undefined ? parseConfig('') : loadConfig(given.config);
  const rules = given.rules ?? config.rules;
  if (rules === undefined && given.config === undefined)
    throw new ConfigError('what rules? Give --rules FILE (iptables-save format) or --config FILE');
  const settings: Settings = {
    rules,
    device: given.device ?? config.device ?? 'nfqueue',
    workers: given.workers ?? config.workers ?? Math.max(1, Math.floor(availableParallelism() / 2)),
    queueBase: given.queueBase ?? config['queue-base'] ?? 0,
    queueLength: given.queueLength ?? config['queue-length'] ?? 4096,
    busyPoll: given.busyPoll ?? config['busy-poll'] ?? 0,
    fanout: given.fanout ?? config.fanout ?? 'hosts',
    control: given.control ?? (process.env['HUTTER_CONTROL'] || undefined) ?? config.control ?? DEFAULT_CONTROL,
    fail: given.fail ?? config.fail ?? 'closed',
    keep: (given.keep ?? config.keep ?? []).map((item) => {
      const keep = parseKeep(item);
      if (keep === undefined)
        throw new ConfigError(`--keep ${item}: neither an interface nor a service such as tcp/22`);
      return keep;
    }),
    log: given.log ?? config.log ?? '-',
    connections: given.connections ?? config.connections ?? 262_144,
    helpers: given.helpers === undefined ? (config.helpers ?? []) : parseHelpers(given.helpers),
    sysctl: config.sysctl ?? {},
    interfaces: config.interfaces,
    config,
    local: config.local ?? false,
    icmpRatelimit: config['icmp-ratelimit'] ?? 1000,
  };
  if (settings.device === 'tun') checkTun(settings);
  return settings;
}

/** What only one device has a use for: with the other one a warning each, naming the setting and its place. */
export function unusedSettings({ device, config }: Settings, given: Record<string, unknown>): string[] {
  const unused: string[] = [];
  const warn = (at: readonly PropertyKey[], why: string): void =>
    void unused.push(`${placeIn(config, at)}: \`${at.join('.')}\` means nothing with --device ${device}: ${why}`);
  if (device === 'tun') {
    for (const [option, key] of [
      ['queueBase', 'queue-base'],
      ['fanout', 'fanout'],
    ] as const)
      if (given[option] !== undefined) unused.push(`--${key} means nothing with --device tun: there are no queues`);
      else if (config[key] !== undefined) warn([key], 'there are no queues');
    return unused;
  }
  for (const key of ['local', 'icmp-ratelimit'] as const)
    if (config[key] !== undefined) warn([key], 'the kernel does that');
  for (const [name, each] of Object.entries(config.interfaces)) {
    if (each.addresses.length > 0) warn(['interfaces', name, 'addresses'], "they are the kernel's");
    for (const key of ['namespace', 'peer', 'rp-filter', 'rate'] as const)
      if (each[key] !== undefined) warn(['interfaces', name, key], "the interface is the kernel's");
  }
  for (const key of ['routes', 'routing-rules'] as const) if (config[key].length > 0) warn([key], 'the kernel routes');
  for (const name of Object.keys(config.sysctl ?? {}))
    if (!name.startsWith('nf_')) warn(['sysctl', name], "set the kernel's own");
  return unused;
}

/** What TUN needs and what it has no use for. @throws ConfigError */
function checkTun({ interfaces, fail, keep }: Settings): void {
  // `lo` has addresses, and no packets.
  if (Object.keys(interfaces).every((name) => name === 'lo'))
    throw new ConfigError(
      '--device tun makes the interfaces of the configuration: give --config FILE with `interfaces`',
    );
  if (fail === 'open')
    throw new ConfigError('--fail open means nothing with --device tun: without hutter nothing passes');
  if (keep.length > 0)
    throw new ConfigError('--keep means nothing with --device tun: no kernel takes what hutter leaves');
}
