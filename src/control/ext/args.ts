/**
 * Argument types of guided options, with the texts of libxtables (XTTYPE_*). Each reads `call.arg` or throws a problem.
 * `about` is for the compatibility table and the tests that demand a row a range end.
 */
import { atonAddress, formatAddress, maskBits, prefixMask, type Network } from '../text/address.js';
import { prefixNumber, scanUnsigned, wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { parseProtocol } from '../protocols.js';
import { portOfName } from '../services.js';
import type { OptionCall } from './record.js';

export interface ArgType<V> {
  /** For people: `0-255`, `port[:port]`, `value[/mask]`. */
  readonly about: string;
  readonly parse: (call: OptionCall<never>) => V;
}

type Call = OptionCall<never>;

/** XTTYPE_UINT8/16/32: one whole number. `min` and `max` narrow the type's range; as in the tool, 0 narrows nothing. */
function unsigned(limit: number) {
  return (min = 0, max = 0): ArgType<number> => {
    const top = max === 0 ? limit : max;
    return {
      about: `${min}-${top}`,
      parse: (call) =>
        wholeNumber(call.arg, min, top) ??
        problem(`${call.extension}: bad value for option "--${call.option}", or out of range (${min}-${top}).\n`),
    };
  };
}
export const uint8 = unsigned(0xff);
export const uint16 = unsigned(0xffff);
export const uint32 = unsigned(0xffffffff);

const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** XTTYPE_UINT64. */
export const uint64 = (min = 0n, max = UINT64_MAX): ArgType<bigint> => ({
  about: `${min}-${max}`,
  parse: (call) => {
    const found = scanUnsigned(call.arg);
    if (!found || found.end !== call.arg.length || found.value < min || found.value > max)
      problem(`${call.extension}: bad value for option "--${call.option}", or out of range (${min}-${max}).\n`);
    return found.value;
  },
});

/** XTTYPE_UINT*RC: up to `most` numbers between colons; an empty first is 0, an empty second the type's maximum. */
function unsignedRange(limit: bigint) {
  return (most = 2): ArgType<bigint[]> => ({
    about: most === 1 ? `0-${limit}` : `0-${limit}[:0-${limit}]`,
    parse: (call) => {
      const values: bigint[] = [];
      let rest = call.arg;
      for (;;) {
        if (values.length === most)
          problem(`${call.extension}: Too many components for option "--${call.option}" (max: ${most})\n`);
        let end = 0;
        if (rest === '' || rest.startsWith(':')) {
          values.push(values.length === 1 ? limit : 0n);
        } else {
          const found = scanUnsigned(rest);
          if (!found || found.value > limit)
            problem(
              `${call.extension}: bad value for option "--${call.option}" near "${rest}", or out of range (0-${limit}).\n`,
            );
          end = found.end;
          if (end < rest.length && rest[end] !== ':')
            problem(
              `${call.extension}: Argument to "--${call.option}" has unexpected characters near "${rest.slice(end)}".\n`,
            );
          values.push(found.value);
        }
        if (end >= rest.length) return values;
        rest = rest.slice(end + 1);
      }
    },
  });
}
const asNumbers =
  (make: (most?: number) => ArgType<bigint[]>) =>
  (most?: number): ArgType<number[]> => {
    const type = make(most);
    return { about: type.about, parse: (call) => type.parse(call).map(Number) };
  };
export const uint16Range = asNumbers(unsignedRange(0xffffn));
export const uint32Range = asNumbers(unsignedRange(0xffffffffn));
export const uint64Range = unsignedRange(UINT64_MAX);

/** strtod(3) of the whole text: decimal, or hexadecimal with a binary exponent. NaN where it is neither. */
function looseDouble(arg: string): number {
  const text = arg.replace(/^[ \t-\r]+/, '');
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) return Number(text);
  const hex = /^([+-]?)0x([\da-f]*)\.?([\da-f]*)(?:p([+-]?\d+))?$/i.exec(text);
  if (!hex || hex[2] + hex[3]! === '') return NaN;
  const digits = parseInt(hex[2] + hex[3]!, 16) * 2 ** (Number(hex[4] ?? 0) - 4 * hex[3]!.length);
  return hex[1] === '-' ? -digits : digits;
}

/** XTTYPE_DOUBLE. */
export const double = (min = 0, max = 0): ArgType<number> => ({
  about: min === max ? 'number' : `${min}-${max}`,
  parse: (call) => {
    const value = looseDouble(call.arg);
    if (Number.isNaN(value) || (min !== max && (value < min || value > max)))
      problem(`${call.extension}: bad value for option "--${call.option}", or out of range (${min}-${max}).\n`);
    return value;
  },
});

/** XTTYPE_STRING. With `size`, longer texts are cut to size − 1 bytes, silently, as the tool does. */
export const string = (limits: { min?: number; max?: number; size?: number } = {}): ArgType<string> => ({
  about: 'text',
  parse: (call) => {
    const { min = 0, max = 0, size = 0 } = limits;
    if (min !== 0 && call.arg.length < min) problem(`Argument must have a minimum length of ${min} characters\n`);
    if (max !== 0 && call.arg.length > max) problem(`Argument must have a maximum length of ${max} characters\n`);
    return size === 0 ? call.arg : call.arg.slice(0, size - 1);
  },
});

/** value[/mask], both uint32; the mask's default is all ones. As int32. (xtables_parse_mark_mask) */
export const markMask: ArgType<{ value: number; mask: number }> = {
  about: 'value[/mask]',
  parse: (call) => parseValueMask(call),
};

/** xtables_parse_val_mask; `byName` gives values to names (iproute2's tables, connlabel.conf). */
export function parseValueMask(
  call: Call,
  byName?: (name: string) => number | undefined,
): { value: number; mask: number } {
  const { arg } = call;
  const named = (): { value: number; mask: number } => ({
    value:
      byName!(arg) ??
      problem(`${call.extension}: could not map name ${arg} to an integer value for option "--${call.option}".\n`),
    mask: -1,
  });
  const bad = (): never =>
    problem(`${call.extension}: bad integer value for option "--${call.option}", or out of range.\n`);
  const garbage = (): never =>
    problem(`${call.extension}: trailing garbage after value for option "--${call.option}".\n`);
  const value = prefixNumber(arg);
  if (!value) return byName ? named() : bad();
  if (value.end === arg.length) return { value: value.value | 0, mask: -1 };
  if (arg[value.end] !== '/') return byName ? named() : garbage();
  const mask = prefixNumber(arg.slice(value.end + 1)) ?? bad();
  if (value.end + 1 + mask.end !== arg.length) garbage();
  return { value: value.value | 0, mask: mask.value | 0 };
}

const LEVELS: Readonly<Record<string, number>> = {
  emerg: 0,
  panic: 0,
  alert: 1,
  crit: 2,
  error: 3,
  warning: 4,
  notice: 5,
  info: 6,
  debug: 7,
};
/** XTTYPE_SYSLOGLEVEL. */
export const syslogLevel: ArgType<number> = {
  about: '0-7 or a name of syslog(3)',
  parse: (call) =>
    wholeNumber(call.arg, 0, 7) ??
    (Object.hasOwn(LEVELS, call.arg) ? LEVELS[call.arg] : undefined) ??
    problem(`log level "${call.arg}" unknown\n`),
};

export const TOS_NAMES: readonly (readonly [number, string])[] = [
  [0x10, 'Minimize-Delay'],
  [0x08, 'Maximize-Throughput'],
  [0x04, 'Maximize-Reliability'],
  [0x02, 'Minimize-Cost'],
  [0x00, 'Normal-Service'],
];
/** XTTYPE_TOSMASK: value[/mask] in 0..255, or a name, which brings `nameMask`. */
export const tosMask = (nameMask: number): ArgType<{ value: number; mask: number }> => ({
  about: 'value[/mask] or a TOS name',
  parse: (call) => {
    const { arg } = call;
    const value = prefixNumber(arg, 0, 255);
    if (!value) {
      const named = TOS_NAMES.find(([, name]) => name.toLowerCase() === arg.toLowerCase());
      if (!named) problem(`Symbolic name "${arg}" is unknown`);
      return { value: named[0], mask: nameMask };
    }
    if (value.end === arg.length) return { value: value.value, mask: 255 };
    const mask = arg[value.end] === '/' ? wholeNumber(arg.slice(value.end + 1), 0, 255) : undefined;
    if (mask === undefined) problem(`Illegal value: "${arg}"`);
    return { value: value.value, mask };
  },
});

function hostOf(call: Call, text: string): number {
  const found = atonAddress(text);
  if (found !== undefined) return found;
  const addresses = text === '' ? 'Name or service not known' : call.names.host(text);
  if (typeof addresses === 'string') problem(`getaddrinfo: ${addresses}\n`);
  if (addresses.some((a) => a !== addresses[0])) problem(`${text} resolves to more than one address\n`);
  return addresses[0]!;
}

/** XTTYPE_HOST: an address or a name with a single address. int32. */
export const host: ArgType<number> = { about: 'address or name', parse: (call) => hostOf(call, call.arg) };

function plen(call: Call, text: string): { bits: number; mask: number } {
  const bits = wholeNumber(text, 0, 32);
  if (bits !== undefined) return { bits, mask: prefixMask(bits) };
  const mask = atonAddress(text);
  if (mask === undefined)
    problem(
      `${call.extension}: bad value for option "--${call.option}", neither a valid network mask nor valid CIDR (0-32).\n`,
    );
  // The tool keeps the length only and makes the mask from it: a mask with holes becomes −1, that is 255 = all ones.
  const length = maskBits(mask);
  return length < 0 ? { bits: 255, mask: -1 } : { bits: length, mask: prefixMask(length) };
}

/** XTTYPE_PLEN: prefix length. */
export const prefixLength: ArgType<number> = { about: '0-32 or a mask', parse: (call) => plen(call, call.arg).bits };
/** XTTYPE_PLENMASK: mask from a prefix length (or a dotted one). int32. */
export const prefixLengthMask: ArgType<number> = {
  about: '0-32 or a mask',
  parse: (call) => plen(call, call.arg).mask,
};
/** XTTYPE_HOSTMASK: host[/prefix or mask]. The address is not masked. */
export const hostMask: ArgType<Network> = {
  about: 'address[/mask]',
  parse: (call) => {
    const slash = call.arg.indexOf('/');
    if (slash < 0) return { addr: hostOf(call, call.arg), mask: -1 };
    return { addr: hostOf(call, call.arg.slice(0, slash)), mask: plen(call, call.arg.slice(slash + 1)).mask };
  },
};

/** XTTYPE_PROTOCOL: number or name. */
export const protocol: ArgType<number> = { about: 'protocol number or name', parse: (call) => parseProtocol(call.arg) };

/** A port as getaddrinfo reads it: decimal only (the low 16 bits of it), or a service of any protocol. */
function portOf(text: string): number {
  const found = /^[ \t-\r]*\+?(\d+)$/.exec(text);
  const port = found ? Number(BigInt(found[1]!) & 0xffffn) : portOfName(text);
  return port ?? problem(`Port "${text}" does not resolve to anything.\n`);
}

/** XTTYPE_PORT. */
export const port: ArgType<number> = { about: 'port', parse: (call) => portOf(call.arg) };

/** XTTYPE_PORTRC: port[:port]; an empty one is 0 or 65535. The order of the two is not looked at. */
export const portRange: ArgType<[number, number]> = {
  about: 'port[:port]',
  parse: (call) => {
    const range: [number, number] = [0, 0xffff];
    const parts = call.arg.split(':');
    parts.forEach((part, i) => {
      if (i === 2) problem(`${call.extension}: Too many components for option "--${call.option}" (max: 2)\n`);
      if (part !== '') range[i] = portOf(part);
    });
    if (parts.length === 1) range[1] = range[0];
    return range;
  },
};

/** XTTYPE_ETHERMAC: six bytes. */
export const etherMac: ArgType<readonly number[]> = {
  about: 'xx:xx:xx:xx:xx:xx',
  parse: (call) => {
    const parts = call.arg.split(':');
    if (parts.length !== 6 || !parts.every((part) => /^[0-9a-fA-F]{0,2}$/.test(part)))
      problem('Invalid MAC address specified.');
    return parts.map((part) => (part === '' ? 0 : parseInt(part, 16)));
  },
};

/** Complains of a value as several extensions do (xtables_param_act, XTF_BAD_VALUE). `option` with its dashes. */
export const badValue = (extension: string, option: string, text: string): never =>
  problem(`${extension}: Bad value for "${option}" option: "${text}"`);

// ---- words that several extensions print ----

/** xtables_print_val_mask: ` 0x1` or ` 0x1/0xff`. */
export function formatValueMask(value: number, mask: number): string {
  const low = `0x${(value >>> 0).toString(16)}`;
  return mask === -1 ? ` ${low}` : ` ${low}/0x${(mask >>> 0).toString(16)}`;
}

/** xtables_save_string: a blank, and quotes with escapes where the text needs them. */
export function formatString(text: string): string {
  return /^[-_0-9a-zA-Z]+$/.test(text) ? ` ${text}` : ` "${text.replace(/["\\']/g, '\\$&')}"`;
}

/** ` !` before a negated option. */
export const bang = (invert: boolean): string => (invert ? ' !' : '');

export { formatAddress };
