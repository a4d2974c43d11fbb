/** -j HMARK: the packet's mark from a hash of its addresses and ports. (libxt_HMARK.c, xt_HMARK.c) */
import { encodeHMARK } from '../../dataplane/program/hmark.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { PrivateMark } from '../../dataplane/names.js';
import { maskBits } from '../text/address.js';
import { hex } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { prefixLengthMask, string, uint16, uint32 } from './args.js';
import { defineTarget, option, type Option } from './record.js';

/** Bits for what was given (XT_HMARK_*). */
const enum Given {
  SRC = 1 << 0,
  DST = 1 << 1,
  SPI = 1 << 2,
  SPI_MASK = 1 << 3,
  SPORT = 1 << 4,
  DPORT = 1 << 5,
  SPORT_MASK = 1 << 6,
  DPORT_MASK = 1 << 7,
  PROTO_MASK = 1 << 8,
  RND = 1 << 9,
  MODULUS = 1 << 10,
  OFFSET = 1 << 11,
  CT = 1 << 12,
  /** One of them has to be there. */
  ANY = SRC | DST | SPI | SPI_MASK | SPORT | DPORT | SPORT_MASK | DPORT_MASK | PROTO_MASK | CT,
}

export interface HmarkData {
  given: number;
  srcMask: number;
  dstMask: number;
  /** Source port's in the upper half, destination port's in the lower; or the SPI's. */
  portMask: number;
  portSet: number;
  protocolMask: number;
  seed: number;
  modulus: number;
  offset: number;
}

/** In the order in which a part of a name finds them. */
const TUPLE: readonly (readonly [string, Given, (data: HmarkData) => void])[] = [
  ['ct', Given.CT, () => undefined],
  ['src', Given.SRC, (data) => (data.srcMask = -1)],
  ['dst', Given.DST, (data) => (data.dstMask = -1)],
  ['sport', Given.SPORT_MASK, (data) => (data.portMask |= 0xffff_0000)],
  ['dport', Given.DPORT_MASK, (data) => (data.portMask |= 0xffff)],
  ['proto', Given.PROTO_MASK, (data) => (data.protocolMask = 0xffff)],
  ['spi', Given.SPI_MASK, (data) => (data.portMask = -1)],
];

function number(
  name: string,
  arg: typeof uint32 | typeof uint16,
  bit: Given,
  set: (data: HmarkData, n: number) => void,
): Option<HmarkData> {
  return option<HmarkData, number>({
    name,
    arg: arg(),
    set: (data, value) => {
      data.given |= bit;
      set(data, value);
    },
  });
}
function prefix(name: string, bit: Given, set: (data: HmarkData, mask: number) => void): Option<HmarkData> {
  return option<HmarkData, number>({
    name,
    arg: prefixLengthMask,
    set: (data, mask) => {
      data.given |= bit;
      set(data, mask);
    },
  });
}
const upper = (word: number, n: number): number => (word & 0xffff) | (n << 16);
const lower = (word: number, n: number): number => (word & ~0xffff) | n;
const padded = (n: number, digits: number): string => `0x${(n >>> 0).toString(16).padStart(digits, '0')}`;

export const HMARK = defineTarget<HmarkData>({
  name: 'HMARK',
  init: () => ({
    given: 0,
    srcMask: 0,
    dstMask: 0,
    portMask: 0,
    portSet: 0,
    protocolMask: 0,
    seed: 0,
    modulus: 0,
    offset: 0,
  }),
  options: [
    option({
      name: 'hmark-tuple',
      arg: string(),
      set: (data, text) => {
        let rest = text;
        for (;;) {
          const comma = rest.indexOf(',');
          const word = (comma < 0 ? rest : rest.slice(0, comma)).toLowerCase();
          if (comma < 0 && word === '')
            problem('"--hmark-tuple" requires a list of types with no spaces, e.g. src,dst,sport,dport,proto');
          const found = word === '' ? undefined : TUPLE.find(([name]) => name.startsWith(word));
          if (!found) problem(`Bad type "${rest}"`);
          data.given |= found[1];
          found[2](data);
          if (comma < 0) return;
          rest = rest.slice(comma + 1);
        }
      },
    }),
    prefix('hmark-src-prefix', Given.SRC, (data, mask) => (data.srcMask = mask)),
    prefix('hmark-dst-prefix', Given.DST, (data, mask) => (data.dstMask = mask)),
    number('hmark-sport-mask', uint16, Given.SPORT_MASK, (data, n) => (data.portMask = upper(data.portMask, n))),
    number('hmark-dport-mask', uint16, Given.DPORT_MASK, (data, n) => (data.portMask = lower(data.portMask, n))),
    number('hmark-spi-mask', uint32, Given.SPI_MASK, (data, n) => (data.portMask = n | 0)),
    number('hmark-sport', uint16, Given.SPORT, (data, n) => (data.portSet = upper(data.portSet, n))),
    number('hmark-dport', uint16, Given.DPORT, (data, n) => (data.portSet = lower(data.portSet, n))),
    number('hmark-spi', uint32, Given.SPI, (data, n) => (data.portSet = n | 0)),
    number('hmark-proto-mask', uint16, Given.PROTO_MASK, (data, n) => (data.protocolMask = n)),
    number('hmark-rnd', uint32, Given.RND, (data, n) => (data.seed = n | 0)),
    option({
      name: 'hmark-mod',
      arg: uint32(1),
      mandatory: true,
      set: (data, n) => {
        data.given |= Given.MODULUS;
        data.modulus = n;
      },
    }),
    number('hmark-offset', uint32, Given.OFFSET, (data, n) => (data.offset = n)),
  ],
  finalCheck: ({ given }) => {
    if ((given & Given.MODULUS) === 0) problem('--hmark-mod is mandatory');
    if ((given & Given.RND) === 0) problem('--hmark-rnd is mandatory');
    if (given & Given.SPI_MASK && given & (Given.SPORT_MASK | Given.DPORT_MASK))
      problem('you cannot use --hmark-spi-mask and --hmark-?port-mask,at the same time');
    if ((given & Given.ANY) === 0) problem('you have to specify --hmark-tuple at least');
  },
  save: (d) => {
    const say = (bit: Given, name: string, text: string): string => (d.given & bit ? ` --hmark-${name} ${text}` : '');
    return (
      say(Given.SRC, 'src-prefix', `${maskBits(d.srcMask)}`) +
      say(Given.DST, 'dst-prefix', `${maskBits(d.dstMask)}`) +
      say(Given.SPORT_MASK, 'sport-mask', padded(d.portMask >>> 16, 4)) +
      say(Given.DPORT_MASK, 'dport-mask', padded(d.portMask & 0xffff, 4)) +
      say(Given.SPI_MASK, 'spi-mask', padded(d.portMask, 8)) +
      say(Given.SPORT, 'sport', padded(d.portSet >>> 16, 4)) +
      say(Given.DPORT, 'dport', padded(d.portSet & 0xffff, 4)) +
      say(Given.SPI, 'spi', padded(d.portSet, 8)) +
      say(Given.PROTO_MASK, 'proto-mask', padded(d.protocolMask, 2)) +
      say(Given.RND, 'rnd', padded(d.seed, 8)) +
      say(Given.MODULUS, 'mod', `${d.modulus}`) +
      say(Given.OFFSET, 'offset', `${d.offset}`) +
      say(Given.CT, 'tuple', 'ct')
    );
  },
  print: (d) => {
    const say = (bit: Given, text: string): string => (d.given & bit ? `${text} ` : '');
    return (
      ' HMARK ' +
      say(Given.MODULUS, `mod ${d.modulus}`) +
      say(Given.OFFSET, `+ ${hex(d.offset)}`) +
      say(Given.CT, 'ct,') +
      say(Given.SRC, `src-prefix ${maskBits(d.srcMask)}`) +
      say(Given.DST, `dst-prefix ${maskBits(d.dstMask)}`) +
      say(Given.SPORT_MASK, `sport-mask ${hex(d.portMask >>> 16)}`) +
      say(Given.DPORT_MASK, `dport-mask ${hex(d.portMask & 0xffff)}`) +
      say(Given.SPI_MASK, `spi-mask ${hex(d.portMask)}`) +
      say(Given.SPORT, `sport ${hex(d.portSet >>> 16)}`) +
      say(Given.DPORT, `dport ${hex(d.portSet & 0xffff)}`) +
      say(Given.SPI, `spi ${hex(d.portSet)}`) +
      say(Given.PROTO_MASK, `proto-mask ${hex(d.protocolMask)}`) +
      say(Given.RND, `rnd ${hex(d.seed)}`)
    );
  },
  help: `HMARK target options, i.e. modify hash calculation by:
  --hmark-tuple [src|dst|sport|dport|spi|proto|ct][,...]
  --hmark-mod value		    nfmark modulus value
  --hmark-offset value		    Last action add value to nfmark

  --hmark-rnd			    Random see for hashing
 Alternatively, fine tuning of what will be included in hash calculation
  --hmark-src-prefix length	    Source address mask CIDR prefix
  --hmark-dst-prefix length	    Dest address mask CIDR prefix
  --hmark-sport-mask value	    Mask src port with value
  --hmark-dport-mask value	    Mask dst port with value
  --hmark-spi-mask value	    For esp and ah AND spi with value
  --hmark-sport value		    OR src port with value
  --hmark-dport value		    OR dst port with value
  --hmark-spi value		    For esp and ah OR spi with value
  --hmark-proto-mask value	    Mask Protocol with value
`,
  check: ({ given }) =>
    given & Given.SPI && given & (Given.SPORT | Given.DPORT)
      ? { errno: 'EINVAL', reason: "HMARK: spi-set and port-set can't be combined" }
      : undefined,
  cannot: ({ modulus, offset }) =>
    offset + modulus > (PrivateMark.ALL & -PrivateMark.ALL) >>> 0
      ? `marks up to ${offset + modulus - 1} reach the bit ${hex(PrivateMark.ALL)}, by which hutter knows its own packets`
      : undefined,
  compile: ({ given, srcMask, dstMask, portMask, portSet, protocolMask, seed, modulus, offset }, emit) =>
    emit.target(
      TargetOp.HMARK,
      encodeHMARK({
        srcMask,
        dstMask,
        portMask,
        portSet,
        protocolMask,
        seed,
        modulus: modulus | 0,
        offset: offset | 0,
        connection: (given & Given.CT) !== 0,
      }),
    ),
  late: () => ({ marks: -1 }),
});
