/** -m multiport: up to 15 ports, a range counting for two. (libxt_multiport.c revision 1, xt_multiport.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeMultiport, PortSide } from '../../dataplane/program/multiport.js';
import { Proto } from '../../dataplane/names.js';
import { bang, string } from './args.js';
import { printPort } from './ports.js';
import { defineMatch, option, type OptionCall } from './record.js';
import { parsePort } from './ports.js';
import { problem } from '../text/problem.js';

const MAX_PORTS = 15;

export interface MultiportData {
  side: 'sports' | 'dports' | 'ports';
  /** First and last of each range; a single port is a range of one. */
  ranges: [number, number][];
  invert: boolean;
}

const PROTOCOLS: Readonly<Record<number, string>> = {
  [Proto.TCP]: 'tcp',
  [Proto.UDP]: 'udp',
  [Proto.UDPLITE]: 'udplite',
  [Proto.SCTP]: 'sctp',
  [Proto.DCCP]: 'dccp',
};
const ONLY = 'multiport only works with TCP, UDP, UDPLITE, SCTP and DCCP';

function protocolOf({ rule }: OptionCall<MultiportData>): string {
  if (rule.notProto) problem(ONLY);
  if (rule.proto === 0) problem("multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'");
  return PROTOCOLS[rule.proto] ?? problem(ONLY);
}

function parseList(text: string, protocol: string): [number, number][] {
  const ranges: [number, number][] = [];
  const tooMany = 'too many ports specified';
  let used = 0;
  for (const part of text.split(',')) {
    const colon = part.indexOf(':');
    if (used >= MAX_PORTS || (colon >= 0 && used === MAX_PORTS - 1)) problem(tooMany);
    const first = parsePort(colon < 0 ? part : part.slice(0, colon), protocol);
    const last = colon < 0 ? first : parsePort(part.slice(colon + 1), protocol);
    if (colon >= 0 && first >= last) problem('invalid portrange specified');
    ranges.push([first, last]);
    used += colon < 0 ? 1 : 2;
  }
  return ranges;
}

const SIDES = { sports: PortSide.SOURCE, dports: PortSide.DESTINATION, ports: PortSide.EITHER } as const;

const ANY = ['source-ports', 'destination-ports', 'ports'];
const ports = (side: MultiportData['side'], name: string, alias?: string) =>
  option<MultiportData, string>({
    name,
    ...(alias && { aliases: [alias] }),
    arg: string(),
    invert: true,
    excl: ANY,
    set: (data, text, call) => {
      data.ranges = parseList(text, protocolOf(call));
      data.side = side;
      if (call.invert) data.invert = true;
    },
  });

export const multiport = defineMatch<MultiportData>({
  name: 'multiport',
  revision: 1,
  init: () => ({ side: 'sports', ranges: [], invert: false }),
  options: [
    ports('sports', 'source-ports', 'sports'),
    ports('dports', 'destination-ports', 'dports'),
    ports('ports', 'ports'),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('multiport expection an option');
  },
  save: ({ side, ranges, invert }) =>
    `${bang(invert)} --${side} ${ranges.map(([a, b]) => (a === b ? a : `${a}:${b}`)).join(',')}`,
  print: ({ side, ranges, invert }, { numeric, rule }) => {
    const text = (port: number): string => printPort(port, PROTOCOLS[rule.proto] ?? '', numeric);
    const list = ranges.map(([a, b]) => (a === b ? text(a) : `${text(a)}:${text(b)}`)).join(',');
    return ` multiport ${side} ${bang(invert)}${list}`;
  },
  help: `multiport match options:
[!] --source-ports port[,port:port,port...]
 --sports ...
				match source port(s)
[!] --destination-ports port[,port:port,port...]
 --dports ...
				match destination port(s)
[!] --ports port[,port:port,port]
				match both source and destination port(s)
`,
  compile: ({ side, ranges, invert }, emit) =>
    emit.test(
      MatchOp.MULTIPORT,
      encodeMultiport({ side: SIDES[side], invert, ports: ranges.map(([min, max]) => ({ min, max })) }),
    ),
  check: (_data, { rule }) =>
    rule.notProto || PROTOCOLS[rule.proto] === undefined ? { errno: 'EINVAL', reason: ONLY } : undefined,
});
