/**
 * IPv4 options (RFC 791 §3.1), judged as the kernel judges them between PREROUTING and its route
 * (net/ipv4/ip_input.c, ip_rcv_options; net/ipv4/ip_options.c, __ip_options_compile).
 */
import { u8 } from './bytes.js';

/** What the kernel does with a packet for its options. */
export const enum OptionsFate {
  /** Routes it. */
  PASS = 0,
  /** Answers "parameter problem" and drops it. */
  MALFORMED = 1,
  /** A source route (LSRR, SSRR), which it drops unless accept_source_route says otherwise. */
  SOURCE_ROUTE = 2,
}

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

/** `b[start, end)`: an IP header of `headerLength` bytes, present as a whole. */
export function optionsFate(b: Uint8Array, start: number, headerLength: number): OptionsFate {
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
    if (at + 2 > end) return OptionsFate.MALFORMED;
    const length = u8(b, at + 1);
    if (length < 2 || at + length > end) return OptionsFate.MALFORMED;
    // The pointer counts from 1 at the option's kind.
    const pointer = length > 2 ? u8(b, at + 2) : 0;
    switch (kind) {
      case LOOSE_SOURCE_ROUTE:
      case STRICT_SOURCE_ROUTE:
        if (length < 3 || pointer < 4 || sourceRoute !== 0) return OptionsFate.MALFORMED;
        sourceRoute = 1;
        break;
      case RECORD_ROUTE:
        if (length < 3 || pointer < 4 || recordRoute !== 0) return OptionsFate.MALFORMED;
        if (pointer <= length && pointer + 3 > length) return OptionsFate.MALFORMED;
        recordRoute = 1;
        break;
      case TIMESTAMP: {
        if (length < 4 || pointer < 5 || timestamp !== 0) return OptionsFate.MALFORMED;
        const form = u8(b, at + 3) & 15;
        if (pointer <= length) {
          if (pointer + 3 > length) return OptionsFate.MALFORMED;
          if ((form === 1 || form === 3) && pointer + 7 > length) return OptionsFate.MALFORMED;
          if (form === 0 || form === 1 || form === 3) timestamp = 1;
        } else {
          if (u8(b, at + 3) >> 4 === 15) return OptionsFate.MALFORMED;
          timestamp = 1;
        }
        break;
      }
      case ROUTER_ALERT:
        if (length < 4) return OptionsFate.MALFORMED;
        break;
      case CIPSO:
        if (cipso !== 0) return OptionsFate.MALFORMED;
        cipso = 1;
        break;
    }
    at += length;
  }
  return sourceRoute !== 0 ? OptionsFate.SOURCE_ROUTE : OptionsFate.PASS;
}
