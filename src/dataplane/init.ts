/** What a worker is started with (piscina's task). Buffers are shared, the port is transferred. */
import type { MessagePort } from 'node:worker_threads';
import type { Link } from './interfaces.js';
import type { TunPort } from './io/tun.js';
import type { Publication } from './shared.js';

export interface WorkerInit {
  /** 0 … workers − 1. */
  number: number;
  device: DeviceInit;
  control: SharedArrayBuffer;
  stats: SharedArrayBuffer;
  log: SharedArrayBuffer;
  /** Ring of connection events (conntrack/events.ts). */
  events: SharedArrayBuffer;
  /** The connection table: the worker attaches to the slot of its number (`recover` it first after a restart). */
  connections: SharedArrayBuffer;
  /** Packets between two crossings (conntrack/crossings.ts). */
  crossings: SharedArrayBuffer;
  wakeFd: number;
  /** Microseconds of looking for the next packet before it sleeps. */
  busyPoll: number;
  port: MessagePort;
  /** ifindexes whose reverse path is checked strictly (rp_filter=1). Updated by `settings` messages. */
  strictReversePath: number[];
  /** Helpers switched on by port: `ftp`, `ftp:2121`, … (conntrack/helpers). */
  helpers: readonly string[];
  /** The kernel's timer frequency: limit and hashlimit count in its ticks. */
  hz: number;
  /** Program to begin with: nobody sees a packet before it is in place. */
  program: Publication;
}

export type DeviceInit = NfqueueInit | TunInit;

export interface NfqueueInit {
  kind: 'nfqueue';
  queue: number;
  failOpen: boolean;
  /** Packets the kernel keeps waiting for this queue. */
  length: number;
}

export interface TunInit {
  kind: 'tun';
  /** This worker's queue of each interface; the one to the router's own sockets among them. */
  ports: TunPort[];
  /** Interfaces by hutter's own numbers. */
  links: Link[];
  /** Routing tables (route/fib.ts), changed by the main thread. */
  fib: SharedArrayBuffer;
  fibMemory: WebAssembly.Memory | undefined;
  /** ifindexes on which a source must be reachable by some interface (rp_filter=2). */
  looseReversePath: number[];
  /** Interface to the router's own sockets; 0 = none. */
  local: number;
  /** Milliseconds that an ICMP error to one destination costs; 0 = no limit. */
  errorInterval: number;
  /** An int32 for each port: 0, or the errno that it ended with. Written by workers. */
  states: SharedArrayBuffer;
}
