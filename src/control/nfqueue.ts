/**
 * Attached by the kernel's queue: the kernel has interfaces and routes and diverts packets to hutter. Links, addresses and
 * routes are followed by rtnetlink's notices.
 */
import type { DeviceInit } from '../dataplane/init.js';
import { Monitor, Notice, Rtnetlink } from '../dataplane/io/rtnetlink.js';
import type { Attachment } from './attachment.js';
import { Diversion } from './divert.js';
import type { LogInterface } from './log.js';
import type { Router } from './router.js';
import type { Settings } from './settings.js';
import { type Status, unhandled } from './status.js';

export class QueueAttachment implements Attachment {
  /** The kernel routes. */
  readonly routing = undefined;
  private readonly monitor = new Monitor();
  private readonly kernel = new Rtnetlink();
  private readonly diversion: Diversion;
  private links: Map<number, LogInterface>;

  /** @throws DivertError */
  constructor(
    private readonly settings: Settings,
    connections: boolean,
    private readonly say: (text: string) => void,
  ) {
    const { queueBase, workers, fanout, keep, fail, control } = settings;
    this.diversion = new Diversion(
      { queueBase, workers, fanout, failOpen: fail === 'open', keep, connections },
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
    this.diversion.update({ connections });
  }

  follow(router: Router): void {
    router.setPolicyRouting(usesPolicyRouting(this.kernel));
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
    router.setPolicyRouting(usesPolicyRouting(kernel));
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
  }

  summary(): string {
    const { workers, queueBase, fail } = this.settings;
    return `${workers === 1 ? `queue ${queueBase}` : `queues ${queueBase} to ${queueBase + workers - 1}`}, fail ${fail}`;
  }

  status(): Pick<Status, 'flavour' | 'interfaces' | 'unhandled'> {
    return { flavour: this.diversion.flavour ?? '', interfaces: [], unhandled: unhandled() };
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

/** Rules beyond the kernel's own three (tables local, main, default), several next hops, or routes by TOS. */
function usesPolicyRouting(kernel: Rtnetlink): boolean {
  const own = kernel.rules().filter(({ priority }) => priority !== 0 && priority !== 32_766 && priority !== 32_767);
  return own.length > 0 || kernel.routes().some(({ hops, tos }) => hops.length > 1 || tos !== 0);
}
