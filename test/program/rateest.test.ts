/**
 * RATEEST and rateest: rates that are made up for when somebody asks, beside a twin that ends every interval at its time, as the
 * kernel's timer does, in integers of any length.
 */
import t from 'tap';
import { mendRegions } from '../../src/dataplane/program/mend.js';
import { Region, RegionKind } from '../../src/dataplane/program/regions.js';
import { packet, random, World } from './lab.js';

/** est_timer() of net/core/gen_estimator.c. */
class Timer {
  private last = { bytes: 0n, packets: 0n };
  private average = { bytes: 0n, packets: 0n };
  readonly counted = { bytes: 0n, packets: 0n };

  constructor(
    private readonly intervalLog: bigint,
    private readonly ewmaLog: bigint,
  ) {}

  tick(): void {
    for (const kind of ['bytes', 'packets'] as const) {
      const rate = (this.counted[kind] - this.last[kind]) << (10n - this.intervalLog);
      this.average[kind] += (rate >> this.ewmaLog) - (this.average[kind] >> this.ewmaLog);
      this.last[kind] = this.counted[kind];
    }
  }
  get rates(): { bps: bigint; pps: bigint } {
    return { bps: this.average.bytes >> 8n, pps: this.average.packets >> 8n };
  }
}

const MEASURE = (interval: string, average: string): string =>
  `-A OUTPUT -j RATEEST --rateest-name est --rateest-interval ${interval} --rateest-ewmalog ${average}`;
const EXACTLY = (kind: 'bps' | 'pps', rate: bigint): string =>
  kind === 'bps'
    ? `-A INPUT -m rateest --rateest est --rateest-eq --rateest-bps ${rate}bps -j ACCEPT`
    : `-A INPUT -m rateest --rateest est --rateest-eq --rateest-pps ${rate} -j ACCEPT`;
const FILTER = '*filter\n:INPUT DROP\n:OUTPUT ACCEPT\n';

for (const [interval, average, quarters, ewmaLog] of [
  ['250ms', '500ms', 1, 1n],
  ['1s', '4s', 4, 2n],
  ['8s', '512s', 32, 6n],
] as const) {
  t.test(`rates of ${interval}, averaged over ${average}, are the timer's`, (t) => {
    const seed = 20041111;
    const below = random(seed);
    const w = new World(250);
    const timer = new Timer(BigInt(Math.log2(quarters)), ewmaLog);
    const agree = (note: string): void => {
      const { bps, pps } = timer.rates;
      for (const [kind, rate] of [
        ['bps', bps],
        ['pps', pps],
      ] as const) {
        w.load(`${FILTER}${MEASURE(interval, average)}\n${EXACTLY(kind, rate)}`);
        t.equal(w.run(packet()), 1, `seed ${seed}, ${note}: ${rate} ${kind}`);
      }
    };
    w.load(`${FILTER}${MEASURE(interval, average)}\n${EXACTLY('pps', 0n)}`);
    // The first look begins the first interval.
    t.equal(w.run(packet()), 1);
    for (let i = 0; i < 40; i++) {
      // A pause now and then, in which nobody asks.
      const idle = below(8) === 0 ? below(50) : 0;
      for (let k = 0; k < below(20); k++) {
        const p = packet({ payload: new Array<number>(below(1400)).fill(0) });
        w.run(p, 'OUTPUT');
        timer.counted.bytes += BigInt(p.length);
        timer.counted.packets += 1n;
      }
      w.wait((idle + 1) * quarters * 250);
      for (let k = 0; k <= idle; k++) timer.tick();
      agree(`interval ${i}`);
    }
    t.end();
  });
}

t.test('an interval ends at its last tick', (t) => {
  const w = new World(1000);
  w.load(
    `${FILTER}${MEASURE('250ms', '500ms')}\n-A INPUT -m rateest --rateest est --rateest-gt --rateest-pps 0 -j ACCEPT`,
  );
  for (let i = 0; i < 10; i++) w.run(packet(), 'OUTPUT');
  w.wait(249);
  t.equal(w.run(packet()), 0);
  w.wait(1);
  t.equal(w.run(packet()), 1);
  // 10 packets in a quarter second, half of which the average takes: 20, 10, 5, …
  w.load(`${FILTER}${MEASURE('250ms', '500ms')}\n${EXACTLY('pps', 20n)}`);
  t.equal(w.run(packet()), 1, 'a swap keeps what was measured');
  w.load(`${FILTER}${MEASURE('250ms', '500ms')}\n${EXACTLY('pps', 0n)}`);
  w.wait(10 * 24 * 3600 * 1000);
  t.equal(w.run(packet()), 1);
  t.end();
});

t.test('rateest: modes, negations, differences, two estimators', (t) => {
  const measured = [
    '-A OUTPUT -p tcp -j RATEEST --rateest-name tcp --rateest-interval 1s --rateest-ewmalog 2s',
    '-A OUTPUT -p udp -j RATEEST --rateest-name udp --rateest-interval 1s --rateest-ewmalog 2s',
  ].join('\n');
  const w = new World();
  w.load(`${FILTER}${measured}`);
  // Half of 40 and of 20 packets a second; 40 and 28 bytes long: 800 and 280 bytes a second.
  for (let i = 0; i < 40; i++) w.run(packet(), 'OUTPUT');
  for (let i = 0; i < 20; i++) w.run(packet({ protocol: 17 }), 'OUTPUT');
  w.wait(1000);
  for (const [rule, holds] of [
    ['--rateest tcp --rateest-eq --rateest-pps 20', true],
    ['--rateest tcp ! --rateest-eq --rateest-pps 20', false],
    ['--rateest tcp --rateest-lt --rateest-pps 21', true],
    ['--rateest tcp --rateest-lt --rateest-pps 20', false],
    ['--rateest tcp ! --rateest-lt --rateest-pps 20', true],
    ['--rateest tcp --rateest-gt --rateest-pps 19', true],
    ['--rateest tcp ! --rateest-gt --rateest-pps 19', false],
    ['--rateest tcp --rateest-gt --rateest-bps 6392bit', true],
    ['--rateest tcp --rateest-gt --rateest-bps 6400bit', false],
    ['--rateest tcp --rateest-eq --rateest-bps 6400bit --rateest-pps 20', true],
    ['--rateest tcp --rateest-eq --rateest-bps 6400bit --rateest-pps 21', false],
    ['--rateest1 tcp --rateest-gt --rateest-pps --rateest2 udp', true],
    ['--rateest1 tcp --rateest-lt --rateest-bps --rateest2 udp', false],
    ['--rateest1 tcp --rateest-lt --rateest-bps --rateest2 tcp', false],
    ['--rateest-delta --rateest1 tcp --rateest-pps1 25 --rateest-eq --rateest-pps2 15 --rateest2 udp', true],
    ['--rateest-delta --rateest1 tcp --rateest-pps1 25 --rateest-lt --rateest-pps2 16 --rateest2 udp', true],
    // 1,600 of 8,000 bits are left here, and nothing of 0 there.
    ['--rateest-delta --rateest1 tcp --rateest-bps1 8000bit --rateest-gt --rateest-bps2 0bit --rateest2 udp', true],
    // Nothing is left of 10 where 20 are used.
    ['--rateest-delta --rateest1 tcp --rateest-pps1 10 --rateest-eq --rateest-pps2 10 --rateest2 udp', true],
    ['--rateest nobody --rateest-eq --rateest-pps 0', true],
  ] as const) {
    w.load(`${FILTER}${measured}\n-A INPUT -m rateest ${rule} -j ACCEPT`);
    t.equal(w.run(packet()), holds ? 1 : 0, rule);
  }
  t.end();
});

t.test('RATEEST: one name has one interval and one average', (t) => {
  const twice = `${FILTER}${MEASURE('1s', '4s')}\n${MEASURE('1s', '8s')}`;
  t.throws(() => new World().load(twice), /target RATEEST: "est" is measured with another interval or average/);
  t.doesNotThrow(() => new World().load(`${FILTER}${MEASURE('1s', '4s')}\n${MEASURE('1s', '4s')}`));
  t.end();
});

t.test('an estimator whose locker died begins anew', (t) => {
  const w = new World();
  w.load(`${FILTER}${MEASURE('1s', '2s')}\n${EXACTLY('pps', 0n)}`);
  for (let i = 0; i < 40; i++) w.run(packet(), 'OUTPUT');
  w.wait(1000);
  t.equal(w.run(packet()), 0);
  const region = w.compiled.regions.find((words) => words[Region.KIND] === RegionKind.RATEEST)!;
  region[Region.LOCK] = 77;
  mendRegions(w.compiled.regions, 77);
  t.equal(w.run(packet()), 1);
  for (let i = 0; i < 40; i++) w.run(packet(), 'OUTPUT');
  w.wait(1000);
  w.load(`${FILTER}${MEASURE('1s', '2s')}\n${EXACTLY('pps', 20n)}`);
  t.equal(w.run(packet()), 1, 'with the same interval and average');
  t.end();
});
