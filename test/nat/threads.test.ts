import { Worker } from 'node:worker_threads';
import t from 'tap';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Dir } from '../../src/dataplane/names.js';
import type { ClashJob } from './clash-worker.js';
import { ip } from './packets.js';

t.test('threads that choose the same ports at once: every flow gets its own', async (t) => {
  const threads = 2;
  const flows = 100;
  const shared = new SharedArrayBuffer(8);
  const buffer = ConntrackTable.create({ max: 4096, workers: threads, seed: 5 });
  await Promise.all(
    Array.from({ length: threads }, (_, slot) => {
      const workerData: ClashJob = {
        table: buffer,
        shared,
        slot,
        threads,
        flows,
        address: ip('128.61.70.47'),
        minPort: 2000,
        maxPort: 2999,
      };
      return new Promise<void>((resolve, reject) => {
        const worker = new Worker(new URL('clash-worker.js', import.meta.url), { workerData });
        worker.on('error', reject);
        worker.on('exit', (code) => {
          if (code === 0) resolve();
          else reject(new Error(`thread ended with ${code}`));
        });
      });
    }),
  );
  const table = ConntrackTable.attach(buffer, threads);
  table.online();
  table.edge(2000, 2);
  const replies = new Set<string>();
  const sources = new Set<number>();
  let connections = 0;
  for (let entry = table.next(-1); entry >= 0; entry = table.next(entry)) {
    connections++;
    const port = table.ports(entry, Dir.REPLY) & 0xffff;
    if (port < 2000 || port > 2999) t.fail(`port ${port}`);
    replies.add(`${table.src(entry, Dir.REPLY)} ${table.dst(entry, Dir.REPLY)} ${table.ports(entry, Dir.REPLY)}`);
    sources.add(table.src(entry, Dir.ORIGINAL));
  }
  t.equal(connections, threads * flows);
  t.equal(replies.size, connections, 'no two connections have one reply tuple');
  t.equal(sources.size, connections);
  const clashes = new Int32Array(shared)[1]!;
  t.ok(clashes > flows / 2, `${clashes} clashes in ${flows} meetings`);
  table.offline();
});
