/** Port ranges as the tcp, udp and like matches print and check them. A range is [min, max]. */
import { nameOfPort } from '../services.js';
import { bang } from './args.js';

/** Any port. */
export const ALL_PORTS = 0xffff;
export const isAllPorts = ([min, max]: readonly [number, number]): boolean => min === 0 && max === ALL_PORTS;

/** ` ! --sport 1:2`; nothing for the whole range. */
export function savePorts(option: string, range: readonly [number, number], invert: boolean): string {
  if (isAllPorts(range)) return '';
  const [min, max] = range;
  return `${bang(invert)} --${option} ${min === max ? min : `${min}:${max}`}`;
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
