/** A router in little, and hosts by it: tracking, nat and helpers as the pipeline runs them, without rules and devices. */
import { Expectation, nextExpectation } from '../../src/dataplane/conntrack/expect.js';
import { PortHelpers } from '../../src/dataplane/conntrack/helpers/helpers.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { bindHelper, confirm, release, track, Tracker } from '../../src/dataplane/conntrack/track.js';
import { CtState, Hook, Manip, Proto, TcpFlag, Verdict } from '../../src/dataplane/names.js';
import { Nat } from '../../src/dataplane/nat/bind.js';
import { followExpected, help, Helpers } from '../../src/dataplane/nat/help.js';
import { RangeFlag } from '../../src/dataplane/nat/range.js';
import { ASK_RULES, begin, finish } from '../../src/dataplane/nat/translate.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { u32 } from '../../src/dataplane/wire/bytes.js';
import { ip, packet, text, wrongPacket, type Fields } from './packets.js';

export const ORLOCK = ip('192.168.73.4');
export const WAN = ip('128.61.70.47');
export const KNOCK = ip('128.61.70.200');

export const encode = (s: string): Uint8Array => Uint8Array.from(s, (c) => c.charCodeAt(0));

export interface Rules {
  /** Source translation of what goes out: this address. */
  snat?: number;
  /** Destination translation of what comes to WAN: this address. */
  dnat?: number;
}

/** Tracking, nat and helpers as the pipeline runs them for a forwarded packet. */
export class Router {
  readonly table = ConntrackTable.attach(ConntrackTable.create({ max: 1024, workers: 2, seed: 3 }), 0);
  readonly tracker = new Tracker(this.table);
  readonly nat = new Nat(this.table);
  readonly helpers = new Helpers(this.nat);

  constructor(readonly rules: Rules = {}) {
    this.table.online();
    this.table.edge(1, 1);
    this.tracker.portHelpers = new PortHelpers(['ftp', 'tftp', 'irc', 'sip']);
    followExpected(this.nat, this.tracker);
  }

  private hook(p: Packet, hook: Hook): Verdict {
    const verdict = begin(this.nat, p, hook);
    if (verdict !== ASK_RULES) return verdict;
    const { snat, dnat } = this.rules;
    const bind = (manip: Manip, address: number): Verdict =>
      this.nat.bind(p.ct, manip, RangeFlag.MAP_IPS, address, address, 0, 0, 0);
    let bound = Verdict.ACCEPT;
    if (hook === Hook.PREROUTING && dnat !== undefined && p.dst === WAN) bound = bind(Manip.DST, dnat);
    if (hook === Hook.POSTROUTING && snat !== undefined && p.src >> 8 === ORLOCK >> 8) bound = bind(Manip.SRC, snat);
    return bound === Verdict.ACCEPT ? finish(this.nat, p, hook) : bound;
  }

  forward(p: Packet): Verdict {
    const run = (): Verdict => {
      if (track(this.tracker, p, Hook.PREROUTING) !== Verdict.ACCEPT) return Verdict.DROP;
      if (this.hook(p, Hook.PREROUTING) !== Verdict.ACCEPT) return Verdict.DROP;
      if (this.hook(p, Hook.POSTROUTING) !== Verdict.ACCEPT) return Verdict.DROP;
      bindHelper(this.tracker, p);
      if (help(this.helpers, p, false) !== Verdict.ACCEPT) return Verdict.DROP;
      return confirm(this.tracker, p);
    };
    const verdict = run();
    if (verdict !== Verdict.ACCEPT) release(this.tracker, p);
    return verdict;
  }

  send(f: Fields): Packet {
    const p = packet(f);
    if (this.forward(p) !== Verdict.ACCEPT) throw new Error(`dropped: ${ends(p)}`);
    if (p.ctState === CtState.INVALID) throw new Error(`invalid: ${ends(p)}`);
    if (wrongPacket(p) !== '') throw new Error(`${wrongPacket(p)}: ${ends(p)}`);
    return p;
  }

  expectations(): string[] {
    const e = new Expectation();
    const all: string[] = [];
    for (let n = nextExpectation(this.table, -1, e); n >= 0; n = nextExpectation(this.table, n, e))
      all.push(`${e.srcMask === 0 ? 'any' : text(e.src)} > ${text(e.dst)}:${e.dport}`);
    return all;
  }
}

export const ends = (p: Packet): string => `${text(p.src)}:${p.sport} > ${text(p.dst)}:${p.dport}`;
export const payload = (p: Packet): string => {
  const o = p.protocol === Proto.TCP ? p.l4 + ((p.bytes[p.l4 + 12]! >> 4) << 2) : p.l4 + 8;
  return String.fromCharCode(...p.bytes.slice(o, p.end));
};
export const seqOf = (p: Packet): number => u32(p.bytes, p.l4 + 4);
export const ackOf = (p: Packet): number => u32(p.bytes, p.l4 + 8);

/** A TCP connection whose two ends know nothing of translation: each numbers and acknowledges what it sees. */
export class Connection {
  /** Next numbers of client and server, and what each has seen of the other. */
  clientNext = 1000;
  serverNext = 5000;
  clientSaw = 0;
  serverSaw = 0;

  constructor(
    readonly r: Router,
    readonly client: number,
    readonly clientPort: number,
    /** The server as the client sees it. */
    readonly server: number,
    readonly serverPort: number,
    /** The client as the server sees it, and the server's own address. */
    readonly seen: number,
    readonly own = server,
  ) {
    const syn = this.fromClient('', TcpFlag.SYN);
    this.seenPort = syn.sport;
    this.ownPort = syn.dport;
    this.fromServer('', TcpFlag.SYN | TcpFlag.ACK);
    this.fromClient('');
  }
  seenPort = 0;
  ownPort = 0;

  clientPacket(data: string, flags: number = TcpFlag.ACK): Fields {
    return {
      protocol: Proto.TCP,
      src: this.client,
      dst: this.server,
      sport: this.clientPort,
      dport: this.serverPort,
      seq: this.clientNext,
      ack: flags & TcpFlag.ACK ? this.clientSaw : 0,
      flags,
      payload: encode(data),
    };
  }
  fromClient(data: string, flags: number = TcpFlag.ACK): Packet {
    const p = this.r.send(this.clientPacket(data, flags));
    this.clientNext += data.length + (flags & TcpFlag.SYN ? 1 : 0);
    this.serverSaw = seqOf(p) + payload(p).length + (flags & TcpFlag.SYN ? 1 : 0);
    return p;
  }
  serverPacket(data: string, flags: number = TcpFlag.ACK): Fields {
    return {
      protocol: Proto.TCP,
      src: this.own,
      dst: this.seen,
      sport: this.ownPort,
      dport: this.seenPort,
      seq: this.serverNext,
      ack: this.serverSaw,
      flags,
      payload: encode(data),
    };
  }
  fromServer(data: string, flags: number = TcpFlag.ACK): Packet {
    const p = this.r.send(this.serverPacket(data, flags));
    this.serverNext += data.length + (flags & TcpFlag.SYN ? 1 : 0);
    this.clientSaw = seqOf(p) + payload(p).length + (flags & TcpFlag.SYN ? 1 : 0);
    return p;
  }
}
