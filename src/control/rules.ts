/**
 * The rules file of `up`, `check` and others: read as iptables-restore reads it, into a ruleset in memory. Nothing of the
 * running router is touched.
 */
import { readFileSync } from 'node:fs';
import { MemoryBackend } from './commands/backend.js';
import { runIptables } from './commands/run.js';
import { reason } from './config.js';
import { hostAddresses, hostNameOf } from './keeper.js';
import { EMPTY_RULESET, type Ruleset } from './model.js';

/** iptables-restore would have refused the file: its text (a byte string) and exit code. */
export class RulesRefused extends Error {
  override readonly name = 'RulesRefused';
  constructor(
    text: string,
    readonly code: number,
  ) {
    super(text);
  }
}

/** In memory, but with the system's host names. */
class FileBackend extends MemoryBackend {
  override host(name: string): Promise<readonly number[] | string> {
    return hostAddresses(name);
  }
  override hostName(address: number): Promise<string | undefined> {
    return hostNameOf(address);
  }
}

/** The ruleset in `file`; the empty one without a file. @throws RulesRefused */
export async function loadRules(file: string | undefined): Promise<Ruleset> {
  if (file === undefined) return EMPTY_RULESET;
  let text: string;
  try {
    text = readFileSync(file, 'latin1');
  } catch (error) {
    throw new RulesRefused(Buffer.from(`hutter: can't read ${file}: ${reason(error)}\n`).toString('latin1'), 1);
  }
  const backend = new FileBackend();
  const { code, stderr } = await runIptables('iptables-restore', [], text, backend);
  if (code !== 0) {
    const hint = `hutter: the rules are those of ${file}; \`hutter check\` on it shows every mistake with its place\n`;
    throw new RulesRefused(stderr + Buffer.from(hint).toString('latin1'), code);
  }
  if (stderr !== '') process.stderr.write(stderr, 'latin1');
  return backend.ruleset();
}
