import { readFileSync } from 'node:fs';
import t from 'tap';
import { InFlag } from '../../src/dataplane/io/batch.js';
import { Proto, TcpFlag, Verdict } from '../../src/dataplane/names.js';
import { u16, u32, u8 } from '../../src/dataplane/wire/bytes.js';
import { pseudoSum } from '../../src/dataplane/wire/checksum.js';
import { text, wrong } from '../nat/packets.js';
import { IF0, IF1, INSIDE, KNOCK, ORLOCK, OUTSIDE, type PacketFields, read, World } from './world.js';

const FIREWALL = readFileSync('examples/simple-firewall.rules', 'utf8');
const syn: Partial<PacketFields> = { flags: TcpFlag.SYN };
const tcp = (
  src: string,
  sport: number,
  dst: string,
  dport: number,
  more: Partial<PacketFields> = {},
): PacketFields => ({
  protocol: Proto.TCP,
  src,
  sport,
  dst,
  dport,
  ...more,
});
const udp = (src: string, sport: number, dst: string, dport: number): PacketFields => ({
  protocol: Proto.UDP,
  src,
  sport,
  dst,
  dport,
});

t.test("the article's firewall: out through SNAT and back", async (t) => {
  const world = await World.create(FIREWALL);
  const out = world.arrives(IF0, tcp(ORLOCK, 40000, KNOCK, 80, syn));
  t.equal(out.verdict, Verdict.ACCEPT);
  t.equal(`${out.src}:${out.sport}`, `${OUTSIDE}:40000`);
  t.equal(wrong(out.packet!, 0, out.packet!.length), '');
  t.equal(out.fields.ttl, 64, 'the kernel lowers the TTL itself');
  const back = world.arrives(IF1, tcp(KNOCK, 80, OUTSIDE, 40000, { flags: TcpFlag.SYN | TcpFlag.ACK, ack: 1 }));
  t.equal(`${back.dst}:${back.dport}`, `${ORLOCK}:40000`);
  t.equal(back.src, KNOCK);
  t.equal(wrong(back.packet!, 0, back.packet!.length), '');
  t.equal(world.counted('nat', 'POSTROUTING', 1), 1, 'asked about the first packet only');
  t.equal(world.counted('filter', 'FORWARD', 1), 1);
  t.equal(world.counted('filter', 'FORWARD', 2), 1);
});

t.test('a port forwarded inwards, and its answers', async (t) => {
  const world = await World.create(FIREWALL);
  const inward = world.arrives(IF1, tcp(KNOCK, 5000, OUTSIDE, 6346, syn));
  t.equal(`${inward.dst}:${inward.dport}`, `${ORLOCK}:6346`);
  t.equal(inward.verdict, Verdict.ACCEPT);
  const answer = world.arrives(IF0, tcp(ORLOCK, 6346, KNOCK, 5000, { flags: TcpFlag.SYN | TcpFlag.ACK, ack: 1 }));
  t.equal(`${answer.src}:${answer.sport}`, `${OUTSIDE}:6346`);
  t.equal(answer.dst, KNOCK);
});

t.test('what FORWARD does not permit is dropped, counted by the policy, and leaves no connection', async (t) => {
  const world = await World.create(FIREWALL);
  const seen = world.arrives(IF1, tcp(KNOCK, 5000, ORLOCK, 22, syn));
  t.equal(seen.verdict, Verdict.DROP);
  t.equal(seen.answers.length, 0);
  t.equal(world.counted('filter', 'FORWARD', 0), 1);
  t.equal(world.router.table.total(), 0);
});

t.test('the security table comes behind filter in INPUT, FORWARD and OUTPUT', async (t) => {
  const world = await World.create(
    '*security\n-A INPUT -p udp --dport 53 -j DROP\n-A FORWARD -p udp --dport 53 -j DROP\n-A OUTPUT -p udp --dport 53 -j DROP\nCOMMIT\n' +
      '*filter\n-A FORWARD -s 192.168.73.4 -j DROP\nCOMMIT\n',
  );
  const dropped = (seen: { verdict: Verdict }): boolean => seen.verdict === Verdict.DROP;
  t.ok(dropped(world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 53))));
  t.ok(dropped(world.arrives(IF1, udp(KNOCK, 5000, '192.168.73.9', 53))));
  t.ok(dropped(world.sends(IF0, udp(INSIDE, 5000, ORLOCK, 53))));
  for (const hook of ['INPUT', 'FORWARD', 'OUTPUT'] as const) t.equal(world.counted('security', hook, 1), 1, hook);
  t.ok(dropped(world.arrives(IF0, udp(ORLOCK, 5000, KNOCK, 53))));
  t.equal(world.counted('security', 'FORWARD', 0), 0, 'what filter dropped does not come here');
  t.notOk(dropped(world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 54))));
});

t.test('REJECT with tcp-reset: the reset acknowledges what it refuses and goes through OUTPUT', async (t) => {
  const world = await World.create(FIREWALL);
  const seen = world.arrives(IF1, tcp(KNOCK, 5000, OUTSIDE, 113, { ...syn, seq: 0x7fffffff }));
  t.equal(seen.verdict, Verdict.DROP);
  t.equal(seen.answers.length, 1);
  const bytes = seen.answers[0]!;
  const reset = read(bytes);
  t.equal(wrong(bytes, 0, bytes.length), '');
  t.equal(reset.tcpFlags, TcpFlag.RST | TcpFlag.ACK);
  t.equal(u32(bytes, reset.l4 + 8), 0x80000000 | 0, 'the SYN counts for one');
  t.equal(`${reset.sport}>${reset.dport}`, '113>5000');
  t.equal(world.counted('filter', 'OUTPUT', 0), 1);
  t.equal(
    world.arrives(IF1, tcp(KNOCK, 1, OUTSIDE, 113, { flags: TcpFlag.RST })).answers.length,
    0,
    'no reset for one',
  );
});

t.test(
  'REJECT with port unreachable: from the address asked, quoting the packet, limited like the kernel',
  async (t) => {
    const world = await World.create(FIREWALL);
    const seen = world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 137));
    const bytes = seen.answers[0]!;
    const error = read(bytes);
    t.equal(wrong(bytes, 0, bytes.length), '');
    t.same([error.icmpType, error.icmpCode, error.tos], [3, 3, 0xc0]);
    const quoted = read(bytes.slice(28));
    t.same([quoted.sport, quoted.dport], [5000, 137]);
    for (let i = 0; i < 5; i++) t.equal(world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 137)).answers.length, 1);
    t.equal(world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 137)).answers.length, 0, 'six saved up, the seventh waits');
    world.router.now += 999;
    t.equal(world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 137)).answers.length, 0);
    world.router.now += 1;
    t.equal(world.arrives(IF1, udp(KNOCK, 5000, OUTSIDE, 137)).answers.length, 1);
  },
);

t.test('an ICMP error about a translated packet finds its way to the one who sent that', async (t) => {
  const world = await World.create(FIREWALL);
  const sent = world.arrives(IF0, udp(ORLOCK, 777, KNOCK, 9));
  const error: PacketFields = {
    protocol: Proto.ICMP,
    src: KNOCK,
    dst: OUTSIDE,
    type: 3,
    code: 3,
    payload: sent.packet!,
  };
  const seen = world.arrives(IF1, error);
  t.equal(seen.dst, ORLOCK);
  const quoted = read(seen.packet!.slice(28));
  t.equal(text(quoted.src), ORLOCK, 'the quote is translated');
  t.equal(quoted.sport, 777);
  t.equal(wrong(seen.packet!, 0, seen.packet!.length), '');
});

t.test('a first packet that can go no further is answered for its connection, which then is forgotten', async (t) => {
  const world = await World.create(FIREWALL);
  const errors: [PacketFields, number, number][] = [
    [tcp(ORLOCK, 40000, KNOCK, 80, { ...syn, ttl: 1 }), 11, 0],
    [tcp(ORLOCK, 40000, '9.9.9.9', 80, syn), 3, 0],
    [{ ...udp(ORLOCK, 1, KNOCK, 9), payload: new Uint8Array(1500) }, 3, 4],
  ];
  for (const [fields, type, code] of errors) {
    const seen = world.arrives(IF0, fields);
    t.equal(seen.verdict, Verdict.DROP);
    t.equal(seen.answers.length, 1);
    const error = read(seen.answers[0]!);
    t.same([error.icmpType, error.icmpCode, text(error.src), text(error.dst)], [type, code, INSIDE, ORLOCK]);
    t.equal(wrong(seen.answers[0]!, 0, seen.answers[0]!.length), '');
  }
  t.equal(world.counted('filter', 'FORWARD', 1), 0);
  t.equal(world.router.table.total(), 0, 'no flow was confirmed');
});

t.test('without connections the kernel answers, and gets the packet as it came', async (t) => {
  const world = await World.create('*filter\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n');
  const last = world.arrives(IF0, { ...udp(ORLOCK, 1, KNOCK, 9), ttl: 1 });
  t.equal(last.verdict, Verdict.ACCEPT);
  t.same([last.src, last.fields.ttl, last.answers.length], [ORLOCK, 1, 0]);
  t.equal(world.counted('filter', 'FORWARD', 1), 0);
});

t.test('what comes later on a connection is answered, too: what an error quotes can be the ends of two', async (t) => {
  const world = await World.create(FIREWALL);
  world.arrives(IF0, udp(ORLOCK, 1, KNOCK, 9));
  const last = world.arrives(IF0, { ...udp(ORLOCK, 1, KNOCK, 9), ttl: 1 });
  t.equal(last.verdict, Verdict.DROP);
  t.equal(last.answers.length, 1);
  const error = read(last.answers[0]!);
  t.same([error.icmpType, error.icmpCode, text(error.src), text(error.dst)], [11, 0, INSIDE, ORLOCK]);
});

t.test('sources that no neighbour can have', async (t) => {
  const world = await World.create(FIREWALL);
  for (const own of [INSIDE, OUTSIDE]) {
    const seen = world.arrives(IF1, udp(own, 1, KNOCK, 9));
    t.equal(seen.verdict, Verdict.DROP);
    t.equal(seen.reason, 'martian-source');
  }
});

t.test("the router's own multicast comes back as a copy, a forgery does not pass", async (t) => {
  const world = await World.create(FIREWALL);
  const hello = udp(OUTSIDE, 5353, '224.0.0.251', 5353);
  t.equal(world.arrives(IF1, hello).reason, 'martian-source', 'nothing like it was sent');
  t.equal(world.sends(IF1, hello).verdict, Verdict.ACCEPT);
  t.not(world.arrives(IF1, hello).reason, 'martian-source');
});

t.test('a packet on lo keeps in PREROUTING what it got in OUTPUT', async (t) => {
  const world = await World.create(`*nat
:OUTPUT ACCEPT
-A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 8080
-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1
COMMIT
*filter
:INPUT DROP
-A INPUT -i lo -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
COMMIT
`);
  const out = world.sends(IF1, tcp(OUTSIDE, 5000, KNOCK, 80, syn));
  t.equal(`${out.dst}:${out.dport}`, '127.0.0.1:8080');
  const inward = world.arrives(1, tcp(OUTSIDE, 5000, '127.0.0.1', 8080, syn));
  t.equal(inward.verdict, Verdict.ACCEPT);
  t.equal(world.counted('nat', 'PREROUTING', 1), 0, 'the nat table is not asked again');
  const reply = world.sends(1, tcp('127.0.0.1', 8080, OUTSIDE, 5000, { flags: TcpFlag.SYN | TcpFlag.ACK, ack: 1 }));
  t.equal(`${reply.src}:${reply.sport}`, `${KNOCK}:80`);
  t.equal(world.arrives(1, tcp(KNOCK, 80, OUTSIDE, 5000, { flags: TcpFlag.SYN | TcpFlag.ACK, ack: 1 })).verdict, 1);
  const { table } = world.router;
  t.equal(table.packets(table.next(-1), 0), 1, 'counted once each way');
});

t.test('checksums the kernel left to the card are finished when the packet changes', async (t) => {
  const world = await World.create(FIREWALL);
  const partial = { flags: InFlag.CSUM_PARTIAL };
  const seen = world.arrives(IF0, udp(ORLOCK, 777, KNOCK, 9), partial);
  t.equal(wrong(seen.packet!, 0, seen.packet!.length), '');
  const gso = world.arrives(IF0, udp(ORLOCK, 777, KNOCK, 9), { flags: InFlag.CSUM_PARTIAL | InFlag.GSO });
  t.not(wrong(gso.packet!, 0, gso.packet!.length), '', 'of one to be cut up, the pseudo-header only');
  const { src, dst, end, l4 } = gso.fields;
  t.equal(u16(gso.packet!, 26), pseudoSum(src, dst, Proto.UDP, end - l4));
});

t.test('malformed and cut packets', async (t) => {
  const world = await World.create(FIREWALL);
  const short = world.router.run(new Uint8Array(12), { hook: 0, indev: IF0 });
  t.equal(short.verdict, Verdict.DROP);
  t.equal(short.reason, 'malformed');
  const cut = world.arrives(IF0, udp(ORLOCK, 777, KNOCK, 9), { flags: InFlag.CUT });
  t.equal(cut.verdict, Verdict.DROP, 'it would have to be rewritten');
  t.equal(cut.reason, 'cut');
});

t.test('a swap keeps counters, limits and connections of what did not change', async (t) => {
  const world = await World.create(FIREWALL);
  world.arrives(IF0, tcp(ORLOCK, 40000, KNOCK, 80, syn));
  await world.restore('*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n');
  const back = world.arrives(IF1, tcp(KNOCK, 80, OUTSIDE, 40000, { flags: TcpFlag.SYN | TcpFlag.ACK, ack: 1 }));
  t.equal(back.verdict, Verdict.ACCEPT);
  t.equal(back.mark, 7);
  t.equal(world.counted('filter', 'FORWARD', 1), 1);
});

t.test('TOS is changed on the way out, LOG records what passes', async (t) => {
  const world = await World.create(FIREWALL);
  const mail = world.arrives(IF0, tcp(ORLOCK, 40000, KNOCK, 25, syn));
  t.equal(u8(mail.packet!, 1), 2);
  await world.restore('*filter\n-A FORWARD -p icmp -j LOG --log-prefix "ping: "\n-A FORWARD -p icmp -j DROP\nCOMMIT\n');
  const ping = world.arrives(IF0, { protocol: Proto.ICMP, src: ORLOCK, dst: KNOCK });
  t.equal(ping.logs.length, 1);
  t.match(Buffer.from(ping.logs[0]!).toString('latin1'), 'ping: ');
});

t.test('a TTL that a rule sets on the way is the one that leaves', async (t) => {
  const world = await World.create('*mangle\n-A FORWARD -p udp -j TTL --ttl-set 9\nCOMMIT\n');
  const seen = world.arrives(IF0, udp(ORLOCK, 777, KNOCK, 9));
  t.equal(seen.fields.ttl, 10, 'the kernel takes one off');
  t.equal(wrong(seen.packet!, 0, seen.packet!.length), '');
});
