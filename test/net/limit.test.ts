/**
 * The article's limited log rule in real time: a burst of five, then one every twenty seconds. Apart from the other
 * examples because it takes that long; both engines run at once.
 */
import t, { type Test } from 'tap';
import { ENGINES, type EngineName } from './engine.js';
import { tcpPacket } from './frame.js';
import { ROUTER_OUTSIDE, topology, until } from './netns.js';

const RULE =
  'iptables -A INPUT -p tcp --dport 25 -m limit --limit 3/minute -m state --state NEW -j LOG --log-prefix "new smtp connection: "';
const BURST = 5;
const CALLS = 8;
const SYN = 2;
/** An address on the wire that nobody has, so that nobody answers the router. */
const NOBODY = '128.61.70.99';
const MS_PER_LINE = 20_000;
/** The kernel counts in jiffies, the test in steps of its own. */
const EARLY_MS = 100;
/** A busy machine is late. */
const LATE_MS = 10_000;

async function limited(t: Test, engine: EngineName): Promise<void> {
  const { fw, knock } = await topology(t, engine);
  await fw.ok(RULE);
  t.equal(
    await fw.ok('iptables -S INPUT'),
    '-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 25 -m limit --limit 3/min -m state --state NEW -j LOG --log-prefix "new smtp connection: "\n',
  );
  await fw.ok('iptables -A INPUT -p tcp --dport 25 -j ACCEPT');
  // Bare SYNs: limit comes first in the rule, so every further packet of a connection would cost it a line, too.
  let sport = 1024;
  const call = (): Promise<void> =>
    knock.sendRaw({
      packet: tcpPacket({ src: NOBODY, dst: ROUTER_OUTSIDE, sport: ++sport, dport: 25, flags: SYN }),
      to: ROUTER_OUTSIDE,
    });
  // The rule behind it counts them all.
  const arrived = async (): Promise<boolean> => (await fw.counter('--dport 25 -j ACCEPT')).packets === sport - 1024;
  const logged = async (): Promise<number> => (await fw.counter('-j LOG')).packets;
  const began = performance.now();
  for (let i = 0; i < CALLS; i++) await call();
  await until('all calls arrive', arrived);
  t.equal(await logged(), BURST, `of ${CALLS} new connections the first ${BURST} are logged`);
  await until(
    'the next line',
    async () => {
      await call();
      return (await logged()) > BURST;
    },
    { timeoutMs: MS_PER_LINE + LATE_MS, everyMs: 200 },
  );
  const took = performance.now() - began;
  t.ok(took > MS_PER_LINE - EARLY_MS, `one more after ${(took / 1000).toFixed(1)} s`);
  await call();
  await until('the last call arrives', arrived);
  t.equal(await logged(), BURST + 1, 'and no more for now');
  if (engine === 'hutter') {
    const lines = (): string[] =>
      fw.said.match(/new smtp connection: IN=if1 OUT= .* PROTO=TCP .* DPT=25 .* SYN URGP=0/g) ?? [];
    // They come by way of the main thread.
    await until('the log lines', () => lines().length > BURST);
    t.equal(lines().length, BURST + 1, 'the log has as many lines');
  }
}

t.jobs = ENGINES.length;
for (const engine of ENGINES) void t.test(engine, { buffered: true }, (t) => limited(t, engine));
