/** -j TEE: a copy of the packet to another host. (libxt_TEE.c revision 1, xt_TEE.c) */
import { TargetOp } from '../../dataplane/program/ops.js';
import { encodeTEE } from '../../dataplane/program/tee.js';
import { formatAddress, host, string } from './args.js';
import { defineTarget, option } from './record.js';

export interface TeeData {
  gateway: number;
  /** '' = none. */
  oif: string;
}

export const TEE = defineTarget<TeeData>({
  name: 'TEE',
  revision: 1,
  init: () => ({ gateway: 0, oif: '' }),
  options: [
    option({
      name: 'gateway',
      arg: host,
      mandatory: true,
      set: (data, gateway) => {
        data.gateway = gateway;
      },
    }),
    option({
      name: 'oif',
      arg: string({ size: 16 }),
      set: (data, oif) => {
        data.oif = oif;
      },
    }),
  ],
  save: ({ gateway, oif }) => ` --gateway ${formatAddress(gateway)}${oif === '' ? '' : ` --oif ${oif}`}`,
  print: ({ gateway, oif }, { numeric, names }) =>
    ` TEE gw:${(numeric ? undefined : names.hostName(gateway)) ?? formatAddress(gateway)}${oif === '' ? '' : ` oif=${oif}`}`,
  help: `TEE target options:
  --gateway IPADDR    Route packet via the gateway given by address
  --oif NAME          Include oif in route calculation

`,
  check: ({ gateway }) => (gateway === 0 ? { errno: 'EINVAL', reason: 'TEE: no gateway' } : undefined),
  compile: ({ gateway, oif }, emit) => emit.target(TargetOp.TEE, encodeTEE(gateway, oif)),
});
