/** The configuration file: what is read, and where errors say they are. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t from 'tap';
import { ConfigError, loadConfig, parseConfig, parseKeep } from '../../src/control/config.js';
import { settingsFrom } from '../../src/control/settings.js';

const WHOLE = `
device: nfqueue
rules: firewall.rules
workers: 2
queue-base: 8
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
  t.same(parseConfig(''), { interfaces: {}, routes: [] }, 'an empty file is no mistake');
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
  ['routes:\n  - to: default', 'f:2:9: the route to default needs `via` or `dev`'],
  [
    'interfaces: { a: {} }\nroutes:\n  - { to: default, dev: b }',
    "f:3:25: unknown interface b: it isn't among `interfaces`",
  ],
  [
    'helpers: [ftp, ftp:0]',
    'f:1:16: `helpers.1` is not a connection helper (ftp, tftp, irc), with or without a port as in ftp:2121',
  ],
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
  t.match(settings, { workers: 3, queueBase: 8, fail: 'open', connections: 65536, queueLength: 4096 });
  t.same(settings.keep, [{ interface: 'eth9' }]);
  t.equal(settings.rules, path.join(dir, 'firewall.rules'), 'a path in the file is from where the file is');
  t.equal(settingsFrom({ config: file, rules: 'other' }).rules, 'other');
  t.throws(() => settingsFrom({}), { name: 'ConfigError', message: /^what rules\?/ });
  t.throws(() => settingsFrom({ rules: 'x', keep: ['tcp/0'] }), { message: /^--keep tcp\/0: / });
  t.throws(() => loadConfig(path.join(dir, 'none')), { message: `can't read ${dir}/none: no such file or directory` });
  t.throws(() => loadConfig(dir), { message: `can't read ${dir}: it is a directory` });
  t.end();
});
