/**
 * Scenarios with a name: what peers and administrators do on purpose, where traffic.ts does it by chance. Hosts and interfaces
 * are arena.ts's. Most run under rules that count the states, directions, statuses and timeouts of connections in every hook (SEEN).
 */
import { ICMP, type PacketSpec, SCTP, TCP, type Transport, UDP } from './packets.js';
import type { CommandEvent, ErrorEvent, Event, PacketEvent, Scenario } from './scenario.js';
import { type Call, end, request, response, session } from './sip.js';
import { FROM_ROUTER } from './wire.js';

export interface Case extends Scenario {
  name: string;
}

const FIN = 1;
const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;
type Way = 0 | 1;
type More = Partial<PacketSpec>;

const ROUTER = new Set(['10.1.0.1', '198.51.100.1', '198.51.100.2', '10.2.0.1', '127.0.0.1']);
/** By which port a host's packets come. */
function portOf(address: string): number {
  if (ROUTER.has(address)) return FROM_ROUTER;
  return address.startsWith('10.1.0.') ? 0 : address.startsWith('10.2.0.') ? 2 : 1;
}

const IN = '10.1.0.2';
const OUT = '198.51.100.10';
const FAR = '203.0.113.5';
const DMZ = '10.2.0.2';
const WAN = '198.51.100.1';
const LAN = '10.1.0.1';

/** Two ends that talk. */
class Talk {
  readonly seq = [1000, 5000];

  constructor(
    private readonly story: Story,
    readonly from: string,
    readonly to: string,
    readonly sport: number,
    readonly dport: number,
    readonly flow: number,
  ) {}

  private add(way: Way, l4: Transport, more: More & { fragments?: PacketEvent['fragments'] } = {}): number {
    const { fragments, ...spec } = more;
    const [src, dst] = way === 0 ? [this.from, this.to] : [this.to, this.from];
    const id = this.story.nextId();
    const event: PacketEvent = {
      kind: 'packet',
      id,
      flow: this.flow,
      way,
      port: portOf(src),
      packet: { src, dst, id: 1000 + id, l4, ...spec },
    };
    if (fragments) event.fragments = fragments;
    this.story.events.push(event);
    return id;
  }

  /** A segment with the next numbers of its sender unless `tcp` says others. */
  tcp(way: Way, flags: number, tcp: Partial<Extract<Transport, { seq: number }>> = {}, more: More = {}): number {
    const { seq } = this;
    const [sport, dport] = way === 0 ? [this.sport, this.dport] : [this.dport, this.sport];
    const own = tcp.seq === undefined;
    const l4 = {
      proto: TCP,
      sport,
      dport,
      seq: seq[way]!,
      ack: flags & ACK ? seq[1 - way]! : 0,
      flags,
      window: 30_000,
      ...tcp,
    } as const;
    const length = (tcp.payload ?? '').length + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0);
    if (own) seq[way] = (seq[way]! + length) >>> 0;
    return this.add(way, l4, more);
  }
  data(way: Way, payload: string, more: More = {}): number {
    return this.tcp(way, ACK | PSH, { payload }, more);
  }
  open(options = '020405b4', more: More = {}): this {
    this.tcp(0, SYN, { options }, more);
    this.tcp(1, SYN | ACK, { options });
    this.tcp(0, ACK);
    return this;
  }
  close(way: Way = 0): this {
    const other = way === 0 ? 1 : 0;
    this.tcp(way, FIN | ACK);
    this.tcp(other, FIN | ACK);
    this.tcp(way, ACK);
    return this;
  }
  udp(
    way: Way,
    payload = 'query',
    more: More & { noSum?: boolean; fragments?: PacketEvent['fragments'] } = {},
  ): number {
    const { noSum, ...rest } = more;
    const [sport, dport] = way === 0 ? [this.sport, this.dport] : [this.dport, this.sport];
    return this.add(way, { proto: UDP, sport, dport, payload, ...(noSum ? { noSum } : {}) }, rest);
  }
  icmp(way: Way, type: number, rest: number, more: More & { code?: number; payload?: string } = {}): number {
    const { code = 0, payload = 'abcdefgh', ...spec } = more;
    return this.add(way, { proto: ICMP, type, code, rest, payload }, spec);
  }
  ping(id: number, n = 1): void {
    this.icmp(0, 8, (id << 16) | n);
    this.icmp(1, 0, (id << 16) | n);
  }
  sctp(way: Way, tag: number, chunks: string): number {
    const [sport, dport] = way === 0 ? [this.sport, this.dport] : [this.dport, this.sport];
    return this.add(way, { proto: SCTP, sport, dport, tag, chunks });
  }
  raw(way: Way, proto: number, hex: string, more: More = {}): number {
    return this.add(way, { proto, raw: hex }, more);
  }
}

class Story {
  readonly events: Event[] = [];
  private ids = 0;
  private flows = 0;

  nextId(): number {
    return ++this.ids;
  }
  talk(from: string, to: string, sport = 1000, dport = 80): Talk {
    return new Talk(this, from, to, sport, dport, ++this.flows);
  }
  /** An ICMP error about what came out for `about`. */
  error(about: number, type: number, code: number, more: Partial<ErrorEvent> = {}): void {
    this.events.push({
      kind: 'error',
      id: this.nextId(),
      about,
      type,
      code,
      rest: 0,
      from: 'end',
      length: 548,
      ...more,
    });
  }
  iptables(command: string): void {
    this.command('iptables', command.split(' '));
  }
  command(program: CommandEvent['program'], argv: string[], stdin?: string): void {
    this.events.push({ kind: 'command', id: this.nextId(), program, argv, ...(stdin === undefined ? {} : { stdin }) });
  }
  /** The last packet is the first of a connection that event `about` announced. */
  expected(about: number): void {
    const { id, flow, port, packet } = this.events.pop() as PacketEvent;
    this.events.push({ kind: 'data', id, about, flow, port, packet });
  }
  /** The expected connection that event `about` announced: `from` opens it, and it has a life. */
  transfer(about: number, from: string, to: string, sport: number, dport: number): void {
    const talk = this.talk(from, to, sport, dport);
    talk.tcp(0, SYN, { seq: 100, ack: 0 });
    this.expected(about);
    talk.seq[0] = 101;
    talk.tcp(1, SYN | ACK);
    talk.tcp(0, ACK);
    talk.data(1, 'file');
    talk.close(1);
  }
}

const rulesOf = (tables: Record<string, string[]>): string =>
  Object.entries(tables)
    .map(([table, lines]) => [`*${table}`, ...lines, 'COMMIT', ''].join('\n'))
    .join('');

/** Counts what rules can ask of a connection, in every hook. Timeouts by what the states have: 10, 30, 60, 120, 180, 300 s … */
const SEEN = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'].flatMap((chain) => [
  ...['NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED', 'SNAT', 'DNAT'].map(
    (state) => `-A ${chain} -m conntrack --ctstate ${state}`,
  ),
  ...['EXPECTED', 'SEEN_REPLY', 'ASSURED', 'CONFIRMED'].map(
    (status) => `-A ${chain} -m conntrack --ctstatus ${status}`,
  ),
  `-A ${chain} -m conntrack --ctdir REPLY`,
  ...['7:10', '25:30', '55:60', '115:120', '175:180', '290:300', '431000:432000'].map(
    (range) => `-A ${chain} -m conntrack --ctexpire ${range}`,
  ),
]);
const MASQUERADE = '-A POSTROUTING -o if1 -j MASQUERADE';
const FORWARD_80 = '-A PREROUTING -d 198.51.100.1 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.2.0.2:8080';
const FTP = ['-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp'];

const cases: Case[] = [];
/** `tables` beside the rules that count. */
function story(name: string, tables: Record<string, string[]>, tell: (s: Story) => void): void {
  const s = new Story();
  tell(s);
  const { mangle = [], ...rest } = tables;
  cases.push({ seed: 0, name, rules: rulesOf({ ...rest, mangle: [...SEEN, ...mangle] }), events: s.events });
}
/** Without rules that count. */
function plainly(name: string, tables: Record<string, string[]>, tell: (s: Story) => void): void {
  const s = new Story();
  tell(s);
  cases.push({ seed: 0, name, rules: rulesOf(tables), events: s.events });
}
/** The same story without translation, behind MASQUERADE, and to a server behind DNAT. */
function everywhere(name: string, tell: (talk: (sport?: number) => Talk, s: Story) => void): void {
  story(name, {}, (s) => tell((sport) => s.talk(IN, OUT, sport), s));
  story(`${name}, masqueraded`, { nat: [MASQUERADE] }, (s) => tell((sport) => s.talk(IN, OUT, sport), s));
  story(`${name}, to a server inside`, { nat: [FORWARD_80] }, (s) => tell((sport) => s.talk(OUT, WAN, sport), s));
}

// ---- TCP ----
everywhere('open, data, close', (talk) => {
  const t = talk().open();
  t.data(0, 'GET');
  t.data(1, 'x'.repeat(1400));
  t.tcp(0, ACK);
  t.close();
});
everywhere('simultaneous open', (talk) => {
  const t = talk();
  t.tcp(0, SYN);
  t.tcp(1, SYN);
  t.tcp(0, SYN | ACK, { seq: 1000, ack: 5001 });
  t.tcp(1, SYN | ACK, { seq: 5000, ack: 1001 });
  t.data(0, 'GET');
  t.data(1, 'answer');
  t.close();
});
everywhere('simultaneous close', (talk) => {
  const t = talk().open();
  t.tcp(0, FIN | ACK);
  t.tcp(1, FIN | ACK, { seq: 5001, ack: 1001 });
  t.tcp(0, ACK, { seq: 1002, ack: 5002 });
  t.tcp(1, ACK, { seq: 5002, ack: 1002 });
  // Late and wrong.
  t.tcp(0, ACK, { seq: 1002, ack: 9000 });
});
everywhere('half-closed', (talk) => {
  const t = talk().open();
  t.tcp(0, FIN | ACK);
  t.tcp(1, ACK);
  for (let n = 0; n < 3; n++) {
    t.data(1, 'x'.repeat(1000));
    t.tcp(0, ACK);
  }
  t.tcp(1, FIN | ACK);
  t.tcp(0, ACK);
});
everywhere('SYN again, and with another number', (talk) => {
  const t = talk();
  t.tcp(0, SYN, { options: '020405b4' });
  t.tcp(0, SYN, { seq: 1000, ack: 0, options: '020405b4' });
  t.tcp(0, SYN, { seq: 99_000, ack: 0, options: '020405b4' });
  t.tcp(1, SYN | ACK, { seq: 5000, ack: 99_001 });
  t.tcp(0, ACK, { seq: 99_001, ack: 5001 });
  t.tcp(0, ACK | PSH, { seq: 99_001, ack: 5001, payload: 'GET' });
});
everywhere('SYN into an open connection', (talk) => {
  const t = talk().open();
  t.data(0, 'GET');
  t.tcp(0, SYN, { seq: 777_000, ack: 0 });
  // A challenge ACK, and the reset that it provokes (RFC 5961).
  t.tcp(1, ACK, { seq: 5001, ack: 1004 });
  t.tcp(0, RST, { seq: 1004, ack: 0 });
  t.tcp(0, SYN, { seq: 777_000, ack: 0 });
  t.tcp(1, SYN | ACK, { seq: 9000, ack: 777_001 });
  t.tcp(0, ACK, { seq: 777_001, ack: 9001 });
});
everywhere('SYN into an open connection whose server has forgotten it', (talk) => {
  const t = talk().open();
  t.tcp(0, SYN, { seq: 777_000, ack: 0 });
  t.tcp(1, SYN | ACK, { seq: 9000, ack: 777_001 });
  t.tcp(0, ACK, { seq: 777_001, ack: 9001 });
  t.tcp(0, ACK | PSH, { seq: 777_001, ack: 9001, payload: 'GET' });
});
everywhere('opened again in TIME_WAIT', (talk) => {
  const t = talk().open().close();
  t.tcp(0, SYN, { seq: 2_000_000, ack: 0 });
  t.tcp(1, SYN | ACK, { seq: 3_000_000, ack: 2_000_001 });
  t.tcp(0, ACK, { seq: 2_000_001, ack: 3_000_001 });
  t.tcp(1, FIN | ACK, { seq: 3_000_001, ack: 2_000_001 });
  t.tcp(0, RST | ACK, { seq: 2_000_001, ack: 3_000_002 });
  t.tcp(0, SYN, { seq: 4_000_000, ack: 0 });
});
everywhere('opened again from the other side in TIME_WAIT', (talk) => {
  const t = talk().open().close();
  t.tcp(1, SYN, { seq: 2_000_000, ack: 0 });
  t.tcp(0, SYN | ACK, { seq: 3_000_000, ack: 2_000_001 });
  t.tcp(1, ACK, { seq: 2_000_001, ack: 3_000_001 });
});
everywhere('resets: a wrong number, none, the right one', (talk) => {
  const t = talk().open();
  t.data(0, 'GET');
  t.tcp(1, RST, { seq: 900_000, ack: 0 });
  t.tcp(1, RST, { seq: 4000, ack: 0 });
  t.tcp(1, RST, { seq: 0, ack: 0 });
  t.data(1, 'still here');
  t.tcp(0, ACK);
  t.tcp(1, RST, { seq: 5100, ack: 0 });
  t.tcp(1, RST, { seq: 5011, ack: 0 });
  t.data(0, 'too late');
});
everywhere('refused', (talk) => {
  const t = talk();
  t.tcp(0, SYN);
  t.tcp(1, RST | ACK, { seq: 0, ack: 1001 });
  t.tcp(0, SYN, { seq: 2000, ack: 0 });
  t.tcp(1, RST | ACK, { seq: 0, ack: 1001 });
  t.tcp(1, RST | ACK, { seq: 0, ack: 2001 });
});
everywhere('RST at once after the SYN ACK', (talk) => {
  const t = talk();
  t.tcp(0, SYN);
  t.tcp(1, SYN | ACK);
  t.tcp(0, RST);
  t.tcp(1, SYN | ACK, { seq: 5000, ack: 1001 });
  t.tcp(0, RST, { seq: 1001, ack: 0 });
});
everywhere('SYN ACK that acknowledges something else', (talk) => {
  const t = talk();
  t.tcp(0, SYN);
  t.tcp(1, SYN | ACK, { seq: 5000, ack: 4711 });
  t.tcp(0, RST, { seq: 4711, ack: 0 });
  t.tcp(0, SYN, { seq: 1000, ack: 0 });
  t.tcp(1, SYN | ACK, { seq: 5000, ack: 1001 });
});
everywhere('picked up in its middle', (talk) => {
  const t = talk();
  t.data(0, 'half a sentence');
  t.data(1, 'an answer');
  t.tcp(0, ACK);
  t.tcp(0, ACK, { seq: 500, ack: 5001 });
  t.close(1);
});
everywhere('picked up by its answer', (talk) => {
  const t = talk();
  t.data(1, 'an answer');
  t.data(0, 'half a sentence');
  t.tcp(1, ACK);
  t.close();
});
everywhere('windows', (talk) => {
  const t = talk();
  t.tcp(0, SYN, { options: '020405b401030308', window: 65_535 });
  t.tcp(1, SYN | ACK, { options: '020405b401030307', window: 65_535 });
  t.tcp(0, ACK, { window: 10 });
  // 2,560 bytes are allowed.
  t.tcp(1, ACK | PSH, { seq: 5001, ack: 1001, payload: 'x'.repeat(1400) });
  t.tcp(1, ACK | PSH, { seq: 6401, ack: 1001, payload: 'x'.repeat(1160) });
  t.tcp(1, ACK | PSH, { seq: 7561, ack: 1001, payload: 'x' });
  t.tcp(1, ACK | PSH, { seq: 7562, ack: 1001, payload: 'x'.repeat(1400) });
  t.tcp(1, ACK | PSH, { seq: 60_000, ack: 1001, payload: 'x' });
  t.tcp(0, ACK, { seq: 1001, ack: 7562, window: 0 });
  // A probe, its answer, and an update.
  t.tcp(1, ACK, { seq: 7562, ack: 1001, payload: 'y' });
  t.tcp(0, ACK, { seq: 1001, ack: 7562, window: 0 });
  t.tcp(0, ACK, { seq: 1001, ack: 7562, window: 200 });
  t.tcp(1, ACK, { seq: 7562, ack: 1001, payload: 'z'.repeat(1000) });
  // Acknowledging what was never sent, and what was long ago.
  t.tcp(0, ACK, { seq: 1001, ack: 99_000, window: 200 });
  t.tcp(0, ACK, { seq: 1001, ack: 5001, window: 200 });
  t.tcp(0, ACK, { seq: 1001, ack: 900, window: 200 });
});
everywhere('window scaling by one side only', (talk) => {
  const t = talk();
  t.tcp(0, SYN, { options: '020405b40103030e', window: 1000 });
  t.tcp(1, SYN | ACK, { options: '020405b4', window: 1000 });
  t.tcp(0, ACK, { window: 1000 });
  t.tcp(1, ACK | PSH, { seq: 5001, ack: 1001, payload: 'x'.repeat(1000) });
  t.tcp(1, ACK | PSH, { seq: 6001, ack: 1001, payload: 'x'.repeat(1000) });
  t.tcp(1, ACK | PSH, { seq: 7001, ack: 1001, payload: 'x'.repeat(1000) });
});
everywhere('window scale beyond 14', (talk) => {
  const t = talk();
  t.tcp(0, SYN, { options: '010303ff', window: 10 });
  t.tcp(1, SYN | ACK, { options: '0103030f', window: 10 });
  t.tcp(0, ACK, { window: 10 });
  t.tcp(1, ACK | PSH, { seq: 5001, ack: 1001, payload: 'x'.repeat(1400) });
  t.tcp(1, ACK | PSH, { seq: 200_000, ack: 1001, payload: 'x' });
});
everywhere('keepalives and retransmissions', (talk) => {
  const t = talk().open();
  t.data(0, 'GET');
  t.data(1, 'answer');
  t.tcp(0, ACK);
  // One byte, or none, before the window.
  t.tcp(0, ACK, { seq: 1003, ack: 5007 });
  t.tcp(1, ACK, { seq: 5007, ack: 1004 });
  t.tcp(0, ACK, { seq: 1003, ack: 5007, payload: '\0' });
  t.tcp(1, ACK, { seq: 5007, ack: 1004 });
  for (let n = 0; n < 5; n++) t.tcp(1, ACK | PSH, { seq: 5001, ack: 1004, payload: 'answer' });
  t.tcp(0, ACK, { seq: 1004, ack: 5007 });
  for (let n = 0; n < 4; n++) t.tcp(0, ACK, { seq: 1004, ack: 5007 });
});
everywhere('selective acknowledgements', (talk) => {
  const t = talk().open('020405b401010402');
  t.tcp(1, ACK | PSH, { seq: 6001, ack: 1001, payload: 'x'.repeat(1000) });
  t.tcp(0, ACK, { seq: 1001, ack: 5001, options: '0101050a0000177100001b59' });
  t.tcp(0, ACK, { seq: 1001, ack: 5001, options: '0101050a000fffff00100000' });
  t.tcp(0, ACK, { seq: 1001, ack: 5001, options: '0101050a00001b5900001771' });
  t.tcp(0, ACK, { seq: 1001, ack: 5001, options: '0101050900001771' + '00000000' });
  t.tcp(1, ACK | PSH, { seq: 5001, ack: 1001, payload: 'x'.repeat(1000) });
  t.tcp(0, ACK, { seq: 1001, ack: 7001 });
});
everywhere('numbers wrap', (talk) => {
  const t = talk();
  t.seq[0] = 0xffff_fffe;
  t.seq[1] = 0xffff_fff0;
  t.open();
  t.data(0, 'abcdef');
  t.data(1, 'x'.repeat(100));
  t.tcp(0, ACK);
  t.tcp(0, ACK, { seq: 0xffff_0000, ack: 0x55 });
  t.close();
});
everywhere('malformed options and headers', (talk) => {
  const t = talk();
  t.tcp(0, SYN, { options: '02040000' });
  t.tcp(0, SYN, { seq: 1000, ack: 0, options: '02000000' });
  t.tcp(0, SYN, { seq: 1000, ack: 0, options: '0201ffff' });
  t.tcp(0, SYN, { seq: 1000, ack: 0, options: '0303ff00' });
  t.tcp(0, SYN, { seq: 1000, ack: 0, options: '01010102' });
  t.tcp(0, SYN, { seq: 1000, ack: 0, options: '04ff0000' });
  t.tcp(1, SYN | ACK, { options: '05000000' });
  t.tcp(0, ACK, { options: '0502ffff' });
  t.tcp(0, ACK, { options: '08ff0000' });
  t.tcp(0, ACK, {}, { odd: { headerLength: 4 } });
  t.tcp(0, ACK, {}, { odd: { headerLength: 15 } });
  t.tcp(0, ACK, {}, { odd: { headerLength: 5, cut: 16 } });
  t.tcp(0, ACK, {}, { odd: { checksum: 1 } });
  t.tcp(0, SYN | RST);
  t.tcp(0, SYN | FIN);
  t.tcp(0, 0, { seq: 1001, ack: 0 });
  t.tcp(0, FIN | PSH | 0x20, { seq: 1001, ack: 0 });
  t.tcp(0, SYN | ACK | FIN | RST | PSH | 0x20, { seq: 1001, ack: 0 });
});
everywhere('URG and ECN', (talk) => {
  const t = talk();
  t.tcp(0, SYN | 0xc0);
  t.tcp(1, SYN | ACK | 0x40);
  t.tcp(0, ACK);
  t.tcp(0, ACK | PSH | 0x20, { payload: 'urgent' });
  t.tcp(1, ACK | 0x40);
  t.tcp(0, ACK | 0x80, { payload: 'slower' }, { tos: 2 });
});

// ---- UDP ----
everywhere('datagrams both ways', (talk) => {
  const t = talk();
  t.udp(0);
  t.udp(0, '');
  t.udp(1, '', { noSum: true });
  t.udp(1, 'x');
  t.udp(0, 'x', { noSum: true });
  t.udp(0, 'x', { odd: { checksum: 5 } });
  t.udp(0, 'x', { odd: { headerLength: 4 } });
  t.udp(0, 'x', { odd: { headerLength: 200 } });
  t.udp(0, 'x', { odd: { cut: 4 } });
  t.udp(1);
});
story('both ends begin within one pair of ports', { nat: [MASQUERADE] }, (s) => {
  s.talk(IN, DMZ, 500, 500).udp(0);
  s.talk(DMZ, IN, 500, 500).udp(0);
  s.talk(OUT, WAN, 4500, 4500).udp(0);
  s.talk(IN, OUT, 4500, 4500).udp(0);
  s.talk('10.1.0.3', OUT, 4500, 4500).udp(0);
  s.talk(OUT, WAN, 4500, 4500).udp(0);
});

// ---- ICMP ----
everywhere('echoes, and one identifier for two', (talk, s) => {
  const t = talk();
  t.ping(7);
  t.ping(7, 2);
  t.icmp(0, 8, 0x70003);
  s.talk('10.1.0.3', t.to).ping(7);
  t.icmp(1, 0, 0x70003);
  t.icmp(1, 0, 0x80001);
  t.icmp(0, 8, 0x90001, { odd: { checksum: 3 } });
  t.icmp(0, 8, 0x90001, { odd: { cut: 6 } });
  t.icmp(0, 8, 0x90001, { payload: '' });
});
everywhere('queries that are rare', (talk) => {
  const t = talk();
  for (const [ask, answer] of [
    [13, 14],
    [15, 16],
    [17, 18],
  ] as const) {
    t.icmp(0, ask, 0x50001, { payload: '\0'.repeat(12) });
    t.icmp(1, answer, 0x50001, { payload: '\0'.repeat(12) });
    t.icmp(1, answer, 0x60001, { payload: '\0'.repeat(12) });
  }
  for (const type of [9, 10, 19, 30, 37, 42, 255]) t.icmp(0, type, 0x50001);
  t.icmp(0, 8, 0x50001, { code: 1 });
  t.icmp(1, 0, 0x50001, { code: 1 });
});
for (const [length, what] of [
  [548, 'long'],
  [28, 'short'],
  [24, 'cut'],
] as const)
  everywhere(`errors, ${what} quotes`, (talk, s) => {
    const t = talk(1000 + length);
    const about = [t.tcp(0, SYN), t.tcp(1, SYN | ACK), t.tcp(0, ACK), t.udp(0), t.udp(1), t.data(0, 'x'.repeat(600))];
    for (const id of about)
      for (const [type, code, rest] of [
        [3, 1, 0],
        [3, 3, 0],
        [3, 4, 1400],
        [11, 0, 0],
        [12, 0, 0x1400_0000],
        [4, 0, 0],
        [5, 1, 0x0a01_0009],
      ] as const) {
        if (type === 5 && id > 2) continue;
        s.error(id, type, code, { rest, length, from: type === 3 && code !== 4 ? 'end' : 'hop' });
      }
    s.error(about[0]!, 3, 3, { length, checksum: 7 });
    s.error(about[0]!, 3, 3, { length, damage: 1 });
  });
everywhere('errors about pings, fragments and nothing', (talk, s) => {
  const t = talk();
  const ping = t.icmp(0, 8, 0x70001);
  s.error(ping, 3, 1, { length: 28 });
  s.error(ping, 11, 0, { from: 'hop' });
  const answer = t.icmp(1, 0, 0x70001);
  s.error(answer, 3, 1);
  s.error(t.udp(0, 'f'.repeat(1000), { fragments: { size: 496, order: [0, 1, 2] } }), 11, 0, { from: 'hop' });
  t.icmp(1, 3, 0, { code: 3, payload: '' });
  t.icmp(1, 3, 0, { code: 3, payload: 'E'.repeat(20) });
  t.icmp(1, 11, 0, { payload: `\x45${'\0'.repeat(27)}` });
  t.icmp(1, 12, 0, { payload: 'abc' });
});

// ---- fragments ----
everywhere('fragments in any order', (talk) => {
  const t = talk();
  for (const order of [
    [0, 1, 2, 3],
    [3, 2, 1, 0],
    [1, 0, 3, 2],
    [0, 0, 1, 2, 3],
    [0, 1, 3],
    [1, 2, 3],
  ])
    t.udp(0, 'f'.repeat(1500), { fragments: { size: 400, order } });
  t.udp(1, 'f'.repeat(1500), { fragments: { size: 400, order: [0, 1, 2, 3] } });
});
everywhere('fragments that overlap, tiny ones, and one that is alone', (talk) => {
  const t = talk();
  t.udp(0, 'f'.repeat(800), { fragments: { size: 400, overlap: 8, order: [0, 1, 2] } });
  t.udp(0, 'f'.repeat(60), { fragments: { size: 8, order: [0, 1, 2, 3, 4, 5, 6, 7, 8] } });
  t.udp(0, 'f'.repeat(600), { fragments: { size: 400, order: [0, 1] }, df: true });
  t.udp(0, 'f'.repeat(10), { fragments: { size: 1480, order: [0] } });
  t.udp(0, 'f'.repeat(600), { fragments: { size: 400, order: [0, 1] }, ttl: 1 });
  t.udp(0, 'f'.repeat(600), { fragments: { size: 400, order: [0, 1] }, ipOptions: '94040000' });
});

// ---- the header, and where a packet may go ----
everywhere('TTL', (talk) => {
  const t = talk();
  for (const ttl of [255, 254, 2, 1, 0, 64]) t.udp(0, 'x', { ttl });
  for (const ttl of [255, 2, 1, 0]) t.udp(1, 'x', { ttl });
  t.tcp(0, SYN, {}, { ttl: 1 });
  t.icmp(0, 8, 1, { ttl: 1 });
});
story(
  'TTL set, lowered and raised',
  {
    mangle: [
      '-A FORWARD -p udp -j TTL --ttl-dec 1',
      '-A POSTROUTING -p tcp -j TTL --ttl-inc 5',
      '-A PREROUTING -p icmp -j TTL --ttl-set 1',
    ],
  },
  (s) => {
    const t = s.talk(IN, OUT);
    for (const ttl of [255, 254, 3, 2, 1, 64]) {
      t.udp(0, 'x', { ttl });
      t.tcp(0, SYN, { seq: 1000, ack: 0 }, { ttl });
      t.icmp(0, 8, ttl, { ttl });
    }
  },
);
everywhere('the reserved bit', (talk) => {
  const t = talk();
  t.tcp(0, SYN, {}, { reserved: true });
  t.tcp(1, SYN | ACK, {}, { reserved: true });
  t.tcp(0, ACK, {}, { reserved: true, ttl: 1 });
  t.udp(0, 'x', { reserved: true });
  t.udp(1, 'x', { reserved: true });
  t.udp(0, 'f'.repeat(1000), { reserved: true, fragments: { size: 496, order: [0, 1, 2] } });
  t.icmp(0, 8, 1, { reserved: true });
});
everywhere('port 0', (talk, s) => {
  const t = talk(0);
  t.udp(0);
  t.udp(1);
  t.tcp(0, SYN);
  t.tcp(1, SYN | ACK);
  s.error(t.udp(0), 3, 3);
});
everywhere('IP options', (talk) => {
  const t = talk();
  for (const ipOptions of [
    '01010100',
    '94040000',
    '07070400000000' + '00',
    '44080501' + '00000000',
    '83070400000000' + '00',
    '8203000000000000',
    'ff030000',
  ])
    t.udp(0, 'x', { ipOptions });
  t.udp(1, 'x', { ipOptions: '94040000' });
});
story('to the router', {}, (s) => {
  const t = s.talk(IN, LAN, 1000, 9);
  t.udp(0);
  t.udp(0, '', { ttl: 1 });
  t.tcp(0, SYN);
  t.tcp(0, ACK);
  t.icmp(0, 8, 0x10001, { ttl: 1 });
  t.icmp(0, 13, 0x10001, { payload: '\0'.repeat(12), odd: { checksum: 1 } });
  t.icmp(0, 17, 0x10001);
  t.raw(0, 99, 'deadbeef');
  s.talk(IN, WAN).udp(0);
  s.talk(IN, '10.2.0.1').icmp(0, 8, 1);
  s.talk(IN, '100.64.0.1').udp(0);
  s.talk(IN, '255.255.255.255').udp(0);
  s.talk(IN, '10.1.0.255').udp(0);
  s.talk(IN, '224.0.0.1').udp(0);
});

// ---- NAT ----
story(
  'hairpin',
  {
    nat: [
      '-A PREROUTING -d 198.51.100.1 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.3:8080',
      '-A POSTROUTING -s 10.1.0.0/24 -d 10.1.0.3 -j SNAT --to-source 10.1.0.1',
      MASQUERADE,
    ],
  },
  (s) => {
    s.talk(IN, WAN).open().close();
    s.talk('10.1.0.4', WAN).open();
    s.talk(OUT, WAN).open();
    s.error(s.talk('10.1.0.4', WAN, 1001).tcp(0, SYN), 3, 3);
  },
);
story(
  'ports collide',
  { nat: ['-A POSTROUTING -o if1 -p udp -j SNAT --to-source 198.51.100.2:40000-40002', MASQUERADE] },
  (s) => {
    for (const host of ['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.2.0.2', '10.2.0.3']) {
      const t = s.talk(host, OUT, 40_000, 53);
      t.udp(0);
      t.udp(1);
      s.talk(host, OUT, 40_000, 80).open();
      s.talk(host, FAR, 40_000, 53).udp(0);
    }
  },
);
story('ports run out', { nat: ['-A POSTROUTING -o if1 -p tcp -j MASQUERADE --to-ports 40000-40001'] }, (s) => {
  for (const host of ['10.1.0.2', '10.1.0.3', '10.1.0.4']) s.talk(host, OUT, 1000).tcp(0, SYN);
  // A finished connection gives its port up, but not to one whose numbers are behind its own.
  s.talk('10.1.0.2', FAR, 1000).open().close();
  s.talk('10.1.0.3', FAR, 1000).open().close();
  const late = s.talk('10.1.0.4', FAR, 1000);
  late.tcp(0, SYN, { seq: 10, ack: 0 });
  late.tcp(0, SYN, { seq: 5_000_000, ack: 0 });
});
story(
  'ranges',
  {
    nat: [
      '-A PREROUTING -d 198.51.100.1 -p udp -j DNAT --to-destination 10.2.0.2-10.2.0.4 --persistent',
      '-A PREROUTING -d 198.51.100.2 -j DNAT --to-destination 10.2.0.2-10.2.0.4',
      '-A POSTROUTING -o if1 -j SNAT --to-source 198.51.100.20-198.51.100.27',
    ],
  },
  (s) => {
    for (const from of [OUT, '198.51.100.11', FAR])
      for (const to of ['198.51.100.1', '198.51.100.2']) {
        const t = s.talk(from, to, 1000, 53);
        t.udp(0);
        t.udp(1);
        s.talk(from, to, 1001, 53).udp(0);
      }
    for (const host of ['10.1.0.2', '10.1.0.3', '10.1.0.4']) for (const to of [OUT, FAR]) s.talk(host, to).udp(0);
  },
);
story(
  'whole networks',
  {
    nat: [
      '-A PREROUTING -d 203.0.114.0/24 -j NETMAP --to 10.2.0.0/24',
      '-A POSTROUTING -s 10.2.0.0/24 -o if1 -j NETMAP --to 203.0.114.0/24',
    ],
  },
  (s) => {
    const t = s.talk(IN, '203.0.114.3', 1000, 53);
    t.udp(0);
    t.udp(1);
    const u = s.talk('10.2.0.3', OUT, 1000, 53);
    s.error(u.udp(0), 3, 3);
    u.udp(1);
    s.talk('10.2.0.2', OUT).ping(4);
    s.talk(IN, '203.0.114.2').open().close();
  },
);
story(
  'redirected',
  {
    nat: [
      '-A PREROUTING -i if0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128',
      '-A PREROUTING -i if0 -p udp -j REDIRECT',
      '-A OUTPUT -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353',
    ],
  },
  (s) => {
    s.talk(IN, OUT).open().close();
    s.talk(IN, OUT, 1000, 53).udp(0);
    s.talk(WAN, OUT, 1000, 53).udp(0);
    s.talk(WAN, FAR, 1000, 53).udp(0);
  },
);
story('DNAT in OUTPUT', { nat: ['-A OUTPUT -d 203.0.113.5 -j DNAT --to-destination 10.2.0.2', MASQUERADE] }, (s) => {
  const t = s.talk(WAN, FAR, 1000, 53);
  t.udp(0);
  t.udp(1);
  s.talk(WAN, FAR).open().close();
  s.talk(WAN, FAR).ping(3);
  s.error(s.talk(WAN, FAR, 1002, 53).udp(0), 3, 3);
});
story(
  'DNAT in OUTPUT, in fragments',
  { nat: ['-A OUTPUT -d 203.0.113.5 -j DNAT --to-destination 10.2.0.2', MASQUERADE] },
  (s) => {
    const t = s.talk(WAN, FAR, 1000, 53);
    t.udp(0, 'f'.repeat(1000), { fragments: { size: 496, order: [0, 1, 2] } });
    t.udp(1, 'f'.repeat(1000), { fragments: { size: 496, order: [0, 1, 2] } });
    t.udp(0, 'f'.repeat(1000), { fragments: { size: 496, order: [2, 1, 0] } });
    s.talk(WAN, OUT, 1000, 53).udp(0, 'f'.repeat(1000), { fragments: { size: 496, order: [0, 1, 2] } });
  },
);
story(
  'DNAT to where nobody is',
  {
    nat: [
      '-A PREROUTING -p udp -m udp --dport 1 -j DNAT --to-destination 127.0.0.1',
      '-A PREROUTING -p udp -m udp --dport 2 -j DNAT --to-destination 100.64.0.1',
      '-A PREROUTING -p udp -m udp --dport 3 -j DNAT --to-destination 10.2.0.255',
      '-A PREROUTING -p udp -m udp --dport 4 -j DNAT --to-destination 10.2.0.1:9',
      '-A PREROUTING -p udp -m udp --dport 6 -j DNAT --to-destination 10.1.0.2',
      '-A OUTPUT -p udp -m udp --dport 2 -j DNAT --to-destination 100.64.0.1',
      '-A OUTPUT -p udp -m udp --dport 4 -j DNAT --to-destination 10.2.0.1:9',
    ],
  },
  (s) => {
    for (const port of [1, 2, 3, 4, 6]) {
      s.talk(IN, OUT, 1000, port).udp(0);
      s.talk(OUT, WAN, 1000, port).udp(0);
    }
    s.talk(WAN, OUT, 1000, 2).udp(0);
    s.talk(WAN, OUT, 1000, 4).udp(0);
  },
);
story(
  'too long for the way',
  { nat: [MASQUERADE, '-A PREROUTING -d 198.51.100.1 -j DNAT --to-destination 10.2.0.2'] },
  (s) => {
    for (const talk of [s.talk(IN, DMZ), s.talk(OUT, WAN)]) {
      talk.udp(0, 'x'.repeat(1400), { df: true });
      talk.udp(0, 'x'.repeat(1400));
      talk.udp(0, 'x'.repeat(1272));
      talk.udp(0, 'x'.repeat(1273), { df: true });
      talk.udp(0, 'x'.repeat(2800), { fragments: { size: 1400, order: [0, 1, 2] } });
      talk.udp(0, 'x'.repeat(2800), { fragments: { size: 1400, order: [1, 0, 2] }, ttl: 1 });
      talk.open();
      talk.data(0, 'x'.repeat(1400), { df: true });
      talk.data(0, 'x'.repeat(1400));
      talk.data(1, 'x'.repeat(1200));
    }
  },
);
story('an association', { nat: [MASQUERADE] }, (s) => {
  for (const host of [IN, '10.1.0.3']) {
    const t = s.talk(host, OUT, 5000, 80);
    const init = (type: string, tag: string): string => `${type}000014${tag}0000ffff00010001000000ab`;
    t.sctp(0, 0, init('01', '01010101'));
    t.sctp(1, 0x01010101, init('02', '02020202'));
    t.sctp(0, 0x02020202, '0a000008deadbeef');
    t.sctp(1, 0x01010101, '0b000004');
    t.sctp(0, 0x02020202, '0003001400000001000000000000000064617461');
    t.sctp(1, 0x01010101, '03000010000000010000100000000000');
    t.sctp(1, 0x0101, '03000010000000010000100000000000');
    t.sctp(0, 0x02020202, '04000008aaaaaaaa');
    t.sctp(1, 0x01010101, '05000008aaaaaaaa');
    if (host === IN) {
      t.sctp(0, 0x02020202, '0700000800000001');
      t.sctp(1, 0x01010101, '08000004');
      t.sctp(0, 0x02020202, '0e000004');
      t.sctp(0, 0, init('01', '03030303'));
    } else t.sctp(1, 0x01010101, '06000004');
  }
});
story(
  'checksums of datagrams under NAT',
  { nat: [MASQUERADE, '-A PREROUTING -d 198.51.100.1 -p udp -j DNAT --to-destination 10.2.0.2:5353'] },
  (s) => {
    const t = s.talk(IN, OUT, 1000, 53);
    t.udp(0, 'x', { noSum: true });
    t.udp(1, 'x', { noSum: true });
    t.udp(0, 'odd', { odd: { checksum: 0x1234 } });
    const u = s.talk(OUT, WAN, 1000, 53);
    for (let n = 0; n < 3; n++) u.udp(0, 'y'.repeat(n));
    u.udp(1, 'z', { noSum: true });
  },
);
story(
  'protocols without ports',
  { nat: [MASQUERADE, '-A PREROUTING -d 198.51.100.1 -p 47 -j DNAT --to-destination 10.2.0.2'] },
  (s) => {
    for (const [proto, hex] of [
      [50, '0000000100000001aabbccdd'],
      [51, '0604000000000001000000010011223344556677'],
      [47, '0000080045000014'],
      [47, '2081880b000400070000000100000001cafe'],
      [33, '03e80050050000000000000100000000'],
      [4, '4500001400000000400000000a0100020a020002'],
      [253, 'ff'],
    ] as const) {
      const t = s.talk(IN, OUT);
      t.raw(0, proto, hex);
      t.raw(1, proto, hex);
      s.error(s.talk('10.1.0.3', OUT).raw(0, proto, hex), 3, 2);
      s.talk(OUT, WAN).raw(0, proto, hex);
    }
  },
);

// ---- what comes back by lo ----
story(
  'REJECT in OUTPUT for the router itself',
  {
    filter: [
      '-A OUTPUT -d 10.2.0.1 -p udp -j REJECT',
      '-A OUTPUT -d 10.2.0.1 -p tcp -j REJECT --reject-with tcp-reset',
    ],
  },
  (s) => {
    s.talk(WAN, '10.2.0.1').udp(0);
    s.talk(WAN, '10.2.0.1').tcp(0, SYN);
    s.talk(LAN, LAN).udp(0);
  },
);
story(
  'REJECT in OUTPUT, and a mark',
  {
    mangle: ['-A OUTPUT -p icmp -j MARK --set-mark 5', '-A INPUT -m mark --mark 5'],
    filter: ['-A OUTPUT -p udp -j REJECT'],
  },
  (s) => {
    s.talk(WAN, OUT).udp(0);
    s.talk(LAN, DMZ).udp(0);
  },
);
story(
  'NOTRACK in OUTPUT, of what comes back by lo',
  {
    raw: ['-A OUTPUT -p udp -j NOTRACK', '-A PREROUTING -m state --state UNTRACKED'],
    filter: ['-A OUTPUT -p tcp -j REJECT'],
  },
  (s) => {
    s.talk(WAN, LAN).udp(0);
    s.talk(WAN, '10.2.0.1', 1000, 53).udp(0, '');
    s.talk(WAN, '10.2.0.1', 1000, 53).ping(3);
  },
);
story(
  'REJECT of what is INVALID, and NOTRACK of the error',
  { raw: ['-A OUTPUT -p icmp -j NOTRACK'], filter: ['-A OUTPUT -p tcp -j REJECT'] },
  (s) => {
    // The router's reset belongs to no connection; the error about it comes back by lo.
    s.talk(OUT, WAN).tcp(0, SYN | ACK, { seq: 5000, ack: 1001 });
    // That of a packet picked up ends a connection, to which the error belongs.
    s.talk(FAR, WAN).tcp(0, ACK);
  },
);
story(
  'too long for the way that DNAT in OUTPUT gives it',
  {
    raw: ['-A OUTPUT -m state --state RELATED', '-A OUTPUT -m state --state INVALID'],
    nat: ['-A OUTPUT -d 198.51.100.10 -j DNAT --to-destination 10.2.0.2'],
  },
  (s) => {
    s.talk(WAN, OUT).tcp(0, SYN, { payload: 'x'.repeat(1400) }, { df: true });
    s.talk(WAN, OUT).udp(0, 'x'.repeat(1400), { df: true });
    s.talk(WAN, DMZ).udp(0, 'x'.repeat(1400), { df: true });
    s.talk(WAN, OUT).udp(0, 'x'.repeat(1400));
  },
);
story(
  'NOTRACK of what nobody speaks, and of the error about it',
  {
    raw: ['-A PREROUTING -s 198.51.100.10 -j CT --notrack', '-A OUTPUT -j CT --notrack'],
    filter: ['-A OUTPUT -m state --state UNTRACKED', '-A OUTPUT -m state --state INVALID'],
  },
  (s) => {
    for (const host of [OUT, FAR]) {
      s.talk(host, WAN).raw(0, 99, 'deadbeef');
      s.talk(host, WAN).raw(0, 51, '0604');
      s.talk(host, WAN).udp(0);
    }
  },
);
story(
  'an error about what belongs to nothing, which NAT turns to the router',
  {
    nat: ['-A PREROUTING -p tcp -j DNAT --to-destination 198.51.100.2'],
    filter: [
      '-A FORWARD -d 10.1.0.0/24 -j REJECT',
      '-A INPUT -m connbytes --connbytes 0:3 --connbytes-dir reply --connbytes-mode bytes',
    ],
  },
  (s) => {
    const t = s.talk('10.1.0.4', IN, 20_001, 21);
    t.tcp(0, SYN);
    s.talk(IN, '10.1.0.4', 21, 20_001).tcp(0, SYN | ACK, { seq: 5000, ack: 1001 });
  },
);
story(
  'a reset has ended a connection, and another of the same ends belongs to none',
  { filter: ['-A OUTPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK -j REJECT --reject-with tcp-reset'] },
  (s) => {
    const t = s.talk(WAN, OUT);
    t.tcp(0, SYN);
    t.tcp(0, RST, { seq: 1001, ack: 0 });
    t.tcp(0, SYN | ACK, { seq: 9000, ack: 5001 });
    t.tcp(0, SYN, { seq: 70_000, ack: 0 });
  },
);
story(
  'too long and part of nothing: the error belongs to no connection yet in raw OUTPUT',
  { raw: ['INVALID', 'RELATED', 'ESTABLISHED'].map((state) => `-A OUTPUT -p icmp -m conntrack --ctstate ${state}`) },
  (s) => {
    const t = s.talk(FAR, DMZ);
    t.tcp(0, SYN);
    t.tcp(0, PSH | ACK, { seq: 1003, ack: 1385, payload: 'x'.repeat(1400) }, { df: true });
    const known = s.talk(FAR, DMZ, 1001).open();
    known.data(0, 'x'.repeat(1400), { df: true });
  },
);
story('the administrator tunes connection tracking', { nat: [MASQUERADE] }, (s) => {
  const tune = (...words: string[]): void =>
    s.command('sysctl', ['-w', ...words.map((word) => `net.netfilter.nf_conntrack_${word}`)]);
  const picked = (sport: number): void => {
    const t = s.talk(IN, OUT, sport);
    t.data(0, 'in the middle');
    t.data(1, 'of it');
  };
  const outside = (sport: number): void => {
    const t = s.talk(IN, OUT, sport).open();
    t.tcp(0, PSH | ACK, { seq: 900_000_000, payload: 'far outside its window' });
    t.tcp(1, RST, { seq: 77, ack: 0 });
    t.data(0, 'GET');
  };
  picked(1000);
  outside(1001);
  tune('tcp_loose=0', 'tcp_timeout_established=300', 'udp_timeout=60');
  picked(1002);
  tune('tcp_be_liberal=1', 'udp_timeout_stream=178', 'icmp_timeout=9');
  outside(1003);
  tune('tcp_be_liberal=0', 'tcp_ignore_invalid_rst=1', 'checksum=0');
  outside(1004);
  s.talk(IN, OUT, 1005).udp(0, 'damaged', { odd: { checksum: 1 } });
  s.talk(IN, OUT, 1006).ping(7);
  tune('checksum=1', 'tcp_max_retrans=1', 'tcp_timeout_max_retrans=58');
  const t = s.talk(IN, OUT, 1007).open();
  for (let n = 0; n < 3; n++) t.tcp(0, PSH | ACK, { seq: 1001, ack: 5001, payload: 'again and again' });
  s.talk(IN, OUT, 1008).udp(0, 'damaged', { odd: { checksum: 1 } });
});
story('to itself', { nat: ['-A OUTPUT -p tcp -m tcp --dport 81 -j DNAT --to-destination 10.2.0.1:82'] }, (s) => {
  s.talk(LAN, LAN).udp(0);
  s.talk(WAN, LAN).tcp(0, SYN);
  s.talk(WAN, LAN, 1000, 81).tcp(0, SYN);
  s.talk(LAN, '10.2.0.1').icmp(0, 8, 0x10001);
});

story(
  'a reset of what NAT turns to the router',
  { nat: ['-A OUTPUT -p tcp -j DNAT --to-destination 10.2.0.1'] },
  (s) => {
    const t = s.talk(WAN, OUT);
    // Nobody answers a wrong sum.
    t.data(0, 'half a sentence', { odd: { checksum: 1 } });
    t.tcp(0, RST | ACK);
  },
);

// ---- zones ----
for (const kind of ['zone', 'zone-orig', 'zone-reply'])
  story(`--${kind}`, { raw: [`-A PREROUTING -i if0 -j CT --${kind} 1`], nat: [MASQUERADE] }, (s) => {
    const t = s.talk(IN, DMZ, 1000, 53);
    t.udp(0);
    t.udp(1);
    s.talk(DMZ, IN, 53, 1000).udp(0);
    s.talk(DMZ, IN, 1000, 53).udp(0);
    s.talk(IN, DMZ, 53, 1000).udp(0);
    s.talk(IN, OUT).open();
    s.talk(OUT, IN, 80, 1000).tcp(0, SYN);
  });

// ---- helpers ----
for (const [name, nat] of [
  ['', []],
  [', masqueraded', [MASQUERADE]],
  [', translated to a longer address', ['-A POSTROUTING -o if1 -j SNAT --to-source 198.51.100.200']],
] as const)
  story(`ftp${name}`, { raw: FTP, nat: [...nat] }, (s) => {
    const t = s.talk(IN, OUT, 1030, 21).open();
    t.data(1, '220 ready\r\n');
    t.tcp(0, ACK);
    const port = t.data(0, 'PORT 10,1,0,2,117,48\r\n');
    t.tcp(1, ACK);
    s.transfer(port, OUT, IN, 20, 30_000);
    t.data(1, '226 done\r\n');
    const again = t.data(0, 'EPRT |1|10.1.0.2|30001|\r\n');
    s.transfer(again, OUT, IN, 20, 30_001);
    // Sent again, after lengths have changed; then acknowledged.
    t.tcp(0, ACK | PSH, { seq: t.seq[0]! - 25, payload: 'EPRT |1|10.1.0.2|30001|\r\n' });
    t.tcp(1, ACK);
    t.data(0, 'PASV\r\n');
    const passive = t.data(1, '227 Entering Passive Mode (198,51,100,10,117,50)\r\n');
    s.transfer(passive, IN, OUT, 1031, 30_002);
    t.data(0, 'EPSV\r\n');
    const extended = t.data(1, '229 Entering Extended Passive Mode (|||30003|)\r\n');
    s.transfer(extended, IN, OUT, 1032, 30_003);
    // In two segments, in pieces that no line ends, of another host, and nonsense.
    t.data(0, 'PORT 10,1,0,2');
    t.data(0, ',117,52\r\n');
    t.data(0, 'PORT 10,1,0,3,117,53\r\n');
    t.data(0, 'PORT 10,1,0,2,1,300\r\n');
    t.data(0, 'PORT 0,0,0,0,0,0\r\n');
    t.data(0, 'EPRT |2|::1|30001|\r\n');
    t.data(0, 'eprt !1!10.1.0.2!30004!\r\n');
    t.tcp(1, ACK);
    t.close();
  });
story(
  'ftp to a server inside',
  { raw: FTP, nat: ['-A PREROUTING -d 198.51.100.1 -p tcp -m tcp --dport 21 -j DNAT --to-destination 10.2.0.2'] },
  (s) => {
    const t = s.talk(OUT, WAN, 1030, 21).open();
    t.data(1, '220 ready\r\n');
    const passive = t.data(1, '227 Entering Passive Mode (10,2,0,2,117,50)\r\n');
    t.tcp(0, ACK);
    s.transfer(passive, OUT, WAN, 1031, 30_002);
    const extended = t.data(1, '229 Entering Extended Passive Mode (|||30003|)\r\n');
    s.transfer(extended, OUT, WAN, 1032, 30_003);
    const port = t.data(0, 'PORT 198,51,100,10,117,48\r\n');
    t.tcp(1, ACK);
    s.transfer(port, DMZ, OUT, 20, 30_000);
    t.close(1);
  },
);
for (const [name, nat] of [
  ['', []],
  [', masqueraded', [MASQUERADE]],
] as const) {
  story(`tftp${name}`, { raw: ['-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp'], nat: [...nat] }, (s) => {
    const t = s.talk(IN, OUT, 1030, 69);
    const read = t.udp(0, '\0\x01file\0octet\0');
    const answer = s.talk(OUT, IN, 3000, 1030);
    answer.udp(0, '\0\x03\0\x01data');
    s.expected(read);
    answer.udp(1, '\0\x04\0\x01');
    answer.udp(0, '\0\x03\0\x02data');
    s.talk(OUT, IN, 3001, 1030).udp(0, '\0\x03\0\x01data');
  });
  story(`irc${name}`, { raw: ['-A PREROUTING -p tcp -m tcp --dport 6667 -j CT --helper irc'], nat: [...nat] }, (s) => {
    const t = s.talk(IN, OUT, 1030, 6667).open();
    const send = t.data(0, 'PRIVMSG you :\x01DCC SEND file 167837698 5000 1234\x01\r\n');
    t.tcp(1, ACK);
    s.transfer(send, FAR, IN, 2000, 5000);
    const chat = t.data(0, 'PRIVMSG you :\x01DCC CHAT chat 167837698 5001\x01\r\n');
    s.transfer(chat, FAR, IN, 2001, 5001);
    t.data(0, 'PRIVMSG you :\x01DCC CHAT chat 1 5001\x01\r\n');
    t.close();
  });
}

story('a reset without ACK after lengths have changed', { raw: FTP, nat: [MASQUERADE] }, (s) => {
  const t = s.talk(IN, OUT, 1030, 21).open();
  t.data(0, 'PORT 10,1,0,2,117,48\r\n');
  t.tcp(1, ACK);
  t.tcp(1, ACK | PSH, { payload: 'x', options: '0101050a000003e9000003ed' });
  t.tcp(1, RST, { ack: 0 });
});

// ---- sip ----
const SIP = ['udp', 'tcp'].map((proto) => `-A PREROUTING -p ${proto} -m ${proto} --dport 5060 -j CT --helper sip`);

for (const [name, nat, seen] of [
  ['', [], IN],
  [', masqueraded', [MASQUERADE], WAN],
  [', translated to a longer address', ['-A POSTROUTING -o if1 -j SNAT --to-source 198.51.100.200'], '198.51.100.200'],
] as const)
  for (const transport of ['UDP', 'TCP'] as const)
    story(`sip over ${transport}${name}`, { raw: SIP, nat: [...nat] }, (s) => {
      const t = s.talk(IN, OUT, 5060, 5060);
      if (transport === 'TCP') t.open();
      const say = (way: 0 | 1, text: string): number => (transport === 'TCP' ? t.data(way, text) : t.udp(way, text));
      const contact = (host: string, more = ''): string => `Contact: <sip:me@${end(host)}${more}>`;
      let cseq = 1;
      const calling = (more: string[] = []): Call => ({ from: IN, to: OUT, cseq, transport, more });
      const answering = (more: string[] = []): Call => ({ from: seen, to: OUT, cseq, transport, more });
      const media = (about: number, from: string, to: string, sport: number, dport: number): void => {
        const rtp = s.talk(from, to, sport, dport);
        rtp.udp(0, 'voice');
        s.expected(about);
        rtp.udp(1, 'voice');
        rtp.udp(0, 'voice');
      };

      // Registration: refused, granted for a while, renewed, given up.
      say(0, request('REGISTER', calling([contact(IN), 'Expires: 600'])));
      say(1, response('100 Trying', 'REGISTER', answering()));
      say(1, response('401 Unauthorized', 'REGISTER', answering()));
      cseq++;
      const registered = say(0, request('REGISTER', calling([contact(IN, ';expires=900')])));
      say(1, response('200 OK', 'REGISTER', answering([`${contact('1.2.3.4')}, <sip:me@${end(seen)}>;expires=900`])));

      // A call from the registrar, from another port.
      const u = s.talk(OUT, seen, 5070, 5060);
      if (transport === 'TCP') {
        u.tcp(0, SYN);
        s.expected(registered);
        u.tcp(1, SYN | ACK);
        u.tcp(0, ACK);
      }
      const offer: Call = { from: `${OUT}:5070`, to: seen, cseq: 7, transport, more: [contact(`${OUT}:5070`)] };
      const invite = request('INVITE', offer, session(OUT, 'audio 6000'));
      if (transport === 'TCP') u.data(0, invite);
      else {
        u.udp(0, invite);
        s.expected(registered);
      }
      const talk = (way: 0 | 1, text: string): number => (transport === 'TCP' ? u.data(way, text) : u.udp(way, text));
      talk(1, response('180 Ringing', 'INVITE', { ...offer, to: IN }));
      const taken = talk(
        1,
        response('200 OK', 'INVITE', { ...offer, to: IN, more: [contact(IN)] }, session(IN, 'audio 7000')),
      );
      talk(0, request('ACK', offer));
      media(taken, OUT, seen, 6000, 7000);
      media(taken, OUT, seen, 6001, 7001);
      s.talk(FAR, seen, 6000, 7000).udp(0, 'not part of it');
      talk(0, request('BYE', { ...offer, cseq: 8 }));
      talk(1, response('200 OK', 'BYE', { ...offer, to: IN, cseq: 8 }));

      // A call to the registrar, with media on ports of their own, changed in between.
      cseq = 10;
      const called = say(
        0,
        request('INVITE', calling([contact(IN)]), session(IN, 'audio 7002', `video 7005,${IN}`, 'image 7006')),
      );
      say(1, response('100 Trying', 'INVITE', answering()));
      const accepted = say(
        1,
        response('183 Session Progress', 'INVITE', answering(), session(OUT, 'audio 6002', 'video 6004')),
      );
      media(called, OUT, seen, 6002, 7002);
      media(accepted, IN, OUT, 7004, 6004);
      say(0, request('PRACK', { ...calling(), cseq: 11 }));
      say(1, response('200 OK', 'PRACK', { ...answering(), cseq: 11 }));
      say(1, response('200 OK', 'INVITE', answering([contact(OUT)]), session(OUT, 'audio 6002', 'video 6004')));
      say(0, request('ACK', calling()));
      media(called, OUT, seen, 6004, 7004);
      cseq = 12;
      const changed = say(0, request('UPDATE', calling([contact(IN)]), session(IN, `audio 9998,${IN}`)));
      say(1, response('200 OK', 'UPDATE', answering(), session(OUT, 'audio 6010')));
      media(changed, OUT, seen, 6010, 9998);
      cseq = 13;
      say(0, request('INVITE', calling([contact(IN)]), session(IN, 'audio 9000', 'video 0', 'text 9100')));
      say(1, response('486 Busy Here', 'INVITE', answering()));
      s.talk(OUT, seen, 6002, 9000).udp(0, 'late');
      cseq = 14;
      say(0, request('CANCEL', calling()));
      say(0, request('BYE', calling()));

      cseq = 20;
      say(0, request('REGISTER', calling([contact(IN, ';expires=0')])));
      say(1, response('200 OK', 'REGISTER', answering()));
      if (transport === 'TCP') t.close();
    });

/** A server inside, reached from outside by another address, and at another port. */
story(
  'sip to a server inside',
  {
    raw: SIP,
    nat: [
      `-A PREROUTING -d ${WAN} -p udp -m udp --dport 5060 -j DNAT --to-destination ${DMZ}:5070`,
      `-A PREROUTING -d ${WAN} -p tcp -m tcp --dport 5060 -j DNAT --to-destination ${DMZ}`,
      MASQUERADE,
    ],
  },
  (s) => {
    const t = s.talk(OUT, WAN, 5060, 5060);
    const there: Call = { from: OUT, to: WAN, cseq: 1, more: [`Contact: <sip:me@${OUT}>`] };
    const here: Call = { ...there, to: `${DMZ}:5070`, more: [`Contact: <sip:you@${DMZ}:5070>`] };
    t.udp(0, request('REGISTER', { ...there, more: [...there.more!, 'Expires: 60'] }));
    t.udp(1, response('200 OK', 'REGISTER', { ...here, more: [...there.more!, 'Expires: 60'] }));
    const call = s.talk(DMZ, OUT, 5070, 5060);
    call.udp(0, request('INVITE', { from: `${DMZ}:5070`, to: OUT, cseq: 9 }, session(DMZ, 'audio 4000')));
    call.udp(1, response('200 OK', 'INVITE', { from: `${WAN}:5070`, to: OUT, cseq: 9 }, session(OUT, 'audio 4010')));
    s.talk(OUT, WAN, 4010, 4000).udp(0, 'voice');
    s.talk(DMZ, OUT, 4000, 4010).udp(0, 'voice');
    t.udp(0, request('INVITE', there, session(OUT, 'audio 4100')));
    const taken = t.udp(1, response('200 OK', 'INVITE', here, session(DMZ, 'audio 4102')));
    s.talk(OUT, WAN, 4100, 4102).udp(0, 'voice');
    s.expected(taken);
    s.talk(DMZ, OUT, 4103, 4101).udp(0, 'voice');
    // Both ends inside: the second is told the first's own address.
    const other = s.talk(FAR, WAN, 5060, 5060);
    other.udp(0, request('INVITE', { ...there, from: FAR, more: [] }, session(OUT, 'audio 4100')));
    other.udp(1, response('200 OK', 'INVITE', { ...here, from: FAR }, session(DMZ, 'audio 4102')));
    other.udp(
      1,
      response('200 OK', 'INVITE', { ...here, from: FAR }, session(DMZ, 'audio 4102', 'audio 4102', 'video 4102')),
    );
    t.udp(1, request('BYE', { from: `${DMZ}:5070`, to: OUT, cseq: 1 }));
    const stream = s.talk(OUT, WAN, 5061, 5060).open();
    const said = request('OPTIONS', { ...there, from: `${OUT}:5061`, transport: 'TCP' });
    const answered = response('200 OK', 'OPTIONS', { ...here, from: `${OUT}:5061`, to: DMZ, transport: 'TCP' });
    stream.data(0, said);
    // Two in a segment, the second whole, in pieces, without length.
    stream.data(1, answered + answered);
    stream.tcp(0, ACK);
    stream.data(1, answered.slice(0, 100));
    stream.data(1, answered.slice(100) + answered.slice(0, 90));
    stream.data(1, answered.slice(90));
    stream.data(1, answered.replace('Content-Length: 0', 'Content-Length: 4') + 'bo');
    stream.data(1, 'dy' + answered.replace('Content-Length', 'X-Length'));
    stream.data(1, answered.replace('Length: 0', 'Length: 99999'));
    stream.data(1, answered.replace('Length: 0', 'Length: 4294967296'));
    stream.data(1, answered.replace('\r\n\r\n', '\n\n'));
    stream.data(1, answered.replace('Length: 0', 'Length: 3') + 'abc' + answered);
    stream.data(0, `${said}\r\n\r\n${said}`);
    stream.tcp(0, ACK);
    stream.close();
  },
);

/** Several phones behind one address that want the same ports for their media, or each other's. */
story('sip by several phones', { raw: SIP, nat: [MASQUERADE] }, (s) => {
  const second = '10.1.0.3';
  const third = '10.1.0.4';
  const talks = [IN, second, third].map((phone, i) => s.talk(phone, OUT, 5060 + 2 * i, 5060));
  const invite = (from: string, ...media: string[]): string =>
    request('INVITE', { from, to: OUT, cseq: 1 }, session(from, ...media));
  talks[0]!.udp(0, invite(IN, 'audio 4000', 'video 4002'));
  talks[1]!.udp(0, invite(second, 'audio 4000'));
  talks[2]!.udp(0, invite(third, 'video 4001'));
  talks[1]!.udp(0, invite(second, 'audio 4004'));
  talks[2]!.udp(0, invite(third, 'audio 4004', 'image 4000'));
  // What one was told is said to another: both ends are inside.
  const told = response('200 OK', 'INVITE', { from: WAN, to: OUT, cseq: 1 }, session(WAN, 'audio 4000'));
  talks[1]!.udp(1, told);
  const ours = s.talk(OUT, WAN, 7000, 5060);
  ours.udp(0, request('INVITE', { from: OUT, to: WAN, cseq: 1 }, session(WAN, 'audio 4000')));
});
/** One call of a phone is translated, another isn't: what is expected for both has no translation to follow. */
story(
  'sip by two ways',
  { raw: SIP, nat: ['-A POSTROUTING -o if1 -p udp -m udp --sport 5062 -j SNAT --to-source 198.51.100.20'] },
  (s) => {
    const [plain, translated] = [5060, 5062].map((port) => s.talk(IN, OUT, port, 5060));
    const invite = (cseq: number, ...media: string[]): string =>
      request('INVITE', { from: IN, to: OUT, cseq }, session(IN, ...media));
    plain!.udp(0, invite(1, 'audio 4000'));
    translated!.udp(0, invite(1, 'audio 4000', 'audio 4010'));
    translated!.udp(0, invite(2, 'audio 4020'));
    plain!.udp(0, invite(2, 'audio 4020'));
    plain!.udp(0, invite(3, 'video 4020'));
  },
);

/** Phones that send from another port than they listen at, and say so. */
for (const [name, nat, seen] of [
  ['', [], IN],
  [', masqueraded', [MASQUERADE], WAN],
] as const)
  story(`sip from another port than its own${name}`, { raw: SIP, nat: [...nat] }, (s) => {
    const t = s.talk(IN, OUT, 30_000, 5060);
    const call: Call = { from: IN, to: OUT, cseq: 1, more: [`Contact: <sip:me@${IN}>`, 'Expires: 90'] };
    t.udp(0, request('REGISTER', call));
    t.udp(1, response('200 OK', 'REGISTER', { ...call, from: seen, via: `${seen}:30000` }));
    t.udp(1, request('OPTIONS', { from: OUT, to: `${seen}:30000`, cseq: 2 }), { noSum: true });
    s.talk(OUT, seen, 5060, 5060).udp(0, request('OPTIONS', { from: OUT, to: seen, cseq: 3 }));
    t.udp(0, request('INVITE', { ...call, cseq: 4 }, session(IN, 'audio 8000')));
    t.udp(1, response('200 OK', 'INVITE', { ...call, from: seen, cseq: 4 }, session(OUT, 'audio 8002')));
    const u = s.talk(IN, OUT, 30_001, 5060).open();
    u.data(0, request('REGISTER', { ...call, transport: 'TCP' }));
    u.data(1, response('200 OK', 'REGISTER', { ...call, from: seen, transport: 'TCP' }));
    u.tcp(0, ACK);
  });

/** Messages as nobody should send them: each by a connection of its own, the ends as its two sides know them. */
const ODD: ((me: string, you: string) => string)[] = [
  // Headers: compact, folded, in any case and order, with one end of the line, listed, missing.
  (me, you) =>
    `register sip:${you} sip/2.0\nv : SIP/2.0/udp ${me}\nf:<SIP:a@${me}>\nt:\t<sip:${you}>\ncseq\n : 1 x\nm: <sip:${me}>\nexpires:9\n\n`,
  (me) =>
    `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: "a" <sip:a@1.1.1.1>,\r\n <sip:b@${me}>;q=1,<sip:c@${me}>\r\nExpires: 7\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq:\r\n\t1\r\nContact:\r\n  <sip:${me}>\r\nExpires : \r\n 8\r\n\r\n`,
  (me) =>
    `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:a@host>\r\nContact: <sip:b@${me}>;expires=77\r\nContact: <sip:${me}>\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me};transport=tcp>;expires=77\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me};transport=UDP>;expires=x\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me};transport=sctp>;expires=9\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}>;expires=4294967296\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}>, <sip:c@${me}>;expires=9\r\nExpires: 0\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}:80>;expires=9\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}:1024>;expires=9\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}:65535>;expires=9\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}:005060>;expires=9\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: <sip:b@${me}:>;expires=9\r\n\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: sip:b@${me}`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: sip:b@${me}:5062`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: sip:b@${me}.\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: sip:b@${me}d\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: sip:b@${me}g\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContact: sip:b@0${me}\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 1\r\nContacts: <sip:b@${me}>\r\nContact: <sip:b@${me}>\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: x\r\nContact: <sip:b@${me}>\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nContact: <sip:b@${me}>\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x SIP/2.0\r\nCSeq: 123456789012\r\nContact: <sip:b@${me}>\r\nExpires: 9\r\n`,
  (me) => `REGISTER  sip:x SIP/2.0\r\nContact: <sip:b@${me}>\r\n`,
  (me) => `REGISTERS sip:x SIP/2.0\r\nContact: <sip:b@${me}>\r\n`,
  (me) => `REGISTER 1 SIP/2.0\r\nContact: <sip:b@${me}>\r\n`,
  (me) => `REGISTER sip:x\r\n\r\nCSeq: 1\r\nContact: <sip:b@${me}>\r\nExpires: 9\r\n`,
  (me) => `REGISTER sip:x\n\nCSeq: 1\n\nContact: <sip:b@${me}>\r\nExpires: 9\r\n`,
  // Via and its parameters.
  (me, you) =>
    `OPTIONS sip:a@${you}:5060 SIP/2.0\r\nVia: SIP/2.0/UDP ${me};maddr=${me};received=${you};rport=5060;rport\r\n\r\n`,
  (me, you) =>
    `OPTIONS sip:${you}:5060 SIP/2.0\r\nVia: SIP/2.0/UDP a.b.c, SIP/2.0/UDP ${me}\r\nVia: SIP/2.0/UDP ${me} ; maddr=${me}\r\n\r\n`,
  (me, you) =>
    `OPTIONS SIP:a@b@${you} SIP/2.0\r\nVia: SIP/2.0/TCP ${me}\r\n\tVia: SIP/2.0/UDP ${me}\r\n v: SIP/2.0/UDP ${me}\r\n\r\n`,
  (me, you) =>
    `OPTIONS tel:1 SIP/2.0\r\nVia: SIP/2.0/UDP\r\n   ${me};\r\n  maddr=${me};received=1.2.3.4;rport=99999\r\nTo: sip:${you}\r\nFrom: sip:${me}\r\n`,
  (_, you) => `OPTIONS sip:${you}`,
  (me, you) => `OPTIONS\r\nsip:${you} Via: SIP/2.0/UDP ${me}\r\n`,
  (me) =>
    `OPTIONS\xe4 sip:${me} SIP/2.0\r\nFrom: <sip:${me}>, <sip:${me}>\r\nFrom: <sip:${me}>\r\nTo: <sip:x@y>\r\nTo: <sip:${me}>\r\n`,
  (me) => `12345678901 sip:${me} SIP/2.0\r\nFrom: <sip:${me}>\r\n`,
  (me, you) => `SIP/2.0\t200 OK\r\nVia: SIP/2.0/UDP ${you};received=${you};rport=5060\r\nTo: sip:${me}\r\n`,
  (me, you) =>
    `SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\nVia: SIP/2.0/UDP ${you};maddr=${me};received=${you};rport=5060\r\n\r\n`,
  (me) => `SIP/2.0 0 OK\r\nCSeq: 1 INVITE\r\nTo: sip:${me}\r\n`,
  (me) => `SIP/2.0 200 OK\r\nTo: sip:${me}\r\n`,
  (me) => `SIP/2.0 OK abc\r\nCSeq: 1 INVITE\r\nTo: sip:${me}\r\n`,
  (me) => `SIP/2.0 500 No\r\nCSeq: 0 INVITEx\r\nTo: sip:${me}\r\n`,
  (me) => `SIP/2.0 200 OK\r\nCSeq: 0 REGISTER\r\nContact: <sip:${me}>;expires=x\r\n`,
  () => 'SIP/2.0 200',
  () => 'SIP/2.0 20',
  () => '\r\n\r\n',
  () => '\0\0\0\0\0\0\0\0\0\0\0\0',
  (me) => `OPTIONS sip:x SIP/2.0\r\nContact: ${Array.from({ length: 5 }, () => `<sip:${me}:5060>`).join(', ')}\r\n\r\n`,
  (me) =>
    `OPTIONS sip:x SIP/2.0\r\nContact: <sip:00000000${me}:5060>,<sip:${me}:5060>\r\nContact: <sip:${me}:5060>\r\n`,
  // Descriptions.
  (me) => `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nm=audio 4000 x\r\nc=IN IP4 ${me}\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:0\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nm=audio 4000 x\r\nc=IN IP4 ${me}\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:0000000\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nm=audio 4001 x\r\nc=IN IP4 ${me}\r\n`,
  (me) => `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\nm=audio 4000 x\r\nc=IN IP4 ${me}\r\n`,
  (me) => `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nm=audio 4000 x\r\n`,
  (me) => `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nc=IN IP4 ${me}\r\n`,
  (me) => `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 host\r\nc=IN IP4 ${me}\r\nm=audio 1 x\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\no=- IN IP4 ${me}\nc=IN IP4 1.2.3.4\nm=audio 4000 x\nc=IN IP4 ${me}\nm=Audio 1\nm=video 0\nm=image 4001`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nc=in ip4 ${me}\r\nm=audio 4000 x\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nc=IN IP4 ${me}\r\nm=audio 65535 x\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nc=IN IP4 ${me}\r\nm=audio 65536 x\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nc=IN IP4 ${me}\r\nm=audio 999999999999 x\r\nm=audio\r\nm=audio 4000 x\r\n`,
  (me) =>
    `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=0\r\no=- IN IP4 ${me}\r\nc=IN IP4 ${me}/127\r\nm=audio 4000 x\r\nm=audio 4001 x\r\nm=video 4000 x\r\nm=image 4010`,
  (me) => `INVITE sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\n\r\nv=\r\nc=IN IP4 ${me}\r\nm=audio 4000 x\r\n`,
  (me) => `ACK sip:x SIP/2.0\r\nCSeq: 1\r\nl:1\r\nv=1\r\nc=IN IP4 ${me}\r\nm=audio 4020 x\r\no=IN IP4 ${me}\r\n`,
];
for (const [name, nat, seen, host] of [
  ['', [], IN, IN],
  [', masqueraded', [MASQUERADE], WAN, IN],
  [
    ', translated to a shorter address',
    ['-A POSTROUTING -s 10.1.0.200 -j SNAT --to-source 1.2.3.4'],
    '1.2.3.4',
    '10.1.0.200',
  ],
] as const)
  for (const proto of ['udp', 'tcp'] as const)
    story(`odd sip over ${proto}${name}`, { raw: SIP, nat: [...nat] }, (s) => {
      let port = 6000;
      for (const odd of ODD) {
        const t = s.talk(host, OUT, port, 5060);
        const me = `${host}:${port}`;
        const outside = `${seen}:${port}`;
        // A description's addresses have no port.
        const text = (from: string, to: string): string => odd(from, to).replace(/(IP4 [\d.]+):\d+/g, '$1');
        // Which port a second registration of the same gets is a free choice.
        const registers = /^register/i.test(odd('', ''));
        if (proto === 'udp') {
          t.udp(0, text(me, OUT));
          if (!registers) {
            t.udp(0, text(host, OUT));
            t.udp(1, text(OUT, seen));
            t.udp(1, text(OUT, outside));
          }
        } else {
          const whole = (from: string, to: string): string =>
            text(from, to).replaceAll('UDP', 'TCP').replace('\r\nCSeq: 1\r', '\r\nCSeq: 1\r\nl:0\r');
          t.open();
          t.data(0, whole(me, OUT));
          if (!registers) t.data(1, whole(OUT, outside));
          t.tcp(0, ACK);
        }
        port += 2;
      }
    });

// ---- what rules remember ----
story(
  'knocking',
  {
    filter: [
      '-N knock',
      '-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT',
      '-A FORWARD -p tcp -m tcp --dport 22 -m recent --rcheck --seconds 1000 --name open -j ACCEPT',
      '-A FORWARD -p tcp -m tcp --dport 7000 -m recent --set --name one -j DROP',
      '-A FORWARD -p tcp -m tcp --dport 8000 -m recent --rcheck --seconds 1000 --name one -j knock',
      '-A FORWARD -p tcp -m tcp --dport 22 -j DROP',
      '-A knock -m recent --remove --name one',
      '-A knock -m recent --set --name open -j DROP',
    ],
  },
  (s) => {
    for (const host of [OUT, '198.51.100.11'])
      for (const port of [22, 8000, 22, 7000, 22, 8000, 22]) s.talk(host, IN, 1000 + port, port).tcp(0, SYN);
    s.talk(OUT, IN, 2000, 22).open().close();
  },
);
story(
  'connections counted as they close',
  {
    filter: [
      '-A FORWARD -p tcp --syn -m connlimit --connlimit-above 2 --connlimit-mask 32 -j REJECT --reject-with tcp-reset',
    ],
  },
  (s) => {
    const all = [1, 2, 3].map((n) => s.talk(IN, OUT, 1000 + n));
    all[0]!.open();
    all[1]!.open();
    all[2]!.tcp(0, SYN);
    all[0]!.close();
    s.talk(IN, OUT, 1004).open();
    s.talk(IN, OUT, 1005).tcp(0, SYN);
    s.talk('10.1.0.3', OUT, 1005).open();
    all[1]!.tcp(1, RST);
    s.talk(IN, OUT, 1006).open();
  },
);
// Without --syn, as the article has it.
story(
  'connections counted by all their packets',
  { filter: ['-A INPUT -p tcp -m tcp --dport 80 -m connlimit --connlimit-above 3 -j REJECT --reject-with tcp-reset'] },
  (s) => {
    const talks = [1, 2, 3, 4, 5].map((n) => s.talk(OUT, WAN, 1000 + n));
    for (const t of talks.slice(0, 3)) t.open();
    talks[3]!.tcp(0, SYN);
    for (const t of talks.slice(0, 3)) t.data(0, 'GET');
    talks[4]!.tcp(0, SYN);
    for (const t of talks.slice(0, 3)) t.data(1, 'answer');
    s.talk(FAR, WAN, 1001).open();
    talks[3]!.tcp(0, SYN, { seq: 1000, ack: 0 });
  },
);
story(
  'connections counted by all their packets as they close',
  {
    filter: [1, 2, 3].flatMap((n) => [
      `-A FORWARD -p tcp -m tcp --dport 80 -m connlimit --connlimit-upto ${n}`,
      `-A FORWARD -p tcp -m tcp --sport 80 -m connlimit --connlimit-upto ${n}`,
    ]),
  },
  (s) => {
    // The last packets of the only connection count nobody, and are dropped.
    s.talk(IN, OUT, 1001).open().close();
    const reset = s.talk(IN, OUT, 1002).open();
    for (let n = 0; n < 2; n++) reset.tcp(0, RST, { seq: 1001, ack: 0 });
    const [a, b, c] = [1003, 1004, 1005].map((sport) => s.talk(IN, OUT, sport).open()) as [Talk, Talk, Talk];
    a.close();
    b.tcp(1, RST);
    c.data(0, 'GET');
    // Of one that a packet isn't part of, and of one that is refused.
    c.tcp(0, 0, { seq: 1004, ack: 0 });
    const refused = s.talk('10.1.0.3', OUT, 1006);
    for (let n = 0; n < 2; n++) {
      refused.tcp(0, SYN, { seq: 1000, ack: 0 });
      refused.tcp(1, RST | ACK, { seq: 0, ack: 1001 });
    }
  },
);
story(
  'one list asked several times by one packet',
  {
    mangle: [
      '-N asked',
      ...[0, 1, 2, 3].map((n) => `-A asked -p tcp -m connlimit --connlimit-upto ${n} --connlimit-mask 0`),
      ...['FORWARD', 'FORWARD', 'FORWARD', 'OUTPUT', 'OUTPUT', 'INPUT', 'INPUT'].map(
        (hook) => `-A ${hook} -p tcp -j asked`,
      ),
    ],
    nat: [],
  },
  (s) => {
    s.talk(IN, OUT, 1001).open().close();
    const refused = s.talk('10.1.0.3', OUT, 1002);
    refused.tcp(0, SYN);
    refused.tcp(0, SYN, { seq: 1000, ack: 0 });
    refused.tcp(1, RST | ACK, { seq: 0, ack: 1001 });
    s.talk(IN, LAN, 1003, 21).tcp(0, SYN);
  },
);
story('connections that were there before they were counted', { filter: ['-A FORWARD -p udp'] }, (s) => {
  const talks = [IN, IN, '10.1.0.3'].map((host, i) => s.talk(host, OUT, 1001 + i).open());
  const counting = [0, 1, 2].map((n) => `-A FORWARD -p tcp -m connlimit --connlimit-upto ${n}\n`).join('');
  s.command('iptables-restore', [], `*filter\n${counting}COMMIT\n`);
  for (const t of talks) t.data(0, 'GET');
  talks[2]!.tcp(0, RST);
  talks[0]!.tcp(0, RST);
  talks[1]!.data(0, 'GET');
  talks[2]!.tcp(0, SYN, { seq: 9000, ack: 0 });
});
story(
  'one list of two masks and two sizes',
  {
    mangle: [
      '-A PREROUTING -p udp -m recent --update --hitcount 4 --name m',
      '-A INPUT -m recent --set --name m --mask 255.255.255.0',
      '-A FORWARD -m recent --set --name m --mask 255.255.0.0',
    ],
  },
  (s) => {
    for (let n = 0; n < 3; n++) {
      for (const host of [OUT, '198.51.100.11']) s.talk(host, WAN, 1000 + n, 9).udp(0);
      for (const host of [IN, '10.1.0.3']) s.talk(host, OUT, 1000 + n, 9).udp(0);
    }
  },
);
story(
  'recent by mask and TTL',
  {
    filter: [
      '-A FORWARD -p udp -m udp --dport 1 -m recent --set --name m --mask 255.255.255.254',
      '-A FORWARD -p udp -m udp --dport 2 -m recent --rcheck --rttl --name m --mask 255.255.255.254 -j DROP',
      '-A FORWARD -p udp -m udp --dport 3 -m recent --update --hitcount 3 --name m --mask 255.255.255.254 -j DROP',
      '-A FORWARD -p udp -m udp --dport 4 -m recent --remove --name m --rdest -j DROP',
    ],
  },
  (s) => {
    for (const [port, ttl] of [
      [2, 64],
      [1, 64],
      [2, 63],
      [2, 64],
      [3, 64],
      [1, 64],
      [3, 64],
      [3, 64],
      [4, 64],
      [2, 64],
    ] as const)
      for (const host of ['10.1.0.2', '10.1.0.3', '10.1.0.4']) s.talk(host, DMZ, 1000, port).udp(0, 'x', { ttl });
  },
);

// ---- copies ----
story(
  'copies',
  {
    mangle: [
      '-A PREROUTING -p udp -j TEE --gateway 10.2.0.4',
      '-A FORWARD -p tcp -j TEE --gateway 10.1.0.5',
      '-A POSTROUTING -p icmp -j TEE --gateway 198.51.100.12',
    ],
    nat: [MASQUERADE],
  },
  (s) => {
    // One way only: an answer would go to what came out first.
    s.talk(IN, OUT, 1000, 53).udp(0);
    s.talk(OUT, IN, 1001, 53).udp(0);
    s.talk(IN, OUT).tcp(0, SYN);
    s.talk(IN, OUT).icmp(0, 8, 0x30001);
    s.talk(IN, LAN).udp(0);
    s.talk(IN, DMZ, 1000, 53).udp(0, 'x', { ttl: 1 });
    s.talk(WAN, OUT).icmp(0, 8, 0x40001);
  },
);

// ---- the administrator ----
story(
  'marks that are set and taken back',
  { mangle: ['-A PREROUTING -p tcp -j CONNMARK --xor-mark 3', '-A FORWARD -p udp -j CONNMARK --set-mark 1'] },
  (s) => {
    s.talk(IN, OUT).open().close();
    const t = s.talk(IN, OUT);
    for (let n = 0; n < 3; n++) t.udp(0);
  },
);
story('counters zeroed meanwhile', { filter: ['-A FORWARD -p udp', '-A FORWARD -p tcp -j ACCEPT'] }, (s) => {
  const t = s.talk(IN, OUT);
  t.udp(0);
  s.iptables('-Z FORWARD 1');
  t.udp(0);
  t.open();
  s.iptables('-t mangle -Z');
  t.udp(1);
  s.iptables('-Z');
  t.close();
});
story('rules exchanged under live connections', { nat: [MASQUERADE] }, (s) => {
  const t = s.talk(IN, OUT).open();
  const u = s.talk(IN, OUT, 1000, 53);
  u.udp(0);
  s.iptables('-t nat -F POSTROUTING');
  t.data(0, 'still translated');
  t.data(1, 'and back');
  u.udp(1);
  s.talk(IN, OUT, 1001).tcp(0, SYN);
  s.iptables(`-t nat ${FORWARD_80}`);
  s.talk(OUT, WAN).open();
  s.command(
    'iptables-restore',
    [],
    '*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n',
  );
  t.data(0, 'more');
  u.udp(0);
  s.talk(IN, OUT, 1002).tcp(0, SYN);
  s.command(
    'iptables-restore',
    ['--noflush'],
    '*nat\n-A POSTROUTING -o if1 -j SNAT --to-source 198.51.100.2\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n',
  );
  s.talk(IN, OUT, 1003).open().close();
  t.close();
});
plainly('connections that no rule asked for in between', { nat: [MASQUERADE] }, (s) => {
  const t = s.talk(IN, DMZ).open();
  const opening = s.talk(IN, DMZ, 1001);
  opening.tcp(0, SYN);
  s.iptables('-t nat -F');
  s.iptables(`-t nat ${MASQUERADE}`);
  // Numbers far from those that were seen.
  t.tcp(1, ACK | PSH, { seq: 900_000, ack: 500_000, payload: 'unseen' });
  t.tcp(0, ACK, { seq: 500_000, ack: 900_006 });
  t.tcp(0, ACK, { seq: 100, ack: 900_006 });
  opening.tcp(1, RST | ACK, { seq: 5001, ack: 1051 });
});
story('connections deleted under their packets', { nat: [MASQUERADE] }, (s) => {
  const t = s.talk(IN, OUT).open();
  const u = s.talk('10.1.0.3', OUT, 1000, 53);
  u.udp(0);
  s.command('conntrack', ['-D', '-p', 'udp']);
  u.udp(1);
  u.udp(0);
  s.command('conntrack', ['-F']);
  t.data(1, 'to nobody');
  t.data(0, 'picked up again');
  t.tcp(1, ACK);
});
story(
  'classes and late marks',
  {
    mangle: [
      '-A FORWARD -p udp -j CLASSIFY --set-class 1:2',
      '-A POSTROUTING -p tcp -j MARK --set-mark 3',
      '-A OUTPUT -j CLASSIFY --set-class 2:1',
    ],
    nat: [MASQUERADE],
  },
  (s) => {
    const t = s.talk(IN, OUT, 1000, 53);
    t.udp(0);
    t.udp(1);
    s.talk(IN, OUT).open().close();
    s.talk(WAN, OUT).open();
    s.talk(WAN, OUT, 1000, 53).udp(0);
  },
);

/** All of them. */
export const CASES: readonly Case[] = cases;
