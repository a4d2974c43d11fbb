/**
 * The judge: iptables-legacy in a network namespace of its own. Cases run one after another in one process that unshares
 * first (real-runner.ts), each on empty tables, and what the tool printed comes back with its exit codes.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** One command: a program's arguments, and a file for iptables-restore. */
export interface Step {
  readonly program: 'iptables' | 'iptables-save' | 'iptables-restore';
  readonly argv: readonly string[];
  readonly stdin?: string;
}
/** What a command printed, byte strings, and its exit code. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export const LEGACY = '/usr/sbin/iptables-legacy';

/** Why the judge can't sit; undefined if it can. */
export function noJudge(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root: the real iptables judges in a network namespace';
  if (!existsSync(LEGACY)) return `needs ${LEGACY}`;
  return undefined;
}

/** Each case's steps, one after another from empty tables, as the real tool does them. */
export function runReal(cases: readonly (readonly Step[])[]): Outcome[][] {
  const runner = fileURLToPath(new URL('real-runner.js', import.meta.url));
  const done = spawnSync('unshare', ['-n', process.execPath, runner], {
    input: JSON.stringify(cases),
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  if (done.status !== 0) throw new Error(`the judge failed: ${done.stderr}`);
  return JSON.parse(done.stdout) as Outcome[][];
}

/** The same text with the time of day taken out of iptables-save's comments. */
export const timeless = (text: string): string => text.replace(/^(# (?:Generated|Completed).* on ).*$/gm, '$1now');
