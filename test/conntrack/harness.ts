/** A tracker on a table of its own with a virtual clock, and packets that go through track and confirm. */
import { CtState, Hook, Proto, TcpFlag, Verdict } from '../../src/dataplane/names.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { confirm, release, track, Tracker } from '../../src/dataplane/conntrack/track.js';
import { ConntrackTable, type TableOptions } from '../../src/dataplane/conntrack/table.js';
import { setU16 } from '../../src/dataplane/wire/bytes.js';
import { ip, packet, type Fields } from '../nat/packets.js';

export { ip, packet, packetBytes, random } from '../nat/packets.js';
export type { Fields } from '../nat/packets.js';

export const CLIENT = ip('192.168.73.4');
export const SERVER = ip('128.61.70.200');

export const STATE_NAMES: Readonly<Record<number, string>> = {
  [CtState.INVALID]: 'INVALID',
  [CtState.NEW]: 'NEW',
  [CtState.ESTABLISHED]: 'ESTABLISHED',
  [CtState.RELATED]: 'RELATED',
  [CtState.UNTRACKED]: 'UNTRACKED',
};

export const tcpFlags = (text: string): number =>
  [...text].reduce((flags, c) => flags | (FLAG_LETTERS[c] ?? Number.NaN), 0);
const FLAG_LETTERS: Readonly<Record<string, number>> = {
  S: TcpFlag.SYN,
  A: TcpFlag.ACK,
  F: TcpFlag.FIN,
  R: TcpFlag.RST,
  P: TcpFlag.PSH,
  U: TcpFlag.URG,
};

export class Bench {
  readonly table: ConntrackTable;
  readonly tracker: Tracker;
  verdict: Verdict = Verdict.ACCEPT;
  last!: Packet;

  constructor(
    options: Partial<TableOptions> = {},
    shared = ConntrackTable.create({ max: 1000, workers: 1, ...options }),
    slot = 0,
  ) {
    this.table = ConntrackTable.attach(shared, slot);
    this.tracker = new Tracker(this.table);
    this.table.online();
    this.at(1000);
  }

  /** Sets the clock: milliseconds. */
  at(now: number): this {
    this.table.edge(now | 0, 1_700_000_000);
    this.table.tidy(false);
    return this;
  }
  wait(ms: number): this {
    return this.at((this.table.now + ms) | 0);
  }

  /** The packet's state, '>' for the original direction or '<' for the reply, and '!' when it was dropped. */
  send(f: Fields | Packet, hook: Hook = Hook.PREROUTING, accept = true): string {
    const p = 'protocol' in f && 'bytes' in f ? f : packet(f);
    this.last = p;
    this.verdict = track(this.tracker, p, hook);
    const state = STATE_NAMES[p.ctState]! + (p.ct < 0 ? '' : p.ctDir === 0 ? '>' : '<');
    if (this.verdict === Verdict.DROP) return state + '!';
    if (accept) this.verdict = confirm(this.tracker, p);
    else release(this.tracker, p);
    return this.verdict === Verdict.DROP ? state + '!' : state;
  }

  /** A TCP segment of the connection CLIENT:1000 → SERVER:80; `from` is '>' or '<'. */
  tcp(from: string, flags: string, seq = 0, ack = 0, length = 0, window = 65535, options?: Uint8Array): string {
    const forward = from === '>';
    const p = packet({
      protocol: Proto.TCP,
      src: forward ? CLIENT : SERVER,
      dst: forward ? SERVER : CLIENT,
      sport: forward ? 1000 : 80,
      dport: forward ? 80 : 1000,
      flags: tcpFlags(flags),
      seq,
      ack,
      payload: new Uint8Array(length),
      ...(options ? { options } : {}),
    });
    setU16(p.bytes, p.l4 + 14, window);
    return this.send(p);
  }

  udp(from: string, sport = 1000, dport = 53): string {
    const forward = from === '>';
    return this.send({
      protocol: Proto.UDP,
      src: forward ? CLIENT : SERVER,
      dst: forward ? SERVER : CLIENT,
      sport: forward ? sport : dport,
      dport: forward ? dport : sport,
      payload: new Uint8Array(10),
    });
  }

  /** The only connection there is, −1 = none. */
  get only(): number {
    const first = this.table.next(-1);
    if (first >= 0 && this.table.next(first) >= 0) throw new Error('more than one connection');
    return first;
  }
}
