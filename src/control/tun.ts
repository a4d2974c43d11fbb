/**
 * Attached by TUN interfaces of hutter's own: each is made in the namespace that the configuration names, its other side
 * set up as asked, and there is no kernel between them but hutter. The descriptors are kept here, a queue for each worker;
 * the interfaces go when they are closed, so that no crash leaves one behind.
 *
 * `local` is one more, in hutter's own namespace: it has the router's addresses and routes (localroutes.ts), so that the
 * router's own sockets are reached through INPUT and leave through OUTPUT.
 *
 * An interface that is deleted, or whose namespace goes, is reported once and left; the others go on.
 */
import { existsSync, statSync, writeFileSync } from 'node:fs';
import type { DeviceInit } from '../dataplane/init.js';
import { type Link, LinkFlag, Scope } from '../dataplane/interfaces.js';
import { BANDS, countersOfBands, sharedBands, waitingIn } from '../dataplane/io/bands.js';
import { isNativeError, loadNative, type TunHandle } from '../dataplane/io/native.js';
import { Rtnetlink } from '../dataplane/io/rtnetlink.js';
import { Hook } from '../dataplane/names.js';
import type { Fib } from '../dataplane/route/fib.js';
import type { Attachment } from './attachment.js';
import { type Config, LOCAL_NAME } from './config.js';
import { cpuMask } from './cpus.js';
import { LocalRoutes } from './localroutes.js';
import type { LogInterface } from './log.js';
import { OwnRoutes } from './ownroutes.js';
import type { Router } from './router.js';
import { fibOf } from './routing.js';
import type { Settings } from './settings.js';
import type { BandStatus, InterfaceStatus, Status } from './status.js';
import { linkOf, linksOf, readPrefix } from './topology.js';

/** An interface can't be made; the message names it and says what to do. */
export class TunError extends Error {
  override readonly name = 'TunError';
}

const NETNS_DIRECTORY = '/run/netns';
const LOOK_MS = 250;
/** Routes that there is room for at run time: address space, not memory. */
const ROOM = 1_200_000;

interface Port {
  /** hutter's own number. */
  ifindex: number;
  name: string;
  /** Its name on the other side. */
  peer: string;
  /** As configured; '' = hutter's own. */
  namespace: string;
  handle: TunHandle;
  /** The namespace's file, and what it was when the interface was made. */
  file: string;
  inode: number;
  rate: number;
  /** What its bands share, where it has a rate. */
  bands: SharedArrayBuffer | undefined;
  counters: SharedArrayBuffer | undefined;
  gone: boolean;
}

export class TunAttachment implements Attachment {
  readonly routing: OwnRoutes;
  private readonly ports: Port[] = [];
  /** hutter's own numbers; the one to its own sockets among them. */
  private readonly links: Link[];
  private readonly fib: Fib;
  private local: LocalRoutes | undefined;
  private readonly states: Int32Array;
  private readonly native = loadNative();
  private timer: NodeJS.Timeout | undefined;

  /** Makes all interfaces, up and configured; packets wait in them. @throws TunError: none is left */
  constructor(
    private readonly settings: Settings,
    private readonly say: (text: string) => void,
  ) {
    const links = linksOf(settings);
    this.fib = fibOf(settings.config, links, ROOM);
    this.native.adviseHuge(new Uint8Array(this.fib.shared));
    this.links = [...links];
    this.states = new Int32Array(new SharedArrayBuffer((links.length + 1) * 4));
    try {
      for (const link of links) {
        const config = settings.interfaces[link.name];
        if (config !== undefined && (link.flags & LinkFlag.LOOPBACK) === 0) this.make(link, config);
      }
      if (settings.local) this.local = this.makeLocal(links);
    } catch (error) {
      this.undo();
      throw error;
    }
    const { fib, local } = this;
    this.routing = new OwnRoutes({
      fib,
      links,
      strict: this.filtered('strict'),
      loose: this.filtered('loose'),
      local,
    });
  }

  private make({ index, name, mtu }: Link, config: Config['interfaces'][string]): void {
    const namespace = String(config.namespace ?? '');
    const file = namespaceFile(config.namespace);
    const peer = config.peer?.name ?? name;
    const where = `interface ${name}${namespace === '' ? '' : ` in namespace ${namespace}`}`;
    const mask = cpuMask(String(config.peer?.cpus ?? '')) ?? '';
    this.ports.push(this.openPort(index, name, peer, namespace, file, config.rate ?? 0, mask, where));
    try {
      const kernel = new Rtnetlink(file);
      try {
        const ifindex = kernel.links().find((link) => link.name === peer)!.index;
        kernel.bringUp(ifindex, mtu, this.settings.queueLength);
        for (const text of config.peer?.addresses ?? []) {
          const { address, prefixLength } = readPrefix(text);
          kernel.addAddress(ifindex, address, prefixLength);
        }
        for (const { to, via } of config.peer?.routes ?? []) {
          const { address, prefixLength } = readPrefix(to);
          kernel.addRoute(ifindex, address, prefixLength, via === undefined ? 0 : readPrefix(via).address);
        }
      } finally {
        kernel.close();
      }
    } catch (error) {
      throw new TunError(`${where}: ${(error as Error).message}`, { cause: error });
    }
  }

  private makeLocal(links: readonly Link[]): LocalRoutes {
    const index = links.length + 1;
    const mtu = Math.max(...links.map((link) => link.mtu));
    const where = `interface ${LOCAL_NAME} for \`local\``;
    this.ports.push(this.openPort(index, LOCAL_NAME, LOCAL_NAME, '', '', 0, '', where));
    const kernel = new Rtnetlink();
    try {
      // What comes from here has passed hutter's own checks; its errors have the router's addresses on both sides.
      for (const [key, value] of [
        ['rp_filter', '2'],
        ['accept_local', '1'],
      ] as const)
        writeFileSync(`/proc/sys/net/ipv4/conf/${LOCAL_NAME}/${key}`, value);
      const ifindex = kernel.links().find((link) => link.name === LOCAL_NAME)!.index;
      kernel.bringUp(ifindex, mtu, this.settings.queueLength);
      for (const { local, scope } of links.flatMap(({ addresses }) => addresses))
        if (scope !== (Scope.HOST as number)) kernel.addAddress(ifindex, local, 32);
      const local = new LocalRoutes(kernel, ifindex, this.say);
      const prefixes = [...this.fib.routes()].map(({ dst, prefixLength }) => [dst, prefixLength] as const);
      const steps = local.follow(this.fib, links, prefixes);
      while (steps.next().done !== true);
      this.links.push(linkOf(index, LOCAL_NAME, [], mtu));
      return local;
    } catch (error) {
      kernel.close();
      throw new TunError(`${where}: ${(error as Error).message}`, { cause: error });
    }
  }

  private openPort(
    ifindex: number,
    name: string,
    peer: string,
    namespace: string,
    file: string,
    rate: number,
    mask: string,
    where: string,
  ): Port {
    let handle: TunHandle;
    try {
      handle = this.native.tunOpen(file, peer, this.settings.workers, mask);
    } catch (error) {
      throw new TunError(`${where}: ${explain(error, peer)}`, { cause: error });
    }
    const inode = file === '' ? 0 : statSync(file).ino;
    const { workers } = this.settings;
    const bands = rate === 0 ? undefined : sharedBands(workers);
    const counters = rate === 0 ? undefined : countersOfBands(workers);
    return { ifindex, name, peer, namespace, handle, file, inode, rate, bands, counters, gone: false };
  }

  deviceOf(number: number): DeviceInit {
    return {
      kind: 'tun',
      ports: this.ports.map(({ handle, ifindex, name, gone, rate, bands, counters }) => ({
        rate,
        ...(bands !== undefined && counters !== undefined && { bands, counters }),
        fd: gone ? -1 : this.native.tunFd(handle, number),
        ifindex,
        hook: name === LOCAL_NAME ? Hook.OUTPUT : Hook.PREROUTING,
      })),
      links: this.links,
      fib: this.fib.shared,
      fibMemory: this.fib.memory,
      looseReversePath: this.filtered('loose'),
      local: this.ports.find(({ name }) => name === LOCAL_NAME)?.ifindex ?? 0,
      errorInterval: this.settings.icmpRatelimit,
      states: this.states.buffer as SharedArrayBuffer,
    };
  }

  strictReversePath(): number[] {
    return this.filtered('strict');
  }

  private filtered(how: 'loose' | 'strict'): number[] {
    const { interfaces } = this.settings;
    return this.links.filter(({ name }) => interfaces[name]?.['rp-filter'] === how).map(({ index }) => index);
  }

  link(ifindex: number): LogInterface | undefined {
    return this.links.find(({ index }) => index === ifindex);
  }

  prepare(): void {
    // Nobody routes what hutter has routed.
  }

  setTracking(): void {
    // Fragments are put together by the workers, who know.
  }

  follow(router: Router): void {
    this.routing.follow(router);
    this.timer = setInterval(() => {
      this.ports.forEach((port, i) => {
        if (!port.gone) this.lookAfter(port, i);
      });
    }, LOOK_MS);
    this.timer.unref();
  }

  private lookAfter(port: Port, i: number): void {
    const errno = Atomics.load(this.states, i);
    const namespaceGone = port.file !== '' && statSync(port.file, { throwIfNoEntry: false })?.ino !== port.inode;
    if (errno === 0 && !namespaceGone) return;
    port.gone = true;
    Atomics.store(this.states, i, errno === 0 ? 1 : errno);
    const what = namespaceGone ? `its namespace ${port.namespace} is gone` : 'it has been deleted';
    this.say(`interface ${port.name}: ${what}; the others go on`);
    this.routing.forget(port.ifindex).then(
      () => this.native.close(port.handle),
      (error: unknown) => this.say((error as Error).message),
    );
  }

  open(): void {
    // They are up already.
  }

  summary(): string {
    const names = this.ports.map(({ name, namespace }) => (namespace === '' ? name : `${name} in ${namespace}`));
    return `interfaces ${names.join(', ')}`;
  }

  status(): Pick<Status, 'flavour' | 'interfaces' | 'routing' | 'unhandled'> {
    return {
      flavour: '',
      interfaces: this.ports.map((port): InterfaceStatus => ({
        name: port.name,
        namespace: port.namespace,
        state: port.gone ? 'gone' : 'up',
        ...countersOf(port),
        rate: port.rate,
        bands: bandsStatus(port.bands, port.counters),
      })),
      routing: [],
      unhandled: ['IPv6: dropped and counted (not-ipv4)'],
    };
  }

  close(): void {
    clearInterval(this.timer);
  }

  undo(): void {
    clearInterval(this.timer);
    this.local?.close();
    for (const port of this.ports) if (!port.gone) this.native.close(port.handle);
    this.ports.length = 0;
  }
}

/** What the kernel of the other side has counted: it sends what hutter receives. */
function countersOf({ file, peer, gone }: Port): Pick<InterfaceStatus, 'received' | 'sent' | 'overflows' | 'refused'> {
  let kernel: Rtnetlink | undefined;
  try {
    kernel = gone ? undefined : new Rtnetlink(file);
    const counters = kernel?.counters(peer);
    if (counters === undefined) return NOT_COUNTED;
    const { received, sent, receiveDropped, sendDropped } = counters;
    return { received: sent, sent: received, overflows: sendDropped, refused: receiveDropped };
  } catch {
    // It goes just now; who looks after it (lookAfter) will say so.
    return NOT_COUNTED;
  } finally {
    kernel?.close();
  }
}
const NOT_COUNTED = { received: 0, sent: 0, overflows: 0, refused: 0 };

/** All workers together; empty without a rate. */
function bandsStatus(bands: SharedArrayBuffer | undefined, counters: SharedArrayBuffer | undefined): BandStatus[] {
  if (bands === undefined || counters === undefined) return [];
  const counts = new Float64Array(counters);
  return Array.from({ length: BANDS }, (_, band) => {
    const status = { waiting: waitingIn(bands, band), sent: 0, dropped: 0 };
    for (let at = band * 2; at < counts.length; at += BANDS * 2) {
      status.sent += counts[at]!;
      status.dropped += counts[at + 1]!;
    }
    return status;
  });
}

/** Of a name that ip-netns(8) gave, a path, or a process; '' = this namespace. */
function namespaceFile(namespace: string | number | undefined): string {
  if (namespace === undefined) return '';
  if (typeof namespace === 'number' || /^\d+$/.test(namespace)) return `/proc/${namespace}/ns/net`;
  return namespace.includes('/') ? namespace : `${NETNS_DIRECTORY}/${namespace}`;
}

function explain(error: unknown, name: string): string {
  if (!isNativeError(error)) return (error as Error).message;
  const { code, syscall } = error;
  if (syscall === 'open(namespace)' && code === 'ENOENT')
    return 'there is no such namespace (ip netns list shows them)';
  if (syscall === 'setns' && code === 'EINVAL') return 'that file is no network namespace';
  if (syscall === 'setns')
    return `its namespace can't be entered (${error.message}): run as root or with CAP_SYS_ADMIN`;
  if (syscall.startsWith('open(/dev/net/tun)') && !existsSync('/dev/net/tun'))
    return 'there is no /dev/net/tun: load the module tun, or give the container that device';
  if (syscall.endsWith('rps_default_mask') && code === 'ENOENT')
    return '`peer.cpus` needs Linux 6.3 with RPS: leave it out, and write to rps_cpus of the other side yourself';
  if (syscall.endsWith('rps_default_mask')) return `\`peer.cpus\` can't be set (${error.message})`;
  if (code === 'EBUSY' || code === 'EEXIST')
    return `there is an interface ${name} already: remove it or choose another`;
  if (code === 'EPERM') return 'no permission to make interfaces: run as root or with CAP_NET_ADMIN';
  return error.message;
}
