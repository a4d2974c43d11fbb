/** -m pkttype: to whom the frame was addressed. (libxt_pkttype.c, xt_pkttype.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodePkttype } from '../../dataplane/program/pkttype.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface PkttypeData {
  /** PACKET_* of packet(7). */
  type: number;
  invert: boolean;
}

/** Names by PACKET_*; the first four are printed. */
const NAMES: readonly (readonly [string, number])[] = [
  ['unicast', 0],
  ['broadcast', 1],
  ['multicast', 2],
  ['otherhost', 3],
  ['bcast', 1],
  ['mcast', 2],
  ['host', 0],
];
const nameOf = (type: number): string => NAMES.find(([, number]) => number === type)![0];

export const pkttype = defineMatch<PkttypeData>({
  name: 'pkttype',
  init: () => ({ type: 0, invert: false }),
  options: [
    option({
      name: 'pkt-type',
      arg: string(),
      invert: true,
      mandatory: true,
      set: (data, text, { invert }) => {
        const found = NAMES.find(([name]) => name === text.toLowerCase());
        if (!found) problem(`Bad packet type '${text}'`);
        data.type = found[1];
        data.invert = invert;
      },
    }),
  ],
  save: ({ type, invert }) => `${bang(invert)} --pkt-type ${nameOf(type)}`,
  print: ({ type, invert }) => ` PKTTYPE ${invert ? '!' : ''}= ${nameOf(type)}`,
  help: `pkttype match options:
[!] --pkt-type packettype    match packet type
Valid packet types:
	unicast       		to us
	broadcast     		to all
	multicast     		to group
	otherhost     		to someone else

`,
  compile: ({ type, invert }, emit) => emit.test(MatchOp.PKTTYPE, encodePkttype(type), invert),
});
