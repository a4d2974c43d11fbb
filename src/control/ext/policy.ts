/** -m policy: the IPsec policy that a packet came or goes under. (libxt_policy.c, xt_policy.c) */
import { Hook, Ipsec, Proto } from '../../dataplane/names.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodePolicy } from '../../dataplane/program/policy.js';
import { protocolName } from '../protocols.js';
import { formatAddress, formatMask, type Network } from '../text/address.js';
import { problem } from '../text/problem.js';
import { bang, hostMask, protocol, string, uint32 } from './args.js';
import { defineMatch, option, type OptionCall } from './record.js';

type Mode = 'transport' | 'tunnel';
type Asked<V> = { readonly value: V; readonly invert: boolean } | null;

export interface PolicyElement {
  reqid: Asked<number>;
  spi: Asked<number>;
  proto: Asked<number>;
  mode: Asked<Mode>;
  saddr: Asked<Network>;
  daddr: Asked<Network>;
}

export interface PolicyData {
  in: boolean;
  out: boolean;
  none: boolean;
  strict: boolean;
  /** As given; `length` of them count. */
  elements: PolicyElement[];
  length: number;
}

const MAX_ELEMENTS = 4;
const emptyElement = (): PolicyElement => ({
  reqid: null,
  spi: null,
  proto: null,
  mode: null,
  saddr: null,
  daddr: null,
});
const isEmpty = (element: PolicyElement): boolean => Object.values(element).every((each) => each === null);

/** Notes what an element shall have; each thing once. */
function ask<K extends keyof PolicyElement>(
  data: PolicyData,
  key: K,
  value: NonNullable<PolicyElement[K]>['value'],
  { option, invert }: OptionCall<PolicyData>,
): void {
  const element = data.elements[data.length]!;
  if (element[key] !== null) problem(`policy match: double --${option} option`);
  element[key] = { value, invert } as PolicyElement[K];
}

function formatElement(element: PolicyElement, dashes: string, numeric: boolean): string {
  const say = <V>(asked: Asked<V>, name: string, text: (value: V) => string): string =>
    asked === null ? '' : `${bang(asked.invert)} ${dashes}${name} ${text(asked.value)}`;
  const network = ({ addr, mask }: Network): string => formatAddress(addr) + formatMask(mask);
  return (
    say(element.reqid, 'reqid', String) +
    say(element.spi, 'spi', (spi) => `0x${spi.toString(16)}`) +
    say(element.proto, 'proto', (proto) => (numeric ? undefined : protocolName(proto)) ?? String(proto)) +
    say(element.mode, 'mode', String) +
    say(element.daddr, 'tunnel-dst', network) +
    say(element.saddr, 'tunnel-src', network)
  );
}

const formatFlags = (data: PolicyData, dashes: string): string =>
  ` ${dashes}dir ${data.in ? 'in' : 'out'} ${dashes}pol ${data.none ? 'none' : 'ipsec'}` +
  (data.strict ? ` ${dashes}strict` : '');

export const policy = defineMatch<PolicyData>({
  name: 'policy',
  init: () => ({ in: false, out: false, none: false, strict: false, elements: [emptyElement()], length: 0 }),
  options: [
    option({
      name: 'dir',
      arg: string(),
      set: (data, direction) => {
        if (direction === 'in') data.in = true;
        else if (direction === 'out') data.out = true;
        else problem(`policy_match: invalid dir "${direction}"`);
      },
    }),
    option({
      name: 'pol',
      arg: string(),
      set: (data, kind) => {
        if (kind === 'none') data.none = true;
        else if (kind !== 'ipsec') problem(`policy match: invalid policy "${kind}"`);
      },
    }),
    option({
      name: 'strict',
      set: (data) => {
        data.strict = true;
      },
    }),
    option({
      name: 'reqid',
      arg: uint32(),
      multi: true,
      invert: true,
      set: (data, reqid, call) => {
        ask(data, 'reqid', reqid, call);
      },
    }),
    option({
      name: 'spi',
      arg: uint32(),
      multi: true,
      invert: true,
      set: (data, spi, call) => {
        ask(data, 'spi', spi, call);
      },
    }),
    option({
      name: 'tunnel-src',
      arg: hostMask,
      multi: true,
      invert: true,
      set: (data, network, call) => {
        ask(data, 'saddr', network, call);
      },
    }),
    option({
      name: 'tunnel-dst',
      arg: hostMask,
      multi: true,
      invert: true,
      set: (data, network, call) => {
        ask(data, 'daddr', network, call);
      },
    }),
    option({
      name: 'proto',
      arg: protocol,
      multi: true,
      invert: true,
      set: (data, proto, call) => {
        if (
          data.elements[data.length]!.proto === null &&
          proto !== Proto.AH &&
          proto !== Proto.ESP &&
          proto !== Proto.IPCOMP
        )
          problem('policy match: protocol must be ah/esp/ipcomp');
        ask(data, 'proto', proto, call);
      },
    }),
    option({
      name: 'mode',
      arg: string(),
      multi: true,
      invert: true,
      set: (data, mode, call) => {
        if (data.elements[data.length]!.mode === null && mode !== 'transport' && mode !== 'tunnel')
          problem(`policy match: invalid mode "${mode}"`);
        ask(data, 'mode', mode as Mode, call);
      },
    }),
    option({
      name: 'next',
      multi: true,
      also: ['strict'],
      set: (data) => {
        if (++data.length === MAX_ELEMENTS) problem('policy match: maximum policy depth reached');
        data.elements.push(emptyElement());
      },
    }),
  ],
  finalCheck: (data) => {
    if (!data.in && !data.out) problem('policy match: neither --dir in nor --dir out specified');
    if (data.none) {
      if (data.strict) problem('policy match: policy none but --strict given');
      if (data.length !== 0) problem('policy match: policy none but policy given');
    } else data.length++;
    for (const [i, element] of data.elements.slice(0, data.length).entries()) {
      if (data.strict && isEmpty(element))
        problem(
          `policy match: empty policy element ${i}. --strict is in effect, but at least one of ` +
            'reqid, spi, tunnel-src, tunnel-dst, proto or mode is required.',
        );
      // A mode that nobody named is transport.
      const tunnel = element.mode !== null && (element.mode.value === 'tunnel') !== element.mode.invert;
      if ((element.saddr ?? element.daddr) && !tunnel)
        problem('policy match: --tunnel-src/--tunnel-dst is only valid in tunnel mode');
    }
  },
  save: (data) =>
    formatFlags(data, '--') +
    data.elements
      .slice(0, data.length)
      .map((element) => formatElement(element, '--', false))
      .join(' --next'),
  print: (data, { numeric }) =>
    ` policy match${formatFlags(data, '')}` +
    data.elements
      .slice(0, data.length)
      .map((element, i) => (data.length > 1 ? ` [${i}]` : '') + formatElement(element, '', numeric))
      .join(''),
  help: `policy match options:
  --dir in|out			match policy applied during decapsulation/
				policy to be applied during encapsulation
  --pol none|ipsec		match policy
  --strict 			match entire policy instead of single element
				at any position
These options may be used repeatedly, to describe policy elements:
[!] --reqid reqid		match reqid
[!] --spi spi			match SPI
[!] --proto proto		match protocol (ah/esp/ipcomp)
[!] --mode mode 		match mode (transport/tunnel)
[!] --tunnel-src addr/mask	match tunnel source
[!] --tunnel-dst addr/mask	match tunnel destination
  --next 			begin next element in policy
`,
  check: (data, { hooks }) => {
    if (data.out && hooks & ((1 << Hook.PREROUTING) | (1 << Hook.INPUT)))
      return { errno: 'EINVAL', reason: 'policy: output policy not valid in PREROUTING and INPUT' };
    if (data.in && hooks & ((1 << Hook.POSTROUTING) | (1 << Hook.OUTPUT)))
      return { errno: 'EINVAL', reason: 'policy: input policy not valid in POSTROUTING and OUTPUT' };
    return undefined;
  },
  cannot: ({ none, strict, elements, length }) =>
    !none && (strict || elements.slice(0, length).some((element) => !isEmpty(element)))
      ? 'which policies a packet came or goes under the queue does not tell, only whether any'
      : undefined,
  late: ({ out }) => ({ policy: out }),
  compile: ({ in: came, none }, emit) => emit.test(MatchOp.POLICY, encodePolicy(came ? Ipsec.IN : Ipsec.OUT), none),
});
