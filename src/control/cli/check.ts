/**
 * `hutter check FILE`: what iptables-restore would say to a file, all of it, and what iptables-save would print then.
 * Offline and without root: no router is asked.
 */
import { readFileSync } from 'node:fs';
import { checkFile } from '../commands/checkfile.js';
import { type Config, ConfigError, LOCAL_NAME, loadConfig, reason } from '../config.js';
import { hostAddresses, hostNameOf } from '../keeper.js';
import type { Ruleset } from '../model.js';
import { readStdin, write } from './client.js';

export interface CheckOptions {
  /** Print what iptables-save would print. */
  save?: boolean;
  /** Print the program as text, trees included. */
  dump?: boolean;
  json?: boolean;
  /** A router's configuration, for its interfaces. */
  config?: string;
}

/** Findings go to stderr as `FILE:LINE:COLUMN: error: …`, or all to stdout as JSON. The exit code: 1 if one is an error. */
export async function check(file: string, options: CheckOptions): Promise<number> {
  let text: string;
  try {
    text = file === '-' ? readStdin() : readFileSync(file, 'latin1');
  } catch (error) {
    process.stderr.write(`hutter: can't read ${file}: ${reason(error)}\n`);
    return 1;
  }
  const names = { host: hostAddresses, hostName: hostNameOf };
  let interfaces: readonly string[] | undefined;
  try {
    if (options.config !== undefined) interfaces = interfacesOf(loadConfig(options.config));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const line of error.message.split('\n')) process.stderr.write(`hutter: ${line}\n`);
    return 1;
  }
  const { findings, saved, ruleset } = await checkFile(text, { names, unmet: true, interfaces });
  const ok = !findings.some(({ severity }) => severity === 'error');
  if (options.json) {
    // Texts of the language are bytes; JSON is characters.
    const decode = (bytes: string): string => Buffer.from(bytes, 'latin1').toString();
    const report = {
      file,
      ok,
      findings: findings.map((finding) => ({ ...finding, message: decode(finding.message) })),
      ...(options.save && ok && { saved: decode(saved) }),
    };
    process.stdout.write(JSON.stringify(report) + '\n');
    return ok ? 0 : 1;
  }
  const name = Buffer.from(file).toString('latin1');
  for (const { severity, line, column, message } of findings)
    write(2, `${name}:${line}:${column}: ${severity}: ${message}\n`);
  if (options.save && ok) write(1, saved);
  return ok && (!options.dump || (await printProgram(ruleset))) ? 0 : 1;
}

/** All interfaces that packets come and go by; undefined with the kernel's, which come and go. `lo` has no packets on TUN. */
function interfacesOf({ device, interfaces, local }: Config): string[] | undefined {
  const names = Object.keys(interfaces).filter((name) => name !== 'lo');
  if (device === 'nfqueue' || names.length === 0) return undefined;
  return local === true ? [...names, LOCAL_NAME] : names;
}

/** False, with the reason on stderr, where a rule can't be compiled. */
async function printProgram(ruleset: Ruleset): Promise<boolean> {
  const { CompileError, Compiler } = await import('../compile/index.js');
  const { kernelHz } = await import('../host.js');
  const { dump } = await import('../../dataplane/program/dump.js');
  const compiler = new Compiler(kernelHz());
  try {
    compiler.release(compiler.compile(ruleset));
    compiler.growTrees();
    const { words, regions } = compiler.compile(ruleset);
    process.stdout.write(dump(words, regions));
    return true;
  } catch (error) {
    if (!(error instanceof CompileError)) throw error;
    process.stderr.write(`hutter: ${error.message}\n`);
    return false;
  }
}
