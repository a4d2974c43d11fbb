import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Link } from '../../src/dataplane/interfaces.js';
import {
  ANY_PACKET,
  DEFAULT_RULES,
  Fib,
  FibReader,
  type PolicyRule,
  type Route,
  RouteError,
  RouteProtocol,
  type RouteSpec,
  RuleAction,
  TableId,
} from '../../src/dataplane/route/fib.js';
import { Batch, FULL_SLOT, Meta, META_WORDS } from '../../src/dataplane/io/batch.js';
import { Answer, Question, RouteType } from '../../src/dataplane/route/routes.js';
import { prefixOf } from '../../src/dataplane/route/table.js';
import { ip, text } from '../nat/packets.js';

const link = (index: number, name: string, addresses: string[], flags = 1): Link => ({
  index,
  name,
  mtu: 1500,
  flags,
  mac: new Uint8Array(6),
  addresses: addresses.map((own) => {
    const [address = '', length] = own.split('/');
    const local = ip(address);
    const scope = name === 'lo' ? 254 : 0;
    return { local, address: local, prefixLength: Number(length), scope, secondary: false };
  }),
});
const LO = link(1, 'lo', ['127.0.0.1/8'], 9);
const LINKS = [
  LO,
  link(2, 'if0', ['192.168.73.1/24', '10.9.0.1/16']),
  link(3, 'if1', ['128.61.70.47/24']),
  link(4, 'if2', []),
];

const route = (prefix: string, more: Partial<Route> = {}): RouteSpec => {
  const [address = '', length = '32'] = prefix === 'default' ? ['0.0.0.0', '0'] : prefix.split('/');
  return { dst: ip(address), prefixLength: Number(length), ...more };
};
const rule = (priority: number, more: Partial<PolicyRule>): PolicyRule => ({ ...ANY_PACKET, priority, ...more });

interface Flow {
  dst: number;
  src?: number;
  iif?: number;
  oif?: number;
  mark?: number;
  tos?: number;
  protocol?: number;
  sport?: number;
  dport?: number;
}
interface Reply {
  errno: number;
  type: number;
  oif: number;
  gateway: string;
  source: string;
  mtu: number;
}
const question = new Int32Array(Question.WORDS);
const answer = new Int32Array(Answer.WORDS);
function ask(fib: Fib, flow: Flow): Reply {
  question.fill(0);
  question[Question.DST] = flow.dst;
  question[Question.SRC] = flow.src ?? 0;
  question[Question.IIF] = flow.iif ?? 0;
  question[Question.OIF] = flow.oif ?? 0;
  question[Question.MARK] = flow.mark ?? 0;
  question[Question.TOS] = flow.tos ?? 0;
  question[Question.PROTOCOL] = flow.protocol ?? 0;
  question[Question.SPORT] = flow.sport ?? 0;
  question[Question.DPORT] = flow.dport ?? 0;
  fib.ask(question, answer);
  return {
    errno: answer[Answer.ERRNO]!,
    type: answer[Answer.TYPE]!,
    oif: answer[Answer.OIF]!,
    gateway: text(answer[Answer.GATEWAY]!),
    source: text(answer[Answer.PREFSRC]!),
    mtu: answer[Answer.MTU]!,
  };
}
const brief = (fib: Fib, dst: string, more: Partial<Flow> = {}): string => {
  const { errno, type, oif, gateway, source } = ask(fib, { dst: ip(dst), ...more });
  return errno !== 0 ? `errno ${errno}` : `${type} dev ${oif} via ${gateway} src ${source}`;
};

function fails(t: Test, work: () => unknown, errno: number, detail?: string): void {
  try {
    work();
    t.fail(`not refused: ${detail ?? errno}`);
  } catch (error) {
    if (!(error instanceof RouteError)) throw error;
    t.same([error.errno, detail ?? error.detail], [errno, error.detail]);
  }
}

const create = (): Fib => {
  const fib = new Fib({ routes: 1000 });
  fib.setLinks(LINKS);
  return fib;
};

t.test('what addresses bring along', (t) => {
  const fib = create();
  t.equal(brief(fib, '192.168.73.9'), '1 dev 2 via 0.0.0.0 src 192.168.73.1');
  t.equal(brief(fib, '10.9.3.3'), '1 dev 2 via 0.0.0.0 src 10.9.0.1');
  t.equal(brief(fib, '192.168.73.1'), '2 dev 1 via 0.0.0.0 src 192.168.73.1', 'own: by the loopback interface');
  t.equal(brief(fib, '192.168.73.255'), '3 dev 2 via 0.0.0.0 src 192.168.73.1');
  t.equal(brief(fib, '192.168.73.255', { iif: 3, src: ip('1.1.1.1') }), '3 dev 1 via 0.0.0.0 src 192.168.73.1');
  t.equal(brief(fib, '127.1.2.3'), '2 dev 1 via 0.0.0.0 src 127.0.0.1');
  t.equal(brief(fib, '8.8.8.8'), 'errno 101');
  t.equal(brief(fib, '127.0.0.1', { iif: 2, src: ip('192.168.73.4') }), 'errno 22', 'martian');
  fib.setLinks([LO, link(2, 'if0', ['192.168.73.1/24'], 0), LINKS[2]!]);
  t.equal(brief(fib, '192.168.73.9'), 'errno 101', 'a link that is down leads nowhere');
  t.equal(brief(fib, '192.168.73.1'), '2 dev 1 via 0.0.0.0 src 192.168.73.1', 'but its address is still local');
  t.equal(brief(fib, '10.9.0.1'), 'errno 101', 'an address that went');
  fib.setLinks([LO]);
  t.equal([...fib.routes(TableId.MAIN)].length, 0);
  t.end();
});

t.test(
  'what an address brought along and somebody deleted comes back with the link, not with a change of another',
  (t) => {
    const fib = create();
    const [lo, if0, if1] = LINKS as [Link, Link, Link];
    const subnets = (): string[] =>
      [...fib.routes(TableId.MAIN)].map(({ dst, prefixLength }) => `${text(dst)}/${prefixLength}`);
    fib.remove({ dst: ip('192.168.73.0'), prefixLength: 24 });
    t.notOk(subnets().includes('192.168.73.0/24'));
    fib.setLinks([lo, if0]);
    t.notOk(subnets().includes('192.168.73.0/24'), 'if1 went');
    fib.setLinks([lo, { ...if0, flags: 0 }]);
    fib.setLinks([lo, if0, if1]);
    t.ok(subnets().includes('192.168.73.0/24'), 'if0 was down and is up');
    t.end();
  },
);

t.test('add, replace, change, append, remove, as the kernel refuses them', (t) => {
  const fib = create();
  const refused = (work: () => unknown, errno: number, detail = ''): void => {
    const before = [...fib.routes()];
    fails(t, work, errno, detail);
    t.same([...fib.routes()], before, 'nothing changed');
  };
  fib.add(route('default', { gateway: ip('128.61.70.1') }));
  t.equal(brief(fib, '8.8.8.8'), '1 dev 3 via 128.61.70.1 src 128.61.70.47');
  refused(() => fib.add(route('default', { gateway: ip('192.168.73.2') })), 17);
  fib.add(route('default', { gateway: ip('192.168.73.2'), metric: 10 }));
  t.equal(brief(fib, '8.8.8.8'), '1 dev 3 via 128.61.70.1 src 128.61.70.47', 'the lower metric first');
  fib.add(route('default', { gateway: ip('192.168.73.3') }), 'replace');
  t.equal(brief(fib, '8.8.8.8'), '1 dev 2 via 192.168.73.3 src 192.168.73.1');
  fib.add(route('default', { gateway: ip('192.168.73.4') }), 'append');
  t.equal(brief(fib, '8.8.8.8'), '1 dev 2 via 192.168.73.3 src 192.168.73.1');
  fib.add(route('default', { gateway: ip('192.168.73.5') }), 'prepend');
  t.equal(brief(fib, '8.8.8.8'), '1 dev 2 via 192.168.73.5 src 192.168.73.1');
  refused(() => fib.add(route('default', { gateway: ip('192.168.73.4') }), 'append'), 17);
  refused(() => fib.add(route('1.0.0.0/8', { oif: 2 }), 'change'), 2);
  refused(() => fib.remove(route('1.0.0.0/8')), 3);
  refused(() => fib.remove(route('default', { gateway: ip('1.1.1.1') })), 3);
  fib.remove(route('default', { gateway: ip('192.168.73.5') }));
  fib.remove(route('default', { metric: 10 }));
  t.equal(brief(fib, '8.8.8.8'), '1 dev 2 via 192.168.73.3 src 192.168.73.1');

  refused(() => fib.add(route('1.0.0.0/8', { gateway: ip('9.9.9.9') })), 22, 'Nexthop has invalid gateway');
  refused(
    () => fib.add(route('1.0.0.0/8', { gateway: ip('192.168.73.2'), oif: 3 })),
    22,
    'Nexthop has invalid gateway',
  );
  refused(() => fib.add(route('1.0.0.0/8')), 19);
  refused(() => fib.add(route('1.0.0.0/8', { oif: 77 })), 19);
  refused(() => fib.add(route('1.0.0.1/8', { oif: 2 })), 22, 'Invalid prefix for given prefix length');
  refused(() => fib.add(route('1.0.0.0/8', { oif: 2, source: ip('9.9.9.9') })), 22, 'Invalid prefsrc address');
  const nowhere = 'Gateway, device and multipath can not be specified for this route type';
  refused(() => fib.add(route('1.0.0.0/8', { oif: 2, type: RouteType.BLACKHOLE })), 22, nowhere);
  fib.add(route('1.0.0.0/8', { oif: 2, source: ip('128.61.70.47'), mtu: 1280 }));
  t.same(ask(fib, { dst: ip('1.2.3.4') }).mtu, 1280);
  t.equal(brief(fib, '1.2.3.4'), '1 dev 2 via 0.0.0.0 src 128.61.70.47');
  fib.add(route('2.0.0.0/8', { oif: 4, gateway: ip('7.7.7.7'), onlink: true }));
  t.equal(brief(fib, '2.2.2.2'), '1 dev 4 via 7.7.7.7 src 192.168.73.1', 'an interface without addresses borrows one');
  fib.setLinks(LINKS.slice(0, 2));
  t.equal(brief(fib, '1.2.3.4'), '1 dev 2 via 192.168.73.3 src 192.168.73.1', 'its preferred source went');
  t.end();
});

t.test('types, TOS and bound questions fall back to shorter prefixes, or do not', (t) => {
  const fib = create();
  fib.add(route('default', { gateway: ip('128.61.70.1') }));
  fib.add(route('20.0.0.0/8', { gateway: ip('192.168.73.8') }));
  fib.add(route('20.1.0.0/16', { gateway: ip('192.168.73.9'), tos: 0x10 }));
  fib.add(route('20.2.0.0/16', { type: RouteType.BLACKHOLE }));
  fib.add(route('20.3.0.0/16', { type: RouteType.UNREACHABLE }));
  fib.add(route('20.4.0.0/16', { type: RouteType.PROHIBIT }));
  fib.add(route('20.5.0.0/16', { type: RouteType.THROW }));
  t.equal(brief(fib, '20.1.1.1'), '1 dev 2 via 192.168.73.8 src 192.168.73.1');
  t.equal(brief(fib, '20.1.1.1', { tos: 0x10 }), '1 dev 2 via 192.168.73.9 src 192.168.73.1');
  t.equal(
    brief(fib, '20.1.1.1', { tos: 0xf3 }),
    '1 dev 2 via 192.168.73.9 src 192.168.73.1',
    'precedence and ECN aside',
  );
  t.equal(brief(fib, '20.2.1.1'), 'errno 22');
  t.equal(brief(fib, '20.3.1.1'), 'errno 113');
  t.equal(brief(fib, '20.4.1.1'), 'errno 13');
  t.equal(brief(fib, '20.5.1.1'), 'errno 101', 'not the default route: the table is left');
  t.equal(brief(fib, '20.1.1.1', { oif: 3 }), '1 dev 3 via 128.61.70.1 src 128.61.70.47');
  t.equal(brief(fib, '20.1.1.1', { oif: 4 }), '1 dev 4 via 0.0.0.0 src 192.168.73.1', 'bound where no route leads');
  t.end();
});

t.test('rules', (t) => {
  const fib = create();
  fib.add(route('default', { gateway: ip('128.61.70.1') }));
  fib.add(route('default', { gateway: ip('192.168.73.2'), table: 100 }));
  fib.add(route('30.0.0.0/8', { type: RouteType.THROW, table: 100 }));
  fib.addRule(rule(10, { table: 100, src: ip('10.9.0.0'), srcLength: 16 }));
  fib.addRule(rule(11, { table: 100, mark: 5, markMask: 0xff }));
  fib.addRule(rule(12, { table: 100, iif: 'if2' }));
  fib.addRule(rule(13, { action: RuleAction.PROHIBIT, protocol: 6, dport: [25, 25] }));
  fib.addRule(rule(14, { action: RuleAction.GOTO, goto: 20, tos: 0x08 }));
  fib.addRule(rule(15, { action: RuleAction.UNREACHABLE, dst: ip('40.0.0.0'), dstLength: 8 }));
  fib.addRule(rule(20, { action: RuleAction.BLACKHOLE, not: true, mark: 0, markMask: 0x100 }));
  t.ok(fib.byPorts);
  const main = '1 dev 3 via 128.61.70.1 src 128.61.70.47';
  const other = '1 dev 2 via 192.168.73.2 src 192.168.73.1';
  t.equal(brief(fib, '8.8.8.8'), main);
  t.equal(brief(fib, '8.8.8.8', { src: ip('10.9.1.1'), iif: 2 }), other);
  t.equal(brief(fib, '30.8.8.8', { src: ip('10.9.1.1'), iif: 2 }), main, 'thrown back to the rules');
  t.equal(brief(fib, '8.8.8.8', { mark: 0xf05 }), other);
  t.equal(brief(fib, '8.8.8.8', { iif: 4, src: ip('1.1.1.1') }), other);
  t.equal(brief(fib, '8.8.8.8', { protocol: 6, dport: 25 }), 'errno 13');
  t.equal(brief(fib, '8.8.8.8', { protocol: 6, dport: 26 }), main);
  t.equal(brief(fib, '40.8.8.8'), 'errno 101');
  t.equal(brief(fib, '40.8.8.8', { tos: 8 }), main, 'past it');
  t.equal(brief(fib, '8.8.8.8', { mark: 0x100 }), 'errno 22');
  t.equal(brief(fib, '192.168.73.1', { mark: 0x100 }), '2 dev 1 via 0.0.0.0 src 192.168.73.1', 'local comes first');
  fails(t, () => fib.addRule(rule(10, { table: 100, src: ip('10.9.0.0'), srcLength: 16 })), 17);
  fails(t, () => fib.addRule(rule(10, { action: RuleAction.GOTO, goto: 9 })), 22);
  fib.removeRule(({ priority }) => priority === 10);
  t.equal(brief(fib, '8.8.8.8', { src: ip('10.9.1.1'), iif: 2 }), main);
  fails(t, () => fib.removeRule(({ priority }) => priority === 10), 2);
  fib.setRules([]);
  t.equal(brief(fib, '192.168.73.1'), 'errno 101', 'no rule, no table');
  t.end();
});

/** fib_lookup() over lists, without a table's or a reader's code. */
function slowly(fib: Fib, links: readonly Link[], flow: Required<Flow>): string {
  const nameOf = (index: number): string => links.find((l) => l.index === index)?.name ?? '';
  const tos = flow.tos & 0x1c;
  const inside = (address: number, net: number, length: number): boolean =>
    prefixOf(address, length) === prefixOf(net, length);
  for (let i = 0; i < fib.rules.length; i++) {
    const r = fib.rules[i]!;
    const meets =
      (r.iif === '' || r.iif === nameOf(flow.iif === 0 ? 1 : flow.iif)) &&
      (r.oif === '' || r.oif === nameOf(flow.oif)) &&
      ((flow.mark ^ r.mark) & r.markMask) === 0 &&
      inside(flow.src, r.src, r.srcLength) &&
      inside(flow.dst, r.dst, r.dstLength) &&
      (r.tos === 0 || r.tos === tos) &&
      (r.protocol === 0 || r.protocol === flow.protocol);
    if (meets === r.not) continue;
    if (r.action === RuleAction.PROHIBIT) return 'errno 13';
    if (r.action === RuleAction.UNREACHABLE) return 'errno 101';
    if (r.action === RuleAction.BLACKHOLE) return 'errno 22';
    const candidates = [...fib.routes(r.table)]
      .filter((way) => inside(flow.dst, way.dst, way.prefixLength) && (way.tos === 0 || way.tos === tos))
      .sort((a, b) => b.prefixLength - a.prefixLength || b.tos - a.tos || a.metric - b.metric);
    for (const way of candidates) {
      if (way.type === RouteType.THROW) break;
      const errno = { [RouteType.BLACKHOLE]: 22, [RouteType.UNREACHABLE]: 113, [RouteType.PROHIBIT]: 13 }[
        way.type as number
      ];
      if (errno !== undefined) return `errno ${errno}`;
      if (flow.oif !== 0 && flow.oif !== way.oif) continue;
      return `dev ${way.type === RouteType.LOCAL ? 1 : way.oif} via ${text(way.gateway)}`;
    }
  }
  return 'errno 101';
}

const types = [RouteType.UNICAST, RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT, RouteType.THROW];
const near = fc
  .tuple(fc.constantFrom(20, 21, 128), fc.nat(3), fc.nat(3), fc.nat(255))
  .map(([a, b, c, d]) => (a << 24) | (b << 16) | (c << 8) | d);
const anyRoute = fc.record({
  dst: near,
  prefixLength: fc.oneof(fc.nat(32), fc.constantFrom(0, 8, 16, 24, 32)),
  type: fc.oneof(
    { weight: 4, arbitrary: fc.constant(RouteType.UNICAST) },
    { weight: 1, arbitrary: fc.constantFrom(...types) },
  ),
  oif: fc.constantFrom(2, 3),
  tos: fc.constantFrom(0, 0, 0x08, 0x10),
  metric: fc.nat(2),
  table: fc.constantFrom(TableId.MAIN as number, TableId.MAIN as number, 100, 101),
});
const anyRule = fc.record({
  priority: fc.integer({ min: 1, max: 30_000 }),
  table: fc.constantFrom(TableId.MAIN as number, 100, 101),
  action: fc.oneof(
    { weight: 6, arbitrary: fc.constant(RuleAction.TABLE) },
    { weight: 1, arbitrary: fc.constantFrom(RuleAction.PROHIBIT, RuleAction.UNREACHABLE, RuleAction.BLACKHOLE) },
  ),
  not: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  srcLength: fc.constantFrom(0, 0, 8, 32),
  src: near,
  dstLength: fc.constantFrom(0, 0, 9, 24),
  dst: near,
  iif: fc.constantFrom('', '', 'if0', 'lo'),
  oif: fc.constantFrom('', '', 'if1'),
  mark: fc.nat(3),
  markMask: fc.constantFrom(0, 0, 1, 3),
  tos: fc.constantFrom(0, 0, 0x10),
});
const anyFlow = fc.record({
  dst: near,
  src: fc.oneof(fc.constant(0), near),
  iif: fc.constantFrom(0, 2, 3),
  oif: fc.constantFrom(0, 0, 2, 3),
  mark: fc.nat(3),
  tos: fc.constantFrom(0, 0x08, 0x10, 0xb0),
});

function fill(
  fib: Fib,
  routes: readonly (RouteSpec & { type: RouteType; oif: number })[],
  rules: readonly (Partial<PolicyRule> & { priority: number })[],
): Route[] {
  const added: Route[] = [];
  for (const spec of routes) {
    const nowhere = spec.type === RouteType.UNICAST ? {} : { oif: 0 };
    try {
      added.push(fib.add({ ...spec, ...nowhere, dst: prefixOf(spec.dst, spec.prefixLength) }));
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
    }
  }
  fib.setRules([
    ...DEFAULT_RULES,
    ...rules.map((r) =>
      rule(r.priority, { ...r, src: prefixOf(r.src!, r.srcLength!), dst: prefixOf(r.dst!, r.dstLength!) }),
    ),
  ]);
  return added;
}

t.test('random routes, rules and packets: as lists have it', (t) => {
  const property = fc.property(
    fc.array(anyRoute, { maxLength: 40 }),
    fc.array(anyRule, { maxLength: 6 }),
    fc.array(anyFlow, { maxLength: 30 }),
    fc.array(fc.nat(40)),
    (routes, rules, flows, removed) => {
      const fib = create();
      const added = fill(fib, routes, rules);
      for (const i of removed) {
        const one = added.splice(i, 1)[0];
        if (one !== undefined) fib.remove(one);
        fib.release();
      }
      for (const flow of flows) {
        // No neighbour has the address 0.
        if (flow.iif !== 0 && flow.src === 0) continue;
        const full = { protocol: 0, sport: 0, dport: 0, ...flow, oif: flow.iif !== 0 ? 0 : flow.oif };
        const { errno, oif, gateway } = ask(fib, full);
        const expected = slowly(fib, LINKS, full);
        // Bound to an interface, what has no route goes straight out.
        if (full.oif !== 0 && expected.startsWith('errno')) assert.equal(oif, full.oif);
        else assert.equal(errno !== 0 ? `errno ${errno}` : `dev ${oif} via ${gateway}`, expected, JSON.stringify(full));
      }
    },
  );
  t.doesNotThrow(() => fc.assert(property, { numRuns: 200 }));
  t.end();
});

/** The same routes, rules and questions in a namespace of its own, by iproute2; answers one a line. */
function kernel(commands: readonly string[], questions: readonly string[]): string[] {
  const script = `
set -e
ip link set lo up
ip link add if0 type veth peer name p0
ip link add if1 type veth peer name p1
for d in if0 p0 if1 p1; do echo 0 > /proc/sys/net/ipv4/conf/$d/rp_filter; ip link set $d up; done
echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv4/conf/if0/accept_local; echo 1 > /proc/sys/net/ipv4/conf/if1/accept_local
ip addr add 192.168.73.1/24 brd + dev if0; ip addr add 10.9.0.1/16 brd + dev if0; ip addr add 128.61.70.47/24 brd + dev if1
set +e
${commands.map((command) => `ip ${command} 2>/dev/null`).join('\n')}
${questions.map((q) => `echo "$(ip -o route get ${q} 2>&1 | head -1)"`).join('\n')}
`;
  const { stdout, stderr } = spawnSync('unshare', ['-n', 'bash', '-c', script], { encoding: 'utf8' });
  const lines = stdout.split('\n').slice(0, -1);
  if (lines.length !== questions.length)
    throw new Error(`${lines.length} answers to ${questions.length} questions: ${stderr}`);
  return lines;
}

const ERRORS: [RegExp, number][] = [
  [/Network is unreachable/, 101],
  [/No route to host/, 113],
  [/Permission denied/, 13],
  [/Invalid argument/, 22],
  [/Invalid cross-device link/, 18],
];
function told(line: string): string {
  const [, errno] = ERRORS.find(([words]) => words.test(line)) ?? [];
  if (errno !== undefined) return `errno ${errno}`;
  const dev = { lo: 1, if0: 2, if1: 3 }[/ dev (\S+)/.exec(line)?.[1] ?? ''] ?? line;
  const type = /^(local|broadcast|multicast) /.exec(line)?.[1] ?? 'unicast';
  return `${type} dev ${dev} via ${/ via (\S+)/.exec(line)?.[1] ?? '0.0.0.0'} src ${/ src (\S+)/.exec(line)?.[1] ?? ''}`;
}

t.test(
  'random routes, rules and packets: as the kernel answers to `ip route get`',
  { skip: process.getuid!() === 0 ? false : 'needs root' },
  (t) => {
    const names = ['', 'lo', 'if0', 'if1'];
    const kinds = {
      [RouteType.UNICAST]: '',
      [RouteType.BLACKHOLE]: 'blackhole',
      [RouteType.UNREACHABLE]: 'unreachable',
      [RouteType.PROHIBIT]: 'prohibit',
      [RouteType.THROW]: 'throw',
    } as Record<number, string>;
    const seed = Number(process.env['HUTTER_SEED'] ?? Date.now() % 1e9);
    t.comment(`HUTTER_SEED=${seed}`);
    const world = fc.tuple(
      fc.array(anyRoute, { minLength: 10, maxLength: 40 }),
      fc.array(anyRule, { maxLength: 4 }),
      fc.array(anyFlow, { minLength: 20, maxLength: 40 }),
    );
    let answers = 0;
    for (const [routes, rules, flows] of fc.sample(world, { numRuns: 6, seed })) {
      const fib = new Fib();
      fib.setLinks(LINKS.slice(0, 3));
      const commands: string[] = [];
      const tableName = (number: number): string => (number === (TableId.MAIN as number) ? 'main' : String(number));
      for (const { dst, prefixLength, type, oif, tos, metric, table } of routes) {
        const where = type === RouteType.UNICAST ? `dev ${names[oif]!}` : '';
        const dsfield = tos === 0 ? '' : `tos 0x${tos.toString(16)}`;
        commands.push(
          `route add ${kinds[type]!} ${text(prefixOf(dst, prefixLength))}/${prefixLength} ${where} ${dsfield} metric ${metric} table ${tableName(table)}`,
        );
      }
      fill(fib, routes, rules);
      for (const r of rules) {
        const action = {
          [RuleAction.TABLE]: `lookup ${tableName(r.table)}`,
          [RuleAction.PROHIBIT]: 'prohibit',
          [RuleAction.UNREACHABLE]: 'unreachable',
          [RuleAction.BLACKHOLE]: 'blackhole',
        } as Record<number, string>;
        const words = [
          r.not ? 'not' : '',
          `from ${text(prefixOf(r.src, r.srcLength))}/${r.srcLength} to ${text(prefixOf(r.dst, r.dstLength))}/${r.dstLength}`,
          r.iif === '' ? '' : `iif ${r.iif}`,
          r.oif === '' ? '' : `oif ${r.oif}`,
          r.markMask === 0 ? '' : `fwmark ${r.mark}/${r.markMask}`,
          r.tos === 0 ? '' : `tos 0x${r.tos.toString(16)}`,
          `pref ${r.priority}`,
          action[r.action]!,
        ];
        commands.push(`rule add ${words.join(' ')}`);
      }
      // Where iproute2 gives the kernel no mark to a mask of its own, the rule is another.
      const asked = flows.filter(({ iif, src }) => iif === 0 || src !== 0);
      const questions = asked.map(({ dst, src, iif, oif, mark, tos }) => {
        const from = iif === 0 ? '' : `from ${text(src)} iif ${names[iif]!}`;
        return `${text(dst)} ${from} ${iif === 0 && oif !== 0 ? `oif ${names[oif]!}` : ''} mark ${mark} tos 0x${tos.toString(16)}`;
      });
      const expected = kernel(commands, questions).map(told);
      asked.forEach((flow, i) => {
        const given = { ...flow, src: flow.iif === 0 ? 0 : flow.src, oif: flow.iif !== 0 ? 0 : flow.oif };
        const { errno, type, oif, gateway, source } = ask(fib, given);
        const kind = ['', 'unicast', 'local', 'broadcast', 'anycast', 'multicast'][type]!;
        const ours = errno !== 0 ? `errno ${errno}` : `${kind} dev ${oif} via ${gateway} src ${source}`;
        // Of a packet that came in the answer has no source.
        const same = flow.iif === 0 ? ours : ours.replace(/ src .*/, ' src ');
        answers++;
        t.equal(
          same,
          flow.iif === 0 ? expected[i] : expected[i]!.replace(/ src .*/, ' src '),
          `ip route get ${questions[i]!}`,
        );
      });
    }
    t.ok(answers > 50);
    t.end();
  },
);

t.test('who made a route, and the order in which they are listed', (t) => {
  const fib = create();
  for (const prefix of ['10.0.0.0/8', '10.0.0.0/16', '9.0.0.0/8', 'default', '200.0.0.0/8'])
    fib.add(route(prefix, { oif: 2, protocol: RouteProtocol.STATIC }));
  const made = [...fib.routes(TableId.MAIN)].filter(({ protocol }) => protocol === (RouteProtocol.STATIC as number));
  t.same(
    made.map(({ dst, prefixLength }) => `${text(dst)}/${prefixLength}`),
    ['0.0.0.0/0', '9.0.0.0/8', '10.0.0.0/16', '10.0.0.0/8', '200.0.0.0/8'],
  );
  t.end();
});

t.test('in a large table the destinations of a batch are looked up ahead', (t) => {
  const fib = new Fib({ routes: 1_000_000 });
  fib.setLinks(LINKS);
  const gateway = (i: number): number => ip('128.61.70.0') + 2 + (i % 40);
  fib.change(() => {
    for (let i = 0; i < 66_000; i++) fib.add({ dst: (20 << 24) + (i << 8), prefixLength: 24, gateway: gateway(i) });
    for (let i = 0; i < 500; i++)
      fib.add({ dst: (20 << 24) + (i << 8) + 7, prefixLength: 32, gateway: gateway(i + 1) });
    fib.add(route('default', { gateway: ip('192.168.73.254') }));
  });
  const reader = new FibReader(fib.shared, fib.memory, 3);
  const plain = new FibReader(fib.shared);
  const batch = new Batch(64, FULL_SLOT);
  const destinations = Array.from({ length: 64 }, (_, i) => {
    if (i % 8 === 0) return ip('9.9.9.9') + i;
    if (i % 8 === 1) return ip('192.168.73.1');
    return (20 << 24) + (i << 8) + (i % 2 === 0 ? 7 : 9);
  });
  const look = (): void => {
    destinations.forEach((dst, i) => {
      const at = i * FULL_SLOT + 64;
      batch.meta[i * META_WORDS + Meta.OFFSET] = at;
      new DataView(batch.bytes.buffer).setInt32(batch.bytes.byteOffset + at + 16, dst);
    });
    reader.lookAhead(batch.bytes, batch.meta, destinations.length);
  };
  const same = (what: string): void => {
    const other = new Int32Array(Answer.WORDS);
    for (let i = 0; i < destinations.length; i++)
      // Its own destination, and another that it was given meanwhile.
      for (const dst of [destinations[i]!, destinations[(i + 9) % 64]!]) {
        question.fill(0);
        question.set([dst, ip('1.2.3.4'), 2]);
        question[Question.PLACE] = -1;
        plain.ask(question, other);
        question[Question.PLACE] = i;
        reader.ask(question, answer);
        assert.deepEqual(answer, other, `${what}: ${text(dst)} at ${i}`);
      }
  };
  look();
  same('looked up');
  // It is used: an entry that is changed behind its back is not seen before the next batch.
  const dst = destinations[2]!;
  const via = (): string => {
    question.fill(0);
    question.set([dst, ip('1.2.3.4'), 2]);
    question[Question.PLACE] = 2;
    reader.ask(question, answer);
    return text(answer[Answer.GATEWAY]!);
  };
  const before = via();
  fib.remove({ dst, prefixLength: 32 });
  t.equal(via(), before, 'what was found stays until the batch ends');
  look();
  t.not(via(), before);
  same('after a change');
  fib.setRules([rule(0, { table: TableId.LOCAL }), rule(10, { table: 7 })]);
  look();
  t.equal(via(), '0.0.0.0', 'no rule names the table any more');
  same('other rules');
  t.end();
});
