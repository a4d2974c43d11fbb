/**
 * -j NFLOG (net/netfilter/xt_NFLOG.c): GROUP SIZE (bytes of the packet to tell, −1 = all) LENGTH, then the prefix's bytes packed.
 * The packet goes to the context's log sink, the walk goes on.
 */
import { argument, packText, unpackText, type Op } from './op.js';

/** Arguments of NFLOG, for sinks. */
export const enum NflogArg {
  GROUP = 0,
  SIZE = 1,
  /** Bytes of the prefix, packed big-endian from PREFIX. */
  LENGTH = 2,
  PREFIX = 3,
}

/** `size` in bytes, uint32; −1: the whole packet. */
export const encodeNFLOG = (group: number, size: number, prefix: string): number[] => [
  group,
  size === -1 ? -1 : Math.min(size, 0x7fff_ffff),
  prefix.length,
  ...packText(prefix),
];

export const NFLOG: Op = {
  name: 'NFLOG',
  words: 3,
  variable: true,
  payload: true,
  check: (a) =>
    argument(a, NflogArg.LENGTH) >= 0 && (argument(a, NflogArg.LENGTH) + 3) >> 2 === a.words - NflogArg.PREFIX
      ? undefined
      : 'its prefix is not as long as it says',
  text: (a) =>
    `group ${argument(a, NflogArg.GROUP)} size ${argument(a, NflogArg.SIZE)} prefix ` +
    JSON.stringify(unpackText(a.program, a.at + NflogArg.PREFIX, argument(a, NflogArg.LENGTH))),
};
