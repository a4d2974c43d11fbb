/**
 * Attached by the kernel's queue: the kernel has interfaces and routes and diverts packets to hutter. Links, addresses and
 * routes are followed by rtnetlink's notices.
 */
import { Header, ProgramFlag } from '../dataplane/program/format.js';
import type { DeviceInit } from '../dataplane/init.js';
import { crossesTwice, RoutedBy } from '../dataplane/program/late.js';
import { Monitor, Notice, Rtnetlink } from '../dataplane/io/rtnetlink.js';
import type { Attachment } from './attachment.js';
import { CommitError } from './commands/backend.js';
import { Diversion, DivertError, type DivertOptions } from './divert.js';
import type { LogInterface } from './log.js';
import type { Program, Router } from './router.js';
import type { Settings } from './settings.js';
import { type Status, unhandled } from './status.js';

/** What the kernel must mark packets for. */
const marksOf = (program: Int32Array): Pick<DivertOptions, 'packetTypes' | 'policies'> => ({
  packetTypes: (program[Header.FLAGS]! & ProgramFlag.PACKET_TYPE) !== 0,
  policies: (program[Header.FLAGS]! & ProgramFlag.POLICY) !== 0,
});

export class QueueAttachment implements Attachment {
  /** The kernel routes. */
  readonly routing = undefined;
  private readonly monitor = new Monitor();
  private readonly kernel = new Rtnetlink();
  private readonly diversion: Diversion;
  private links: Map<number, LogInterface>;
  private program: Int32Array;
  private routed: Routed = { by: 0, marks: 0, bridges: false };
  private router: Router | undefined;

  /** @throws DivertError */
  constructor(
    private readonly settings: Settings,
    { words, connections }: Program,
    private readonly say: (text: string) => void,
  ) {
    this.program = words;
    const { queueBase, workers, fanout, keep, fail, control } = settings;
    this.diversion = new Diversion(
      {
        queueBase,
        workers,
        fanout,
        failOpen: fail === 'open',
        keep,
        connections,
        ...marksOf(words),
      },
      control,
    );
    this.links = this.readLinks();
  }

  deviceOf(number: number): DeviceInit {
    const { queueBase, queueLength, fail } = this.settings;
    return { kind: 'nfqueue', queue: queueBase + number, failOpen: fail === 'open', length: queueLength };
  }

  strictReversePath(): number[] {
    const { reversePaths } = this.diversion;
    return [...this.links].filter(([, { name }]) => reversePaths.get(name) === 1).map(([index]) => index);
  }

  link(ifindex: number): LogInterface | undefined {
    return this.links.get(ifindex);
  }

  setTracking(connections: boolean): void {
    orRefuse(() => this.diversion.update({ connections }));
  }

  prepare(program: Int32Array): void {
    // They stay marked: the program before this one may still run when it asks no more.
    const { diversion } = this;
    const { packetTypes, policies } = marksOf(program);
    orRefuse(() => {
      if (packetTypes) diversion.update({ packetTypes });
      if (policies) diversion.update({ policies });
    });
    this.program = program;
    if (this.divertAgain()) this.router?.routesChanged();
  }

  /** Has packets come a second time where some must; whether that is new. Without it they are dropped and counted. */
  private divertAgain(): boolean {
    const { diversion, routed, router } = this;
    const some = routed.bridges || crossesTwice(this.program, routed.by, routed.marks);
    let begins = false;
    if (!diversion.comesAgain && diversion.installed && some) {
      try {
        diversion.installAgain();
        begins = true;
      } catch (error) {
        this.say(`packets that must cross twice are dropped: ${(error as Error).message}`);
      }
    }
    router?.setRouting(routed.by, routed.marks, diversion.comesAgain);
    return begins;
  }

  follow(router: Router): void {
    this.router = router;
    this.routed = routedBy(this.kernel);
    this.divertAgain();
    this.monitor.watch((notices) => {
      try {
        this.takeNotice(router, notices);
      } catch (error) {
        this.say(`after a change of interfaces or routes: ${(error as Error).message}`);
      }
    });
  }

  private takeNotice(router: Router, notices: number): void {
    const { diversion, kernel } = this;
    this.routed = routedBy(kernel);
    this.divertAgain();
    if ((notices & (Notice.LINK | Notice.ADDRESS | Notice.NETCONF | Notice.OVERRUN)) === 0) {
      router.routesChanged();
      return;
    }
    this.links = this.readLinks();
    router.linksChanged();
    if (!diversion.adoptInterfaces()) return;
    diversion.update();
    router.setStrictReversePath(this.strictReversePath()).catch((error: unknown) => {
      this.say((error as Error).message);
    });
  }

  open(): void {
    this.diversion.install();
    this.divertAgain();
    this.router?.routesChanged();
  }

  summary(): string {
    const { workers, queueBase, fail } = this.settings;
    return `${workers === 1 ? `queue ${queueBase}` : `queues ${queueBase} to ${queueBase + workers - 1}`}, fail ${fail}`;
  }

  status(): Pick<Status, 'flavour' | 'interfaces' | 'routing' | 'unhandled'> {
    return {
      flavour: this.diversion.flavour ?? '',
      interfaces: [],
      routing: routingNames(this.routed),
      unhandled: unhandled(),
    };
  }

  close(): void {
    this.monitor.close();
    this.diversion.removeRules();
  }

  undo(): void {
    this.monitor.close();
    this.diversion.stop();
    this.kernel.close();
  }

  private readLinks(): Map<number, LogInterface> {
    return new Map(this.kernel.links().map(({ index, name, mac }) => [index, { name, mac }]));
  }
}

/** A kernel that can't divert packets as the rules need it refuses the rules. @throws CommitError */
function orRefuse(act: () => void): void {
  try {
    act();
  } catch (error) {
    throw error instanceof DivertError ? new CommitError(error.message) : error;
  }
}

/** By what the kernel chooses routes. */
interface Routed {
  /** RoutedBy bits. */
  by: number;
  /** Bits of the mark that rules look at. */
  marks: number;
  /** There are bridges: what comes by their ports may be passed on without being routed. */
  bridges: boolean;
}

/** Rules beyond the kernel's own three (tables local, main, default), several next hops, or routes by TOS. */
function routedBy(kernel: Rtnetlink): Routed {
  let by = 0;
  let marks = 0;
  for (const { priority, srcLength, byTos, byTransport, markMask } of kernel.rules()) {
    if (priority !== 0 && priority !== 32_766 && priority !== 32_767) by |= RoutedBy.RULES;
    if (srcLength > 0) by |= RoutedBy.SOURCE;
    if (byTos) by |= RoutedBy.TOS;
    if (byTransport) by |= RoutedBy.TRANSPORT;
    marks |= markMask;
  }
  for (const { hops, tos } of kernel.routes()) {
    if (hops.length > 1) by |= RoutedBy.HASH | RoutedBy.SOURCE | RoutedBy.TRANSPORT | RoutedBy.RULES;
    if (tos !== 0) by |= RoutedBy.TOS | RoutedBy.RULES;
  }
  return { by, marks, bridges: kernel.links().some(({ kind }) => kind === 'bridge') };
}

const NAMES = [
  [RoutedBy.SOURCE, 'source'],
  [RoutedBy.TOS, 'tos'],
  [RoutedBy.TRANSPORT, 'transport'],
  [RoutedBy.HASH, 'hash'],
] as const;

const routingNames = ({ by, marks }: Routed): string[] => [
  ...NAMES.filter(([bit]) => (by & bit) !== 0).map(([, name]) => name),
  ...(marks === 0 ? [] : ['mark']),
];
