/**
 * LOG's line against net/netfilter/nf_log_syslog.c, case by case. The kernel prints such lines for the first namespace
 * only (nf_log_all_netns), where tests don't go: the expected texts are derived from its source.
 */
import t from 'tap';
import { formatLogRecord } from '../../src/control/log.js';
import { LogRecord } from '../../src/dataplane/shared.js';

const IF0 = { name: 'if0', mac: Uint8Array.from([2, 0, 0, 0, 0, 1]) };
const TUN = { name: 'tun3', mac: new Uint8Array(0) };
const INTERFACES = new Map([
  [1, IF0],
  [2, { name: 'if1', mac: Uint8Array.from([2, 0, 0, 0, 0, 2]) }],
  [3, TUN],
]);

interface Fields {
  level?: number;
  options?: number;
  indev?: number;
  outdev?: number;
  physindev?: number;
  physoutdev?: number;
  mark?: number;
  uid?: number;
  gid?: number;
  mac?: number[];
  prefix?: string;
}

function record(fields: Fields, packet: number[]): Uint8Array {
  const prefix = Buffer.from(fields.prefix ?? '', 'latin1');
  const mac = Uint8Array.from([...(fields.mac ?? []), 0, 0, 0, 0, 0, 0, 0, 0]);
  const words = new Int32Array(LogRecord.WORDS);
  words[LogRecord.NUMBER] = fields.level ?? 4;
  words[LogRecord.OPTIONS] = fields.options ?? 0;
  words[LogRecord.INDEV] = fields.indev ?? 0;
  words[LogRecord.OUTDEV] = fields.outdev ?? 0;
  words[LogRecord.MARK] = fields.mark ?? 0;
  words[LogRecord.PHYSINDEV] = fields.physindev ?? 0;
  words[LogRecord.PHYSOUTDEV] = fields.physoutdev ?? 0;
  words[LogRecord.UID] = fields.uid ?? -1;
  words[LogRecord.GID] = fields.gid ?? -1;
  words[LogRecord.MAC_LENGTH] = fields.mac?.length ?? 0;
  words[LogRecord.MAC_HIGH] = new DataView(mac.buffer).getInt32(0);
  words[LogRecord.MAC_LOW] = new DataView(mac.buffer).getInt32(4);
  words[LogRecord.PREFIX_LENGTH] = prefix.length;
  return Buffer.concat([new Uint8Array(words.buffer), prefix, Uint8Array.from(packet)]);
}

const line = (fields: Fields, packet: number[]): string => {
  // A record may begin anywhere in memory.
  const odd = Buffer.concat([Buffer.from([0]), record(fields, packet)]).subarray(1);
  return formatLogRecord(
    odd,
    (ifindex) => INTERFACES.get(ifindex),
    () => undefined,
  );
};

const u16 = (value: number): number[] => [value >> 8, value & 255];
const u32 = (value: number): number[] => [value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255];

interface Ip {
  tos?: number;
  id?: number;
  frag?: number;
  ttl?: number;
  options?: number[];
  /** Total length, where it isn't what follows. */
  length?: number;
}
function ip(protocol: number, body: number[], { tos = 0, id = 1, frag = 0, ttl = 64, options = [], length }: Ip = {}) {
  const headerLength = 20 + options.length;
  return [
    0x40 | (headerLength / 4),
    tos,
    ...u16(length ?? headerLength + body.length),
    ...u16(id),
    ...u16(frag),
    ttl,
    protocol,
    0,
    0,
    ...[192, 168, 73, 4],
    ...[128, 61, 70, 200],
    ...options,
    ...body,
  ];
}
const tcp = (flags: number, options: number[] = [], reserved = 0): number[] => [
  ...u16(1025),
  ...u16(80),
  ...u32(0xfffffffe),
  ...u32(7),
  (((20 + options.length) / 4) << 4) | reserved,
  flags,
  ...u16(64240),
  0,
  0,
  ...u16(9),
  ...options,
];
const udp = [...u16(53), ...u16(4000), ...u16(12), 0, 0, 1, 2, 3, 4];
const HEAD = 'SRC=192.168.73.4 DST=128.61.70.200 ';

t.test('the head of the line', (t) => {
  const packet = ip(6, tcp(0x02));
  const rest = `${HEAD}LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=TCP SPT=1025 DPT=80 WINDOW=64240 RES=0x00 SYN URGP=9 `;
  t.equal(
    line({ indev: 1, outdev: 2, mac: [2, 0, 0, 0, 0, 9], prefix: '31337 connect attempt: ' }, packet),
    `<4>31337 connect attempt: IN=if0 OUT=if1 MAC=02:00:00:00:00:01:02:00:00:00:00:09:08:00 ${rest}`,
  );
  t.equal(line({ outdev: 2, level: 7 }, packet), `<7>IN= OUT=if1 ${rest}`, 'OUTPUT has no MAC');
  t.equal(line({ indev: 3 }, packet), `<4>IN=tun3 OUT= MAC= ${rest}`, 'a link without addresses');
  t.equal(line({ indev: 9 }, packet), `<4>IN=if9 OUT= MAC= ${rest}`, 'an interface that has gone');
  t.equal(
    line({ indev: 1, physindev: 2, mac: [2, 0, 0, 0, 0, 9] }, packet),
    `<4>IN=if0 OUT= PHYSIN=if1 MAC=02:00:00:00:00:01:02:00:00:00:00:09:08:00 ${rest}`,
  );
  t.equal(
    line({ indev: 3, outdev: 3, physindev: 1, physoutdev: 2 }, packet),
    `<4>IN=tun3 OUT=tun3 PHYSIN=if0 PHYSOUT=if1 MAC= ${rest}`,
  );
  t.equal(
    line({ indev: 1, options: 0x20, mac: [2, 0, 0, 0, 0, 9] }, packet),
    `<4>IN=if0 OUT= MACSRC=02:00:00:00:00:09 MACDST=02:00:00:00:00:01 MACPROTO=0800 ${rest}`,
  );
  t.equal(line({ mark: -1, prefix: 'ä' }, packet), `<4>äIN= OUT= ${rest}MARK=0xffffffff `);
  t.equal(
    line({ options: 8, uid: 1000, gid: 100, mark: 47 }, packet),
    `<4>IN= OUT= ${rest}UID=1000 GID=100 MARK=0x2f `,
  );
  t.equal(line({ uid: 1000, gid: 100 }, packet), `<4>IN= OUT= ${rest}`, 'uid only when asked for');
  t.end();
});

const cases: { name: string; options?: number; packet: number[]; text: string }[] = [
  {
    name: 'TOS and precedence, DF',
    packet: ip(17, udp, { tos: 0xb8, id: 0xffff, frag: 0x4000, ttl: 255 }),
    text: `${HEAD}LEN=32 TOS=0x18 PREC=0xA0 TTL=255 ID=65535 DF PROTO=UDP SPT=53 DPT=4000 LEN=12 `,
  },
  {
    name: 'first fragment, evil bit',
    packet: ip(17, udp, { frag: 0xa000 }),
    text: `${HEAD}LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=1 CE MF PROTO=UDP SPT=53 DPT=4000 LEN=12 `,
  },
  {
    name: 'later fragment of UDP',
    packet: ip(17, udp, { frag: 185 }),
    text: `${HEAD}LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=1 FRAG:185 PROTO=UDP `,
  },
  {
    name: 'later fragment of TCP',
    packet: ip(6, tcp(0), { frag: 185 }),
    text: `${HEAD}LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 FRAG:185 PROTO=TCP `,
  },
  {
    name: 'IP options',
    options: 4,
    packet: ip(17, udp, { options: [7, 3, 4, 0] }),
    text: `${HEAD}LEN=36 TOS=0x00 PREC=0x00 TTL=64 ID=1 OPT (07030400) PROTO=UDP SPT=53 DPT=4000 LEN=12 `,
  },
  {
    name: 'IP options, not asked for',
    packet: ip(17, udp, { options: [7, 3, 4, 0] }),
    text: `${HEAD}LEN=36 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=UDP SPT=53 DPT=4000 LEN=12 `,
  },
  {
    name: 'TCP: sequence, every flag, options',
    options: 3,
    packet: ip(6, tcp(0xff, [2, 4, 5, 0xb4], 0x0f)),
    text:
      `${HEAD}LEN=44 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=TCP SPT=1025 DPT=80 SEQ=4294967294 ACK=7 WINDOW=64240 ` +
      'RES=0x38 AE CWR ECE URG ACK PSH RST SYN FIN URGP=9 OPT (020405B4) ',
  },
  {
    name: 'TCP options that are cut off',
    options: 2,
    packet: ip(6, tcp(0x10).with(12, 0xf0)),
    text: `${HEAD}LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=TCP SPT=1025 DPT=80 WINDOW=64240 RES=0x00 ACK URGP=9 OPT (TRUNCATED)`,
  },
  {
    name: 'short TCP',
    packet: ip(6, tcp(0).slice(0, 19)),
    text: `${HEAD}LEN=39 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=TCP INCOMPLETE [19 bytes] `,
  },
  {
    name: 'short UDP, and UDP-Lite',
    packet: ip(17, udp.slice(0, 7)),
    text: `${HEAD}LEN=27 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=UDP INCOMPLETE [7 bytes] `,
  },
  {
    name: 'UDP-Lite',
    packet: ip(136, udp),
    text: `${HEAD}LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=UDPLITE SPT=53 DPT=4000 LEN=12 `,
  },
  {
    name: 'echo request',
    packet: ip(1, [8, 0, 0, 0, ...u16(4660), ...u16(2)]),
    text: `${HEAD}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=8 CODE=0 ID=4660 SEQ=2 `,
  },
  {
    name: 'timestamp, too short for one',
    packet: ip(1, [13, 0, 0, 0, ...u16(1), ...u16(2)]),
    text: `${HEAD}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=13 CODE=0 INCOMPLETE [8 bytes] `,
  },
  {
    name: 'short ICMP',
    packet: ip(1, [8, 0, 0, 0]),
    text: `${HEAD}LEN=24 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP INCOMPLETE [4 bytes] `,
  },
  {
    name: 'later fragment of ICMP',
    packet: ip(1, [8, 0, 0, 0, 0, 0, 0, 0], { frag: 1 }),
    text: `${HEAD}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 FRAG:1 PROTO=ICMP `,
  },
  {
    name: 'fragmentation needed quotes the packet',
    packet: ip(1, [3, 4, 0, 0, 0, 0, ...u16(1280), ...ip(17, udp.slice(0, 8), { length: 1400, frag: 0x4000 })]),
    text:
      `${HEAD}LEN=56 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=3 CODE=4 ` +
      `[${HEAD}LEN=1400 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=UDP SPT=53 DPT=4000 LEN=12 ] MTU=1280 `,
  },
  {
    name: 'a quote of TCP has no room for its header',
    packet: ip(1, [11, 0, 0, 0, 0, 0, 0, 0, ...ip(6, tcp(2).slice(0, 8), { length: 60 })]),
    text:
      `${HEAD}LEN=56 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=11 CODE=0 ` +
      `[${HEAD}LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=TCP INCOMPLETE [8 bytes] ] `,
  },
  {
    name: 'a quoted error is not opened',
    packet: ip(1, [3, 1, 0, 0, 0, 0, 0, 0, ...ip(1, [3, 1, 0, 0, 0, 0, 0, 0, ...ip(17, udp)])]),
    text:
      `${HEAD}LEN=88 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=3 CODE=1 ` +
      `[${HEAD}LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=3 CODE=1 ] `,
  },
  {
    name: 'redirect',
    packet: ip(1, [5, 1, 0, 0, 10, 0, 0, 1, ...ip(99, [], {})]),
    text:
      `${HEAD}LEN=48 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=5 CODE=1 GATEWAY=10.0.0.1 ` +
      `[${HEAD}LEN=20 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=99 ] `,
  },
  {
    name: 'parameter problem',
    packet: ip(1, [12, 0, 0, 0, 20, 0, 0, 0, ...ip(99, [])]),
    text: `${HEAD}LEN=48 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ICMP TYPE=12 CODE=0 PARAMETER=20 `,
  },
  {
    name: 'AH',
    packet: ip(51, [6, 4, 0, 0, ...u32(0x1234abcd), 0, 0, 0, 1]),
    text: `${HEAD}LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=AH SPI=0x1234abcd `,
  },
  {
    name: 'a later fragment of AH says nothing of it',
    packet: ip(51, [6, 4, 0, 0, ...u32(1), 0, 0, 0, 1], { frag: 2 }),
    text: `${HEAD}LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=1 FRAG:2 `,
  },
  {
    name: 'ESP',
    packet: ip(50, [...u32(0xf1234567), ...u32(1)]),
    text: `${HEAD}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=ESP SPI=0xf1234567 `,
  },
  {
    name: 'a later fragment of ESP',
    packet: ip(50, [...u32(1), ...u32(1)], { frag: 2 }),
    text: `${HEAD}LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 FRAG:2 PROTO=ESP `,
  },
  { name: 'less than an IP header', packet: [0x45, 0, 0, 0], text: 'TRUNCATED' },
];

for (const { name, options = 0, packet, text } of cases)
  t.test(name, (t) => {
    t.equal(line({ options }, packet), `<4>IN= OUT= ${text}`);
    t.end();
  });

t.test('the record keeps the packet’s beginning only; what is within it prints as if all were there', (t) => {
  const packet = ip(17, udp, { length: 1500 });
  t.match(line({}, packet), /LEN=1500 .*SPT=53 DPT=4000 LEN=12 $/);
  t.end();
});
