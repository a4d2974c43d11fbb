/**
 * Cutting a packet that is longer than the way out takes (net/ipv4/ip_output.c, ip_do_fragment). A packet that came in
 * fragments leaves in the same ones where they fit. Options that are not to be copied stand in the first fragment only
 * and are no-operations in the others (RFC 791 §3.1; ip_options_fragment). One object a worker.
 */
import { setU16, setU8, u16, u8 } from '../wire/bytes.js';
import { sealHeader } from '../wire/checksum.js';

const FIRST_OPTION = 20;
const END_OF_OPTIONS = 0;
const NO_OPERATION = 1;
const COPIED = 0x80;
const MORE_FRAGMENTS = 0x2000;
const DONT_FRAGMENT = 0x4000;
const OFFSET = 0x1fff;

/** Cuts one packet after the other: `begin`, then `next` until it says false. */
export class Fragmenter {
  /** The fragment lies in out[0, length). */
  readonly out = new Uint8Array(65_536);
  length = 0;

  private bytes: Uint8Array = this.out;
  private payload = 0;
  private header = 0;
  private total = 0;
  private room = 0;
  private flags = 0;
  private more = 0;
  private cuts: Int32Array | undefined;
  private cut = 0;
  private at = 0;

  /**
   * The packet bytes[start, end), its transport checksum finished, shall leave in pieces of at most `mtu` bytes (68 or
   * more). `keepDontFragment`: the pieces have DF as it has. `cuts`: payload offsets to cut it at, if the pieces fit.
   */
  begin(
    bytes: Uint8Array,
    start: number,
    end: number,
    mtu: number,
    keepDontFragment: boolean,
    cuts: Int32Array,
    cutCount: number,
  ): void {
    const header = (u8(bytes, start) & 15) << 2;
    const field = u16(bytes, start + 6);
    this.bytes = bytes;
    this.header = header;
    this.payload = start + header;
    this.total = end - this.payload;
    this.room = (mtu - header) & ~7;
    // The last piece needn't be a multiple of 8.
    if (this.total <= mtu - header) this.room = this.total;
    this.cuts = fits(cuts, cutCount, this.total, mtu - header) ? cuts : undefined;
    // The kernel's way of sending the same pieces again forgets DF (ip_fraglist_prepare).
    this.flags = (keepDontFragment && this.cuts === undefined ? field & DONT_FRAGMENT : 0) | (field & OFFSET);
    this.more = field & MORE_FRAGMENTS;
    this.at = 0;
    this.cut = 0;
    for (let o = 0; o < header; o++) this.out[o] = bytes[start + o]!;
  }

  /** Makes the next fragment; false when there is none. */
  next(): boolean {
    const { bytes, header, total, out, at } = this;
    if (at >= total) return false;
    if (at !== 0) keepCopied(out, header);
    let size = this.cuts === undefined ? this.room : this.cuts[this.cut++]! - at;
    if (size > total - at) size = total - at;
    const from = this.payload + at;
    for (let o = 0; o < size; o++) out[header + o] = bytes[from + o]!;
    const more = at + size < total ? MORE_FRAGMENTS : this.more;
    setU16(out, 2, header + size);
    setU16(out, 6, (this.flags & DONT_FRAGMENT) | more | ((this.flags & OFFSET) + (at >> 3)));
    sealHeader(out, 0, header);
    this.length = header + size;
    this.at = at + size;
    return true;
  }
}

/** Whether the pieces cover the payload and none is longer than `most`, each but the last a multiple of 8. */
function fits(cuts: Int32Array, count: number, total: number, most: number): boolean {
  if (count < 2 || cuts[count - 1] !== total) return false;
  let at = 0;
  for (let i = 0; i < count; i++) {
    const size = cuts[i]! - at;
    if (size > most || (i + 1 < count && (size & 7) !== 0)) return false;
    at += size;
  }
  return true;
}

/** Blanks the options that only the first fragment has. */
function keepCopied(b: Uint8Array, header: number): void {
  for (let at = FIRST_OPTION; at < header;) {
    const kind = u8(b, at);
    if (kind === END_OF_OPTIONS) return;
    if (kind === NO_OPERATION) {
      at++;
      continue;
    }
    const length = at + 1 < header ? u8(b, at + 1) : 0;
    if (length < 2 || at + length > header) return;
    if ((kind & COPIED) === 0) for (let i = 0; i < length; i++) setU8(b, at + i, NO_OPERATION);
    at += length;
  }
}
