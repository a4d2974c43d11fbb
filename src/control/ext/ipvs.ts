/** -m ipvs: the load balancer's connections. (libxt_ipvs.c, xt_ipvs.c; ipvsadm(8)) */
import { anyName, formatAddress, formatMask, type Network } from '../text/address.js';
import { problem } from '../text/problem.js';
import { badValue, bang, hostMask, port, protocol, string } from './args.js';
import { defineMatch, option, type PrintContext } from './record.js';

/** XT_IPVS_* */
const enum IpvsTest {
  IPVS = 1 << 0,
  PROTO = 1 << 1,
  ADDRESS = 1 << 2,
  PORT = 1 << 3,
  DIRECTION = 1 << 4,
  METHOD = 1 << 5,
  CONTROL_PORT = 1 << 6,
}

export interface IpvsData {
  /** IpvsTest bits: what is asked, and what of it is negated; a negated direction is REPLY. */
  asked: number;
  invert: number;
  proto: number;
  address: Network;
  port: number;
  controlPort: number;
  method: string;
}

const METHODS = ['GATE', 'IPIP', 'MASQ'];

function ask(data: IpvsData, bit: IpvsTest, invert: boolean): void {
  data.asked |= bit;
  if (invert) data.invert |= bit;
}

function text(data: IpvsData, dashes: string, address: (network: Network) => string): string {
  const say = (bit: IpvsTest, name: string, value: string | number): string =>
    data.asked & bit ? `${bang((data.invert & bit) !== 0)} ${dashes}${name} ${value}` : '';
  return (
    (data.asked === (IpvsTest.IPVS as number) ? `${bang((data.invert & IpvsTest.IPVS) !== 0)} ${dashes}ipvs` : '') +
    say(IpvsTest.PROTO, 'vproto', data.proto) +
    say(IpvsTest.ADDRESS, 'vaddr', address(data.address)) +
    say(IpvsTest.PORT, 'vport', data.port) +
    (data.asked & IpvsTest.DIRECTION
      ? ` ${dashes}vdir ${data.invert & IpvsTest.DIRECTION ? 'REPLY' : 'ORIGINAL'}`
      : '') +
    say(IpvsTest.METHOD, 'vmethod', data.method) +
    say(IpvsTest.CONTROL_PORT, 'vportctl', data.controlPort)
  );
}

const numbers = ({ addr, mask }: Network): string => formatAddress(addr) + formatMask(mask);
const named =
  ({ names }: PrintContext) =>
  ({ addr, mask }: Network): string =>
    addr === 0 ? 'anywhere' : anyName(addr, names) + formatMask(mask);

export const ipvs = defineMatch<IpvsData>({
  name: 'ipvs',
  init: () => ({
    asked: 0,
    invert: 0,
    proto: 0,
    address: { addr: 0, mask: 0 },
    port: 0,
    controlPort: 0,
    method: 'GATE',
  }),
  options: [
    option({
      name: 'ipvs',
      invert: true,
      set: (data, _value, { invert }) => {
        ask(data, IpvsTest.IPVS, invert);
      },
    }),
    option({
      name: 'vproto',
      arg: protocol,
      invert: true,
      set: (data, proto, { invert }) => {
        data.proto = proto;
        ask(data, IpvsTest.PROTO, invert);
      },
    }),
    option({
      name: 'vaddr',
      arg: hostMask,
      invert: true,
      set: (data, address, { invert }) => {
        data.address = address;
        ask(data, IpvsTest.ADDRESS, invert);
      },
    }),
    option({
      name: 'vport',
      arg: port,
      invert: true,
      set: (data, number, { invert }) => {
        data.port = number;
        ask(data, IpvsTest.PORT, invert);
      },
    }),
    option({
      name: 'vdir',
      arg: string(),
      set: (data, word) => {
        const direction = word.toUpperCase();
        if (direction !== 'ORIGINAL' && direction !== 'REPLY') badValue('ipvs', '--vdir', word);
        ask(data, IpvsTest.DIRECTION, direction === 'REPLY');
      },
    }),
    option({
      name: 'vmethod',
      arg: string(),
      invert: true,
      set: (data, word, { invert }) => {
        data.method = METHODS.find((name) => name === word.toUpperCase()) ?? badValue('ipvs', '--vmethod', word);
        ask(data, IpvsTest.METHOD, invert);
      },
    }),
    option({
      name: 'vportctl',
      arg: port,
      invert: true,
      set: (data, number, { invert }) => {
        data.controlPort = number;
        ask(data, IpvsTest.CONTROL_PORT, invert);
      },
    }),
  ],
  finalCheck: (data, seen) => {
    if (seen.size === 0) problem('IPVS: At least one option is required');
    if ((data.asked & ~IpvsTest.IPVS) === 0) return;
    if (data.invert & IpvsTest.IPVS) problem('! --ipvs cannot be together with other options');
    data.asked |= IpvsTest.IPVS;
  },
  save: (data) => text(data, '--', numbers),
  print: (data, context) => text(data, '', context.numeric ? numbers : named(context)),
  help: `IPVS match options:
[!] --ipvs                      packet belongs to an IPVS connection

Any of the following options implies --ipvs (even negated)
[!] --vproto protocol           VIP protocol to match; by number or name,
                                e.g. "tcp"
[!] --vaddr address[/mask]      VIP address to match
[!] --vport port                VIP port to match; by number or name,
                                e.g. "http"
    --vdir {ORIGINAL|REPLY}     flow direction of packet
[!] --vmethod {GATE|IPIP|MASQ}  IPVS forwarding method used
[!] --vportctl port             VIP port of the controlling connection to
                                match, e.g. 21 for FTP
`,
  cannot: () => "the load balancer's connections are the kernel's",
});
