/**
 * How the router is attached to the network: by the kernel's queue (nfqueue.ts) or by interfaces of its own (tun.ts). Made
 * before the workers, in this order: made → workers start by `deviceOf` → `follow` → `open` … `close` → workers end → `undo`.
 */
import type { DeviceInit } from '../dataplane/init.js';
import type { LogInterface } from './log.js';
import type { OwnRoutes } from './ownroutes.js';
import type { Router } from './router.js';
import type { Status } from './status.js';

export interface Attachment {
  /** The routing tables, where they are hutter's and not the kernel's. */
  readonly routing: OwnRoutes | undefined;
  /** What worker `number` takes its packets from. */
  deviceOf(number: number): DeviceInit;
  /** ifindexes whose reverse path is checked strictly. */
  strictReversePath(): number[];
  /** What LOG says of an interface. */
  link(ifindex: number): LogInterface | undefined;
  /** A program begins to track connections, or none does any more. */
  setTracking(connections: boolean): void;
  /** A program is about to be put in force. */
  prepare(program: Int32Array): void;
  /** Workers run: they are told from now on what changes. */
  follow(router: Router): void;
  /** Packets come from now on. */
  open(): void;
  /** For `up`'s greeting: `2 workers, queues 0 to 1, fail closed`. */
  summary(): string;
  status(): Pick<Status, 'flavour' | 'interfaces' | 'routing' | 'unhandled'>;
  /** Packets come no more. */
  close(): void;
  /** Everything is as it was before. Also after a failed start. */
  undo(): void;
}
