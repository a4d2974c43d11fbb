/**
 * -m conntrack, and -m state, which is a conntrack match with another face. (libxt_conntrack.c revision 3,
 * xt_conntrack.c) Flags are the kernel's XT_CONNTRACK_* bits.
 */
import { encodeConntrack, type SideTest } from '../../dataplane/program/conntrack.js';
import { encodeState } from '../../dataplane/program/state.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { CtState } from '../../dataplane/names.js';
import { anyName, formatAddress, formatMask, type Network } from '../text/address.js';
import { problem } from '../text/problem.js';
import { bang, hostMask, portRange, protocol, string, uint32Range } from './args.js';
import { defineMatch, option, type Option } from './record.js';

export const enum CtFlag {
  STATE = 1 << 0,
  PROTO = 1 << 1,
  ORIGSRC = 1 << 2,
  ORIGDST = 1 << 3,
  REPLSRC = 1 << 4,
  REPLDST = 1 << 5,
  STATUS = 1 << 6,
  EXPIRES = 1 << 7,
  ORIGSRC_PORT = 1 << 8,
  ORIGDST_PORT = 1 << 9,
  REPLSRC_PORT = 1 << 10,
  REPLDST_PORT = 1 << 11,
  DIRECTION = 1 << 12,
  /** Came as -m state. */
  STATE_ALIAS = 1 << 13,
}

/** IPS_* bits of a connection's status. */
export const enum CtStatus {
  EXPECTED = 1 << 0,
  SEEN_REPLY = 1 << 1,
  ASSURED = 1 << 2,
  CONFIRMED = 1 << 3,
}

type Side = 'origsrc' | 'origdst' | 'replsrc' | 'repldst';

export interface ConntrackData {
  /** CtFlag bits: what is looked at. */
  flags: number;
  /** CtFlag bits: what is negated. DIRECTION negated means REPLY. */
  invert: number;
  /** CtState bits. */
  state: number;
  /** CtStatus bits; 0 = NONE. */
  status: number;
  proto: number;
  /** Seconds, first and last. */
  expires: readonly [number, number];
  /** Never changed in place: all uses without one share the defaults. */
  addresses: Readonly<Record<Side, Network>>;
  ports: Readonly<Record<Side, readonly [number, number]>>;
}

const STATES: readonly (readonly [string, number])[] = [
  ['INVALID', CtState.INVALID],
  ['NEW', CtState.NEW],
  ['ESTABLISHED', CtState.ESTABLISHED],
  ['RELATED', CtState.RELATED],
  ['UNTRACKED', CtState.UNTRACKED],
  ['SNAT', CtState.SNAT],
  ['DNAT', CtState.DNAT],
];
const STATUSES: readonly (readonly [string, number])[] = [
  ['NONE', 0],
  ['EXPECTED', CtStatus.EXPECTED],
  ['SEEN_REPLY', CtStatus.SEEN_REPLY],
  ['ASSURED', CtStatus.ASSURED],
  ['CONFIRMED', CtStatus.CONFIRMED],
];
/** Order in which states are printed. */
const PRINTED = [0, 1, 3, 2, 4, 5, 6].map((i) => STATES[i]!);

/** A list of words, each as short as one likes; the complaint shows what was left of the list. */
function parseList(text: string, known: readonly (readonly [string, number])[], bad: string, empty?: string): number {
  let bits = 0;
  let rest = text;
  for (;;) {
    const comma = rest.indexOf(',');
    const word = (comma < 0 ? rest : rest.slice(0, comma)).toUpperCase();
    if (word === '' && comma < 0 && empty !== undefined) problem(empty);
    const found = word === '' ? undefined : known.find(([name]) => name.startsWith(word));
    if (!found) problem(`Bad ${bad} "${rest}"`);
    bits |= found[1];
    if (comma < 0) return bits;
    rest = rest.slice(comma + 1);
  }
}

const stateText = (bits: number): string => {
  let text = '';
  for (const [name, bit] of PRINTED) if (bits & bit) text += text === '' ? name : `,${name}`;
  return text;
};

function statusText(bits: number): string {
  return bits === 0
    ? 'NONE'
    : STATUSES.filter(([, bit]) => bits & bit)
        .map(([name]) => name)
        .join(',');
}

const SIDES: readonly (readonly [Side, CtFlag, CtFlag])[] = [
  ['origsrc', CtFlag.ORIGSRC, CtFlag.ORIGSRC_PORT],
  ['origdst', CtFlag.ORIGDST, CtFlag.ORIGDST_PORT],
  ['replsrc', CtFlag.REPLSRC, CtFlag.REPLSRC_PORT],
  ['repldst', CtFlag.REPLDST, CtFlag.REPLDST_PORT],
];

const addressOptions = SIDES.map(([side, flag]): Option<ConntrackData> =>
  option<ConntrackData, Network>({
    name: `ct${side}`,
    arg: hostMask,
    invert: true,
    set: (data, value, { invert }) => {
      data.addresses = { ...data.addresses, [side]: value };
      data.flags |= flag;
      if (invert) data.invert |= flag;
    },
  }),
);
const portOptions = SIDES.map(([side, , flag]): Option<ConntrackData> =>
  option<ConntrackData, [number, number]>({
    name: `ct${side}port`,
    arg: portRange,
    invert: true,
    set: (data, value, { invert }) => {
      data.ports = { ...data.ports, [side]: value };
      data.flags |= flag;
      if (invert) data.invert |= flag;
    },
  }),
);

const NOWHERE: Network = { addr: 0, mask: 0 };
const NO_ADDRESSES = { origsrc: NOWHERE, origdst: NOWHERE, replsrc: NOWHERE, repldst: NOWHERE };
const NO_RANGE: [number, number] = [0, 0];
const NO_PORTS = { origsrc: NO_RANGE, origdst: NO_RANGE, replsrc: NO_RANGE, repldst: NO_RANGE };
const init = (): ConntrackData => ({
  flags: 0,
  invert: 0,
  state: 0,
  status: 0,
  proto: 0,
  expires: NO_RANGE,
  addresses: NO_ADDRESSES,
  ports: NO_PORTS,
});

/** Both forms are one text; saved options have dashes, listed ones have none. */
function text(data: ConntrackData, dashes: string, address: (network: Network) => string): string {
  let out = '';
  if ((data.flags & ~CtFlag.STATE_ALIAS) === CtFlag.STATE) {
    // Nearly all are just this.
    const name = data.flags & CtFlag.STATE_ALIAS ? 'state' : 'ctstate';
    return `${bang((data.invert & CtFlag.STATE) !== 0)} ${dashes}${name} ${stateText(data.state)}`;
  }
  const add = (flag: number, name: string, value: string | number): void => {
    if (data.flags & flag) out += `${bang((data.invert & flag) !== 0)} ${dashes}${name} ${value}`;
  };
  const range = ([low, high]: readonly [number, number], colonZero: boolean): string =>
    low === high || (colonZero && high === 0) ? String(low) : `${low}:${high}`;
  add(CtFlag.STATE, data.flags & CtFlag.STATE_ALIAS ? 'state' : 'ctstate', stateText(data.state));
  add(CtFlag.PROTO, 'ctproto', data.proto);
  for (const [side, flag] of SIDES) add(flag, `ct${side}`, address(data.addresses[side]));
  for (const [side, , flag] of SIDES) add(flag, `ct${side}port`, range(data.ports[side], true));
  add(CtFlag.STATUS, 'ctstatus', statusText(data.status));
  add(CtFlag.EXPIRES, 'ctexpire', range(data.expires, false));
  if (data.flags & CtFlag.DIRECTION) out += ` ${dashes}ctdir ${data.invert & CtFlag.DIRECTION ? 'REPLY' : 'ORIGINAL'}`;
  return out;
}

export const conntrack = defineMatch<ConntrackData>({
  name: 'conntrack',
  revision: 3,
  init,
  options: [
    option({
      name: 'ctstate',
      arg: string(),
      invert: true,
      set: (data, words, { invert }) => {
        data.state |= parseList(words, STATES, 'ctstate');
        data.flags |= CtFlag.STATE;
        if (invert) data.invert |= CtFlag.STATE;
      },
    }),
    option({
      name: 'ctproto',
      arg: protocol,
      invert: true,
      set: (data, value, { invert }) => {
        data.proto = value;
        // The tool looks for another flag than it means; the value of that flag is STATUS.
        if (value === 0 && data.invert & CtFlag.STATUS) problem('conntrack: rule would never match protocol');
        data.flags |= CtFlag.PROTO;
        if (invert) data.invert |= CtFlag.PROTO;
      },
    }),
    ...addressOptions,
    option({
      name: 'ctstatus',
      arg: string(),
      invert: true,
      set: (data, words, { invert }) => {
        data.status |= parseList(words, STATUSES, 'ctstatus');
        data.flags |= CtFlag.STATUS;
        if (invert) data.invert |= CtFlag.STATUS;
      },
    }),
    option({
      name: 'ctexpire',
      arg: uint32Range(),
      invert: true,
      set: (data, range, { invert }) => {
        data.expires = [range[0]!, range[1] ?? range[0]!];
        data.flags |= CtFlag.EXPIRES;
        if (invert) data.invert |= CtFlag.EXPIRES;
      },
    }),
    ...portOptions,
    option({
      name: 'ctdir',
      arg: string(),
      set: (data, word) => {
        const direction = word.toUpperCase();
        if (direction !== 'ORIGINAL' && direction !== 'REPLY')
          problem(`conntrack: Bad value for "--ctdir" option: "${word}"`);
        data.flags |= CtFlag.DIRECTION;
        if (direction === 'REPLY') data.invert |= CtFlag.DIRECTION;
        else data.invert &= ~CtFlag.DIRECTION;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('conntrack: At least one option is required');
  },
  save: (data) => text(data, '--', ({ addr, mask }) => formatAddress(addr) + formatMask(mask)),
  print: (data, { numeric, names }) =>
    text(data, '', ({ addr, mask }) => {
      if (numeric) return formatAddress(addr) + formatMask(mask);
      return addr === 0 ? 'anywhere' : anyName(addr, names) + formatMask(mask);
    }),
  alias: (data) => (data.flags & CtFlag.STATE_ALIAS ? 'state' : 'conntrack'),
  help: `conntrack match options:
[!] --ctstate {INVALID|ESTABLISHED|NEW|RELATED|UNTRACKED|SNAT|DNAT}[,...]
                               State(s) to match
[!] --ctproto proto            Protocol to match; by number or name, e.g. "tcp"
[!] --ctorigsrc address[/mask]
[!] --ctorigdst address[/mask]
[!] --ctreplsrc address[/mask]
[!] --ctrepldst address[/mask]
                               Original/Reply source/destination address
[!] --ctorigsrcport port
[!] --ctorigdstport port
[!] --ctreplsrcport port
[!] --ctrepldstport port
                               TCP/UDP/SCTP orig./reply source/destination port
[!] --ctstatus {NONE|EXPECTED|SEEN_REPLY|ASSURED|CONFIRMED}[,...]
                               Status(es) to match
[!] --ctexpire time[:time]     Match remaining lifetime in seconds against
                               value or range of values (inclusive)
    --ctdir {ORIGINAL|REPLY}   Flow direction of packet
`,
  compile: (data, emit) => {
    const flags = data.flags & ~CtFlag.STATE_ALIAS;
    const invert = (data.invert & CtFlag.STATE) !== 0;
    // Asking for the packet's own state alone needs no look at the connection.
    if (flags === CtFlag.STATE && (data.state & (CtState.SNAT | CtState.DNAT)) === 0) {
      emit.test(MatchOp.STATE, encodeState(data.state), invert);
      return;
    }
    const side = (name: Side): SideTest => ({
      address: data.addresses[name].addr,
      mask: data.addresses[name].mask,
      minPort: data.ports[name][0],
      maxPort: data.ports[name][1],
    });
    emit.test(
      MatchOp.CONNTRACK,
      encodeConntrack({
        flags,
        invert: data.invert,
        state: data.state,
        status: data.status,
        protocol: data.proto,
        expires: data.expires,
        sides: [side('origsrc'), side('origdst'), side('replsrc'), side('repldst')],
      }),
    );
  },
});

export const state = defineMatch<ConntrackData>({
  name: 'state',
  realName: 'conntrack',
  revision: 3,
  init,
  options: [
    option({
      name: 'state',
      arg: string(),
      invert: true,
      mandatory: true,
      set: (data, words, { invert }) => {
        data.flags = CtFlag.STATE | CtFlag.STATE_ALIAS;
        data.state = parseList(
          words,
          STATES.slice(0, 5),
          'state',
          '"--state" requires a list of states with no spaces, e.g. ESTABLISHED,RELATED',
        );
        if (invert) data.invert |= CtFlag.STATE;
      },
    }),
  ],
  help: `state match options:
 [!] --state [INVALID|ESTABLISHED|NEW|RELATED|UNTRACKED][,...]
				State(s) to match
`,
});
