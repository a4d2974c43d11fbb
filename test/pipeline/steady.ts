/**
 * Ten million packets of established connections through the article's firewall, in a process of its own with the
 * collector at hand (node --expose-gc). Prints as JSON how far the heap grew and what became of the packets.
 */
import { NO_SETS } from '../../src/dataplane/io/ipset.js';
import { readFileSync } from 'node:fs';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { runIptables } from '../../src/control/commands/run.js';
import { Compiler } from '../../src/control/compile/index.js';
import { ErrorLimit } from '../../src/dataplane/answer.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Tracker } from '../../src/dataplane/conntrack/track.js';
import { Interfaces } from '../../src/dataplane/interfaces.js';
import { Batch, FULL_SLOT } from '../../src/dataplane/io/batch.js';
import { LoopbackDevice } from '../../src/dataplane/io/loopback.js';
import { Hook, Proto } from '../../src/dataplane/names.js';
import { Nat } from '../../src/dataplane/nat/bind.js';
import { Pipeline } from '../../src/dataplane/pipeline.js';
import { Routes } from '../../src/dataplane/route/routes.js';
import { Fib } from '../../src/dataplane/route/fib.js';
import { Stat, STAT_COUNT } from '../../src/dataplane/shared.js';
import { ip, packetBytes } from '../nat/packets.js';
import { IF0, KNOCK, LINKS } from './world.js';

const PACKETS = Number(process.argv[2] ?? 10_000_000);
const FLOWS = 1000;

const backend = new MemoryBackend();
await runIptables('iptables-restore', [], readFileSync('examples/simple-firewall.rules', 'utf8'), backend);
const compiled = new Compiler(1000).compile(backend.ruleset());
const interfaces = new Interfaces();
interfaces.replace(LINKS);
const table = ConntrackTable.attach(ConntrackTable.create({ max: 4096, workers: 1 }), 0);
const device = new LoopbackDevice({ repeat: true });
const stats = new Float64Array(STAT_COUNT);
const pipeline = new Pipeline({
  tracker: new Tracker(table),
  nat: new Nat(table),
  routes: new Routes(Fib.readerOf(LINKS), interfaces),
  interfaces,
  device,
  stats,
  errorLimit: new ErrorLimit(),
  log: { log: () => undefined, nflog: () => undefined, trace: () => undefined, traceReturn: () => undefined },
  sets: NO_SETS,
  hz: 1000,
  worker: 0,
});
pipeline.adopt(compiled.words, compiled.regions, new Float64Array(compiled.counters * 2));
for (let flow = 0; flow < FLOWS; flow++) {
  const src = ip('192.168.73.5') + (flow % 200);
  const frame = packetBytes({ protocol: Proto.UDP, src, dst: ip(KNOCK), sport: 1024 + flow, dport: 53 });
  device.give(frame, { hook: Hook.PREROUTING, indev: IF0 });
}

const batch = new Batch(64, FULL_SLOT);
table.online();
function run(packets: number): void {
  for (let done = 0; done < packets;) {
    const count = device.receive(batch, 0);
    pipeline.setTime(performance.now(), 0);
    table.edge(pipeline.now, 0);
    for (let i = 0; i < count; i++) pipeline.visit(batch, i);
    device.send(batch, count);
    table.tidy(count === 64);
    done += count;
  }
}
function heap(): number {
  globalThis.gc!();
  return process.memoryUsage().heapUsed;
}

run(PACKETS / 10);
const before = heap();
const cpu = process.cpuUsage();
run(PACKETS);
const used = process.cpuUsage(cpu);
const grown = heap() - before;
const nanoseconds = Math.round(((used.user + used.system) * 1000) / PACKETS);
process.stdout.write(JSON.stringify({ grown, nanoseconds, accepted: stats[Stat.ACCEPTED], flows: table.total() }));
