/**
 * -m set and -j SET: addresses in a set of ipset(8), and into and out of it. Both read their own options. (libxt_set.c
 * revision 4, libxt_SET.c revision 3, xt_set.c)
 */
import { elementRequest, SetCommand, type SetType } from '../../dataplane/io/ipset.js';
import {
  type Attribute,
  attributeBytes,
  be32,
  NLA_F_NESTED,
  NLA_F_NET_BYTEORDER,
  NLA_HEADER,
  padded,
} from '../../dataplane/io/netlink.js';
import { Hook } from '../../dataplane/names.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { encodeSet, SetField, type SetHole } from '../../dataplane/program/set.js';
import { scanUnsigned, wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import {
  type CompileContext,
  defineMatch,
  defineTarget,
  type Names,
  option,
  type Option,
  type OptionCall,
} from './record.js';

type Comparison = { how: 'eq' | 'ne' | 'lt' | 'gt'; value: bigint } | null;

export interface SetData {
  name: string;
  invert: boolean;
  /** Which address or port each dimension looks at. */
  dimensions: ('src' | 'dst')[];
  returnNoMatch: boolean;
  keepCounters: boolean;
  keepSubCounters: boolean;
  packets: Comparison;
  bytes: Comparison;
}

const MAX_NAME = 31;
const MAX_DIMENSIONS = 6;

/** IPSET_ATTR_* of an element (include/uapi/linux/netfilter/ipset/ip_set.h). */
const enum Element {
  IP = 1,
  PORT = 4,
  TIMEOUT = 6,
  PROTO = 7,
  CADT_FLAGS = 8,
  MARK = 10,
  ETHER = 17,
  IP2 = 20,
  IFACE = 23,
}
const IPADDR_IPV4 = 1;
const FLAG_NOMATCH = 4;
const AF_INET6 = 10;

type Side = 'src' | 'dst';

/** Why a rule can't be about a set, as the tool says it; undefined if it can. */
export function setProblem(name: string, type: SetType | undefined): string | undefined {
  if (type === undefined) return `Set ${name} doesn't exist.\n`;
  return type.family === AF_INET6
    ? `The protocol family of set ${name} is IPv6, which is not applicable.\n`
    : undefined;
}

/** What a rule asks of a set: words for the data plane. */
function compileEntry(
  command: SetCommand,
  { name, dimensions }: { name: string; dimensions: Side[] },
  more: { flags?: number; timeout?: number | null; exist?: boolean },
  { setType, fail }: CompileContext,
): number[] {
  const type = setType(name);
  if (type === undefined || type.family === AF_INET6) return fail(setProblem(name, type)!.trim());
  const [family = '', kinds = ''] = type.name.split(':');
  if (family === 'list') fail(`${name} is a list of sets, into which hutter doesn't look: name its members`);
  const wanted = kinds.split(',');
  if (command === SetCommand.ADD && wanted.includes('net'))
    fail(`${name} holds networks, to which a packet's address can't be added from here`);
  const never = wanted.length > dimensions.length;
  const data: Attribute[] = [];
  const holes: SetHole[] = [];
  let length = 0;
  const put = (attribute: number, value: ArrayLike<number>, field?: SetField, inside = 0): void => {
    if (field !== undefined) holes.push({ field, at: length + NLA_HEADER + inside });
    data.push([attribute, value]);
    length += padded(NLA_HEADER + value.length);
  };
  wanted.slice(0, dimensions.length).forEach((kind, i) => {
    const source = dimensions[i] === 'src';
    switch (kind) {
      case 'ip':
      case 'net': {
        const first = !wanted.slice(0, i).some((each) => each === 'ip' || each === 'net');
        const address = attributeBytes([[IPADDR_IPV4 | NLA_F_NET_BYTEORDER, be32(0)]]);
        const field = source ? SetField.SRC : SetField.DST;
        put((first ? Element.IP : Element.IP2) | NLA_F_NESTED, address, field, NLA_HEADER);
        break;
      }
      case 'port':
        if (family === 'bitmap')
          put(Element.PORT | NLA_F_NET_BYTEORDER, [0, 0], source ? SetField.SPORT_ONLY : SetField.DPORT_ONLY);
        else {
          put(Element.PORT | NLA_F_NET_BYTEORDER, [0, 0], source ? SetField.SPORT : SetField.DPORT);
          put(Element.PROTO, [0], SetField.PROTOCOL);
        }
        break;
      case 'iface':
        put(Element.IFACE, new Uint8Array(IFACE_BYTES), source ? SetField.IN : SetField.OUT);
        break;
      case 'mark':
        put(Element.MARK | NLA_F_NET_BYTEORDER, be32(0), SetField.MARK);
        break;
      case 'mac':
        if (!source) fail(`${name} holds hardware addresses, and the queue tells a packet's source's only`);
        put(Element.ETHER, new Uint8Array(ETHER_BYTES), SetField.MAC);
        break;
      default:
        fail(`sets of the type ${type.name} are not known`);
    }
  });
  if (more.timeout !== undefined && more.timeout !== null)
    put(Element.TIMEOUT | NLA_F_NET_BYTEORDER, be32(more.timeout));
  if (more.flags) put(Element.CADT_FLAGS | NLA_F_NET_BYTEORDER, be32(more.flags));
  const request = elementRequest(command, name, data, more.exist ?? false);
  const from = request.length - length;
  return encodeSet(
    request,
    holes.map(({ field, at }) => ({ field, at: from + at })),
    never,
  );
}
const IFACE_BYTES = 16;
const ETHER_BYTES = 6;

/** A list of src and dst; what follows the first three letters is not looked at. */
function parseDimensions(text: string): ('src' | 'dst')[] {
  const words = text.split(',');
  const found = words.slice(0, MAX_DIMENSIONS).map((word) => {
    const side = word.slice(0, 3);
    return side === 'src' || side === 'dst'
      ? side
      : problem("You must spefify (the comma separated list of) 'src' or 'dst'.");
  });
  if (words.length > MAX_DIMENSIONS) problem(`Can't be more src/dst options than ${MAX_DIMENSIONS}.`);
  return found;
}

/** The set's name, as its option's argument. */
function setName(name: string, { names }: { names: Names }): string {
  if (name.length > MAX_NAME) problem(`setname \`${name}' too long, max ${MAX_NAME} characters.`);
  const reason = names.setProblem?.(name);
  if (reason !== undefined) problem(reason);
  return name;
}

const counterOption = (counter: 'packets' | 'bytes', how: 'eq' | 'lt' | 'gt'): Option<SetData> =>
  option<SetData, string>({
    name: `${counter}-${how}`,
    arg: string(),
    invert: true,
    set: (data, text, { invert }) => {
      if (data[counter] !== null) problem(`only one of the --${counter}-[eq|lt|gt] is allowed`);
      if (invert && how !== 'eq') problem(`--${counter}-${how} option cannot be inverted`);
      const found = scanUnsigned(text);
      if (!found || found.end !== text.length) problem(`Cannot parse ${text} as a counter value`);
      data[counter] = { how: invert ? 'ne' : how, value: found.value };
    },
  });

function match(data: SetData, name: string, call: OptionCall<SetData>): void {
  const { invert, nextWord } = call;
  if (data.dimensions.length > 0) problem('--match-set can be specified only once');
  const sides = nextWord() ?? problem('--match-set requires two args.');
  data.name = setName(name, call);
  data.dimensions = parseDimensions(sides);
  if (invert) data.invert = true;
}

function counterText(comparison: Comparison, name: string, dashes: string): string {
  if (comparison === null) return '';
  const { how, value } = comparison;
  return `${bang(how === 'ne')} ${dashes}${name}-${how === 'ne' ? 'eq' : how} ${value}`;
}

const text = (data: SetData, dashes: string): string =>
  `${bang(data.invert)} ${dashes}match-set ${data.name} ${data.dimensions.join(',')}` +
  (data.returnNoMatch ? ` ${dashes}return-nomatch` : '') +
  (data.keepCounters ? ` ! ${dashes}update-counters` : '') +
  (data.keepSubCounters ? ` ! ${dashes}update-subcounters` : '') +
  counterText(data.packets, 'packets', dashes) +
  counterText(data.bytes, 'bytes', dashes);

export const set = defineMatch<SetData>({
  name: 'set',
  revision: 4,
  plain: true,
  init: () => ({
    name: '',
    invert: false,
    dimensions: [],
    returnNoMatch: false,
    keepCounters: false,
    keepSubCounters: false,
    packets: null,
    bytes: null,
  }),
  options: [
    option({ name: 'match-set', arg: string(), invert: true, set: match }),
    option({
      name: 'set',
      arg: string(),
      invert: true,
      set: (data, name, call) => {
        call.warn('--set option deprecated, please use --match-set\n');
        match(data, name, call);
      },
    }),
    option({
      name: 'return-nomatch',
      invert: true,
      set: (data, _value, { invert }) => {
        if (invert) problem('--return-nomatch flag cannot be inverted');
        data.returnNoMatch = true;
      },
    }),
    option({
      name: 'update-counters',
      invert: true,
      set: (data, _value, { invert }) => {
        if (invert) data.keepCounters = true;
      },
    }),
    ...(['packets', 'bytes'] as const).flatMap((counter) =>
      (['eq', 'lt', 'gt'] as const).map((how) => counterOption(counter, how)),
    ),
    option({
      name: 'update-subcounters',
      invert: true,
      set: (data, _value, { invert }) => {
        if (invert) data.keepSubCounters = true;
      },
    }),
  ],
  finalCheck: (data) => {
    if (data.dimensions.length === 0) problem("You must specify `--match-set' with proper arguments");
  },
  save: (data) => text(data, '--'),
  print: (data) => text(data, ''),
  help: `set match options:
 [!] --match-set name flags [--return-nomatch]
   [! --update-counters] [! --update-subcounters]
   [[!] --packets-eq value | --packets-lt value | --packets-gt value
   [[!] --bytes-eq value | --bytes-lt value | --bytes-gt value
		 'name' is the set name from to match,
		 'flags' are the comma separated list of
		 'src' and 'dst' specifications.
`,
  cannot: ({ packets, bytes }) =>
    packets !== null || bytes !== null ? "an element's counters are not told by the kernel" : undefined,
  compile: (data, emit, context) => {
    const flags = data.returnNoMatch ? FLAG_NOMATCH : 0;
    emit.test(MatchOp.SET, compileEntry(SetCommand.TEST, data, { flags, exist: true }, context), data.invert);
  },
});

/** A set and what is looked up in it. */
type Entry = { name: string; dimensions: ('src' | 'dst')[] } | null;

export interface SetTargetData {
  add: Entry;
  delete: Entry;
  map: Entry;
  exist: boolean;
  /** Seconds, uint32; null: the set's own. */
  timeout: number | null;
  mapMark: boolean;
  mapPriority: boolean;
  mapQueue: boolean;
}

const UINT32_MAX = 0xffffffff;

const setOption = (name: string, key: 'add' | 'delete' | 'map'): Option<SetTargetData> =>
  option<SetTargetData, string>({
    name,
    arg: string(),
    invert: true,
    set: (data, set, call) => {
      if (data[key] !== null) problem(`--${name} can be specified only once`);
      const sides = call.nextWord() ?? problem(`--${name} requires two args.`);
      data[key] = { name: setName(set, call), dimensions: parseDimensions(sides) };
    },
  });

const flagOption = (name: string, key: 'exist' | 'mapMark' | 'mapPriority' | 'mapQueue'): Option<SetTargetData> =>
  option<SetTargetData>({
    name,
    invert: true,
    set: (data) => {
      data[key] = true;
    },
  });

const entryText = (word: string, entry: Entry): string =>
  entry === null ? '' : ` ${word} ${entry.name} ${entry.dimensions.join(',')}`;

const targetText = (data: SetTargetData, dashes: string): string =>
  entryText(`${dashes}add-set`, data.add) +
  (data.exist ? ` ${dashes}exist` : '') +
  (data.timeout === null ? '' : ` ${dashes}timeout ${data.timeout}`) +
  entryText(`${dashes}del-set`, data.delete) +
  entryText(`${dashes}map-set`, data.map) +
  (data.mapMark ? ` ${dashes}map-mark` : '') +
  (data.mapPriority ? ` ${dashes}map-prio` : '') +
  (data.mapQueue ? ` ${dashes}map-queue` : '');

export const SET = defineTarget<SetTargetData>({
  name: 'SET',
  revision: 3,
  plain: true,
  init: () => ({
    add: null,
    delete: null,
    map: null,
    exist: false,
    timeout: null,
    mapMark: false,
    mapPriority: false,
    mapQueue: false,
  }),
  options: [
    setOption('add-set', 'add'),
    setOption('del-set', 'delete'),
    flagOption('exist', 'exist'),
    option({
      name: 'timeout',
      arg: string(),
      invert: true,
      set: (data, text) => {
        data.timeout =
          wholeNumber(text, 0, UINT32_MAX - 1) ??
          problem(`Invalid value for option --timeout or out of range 0-${UINT32_MAX - 1}`);
      },
    }),
    setOption('map-set', 'map'),
    flagOption('map-mark', 'mapMark'),
    flagOption('map-prio', 'mapPriority'),
    flagOption('map-queue', 'mapQueue'),
  ],
  finalCheck: ({ add, map, ...data }) => {
    if (add === null && data.delete === null && map === null)
      problem("You must specify either `--add-set' or `--del-set' or `--map-set'");
    if (add === null && data.exist) problem("Flag `--exist' can be used with `--add-set' only");
    if (add === null && data.timeout !== null) problem("Option `--timeout' can be used with `--add-set' only");
    if (map === null && data.mapMark) problem("Flag `--map-mark' can be used with `--map-set' only");
    if (map === null && data.mapPriority) problem("Flag `--map-prio' can be used with `--map-set' only");
    if (map === null && data.mapQueue) problem("Flag `--map-queue' can be used with `--map-set' only");
    if (map !== null && !data.mapMark && !data.mapPriority && !data.mapQueue)
      problem("You must specify flags `--map-mark' or '--map-prio` or `--map-queue'");
  },
  save: (data) => targetText(data, '--'),
  print: (data) => targetText(data, ''),
  help: `SET target options:
 --add-set name flags [--exist] [--timeout n]
 --del-set name flags
 --map-set name flags [--map-mark] [--map-prio] [--map-queue]
		add/del src/dst IP/port from/to named sets,
		where flags are the comma separated list of
		'src' and 'dst' specifications.
`,
  check: ({ map, mapPriority, mapQueue }, { table, hooks }) => {
    if (map === null) return undefined;
    if (table !== 'mangle') return { errno: 'EINVAL', reason: 'SET: --map-set is only usable in the mangle table' };
    const late = (1 << Hook.FORWARD) | (1 << Hook.OUTPUT) | (1 << Hook.POSTROUTING);
    if ((mapPriority || mapQueue) && (hooks & late) === 0)
      return {
        errno: 'EINVAL',
        reason: 'SET: --map-prio and --map-queue are only usable from FORWARD, OUTPUT, POSTROUTING',
      };
    return undefined;
  },
  cannot: ({ map }) => (map === null ? undefined : 'what a set maps an element to is not told by the kernel'),
  compile: (data, emit, context) => {
    const { add, delete: remove, timeout, exist } = data;
    const requests = [
      ...(add ? [compileEntry(SetCommand.ADD, add, { timeout, exist }, context)] : []),
      ...(remove ? [compileEntry(SetCommand.DEL, remove, { exist: true }, context)] : []),
    ];
    emit.target(TargetOp.SET, [requests.length, ...requests.flat()]);
  },
});
