/**
 * A look at the host before `up`: what would keep hutter from working refuses, what would surprise warns. Each finding
 * is one sentence that says what to do. Nothing is changed here.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { gunzipSync } from 'node:zlib';
import type { Keep } from './config.js';
import { CHAIN_OUT, CHAIN_PRE, findIptables, runTool } from './divert.js';

export interface Finding {
  /** `refuse`: up can't work. `warn`: it works, but not as one may expect. */
  level: 'refuse' | 'warn';
  text: string;
}

export interface HostQuestions {
  queueBase: number;
  workers: number;
  keep: readonly Keep[];
  interfaces: Readonly<Record<string, unknown>>;
}

const CAP_NET_ADMIN = 12;
const CAP_NET_RAW = 13;

const read = (file: string): string => {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
};
const refuse = (text: string): Finding => ({ level: 'refuse', text });
const warn = (text: string): Finding => ({ level: 'warn', text });

/** All findings; with missing privileges only those, since nothing else can be seen without. */
export function examineHost(questions: HostQuestions): Finding[] {
  const privileges = examineCapabilities(read('/proc/self/status'));
  if (privileges.length > 0) return privileges;
  return [
    ...examineQueues(read('/proc/net/netfilter/nfnetlink_queue'), questions),
    ...examineInterfaces(readdirSync('/proc/sys/net/ipv4/conf'), questions),
    ...examineForwarding(),
    ...examineKernelRules(questions.keep),
    ...examineIpsec(),
  ];
}

/** The same for a router on interfaces of its own, which asks little of the host. */
export const examineOwnHost = (): Finding[] => examineCapabilities(read('/proc/self/status'), ['CAP_NET_ADMIN']);

/** `status` is /proc/self/status. */
export function examineCapabilities(status: string, needed = ['CAP_NET_ADMIN', 'CAP_NET_RAW']): Finding[] {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0'}`);
  const missing = [
    { bit: CAP_NET_ADMIN, name: 'CAP_NET_ADMIN' },
    { bit: CAP_NET_RAW, name: 'CAP_NET_RAW' },
  ].filter(({ bit, name }) => needed.includes(name) && ((effective >> BigInt(bit)) & 1n) === 0n);
  if (missing.length === 0) return [];
  const names = missing.map(({ name }) => name).join(' and ');
  return [refuse(`hutter up needs ${names}: run it as root, or give the container cap_add NET_ADMIN and NET_RAW`)];
}

/** `listing` is /proc/net/netfilter/nfnetlink_queue: queue number, port id, … (nfnetlink_queue.c, seq_show). */
export function examineQueues(listing: string, { queueBase, workers }: HostQuestions): Finding[] {
  if (queueBase + workers > 65_536)
    return [
      refuse(`queues ${queueBase} to ${queueBase + workers - 1} don't exist: the last is 65535; lower --queue-base`),
    ];
  const taken = listing
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([queue]) => queue! >= queueBase && queue! < queueBase + workers);
  return taken.map(([queue, port]) =>
    refuse(`NFQUEUE ${queue} is taken by another program (netlink port ${port}): stop it or choose --queue-base`),
  );
}

export function examineInterfaces(present: readonly string[], { interfaces, keep }: HostQuestions): Finding[] {
  const kept = keep.flatMap((item) => ('interface' in item ? [item.interface] : []));
  return [...Object.keys(interfaces), ...kept]
    .filter((name) => !present.includes(name))
    .map((name) => refuse(`unknown interface ${name}: this network namespace has ${listed(present)}`));
}
const listed = (present: readonly string[]): string =>
  present.filter((name) => name !== 'all' && name !== 'default').join(', ');

function examineForwarding(): Finding[] {
  const findings: Finding[] = [];
  if (read('/proc/sys/net/ipv4/ip_forward') !== '1')
    findings.push(
      warn(
        'forwarding is off, so the kernel drops what it should pass on: switch it on with sysctl net.ipv4.ip_forward=1',
      ),
    );
  if (read('/proc/sys/net/ipv6/conf/all/forwarding') === '1')
    findings.push(
      warn(
        "IPv6 forwarding is on and hutter handles IPv4 only: IPv6 passes under the kernel's own ip6tables rules alone",
      ),
    );
  return findings;
}

/** Matches and targets of iptables that read or write the kernel's connections, which notrack takes from them. */
const CONNECTION_RULE =
  /-m (state|conntrack|connmark|connbytes|connlimit|connlabel|helper|cluster)\b|-j (CT|CONNMARK|CONNSECMARK|SYNPROXY)\b/;

/** Rules of the kernel's own that stop working where hutter switches tracking off: Docker's, a firewall's. */
function examineKernelRules(keep: readonly Keep[]): Finding[] {
  const findings: Finding[] = [];
  for (const { save, flavour } of findIptables()) {
    // Asking legacy for a table would create it.
    if (flavour === 'legacy' && read('/proc/net/ip_tables_names') === '') continue;
    const result = runTool(save, []);
    if (result.status === 0) findings.push(...examineSaved(result.stdout, flavour, keep));
  }
  const nft = runTool('nft', ['-s', 'list', 'ruleset']);
  if (nft.status === 0) findings.push(...examineNft(nft.stdout));
  return findings;
}

/** `saved` is iptables-save's output. */
export function examineSaved(saved: string, flavour: string, keep: readonly Keep[]): Finding[] {
  const keepsLoopback = keep.some((item) => 'interface' in item && item.interface === 'lo');
  const nat: string[] = [];
  const state: string[] = [];
  const raw: string[] = [];
  let table = '';
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1);
    if (!line.startsWith('-A ') || line.includes(CHAIN_PRE) || line.includes(CHAIN_OUT)) continue;
    if (table === 'raw') raw.push(line);
    if (table === 'nat') {
      // Docker's name server inside containers: on lo only.
      const dockerDns = /127\.0\.0\.11\/32/.test(line) || /^-A DOCKER_(OUTPUT|POSTROUTING) /.test(line);
      if (!(dockerDns && keepsLoopback)) nat.push(line);
    } else if (CONNECTION_RULE.test(line)) state.push(line);
  }
  const findings: Finding[] = [];
  const remedy = `move them into hutter's rules, or keep their interfaces with --keep`;
  const such = (rules: string[]): string => `iptables ${flavour}, such as \`${rules[0]}\``;
  if (nat.length > 0)
    findings.push(
      warn(
        `the kernel's own nat table has rules (${such(nat)}) which translate nothing that hutter diverts: ${remedy}`,
      ),
    );
  if (state.length > 0)
    findings.push(
      warn(`the kernel's own rules ask for connections (${such(state)}) and see only UNTRACKED packets: ${remedy}`),
    );
  if (raw.length > 0)
    findings.push(
      warn(
        `the kernel's raw table has rules of its own (${such(raw)}) which come before hutter: check that they agree`,
      ),
    );
  return findings;
}

/** `ruleset` is `nft list ruleset`; tables that iptables-nft manages are left to `examineSaved`. */
export function examineNft(ruleset: string): Finding[] {
  const managed = new Set(
    [...ruleset.matchAll(/^# Warning: table (\w+ \S+) is managed by iptables-nft/gm)].map((match) => match[1]),
  );
  let table = '';
  let nat = false;
  const rules: string[] = [];
  for (const line of ruleset.split('\n')) {
    const header = /^table (\w+ \S+) \{/.exec(line);
    if (header) table = header[1]!;
    if (/^\tchain /.test(line)) nat = false;
    if (!/^(ip|inet) /.test(table) || managed.has(table) || XTABLES.has(table)) continue;
    const text = line.trim();
    if (text.startsWith('type nat hook')) nat = true;
    else if (
      /^\t\t\S/.test(line) &&
      !text.startsWith('type ') &&
      (nat || /\bct (state|status|mark|label|helper|direction|count)\b/.test(text))
    )
      rules.push(text);
  }
  if (rules.length === 0) return [];
  return [
    warn(
      `nftables has rules that need the kernel's connections (such as \`${rules[0]}\`) and don't work for what hutter ` +
        `diverts: move them into hutter's rules, or keep their interfaces with --keep`,
    ),
  ];
}
/** Names under which iptables-nft keeps its tables; older nft doesn't say so. */
const XTABLES = new Set(['ip raw', 'ip mangle', 'ip nat', 'ip filter', 'ip security']);

function examineIpsec(): Finding[] {
  if (!existsSync('/proc/net/xfrm_stat')) return [];
  const result = runTool('ip', ['xfrm', 'policy']);
  if (result.status !== 0 || result.stdout.trim() === '') return [];
  return [
    warn(
      'IPsec policies are in place (ip xfrm policy): hutter sees packets before they are encrypted and after, ' +
        'but never knows which policy they belong to',
    ),
  ];
}

/** The kernel's timer frequency (CONFIG_HZ), in which it counts limit's credit; measured where no configuration says it. */
export function kernelHz(): number {
  const configs = [
    () => gunzipSync(readFileSync('/proc/config.gz')).toString('latin1'),
    () => readFileSync(`/boot/config-${release()}`, 'latin1'),
  ];
  for (const config of configs)
    try {
      const found = /^CONFIG_HZ=(\d+)$/m.exec(config());
      if (found) return Number(found[1]);
    } catch {
      // Not there: the next one.
    }
  return measureHz();
}

const MEASURE_MS = 100;
/** Counts jiffies over a moment; 250, most distributions' choice, where the kernel doesn't show them. */
function measureHz(): number {
  const jiffies = (): number => Number(/^jiffies: (\d+)$/m.exec(read('/proc/timer_list'))?.[1] ?? Number.NaN);
  const begin = performance.now();
  const first = jiffies();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, MEASURE_MS);
  const measured = ((jiffies() - first) * 1000) / (performance.now() - begin);
  if (Number.isNaN(measured)) return 250;
  return [100, 250, 300, 1000].reduce((best, hz) => (Math.abs(hz - measured) < Math.abs(best - measured) ? hz : best));
}
