import t from 'tap';
import { packPorts } from '../../src/dataplane/conntrack/key.js';
import { Status } from '../../src/dataplane/conntrack/states.js';
import { ConntrackTable, Insert } from '../../src/dataplane/conntrack/table.js';
import { CtState, Dir, Hook, HOOK_NAMES, Manip, Proto, Verdict } from '../../src/dataplane/names.js';
import { Nat } from '../../src/dataplane/nat/bind.js';
import { RangeFlag } from '../../src/dataplane/nat/range.js';
import { ASK_RULES, begin, finish } from '../../src/dataplane/nat/translate.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { setU16, u16, u32 } from '../../src/dataplane/wire/bytes.js';
import { ip, packet, packetBytes, text, wrong, wrongPacket, type Fields } from './packets.js';

const ORLOCK = ip('192.168.73.4');
const INSIDE = ip('192.168.73.1');
const WAN = ip('128.61.70.47');
const KNOCK = ip('128.61.70.200');

/** A router of one table: packets go through the hooks of nat, and connections through the table, as the pipeline does it. */
class Router {
  readonly table = ConntrackTable.attach(ConntrackTable.create({ max: 1024, workers: 2, seed: 3 }), 0);
  readonly nat = new Nat(this.table);
  asked: string[] = [];

  constructor(
    readonly rules: {
      dst?: (r: Router, p: Packet) => Verdict;
      src?: (r: Router, p: Packet) => Verdict;
    } = {},
  ) {
    this.table.online();
    this.table.edge(1, 1);
  }

  /** Conntrack's part: finds or makes the connection. Errors are given theirs by the test. */
  track(p: Packet): void {
    const { table } = this;
    const query = p.protocol === Proto.ICMP;
    const type = p.icmpType << 8;
    const ports = query ? packPorts(u16(p.bytes, p.l4 + 4), type) : packPorts(p.sport, p.dport);
    const key = p.protocol | (4 << 8);
    const link = table.find(p.src, p.dst, ports, key, key);
    if (link !== 0) {
      p.ct = (link >>> 1) - 1;
      p.ctDir = link & 1;
      p.ctState = CtState.ESTABLISHED;
      return;
    }
    p.ct = table.create(p.src, p.dst, ports, p.protocol, 0, 0);
    p.ctDir = Dir.ORIGINAL;
    p.ctState = CtState.NEW;
    table.refresh(p.ct, 60_000);
  }

  hook(p: Packet, hook: Hook): Verdict {
    let verdict = begin(this.nat, p, hook);
    if (verdict !== ASK_RULES) return verdict;
    this.asked.push(HOOK_NAMES[hook]);
    const rule = hook === Hook.POSTROUTING || hook === Hook.INPUT ? this.rules.src : this.rules.dst;
    verdict = rule?.(this, p) ?? Verdict.ACCEPT;
    return verdict === Verdict.ACCEPT ? finish(this.nat, p, hook) : verdict;
  }

  /** Through the whole router; DROP when it is dropped anywhere. */
  forward(p: Packet, first = Hook.PREROUTING, last = Hook.POSTROUTING): Verdict {
    if (p.ct < 0) this.track(p);
    if (this.hook(p, first) !== Verdict.ACCEPT || this.hook(p, last) !== Verdict.ACCEPT) return Verdict.DROP;
    if (this.table.isConfirmed(p.ct)) return Verdict.ACCEPT;
    return this.table.insert(p.ct) === Insert.INSERTED ? Verdict.ACCEPT : Verdict.DROP;
  }
}

const masquerade = (r: Router, p: Packet): Verdict =>
  p.dst === KNOCK ? r.nat.masquerade(p.ct, 0, WAN, p.outdev, 0, 0) : Verdict.ACCEPT;

const ends = (p: Packet): string => `${text(p.src)}:${p.sport} > ${text(p.dst)}:${p.dport}`;

const send = (r: Router, f: Fields, outdev = 2): Packet => {
  const p = packet(f);
  p.outdev = outdev;
  if (r.forward(p) !== Verdict.ACCEPT) throw new Error(`dropped: ${ends(p)}`);
  if (wrongPacket(p) !== '') throw new Error(wrongPacket(p));
  return p;
};

t.test('masquerading there and back: the rules see the first packet only', (t) => {
  for (const protocol of [Proto.TCP, Proto.UDP, Proto.SCTP, Proto.UDPLITE]) {
    const r = new Router({ src: masquerade });
    const out = send(r, { protocol, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 80 });
    t.equal(ends(out), '128.61.70.47:1000 > 128.61.70.200:80');
    t.same(r.asked, ['PREROUTING', 'POSTROUTING']);
    const back = send(r, { protocol, src: KNOCK, dst: WAN, sport: 80, dport: 1000 });
    t.equal(ends(back), '128.61.70.200:80 > 192.168.73.4:1000');
    const again = send(r, { protocol, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 80 });
    t.equal(ends(again), '128.61.70.47:1000 > 128.61.70.200:80');
    t.equal(r.asked.length, 2);
  }
  t.end();
});

t.test('echo: the identifier is translated and comes back', (t) => {
  const r = new Router({ src: masquerade });
  const first = send(r, { protocol: Proto.ICMP, src: ORLOCK, dst: KNOCK, type: 8, rest: 0x70001 });
  const second = send(r, { protocol: Proto.ICMP, src: ORLOCK + 1, dst: KNOCK, type: 8, rest: 0x70001 });
  const id = u16(second.bytes, second.l4 + 4);
  t.equal(u16(first.bytes, first.l4 + 4), 7);
  t.not(id, 7);
  const reply = send(r, { protocol: Proto.ICMP, src: KNOCK, dst: WAN, type: 0, rest: (id << 16) | 1 });
  t.equal(text(reply.dst), '192.168.73.5');
  t.equal(u32(reply.bytes, reply.l4 + 4), 0x70001);
  t.end();
});

t.test('a port forwarded, and the hairpin: both sides of both ends change', (t) => {
  const r = new Router({
    dst: (r, p) =>
      p.dst === WAN && p.dport === 1000
        ? r.nat.bind(p.ct, Manip.DST, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, ORLOCK, ORLOCK, 22, 22, 0)
        : Verdict.ACCEPT,
    src: (r, p) =>
      p.src >> 8 === ORLOCK >> 8
        ? r.nat.bind(p.ct, Manip.SRC, RangeFlag.MAP_IPS, INSIDE, INSIDE, 0, 0, 0)
        : Verdict.ACCEPT,
  });
  const outside = send(r, { protocol: Proto.TCP, src: KNOCK, dst: WAN, sport: 5000, dport: 1000 });
  t.equal(ends(outside), '128.61.70.200:5000 > 192.168.73.4:22');
  const answer = send(r, { protocol: Proto.TCP, src: ORLOCK, dst: KNOCK, sport: 22, dport: 5000 });
  t.equal(ends(answer), '128.61.70.47:1000 > 128.61.70.200:5000');

  const neighbour = ip('192.168.73.9');
  const hairpin = send(r, { protocol: Proto.TCP, src: neighbour, dst: WAN, sport: 5000, dport: 1000 });
  t.equal(ends(hairpin), '192.168.73.1:5000 > 192.168.73.4:22');
  const back = send(r, { protocol: Proto.TCP, src: ORLOCK, dst: INSIDE, sport: 22, dport: 5000 });
  t.equal(ends(back), '128.61.70.47:1000 > 192.168.73.9:5000');
  t.end();
});

t.test('untracked and invalid packets pass as they are', (t) => {
  const r = new Router({ src: masquerade });
  for (const state of [CtState.INVALID, CtState.UNTRACKED]) {
    const p = packet({ protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1, dport: 2 });
    p.ctState = state;
    for (const hook of [Hook.PREROUTING, Hook.OUTPUT, Hook.INPUT, Hook.POSTROUTING])
      t.equal(begin(r.nat, p, hook), Verdict.ACCEPT);
    t.equal(p.changed, 0);
  }
  t.end();
});

t.test('a rule that drops, and a binding that cannot be had', (t) => {
  const r = new Router({ src: () => Verdict.DROP });
  const p = packet({ protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1, dport: 2 });
  t.equal(r.forward(p), Verdict.DROP);
  t.equal(p.changed, 0);
  const none = new Router({ src: (r, p) => r.nat.masquerade(p.ct, 0, 0, 2, 0, 0) });
  t.equal(none.forward(packet({ protocol: Proto.UDP, src: ORLOCK, dst: KNOCK })), Verdict.DROP, 'no address to give');
  t.end();
});

t.test('a masqueraded flow that leaves by another interface begins anew', (t) => {
  const r = new Router({ src: masquerade });
  send(r, { protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 }, 2);
  const moved = packet({ protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 });
  moved.outdev = 3;
  t.equal(r.forward(moved), Verdict.DROP);
  t.ok(r.table.status(moved.ct) & Status.DYING);
  const next = send(r, { protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 }, 3);
  t.equal(next.ctState, CtState.NEW);
  // Answers go in by whatever way they come.
  const reply = packet({ protocol: Proto.UDP, src: KNOCK, dst: WAN, sport: 53, dport: 1000 });
  reply.outdev = 1;
  t.equal(r.forward(reply), Verdict.ACCEPT);
  t.end();
});

t.test('a packet on the loopback keeps what OUTPUT gave it', (t) => {
  const r = new Router({
    dst: (r, p) => r.nat.bind(p.ct, Manip.DST, RangeFlag.MAP_IPS, ip('127.0.0.1'), ip('127.0.0.1'), 0, 0, 0),
  });
  const p = packet({ protocol: Proto.UDP, src: WAN, dst: WAN, sport: 1, dport: 2 });
  t.equal(r.forward(p, Hook.OUTPUT, Hook.POSTROUTING), Verdict.ACCEPT);
  t.equal(text(p.dst), '127.0.0.1');
  t.equal(r.hook(p, Hook.PREROUTING), Verdict.ACCEPT);
  t.equal(r.hook(p, Hook.INPUT), Verdict.ACCEPT);
  t.equal(text(p.dst), '127.0.0.1');
  t.same(r.asked, ['OUTPUT', 'POSTROUTING'], 'the nat table isn’t asked again');
  t.end();
});

/** An ICMP error of `from` about the packet as its sender sees it, quoting `quoted` bytes of it. */
function errorAbout(about: Uint8Array, from: number, type: number, quoted = about.length): Packet {
  const dst = u32(about, 12);
  return packet({ protocol: Proto.ICMP, src: from, dst, type, code: 1, payload: about.slice(0, quoted) });
}

/** What the error quotes. */
const quotedOf = (p: Packet): string => {
  const o = p.l4 + 8;
  const l4 = o + ((p.bytes[o]! & 15) << 2);
  return `${text(u32(p.bytes, o + 12))}:${u16(p.bytes, l4)} > ${text(u32(p.bytes, o + 16))}:${u16(p.bytes, l4 + 2)}`;
};

t.test('errors about a translated flow, both ways, translated inside and out', (t) => {
  for (const protocol of [Proto.TCP, Proto.UDP, Proto.SCTP]) {
    for (const quoted of [undefined, 28]) {
      const r = new Router({ src: masquerade });
      const out = send(r, {
        protocol,
        src: ORLOCK,
        dst: KNOCK,
        sport: 1000,
        dport: 80,
        payload: new Uint8Array(20).fill(7),
      });
      const sent = out.bytes.slice(out.start, out.end);
      // From outside, by a router on the way: time exceeded.
      const hop = ip('128.61.1.1');
      const exceeded = errorAbout(sent, hop, 11, quoted);
      exceeded.ct = out.ct;
      exceeded.ctDir = Dir.REPLY;
      exceeded.ctState = CtState.RELATED;
      t.equal(r.forward(exceeded), Verdict.ACCEPT);
      t.equal(`${text(exceeded.src)} > ${text(exceeded.dst)}`, '128.61.1.1 > 192.168.73.4', 'the sender stays');
      t.equal(quotedOf(exceeded), '192.168.73.4:1000 > 128.61.70.200:80');
      t.equal(wrongPacket(exceeded), '');
      if (quoted === undefined)
        t.equal(wrong(exceeded.bytes, exceeded.l4 + 8, exceeded.end), '', 'the quoted packet, too');

      // From inside, about an answer: orlock refuses it.
      const answer = send(r, { protocol, src: KNOCK, dst: WAN, sport: 80, dport: 1000, payload: new Uint8Array(20) });
      const refused = errorAbout(answer.bytes.slice(answer.start, answer.end), ORLOCK, 3, quoted);
      refused.ct = out.ct;
      refused.ctDir = Dir.ORIGINAL;
      refused.ctState = CtState.RELATED;
      t.equal(r.forward(refused), Verdict.ACCEPT);
      t.equal(`${text(refused.src)} > ${text(refused.dst)}`, '128.61.70.47 > 128.61.70.200');
      t.equal(quotedOf(refused), '128.61.70.200:80 > 128.61.70.47:1000');
      t.equal(wrongPacket(refused), '');
      if (quoted === undefined) t.equal(wrong(refused.bytes, refused.l4 + 8, refused.end), '');
    }
  }
  t.same(new Router().asked, []);
  t.end();
});

t.test('errors about a forwarded port, and about an echo', (t) => {
  const r = new Router({
    dst: (r, p) =>
      r.nat.bind(p.ct, Manip.DST, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, ORLOCK, ORLOCK, 22, 22, 0),
  });
  const request = send(r, { protocol: Proto.TCP, src: KNOCK, dst: WAN, sport: 5000, dport: 1000 });
  const refused = errorAbout(request.bytes.slice(request.start, request.end), ORLOCK, 3);
  refused.ct = request.ct;
  refused.ctDir = Dir.REPLY;
  refused.ctState = CtState.RELATED;
  t.equal(r.forward(refused), Verdict.ACCEPT);
  t.equal(`${text(refused.src)} > ${text(refused.dst)}`, '128.61.70.47 > 128.61.70.200');
  t.equal(quotedOf(refused), '128.61.70.200:5000 > 128.61.70.47:1000');
  t.equal(wrongPacket(refused), '');

  const pings = new Router({ src: masquerade });
  send(pings, { protocol: Proto.ICMP, src: ORLOCK, dst: KNOCK, rest: 0x70001 });
  const echo = send(pings, { protocol: Proto.ICMP, src: ORLOCK + 1, dst: KNOCK, rest: 0x70001 });
  const exceeded = errorAbout(echo.bytes.slice(echo.start, echo.end), ip('128.61.1.1'), 11);
  exceeded.ct = echo.ct;
  exceeded.ctDir = Dir.REPLY;
  exceeded.ctState = CtState.RELATED;
  t.equal(pings.forward(exceeded), Verdict.ACCEPT);
  t.equal(text(exceeded.dst), '192.168.73.5');
  const inner = exceeded.l4 + 8;
  t.equal(u32(exceeded.bytes, inner + 24), 0x70001, 'the quoted identifier is the sender’s');
  t.equal(wrongPacket(exceeded), '');
  t.equal(wrong(exceeded.bytes, inner, exceeded.end), '');
  t.end();
});

t.test('errors that can’t be right are dropped', (t) => {
  const r = new Router({ src: masquerade });
  const out = send(r, { protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 });
  const make = (bytes: Uint8Array, type = 3): Packet => {
    const p = errorAbout(bytes, KNOCK, type);
    p.ct = out.ct;
    p.ctDir = Dir.REPLY;
    p.ctState = CtState.RELATED;
    return p;
  };
  const sent = out.bytes.slice(out.start, out.end);
  const broken = make(sent);
  broken.bytes[broken.end - 1]! ^= 1;
  t.equal(begin(r.nat, broken, Hook.PREROUTING), Verdict.DROP, 'checksum');
  t.equal(begin(r.nat, make(sent.slice(0, 19)), Hook.PREROUTING), Verdict.DROP, 'no whole header quoted');
  t.equal(begin(r.nat, make(sent.slice(0, 27)), Hook.PREROUTING), Verdict.DROP, 'no ports to change');
  t.equal(begin(r.nat, make(sent, 5), Hook.PREROUTING), Verdict.DROP, 'a redirect through translation');
  t.equal(begin(r.nat, make(sent), Hook.PREROUTING), Verdict.ACCEPT);

  const plain = new Router();
  const flow = send(plain, { protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 });
  const redirect = errorAbout(flow.bytes.slice(flow.start, flow.end), INSIDE, 5);
  redirect.ct = flow.ct;
  redirect.ctDir = Dir.REPLY;
  redirect.ctState = CtState.RELATED;
  t.equal(begin(plain.nat, redirect, Hook.PREROUTING), Verdict.ACCEPT, 'without translation it may pass');
  t.equal(redirect.changed, 0);
  t.end();
});

t.test('a packet too short for its ports is dropped', (t) => {
  const r = new Router({ src: masquerade });
  const out = send(r, { protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 });
  const short = packetBytes({ protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 1000, dport: 53 }).slice(0, 26);
  setU16(short, 2, 26);
  const p = packet(short);
  p.ct = out.ct;
  p.ctState = CtState.ESTABLISHED;
  p.outdev = 2;
  t.equal(begin(r.nat, p, Hook.POSTROUTING), Verdict.DROP);
  t.end();
});
