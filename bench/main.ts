/**
 * `npm run bench -- SCENARIO [options]`, or `hutter bench`: one command for every bench. A scenario is a line of SCENARIOS; it gets the
 * rest of the command line and returns what it measured, which --json prints. All compare within one run, interleaved,
 * and check what came out before they quote how fast it was.
 */
import { existsSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

export interface Options {
  /** Seconds a measurement. */
  readonly seconds: number;
  /** Interleaved rounds. */
  readonly pairs: number;
  /** Hosts that the stream of `nfqueue` goes to; one, then 64, by default. */
  readonly flows?: number | undefined;
  /** Contenders that take part; undefined = all. */
  readonly only?: RegExp | undefined;
  /** Whether progress and tables may be written to stdout. */
  readonly json: boolean;
  /** Files of ClassBench, and whether their answers are checked against a walk. */
  readonly filters?: string | undefined;
  readonly trace?: string | undefined;
  readonly verify?: boolean;
  /** A file in iptables-save format. */
  readonly rules?: string | undefined;
}

export interface Scenario {
  readonly summary: string;
  /** Makes namespaces, and packets for the kernel. */
  readonly root?: true;
  /** Needs what comes with the sources only. */
  readonly sources?: true;
  readonly load: () => Promise<{ run: (options: Options) => Promise<unknown> }>;
}

/** Benches of the hot loops are bundled like the programs; the compiler knows them by their sources only. */
const bundled = (file: string) => async (): Promise<typeof import('./inprocess.js')> =>
  (await import(new URL(file, import.meta.url).href)) as typeof import('./inprocess.js');

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  nfqueue: {
    summary: 'packets a second through the kernel, C loops, npm nfqueue and hutter',
    root: true,
    sources: true,
    load: () => import('./nfqueue.js'),
  },
  rules: {
    summary: 'packets a second at 0 to 10,000 rules, beside iptables-legacy and -nft',
    root: true,
    load: () => import('./rules.js'),
  },
  bulk: {
    summary: 'TCP through filter and SNAT with segmentation offload (iperf3)',
    root: true,
    load: () => import('./bulk.js'),
  },
  tun: {
    summary: 'packets a second and TCP between TUN interfaces, beside a C loop (iperf3)',
    root: true,
    load: () => import('./tun.js'),
  },
  flows: { summary: 'new UDP flows a second with MASQUERADE', root: true, load: () => import('./flows.js') },
  million: { summary: 'a million live flows, and a SYN flood', root: true, load: () => import('./million.js') },
  latency: { summary: 'round trips of UDP under light load', root: true, load: () => import('./latency.js') },
  classify: { summary: 'decision trees over filter sets, beside rte_acl', load: bundled('classify.mjs') },
  routes: {
    summary: 'lookups in a table of a million prefixes, beside DIR-24-8 in C',
    sources: true,
    load: bundled('routes.mjs'),
  },
  load: {
    summary: 'a rules file to enforced and to its trees, beside iptables-legacy-restore',
    root: true,
    load: bundled('load.mjs'),
  },
  growth: {
    summary: 'what a command costs the daemon whose chain has 10,000 rules',
    root: true,
    load: bundled('growth.mjs'),
  },
  inprocess: {
    summary: 'parsing, checksums and rule walking without a kernel',
    sources: true,
    load: bundled('inprocess.mjs'),
  },
};

const usage = (): string =>
  [
    'usage: hutter bench SCENARIO [--seconds S] [--pairs N] [--flows N] [--only REGEXP] [--json]',
    '       hutter bench classify [--filters FILE --trace FILE] [--verify] [--json]   ClassBench files, plain or .gz',
    '       hutter bench load [--rules FILE] [--json]                                 a file in iptables-save format',
    ...Object.entries(SCENARIOS).map(
      ([name, { summary, root }]) => `  ${name.padEnd(10)} ${summary}${root === true ? ' (root)' : ''}`,
    ),
  ].join('\n');

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '3' },
      pairs: { type: 'string', default: '5' },
      flows: { type: 'string' },
      only: { type: 'string' },
      json: { type: 'boolean', default: false },
      filters: { type: 'string' },
      trace: { type: 'string' },
      verify: { type: 'boolean', default: false },
      rules: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    console.log(usage());
    return 0;
  }
  const name = positionals[0] ?? '';
  const scenario = Object.hasOwn(SCENARIOS, name) ? SCENARIOS[name] : undefined;
  const options = {
    seconds: Number(values.seconds),
    pairs: Number(values.pairs),
    flows: values.flows === undefined ? undefined : Number(values.flows),
    only: values.only === undefined ? undefined : new RegExp(values.only),
    json: values.json,
    filters: values.filters,
    trace: values.trace,
    verify: values.verify,
    rules: values.rules,
  };
  if (scenario === undefined || positionals.length > 1) {
    console.error(usage());
    return 2;
  }
  for (const key of ['seconds', 'pairs', 'flows'] as const) {
    if (options[key] === undefined || options[key] > 0) continue;
    console.error(`--${key} ${values[key]}: a number above 0 is needed`);
    return 2;
  }
  if (scenario.root && process.getuid?.() !== 0)
    throw new Error(`bench ${name} makes network namespaces: run it as root`);
  if (scenario.sources && !existsSync(path.resolve(import.meta.dirname, '../../bench/main.ts')))
    throw new Error(`bench ${name} needs the sources: clone the repository and run npm run bench -- ${name}`);
  const result = await (await scenario.load()).run(options);
  if (options.json) {
    const machine = {
      kernel: release(),
      node: process.version,
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: availableParallelism(),
    };
    // One file or pair of files: its figures stand on top.
    const single = options.filters !== undefined || options.rules !== undefined;
    const figures = single ? (result as object) : { result };
    console.log(JSON.stringify({ scenario: name, options, machine, ...figures }, null, 2));
  }
  return 0;
}

process.exitCode = await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  return 1;
});
