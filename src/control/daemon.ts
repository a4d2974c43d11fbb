/**
 * The running whole: the attachment to the network, workers, ruleset, control socket. Made by
 * `start`, which undoes everything when a step fails; ended by `stop`.
 */
import { setImmediate } from 'node:timers/promises';
import { KernelSets } from '../dataplane/io/ipset.js';
import { LogKind } from '../dataplane/shared.js';
import type { Attachment } from './attachment.js';
import { reason } from './config.js';
import { runIptables } from './commands/run.js';
import type { Program } from './commands/session.js';
import { type CommandOutput, runConntrack } from './conntrack.js';
import { runRecent } from './recent.js';
import { runSysctl } from './sysctl.js';
import { runningRouter } from './divert.js';
import { examineHost, examineOwnHost, kernelHz } from './host.js';
import { Keeper } from './keeper.js';
import { type FindInterface, formatLogRecord, kindOf } from './log.js';
import { LogFile } from './logfile.js';
import { NflogSender } from './nflog.js';
import type { Ruleset } from './model.js';
import { QueueAttachment } from './nfqueue.js';
import { Router } from './router.js';
import { byteString, claimSocket, ControlServer, type Reply } from './server.js';
import type { Settings } from './settings.js';
import { formatStatus, RateSampler, readQueues, type Status, statusOfStats } from './status.js';
import { TunAttachment } from './tun.js';
import type { Request } from './cli/client.js';

/** The host isn't fit; one sentence a line. */
export class HostError extends Error {
  override readonly name = 'HostError';
}

/** Characters of an answer that go out together. */
const PIECE = 1 << 16;

const say = (text: string): void => void process.stderr.write(`hutter: ${text}\n`);

export class Daemon {
  private readonly started = performance.now();
  private readonly rates: RateSampler;
  private server: ControlServer | undefined;
  private stopped = false;

  private constructor(
    private readonly settings: Settings,
    private readonly version: string,
    private readonly keeper: Keeper,
    private readonly attachment: Attachment,
    private readonly router: Router,
    private readonly log: LogFile,
  ) {
    this.rates = new RateSampler(() => router.totals());
  }

  /** @throws HostError, DivertError, TunError, ControlError, CompileError: nothing is left behind. */
  static async start(settings: Settings, ruleset: Ruleset, version: string): Promise<Daemon> {
    const { workers, control, device } = settings;
    if (device === 'nfqueue') refuseSecondRouter();
    const findings = device === 'tun' ? examineOwnHost() : examineHost(settings);
    const refusals = findings.filter(({ level }) => level === 'refuse');
    if (refusals.length > 0) throw new HostError(refusals.map(({ text }) => text).join('\n'));
    for (const { text } of findings) say(`warning: ${text}`);
    await claimSocket(control);
    const log = logOf(settings);

    const hz = kernelHz();
    const keeper = new Keeper(
      ruleset,
      hz,
      (connections) => attachment.setTracking(connections),
      (program) => attachment.prepare(program),
      new KernelSets(),
    );
    const attachment: Attachment =
      device === 'tun' ? new TunAttachment(settings, say) : new QueueAttachment(settings, keeper.program, say);
    let router: Router | undefined;
    try {
      const link: FindInterface = (ifindex) => attachment.link(ifindex);
      const nflog = new NflogSender(link);
      router = await Router.start(
        {
          workers,
          deviceOf: (number) => attachment.deviceOf(number),
          busyPoll: settings.busyPoll,
          connections: settings.connections,
          strictReversePath: attachment.strictReversePath(),
          helpers: settings.helpers,
          sysctl: settings.sysctl,
          hz,
          onLog: (record) => {
            if (kindOf(record) === LogKind.NFLOG) nflog.send(record);
            else log.line(formatLogRecord(record, link, (counter) => keeper.traced(counter)));
          },
          onTrouble: say,
        },
        keeper.program,
      );
      keeper.attach(router);
      const daemon = new Daemon(settings, version, keeper, attachment, router, log);
      attachment.follow(router);
      attachment.open();
      daemon.server = await ControlServer.listen(control, (request, reply) => daemon.serve(request, reply));
      return daemon;
    } catch (error) {
      await takeApart(attachment, keeper, router);
      throw error;
    }
  }

  /** What `up` prints when packets flow. */
  greeting(): string {
    const { workers, control } = this.settings;
    const summary = this.attachment.summary();
    return `hutter ${this.version} is up: ${workers} worker${workers === 1 ? '' : 's'}, ${summary}, control ${control}\n`;
  }

  private async serve(request: Request, reply: Reply): Promise<number> {
    switch (request.program) {
      case 'iptables':
      case 'iptables-save':
      case 'iptables-restore':
        return this.iptables(request.program, request, reply);
      case 'conntrack':
        return this.conntrack(request.argv, reply);
      case 'recent':
        return this.recent(request.argv, reply);
      case 'sysctl':
        return runSysctl(this.router.table, this.settings.device === 'tun', request.argv, outputOf(reply));
      case 'status':
        return this.status(request.argv, reply);
      case 'route':
      case 'rule':
        return this.routing(request.program, request, reply);
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

  private async routing(program: 'route' | 'rule', { argv, stdin = '' }: Request, reply: Reply): Promise<number> {
    const { routing } = this.attachment;
    if (routing === undefined) {
      const text = `hutter: the kernel routes what its queue gives to hutter: use \`ip ${program}' for its ${program}s\n`;
      reply.write({ stderr: text });
      return 1;
    }
    const { code, stdout, stderr } = await routing.run(program, argv, stdin);
    // A million routes are no message that one piece would be good for, nor one that others should wait for.
    for (let at = 0; at < stdout.length; at += PIECE) {
      if (at > 0) await setImmediate();
      reply.write({ stdout: stdout.slice(at, at + PIECE) });
    }
    if (stderr !== '') reply.write({ stderr });
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
    const queues = settings.device === 'nfqueue' ? readQueues() : new Map<number, never>();
    const counted = statusOfStats(router.totals(), this.rates.rates, settings.queueBase, queues);
    return {
      version: this.version,
      pid: process.pid,
      uptime: (performance.now() - this.started) / 1000,
      control: settings.control,
      device: settings.device,
      fail: settings.fail,
      keep: settings.keep.map((item) => ('interface' in item ? item.interface : `${item.protocol}/${item.port}`)),
      tracking: keeper.program.connections,
      ...counted,
      logLost: counted.logLost + this.log.lost,
      eventsLost: router.eventsLost,
      flows: { count: router.table.total(), max: settings.connections },
      rules: Object.fromEntries(
        keeper
          .ruleset()
          .tables.map(({ name, chains }) => [
            name,
            [...chains.values()].reduce((sum, { rules }) => sum + rules.length, 0),
          ]),
      ),
      trees: keeper.trees,
      ...this.attachment.status(),
    };
  }

  private conntrack(argv: readonly string[], reply: Reply): Promise<number> {
    this.router.setTime();
    return runConntrack(this.router.table, this.settings.workers, argv, outputOf(reply), (onEvent) =>
      this.router.followEvents(onEvent, reply.signal),
    );
  }

  private recent(argv: readonly string[], reply: Reply): number {
    const [seconds, nanoseconds] = process.hrtime();
    const now = Math.floor(((seconds * 1e3 + nanoseconds / 1e6) * this.keeper.compiler.hz) / 1000);
    const { router, keeper } = this;
    return runRecent(keeper.compiler.regions, argv, now, router.table.owner, outputOf(reply));
  }

  /** Ends it all, in the order of up.ts; the exit code. */
  async stop(): Promise<number> {
    if (this.stopped) return 0;
    this.stopped = true;
    this.rates.stop();
    return takeApart(this.attachment, this.keeper, this.router, this.server);
  }
}

/** In the order of up.ts; a step that fails is told and keeps no other from being taken. The exit code. */
async function takeApart(
  attachment: Attachment,
  keeper: Keeper,
  router: Router | undefined,
  server?: ControlServer,
): Promise<number> {
  let code = 0;
  const step = async (what: string, task: () => void | Promise<void>): Promise<void> => {
    try {
      await task();
    } catch (error) {
      code = 1;
      say(`${what}: ${(error as Error).message}`);
    }
  };
  await step('detaching from the network', () => attachment.close());
  await step('ending what grows trees', () => keeper.close());
  await step('ending the workers', () => router?.stop());
  await step('putting the network back', () => attachment.undo());
  await step('closing the control socket', () => server?.close());
  return code;
}

const outputOf = (reply: Reply): CommandOutput => ({
  stdout: (stdout) => reply.write({ stdout }),
  stderr: (stderr) => reply.write({ stderr }),
});

/** One router diverts a network namespace; what else stands in a second one's way (its queues) is only the first one's doing. */
function refuseSecondRouter(): void {
  const running = runningRouter();
  if (running !== undefined)
    throw new HostError(
      `a router runs in this network namespace already (pid ${running.pid}, control socket ${running.control})`,
    );
}

function logOf({ log }: Settings): LogFile {
  try {
    return new LogFile(log, say);
  } catch (error) {
    throw new HostError(`can't write to the log ${log}: ${reason(error)}`);
  }
}
