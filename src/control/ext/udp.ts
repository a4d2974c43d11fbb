/** -m udp: ports. (libxt_udp.c, xt_tcpudp.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeUdp } from '../../dataplane/program/udp.js';
import { Proto } from '../../dataplane/names.js';
import { ALL_PORTS, portOptions, printPorts, savePorts } from './ports.js';
import { defineMatch } from './record.js';

export interface UdpData {
  sport: [number, number];
  dport: [number, number];
  notSport: boolean;
  notDport: boolean;
}

export const udp = defineMatch<UdpData>({
  name: 'udp',
  proto: Proto.UDP,
  init: () => ({ sport: [0, ALL_PORTS], dport: [0, ALL_PORTS], notSport: false, notDport: false }),
  options: [
    ...portOptions<UdpData>((data, side, range, invert) => {
      data[side] = range;
      data[side === 'sport' ? 'notSport' : 'notDport'] = invert;
    }),
  ],
  save: (data) => savePorts('sport', data.sport, data.notSport) + savePorts('dport', data.dport, data.notDport),
  print: (data, { numeric }) =>
    ` udp${printPorts('spt', data.sport, data.notSport, 'udp', numeric)}` +
    printPorts('dpt', data.dport, data.notDport, 'udp', numeric),
  help: `udp match options:
[!] --source-port port[:port]
 --sport ...
				match source port(s)
[!] --destination-port port[:port]
 --dport ...
				match destination port(s)
`,
  compile: (data, emit) =>
    emit.test(
      MatchOp.UDP,
      encodeUdp({
        sports: { min: data.sport[0], max: data.sport[1], invert: data.notSport },
        dports: { min: data.dport[0], max: data.dport[1], invert: data.notDport },
      }),
    ),
});
