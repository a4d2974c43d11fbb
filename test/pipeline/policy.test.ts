/**
 * What the diversion's marks say of packets by IPsec, at each hook, and that the marks are gone behind it. A forwarded packet's way
 * out is told by the second crossing. (The kernels that tests run on need not have ESP: test/net/policy.test.ts sees what
 * comes and goes without.)
 */
import t from 'tap';
import { LinkMark, PrivateMark } from '../../src/dataplane/names.js';
import { IF0, IF1, INSIDE, KNOCK, ORLOCK, OUTSIDE, World, type PacketFields } from './world.js';

const IN = ['PREROUTING', 'INPUT', 'FORWARD'];
const OUT = ['FORWARD', 'OUTPUT', 'POSTROUTING'];
const lines = (hooks: string[], way: string): string[] =>
  hooks.flatMap((hook) => ['ipsec', 'none'].map((kind) => `-A ${hook} -m policy --dir ${way} --pol ${kind}`));
const marked = ['PREROUTING', 'OUTPUT', 'POSTROUTING'].map((hook) => `-A ${hook} -m mark --mark 0x5`);
const RULES = ['*mangle', ...lines(IN, 'in'), ...lines(OUT, 'out'), ...marked, 'COMMIT', ''].join('\n');
const IPSEC = LinkMark.IPSEC | 5;
const UDP = { protocol: 17, sport: 1000, dport: 9 } as const;
const THROUGH: PacketFields = { src: ORLOCK, dst: KNOCK, ...UDP };

/** Rules of a hook that counted. */
const counts = (w: World, hook: string, rules: number): string =>
  Array.from({ length: rules }, (_, i) => w.counted('mangle', hook, i + 1)).join('');

t.test('it came by IPsec', async (t) => {
  for (const [mark, protectedOrNot] of [
    [IPSEC, '10'],
    [5, '01'],
  ] as const) {
    const w = await World.create(RULES);
    const { mark: after } = w.arrives(IF0, { src: ORLOCK, dst: INSIDE, ...UDP }, { mark });
    t.equal(counts(w, 'PREROUTING', 3), `${protectedOrNot}1`);
    t.equal(counts(w, 'INPUT', 2), protectedOrNot);
    t.equal(after, 5);
  }
});

t.test('forwarded packets cross twice, and keep how they came', async (t) => {
  for (const [mark, comes] of [
    [IPSEC, '10'],
    [5, '01'],
  ] as const)
    for (const [again, goes] of [
      [LinkMark.IPSEC, '10'],
      [0, '01'],
    ] as const) {
      const w = await World.create(RULES);
      w.router.linkMark = again;
      const outcome = w.arrives(IF0, THROUGH, { mark });
      t.ok(outcome.twice);
      t.equal(outcome.mark, 5);
      t.equal(counts(w, 'FORWARD', 4), comes + goes);
      t.equal(counts(w, 'POSTROUTING', 3), `${goes}1`);
    }
});

t.test("the router's own", async (t) => {
  for (const [mark, goes] of [
    [IPSEC, '10'],
    [5, '01'],
  ] as const) {
    const w = await World.create(RULES);
    const own: PacketFields = { src: OUTSIDE, dst: KNOCK, ...UDP };
    const { mark: after, twice } = w.sends(IF1, own, { mark });
    t.notOk(twice);
    t.equal(counts(w, 'OUTPUT', 3), `${goes}1`);
    t.equal(counts(w, 'POSTROUTING', 3), `${goes}1`);
    t.equal(after, 5);
  }
});

t.test('who asks for less crosses once; an answer of the router to itself has its mark still', async (t) => {
  const w = await World.create(['*mangle', ...lines(IN, 'in'), marked[0], 'COMMIT', ''].join('\n'));
  t.notOk(w.arrives(IF0, THROUGH, { mark: IPSEC }).twice);
  const own: PacketFields = { src: INSIDE, dst: INSIDE, ...UDP };
  w.arrives(1, own, { mark: PrivateMark.INJECTED | 0x6000_0005 });
  t.equal(counts(w, 'PREROUTING', 2), '11', 'what comes by lo came by no IPsec');
});
