/**
 * What each option of each match and target decides, as data: rules, packets for which a rule holds, and packets for which
 * it doesn't. verdicts.test.ts runs them through a simulated router and demands that no option of a record is missing; the
 * judge (main.ts) runs them beside the kernel. Hosts and interfaces are arena.ts's; unless said otherwise, packets go from
 * 10.1.0.2 (if0) to 10.2.0.2 (if2).
 */
import { AH, ESP, ICMP, type PacketSpec, SCTP, TCP, type Transport, UDP } from './packets.js';
import type { PacketEvent, Scenario } from './scenario.js';
import { FROM_ROUTER, USER } from './wire.js';

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;
const DCCP = 33;
const IPCOMP = 108;

/** A packet on its way: where it goes in, and what it is. */
export interface Sent {
  port: number;
  packet: PacketSpec;
}

/** A rule that only counts, and packets of which the last is the one that counts. */
export interface MatchRow {
  rule: string;
  yes: Sent[];
  no: Sent[];
  /** TABLE CHAIN */
  where: string;
  /** Rules before it: lines of iptables-restore without COMMIT. */
  before: string[];
}

/** A rule that does something: it and what shows that, all of one table. */
export interface TargetRow {
  /** Lines of iptables-restore without COMMIT. */
  rules: string[];
  /** Packets before the one that counts, and that one. */
  packets: Sent[];
  /** What comes out for the last packet, as `describe` says it. `undefined`: nothing does. */
  out: RegExp | undefined;
}

/** Unreachable. */
const NOWHERE = '100.64.0.1';
const SRC = '10.1.0.2';
const DST = '10.2.0.2';

const there = (l4: Transport, more: Partial<PacketSpec> = {}): Sent => ({
  port: 0,
  packet: { src: SRC, dst: DST, l4, ...more },
});
const back = (l4: Transport, more: Partial<PacketSpec> = {}): Sent => ({
  port: 2,
  packet: { src: DST, dst: SRC, l4, ...more },
});
const from = (port: number, l4: Transport, dst = DST): Sent => ({
  port,
  packet: { src: '10.1.0.1', dst, l4 },
});
const udp = (sport = 1000, dport = 53, payload = ''): Transport => ({ proto: UDP, sport, dport, payload });
const tcp = (sport = 1000, dport = 80, flags = SYN, more: { options?: string; payload?: string } = {}): Transport => ({
  proto: TCP,
  sport,
  dport,
  seq: 1000,
  ack: flags & ACK ? 5000 : 0,
  flags,
  window: 1000,
  ...more,
});
const icmp = (type: number, code = 0): Transport => ({ proto: ICMP, type, code, rest: 0x10001 });
const sctp = (chunks: string, sport = 1000, dport = 80): Transport => ({ proto: SCTP, sport, dport, tag: 7, chunks });
const raw = (proto: number, hex: string): Transport => ({ proto, raw: hex });
const dccp = (type: number, options = '', sport = 1000, dport = 80): Transport => {
  const header = [4, 12, 0, 8, 8, 8, 8, 12, 8, 8][type] ?? 12;
  const words = ((12 + header) * 2 + options.length) / 8;
  const bytes = (n: number, value: number): string => value.toString(16).padStart(2 * n, '0');
  return raw(
    DCCP,
    `${bytes(2, sport)}${bytes(2, dport)}${bytes(1, words)}000000${bytes(1, type << 1)}000001${'00'.repeat(header)}${options}`,
  );
};
const DATA = '0003001400000001000000000000000064617461';
const UNFRAGMENTED_DATA_BUT_ITS_END = '0002001400000001000000000000000064617461';
const SACK = '03000010000000010000100000000000';

const rows: MatchRow[] = [];
function match(rule: string, yes: Sent | Sent[], no: Sent | Sent[], where = 'mangle FORWARD'): void {
  rows.push({ rule, yes: [yes].flat(), no: [no].flat(), where, before: [] });
}
/** A rule and its negation. */
function both(rule: string, negated: string, yes: Sent | Sent[], no: Sent | Sent[], where?: string): void {
  match(rule, yes, no, where);
  match(negated, no, yes, where);
}

/** The last two rules need others before them. */
function prepare(before: string[]): void {
  for (const row of rows.slice(-2)) row.before = before;
}
/** The last `count` rules ask for what UDP has left in their lists. */
function remember(count = 2, more = ''): void {
  for (const row of rows.slice(-count)) {
    const name = /--name (\S+)/.exec(row.rule)![1]!;
    row.before = ['*mangle', `-A PREROUTING -s 10.1.0.0/24 -p udp -m recent --set --name ${name} ${more}`.trimEnd()];
  }
}

const U = there(udp());
const T = there(tcp());

// ---- what a packet says by itself ----
both('-p tcp -m tcp --sport 1000', '-p tcp -m tcp ! --sport 1000', T, there(tcp(1001)));
both('-p tcp -m tcp --dport 80:81', '-p tcp -m tcp ! --dport 80:81', there(tcp(1, 81)), there(tcp(1, 82)));
both('-p tcp -m tcp --syn', '-p tcp -m tcp ! --syn', T, there(tcp(1, 80, SYN | ACK)));
both(
  '-p tcp -m tcp --tcp-flags SYN,RST,FIN FIN',
  '-p tcp -m tcp ! --tcp-flags SYN,RST,FIN FIN',
  there(tcp(1, 80, FIN | ACK)),
  there(tcp(1, 80, RST | FIN)),
);
both(
  '-p tcp -m tcp --tcp-option 8',
  '-p tcp -m tcp ! --tcp-option 8',
  there(tcp(1, 80, SYN, { options: '0101080a0000000100000000' })),
  there(tcp(1, 80, SYN, { options: '020405b4' })),
);
both('-p udp -m udp --sport :1000', '-p udp -m udp ! --sport :1000', U, there(udp(1001)));
both('-p udp -m udp --dport 53', '-p udp -m udp ! --dport 53', U, there(udp(1, 54)));
both('-p icmp -m icmp --icmp-type 3/4', '-p icmp -m icmp ! --icmp-type 3/4', there(icmp(3, 4)), there(icmp(3, 3)));
both('-p tcp -m multiport --sports 1,1000:1002', '-p tcp -m multiport ! --sports 1,1000:1002', T, there(tcp(999)));
both('-p udp -m multiport --dports 52,53', '-p udp -m multiport ! --dports 52,53', U, there(udp(53, 1000)));
both('-p udp -m multiport --ports 53', '-p udp -m multiport ! --ports 53', there(udp(53, 9)), there(udp(9, 10)));
both('-m length --length 28:29', '-m length ! --length 28:29', U, there(udp(1, 2, 'xy')));
match('-m ttl --ttl-eq 63', U, there(udp(), { ttl: 63 }));
match('-m ttl ! --ttl-eq 63', there(udp(), { ttl: 63 }), U);
match('-m ttl --ttl-lt 63', there(udp(), { ttl: 63 }), U);
match('-m ttl --ttl-gt 63', there(udp(), { ttl: 65 }), U);
both('-m tos --tos 0x10/0x3f', '-m tos ! --tos 0x10/0x3f', there(udp(), { tos: 0xd0 }), there(udp(), { tos: 0x08 }));
both('-m dscp --dscp 0x2e', '-m dscp ! --dscp 0x2e', there(udp(), { tos: 0xbb }), there(udp(), { tos: 0x2e }));
both('-m dscp --dscp-class AF21', '-m dscp ! --dscp-class AF21', there(udp(), { tos: 0x48 }), U);
both('-m ecn --ecn-ip-ect 2', '-m ecn ! --ecn-ip-ect 2', there(udp(), { tos: 2 }), there(udp(), { tos: 3 }));
both('-p tcp -m ecn --ecn-tcp-cwr', '-p tcp -m ecn ! --ecn-tcp-cwr', there(tcp(1, 2, 0x90)), there(tcp(1, 2, 0x50)));
both('-p tcp -m ecn --ecn-tcp-ece', '-p tcp -m ecn ! --ecn-tcp-ece', there(tcp(1, 2, 0x50)), there(tcp(1, 2, 0x90)));
both('-m iprange --src-range 10.1.0.1-10.1.0.2', '-m iprange ! --src-range 10.1.0.1-10.1.0.2', U, back(udp()));
both('-m iprange --dst-range 10.2.0.2-10.2.0.9', '-m iprange ! --dst-range 10.2.0.2-10.2.0.9', U, back(udp()));
both('-m mac --mac-source 02:00:00:00:01:01', '-m mac ! --mac-source 02:00:00:00:01:01', U, back(udp()));
both('-m string --algo bm --string GET', '-m string --algo kmp ! --string GET', there(udp(1, 2, 'a GET')), U);
both(
  '-m string --algo bm --hex-string "a|0d0a|"',
  '-m string --algo kmp ! --hex-string "a|0d0a|"',
  there(udp(1, 2, 'xa\r\n')),
  there(udp(1, 2, 'xa\n\r')),
);
match('-m string --algo bm --string get --icase', there(udp(1, 2, 'GeT')), there(udp(1, 2, 'GE')));
match('-m string --algo bm --string ab --from 29', there(udp(1, 2, 'xabab')), there(udp(1, 2, 'abxx')));
match('-m string --algo bm --string ab --to 30', there(udp(1, 2, 'ab')), there(udp(1, 2, 'xxxxab')));
both('-m u32 --u32 "6&0xFF=17"', '-m u32 ! --u32 "6&0xFF=17"', U, T);
match('-m bpf --bytecode "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0"', T, U);
both(
  '-p tcp -m tcpmss --mss 1400:1460',
  '-p tcp -m tcpmss ! --mss 1400:1460',
  there(tcp(1, 80, SYN, { options: '020405b4' })),
  there(tcp(1, 80, SYN, { options: '02040218' })),
);
both(
  '-p ah -m ah --ahspi 5:6',
  '-p ah -m ah ! --ahspi 5:6',
  there(raw(AH, '060400000000000600000001')),
  there(raw(AH, '060400000000000700000001')),
);
both(
  '-p esp -m esp --espspi 5',
  '-p esp -m esp ! --espspi 5',
  there(raw(ESP, '0000000500000001')),
  there(raw(ESP, '0000000600000001')),
);
both(
  '-p 108 -m ipcomp --ipcompspi 5',
  '-p 108 -m ipcomp ! --ipcompspi 5',
  there(raw(IPCOMP, '06000005')),
  there(raw(IPCOMP, '06000006')),
);
match('-p 108 -m ipcomp --ipcompspi 7 --compres', there(raw(IPCOMP, '06000007')), there(raw(IPCOMP, '06000008')));
both('-p sctp -m sctp --sport 1000', '-p sctp -m sctp ! --sport 1000', there(sctp(DATA)), there(sctp(DATA, 1)));
both('-p sctp -m sctp --dport 80:90', '-p sctp -m sctp ! --dport 80:90', there(sctp(DATA)), there(sctp(DATA, 1, 79)));
both(
  '-p sctp -m sctp --chunk-types any DATA,INIT',
  '-p sctp -m sctp ! --chunk-types any DATA,INIT',
  there(sctp(SACK + DATA)),
  there(sctp(SACK)),
);
match('-p sctp -m sctp --chunk-types all DATA,SACK', there(sctp(SACK + DATA)), there(sctp(DATA)));
match('-p sctp -m sctp --chunk-types only DATA', there(sctp(DATA + DATA)), there(sctp(DATA + SACK)));
match('-p sctp -m sctp --chunk-types any DATA:BE', there(sctp(DATA)), there(sctp(UNFRAGMENTED_DATA_BUT_ITS_END)));
match('-p sctp -m sctp --chunk-types any DATA:e', there(sctp(UNFRAGMENTED_DATA_BUT_ITS_END)), there(sctp(DATA)));
both('-p dccp -m dccp --sport 1000', '-p dccp -m dccp ! --sport 1000', there(dccp(2)), there(dccp(2, '', 1)));
both('-p dccp -m dccp --dport 80', '-p dccp -m dccp ! --dport 80', there(dccp(2)), there(dccp(2, '', 1, 1)));
both(
  '-p dccp -m dccp --dccp-types REQUEST,INVALID',
  '-p dccp -m dccp ! --dccp-types REQUEST,INVALID',
  there(dccp(12)),
  there(dccp(1)),
);
both(
  '-p dccp -m dccp --dccp-option 5',
  '-p dccp -m dccp ! --dccp-option 5',
  there(dccp(1, '00000503')),
  there(dccp(1, '00002503')),
);

// ---- where it comes from and goes to ----
const toRouter: Sent = { port: 0, packet: { src: SRC, dst: '10.2.0.1', l4: udp() } };
const PRE = 'mangle PREROUTING';
both('-m addrtype --dst-type LOCAL', '-m addrtype ! --dst-type LOCAL', toRouter, U, PRE);
both(
  '-m addrtype --src-type UNICAST',
  '-m addrtype ! --src-type UNICAST',
  U,
  { ...U, packet: { ...U.packet, src: '10.1.0.1' } },
  PRE,
);
match(
  '-m addrtype --dst-type LOCAL --limit-iface-in',
  { port: 0, packet: { src: SRC, dst: '10.1.0.1', l4: udp() } },
  toRouter,
  PRE,
);
match('-m addrtype --src-type UNICAST --limit-iface-out', U, {
  ...toRouter,
  packet: { ...toRouter.packet, dst: '224.0.0.9' },
});
match('-m rpfilter', U, { ...U, port: 1 }, PRE);
match('-m rpfilter --invert', { ...U, port: 1 }, U, PRE);
match('-m rpfilter --loose', { ...U, port: 1 }, { port: 1, packet: { src: NOWHERE, dst: DST, l4: udp() } }, PRE);
match(
  '-m rpfilter --loose --accept-local',
  { port: 0, packet: { src: '10.2.0.1', dst: DST, l4: udp() } },
  { port: 1, packet: { src: NOWHERE, dst: DST, l4: udp() } },
  PRE,
);
match('-m rpfilter --validmark', U, { ...U, port: 2 }, PRE);
const marked = ['*mangle', '-A PREROUTING -p udp -j MARK --set-mark 0x12'];
both('-m mark --mark 0x2/0xf', '-m mark ! --mark 0x2/0xf', U, T);
prepare(marked);
const OUT = 'mangle OUTPUT';
const root = from(FROM_ROUTER, udp());
const user = from(USER, udp());
both('-m owner --uid-owner 1000', '-m owner ! --uid-owner 1000', user, root, OUT);
both('-m owner --gid-owner 999-1001', '-m owner ! --gid-owner 999-1001', user, root, OUT);
both('-m owner --socket-exists', '-m owner ! --socket-exists', user, U, 'mangle POSTROUTING');
match('-p udp -m comment --comment "a b"', U, T);

// ---- connections ----
const U_BACK = back(udp(53, 1000));
const SEEN = [U, U_BACK];
both('-m conntrack --ctstate NEW', '-m conntrack ! --ctstate NEW', U, SEEN);
both('-m state --state ESTABLISHED', '-m state ! --state ESTABLISHED', SEEN, U);
both('-m conntrack --ctproto udp', '-m conntrack ! --ctproto udp', U, T);
both('-m conntrack --ctorigsrc 10.1.0.0/24', '-m conntrack ! --ctorigsrc 10.1.0.0/24', SEEN, back(udp()));
both('-m conntrack --ctorigdst 10.2.0.2', '-m conntrack ! --ctorigdst 10.2.0.2', SEEN, back(udp()));
both('-m conntrack --ctreplsrc 10.2.0.2', '-m conntrack ! --ctreplsrc 10.2.0.2', U, back(udp()));
both('-m conntrack --ctrepldst 10.1.0.2', '-m conntrack ! --ctrepldst 10.1.0.2', U, back(udp()));
both('-m conntrack --ctorigsrcport 1000', '-m conntrack ! --ctorigsrcport 1000', SEEN, there(udp(999)));
both('-m conntrack --ctorigdstport 53:54', '-m conntrack ! --ctorigdstport 53:54', SEEN, there(udp(1, 55)));
both('-m conntrack --ctreplsrcport 53', '-m conntrack ! --ctreplsrcport 53', U, there(udp(1, 55)));
both('-m conntrack --ctrepldstport 1000', '-m conntrack ! --ctrepldstport 1000', U, there(udp(1, 55)));
both('-m conntrack --ctstatus SEEN_REPLY', '-m conntrack ! --ctstatus SEEN_REPLY', SEEN, U);
both('-m conntrack --ctexpire 25:30', '-m conntrack ! --ctexpire 25:30', [U, U], [there(tcp()), there(tcp())]);
match('-m conntrack --ctdir REPLY', SEEN, U);
match('-m conntrack --ctdir ORIGINAL', U, SEEN);
const connmarked = ['*mangle', '-A PREROUTING -p udp -j CONNMARK --set-mark 5'];
both('-m connmark --mark 5/0xf', '-m connmark ! --mark 5/0xf', U, T);
prepare(connmarked);
both('-m connlabel --label 3', '-m connlabel ! --label 3', [T, T], [U, U]);
prepare(['*mangle', '-A PREROUTING -p tcp -m connlabel --label 3 --set']);
match('-p tcp -m connlabel --label 4 --set', T, U);
both(
  '-m connbytes --connbytes 2: --connbytes-dir original --connbytes-mode packets',
  '-m connbytes ! --connbytes 2: --connbytes-dir original --connbytes-mode packets',
  [U, U],
  U,
);
match(
  '-m connbytes --connbytes 29:40 --connbytes-dir reply --connbytes-mode bytes',
  [U, back(udp(53, 1000, 'x'))],
  SEEN,
);
match(
  '-m connbytes --connbytes 30:30 --connbytes-dir both --connbytes-mode avgpkt',
  [U, back(udp(53, 1000, 'four'))],
  SEEN,
);
both('-m connlimit --connlimit-upto 1', '-m connlimit ! --connlimit-upto 1', U, [U, there(udp(1001))]);
both('-m connlimit --connlimit-above 1', '-m connlimit ! --connlimit-above 1', [U, there(udp(1001))], U);
const other = (src: string, dst: string): Sent => ({ port: 0, packet: { src, dst, l4: udp() } });
match(
  '-m connlimit --connlimit-above 1 --connlimit-mask 24 --connlimit-saddr',
  [U, other('10.1.0.3', DST)],
  [U, { port: 1, packet: { src: '203.0.113.5', dst: DST, l4: udp() } }],
);
match(
  '-m connlimit --connlimit-above 1 --connlimit-daddr',
  [U, other('10.1.0.3', DST)],
  [U, other('10.1.0.3', '10.2.0.3')],
);
both(
  '-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 7',
  '-m cluster --cluster-total-nodes 2 ! --cluster-local-node 1 --cluster-hash-seed 7',
  other('10.1.0.2', DST),
  other('10.1.0.5', DST),
);
both(
  '-m cluster --cluster-total-nodes 2 --cluster-local-nodemask 1 --cluster-hash-seed 7',
  '-m cluster --cluster-total-nodes 2 ! --cluster-local-nodemask 1 --cluster-hash-seed 7',
  other('10.1.0.2', DST),
  other('10.1.0.5', DST),
);
const command = (flags: number, payload: string, seq: number, ack: number): Transport => ({
  proto: TCP,
  sport: 1030,
  dport: 21,
  seq,
  ack,
  flags,
  window: 1000,
  payload,
});
const EXPECTED: Sent[] = [
  there(command(SYN, '', 1000, 0)),
  back({ proto: TCP, sport: 21, dport: 1030, seq: 5000, ack: 1001, flags: SYN | ACK, window: 1000 }),
  there(command(ACK, '', 1001, 5001)),
  there(command(ACK | 8, 'NOOP\r\n', 1001, 5001)),
  there(command(ACK | 8, 'PORT 10,1,0,2,4,7\r\n', 1007, 5001)),
  back({ proto: TCP, sport: 20, dport: 1031, seq: 1, ack: 0, flags: SYN, window: 1000 }),
];
both('-m helper --helper ftp', '-m helper ! --helper ftp', EXPECTED, U);
prepare(['*raw', '-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp']);

// ---- what rules remember ----
match('-m limit --limit 1/hour --limit-burst 2', [U, U], [U, U, U]);
const hashed = (more: string): string => `-m hashlimit ${more} --hashlimit-name v${rows.length}`;
both(
  hashed('--hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-mode srcport'),
  hashed('! --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-mode srcport'),
  [U, U, there(udp(1001))],
  [U, U, U],
);
both(
  hashed('--hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode dstip'),
  hashed('! --hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode dstip'),
  [U, U],
  [U, other(SRC, '10.2.0.3')],
);
match(
  hashed('--hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-srcmask 24'),
  [U, other('10.1.0.3', DST)],
  [U, back(udp())],
);
match(
  hashed('--hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode dstip --hashlimit-dstmask 31'),
  [U, other(SRC, '10.2.0.3')],
  [U, other(SRC, '10.2.0.4')],
);
// Buckets, entries and the collector decide nothing by themselves: the second host finds its own bucket full.
match(
  hashed(
    '--hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-htable-size 16 ' +
      '--hashlimit-htable-max 20 --hashlimit-htable-gcinterval 500 --hashlimit-htable-expire 60000',
  ),
  [U, U],
  [U, other('10.1.0.3', DST)],
);
match(
  hashed('--hashlimit-above 1/hour --hashlimit-burst 2 --hashlimit-rate-match --hashlimit-rate-interval 3600'),
  [U, U, U, U],
  [U, U, U],
);
match(
  // Of a few packets that come at once: more would be a matter of time.
  `-p udp -m udp --dport 2 ${hashed('--hashlimit-above 1kb/s --hashlimit-burst 2kb --hashlimit-mode srcip')}`,
  Array(40).fill(there(udp(1, 2, 'x'.repeat(100)))),
  there(udp(1, 2)),
);
const list = (): string => `--name v${rows.length}`;
match(`-m recent --set ${list()}`, U, []);
match(`-m recent ! --set ${list()}`, [], U);
both(`-m recent --rcheck ${list()}`, `-m recent ! --rcheck ${list()}`, U, back(udp()));
remember();
both(`-m recent --update ${list()}`, `-m recent ! --update ${list()}`, U, back(udp()));
remember();
both(`-m recent --remove ${list()}`, `-m recent ! --remove ${list()}`, U, back(udp()));
remember();
match(`-m recent --rcheck --seconds 60 --reap ${list()} --rsource`, U, back(udp()));
remember(1);
match(`-m recent --rcheck --hitcount 2 ${list()}`, [U, U], U);
remember(1);
match(`-m recent --rcheck --rttl ${list()}`, U, [U, there(tcp(), { ttl: 60 })]);
remember(1);
match(`-m recent --rcheck ${list()} --rdest`, [U, other('10.1.0.9', DST)], [U, back(udp())]);
remember(1, '--rdest');
match(`-m recent --rcheck ${list()} --mask 255.255.255.0`, [U, there(tcp(), { src: '10.1.0.77' })], back(tcp()));
remember(1, '--mask 255.255.255.0');
both('-m quota --quota 60', '-m quota ! --quota 60', [U, U], [U, U, U]);
both(
  '-m statistic --mode nth --every 3 --packet 1',
  '-m statistic --mode nth ! --every 3 --packet 1',
  [U, U],
  [U, U, U],
);
match('-m statistic --mode random --probability 1', U, []);
match('-m statistic --mode random --probability 0', [], U);
match('-m statistic --mode random ! --probability 0', U, []);
match('-m statistic --mode random ! --probability 1', [], U);

// ---- the time, as of WEDNESDAY ----
/** When the rows about time hold: noon, UTC. */
export const WEDNESDAY = Date.UTC(2030, 5, 5, 12);
const time = (rule: string, holds: boolean): void => match(`-m time ${rule}`, holds ? U : [], holds ? [] : U);
time('--datestart 2030-06-05', true);
time('--datestart 2030-06-06', false);
time('--datestop 2030-06-06', true);
time('--datestop 2030-06-05', false);
time('--timestart 11:00', true);
time('--timestart 13:00', false);
time('--timestop 13:00', true);
time('--timestop 11:00', false);
time('--timestart 22:00 --timestop 13:00 --weekdays Tue --contiguous', true);
time('--timestart 22:00 --timestop 13:00 --weekdays Wed --contiguous', false);
time('--weekdays Wed', true);
time('--weekdays Thu', false);
time('! --weekdays Thu', true);
time('! --weekdays Wed', false);
time('--monthdays 5', true);
time('--monthdays 6', false);
time('! --monthdays 6', true);
time('! --monthdays 5', false);
for (const zone of ['--utc', '--localtz', '--kerneltz']) {
  time(`--timestart 11:00 ${zone}`, true);
  time(`--timestart 13:00 ${zone}`, false);
}

export const MATCH_ROWS: readonly MatchRow[] = rows;

// ---- targets ----
const targets: TargetRow[] = [];
function target(rules: string | string[], out: RegExp | undefined, ...packets: Sent[]): void {
  targets.push({ rules: [rules].flat(), packets, out });
}
/** A rule of mangle PREROUTING that sets a mark, which TOS then shows. */
function marks(rule: string, mark: string, ...packets: Sent[]): void {
  const show = `-A FORWARD -m mark --mark ${mark} -j TOS --set-tos 0x10`;
  target(['*mangle', '-A PREROUTING -j MARK --set-mark 0x30', `-A PREROUTING ${rule}`, show], /tos=10/, ...packets);
}
/** The same of a connection's. */
function connmarks(rule: string, mark: string): void {
  const show = `-A FORWARD -m connmark --mark ${mark} -j TOS --set-tos 0x10`;
  target(
    ['*mangle', '-A PREROUTING -j MARK --set-mark 0x35', '-A PREROUTING -j CONNMARK --set-mark 0x12', rule, show],
    /tos=10/,
    U,
  );
}
marks('-j MARK --set-mark 5', '5', U);
marks('-j MARK --set-xmark 0x5/0xf', '0x35', U);
marks('-j MARK --and-mark 0x11', '0x10', U);
marks('-j MARK --or-mark 1', '0x31', U);
marks('-j MARK --xor-mark 0x11', '0x21', U);
connmarks('-A PREROUTING -j CONNMARK --set-mark 7', '7');
connmarks('-A PREROUTING -j CONNMARK --set-xmark 0x3/0xf', '0x13');
connmarks('-A PREROUTING -j CONNMARK --and-mark 0x10', '0x10');
connmarks('-A PREROUTING -j CONNMARK --or-mark 1', '0x13');
connmarks('-A PREROUTING -j CONNMARK --xor-mark 3', '0x11');
connmarks('-A PREROUTING -j CONNMARK --save-mark', '0x35');
connmarks('-A PREROUTING -j CONNMARK --save-mark --nfmask 0xf --ctmask 0xf', '0x15');
connmarks('-A PREROUTING -j CONNMARK --save-mark --mask 0xf0', '0x32');
connmarks('-A PREROUTING -j CONNMARK --set-xmark 0/0 --left-shift-mark 4', '0x120');
connmarks('-A PREROUTING -j CONNMARK --set-xmark 0/0 --right-shift-mark 4', '0x1');
target(
  [
    '*mangle',
    '-A PREROUTING -j CONNMARK --set-mark 0x12',
    '-A PREROUTING -j CONNMARK --restore-mark',
    '-A FORWARD -m mark --mark 0x12 -j TOS --set-tos 0x10',
  ],
  /tos=10/,
  U,
);
for (const [tuple, mark] of [
  ['--hmark-tuple src --hmark-mod 1 --hmark-offset 9', '9'],
  ['--hmark-tuple dst,sport,dport --hmark-mod 1 --hmark-offset 9', '9'],
  [
    '--hmark-src-prefix 24 --hmark-dst-prefix 24 --hmark-sport-mask 0xff --hmark-dport-mask 0xff --hmark-proto-mask 0xff --hmark-mod 1 --hmark-offset 9',
    '9',
  ],
  ['--hmark-sport 0x100 --hmark-dport 0x200 --hmark-mod 1 --hmark-offset 9', '9'],
  ['--hmark-spi-mask 0xff --hmark-spi 0x100 --hmark-mod 1 --hmark-offset 9', '9'],
] as const)
  marks(`-j HMARK ${tuple} --hmark-rnd 0xfeedbeef`, mark, U);

const mangle = (rule: string, out: RegExp, ...packets: Sent[]): void =>
  target(['*mangle', `-A FORWARD ${rule}`], out, ...packets);
mangle('-j TOS --set-tos 0x08/0x3f', /tos=c8/, there(udp(), { tos: 0xd0 }));
mangle('-j TOS --and-tos 0xf0', /tos=30/, there(udp(), { tos: 0x3c }));
mangle('-j TOS --or-tos 0x04', /tos=14/, there(udp(), { tos: 0x10 }));
mangle('-j TOS --xor-tos 0x0c', /tos=18/, there(udp(), { tos: 0x14 }));
mangle('-j DSCP --set-dscp 0x2e', /tos=bb/, there(udp(), { tos: 3 }));
mangle('-j DSCP --set-dscp-class AF21', /tos=48/, U);
mangle('-j TTL --ttl-set 20', /ttl=20/, U);
mangle('-j TTL --ttl-dec 3', /ttl=60/, U);
mangle('-j TTL --ttl-inc 2', /ttl=65/, U);
mangle('-p tcp -j ECN --ecn-tcp-remove', /TCP \S+ > \S+ ACK seq/, there(tcp(1000, 80, ACK | 0xc0)));
mangle(
  '-p tcp -m tcp --syn -j TCPMSS --set-mss 1000',
  /OPTIONS 020403e8/,
  there(tcp(1000, 80, SYN, { options: '020405b4' })),
);
mangle(
  '-p tcp -m tcp --syn -j TCPMSS --clamp-mss-to-pmtu',
  /OPTIONS 020404ec/,
  there(tcp(1000, 80, SYN, { options: '0204ffff' })),
);
mangle(
  '-p tcp -j TCPOPTSTRIP --strip-options wscale',
  /OPTIONS 020405b401010101/,
  there(tcp(1000, 80, SYN, { options: '020405b401030307' })),
);
mangle('-p udp -j CHECKSUM --checksum-fill', /UDP/, U);
const LOGGED =
  '--log-level 4 --log-prefix "a " --log-tcp-sequence --log-tcp-options --log-ip-options --log-uid --log-macdecode';
mangle(`-j LOG ${LOGGED}`, /UDP/, U);
mangle('-j NFLOG --nflog-group 5 --nflog-prefix a --nflog-size 60 --nflog-threshold 2', /UDP/, U);
mangle('-j NFLOG --nflog-range 60', /UDP/, U);
target(['*mangle', '-A POSTROUTING -j CLASSIFY --set-class 1:5'], /UDP/, U);
for (const options of [
  '--queue-num 65000',
  '--queue-balance 65000:65001',
  '--queue-balance 65000:65001 --queue-cpu-fanout',
])
  target(['*mangle', `-A FORWARD -j NFQUEUE ${options}`], undefined, U);
mangle('-j NFQUEUE --queue-num 65000 --queue-bypass', /UDP/, U);

const filter = (rule: string, out: RegExp | undefined, ...packets: Sent[]): void =>
  target(['*filter', `-A FORWARD ${rule}`], out, ...packets);
for (const [kind, answer] of [
  ['icmp-net-unreachable', 'type=3 code=0'],
  ['icmp-host-unreachable', 'type=3 code=1'],
  ['icmp-proto-unreachable', 'type=3 code=2'],
  ['icmp-port-unreachable', 'type=3 code=3'],
  ['icmp-net-prohibited', 'type=3 code=9'],
  ['icmp-host-prohibited', 'type=3 code=10'],
  ['icmp-admin-prohibited', 'type=3 code=13'],
] as const)
  filter(`-j REJECT --reject-with ${kind}`, new RegExp(`ICMP 10\\.1\\.0\\.1 > 10\\.1\\.0\\.2 ${answer}`), U);
filter('-p tcp -j REJECT --reject-with tcp-reset', /TCP 10\.2\.0\.2:80 > 10\.1\.0\.2:1000 RST,ACK seq=0 ack=1001/, T);

target(
  ['*mangle', '-A PREROUTING -j TEE --gateway 10.1.0.2', '-A OUTPUT -m ttl --ttl-eq 63 -j TOS --set-tos 4'],
  /^UDP 10\.1\.0\.2:1000 > 10\.2\.0\.2:53 .*ttl=63 tos=4 .*frag=4000\nUDP .*ttl=63 tos=0 .*frag=0/m,
  U,
);
target(['*mangle', '-A FORWARD -j TEE --gateway 10.3.0.9 --oif if2'], /ttl=63 .*frag=4000\nUDP .*ttl=63/m, U);

const nat = (rule: string, out: RegExp, ...packets: Sent[]): void => target(['*nat', `-A ${rule}`], out, ...packets);
nat('POSTROUTING -j SNAT --to-source 10.2.0.1', /UDP 10\.2\.0\.1:1000 >/, U);
nat('POSTROUTING -p udp -j SNAT --to-source 10.2.0.1:5000 --random', /UDP 10\.2\.0\.1:5000 >/, U);
nat('POSTROUTING -p udp -j SNAT --to-source 10.2.0.1:5000 --random-fully', /UDP 10\.2\.0\.1:5000 >/, U);
nat('POSTROUTING -j SNAT --to-source 10.2.0.4-10.2.0.4 --persistent', /UDP 10\.2\.0\.4:1000 >/, U);
nat('POSTROUTING -j MASQUERADE', /UDP 10\.2\.0\.1:1000 >/, U);
nat('POSTROUTING -p udp -j MASQUERADE --to-ports 5000', /UDP 10\.2\.0\.1:5000 >/, U);
nat('POSTROUTING -p udp -j MASQUERADE --to-ports 5000 --random', /UDP 10\.2\.0\.1:5000 >/, U);
nat('POSTROUTING -p udp -j MASQUERADE --to-ports 5000 --random-fully', /UDP 10\.2\.0\.1:5000 >/, U);
nat('PREROUTING -j DNAT --to-destination 10.2.0.3', /UDP \S+ > 10\.2\.0\.3:53/, U);
nat('PREROUTING -p udp -j DNAT --to-destination 10.2.0.3:54 --random', /UDP \S+ > 10\.2\.0\.3:54/, U);
nat('PREROUTING -j DNAT --to-destination 10.2.0.3 --persistent', /UDP \S+ > 10\.2\.0\.3:53/, U);
nat(
  'PREROUTING -j REDIRECT',
  /ICMP 10\.2\.0\.2 > 10\.1\.0\.2 type=3 code=3.*about UDP 10\.1\.0\.2:1000 > 10\.2\.0\.2:53/,
  U,
);
nat('PREROUTING -p tcp -j REDIRECT --to-ports 81', /TCP 10\.2\.0\.2:80 > 10\.1\.0\.2:1000 RST,ACK/, T);
nat('PREROUTING -p tcp -j REDIRECT --to-ports 81 --random', /TCP 10\.2\.0\.2:80 > 10\.1\.0\.2:1000 RST,ACK/, T);
nat('PREROUTING -j NETMAP --to 10.2.0.8/29', /UDP \S+ > 10\.2\.0\.10:53/, U);

/** What CT did is shown by the TOS that `shown` finds reason to set. */
function tracked(rule: string, shown: string, ...packets: Sent[]): void {
  target(
    ['*raw', `-A PREROUTING ${rule}`, 'COMMIT', '*mangle', `-A FORWARD ${shown} -j TOS --set-tos 0x10`],
    /tos=10/,
    ...packets,
  );
}
tracked('-j CT --notrack', '-m conntrack --ctstate UNTRACKED', U);
tracked('-j NOTRACK', '-m conntrack --ctstate UNTRACKED', U);
tracked('-p tcp -m tcp --dport 21 -j CT --helper ftp', '-m helper --helper ftp', ...EXPECTED);
tracked('-j CT --ctevents new', '-m conntrack --ctstate NEW', U);
tracked('-j CT --expevents new', '-m conntrack --ctstate NEW', U);
tracked('-i if0 -j CT --zone 5', '-m conntrack --ctstate NEW', U, U_BACK);
tracked('-i if0 -j CT --zone-orig 5', '-m conntrack --ctstate ESTABLISHED', U, U_BACK);
tracked(
  '-i if0 -j CT --zone-reply 5\n-A PREROUTING -i if2 -j CT --zone 5',
  '-m conntrack --ctstate ESTABLISHED',
  U,
  U_BACK,
);
export const TARGET_ROWS: readonly TargetRow[] = targets;

/** Options that no row can show, each with the reason. */
export const NO_VERDICT: Readonly<Record<string, string>> = {
  'match bpf object-pinned': 'refused: the program is in the kernel',
  ...Object.fromEntries(
    ['strict', 'reqid', 'spi', 'tunnel-src', 'tunnel-dst', 'proto', 'mode', 'next'].map((option) => [
      `match policy ${option}`,
      'refused: the queue does not tell',
    ]),
  ),
  'match owner suppl-groups': 'refused: the queue does not tell them',
  'target CT timeout': 'refused: there are no timeout policies',
  'target ECN ecn-tcp-cwr': 'refused by the tool, too',
  'target ECN ecn-tcp-ece': 'refused by the tool, too',
  'target ECN ecn-ip-ect': 'refused by the tool, too',
};

/** Extensions whose verdicts take more than a packet or two, and the tests that give them: every option stands there. */
export const JUDGED_IN: Readonly<Record<string, string>> = {
  CLASSIFY: 'test/net/uplinks.test.ts',
  rateest: 'test/program/rateest.test.ts',
  set: 'test/program/set.test.ts',
  SET: 'test/program/set.test.ts',
  RATEEST: 'test/program/rateest.test.ts',
  realm: 'test/net/realm.test.ts',
  physdev: 'test/net/bridge.test.ts',
  policy: 'test/pipeline/policy.test.ts',
  pkttype: 'test/net/pkttype.test.ts',
};

/** What holds always, or never. */
export const ONE_WAY: ReadonlySet<string> = new Set(['match recent set', 'match recent ! set']);

/** All rows that only count in one ruleset, and all their packets: for the judge. */
export function matchScenario(): Scenario {
  const tables = new Map<string, string[]>();
  const add = (table: string, line: string): void => void tables.set(table, [...(tables.get(table) ?? []), line]);
  const events: PacketEvent[] = [];
  for (const { rule, where, before, yes, no } of rows) {
    const [table, chain] = where.split(' ') as [string, string];
    for (const line of before.slice(1)) add(before[0]!.slice(1), line);
    add(table, `-A ${chain} ${rule}`);
    // What has no way back hutter refuses itself (docs/DIFFERENCES.md).
    const judged = [...yes, ...no].filter(({ packet }) => packet.src !== NOWHERE);
    for (const { port, packet } of judged) events.push(eventOf(events.length + 1, port, packet));
  }
  const rules = [...tables].map(([table, lines]) => [`*${table}`, ...lines, 'COMMIT', ''].join('\n')).join('');
  return { seed: 0, rules, events };
}

/** One row's: for the judge. */
export const targetScenario = ({ rules, packets }: TargetRow): Scenario => ({
  seed: 0,
  rules: [...rules, 'COMMIT', ''].join('\n'),
  events: packets.map(({ port, packet }, i) => eventOf(i + 1, port, packet)),
});

const eventOf = (id: number, port: number, packet: PacketSpec): PacketEvent => ({
  kind: 'packet',
  id,
  flow: id,
  way: 0,
  port,
  packet: { ...packet, id: 1000 + id },
});
