/** Text in payloads, byte by byte. */

export const DIGIT_0 = 0x30;

/** A word's bytes, one a character. */
export const code = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));

export const isDigit = (c: number): boolean => c >= DIGIT_0 && c <= DIGIT_0 + 9;

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
