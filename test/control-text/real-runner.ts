/** Runs cases with iptables-legacy in the namespace it was started in; see real.ts. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Outcome, Step } from './real.js';

const FRESH = '*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n';
const POLICIES: readonly (readonly [string, readonly string[]])[] = [
  ['filter', ['INPUT', 'FORWARD', 'OUTPUT']],
  ['mangle', ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']],
  ['nat', ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING']],
  ['raw', ['PREROUTING', 'OUTPUT']],
];
const RESET = POLICIES.map(
  ([table, chains]) => `*${table}\n${chains.map((chain) => `:${chain} ACCEPT\n`).join('')}COMMIT\n`,
).join('');

function run(step: Step): Outcome {
  const argv0 = step.program;
  const file = `/usr/sbin/${step.program.replace('iptables', 'iptables-legacy')}`;
  const done = spawnSync(
    file,
    step.argv.map((arg) => Buffer.from(arg, 'latin1').toString('utf8')),
    {
      argv0,
      input: Buffer.from(step.stdin ?? '', 'latin1'),
      env: { ...process.env, TZ: 'UTC' },
    },
  );
  return {
    code: done.status ?? -1,
    stdout: done.stdout.toString('latin1'),
    stderr: done.stderr.toString('latin1'),
  };
}

// For -m set and -j SET: a set to name.
const created = spawnSync('ipset', ['create', 'hutter', 'hash:ip,port,ip', 'counters'], { encoding: 'utf8' });
if (created.status !== 0) throw new Error(`ipset create: ${created.error?.message ?? created.stderr}`);
const cases = JSON.parse(readFileSync(0, 'utf8')) as Step[][];
const reset: Step = { program: 'iptables-restore', argv: [], stdin: RESET };
if (run({ ...reset, stdin: FRESH }).code !== 0) throw new Error('iptables-legacy-restore does not work here');
const outcomes = cases.map((steps) => {
  run(reset);
  return steps.map(run);
});
process.stdout.write(JSON.stringify(outcomes));
