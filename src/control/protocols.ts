/**
 * Protocol names and numbers. The tool's own short list goes first, then the host's /etc/protocols; the table below
 * (IANA's, as Debian has it) is for images without that file. A line is `name number aliases`.
 */
import { readFileSync } from 'node:fs';
import { wholeNumber } from './text/numbers.js';
import { problem } from './text/problem.js';

const TABLE = `
ip 0 IP; hopopt 0 HOPOPT; icmp 1 ICMP; igmp 2 IGMP; ggp 3 GGP; ipencap 4 IP-ENCAP; st 5 ST; tcp 6 TCP;
egp 8 EGP; igp 9 IGP; pup 12 PUP; udp 17 UDP; hmp 20 HMP; xns-idp 22 XNS-IDP; rdp 27 RDP; iso-tp4 29 ISO-TP4;
dccp 33 DCCP; xtp 36 XTP; ddp 37 DDP; idpr-cmtp 38 IDPR-CMTP; ipv6 41 IPv6; ipv6-route 43 IPv6-Route;
ipv6-frag 44 IPv6-Frag; idrp 45 IDRP; rsvp 46 RSVP; gre 47 GRE; esp 50 IPSEC-ESP; ah 51 IPSEC-AH;
skip 57 SKIP; ipv6-icmp 58 IPv6-ICMP; ipv6-nonxt 59 IPv6-NoNxt; ipv6-opts 60 IPv6-Opts; rspf 73 RSPF CPHB;
vmtp 81 VMTP; eigrp 88 EIGRP; ospf 89 OSPFIGP; ax.25 93 AX.25; ipip 94 IPIP; etherip 97 ETHERIP;
encap 98 ENCAP; pim 103 PIM; ipcomp 108 IPCOMP; vrrp 112 VRRP; l2tp 115 L2TP; isis 124 ISIS; sctp 132 SCTP;
fc 133 FC; mobility-header 135 Mobility-Header; udplite 136 UDPLite; mpls-in-ip 137 MPLS-in-IP; manet 138;
hip 139 HIP; shim6 140 Shim6; wesp 141 WESP; rohc 142 ROHC; ethernet 143 Ethernet; mptcp 262 MPTCP
`;

/** xtables_chain_protos: these win over the file, and the first of a number is the one printed. */
const OWN: readonly (readonly [string, number])[] = [
  ['tcp', 6],
  ['sctp', 132],
  ['udp', 17],
  ['udplite', 136],
  ['icmp', 1],
  ['ipv6-icmp', 58],
  ['icmpv6', 58],
  ['esp', 50],
  ['ah', 51],
  ['mobility-header', 135],
  ['ipv6-mh', 135],
  ['mh', 135],
  ['all', 0],
];

interface Protocols {
  readonly numbers: Map<string, number>;
  readonly names: Map<number, string>;
}

function parse(lines: readonly string[]): Protocols {
  const protocols: Protocols = { numbers: new Map(), names: new Map() };
  for (const line of lines) {
    const [name, number, ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (!name || !/^\d+$/.test(number ?? '')) continue;
    for (const each of [name, ...aliases])
      if (!protocols.numbers.has(each)) protocols.numbers.set(each, Number(number));
    if (!protocols.names.has(Number(number))) protocols.names.set(Number(number), name);
  }
  return protocols;
}

/** Reads a file of the format protocols(5). */
export const parseProtocols = (text: string): Protocols => parse(text.split('\n'));
/** The table carried along. */
export const builtinProtocols = (): Protocols => parse(TABLE.split(';'));

let loaded: Protocols | undefined;
function protocols(): Protocols {
  if (!loaded) {
    try {
      loaded = parseProtocols(readFileSync('/etc/protocols', 'latin1'));
    } catch {
      loaded = builtinProtocols();
    }
  }
  return loaded;
}

const OWN_NUMBERS = new Map(OWN);
/** The first name of each number. */
const OWN_NAMES = new Map([...OWN].reverse().map(([name, number]) => [number, name]));

/** Number of -p's argument (already in lower case): a number of 0..255 or a name. Throws the tool's problem. */
export function parseProtocol(text: string): number {
  const number = OWN_NUMBERS.get(text) ?? wholeNumber(text, 0, 255) ?? protocols().numbers.get(text);
  return number ?? problem(`unknown protocol "${text}" specified`);
}

/** Name of a protocol; the tool's own list only, if `ownOnly` (it then asks no file, as under -n). */
export function protocolName(number: number, ownOnly = false): string | undefined {
  const own = OWN_NAMES.get(number);
  return own ?? (number !== 0 && !ownOnly ? protocols().names.get(number) : undefined);
}
