/** -m string: bytes anywhere in the packet. (libxt_string.c revision 1, xt_string.c) */
import { encodeString } from '../../dataplane/program/string.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, string as text, uint16 } from './args.js';
import { defineMatch, option } from './record.js';

export interface StringData {
  from: number;
  to: number;
  algorithm: string;
  /** Byte string. */
  pattern: string;
  invert: boolean;
  ignoreCase: boolean;
}

const MAX_PATTERN = 128;
const ALGORITHM_BYTES = 16;
const LAST_OFFSET = 0xffff;
/** What the kernel's text search knows. */
const ALGORITHMS = ['bm', 'kmp', 'fsm'];
/** Its pattern is no text but a machine's states. */
const STATE_MACHINE = 'fsm';

const tooLong = (given: string): never => problem(`STRING too long "${given}"`);

/** Text with bytes in hex between bars; a backslash outside of them takes the next character as it is. */
function parseHex(given: string): string {
  if (given === '') problem('STRING must contain at least one char');
  let pattern = '';
  let inHex = false;
  let i = 0;
  while (i < given.length) {
    if (pattern.length >= MAX_PATTERN) tooLong(given);
    const literal = given[i] === '\\';
    if (literal && inHex) problem('Cannot include literals in hex data');
    if (given[i] === '|') {
      inHex = !inHex;
      if (inHex) while (given[i + 1] === ' ') i++;
      if (++i >= given.length) break;
    }
    if (literal) {
      if (i + 1 >= given.length) problem('Bad literal placement at end of string');
      pattern += given[i + 1]!;
      i += 2;
    } else if (inHex) {
      if (i + 1 >= given.length) problem('Odd number of hex digits');
      if (i + 2 >= given.length) problem('Invalid hex block');
      for (const digit of given.slice(i, i + 2)) if (!/[\da-f]/i.test(digit)) problem(`Invalid hex char '${digit}'`);
      pattern += String.fromCharCode(parseInt(given.slice(i, i + 2), 16));
      i += given[i + 2] === ' ' ? 3 : 2;
    } else pattern += given[i++]!;
  }
  return pattern;
}

/** What can't be shown as text is shown in hex. */
const needsHex = (pattern: string): boolean => /[^ -~]/.test(pattern) || pattern.endsWith('\\');
const quoted = (pattern: string): string => `"${pattern.replace(/["\\]/g, '\\$&')}"`;
const inHex = (pattern: string): string =>
  `"|${Array.from(pattern, (c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join('')}|"`;

export const string = defineMatch<StringData>({
  name: 'string',
  revision: 1,
  init: () => ({ from: 0, to: LAST_OFFSET, algorithm: '', pattern: '', invert: false, ignoreCase: false }),
  options: [
    option({
      name: 'from',
      arg: uint16(),
      set: (data, offset) => {
        data.from = offset;
      },
    }),
    option({
      name: 'to',
      arg: uint16(),
      set: (data, offset) => {
        data.to = offset;
      },
    }),
    option({
      name: 'algo',
      arg: text({ size: ALGORITHM_BYTES }),
      mandatory: true,
      set: (data, algorithm) => {
        data.algorithm = algorithm;
      },
    }),
    option({
      name: 'string',
      arg: text(),
      invert: true,
      excl: ['hex-string'],
      set: (data, pattern, { invert }) => {
        if (pattern.length > MAX_PATTERN) tooLong(pattern);
        data.pattern = pattern;
        data.invert = invert;
      },
    }),
    option({
      name: 'hex-string',
      arg: text(),
      invert: true,
      excl: ['string'],
      set: (data, given, { invert }) => {
        data.pattern = parseHex(given);
        data.invert = invert;
      },
    }),
    option({
      name: 'icase',
      set: (data) => {
        data.ignoreCase = true;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (!seen.has('string') && !seen.has('hex-string'))
      problem("STRING match: You must specify `--string' or `--hex-string'");
  },
  save: ({ from, to, algorithm, pattern, invert, ignoreCase }) =>
    `${bang(invert)} --${needsHex(pattern) ? `hex-string ${inHex(pattern)}` : `string ${quoted(pattern)}`}` +
    ` --algo ${algorithm}` +
    (from === 0 ? '' : ` --from ${from}`) +
    (to === LAST_OFFSET ? '' : ` --to ${to}`) +
    (ignoreCase ? ' --icase' : ''),
  print: ({ from, to, algorithm, pattern, invert, ignoreCase }) =>
    ` STRING match ${invert ? '!' : ''} ${needsHex(pattern) ? inHex(pattern) : quoted(pattern)}` +
    ` ALGO name ${algorithm}` +
    (from === 0 ? '' : ` FROM ${from}`) +
    (to === LAST_OFFSET ? '' : ` TO ${to}`) +
    (ignoreCase ? ' ICASE' : ''),
  help: `string match options:
--from                       Offset to start searching from
--to                         Offset to stop searching
--algo                       Algorithm
--icase                      Ignore case (default: 0)
[!] --string string          Match a string in a packet
[!] --hex-string string      Match a hex string in a packet
`,
  check: ({ from, to, algorithm, pattern }) => {
    if (from > to) return { errno: 'EINVAL', reason: 'string: --from behind --to' };
    if (!ALGORITHMS.includes(algorithm))
      return { errno: 'ENOENT', reason: `string: the kernel knows no algorithm ${algorithm}` };
    if (algorithm === STATE_MACHINE) return { errno: 'EINVAL', reason: 'string: no text is a pattern of fsm' };
    return pattern === '' ? { errno: 'EINVAL', reason: 'string: an empty pattern' } : undefined;
  },
  // All algorithms find the same.
  compile: ({ from, to, pattern, invert, ignoreCase }, emit) =>
    emit.test(
      MatchOp.STRING,
      encodeString(
        Array.from(pattern, (c) => c.charCodeAt(0)),
        from,
        to,
        ignoreCase,
      ),
      invert,
    ),
});
