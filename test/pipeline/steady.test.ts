import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import t from 'tap';

t.test('ten million packets leave the heap as it was', { timeout: 300_000 }, async (t) => {
  // Bundled as the worker is: what the compiler makes of the bundle is what must not allocate.
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-steady-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  const outfile = path.join(folder, 'steady.mjs');
  const options = { bundle: true, format: 'esm', platform: 'node', minifySyntax: true, logLevel: 'warning' } as const;
  await build({ entryPoints: ['test/pipeline/steady.ts'], outfile, ...options });
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', outfile]);
  const { grown, accepted, flows, nanoseconds } = JSON.parse(stdout) as Record<string, number>;
  t.comment(`${nanoseconds} ns of CPU a packet, the device's copying included`);
  t.equal(flows, 1000);
  t.ok(accepted! >= 11_000_000);
  // A byte in a hundred packets would be 100 kB; what remains is the compiler's and the collector's own.
  t.ok(grown! < 100_000, `the heap grew by ${grown} bytes`);
});
