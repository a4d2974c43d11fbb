/**
 * Adversarial probes, by the thousand: hutter on TUN beside the kernel's own forwarding, judged as in twin.test.ts but sent in
 * bursts. What comes of a probe is known by its IP identification: in what crosses, in what errors quote, and as port or ident in the
 * answers of the router's own. Options and protocols are enumerated or come from a seeded generator.
 *
 *     orlock ---- 1500 ---- [ router ] ---- 1280 ---- knock
 */
import t from 'tap';
import { Random } from '../kernel/random.js';
import { checksum, echoPacket, icmpPacket, type Ip, type IpFields, ipPacket, tcpPacket, udpPacket } from './frame.js';
import { agree, Capture, KNOCK, ORLOCK, ROUTER_INSIDE, ROUTER_OUTSIDE, topology } from './netns.js';
import { NOWHERE, OWN, TRACKING, twinNetwork, TWINS } from './twins.js';

const SEED = Number(process.env['HUTTER_SEED'] ?? 1812);
const BURST = 64;
/** ICMP messages that quote what they are about. */
const ERRORS = [3, 4, 5, 11, 12];
const TIMESTAMP_REPLY = 14;
/** More hosts behind orlock, each with a purse of its own for errors about routes, whose limit can't be switched off. */
const MORE = '192.168.80.0/22';

/** One probe; `id` is its number, which shall be found in its answers. */
interface Probe {
  title: string;
  make: (id: number) => Uint8Array | Uint8Array[];
}

const data = (length: number): Uint8Array => Buffer.alloc(length, 'hutter');
const udp = (id: number, fields: Partial<Parameters<typeof udpPacket>[0]> = {}): Uint8Array =>
  udpPacket({ src: ORLOCK, dst: KNOCK, id, sport: id, dport: 33434, ...fields });
const tcp = (id: number, fields: Partial<Parameters<typeof tcpPacket>[0]> = {}): Uint8Array =>
  tcpPacket({ src: ORLOCK, dst: KNOCK, id, sport: id, dport: 9, flags: 2, ...fields });
const echo = (id: number, fields: Partial<Parameters<typeof echoPacket>[0]> = {}): Uint8Array =>
  echoPacket({ src: ORLOCK, dst: KNOCK, id, ident: id, ...fields });
const icmp = (id: number, type: number, code: number, rest: Uint8Array, fields: Partial<IpFields> = {}): Uint8Array =>
  icmpPacket({ src: ORLOCK, dst: KNOCK, id, ...fields }, type, code, rest);
const ip = (id: number, protocol: number, payload: Uint8Array, fields: Partial<IpFields> = {}): Uint8Array =>
  ipPacket({ src: ORLOCK, dst: KNOCK, id, ...fields }, protocol, payload);
/** The ident and sequence of a query, and what else it says. */
const query = (id: number, length: number): Uint8Array => {
  const rest = Buffer.alloc(Math.max(length, 0), 3);
  if (rest.length >= 2) rest.writeUInt16BE(id, 0);
  return rest;
};

function withOptions(packet: Uint8Array, options: Uint8Array): Uint8Array {
  const plain = Buffer.from(packet);
  const b = Buffer.concat([plain.subarray(0, 20), options, plain.subarray(20)]);
  b[0] = 0x40 | ((20 + options.length) / 4);
  b.writeUInt16BE(b.length, 2);
  b.writeUInt16BE(0, 10);
  b.writeUInt16BE(checksum(b.subarray(0, 20 + options.length)), 10);
  return b;
}

/** Options as they are, nearly are, and can't be. Whole words. */
function options(random: Random): Uint8Array {
  const out: number[] = [];
  for (let count = 1 + random.below(3); count > 0; count--) {
    const kind = random.pick(0, 1, 7, 7, 7, 68, 68, 68, 131, 137, 148, 130, 134, 136, 133, random.below(256));
    const slots = 1 + random.below(3);
    let length = random.pick(3 + 4 * slots, 4 + 4 * slots, 4, 2, 3, random.below(12));
    let body = Array.from({ length: Math.max(0, length - 2) }, () => random.pick<number>(0, 10, 192, 168, 73, 1));
    const pointer = random.pick(4, 5, 4, 5, 8, 9, length + 1, length, 0, 3, random.below(256));
    if (kind <= 1) {
      out.push(kind);
      continue;
    }
    if (body.length > 0) body[0] = pointer;
    if (kind === 68 && body.length > 1) body[1] = random.pick(0, 1, 3, 0x10, 0xf0, 0xf1, 2, random.below(256));
    // The time that a router names for itself.
    if (kind === 68 && body[1] === 3 && random.once(2)) body.splice(2, 4, 128, 61, 70, 47);
    if (random.once(12)) length = random.below(256);
    if (random.once(12)) body = body.slice(1);
    out.push(kind, length, ...body);
  }
  while (out.length % 4 !== 0) out.push(random.pick(0, 0, 1));
  return Uint8Array.from(out.slice(0, 40));
}

function probes(): Probe[] {
  const all: Probe[] = [];
  const random = new Random(SEED);
  const add = (title: string, make: Probe['make']): void => void all.push({ title, make });
  let hosts = 0;
  const another = (): string => `192.168.${80 + (++hosts >> 8)}.${hosts & 255}`;

  for (let protocol = 0; protocol < 256; protocol++) {
    add(`protocol ${protocol} to the router`, (id) => ip(id, protocol, data(24), { dst: ROUTER_INSIDE }));
    add(`protocol ${protocol}, TTL 1`, (id) => ip(id, protocol, data(24), { ttl: 1 }));
  }
  for (let type = 0; type < 256; type++) {
    const about = Buffer.concat([Buffer.alloc(4), udp(7, { src: ROUTER_INSIDE, dst: ORLOCK }).subarray(0, 28)]);
    const errors = ERRORS.includes(type);
    const rest = (id: number): Uint8Array => (errors ? about : query(id, 16));
    add(`ICMP ${type} to the router`, (id) => icmp(id, type, 0, rest(id), { dst: ROUTER_INSIDE }));
    add(`ICMP ${type}, TTL 1`, (id) => icmp(id, type, 0, rest(id), { ttl: 1 }));
  }
  for (const type of [8, 13, 15, 17, 42])
    for (const code of [0, 1, 5])
      for (let length = -4; length < 24; length += length < 8 ? 1 : 4)
        add(`ICMP ${type}/${code} of ${length + 4} bytes to the router`, (id) => {
          const whole = icmp(id, type, code, query(id, length), { dst: ROUTER_INSIDE });
          return length >= 0 ? whole : ip(id, 1, whole.subarray(20, 24 + length), { dst: ROUTER_INSIDE });
        });

  for (const ttl of [0, 1, 2, 255]) {
    for (const dst of [ROUTER_INSIDE, ROUTER_OUTSIDE, KNOCK]) {
      add(`UDP, TTL ${ttl}, to ${dst}`, (id) => udp(id, { ttl, dst }));
      add(`SYN, TTL ${ttl}, to ${dst}`, (id) => tcp(id, { ttl, dst }));
      add(`echo, TTL ${ttl}, to ${dst}`, (id) => echo(id, { ttl, dst }));
      add(`DF and too long, TTL ${ttl}, to ${dst}`, (id) => udp(id, { ttl, dst, df: true, data: data(1400) }));
    }
  }
  // As many as are quoted whole, and more.
  for (const length of [0, 1, 7, 8, 519, 520, 521, 1252, 1253, 1254, 1472])
    for (const df of [false, true]) {
      add(`${length} bytes${df ? ', DF' : ''}`, (id) => udp(id, { df, data: data(length) }));
      add(`${length} bytes${df ? ', DF' : ''}, TTL 1`, (id) => udp(id, { df, ttl: 1, data: data(length) }));
    }
  for (let tos = 0; tos < 256; tos += 5) {
    add(`TOS ${tos}, TTL 1`, (id) => udp(id, { tos, ttl: 1 }));
    add(`TOS ${tos}, echo to the router`, (id) => echo(id, { tos, dst: ROUTER_INSIDE }));
    add(`TOS ${tos}, SYN to the router`, (id) => tcp(id, { tos, dst: ROUTER_INSIDE }));
  }

  for (let i = 0; i < 400; i++) {
    const some = options(random);
    const hex = Buffer.from(some).toString('hex');
    add(`options ${hex}, across`, (id) => withOptions(udp(id), some));
    if (i % 4 === 0) add(`options ${hex}, TTL 1`, (id) => withOptions(udp(id, { ttl: 1 }), some));
    if (i % 4 === 1)
      add(`options ${hex}, echo to the router`, (id) => withOptions(echo(id, { dst: ROUTER_INSIDE }), some));
    if (i % 4 === 2)
      add(`options ${hex}, UDP to the router`, (id) => withOptions(udp(id, { dst: ROUTER_INSIDE }), some));
    if (i % 4 === 3)
      add(`options ${hex}, SYN to the router`, (id) => withOptions(tcp(id, { dst: ROUTER_INSIDE }), some));
    if (i % 8 === 0) add(`options ${hex}, cut`, (id) => withOptions(udp(id, { data: data(1300) }), some));
    if (i % 8 === 4) add(`options ${hex}, DF`, (id) => withOptions(udp(id, { df: true, data: data(1300) }), some));
  }

  for (let flags = 0; flags < 256; flags += flags < 64 ? 1 : 13)
    for (const length of [0, 5])
      add(`TCP flags ${flags}, ${length} bytes, to the router`, (id) =>
        tcp(id, { dst: ROUTER_INSIDE, flags, ack: 99, data: data(length) }),
      );
  for (const dst of [ROUTER_INSIDE, KNOCK])
    for (const covered of [0, 7, 8, 12, 24, 25])
      for (const right of [true, false])
        add(`UDP-Lite that covers ${covered} bytes, ${right ? 'right' : 'wrong'}, to ${dst}`, (id) => {
          const b = Buffer.from(ip(id, 136, data(24), { dst, ttl: dst === KNOCK ? 1 : 64 }));
          b.writeUInt16BE(id, 20);
          b.writeUInt16BE(covered, 24);
          b.writeUInt16BE(0, 26);
          const pseudo = Buffer.concat([b.subarray(12, 20), Buffer.of(0, 136, 0, 24)]);
          b.writeUInt16BE(checksum(pseudo, b.subarray(20, covered === 0 ? undefined : 20 + covered)), 26);
          if (!right) b[26]! ^= 1;
          return b;
        });
  const edited = (packet: Uint8Array, edit: (b: Buffer) => void): Uint8Array => {
    const b = Buffer.from(packet);
    edit(b);
    return b;
  };
  for (const dst of [ROUTER_INSIDE, KNOCK])
    for (const ttl of [1, 64]) {
      const to = `to ${dst}, TTL ${ttl}`;
      for (let words = 0; words < 16; words++)
        add(`TCP header of ${words} words, ${to}`, (id) =>
          edited(tcp(id, { dst, ttl, data: data(8) }), (b) => {
            b[32] = words << 4;
            b.writeUInt16BE(0, 36);
            const pseudo = Buffer.concat([b.subarray(12, 20), Buffer.of(0, 6, 0, b.length - 20)]);
            b.writeUInt16BE(checksum(pseudo, b.subarray(20)), 36);
          }),
        );
      add(`TCP checksum wrong, ${to}`, (id) => edited(tcp(id, { dst, ttl }), (b) => (b[36]! ^= 1)));
      add(`UDP checksum wrong, ${to}`, (id) => edited(udp(id, { dst, ttl }), (b) => (b[26]! ^= 1)));
      add(`UDP without a checksum, ${to}`, (id) => edited(udp(id, { dst, ttl }), (b) => b.writeUInt16BE(0, 26)));
      for (const length of [0, 7, 8, 12, 14, 1000])
        add(`UDP that says ${length} bytes, ${to}`, (id) =>
          edited(udp(id, { dst, ttl }), (b) => {
            b.writeUInt16BE(length, 24);
            b.writeUInt16BE(0, 26);
          }),
        );
      add(`ICMP checksum wrong, ${to}`, (id) => edited(echo(id, { dst, ttl }), (b) => (b[22]! ^= 1)));
      for (const protocol of [1, 6, 17, 132, 136, 200])
        for (const length of [0, 1, 4, 7, 8, 19])
          add(`protocol ${protocol}, ${length} bytes, ${to}`, (id) =>
            ip(id, protocol, query(id, length), { dst, ttl }),
          );
    }

  const sources = [
    '0.0.0.0',
    '0.1.2.3',
    '127.0.0.1',
    '127.9.9.9',
    '224.0.0.1',
    '239.1.1.1',
    '240.0.0.1',
    '255.255.255.254',
  ];
  sources.push('255.255.255.255', '192.168.73.255', '128.61.70.255', '128.61.70.200', '198.51.100.1');
  sources.push('198.51.100.2', '198.51.100.3', NOWHERE, ...OWN);
  const targets = ['0.0.0.0', '0.1.2.3', '127.0.0.1', '127.9.9.9', '224.0.0.1', '224.0.0.5', '239.1.1.1', '240.0.0.1'];
  targets.push('255.255.255.255', '255.255.255.254', '192.168.73.255', '128.61.70.255');
  targets.push('198.51.100.1', '198.51.100.2', '198.51.100.3', NOWHERE, KNOCK, ...OWN);
  for (const dst of targets)
    for (const ttl of [1, 64]) {
      add(`UDP to ${dst}, TTL ${ttl}`, (id) => udp(id, { src: another(), dst, ttl }));
      add(`SYN to ${dst}, TTL ${ttl}`, (id) => tcp(id, { src: another(), dst, ttl }));
      add(`echo to ${dst}, TTL ${ttl}`, (id) => echo(id, { src: another(), dst, ttl }));
      add(`timestamp to ${dst}, TTL ${ttl}`, (id) => icmp(id, 13, 0, query(id, 16), { src: another(), dst, ttl }));
      add(`address mask to ${dst}, TTL ${ttl}`, (id) => icmp(id, 17, 0, query(id, 8), { src: another(), dst, ttl }));
      add(`protocol 200 to ${dst}, TTL ${ttl}`, (id) => ip(id, 200, data(9), { src: another(), dst, ttl }));
      add(`too long, DF, to ${dst}, TTL ${ttl}`, (id) =>
        udp(id, { src: another(), dst, ttl, df: true, data: data(1400) }),
      );
      add(`a first fragment to ${dst}, TTL ${ttl}`, (id) =>
        udp(id, { src: another(), dst, ttl, mf: true, data: data(16) }),
      );
      add(`a later fragment to ${dst}, TTL ${ttl}`, (id) =>
        ip(id, 17, data(16), { src: another(), dst, ttl, fragmentOffset: 64 }),
      );
      add(`an error about ${dst}`, (id) =>
        icmp(id, 3, 1, Buffer.concat([Buffer.alloc(4), udp(9).subarray(0, 28)]), { src: another(), dst, ttl }),
      );
    }
  for (const src of sources)
    for (const dst of [KNOCK, ROUTER_INSIDE, '255.255.255.255', '192.168.73.255', '224.0.0.1', '224.0.0.5', NOWHERE]) {
      add(`UDP from ${src} to ${dst}`, (id) => udp(id, { src, dst }));
      add(`echo from ${src} to ${dst}`, (id) => echo(id, { src, dst }));
      add(`SYN from ${src} to ${dst}, TTL 1`, (id) => tcp(id, { src, dst, ttl: 1 }));
    }

  // Pieces: what can't be put together, and what is too long, in pieces of its own.
  const piece = (id: number, offset: number, length: number, mf: boolean, fields: Partial<IpFields> = {}): Uint8Array =>
    ip(id, 17, data(length), { mf, fragmentOffset: offset, ...fields });
  for (const dst of [KNOCK, ROUTER_INSIDE])
    for (const df of [false, true])
      for (const ttl of [1, 64]) {
        const fields = { dst, df, ttl };
        const how = `to ${dst}, TTL ${ttl}${df ? ', DF' : ''}`;
        const whole = (id: number, length: number): Buffer =>
          Buffer.from(udp(id, { dst, data: data(length) })).subarray(20);
        const cut = (id: number, length: number, at: number[]): Uint8Array[] =>
          [0, ...at].map((from, i) => {
            const to = at[i] ?? length + 8;
            return ip(id, 17, whole(id, length).subarray(from, to), {
              ...fields,
              mf: i < at.length,
              fragmentOffset: from,
            });
          });
        add(`a piece at 65,528, ${how}`, (id) => piece(id, 65_528, 8, false, fields));
        add(`a piece beyond 65,535, ${how}`, (id) => piece(id, 65_528, 100, false, fields));
        add(`an empty piece, ${how}`, (id) => piece(id, 64, 0, true, fields));
        add(`a piece of 7 bytes with more to come, ${how}`, (id) => piece(id, 0, 7, true, fields));
        add(`an odd piece with more to come, ${how}`, (id) => piece(id, 0, 21, true, fields));
        add(`a long first piece, ${how}`, (id) => piece(id, 0, 1400, true, fields));
        add(`a long later piece, ${how}`, (id) => piece(id, 800, 1400, false, fields));
        add(`two pieces, ${how}`, (id) => cut(id, 600, [304]));
        add(`two pieces, turned round, ${how}`, (id) => cut(id, 600, [304]).reverse());
        add(`a piece twice, ${how}`, (id) => cut(id, 600, [304]).flatMap((p) => [p, p]));
        add(`long pieces, ${how}`, (id) => cut(id, 2800, [1400]));
        add(`teardrop, ${how}`, (id) => [piece(id, 0, 40, true, fields), piece(id, 24, 4, false, fields)]);
        add(`teardrop, padded, ${how}`, (id) => [
          piece(id, 0, 160, true, fields),
          piece(id, 48, 64, true, fields),
          piece(id, 160, 8, false, fields),
        ]);
        add(`a tail over a head, ${how}`, (id) => [piece(id, 8, 160, false, fields), piece(id, 0, 16, true, fields)]);
        add(`ECN: not all alike, ${how}`, (id) => {
          const [first, second] = cut(id, 600, [304]);
          return [edited(first!, (b) => (b[1] = 2)), edited(second!, (b) => (b[1] = 3))];
        });
        add(`ECN: one incapable, ${how}`, (id) => {
          const [first, second] = cut(id, 600, [304]);
          return [edited(first!, (b) => (b[1] = 0)), edited(second!, (b) => (b[1] = 3))];
        });
      }
  return all;
}

/** Times of day that a router wrote, which differ from run to run. */
function timeless(bytes: Uint8Array, at: number): void {
  const b = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const day = 86_400_000;
  const away = Math.abs(b.readUInt32BE(at) - (Date.now() % day));
  if (away < 600_000 || (away > day - 600_000 && away < day)) b.write('TIME', at);
}

function withoutTimes(packet: Uint8Array): Buffer {
  const b = Buffer.from(packet);
  for (let at = 20; at < (b[0]! & 15) * 4;) {
    const kind = b[at]!;
    if (kind === 0) break;
    const length = kind === 1 ? 1 : b[at + 1]!;
    if (length === 0) break;
    if (kind === 68) for (let slot = at + 4; slot + 4 <= Math.min(at + length, b.length); slot++) timeless(b, slot);
    at += length;
  }
  return b;
}

/** What is compared of a packet, and whose it is. */
function told({ src, dst, proto, tos, ttl, length, df, mf, fragmentOffset, icmp, tcp, bytes }: Ip): string {
  const b = withoutTimes(bytes);
  const header = (b[0]! & 15) * 4;
  if (icmp?.type === TIMESTAMP_REPLY && b.length >= header + 20) for (const at of [12, 16]) timeless(b, header + at);
  const quote = icmp && ERRORS.includes(icmp.type) ? ` quotes ${withoutTimes(icmp.quote).toString('hex')}` : '';
  const what = icmp
    ? `ICMP ${icmp.type}/${icmp.code} ${icmp.rest}${quote || `: ${b.subarray(header + 8).toString('hex')}`}`
    : tcp
      ? `TCP ${tcp.flags} ${tcp.seq} ${tcp.ack} ${tcp.window}`
      : `${proto}: ${b.subarray(header).toString('hex')}`;
  const pieces = `${df ? ' DF' : ''}${mf ? ' MF' : ''}${fragmentOffset > 0 ? ` +${fragmentOffset}` : ''}`;
  return `${src} > ${dst} ttl ${ttl} tos ${tos} length ${length}${pieces} [${b.subarray(20, header).toString('hex')}] ${what}`;
}

/** Number of the probe that an answer is about. */
function aboutOf({ icmp, dport, proto, payload }: Ip): number {
  if (proto === 6) return dport ?? -1;
  if (icmp === undefined) return -1;
  if (ERRORS.includes(icmp.type)) return Buffer.from(icmp.quote).readUInt16BE(4);
  return payload === undefined ? -1 : icmp.rest >>> 16;
}

for (const [how, rules] of [
  ['no rules', ''],
  ['connections tracked', TRACKING],
] as const)
  agree(
    t,
    `adversarial probes: ${how} (seed ${SEED})`,
    async (t, engine) => {
      const { fw, orlock, knock } = await topology(t, engine, twinNetwork([{ to: MORE, via: ORLOCK }]));
      await fw.load(rules);
      orlock.ns.ip(`address add 192.168.80.1/22 dev lo`);
      const inside = await Capture.start(orlock, 'eth0', `src host ${ROUTER_INSIDE} or src host ${ROUTER_OUTSIDE}`);
      const outside = await Capture.start(knock, 'eth0', `not src host ${KNOCK}`);
      const all = probes();
      const FIRST = 1000;
      for (let from = 0; from < all.length; from += BURST) {
        for (const [i, { make }] of all.slice(from, from + BURST).entries())
          for (const packet of [make(FIRST + from + i)].flat()) await orlock.sendRaw({ packet, to: KNOCK });
        const ident = 60_000 + from / BURST;
        await orlock.sendRaw({ packet: echo(ident), to: KNOCK });
        await orlock.sendRaw({ packet: echo(ident, { dst: ROUTER_INSIDE }), to: ROUTER_INSIDE });
        const isMark = (ip: Ip): boolean => ip.icmp !== undefined && ip.icmp.rest >>> 16 === ident;
        await inside.until(`answers to the burst at ${from}`, isMark);
        await outside.until(`the burst at ${from}`, isMark);
      }
      const seen: Record<string, string[]> = {};
      const note = (id: number, text: string): void => {
        if (id < 60_000) (seen[all[id - FIRST]?.title ?? 'nothing that was asked'] ??= []).push(text);
      };
      for (const answer of await inside.packets())
        if (OWN.includes(answer.src)) note(aboutOf(answer), `answer: ${told(answer)}`);
      for (const crossed of await outside.packets())
        if (!OWN.includes(crossed.src) || crossed.proto !== 1) note(crossed.id, `crossed: ${told(crossed)}`);
      t.ok(all.length > 2000, `${all.length} probes`);
      t.ok(Object.keys(seen).length > all.length / 3, `${Object.keys(seen).length} of them had an answer or crossed`);
      return seen;
    },
    TWINS,
  );
