/** -m icmp: type and code. (libipt_icmp.c, libxt_icmp.h; RFC 792 and IANA's parameters) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeIcmp } from '../../dataplane/program/icmp.js';
import { Proto } from '../../dataplane/names.js';
import { bang, string } from './args.js';
import { defineMatch, option } from './record.js';
import { prefixNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';

export interface IcmpData {
  /** 255 = any. */
  type: number;
  codeMin: number;
  codeMax: number;
  invert: boolean;
}

/** Name, type, first and last code. Several names of one meaning: the first is printed. */
const NAMES: readonly (readonly [string, number, number, number])[] = [
  ['any', 255, 0, 255],
  ['echo-reply', 0, 0, 255],
  ['pong', 0, 0, 255],
  ['destination-unreachable', 3, 0, 255],
  ['network-unreachable', 3, 0, 0],
  ['host-unreachable', 3, 1, 1],
  ['protocol-unreachable', 3, 2, 2],
  ['port-unreachable', 3, 3, 3],
  ['fragmentation-needed', 3, 4, 4],
  ['source-route-failed', 3, 5, 5],
  ['network-unknown', 3, 6, 6],
  ['host-unknown', 3, 7, 7],
  ['network-prohibited', 3, 9, 9],
  ['host-prohibited', 3, 10, 10],
  ['TOS-network-unreachable', 3, 11, 11],
  ['TOS-host-unreachable', 3, 12, 12],
  ['communication-prohibited', 3, 13, 13],
  ['host-precedence-violation', 3, 14, 14],
  ['precedence-cutoff', 3, 15, 15],
  ['source-quench', 4, 0, 255],
  ['redirect', 5, 0, 255],
  ['network-redirect', 5, 0, 0],
  ['host-redirect', 5, 1, 1],
  ['TOS-network-redirect', 5, 2, 2],
  ['TOS-host-redirect', 5, 3, 3],
  ['echo-request', 8, 0, 255],
  ['ping', 8, 0, 255],
  ['router-advertisement', 9, 0, 255],
  ['router-solicitation', 10, 0, 255],
  ['time-exceeded', 11, 0, 255],
  ['ttl-exceeded', 11, 0, 255],
  ['ttl-zero-during-transit', 11, 0, 0],
  ['ttl-zero-during-reassembly', 11, 1, 1],
  ['parameter-problem', 12, 0, 255],
  ['ip-header-bad', 12, 0, 0],
  ['required-option-missing', 12, 1, 1],
  ['timestamp-request', 13, 0, 255],
  ['timestamp-reply', 14, 0, 255],
  ['address-mask-request', 17, 0, 255],
  ['address-mask-reply', 18, 0, 255],
];

/** NUMBER[:NUMBER] at the start of `text`. */
function range(text: string): { min: number; max: number; rest: string } | undefined {
  const min = prefixNumber(text, 0, 255);
  if (!min) return undefined;
  const rest = text.slice(min.end);
  if (!rest.startsWith(':')) return { min: min.value, max: min.value, rest };
  const max = prefixNumber(rest.slice(1), 0, 255);
  return max && { min: min.value, max: max.value, rest: rest.slice(1 + max.end) };
}

/** A name, cut as short as it stays unambiguous, or type[/code]. */
function parseType(text: string): Omit<IcmpData, 'invert'> {
  const found = NAMES.filter(([name]) => name.toLowerCase().startsWith(text.toLowerCase()));
  if (found.length > 1) problem(`Ambiguous ICMP type \`${text}': \`${found[0]![0]}' or \`${found[1]![0]}'?`);
  if (found[0]) return { type: found[0][1], codeMin: found[0][2], codeMax: found[0][3] };
  const type = range(text) ?? problem(`Unknown ICMP type \`${text}'`);
  let code = { min: 0, max: 255, rest: '' };
  if (type.rest.startsWith('/')) code = range(type.rest.slice(1)) ?? problem(`Unknown ICMP code \`${text}'`);
  else if (type.rest !== '') problem(`unknown character ${type.rest[0]}`);
  if (code.rest !== '') problem(`unknown character ${code.rest[0]}`);
  if (type.min !== type.max) problem('ICMP type range not supported');
  return { type: type.min, codeMin: code.min, codeMax: code.max };
}

export const icmp = defineMatch<IcmpData>({
  name: 'icmp',
  proto: Proto.ICMP,
  init: () => ({ type: 255, codeMin: 0, codeMax: 255, invert: false }),
  options: [
    option({
      name: 'icmp-type',
      arg: string(),
      invert: true,
      mandatory: true,
      set: (data, text, { invert }) => {
        Object.assign(data, parseType(text), { invert });
      },
    }),
  ],
  // Of a range of codes only the first is saved, as the tool does.
  save: ({ type, codeMin, codeMax, invert }) => {
    if (type === 255) return `${bang(invert)} --icmp-type any`;
    return `${bang(invert)} --icmp-type ${type}${codeMin !== 0 || codeMax !== 255 ? `/${codeMin}` : ''}`;
  },
  print: ({ type, codeMin, codeMax, invert }, { numeric }) => {
    const named = numeric
      ? undefined
      : NAMES.find(([, ...meaning]) => meaning[0] === type && meaning[1] === codeMin && meaning[2] === codeMax);
    if (named) return ` icmp ${invert ? '!' : ''}${named[0]}`;
    const codes =
      codeMin === codeMax ? ` code ${codeMin}` : codeMin !== 0 || codeMax !== 255 ? ` codes ${codeMin}-${codeMax}` : '';
    return ` icmp${bang(invert)}type ${type}${codes}`;
  },
  help: `icmp match options:
[!] --icmp-type typename	match icmp type
[!] --icmp-type type[/code]	(or numeric type or type/code)
Valid ICMP Types:
any
echo-reply (pong)
destination-unreachable
   network-unreachable
   host-unreachable
   protocol-unreachable
   port-unreachable
   fragmentation-needed
   source-route-failed
   network-unknown
   host-unknown
   network-prohibited
   host-prohibited
   TOS-network-unreachable
   TOS-host-unreachable
   communication-prohibited
   host-precedence-violation
   precedence-cutoff
source-quench
redirect
   network-redirect
   host-redirect
   TOS-network-redirect
   TOS-host-redirect
echo-request (ping)
router-advertisement
router-solicitation
time-exceeded (ttl-exceeded)
   ttl-zero-during-transit
   ttl-zero-during-reassembly
parameter-problem
   ip-header-bad
   required-option-missing
timestamp-request
timestamp-reply
address-mask-request
address-mask-reply
`,
  compile: ({ type, codeMin, codeMax, invert }, emit) =>
    emit.test(MatchOp.ICMP, encodeIcmp({ type, minCode: codeMin, maxCode: codeMax, invert })),
});
