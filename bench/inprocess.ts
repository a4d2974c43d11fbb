/**
 * Benches inside one process, by benny: each case runs a whole trace of packets and returns a checksum of what came out,
 * which must be the same every time, so that nothing can be optimised away and no answer can be wrong unnoticed.
 * Bundled by scripts/build.mjs like the programs, as constants inlined across files are part of what is measured.
 */
import { NO_SETS } from '../src/dataplane/io/ipset.js';
import benny from 'benny';
import { MemoryBackend } from '../src/control/commands/backend.js';
import { runIptables } from '../src/control/commands/run.js';
import { Compiler } from '../src/control/compile/index.js';
import { ANYWHERE, emptyTable, newId, ZERO, type Rule, type Ruleset, type Target } from '../src/control/model.js';
import type { Network } from '../src/control/text/address.js';
import '../src/dataplane/inlining.js';
import { ErrorLimit } from '../src/dataplane/answer.js';
import { ConntrackTable } from '../src/dataplane/conntrack/table.js';
import { confirm, track, Tracker } from '../src/dataplane/conntrack/track.js';
import { Interfaces, type Link } from '../src/dataplane/interfaces.js';
import { Batch, FULL_SLOT } from '../src/dataplane/io/batch.js';
import { LoopbackDevice } from '../src/dataplane/io/loopback.js';
import { Hook, Proto, Table } from '../src/dataplane/names.js';
import { Nat } from '../src/dataplane/nat/bind.js';
import { Packet } from '../src/dataplane/packet.js';
import { Pipeline } from '../src/dataplane/pipeline.js';
import { Context } from '../src/dataplane/program/context.js';
import { entry } from '../src/dataplane/program/format.js';
import { run as runChain } from '../src/dataplane/program/run.js';
import { Routes } from '../src/dataplane/route/routes.js';
import { Fib } from '../src/dataplane/route/fib.js';
import { Stat, STAT_COUNT } from '../src/dataplane/shared.js';
import { setU16, setU32 } from '../src/dataplane/wire/bytes.js';
import { headerChecksum, sum, update32 } from '../src/dataplane/wire/checksum.js';
import { articleRules } from './contenders.js';
import type { Options } from './main.js';
import { table } from './stats.js';

export interface Case {
  readonly name: string;
  /** Packets (or calls) that one run handles. */
  readonly packets: number;
  /** Handles the trace once and returns a checksum of the results. */
  readonly run: () => number;
}

/** xorshift32: the same trace on every machine. */
export function seeded(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

const SLOT = 128;
/** Packets a batch, as in worker.ts. */
const BATCH = 64;

/** `count` packets of 60 bytes in slots of SLOT bytes: TCP, UDP and ICMP mixed, some with options, some fragments. */
export function makeTrace(count: number, seed: number): Uint8Array {
  const random = seeded(seed);
  const bytes = new Uint8Array(count * SLOT);
  for (let i = 0; i < count; i++) {
    const start = i * SLOT;
    for (let o = 0; o < 60; o++) bytes[start + o] = random();
    const words = random() % 8 === 0 ? 6 : 5;
    bytes[start] = 0x40 | words;
    setU16(bytes, start + 2, 60);
    setU16(bytes, start + 6, random() % 64 === 0 ? 0x2001 : 0x4000);
    bytes[start + 8] = 64;
    bytes[start + 9] = [6, 6, 17, 17, 1][random() % 5]!;
    setU32(bytes, start + 12, 0xc0a84900 | (random() & 0xff));
    setU32(bytes, start + 16, random() | 0);
    setU16(bytes, start + 10, headerChecksum(bytes, start, words * 4));
  }
  return bytes;
}

function parsing(): Case {
  const count = 4096;
  const trace = makeTrace(count, 1);
  const packet = new Packet();
  return {
    name: 'parse, 60-byte packets',
    packets: count,
    run() {
      let check = 0;
      for (let i = 0; i < count; i++) {
        check = (check * 31 + packet.parse(trace, i * SLOT, i * SLOT + 60)) | 0;
        check = (check * 31 + packet.src + packet.dport + packet.tcpFlags + packet.icmpType) | 0;
      }
      return check;
    },
  };
}

function summing(length: number): Case {
  const count = 64;
  const random = seeded(length);
  const bytes = Uint8Array.from({ length: length + count }, () => random());
  return {
    name: `checksum, ${length} bytes`,
    packets: count,
    run() {
      let check = 0;
      for (let i = 0; i < count; i++) check = (check * 31 + sum(bytes, i, i + length)) | 0;
      return check;
    },
  };
}

function updating(): Case {
  const count = 4096;
  const random = seeded(3);
  const addresses = Int32Array.from({ length: count }, () => random());
  return {
    name: 'checksum update, one address',
    packets: count,
    run() {
      let check = 0xffff;
      for (let i = 1; i < count; i++) check = update32(check, addresses[i - 1]!, addresses[i]!);
      return check;
    },
  };
}

/** `count` UDP packets of 46 bytes in slots, of `flows` flows in turn. */
function udpTrace(count: number, flows: number): Uint8Array {
  const trace = new Uint8Array(count * SLOT);
  for (let i = 0; i < count; i++) {
    const start = i * SLOT;
    const flow = i % flows;
    trace[start] = 0x45;
    setU16(trace, start + 2, 46);
    trace[start + 8] = 64;
    trace[start + 9] = 17;
    setU32(trace, start + 12, 0xc0a84900 | (flow & 0xff));
    setU32(trace, start + 16, 0x80464600 + (flow >> 8));
    setU16(trace, start + 20, 1024 + (flow >> 8));
    setU16(trace, start + 22, 53);
    setU16(trace, start + 24, 26);
  }
  return trace;
}

/** Packets of `flows` UDP flows in turn, each tracked and confirmed: all but the first round meet known connections. */
function tracking(flows: number): Case {
  const count = Math.max(flows, 4096);
  const shared = ConntrackTable.create({ max: 2 * flows, workers: 1, seed: 1 });
  const table = ConntrackTable.attach(shared, 0);
  const tracker = new Tracker(table);
  const trace = udpTrace(count, flows);
  const packet = new Packet();
  table.online();
  return {
    name: `connection tracking, ${flows.toLocaleString('en')} flows`,
    packets: count,
    run() {
      let check = 0;
      for (let i = 0; i < count; i++) {
        if ((i & 63) === 0) table.quiesce();
        packet.parse(trace, i * SLOT, i * SLOT + 46);
        check = (check * 31 + track(tracker, packet, Hook.PREROUTING)) | 0;
        check = (check * 31 + confirm(tracker, packet)) | 0;
      }
      return check;
    },
  };
}

/** The filter table with `count` rules of FORWARD that do not match, then one that does. */
function rulesMatchedLast(count: number): Ruleset {
  const random = seeded(7);
  const rule = (network: Network, target: Target): Rule => ({
    id: newId(),
    base: ZERO,
    src: network,
    dst: ANYWHERE,
    notSrc: false,
    notDst: false,
    in: '',
    out: '',
    notIn: false,
    notOut: false,
    proto: Proto.UDP,
    notProto: false,
    fragment: false,
    notFragment: false,
    matches: [],
    target,
  });
  const rules = Array.from({ length: count }, () =>
    rule({ addr: 0x0a000000 | (random() & 0xffff00), mask: 0xffffff00 | 0 }, { kind: 'verdict', verdict: 'DROP' }),
  );
  rules.push(rule(ANYWHERE, { kind: 'verdict', verdict: 'ACCEPT' }));
  const filter = emptyTable('filter');
  const chains = new Map(filter.chains).set('FORWARD', { ...filter.chains.get('FORWARD')!, rules });
  return { tables: [{ ...filter, chains }] };
}

const nothing = (): number => 0;

/** Rules walked in order: every packet meets all of them and is accepted by the last. */
function walking(rules: number): Case {
  const table = ConntrackTable.attach(ConntrackTable.create({ max: 64, workers: 1, seed: 1 }), 0);
  const context = new Context({
    interfaces: new Interfaces(),
    table,
    nat: new Nat(table),
    log: { log: nothing, nflog: nothing, trace: nothing, traceReturn: nothing },
    sets: NO_SETS,
    answers: { reject: nothing, duplicate: nothing, isListening: () => false },
    routes: {
      masqueradeAddress: nothing,
      addressType: nothing,
      pathMtu: nothing,
      isWayBack: () => true,
      realm: nothing,
    },
    hz: 250,
    worker: 0,
  });
  const compiled = new Compiler(250).compile(rulesMatchedLast(rules));
  context.adopt(compiled.words, compiled.regions, new Float64Array(compiled.counters * 2));
  const chain = entry(compiled.words, Table.FILTER, Hook.FORWARD);
  const count = 64;
  const trace = udpTrace(count, 16);
  const packet = new Packet();
  return {
    name: `${rules.toLocaleString('en')} rules, the last one matches`,
    packets: count,
    run() {
      let check = 0;
      for (let i = 0; i < count; i++) {
        packet.parse(trace, i * SLOT, i * SLOT + 46);
        context.enter(Hook.FORWARD, 1, 2);
        check = (check * 31 + runChain(context, compiled.words, chain, packet)) | 0;
      }
      return check;
    },
  };
}

/** The whole way of a packet but the kernel: batches of the worker's size in slots like its own, over the device in memory. */
async function wholeWay(name: string, rules?: string): Promise<() => Case> {
  const links = [link(1, 'lo', 8, '127.0.0.1'), link(2, 'if0', 1, '192.168.73.1'), link(3, 'if1', 1, '128.61.70.47')];
  const backend = new MemoryBackend();
  if (rules !== undefined) await runIptables('iptables-restore', [], rules, backend);
  return () => {
    const device = new LoopbackDevice({ repeat: true });
    const interfaces = new Interfaces();
    interfaces.replace(links);
    const table = ConntrackTable.attach(ConntrackTable.create({ max: 4096, workers: 1, seed: 1 }), 0);
    const stats = new Float64Array(STAT_COUNT);
    const pipeline = new Pipeline({
      tracker: new Tracker(table),
      nat: new Nat(table),
      routes: new Routes(Fib.readerOf(links), interfaces),
      interfaces,
      device,
      stats,
      errorLimit: new ErrorLimit(),
      log: { log: nothing, nflog: nothing, trace: nothing, traceReturn: nothing },
      sets: NO_SETS,
      hz: 250,
      worker: 0,
    });
    const { words, regions, counters } = new Compiler(250).compile(backend.ruleset());
    pipeline.adopt(words, regions, new Float64Array(counters * 2));
    table.online();
    const batch = new Batch(BATCH, FULL_SLOT);
    const trace = udpTrace(BATCH, BATCH);
    for (let i = 0; i < BATCH; i++) {
      setU32(trace, i * SLOT + 12, ip('192.168.73.4'));
      setU32(trace, i * SLOT + 16, ip('128.61.70.100') + i);
      setU16(trace, i * SLOT + 26, 0x1234);
      device.give(trace.slice(i * SLOT, i * SLOT + 46), { hook: Hook.PREROUTING, indev: 2 });
    }
    let now = 1_000_000;
    return {
      name,
      packets: BATCH,
      run() {
        device.receive(batch, 0);
        // A flow lives as long as packets come; time goes on, but not so far that a run differs from the next.
        now = (now + 1) | 0;
        if (rules !== undefined) {
          pipeline.setTime(now, 0);
          table.edge(pipeline.now, 0);
          for (let i = 0; i < BATCH; i++) pipeline.visit(batch, i);
        }
        device.send(batch, BATCH);
        if (rules !== undefined) table.tidy(true);
        return stats[Stat.DROPPED]!;
      },
    };
  };
}

const link = (index: number, name: string, flags: number, address: string): Link => ({
  index,
  name,
  mtu: 1500,
  flags,
  mac: new Uint8Array(6),
  addresses: [
    { local: ip(address), address: ip(address), prefixLength: index === 1 ? 8 : 24, scope: 0, secondary: false },
  ],
});
const ip = (text: string): number => text.split('.').reduce((sum, part) => (sum << 8) | Number(part), 0);

const CASES: readonly (() => Case)[] = [
  parsing,
  () => summing(64),
  () => summing(1500),
  () => summing(65535),
  updating,
  () => tracking(1000),
  () => tracking(100_000),
  () => walking(10),
  () => walking(1000),
];

/** The device in memory alone, to be taken off the two behind it. */
const WAYS: readonly (readonly [name: string, rules?: string])[] = [
  ['the device in memory, 64 flows'],
  ["the whole way, article's filter, 64 flows", articleRules('filter')],
  ["the whole way, article's firewall and SNAT, 64 flows", articleRules('all')],
];

export interface CaseResult {
  readonly name: string;
  readonly nsPerPacket: number;
  readonly marginPercent: number;
  /** Bytes of garbage a packet, over some runs. */
  readonly heapPerPacket: number;
}

/** Bytes that the heap grows by a packet: 0 where nothing is allocated. */
function garbage({ run: handle, packets }: Case): number {
  const runs = 50;
  handle();
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < runs; i++) handle();
  return Math.max(0, process.memoryUsage().heapUsed - before) / (runs * packets);
}

export async function run(options: Options): Promise<readonly CaseResult[]> {
  const ways = await Promise.all(WAYS.map(([name, rules]) => wholeWay(name, rules)));
  // First, as in a worker, where nothing else has taught V8 other ways.
  const cases = [...ways, ...CASES].map((make) => make());
  const benches = cases.map((c) => {
    const expected = c.run();
    return benny.add(
      c.name,
      () => () => {
        if (c.run() !== expected) throw new Error(`${c.name}: another answer than the first time`);
      },
      { minSamples: 20, maxTime: options.seconds },
    );
  });
  // benny says on stdout that it begins, where JSON alone belongs.
  const { log } = console;
  if (options.json) console.log = console.error;
  const summary = await benny.suite('in process', ...benches);
  console.log = log;
  const results = cases.map((c, i) => {
    const { ops, margin } = summary.results[i]!;
    return { name: c.name, nsPerPacket: 1e9 / (ops * c.packets), marginPercent: margin, heapPerPacket: garbage(c) };
  });
  if (!options.json) {
    const rows = results.map((r) => [
      r.name,
      r.nsPerPacket.toFixed(1),
      `±${r.marginPercent.toFixed(1)} %`,
      r.heapPerPacket.toFixed(2),
    ]);
    console.log(table([['', 'ns a packet', '', 'heap bytes a packet'], ...rows]));
  }
  return results;
}
