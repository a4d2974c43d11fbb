/** The configuration file: what is read, and where errors say they are. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t from 'tap';
import { fibOf } from '../../src/control/routing.js';
import { linksOf } from '../../src/control/topology.js';
import { ConfigError, loadConfig, parseConfig, parseKeep } from '../../src/control/config.js';
import { settingsFrom, unusedSettings } from '../../src/control/settings.js';

const WHOLE = `
device: nfqueue
rules: firewall.rules
workers: 2
queue-base: 8
fanout: cpu
fail: open
keep: [lo, tcp/22, udp/53]
control: /run/x.sock
log: '-'
connections: 65536
interfaces:
  if0: { addresses: [192.168.73.1/24] }
  if1:
    addresses: [128.61.70.47/24]
    mtu: 1280
routes:
  - { to: default, via: 128.61.70.1 }
  - { to: 10.0.0.0/8, dev: if0 }
  - { to: 10.9.9.9, type: blackhole }
`;

t.test('a whole file', (t) => {
  const config = parseConfig(WHOLE);
  t.match(config, { workers: 2, 'queue-base': 8, fail: 'open', keep: ['lo', 'tcp/22', 'udp/53'] });
  t.same(config.interfaces['if0'], { addresses: ['192.168.73.1/24'], mtu: 1500 });
  t.same(config.interfaces['if1'], { addresses: ['128.61.70.47/24'], mtu: 1280 });
  t.same(config.routes[2], { to: '10.9.9.9', type: 'blackhole' });
  t.same(parseConfig(''), { interfaces: {}, routes: [], 'routing-rules': [] }, 'an empty file is no mistake');
  t.end();
});

const MISTAKES: [text: string, error: string][] = [
  ['workers: x', 'f:1:10: `workers` must be a number, not text'],
  ['workers: 0', 'f:1:10: `workers` must be at least 1'],
  ['workers: 65', 'f:1:10: `workers` must be at most 61'],
  ['queue-base: 1.5', 'f:1:13: `queue-base` must be a whole number, not a number'],
  ['wrokers: 2', 'f:1:1: unknown setting `wrokers`'],
  ['fail: maybe', 'f:1:7: `fail` is not open or closed'],
  ['keep: lo', 'f:1:7: `keep` must be a list, not text'],
  ['keep: [lo, tcp/65536]', 'f:1:12: `keep.1` is not an interface, tcp/PORT or udp/PORT (such as lo or tcp/22)'],
  ['interfaces:\n  if0:\n    adresses: []', 'f:3:5: unknown setting `adresses`'],
  [
    'interfaces:\n  if0123456789abcd: {}',
    'f:2:3: `interfaces.if0123456789abcd` is not an interface name (1 to 15 characters, no slash, colon or space)',
  ],
  [
    'interfaces: { a: { addresses: [1.2.3.4] } }',
    'f:1:32: `interfaces.a.addresses.0` is not an address with prefix length such as 192.168.73.1/24',
  ],
  [
    'interfaces: { a: { addresses: [1.2.3.400/24] } }',
    'f:1:32: `interfaces.a.addresses.0` is not an address with prefix length such as 192.168.73.1/24',
  ],
  ['interfaces: { a: { mtu: 67 } }', 'f:1:25: `interfaces.a.mtu` is below 68, the least MTU of IPv4 (RFC 791)'],
  [
    'routes:\n  - { to: default, type: nat }',
    'f:2:26: `routes.0.type` is not a type of route (unicast, local, broadcast, blackhole, unreachable, prohibit, throw)',
  ],
  [
    'routes:\n  - { to: 1.0.0.0/8, dev: a, tos: 1 }',
    'f:2:35: `routes.0.tos` has other bits than 0x1c, which no route looks at',
  ],
  [
    'routes:\n  - { to: 1.0.0.0/8, dev: a, table: x }',
    'f:2:37: `routes.0.table` is not a routing table (main, default, local or a number)',
  ],
  ['routing-rules:\n  - { from: all }', 'f:2:5: the routing rule needs `table` or `action`'],
  ['routing-rules:\n  - { table: 5, mark: x }', 'f:2:23: `routing-rules.0.mark` is not a mark such as 5 or 0x5/0xff'],
  [
    'routing-rules:\n  - { table: 5, dport: 9-1 }',
    'f:2:24: `routing-rules.0.dport` is not a port or a range such as 1000-2000',
  ],
  ['routes:\n  - to: default', 'f:2:9: the route to default needs `via` or `dev`'],
  [
    'interfaces: { a: {} }\nroutes:\n  - { to: default, dev: b }',
    "f:3:25: unknown interface b: it isn't among `interfaces`",
  ],
  [
    'helpers: [ftp, ftp:0]',
    'f:1:16: `helpers.1` is not a connection helper (ftp, tftp, irc, netbios-ns, snmp, amanda, sane, pptp, sip), with or without a port as in ftp:2121',
  ],
  [
    'helpers: [ftp:65536]',
    'f:1:11: `helpers.0` is not a connection helper (ftp, tftp, irc, netbios-ns, snmp, amanda, sane, pptp, sip), with or without a port as in ftp:2121',
  ],
  ["rules: ''", 'f:1:8: `rules` must not be empty'],
  ['interfaces: [a]', 'f:1:13: `interfaces` must be a mapping, not a list'],
  ['interfaces:\n  a:\n', 'f:2:5: `interfaces.a` must be a mapping, not nothing'],
  ['local: maybe', 'f:1:8: `local` must be true or false, not text'],
  [
    'sysctl: { nf_conntrack_udp_timeouts: 3 }',
    "f:1:38: `sysctl.nf_conntrack_udp_timeouts` can't be set: no such setting",
  ],
  [
    'sysctl: { nf_conntrack_udp_timeout: 1.5 }',
    "f:1:37: `sysctl.nf_conntrack_udp_timeout` can't be set: 1.5 is no integer between 0 and 2000000",
  ],
  ['sysctl: { nf_conntrack_max: 9 }', "f:1:29: `sysctl.nf_conntrack_max` can't be set: that is `connections`"],
  ['- 1', 'f:1:1: the configuration must be a mapping, not a list'],
  ['a: 1\na: 2', 'f:2:1: Map keys must be unique'],
];

for (const [text, error] of MISTAKES)
  t.test(`refused: ${text.replaceAll('\n', ' | ')}`, (t) => {
    t.throws(() => parseConfig(text, 'f'), new ConfigError(error));
    t.end();
  });

t.test('every mistake is told, not only the first', (t) => {
  t.throws(() => parseConfig('workers: x\nfail: y', 'f'), { message: /^f:1:10: .*\nf:2:7: / });
  t.end();
});

t.test('broken YAML names its place', (t) => {
  t.throws(() => parseConfig('a: [', 'f'), { name: 'ConfigError', message: /^f:1:\d+: / });
  t.end();
});

t.test('keep items', (t) => {
  t.same(parseKeep('lo'), { interface: 'lo' });
  t.same(parseKeep('tcp/22'), { protocol: 'tcp', port: 22 });
  t.same(parseKeep('udp/65535'), { protocol: 'udp', port: 65535 });
  for (const item of ['', 'tcp/0', 'tcp/65536', 'icmp/1', 'a b', '..', 'x'.repeat(16)])
    t.equal(parseKeep(item), undefined, item);
  t.end();
});

t.test('settings: the command line wins over the file, the file over defaults', (t) => {
  const dir = mkdtempSync(path.join(tmpdir(), 'hutter-config-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const file = path.join(dir, 'hutter.yaml');
  writeFileSync(file, WHOLE);
  const settings = settingsFrom({ config: file, workers: 3, keep: ['eth9'] });
  t.match(settings, { workers: 3, queueBase: 8, fail: 'open', connections: 65536, queueLength: 4096, fanout: 'cpu' });
  t.same(settings.keep, [{ interface: 'eth9' }]);
  t.equal(settings.rules, path.join(dir, 'firewall.rules'), 'a path in the file is from where the file is');
  t.equal(settingsFrom({ config: file, rules: 'other' }).rules, 'other');
  t.throws(() => settingsFrom({}), { name: 'ConfigError', message: /^what rules\?/ });
  const loopback = path.join(dir, 'lo.yaml');
  writeFileSync(loopback, 'device: tun\ninterfaces:\n  lo: {}\n');
  t.throws(() => settingsFrom({ config: loopback }), { message: /^--device tun makes the interfaces of / });
  t.throws(() => settingsFrom({ rules: 'x', keep: ['tcp/0'] }), { message: /^--keep tcp\/0: / });
  t.throws(() => loadConfig(path.join(dir, 'none')), { message: `can't read ${dir}/none: no such file or directory` });
  t.throws(() => loadConfig(dir), { message: `can't read ${dir}: it is a directory` });
  t.end();
});

t.test('what only the other device has a use for is named, with its place', (t) => {
  const dir = mkdtempSync(path.join(tmpdir(), 'hutter-config-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const file = path.join(dir, 'f');
  const unused = (text: string, options: Record<string, unknown> = {}): string[] => {
    writeFileSync(file, text);
    const given = { config: file, ...options };
    return unusedSettings(settingsFrom(given), given).map((line) => line.replace(`${dir}/`, ''));
  };
  const ports =
    'interfaces:\n  if0: { addresses: [10.0.0.1/24], namespace: x, peer: {}, rp-filter: strict, rate: 5 }\n';
  const more =
    'local: true\nicmp-ratelimit: 5\nroutes: [{ to: default, via: 10.0.0.2 }]\nsysctl: { ipfrag_max_dist: 5 }\n';
  const why = (setting: string): RegExp => new RegExp(`\`${setting}\` means nothing with --device nfqueue: `);
  t.match(unused(ports + more), [
    /^f:3:8: /,
    why('icmp-ratelimit'),
    /^f:2:21: `interfaces\.if0\.addresses` means nothing with --device nfqueue: they are the kernel's$/,
    why('interfaces\\.if0\\.namespace'),
    why('interfaces\\.if0\\.peer'),
    why('interfaces\\.if0\\.rp-filter'),
    why('interfaces\\.if0\\.rate'),
    why('routes'),
    why('sysctl\\.ipfrag_max_dist'),
  ]);
  t.same(unused(ports + more, { device: 'tun' }), []);
  t.same(unused(`device: tun\n${ports}queue-base: 5\n`, { fanout: 'cpu' }), [
    'f:4:13: `queue-base` means nothing with --device tun: there are no queues',
    '--fanout means nothing with --device tun: there are no queues',
  ]);
  t.same(unused('interfaces: { if0: {} }\nqueue-base: 5\nfanout: cpu\nsysctl: { nf_conntrack_checksum: 0 }\n'), []);
  t.end();
});

t.test('routes and rules that the tables refuse: named with line and column', (t) => {
  const refused = (text: string, message: string): void => {
    const config = parseConfig(`interfaces:\n  if0: { addresses: [10.0.0.1/24] }\n${text}`, 'f');
    t.throws(() => fibOf(config, linksOf(config)), new ConfigError(message));
  };
  refused('routes:\n  - { to: default, via: 9.9.9.9 }', 'f:4:11: the route to default: Nexthop has invalid gateway');
  refused(
    'routes:\n  - { to: 1.2.3.4/8, dev: if0 }',
    'f:4:11: the route to 1.2.3.4/8: its address has bits below the prefix',
  );
  refused(
    'routes:\n  - { to: 1.0.0.0/8, dev: if0 }\n  - { to: 1.0.0.0/8, dev: if0 }',
    'f:5:11: the route to 1.0.0.0/8: File exists',
  );
  const config = parseConfig(
    'interfaces: { if0: { addresses: [10.0.0.1/24] } }\nroutes:\n  - { to: default, via: 10.0.0.2, table: 7, metric: 3, mtu: 1280, src: 10.0.0.1 }\nrouting-rules:\n  - { from: 10.9.0.0/16, mark: 0x5/0xff, table: 7 }\n  - { priority: 9, proto: tcp, dport: 25, action: prohibit }',
  );
  const fib = fibOf(config, linksOf(config));
  t.match([...fib.routes(7)], [{ dst: 0, metric: 3, mtu: 1280, source: 0x0a000001, oif: 2 }]);
  t.same(
    fib.rules.map(({ priority }) => priority),
    [0, 9, 32764, 32766, 32767],
  );
  t.match(fib.rules[2], { mark: 5, markMask: 0xff, srcLength: 16, table: 7 });
  t.end();
});
