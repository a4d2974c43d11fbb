/**
 * The NAT targets: SNAT, DNAT, MASQUERADE, REDIRECT, NETMAP. One range of addresses and ports each. (libxt_NAT.c; xt_nat.c,
 * xt_MASQUERADE.c, xt_REDIRECT.c) Flags are the kernel's NF_NAT_RANGE_* bits.
 */
import { encodeNat } from '../../dataplane/program/nat.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { Proto } from '../../dataplane/names.js';
import { formatAddress, maskBits, strictAddress } from '../text/address.js';
import { prefixNumber, wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { portOfAnyProtocol } from '../services.js';
import { hostMask, string } from './args.js';
import { defineTarget, type Emitter, option, type Option, type OptionCall } from './record.js';

export const enum NatFlag {
  MAP_IPS = 1 << 0,
  PROTO_SPECIFIED = 1 << 1,
  PROTO_RANDOM = 1 << 2,
  PERSISTENT = 1 << 3,
  PROTO_RANDOM_FULLY = 1 << 4,
  PROTO_OFFSET = 1 << 5,
}

export interface NatData {
  /** NatFlag bits. */
  flags: number;
  minAddr: number;
  maxAddr: number;
  minPort: number;
  maxPort: number;
  /** DNAT's shifted ranges: destination port − basePort is added to minPort. */
  basePort: number;
}

const PORT_PROTOCOLS: readonly number[] = [Proto.TCP, Proto.UDP, Proto.SCTP, Proto.DCCP, Proto.ICMP];
const init = (): NatData => ({ flags: 0, minAddr: 0, maxAddr: 0, minPort: 0, maxPort: 0, basePort: 0 });

/** port[-port[/port]] */
function parsePorts(text: string, { rule }: OptionCall<NatData>, range: NatData): void {
  if (!PORT_PROTOCOLS.includes(rule.proto)) problem('Need TCP, UDP, SCTP or DCCP with port specification');
  range.flags |= NatFlag.PROTO_SPECIFIED;
  const first = prefixNumber(text, 0, 0xffff);
  if (!first) {
    const port = portOfAnyProtocol(text) ?? problem(`Port \`${text}' not valid`);
    range.minPort = range.maxPort = port;
    return;
  }
  range.minPort = range.maxPort = first.value;
  const rest = text.slice(first.end);
  if (rest === '') return;
  if (rest.startsWith(':')) problem('Invalid port:port syntax - use dash');
  if (!rest.startsWith('-')) problem(`Garbage after port value: \`${rest}'`);
  const end = rest.slice(1);
  const last = prefixNumber(end, 0, 0xffff) ?? problem(`Port \`${end}' not valid`);
  if (last.value < first.value) problem(`Port range \`${end}' funky`);
  range.maxPort = last.value;
  const shift = end.slice(last.end);
  if (shift === '') return;
  if (!shift.startsWith('/')) problem(`Garbage after port range: \`${shift}'`);
  const name = shift.slice(1);
  range.basePort = wholeNumber(name, 1, 0xffff) ?? portOfAnyProtocol(name) ?? problem(`Port \`${name}' not valid`);
  range.flags |= NatFlag.PROTO_OFFSET;
}

/** [address[-address]][:ports] */
function parseTo(text: string, call: OptionCall<NatData>, range: NatData): void {
  if (text.includes('[')) problem('Invalid address format');
  const parts = text.split(':');
  let addresses = text;
  if (parts.length === 2) {
    parsePorts(parts[1]!, call, range);
    // Two characters before the colon are taken for the brackets of an empty address.
    if (parts[0]!.length === 0 || parts[0]!.length === 2) return;
    addresses = parts[0]!;
  }
  range.flags |= NatFlag.MAP_IPS;
  const dash = addresses.indexOf('-');
  const address = (part: string): number => strictAddress(part) ?? problem(`Bad IP address "${part}"`);
  range.minAddr = address(dash < 0 ? addresses : addresses.slice(0, dash));
  range.maxAddr = dash < 0 ? range.minAddr : address(addresses.slice(dash + 1));
}

/** `--to-source`, `--to-destination` and `--to-ports`. Only DNAT's data has room for a base port. */
function range(name: string, parse: typeof parseTo, mandatory: boolean, keepBase: boolean): Option<NatData> {
  return option<NatData, string>({
    name,
    arg: string(),
    mandatory,
    set: (data, text, call) => {
      const parsed = init();
      parse(text, call, parsed);
      Object.assign(data, parsed, { flags: data.flags | parsed.flags, basePort: keepBase ? parsed.basePort : 0 });
    },
  });
}
const flag = (name: string, bit: NatFlag): Option<NatData> =>
  option<NatData>({
    name,
    set: (data) => {
      data.flags |= bit;
    },
  });

function rangeText(data: NatData): string {
  let text = '';
  if (data.flags & NatFlag.MAP_IPS) {
    text = formatAddress(data.minAddr);
    if (data.maxAddr !== data.minAddr) text += `-${formatAddress(data.maxAddr)}`;
  }
  if (data.flags & NatFlag.PROTO_SPECIFIED) {
    text += `:${data.minPort}`;
    if (data.maxPort !== data.minPort) text += `-${data.maxPort}`;
    if (data.flags & NatFlag.PROTO_OFFSET) text += `/${data.basePort}`;
  }
  return text;
}

/** Range and flags, each after its words; `portsOnly` targets show no colon. */
function text(data: NatData, before: string, dashes: string, portsOnly: boolean): string {
  const to = rangeText(data);
  let out = to === '' ? '' : ` ${before}${portsOnly && to.startsWith(':') ? to.slice(1) : to}`;
  if (data.flags & NatFlag.PROTO_RANDOM) out += ` ${dashes}random`;
  if (data.flags & NatFlag.PROTO_RANDOM_FULLY) out += ` ${dashes}random-fully`;
  if (data.flags & NatFlag.PERSISTENT) out += ` ${dashes}persistent`;
  return out;
}

function noShift(data: NatData): void {
  if (data.flags & NatFlag.PROTO_OFFSET) problem('Shifted portmap ranges not supported with this kernel');
}

const compileTo =
  (op: TargetOp) =>
  (data: NatData, emit: Emitter): void =>
    emit.target(
      op,
      encodeNat({
        flags: data.flags,
        minAddress: data.minAddr,
        maxAddress: data.maxAddr,
        minPort: data.minPort,
        maxPort: data.maxPort,
        basePort: data.basePort,
      }),
    );

export const SNAT = defineTarget<NatData>({
  name: 'SNAT',
  tables: ['nat'],
  hooks: ['POSTROUTING', 'INPUT'],
  init,
  options: [
    range('to-source', parseTo, true, false),
    flag('random', NatFlag.PROTO_RANDOM),
    flag('random-fully', NatFlag.PROTO_RANDOM_FULLY),
    flag('persistent', NatFlag.PERSISTENT),
  ],
  save: (data) => text(data, '--to-source ', '--', false),
  print: (data) => text(data, 'to:', '', false),
  help: `SNAT target options:
 --to-source [<ipaddr>[-<ipaddr>]][:port[-port]]
				Address to map source to.
[--random] [--random-fully] [--persistent]
`,
  compile: compileTo(TargetOp.SNAT),
});

export const DNAT = defineTarget<NatData>({
  name: 'DNAT',
  revision: 2,
  tables: ['nat'],
  hooks: ['PREROUTING', 'OUTPUT'],
  init,
  options: [
    range('to-destination', parseTo, true, true),
    flag('random', NatFlag.PROTO_RANDOM),
    flag('persistent', NatFlag.PERSISTENT),
  ],
  save: (data) => text(data, '--to-destination ', '--', false),
  print: (data) => text(data, 'to:', '', false),
  help: `DNAT target options:
 --to-destination [<ipaddr>[-<ipaddr>]][:port[-port[/port]]]
				Address to map destination to.
[--random] [--persistent]
`,
  compile: compileTo(TargetOp.DNAT),
});

export const MASQUERADE = defineTarget<NatData>({
  name: 'MASQUERADE',
  tables: ['nat'],
  hooks: ['POSTROUTING'],
  init,
  options: [
    range('to-ports', parsePorts, false, false),
    flag('random', NatFlag.PROTO_RANDOM),
    flag('random-fully', NatFlag.PROTO_RANDOM_FULLY),
  ],
  save: (data) => text(data, '--to-ports ', '--', true),
  print: (data) => text(data, 'masq ports: ', '', true),
  help: `MASQUERADE target options:
 --to-ports <port>[-<port>]
				Port (range) to map to.
 --random
				Randomize source port.
 --random-fully
				Fully randomize source port.
`,
  compile: compileTo(TargetOp.MASQUERADE),
});

export const REDIRECT = defineTarget<NatData>({
  name: 'REDIRECT',
  tables: ['nat'],
  hooks: ['PREROUTING', 'OUTPUT'],
  init,
  options: [range('to-ports', parsePorts, false, false), flag('random', NatFlag.PROTO_RANDOM)],
  finalCheck: noShift,
  save: (data) => text(data, '--to-ports ', '--', true),
  print: (data) => text(data, 'redir ports ', '', true),
  help: `REDIRECT target options:
 --to-ports <port>[-<port>]
				Port (range) to map to.
 [--random]
`,
  compile: compileTo(TargetOp.REDIRECT),
});

export const NETMAP = defineTarget<NatData>({
  name: 'NETMAP',
  tables: ['nat'],
  init,
  options: [
    option({
      name: 'to',
      arg: hostMask,
      mandatory: true,
      set: (data, { addr, mask }) => {
        data.flags |= NatFlag.MAP_IPS;
        data.minAddr = addr & mask;
        data.maxAddr = data.minAddr | ~mask;
      },
    }),
  ],
  save: (data) => ` --to ${networkText(data)}`,
  print: (data) => ` to:${networkText(data)}`,
  help: `NETMAP target options:
  --to address[/mask]
				Network address to map to.

`,
  compile: compileTo(TargetOp.NETMAP),
});

function networkText({ minAddr, maxAddr }: NatData): string {
  const mask = ~(minAddr ^ maxAddr);
  const bits = maskBits(mask);
  return `${formatAddress(minAddr)}/${bits < 0 ? formatAddress(mask) : bits}`;
}
