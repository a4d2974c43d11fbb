/**
 * The running whole: diversion, workers, ruleset, control socket, and what watches the host beside them. Made by
 * `start`, which undoes everything when a step fails; ended by `stop`.
 */
import { Monitor, Notice, Rtnetlink } from '../dataplane/io/rtnetlink.js';
import { runIptables } from './commands/run.js';
import type { Program } from './commands/session.js';
import { runConntrack } from './conntrack.js';
import { Diversion, runningRouter } from './divert.js';
import { examineHost, kernelHz } from './host.js';
import { Keeper } from './keeper.js';
import { formatLogRecord, type LogInterface, openLog } from './log.js';
import type { Ruleset } from './model.js';
import { Router } from './router.js';
import { byteString, claimSocket, ControlServer, type Reply } from './server.js';
import type { Settings } from './settings.js';
import { formatStatus, RateSampler, readQueues, type Status, statusOfStats, unhandled } from './status.js';
import type { Request } from './cli/client.js';

/** The host isn't fit; one sentence a line. */
export class HostError extends Error {
  override readonly name = 'HostError';
}

const say = (text: string): void => void process.stderr.write(`hutter: ${text}\n`);

export class Daemon {
  private readonly started = performance.now();
  private readonly monitor = new Monitor();
  private readonly rates: RateSampler;
  private server: ControlServer | undefined;
  private stopped = false;

  private constructor(
    private readonly settings: Settings,
    private readonly version: string,
    private readonly keeper: Keeper,
    private readonly diversion: Diversion,
    private readonly router: Router,
    private readonly kernel: Rtnetlink,
    private readonly onLinks: (links: Map<number, LogInterface>) => void,
  ) {
    this.rates = new RateSampler(() => router.totals());
  }

  /** @throws HostError, DivertError, ControlError, CompileError: nothing is left behind. */
  static async start(settings: Settings, ruleset: Ruleset, version: string): Promise<Daemon> {
    const { queueBase, workers, keep, control } = settings;
    const running = runningRouter();
    if (running !== undefined)
      throw new HostError(`a router runs in this network namespace already (pid ${running.pid}, ${running.control})`);
    const findings = examineHost(settings);
    const refusals = findings.filter(({ level }) => level === 'refuse');
    if (refusals.length > 0) throw new HostError(refusals.map(({ text }) => text).join('\n'));
    for (const { text } of findings) say(`warning: ${text}`);
    await claimSocket(control);

    const hz = kernelHz();
    const keeper = new Keeper(ruleset, hz, (connections) => diversion.update({ connections }));
    const failOpen = settings.fail === 'open';
    const { connections } = keeper.program;
    const diversion = new Diversion({ queueBase, workers, failOpen, keep, connections }, control);
    let router: Router | undefined;
    try {
      const log = openLog(settings.log);
      const kernel = new Rtnetlink();
      let links = readLinks(kernel);
      router = await Router.start(
        {
          workers,
          queueBase,
          queueLength: settings.queueLength,
          failOpen,
          connections: settings.connections,
          strictReversePath: strictIndexes(diversion, links),
          helpers: settings.helpers,
          hz,
          onLog: (record) => log(formatLogRecord(record, (ifindex) => links.get(ifindex))),
          onTrouble: say,
        },
        keeper.program,
      );
      keeper.attach(router);
      const daemon = new Daemon(settings, version, keeper, diversion, router, kernel, (fresh) => (links = fresh));
      daemon.watch();
      diversion.install();
      daemon.server = await ControlServer.listen(control, (request, reply) => daemon.serve(request, reply));
      return daemon;
    } catch (error) {
      diversion.stop();
      await router?.stop();
      throw error;
    }
  }

  /** What `up` prints when packets flow. */
  greeting(): string {
    const { workers, queueBase, control, fail } = this.settings;
    const queues = workers === 1 ? `queue ${queueBase}` : `queues ${queueBase} to ${queueBase + workers - 1}`;
    return `hutter ${this.version} is up: ${workers} worker${workers === 1 ? '' : 's'}, ${queues}, fail ${fail}, control ${control}\n`;
  }

  /** Reads links now and after each notice about them; tells the workers what changed. */
  private watch(): void {
    this.router.setPolicyRouting(usesPolicyRouting(this.kernel));
    this.monitor.watch((notices) => {
      try {
        this.followHost(notices);
      } catch (error) {
        say(`after a change of interfaces or routes: ${(error as Error).message}`);
      }
    });
  }

  private followHost(notices: number): void {
    const { router, diversion, kernel } = this;
    router.setPolicyRouting(usesPolicyRouting(kernel));
    if ((notices & (Notice.LINK | Notice.ADDRESS | Notice.NETCONF | Notice.OVERRUN)) === 0) {
      router.routesChanged();
      return;
    }
    const links = readLinks(kernel);
    this.onLinks(links);
    router.linksChanged();
    if (!diversion.adoptInterfaces()) return;
    diversion.update();
    router.setStrictReversePath(strictIndexes(diversion, links)).catch((error: unknown) => {
      say((error as Error).message);
    });
  }

  private async serve(request: Request, reply: Reply): Promise<number> {
    switch (request.program) {
      case 'iptables':
      case 'iptables-save':
      case 'iptables-restore':
        return this.iptables(request.program, request, reply);
      case 'conntrack':
        return this.conntrack(request.argv, reply);
      case 'status':
        return this.status(request.argv, reply);
      default:
        if (request.program === 'fail-worker' && process.env['HUTTER_TEST_FAULTS'] === '1') {
          this.router.failWorker(Number(request.argv[0]), this.router.table.next(-1));
          return 0;
        }
        reply.write({ stderr: byteString(`hutter: the router doesn't know \`${request.program}'\n`) });
        return 2;
    }
  }

  private async iptables(program: Program, { argv, stdin = '' }: Request, reply: Reply): Promise<number> {
    const { code, stdout, stderr, log } = await runIptables(program, argv, stdin, this.keeper);
    reply.write({ stdout, stderr });
    // The kernel's log would have it.
    for (const line of log) say(`${program}: ${line}`);
    return code;
  }

  private status(argv: readonly string[], reply: Reply): number {
    const json = argv.includes('--json');
    const unknown = argv.find((arg) => arg !== '--json');
    if (unknown !== undefined) {
      reply.write({ stderr: `hutter: status knows --json, not \`${unknown}'\n` });
      return 2;
    }
    const status = this.describe();
    reply.write({ stdout: byteString(json ? JSON.stringify(status) + '\n' : formatStatus(status)) });
    return 0;
  }

  private describe(): Status {
    const { settings, keeper, router } = this;
    return {
      version: this.version,
      pid: process.pid,
      uptime: (performance.now() - this.started) / 1000,
      control: settings.control,
      device: settings.device,
      flavour: this.diversion.flavour ?? '',
      fail: settings.fail,
      keep: settings.keep.map((item) => ('interface' in item ? item.interface : `${item.protocol}/${item.port}`)),
      tracking: keeper.program.connections,
      ...statusOfStats(router.totals(), this.rates.rates, readQueues()),
      flows: { count: router.table.total(), max: settings.connections },
      rules: Object.fromEntries(
        keeper
          .ruleset()
          .tables.map(({ name, chains }) => [
            name,
            [...chains.values()].reduce((sum, { rules }) => sum + rules.length, 0),
          ]),
      ),
      unhandled: unhandled(),
    };
  }

  private conntrack(argv: readonly string[], reply: Reply): Promise<number> {
    this.router.setTime();
    return runConntrack(
      this.router.table,
      this.settings.workers,
      argv,
      { stdout: (stdout) => reply.write({ stdout }), stderr: (stderr) => reply.write({ stderr }) },
      (onEvent) => this.router.followEvents(onEvent, reply.signal),
    );
  }

  /** Ends it all, in the order of up.ts; the exit code. */
  async stop(): Promise<number> {
    if (this.stopped) return 0;
    this.stopped = true;
    let code = 0;
    const step = async (what: string, task: () => void | Promise<void>): Promise<void> => {
      try {
        await task();
      } catch (error) {
        code = 1;
        say(`${what}: ${(error as Error).message}`);
      }
    };
    this.monitor.close();
    this.rates.stop();
    await step('removing the diversion', () => this.diversion.removeRules());
    await step('ending what grows trees', () => this.keeper.close());
    await step('ending the workers', () => this.router.stop());
    await step('putting sysctls back', () => this.diversion.stop());
    await step('closing the control socket', () => this.server?.close());
    this.kernel.close();
    return code;
  }
}

function readLinks(kernel: Rtnetlink): Map<number, LogInterface> {
  return new Map(kernel.links().map(({ index, name, mac }) => [index, { name, mac }]));
}

/** Rules beyond the kernel's own three (tables local, main, default), several next hops, or routes by TOS. */
function usesPolicyRouting(kernel: Rtnetlink): boolean {
  const own = kernel.rules().filter(({ priority }) => priority !== 0 && priority !== 32_766 && priority !== 32_767);
  return own.length > 0 || kernel.routes().some(({ hops, tos }) => hops.length > 1 || tos !== 0);
}

function strictIndexes(diversion: Diversion, links: ReadonlyMap<number, LogInterface>): number[] {
  return [...links].filter(([, { name }]) => diversion.reversePaths.get(name) === 1).map(([index]) => index);
}
