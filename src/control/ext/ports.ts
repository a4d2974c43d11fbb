/** Port ranges as the tcp, udp and like matches read, print and check them. A range is [min, max]. */
import { nameOfPort, portOfName } from '../services.js';
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, portRange, string } from './args.js';
import { option, type Option } from './record.js';

/** Any port. */
export const ALL_PORTS = 0xffff;
export const isAllPorts = ([min, max]: readonly [number, number]): boolean => min === 0 && max === ALL_PORTS;

/** `1:2`; `1` for one port. */
export const portText = ([min, max]: readonly [number, number]): string => (min === max ? `${min}` : `${min}:${max}`);

/** ` ! --sport 1:2`; nothing for the whole range. */
export function savePorts(option: string, range: readonly [number, number], invert: boolean): string {
  if (isAllPorts(range)) return '';
  return `${bang(invert)} --${option} ${portText(range)}`;
}

/** A port as -L shows it. */
export const printPort = (port: number, protocol: string, numeric: boolean): string =>
  (numeric ? undefined : nameOfPort(port, protocol)) ?? String(port);

/** ` dpt:22`, ` dpts:!1:2`. */
export function printPorts(
  name: string,
  range: readonly [number, number],
  invert: boolean,
  protocol: string,
  numeric: boolean,
): string {
  if (isAllPorts(range) && !invert) return '';
  const [min, max] = range;
  const not = invert ? '!' : '';
  const first = printPort(min, protocol, numeric);
  return min === max ? ` ${name}:${not}${first}` : ` ${name}s:${not}${first}:${printPort(max, protocol, numeric)}`;
}

/** xtables_parse_port: a number in any base, or a service of the protocol. */
export const parsePort = (text: string, protocol: string): number =>
  wholeNumber(text, 0, 0xffff) ?? portOfName(text, protocol) ?? problem(`invalid port/service \`${text}' specified`);

/** port[:port] with the order checked. */
function parsePorts(text: string, protocol: string): [number, number] {
  const colon = text.indexOf(':');
  if (colon < 0) {
    const port = parsePort(text, protocol);
    return [port, port];
  }
  const [low, high] = [text.slice(0, colon), text.slice(colon + 1)];
  const range: [number, number] = [
    low === '' ? 0 : parsePort(low, protocol),
    high === '' ? ALL_PORTS : parsePort(high, protocol),
  ];
  if (range[0] > range[1]) problem('invalid portrange (min > max)');
  return range;
}

const SIDES = [
  ['source-port', 'sport'],
  ['destination-port', 'dport'],
] as const;
type Side = (typeof SIDES)[number][1];
type SetPorts<D> = (data: D, side: Side, range: [number, number], invert: boolean) => void;

/** --source-port and --destination-port. */
export const portOptions = <D>(set: SetPorts<D>): Option<D>[] =>
  SIDES.map(([name, side]) =>
    option<D, [number, number]>({
      name,
      aliases: [side],
      arg: portRange,
      invert: true,
      set: (data, range, { invert }) => {
        set(data, side, range, invert);
      },
    }),
  );

/** The same of matches that read their own options, with their texts. */
export const plainPortOptions = <D>(protocol: string, set: SetPorts<D>): Option<D>[] =>
  SIDES.map(([name, side]) =>
    option<D, string>({
      name,
      aliases: [side],
      arg: string(),
      invert: true,
      set: (data, text, { invert, seen }) => {
        if (seen.has(name)) problem(`Only one \`--${name}' allowed`);
        set(data, side, parsePorts(text, protocol), invert);
      },
    }),
  );
