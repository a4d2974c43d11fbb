/**
 * A short share of the judge (main.ts runs it long), and the judge judged: it must see a packet, a byte and a counter
 * that differ, and shrink to what makes them differ.
 */
import t from 'tap';
import { closeAllOnSignals } from '../../src/control/lab/netns.js';
import { Arena, FAULT } from './arena.js';
import { run, shrink } from './judge.js';
import { Coverage } from './coverage.js';
import { RETRIES, scenarioOf } from './main.js';
import { build, endsOf, fragment, TCP, UDP, withEnds, wrongness } from './packets.js';
import { covered, missing } from './rules.js';
import type { Scenario } from './scenario.js';

const SEED = Number(process.env['HUTTER_TEST_SEED'] ?? 48_020);
const RULESETS = 12;
const FLOWS = 30;
const SHARE_MS = 40_000;

t.test('packets keep what is wrong with them when their ends change', (t) => {
  const udp = { proto: UDP, sport: 1, dport: 2, payload: 'odd' } as const;
  const right = build({ src: '10.0.0.1', dst: '10.0.0.2', l4: udp });
  t.same(wrongness(right), { header: 0, transport: 0, none: false });
  const ends = { src: '172.16.0.9', dst: '10.0.0.2', sport: 65535, dport: 2 };
  t.same(wrongness(withEnds(right, ends)), { header: 0, transport: 0, none: false });
  t.same(endsOf(withEnds(right, ends)), ends);
  const wrong = build({ src: '10.0.0.1', dst: '10.0.0.2', l4: udp, odd: { checksum: 77, ipChecksum: 5 } });
  t.equal(wrongness(wrong).transport, 77);
  t.not(wrongness(wrong).header, 0);
  t.same(wrongness(withEnds(wrong, ends)), wrongness(wrong));
  const pieces = fragment(build({ src: '10.0.0.1', dst: '10.0.0.2', l4: { ...udp, payload: 'x'.repeat(40) } }), 24);
  t.same(
    pieces.map((piece) => piece.readUInt16BE(6)),
    [0x2000, 3],
  );
  t.end();
});

t.test('kernel and hutter', async (t) => {
  closeAllOnSignals();
  const arena = await Arena.open();
  t.teardown(() => arena.close());

  await t.test('the judge sees what differs', async (t) => {
    const syn = { proto: TCP, sport: 1000, dport: 80, seq: 1, ack: 0, flags: 2, window: 100 } as const;
    const event = (id: number, dport: number): Scenario['events'][number] => ({
      kind: 'packet',
      id,
      flow: id,
      way: 0,
      port: 0,
      packet: { src: '10.1.0.2', dst: '10.2.0.2', id: 1000 + id, l4: { ...syn, dport } },
    });
    const scenario: Scenario = {
      seed: 0,
      rules: '*filter\n-A FORWARD -p udp -j DROP\n-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n',
      events: [event(1, 80), event(2, 81), event(3, 82)],
    };
    const alike = await run(arena, scenario);
    t.same(alike, { packets: 3, collisions: 0, divergence: undefined }, 'nothing, where nothing does');
    // The kernel alone has one rule more.
    const fault = (table: string, rule: string): string =>
      `*${table}\n-I FORWARD 1 -p tcp -m comment --comment ${FAULT} -m tcp --dport ${rule}\nCOMMIT\n`;
    const faults: [string, RegExp][] = [
      [fault('filter', '81 -j DROP'), /event 2.*\n.*only hutter/],
      [fault('mangle', '82 -j TOS --set-tos 4'), /event 3.*byte 1:/],
      [fault('filter', '80 -j ACCEPT'), /counters: .*hutter 1:40/],
    ];
    for (const [rules, expected] of faults) {
      arena.onlyKernel = rules;
      const { divergence } = await run(arena, scenario);
      t.match(divergence?.what, expected);
      const least = await shrink(arena, scenario, () => undefined);
      t.equal(least.events.length, 1, 'one packet is left');
      t.ok((least.rules.match(/^-A/gm) ?? []).length <= 1, 'and a rule at most, in whose table policies are compared');
    }
    arena.onlyKernel = '';
  });

  t.same(missing(), [], `every record that has an evaluator is generated: ${covered().join(' ')}`);

  await t.test(`${RULESETS} rulesets from seed ${SEED}`, async (t) => {
    const end = Date.now() + SHARE_MS;
    let packets = 0;
    let rulesets = 0;
    const coverage = new Coverage();
    for (let seed = SEED; seed < SEED + RULESETS && Date.now() < end; seed++) {
      const scenario = scenarioOf(seed, FLOWS);
      const verdict = await run(arena, scenario);
      packets += verdict.packets;
      coverage.note(scenario, verdict.collisions);
      rulesets++;
      // A machine that is very busy can hold up frames; what differs differs again, each time.
      let again = verdict.divergence;
      for (let tries = 0; again && tries < RETRIES; tries++) again = (await run(arena, scenario)).divergence;
      t.equal(again?.what, undefined, `seed ${seed}: npm run test:kernel -- --seed ${seed} --flows ${FLOWS}`);
    }
    t.comment(`${packets} packets, ${rulesets} rulesets`);
    for (const line of coverage.lines()) t.comment(line);
    t.ok(packets > 100, 'packets were compared');
  });
});
