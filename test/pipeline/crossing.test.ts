/**
 * Packets that cross twice, in memory: which do, what each hook sees and counts, and what is left of those that don't arrive.
 * test/net/uplinks.test.ts has the same between real interfaces.
 */
import t from 'tap';
import type { Link } from '../../src/dataplane/interfaces.js';
import { Proto, Verdict } from '../../src/dataplane/names.js';
import { RoutedBy } from '../../src/dataplane/program/late.js';
import { Answer, Question, type RouteSource } from '../../src/dataplane/route/routes.js';
import { Fib } from '../../src/dataplane/route/fib.js';
import { Stat } from '../../src/dataplane/shared.js';
import { setU16, u16 } from '../../src/dataplane/wire/bytes.js';
import { headerChecksum } from '../../src/dataplane/wire/checksum.js';
import { ip, packetBytes } from '../nat/packets.js';
import { IF0, IF1, KNOCK, LINKS, ORLOCK, OUTSIDE, World } from './world.js';

const IF2 = 4;
const SECOND = '198.51.100.1';
const UPLINKS: readonly Link[] = [
  ...LINKS,
  {
    ...LINKS[2]!,
    index: IF2,
    name: 'if2',
    addresses: [{ local: ip(SECOND), address: ip(SECOND), prefixLength: 24, scope: 0, secondary: false }],
  },
];

/** To knock by if2 where `chosen` says so of a question, else by if1. */
class TwoWays implements RouteSource {
  private readonly table = Fib.readerOf(UPLINKS);

  constructor(private readonly chosen: (question: Int32Array) => boolean) {}

  ask(question: Int32Array, answer: Int32Array): void {
    this.table.ask(question, answer);
    if (question[Question.DST] !== ip(KNOCK) || !this.chosen(question)) return;
    answer[Answer.OIF] = IF2;
    answer[Answer.GATEWAY] = ip('198.51.100.2');
    answer[Answer.PREFSRC] = ip(SECOND);
  }
}

const bySource = new TwoWays((question) => question[Question.SRC] === ip(ORLOCK));
const byMark = new TwoWays((question) => question[Question.MARK] === 1);

const BY_SOURCE = { links: UPLINKS, routes: bySource, routedBy: RoutedBy.RULES | RoutedBy.SOURCE };
const BY_MARK = { links: UPLINKS, routes: byMark, routedBy: RoutedBy.RULES, routedMarks: -1 };
const MASQUERADE = '*nat\n-A POSTROUTING -o if+ -j MASQUERADE\nCOMMIT\n';
const udp = (fields = {}): { protocol: Proto; src: string; dst: string; sport: number; dport: number } => ({
  protocol: Proto.UDP,
  src: ORLOCK,
  dst: KNOCK,
  sport: 1000,
  dport: 53,
  ...fields,
});
const crossings = (world: World): number => world.router.stats[Stat.CROSSED_AGAIN]!;

t.test('routed by source: the way and the source are those of the packet as it came', async (t) => {
  const world = await World.create(
    `*filter\n-A FORWARD -o if2 -m ttl --ttl-eq 63\n-A FORWARD -i if2 -m state --state ESTABLISHED\nCOMMIT\n${MASQUERADE}`,
    BY_SOURCE,
  );
  const first = world.arrives(IF0, udp());
  t.match(first, { twice: true, outdev: IF2, src: SECOND, dst: KNOCK, sport: 1000 });
  t.equal(first.fields.ttl, 63, 'the TTL that it leaves with');
  t.match(world.arrives(IF2, { ...udp(), src: KNOCK, dst: SECOND, sport: 53, dport: 1000 }), {
    twice: false,
    dst: ORLOCK,
  });
  t.match(world.arrives(IF0, udp()), { twice: true, outdev: IF2, src: SECOND });
  t.equal(world.counted('filter', 'FORWARD', 1), 2, 'each hook counts a packet once');
  t.equal(world.counted('filter', 'FORWARD', 2), 1);
  t.equal(world.router.stats[Stat.PACKETS], 3);
  t.equal(world.router.stats[Stat.ACCEPTED], 3);
  t.equal(crossings(world), 2);
  t.end();
});

t.test('a flow that goes the same way afterwards crosses once, but for its first packet', async (t) => {
  const same = { ...BY_SOURCE, routes: new TwoWays((question) => question[Question.SRC] !== 0) };
  const world = await World.create(MASQUERADE, same);
  t.match(world.arrives(IF0, udp()), { twice: true, src: SECOND });
  t.match(world.arrives(IF0, udp()), { twice: false, src: SECOND });
  // Without rules of the nat table there is nothing to wait for.
  const plain = await World.create('*filter\n-A FORWARD -m state --state NEW\nCOMMIT\n', same);
  t.match(plain.arrives(IF0, udp()), { twice: false, src: ORLOCK });
  t.end();
});

t.test('what is not translated, and what nobody chooses routes by, crosses once', async (t) => {
  const marks = '*mangle\n-A FORWARD -j MARK --set-mark 1\nCOMMIT\n';
  for (const [rules, options] of [
    [MASQUERADE, { links: UPLINKS, routes: bySource }],
    [marks, BY_SOURCE],
    ['*mangle\n-A FORWARD -j MARK --set-xmark 1/1\nCOMMIT\n', { ...BY_MARK, routedMarks: 2 }],
    ['*mangle\n-A POSTROUTING -j TOS --set-tos 0x10\nCOMMIT\n', BY_MARK],
    ['*mangle\n-N x\n-A x -j MARK --set-mark 1\n-A PREROUTING -j x\nCOMMIT\n', BY_MARK],
    ['*mangle\n-A FORWARD -j TTL --ttl-inc 100\n-A POSTROUTING -j TTL --ttl-dec 50\nCOMMIT\n', BY_MARK],
  ] as const) {
    const world = await World.create(rules, options);
    t.equal(world.arrives(IF0, udp()).twice, false, rules);
  }
  t.end();
});

t.test('a mark or TOS set late changes the packet, not its way', async (t) => {
  const late = await World.create(
    '*mangle\n-N x\n-A x -p udp --dport 53 -j MARK --set-mark 1\n-A POSTROUTING -j x\n-A POSTROUTING -m mark --mark 1\nCOMMIT\n',
    BY_MARK,
  );
  t.match(late.arrives(IF0, udp()), { twice: true, outdev: IF1, mark: 1 });
  t.equal(late.counted('mangle', 'POSTROUTING', 2), 1);
  const early = await World.create('*mangle\n-A PREROUTING -j MARK --set-mark 1\nCOMMIT\n' + MASQUERADE, BY_MARK);
  t.match(early.arrives(IF0, udp()), { twice: false, src: SECOND, mark: 1 });
  const tos = await World.create('*mangle\n-A FORWARD -j TOS --set-tos 0x10\nCOMMIT\n', {
    ...BY_MARK,
    routedBy: RoutedBy.TOS,
  });
  const seen = tos.arrives(IF0, udp());
  t.match(seen, { twice: true, outdev: IF1 });
  t.equal(seen.fields.tos, 0x10);
  t.end();
});

t.test("the router's own: mark and source after the last routing", async (t) => {
  const world = await World.create(
    `*raw
-A OUTPUT -p udp --dport 1 -j MARK --set-mark 1
COMMIT
*mangle
-A OUTPUT -p udp --dport 2 -j MARK --set-mark 1
COMMIT
*filter
-A OUTPUT -p udp --dport 3 -j MARK --set-mark 1
COMMIT
`,
    BY_MARK,
  );
  const own = udp({ src: OUTSIDE });
  t.match(world.sends(IF1, { ...own, dport: 1 }), { twice: true, outdev: IF1, mark: 1 });
  t.match(world.sends(IF1, { ...own, dport: 2 }), { twice: true, outdev: IF2, mark: 1 });
  t.match(world.sends(IF1, { ...own, dport: 3 }), { twice: true, outdev: IF1, mark: 1 });
  const snat = await World.create(`*nat\n-A POSTROUTING -d ${KNOCK} -j SNAT --to-source ${SECOND}\nCOMMIT\n`, {
    ...BY_SOURCE,
    routes: new TwoWays((question) => question[Question.SRC] === ip(SECOND)),
  });
  t.match(snat.sends(IF1, own), { twice: true, outdev: IF1, src: SECOND });
  t.match(snat.sends(IF1, own), { twice: true, outdev: IF1, src: SECOND });
  t.end();
});

t.test('TTL 0 and 255, where a rule could make it so', async (t) => {
  const world = await World.create(
    `*mangle
-N up
-A up -j TTL --ttl-inc 100
-A FORWARD -p udp --dport 1 -j TTL --ttl-set 250
-A POSTROUTING -p udp --dport 1 -j up
-A POSTROUTING -p udp --dport 2 -j TTL --ttl-dec 3
COMMIT
`,
  );
  const ttl = (dport: number, before: number): [boolean, number] => {
    const { twice, fields } = world.arrives(IF0, { ...udp({ dport }), ttl: before });
    return [twice, fields.ttl];
  };
  t.same(ttl(1, 64), [true, 255]);
  t.same(ttl(2, 4), [true, 0]);
  await world.restore('*mangle\n-A POSTROUTING -j TTL --ttl-dec 3\nCOMMIT\n');
  t.same(ttl(2, 4), [true, 0], 'three from three');
  t.same(ttl(2, 5), [false, 2], 'the kernel takes the last step');
  await world.restore('*mangle\n-A FORWARD -j TTL --ttl-inc 1\nCOMMIT\n');
  t.same(ttl(2, 254), [false, 255], 'likewise');
  t.same(ttl(2, 255), [true, 255]);
  t.end();
});

t.test('CLASSIFY: forwarded packets come a second time for it, own ones do not', async (t) => {
  const world = await World.create('*mangle\n-A POSTROUTING -p udp -j CLASSIFY --set-class 1:2a\nCOMMIT\n');
  t.match(world.arrives(IF0, udp()), { twice: true, priority: 0x1002a });
  t.match(world.sends(IF1, udp({ src: OUTSIDE })), { twice: false, priority: 0x1002a });
  t.equal(world.arrives(IF0, { ...udp(), protocol: Proto.TCP }).priority, undefined);
  t.end();
});

t.test('dropped or refused the second time: nothing is left of its connection', async (t) => {
  const world = await World.create(
    '*filter\n-A FORWARD -o if2 -p udp -j REJECT\n-A FORWARD -o if2 -p tcp -j DROP\nCOMMIT\n' + MASQUERADE,
    BY_SOURCE,
  );
  const refused = world.arrives(IF0, udp());
  t.equal(refused.verdict, Verdict.DROP);
  t.equal(refused.answers.length, 1);
  t.equal(u16(refused.answers[0]!, 28 + 6) & 0x8000, 0, "the quoted header's reserved bit is clear");
  t.equal(world.arrives(IF0, { ...udp(), protocol: Proto.TCP, flags: 2 }).verdict, Verdict.DROP);
  t.equal(world.router.table.total(), 0);
  t.end();
});

t.test('a packet that comes with the reserved bit set leaves with it, after one crossing more', async (t) => {
  const world = await World.create('*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n');
  const bytes = packetBytes({ protocol: Proto.UDP, src: ip(ORLOCK), dst: ip(KNOCK), sport: 1, dport: 2 });
  setU16(bytes, 6, 0x8000);
  setU16(bytes, 10, headerChecksum(bytes, 0, 20));
  const outcome = world.router.run(bytes, { indev: IF0 });
  t.equal(outcome.twice, true);
  t.equal(u16(outcome.packet!, 6), 0x8000);
  t.equal(u16(outcome.packet!, 10), headerChecksum(outcome.packet!, 0, 20));
  // What nobody knows when it comes from POSTROUTING is no packet of ours.
  t.match(world.router.run(bytes, { hook: 4, indev: IF0, outdev: IF1 }), {
    verdict: Verdict.DROP,
    reason: 'second-crossing',
  });
  t.end();
});

t.test('several next hops: the kernel alone knows where an error goes', async (t) => {
  const world = await World.create('*filter\n-A FORWARD -o if2\nCOMMIT\n', {
    links: UPLINKS,
    routes: byMark,
    routedBy: RoutedBy.HASH,
  });
  const error = { protocol: Proto.ICMP, src: ORLOCK, dst: KNOCK, type: 3, code: 3, payload: new Uint8Array(28) };
  t.equal(world.arrives(IF0, error).twice, true);
  t.equal(world.arrives(IF0, { ...error, type: 8 }).twice, false);
  t.end();
});
