/** -m iprange: source and destination between two addresses. (libxt_iprange.c revision 1, xt_iprange.c) */
import { encodeIprange, RangeTest } from '../../dataplane/program/iprange.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { formatAddress, looseAddress } from '../text/address.js';
import { problem } from '../text/problem.js';
import { badValue, bang, string } from './args.js';
import { defineMatch, option, type OptionCall } from './record.js';

type Range = [number, number];

export interface IprangeData {
  /** RangeTest bits. */
  flags: number;
  src: Range;
  dst: Range;
}

/** ADDRESS[-ADDRESS]. */
function parseRange(text: string, { option, warn }: OptionCall<IprangeData>): Range {
  const read = (part: string): number => looseAddress(part) ?? badValue('iprange', `--${option}`, part);
  const dash = text.indexOf('-');
  if (dash < 0) return [read(text), read(text)];
  const range: Range = [read(text.slice(0, dash)), read(text.slice(dash + 1))];
  if (range[0] >>> 0 > range[1] >>> 0) warn(`xt_iprange: range ${text} is reversed and will never match\n`);
  return range;
}

const format = ([first, last]: Range): string => `${formatAddress(first)}-${formatAddress(last)}`;

export const iprange = defineMatch<IprangeData>({
  name: 'iprange',
  revision: 1,
  init: () => ({ flags: 0, src: [0, 0], dst: [0, 0] }),
  options: [
    option({
      name: 'src-range',
      arg: string(),
      invert: true,
      set: (data, text, call) => {
        data.src = parseRange(text, call);
        data.flags |= RangeTest.SRC | (call.invert ? RangeTest.SRC_INVERT : 0);
      },
    }),
    option({
      name: 'dst-range',
      arg: string(),
      invert: true,
      set: (data, text, call) => {
        data.dst = parseRange(text, call);
        data.flags |= RangeTest.DST | (call.invert ? RangeTest.DST_INVERT : 0);
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem("iprange match: You must specify `--src-range' or `--dst-range'");
  },
  save: ({ flags, src, dst }) =>
    (flags & RangeTest.SRC ? `${bang((flags & RangeTest.SRC_INVERT) !== 0)} --src-range ${format(src)}` : '') +
    (flags & RangeTest.DST ? `${bang((flags & RangeTest.DST_INVERT) !== 0)} --dst-range ${format(dst)}` : ''),
  print: ({ flags, src, dst }) =>
    (flags & RangeTest.SRC ? ` source IP range${bang((flags & RangeTest.SRC_INVERT) !== 0)} ${format(src)}` : '') +
    (flags & RangeTest.DST ? ` destination IP range${bang((flags & RangeTest.DST_INVERT) !== 0)} ${format(dst)}` : ''),
  help: `iprange match options:
[!] --src-range ip[-ip]    Match source IP in the specified range
[!] --dst-range ip[-ip]    Match destination IP in the specified range
`,
  compile: ({ flags, src, dst }, emit) =>
    emit.test(MatchOp.IPRANGE, encodeIprange(flags, src[0], src[1], dst[0], dst[1])),
});
