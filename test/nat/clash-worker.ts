/** One of the threads of threads.test.ts: binds flows of its own to one address and puts them into the shared table. */
import { workerData } from 'node:worker_threads';
import { packPorts } from '../../src/dataplane/conntrack/key.js';
import { ConntrackTable, Insert } from '../../src/dataplane/conntrack/table.js';
import { Manip, Proto } from '../../src/dataplane/names.js';
import { Nat } from '../../src/dataplane/nat/bind.js';
import { RandomPorts, RangeFlag } from '../../src/dataplane/nat/range.js';
import { random } from './packets.js';

export interface ClashJob {
  table: SharedArrayBuffer;
  /** Words: meetings, clashes. */
  shared: SharedArrayBuffer;
  slot: number;
  threads: number;
  flows: number;
  address: number;
  minPort: number;
  maxPort: number;
}

const job = workerData as ClashJob;
const shared = new Int32Array(job.shared);
const table = ConntrackTable.attach(job.table, job.slot);
table.online();
table.edge(1000, 1);
/** For a flow's first attempt, the same random numbers in every thread: they choose the same port. */
function natOf(seed: number): Nat {
  const next = random(seed);
  return new Nat(
    table,
    new RandomPorts((numbers) => {
      for (let i = 0; i < numbers.length; i++) numbers[i] = next();
    }),
  );
}

/** Waits until every thread has come here as often. */
function meet(times: number): void {
  Atomics.add(shared, 0, 1);
  Atomics.notify(shared, 0);
  for (let n = Atomics.load(shared, 0); n < times * job.threads; n = Atomics.load(shared, 0))
    Atomics.wait(shared, 0, n, 100);
}

for (let i = 0; i < job.flows; i++) {
  for (let attempt = 0; ; attempt++) {
    const src = 0x0a000000 + job.slot * 0x10000 + i;
    const entry = table.create(src, 0x01020304, packPorts(5000, 53), Proto.UDP, 0, 0);
    if (entry < 0) throw new Error('table full');
    table.refresh(entry, 1_000_000);
    const flags = RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED;
    const nat = natOf(attempt === 0 ? i + 1 : (i + 1) * 1000 + attempt * 10 + job.slot);
    if (attempt === 0) meet(2 * i + 1);
    nat.bind(entry, Manip.SRC, flags, job.address, job.address, job.minPort, job.maxPort, 0);
    // All have chosen before the first inserts.
    if (attempt === 0) meet(2 * i + 2);
    if (table.insert(entry) === Insert.INSERTED) break;
    // The packet is dropped, its sender sends it again.
    Atomics.add(shared, 1, 1);
    table.discard(entry);
  }
  table.quiesce();
}
table.offline();
