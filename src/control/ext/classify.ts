/** -j CLASSIFY: the packet's traffic control class. (libxt_CLASSIFY.c, xt_CLASSIFY.c) */
import { encodeCLASSIFY } from '../../dataplane/program/classify.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineTarget, option } from './record.js';

export interface ClassifyData {
  major: number;
  minor: number;
}

const hex4 = (n: number): string => n.toString(16).padStart(4, '0');

/** `%x` of sscanf(3): blanks, a sign, 0x; wraps like an unsigned int. What follows is left. */
function scanHex(text: string): { low: number; rest: string } | undefined {
  const found = /^[ \t-\r]*([+-]?)(?:0[xX](?=[\da-fA-F]))?([\da-fA-F]+)/.exec(text);
  if (!found) return undefined;
  const bits = BigInt(`0x${found[2]!}`) & 0xffffn;
  return { low: Number((found[1] === '-' ? -bits : bits) & 0xffffn), rest: text.slice(found[0].length) };
}

export const CLASSIFY = defineTarget<ClassifyData>({
  name: 'CLASSIFY',
  hooks: ['OUTPUT', 'FORWARD', 'POSTROUTING'],
  init: () => ({ major: 0, minor: 0 }),
  options: [
    option({
      name: 'set-class',
      arg: string(),
      mandatory: true,
      set: (data, text) => {
        const major = scanHex(text);
        const minor = major?.rest.startsWith(':') ? scanHex(major.rest.slice(1)) : undefined;
        if (!major || !minor) problem(`Bad class value "${text}"`);
        data.major = major.low;
        data.minor = minor.low;
      },
    }),
  ],
  save: ({ major, minor }) => ` --set-class ${hex4(major)}:${hex4(minor)}`,
  print: ({ major, minor }) => ` CLASSIFY set ${major.toString(16)}:${minor.toString(16)}`,
  help: `CLASSIFY target options:
--set-class MAJOR:MINOR    Set skb->priority value (always hexadecimal!)
`,
  compile: ({ major, minor }, emit) => emit.target(TargetOp.CLASSIFY, encodeCLASSIFY(major, minor)),
  late: () => ({ class: true }),
});
