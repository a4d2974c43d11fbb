/**
 * Random rulesets over all that hutter evaluates. A generator stands here for every match and target; those whose record
 * can't be compiled yet are left out, and `missing` names the records that have no generator. What depends on the clock
 * is set so that no deadline comes near; addresses and ports are those of traffic.ts.
 */
import { allExtensions, matchNamed, targetNamed } from '../../src/control/ext/registry.js';
import type { Random } from './random.js';
import type { CommandEvent } from './scenario.js';

type Proto = 'tcp' | 'udp' | 'icmp' | '50' | '51' | '132' | '33' | '108' | '';
/** What a rule may say, by where it stands. */
interface Place {
  table: string;
  /** '' in a chain of the user's. */
  chain: string;
  proto: Proto;
  /** A CT target stands before it. */
  template: boolean;
}
type Make = (r: Random, place: Place) => string;

export const ADDRESSES = [
  '10.1.0.2',
  '10.1.0.3',
  '10.2.0.2',
  '198.51.100.10',
  '198.51.100.11',
  '203.0.113.5',
  '198.51.100.1',
  '10.1.0.1',
];
const NETWORKS = [
  '10.1.0.0/24',
  '10.1.0.2/31',
  '198.51.100.0/24',
  '10.0.0.0/8',
  '203.0.113.0/24',
  '0.0.0.2/0.0.0.255',
  '10.2.0.0/16',
];
const PORTS = [
  '21',
  '22',
  '53',
  '80',
  '113',
  '443',
  '8080',
  '20000',
  '20001',
  '20000:20001',
  '1024:',
  ':1023',
  '20:80',
];
const STATES = ['NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED', 'SNAT', 'DNAT'];
const FLAGS = ['SYN', 'ACK', 'FIN', 'RST', 'URG', 'PSH'];
const MARKS = ['0x1', '0x2', '0x3', '0x10/0x30', '0x2/0x3', '0x0/0x1'];
const ICMP_TYPES = [
  'echo-request',
  'echo-reply',
  'destination-unreachable',
  'port-unreachable',
  'fragmentation-needed',
  'time-exceeded',
  '8/0',
  'any',
  '3/1',
];

const not = (r: Random): string => (r.once(4) ? '! ' : '');
const address = (r: Random): string => (r.once(2) ? r.pick(...ADDRESSES) : r.pick(...NETWORKS));
const port = (r: Random): string => r.pick(...PORTS);
const range = (r: Random): string => r.pick('20000:20001', '80', '21', '1:1023', '1024:65535');

const MATCHES: Record<string, Make> = {
  comment: (r) => `--comment "${r.pick('a', 'b c', 'x"y').replaceAll('"', "'")}"`,
  tcp: (r) =>
    r.pick(
      () => `${not(r)}--dport ${port(r)}`,
      () => `${not(r)}--sport ${port(r)}`,
      () => `${not(r)}--syn`,
      () => `${not(r)}--tcp-flags ${r.some(FLAGS).join(',')} ${r.once(5) ? 'NONE' : r.some(FLAGS, 2).join(',')}`,
      () => `${not(r)}--tcp-option ${r.pick(2, 3, 4, 8)}`,
      () => `--sport ${port(r)} ${not(r)}--dport ${port(r)}`,
    )(),
  udp: (r) =>
    r.pick(
      () => `${not(r)}--dport ${port(r)}`,
      () => `${not(r)}--sport ${port(r)}`,
    )(),
  icmp: (r) => `${not(r)}--icmp-type ${r.pick(...ICMP_TYPES)}`,
  multiport: (r) =>
    `${not(r)}--${r.pick('ports', 'sports', 'dports')} ${r.some(['21', '22', '53', '80', '443', '20000:20001', '1024:65535'], 4).join(',')}`,
  state: (r) => `${not(r)}--state ${r.some(STATES.slice(0, 5), 2).join(',')}`,
  conntrack: (r) =>
    r
      .some(
        [
          () => `${not(r)}--ctstate ${r.some(STATES, 3).join(',')}`,
          () => `${not(r)}--ctproto ${r.pick('tcp', 'udp', 'icmp')}`,
          () => `${not(r)}--ctorigsrc ${address(r)}`,
          () => `${not(r)}--ctorigdst ${address(r)}`,
          () => `${not(r)}--ctreplsrc ${address(r)}`,
          () => `${not(r)}--ctrepldst ${address(r)}`,
          () => `${not(r)}--ctorigsrcport ${range(r)}`,
          () => `${not(r)}--ctorigdstport ${range(r)}`,
          () => `${not(r)}--ctreplsrcport ${range(r)}`,
          () =>
            `${not(r)}--ctstatus ${r.once(5) ? 'NONE' : r.some(['EXPECTED', 'SEEN_REPLY', 'ASSURED', 'CONFIRMED'], 2).join(',')}`,
          () => `${not(r)}--ctexpire ${r.pick('0:5', '15:60', '100:125', '200:310', '1000:500000', '0')}`,
          () => `${not(r)}--ctrepldstport ${range(r)}`,
          () => `--ctdir ${r.pick('ORIGINAL', 'REPLY')}`,
        ],
        2,
      )
      .map((make) => make())
      .join(' '),
  mark: (r) => `${not(r)}--mark ${r.pick(...MARKS)}`,
  connmark: (r) => `${not(r)}--mark ${r.pick(...MARKS)}`,
  // A rate times its burst has to fit the kernel's 32 bits.
  limit: (r) => `--limit ${r.pick('1/hour', '2/hour', '20/day')} --limit-burst ${r.pick(1, 2, 3, 5)}`,
  hashlimit: (r) =>
    `--hashlimit-${r.pick('upto', 'above')} ${r.pick('1/hour --hashlimit-burst 1', '1/hour --hashlimit-burst 3', '2/hour', '1/day --hashlimit-burst 1', '16b/s --hashlimit-burst 300b')}${r.once(5) ? '' : ` --hashlimit-mode ${r.some(['srcip', 'dstip', 'srcport', 'dstport']).join(',')}`} --hashlimit-name h${r.below(1e6)}${r.pick('', '', ' --hashlimit-srcmask 24', ' --hashlimit-dstmask 16', ' --hashlimit-srcmask 0', ' --hashlimit-htable-size 8', ' --hashlimit-htable-max 3')}`,
  recent: (r) =>
    r.pick(
      () => `${not(r)}--set`,
      () => `${not(r)}--remove`,
      () =>
        `${not(r)}--${r.pick('rcheck', 'update')}${r.pick('', ' --seconds 1000', ' --seconds 1000 --reap')}${r.pick('', ' --hitcount 2', ' --hitcount 4', ' --hitcount 33')}${r.pick('', '', ' --rttl')}`,
    )() +
    `${r.pick(' --name A', ' --name B', ' --name B', '')}${r.pick('', '', ' --rdest', ' --mask 255.255.255.0', ' --rdest --mask 255.255.0.0')}`,
  // Packets of assured connections: docs/DIFFERENCES.md.
  connlimit: (r) =>
    `--connlimit-${r.pick('upto', 'above')} ${r.pick(0, 1, 2, 3)} --connlimit-mask ${r.pick(32, 24, 0)} --connlimit-${r.pick('saddr', 'daddr')}`,
  length: (r) => `${not(r)}--length ${r.pick('40', '28:60', ':100', '576:', '20:40')}`,
  ttl: (r) => `--ttl-${r.pick('eq 64', 'eq 63', 'lt 10', 'gt 62', 'gt 63')}`,
  tos: (r) => `${not(r)}--tos ${r.pick('0x10', '0x00/0x3f', '0x02/0x02', '0x08')}`,
  dscp: (r) => `${not(r)}--dscp ${r.pick('0x00', '0x04', '0x2e')}`,
  ecn: (r, { proto }) =>
    proto === 'tcp' && r.once(2) ? `${not(r)}--ecn-tcp-${r.pick('cwr', 'ece')}` : `${not(r)}--ecn-ip-ect ${r.below(4)}`,
  iprange: (r) =>
    `${not(r)}--${r.pick('src', 'dst')}-range ${r.pick('10.1.0.2-10.1.0.3', '10.0.0.0-10.255.255.255', '198.51.100.10-203.0.113.5')}`,
  mac: (r) => `${not(r)}--mac-source 02:00:00:00:01:0${1 + r.below(3)}`,
  addrtype: (r, { chain }) =>
    `${not(r)}--${r.pick('src', 'dst')}-type ${r.some(['LOCAL', 'UNICAST', 'BROADCAST', 'MULTICAST', 'BLACKHOLE'], 2).join(',')}` +
    (chain === 'PREROUTING' || chain === 'INPUT'
      ? r.pick('', '', ' --limit-iface-in')
      : chain === 'FORWARD' || chain === 'POSTROUTING'
        ? r.pick('', '', ' --limit-iface-out')
        : ''),
  pkttype: (r) => `${not(r)}--pkt-type ${r.pick('unicast', 'broadcast', 'multicast')}`,
  statistic: (r) => `--mode nth ${not(r)}--every ${2 + r.below(4)} --packet ${r.below(2)}`,
  string: (r) =>
    `--algo ${r.pick('bm', 'kmp')} ${not(r)}--string "${r.pick('GET', 'PORT', 'xy', 'aaa')}"${r.pick('', ' --from 40', ' --to 60', ' --icase', ' --from 20 --to 45', ' --from 1400', ' --icase --to 41')}`,
  u32: (r) =>
    `${not(r)}--u32 "${r.pick('6&0xFF=6', '6&0xFF=1:17', '0>>22&0x3C@0>>16=20000:20005', '4&0x3FFF=0', '8>>24=1:63', '0>>22&0x3C@12>>26&0x3C@0=0x47455420,0x78', '0>>22&0x3C@4=1000:9000 && 0&0xFFFF=40:1500', '60=0:0xFFFFFFFF', '3&0xFF<<2>>1=0:0x40')}"`,
  tcpmss: (r) => `${not(r)}--mss ${r.pick('536:1460', '1460', '0:1000')}`,
  connbytes: (r) =>
    `${not(r)}--connbytes ${r.pick('0:3', '2:', '100:1000', ':4', '3')} --connbytes-dir ${r.pick('original', 'reply', 'both')} --connbytes-mode ${r.pick('packets', 'bytes', 'avgpkt')}`,
  helper: (r) => `${not(r)}--helper ${r.pick('ftp', 'ftp', 'tftp', 'irc', 'sip', '""')}`,
  time: (r) =>
    `${r.pick('--timestart 00:00 --timestop 23:59:59', '--datestart 2035-01-01', '--datestop 2020-01-01', `${not(r)}--weekdays Mon,Tue,Wed,Thu,Fri,Sat,Sun`, `${not(r)}--weekdays Mon,Wed`, `${not(r)}--monthdays 1,5,28,29,30`, '--timestart 00:00 --timestop 23:59:59 --kerneltz', '--timestart 23:59:59 --timestop 00:00 --contiguous', '--datestart 2020-01-01 --datestop 2035-01-01T00:00:01')}`,
  rpfilter: (r) =>
    r.pick('', '--loose', '--invert', '--validmark', '--accept-local', '--loose --invert --accept-local'),
  quota: (r) => `${not(r)}--quota ${r.pick(100, 400, 2000)}`,
  ah: (r) => r.pick(`${not(r)}--ahspi ${r.pick('1', '0:100', '256:')}`, ''),
  esp: (r) => r.pick(`${not(r)}--espspi ${r.pick('1', '0:100', '256:')}`, ''),
  sctp: (r) =>
    r.pick(
      () => `${not(r)}--dport ${port(r)}`,
      () => `${not(r)}--sport ${port(r)}`,
      () =>
        `${not(r)}--chunk-types ${r.pick('all', 'any', 'only')} ${r.some(['DATA', 'DATA:BE', 'DATA:b', 'INIT', 'INIT_ACK', 'ABORT', 'SACK'], 2).join(',')}`,
      () => `--chunk-types ${r.pick('all', 'any', 'only')} ${r.pick('ALL', 'NONE')}`,
    )(),
  dccp: (r) =>
    r.pick(
      () => `${not(r)}--dport ${port(r)}`,
      () => `${not(r)}--dccp-types ${r.some(['REQUEST', 'RESPONSE', 'DATA', 'ACK', 'INVALID'], 2).join(',')}`,
      () => `${not(r)}--dccp-option ${r.pick(1, 2, 5)}`,
    )(),
  // Programs of the far ends are nobody's here; raw sockets belong to users 0 and 1000 (wire.c).
  owner: (r) =>
    r.pick(
      () => `${not(r)}--uid-owner ${r.pick('0', '1000', '1-2000', '0-65534')}`,
      () => `${not(r)}--gid-owner ${r.pick('0', '1000', '500-1000')}`,
      () => `${not(r)}--socket-exists`,
    )(),
  cluster: (r) =>
    `--cluster-total-nodes ${r.pick(2, 3)} ${not(r)}--cluster-local-node ${1 + r.below(2)} --cluster-hash-seed ${r.below(1 << 30)}`,
  connlabel: (r) => `${not(r)}--label ${r.below(4)}${r.pick('', ' --set')}`,
  // TCP; longer than 100 bytes; the first 16 bits behind the header between 20000 and 20005; a TTL by way of the memory.
  bpf: (r) =>
    `--bytecode "${r.pick(
      '4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0',
      '4,128 0 0 0,37 0 1 100,6 0 0 1,6 0 0 0',
      '6,177 0 0 0,72 0 0 0,53 0 2 20000,37 1 0 20005,6 0 0 65535,6 0 0 0',
      '7,48 0 0 8,2 0 0 3,0 0 0 60,97 0 0 3,60 0 0 0,22 0 0 0,6 0 0 0',
    )}"`,
  physdev: (r) => r.pick('! --physdev-in br0p1', '--physdev-is-in', '! --physdev-is-in', '--physdev-in br+'),
  ipcomp: (r) => `${not(r)}--ipcompspi ${r.pick('1', '0:100')}`,
};

/** Which protocol a match asks for. */
const NEEDS: Record<string, Proto[]> = {
  tcp: ['tcp'],
  udp: ['udp'],
  icmp: ['icmp'],
  multiport: ['tcp', 'udp', '132'],
  tcpmss: ['tcp'],
  // Of TCP, and of errors about it, the kernel forgets the closed ones by accident of time (docs/DIFFERENCES.md).
  connlimit: ['tcp', 'udp'],
  ah: ['51'],
  esp: ['50'],
  sctp: ['132'],
  dccp: ['33'],
  ipcomp: ['108'],
};
/** Behind -j CT the rest of raw has an empty connection before it (docs/DIFFERENCES.md). */
const ASKS_CONNECTION = new Set(['conntrack', 'connmark', 'connbytes', 'connlabel', 'helper', 'cluster']);
const ONLY_TABLE: Record<string, string> = { rpfilter: 'raw mangle' };
const ONLY_CHAINS: Record<string, string[]> = {
  mac: ['PREROUTING', 'INPUT', 'FORWARD'],
  owner: ['OUTPUT', 'POSTROUTING'],
  rpfilter: ['PREROUTING'],
};
/** Not the judge's: nothing here carries it, or what it asks for differs between the two sides by construction. */
const ELSEWHERE = new Set([
  'policy',
  'cgroup',
  'socket',
  'set',
  'rateest',
  'nfacct',
  'realm',
  'cpu',
  'devgroup',
  'osf',
  'ipvs',
  'l2tp',
  'TEE',
  'AUDIT',
  'CONNSECMARK',
  'SECMARK',
  'IDLETIMER',
  'LED',
  'RATEEST',
  'SET',
  'SYNPROXY',
  'TPROXY',
  'CLUSTERIP',
  'ULOG',
]);

/** A queue and a group that nobody listens to. */
const NOBODYS = 4000;
const NAT_PORTS = '40000-40003';
const TARGETS: Record<string, { tables: string[]; chains?: string[]; make: Make }> = {
  LOG: { tables: ['raw', 'mangle', 'filter'], make: () => '' },
  NFLOG: { tables: ['raw', 'mangle', 'filter'], make: () => `--nflog-group ${NOBODYS}` },
  NFQUEUE: {
    tables: ['raw', 'mangle', 'filter'],
    make: (r) => `--queue-num ${NOBODYS}${r.once(4) ? '' : ' --queue-bypass'}`,
  },
  TRACE: { tables: ['raw'], make: () => '' },
  CLASSIFY: {
    tables: ['mangle'],
    chains: ['FORWARD', 'OUTPUT', 'POSTROUTING'],
    make: (r) => `--set-class ${r.pick('1:2', '0:3', 'ffff:1')}`,
  },
  // Sums are whole on these wires: it counts, and does nothing.
  CHECKSUM: { tables: ['mangle'], make: () => '--checksum-fill' },
  MARK: {
    tables: ['mangle'],
    make: (r) => r.pick('--set-mark 1', '--set-xmark 0x2/0x3', '--or-mark 0x10', '--and-mark 0xf', '--xor-mark 0x1'),
  },
  CONNMARK: {
    tables: ['mangle'],
    make: (r) =>
      r.pick(
        '--set-mark 1',
        '--save-mark',
        '--restore-mark',
        '--set-xmark 0x2/0x3',
        '--save-mark --nfmask 0x3 --ctmask 0x13',
        '--restore-mark --mask 0x1',
        '--set-xmark 0x1/0x1 --left-shift-mark 2',
        '--and-mark 0xe',
        '--or-mark 4',
        '--xor-mark 3',
      ),
  },
  TOS: {
    tables: ['mangle'],
    make: (r) => `--${r.pick('set-tos 0x10', 'set-tos 0x08/0x1e', 'and-tos 0xf0', 'or-tos 0x04', 'xor-tos 0x0c')}`,
  },
  DSCP: {
    tables: ['mangle'],
    make: (r) => r.pick('--set-dscp 0x04', '--set-dscp 0x2e', '--set-dscp 0', '--set-dscp-class AF21'),
  },
  ECN: { tables: ['mangle'], make: () => '--ecn-tcp-remove' },
  TTL: { tables: ['mangle'], make: (r) => `--ttl-${r.pick('set 20', 'dec 1', 'inc 1', 'set 64')}` },
  TCPMSS: {
    tables: ['mangle'],
    chains: ['FORWARD', 'POSTROUTING', 'OUTPUT'],
    make: (r) => r.pick('--set-mss 1000', '--clamp-mss-to-pmtu'),
  },
  TCPOPTSTRIP: {
    tables: ['mangle'],
    make: (r) => `--strip-options ${r.pick('wscale', 'sack-permitted', 'timestamp', '2')}`,
  },
  REJECT: {
    tables: ['filter'],
    make: (r, { proto }) =>
      proto === 'tcp' && r.once(2)
        ? '--reject-with tcp-reset'
        : `--reject-with icmp-${r.pick('net-unreachable', 'host-unreachable', 'port-unreachable', 'proto-unreachable', 'net-prohibited', 'port-unreachable', 'admin-prohibited', 'host-prohibited', 'admin-prohibited')}`,
  },
  SNAT: {
    tables: ['nat'],
    chains: ['POSTROUTING', 'INPUT'],
    make: (r, { proto }) => {
      const to = r.pick('198.51.100.2', '198.51.100.1', '198.51.100.20-198.51.100.23', '10.2.0.1');
      const ports = (proto === 'tcp' || proto === 'udp') && r.once(3) ? `:${NAT_PORTS}` : '';
      return `--to-source ${to}${ports}${r.pick('', '', '', ' --random', ' --random-fully', ' --persistent')}`;
    },
  },
  MASQUERADE: {
    tables: ['nat'],
    chains: ['POSTROUTING'],
    make: (r, { proto }) =>
      (proto === 'tcp' || proto === 'udp') && r.once(3)
        ? `--to-ports ${NAT_PORTS}`
        : r.pick('', '', '--random', '--random-fully'),
  },
  DNAT: {
    tables: ['nat'],
    chains: ['PREROUTING', 'OUTPUT'],
    make: (r, { proto }) => {
      const to = r.pick('10.2.0.2', '10.1.0.3', '10.2.0.2-10.2.0.4', '198.51.100.10', '10.1.0.2');
      const ports = proto === 'tcp' || proto === 'udp' ? r.pick('', ':80', ':8080', ':8000-8003', ':21') : '';
      return `--to-destination ${to}${ports}${r.pick('', '', ' --persistent')}`;
    },
  },
  REDIRECT: {
    tables: ['nat'],
    chains: ['PREROUTING', 'OUTPUT'],
    make: (r, { proto }) =>
      proto === 'tcp' || proto === 'udp'
        ? r.pick('', '--to-ports 8080', '--to-ports 8000-8003', '--to-ports 8000-8003 --random', '--random')
        : '',
  },
  NETMAP: { tables: ['nat'], make: (r) => `--to ${r.pick('10.2.0.0/24', '198.51.100.0/30', '10.1.0.0/29')}` },
  NOTRACK: { tables: ['raw'], make: () => '' },
  CT: {
    tables: ['raw'],
    make: (r, { proto, chain }) =>
      r.pick(
        '--notrack',
        // The kernel's own errors about what is in a zone: docs/DIFFERENCES.md.
        chain === 'PREROUTING' && (proto === 'tcp' || proto === 'udp')
          ? `--zone${r.pick('', '', '-orig', '-reply')} ${1 + r.below(2)}`
          : '--notrack',
        '--ctevents new,destroy',
        proto === 'tcp' ? '--helper ftp' : '',
      ),
  },
  HMARK: {
    tables: ['mangle'],
    make: (r) =>
      `--hmark-tuple ${r.some(['src', 'dst', 'sport', 'dport']).join(',')} --hmark-mod ${r.pick(2, 8)} --hmark-offset ${r.pick(1, 16)} --hmark-rnd ${r.pick('0xfeedbeef', '0x1')}`,
  },
};

const usable = (name: string, kind: 'match' | 'target'): boolean => {
  const record = kind === 'match' ? matchNamed(name) : targetNamed(name);
  const real =
    record?.realName === undefined
      ? record
      : kind === 'match'
        ? matchNamed(record.realName)
        : targetNamed(record.realName);
  return real?.compile !== undefined;
};
const matchNames = Object.keys(MATCHES).filter((name) => !ELSEWHERE.has(name) && usable(name, 'match'));
const targetNames = Object.keys(TARGETS).filter((name) => !ELSEWHERE.has(name) && usable(name, 'target'));

/** Matches and targets in use. */
export const covered = (): string[] => [...matchNames, ...targetNames];
/** Records that can be compiled, that no generator knows and nobody has excused. */
export const missing = (): string[] =>
  allExtensions()
    .filter(({ kind, name }) => usable(name, kind) && !ELSEWHERE.has(name))
    .map(({ name, kind }) => ({ name, known: kind === 'match' ? name in MATCHES : name in TARGETS }))
    .flatMap(({ name, known }) => (known ? [] : [name]));

const CHAINS: Record<string, string[]> = {
  raw: ['PREROUTING', 'OUTPUT'],
  mangle: ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'],
  filter: ['INPUT', 'FORWARD', 'OUTPUT'],
};
const HAS_IN = new Set(['PREROUTING', 'INPUT', 'FORWARD']);
const HAS_OUT = new Set(['FORWARD', 'OUTPUT', 'POSTROUTING']);

function matches(r: Random, place: Place): string {
  const words: string[] = [];
  if (HAS_IN.has(place.chain) && r.once(6)) words.push(`${not(r)}-i ${r.pick('if0', 'if1', 'if2', 'if+')}`);
  if (HAS_OUT.has(place.chain) && r.once(6)) words.push(`${not(r)}-o ${r.pick('if0', 'if1', 'if2')}`);
  if (r.once(5)) words.push(`${not(r)}-s ${address(r)}`);
  if (r.once(5)) words.push(`${not(r)}-d ${address(r)}`);
  if (place.proto !== '') words.push(`-p ${place.proto}`);
  else {
    if (r.once(12)) words.push(`! -p ${r.pick('tcp', 'udp', 'icmp', '47')}`);
    if (r.once(12)) words.push(`${not(r)}-f`);
  }
  const legal = matchNames.filter(
    (name) =>
      !(place.template && ASKS_CONNECTION.has(name)) &&
      (NEEDS[name]?.includes(place.proto) ?? true) &&
      (ONLY_TABLE[name]?.includes(place.table) ?? true) &&
      (ONLY_CHAINS[name]?.includes(place.chain) ?? true),
  );
  const wanted = r.pick(0, 0, 1, 1, 1, 1, 2, 2);
  const names = new Set<string>();
  while (names.size < wanted) names.add(place.proto in MATCHES && r.once(3) ? place.proto : r.pick(...legal));
  // With connlimit packets have to keep jiffies apart: seldom.
  if (names.has('connlimit') && !r.once(4)) names.delete('connlimit');
  for (const name of names) words.push(`-m ${name} ${MATCHES[name]!(r, place)}`.trimEnd());
  return words.join(' ');
}

function target(r: Random, place: Place, users: string[]): string {
  const legal = targetNames.filter((name) => {
    const { tables, chains } = TARGETS[name]!;
    if (name === 'NETMAP' && place.chain === '') return false;
    if (/^(ECN|TCPMSS|TCPOPTSTRIP)$/.test(name) && place.proto !== 'tcp') return false;
    return (
      tables.includes(place.table) && (chains === undefined || (place.chain !== '' && chains.includes(place.chain)))
    );
  });
  const kind = r.below(20);
  if (legal.length > 0 && kind < (place.table === 'filter' ? 5 : 13)) {
    const name = r.pick(...legal);
    return `-j ${name} ${TARGETS[name]!.make(r, place)}`.trimEnd();
  }
  if (kind < 14) return '';
  if (kind < 17 && users.length > 0) return `-${r.pick('j', 'j', 'g')} ${r.pick(...users)}`;
  if (kind === 17) return place.table === 'nat' ? '-j RETURN' : r.pick('-j DROP', '-j RETURN');
  return '-j ACCEPT';
}

const HELPED = [
  ['tcp', 21, 'ftp'],
  ['udp', 69, 'tftp'],
  ['tcp', 6667, 'irc'],
  ['udp', 10_080, 'amanda'],
  ['udp', 5060, 'sip'],
  ['tcp', 5060, 'sip'],
] as const;

/** A ruleset in iptables-restore's format. */
export function makeRules(r: Random): string {
  let text = '';
  for (const table of Object.keys(CHAINS)) {
    if (table === 'raw' ? !r.once(2) : r.once(5)) continue;
    const users = r.once(2) ? ['u1', 'u2', 'u3', 'u4'].slice(0, 1 + r.below(4)) : [];
    text += `*${table}\n`;
    for (const chain of CHAINS[table]!)
      text += `:${chain} ${table === 'filter' && r.once(7) ? 'DROP' : 'ACCEPT'} [0:0]\n`;
    for (const user of users) text += `:${user} - [0:0]\n`;
    const rule = (chain: string, builtin: boolean, callable: string[]): string => {
      const proto = r.once(12)
        ? r.pick<Proto>('50', '51', '132', '33')
        : r.pick<Proto>('tcp', 'tcp', 'udp', 'icmp', '', '', '');
      const place = { table, chain: builtin ? chain : '', proto, template: /-j CT/.test(text) && table === 'raw' };
      let how = target(r, place, callable);
      let what = matches(r, place);
      // The kernel wants to see that only SYN packets come to it.
      if (/TCPMSS/.test(how)) what += r.once(2) ? ' -m tcp --syn' : ' -m tcp --tcp-flags SYN,RST SYN';
      // A goto's chain doesn't come back, and a drop of everything leaves nothing to judge.
      if (/DROP|REJECT/.test(how) && what === '') what = '-p 47';
      if (builtin && how === '-j RETURN' && r.once(2)) how = '-j ACCEPT';
      return ['-A', chain, what, how].filter(Boolean).join(' ') + '\n';
    };
    users.forEach((user, i) => {
      for (let n = 1 + r.below(3); n > 0; n--) text += rule(user, false, users.slice(i + 1));
    });
    for (const chain of CHAINS[table]!) {
      for (let n = r.below(table === 'nat' ? 3 : 4); n > 0; n--) text += rule(chain, true, users);
    }
    if (table === 'raw' && !r.once(3)) {
      const helped = r.some(HELPED);
      for (const chain of CHAINS[table]!)
        for (const [proto, port, name] of helped)
          text += `-A ${chain} -p ${proto} -m ${proto} --dport ${port} -j CT --helper ${name}\n`;
    }
    // Most networks translate something.
    if (table === 'nat') {
      if (r.once(2)) text += `-A POSTROUTING -o if1 -j ${r.pick('MASQUERADE', 'SNAT --to-source 198.51.100.2')}\n`;
      if (r.once(2))
        text += `-A PREROUTING -d 198.51.100.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.2:8080\n`;
    }
    text += 'COMMIT\n';
  }
  return text || '*filter\nCOMMIT\n';
}

/** Rules by which NAT chooses ports, which SIP's messages then tell. */
export const CHOOSING = /--random|--to-ports|:\d+-\d+/;

/** Rules whose state the kernel begins anew when any rule of its table changes (docs/DIFFERENCES.md). */
export const FORGETFUL = /-m (limit|quota|statistic|connlimit)/;

/** What an administrator does while packets pass. */
export function makeCommands(r: Random): Omit<CommandEvent, 'id'>[] {
  const iptables = (...words: string[]): Omit<CommandEvent, 'id'> => ({
    kind: 'command',
    program: 'iptables',
    argv: words.join(' ').split(' '),
  });
  const table = (): string => r.pick(...Object.keys(CHAINS));
  return Array.from({ length: 1 + r.below(3) }, () =>
    r.pick(
      () => iptables(`-t ${table()} -Z`),
      () => {
        const name = table();
        return iptables(`-t ${name} -Z ${r.pick(...CHAINS[name]!)}`);
      },
      () => iptables(`-P FORWARD ${r.pick('DROP', 'ACCEPT')}`),
      () => {
        const name = table();
        return iptables(`-t ${name} -D ${r.pick(...CHAINS[name]!)} 1`);
      },
      () => iptables('-t nat -F'),
      () => iptables('-t nat -I POSTROUTING -o if1 -j MASQUERADE'),
      () => iptables('-t nat -A PREROUTING -d 198.51.100.1 -p tcp -j DNAT --to-destination 10.2.0.3'),
      (): Omit<CommandEvent, 'id'> => ({
        kind: 'command',
        program: 'conntrack',
        argv: r.pick(['-F'], ['-D', '-p', 'udp'], ['-D', '-s', '10.1.0.2']),
      }),
      (): Omit<CommandEvent, 'id'> => {
        let stdin = makeRules(r);
        // Connections that are there have no labels yet, in the kernel (docs/DIFFERENCES.md).
        while (/-m (pkttype|connlabel)/.test(stdin) || FORGETFUL.test(stdin)) stdin = makeRules(r);
        return { kind: 'command', program: 'iptables-restore', argv: [], stdin };
      },
    )(),
  );
}

/** Of connection tracking, none so short that anything ends while packets pass. */
const TUNED: Readonly<Record<string, readonly number[]>> = {
  checksum: [0],
  tcp_loose: [0],
  tcp_be_liberal: [1],
  tcp_ignore_invalid_rst: [1],
  tcp_max_retrans: [0, 1, 2],
  ...Object.fromEntries(['generic', 'icmp', 'gre', 'udp'].map((protocol) => [`${protocol}_timeout`, [70, 900]])),
  ...Object.fromEntries(
    [
      'syn_sent',
      'syn_recv',
      'established',
      'fin_wait',
      'close_wait',
      'last_ack',
      'time_wait',
      'close',
      'max_retrans',
      'unacknowledged',
    ].map((state) => [`tcp_timeout_${state}`, [80, 1000]]),
  ),
  ...Object.fromEntries(
    [
      'closed',
      'cookie_wait',
      'cookie_echoed',
      'established',
      'shutdown_sent',
      'shutdown_recd',
      'shutdown_ack_sent',
      'heartbeat_sent',
    ].map((state) => [`sctp_timeout_${state}`, [60, 1100]]),
  ),
  udp_timeout_stream: [75, 950],
  gre_timeout_stream: [85, 850],
};

/** How an administrator tunes connection tracking. */
export function makeTuning(r: Random): Omit<CommandEvent, 'id'> {
  const names = Object.keys(TUNED);
  const words = Array.from({ length: 1 + r.below(6) }, () => {
    const name = r.pick(...names);
    return `net.netfilter.nf_conntrack_${name}=${r.pick(...TUNED[name]!)}`;
  });
  return { kind: 'command', program: 'sysctl', argv: ['-w', ...words] };
}
