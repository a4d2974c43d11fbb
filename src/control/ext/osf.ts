/** -m osf: the sender's operating system by the look of its SYN. (libxt_osf.c, xt_osf.c) */
import { Proto } from '../../dataplane/names.js';
import { bang, string, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

export interface OsfData {
  genre: string;
  invert: boolean;
  /** −1 = not given. */
  ttl: number;
  log: number;
}

const GENRE_BYTES = 32;
const NOT_GIVEN = -1;

export const osf = defineMatch<OsfData>({
  name: 'osf',
  proto: Proto.TCP,
  hooks: ['PREROUTING', 'INPUT', 'FORWARD'],
  init: () => ({ genre: '', invert: false, ttl: NOT_GIVEN, log: NOT_GIVEN }),
  options: [
    option({
      name: 'genre',
      arg: string({ size: GENRE_BYTES }),
      invert: true,
      mandatory: true,
      set: (data, genre, { invert }) => {
        data.genre = genre;
        data.invert = invert;
      },
    }),
    option({
      name: 'ttl',
      arg: uint32(0, 2),
      set: (data, ttl) => {
        data.ttl = ttl;
      },
    }),
    option({
      name: 'log',
      arg: uint32(0, 2),
      set: (data, log) => {
        data.log = log;
      },
    }),
  ],
  save: ({ genre, invert, ttl, log }) =>
    `${bang(invert)} --genre ${genre}` +
    (ttl === NOT_GIVEN ? '' : ` --ttl ${ttl}`) +
    (log === NOT_GIVEN ? '' : ` --log ${log}`),
  print: ({ genre, invert }) => ` OS fingerprint match ${invert ? '! ' : ''}${genre}`,
  help: `OS fingerprint match options:
[!] --genre string     Match a OS genre by passive fingerprinting.
--ttl level            Use some TTL check extensions to determine OS:
       0                       true ip and fingerprint TTL comparison. Works for LAN.
       1                       check if ip TTL is less than fingerprint one. Works for global addresses.
       2                       do not compare TTL at all. This allows NMAP detection, but can produce false results.
--log level            Log determined genres into dmesg even if they do not match desired one:
       0                       log all matched or unknown signatures.
       1                       log only first one.
       2                       log all known matched signatures.
`,
  cannot: () => 'the fingerprints are loaded into the kernel by nfnl_osf(8)',
});
