/** -j TPROXY: the packet to a local socket, its addresses unchanged. (libxt_TPROXY.c revision 1, xt_TPROXY.c) */
import { Proto } from '../../dataplane/names.js';
import { hex } from '../text/numbers.js';
import { formatAddress, host, markMask, port } from './args.js';
import { defineTarget, option } from './record.js';

export interface TproxyData {
  port: number;
  addr: number;
  mark: number;
  mask: number;
}

export const TPROXY = defineTarget<TproxyData>({
  name: 'TPROXY',
  revision: 1,
  tables: ['mangle'],
  hooks: ['PREROUTING'],
  init: () => ({ port: 0, addr: 0, mark: 0, mask: 0 }),
  options: [
    option({
      name: 'on-port',
      arg: port,
      mandatory: true,
      set: (data, value) => {
        data.port = value;
      },
    }),
    option({
      name: 'on-ip',
      arg: host,
      set: (data, addr) => {
        data.addr = addr;
      },
    }),
    option({
      name: 'tproxy-mark',
      arg: markMask,
      set: (data, { value, mask }) => {
        data.mark = value;
        data.mask = mask;
      },
    }),
  ],
  save: ({ port, addr, mark, mask }) =>
    ` --on-port ${port} --on-ip ${formatAddress(addr)} --tproxy-mark ${hex(mark)}/${hex(mask)}`,
  print: ({ port, addr, mark, mask }) =>
    ` TPROXY redirect ${formatAddress(addr)}:${port} mark ${hex(mark)}/${hex(mask)}`,
  help: `TPROXY target options:
  --on-port port		    Redirect connection to port, or the original port if 0
  --on-ip ip			    Optionally redirect to the given IP
  --tproxy-mark value[/mask]	    Mark packets with the given value/mask

`,
  check: (_data, { rule }) =>
    (rule.proto === Proto.TCP || rule.proto === Proto.UDP) && !rule.notProto
      ? undefined
      : { errno: 'EINVAL', reason: 'TPROXY: can be used only with -p tcp or -p udp' },
  cannot: () => 'only the kernel can hand a packet to a socket that has another address',
});
