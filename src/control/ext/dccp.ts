/** -m dccp: ports, packet types and options. (libxt_dccp.c, xt_dccp.c; RFC 4340) */
import { DccpTest, encodeDccp } from '../../dataplane/program/dccp.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { Proto } from '../../dataplane/names.js';
import { problem } from '../text/problem.js';
import { bang, string, uint8 } from './args.js';
import { portOptions, portText, printPorts } from './ports.js';
import { defineMatch, option } from './record.js';

export interface DccpData {
  /** DccpTest bits: what is asked, and what of it is negated. */
  asked: number;
  invert: number;
  sport: [number, number];
  dport: [number, number];
  /** Bits 1 << type. */
  types: number;
  option: number;
}

/** By type; the last stands for all that are not assigned. */
const TYPES = [
  'REQUEST',
  'RESPONSE',
  'DATA',
  'ACK',
  'DATAACK',
  'CLOSEREQ',
  'CLOSE',
  'RESET',
  'SYNC',
  'SYNCACK',
  'INVALID',
];
const INVALID = TYPES.indexOf('INVALID');
const UNASSIGNED = 0xf800;

function parseTypes(text: string): number {
  let bits = 0;
  for (const word of text.split(',').filter((each) => each !== '')) {
    const type = TYPES.indexOf(word.toUpperCase());
    if (type < 0) problem(`Unknown DCCP type \`${word}'`);
    bits |= 1 << type;
  }
  return bits & (1 << INVALID) ? bits | UNASSIGNED : bits;
}

const formatTypes = (bits: number, numeric: boolean): string =>
  Array.from({ length: numeric ? 16 : TYPES.length }, (_, type) => type)
    .filter((type) => bits & (1 << type))
    .map((type) => (numeric ? type : TYPES[type]))
    .join(',');

function ask(data: DccpData, bit: DccpTest, invert: boolean): void {
  data.asked |= bit;
  if (invert) data.invert |= bit;
}

export const dccp = defineMatch<DccpData>({
  name: 'dccp',
  proto: Proto.DCCP,
  init: () => ({ asked: 0, invert: 0, sport: [0, 0], dport: [0, 0], types: 0, option: 0 }),
  options: [
    ...portOptions<DccpData>((data, side, range, invert) => {
      data[side] = range;
      ask(data, side === 'sport' ? DccpTest.SPORT : DccpTest.DPORT, invert);
    }),
    option({
      name: 'dccp-types',
      arg: string(),
      invert: true,
      set: (data, text, { invert }) => {
        data.types = parseTypes(text);
        ask(data, DccpTest.TYPE, invert);
      },
    }),
    option({
      name: 'dccp-option',
      arg: uint8(1, 255),
      invert: true,
      set: (data, kind, { invert }) => {
        data.option = kind;
        ask(data, DccpTest.OPTION, invert);
      },
    }),
  ],
  save: ({ asked, invert, sport, dport, types, option: kind }) => {
    const say = (bit: DccpTest, name: string, value: string): string =>
      asked & bit ? `${bang((invert & bit) !== 0)} --${name} ${value}` : '';
    return (
      say(DccpTest.SPORT, 'sport', portText(sport)) +
      say(DccpTest.DPORT, 'dport', portText(dport)) +
      say(DccpTest.TYPE, 'dccp-types', formatTypes(types, false)) +
      say(DccpTest.OPTION, 'dccp-option', String(kind))
    );
  },
  print: ({ asked, invert, sport, dport, types, option: kind }, { numeric }) => {
    const not = (bit: DccpTest): boolean => (invert & bit) !== 0;
    return (
      ' dccp' +
      (asked & DccpTest.SPORT ? printPorts('spt', sport, not(DccpTest.SPORT), 'dccp', numeric) : '') +
      (asked & DccpTest.DPORT ? printPorts('dpt', dport, not(DccpTest.DPORT), 'dccp', numeric) : '') +
      (asked & DccpTest.TYPE ? `${bang(not(DccpTest.TYPE))} ${formatTypes(types, numeric)}` : '') +
      (asked & DccpTest.OPTION ? ` option=${not(DccpTest.OPTION) ? '!' : ''}${kind}` : '')
    );
  },
  help: `dccp match options
[!] --source-port port[:port]                          match source port(s)
 --sport ...
[!] --destination-port port[:port]                     match destination port(s)
 --dport ...
[!] --dccp-types type[,...]                            match when packet is one of the given types
[!] --dccp-option option                               match if option (by number!) is set
`,
  compile: (data, emit) => emit.test(MatchOp.DCCP, encodeDccp(data)),
});
