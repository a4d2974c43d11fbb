/**
 * What scenarios have had in them: matches and targets of their rulesets, and kinds of events.
 */
import { ICMP, isQuery, type PacketSpec, SCTP, type Transport, UDP } from './packets.js';
import type { Event, Scenario } from './scenario.js';
import { isRouter } from './wire.js';

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;
const COMMON = new Set([SYN, SYN | ACK, ACK, ACK | 8, FIN | ACK, RST, RST | ACK]);
const INSIDE = /^10\.1\.0\./;

/** Every kind that the judge must have seen, by name. */
const KINDS: Record<string, (event: Event) => boolean> = {
  'TCP begins': (e) => tcpFlags(e) === SYN,
  'TCP ends by FIN': (e) => tcpFlags(e) === (FIN | ACK),
  'TCP ends by RST': (e) => ((tcpFlags(e) ?? 0) & RST) !== 0,
  'odd TCP flags': (e) => tcpFlags(e) !== undefined && !COMMON.has(tcpFlags(e)!),
  UDP: (e) => l4Of(e)?.proto === UDP,
  'ICMP queries': (e) => isQuery(l4Of(e)),
  'other ICMP': (e) => l4Of(e)?.proto === ICMP && !isQuery(l4Of(e)),
  'ICMP errors': (e) => e.kind === 'error',
  SCTP: (e) => l4Of(e)?.proto === SCTP,
  'other protocols': (e) => l4Of(e) !== undefined && 'raw' in l4Of(e)!,
  fragments: (e) => e.kind === 'packet' && e.fragments !== undefined,
  'bad checksums': (e) => ((e.kind === 'error' ? e.checksum : specOf(e)?.odd?.checksum) ?? 0) !== 0,
  'cut headers': (e) => {
    const odd = specOf(e)?.odd;
    return (odd?.cut ?? odd?.headerLength ?? odd?.totalLength) !== undefined;
  },
  'IP options': (e) => specOf(e)?.ipOptions !== undefined,
  'TTL 0 and 1': (e) => (specOf(e)?.ttl ?? 64) <= 1,
  'TTL 255': (e) => specOf(e)?.ttl === 255,
  hairpin: (e) => e.kind === 'packet' && INSIDE.test(e.packet.src) && INSIDE.test(e.packet.dst),
  'to the router': (e) => e.kind === 'packet' && /^(10\.[12]\.0\.1|198\.51\.100\.[12])$/.test(e.packet.dst),
  'from the router': (e) => e.kind === 'packet' && isRouter(e.port),
  'ftp active': (e) => /^(PORT|EPRT|port) /.test(payloadOf(e)),
  'ftp passive': (e) => /^22[79] /.test(payloadOf(e)),
  'expected connections': (e) => e.kind === 'data',
  'sip registrations': (e) => payloadOf(e).startsWith('REGISTER'),
  'sip calls': (e) => payloadOf(e).startsWith('INVITE'),
  'sip answers': (e) => payloadOf(e).startsWith('SIP/2.0'),
  'frames to many': (e) => e.kind === 'packet' && e.link !== undefined,
  commands: (e) => e.kind === 'command',
  settings: (e) => e.kind === 'command' && e.program === 'sysctl',
};

const specOf = (e: Event): PacketSpec | undefined => ('packet' in e ? e.packet : undefined);
const l4Of = (e: Event): Transport | undefined => specOf(e)?.l4;
function tcpFlags(e: Event): number | undefined {
  const l4 = l4Of(e);
  return l4 && 'flags' in l4 ? l4.flags : undefined;
}
function payloadOf(e: Event): string {
  const l4 = l4Of(e);
  return l4 && 'payload' in l4 ? (l4.payload ?? '') : '';
}

export class Coverage {
  private readonly rules = new Map<string, number>();
  private readonly events = new Map<string, number>(Object.keys(KINDS).map((kind) => [kind, 0]));

  /** `collisions`: ports that NAT had to choose. */
  note({ rules, events }: Scenario, collisions: number): void {
    const names = new Set([...rules.matchAll(/ -[mj] (\w+)/g)].map(([, name]) => name!));
    for (const name of names) this.rules.set(name, (this.rules.get(name) ?? 0) + 1);
    for (const event of events) {
      for (const [kind, is] of Object.entries(KINDS)) if (is(event)) this.add(kind, 1);
    }
    this.add('port collisions under SNAT', collisions);
  }

  /** Two lines for people: rulesets with each match and target, and events of each kind. */
  lines(): string[] {
    const text = (map: Map<string, number>): string => [...map].map(([name, count]) => `${name} ${count}`).join(', ');
    const sorted = new Map([...this.rules].sort(([a], [b]) => a.localeCompare(b)));
    return [`rulesets with: ${text(sorted)}`, `events: ${text(this.events)}`];
  }

  /** Kinds of events that haven't come up. */
  unseen(): string[] {
    return [...this.events].flatMap(([kind, count]) => (count === 0 ? [kind] : []));
  }

  private add(kind: string, count: number): void {
    this.events.set(kind, (this.events.get(kind) ?? 0) + count);
  }
}
