/** Text in payloads, byte by byte. */

export const DIGIT_0 = 0x30;
const DOT = 0x2e;

/** A word's bytes, one a character. */
export const code = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));

const lower = (c: number): number => (c >= 0x41 && c <= 0x5a ? c + 0x20 : c);

/** Whether `word`, in lower case, stands at `o` in any case and before `end`. */
export function hasAnyCase(bytes: Uint8Array, o: number, end: number, word: Uint8Array): boolean {
  if (o + word.length > end) return false;
  for (let i = 0; i < word.length; i++) if (lower(bytes[o + i]!) !== word[i]) return false;
  return true;
}

/** Whether `word` stands at `o` and before `end`. */
export function has(bytes: Uint8Array, o: number, end: number, word: Uint8Array): boolean {
  if (o + word.length > end) return false;
  for (let i = 0; i < word.length; i++) if (bytes[o + i] !== word[i]) return false;
  return true;
}

export const isDigit = (c: number): boolean => c >= DIGIT_0 && c <= DIGIT_0 + 9;

/** Writes an address as `192.0.2.1`; returns the offset behind it. */
export function dotted(out: Uint8Array, o: number, address: number): number {
  for (let shift = 24; shift >= 0; shift -= 8) {
    o = decimal(out, o, (address >>> shift) & 255);
    if (shift !== 0) out[o++] = DOT;
  }
  return o;
}

/** Writes a number, 0 to 2^53 − 1, in decimal at `o`; returns the offset behind it. */
export function decimal(out: Uint8Array, o: number, value: number): number {
  let digits = 1;
  for (let rest = Math.floor(value / 10); rest !== 0; rest = Math.floor(rest / 10)) digits++;
  for (let i = o + digits - 1; i >= o; i--) {
    out[i] = DIGIT_0 + (value % 10);
    value = Math.floor(value / 10);
  }
  return o + digits;
}
