import t from 'tap';
import { Ct } from '../../src/dataplane/conntrack/layout.js';
import { Status, TCP_STATE_NAMES } from '../../src/dataplane/conntrack/states.js';
import { tcpSetClosing, tcpState } from '../../src/dataplane/conntrack/tcp.js';
import { Proto } from '../../src/dataplane/names.js';
import { setU8 } from '../../src/dataplane/wire/bytes.js';
import { Bench, CLIENT, packet, SERVER } from './harness.js';

/** [direction, flags, seq, ack, data bytes, window] → what the packet is; the connection's state and seconds afterwards. */
type Step = [from: '>' | '<', flags: string, seq: number, ack: number, length: number, expected: string, after: string];

const OPEN: Step[] = [
  ['>', 'S', 100, 0, 0, 'NEW>', 'SYN_SENT 120'],
  ['<', 'SA', 500, 101, 0, 'ESTABLISHED<', 'SYN_RECV 60'],
  ['>', 'A', 101, 501, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
];

const LIVES: Record<string, Step[]> = {
  'opened, used and closed by the client': [
    ...OPEN,
    ['>', 'PA', 101, 501, 10, 'ESTABLISHED>', 'ESTABLISHED 300 assured'], // unacknowledged data
    ['<', 'A', 501, 111, 0, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'],
    ['>', 'FA', 111, 501, 0, 'ESTABLISHED>', 'FIN_WAIT 120 assured'],
    ['<', 'A', 501, 112, 0, 'ESTABLISHED<', 'CLOSE_WAIT 60 assured'],
    ['<', 'FA', 501, 112, 0, 'ESTABLISHED<', 'LAST_ACK 30 assured'],
    ['>', 'A', 112, 502, 0, 'ESTABLISHED>', 'TIME_WAIT 120 assured'],
  ],
  'closed by the server, both FINs crossing': [
    ...OPEN,
    ['<', 'FA', 501, 101, 0, 'ESTABLISHED<', 'FIN_WAIT 120 assured'],
    ['>', 'FA', 101, 501, 0, 'ESTABLISHED>', 'LAST_ACK 30 assured'],
    ['>', 'A', 102, 502, 0, 'ESTABLISHED>', 'TIME_WAIT 120 assured'],
    ['<', 'A', 502, 102, 0, 'ESTABLISHED<', 'TIME_WAIT 120 assured'],
  ],
  'refused: the entry goes at once': [
    ['>', 'S', 100, 0, 0, 'NEW>', 'SYN_SENT 120'],
    ['<', 'RA', 0, 101, 0, 'ESTABLISHED<', ''],
  ],
  'simultaneous open': [
    ['>', 'S', 100, 0, 0, 'NEW>', 'SYN_SENT 120'],
    ['<', 'S', 500, 0, 0, 'ESTABLISHED<', 'SYN_SENT2 120'],
    ['>', 'SA', 100, 501, 0, 'ESTABLISHED>', 'SYN_RECV 60'],
    ['<', 'SA', 500, 101, 0, 'ESTABLISHED<', 'SYN_RECV 60'],
    ['>', 'A', 101, 501, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
  ],
  'picked up in its middle; assured by the answer': [
    ['>', 'A', 100, 900, 5, 'NEW>', 'ESTABLISHED 300'],
    ['<', 'A', 900, 105, 0, 'ESTABLISHED<', 'ESTABLISHED 300'],
    ['>', 'A', 105, 900, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
  ],
  'what begins no connection': [
    ['>', 'SA', 100, 1, 0, 'INVALID', ''],
    ['>', 'FA', 100, 1, 0, 'INVALID', ''],
    ['>', 'R', 100, 0, 0, 'INVALID', ''],
    ['>', 'RA', 100, 1, 0, 'INVALID', ''],
  ],
  'impossible flags': [
    ['>', 'SF', 100, 0, 0, 'INVALID', ''],
    ['>', 'SR', 100, 0, 0, 'INVALID', ''],
    ['>', '', 100, 0, 0, 'INVALID', ''],
    ['>', 'F', 100, 0, 0, 'INVALID', ''],
    ['>', 'P', 100, 0, 0, 'INVALID', ''],
    ['>', 'FPU', 100, 0, 0, 'INVALID', ''],
    ['>', 'SAFRPU', 100, 0, 0, 'INVALID', ''],
  ],
  'the client may not answer its own SYN, nor acknowledge before there was an answer': [
    ['>', 'S', 100, 0, 0, 'NEW>', 'SYN_SENT 120'],
    ['>', 'SA', 100, 1, 0, 'INVALID', 'SYN_SENT 120'],
    ['>', 'A', 101, 1, 0, 'INVALID', 'SYN_SENT 120'],
    ['>', 'FA', 101, 1, 0, 'INVALID', 'SYN_SENT 120'],
    ['<', 'FA', 500, 101, 0, 'INVALID', 'SYN_SENT 120'],
  ],
  'out of the window': [
    ...OPEN,
    ['>', 'PA', 101 + 140000, 501, 1, 'INVALID', 'ESTABLISHED 432000 assured'], // far past what the server allows
    ['<', 'A', 501, 200, 0, 'INVALID', 'ESTABLISHED 432000 assured'], // acknowledges what was not sent
    ['<', 'A', 501, 101, 0, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'],
    ['<', 'A', 501 - 70000, 101, 10, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'], // old: passes, changes nothing
  ],
  'a little more than the window passes, and its acknowledgement is believed': [
    ...OPEN,
    ['>', 'PA', 101 + 65536, 501, 1, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
    ['<', 'A', 501, 101 + 65537, 0, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'],
  ],
  'a reset must fit exactly, else the state stays for a challenge ACK': [
    ...OPEN,
    ['<', 'PA', 501, 101, 100, 'ESTABLISHED<', 'ESTABLISHED 300 assured'],
    ['>', 'A', 101, 601, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
    ['<', 'R', 600, 0, 0, 'INVALID', 'ESTABLISHED 432000 assured'], // below the highest ACK
    ['<', 'R', 700, 0, 0, 'ESTABLISHED<', 'ESTABLISHED 10 assured'], // in the window, not exact
    ['<', 'R', 601, 0, 0, 'ESTABLISHED<', 'CLOSE 10 assured'],
  ],
  'reopened from TIME_WAIT by the client': [
    ...OPEN,
    ['>', 'FA', 101, 501, 0, 'ESTABLISHED>', 'FIN_WAIT 120 assured'],
    ['<', 'FA', 501, 102, 0, 'ESTABLISHED<', 'LAST_ACK 30 assured'],
    ['>', 'A', 102, 502, 0, 'ESTABLISHED>', 'TIME_WAIT 120 assured'],
    ['>', 'S', 9000, 0, 0, 'NEW>', 'SYN_SENT 120'],
  ],
  'reopened from TIME_WAIT by the server: the roles change': [
    ...OPEN,
    ['>', 'FA', 101, 501, 0, 'ESTABLISHED>', 'FIN_WAIT 120 assured'],
    ['<', 'FA', 501, 102, 0, 'ESTABLISHED<', 'LAST_ACK 30 assured'],
    ['>', 'A', 102, 502, 0, 'ESTABLISHED>', 'TIME_WAIT 120 assured'],
    ['<', 'S', 9000, 0, 0, 'NEW>', 'SYN_SENT 120'],
  ],
  'a SYN after a reset from the same side begins anew': [
    ...OPEN,
    ['>', 'R', 101, 0, 0, 'ESTABLISHED>', 'CLOSE 10 assured'],
    ['>', 'S', 7000, 0, 0, 'NEW>', 'SYN_SENT 120'],
  ],
  'a SYN into an open connection is for the ends to judge; by its answer we get in step': [
    ...OPEN,
    ['>', 'S', 5000, 0, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
    ['<', 'SA', 8000, 5001, 0, 'ESTABLISHED<', 'SYN_RECV 60 assured'],
    ['>', 'A', 5001, 8001, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
  ],
  'a SYN into an open connection answered by a reset: it is over': [
    ...OPEN,
    ['>', 'S', 5000, 0, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
    ['<', 'RA', 0, 5001, 0, 'ESTABLISHED<', 'CLOSE 10 assured'],
  ],
  'a challenge ACK is not the last ACK (RFC 5961)': [
    ...OPEN,
    ['<', 'FA', 501, 101, 0, 'ESTABLISHED<', 'FIN_WAIT 120 assured'],
    ['>', 'FA', 101, 502, 0, 'ESTABLISHED>', 'LAST_ACK 30 assured'],
    ['>', 'S', 5000, 0, 0, 'ESTABLISHED>', 'LAST_ACK 30 assured'],
    ['<', 'A', 502, 102, 0, 'ESTABLISHED<', 'LAST_ACK 30 assured'],
    ['<', 'A', 502, 102, 0, 'ESTABLISHED<', 'TIME_WAIT 120 assured'],
  ],
  'a challenge ACK to a new SYN, and the reset to that': [
    ['>', 'S', 100, 0, 0, 'NEW>', 'SYN_SENT 120'],
    ['<', 'A', 900, 777, 0, 'ESTABLISHED<', 'SYN_SENT 120'],
    ['>', 'R', 777, 0, 0, 'ESTABLISHED>', 'CLOSE 10'],
  ],
  'resets in closing states are never judged': [
    ...OPEN,
    ['>', 'FA', 101, 501, 0, 'ESTABLISHED>', 'FIN_WAIT 120 assured'],
    ['<', 'R', 99999999, 0, 0, 'ESTABLISHED<', 'CLOSE 10 assured'],
  ],
  'the same ACK again and again': [
    ...OPEN,
    ['<', 'A', 501, 101, 0, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'],
    ['<', 'A', 501, 101, 0, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'],
    ['<', 'A', 501, 101, 0, 'ESTABLISHED<', 'ESTABLISHED 432000 assured'],
    ['<', 'A', 501, 101, 0, 'ESTABLISHED<', 'ESTABLISHED 300 assured'], // three retransmissions
    ['>', 'A', 101, 501, 0, 'ESTABLISHED>', 'ESTABLISHED 432000 assured'],
  ],
};

function describe(bench: Bench): string {
  const entry = bench.only;
  if (entry < 0) return '';
  const seconds = bench.table.expires(entry) / 1000;
  const assured = (bench.table.status(entry) & Status.ASSURED) !== 0 ? ' assured' : '';
  return `${TCP_STATE_NAMES[tcpState(bench.table, entry)]} ${seconds}${assured}`;
}

for (const [name, steps] of Object.entries(LIVES)) {
  t.test(name, (t) => {
    const bench = new Bench();
    steps.forEach(([from, flags, seq, ack, length, expected, after], i) => {
      const what = `step ${i}: ${from} ${flags} ${seq}:${ack} ${length}`;
      t.equal(bench.tcp(from, flags, seq, ack, length), expected, what);
      t.equal(describe(bench), after, `${what}: afterwards`);
    });
    t.end();
  });
}

t.test('a SYN sent again does not live longer', (t) => {
  const bench = new Bench();
  bench.tcp('>', 'S', 100);
  bench.wait(119_999);
  t.equal(bench.tcp('>', 'S', 100), 'NEW>');
  t.equal(describe(bench), 'SYN_SENT 0.001', 'the last live tick');
  bench.wait(1);
  t.equal(bench.only, -1, 'the first dead one');
  t.equal(bench.table.packets(bench.last.ct, 0), 1, 'and only the first was counted');
  t.end();
});

t.test('settings: loose, liberal, ignored resets, timeouts', (t) => {
  const strict = new Bench();
  strict.table.writeSetting('nf_conntrack_tcp_loose', 0);
  t.equal(strict.tcp('>', 'A', 100, 900, 5), 'INVALID');
  const liberal = new Bench();
  liberal.table.writeSetting('nf_conntrack_tcp_be_liberal', 1);
  for (const [from, flags, seq, ack, length] of OPEN) liberal.tcp(from, flags, seq, ack, length);
  t.equal(liberal.tcp('>', 'PA', 101 + 140000, 501, 1), 'ESTABLISHED>');
  const resets = new Bench();
  resets.table.writeSetting('nf_conntrack_tcp_ignore_invalid_rst', 1);
  for (const [from, flags, seq, ack, length] of OPEN) resets.tcp(from, flags, seq, ack, length);
  t.equal(resets.tcp('<', 'R', 400), 'ESTABLISHED<');
  const short = new Bench();
  short.table.writeSetting('nf_conntrack_tcp_timeout_syn_sent', 7);
  short.tcp('>', 'S', 100);
  t.equal(describe(short), 'SYN_SENT 7');
  t.throws(() => short.table.writeSetting('nf_conntrack_tcp_timeout_syn_send', 7), /no such setting/);
  t.throws(() => short.table.writeSetting('nf_conntrack_tcp_timeout_syn_sent', -1), /between/);
  t.equal(short.table.readSetting('nf_conntrack_tcp_timeout_syn_sent'), 7);
  t.end();
});

t.test('a GRE connection keeps the timeouts of its first packet', (t) => {
  const bench = new Bench();
  const gre = (src: number, dst: number): number => {
    bench.send({ protocol: Proto.GRE, src, dst });
    return bench.table.words[bench.table.at(bench.only) + Ct.TIMEOUT]! - bench.table.now;
  };
  t.equal(gre(CLIENT, SERVER), 30_000);
  bench.table.writeSetting('nf_conntrack_gre_timeout', 900);
  bench.table.writeSetting('nf_conntrack_gre_timeout_stream', 901);
  t.equal(gre(CLIENT, SERVER), 30_000);
  t.equal(gre(SERVER, CLIENT), 30_000, 'the first answer is seen after it');
  t.equal(gre(CLIENT, SERVER), 180_000);
  t.end();
});

t.test('windows are scaled only when both sides offer it', (t) => {
  const offer = Uint8Array.from([3, 3, 7, 1]);
  for (const both of [true, false]) {
    const bench = new Bench();
    bench.tcp('>', 'S', 100, 0, 0, 1000, offer);
    bench.tcp('<', 'SA', 500, 101, 0, 1000, both ? offer : Uint8Array.from([1, 1, 1, 1]));
    bench.tcp('>', 'A', 101, 501, 0, 1000);
    bench.tcp('<', 'A', 501, 101, 0, 1000);
    // Scaled, the server allows 1000 << 7 bytes.
    t.equal(bench.tcp('>', 'A', 101 + 100_000, 501, 10), both ? 'ESTABLISHED>' : 'INVALID', `both: ${both}`);
  }
  t.end();
});

t.test('SACK blocks count as acknowledged; beyond what was sent they make the segment invalid', (t) => {
  const allowed = Uint8Array.from([4, 2, 1, 1]);
  const block = (left: number, right: number): Uint8Array => {
    const b = new Uint8Array(12);
    const view = new DataView(b.buffer);
    b.set([1, 1, 5, 10]);
    view.setUint32(4, left);
    view.setUint32(8, right);
    return b;
  };
  const bench = new Bench();
  bench.tcp('>', 'S', 100, 0, 0, 65535, allowed);
  bench.tcp('<', 'SA', 500, 101, 0, 65535, allowed);
  bench.tcp('>', 'A', 101, 501);
  bench.tcp('>', 'A', 201, 501, 100);
  t.equal(bench.tcp('<', 'A', 501, 101, 0, 65535, block(201, 301)), 'ESTABLISHED<');
  t.equal(bench.tcp('<', 'A', 501, 101, 0, 65535, block(201, 302)), 'INVALID');
  t.equal(bench.tcp('<', 'A', 501, 101, 0, 65535, Uint8Array.from([5, 99, 1, 1])), 'ESTABLISHED<', 'malformed: unread');
  t.end();
});

t.test('short headers and wrong checksums', (t) => {
  const bench = new Bench();
  const fields = { protocol: Proto.TCP, src: CLIENT, dst: SERVER, sport: 1, dport: 2, flags: 2 };
  const short = packet(fields);
  setU8(short.bytes, short.l4 + 12, 4 << 4);
  t.equal(bench.send(short), 'INVALID', 'data offset below the header');
  const long = packet(fields);
  setU8(long.bytes, long.l4 + 12, 15 << 4);
  t.equal(bench.send(long), 'INVALID', 'data offset beyond the packet');
  t.end();
});

t.test('a connection closed by hand', (t) => {
  const bench = new Bench();
  for (const [from, flags, seq, ack, length] of OPEN) bench.tcp(from, flags, seq, ack, length);
  tcpSetClosing(bench.table, bench.only);
  t.equal(describe(bench), 'CLOSE 10 assured');
  t.end();
});
