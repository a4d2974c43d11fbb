/**
 * The arena with hutter as a simulation: the same scenarios through the loopback device, where hutter is the whole router
 * and time is the caller's, beside the kernel's router. What the router's own programs send has no place here.
 */
import { runIptables } from '../../src/control/commands/run.js';
import type { Link } from '../../src/dataplane/interfaces.js';
import { InFlag } from '../../src/dataplane/io/batch.js';
import type { FrameFacts } from '../../src/dataplane/io/loopback.js';
import { Hook, Verdict } from '../../src/dataplane/names.js';
import { RandomPorts } from '../../src/dataplane/nat/range.js';
import { RouteType } from '../../src/dataplane/route/routes.js';
import { Fib } from '../../src/dataplane/route/fib.js';
import { World } from '../pipeline/world.js';
import { ADDRESSES, type Arena, type Count, countsOf, DEFAULT_GATEWAY, MTUS, type Refusal } from './arena.js';
import type { Court } from './judge.js';
import { addressAt } from './packets.js';
import { Random } from './random.js';
import type { Scenario } from './scenario.js';
import { isRouter, macBytes, type Outcome, type Placed, USER } from './wire.js';

const FIRST_IFINDEX = 2;
const UP = 1;
const LOOPBACK = 8;
/** What the kernel calls expired is so with any uptime past that (xt_conntrack asks for unconfirmed connections). */
const UP_MS = 7_200_000;
/** Between two packets on the simulation's clock. */
const STEP_MS = 1;

const int32 = (address: string): number => address.split('.').reduce((value, byte) => (value << 8) | Number(byte), 0);

function link(index: number, name: string, flags: number, cidrs: readonly string[]): Link {
  const addresses = cidrs.map((cidr, i) => {
    const [address, length] = cidr.split('/') as [string, string];
    const local = int32(address);
    return { local, address: local, prefixLength: Number(length), scope: index === 1 ? 254 : 0, secondary: i > 0 };
  });
  const mac = index === 1 ? new Uint8Array(6) : new Uint8Array(macBytes(false, index - FIRST_IFINDEX));
  return { index, name, mtu: index === 1 ? 65_536 : MTUS[index - FIRST_IFINDEX]!, flags, mac, addresses };
}

const LINKS: readonly Link[] = [
  link(1, 'lo', UP | LOOPBACK, ['127.0.0.1/8']),
  ...ADDRESSES.map((cidrs, i) => link(FIRST_IFINDEX + i, `if${i}`, UP, cidrs)),
];
const ROUTES = [
  { dst: 0, prefixLength: 0, type: RouteType.UNICAST, oif: FIRST_IFINDEX + 1, gateway: int32(DEFAULT_GATEWAY) },
  { dst: int32('100.64.0.0'), prefixLength: 10, type: RouteType.BLACKHOLE, oif: 0, gateway: 0 },
];

/**
 * The scenario without what the router's own programs send, and without commands. An error about an answer of the router's own comes
 * by `lo`, which it has not: REJECT drops in OUTPUT, and in chains that OUTPUT may come to.
 */
export const forSimulation = (scenario: Scenario): Scenario => ({
  ...scenario,
  rules: scenario.rules.replace(/^(-A (?:OUTPUT|u\d) .*)-j REJECT.*$/gm, '$1-j DROP'),
  events: scenario.events.filter(
    (event) => event.kind === 'error' || (event.kind !== 'command' && !isRouter(event.port) && !('link' in event)),
  ),
});

/** hutter in this process, rules loaded. */
export class SimulatedRouter {
  private sent = 0;

  private constructor(
    private readonly world: World,
    wall: number,
  ) {
    for (const worker of world.workers) worker.wall = wall;
  }

  /**
   * `seed`: of the ports that NAT chooses. `wall`: its wall clock, which is the kernel's unless said. `workers`: each gets
   * what comes in by one interface, the last all others.
   */
  static async load(rules: string, { seed = 1, wall = Date.now(), workers = 1 } = {}): Promise<SimulatedRouter> {
    const routes = Fib.readerOf(LINKS, ROUTES);
    const r = new Random(seed);
    const random = new RandomPorts((numbers) => void numbers.forEach((_, i) => (numbers[i] = r.below(0x10000))));
    return new SimulatedRouter(
      await World.create(rules, { links: LINKS, routes, kernelRoutes: false, errorInterval: 0, random, workers }),
      wall,
    );
  }

  /** What comes out for a packet. */
  send({ port, bytes }: Placed): Placed[] {
    // Of the link to the far end.
    if (!isRouter(port) && bytes.length > MTUS[port]!) return [];
    const { workers } = this.world;
    // Fragments of one datagram come to one worker, as an interface's queues have it.
    const worker = workers[Math.min(port, workers.length - 1)]!;
    // Of a machine that has been up for so long; from here on the clock is our own.
    worker.now = UP_MS + ++this.sent * STEP_MS;
    const outcome = worker.run(bytes, isRouter(port) ? ownFacts(port, bytes) : farFacts(port));
    const out = outcome.answers.map((answer) => ({ port: portTo(answer), bytes: Buffer.from(answer) }));
    if (outcome.packet && outcome.verdict === Verdict.ACCEPT && outcome.outdev >= FIRST_IFINDEX) {
      out.push({ port: outcome.outdev - FIRST_IFINDEX, bytes: Buffer.from(outcome.packet) });
    }
    return out;
  }

  async counts(): Promise<Count[]> {
    const { stdout } = await runIptables('iptables-save', [], '', this.world.backend);
    const numbers = new Map<string, number>();
    let table = '';
    const lines = stdout.split('\n').map((line) => {
      const [, kind, chain] = /^(:|-A )(\S+)/.exec(line) ?? [];
      if (line.startsWith('*')) {
        table = line.slice(1);
        numbers.clear();
      }
      if (kind === undefined || / - \[/.test(line)) return line;
      if (kind === ':') return line.replace(/\[.*\]/, `[${this.world.countedText(table, chain!, 0)}]`);
      const number = (numbers.get(chain!) ?? 0) + 1;
      numbers.set(chain!, number);
      return `[${this.world.countedText(table, chain!, number)}] ${line}`;
    });
    return countsOf(lines.join('\n'));
  }
}

const farFacts = (port: number): FrameFacts => ({
  hook: Hook.PREROUTING,
  indev: FIRST_IFINDEX + port,
  mac: macBytes(true, port),
  flags: InFlag.CSUM_NOT_VERIFIED,
});
/** Of a program's packet: root's, or a user's. */
const ownFacts = (port: number, bytes: Uint8Array): FrameFacts => ({
  hook: Hook.OUTPUT,
  outdev: FIRST_IFINDEX + portTo(bytes),
  flags: InFlag.UID | InFlag.GID,
  uid: port === USER ? 1000 : 0,
  gid: port === USER ? 1000 : 0,
});

/** By which interface the router sends to the packet's destination. */
function portTo(packet: Uint8Array): number {
  const dst = addressAt(packet, 16);
  if (dst.startsWith('10.1.0.')) return 0;
  return dst.startsWith('10.2.0.') ? 2 : 1;
}

/** The kernel's router of an arena, and a simulated one beside it. */
export class SimulatedArena implements Court {
  readonly simulated = true;
  private router: SimulatedRouter | undefined;

  constructor(private readonly arena: Arena) {}

  readonly wire = {
    send: async (kernel: Placed | undefined, hutter: Placed | undefined): Promise<Outcome> => {
      const outcome = await this.arena.wire.send(kernel, undefined);
      return { out: [outcome.out[0], hutter ? this.router!.send(hutter) : []], late: false };
    },
  };

  clear(): Promise<void> {
    return this.arena.clear();
  }

  async load(rules: string): Promise<[Refusal | undefined, Refusal | undefined]> {
    const [kernel] = await this.arena.load(rules);
    try {
      this.router = await SimulatedRouter.load(rules);
      return [kernel, undefined];
    } catch (error) {
      return [kernel, { code: 1, text: String(error) }];
    }
  }

  command(): Promise<never> {
    throw new Error('forSimulation() leaves commands out');
  }

  async counts(): Promise<[Count[], Count[]]> {
    const [kernel] = await this.arena.counts();
    return [kernel, await this.router!.counts()];
  }

  async connections(): Promise<[string, string]> {
    const [kernel] = await this.arena.connections();
    return [kernel, ''];
  }

  kept(): Promise<[string[], string[]]> {
    return Promise.resolve([[], []]);
  }

  events(): [string[], string[]] {
    return [[], []];
  }
}

/** Before the judge in the kernel's place: a simulated router with one worker; beside it one with several. */
export class WorkersCourt implements Court {
  readonly simulated = true;
  private routers: SimulatedRouter[] = [];

  constructor(private readonly workers: number) {}

  readonly wire = {
    send: (one: Placed | undefined, several: Placed | undefined): Promise<Outcome> => {
      const out = [one, several].map((packet, i) => (packet ? this.routers[i]!.send(packet) : []));
      return Promise.resolve({ out: out as [Placed[], Placed[]], late: false });
    },
  };

  async load(rules: string): Promise<[undefined, undefined]> {
    this.routers = await Promise.all(
      [1, this.workers].map((workers) => SimulatedRouter.load(rules, { workers, wall: 0 })),
    );
    return [undefined, undefined];
  }

  clear(): Promise<void> {
    return Promise.resolve();
  }

  command(): Promise<never> {
    throw new Error('forSimulation() leaves commands out');
  }

  async counts(): Promise<[Count[], Count[]]> {
    return (await Promise.all(this.routers.map((router) => router.counts()))) as [Count[], Count[]];
  }

  connections(): Promise<[string, string]> {
    return Promise.resolve(['', '']);
  }

  kept(): Promise<[string[], string[]]> {
    return Promise.resolve([[], []]);
  }

  events(): [string[], string[]] {
    return [[], []];
  }
}
