/** -m tcp: ports, flags, an option's presence. Reads its own options, as extensions of the first hour do. (libxt_tcp.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeTcp } from '../../dataplane/program/tcp.js';
import { Proto } from '../../dataplane/names.js';
import { bang, string } from './args.js';
import { ALL_PORTS, plainPortOptions, printPorts, savePorts } from './ports.js';
import { defineMatch, option } from './record.js';
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';

export interface TcpData {
  sport: [number, number];
  dport: [number, number];
  notSport: boolean;
  notDport: boolean;
  /** TCP option number, 0 = not asked. */
  option: number;
  notOption: boolean;
  /** Flags looked at, and those of them that must be set. */
  flagMask: number;
  flags: number;
  notFlags: boolean;
}

const FLAGS: readonly (readonly [string, number])[] = [
  ['FIN', 0x01],
  ['SYN', 0x02],
  ['RST', 0x04],
  ['PSH', 0x08],
  ['ACK', 0x10],
  ['URG', 0x20],
  ['ALL', 0x3f],
  ['NONE', 0],
];

function parseFlags(text: string): number {
  let flags = 0;
  for (const name of text.split(',').filter((each) => each !== '')) {
    const found = FLAGS.find(([known]) => known === name.toUpperCase());
    if (!found) problem(`Unknown TCP flag \`${name}'`);
    flags |= found[1];
  }
  return flags;
}

function formatFlags(flags: number): string {
  const names = FLAGS.slice(0, 6).filter(([, bit]) => flags & bit);
  return names.length === 0 ? 'NONE' : names.map(([name]) => name).join(',');
}

const hex2 = (value: number): string => `0x${value.toString(16).toUpperCase().padStart(2, '0')}`;

const ONE_OF_FLAGS = "Only one of `--syn' or `--tcp-flags'  allowed";

export const tcp = defineMatch<TcpData>({
  name: 'tcp',
  proto: Proto.TCP,
  plain: true,
  init: () => ({
    sport: [0, ALL_PORTS],
    dport: [0, ALL_PORTS],
    notSport: false,
    notDport: false,
    option: 0,
    notOption: false,
    flagMask: 0,
    flags: 0,
    notFlags: false,
  }),
  options: [
    ...plainPortOptions<TcpData>('tcp', (data, side, range, invert) => {
      data[side] = range;
      data[side === 'sport' ? 'notSport' : 'notDport'] = invert;
    }),
    option({
      name: 'syn',
      invert: true,
      set: (data, _value, { invert, seen }) => {
        if (seen.has('syn') || seen.has('tcp-flags')) problem(ONE_OF_FLAGS);
        data.flagMask = 0x17;
        data.flags = 0x02;
        data.notFlags = invert;
      },
    }),
    option({
      name: 'tcp-flags',
      arg: string(),
      invert: true,
      set: (data, mask, { invert, seen, nextWord }) => {
        if (seen.has('syn') || seen.has('tcp-flags')) problem(ONE_OF_FLAGS);
        const flags = nextWord() ?? problem('--tcp-flags requires two args.');
        data.flagMask = parseFlags(mask);
        data.flags = parseFlags(flags);
        data.notFlags = invert;
      },
    }),
    option({
      name: 'tcp-option',
      arg: string(),
      invert: true,
      set: (data, text, { invert, seen }) => {
        if (seen.has('tcp-option')) problem("Only one `--tcp-option' allowed");
        data.option = wholeNumber(text, 1, 255) ?? problem(`Bad TCP option "${text}"`);
        data.notOption = invert;
      },
    }),
  ],
  save: (data) =>
    savePorts('sport', data.sport, data.notSport) +
    savePorts('dport', data.dport, data.notDport) +
    (data.option !== 0 || data.notOption ? `${bang(data.notOption)} --tcp-option ${data.option}` : '') +
    (data.flagMask !== 0 || data.notFlags
      ? `${bang(data.notFlags)} --tcp-flags ${formatFlags(data.flagMask)} ${formatFlags(data.flags)}`
      : ''),
  print: (data, { numeric }) =>
    ` tcp${printPorts('spt', data.sport, data.notSport, 'tcp', numeric)}` +
    printPorts('dpt', data.dport, data.notDport, 'tcp', numeric) +
    (data.option !== 0 || data.notOption ? ` option=${data.notOption ? '!' : ''}${data.option}` : '') +
    (data.flagMask !== 0 || data.notFlags
      ? ` flags:${data.notFlags ? '!' : ''}${
          numeric
            ? `${hex2(data.flagMask)}/${hex2(data.flags)}`
            : `${formatFlags(data.flagMask)}/${formatFlags(data.flags)}`
        }`
      : ''),
  help: `tcp match options:
[!] --tcp-flags mask comp	match when TCP flags & mask == comp
				(Flags: SYN ACK FIN RST URG PSH ALL NONE)
[!] --syn			match when only SYN flag set
				(equivalent to --tcp-flags SYN,RST,ACK,FIN SYN)
[!] --source-port port[:port]
 --sport ...
				match source port(s)
[!] --destination-port port[:port]
 --dport ...
				match destination port(s)
[!] --tcp-option number        match if TCP option set
`,
  compile: (data, emit) =>
    emit.test(
      MatchOp.TCP,
      encodeTcp({
        sports: { min: data.sport[0], max: data.sport[1], invert: data.notSport },
        dports: { min: data.dport[0], max: data.dport[1], invert: data.notDport },
        flags: { mask: data.flagMask, set: data.flags, invert: data.notFlags },
        option: { kind: data.option, invert: data.notOption },
      }),
    ),
});
