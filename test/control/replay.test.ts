import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t from 'tap';
import { CaptureReader, CaptureWriter } from '../../src/dataplane/io/pcap.js';
import { Proto, TcpFlag } from '../../src/dataplane/names.js';
import { u16, u32, u8 } from '../../src/dataplane/wire/bytes.js';
import { ip, type Fields, packetBytes, text, wrong } from '../nat/packets.js';

const folder = mkdtempSync(path.join(tmpdir(), 'hutter-replay-'));
t.teardown(() => {
  rmSync(folder, { recursive: true });
});
const at = (name: string): string => path.join(folder, name);
const CONFIG = at('config.yml');
writeFileSync(
  CONFIG,
  `interfaces:
  if0: { addresses: [192.168.73.1/24] }
  if1: { addresses: [128.61.70.47/24], mtu: 1400 }
  if0.5: { addresses: [10.5.0.1/24] }
routes:
  - { to: default, via: 128.61.70.1 }
  - { to: 9.0.0.0/8, type: prohibit }
`,
);
const RULES = at('rules');
const T0 = 1_700_000_000;

interface Timed {
  at: number;
  bytes: Uint8Array;
  /** On the wire, where less was captured. */
  length?: number;
}
const packet = (when: number, protocol: number, src: string, dst: string, more: Partial<Fields> = {}): Timed => ({
  at: when,
  bytes: packetBytes({ protocol, src: ip(src), dst: ip(dst), ...more }),
});
const tcp = (
  when: number,
  src: string,
  sport: number,
  dst: string,
  dport: number,
  flags = TcpFlag.SYN,
  more: Partial<Fields> = {},
): Timed => packet(when, Proto.TCP, src, dst, { sport, dport, flags, ...more });
const udp = (when: number, src: string, sport: number, dst: string, dport: number, more: Partial<Fields> = {}): Timed =>
  packet(when, Proto.UDP, src, dst, { sport, dport, ...more });

function capture(name: string, packets: readonly Timed[], linkType = 101, header: readonly number[] = []): string {
  const writer = CaptureWriter.create(at(name), { linkType });
  for (const { at: when, bytes, length } of packets) {
    const frame = Uint8Array.from([...header, ...bytes]);
    const [seconds, nanoseconds] = [T0 + Math.floor(when / 1000), (when % 1000) * 1e6];
    writer.write(seconds, nanoseconds, frame, 0, frame.length, header.length + (length ?? bytes.length));
  }
  writer.close();
  return at(name);
}

interface Read {
  at: number;
  src: string;
  dst: string;
  protocol: number;
  ttl: number;
  bytes: Uint8Array;
  length: number;
}
function read(file: string): Read[] {
  const reader = CaptureReader.open(file);
  const packets: Read[] = [];
  for (let r = reader.next(); r !== undefined; r = reader.next()) {
    const bytes = r.bytes.slice(r.start, r.end);
    const when = (r.seconds - T0) * 1000 + r.nanoseconds / 1e6;
    packets.push({
      at: when,
      src: text(u32(bytes, 12)),
      dst: text(u32(bytes, 16)),
      protocol: u8(bytes, 9),
      ttl: u8(bytes, 8),
      bytes,
      length: r.length,
    });
  }
  reader.close();
  return packets;
}

interface Report {
  drops: { rules: { chain: string; rule: number; line: number; packets: number }[]; reasons: Record<string, number> };
  interfaces: Record<string, { in: Record<string, unknown>[]; out: { packets: number } }>;
  saved: string;
  log: { time: string; line: string }[];
  connections: string[];
  why?: { interface: string; frame: number; by: string; packet: string; time: string }[];
  accepted: number;
  dropped: number;
  first: string;
  last: string;
}
function hutter(args: readonly string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync('node', ['dist/bin/hutter.mjs', 'replay', ...args], {
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}
function replay(rules: string, inputs: Record<string, string>, ...more: string[]): Report {
  writeFileSync(RULES, rules);
  const named = Object.entries(inputs).map(([dev, file]) => `${dev}=${file}`);
  const { code, out, err } = hutter([
    '--rules',
    RULES,
    '--config',
    CONFIG,
    '--in',
    ...named,
    '--out',
    at('out'),
    '--json',
    ...more,
  ]);
  if (code !== 0) throw new Error(err);
  return JSON.parse(out) as Report;
}

const NAT = '*nat\n-A POSTROUTING -o if1 -j SNAT --to-source 128.61.70.47\nCOMMIT\n';

t.test('two captures are one conversation: translated, with the times of their packets', (t) => {
  const inside = capture('in0', [
    tcp(0, '192.168.73.4', 40000, '8.8.8.8', 80),
    tcp(30, '192.168.73.4', 40000, '8.8.8.8', 80, TcpFlag.ACK, { seq: 1, ack: 1 }),
  ]);
  const outside = capture('in1', [
    tcp(20, '8.8.8.8', 80, '128.61.70.47', 40000, TcpFlag.SYN | TcpFlag.ACK, { ack: 1 }),
  ]);
  const report = replay(NAT, { if0: inside, if1: outside });
  const [sent, received] = [read(at('out/if1.pcap')), read(at('out/if0.pcap'))];
  t.same(
    sent.map(({ at: when, src, dst, ttl }) => [when, src, dst, ttl]),
    [
      [0, '128.61.70.47', '8.8.8.8', 63],
      [30, '128.61.70.47', '8.8.8.8', 63],
    ],
  );
  t.same(
    received.map(({ at: when, src, dst }) => [when, src, dst]),
    [[20, '8.8.8.8', '192.168.73.4']],
  );
  for (const { bytes } of [...sent, ...received]) t.equal(wrong(bytes, 0, bytes.length), '');
  t.equal(report.connections.length, 1);
  t.match(report.connections[0], /ESTABLISHED src=192.168.73.4 .* packets=2 bytes=80 src=8.8.8.8 dst=128.61.70.47 /);
  t.match(report.saved, '[1:40] -A POSTROUTING -o if1 -j SNAT --to-source 128.61.70.47\n');
  t.same([report.first, report.last], ['2023-11-14T22:13:20.000000000Z', '2023-11-14T22:13:20.030000000Z']);
  t.end();
});

t.test('who dropped what, by line; logs; answers go out as packets', (t) => {
  const rules = `*filter
:INPUT DROP [0:0]
:mine - [0:0]
-A FORWARD -p udp -j mine
-A FORWARD -p tcp --dport 25 -j REJECT --reject-with tcp-reset
-A mine -p udp --dport 53 -j LOG --log-prefix "dns "
-A mine -p udp --dport 53 -j DROP
COMMIT
`;
  const file = capture('mixed', [
    udp(0, '192.168.73.4', 1, '8.8.8.8', 53),
    udp(1, '192.168.73.4', 1, '8.8.8.8', 54),
    tcp(2, '192.168.73.4', 2, '8.8.8.8', 25),
    udp(3, '192.168.73.4', 2, '192.168.73.1', 7),
    udp(4, '127.0.0.1', 2, '8.8.8.8', 7),
    packet(5, Proto.UDP, '192.168.73.4', '9.9.9.9', { sport: 1, dport: 2 }),
    udp(6, '192.168.73.4', 1, '8.8.8.8', 9, { ttl: 1 }),
  ]);
  const report = replay(rules, { if0: file }, '--why');
  t.same(
    report.why!.map(({ interface: name, frame, by }) => [name, frame, by.replace(RULES, 'F')]),
    [
      ['if0', 1, 'F:7: -A mine -p udp -m udp --dport 53 -j DROP'],
      ['if0', 3, 'F:5: -A FORWARD -p tcp -m tcp --dport 25 -j REJECT --reject-with tcp-reset'],
      ['if0', 4, 'F:2: -P INPUT DROP'],
      ['if0', 5, 'hutter: martian-source'],
      ['if0', 6, 'hutter: answered'],
      ['if0', 7, 'hutter: answered'],
    ],
  );
  t.equal(report.why![0]!.packet, 'udp 192.168.73.4:1 > 8.8.8.8:53 tos 0x0');
  t.same(
    report.drops.rules.map(({ chain, rule, line, packets }) => [chain, rule, line, packets]),
    [
      ['INPUT', 0, 2, 1],
      ['mine', 2, 7, 1],
      ['FORWARD', 2, 5, 1],
    ],
  );
  t.same(report.drops.reasons, { 'martian-source': 1, answered: 2 });
  t.equal(report.log.length, 1);
  t.match(report.log[0]!.line, /^<4>dns IN=if0 OUT=if1 MAC= SRC=192\.168\.73\.4 DST=8\.8\.8\.8 /);
  t.equal(report.log[0]!.time, '2023-11-14T22:13:20.000000000Z');
  const answers = read(at('out/if0.pcap'));
  t.same(
    answers.map(({ src, protocol, bytes }) => [
      src,
      protocol,
      protocol === 1 ? `${u8(bytes, 20)}/${u8(bytes, 21)}` : u8(bytes, 33),
    ]),
    [
      ['8.8.8.8', 6, TcpFlag.RST | TcpFlag.ACK],
      ['192.168.73.1', 1, '3/13'],
      ['192.168.73.1', 1, '11/0'],
    ],
  );
  t.same([report.accepted, report.dropped], [1, 6]);
  t.end();
});

t.test('time is that of the capture: limits fill, connections end', (t) => {
  const limited = '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m limit --limit 1/s --limit-burst 2 -j ACCEPT\nCOMMIT\n';
  const burst = capture(
    'burst',
    [0, 1, 2, 3, 1003, 1004, 5000, 5001, 5002].map((when) => udp(when, '192.168.73.4', 1, '8.8.8.8', 2)),
  );
  replay(limited, { if0: burst });
  t.same(
    read(at('out/if1.pcap')).map(({ at: when }) => when),
    [0, 1, 1003, 5000, 5001],
  );

  const state =
    '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i if0 -j ACCEPT\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n';
  const out = capture('ask', [udp(0, '192.168.73.4', 1, '8.8.8.8', 2)]);
  for (const [after, passes] of [
    [29_999, 1],
    [30_001, 0],
    [90 * 86_400_000, 0],
  ] as const) {
    const back = capture('answer', [udp(after, '8.8.8.8', 2, '192.168.73.4', 1)]);
    const report = replay(state, { if0: out, if1: back });
    t.equal(read(at('out/if0.pcap')).length, passes, `${after} ms`);
    t.equal(report.connections.length, passes);
  }
  t.end();
});

t.test('the same input makes the same output, whatever is random in it', (t) => {
  const rules =
    '*nat\n-A POSTROUTING -o if1 -j MASQUERADE --random\nCOMMIT\n*filter\n-A FORWARD -m statistic --mode random --probability 0.5 -j DROP\nCOMMIT\n';
  const file = capture(
    'many',
    Array.from({ length: 200 }, (_, i) => udp(i, '192.168.73.4', 1000 + i, '8.8.8.8', 2)),
  );
  const runs = [0, 1].map(() => {
    const report = replay(rules, { if0: file }, '--why');
    return JSON.stringify(report) + readFileSync(at('out/if1.pcap'), 'hex');
  });
  t.equal(runs[0], runs[1]);
  const sent = read(at('out/if1.pcap'));
  t.ok(sent.length > 50 && sent.length < 150 && new Set(sent.map(({ bytes }) => u16(bytes, 20))).size === sent.length);
  t.end();
});

t.test('what captures have besides: Ethernet, VLANs, other protocols, packets in part, whole segments', (t) => {
  const header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
  const long = udp(2, '192.168.73.4', 1, '8.8.8.8', 2, { payload: new Uint8Array(1000) });
  const ethernet = capture('ethernet', [{ ...long, bytes: long.bytes.slice(0, 60), length: long.bytes.length }], 1, [
    ...header,
    8,
    0,
  ]);
  const arp = capture('arp', [{ at: 1, bytes: new Uint8Array(28) }], 1, [...header, 8, 6]);
  const vlan = capture('vlan', [udp(3, '10.5.0.9', 1, '192.168.73.4', 2)], 1, [...header, 0x81, 0, 0, 5, 8, 0]);
  const gso = capture('gso', [tcp(4, '192.168.73.4', 1, '8.8.8.8', 2, TcpFlag.SYN, { payload: new Uint8Array(4000) })]);
  const rules = '*filter\n-A FORWARD -m mac --mac-source 02:00:00:00:00:09 -j ACCEPT\nCOMMIT\n';
  writeFileSync(RULES, rules);
  const inputs = [ethernet, arp, vlan, gso].map((file) => `if0=${file}`);
  const { code, out, err } = hutter([
    '--rules',
    RULES,
    '--config',
    CONFIG,
    '--in',
    ...inputs,
    '--out',
    at('out'),
    '--json',
    '--format',
    'pcapng',
  ]);
  t.equal(code, 0, err);
  const report = JSON.parse(out) as Report;
  const { in: files } = report.interfaces['if0']!;
  t.same(
    files.map(({ packets, cut, notIpv4 }) => [packets, cut, notIpv4]),
    [
      [1, 1, 0],
      [0, 0, 1],
      [1, 0, 0],
      [1, 0, 0],
    ],
  );
  t.match(report.saved, '[2:1056] -A FORWARD -m mac --mac-source 02:00:00:00:00:09 -j ACCEPT');
  t.same(
    read(at('out/if1.pcapng')).map(({ bytes, length }) => [bytes.length, length]),
    [
      [60, 1028],
      [4040, 4040],
    ],
  );
  t.same(
    read(at('out/if0.pcapng')).map(({ src, ttl }) => [src, ttl]),
    [['10.5.0.9', 63]],
  );
  t.end();
});

t.test('routing rules and reverse paths of the configuration', (t) => {
  const config = at('policy.yml');
  writeFileSync(
    config,
    `interfaces:
  if0: { addresses: [192.168.73.1/24], rp-filter: strict }
  if1: { addresses: [128.61.70.47/24] }
  if2: { addresses: [10.2.0.1/24] }
routes:
  - { to: default, via: 128.61.70.1 }
  - { to: default, via: 10.2.0.2, table: 7 }
routing-rules:
  - { proto: udp, dport: 53, table: 7 }
`,
  );
  const file = capture('policy', [
    udp(0, '192.168.73.4', 1, '8.8.8.8', 53),
    udp(1, '192.168.73.4', 1, '8.8.8.8', 54),
    udp(2, '10.2.0.9', 1, '8.8.8.8', 54),
  ]);
  const { code, out, err } = hutter(['--config', config, '--in', `if0=${file}`, '--out', at('out'), '--json']);
  t.equal(code, 0, err);
  t.same((JSON.parse(out) as Report).drops.reasons, { 'reverse-path': 1 });
  t.same([read(at('out/if2.pcap')).map((p) => p.at), read(at('out/if1.pcap')).map((p) => p.at)], [[0], [1]]);
  t.end();
});

t.test('wrong use and wrong files are told, and nothing is written over', (t) => {
  const good = capture('good', [udp(0, '192.168.73.4', 1, '8.8.8.8', 53)]);
  writeFileSync(at('broken'), 'hello, world');
  writeFileSync(RULES, '*filter\n-A FORWARD -p tpc -j DROP\nCOMMIT\n');
  const bad = (code: number, message: string, ...args: string[]): void => {
    const { code: seen, err, out } = hutter(['--config', CONFIG, '--out', at('out2'), ...args]);
    t.same([seen, err, out], [code, message, '']);
  };
  bad(2, 'hutter: --in eth9=x: the configuration has no interface eth9 (it has if0, if1, if0.5)\n', '--in', 'eth9=x');
  bad(2, 'hutter: --in if0: it takes INTERFACE=FILE\n', '--in', 'if0');
  bad(1, `hutter: can't read ${at('none')}: no such file\n`, '--in', `if0=${at('none')}`);
  bad(
    1,
    `hutter: ${at('broken')}, at byte 0: it begins with 68 65 6c 6c, which is neither pcap nor pcapng\n`,
    '--in',
    `if0=${at('broken')}`,
  );
  bad(1, `${RULES}:2:15: error: unknown protocol "tpc" specified\n`, '--rules', RULES, '--in', `if0=${good}`);
  const before = readFileSync(good);
  const { code, err } = hutter(['--config', CONFIG, '--in', `if0=${capture('if0.pcap', [])}`, '--out', folder]);
  t.same([code, err], [2, `hutter: --out ${folder}: ${at('if0.pcap')} is read from\n`]);
  t.same(readFileSync(good), before);
  t.notOk(existsSync(at('if1.pcap')));
  const text = hutter(['--config', CONFIG, '--in', `if0=${good}`, '--out', at('out')]);
  t.match(text.out, 'if1 out  1 packets, 28 bytes');
  t.end();
});

t.test('tcpdump reads what comes out', (t) => {
  const file = capture('dump', [
    udp(0, '192.168.73.4', 1, '8.8.8.8', 53, { payload: new Uint8Array(0) }),
    tcp(1, '192.168.73.4', 1, '8.8.8.8', 53),
  ]);
  replay(NAT, { if0: file });
  const { stdout } = spawnSync('tcpdump', ['-nvvr', at('out/if1.pcap')], { encoding: 'utf8' });
  t.match(stdout, '128.61.70.47.1 > 8.8.8.8.53: ');
  t.notMatch(stdout, 'bad');
  t.end();
});
