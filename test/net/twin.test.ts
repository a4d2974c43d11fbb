/**
 * hutter on TUN beside the kernel's own forwarding: the same probes through the same network, the same answers (ICMP type,
 * code, quoted bytes, TTL) and the same packets at the other side. No programs run on the router; what is for it is
 * answered by the kernel there and by hutter here.
 *
 *     orlock ---- 1500 ---- [ router ] ---- 1280 ---- knock
 */
import t from 'tap';
import type { EngineName } from './engine.js';
import { echoPacket, type Ip, ipPacket, tcpPacket, udpPacket } from './frame.js';
import { agree, Capture, KNOCK, ORLOCK, ROUTER_INSIDE, ROUTER_OUTSIDE, topology, type Topology } from './netns.js';
import { NARROW, NOWHERE, OWN, TRACKING, twinNetwork, TWINS } from './twins.js';

const SYN = 2;
const ACK = 16;
const RST = 4;
const MARKER = 0x7777;

const udp = (fields: Partial<Parameters<typeof udpPacket>[0]>): Uint8Array =>
  udpPacket({ src: ORLOCK, dst: KNOCK, sport: 40000, dport: 33434, ...fields });
const tcp = (fields: Partial<Parameters<typeof tcpPacket>[0]>): Uint8Array =>
  tcpPacket({ src: ORLOCK, dst: KNOCK, sport: 40000, dport: 9, flags: SYN, ...fields });
const echo = (fields: Partial<Parameters<typeof echoPacket>[0]>): Uint8Array =>
  echoPacket({ src: ORLOCK, dst: KNOCK, ...fields });
const other = (protocol: number, dst: string, ttl = 64): Uint8Array =>
  ipPacket({ src: ORLOCK, dst, ttl }, protocol, Buffer.from('whatever'));

/** An ICMP message of any kind. */
function icmp(type: number, code: number, rest: Uint8Array, fields: { dst: string; ttl?: number }): Uint8Array {
  const packet = Buffer.from(
    ipPacket({ src: ORLOCK, ...fields }, 1, Buffer.concat([Buffer.of(type, code, 0, 0), rest])),
  );
  let sum = 0;
  for (let i = 20; i < packet.length; i += 2) sum += packet.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, 22);
  return packet;
}

/** A datagram with IP options, given in hexadecimal; the sending kernel finishes the header's checksum. */
function withOptions(hex: string, dst = KNOCK): Uint8Array {
  const plain = Buffer.from(udp({ dst }));
  const options = Buffer.from(hex, 'hex');
  const packet = Buffer.concat([plain.subarray(0, 20), options, plain.subarray(20)]);
  packet[0] = 0x40 | ((20 + options.length) / 4);
  packet.writeUInt16BE(packet.length, 2);
  packet.writeUInt16BE(0, 10);
  return packet;
}

/** The pieces of a datagram, cut at these payload offsets. */
function pieces(whole: Uint8Array, cuts: number[], df = false): Uint8Array[] {
  const payload = Buffer.from(whole).subarray(20);
  return [0, ...cuts].map((from, i) => {
    const to = cuts[i] ?? payload.length;
    const fields = { src: ORLOCK, dst: Buffer.from(whole).subarray(16, 20).join('.'), id: 0x0f0f, df };
    return ipPacket(
      { ...fields, mf: to < payload.length, fragmentOffset: from },
      whole[9]!,
      payload.subarray(from, to),
    );
  });
}

const data = (length: number): Uint8Array => Buffer.alloc(length, 'hutter');
const long = udp({ id: 0x0f0f, data: data(3000) });

/** What is sent, one list a probe. */
const PROBES: Record<string, Uint8Array[]> = {
  'a datagram that crosses': [udp({ ttl: 2, tos: 0x10 })],
  'TTL 1: UDP': [udp({ ttl: 1, tos: 0x10 })],
  'TTL 1: TCP': [tcp({ ttl: 1 })],
  'TTL 1: echo': [echo({ ttl: 1, data: data(900) })],
  'TTL 1: another protocol': [other(200, KNOCK, 1)],
  'TTL 1: an ICMP error': [
    icmp(3, 1, Buffer.concat([Buffer.alloc(4), udp({}).subarray(0, 28)]), { dst: KNOCK, ttl: 1 }),
  ],
  'TTL 1: an unknown ICMP type': [icmp(100, 0, Buffer.alloc(8), { dst: KNOCK, ttl: 1 })],
  'TTL 1: an ICMP query': [icmp(13, 0, Buffer.alloc(16), { dst: KNOCK, ttl: 1 })],
  'TTL 1: a first fragment': [udp({ ttl: 1, mf: true, data: data(16) })],
  'TTL 1: a later fragment': [udp({ ttl: 1, fragmentOffset: 80, data: data(16) })],
  // One source each: errors about routes are limited by destination, whatever icmp_ratelimit is.
  'no route': [udp({ src: '192.168.73.5', dst: NOWHERE })],
  unreachable: [udp({ src: '192.168.73.6', dst: '198.51.100.1' })],
  prohibited: [udp({ src: '192.168.73.7', dst: '198.51.100.2' })],
  'no route, too soon after another error': [udp({ ttl: 1 }), udp({ dst: NOWHERE })],
  'a black hole': [udp({ dst: '198.51.100.3' })],
  'one byte too long': [udp({ df: true, data: data(NARROW - 27) })],
  'as long as may be': [udp({ df: true, data: data(NARROW - 28) })],
  'far too long: the quote is cut': [udp({ df: true, data: data(1472) })],
  'too long, may be cut': [udp({ id: 77, data: data(1472) })],
  'too long, with options': [Buffer.concat([withOptions('9404000007070400000000' + '00'), Buffer.alloc(0)])],
  'in pieces': pieces(long, [1480, 2960]),
  'in odd pieces': pieces(long, [8, 800, 808, 2000]),
  'in pieces, out of order': pieces(long, [1000, 2000]).reverse(),
  'in pieces with DF': pieces(long, [1000, 2000], true),
  'in long pieces with DF': pieces(long, [1480, 2960], true),
  'to the router: UDP': [udp({ dst: ROUTER_INSIDE, ttl: 1, tos: 0x08 })],
  'to its other address: UDP': [udp({ dst: ROUTER_OUTSIDE })],
  'to the router: UDP, checksum wrong': [
    Buffer.concat([udp({ dst: ROUTER_INSIDE }).subarray(0, 27), Buffer.from('!hello')]),
  ],
  'to the router: SYN': [tcp({ dst: ROUTER_INSIDE, tos: 0x10 })],
  'to the router: ACK': [tcp({ dst: ROUTER_INSIDE, flags: ACK, ack: 77 })],
  'to the router: RST': [tcp({ dst: ROUTER_INSIDE, flags: RST })],
  'to the router: another protocol': [other(200, ROUTER_INSIDE)],
  'to the router: echo': [echo({ dst: ROUTER_INSIDE, tos: 0x10, id: 5 })],
  'to the router: echo, 1400 bytes': [echo({ dst: ROUTER_INSIDE, data: data(1400) })],
  'to the router: echo, code 5': [icmp(8, 5, Buffer.alloc(12, 1), { dst: ROUTER_INSIDE })],
  'to the router: an information request': [icmp(15, 0, Buffer.alloc(4), { dst: ROUTER_INSIDE })],
  'to the router: an error': [
    icmp(3, 3, Buffer.concat([Buffer.alloc(4), udp({}).subarray(0, 28)]), { dst: ROUTER_INSIDE }),
  ],
  'to the router, in pieces': pieces(udp({ dst: ROUTER_INSIDE, data: data(2000) }), [1000]),
  'to the subnet beyond': [udp({ dst: '128.61.70.255' })],
  'from the router itself': [udp({ src: ROUTER_INSIDE })],
  'from its other address': [udp({ src: ROUTER_OUTSIDE })],
  'from 127.0.0.1': [udp({ src: '127.0.0.1' })],
  'from a group': [udp({ src: '224.1.2.3' })],
  'from everybody': [udp({ src: '255.255.255.255' })],
  'from 0.0.0.1': [udp({ src: '0.0.0.1' })],
  'from who can not be reached': [udp({ src: NOWHERE, ttl: 1 })],
  'options that say nothing': [withOptions('01010100')],
  'a source route': [withOptions('830704c000020100')],
  'a strict source route': [withOptions('890704c000020100')],
  'options: length 0': [withOptions('07000000')],
  'options: too long': [withOptions('01072704')],
  'options: record route, pointer 3': [withOptions('0707030000000000')],
  'options: timestamp, full': [withOptions('44040500')],
  'options: timestamp too short': [withOptions('44030500')],
  'options: timestamp overflows': [withOptions('440409f0')],
  'options: router alert too short': [withOptions('94030000')],
};

const message = ({ src, dst, proto, tos, ttl, length, df, mf, fragmentOffset, icmp, tcp, bytes }: Ip): object => ({
  src,
  dst,
  ...{ proto, tos, ttl, length, df, mf, fragmentOffset },
  icmp: icmp && { type: icmp.type, code: icmp.code, rest: icmp.rest, quote: Buffer.from(icmp.quote).toString('hex') },
  tcp,
  bytes: proto === 1 || proto === 6 ? undefined : Buffer.from(bytes).subarray(20).toString('hex'),
});

/** Sends one probe after the other, each followed by an echo to the router that tells when all is said. */
async function probeAll(t: Test, { orlock, knock }: Topology): Promise<Record<string, object>> {
  for (const last of [5, 6, 7]) orlock.ns.ip(`address add 192.168.73.${last}/24 dev eth0`);
  const inside = await Capture.start(orlock, 'eth0', 'dst net 192.168.73.0/24');
  const outside = await Capture.start(knock, 'eth0', `src net 192.168.0.0/16 or src host ${ROUTER_OUTSIDE}`);
  const seen: Record<string, object> = {};
  let marker = MARKER;
  for (const [title, packets] of Object.entries(PROBES)) {
    const [before, beyond] = [(await inside.packets()).length, (await outside.packets()).length];
    for (const packet of packets) {
      // What the sending kernel has no way to is given to the router's link all the same.
      await orlock.sendRaw({ packet, to: Buffer.from(packet).subarray(16, 20).join('.') });
    }
    const ident = ++marker;
    for (const dst of [ROUTER_INSIDE, KNOCK]) await orlock.sendRaw({ packet: echo({ dst, ident }), to: dst });
    const isMark = (ip: Ip): boolean => ip.icmp?.type === 0 && ip.icmp.rest >>> 16 === ident;
    for (const src of [ROUTER_INSIDE, KNOCK])
      await inside.until(`${title}: the end`, (ip) => isMark(ip) && ip.src === src);
    await outside.until(`${title}: the end beyond`, (ip) => ip.icmp !== undefined && ip.icmp.rest >>> 16 === ident);
    const isEcho = (ip: Ip): boolean => ip.icmp !== undefined && ip.icmp.rest >>> 16 === ident;
    const answers = (await inside.packets()).slice(before).filter((ip) => !isMark(ip) && OWN.includes(ip.src));
    const crossed = (await outside.packets()).slice(beyond).filter((ip) => ip.src === ORLOCK && !isEcho(ip));
    for (const ip of [...answers, ...crossed]) t.ok(ip.headerOk, `${title}: the header's checksum`);
    seen[title] = { answers: answers.map(message), crossed: crossed.map(message) };
  }
  return seen;
}
type Test = Parameters<typeof topology>[0];

const network = (t: Test, engine: EngineName): Promise<Topology> => topology(t, engine, twinNetwork());

for (const [how, rules] of [
  ['no rules', ''],
  ['connections tracked', TRACKING],
] as const)
  agree(
    t,
    `answers and packets of a router: ${how}`,
    async (t, engine) => {
      const net = await network(t, engine);
      // Redirects and errors of knock's own are nobody's answers here.
      await net.fw.load(rules);
      return probeAll(t, net);
    },
    TWINS,
  );

agree(
  t,
  'the reverse path: off, strict, loose',
  async (t, engine) => {
    const crossed: Record<string, string[]> = {};
    for (const strictness of [0, 1, 2]) {
      const net = await topology(t, engine, { offload: false, sysctl: { 'net.ipv4.conf.if0.rp_filter': strictness } });
      const { orlock, knock } = net;
      const seen = await Capture.start(knock, 'eth0', 'udp dst port 33434');
      for (const src of ['192.168.73.99', '128.61.70.99', NOWHERE, '128.61.70.255', ORLOCK])
        await orlock.sendRaw({ packet: udp({ src }), to: KNOCK });
      await seen.until('the last one', (ip) => ip.src === ORLOCK);
      crossed[strictness] = (await seen.packets()).map(({ src }) => src);
    }
    t.same(crossed[1], ['192.168.73.99', ORLOCK], 'strict: by this interface');
    t.same(crossed[2], ['192.168.73.99', '128.61.70.99', ORLOCK], 'loose: by any');
    return crossed;
  },
  TWINS,
);

const SIZES = [0, 1, 7, 8, 16, 100, 1000, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1300, 1471, 1472, 1473, 1480, 1481];
for (let size = 2000; size < 65_507; size += 4_001) SIZES.push(size);
SIZES.push(65_499, 65_500, 65_506, 65_507);

agree(
  t,
  'ping of all sizes, with and without DF',
  async (t, engine) => {
    const net = await network(t, engine);
    await net.fw.load(TRACKING);
    const results: string[] = [];
    for (const size of SIZES) {
      for (const how of ['dont', 'do']) {
        if (how === 'do' && size > 1472) continue;
        const args = ['-n', '-q', '-c1', '-W3', '-M', how, '-s', String(size), KNOCK];
        const ping = await net.orlock.ns.run('ping', args);
        results.push(`${size} ${how}: ${/(\d) received/.exec(ping.stdout)?.[1]}`);
      }
      // The path's MTU was learnt; the next one with DF shall be told again.
      net.orlock.ns.ip('route flush cache');
    }
    return results;
  },
  TWINS,
);
