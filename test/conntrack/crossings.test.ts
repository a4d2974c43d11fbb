/** Packets between two crossings, and the new connections that they have: two workers' views of one table and one store. */
import t from 'tap';
import { Crossings } from '../../src/dataplane/conntrack/crossings.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { confirm, release, track } from '../../src/dataplane/conntrack/track.js';
import { CtState, Dir, Hook, Proto, Verdict } from '../../src/dataplane/names.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { Bench, CLIENT, type Fields, packet, SERVER } from './harness.js';

const UDP = { protocol: Proto.UDP, src: CLIENT, dst: SERVER, sport: 1, dport: 2 };
const SYN = { protocol: Proto.TCP, src: CLIENT, dst: SERVER, sport: 1, dport: 2, flags: 2, seq: 7 };

/** Two workers and the control thread's store. */
function pair() {
  const shared = ConntrackTable.create({ max: 100, workers: 2 });
  const store = Crossings.create();
  const [a, b] = [0, 1].map((slot) => {
    const bench = new Bench({}, shared, slot);
    const crossings = new Crossings(store, bench.table);
    bench.tracker.crossings = crossings;
    return { bench, crossings };
  }) as [Worker, Worker];
  const control = ConntrackTable.attach(shared, 2);
  return { a, b, control, store, crossings: new Crossings(store, control) };
}
interface Worker {
  bench: Bench;
  crossings: Crossings;
}

/** A packet's first crossing. */
function begin({ bench, crossings }: Worker, fields: Fields): Packet {
  const p = packet(fields);
  track(bench.tracker, p, Hook.PREROUTING);
  if (!crossings.keep(p)) throw new Error('no room');
  return p;
}

/** Its second, of the same bytes. */
function end(
  { bench, crossings }: Worker,
  fields: Fields,
  accept = true,
): { known: boolean; state: number; verdict: number } {
  const p = packet(fields);
  p.hook = Hook.POSTROUTING;
  const known = crossings.restore(p);
  const state = p.ctState;
  const verdict = known && accept ? confirm(bench.tracker, p) : Verdict.DROP;
  release(bench.tracker, p);
  if (crossings.mine >= 0) crossings.done();
  return { known, state, verdict };
}

t.test('a new connection begins with one worker and is confirmed by another', (t) => {
  const { a, b, control, crossings } = pair();
  const p = begin(a, { ...UDP, ttl: 64 });
  t.equal(crossings.count, 1);
  t.equal(control.next(-1), -1, 'nobody sees it yet');
  t.equal(p.ctState, CtState.NEW);
  t.same(end(b, { ...UDP, ttl: 63 }), { known: true, state: CtState.NEW, verdict: Verdict.ACCEPT });
  t.equal(crossings.count, 0);
  const entry = control.next(-1);
  t.equal(control.packets(entry, Dir.ORIGINAL), 1);
  t.same(end(b, UDP), { known: false, state: 0, verdict: Verdict.DROP }, 'once is enough');
  t.same(control.census(), { ...control.census(), used: 1, scratch: 0 });
  t.end();
});

t.test('what a packet had is given back to it', (t) => {
  const { a, b } = pair();
  const p = packet(UDP);
  track(a.bench.tracker, p, Hook.PREROUTING);
  Object.assign(p, { hook: Hook.PREROUTING, indev: 3, physindev: 4, mark: 0x55, classified: 1, priority: 0x10002 });
  Object.assign(p, { macLength: 6, macHigh: 0x01020304, macLow: 0x05060000 });
  t.ok(a.crossings.keep(p));
  const again = packet(UDP);
  t.ok(b.crossings.restore(again));
  for (const field of [
    'hook',
    'indev',
    'physindev',
    'mark',
    'classified',
    'priority',
    'macLength',
    'macHigh',
    'macLow',
    'ct',
  ] as const)
    t.equal(again[field], p[field], field);
  t.end();
});

t.test('packets are told apart by what the kernel leaves alone', (t) => {
  const { a, b, crossings } = pair();
  const rows: Fields[] = [
    SYN,
    { ...SYN, seq: 8 },
    { ...SYN, ack: 1 },
    { ...SYN, sport: 3 },
    { ...SYN, payload: new Uint8Array(1) },
    { protocol: Proto.ICMP, src: CLIENT, dst: SERVER, type: 8, rest: 1 },
    { protocol: Proto.ICMP, src: CLIENT, dst: SERVER, type: 8, rest: 2 },
    { protocol: 200, src: CLIENT, dst: SERVER, payload: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) },
    { protocol: 200, src: CLIENT, dst: SERVER, payload: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 9) },
    { protocol: 200, src: CLIENT, dst: SERVER, payload: Uint8Array.of(1) },
  ];
  for (const fields of rows) begin(a, { ...fields, ttl: 9 });
  t.equal(crossings.count, rows.length);
  rows.reverse();
  for (const fields of rows) t.equal(end(b, { ...fields, ttl: 8 }).known, true);
  t.equal(crossings.count, 0);
  // A datagram whose checksum its device was to do comes again with it done.
  begin(a, { ...UDP, noChecksum: true });
  t.ok(end(b, UDP).known);
  t.end();
});

t.test('packets of one flow share its new connection; the last of those dropped takes it along', (t) => {
  const { a, b, control, crossings } = pair();
  const more = { ...UDP, payload: new Uint8Array(9) };
  const first = begin(a, UDP);
  const second = begin(a, more);
  t.equal(second.ct, first.ct);
  t.equal(second.ctState, CtState.NEW);
  t.equal(end(b, UDP, false).known, true, 'a rule drops the first');
  t.equal(control.census().scratch, 1, 'the second has it still');
  t.equal(end(b, more).verdict, Verdict.ACCEPT);
  t.equal(control.packets(control.next(-1), Dir.ORIGINAL), 2, 'the kernel would have begun anew, and counted one');
  control.flush();

  begin(a, UDP);
  begin(a, more);
  t.equal(end(b, UDP).verdict, Verdict.ACCEPT);
  t.equal(a.bench.send({ ...UDP, payload: new Uint8Array(3) }), 'NEW>', 'a third, when it is confirmed');
  t.equal(end(b, more).verdict, Verdict.ACCEPT);
  t.equal(control.packets(control.next(-1), Dir.ORIGINAL), 3);
  control.flush();

  begin(a, UDP);
  begin(a, more);
  end(b, UDP, false);
  end(b, more, false);
  t.equal(crossings.count, 0);
  t.same([control.census().used, control.census().scratch, control.total()], [0, 0, 0]);
  t.end();
});

t.test('what never comes again is forgotten, with its connection', (t) => {
  const { a, b, control, crossings } = pair();
  begin(a, UDP);
  begin(a, SYN);
  t.equal(end(b, SYN).known, true);
  b.bench.wait(4_999);
  b.crossings.sweep(b.bench.table.now);
  t.equal(crossings.count, 1, 'the last live tick');
  b.bench.wait(1_000);
  b.crossings.sweep(b.bench.table.now);
  t.equal(crossings.count, 0);
  t.equal(end(b, UDP).known, false);
  t.same([control.census().used, control.census().scratch], [1, 0]);
  t.end();
});

t.test('a connection that went meanwhile: its packet is not known any more', (t) => {
  const { a, b, control } = pair();
  a.bench.send(UDP);
  begin(a, UDP);
  control.flush();
  t.equal(end(b, UDP).known, false);
  t.end();
});

t.test('a worker that dies in the middle', (t) => {
  const { a, b, control, store, crossings } = pair();
  begin(a, UDP);
  const p = packet(UDP);
  t.ok(b.crossings.restore(p));
  b.crossings.lock();
  crossings.recover(1, control.ownerOf(1));
  control.recover(1);
  t.equal(crossings.count, 0);
  t.equal(control.census().scratch, 0);
  // The first one's death takes nothing from what is on its way.
  begin(a, SYN);
  crossings.recover(0, control.ownerOf(0));
  control.recover(0);
  t.equal(crossings.count, 1);
  const successor = new Bench({}, control.shared, 1);
  successor.tracker.crossings = new Crossings(store, successor.table);
  t.equal(end({ bench: successor, crossings: successor.tracker.crossings }, SYN).verdict, Verdict.ACCEPT);
  t.end();
});

t.test('a store that is full says so, and loses none', (t) => {
  const { a, control, crossings } = pair();
  const p = packet({ ...UDP, protocol: 200 });
  p.ctState = CtState.UNTRACKED;
  let kept = 0;
  while (a.crossings.keep(p)) kept++;
  t.equal(kept, crossings.count);
  const fresh = packet(UDP);
  track(a.bench.tracker, fresh, Hook.PREROUTING);
  t.notOk(a.crossings.keep(fresh));
  release(a.bench.tracker, fresh);
  t.equal(control.total(), 0);
  for (let i = 0; i < kept; i++) if (!end(a, { ...UDP, protocol: 200 }).known) t.fail(`${i} is lost`);
  t.equal(crossings.count, 0);
  t.end();
});
