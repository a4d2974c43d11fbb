/**
 * Random traffic: flows of several kinds, each a life from first packet to last with accidents on the way, shuffled into
 * one list of events. Few hosts and few ports, so that flows collide.
 */
import { FROM_ROUTER, isRouter, USER } from './wire.js';
import { AH, ESP, ICMP, type Oddity, type PacketSpec, SCTP, TCP, type Transport, UDP, UDPLITE } from './packets.js';
import type { Random } from './random.js';
import type { CommandEvent, ErrorEvent, Event, PacketEvent } from './scenario.js';
import { type Call, request, response, session } from './sip.js';

const FIN = 1;
const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;
const URG = 32;

interface Host {
  port: number;
  address: string;
}

const INSIDE: Host[] = ['10.1.0.2', '10.1.0.3', '10.1.0.4'].map((address) => ({ port: 0, address }));
const OUTSIDE: Host[] = ['198.51.100.10', '198.51.100.11', '203.0.113.5', '203.0.113.77'].map((address) => ({
  port: 1,
  address,
}));
const DMZ: Host[] = ['10.2.0.2', '10.2.0.3'].map((address) => ({ port: 2, address }));
const ROUTER: Host[] = ['10.1.0.1', '198.51.100.1', '10.2.0.1', '198.51.100.2'].map((address) => ({
  port: FROM_ROUTER,
  address,
}));
/** The same by a user's program. */
const PROGRAM: Host[] = ROUTER.map(({ address }) => ({ port: USER, address }));
const NOWHERE: Host[] = ['100.64.0.1', '10.1.0.255', '224.0.0.5', '127.0.0.1', '255.255.255.255'].map((address) => ({
  port: 1,
  address,
}));
/** Sources that no host has. */
const STRANGE: Host[] = ['224.0.0.5', '127.0.0.1', '255.255.255.255', '10.1.0.1', '0.0.0.0', '198.51.100.2'].map(
  (address) => ({ port: 1, address }),
);
const SERVICES = [21, 22, 53, 80, 113, 443, 8080];
const TFTP = 69;
const IRC = 6667;
const AMANDA = 10_080;
const SIP = 5060;

/** How much of a packet errors quote. */
const QUOTES = [28, 28, 36, 548, 24, 20];
/** Of ICMP a part of the header would show a checksum over an identifier that NAT may have chosen, and not the identifier. */
const ICMP_QUOTES = [28, 28, 36, 548, 28, 20];

/** What is given once only. */
interface Ids {
  next: number;
  flow: number;
  announced: number;
}

interface Talk {
  from: Host;
  to: Host;
  flow: number;
  sport: number;
  dport: number;
}

export interface TrafficOptions {
  flows: number;
  /** No fragments for the router itself. */
  whole: boolean;
  /** The router's programs send no fragments. */
  ownWhole: boolean;
  /** Some frames are broadcast, or for a group. */
  toMany: boolean;
  /** Phones register and call. */
  calls: boolean;
  /** What the administrator does meanwhile. */
  commands: Omit<CommandEvent, 'id'>[];
}

/** Seeded events; ids and flows begin at 1. */
export function makeTraffic(r: Random, options: TrafficOptions): Event[] {
  const ids: Ids = { next: 1, flow: 1, announced: 0 };
  const lives = options.commands.map((command): Event[] => [{ ...command, id: ids.next++ }]);
  for (let i = 0; i < options.flows; i++) lives.push(new Life(r, ids, options).events);
  const all: Event[] = [];
  while (lives.length > 0) {
    const at = r.below(lives.length);
    for (let n = 1 + r.below(3); n > 0 && lives[at]!.length > 0; n--) all.push(lives[at]!.shift()!);
    if (lives[at]!.length === 0) lives.splice(at, 1);
  }
  return all;
}

class Life {
  readonly events: Event[] = [];
  private readonly talk: Talk;

  constructor(
    private readonly r: Random,
    private readonly ids: Ids,
    private readonly options: TrafficOptions,
  ) {
    this.talk = this.meet();
    const kinds = [
      this.tcp,
      this.tcp,
      this.tcp,
      this.oddTcp,
      this.edges,
      this.udp,
      this.udp,
      this.echo,
      this.icmp,
      this.ftp,
      options.calls ? r.pick(this.helped, this.phone) : this.helped,
      this.other,
      this.sctp,
      this.fragments,
    ];
    r.pick(...kinds).call(this);
  }

  private meet(): Talk {
    const { r } = this;
    const [from, to] = r.pick(
      [INSIDE, OUTSIDE],
      [INSIDE, OUTSIDE],
      [INSIDE, OUTSIDE],
      [OUTSIDE, INSIDE],
      [OUTSIDE, ROUTER],
      [OUTSIDE, ROUTER],
      [INSIDE, DMZ],
      [DMZ, INSIDE],
      [OUTSIDE, DMZ],
      [INSIDE, ROUTER],
      [ROUTER, OUTSIDE],
      [ROUTER, INSIDE],
      [PROGRAM, OUTSIDE],
      [INSIDE, INSIDE],
      r.once(4) ? [INSIDE, NOWHERE] : [DMZ, OUTSIDE],
      r.once(4) ? [STRANGE, INSIDE] : [INSIDE, OUTSIDE],
    );
    return {
      from: r.pick(...from),
      to: r.pick(...to),
      flow: this.ids.flow++,
      sport: r.pick(20000, 20001, 20000, 20001, 500, 900, 53, 20000 + r.below(2000)),
      dport: r.pick(...SERVICES),
    };
  }

  private add(way: 0 | 1, l4: Transport, more: Partial<PacketSpec> = {}, fragments?: PacketEvent['fragments']): number {
    const { r, talk } = this;
    // Nobody answers from where nobody is, and 0.0.0.0 can't be answered by.
    if (way === 1 && (NOWHERE.includes(talk.to) || talk.from.address === '0.0.0.0')) way = 0;
    const [from, to] = way === 0 ? [talk.from, talk.to] : [talk.to, talk.from];
    const id = this.ids.next++;
    const packet: PacketSpec = { src: from.address, dst: to.address, id: 1000 + id, l4, ...more };
    if (r.once(12)) packet.ttl = r.pick(1, 2, 5, 21, 128, 255, 0);
    if (r.once(10)) packet.tos = r.pick(0x10, 0x08, 0x02, 0xb8, 0x03, 0xff);
    if (r.once(3)) packet.df = true;
    if (r.once(60)) packet.reserved = true;
    if (r.once(60))
      packet.ipOptions = r.pick('01010100', '94040000', '83070400000000' + '00', '820b0000000000000000' + '0000');
    if (r.once(25)) packet.odd = this.oddity();
    const event: PacketEvent = { kind: 'packet', id, flow: talk.flow, way, port: from.port, packet };
    if (fragments) event.fragments = fragments;
    if (this.options.toMany && r.once(8)) event.link = r.pick('broadcast', 'multicast');
    this.events.push(event);
    if (r.once(14) && !NOWHERE.includes(talk.to)) this.error(id, l4.proto === ICMP ? ICMP_QUOTES : QUOTES);
    return id;
  }

  private oddity(): Oddity {
    const { r } = this;
    return r.pick<() => Oddity>(
      () => ({ checksum: 1 + r.below(65534) }),
      () => ({ checksum: 0x100 }),
      () => ({ cut: r.below(28) }),
      () => ({ headerLength: r.below(16) }),
      () => ({ totalLength: 20 + r.below(60) }),
      () => ({ ipChecksum: 1 + r.below(1000) }),
    )();
  }

  private error(about: number, lengths: readonly number[]): void {
    const { r } = this;
    const [type, code, rest] = r.pick<[number, number, number]>(
      [3, 3, 0],
      [3, 1, 0],
      [11, 0, 0],
      [3, 4, 1400],
      [12, 0, 0x14000000],
      [4, 0, 0],
      [3, 13, 0],
      [5, 1, 0xc6336401],
    );
    const event: ErrorEvent = {
      kind: 'error',
      id: this.ids.next++,
      about,
      type,
      code,
      rest,
      from: r.pick('end', 'end', 'hop'),
      length: r.pick(...lengths),
    };
    if (r.once(10)) event.checksum = 0x101;
    if (r.once(12)) event.damage = 1;
    this.events.push(event);
  }

  private readonly seq = [0, 0];

  /** A segment with the sequence numbers of an honest peer, and then an accident or none. */
  private segment(way: 0 | 1, flags: number, payload = '', options?: string): number {
    const { r, talk, seq } = this;
    const [sport, dport] = way === 0 ? [talk.sport, talk.dport] : [talk.dport, talk.sport];
    const l4: Transport = {
      proto: TCP,
      sport,
      dport,
      seq: seq[way]!,
      ack: flags & ACK ? seq[1 - way]! : 0,
      flags,
      window: r.pick(65535, 65535, 29200, 1000),
      payload,
    };
    if (options !== undefined) l4.options = options;
    if (r.once(30)) l4.seq += r.pick(100, -100, 70000, -70000, 1);
    if (r.once(30)) l4.ack += r.pick(100, -100, 70000, -70000, 1);
    if (r.once(60)) l4.window = 0;
    seq[way] = (seq[way]! + payload.length + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0)) >>> 0;
    const id = this.add(way, l4);
    // Sent again.
    if (r.once(15)) this.add(way, l4);
    return id;
  }

  private synOptions(): string {
    return this.r.pick(
      '020405b4',
      '020405b40402080a000000010000000001030307',
      '020405b401030307',
      '',
      '020405b404020101',
      '0204ffff',
    );
  }

  private begin(): void {
    const { r, seq } = this;
    seq[0] = r.pick(1000, 0xfffffff0, r.below(0x7fffffff));
    seq[1] = r.pick(5000, 0xfffffff0, r.below(0x7fffffff));
    const script = r.pick('open', 'open', 'open', 'open', 'open', 'pickup', 'half', 'both', 'refused');
    if (script === 'pickup') return;
    this.segment(0, SYN, '', this.synOptions());
    if (script === 'half') return;
    if (script === 'refused') {
      this.segment(1, RST | ACK);
      return;
    }
    if (script === 'both') this.segment(1, SYN, '', this.synOptions());
    this.segment(1, SYN | ACK, '', this.synOptions());
    if (!r.once(8)) this.segment(0, ACK);
  }

  private data(): void {
    const { r } = this;
    for (let n = r.below(4); n > 0; n--) {
      const way = r.pick<0 | 1>(0, 1);
      this.segment(way, ACK | PSH, r.pick('GET / HTTP/1.0\r\n\r\n', 'xy', 'aaaa'.repeat(50), 'x'.repeat(1400)));
      if (!r.once(4)) this.segment(way === 0 ? 1 : 0, ACK);
    }
  }

  private end(): void {
    const { r } = this;
    const way = r.pick<0 | 1>(0, 1);
    const other = way === 0 ? 1 : 0;
    switch (r.below(5)) {
      case 0:
        this.segment(way, RST);
        break;
      case 1:
        this.segment(way, RST | ACK);
        break;
      case 2:
        break;
      default:
        this.segment(way, FIN | ACK);
        if (r.once(4)) this.segment(other, ACK);
        this.segment(other, FIN | ACK);
        this.segment(way, ACK);
    }
  }

  private tcp(): void {
    for (let again = true; again; again = this.r.once(5)) {
      this.begin();
      this.data();
      this.end();
    }
  }

  private oddTcp(): void {
    const { r, seq } = this;
    if (r.once(2)) this.begin();
    seq[0] ||= 1;
    for (let n = 2 + r.below(5); n > 0; n--) {
      const flags = r.pick(
        0,
        FIN,
        SYN | FIN,
        SYN | RST,
        FIN | PSH | URG,
        0x3f,
        SYN | ACK,
        SYN,
        RST,
        ACK,
        SYN | PSH,
        URG | ACK,
        ACK | 0xc0,
        FIN | RST | ACK,
        SYN | URG,
      );
      this.segment(
        r.pick<0 | 1>(0, 0, 1),
        flags,
        r.pick('', '', 'data'),
        r.pick(undefined, undefined, '01010101', '030300' + '01', '0a000000', '02040000'),
      );
    }
  }

  /** A connection at the edges of what its windows and numbers allow. */
  private edges(): void {
    const { r, seq } = this;
    this.begin();
    for (let way = 0; way < 2; way++) seq[way] ||= r.pick(1, 0x7fff_fff0, 0xffff_ff00);
    for (let n = 3 + r.below(9); n > 0; n--) {
      const way = r.pick<0 | 1>(0, 1);
      const flags = r.pick(ACK, ACK, ACK, ACK | PSH, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN, SYN | ACK, ACK | URG);
      const off = (): number =>
        r.pick(
          0,
          0,
          0,
          0,
          1,
          -1,
          -2,
          2,
          999,
          1000,
          1001,
          -1000,
          -1001,
          29_200,
          65_535,
          65_536,
          -65_536,
          66_000,
          -66_001,
        );
      const before = [seq[0]!, seq[1]!];
      seq[way] = (seq[way]! + off()) >>> 0;
      seq[1 - way] = (seq[1 - way]! + off()) >>> 0;
      const [mine, theirs] = [seq[way]!, seq[1 - way]!];
      const edge = (at: number): string => ((theirs + at) >>> 0).toString(16).padStart(8, '0');
      const options =
        flags & SYN
          ? this.synOptions()
          : r.pick(undefined, undefined, `0101050a${edge(0)}${edge(r.pick(1, 1000, -5))}`, '0101080a0000000100000002');
      this.segment(way, flags, r.pick('', '', 'xy', 'x'.repeat(1000)), options);
      // What was taken for true by its sender stays so, at times.
      const stays = r.below(4);
      if (stays < 2) seq.splice(0, 2, ...before);
      else if (stays === 2 && mine !== before[way]) seq[1 - way] = theirs;
    }
  }

  private udp(): void {
    const { r, talk } = this;
    for (let n = 1 + r.below(5); n > 0; n--) {
      const way = r.pick<0 | 1>(0, 0, 1);
      const [sport, dport] = way === 0 ? [talk.sport, talk.dport] : [talk.dport, talk.sport];
      const l4: Transport = { proto: UDP, sport, dport, payload: r.pick('', 'query', 'GET', 'z'.repeat(900)) };
      if (r.once(8)) l4.noSum = true;
      this.add(way, l4);
    }
  }

  private echo(): void {
    const { r } = this;
    const id = r.pick(1, 2, 1, 77);
    for (let n = 1 + r.below(4); n > 0; n--) {
      const rest = (id << 16) | n;
      this.add(0, { proto: ICMP, type: 8, code: 0, rest, payload: 'abcdefgh' });
      if (!r.once(3)) this.add(1, { proto: ICMP, type: 0, code: 0, rest, payload: 'abcdefgh' });
    }
  }

  private icmp(): void {
    const { r } = this;
    for (let n = 1 + r.below(4); n > 0; n--) {
      const type = r.pick(0, 8, 15, 14, 17, 18, 10, 9, 42, 3, 11);
      this.add(r.pick<0 | 1>(0, 1), {
        proto: ICMP,
        type,
        code: r.pick(0, 0, 1),
        rest: r.pick(0x10001, 0x20001),
        payload: r.pick('', 'short', 'E'.repeat(40), '\x45' + '\0'.repeat(40)),
      });
    }
  }

  private other(): void {
    const { r, talk } = this;
    const ports = talk.sport.toString(16).padStart(4, '0') + talk.dport.toString(16).padStart(4, '0');
    for (let n = 1 + r.below(3); n > 0; n--) {
      // UDP-Lite with a coverage of 8, 0 (all) and a wrong one; no checksum of it is right.
      const raw = r.pick<[number, string]>(
        [47, r.pick('', '0000080045000014', '2081880b000400070000000100000001cafe', 'deadbeef'.repeat(4))],
        [ESP, r.pick('0000000100000001' + 'aa'.repeat(16), '0000020000000001', '000000')],
        [AH, r.pick('06040000000000010000000100112233445566778899aabb', '060400000000020000000001', '0604')],
        [UDPLITE, ports + r.pick('0008ffff', '0000fffe', '00030001', '00080000') + '00'.repeat(8)],
        [33, ports + '05000000' + r.pick('00', '02', '04', '16', '1e') + '000000' + '00'.repeat(8)],
        [r.pick(99, 4, 253, 108), r.pick('', '0000080045000014', 'deadbeef'.repeat(4))],
      );
      this.add(r.pick<0 | 1>(0, 0, 1), { proto: raw[0], raw: raw[1] });
    }
  }

  /** An association's life (RFC 9260), or chunks in no order. */
  private sctp(): void {
    const { r, talk } = this;
    // Nobody speaks it on the router, and what the router says of INVALID packets is in docs/DIFFERENCES.md.
    if (isRouter(talk.to.port)) talk.to = DMZ[0]!;
    if (isRouter(talk.from.port)) talk.from = INSIDE[0]!;
    const tags = [0x01010101, 0x02020202];
    const chunk = (way: 0 | 1, chunks: string, tag = tags[1 - way]!): void => {
      const [sport, dport] = way === 0 ? [talk.sport, talk.dport] : [talk.dport, talk.sport];
      if (r.once(20)) tag ^= 1;
      this.add(way, { proto: SCTP, sport, dport, tag, chunks });
    };
    const init = (type: string, tag: number): string =>
      `${type}000014${tag.toString(16).padStart(8, '0')}0000ffff00010001000000ab`;
    const life: [0 | 1, string, number?][] = [
      [0, init('01', tags[0]!), 0],
      [1, init('02', tags[1]!)],
      [0, '0a000008deadbeef'],
      [1, '0b000004'],
      [0, '0003001400000001000000000000000064617461'],
      [1, '0300001000000001000010000000' + '0000'],
      [1, '04000008aaaaaaaa'],
      [0, '05000008aaaaaaaa'],
    ];
    const end: [0 | 1, string][] = r.pick(
      [
        [0, '0700000800000001'],
        [1, '08000004'],
        [0, '0e000004'],
      ],
      [[0, '06000004']],
      [[1, '06000004']],
      [],
    );
    for (const [way, chunks, tag] of [...life, ...end]) {
      if (r.once(8)) continue;
      chunk(way, chunks, tag);
      if (r.once(12))
        chunk(way === 0 ? 1 : 0, r.pick('0b000004', '0e000004', '0300', '', '00000000', '0a000008deadbeef'));
    }
  }

  private fragments(): void {
    const { r, talk } = this;
    if (this.options.whole && (isRouter(talk.to.port) || NOWHERE.includes(talk.to))) talk.to = DMZ[0]!;
    if (isRouter(talk.from.port) && (this.options.ownWhole || isRouter(talk.to.port))) talk.from = INSIDE[0]!;
    const tcp: Transport = {
      proto: TCP,
      sport: talk.sport,
      dport: talk.dport,
      seq: 1,
      ack: 0,
      flags: SYN,
      window: 1000,
      payload: 'f'.repeat(100),
    };
    for (let n = 1 + r.below(3); n > 0; n--) {
      const l4 = r.pick<Transport>(
        { proto: UDP, sport: talk.sport, dport: talk.dport, payload: 'f'.repeat(r.pick(40, 100, 2000)) },
        { proto: ICMP, type: 8, code: 0, rest: 0x30000 | n, payload: 'f'.repeat(200) },
        tcp,
      );
      const order = r.pick(
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        [2, 1, 0],
        [0, 2, 1],
        [0],
        [1, 0],
        [0, 1],
        [1, 2],
      );
      const size = r.pick(8, 24, 96, 1480);
      this.add(0, l4, {}, { size, order, overlap: size > 8 && r.once(10) ? 8 : 0 });
    }
  }

  /** A control connection, a command that names an end, and a data connection to it. */
  private ftp(): void {
    const { r, talk, seq } = this;
    const somewhere = ({ port }: Host, hosts: Host[]): boolean => !isRouter(port) && !hosts.includes(talk.to);
    if (!somewhere(talk.from, NOWHERE) || !somewhere(talk.to, NOWHERE)) talk.to = DMZ[0]!;
    if (isRouter(talk.from.port) || STRANGE.includes(talk.from)) talk.from = INSIDE[0]!;
    talk.dport = 21;
    seq[0] = 1000;
    seq[1] = 5000;
    this.segment(0, SYN, '', '020405b4');
    this.segment(1, SYN | ACK, '', '020405b4');
    this.segment(0, ACK);
    this.segment(1, ACK | PSH, '220 ready\r\n');
    this.segment(0, ACK);
    for (let n = 1 + r.below(2); n > 0; n--) {
      const active = r.once(2);
      const host = (active ? talk.from : talk.to).address;
      // Nobody else's: for one that is taken both sides announce another, as they like.
      const port = r.pick(30_000, 20_100, 1100) + this.ids.announced++;
      const six = `${host.replaceAll('.', ',')},${port >> 8},${port & 255}`;
      const text = active
        ? r.pick(`PORT ${six}\r\n`, `EPRT |1|${host}|${port}|\r\n`, `port ${six}\r\n`)
        : r.pick(`227 Entering Passive Mode (${six})\r\n`, `229 Extended (|||${port}|)\r\n`, `227 Passive ${six}\r\n`);
      if (!active) this.segment(0, ACK | PSH, r.pick('PASV\r\n', 'EPSV\r\n'));
      const about = this.segment(active ? 0 : 1, ACK | PSH, text);
      this.segment(active ? 1 : 0, ACK);
      this.transfer(about, active, host, port);
      if (r.once(2)) this.segment(1, ACK | PSH, '226 done\r\n');
      if (r.once(2)) this.segment(0, ACK);
    }
    this.end();
  }

  /** What helpers but ftp's read, and the connections that it announces. */
  private helped(): void {
    const { r, talk, seq } = this;
    if (isRouter(talk.to.port) || NOWHERE.includes(talk.to)) talk.to = DMZ[0]!;
    if (isRouter(talk.from.port) || STRANGE.includes(talk.from)) talk.from = INSIDE[0]!;
    const port = r.pick(30_000, 20_200, 1200) + this.ids.announced++;
    const udp = (way: 0 | 1, payload: string): number => {
      const [sport, dport] = way === 0 ? [talk.sport, talk.dport] : [talk.dport, talk.sport];
      return this.add(way, { proto: UDP, sport, dport, payload });
    };
    switch (r.below(3)) {
      case 0: {
        talk.dport = TFTP;
        const about = udp(0, r.pick('\0\x01file\0octet\0', '\0\x02file\0octet\0', '\0\x01', '\0\x03\0\x01data'));
        const flow = this.ids.flow++;
        const l4: Transport = { proto: UDP, sport: port, dport: talk.sport, payload: '\0\x03\0\x01data' };
        const id = this.ids.next++;
        const packet = { src: talk.to.address, dst: talk.from.address, id: 1000 + id, l4 };
        this.events.push({ kind: 'data', id, about, flow, port: talk.to.port, packet });
        if (r.once(2)) udp(1, '\0\x05\0\x01no\0');
        break;
      }
      case 1: {
        talk.dport = AMANDA;
        udp(0, 'Amanda 2.4 REQ HANDLE 1 SEQ 1\nSERVICE sendbackup\n');
        udp(
          1,
          r.pick(
            `CONNECT DATA ${port} MESG ${port} INDEX ${port}\nOPTIONS ;\n`,
            `CONNECT DATA ${port}\n`,
            'CONNECT DATA \n',
            'nothing',
          ),
        );
        const flow = this.ids.flow++;
        const l4: Transport = { proto: TCP, sport: 21_500, dport: port, seq: 5, ack: 0, flags: SYN, window: 1000 };
        const id = this.ids.next++;
        const packet = { src: talk.from.address, dst: talk.to.address, id: 1000 + id, l4 };
        this.events.push({ kind: 'packet', id, flow, way: 0, port: talk.from.port, packet });
        break;
      }
      default: {
        talk.dport = IRC;
        seq[0] = 1000;
        seq[1] = 5000;
        this.segment(0, SYN, '', '020405b4');
        this.segment(1, SYN | ACK, '', '020405b4');
        this.segment(0, ACK);
        const own = talk.from.address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
        for (let n = 1 + r.below(2); n > 0; n--) {
          const address = r.pick(own, own, own, 1, 3_325_256_705);
          const text = r.pick(
            `PRIVMSG x :\x01DCC SEND file ${address} ${port} 1234\x01\r\n`,
            `PRIVMSG x :\x01DCC CHAT chat ${address} ${port}\x01\r\n`,
            `PRIVMSG x :\x01DCC MOVE f ${address} ${port} 9\x01\r\nQUIT\r\n`,
            `PRIVMSG x :\x01DCC SEND file ${address} 0 1\x01\n`,
          );
          const about = this.segment(0, ACK | PSH, text);
          this.segment(1, ACK);
          if (address === own) this.transfer(about, true, talk.from.address, port);
        }
        this.end();
      }
    }
  }

  /** Registrations, calls and their media, by a phone and its server. */
  private phone(): void {
    const { r, talk, seq } = this;
    if (isRouter(talk.to.port) || NOWHERE.includes(talk.to)) talk.to = DMZ[0]!;
    if (isRouter(talk.from.port) || STRANGE.includes(talk.from)) talk.from = INSIDE[0]!;
    talk.dport = SIP;
    // Nobody else's, so that NAT needn't choose another, which the messages would tell.
    const own = (): number => 26_000 + 2 * this.ids.announced++;
    talk.sport = own();
    const transport = r.pick('UDP', 'UDP', 'TCP');
    if (transport === 'TCP') {
      seq[0] = 1000;
      seq[1] = 5000;
      this.segment(0, SYN, '', '020405b4');
      this.segment(1, SYN | ACK, '', '020405b4');
      this.segment(0, ACK);
    }
    const say = (way: 0 | 1, text: string): number => {
      const payload = this.mishap(text);
      if (transport === 'TCP') return this.segment(way, ACK | PSH, payload);
      const [sport, dport] = way === 0 ? [talk.sport, SIP] : [SIP, talk.sport];
      return this.add(way, { proto: UDP, sport, dport, payload });
    };
    // Each side as it is known to the other, if it is translated so.
    const phone = talk.from.address;
    const server = talk.to.address;
    const seen = r.pick(phone, '198.51.100.1', '198.51.100.2');
    const really = r.pick(server, server, '10.2.0.2');
    const listening = r.pick(talk.sport, talk.sport, talk.sport, own());
    let cseq = 1;
    const media = (host: string): string => {
      const kinds = r.pick(['audio'], ['audio'], ['audio', 'video'], ['audio', 'audio'], ['image', 'text']);
      const more = (): string => r.pick('', '', `,${host}`, ',192.0.2.1');
      return session(
        r.pick(host, host, host, '192.0.2.7'),
        ...kinds.map((kind) => `${kind} ${r.pick(own(), own() + 1, 0)}${more()}`),
      );
    };
    const stream = (about: number, text: string, from: Host, host: string): void => {
      const port = /^m=\w+ (\d+)/m.exec(text)?.[1];
      if (port === undefined || port === '0') return;
      const flow = this.ids.flow++;
      const id = this.ids.next++;
      const l4: Transport = { proto: UDP, sport: 27_000, dport: Number(port) + r.pick(0, 0, 1), payload: 'voice' };
      this.events.push({
        kind: 'data',
        id,
        about,
        flow,
        port: from.port,
        packet: { src: from.address, dst: host, id: 1000 + id, l4 },
      });
      if (r.once(2)) {
        const back = this.ids.next++;
        const packet = {
          src: host,
          dst: from.address,
          id: 1000 + back,
          l4: { ...l4, sport: l4.dport, dport: l4.sport },
        };
        this.events.push({
          kind: 'packet',
          id: back,
          flow,
          way: 1,
          port: from === talk.to ? talk.from.port : talk.to.port,
          packet,
        });
      }
    };
    for (let n = 2 + r.below(6); n > 0; n--) {
      const fromPhone: Call = {
        from: `${phone}:${listening}`,
        to: server,
        cseq,
        transport,
        via: `${phone}:${listening}${r.pick('', '', `;maddr=${phone}`, ';rport')}`,
        more: [
          `Contact: <sip:me@${phone}:${listening}>${r.pick('', `;expires=${r.pick(0, 60, 3600)}`)}`,
          'Expires: 120',
        ],
      };
      const toPhone: Call = {
        from: `${seen}:${talk.sport}`,
        to: really,
        cseq: r.once(6) ? cseq + 1 : cseq,
        transport,
        via: `${seen}:${talk.sport};received=${seen};rport=${talk.sport}`,
        more: [`Contact: <sip:me@${seen}:${talk.sport}>;expires=${r.pick(0, 60, 3600)}`],
      };
      const status = r.pick('200 OK', '200 OK', '100 Trying', '183 Progress', '486 Busy', '401 No');
      switch (r.below(6)) {
        case 0:
        case 1: {
          const about = say(0, request('REGISTER', fromPhone));
          say(1, response(status, 'REGISTER', toPhone));
          if (transport === 'TCP') break;
          const flow = this.ids.flow++;
          const id = this.ids.next++;
          const from = r.pick(talk.to, talk.to, OUTSIDE[0]!);
          const caller: Call = { from: `${from.address}:5070`, to: `${seen}:${listening}`, cseq: 3 };
          const text = request('INVITE', caller, media(from.address));
          const l4: Transport = { proto: UDP, sport: 5070, dport: listening, payload: text };
          const packet = { src: from.address, dst: seen, id: 1000 + id, l4 };
          this.events.push({ kind: 'data', id, about, flow, port: from.port, packet });
          if (r.once(2)) stream(id, text, talk.from, from.address);
          break;
        }
        case 2:
        case 3: {
          const offered = media(phone);
          const about = say(0, request(r.pick('INVITE', 'INVITE', 'UPDATE', 'ACK', 'PRACK'), fromPhone, offered));
          if (r.once(2)) stream(about, offered, talk.to, seen);
          const answered = r.once(3) ? '' : media(really);
          const taken = say(1, response(status, r.pick('INVITE', 'INVITE', 'PRACK', 'UPDATE'), toPhone, answered));
          if (r.once(2)) stream(taken, answered, talk.from, server);
          break;
        }
        case 4:
          say(
            1,
            request(
              r.pick('INVITE', 'BYE'),
              { ...toPhone, from: really, to: `${seen}:${talk.sport}`, via: really },
              media(really),
            ),
          );
          say(0, response(status, 'INVITE', { ...fromPhone, from: server, via: server, to: phone }, media(phone)));
          break;
        default:
          say(r.pick(0, 1), request(r.pick('BYE', 'CANCEL', 'OPTIONS'), fromPhone));
      }
      cseq += r.below(2);
    }
    if (transport === 'TCP') this.end();
  }

  /** A message as it is, mostly. */
  private mishap(text: string): string {
    const { r } = this;
    if (!r.once(5)) return text;
    const at = r.below(text.length);
    return r.pick<() => string>(
      () => text.replaceAll('\r\n', '\n'),
      () =>
        text
          .replace(/^Via/m, 'v')
          .replace(/^Contact:/m, 'M :')
          .replace(/^From: /m, 'f:\r\n\t'),
      () => text.replace(/^(Content-Length|CSeq|Via|Contact).*\r\n/m, ''),
      () => text.slice(0, at),
      () => text + text,
      () => text + text.slice(0, at),
      () => text.slice(0, at) + String.fromCharCode(r.below(256)) + text.slice(at + 1),
      () => text.slice(0, at) + text.slice(at + 1 + r.below(8)),
      () => text.toLowerCase(),
      () => text.replace(/(Contact: )(.*)/, '$1<sip:a@192.0.2.1>, $2, $2'),
    )();
  }

  private transfer(about: number, active: boolean, host: string, port: number): void {
    const { talk } = this;
    const flow = this.ids.flow++;
    const [from, to] = active ? [talk.to, talk.from] : [talk.from, talk.to];
    const sport = active ? 20 : 21000;
    const one = (way: 0 | 1, flags: number, seq: number, ack: number, payload = ''): void => {
      const [src, dst] = way === 0 ? [from.address, host] : [to.address, from.address];
      const [a, b] = way === 0 ? [sport, port] : [port, sport];
      const l4: Transport = { proto: TCP, sport: a, dport: b, seq, ack, flags, window: 30000, payload };
      const id = this.ids.next++;
      const packet = { src, dst, id: 1000 + id, l4 };
      this.events.push(
        flags === SYN
          ? { kind: 'data', id, about, flow, port: from.port, packet }
          : { kind: 'packet', id, flow, way, port: (way === 0 ? from : to).port, packet },
      );
    };
    one(0, SYN, 100, 0);
    one(1, SYN | ACK, 900, 101);
    one(0, ACK, 101, 901);
    one(1, ACK | PSH, 901, 101, 'file');
    one(0, FIN | ACK, 101, 905);
    one(1, FIN | ACK, 905, 102);
    one(0, ACK, 102, 906);
  }
}
