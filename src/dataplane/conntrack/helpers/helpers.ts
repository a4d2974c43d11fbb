/**
 * The helpers: protocols that agree on further connections inside the first one's payload (net/netfilter/
 * nf_conntrack_helper.c). A connection carries the number of its helper; it gets it from the CT target or, where the
 * configuration says `helpers: [ftp, …]`, by the port that it goes to. The files beside this one read the payload and
 * say what they found; expectations and rewriting are nat/help.ts's business. Numbers are kept with connections, so they
 * never change their meaning. Of some the name is all there is (UNREAD): rules may give them, and nothing is ever expected.
 */
import { Proto } from '../../names.js';

export const enum Helper {
  NONE = 0,
  FTP = 1,
  TFTP = 2,
  IRC = 3,
  NETBIOS_NS = 4,
  SNMP = 5,
  AMANDA = 6,
  SANE = 7,
  PPTP = 8,
  SIP = 9,
  SIP_TCP = 10,
  RAS = 11,
  Q931 = 12,
  H245 = 13,
}

export interface HelperInfo {
  readonly id: Helper;
  /** As `-j CT --helper` and `-m helper` name it. */
  readonly name: string;
  readonly protocol: Proto;
  readonly port: number;
  /** Expectations that one connection can have at a time; a further one takes the oldest's place (sip: see its classes). */
  readonly maxExpected: number;
  /** Milliseconds for which an expectation waits. */
  readonly timeoutMs: number;
}

/** Nobody reads its payloads here. */
const UNREAD = { port: 0, maxExpected: 0, timeoutMs: 0 };

/** By number; 0 is none. */
export const HELPERS: readonly HelperInfo[] = [
  { id: Helper.NONE, name: '', protocol: 0 as Proto, ...UNREAD },
  { id: Helper.FTP, name: 'ftp', protocol: Proto.TCP, port: 21, maxExpected: 1, timeoutMs: 300_000 },
  { id: Helper.TFTP, name: 'tftp', protocol: Proto.UDP, port: 69, maxExpected: 1, timeoutMs: 300_000 },
  { id: Helper.IRC, name: 'irc', protocol: Proto.TCP, port: 6667, maxExpected: 8, timeoutMs: 300_000 },
  { id: Helper.NETBIOS_NS, name: 'netbios-ns', protocol: Proto.UDP, port: 137, maxExpected: 1, timeoutMs: 3_000 },
  { id: Helper.SNMP, name: 'snmp', protocol: Proto.UDP, port: 161, maxExpected: 1, timeoutMs: 30_000 },
  { id: Helper.AMANDA, name: 'amanda', protocol: Proto.UDP, port: 10080, maxExpected: 3, timeoutMs: 180_000 },
  { id: Helper.SANE, name: 'sane', protocol: Proto.TCP, port: 6566, maxExpected: 1, timeoutMs: 300_000 },
  { id: Helper.PPTP, name: 'pptp', protocol: Proto.TCP, port: 1723, maxExpected: 2, timeoutMs: 300_000 },
  { id: Helper.SIP, name: 'sip', protocol: Proto.UDP, port: 5060, maxExpected: 1, timeoutMs: 180_000 },
  { id: Helper.SIP_TCP, name: 'sip', protocol: Proto.TCP, port: 5060, maxExpected: 1, timeoutMs: 180_000 },
  { id: Helper.RAS, name: 'RAS', protocol: Proto.UDP, ...UNREAD },
  { id: Helper.Q931, name: 'Q.931', protocol: Proto.TCP, ...UNREAD },
  { id: Helper.H245, name: 'H.245', protocol: Proto.UDP, ...UNREAD },
];

/** Whether its payloads are read. */
export const isRead = ({ maxExpected }: HelperInfo): boolean => maxExpected > 0;

/** The names of those that a configuration can switch on by port. */
export const READ_HELPERS: readonly string[] = [...new Set(HELPERS.filter(isRead).map(({ name }) => name))];

/** The helper of that name and protocol; NONE when there is none (the CT target then refuses its rule). */
export function helperByName(name: string, protocol: number): Helper {
  return HELPERS.find((helper) => helper.name === name && helper.protocol === protocol)?.id ?? Helper.NONE;
}

/** Which helpers the configuration switches on by port. One per worker; empty = none. */
export class PortHelpers {
  private readonly tcp = new Uint8Array(65536);
  private readonly udp = new Uint8Array(65536);
  /** 1 when some port has a helper. */
  any = 0;

  /** `entries`: `ftp`, or `ftp:2121` for another port. @throws Error naming the entry that means nothing. */
  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      const [name, port] = entry.split(':') as [string, string?];
      const helpers = HELPERS.filter((h) => h.name === name && isRead(h));
      if (helpers.length === 0) throw new Error(`helper '${entry}': known are ${READ_HELPERS.join(', ')}`);
      for (const helper of helpers) {
        const number = port === undefined ? helper.port : Number(port);
        if (!/^\d+$/.test(port ?? '1') || number < 1 || number > 65535)
          throw new Error(`helper '${entry}': no such port`);
        (helper.protocol === Proto.TCP ? this.tcp : this.udp)[number] = helper.id;
      }
      this.any = 1;
    }
  }

  /** The helper for connections of `protocol` whose answers come from `port` (so, after DNAT, the true one). */
  find(protocol: number, port: number): Helper {
    if (protocol === Proto.TCP) return this.tcp[port]!;
    if (protocol === Proto.UDP) return this.udp[port]!;
    return Helper.NONE;
  }
}
