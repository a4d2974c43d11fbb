/**
 * `bench load`: how long a rules file takes from text to enforced (every worker runs the new rules, walked where there is no
 * tree yet) and to its decision trees in place, beside iptables-legacy-restore of the same file. Each has a network
 * namespace of its own; times are those of the whole command, with its program's start. Both must then save the same
 * rules. Without --rules: seeded sets of the three classic shapes. Root.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ask } from '../src/control/cli/client.js';
import type { Status } from '../src/control/status.js';
import { generate, rulesText, SHAPES } from './classbench.js';
import type { Options } from './main.js';
import { Program, run as runProgram, sleep, until } from './net.js';
import { spread, table } from './stats.js';

const BIN = path.resolve(import.meta.dirname, '../bin');
const PATHS = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
const POLL_MS = 10;
const TREE_MS = 120_000;

/** Milliseconds; medians over the rounds. */
export interface Loaded {
  readonly rules: number;
  /** iptables-legacy-restore. */
  readonly legacyMs: number;
  /** hutter-iptables-restore into a router just started, to its exit: every worker runs the rules then. */
  readonly enforcedMs: number;
  /** From the same beginning until no larger chain lacks its tree. */
  readonly treeMs: number;
  /** Both once more, into the router that has the rules. */
  readonly reloadMs: number;
  readonly reloadTreeMs: number;
  /** `node -e 0`, which is part of hutter's times. */
  readonly nodeMs: number;
}

class Place {
  readonly name: string;

  constructor(what: string) {
    this.name = `hutter-load-${process.pid}-${what}`;
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
class Router {
  private constructor(
    private readonly place: Place,
    private readonly program: Program,
    private readonly control: string,
  ) {}

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
    return new Router(place, program, control);
  }

  client(name: string, args: readonly string[], input?: string): { stdout: string; ms: number } {
    const env = { ...process.env, HUTTER_CONTROL: this.control };
    return this.place.run(process.execPath, [path.join(BIN, `hutter-${name}.cjs`), ...args], input, env);
  }

  private status(): Promise<Status> {
    return new Promise((resolve, reject) => {
      let text = '';
      ask(
        this.control,
        { program: 'status', argv: ['--json'] },
        ({ stdout, stderr }) => (text += stdout ?? stderr ?? ''),
        (code) => {
          if (code === 0) resolve(JSON.parse(text) as Status);
          else reject(new Error(text));
        },
      );
    });
  }

  /** Loads the rules: milliseconds until they are enforced, and until their trees are there. */
  async load(rules: string): Promise<{ enforced: number; tree: number }> {
    const began = performance.now();
    const { ms } = this.client('iptables-restore', [], rules);
    for (;;) {
      const { trees } = await this.status();
      const now = performance.now() - began;
      if (trees.growing === 0) return { enforced: ms, tree: trees.grown === 0 ? ms : now };
      if (now > TREE_MS) throw new Error(`no tree within ${TREE_MS / 1000} s`);
      await sleep(POLL_MS);
    }
  }

  stop(): Promise<unknown> {
    return this.program.stop();
  }
}

/** A save without what differs from run to run: comments and counters. */
const ruleLines = (save: string): string => save.replace(/^#.*\n|\[\d+:\d+\]/gm, '');

async function loadFile(rules: string, rounds: number): Promise<Loaded> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hutter-load-'));
  const places: Place[] = [];
  const place = (what: string): Place => {
    const made = new Place(what);
    places.push(made);
    return made;
  };
  let router: Router | undefined;
  const times = { legacy: [], enforced: [], tree: [], reload: [], reloadTree: [], node: [] } as Record<
    string,
    number[]
  >;
  try {
    const kernel = place('legacy');
    for (let round = 0; round < rounds; round++) {
      times['legacy']!.push(kernel.run('iptables-legacy-restore', [], rules).ms);
      times['node']!.push(kernel.run(process.execPath, ['-e', '0']).ms);
      const own = place(`hutter${round}`);
      router = await Router.start(own, folder);
      const first = await router.load(rules);
      times['enforced']!.push(first.enforced);
      times['tree']!.push(first.tree);
      times['legacy']!.push(kernel.run('iptables-legacy-restore', [], rules).ms);
      const again = await router.load(rules);
      times['reload']!.push(again.enforced);
      times['reloadTree']!.push(again.tree);
      const saves = [kernel.run('iptables-legacy-save', []), router.client('iptables-save', [])];
      const [theirs, ours] = saves.map(({ stdout }) => ruleLines(stdout));
      if (theirs !== ours) throw new Error('hutter and iptables-legacy save other rules');
      await router.stop();
      router = undefined;
    }
  } finally {
    await router?.stop();
    for (const each of places) each.close();
    rmSync(folder, { recursive: true, force: true });
  }
  const median = (name: string): number => spread(times[name]!).median;
  return {
    rules: rules.match(/^(\[\d+:\d+\] )?-[AI] /gm)?.length ?? 0,
    legacyMs: median('legacy'),
    enforcedMs: median('enforced'),
    treeMs: median('tree'),
    reloadMs: median('reload'),
    reloadTreeMs: median('reloadTree'),
    nodeMs: median('node'),
  };
}

const HEAD = [
  'ms',
  'rules',
  'legacy',
  'enforced',
  'tree',
  'reload',
  'tree',
  'node -e 0',
  'enforced less node / legacy',
];

const row = (name: string, r: Loaded): string[] => [
  name,
  `${r.rules}`,
  ...[r.legacyMs, r.enforcedMs, r.treeMs, r.reloadMs, r.reloadTreeMs, r.nodeMs].map((ms) => ms.toFixed(0)),
  ((r.enforcedMs - r.nodeMs) / r.legacyMs).toFixed(1),
];

/** @throws Error when something is missing, or the two save other rules: no time is quoted then. */
export async function run(options: Options): Promise<unknown> {
  if (process.getuid?.() !== 0) throw new Error('bench load needs root: it makes network namespaces');
  for (const [command, whose] of [
    ['iptables-legacy-restore', 'iptables'],
    ['nsenter', 'util-linux'],
    ['ip', 'iproute2'],
  ] as const)
    if (!PATHS.some((folder) => existsSync(path.join(folder, command))))
      throw new Error(`bench load needs ${command}: install the package ${whose}`);
  const measure = async (name: string, rules: string): Promise<Loaded> => {
    const result = await loadFile(rules, options.pairs);
    if (!options.json) console.log(table([HEAD, row(name, result)]));
    return result;
  };
  if (options.rules !== undefined) {
    if (!existsSync(options.rules)) throw new Error(`no file ${options.rules}`);
    return measure(path.basename(options.rules), readFileSync(options.rules, 'latin1'));
  }
  const results: Record<string, Loaded> = {};
  for (const shape of SHAPES)
    for (const count of [1000, 10_000, 100_000]) {
      const name = `${shape} ${count}`;
      results[name] = await measure(name, rulesText(generate(shape, count, 0, count).filters));
    }
  return results;
}
