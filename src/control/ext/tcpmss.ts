/** -m tcpmss and -j TCPMSS: the maximum segment size that a SYN offers. (libxt_tcpmss.c, libxt_TCPMSS.c; RFC 9293 §3.7.1) */
import { Hook, Proto, TcpFlag } from '../../dataplane/names.js';
import { CLAMP_TO_PMTU, encodeTCPMSS, encodeTcpmss } from '../../dataplane/program/tcpmss.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, uint16, uint16Range } from './args.js';
import { defineMatch, defineTarget, option, type Use } from './record.js';
import type { TcpData } from './tcp.js';

export interface TcpmssData {
  min: number;
  max: number;
  invert: boolean;
}

const range = ({ min, max }: TcpmssData): string => (min === max ? `${min}` : `${min}:${max}`);

export const tcpmss = defineMatch<TcpmssData>({
  name: 'tcpmss',
  proto: Proto.TCP,
  init: () => ({ min: 0, max: 0, invert: false }),
  options: [
    option({
      name: 'mss',
      arg: uint16Range(),
      invert: true,
      mandatory: true,
      set: (data, values, { invert }) => {
        data.min = values[0]!;
        data.max = values[1] ?? data.min;
        if (data.max < data.min) problem('tcpmss: invalid range given');
        data.invert = invert;
      },
    }),
  ],
  save: (data) => `${bang(data.invert)} --mss ${range(data)}`,
  print: (data) => ` tcpmss match ${data.invert ? '!' : ''}${range(data)}`,
  help: `tcpmss match options:
[!] --mss value[:value]	Match TCP MSS range.
				(only valid for TCP SYN or SYN/ACK packets)
`,
  compile: ({ min, max, invert }, emit) => emit.test(MatchOp.TCPMSS, encodeTcpmss(min, max, invert)),
});

export interface TcpmssTargetData {
  /** CLAMP_TO_PMTU, or the size to set. */
  mss: number;
}

/** What a segment of the longest IP packet has left. */
const MAX_MSS = 0xffff - 20;
const CLAMP_HOOKS = (1 << Hook.FORWARD) | (1 << Hook.OUTPUT) | (1 << Hook.POSTROUTING);

/** `-p tcp --syn` or its like: the flags that must be set hold SYN. */
const asksForSyn = ({ extension, data }: Use): boolean => {
  if (extension.kind !== 'match' || extension.name !== 'tcp') return false;
  const { flags, notFlags } = data as TcpData;
  return (flags & TcpFlag.SYN) !== 0 && !notFlags;
};

export const TCPMSS = defineTarget<TcpmssTargetData>({
  name: 'TCPMSS',
  proto: Proto.TCP,
  init: () => ({ mss: 0 }),
  options: [
    option({
      name: 'set-mss',
      arg: uint16(0, MAX_MSS),
      set: (data, mss) => {
        data.mss = mss;
      },
    }),
    option({
      name: 'clamp-mss-to-pmtu',
      set: (data) => {
        data.mss = CLAMP_TO_PMTU;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('TCPMSS target: At least one parameter is required');
  },
  save: ({ mss }) => (mss === CLAMP_TO_PMTU ? ' --clamp-mss-to-pmtu' : ` --set-mss ${mss}`),
  print: ({ mss }) => ` TCPMSS ${mss === CLAMP_TO_PMTU ? 'clamp to PMTU' : `set ${mss}`}`,
  help: `TCPMSS target mutually-exclusive options:
  --set-mss value               explicitly set MSS option to specified value
  --clamp-mss-to-pmtu           automatically clamp MSS value to (path_MTU - 20)
`,
  check: ({ mss }, { hooks, rule }) => {
    if (mss === CLAMP_TO_PMTU && hooks & ~CLAMP_HOOKS)
      return {
        errno: 'EINVAL',
        reason: 'TCPMSS: path-MTU clamping only supported in FORWARD, OUTPUT and POSTROUTING hooks',
      };
    return rule.matches?.some(asksForSyn)
      ? undefined
      : { errno: 'EINVAL', reason: 'TCPMSS: Only works on TCP SYN packets' };
  },
  compile: ({ mss }, emit) => emit.target(TargetOp.TCPMSS, encodeTCPMSS(mss)),
});
