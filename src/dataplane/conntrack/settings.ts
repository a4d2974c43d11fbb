/**
 * The sysctls of net.netfilter that connection tracking obeys, and those of net.ipv4 that a router of its own does, under their own
 * names and with the kernel's defaults. They lie in the table's shared header, so that a change reaches every worker at once. Timeouts are seconds to people
 * and milliseconds in the words; the longest is MAX_TIMEOUT_MS, as times are compared in 32 bits.
 */
import { SCTP_STATE_COUNT } from './states.js';

export const MAX_TIMEOUT_MS = 2_000_000_000;

/**
 * Index of a setting among the table's setting words. The TCP timeouts lie in the order of TcpState, the SCTP ones in
 * the order of SctpState.
 */
export const enum Setting {
  MAX = 0,
  CHECKSUM = 1,
  TCP_LOOSE = 2,
  TCP_BE_LIBERAL = 3,
  TCP_MAX_RETRANS = 4,
  TCP_IGNORE_INVALID_RST = 5,
  EXPECT_MAX = 6,
  TCP_TIMEOUT = 8,
  /** After as many retransmissions as TCP_MAX_RETRANS. */
  TCP_TIMEOUT_RETRANS = 18,
  TCP_TIMEOUT_UNACK = 19,
  UDP_TIMEOUT = 20,
  UDP_TIMEOUT_STREAM = 21,
  ICMP_TIMEOUT = 22,
  GENERIC_TIMEOUT = 23,
  GRE_TIMEOUT = 24,
  GRE_TIMEOUT_STREAM = 25,
  SCTP_TIMEOUT = 26,
  // Of a router without a kernel that forwards.
  ICMP_MSGS_PER_SEC = 36,
  ICMP_MSGS_BURST = 37,
  IPFRAG_MAX_DIST = 38,
  /** No settings: ICMP errors that may still be sent, and the millisecond of the last refill (answer.ts). */
  ICMP_CREDIT = 39,
  ICMP_STAMP = 40,
}
export const SETTING_WORDS = 41;
if (Setting.SCTP_TIMEOUT + SCTP_STATE_COUNT > (Setting.ICMP_MSGS_PER_SEC as number))
  throw new Error('settings overlap');

interface Description {
  readonly word: number;
  readonly initial: number;
  readonly most: number;
  /** Word = value × scale. */
  readonly scale: 1 | 1000;
}
const plain = (word: number, initial: number, most = 0x7fff_ffff): Description => ({ word, initial, most, scale: 1 });
const toggle = (word: number, initial: number): Description => plain(word, initial, 1);
const seconds = (word: number, initial: number): Description => ({
  word,
  initial,
  most: Math.floor(MAX_TIMEOUT_MS / 1000),
  scale: 1000,
});
const tcp = (state: number, initial: number): Description => seconds(Setting.TCP_TIMEOUT + state, initial);
const sctp = (state: number, initial: number): Description => seconds(Setting.SCTP_TIMEOUT + state, initial);

/** Every setting by its sysctl name below net.netfilter or net.ipv4. */
export const SETTINGS: Readonly<Record<string, Description>> = {
  nf_conntrack_max: plain(Setting.MAX, 262_144),
  nf_conntrack_checksum: toggle(Setting.CHECKSUM, 1),
  nf_conntrack_expect_max: plain(Setting.EXPECT_MAX, 4096),
  nf_conntrack_generic_timeout: seconds(Setting.GENERIC_TIMEOUT, 600),
  nf_conntrack_gre_timeout: seconds(Setting.GRE_TIMEOUT, 30),
  nf_conntrack_gre_timeout_stream: seconds(Setting.GRE_TIMEOUT_STREAM, 180),
  nf_conntrack_icmp_timeout: seconds(Setting.ICMP_TIMEOUT, 30),
  nf_conntrack_sctp_timeout_closed: sctp(1, 10),
  nf_conntrack_sctp_timeout_cookie_wait: sctp(2, 3),
  nf_conntrack_sctp_timeout_cookie_echoed: sctp(3, 3),
  nf_conntrack_sctp_timeout_established: sctp(4, 210),
  nf_conntrack_sctp_timeout_shutdown_sent: sctp(5, 3),
  nf_conntrack_sctp_timeout_shutdown_recd: sctp(6, 3),
  nf_conntrack_sctp_timeout_shutdown_ack_sent: sctp(7, 3),
  nf_conntrack_sctp_timeout_heartbeat_sent: sctp(8, 30),
  nf_conntrack_tcp_be_liberal: toggle(Setting.TCP_BE_LIBERAL, 0),
  nf_conntrack_tcp_ignore_invalid_rst: toggle(Setting.TCP_IGNORE_INVALID_RST, 0),
  nf_conntrack_tcp_loose: toggle(Setting.TCP_LOOSE, 1),
  nf_conntrack_tcp_max_retrans: plain(Setting.TCP_MAX_RETRANS, 3, 255),
  nf_conntrack_tcp_timeout_syn_sent: tcp(1, 120),
  nf_conntrack_tcp_timeout_syn_recv: tcp(2, 60),
  nf_conntrack_tcp_timeout_established: tcp(3, 432_000),
  nf_conntrack_tcp_timeout_fin_wait: tcp(4, 120),
  nf_conntrack_tcp_timeout_close_wait: tcp(5, 60),
  nf_conntrack_tcp_timeout_last_ack: tcp(6, 30),
  nf_conntrack_tcp_timeout_time_wait: tcp(7, 120),
  nf_conntrack_tcp_timeout_close: tcp(8, 10),
  nf_conntrack_tcp_timeout_max_retrans: seconds(Setting.TCP_TIMEOUT_RETRANS, 300),
  nf_conntrack_tcp_timeout_unacknowledged: seconds(Setting.TCP_TIMEOUT_UNACK, 300),
  nf_conntrack_udp_timeout: seconds(Setting.UDP_TIMEOUT, 30),
  nf_conntrack_udp_timeout_stream: seconds(Setting.UDP_TIMEOUT_STREAM, 120),
  icmp_msgs_per_sec: plain(Setting.ICMP_MSGS_PER_SEC, 1000),
  icmp_msgs_burst: plain(Setting.ICMP_MSGS_BURST, 50),
  ipfrag_max_dist: plain(Setting.IPFRAG_MAX_DIST, 64),
};

/** Writes the defaults into the words at `base`. */
export function initSettings(words: Int32Array, base: number): void {
  for (const { word, initial, scale } of Object.values(SETTINGS)) words[base + word] = initial * scale;
  // No sysctl names it: a simultaneous open waits as long as a first SYN.
  words[base + Setting.TCP_TIMEOUT + 9] = 120_000;
  // A second ago: there is a whole burst to begin with.
  words[base + Setting.ICMP_STAMP] = -1000;
}

/** Why a setting can't be given this value; undefined if it can. */
export function settingFault(name: string, value: number): string | undefined {
  const setting = Object.hasOwn(SETTINGS, name) ? SETTINGS[name] : undefined;
  if (setting === undefined) return 'no such setting';
  return Number.isInteger(value) && value >= 0 && value <= setting.most
    ? undefined
    : `${value} is no integer between 0 and ${setting.most}`;
}

/** @throws RangeError when there is no such setting or the value is no integer within its range. */
export function writeSetting(words: Int32Array, base: number, name: string, value: number): void {
  const fault = settingFault(name, value);
  if (fault !== undefined) throw new RangeError(`${name}: ${fault}`);
  const setting = SETTINGS[name]!;
  Atomics.store(words, base + setting.word, value * setting.scale);
}

/** @throws RangeError when there is no such setting. */
export function readSetting(words: Int32Array, base: number, name: string): number {
  const setting = SETTINGS[name];
  if (setting === undefined) throw new RangeError(`${name}: no such setting`);
  return Atomics.load(words, base + setting.word) / setting.scale;
}
