/** -m addrtype: what kind of address it is to the router. (libxt_addrtype.c revision 1, xt_addrtype.c) */
import { Hook } from '../../dataplane/names.js';
import { AddressTest, encodeAddrtype } from '../../dataplane/program/addrtype.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface AddrtypeData {
  /** Bits 1 << RTN_*; 0 = not asked. */
  source: number;
  destination: number;
  /** AddressTest bits. */
  flags: number;
}

/** RTN_* by number (rtnetlink(7)). */
const TYPES = [
  'UNSPEC',
  'UNICAST',
  'LOCAL',
  'BROADCAST',
  'ANYCAST',
  'MULTICAST',
  'BLACKHOLE',
  'UNREACHABLE',
  'PROHIBIT',
  'THROW',
  'NAT',
  'XRESOLVE',
];

/** Types between commas, each as short as one likes. */
function parseTypes(text: string): number {
  let bits = 0;
  let rest = text;
  for (;;) {
    const comma = rest.indexOf(',');
    const word = (comma < 0 ? rest : rest.slice(0, comma)).toUpperCase();
    const type = word === '' ? -1 : TYPES.findIndex((name) => name.startsWith(word));
    if (type < 0) problem(comma < 0 ? `addrtype: bad type "${rest}"` : `addrtype: bad type \`${rest}'`);
    bits |= 1 << type;
    if (comma < 0) return bits;
    rest = rest.slice(comma + 1);
  }
}

const formatTypes = (bits: number): string => TYPES.filter((_, type) => bits & (1 << type)).join(',');

export const addrtype = defineMatch<AddrtypeData>({
  name: 'addrtype',
  revision: 1,
  init: () => ({ source: 0, destination: 0, flags: 0 }),
  options: [
    option({
      name: 'src-type',
      arg: string(),
      invert: true,
      set: (data, types, { invert }) => {
        data.source = parseTypes(types);
        if (invert) data.flags |= AddressTest.INVERT_SOURCE;
      },
    }),
    option({
      name: 'dst-type',
      arg: string(),
      invert: true,
      set: (data, types, { invert }) => {
        data.destination = parseTypes(types);
        if (invert) data.flags |= AddressTest.INVERT_DESTINATION;
      },
    }),
    option({
      name: 'limit-iface-in',
      excl: ['limit-iface-out'],
      set: (data) => {
        data.flags |= AddressTest.LIMIT_IN;
      },
    }),
    option({
      name: 'limit-iface-out',
      excl: ['limit-iface-in'],
      set: (data) => {
        data.flags |= AddressTest.LIMIT_OUT;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (!seen.has('src-type') && !seen.has('dst-type')) problem('addrtype: you must specify --src-type or --dst-type');
  },
  save: ({ source, destination, flags }) =>
    (source ? `${bang((flags & AddressTest.INVERT_SOURCE) !== 0)} --src-type ${formatTypes(source)}` : '') +
    (destination
      ? `${bang((flags & AddressTest.INVERT_DESTINATION) !== 0)} --dst-type ${formatTypes(destination)}`
      : '') +
    (flags & AddressTest.LIMIT_IN ? ' --limit-iface-in' : '') +
    (flags & AddressTest.LIMIT_OUT ? ' --limit-iface-out' : ''),
  print: ({ source, destination, flags }) =>
    ' ADDRTYPE match' +
    (source ? ` src-type ${flags & AddressTest.INVERT_SOURCE ? '!' : ''}${formatTypes(source)}` : '') +
    (destination ? ` dst-type ${flags & AddressTest.INVERT_DESTINATION ? '!' : ''}${formatTypes(destination)}` : '') +
    (flags & AddressTest.LIMIT_IN ? ' limit-in' : '') +
    (flags & AddressTest.LIMIT_OUT ? ' limit-out' : ''),
  help: `Address type match options:
 [!] --src-type type[,...]      Match source address type
 [!] --dst-type type[,...]      Match destination address type
     --limit-iface-in           Match only on the packet's incoming device
     --limit-iface-out          Match only on the packet's outgoing device

Valid types:           
                                UNSPEC
                                UNICAST
                                LOCAL
                                BROADCAST
                                ANYCAST
                                MULTICAST
                                BLACKHOLE
                                UNREACHABLE
                                PROHIBIT
                                THROW
                                NAT
                                XRESOLVE
`,
  check: ({ flags }, { hooks }) => {
    if (flags & AddressTest.LIMIT_OUT && hooks & ((1 << Hook.PREROUTING) | (1 << Hook.INPUT)))
      return { errno: 'EINVAL', reason: 'addrtype: output interface limitation not valid in PREROUTING and INPUT' };
    if (flags & AddressTest.LIMIT_IN && hooks & ((1 << Hook.POSTROUTING) | (1 << Hook.OUTPUT)))
      return { errno: 'EINVAL', reason: 'addrtype: input interface limitation not valid in POSTROUTING and OUTPUT' };
    return undefined;
  },
  // Blackhole, unreachable and prohibit are kinds of routes, which no address is asked for here: the kernel finds none.
  compile: ({ source, destination, flags }, emit) =>
    emit.test(MatchOp.ADDRTYPE, encodeAddrtype(flags, source, destination)),
});
