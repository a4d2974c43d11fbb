/** -m sctp: ports and chunks. Reads its own options, as extensions of the first hour do. (libxt_sctp.c, xt_sctp.c) */
import { ChunkMatch, encodeSctp, SctpTest } from '../../dataplane/program/sctp.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { Proto } from '../../dataplane/names.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { plainPortOptions, portText, printPorts } from './ports.js';
import { defineMatch, option } from './record.js';

const MATCHES = { any: ChunkMatch.ANY, all: ChunkMatch.ALL, only: ChunkMatch.ONLY } as const;

export interface SctpData {
  sport: [number, number];
  dport: [number, number];
  /** What is asked: the whole range of ports is printed, too, if it is asked for. */
  asksSport: boolean;
  asksDport: boolean;
  notSport: boolean;
  notDport: boolean;
  /** null: chunks are not looked at. */
  match: keyof typeof MATCHES | null;
  notChunks: boolean;
  /** Chunk types in ascending order; all 256 for ALL. */
  chunks: number[];
  /** Flags looked at and those of them that must be set, for at most four of the types. */
  flags: { type: number; mask: number; set: number }[];
}

/** Names by type, with the letters of the flags that a chunk may have, bit 7 first (RFC 9260 §3). */
const CHUNKS: readonly (readonly [string, number, string])[] = [
  ['DATA', 0, '----IUBE'],
  ['INIT', 1, '--------'],
  ['INIT_ACK', 2, '--------'],
  ['SACK', 3, '--------'],
  ['HEARTBEAT', 4, '--------'],
  ['HEARTBEAT_ACK', 5, '--------'],
  ['ABORT', 6, '-------T'],
  ['SHUTDOWN', 7, '--------'],
  ['SHUTDOWN_ACK', 8, '--------'],
  ['ERROR', 9, '--------'],
  ['COOKIE_ECHO', 10, '--------'],
  ['COOKIE_ACK', 11, '--------'],
  ['ECN_ECNE', 12, '--------'],
  ['ECN_CWR', 13, '--------'],
  ['SHUTDOWN_COMPLETE', 14, '-------T'],
  ['I_DATA', 64, '----IUBE'],
  ['RE_CONFIG', 130, '--------'],
  ['PAD', 132, '--------'],
  ['ASCONF', 193, '--------'],
  ['ASCONF_ACK', 128, '--------'],
  ['FORWARD_TSN', 192, '--------'],
  ['I_FORWARD_TSN', 194, '--------'],
];
const ALL_TYPES = 256;
const MAX_FLAGS = 4;

/** Reads TYPE[:FLAGS],… or ALL or NONE. Flags are kept under the name's place in the list above, as the tool does. */
function parseChunks(data: SctpData, text: string): void {
  const whole = text.toUpperCase();
  if (whole === 'ALL') data.chunks = Array.from({ length: ALL_TYPES }, (_, type) => type);
  if (whole === 'ALL' || whole === 'NONE') return;
  const types = new Set<number>();
  for (const word of text.split(',').filter((each) => each !== '')) {
    const colon = word.indexOf(':');
    const name = colon < 0 ? word : word.slice(0, colon);
    const place = CHUNKS.findIndex(([known]) => known === name.toUpperCase());
    if (place < 0) problem(`Unknown sctp chunk \`${name}'`);
    types.add(CHUNKS[place]![1]);
    for (const letter of colon < 0 ? '' : word.slice(colon + 1)) {
      const column = CHUNKS[place]![2].indexOf(letter.toUpperCase());
      if (column < 0) problem(`Invalid flags for chunk type ${place}`);
      let flags = data.flags.find(({ type }) => type === place);
      if (!flags) {
        if (data.flags.length === MAX_FLAGS)
          problem(
            'Number of chunk types with flags exceeds currently allowed limit. Increasing this limit involves changing ' +
              'IPT_NUM_SCTP_FLAGS and recompiling both the kernel space and user space modules',
          );
        data.flags.push((flags = { type: place, mask: 0, set: 0 }));
      }
      flags.mask |= 1 << (7 - column);
      if (/[A-Z]/.test(letter)) flags.set |= 1 << (7 - column);
    }
  }
  data.chunks = [...types].sort((a, b) => a - b);
}

function flagLetters(type: number, flags: SctpData['flags']): string {
  const found = flags.find((each) => each.type === type);
  if (!found || found.mask === 0) return '';
  const letters = Array.from(CHUNKS[type]![2]).map((letter, column) => {
    const bit = 1 << (7 - column);
    return found.mask & bit ? (found.set & bit ? letter : letter.toLowerCase()) : '';
  });
  return `:${letters.join('')}`;
}

function formatChunks({ match, chunks, flags }: SctpData, numeric: boolean): string {
  if (chunks.length === 0) return ` ${match} NONE`;
  if (chunks.length === ALL_TYPES) return ` ${match} ALL`;
  const list = chunks.map((type) => {
    const name = numeric
      ? `0x${type.toString(16).toUpperCase().padStart(4, '0')}`
      : CHUNKS.find(([, known]) => known === type)![0];
    return name + flagLetters(type, flags);
  });
  return ` ${match} ${list.join(',')}`;
}

export const sctp = defineMatch<SctpData>({
  name: 'sctp',
  proto: Proto.SCTP,
  plain: true,
  init: () => ({
    sport: [0, 0],
    dport: [0, 0],
    asksSport: false,
    asksDport: false,
    notSport: false,
    notDport: false,
    match: null,
    notChunks: false,
    chunks: [],
    flags: [],
  }),
  options: [
    ...plainPortOptions<SctpData>('sctp', (data, side, range, invert) => {
      data[side] = range;
      data[side === 'sport' ? 'asksSport' : 'asksDport'] = true;
      data[side === 'sport' ? 'notSport' : 'notDport'] = invert;
    }),
    option({
      name: 'chunk-types',
      arg: string(),
      invert: true,
      set: (data, match, { invert, seen, nextWord }) => {
        if (seen.has('chunk-types')) problem("Only one `--chunk-types' allowed");
        const chunks = nextWord() ?? problem('--chunk-types requires two args');
        const word = match.toLowerCase();
        if (word !== 'any' && word !== 'all' && word !== 'only')
          problem('Match type has to be one of "ALL", "ANY" or "ONLY"');
        data.match = word;
        parseChunks(data, chunks);
        data.notChunks = invert;
      },
    }),
  ],
  save: (data) =>
    (data.asksSport ? `${bang(data.notSport)} --sport ${portText(data.sport)}` : '') +
    (data.asksDport ? `${bang(data.notDport)} --dport ${portText(data.dport)}` : '') +
    (data.match === null ? '' : `${bang(data.notChunks)} --chunk-types${formatChunks(data, false)}`),
  print: (data, { numeric }) =>
    ' sctp' +
    (data.asksSport ? printPorts('spt', data.sport, data.notSport, 'sctp', numeric) : '') +
    (data.asksDport ? printPorts('dpt', data.dport, data.notDport, 'sctp', numeric) : '') +
    (data.match === null ? '' : bang(data.notChunks) + formatChunks(data, numeric)),
  help: `sctp match options
[!] --source-port port[:port]                          match source port(s)
 --sport ...
[!] --destination-port port[:port]                     match destination port(s)
 --dport ...
[!] --chunk-types (all|any|none) (chunktype[:flags])+	match if all, any or none of
						        chunktypes are present
chunktypes - DATA INIT INIT_ACK SACK HEARTBEAT HEARTBEAT_ACK ABORT SHUTDOWN SHUTDOWN_ACK ERROR COOKIE_ECHO COOKIE_ACK ECN_ECNE ECN_CWR SHUTDOWN_COMPLETE ASCONF ASCONF_ACK FORWARD_TSN ALL NONE
`,
  compile: (data, emit) => {
    const bits = (sport: boolean, dport: boolean, chunks: boolean): number =>
      (sport ? SctpTest.SPORT : 0) | (dport ? SctpTest.DPORT : 0) | (chunks ? SctpTest.CHUNKS : 0);
    emit.test(
      MatchOp.SCTP,
      encodeSctp({
        flags: bits(data.asksSport, data.asksDport, data.match !== null),
        invert: bits(data.notSport, data.notDport, data.notChunks),
        sport: data.sport,
        dport: data.dport,
        match: MATCHES[data.match ?? 'any'],
        chunks: data.chunks,
        chunkFlags: data.flags,
      }),
    );
  },
});
