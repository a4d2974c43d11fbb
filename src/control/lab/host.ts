/**
 * A host of the lab: a process inside one namespace that does on command what a person or program on that machine
 * would do (serve, connect, send datagrams), and what a network tester would (capture, send crafted packets).
 * Started by `startHost` in hosts.ts, which talks to it through Node's process channel; ends with it. Knows nothing
 * of rules or routers. Captures and crafted packets need the packages cap and raw-socket, which only tests use.
 */
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import http from 'node:http';
import { createRequire } from 'node:module';
import net from 'node:net';

export interface Peer {
  address: string;
  port: number;
}

export interface ConnectOptions {
  host: string;
  port: number;
  localPort?: number;
  localAddress?: string;
  /** How long to wait for the handshake, and again for data; under 1000 no SYN is sent twice. 400 if not given. */
  timeoutMs?: number;
  /** Sent once connected. */
  send?: string;
  /** Wait for data (at least one chunk) before resolving. */
  read?: boolean;
  /** Keep the connection open under the returned id. */
  keep?: boolean;
}

export type Outcome = 'connected' | 'refused' | 'timeout' | 'unreachable' | 'error';

export interface ConnectResult {
  outcome: Outcome;
  /** The errno's name when there was one. */
  error?: string;
  local?: Peer;
  data?: string;
  id?: number;
}

export interface Fetched {
  status: number;
  bytes: number;
  /** In hexadecimal; a third of the time that SHA-256 takes, which shows in a gibibyte. */
  sha1: string;
  /** The first 64 KiB as text. */
  body: string;
  ms: number;
}

export interface Datagram extends Peer {
  data: string;
}

export interface ProbeResult {
  outcome: 'reply' | 'refused' | 'timeout' | 'unreachable' | 'error';
  error?: string;
  data?: string;
}

interface CapModule {
  Cap: new () => {
    open(device: string, filter: string, bufferSize: number, buffer: Buffer): string;
    setMinBytes?(bytes: number): void;
    on(event: 'packet', listener: (bytes: number, truncated: boolean) => void): void;
    close(): void;
  };
}

interface RawSocketModule {
  createSocket(options: { protocol: number }): {
    setOption(level: number, option: number, value: number): void;
    send(
      packet: Buffer,
      offset: number,
      length: number,
      address: string,
      done: (error: Error | null, bytes: number) => void,
    ): void;
    close(): void;
  };
  SocketLevel: { IPPROTO_IP: number };
  SocketOption: { IP_HDRINCL: number };
}

const DEFAULT_TIMEOUT_MS = 400;
const CAPTURE_BUFFER = 16 * 1024 * 1024;
const IPPROTO_RAW = 255;
const BLOCK = 1024 * 1024;
const BODY_KEPT = 65536;

const listeners = new Map<
  number,
  { server: net.Server; accepted: Peer[]; received: string[]; sockets: Set<net.Socket> }
>();
const servers = new Map<number, http.Server>();
const datagrams = new Map<number, { socket: dgram.Socket; received: Datagram[] }>();
const connections = new Map<number, net.Socket>();
const captures = new Map<number, { frames: Uint8Array[]; close: () => void }>();
/**
 * Every capture ever opened. cap 0.2.1 never closes its libuv handle, which lies inside its object: were the object
 * collected, the loop's list of handles would lead through freed memory, and the next change of the list write there.
 */
const everOpened: InstanceType<CapModule['Cap']>[] = [];
const webVisitors: Peer[] = [];
const require = createRequire(import.meta.url);
let nextId = 1;
let rawSocket: ReturnType<RawSocketModule['createSocket']> | undefined;

const peerOf = (socket: net.Socket): Peer => ({ address: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 });

function outcomeOf(code: string | undefined): 'refused' | 'timeout' | 'unreachable' | 'error' {
  if (code === 'ECONNREFUSED' || code === 'ECONNRESET') return 'refused';
  if (code === 'ETIMEDOUT') return 'timeout';
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH' || code === 'EACCES') return 'unreachable';
  return 'error';
}

/** Everything a host can be asked. Arguments and results travel by structured clone. */
export const calls = {
  /** Accepts TCP connections on a port, greets each, echoes what it hears back if asked to. */
  async listen(o: { port: number; host?: string; greet?: string; echo?: boolean }): Promise<void> {
    const entry = {
      server: net.createServer(),
      accepted: [] as Peer[],
      received: [] as string[],
      sockets: new Set<net.Socket>(),
    };
    entry.server.on('connection', (socket) => {
      entry.accepted.push(peerOf(socket));
      entry.sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => entry.sockets.delete(socket));
      socket.on('data', (chunk) => {
        entry.received.push(chunk.toString());
        if (o.echo) socket.write(chunk);
      });
      if (o.greet !== undefined) socket.write(o.greet);
    });
    await new Promise<void>((resolve, reject) => {
      entry.server.once('error', reject);
      entry.server.listen(o.port, o.host ?? '0.0.0.0', resolve);
    });
    listeners.set(o.port, entry);
  },

  /** Who has connected to a listening port so far, in order. */
  accepted(port: number): Peer[] {
    return listeners.get(port)?.accepted ?? [];
  },

  /** What a listening port's connections have said so far, in order of arrival. */
  heard(port: number): string[] {
    return listeners.get(port)?.received ?? [];
  },

  /** Opens a TCP connection; resolves, whatever becomes of it. */
  connect(o: ConnectOptions): Promise<ConnectResult> {
    const timeoutMs = o.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    return new Promise((resolve) => {
      const socket = net.connect({
        host: o.host,
        port: o.port,
        family: 4,
        ...(o.localPort === undefined ? {} : { localPort: o.localPort }),
        ...(o.localAddress === undefined ? {} : { localAddress: o.localAddress }),
      });
      let local: Peer | undefined;
      let done = false;
      const finish = (result: ConnectResult): void => {
        if (done) return;
        done = true;
        clearTimeout(timer);
        if (local) result.local = local;
        if (result.outcome === 'connected' && o.keep) {
          result.id = nextId++;
          connections.set(result.id, socket);
        } else socket.destroy();
        resolve(result);
      };
      let timer = setTimeout(() => finish({ outcome: 'timeout' }), timeoutMs);
      socket.on('error', (error: NodeJS.ErrnoException) =>
        finish({ outcome: outcomeOf(error.code), error: error.code ?? error.message }),
      );
      socket.once('connect', () => {
        local = { address: socket.localAddress ?? '', port: socket.localPort ?? 0 };
        if (o.send !== undefined) socket.write(o.send);
        if (!o.read) return finish({ outcome: 'connected' });
        clearTimeout(timer);
        timer = setTimeout(() => finish({ outcome: 'timeout', error: 'connected, but no data came' }), timeoutMs);
        socket.once('data', (chunk) => finish({ outcome: 'connected', data: chunk.toString() }));
      });
    });
  },

  /** Says something on a kept connection and waits for the next data. */
  say(o: { id: number; text: string; timeoutMs?: number }): Promise<string> {
    const socket = connections.get(o.id);
    if (!socket) throw new Error(`no connection ${o.id}`);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no answer')), o.timeoutMs ?? 5000);
      socket.once('data', (chunk) => {
        clearTimeout(timer);
        resolve(chunk.toString());
      });
      socket.write(o.text);
    });
  },

  /** Closes a kept connection; with `reset` by RST. Resolves when the socket is gone. */
  async hangUp(o: { id: number; reset?: boolean }): Promise<void> {
    const socket = connections.get(o.id);
    connections.delete(o.id);
    if (!socket || socket.destroyed) return;
    await new Promise<void>((resolve) => {
      socket.once('close', () => resolve());
      if (o.reset) socket.resetAndDestroy();
      else socket.destroy();
    });
  },

  /** Serves HTTP: `body`, or `mebibytes` of random data. Returns what a fetch must find. */
  async serve(o: { port: number; body?: string; mebibytes?: number }): Promise<{ bytes: number; sha1: string }> {
    const block = o.body === undefined ? randomBytes(BLOCK) : Buffer.from(o.body);
    const blocks = o.body === undefined ? (o.mebibytes ?? 1) : 1;
    const hash = createHash('sha1');
    for (let i = 0; i < blocks; i++) hash.update(block);
    const server = http.createServer((request, response) => {
      webVisitors.push(peerOf(request.socket));
      response.writeHead(200, { 'content-type': 'text/plain', 'content-length': block.length * blocks });
      let left = blocks;
      const pump = (): void => {
        while (left-- > 0) if (!response.write(block)) return void response.once('drain', pump);
        response.end();
      };
      pump();
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(o.port, '0.0.0.0', resolve);
    });
    servers.set(o.port, server);
    return { bytes: block.length * blocks, sha1: hash.digest('hex') };
  },

  /** Who has asked this host's web servers for a page, in order. */
  visitors(): Peer[] {
    return webVisitors;
  },

  /** Fetches a page by GET on a connection of its own. */
  fetch(o: { url: string; timeoutMs?: number }): Promise<Fetched> {
    const started = performance.now();
    return new Promise((resolve, reject) => {
      const request = http.get(o.url, { agent: false, timeout: o.timeoutMs ?? 5000 }, (response) => {
        const hash = createHash('sha1');
        const kept: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          hash.update(chunk);
          if (bytes < BODY_KEPT) kept.push(chunk.subarray(0, BODY_KEPT - bytes));
          bytes += chunk.length;
        });
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            bytes,
            sha1: hash.digest('hex'),
            body: Buffer.concat(kept).toString(),
            ms: performance.now() - started,
          }),
        );
      });
      request.on('timeout', () => request.destroy(new Error(`${o.url}: timed out`)));
      request.on('error', reject);
    });
  },

  /** Receives UDP datagrams on a port, answering each with its own text if `echo`. */
  async udpListen(o: { port: number; host?: string; echo?: boolean }): Promise<void> {
    const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 4 * 1024 * 1024 });
    const received: Datagram[] = [];
    socket.on('message', (message, from) => {
      received.push({ address: from.address, port: from.port, data: message.toString() });
      if (o.echo) socket.send(message, from.port, from.address);
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject);
      socket.bind(o.port, o.host ?? '0.0.0.0', resolve);
    });
    datagrams.set(o.port, { socket, received });
  },

  /** What a UDP port has received so far. */
  udpReceived(port: number): Datagram[] {
    return datagrams.get(port)?.received ?? [];
  },

  /** Sends one datagram and expects nothing back. */
  async udpSend(o: { host: string; port: number; localPort?: number; data?: string; ttl?: number }): Promise<void> {
    const socket = dgram.createSocket('udp4');
    socket.on('error', () => undefined);
    try {
      await new Promise<void>((resolve) => socket.bind(o.localPort ?? 0, resolve));
      if (o.ttl !== undefined) socket.setTTL(o.ttl);
      await new Promise<void>((resolve, reject) => {
        socket.send(o.data ?? 'hello', o.port, o.host, (error) => (error ? reject(error) : resolve()));
      });
    } finally {
      socket.close();
    }
  },

  /** Sends one datagram on a connected socket and waits for an answer or an ICMP error. */
  udpProbe(o: {
    host: string;
    port: number;
    localPort?: number;
    data?: string;
    timeoutMs?: number;
  }): Promise<ProbeResult> {
    const socket = dgram.createSocket('udp4');
    return new Promise((resolve) => {
      const finish = (result: ProbeResult): void => {
        clearTimeout(timer);
        socket.removeAllListeners();
        socket.on('error', () => undefined);
        socket.close();
        resolve(result);
      };
      const timer = setTimeout(() => finish({ outcome: 'timeout' }), o.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      socket.once('error', (error: NodeJS.ErrnoException) =>
        finish({ outcome: outcomeOf(error.code), error: error.code ?? error.message }),
      );
      socket.once('message', (message) => finish({ outcome: 'reply', data: message.toString() }));
      socket.bind(o.localPort ?? 0, () => socket.connect(o.port, o.host, () => socket.send(o.data ?? 'hello')));
    });
  },

  /** Starts a capture of a device by a pcap filter; returns its id once packets are being seen. */
  capture(o: { device: string; filter?: string }): number {
    const { Cap } = require('cap') as CapModule;
    const cap = new Cap();
    everOpened.push(cap);
    const buffer = Buffer.alloc(65_600);
    const frames: Uint8Array[] = [];
    // A TUN has no link header: it gets one that says IPv4.
    const header = Uint8Array.of(...new Array<number>(12).fill(0), 0x08, 0x00);
    let raw = false;
    cap.on('packet', (bytes) => {
      const frame = buffer.subarray(0, bytes);
      frames.push(raw ? Buffer.concat([header, frame]) : Uint8Array.from(frame));
    });
    raw = cap.open(o.device, o.filter ?? 'ip', CAPTURE_BUFFER, buffer) === 'RAW';
    cap.setMinBytes?.(0);
    const id = nextId++;
    captures.set(id, { frames, close: () => cap.close() });
    return id;
  },

  /** The frames a capture has seen so far, from the `from`th on, link header included. */
  captured(o: { id: number; from?: number }): Uint8Array[] {
    return captures.get(o.id)?.frames.slice(o.from ?? 0) ?? [];
  },

  /** Sends an IPv4 packet as it is (the kernel fills in id and header checksum where they are 0). */
  sendRaw(o: { packet: Uint8Array; to: string }): Promise<void> {
    if (!rawSocket) {
      const raw = require('raw-socket') as RawSocketModule;
      rawSocket = raw.createSocket({ protocol: IPPROTO_RAW });
      rawSocket.setOption(raw.SocketLevel.IPPROTO_IP, raw.SocketOption.IP_HDRINCL, 1);
    }
    const socket = rawSocket;
    return new Promise((resolve, reject) => {
      socket.send(Buffer.from(o.packet), 0, o.packet.length, o.to, (error) => (error ? reject(error) : resolve()));
    });
  },

  /** Closes everything open: listeners, servers, sockets, captures. */
  reset(): void {
    for (const { server, sockets } of listeners.values()) {
      server.close();
      for (const socket of sockets) socket.destroy();
    }
    for (const server of servers.values()) {
      server.close();
      server.closeAllConnections();
    }
    for (const { socket } of datagrams.values()) socket.close();
    for (const socket of connections.values()) socket.destroy();
    for (const capture of captures.values()) capture.close();
    for (const map of [listeners, servers, datagrams, connections, captures]) map.clear();
    webVisitors.length = 0;
  },
};

export interface Request {
  id: number;
  call: keyof typeof calls;
  args: unknown[];
}

export interface Response {
  id: number;
  result?: unknown;
  error?: string;
}

// Imported for its types this file starts nothing; run with a channel it serves it.
if (process.send && process.env['HUTTER_LAB_HOST']) {
  process.on('disconnect', () => process.exit(0));
  process.on('message', (request: Request) => {
    const answer = (response: Omit<Response, 'id'>): void => void process.send?.({ id: request.id, ...response });
    const handler = calls[request.call] as (...args: unknown[]) => unknown;
    Promise.resolve()
      .then(() => handler(...request.args))
      .then(
        (result) => answer({ result }),
        (error: Error) => answer({ error: `${request.call}: ${error.message}` }),
      );
  });
  process.send({ id: 0 });
}
