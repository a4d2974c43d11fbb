/**
 * Runs scenarios on both routers, compares all that came out and all that was counted, and shrinks what differs to the
 * shortest sequence that still does.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Count, Refusal } from './arena.js';
import {
  addressAt,
  build,
  checksumField,
  describe,
  type Ends,
  endsOf,
  follow,
  fragment,
  ICMP,
  isError,
  SCTP,
  sum16,
  TCP,
  UDP,
  withEnds,
  wrongness,
} from './packets.js';
import type { CommandEvent, ErrorEvent, Event, Scenario } from './scenario.js';
import { HUTTER, isRouter, KERNEL, type Outcome, type Placed, type Side } from './wire.js';

/** Where kernel and hutter part. */
export interface Divergence {
  /** What differs, in words. */
  what: string;
  /** What each event did, in words. */
  story: string[];
}

/** Where two routers, the kernel's first, are before the judge: an Arena, or one whose second router is simulated. */
export interface Court {
  readonly wire: { send(kernel: Placed | undefined, hutter: Placed | undefined): Promise<Outcome> };
  clear(): Promise<void>;
  load(rules: string): Promise<[Refusal | undefined, Refusal | undefined]>;
  command(event: CommandEvent): Promise<[Refusal | undefined, Refusal | undefined]>;
  counts(): Promise<[Count[], Count[]]>;
  connections(): Promise<[string, string]>;
  /** Every list of `-m recent`, by lines of /proc/net/xt_recent behind the list's name, and what connections are expected. */
  kept(): Promise<[string[], string[]]>;
  /** What `conntrack -E` has told; undefined: workers tell theirs in no common order. */
  events(): [string[], string[]] | undefined;
  /** The second router has no connections to tell of. */
  readonly simulated: boolean;
}

export interface Verdict {
  packets: number;
  /** Ports that NAT chose. */
  collisions: number;
  divergence: Divergence | undefined;
}

/** What one side knows of a flow. */
interface Flow {
  /** Its beginner's ends and port, where they were found out and not written down. */
  origin?: Ends & { port: number };
  /** As it last came out. */
  seen?: Ends & { port: number };
}

/**
 * nf_conncount looks again at a connection it doesn't find, and at its whole list, when jiffies have passed: with
 * connlimit packets keep this far apart (HZ = 250 and faster).
 */
const TWO_JIFFIES_MS = 12;

const RST = 4;
/** Both sides tell whole seconds, one after the other. */
const TIMEOUTS_APART_S = 2;
const LAST_PACKETS_MS = 20;
const LAST_TRIES = 3;

const SIDES: readonly Side[] = [KERNEL, HUTTER];
const reversed = ({ src, dst, sport, dport }: Ends): Ends => ({ src: dst, dst: src, sport: dport, dport: sport });

/** Runs a scenario; stops at the first event whose packets differ. */
export async function run(arena: Court, scenario: Scenario, tell = false): Promise<Verdict> {
  await arena.clear();
  const [kernel, hutter] = await arena.load(scenario.rules);
  if (kernel || hutter) {
    const alike = kernel?.code === hutter?.code;
    const what = `loading: kernel ${kernel?.text ?? 'took it'}, hutter ${hutter?.text ?? 'took it'}`;
    return { packets: 0, collisions: 0, divergence: alike ? undefined : { what, story: [] } };
  }
  return new Run(arena, scenario, tell).toEnd();
}

class Run {
  private readonly flows = SIDES.map(() => new Map<number, Flow>());
  /** What went in and first came out for an event, by side. */
  private readonly sent = SIDES.map(() => new Map<number, Placed>());
  private readonly cameOut = SIDES.map(() => new Map<number, Placed>());
  /** Tuples whose ports were free choices: hutter's → the kernel's, for both directions. */
  private readonly chosen = new Map<string, Ends>();
  private collisions = 0;
  private readonly story: string[] = [];
  private packets = 0;
  private readonly pause: number;
  /** What came out and has no counterpart yet: a frame can be late by an event. */
  private readonly left: Placed[][] = [[], []];

  constructor(
    private readonly arena: Court,
    private readonly scenario: Scenario,
    private readonly tell: boolean,
  ) {
    this.pause = /connlimit/.test(scenario.rules) ? TWO_JIFFIES_MS : 0;
  }

  async toEnd(): Promise<Verdict> {
    for (const event of this.scenario.events) {
      if (event.kind === 'command') {
        const what = (await this.atRest()) ?? (await this.command(event));
        if (what !== undefined) return this.verdict(`event ${event.id}: ${what}`);
        continue;
      }
      const sides = SIDES.map((side) => this.bytesOf(event, side));
      for (let i = 0; i < Math.max(sides[0]!.length, sides[1]!.length); i++) {
        const kernel = sides[0]![i];
        const hutter = sides[1]![i];
        const outcome = await this.arena.wire.send(kernel, hutter);
        this.packets++;
        if (this.pause > 0) await sleep(this.pause);
        this.note(event, [kernel, hutter], outcome);
        const what = this.compare([kernel, hutter], outcome);
        if (what !== undefined) return this.verdict(`event ${event.id}: ${what}`);
      }
    }
    return this.verdict(
      (await this.atRest()) ??
        (await this.connectionsApart()) ??
        (await this.keptApart()) ??
        (await this.eventsApart()),
    );
  }

  /** Whether the two may differ in what is told of connections: ports were free choices, or there is nobody to tell. */
  private get untold(): boolean {
    const { rules, events } = this.scenario;
    const texts = [rules, ...events.map((event) => (event.kind === 'command' ? (event.stdin ?? '') : ''))];
    return this.collisions > 0 || texts.some((text) => text.includes('--random')) || this.arena.simulated;
  }

  /** How the connections that `conntrack -L` shows differ; where ports were free choices they can't be told apart. */
  private async connectionsApart(): Promise<string | undefined> {
    if (this.untold) return undefined;
    const [kernel, hutter] = (await this.arena.connections()).map(connectionsOf) as [Connection[], Connection[]];
    for (const a of kernel) {
      const at = hutter.findIndex((b) => b.text === a.text && Math.abs(b.seconds - a.seconds) <= TIMEOUTS_APART_S);
      if (at < 0) return `connections: only kernel: ${a.text}, ${a.seconds} s`;
      hutter.splice(at, 1);
    }
    return hutter.length === 0 ? undefined : `connections: only hutter: ${hutter[0]!.text}, ${hutter[0]!.seconds} s`;
  }

  /** How the lists of `-m recent` differ but for their times, and what is expected. */
  private async keptApart(): Promise<string | undefined> {
    if (this.untold) return undefined;
    const [kernel, hutter] = (await this.arena.kept()).map((lines) => lines.map(timeless).sort()) as [
      string[],
      string[],
    ];
    const at = kernel.findIndex((line, i) => line !== hutter[i]);
    if (at < 0 && kernel.length === hutter.length) return undefined;
    const i = at < 0 ? kernel.length : at;
    return `kept: kernel ${kernel[i] ?? 'nothing'}; hutter ${hutter[i] ?? 'nothing'}`;
  }

  /** How what `conntrack -E` tells differs, line by line. */
  private async eventsApart(): Promise<string | undefined> {
    // conntrack deletes in the order of its table, and says so.
    const { events } = this.scenario;
    const deletes = events.some((event) => event.kind === 'command' && event.program === 'conntrack');
    if (deletes || this.untold) return undefined;
    for (let tries = 0; ; tries++) {
      const told = this.arena.events();
      if (told === undefined) return undefined;
      const [kernel, hutter] = told.map(eventsOf) as [Connection[], Connection[]];
      let at = 0;
      while (
        kernel[at] !== undefined &&
        kernel[at]!.text === hutter[at]?.text &&
        Math.abs(kernel[at]!.seconds - hutter[at]!.seconds) <= TIMEOUTS_APART_S
      )
        at++;
      if (at === kernel.length && at === hutter.length) return undefined;
      if (tries === LAST_TRIES) {
        const text = (event?: Connection): string => (event ? `${event.text}, ${event.seconds} s` : 'nothing');
        return `events: kernel ${text(kernel[at])}; hutter ${text(hutter[at])}`;
      }
      await sleep(LAST_PACKETS_MS);
    }
  }

  /** When nothing is on its way any more: what differs in what came out and was counted so far. */
  private async atRest(): Promise<string | undefined> {
    if (this.left.some((frames) => frames.length > 0)) {
      await sleep(LAST_PACKETS_MS);
      const what = this.compare([], await this.arena.wire.send(undefined, undefined)) ?? this.leftText();
      if (what !== '') return what;
    }
    let lines = await this.countersApart();
    // What goes by lo is nobody's to wait for: the last packets may still be on their way.
    for (let tries = 0; lines.length > 0 && tries < LAST_TRIES; tries++) {
      await sleep(LAST_PACKETS_MS);
      lines = await this.countersApart();
    }
    return lines.length === 0 ? undefined : `counters: ${lines.slice(0, 8).join('; ')}`;
  }

  private async command(event: CommandEvent): Promise<string | undefined> {
    const [kernel, hutter] = await this.arena.command(event);
    if (this.tell)
      this.story.push(`${event.id} ${event.program} ${event.argv.join(' ')}\n${event.stdin ?? ''}`.trimEnd());
    if (kernel?.code === hutter?.code) return undefined;
    return `${event.program}: kernel ${kernel?.text ?? 'did it'}, hutter ${hutter?.text ?? 'did it'}`;
  }

  private async countersApart(): Promise<string[]> {
    // Which packets share a bucket hangs on ports that were free choices.
    if (this.collisions > 0 && /--hashlimit-mode \S*port/.test(this.scenario.rules)) return [];
    const [kernel, hutter] = await this.arena.counts();
    const lines: string[] = [];
    for (let i = 0; i < Math.max(kernel.length, hutter.length); i++) {
      const a = kernel[i];
      const b = hutter[i];
      if (a?.rule !== b?.rule || a?.count !== b?.count) {
        lines.push(
          `${a?.table} ${a?.rule}: kernel ${a?.count}, hutter ${b?.count}${a?.rule === b?.rule ? '' : ` ${b?.rule}`}`,
        );
      }
    }
    return lines;
  }

  private async verdict(what: string | undefined): Promise<Verdict> {
    const { packets, collisions } = this;
    if (what === undefined) return { packets, collisions, divergence: undefined };
    if (this.tell) {
      const [kernel, hutter] = await this.arena.connections();
      this.story.push('kernel connections:', kernel.trimEnd(), 'hutter connections:', hutter.trimEnd());
    }
    return { packets, collisions, divergence: { what, story: this.story } };
  }

  private flow(side: Side, number: number): Flow {
    const flows = this.flows[side]!;
    let flow = flows.get(number);
    if (!flow) flows.set(number, (flow = {}));
    return flow;
  }

  /** The packets of an event as this side gets them. */
  private bytesOf(event: Exclude<Event, CommandEvent>, side: Side): Placed[] {
    if (event.kind === 'error') return this.errorBytes(event, side);
    const flow = this.flow(side, event.flow);
    let packet = build(event.packet);
    let { port } = event;
    if (event.kind === 'data') {
      const at = endsNamed(this.cameOut[side]!.get(event.about)?.bytes);
      if (at) {
        const ends = endsOf(packet);
        packet = withEnds(packet, { ...ends, dst: at.address, dport: at.port ?? ends.dport });
      }
      flow.origin = { ...endsOf(packet), port };
    } else if (event.way === 1 && flow.seen) {
      packet = withEnds(packet, reversed(flow.seen));
      port = flow.seen.port;
    } else if (event.way === 0 && flow.origin) {
      packet = withEnds(packet, flow.origin);
      port = flow.origin.port;
    }
    if (event.kind === 'packet' && event.fragments) {
      const pieces = fragment(packet, event.fragments.size, event.fragments.overlap);
      return event.fragments.order.flatMap((i) => (pieces[i] ? [{ port, bytes: pieces[i]! }] : []));
    }
    return [{ port, bytes: packet, link: event.kind === 'packet' ? event.link : undefined }];
  }

  private errorBytes(event: ErrorEvent, side: Side): Placed[] {
    const about = this.cameOut[side]!.get(event.about) ?? this.sent[side]!.get(event.about);
    if (!about || isRouter(about.port)) return [];
    const quote = Buffer.from(about.bytes.subarray(0, event.length));
    if (event.damage && quote.length >= 22) {
      const whole = this.chosen.get(tupleName(quote[9]!, endsOf(quote)));
      quote[15]! ^= event.damage;
      const { src } = endsOf(quote);
      if (whole && side === HUTTER) this.chosen.set(tupleName(quote[9]!, endsOf(quote)), { ...whole, src });
    }
    const src =
      event.from === 'hop' || /^100\.64\.|\.255$/.test(addressAt(about.bytes, 16))
        ? ['10.1.0.5', '198.51.100.254', '10.2.0.4'][about.port]!
        : addressAt(about.bytes, 16);
    const { type, code, rest } = event;
    const packet = build({
      src,
      dst: addressAt(about.bytes, 12),
      id: 4000 + event.id,
      tos: 0xc0,
      l4: { proto: ICMP, type, code, rest, payload: quote.toString('latin1') },
      odd: { checksum: event.checksum ?? 0 },
    });
    return [{ port: about.port, bytes: packet }];
  }

  private note(event: Event, given: (Placed | undefined)[], outcome: Outcome): void {
    if (this.tell) {
      const text = (p: Placed | undefined): string =>
        p ? `${isRouter(p.port) ? 'self' : `if${p.port}`} ${describe(p.bytes)}` : '-';
      const [kernel, hutter] = given.map(text);
      this.story.push(`${event.id} in  ${kernel}${kernel === hutter ? '' : ` | ${hutter}`}`);
      for (const side of SIDES)
        for (const p of outcome.out[side]) this.story.push(`   ${side ? 'hutter' : 'kernel'} ${text(p)}`);
    }
    for (const side of SIDES) {
      const packet = given[side];
      if (!packet) continue;
      const out = outcome.out[side].find(
        ({ bytes }) => bytes[9] === packet.bytes[9] && addressAt(bytes, 16) !== addressAt(packet.bytes, 12),
      );
      this.sent[side]!.set(event.id, packet);
      if (!out) continue;
      this.cameOut[side]!.set(event.id, out);
      const began = event.kind === 'data' || (event.kind === 'packet' && event.way === 0);
      if (began && (out.bytes.readUInt16BE(6) & 0x1fff) === 0) {
        this.flow(side, event.flow).seen = { ...endsOf(out.bytes), port: out.port };
      }
    }
  }

  /** Compares what came out, port by port; what differs, in words. */
  private compare(given: (Placed | undefined)[], outcome: Outcome): string | undefined {
    for (const side of SIDES) this.left[side]!.push(...outcome.out[side]);
    // Known, and in docs/DIFFERENCES.md: what the router's sockets answer from 127.0.0.0/8, and answers from multicast addresses.
    for (const frames of this.left)
      for (let i = frames.length - 1; i >= 0; i--) {
        const first = frames[i]!.bytes[12]!;
        if (first === 127 || first >= 224) frames.splice(i, 1);
      }
    const [kernel, hutter] = this.left as [Placed[], Placed[]];
    for (let i = 0; i < kernel.length;) {
      const a = kernel[i]!;
      const j = hutter.findIndex(({ port }) => port === a.port);
      if (j < 0) {
        i++;
        continue;
      }
      const what = this.difference(a.bytes, hutter[j]!.bytes, given);
      if (what !== undefined)
        return `out of if${a.port}: ${what}\n  kernel ${describe(a.bytes)}\n  hutter ${describe(hutter[j]!.bytes)}`;
      kernel.splice(i, 1);
      hutter.splice(j, 1);
    }
    return outcome.late && kernel.length + hutter.length > 0 ? this.leftText() : undefined;
  }

  private leftText(): string {
    const lines = SIDES.flatMap((side) =>
      this.left[side]!.map((p) => `\n  only ${side ? 'hutter' : 'kernel'}, out of if${p.port}: ${describe(p.bytes)}`),
    );
    return lines.join('');
  }

  private difference(kernel: Buffer, hutter: Buffer, given: (Placed | undefined)[]): string | undefined {
    if (kernel.equals(hutter)) return undefined;
    const a = Buffer.from(kernel);
    const b: Buffer = this.withKernelsPorts(a, Buffer.from(hutter), given);
    if (this.scenario.rules.includes('--helper') && isHarmed(a, b)) return undefined;
    if (this.collisions > 0 && saysTheSame(a, b)) return undefined;
    if (a.length !== b.length) return 'length';
    const [wrongA, wrongB] = [wrongness(a), wrongness(b)];
    // Identifications are the stack's own choice where the kernel's is not that of the packet.
    const id = given[KERNEL]?.bytes.readUInt16BE(4);
    if (a.readUInt16BE(4) !== b.readUInt16BE(4) && a.readUInt16BE(4) !== id) {
      b.writeUInt16BE(a.readUInt16BE(4), 4);
      b.writeUInt16BE(a.readUInt16BE(10), 10);
    }
    if (JSON.stringify(wrongA) !== JSON.stringify(wrongB))
      return `checksums ${JSON.stringify(wrongA)} ${JSON.stringify(wrongB)}`;
    if (a.equals(b)) return undefined;
    takeTimes(a, b);
    takeCut(a, b, given);
    if (a.equals(b)) return undefined;
    const at = a.findIndex((byte, i) => byte !== b[i]);
    return `byte ${at}: ${a.subarray(at, at + 8).toString('hex')} ${b.subarray(at, at + 8).toString('hex')}`;
  }

  /** Notes the ports of the packets at `start` that both sides chose, for what they sent because of `given`. */
  private learn(kernel: Buffer, hutter: Buffer, start: number, given: (Placed | undefined)[]): void {
    const a = endsOf(kernel, start);
    const b = endsOf(hutter, start);
    if (kernel[start + 9] !== hutter[start + 9] || a.src !== b.src || a.dst !== b.dst) return;
    const before = given.map((packet) => packet && endsOf(packet.bytes));
    // Chosen anew where neither side left the sender's port, or chosen before where both did; one flow may have had another.
    const chosen = (end: 'sport' | 'dport'): boolean => {
      if (a[end] === b[end]) return false;
      const kept = [a, b].map((ends, side) => before[side] && before[side][end] === ends[end]);
      return kept[0] !== undefined && kept[0] === kept[1];
    };
    const same = (end: 'sport' | 'dport'): boolean => a[end] === b[end] || chosen(end);
    if (!(chosen('sport') || chosen('dport')) || !same('sport') || !same('dport')) return;
    this.chosen.set(tupleName(hutter[start + 9]!, b), a);
    this.chosen.set(tupleName(hutter[start + 9]!, reversed(b)), reversed(a));
    this.collisions++;
  }

  /** hutter's packet with the kernel's choice of ports, where both chose. */
  private withKernelsPorts(kernel: Buffer, hutter: Buffer, given: (Placed | undefined)[]): Buffer {
    this.learn(kernel, hutter, 0, given);
    const l4 = (hutter[0]! & 15) * 4;
    const quotes = isError(hutter) && hutter.length >= l4 + 28;
    if (quotes && isError(kernel)) this.learn(kernel, hutter, l4 + 8, given);
    const mapped = (packet: Buffer, start: number): Buffer => {
      const ends = this.chosen.get(tupleName(packet[start + 9]!, endsOf(packet, start)));
      if (!ends) return packet;
      const result = withEnds(packet, ends, start);
      // Of a part of a packet SCTP's checksum can't be made up.
      const sum = start + (packet[start]! & 15) * 4 + 8;
      if (start > 0 && packet[start + 9] === SCTP && sum < kernel.length)
        kernel.copy(result, sum, sum, Math.min(sum + 4, kernel.length));
      return result;
    };
    const result = mapped(hutter, 0);
    if (!quotes) return result;
    const inner = mapped(result, l4 + 8);
    // The kernel hasn't finished the checksum of a reset that went by lo (docs/DIFFERENCES.md).
    const reset = l4 + 8 + (inner[l4 + 8]! & 15) * 4;
    if (inner[l4 + 17] === TCP && inner.length >= reset + 20 && (inner[reset + 13]! & RST) !== 0) {
      const same = inner === result ? Buffer.from(result) : inner;
      kernel.copy(same, reset + 16, reset + 16, reset + 18);
      follow(same, l4 + 2, sum16(result, l4 + 8), sum16(same, l4 + 8));
      return same;
    }
    if (inner === result) return result;
    // The error's own checksum covers the quote: as wrong as it was.
    follow(inner, l4 + 2, sum16(result, l4 + 8), sum16(inner, l4 + 8));
    return inner;
  }
}

/**
 * Whether these are errors of which the kernel's was rewritten or renumbered by a helper, as if it were a message of the connection
 * (docs/DIFFERENCES.md): its checksum is wrong, or all differs that sequence numbers would be, or the checksum of what it quotes.
 */
function isHarmed(kernel: Buffer, hutter: Buffer): boolean {
  if (!isError(kernel) || !isError(hutter) || wrongness(hutter).transport !== 0) return false;
  if (wrongness(kernel).transport !== 0) return true;
  const l4 = (hutter[0]! & 15) * 4;
  const quoted = l4 + 8 + (hutter[l4 + 8]! & 15) * 4;
  const blank = (packet: Buffer): Buffer => {
    const copy = Buffer.from(packet);
    for (const [from, to] of [
      [4, 6],
      [10, 12],
      [l4 + 2, l4 + 20],
      [quoted + 6, quoted + 8],
    ] as const)
      copy.fill(0, from, Math.min(to, copy.length));
    return copy;
  };
  return blank(kernel).equals(blank(hutter));
}

/**
 * Whether two messages of SIP, sent by and to the same, or errors that quote such, differ in ports alone, which are a free choice where
 * NAT chose one.
 */
function saysTheSame(a: Buffer, b: Buffer): boolean {
  const l4 = (b[0]! & 15) * 4;
  const text = (packet: Buffer): string => {
    const copy = Buffer.from(packet.subarray(l4));
    const blank = (start: number, proto: number): void => {
      const field = start + { [UDP]: 6, [TCP]: 16, [ICMP]: 2 }[proto]!;
      copy.fill(0, field, field + 2);
      // UDP's length, too.
      if (proto === UDP) copy.fill(0, field - 2, field);
    };
    blank(0, packet[9]!);
    if (isError(packet)) copy.fill(0, 8, 28);
    if (isError(packet) && packet[l4 + 17] === UDP) blank(28, UDP);
    return copy.toString('latin1').replace(/(?<=[:=] ?|^m=\w+ )\d+/gm, '#');
  };
  const isSip = /sip\/2.0/i.test(a.toString('latin1')) || (isError(a) && endsOf(a, l4 + 8).dport === SIP);
  const comparable = a[9] === b[9] && [UDP, TCP, ICMP].includes(a[9]!) && isSip;
  return comparable && JSON.stringify(wrongness(a)) === JSON.stringify(wrongness(b)) && text(a) === text(b);
}

const SIP = 5060;
const TIMESTAMP_REPLY = 14;
const CLOCKS_APART_MS = 1000;

/** Two routers tell the time one after the other: what a timestamp reply says of it, and its checksum, is taken from `a` to `b`. */
function takeTimes(a: Buffer, b: Buffer): void {
  const icmp = (a[0]! & 15) << 2;
  const isReply = (p: Buffer): boolean =>
    p[9] === ICMP && (p.readUInt16BE(6) & 0x1fff) === 0 && p[icmp] === TIMESTAMP_REPLY && p.length >= icmp + 20;
  if (a[0] !== b[0] || !isReply(a) || !isReply(b)) return;
  for (const time of [icmp + 12, icmp + 16]) {
    if (Math.abs(a.readUInt32BE(time) - b.readUInt32BE(time)) > CLOCKS_APART_MS) return;
    a.copy(b, time, time, time + 4);
  }
  a.copy(b, icmp + 2, icmp + 2, icmp + 4);
}

/**
 * Of a header that is cut short in its ports or checksum, which hold what was chosen, each side passes on what it was given: that is
 * taken from `a` to `b`.
 */
function takeCut(a: Buffer, b: Buffer, [kernel, hutter]: (Placed | undefined)[]): void {
  const l4 = (a[0]! & 15) << 2;
  const field = l4 + checksumField(a[9]!);
  if (!kernel || !hutter || a[0] !== b[0] || field < l4 || a.length >= field + 2) return;
  for (let i = l4; i < a.length; i++) if (a[i] === kernel.bytes[i] && b[i] === hutter.bytes[i]) b[i] = a[i]!;
}

/** What was kept, without its times: of a list's entry how many there are and where the next goes. */
const timeless = (line: string): string =>
  line
    .replace(
      /last_seen: \d+ oldest_pkt: (\d+) (.*)$/,
      (_, next: string, times: string) => `${next} of ${times.split(',').length}`,
    )
    .replace(/^\d+ proto=/, 'proto=')
    // The port that a datagram was given, which its answer comes to.
    .replace(
      /dport=(\d+)(.* master-src=\S+ master-dst=\S+ sport=(\d+) .*helper=tftp)/,
      (_, port: string, rest: string, own: string) => (port === own ? `dport=${port}${rest}` : `dport=chosen${rest}`),
    );

interface Connection {
  /** Without timeout and references, and without a port or identifier that NAT chose. */
  text: string;
  seconds: number;
}

function connectionsOf(list: string): Connection[] {
  const lines = list.split('\n').filter((line) => line.includes('src='));
  return lines.map((line) => {
    const words = line.split(/ +/);
    hideChoice(words);
    const text = words.filter((word, i) => i !== SECONDS && !word.startsWith('use=')).join(' ');
    return { text, seconds: Number(words[SECONDS]) };
  });
}
/** A port or identifier that NAT chose. */
function hideChoice(words: string[]): void {
  const value = (at: number): string | undefined => words[at]?.split('=')[1];
  const own = words.findIndex((word) => /^(sport|id)=/.test(word));
  const answers = words.findLastIndex((word) => /^(dport|id)=/.test(word));
  if (value(own) !== value(answers)) words[answers] = 'chosen';
}

/** Which word of a line is the timeout. */
const SECONDS = 2;

/** Events of connections that began before the first of them are those of the scenario before. */
function eventsOf(lines: string[]): Connection[] {
  const begun = new Set<string>();
  return lines.flatMap((line) => {
    const [, kind, rest] = /^ *\[(\w+)\] (.*)/.exec(line) ?? [];
    const words = rest?.trim().split(/ +/) ?? [];
    const tuple = words.filter((word) => /^(src|dst|sport|dport|type|code|id|zone)/.test(word)).join(' ') + words[0];
    if (kind === 'NEW') begun.add(tuple);
    else if (!begun.has(tuple)) return [];
    hideChoice(words);
    const timed = /^\d+$/.test(words[SECONDS] ?? '');
    const seconds = timed ? Number(words[SECONDS]) : 0;
    // When what is over is found, is each side's own business.
    if (kind === 'DESTROY' && !timed) return [];
    if (timed) words.splice(SECONDS, 1);
    return [{ text: `${kind} ${words.join(' ')}`, seconds }];
  });
}

const tupleName = (proto: number, { src, dst, sport, dport }: Ends): string =>
  `${proto} ${src} ${sport} ${dst} ${dport}`;

/** Address and port (of media only the former) that ftp, irc or sip names; of another datagram, whence it comes. */
function endsNamed(packet: Buffer | undefined): { address: string; port?: number } | undefined {
  const said = packet?.toString('latin1') ?? '';
  const contact = /^REGISTER [^]*^(?:Contact|m): *<sip:[^@]*@([\d.]+):(\d+)/im.exec(said);
  if (contact) return { address: contact[1]!, port: Number(contact[2]) };
  const media = /^c=IN IP4 ([\d.]+)/m.exec(said);
  if (media) return { address: media[1]! };
  if (packet?.[9] === UDP) return { address: addressAt(packet, 12), port: endsOf(packet).sport };
  const text = packet?.toString('latin1') ?? '';
  const dcc = /DCC \w+ \S+ (\d+) (\d+)/.exec(text);
  if (dcc) {
    const address = [24, 16, 8, 0].map((shift) => (Number(dcc[1]) >>> shift) & 0xff).join('.');
    return { address, port: Number(dcc[2]) };
  }
  const six = /(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)/.exec(text);
  if (six) return { address: six.slice(1, 5).join('.'), port: Number(six[5]) * 256 + Number(six[6]) };
  const extended = /\|1\|([\d.]+)\|(\d+)\|/.exec(text);
  if (extended) return { address: extended[1]!, port: Number(extended[2]) };
  const alone = /\|\|\|(\d+)\|/.exec(text);
  return alone && packet ? { address: addressAt(packet, 12), port: Number(alone[1]) } : undefined;
}

/**
 * The shortest scenario found that still diverges in the same kind of thing (frames, counters, connections, …) as `what` says: events
 * first, then rules, then events again.
 */
export async function shrink(
  arena: Court,
  scenario: Scenario,
  what: string,
  note: (text: string) => void,
): Promise<Scenario> {
  const kindOf = (text: string): string => /^[a-z]*/.exec(text)![0];
  const fails = async (candidate: Scenario): Promise<boolean> => {
    const { divergence } = await run(arena, candidate);
    return divergence !== undefined && kindOf(divergence.what) === kindOf(what);
  };
  let best = scenario;
  for (let round = 0; round < 2; round++) {
    best = { ...best, events: await least(best.events, (events) => fails({ ...best, events })) };
    note(`${best.events.length} events`);
    const lines = best.rules.split('\n');
    // Those that ask for packet types stay, without which hutter knows of none.
    const rules = lines.flatMap((line, i) => (shrinkable(line) ? [i] : []));
    const kept = await least(rules, (some) => fails({ ...best, rules: withRules(lines, some) }));
    if (kept.length < rules.length) best = { ...best, rules: withRules(lines, kept) };
    else break;
    note(`${kept.length} rules`);
  }
  return best;
}

/** The lines of a ruleset with some of its rules, by line number. */
const withRules = (lines: string[], rules: number[]): string => {
  const some = new Set(rules);
  return lines.filter((line, i) => !shrinkable(line) || some.has(i)).join('\n');
};
const shrinkable = (line: string): boolean => line.startsWith('-A') && !line.includes('-m pkttype');

/** Leaves out ever smaller parts of a list as long as `fails` holds. */
async function least<T>(list: T[], fails: (list: T[]) => Promise<boolean>): Promise<T[]> {
  let best = list;
  for (let size = Math.ceil(best.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = best.length - size; at > -size; at -= size) {
      const candidate = [...best.slice(0, Math.max(at, 0)), ...best.slice(at + size)];
      if (candidate.length < best.length && (await fails(candidate))) best = candidate;
    }
  }
  return best;
}
