/** -m connlabel: one of 128 labels of a connection. (libxt_connlabel.c, xt_connlabel.c) */
import { encodeConnlabel } from '../../dataplane/program/connlabel.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { existsSync, readFileSync } from 'node:fs';
import { looseUnsigned } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface ConnlabelData {
  /** 0..127; the kernel refuses more. */
  bit: number;
  invert: boolean;
  set: boolean;
}

const FILE = '/etc/xtables/connlabel.conf';
const MAX_BIT = 127;

/** Labels by bit, as libnetfilter_conntrack reads them: `BIT NAME` a line. */
function labels(): { bit: number; name: string }[] {
  if (!existsSync(FILE)) return [];
  return readFileSync(FILE, 'latin1')
    .split('\n')
    .flatMap((line) => {
      const found = /^\s*(\d+)\s+(\S+)/.exec(line);
      return found && Number(found[1]) <= MAX_BIT ? [{ bit: Number(found[1]), name: found[2]! }] : [];
    });
}

function parseLabel(text: string, warn: (text: string) => void): number {
  const { value, end } = looseUnsigned(text, 0);
  if (text !== '' && end === text.length) return value % 2 ** 16;
  if (!existsSync(FILE)) warn(`Warning: cannot open ${FILE}: No such file or directory\n`);
  return labels().find(({ name }) => name === text)?.bit ?? problem(`label '${text}' not found or invalid value`);
}

export const connlabel = defineMatch<ConnlabelData>({
  name: 'connlabel',
  init: () => ({ bit: 0, invert: false, set: false }),
  options: [
    option({
      name: 'label',
      arg: string({ min: 1 }),
      invert: true,
      mandatory: true,
      set: (data, text, { invert, warn }) => {
        data.bit = parseLabel(text, warn);
        data.invert = invert;
      },
    }),
    option({
      name: 'set',
      set: (data) => {
        data.set = true;
      },
    }),
  ],
  save: ({ bit, invert, set }) =>
    `${bang(invert)} --label "${labels().find((each) => each.bit === bit)?.name ?? bit}"${set ? ' --set' : ''}`,
  print: ({ bit, invert, set }, { numeric }) => {
    const name = numeric ? undefined : labels().find((each) => each.bit === bit)?.name;
    return ` connlabel${bang(invert)} ${name === undefined ? bit : `'${name}'`}${set ? ' set' : ''}`;
  },
  help: `connlabel match options:
[!] --label name     Match if label has been set on connection
    --set            Set label on connection
`,
  check: ({ bit }) =>
    bit > MAX_BIT ? { errno: 'ERANGE', reason: `connlabel: the last label is ${MAX_BIT}, not ${bit}` } : undefined,
  compile: ({ bit, set, invert }, emit) => emit.test(MatchOp.CONNLABEL, encodeConnlabel(bit, set, invert)),
});
