/**
 * The command `hutter`. Clients of a running router (iptables and its like, conntrack, status) are dispatched before
 * anything is loaded, for they must start fast; every other subcommand loads its module when it is asked for.
 *
 * Exit codes: 0 done; 1 it failed; 2 wrong usage; 4 no router answers. The iptables commands have iptables' own.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import type * as Programs from './cli/programs.js';
import type { LabOptions } from './lab/index.js';
import type { ReplayOptions } from './replay.js';

const [, , name = ''] = process.argv;

/** The commands that only ask the running router. */
const CLIENTS: Readonly<Record<string, keyof typeof Programs>> = {
  iptables: 'iptables',
  'iptables-save': 'iptablesSave',
  'iptables-restore': 'iptablesRestore',
  conntrack: 'conntrack',
  recent: 'recent',
  sysctl: 'sysctl',
  status: 'status',
  route: 'route',
  rule: 'rule',
};

const client = CLIENTS[name];
// Its options are commander's to tell.
const statusHelp = name === 'status' && process.argv.slice(3).some((arg) => arg === '-h' || arg === '--help');
if (!statusHelp && client !== undefined) {
  const [{ byteArguments }, programs] = await Promise.all([import('./cli/client.js'), import('./cli/programs.js')]);
  programs[client](byteArguments(3));
} else await main();

/** Of the package, which is above this module both in dist/src and in the bundles of dist/bin. */
function version(): string {
  for (let folder = path.dirname(fileURLToPath(import.meta.url)); ; folder = path.dirname(folder)) {
    try {
      return (JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')) as { version: string }).version;
    } catch {
      if (folder === path.dirname(folder)) return 'unknown';
    }
  }
}

/** Runs the benches in a process of their own. */
function bench(args: readonly string[]): number {
  const file = path.join(path.dirname(fileURLToPath(import.meta.url)), '../bench/main.mjs');
  if (!existsSync(file)) {
    process.stderr.write(`hutter: no benches at ${file}: npm run build makes them\n`);
    return 1;
  }
  return spawnSync(process.execPath, [file, ...args], { stdio: 'inherit' }).status ?? 1;
}

/** Whoever read the output has gone (`| head`): ends as the tools do. */
function endWithReader(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(141);
  });
}

async function main(): Promise<void> {
  // These two have namespaces and rules to put back, and go on.
  if (name === 'up' || name === 'lab') process.stdout.on('error', () => undefined);
  else endWithReader();
  const { Command, CommanderError, InvalidArgumentError, Option } = await import('commander');

  const integer =
    (least: number, most: number) =>
    (text: string): number => {
      const value = Number(text);
      if (!/^\d+$/.test(text) || value < least || value > most)
        throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
      return value;
    };
  const list = (text: string): string[] => text.split(',').filter((item) => item !== '');

  const program: Command = new Command('hutter')
    .description('A packet-processing router for Linux that speaks iptables')
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'hutter: ')) })
    .showSuggestionAfterError(true)
    .showHelpAfterError('Try `hutter --help`, or --help behind a command.')
    .helpCommand('help [command]', 'display help for command');

  const setExitCode = (code: number): void => void (process.exitCode = code);

  program
    .command('up')
    .description('run the router in the foreground, until Ctrl-C or SIGTERM')
    .option('--rules <file>', 'rules in iptables-save format')
    .option('--config <file>', 'configuration (YAML); options given here win over it')
    .addOption(new Option('--device <kind>', 'where packets come from').choices(['nfqueue', 'tun']))
    .option('--workers <n>', 'dataplane threads, each with a queue of its own', integer(1, 61))
    .option('--queue-base <n>', 'number of the first queue', integer(0, 65_535))
    .option('--queue-length <n>', 'packets that may wait in each queue', integer(1, 1_048_576))
    .option(
      '--busy-poll <us>',
      'microseconds that a worker looks for the next packet before it sleeps',
      integer(0, 1000),
    )
    .addOption(
      new Option(
        '--fanout <how>',
        'whose queue a packet goes to: by its pair of hosts, or the core it comes in on',
      ).choices(['hosts', 'cpu']),
    )
    .option('--control <path>', 'control socket (also HUTTER_CONTROL)')
    .addOption(
      new Option('--fail <how>', 'when a queue is full or hutter is gone: drop, or pass unfiltered').choices([
        'open',
        'closed',
      ]),
    )
    .option('--keep <list>', 'leave undiverted: interfaces, and services of the router such as tcp/22', list)
    .option('--log <file>', 'where LOG lines go, - for stderr')
    .option('--connections <n>', 'connections tracked at most', integer(64, 8_000_000))
    .option(
      '--helpers <list>',
      'connection helpers on their ports: ftp, tftp, irc, netbios-ns, snmp, amanda, sane, pptp, ftp:2121',
      list,
    )
    .action(async (options: Record<string, unknown>) => {
      setExitCode(await (await import('./up.js')).up(options, version()));
    });

  program
    .command('down')
    .description('undo what a crashed run left: diversion rules, sysctls')
    .action(async () => setExitCode((await import('./down.js')).down()));

  program
    .command('lab')
    .description("the article's network in namespaces, its firewall checked with real traffic and shown at work")
    .option('--once', 'end after the checks; the exit code tells')
    .addOption(new Option('--device <kind>', 'where packets come from').choices(['nfqueue', 'tun']))
    .option('--workers <n>', 'dataplane threads', integer(1, 61))
    .action(async (options: LabOptions) => setExitCode(await (await import('./lab/index.js')).runLab(options)));

  program
    .command('check')
    .description('look at a rules file without a router: every mistake, with its place')
    .argument('<file>', 'rules in iptables-save format, - for stdin')
    .option('--config <file>', "a router's configuration (YAML): warn of rules about interfaces that it lacks, too")
    .option('--save', 'print what iptables-save would print')
    .option('--dump', 'print the program that the rules are compiled to, with its decision trees')
    .option('--json', 'print the findings as JSON')
    .action(async (file: string, options: { config?: string; save?: boolean; dump?: boolean; json?: boolean }) => {
      setExitCode(await (await import('./cli/check.js')).check(file, options));
    });

  program
    .command('explain')
    .description("which rules a packet meets, and its fate: 'in=if0 src=192.168.73.4 dst=8.8.8.8 proto=tcp dport=80'")
    .argument('<packet...>', 'KEY=VALUE words: in, out, src, dst, proto, sport, dport, flags, type, code, tos, ttl, …')
    .option('--rules <file>', 'rules in iptables-save format')
    .option('--config <file>', 'interfaces and routes (YAML); without it the packet names its interfaces')
    .option('--json', 'print the way as JSON')
    .action(async (packet: string[], options: { rules?: string; config?: string; json?: boolean }) => {
      setExitCode(await (await import('./explain.js')).explain(packet, options));
    });

  program
    .command('replay')
    .description('captures through the rules, as if the router had stood there; what leaves becomes captures')
    .requiredOption('--config <file>', 'interfaces and routes (YAML)')
    .requiredOption(
      '--in <dev=file...>',
      'a capture (pcap or pcapng) of what came in by an interface; several are merged by time',
    )
    .requiredOption('--out <folder>', 'where the captures of what leaves go, a file an interface')
    .option('--rules <file>', 'rules in iptables-save format')
    .addOption(new Option('--format <kind>', 'of the captures written').choices(['pcap', 'pcapng']))
    .option('--why', 'list each dropped packet with the rule that dropped it, and its line')
    .option('--json', 'print the report as JSON')
    .action(async (options: ReplayOptions) => {
      setExitCode(await (await import('./replay.js')).replay(options));
    });

  program
    .command('bench')
    .description('measure; `hutter bench` alone lists the scenarios')
    .argument('[args...]')
    .allowUnknownOption()
    .helpOption(false)
    .action((args: string[]) => setExitCode(bench(args)));

  // Listed for --help; dispatched above.
  const asks = (usage: string, description: string): void => {
    program
      .command(usage)
      .description(description)
      .allowUnknownOption()
      .helpOption(false)
      .action(() => undefined);
  };
  program
    .command('status')
    .description('what the running router does')
    .option('--json', 'print it as JSON')
    .option('--control <path>', 'control socket (also HUTTER_CONTROL)')
    .action(() => undefined);
  asks('iptables [args...]', "iptables' commands on the running router; also iptables-save and iptables-restore");
  asks('conntrack [args...]', "conntrack's commands on the running router");
  asks('recent [LIST] [+address|-address|/]', 'the lists of -m recent, as /proc/net/xt_recent has them');
  asks('sysctl [args...]', "sysctl's commands on the running router's connection tracking");
  asks('route [args...]', "ip route's commands on a running router's own routes (--device tun); also rule, as ip rule");

  try {
    await program.parseAsync();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version were asked for; all else is wrong usage.
    setExitCode(error.exitCode === 0 ? 0 : 2);
  }
}
