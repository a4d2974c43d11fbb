/**
 * -j LOG (net/netfilter/xt_LOG.c): LEVEL (0 … 7) OPTIONS (XT_LOG_* bits) LENGTH, then the prefix's bytes packed. The packet
 * goes to the context's log sink, the walk goes on.
 */
import { argument, packText, unpackText, type Op } from './op.js';

/** XT_LOG_* (include/uapi/linux/netfilter/xt_LOG.h) */
export const enum LogOption {
  TCP_SEQUENCE = 1 << 0,
  TCP_OPTIONS = 1 << 1,
  IP_OPTIONS = 1 << 2,
  UID = 1 << 3,
  MAC_DECODE = 1 << 5,
}

/** Arguments of LOG, for sinks. */
export const enum LogArg {
  LEVEL = 0,
  OPTIONS = 1,
  /** Bytes of the prefix, packed big-endian from PREFIX. */
  LENGTH = 2,
  PREFIX = 3,
}

export const encodeLOG = (level: number, options: number, prefix: string): number[] => [
  level,
  options,
  prefix.length,
  ...packText(prefix),
];

export const LOG: Op = {
  name: 'LOG',
  words: 3,
  variable: true,
  check: (a) =>
    argument(a, 2) >= 0 && (argument(a, 2) + 3) >> 2 === a.words - 3
      ? undefined
      : 'its prefix is not as long as it says',
  text: (a) =>
    `level ${argument(a, 0)} options ${argument(a, 1)} prefix ${JSON.stringify(unpackText(a.program, a.at + 3, argument(a, 2)))}`,
};
