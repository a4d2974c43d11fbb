/**
 * The control socket: a unix socket, mode 0600, so that root (or whoever runs the router) alone may speak. A line of
 * JSON is a request, lines of JSON are the answer (cli/client.ts). Requests of one connection are answered in order; the
 * handler decides what may overlap between connections.
 */
import { lstatSync, mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import path from 'node:path';
import type { Answer, Request } from './cli/client.js';

/** The socket can't be had; the message says why and what to do. */
export class ControlError extends Error {
  override readonly name = 'ControlError';
}

/** The answer's way out. */
export interface Reply {
  /** Text for the client's stdout or stderr, now. */
  write(part: { stdout?: string; stderr?: string }): void;
  /** Aborted when the client goes away before the answer is complete. */
  readonly signal: AbortSignal;
}

/** Answers one request; the exit code ends the answer. */
export type Handler = (request: Request, reply: Reply) => Promise<number>;

/** What sun_path holds before its zero byte (unix(7)); Node cuts what is longer, and the socket would lie elsewhere. */
const MOST_PATH = 107;

/** A ruleset of a million rules fits; a client that sends no line feed doesn't fill the memory. */
const MAX_REQUEST = 256 * 1024 * 1024;

/** Listens until `close`. */
export class ControlServer {
  private readonly sockets = new Set<Socket>();

  private constructor(
    private readonly server: Server,
    readonly path: string,
  ) {}

  /** @throws ControlError when another router listens there, or the path can't be used. */
  static async listen(file: string, handler: Handler): Promise<ControlServer> {
    await claimSocket(file);
    const server = createServer();
    const control = new ControlServer(server, file);
    server.on('connection', (socket) => control.serve(socket, handler));
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(file, resolve);
        // The socket is bound by now, under the mask.
        process.umask(mask);
      });
    } catch (error) {
      throw new ControlError(`can't listen at ${file}: ${(error as Error).message}; choose another --control`);
    } finally {
      process.umask(mask);
    }
    return control;
  }

  /** Ends all connections and removes the socket. */
  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
    rmSync(this.path, { force: true });
  }

  private serve(socket: Socket, handler: Handler): void {
    this.sockets.add(socket);
    const abort = new AbortController();
    socket.on('close', () => {
      this.sockets.delete(socket);
      abort.abort();
    });
    socket.on('error', () => socket.destroy());
    let parts: Buffer[] = [];
    let length = 0;
    let queue = Promise.resolve();
    socket.on('data', (chunk: Buffer) => {
      let from = 0;
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
        const line = Buffer.concat([...parts, chunk.subarray(from, end)]).toString('utf8');
        parts = [];
        length = 0;
        from = end + 1;
        queue = queue.then(() => answer(socket, abort.signal, line, handler));
      }
      length += chunk.length - from;
      if (length > MAX_REQUEST) socket.destroy();
      else if (from < chunk.length) parts.push(chunk.subarray(from));
    });
  }
}

async function answer(socket: Socket, signal: AbortSignal, line: string, handler: Handler): Promise<void> {
  const send = (part: Answer): void => {
    if (!signal.aborted) socket.write(JSON.stringify(part) + '\n');
  };
  const request = parseRequest(line);
  let code = 2;
  if (typeof request === 'string') send({ stderr: `hutter: ${request}\n` });
  else
    try {
      code = await handler(request, { write: send, signal });
    } catch (error) {
      code = 1;
      send({ stderr: byteString(`hutter: internal error: ${(error as Error).stack ?? String(error)}\n`) });
    }
  send({ code });
}

/** Text as the byte string that answers are made of. */
export const byteString = (text: string): string => Buffer.from(text).toString('latin1');

/** Returns what is wrong with it when it isn't a request. */
function parseRequest(line: string): Request | string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return 'a request is one line of JSON';
  }
  const { program, argv, stdin } = (value ?? {}) as Partial<Request>;
  if (typeof program !== 'string') return 'a request needs `program`, a text';
  if (!Array.isArray(argv) || !argv.every((arg) => typeof arg === 'string')) return 'a request needs `argv`, texts';
  if (stdin !== undefined && typeof stdin !== 'string') return '`stdin` must be a text';
  return { program, argv, ...(stdin === undefined ? {} : { stdin }) };
}

/**
 * Makes the path free: a socket that nobody listens at was left by a crash and goes, anything else at that path stays.
 * @throws ControlError
 */
export async function claimSocket(file: string): Promise<void> {
  if (file === '') throw new ControlError('the control socket needs a path: give one with --control');
  const length = Buffer.byteLength(file);
  if (length > MOST_PATH)
    throw new ControlError(`${file}: ${length} bytes are too many for a socket's path, ${MOST_PATH} are the most`);
  const stat = lstatSync(file, { throwIfNoEntry: false });
  if (stat === undefined) {
    try {
      mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
    } catch (error) {
      throw new ControlError(`can't make ${path.dirname(file)} for the control socket: ${(error as Error).message}`);
    }
    return;
  }
  if (!stat.isSocket()) throw new ControlError(`${file} exists and is no socket: choose another --control`);
  const answered = await new Promise<boolean>((resolve) => {
    const probe = connect(file);
    probe.on('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.on('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
  if (answered)
    throw new ControlError(
      `another router listens at ${file}: stop it, or give this one a socket of its own with --control`,
    );
  rmSync(file, { force: true });
}
