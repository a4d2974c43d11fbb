/** Network namespaces with one program each, and hutter running in one, for benches of the control plane. Root. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ask } from '../src/control/cli/client.js';
import type { Status } from '../src/control/status.js';
import { Program, run as runProgram, sleep, until } from './net.js';

const BIN = path.resolve(import.meta.dirname, '../bin');
const PATHS = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
const POLL_MS = 10;
const TREE_MS = 120_000;

/** @throws Error that names what `bench NAME` lacks: root, or a program and its package. */
export function need(bench: string, programs: readonly (readonly [program: string, debianPackage: string])[]): void {
  if (process.getuid?.() !== 0) throw new Error(`bench ${bench} needs root: it makes network namespaces`);
  for (const [command, whose] of programs)
    if (!PATHS.some((folder) => existsSync(path.join(folder, command))))
      throw new Error(`bench ${bench} needs ${command}: install the package ${whose}`);
}

/** A network namespace. */
export class Place {
  readonly name: string;

  constructor(what: string) {
    this.name = `hutter-${process.pid}-${what}`;
    runProgram('ip', ['netns', 'add', this.name]);
    runProgram('ip', ['-n', this.name, 'link', 'set', 'lo', 'up']);
  }

  words(command: string, args: readonly string[]): [string, string[]] {
    return ['nsenter', [`--net=/run/netns/${this.name}`, command, ...args]];
  }

  /** Runs a program to its end; its output and the milliseconds it took. @throws Error with what it wrote on stderr */
  run(command: string, args: readonly string[], input = '', env = process.env): { stdout: string; ms: number } {
    const [program, words] = this.words(command, args);
    const began = performance.now();
    try {
      const stdout = execFileSync(program, words, {
        encoding: 'latin1',
        input: Buffer.from(input, 'latin1'),
        env,
        maxBuffer: 1 << 30,
        stdio: 'pipe',
      });
      return { stdout, ms: performance.now() - began };
    } catch (error) {
      const { stderr } = error as { stderr?: string };
      throw new Error(`${command} ${args.join(' ')}: ${stderr?.trim() || (error as Error).message}`, { cause: error });
    }
  }

  close(): void {
    runProgram('ip', ['netns', 'delete', this.name]);
  }
}

/** A router in a place of its own. */
export class Router {
  private constructor(
    private readonly place: Place,
    private readonly program: Program,
    private readonly control: string,
    /** nsenter becomes hutter. */
    readonly pid: number,
  ) {}

  /** @param folder for its control socket and rules file */
  static async start(place: Place, folder: string): Promise<Router> {
    const control = path.join(folder, 'control');
    const empty = path.join(folder, 'empty');
    writeFileSync(empty, '*filter\nCOMMIT\n');
    const hutter = path.join(BIN, 'hutter.mjs');
    const args = [hutter, 'up', '--rules', empty, '--workers', '1', '--queue-base', '0', '--control', control];
    const child = spawn(...place.words(process.execPath, args), { stdio: ['ignore', 'pipe', 'pipe'] });
    const program = new Program('hutter up', child);
    await until('hutter to be up', () => program.stdout.includes('\n') || !program.running, 30_000);
    if (!program.running) throw new Error(`hutter up ended: ${program.lastWords}`);
    return new Router(place, program, control, child.pid!);
  }

  /** Runs one of hutter's clients. */
  client(name: string, args: readonly string[], input?: string): { stdout: string; ms: number } {
    const env = { ...process.env, HUTTER_CONTROL: this.control };
    return this.place.run(process.execPath, [path.join(BIN, `hutter-${name}.cjs`), ...args], input, env);
  }

  /** Asks at the control socket, as clients do; the answer's text. @throws Error with it where the exit code isn't 0 */
  ask(program: string, argv: string[]): Promise<string> {
    return new Promise((resolve, reject) => {
      let text = '';
      ask(
        this.control,
        { program, argv },
        ({ stdout, stderr }) => (text += stdout ?? stderr ?? ''),
        (code) => {
          if (code === 0) resolve(text);
          else reject(new Error(`${program} ${argv.join(' ')}: ${text.trim()}`));
        },
      );
    });
  }

  /** Resolves when no chain lacks its tree; whether there are any. */
  async grown(): Promise<boolean> {
    const began = performance.now();
    for (;;) {
      const { trees } = JSON.parse(await this.ask('status', ['--json'])) as Status;
      if (trees.growing === 0) return trees.grown > 0;
      if (performance.now() - began > TREE_MS) throw new Error(`no tree within ${TREE_MS / 1000} s`);
      await sleep(POLL_MS);
    }
  }

  /** Loads the rules: milliseconds until they are enforced, and until their trees are there. */
  async load(rules: string): Promise<{ enforced: number; tree: number }> {
    const began = performance.now();
    const { ms } = this.client('iptables-restore', [], rules);
    const trees = await this.grown();
    return { enforced: ms, tree: trees ? performance.now() - began : ms };
  }

  stop(): Promise<unknown> {
    return this.program.stop();
  }
}
