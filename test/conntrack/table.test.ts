import t from 'tap';
import { EventRing, EventType, RECORD_WORDS } from '../../src/dataplane/conntrack/events.js';
import { expect, Expectation, ExpectFlag, ExpectResult, helperData } from '../../src/dataplane/conntrack/expect.js';
import { Asking, countConnections, countRegionWords, initCountRegion } from '../../src/dataplane/conntrack/count.js';
import { Helper } from '../../src/dataplane/conntrack/helpers/helpers.js';
import { invertPorts, packKey, packPorts } from '../../src/dataplane/conntrack/key.js';
import { printConnection, printEvent } from '../../src/dataplane/conntrack/print.js';
import { Status } from '../../src/dataplane/conntrack/states.js';
import { ENTRY_WORDS, Head, layout, linkEntry, Stat } from '../../src/dataplane/conntrack/layout.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { confirm, findLoopback, track } from '../../src/dataplane/conntrack/track.js';
import { CtState, Hook, Proto } from '../../src/dataplane/names.js';
import { InFlag } from '../../src/dataplane/io/batch.js';
import { Bench, CLIENT, ip, packet, packetBytes, random, SERVER } from './harness.js';

t.test('UDP: unreplied 30 s, replied 30 s, a stream after two seconds 120 s and assured', (t) => {
  const bench = new Bench();
  t.equal(bench.udp('>'), 'NEW>');
  const flow = bench.only;
  bench.wait(29_999);
  t.equal(bench.only, flow, 'the last live tick');
  bench.wait(1);
  t.equal(bench.only, -1, 'the first dead one');
  t.equal(bench.udp('>'), 'NEW>', 'a new one takes its place');
  t.equal(bench.udp('<'), 'ESTABLISHED<');
  bench.wait(2000);
  t.equal(bench.udp('>'), 'ESTABLISHED>');
  t.equal(bench.table.expires(bench.only), 30_000, 'two seconds to the tick: no stream yet');
  bench.wait(1);
  bench.udp('<');
  t.equal(bench.table.expires(bench.only), 120_000);
  t.equal(bench.table.status(bench.only) & Status.ASSURED, Status.ASSURED);
  t.equal(bench.table.packets(bench.only, 0), 2);
  t.equal(bench.table.bytes(bench.only, 1), 2 * 38);
  t.end();
});

t.test('what a host sends to itself by one port is answered by what comes next', (t) => {
  const bench = new Bench();
  const fields = { protocol: Proto.UDP, src: CLIENT, dst: CLIENT, sport: 5, dport: 5 };
  t.equal(bench.send(fields), 'NEW>');
  t.equal(bench.send(fields), 'ESTABLISHED<', 'the kernel finds the reply first');
  t.end();
});

t.test('a dropped first packet leaves nothing', (t) => {
  const bench = new Bench();
  const fields = { protocol: Proto.UDP, src: CLIENT, dst: SERVER, sport: 1, dport: 2 };
  t.equal(bench.send(fields, Hook.PREROUTING, false), 'NEW>');
  t.equal(bench.only, -1);
  t.equal(bench.table.total(), 0);
  t.equal(bench.send(fields), 'NEW>');
  t.equal(bench.table.total(), 1);
  t.end();
});

t.test('NOTRACK, fragments, wrong checksums', (t) => {
  const bench = new Bench();
  const fields = { protocol: Proto.UDP, src: CLIENT, dst: SERVER, sport: 1, dport: 2, payload: new Uint8Array(4) };
  const untracked = packet(fields);
  untracked.ctState = CtState.UNTRACKED;
  t.equal(bench.send(untracked), 'UNTRACKED');
  const fragment = packet(fields);
  fragment.fragOffset = 10;
  t.equal(bench.send(fragment), 'INVALID');
  for (const protocol of [Proto.UDP, Proto.TCP, Proto.ICMP, Proto.SCTP]) {
    const damaged = packet({ ...fields, protocol, flags: 2, payload: Uint8Array.from([3, 0, 0, 4]) });
    damaged.bytes[damaged.end - 1] = 77;
    damaged.flags = InFlag.CSUM_NOT_VERIFIED;
    t.equal(bench.send(damaged), 'INVALID', `${protocol}: bad and not verified`);
  }
  const partial = packet(fields);
  partial.bytes[partial.l4 + 6] = 1;
  partial.flags = InFlag.CSUM_NOT_VERIFIED | InFlag.CSUM_PARTIAL;
  t.equal(bench.send(partial), 'NEW>', 'a partial checksum is nobody’s to judge');
  const out = packet({ ...fields, sport: 9 });
  out.bytes[out.l4 + 6] = 1;
  out.flags = InFlag.CSUM_NOT_VERIFIED;
  t.equal(bench.send(out, Hook.OUTPUT), 'NEW>', 'in OUTPUT checksums are trusted');
  t.end();
});

t.test('ICMP: queries, answers, and errors about connections also through NAT', (t) => {
  const bench = new Bench();
  const echo = { protocol: Proto.ICMP, src: CLIENT, dst: SERVER, type: 8, rest: 7 << 16 };
  t.equal(bench.send({ ...echo, src: SERVER, dst: CLIENT, type: 0 }), 'INVALID', 'an answer to nothing');
  t.equal(bench.send(echo), 'NEW>');
  t.equal(bench.send({ ...echo, src: SERVER, dst: CLIENT, type: 0 }), 'ESTABLISHED<');
  t.equal(bench.send({ ...echo, type: 40 }), 'INVALID');

  const nat = new Bench();
  const router = ip('128.61.70.47');
  const sent = { protocol: Proto.UDP, src: CLIENT, dst: SERVER, sport: 5000, dport: 53 };
  const first = packet(sent);
  track(nat.tracker, first, Hook.PREROUTING);
  nat.table.alterReply(first.ct, SERVER, router, packPorts(53, 6000));
  t.equal(nat.table.insert(first.ct), 0);
  const error = (from: number, to: number, quoted: Uint8Array): string =>
    nat.send({ protocol: Proto.ICMP, src: from, dst: to, type: 3, code: 3, payload: quoted.subarray(0, 28) });
  const outside = packetBytes({ ...sent, src: router, sport: 6000 });
  t.equal(error(ip('9.9.9.9'), router, outside), 'RELATED<', 'from a router on the way');
  t.equal(error(ip('9.9.9.9'), CLIENT, outside), 'INVALID', 'not to where the answers go');
  t.equal(error(SERVER, router, outside.subarray(0, 23)), 'INVALID', 'quoting too little');
  const answer = packetBytes({ protocol: Proto.UDP, src: SERVER, dst: CLIENT, sport: 53, dport: 5000 });
  t.equal(error(CLIENT, SERVER, answer), 'RELATED>', 'about an answer, from inside');
  t.equal(nat.table.packets(first.ct, 1), 0, 'errors are not counted');
  t.end();
});

t.test('loopback: the second pass keeps connection, direction and state and counts nothing', (t) => {
  const bench = new Bench();
  const host = ip('127.0.0.1');
  const fields = { protocol: Proto.UDP, src: host, dst: host, sport: 5000, dport: 53 };
  bench.send(fields, Hook.OUTPUT);
  const again = packet(fields);
  t.ok(findLoopback(bench.tracker, again));
  t.same([again.ct, again.ctDir, again.ctState], [bench.only, 0, CtState.NEW]);
  t.equal(bench.table.packets(bench.only, 0), 1);
  const back = packet({ ...fields, sport: 53, dport: 5000 });
  t.equal(bench.send(back, Hook.OUTPUT), 'ESTABLISHED<');
  const backAgain = packet({ ...fields, sport: 53, dport: 5000 });
  t.ok(findLoopback(bench.tracker, backAgain));
  t.same([backAgain.ctDir, backAgain.ctState], [1, CtState.ESTABLISHED]);
  const error = packet({ protocol: Proto.ICMP, src: host, dst: host, type: 3, code: 3, payload: packetBytes(fields) });
  t.ok(findLoopback(bench.tracker, error));
  t.same([error.ct, error.ctDir, error.ctState], [bench.only, 1, CtState.RELATED]);

  const refused = new Bench();
  const syn = { protocol: Proto.TCP, src: host, dst: host, sport: 1000, dport: 80, flags: 2, seq: 1 };
  refused.send(syn, Hook.OUTPUT);
  const reset = packet({ ...syn, sport: 80, dport: 1000, flags: 0x14, seq: 0, ack: 2 });
  reset.hook = Hook.OUTPUT;
  t.equal(refused.send(reset, Hook.OUTPUT), 'ESTABLISHED<');
  t.equal(refused.only, -1, 'the refused connection is gone');
  const resetAgain = packet({ ...syn, sport: 80, dport: 1000, flags: 0x14, seq: 0, ack: 2 });
  t.ok(findLoopback(refused.tracker, resetAgain), 'but the reset still belongs to it');
  t.equal(resetAgain.ctState, CtState.ESTABLISHED);
  t.equal(refused.send(syn, Hook.OUTPUT), 'NEW>', 'and it can begin anew at once');
  refused.wait(2000).table.gc(10_000);
  t.equal(refused.table.total(), 1);
  t.end();
});

t.test('what is over is swept up: in small steps where packets wait, else in large ones', (t) => {
  const { table, tracker } = new Bench();
  for (let port = 0; port < 1000; port++) {
    const p = packet({ protocol: Proto.UDP, src: CLIENT, dst: SERVER, sport: port, dport: 2 });
    track(tracker, p, Hook.PREROUTING);
    confirm(tracker, p);
  }
  let now = 40_000;
  const sweep = (busy: boolean): number => {
    const before = table.total();
    table.edge(++now, 0);
    table.tidy(busy);
    return before - table.total();
  };
  // 2,000 tuples in 1,024 buckets.
  const swept = sweep(true);
  t.ok(swept > 0 && swept < 500, `128 buckets had ${swept} of 1,000`);
  let steps = 1;
  while (table.total() > 0 && steps < 100) {
    sweep(true);
    steps++;
  }
  t.ok(steps > 4 && steps <= 9, `the whole table took ${steps}`);
  t.end();
});

t.test('zones keep equal tuples apart, per direction', (t) => {
  const bench = new Bench();
  const fields = { protocol: Proto.UDP, src: CLIENT, dst: SERVER, sport: 1, dport: 2 };
  const inZones = (original: number, reply: number, back = false): string => {
    const p = packet(back ? { ...fields, src: SERVER, dst: CLIENT, sport: 2, dport: 1 } : fields);
    p.ctZones = original | (reply << 16);
    return bench.send(p);
  };
  t.equal(inZones(1, 1), 'NEW>');
  t.equal(inZones(2, 2), 'NEW>');
  t.equal(inZones(1, 1, true), 'ESTABLISHED<');
  t.equal(inZones(2, 2), 'NEW>');
  t.equal(inZones(5, 0), 'NEW>', 'original direction only');
  t.equal(inZones(0, 0, true), 'ESTABLISHED<');
  t.equal(inZones(0, 0, false), 'NEW>!', 'its answers’ tuple is taken in zone 0');
  t.end();
});

t.test('when full, the unassured go first', (t) => {
  const bench = new Bench({ max: 16, seed: 1 });
  let refused = 0;
  for (let port = 1; port <= 40; port++) if (bench.udp('>', port).endsWith('!')) refused++;
  t.ok(bench.table.total() <= 16);
  t.equal(bench.table.stat(0, Stat.DROP), refused);
  t.ok(bench.table.stat(0, Stat.EARLY_DROP) > 0);
  for (let e = bench.table.next(-1); e >= 0; e = bench.table.next(e)) bench.table.setStatus(e, Status.ASSURED);
  bench.wait(1);
  while (bench.table.total() < 16) {
    bench.udp('>', 1000 + bench.table.total());
    for (let e = bench.table.next(-1); e >= 0; e = bench.table.next(e)) bench.table.setStatus(e, Status.ASSURED);
    bench.wait(1);
  }
  t.equal(bench.udp('>', 9999), 'INVALID!', 'nothing to drop');
  t.end();
});

t.test('a million connections fit in 256 MiB', (t) => {
  t.ok(ConntrackTable.create({ max: 1_000_000, workers: 2 }).byteLength <= 256 * 2 ** 20);
  t.throws(() => ConntrackTable.create({ max: 0, workers: 1 }), /conntrack max 0/);
  t.throws(() => ConntrackTable.create({ max: 10, workers: 0 }), /conntrack workers 0/);
  t.throws(() => ConntrackTable.attach(ConntrackTable.create({ max: 10, workers: 1 }), 2), /no slot 2/);
  t.throws(() => ConntrackTable.attach(new SharedArrayBuffer(4096), 0), /no connection table/);
  t.end();
});

t.test('against a map: random inserts, lookups, kills and time, nothing lost and nothing left over', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const bench = new Bench({ max: 300, seed });
  const table = bench.table;
  /** Tuple → [entry, time of death]. */
  const twin = new Map<string, [entry: number, death: number]>();
  let now = 0x7fff_fff0; // the clock wraps
  bench.at(now);
  for (let step = 0; step < 30_000; step++) {
    if (next() % 8 === 0) {
      now = (now + (next() % 5000)) | 0;
      bench.at(now);
      for (const [tuple, [, death]] of twin) if (((death - now) | 0) <= 0) twin.delete(tuple);
    }
    const sport = next() % 40;
    const dport = 100 + (next() % 10);
    const tuple = `${sport}-${dport}`;
    const ports = packPorts(sport, dport);
    const key = packKey(Proto.UDP, 0);
    const link = table.find(CLIENT, SERVER, ports, key, key);
    const known = twin.get(tuple);
    const back = table.find(SERVER, CLIENT, invertPorts(Proto.UDP, ports), key, key);
    if ((link === 0 ? -1 : linkEntry(link)) !== (known?.[0] ?? -1) || (back === 0 ? 0 : back ^ 1) !== link) {
      t.fail(`seed ${seed} step ${step}: ${tuple} is ${link} and ${back}, not ${known?.[0]}`);
      break;
    }
    if (known !== undefined) {
      if (next() % 3 === 0) {
        table.kill(known[0]);
        twin.delete(tuple);
      }
    } else if (twin.size < 300) {
      const entry = table.create(CLIENT, SERVER, ports, Proto.UDP, 0, 0);
      if (entry < 0) continue;
      const life = 1 + (next() % 20_000);
      table.refresh(entry, life);
      if (next() % 4 === 0) table.discard(entry);
      else {
        if (table.insert(entry) !== 0) t.fail(`seed ${seed} step ${step}: not inserted`);
        twin.set(tuple, [entry, (now + life) | 0]);
      }
    }
  }
  bench.at((now + 30_000) | 0);
  table.gc(1024);
  bench.at(now).at(now);
  t.equal(table.total(), 0, `seed ${seed}: all are gone`);
  t.equal(table.next(-1), -1);
  t.same(table.census(), { free: table.capacity, used: 0, limbo: 0, scratch: 0 }, 'and every entry is free again');
  t.end();
});

t.test('expectations: fulfilled once, by mask, with their master; limits; helper data', (t) => {
  const bench = new Bench();
  const table = bench.table;
  bench.udp('>', 5000, 21);
  bench.udp('<', 5000, 21);
  const master = bench.only;
  table.setHelper(master, 1);
  table.setMark(master, 42);
  const e = new Expectation();
  Object.assign(e, { src: SERVER, srcMask: -1, dst: CLIENT, sport: -1, dport: 7000, protocol: Proto.TCP, dir: 1 });
  const data = { protocol: Proto.TCP, src: SERVER, dst: CLIENT, sport: 20, dport: 7000, flags: 2 };
  t.equal(expect(table, master, e), ExpectResult.ADDED);
  t.equal(expect(table, master, e), ExpectResult.ADDED, 'the same again');
  t.equal(table.expectations(), 1);
  t.equal(bench.send({ ...data, src: ip('9.9.9.9') }), 'NEW>', 'from elsewhere');
  t.equal(bench.send({ ...data, dport: 7001 }), 'NEW>', 'to elsewhere');
  t.equal(bench.send(data), 'RELATED>');
  const child = bench.last.ct;
  t.equal(table.master(child), master);
  t.equal(table.mark(child), 42);
  t.equal(table.masterHelper(child), 1);
  t.equal(table.expectations(), 0);
  t.equal(bench.send({ ...data, sport: 21 }), 'NEW>', 'only once');

  e.flags = ExpectFlag.PERMANENT;
  expect(table, master, e);
  t.equal(bench.send({ ...data, sport: 22 }), 'RELATED>');
  t.equal(bench.send({ ...data, sport: 23 }), 'RELATED>');
  e.dport = 7002;
  t.equal(expect(table, master, e), ExpectResult.ADDED);
  t.equal(table.expectations(), 1, 'it took the place of the oldest');
  const other = new Expectation();
  Object.assign(other, { dst: CLIENT, dport: 7002, protocol: Proto.TCP, class: 1 });
  t.equal(expect(table, master, other), ExpectResult.BUSY, 'any source includes that one');
  e.flags = ExpectFlag.INACTIVE;
  e.dport = 7003;
  expect(table, master, e);
  t.equal(bench.send({ ...data, dport: 7003 }), 'NEW>', 'inactive');
  e.flags = 0;
  e.dport = 7004;
  e.timeoutMs = 1000;
  expect(table, master, e);
  bench.wait(1000);
  t.equal(bench.send({ ...data, dport: 7004 }), 'NEW>', 'its time is over');

  const words = helperData(table, master);
  t.ok(words > 0);
  table.words[words] = 5;
  t.equal(helperData(table, master), words);
  e.dport = 7005;
  expect(table, master, e);
  table.kill(master);
  t.equal(table.expectations(), 0, 'they go with their master');
  t.equal(table.master(child), -1);
  t.ok(table.hasMaster(child));
  t.end();
});

t.test('connection counts: the closed and the gone leave once a tick, the same one counts once', (t) => {
  const bench = new Bench();
  const region = new Int32Array(new SharedArrayBuffer(4 * countRegionWords(3)));
  initCountRegion(region, 3, 2);
  const key = packKey(Proto.TCP, 0);
  let tick = 0;
  const ask = (port: number, asking = Asking.JOINS, src = CLIENT): number =>
    countConnections(region, bench.table, tick, asking, src, 0, src, SERVER, packPorts(port, 80), key, key);
  const count = (port: number, asking = Asking.JOINS): number => {
    tick++;
    return ask(port, asking);
  };
  const open = (port: number): number => {
    const n = count(port);
    bench.send({ protocol: Proto.TCP, src: CLIENT, dst: SERVER, sport: port, dport: 80, flags: 2 });
    return n;
  };
  t.equal(open(1), 1);
  t.equal(open(2), 2);
  t.equal(count(2), 2);
  t.equal(open(3), 3);
  bench.send({ protocol: Proto.TCP, src: SERVER, dst: CLIENT, sport: 80, dport: 1, flags: 0x14, ack: 1 });
  t.equal(ask(4, Asking.LOOKS), 3, 'a refused one is still there in the tick at which the list was gone through');
  t.equal(count(3), 2, 'and gone in the next');
  t.equal(open(4), 3);
  t.equal(count(9, Asking.LOOKS), 3, 'who only looks is not counted');
  bench.wait(120_000);
  t.equal(count(9, Asking.JOINS_LATE), 1, 'all timed out');
  t.equal(count(10, Asking.LOOKS), 0, 'nobody is there, and who only looks is nobody');
  t.equal(ask(11, Asking.LOOKS, SERVER), 1, 'but for the first who asks by this key');
  t.end();
});

t.test(
  'connection counts: a full region takes back what the gone and keys without connections had, else refuses',
  (t) => {
    const bench = new Bench();
    const region = new Int32Array(new SharedArrayBuffer(4 * countRegionWords(3)));
    initCountRegion(region, 3, 2);
    const key = packKey(Proto.UDP, 0);
    let tick = 0;
    const open = (host: number): number => {
      const src = CLIENT + host;
      bench.send({ protocol: Proto.UDP, src, dst: SERVER, sport: 1, dport: 80 });
      return countConnections(
        region,
        bench.table,
        ++tick,
        Asking.JOINS,
        src,
        0,
        src,
        SERVER,
        packPorts(1, 80),
        key,
        key,
      );
    };
    t.same([1, 2, 3].map(open), [1, 1, 1]);
    t.equal(open(4), 0, 'no room');
    bench.wait(60_000);
    t.same([4, 5, 6].map(open), [1, 1, 1], 'three hosts have gone, and their keys with them');
    t.equal(open(7), 0);
    t.end();
  },
);

t.test('events: one record a packet, none when nobody listens, and what the CT target filters out', (t) => {
  const bench = new Bench();
  const ring = new EventRing(EventRing.create(4));
  bench.table.events = ring;
  const record = new Int32Array(RECORD_WORDS);
  const lines = (): string[] => {
    const out: string[] = [];
    while (ring.take(record)) out.push(printEvent(record, bench.table.now).replace(/src=.*dport=\d+/, '…'));
    return out;
  };
  bench.udp('>', 1);
  t.same(lines(), []);
  bench.table.listen(EventType.ALL);
  bench.wait(1);
  bench.tcp('>', 'S', 1);
  bench.tcp('<', 'SA', 1, 2);
  bench.tcp('>', 'A', 2, 2);
  bench.tcp('>', 'A', 2, 2);
  t.same(lines(), [
    '    [NEW] tcp      6 120 SYN_SENT …',
    ' [UPDATE] tcp      6 60 SYN_RECV …',
    ' [UPDATE] tcp      6 432000 ESTABLISHED … [ASSURED]',
  ]);
  bench.table.kill(bench.last.ct);
  t.match(lines()[0], /^\[DESTROY\] tcp {6}6 432000 ESTABLISHED/);
  for (let port = 10; port < 20; port++) bench.udp('>', port);
  t.equal(lines().length, 4);
  t.equal(ring.takeLost(), 6);
  t.throws(() => EventRing.create(3), /power of two/);
  t.end();
});

t.test('lines are those of conntrack 1.4.7', (t) => {
  const host = ip('127.0.0.1');
  const copy = new Int32Array(ENTRY_WORDS);
  const line = (f: Parameters<Bench['send']>[0], seconds: number, zones = 0): string => {
    const bench = new Bench();
    const p = 'bytes' in f ? f : packet(f);
    p.ctZones = zones;
    bench.send(p);
    bench.table.snapshot(bench.only, copy);
    return printConnection(copy, { seconds, counters: zones !== 0 });
  };
  const common = { src: host, dst: host };
  t.equal(
    line({ ...common, protocol: Proto.UDP, sport: 47793, dport: 5001 }, 29),
    'udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=47793 dport=5001 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5001 dport=47793 mark=0 use=1',
  );
  t.equal(
    line({ ...common, protocol: Proto.GRE }, 29),
    'gre      47 29 src=127.0.0.1 dst=127.0.0.1 srckey=0x0 dstkey=0x0 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 srckey=0x0 dstkey=0x0 mark=0 use=1',
  );
  t.equal(
    line({ ...common, protocol: 99 }, 599),
    'unknown  99 599 src=127.0.0.1 dst=127.0.0.1 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 mark=0 use=1',
  );
  const helped = packet({ ...common, protocol: Proto.UDP, sport: 1, dport: 69 });
  helped.ctHelper = Helper.TFTP;
  t.equal(
    line(helped, 29, 3 | (3 << 16)),
    'udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=1 dport=69 packets=1 bytes=28 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=69 dport=1 packets=0 bytes=0 mark=0 zone=3 helper=tftp use=1',
  );
  t.equal(
    line({ ...common, protocol: Proto.DCCP, sport: 1, dport: 2 }, 599),
    'dccp     33 599 src=127.0.0.1 dst=127.0.0.1 sport=0 dport=0 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=0 dport=0 mark=0 use=1',
  );
  t.equal(
    line({ ...common, protocol: Proto.ICMP, type: 8, rest: 8627 << 16 }, 29),
    'icmp     1 29 src=127.0.0.1 dst=127.0.0.1 type=8 code=0 id=8627 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 type=0 code=0 id=8627 mark=0 use=1',
  );
  const udp = { ...common, protocol: Proto.UDP, sport: 40673, dport: 7001, payload: new Uint8Array(1) };
  t.equal(
    line(udp, 29, 3 | (3 << 16)),
    'udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=40673 dport=7001 packets=1 bytes=29 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=7001 dport=40673 packets=0 bytes=0 mark=0 zone=3 use=1',
  );
  t.equal(
    line(udp, 29, 5 << 16),
    'udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=40673 dport=7001 packets=1 bytes=29 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=7001 dport=40673 zone-reply=5 packets=0 bytes=0 mark=0 use=1',
  );
  t.end();
});

t.test('connections by source: newest first, whichever goes', (t) => {
  const { table } = new Bench({ max: 1000 });
  const below = random(20_261);
  // Two sources in one list each; newest first.
  const lists: number[][] = [[], []];
  let dport = 0;
  for (let step = 0; step < 3000; step++) {
    const which = below() & 1;
    const list = lists[which]!;
    if (list.length < 200 && (below() & 3) !== 0) {
      const entry = table.create(CLIENT + which, SERVER, packPorts(4000, 1 + (dport++ % 60_000)), Proto.UDP, 0, 0);
      table.setStatus(entry, Status.SRC_NAT_DONE);
      table.refresh(entry, 1_000_000);
      t.equal(table.insert(entry), 0);
      list.unshift(entry);
    } else if (list.length > 0) {
      const [gone] = list.splice((below() >>> 1) % list.length, 1);
      table.kill(gone!);
      table.quiesce();
    }
    const seen: number[] = [];
    for (let entry = -1; (entry = table.nextBySource(entry, CLIENT + which, 4000, Proto.UDP, 0)) >= 0;)
      seen.push(entry);
    if (JSON.stringify(seen) !== JSON.stringify(list)) t.same(seen, list, `step ${step}`);
  }
  t.ok(dport > 1000, 'enough was tried');
  t.end();
});

t.test('whoever takes a connection out as soon as it can be found takes it out of the list by source, too', (t) => {
  const shared = ConntrackTable.create({ max: 100, workers: 2 });
  const [table, other] = [ConntrackTable.attach(shared, 0), ConntrackTable.attach(shared, 1)];
  const key = packKey(Proto.UDP, 0);
  const ports = packPorts(4000, 53);
  // The other thread comes just before the list is written.
  const inner = table as unknown as { linkSource: (entry: number) => void };
  const linkSource = inner.linkSource.bind(table);
  inner.linkSource = (entry) => {
    const found = other.find(CLIENT, SERVER, ports, key, key);
    if (found !== 0) other.kill(linkEntry(found));
    linkSource(entry);
  };
  const entry = table.create(CLIENT, SERVER, ports, Proto.UDP, 0, 0);
  table.setStatus(entry, Status.SRC_NAT_DONE);
  table.refresh(entry, 1000);
  t.equal(table.insert(entry), 0);
  other.kill(entry);
  const { sources, expectations } = layout(3, table.words[Head.BUCKETS]!, table.expectCapacity);
  t.ok(table.words.subarray(sources, expectations).every((first) => first === 0));
  t.end();
});
