/**
 * What a router writes into the options of a packet that it passes on (RFC 791 §3.1; net/ipv4/ip_options.c,
 * __ip_options_compile and ip_forward_options): its address into a record route, the time into a timestamp. The options
 * have been read before (wire/options.ts): lengths and pointers are right.
 */
import type { Packet } from '../packet.js';
import { setU16, setU32, setU8, u32, u8 } from '../wire/bytes.js';
import { headerChecksum } from '../wire/checksum.js';

const FIRST_OPTION = 20;
const END = 0;
const NOOP = 1;
const RECORD_ROUTE = 7;
const TIMESTAMP = 68;
/** Low half of a timestamp's fourth byte: time alone, address and time, time at addresses that the sender named. */
const TIME_ONLY = 0;
const WITH_ADDRESS = 1;
const PRESPECIFIED = 3;
const DAY_MS = 86_400_000;

/**
 * `out`: the router's address on the way out; `back`: that towards the sender; `isOwn` says of an address whether it is
 * the router's; `wallMs`: milliseconds since 1970, UTC.
 */
export function passOptions(
  p: Packet,
  out: number,
  back: number,
  isOwn: { isOwn(address: number): boolean },
  wallMs: number,
): void {
  const b = p.bytes;
  const end = p.start + p.headerLength;
  const time = (wallMs % DAY_MS) | 0;
  for (let at = p.start + FIRST_OPTION; at < end;) {
    const kind = u8(b, at);
    if (kind === END) break;
    if (kind === NOOP) {
      at++;
      continue;
    }
    const length = u8(b, at + 1);
    const pointer = u8(b, at + 2);
    const slot = at + pointer - 1;
    if (kind === RECORD_ROUTE && pointer <= length) {
      setU32(b, slot, out);
      setU8(b, at + 2, pointer + 4);
    } else if (kind === TIMESTAMP) {
      const form = u8(b, at + 3) & 15;
      if (pointer > length) setU8(b, at + 3, u8(b, at + 3) + 16);
      else if (form === TIME_ONLY) {
        setU32(b, slot, time);
        setU8(b, at + 2, pointer + 4);
      } else if (form === WITH_ADDRESS) {
        setU32(b, slot, back);
        setU32(b, slot + 4, time);
        setU8(b, at + 2, pointer + 8);
      } else if (form === PRESPECIFIED && isOwn.isOwn(u32(b, slot))) {
        setU32(b, slot + 4, time);
        setU8(b, at + 2, pointer + 8);
      }
    }
    at += length;
  }
  setU16(b, p.start + 10, headerChecksum(b, p.start, p.headerLength));
  p.changed = 1;
}
