/**
 * A short share of the judge (main.ts runs it long), and the judge judged: it must see a packet, a byte and a counter
 * that differ, and shrink to what makes them differ.
 */
import t from 'tap';
import { closeAllOnSignals } from '../../src/control/lab/netns.js';
import { Arena, FAULT } from './arena.js';
import { CASES } from './cases.js';
import { run, shrink } from './judge.js';
import { Coverage } from './coverage.js';
import { RETRIES, scenarioOf } from './main.js';
import { build, endsOf, fragment, TCP, UDP, withEnds, wrongness } from './packets.js';
import { covered, missing } from './rules.js';
import type { Event, Scenario } from './scenario.js';
import { forSimulation, SimulatedArena, SimulatedRouter } from './simulated.js';

const SEED = Number(process.env['HUTTER_TEST_SEED'] ?? 48_020);
const RULESETS = 8;
const FLOWS = 30;
const SHARE_MS = 40_000;
/** Rulesets that a simulated hutter runs, too. */
const SIMULATED = 4;
const SIMULATED_SEED = 48_020;

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

/** A command that announces a port, on a connection with a helper. */
function ftpScenario(): Scenario {
  const segment = (id: number, way: 0 | 1, flags: number, seq: number, ack: number, payload = ''): Event => {
    const [src, dst, sport, dport] =
      way === 0 ? ['10.1.0.4', '10.2.0.2', 1030, 21] : ['10.2.0.2', '10.1.0.4', 21, 1030];
    const l4 = {
      proto: TCP,
      sport: sport as number,
      dport: dport as number,
      seq,
      ack,
      flags,
      window: 1000,
      payload,
    } as const;
    return {
      kind: 'packet',
      id,
      flow: 1,
      way,
      port: way * 2,
      packet: { src: src as string, dst: dst as string, id: 1000 + id, l4 },
    };
  };
  return {
    seed: 0,
    rules: '*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp\nCOMMIT\n',
    events: [
      segment(1, 0, 2, 1000, 0),
      segment(2, 1, 18, 5000, 1001),
      segment(3, 0, 16, 1001, 5001),
      segment(4, 0, 24, 1001, 5001, 'PORT 10,1,0,4,4,7\r\n'),
    ],
  };
}

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
      const least = await shrink(arena, scenario, divergence!.what, () => undefined);
      t.equal(least.events.length, 1, 'one packet is left');
      t.ok((least.rules.match(/^-A/gm) ?? []).length <= 1, 'and a rule at most, in whose table policies are compared');
    }
    arena.onlyKernel = '';
  });

  await t.test('connections that are flushed take their expectations along', async (t) => {
    const scenario = ftpScenario();
    for (let i = 0; i < 2; i++) t.same((await run(arena, scenario)).divergence, undefined);
  });

  await t.test('cases with a name', async (t) => {
    for (const scenario of CASES) {
      let { divergence } = await run(arena, scenario);
      for (let tries = 0; divergence && tries < RETRIES; tries++) ({ divergence } = await run(arena, scenario));
      t.equal(divergence?.what, undefined, `${scenario.name}: npm run test:kernel -- --case '${scenario.name}'`);
    }
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

  await t.test(`${SIMULATED} rulesets in this process, on a clock of its own`, async (t) => {
    const simulated = new SimulatedArena(arena);
    for (let seed = SIMULATED_SEED; seed < SIMULATED_SEED + SIMULATED; seed++) {
      const scenario = forSimulation(scenarioOf(seed, FLOWS));
      let again = (await run(simulated, scenario)).divergence;
      for (let tries = 0; again && tries < RETRIES; tries++) again = (await run(simulated, scenario)).divergence;
      t.equal(again?.what, undefined, `seed ${seed}`);
    }
  });
});

t.test('a simulated router does the same each time', async (t) => {
  for (let seed = SIMULATED_SEED; seed < SIMULATED_SEED + SIMULATED; seed++) {
    const { rules, events } = forSimulation(scenarioOf(seed, FLOWS));
    const told: string[] = [];
    for (let i = 0; i < 2; i++) {
      const router = await SimulatedRouter.load(rules);
      const out = events.flatMap((event) =>
        event.kind === 'packet' ? router.send({ port: event.port, bytes: build(event.packet) }) : [],
      );
      const frames = out.map(({ port, bytes }) => `${port} ${bytes.toString('hex')}`);
      told.push(JSON.stringify([frames, await router.counts()]));
    }
    t.equal(told[0], told[1], `seed ${seed}`);
  }
});
