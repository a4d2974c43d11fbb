/**
 * Node's side of wire.c: compiles it once into a directory of its own and speaks its protocol, one packet at a time.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LinkType } from './scenario.js';

/** Which router: the judge or the judged. */
export type Side = 0 | 1;
export const KERNEL: Side = 0;
export const HUTTER: Side = 1;
/** A packet's port when the router's own programs send it: root's, or a user's (uid and gid 1000). */
export const FROM_ROUTER = 255;
export const USER = 254;
export const isRouter = (port: number): boolean => port >= USER;

const SOURCE = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../test/kernel/wire.c');

/** A packet on its way: where it goes in or came out, and its bytes from the IP header on. */
export interface Placed {
  port: number;
  bytes: Buffer;
  /** To whom on the link; else to the router. */
  link?: LinkType | undefined;
}

export interface Outcome {
  /** By side, in order of arrival at each port. */
  out: [Placed[], Placed[]];
  /** One side kept the other waiting. */
  late: boolean;
}

const TO_MANY: Record<LinkType, Buffer> = {
  broadcast: Buffer.alloc(6, 0xff),
  multicast: Buffer.from('01005e000005', 'hex'),
};

const ETHERNET = 14;
const MAC = 6;
const FRAME_HEAD = 4;

/** Hardware address of the router's interface `ifN`, or of the far end's `eN`. */
export const mac = (far: boolean, port: number): string => `02:00:00:00:0${far ? 1 : 0}:0${port + 1}`;
/** Its bytes. */
export const macBytes = (far: boolean, port: number): Buffer => Buffer.from(mac(far, port).replaceAll(':', ''), 'hex');

export class Wire {
  private pending: Buffer = Buffer.alloc(0);
  private wake: (() => void) | undefined;
  private ended: Error | undefined;
  private readonly heads: Buffer[];

  private constructor(
    private readonly child: ChildProcess,
    ports: number,
  ) {
    const ipv4 = Buffer.from([8, 0]);
    this.heads = Array.from({ length: ports }, (_, i) => Buffer.concat([macBytes(false, i), macBytes(true, i), ipv4]));
    child.stdout!.on('data', (chunk: Buffer) => {
      this.pending = this.pending.length === 0 ? chunk : Buffer.concat([this.pending, chunk]);
      this.wake?.();
    });
    child.on('exit', (code) => {
      this.ended = new Error(`wire ended with ${code}`);
      this.wake?.();
    });
  }

  /**
   * `dir` receives the program. `namespaces`: kernel router and far, hutter router and far, by path. `spread`: packets go in on all
   * cores in turn.
   */
  static start(dir: string, namespaces: string[], ports: number, spread: boolean): Wire {
    const program = path.join(dir, 'wire');
    const made = spawnSync('cc', ['-O2', '-o', program, SOURCE], { encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`cc ${SOURCE}: ${made.error?.message ?? made.stderr}`);
    const child = spawn(program, [...namespaces, String(ports), ...(spread ? ['spread'] : [])], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    return new Wire(child, ports);
  }

  close(): void {
    this.child.stdin!.end();
    this.child.kill();
  }

  /** Sends one packet on each side (undefined: none) by way of its own port, and returns what came out. */
  async send(kernel: Placed | undefined, hutter: Placed | undefined): Promise<Outcome> {
    const ports = [kernel?.port, hutter?.port].filter((port) => port !== undefined);
    if (ports.length === 2 && ports[0] !== ports[1]) {
      // The routers have sent the flow different ways: each gets its packet alone.
      const first = await this.send(kernel, undefined);
      const second = await this.send(undefined, hutter);
      return {
        out: [
          [...first.out[0], ...second.out[0]],
          [...first.out[1], ...second.out[1]],
        ],
        late: first.late || second.late,
      };
    }
    const port = ports[0] ?? 0;
    const data = [kernel, hutter].map((packet) => {
      if (packet === undefined) return Buffer.alloc(0);
      if (isRouter(port)) return packet.bytes;
      const head = this.heads[port]!;
      return Buffer.concat([
        packet.link ? TO_MANY[packet.link] : head.subarray(0, MAC),
        head.subarray(MAC),
        packet.bytes,
      ]);
    });
    const head = Buffer.alloc(6);
    head[0] = port;
    head.writeUInt16LE(data[0]!.length, 2);
    head.writeUInt16LE(data[1]!.length, 4);
    this.child.stdin!.write(Buffer.concat([head, ...data]));
    return this.receive();
  }

  private async receive(): Promise<Outcome> {
    const head = await this.take(4);
    const outcome: Outcome = { out: [[], []], late: head[2] !== 0 };
    for (let left = head.readUInt16LE(0); left > 0; left--) {
      const frame = await this.take(FRAME_HEAD);
      const bytes = await this.take(frame.readUInt16LE(2));
      outcome.out[frame[0] as Side].push({ port: frame[1]!, bytes: bytes.subarray(ETHERNET) });
    }
    return outcome;
  }

  private async take(length: number): Promise<Buffer> {
    while (this.pending.length < length) {
      if (this.ended) throw this.ended;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
    const taken = this.pending.subarray(0, length);
    this.pending = this.pending.subarray(length);
    return taken;
  }
}
