/**
 * The diversion: what hutter changes in the kernel so that packets come to its queues, and how that is undone.
 *
 * Rules, in the kernel's raw table, by the real iptables (either flavour): PREROUTING and OUTPUT jump to HUTTER-PRE and
 * HUTTER-OUT, which leave alone what is kept, switch kernel tracking off and queue the rest. Once packets must cross twice,
 * POSTROUTING of the mangle table jumps to HUTTER-POST, which queues what hutter marked by the reserved bit of the IP header.
 * It stays until the queues are gone: without it such packets would pass half done. Sysctls, on every diverted
 * interface: accept_local=1, since a source can become the router's own in PREROUTING, and rp_filter=2, since strict
 * checking would drop it (ARCHITECTURE, "Martians").
 *
 * The old values lie in a state file, one a network namespace, written before anything changes: so a run that was
 * killed can be undone by `hutter down` and by the next `hutter up`. Undoing twice is as good as once.
 */
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { mkdirSync, openSync, readdirSync, readFileSync, readSync, closeSync, realpathSync, renameSync } from 'node:fs';
import { rmSync, statSync, writeFileSync, accessSync, constants, existsSync } from 'node:fs';
import path from 'node:path';
import { LinkMark, PrivateMark } from '../dataplane/names.js';
import { type Keep, reason } from './config.js';

/** The diversion can't be put in place or removed; the message says why and what to do. */
export class DivertError extends Error {
  override readonly name = 'DivertError';
}

export const CHAIN_PRE = 'HUTTER-PRE';
export const CHAIN_OUT = 'HUTTER-OUT';
export const CHAIN_POST = 'HUTTER-POST';
const COMMENT = 'hutter: diversion';
/** Nobody will give an interface this name. */
const NO_INTERFACE = 'hutter-no-such';
const CONF = '/proc/sys/net/ipv4/conf';
export const STATE_DIRECTORY = '/run/hutter';

export type Fanout = 'hosts' | 'cpu';

export interface DivertOptions {
  queueBase: number;
  workers: number;
  /** Whose queue a packet goes to: by its pair of hosts, or by the core that it came in on. */
  fanout: Fanout;
  failOpen: boolean;
  keep: readonly Keep[];
  /** The program tracks connections: the kernel puts fragments together. */
  connections: boolean;
  /** It asks how packets were addressed on their link: the kernel marks them. */
  packetTypes: boolean;
  /** It asks whether packets come or go by IPsec: likewise. */
  policies: boolean;
}

/** rp_filter as the kernel applied it to an interface before hutter changed it: 0 none, 1 strict, 2 loose. */
export interface ReversePath {
  interface: string;
  strictness: number;
}

/**
 * The bodies of both chains as iptables-restore reads them. `reversePaths` are the diverted interfaces: where packets
 * can pass by hutter (fail open, kept services), kernel rules hold the line that the relaxed sysctls no longer hold.
 */
export function diversionRules(options: DivertOptions, reversePaths: readonly ReversePath[]): string[] {
  const { workers, fanout, failOpen, keep, connections, packetTypes, policies } = options;
  const pre = (rule: string): string => `-A ${CHAIN_PRE} ${rule}`;
  const out = (rule: string): string => `-A ${CHAIN_OUT} ${rule}`;
  const injected = `-m mark --mark ${hex(PrivateMark.INJECTED)}/${hex(PrivateMark.INJECTED)}`;
  const queue = queueTarget(options) + (fanout === 'cpu' && workers > 1 ? ' --queue-cpu-fanout' : '');
  const interfaces = keep.flatMap((item) => ('interface' in item ? [item.interface] : []));
  const services = keep.flatMap((item) => ('port' in item ? [item] : []));

  const rules = [...interfaces.map((name) => pre(`-i ${name} -j RETURN`))];
  if (failOpen || services.length > 0) {
    // A source of the router's own from outside; copies of its own multicast and broadcast do come in so.
    for (const type of ['UNICAST', 'LOCAL'])
      rules.push(pre(`! -i lo -m addrtype --src-type LOCAL --dst-type ${type} -j DROP`));
    for (const { interface: name, strictness } of reversePaths)
      if (strictness !== 0)
        rules.push(pre(`-i ${name} -m rpfilter${strictness === 2 ? ' --loose' : ''} --invert -j DROP`));
  }
  // Services of the router itself: what is forwarded to such a port elsewhere stays under the rules.
  for (const { protocol, port } of services)
    rules.push(pre(`-p ${protocol} -m addrtype --dst-type LOCAL -m ${protocol} --dport ${port} -j RETURN`));
  // Never matches; having it makes the kernel put fragments together without tracking (xt_socket's checkentry).
  if (connections) rules.push(pre(`-i ${NO_INTERFACE} -m socket -j ACCEPT`));
  if (packetTypes)
    for (const [type, mark] of [
      ['broadcast', LinkMark.BROADCAST],
      ['multicast', LinkMark.MULTICAST],
    ] as const)
      rules.push(pre(`-m pkttype --pkt-type ${type} ${linkMark(mark)}`));
  if (policies) rules.push(pre(`-m policy --dir in --pol ipsec ${linkMark(LinkMark.IPSEC)}`));
  rules.push(pre('-j CT --notrack'), pre(queue));

  rules.push(out(`${injected} -j CT --notrack`), out(`${injected} -j RETURN`));
  rules.push(...interfaces.map((name) => out(`-o ${name} -j RETURN`)));
  for (const { protocol, port } of services) rules.push(out(`-p ${protocol} -m ${protocol} --sport ${port} -j RETURN`));
  if (policies) rules.push(out(GOES_BY_IPSEC));
  rules.push(out('-j CT --notrack'), out(queue));
  return rules;
}

/**
 * The body of HUTTER-POST: the header's reserved bit is set in no packet that crosses once. Workers by addresses always, as
 * the core is that of the worker that had the packet, and a flow's packets would overtake each other.
 */
export const againRules = (options: DivertOptions): string[] => {
  const again = `-A ${CHAIN_POST} -m u32 --u32 "4&0x8000=0x8000"`;
  return [...(options.policies ? [`${again} ${GOES_BY_IPSEC}`] : []), `${again} ${queueTarget(options)}`];
};

function queueTarget({ queueBase, workers, failOpen }: DivertOptions): string {
  const range = workers === 1 ? `--queue-num ${queueBase}` : `--queue-balance ${queueBase}:${queueBase + workers - 1}`;
  return `-j NFQUEUE ${range}${failOpen ? ' --queue-bypass' : ''}`;
}

const linkMark = (mark: LinkMark): string => `-j MARK --set-xmark ${hex(mark)}/${hex(LinkMark.ALL)}`;
const hex = (mark: number): string => `0x${(mark >>> 0).toString(16)}`;
const GOES_BY_IPSEC = `-m policy --dir out --pol ipsec ${linkMark(LinkMark.IPSEC)}`;
const jump = (hook: string, chain: string): string => `${hook} -m comment --comment "${COMMENT}" -j ${chain}`;
/** What hutter has in one of the kernel's tables. */
interface Part {
  table: 'raw' | 'mangle';
  chains: readonly string[];
  jumps: readonly string[];
}
const RAW: Part = {
  table: 'raw',
  chains: [CHAIN_PRE, CHAIN_OUT],
  jumps: [jump('PREROUTING', CHAIN_PRE), jump('OUTPUT', CHAIN_OUT)],
};
const MANGLE: Part = { table: 'mangle', chains: [CHAIN_POST], jumps: [jump('POSTROUTING', CHAIN_POST)] };
const PARTS = [RAW, MANGLE];

/** iptables-restore input that (re)places the chains of a part; `saved` is the table as iptables-save prints it now. */
export function installText(rules: readonly string[], saved: string, { table, chains, jumps }: Part = RAW): string {
  const present = new Set(saved.split('\n'));
  const missing = jumps.map((rule) => `-A ${rule}`).filter((rule) => !present.has(rule));
  // Declaring a chain empties it, also with --noflush.
  return [`*${table}`, ...chains.map((chain) => `:${chain} - [0:0]`), ...rules, ...missing, 'COMMIT', ''].join('\n');
}

/** iptables-restore input that removes what is there of a part; '' when nothing is. */
export function removeText(saved: string, { table, chains: names }: Part = RAW): string {
  const lines = saved.split('\n');
  const chains = names.filter((chain) => lines.some((line) => line.startsWith(`:${chain} `)));
  if (chains.length === 0) return '';
  const jumps = lines.filter((line) => line.startsWith('-A ') && chains.some((chain) => line.endsWith(` -j ${chain}`)));
  return [
    `*${table}`,
    ...jumps.map((line) => line.replace(/^-A/, '-D')),
    ...chains.map((chain) => `-F ${chain}`),
    ...chains.map((chain) => `-X ${chain}`),
    'COMMIT',
    '',
  ].join('\n');
}

/** A real iptables: absolute paths of one flavour's programs. */
export interface Iptables {
  save: string;
  restore: string;
  /** From `--version`. */
  flavour: 'legacy' | 'nf_tables';
}

/**
 * Runs one of the host's tools to its end: text in and out, and in a session of its own, so that a terminal's Ctrl-C, which goes to
 * all of its processes, can't end one half way. A tool that it caught before the session was there has done nothing: it is run again.
 */
export function runTool(file: string, args: readonly string[], input = ''): SpawnSyncReturns<string> {
  const options = { input, encoding: 'utf8', maxBuffer: 1 << 28, detached: true } as const;
  for (;;) {
    const result = spawnSync(file, args, options);
    if (result.signal !== 'SIGINT') return result;
  }
}

const DIRECTORIES = ['/usr/sbin', '/sbin', '/usr/local/sbin', '/usr/bin', '/bin', '/usr/local/bin'];

/** The host's iptables, its default flavour first. hutter's own commands, under whatever name, are left out. */
export function findIptables(): Iptables[] {
  return (tools ??= lookForIptables());
}
let tools: Iptables[] | undefined;

function lookForIptables(): Iptables[] {
  const found = new Map<string, Iptables>();
  for (const name of ['iptables', 'iptables-nft', 'iptables-legacy'])
    for (const directory of DIRECTORIES) {
      const save = path.join(directory, `${name}-save`);
      const restore = path.join(directory, `${name}-restore`);
      if (!isProgram(save) || !isProgram(restore)) continue;
      // Before 1.8 there was one flavour and no word about it.
      const version = runTool(restore, ['--version']).stdout;
      if (!/^iptables(-restore)? v/.test(version)) continue;
      const flavour = version.includes('(nf_tables)') ? 'nf_tables' : 'legacy';
      if (!found.has(flavour)) found.set(flavour, { save, restore, flavour });
    }
  return [...found.values()];
}

/** Executable, and no Node program: hutter's commands can be installed under iptables' names. */
function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    const fd = openSync(realpathSync(file), 'r');
    try {
      const head = Buffer.alloc(128);
      const length = readSync(fd, head, 0, head.length, 0);
      return !/^#!.*\b(node|hutter)/.test(head.toString('latin1', 0, length));
    } finally {
      closeSync(fd);
    }
  } catch {
    return false;
  }
}

/** A table of one flavour as text; '' when it isn't there (looking at it would create it). */
function readTable(iptables: Iptables, table: Part['table']): string {
  if (iptables.flavour === 'legacy' && !readText('/proc/net/ip_tables_names').split('\n').includes(table)) return '';
  const result = runTool(iptables.save, ['-t', table]);
  return result.status === 0 ? result.stdout : '';
}

/** @throws DivertError with the tool's own words. */
function restore(iptables: Iptables, text: string): void {
  const result = runTool(iptables.restore, ['-w', '10', '--noflush'], text);
  if (result.status === 0) return;
  const line = Number(/line:? (\d+)/.exec(result.stderr)?.[1] ?? 0);
  const rule = line > 0 ? ` (${text.split('\n')[line - 1]})` : '';
  throw new DivertError(`${iptables.restore} refused the diversion${rule}: ${words(result.stderr)}`);
}
const words = (stderr: string): string =>
  stderr
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.startsWith('# Warning') && !/^(Error occurred|Try )/.test(line))
    .join(' ')
    .trim() || 'no reason given';

interface Sysctls {
  rp_filter: string;
  accept_local: string;
}
const WANTED: Sysctls = { rp_filter: '2', accept_local: '1' };

/** What the state file remembers. */
interface State {
  pid: number;
  /** Start of the process in ticks since boot (/proc/PID/stat), for pids are used again. */
  started: string;
  control: string;
  /** Values before hutter's, by interface. */
  sysctls: Record<string, Sysctls>;
}

const stateFile = (): string => path.join(STATE_DIRECTORY, `${statSync('/proc/self/ns/net').ino}.json`);

function readState(): State | undefined {
  try {
    return JSON.parse(readFileSync(stateFile(), 'utf8')) as State;
  } catch {
    return undefined;
  }
}

function writeState(state: State): void {
  const file = stateFile();
  try {
    // One folder, since Node's `recursive` calls a read-only file system a missing folder.
    if (!existsSync(STATE_DIRECTORY)) mkdirSync(STATE_DIRECTORY, { mode: 0o755 });
    writeFileSync(`${file}.new`, JSON.stringify(state), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  } catch (error) {
    rmSync(`${file}.new`, { force: true });
    throw new DivertError(`can't write ${file}, where hutter notes what \`hutter down\` must undo: ${reason(error)}`);
  }
}

const startTime = (pid: number): string => {
  const stat = readText(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
};

/** The hutter that runs in this network namespace; undefined when none does. */
export function runningRouter(): { pid: number; control: string } | undefined {
  const state = readState();
  if (state === undefined || state.pid === process.pid || state.started === '') return undefined;
  return startTime(state.pid) === state.started ? state : undefined;
}

/**
 * Undoes what an earlier run left in this network namespace: rules of both flavours, sysctls, the state file. Returns a
 * line for each thing undone.
 */
export function undoDiversion(): string[] {
  const done: string[] = [];
  for (const iptables of findIptables())
    for (const part of PARTS)
      if (removeFrom(iptables, part))
        done.push(`removed the diversion from the kernel's ${part.table} table (iptables ${iptables.flavour})`);
  const state = readState();
  if (state !== undefined) {
    for (const [name, old] of Object.entries(state.sysctls))
      if (restoreSysctls(name, old)) done.push(`reset rp_filter and accept_local of ${name}`);
    rmSync(stateFile(), { force: true });
    rmSync(`${stateFile()}.new`, { force: true });
  }
  return done;
}

/** Puts back the values before hutter's, unless somebody has changed them since; true when something changed. */
function restoreSysctls(name: string, old: Sysctls): boolean {
  const keys = (['rp_filter', 'accept_local'] as const).filter((key) => old[key] !== WANTED[key]);
  let changed = false;
  for (const key of keys)
    if (readSysctl(name, key) === WANTED[key] && writeSysctl(name, key, old[key]) === undefined) changed = true;
  return changed;
}

const readText = (file: string): string => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};
const readSysctl = (name: string, key: string): string => readText(`${CONF}/${name}/${key}`).trim();

/** Returns the error's code, undefined when all is well or the interface has gone. */
function writeSysctl(name: string, key: string, value: string): string | undefined {
  try {
    writeFileSync(`${CONF}/${name}/${key}`, value);
    return undefined;
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' || code === 'ENODEV' ? undefined : code;
  }
}

/** The diversion of a running router. All calls are synchronous: a signal finds it whole. */
export class Diversion {
  private readonly state: State;
  /** What a killed run left, until `install` has replaced it. Its rules stay so long: closed means closed. */
  private leavings: State | undefined;
  private iptables: Iptables | undefined;
  private rulesInForce = '';
  /** Packets come a second time. */
  comesAgain = false;

  /** rp_filter as it was, by diverted interface; strict ones' reverse paths are hutter's to check. */
  readonly reversePaths = new Map<string, number>();

  /**
   * Relaxes the sysctls. No packet is diverted before `install`.
   * @throws DivertError when sysctls can be neither set nor found right.
   */
  constructor(
    private options: DivertOptions,
    control: string,
  ) {
    this.leavings = readState();
    this.state = { pid: process.pid, started: startTime(process.pid), control, sysctls: {} };
    try {
      this.adoptInterfaces();
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  /**
   * Sets the sysctls of interfaces that have come since the last call. Returns true when interfaces came or went.
   * @throws DivertError when /proc/sys is read-only and they aren't as they must be.
   */
  adoptInterfaces(): boolean {
    const kept = this.options.keep.flatMap((item) => ('interface' in item ? [item.interface] : []));
    const left = new Set(['all', 'default', 'lo', ...kept]);
    const present = new Set(readdirSync(CONF).filter((name) => !left.has(name)));
    const gone = [...this.reversePaths.keys()].filter((name) => !present.has(name));
    const fresh = [...present].filter((name) => !this.reversePaths.has(name));
    if (gone.length === 0 && fresh.length === 0 && this.reversePaths.size > 0) return false;
    for (const name of gone) this.reversePaths.delete(name);
    const all = Number(readSysctl('all', 'rp_filter'));
    for (const name of fresh) {
      const now = { rp_filter: readSysctl(name, 'rp_filter'), accept_local: readSysctl(name, 'accept_local') };
      const hutters = now.rp_filter === WANTED.rp_filter && now.accept_local === WANTED.accept_local;
      const old = (hutters ? this.leavings?.sysctls[name] : undefined) ?? now;
      this.reversePaths.set(name, Math.max(all, Number(old.rp_filter)));
      this.state.sysctls[name] = old;
    }
    writeState(this.state);
    for (const name of fresh) relax(name);
    return true;
  }

  private rules(): string[] {
    return diversionRules(
      this.options,
      [...this.reversePaths].map(([name, strictness]) => ({ interface: name, strictness })),
    );
  }

  /** Diverts: from here on packets wait for the queues. @throws DivertError */
  install(): void {
    const flavours = findIptables();
    if (flavours.length === 0)
      throw new DivertError(`no iptables in ${DIRECTORIES.join(', ')}: install your distribution's iptables package`);
    const rules = this.rules();
    let first: unknown;
    for (const candidate of this.iptables ? [this.iptables] : flavours)
      try {
        restore(candidate, installText(rules, readTable(candidate, 'raw')));
        this.iptables = candidate;
        break;
      } catch (error) {
        first ??= error;
      }
    if (this.iptables === undefined) throw first;
    this.rulesInForce = rules.join('\n');
    this.leavings = undefined;
    for (const other of flavours)
      if (other.flavour !== this.iptables.flavour) PARTS.map((part) => removeFrom(other, part));
    if (!this.comesAgain) removeFrom(this.iptables, MANGLE);
  }

  /** Packets are diverted. */
  get installed(): boolean {
    return this.rulesInForce !== '';
  }

  /** Diverts packets a second time, from here on until `stop`. After `install`. @throws DivertError */
  installAgain(): void {
    const iptables = this.iptables!;
    restore(iptables, installText(againRules(this.options), readTable(iptables, 'mangle'), MANGLE));
    this.comesAgain = true;
  }

  /** Follows the program (what the kernel must do for it) and the interfaces; rules change only where they must. @throws DivertError */
  update(options: Partial<DivertOptions> = {}): void {
    const before = this.options;
    this.options = { ...before, ...options };
    try {
      if (this.comesAgain && this.options.policies !== before.policies) this.installAgain();
      if (this.rules().join('\n') !== this.rulesInForce) this.install();
    } catch (error) {
      this.options = before;
      throw error;
    }
  }

  /** `legacy` or `nf_tables`, once installed. */
  get flavour(): Iptables['flavour'] | undefined {
    return this.iptables?.flavour;
  }

  /**
   * Takes the rules out, so that packets pass by; the sysctls stay until `stop`, as does what packets that crossed once come
   * again by.
   */
  removeRules(): void {
    if (this.iptables !== undefined) removeFrom(this.iptables, RAW);
    this.rulesInForce = '';
  }

  /** Puts everything back; but what a killed run left stays as it is if this one never came to divert. */
  stop(): void {
    if (this.leavings !== undefined) {
      writeState(this.leavings);
      return;
    }
    this.removeRules();
    if (this.iptables !== undefined) removeFrom(this.iptables, MANGLE);
    for (const [name, old] of Object.entries(this.state.sysctls)) restoreSysctls(name, old);
    rmSync(stateFile(), { force: true });
  }
}

/** Takes a part of the diversion out of one flavour's tables; true when there was some. */
function removeFrom(iptables: Iptables, part: Part): boolean {
  const text = removeText(readTable(iptables, part.table), part);
  if (text !== '') restore(iptables, text);
  return text !== '';
}

/** rp_filter is the greater of `all` and the interface's, accept_local either's: a value that holds already is left. */
function relax(name: string): void {
  const failure = writeSysctl(name, 'rp_filter', WANTED.rp_filter) ?? writeSysctl(name, 'accept_local', '1');
  if (failure === undefined) return;
  const strict = Math.max(Number(readSysctl('all', 'rp_filter')), Number(readSysctl(name, 'rp_filter'))) === 1;
  const local = readSysctl('all', 'accept_local') === '1' || readSysctl(name, 'accept_local') === '1';
  if (!strict && local) return;
  throw new DivertError(
    `net.ipv4.conf.${name} must have accept_local=1 and rp_filter=2 (it has accept_local=` +
      `${readSysctl(name, 'accept_local')}, rp_filter=${readSysctl(name, 'rp_filter')}) and /proc/sys can't be written ` +
      `(${failure}): set them from outside, for a container with --sysctl or compose's sysctls`,
  );
}
