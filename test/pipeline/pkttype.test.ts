/** What the diversion's marks say of a packet, and that they are gone behind it; real frames are in test/net/pkttype.test.ts. */
import t from 'tap';
import { LinkMark, PrivateMark } from '../../src/dataplane/names.js';
import { IF0, INSIDE, ORLOCK, World, type PacketFields } from './world.js';

const RULES = `*mangle
-A PREROUTING -m pkttype --pkt-type unicast
-A PREROUTING -m pkttype --pkt-type broadcast
-A PREROUTING -m pkttype --pkt-type multicast
-A PREROUTING -m mark --mark 0x5/0x7fffffff
-A PREROUTING -m mark --mark 0x40000005/0x7fffffff
COMMIT
`;
const UDP: PacketFields = { src: ORLOCK, dst: INSIDE, protocol: 17, sport: 1000, dport: 9 };
const LO = 1;

t.test('types by mark', async (t) => {
  for (const [mark, counts, left] of [
    [5, [1, 0, 0, 1, 0], 5],
    [0x4000_0005, [1, 0, 0, 0, 1], 0x4000_0005],
    [LinkMark.BROADCAST | 5, [0, 1, 0, 1, 0], 5],
    [LinkMark.MULTICAST | 5, [0, 0, 1, 1, 0], 5],
  ] as const) {
    const w = await World.create(RULES);
    const { mark: after } = w.arrives(IF0, UDP, { mark });
    t.same(
      [1, 2, 3, 4, 5].map((rule) => w.counted('mangle', 'PREROUTING', rule)),
      counts,
      `0x${(mark >>> 0).toString(16)}`,
    );
    t.equal(after, left);
  }
});

t.test('an answer of the router to itself has its mark still when it comes by lo', async (t) => {
  const w = await World.create(RULES);
  w.arrives(LO, { ...UDP, src: INSIDE }, { mark: PrivateMark.INJECTED | 0x4000_0005 });
  t.same(
    [1, 2, 3, 4, 5].map((rule) => w.counted('mangle', 'PREROUTING', rule)),
    [1, 0, 0, 0, 1],
  );
});
