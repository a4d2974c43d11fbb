/** -m mac: the Ethernet source address. (libxt_mac.c, xt_mac.c) */
import { encodeMac } from '../../dataplane/program/mac.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { bang, etherMac } from './args.js';
import { defineMatch, option } from './record.js';

export interface MacData {
  /** Six bytes. */
  source: readonly number[];
  invert: boolean;
}

const format = (mac: readonly number[]): string => mac.map((byte) => byte.toString(16).padStart(2, '0')).join(':');

export const mac = defineMatch<MacData>({
  name: 'mac',
  hooks: ['PREROUTING', 'INPUT', 'FORWARD'],
  init: () => ({ source: [0, 0, 0, 0, 0, 0], invert: false }),
  options: [
    option({
      name: 'mac-source',
      arg: etherMac,
      invert: true,
      mandatory: true,
      set: (data, source, { invert }) => {
        data.source = source;
        data.invert = invert;
      },
    }),
  ],
  save: ({ source, invert }) => `${bang(invert)} --mac-source ${format(source)}`,
  print: ({ source, invert }) => ` MAC${bang(invert)} ${format(source)}`,
  help: `mac match options:
[!] --mac-source XX:XX:XX:XX:XX:XX
				Match source MAC address
`,
  compile: ({ source, invert }, emit) => emit.test(MatchOp.MAC, encodeMac(source, invert)),
});
