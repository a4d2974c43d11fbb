/** Builds the C programs of bench/peers with the machine's compiler, when a source is newer than its program. */
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { run } from './net.js';

const SOURCES = path.resolve(import.meta.dirname, '../../bench/peers');
const PROGRAMS = path.resolve(import.meta.dirname, 'peers');

const modified = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** The path of the built program `name`. @throws Error with the compiler's words. */
export function peer(
  name: 'dir24' | 'nfq-accept' | 'nfq-rewrite' | 'syn-flood' | 'tun-loop' | 'udp-blast' | 'udp-ping' | 'udp-sink',
): string {
  const program = path.join(PROGRAMS, name);
  const newest = Math.max(
    ...readdirSync(SOURCES)
      .filter((file) => file === `${name}.c` || file.endsWith('.h'))
      .map((file) => modified(path.join(SOURCES, file))),
  );
  if (modified(program) <= newest) {
    mkdirSync(PROGRAMS, { recursive: true });
    const flags = ['-O2', '-std=gnu11', '-Wall', '-Wextra', '-fno-strict-aliasing'];
    run('cc', [...flags, '-o', program, path.join(SOURCES, `${name}.c`)]);
  }
  return program;
}
