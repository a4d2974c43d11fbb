/** -j SYNPROXY: answers a connection's handshake for its server. (libxt_SYNPROXY.c, xt_SYNPROXY.c) */
import { Proto } from '../../dataplane/names.js';
import { looseUnsigned } from '../text/numbers.js';
import { uint32 } from './args.js';
import { defineTarget, option } from './record.js';

export interface SynproxyData {
  sackPerm: boolean;
  timestamp: boolean;
  /** −1 = not given, and so the next. */
  wscale: number;
  mss: number;
  ecn: boolean;
}

const words = ({ sackPerm, timestamp, wscale, mss, ecn }: SynproxyData, dashes: string): string[] => [
  ...(sackPerm ? [`${dashes}sack-perm`] : []),
  ...(timestamp ? [`${dashes}timestamp`] : []),
  ...(wscale >= 0 ? [`${dashes}wscale ${wscale}`] : []),
  ...(mss >= 0 ? [`${dashes}mss ${mss}`] : []),
  ...(ecn ? [`${dashes}ecn`] : []),
];

export const SYNPROXY = defineTarget<SynproxyData>({
  name: 'SYNPROXY',
  hooks: ['INPUT', 'FORWARD'],
  proto: Proto.TCP,
  init: () => ({ sackPerm: false, timestamp: false, wscale: -1, mss: -1, ecn: false }),
  options: [
    option({
      name: 'sack-perm',
      set: (data) => {
        data.sackPerm = true;
      },
    }),
    option({
      name: 'timestamp',
      set: (data) => {
        data.timestamp = true;
      },
    }),
    option({
      name: 'wscale',
      arg: uint32(),
      set: (data, _value, { arg }) => {
        data.wscale = looseUnsigned(arg, 0).value & 0xff;
      },
    }),
    option({
      name: 'mss',
      arg: uint32(),
      set: (data, _value, { arg }) => {
        data.mss = looseUnsigned(arg, 0).value & 0xffff;
      },
    }),
    option({
      name: 'ecn',
      set: (data) => {
        data.ecn = true;
      },
    }),
  ],
  save: (data) =>
    words(data, '--')
      .map((word) => ` ${word}`)
      .join(''),
  print: (data) =>
    ` SYNPROXY ${words(data, '')
      .map((word) => `${word} `)
      .join('')}`,
  help: `SYNPROXY target options:
  --sack-perm                        Set SACK_PERM
  --timestamp                        Set TIMESTAMP
  --wscale value                     Set window scaling factor
  --mss value                        Set MSS value
  --ecn                              Set ECN
`,
  cannot: () => 'hutter does not answer handshakes for others',
});
