/**
 * Builds dist/ with esbuild. Two forms: every TypeScript file transpiled one by one into dist/{src,test,bench} (tests
 * and benches run these), and the programs bundled into dist/bin, where const enums and constants are inlined; the
 * dataplane's loops rely on that for speed. Type errors are `npm run typecheck`'s business.
 */
import { build } from 'esbuild';
import { chmodSync, existsSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(path.join(path.dirname(fileURLToPath(import.meta.url)), '..'));

const files = (dir) =>
  existsSync(dir)
    ? readdirSync(dir, { recursive: true })
        .map(String)
        .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
        .map((name) => path.join(dir, name))
    : [];

/** Programs: output under dist → entry. The iptables clients are CommonJS, which Node starts faster. */
const programs = {
  'bin/hutter.mjs': 'src/control/main.ts',
  'bin/worker.mjs': 'src/dataplane/worker.ts',
  'bin/tree-worker.mjs': 'src/control/compile/tree/worker.ts',
  'bin/lab-host.mjs': 'src/control/lab/host.ts',
  'bin/offline.js': 'src/control/cli/offline.ts',
  'bin/hutter-iptables.cjs': 'src/control/cli/iptables.ts',
  'bin/hutter-iptables-save.cjs': 'src/control/cli/iptables-save.ts',
  'bin/hutter-iptables-restore.cjs': 'src/control/cli/iptables-restore.ts',
  'bench/main.mjs': 'bench/main.ts',
  'bench/inprocess.mjs': 'bench/inprocess.ts',
  'bench/classify.mjs': 'bench/classify.ts',
  'bench/routes.mjs': 'bench/routes.ts',
  'bench/growth.mjs': 'bench/growth.ts',
  'bench/load.mjs': 'bench/load.ts',
};

rmSync('dist', { recursive: true, force: true });
const common = { platform: 'node', target: 'node20', logLevel: 'warning' };
const unbundled = build({
  ...common,
  entryPoints: [...files('src'), ...files('test'), ...files('bench')],
  outdir: 'dist',
  outbase: '.',
  format: 'esm',
  sourcemap: 'inline',
});
const bundles = Object.entries(programs)
  .filter(([, entry]) => existsSync(entry))
  .map(async ([output, entry]) => {
    const commonjs = output.endsWith('.cjs');
    await build({
      ...common,
      entryPoints: [{ in: entry, out: output.slice(0, -path.extname(output).length) }],
      outdir: 'dist',
      chunkNames: 'bin/[name]-[hash]',
      outExtension: { '.js': path.extname(output) },
      // What a subcommand doesn't need isn't loaded. The worker is one file, for its loops' sake.
      splitting: output === 'bin/hutter.mjs',
      bundle: true,
      format: commonjs ? 'cjs' : 'esm',
      packages: commonjs ? 'bundle' : 'external',
      // Loaded only when no router answers.
      external: commonjs ? ['./offline.js'] : [],
      minifySyntax: true,
      sourcemap: commonjs ? false : 'linked',
      banner: { js: '#!/usr/bin/env node' },
    });
    chmodSync(path.join('dist', output), 0o755);
  });
await Promise.all([unbundled, ...bundles]);
