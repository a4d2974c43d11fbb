/**
 * IPv4 options (RFC 791 §3.1), judged as the kernel judges them between PREROUTING and its route
 * (net/ipv4/ip_input.c, ip_rcv_options; net/ipv4/ip_options.c, __ip_options_compile).
 */
import { u8 } from './bytes.js';

/** What `optionsProblem` says of a source route (LSRR, SSRR), which is dropped unless accept_source_route is on. */
export const SOURCE_ROUTE = -1;

const END = 0;
const NOOP = 1;
const RECORD_ROUTE = 7;
const TIMESTAMP = 68;
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;
const ROUTER_ALERT = 148;
/** Commercial IP security option: its labels are the kernel's business; it knows none without NetLabel. */
const CIPSO = 134;
const BEFORE_OPTIONS = 20;

/**
 * `b[start, start + headerLength)`: an IP header, present as a whole. 0: nothing is wrong with its options; SOURCE_ROUTE;
 * otherwise the offset from `start` of the byte that is wrong, for "parameter problem".
 */
export function optionsProblem(b: Uint8Array, start: number, headerLength: number): number {
  const end = start + headerLength;
  let sourceRoute = 0;
  let recordRoute = 0;
  let timestamp = 0;
  let cipso = 0;
  for (let at = start + BEFORE_OPTIONS; at < end;) {
    const kind = u8(b, at);
    if (kind === END) break;
    if (kind === NOOP) {
      at++;
      continue;
    }
    const here = at - start;
    if (at + 2 > end) return here;
    const length = u8(b, at + 1);
    if (length < 2 || at + length > end) return here;
    // The pointer counts from 1 at the option's kind.
    const pointer = length > 2 ? u8(b, at + 2) : 0;
    switch (kind) {
      case LOOSE_SOURCE_ROUTE:
      case STRICT_SOURCE_ROUTE:
        if (length < 3) return here + 1;
        if (pointer < 4) return here + 2;
        if (sourceRoute !== 0) return here;
        sourceRoute = 1;
        break;
      case RECORD_ROUTE:
        if (recordRoute !== 0) return here;
        if (length < 3) return here + 1;
        if (pointer < 4 || (pointer <= length && pointer + 3 > length)) return here + 2;
        recordRoute = 1;
        break;
      case TIMESTAMP: {
        if (timestamp !== 0) return here;
        if (length < 4) return here + 1;
        if (pointer < 5) return here + 2;
        const form = u8(b, at + 3) & 15;
        if (pointer <= length) {
          if (pointer + 3 > length) return here + 2;
          if ((form === 1 || form === 3) && pointer + 7 > length) return here + 2;
          if (form === 0 || form === 1 || form === 3) timestamp = 1;
        } else {
          if (u8(b, at + 3) >> 4 === 15) return here + 3;
          timestamp = 1;
        }
        break;
      }
      case ROUTER_ALERT:
        if (length < 4) return here + 1;
        break;
      case CIPSO:
        if (cipso !== 0) return here;
        cipso = 1;
        break;
    }
    at += length;
  }
  return sourceRoute !== 0 ? SOURCE_ROUTE : 0;
}
