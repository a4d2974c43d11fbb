/**
 * Numbers as the C library and libxtables read them: base found by prefix (0x, 0), leading blanks and a plus allowed,
 * a minus refused, and either the whole text or a prefix of it taken. Byte strings; see problem.ts.
 */

const isBlank = (c: number): boolean => c === 32 || (c >= 9 && c <= 13);

/** Value of a digit in the given base, −1 if it is none. */
function digit(c: number, base: number): number {
  const d = c >= 48 && c <= 57 ? c - 48 : c >= 97 && c <= 122 ? c - 87 : c >= 65 && c <= 90 ? c - 55 : 99;
  return d < base ? d : -1;
}

const UINT64_MAX = 0xffff_ffff_ffff_ffffn;

/** Where the digits of a number are and what they come to; beyond 2^53 only about. */
interface Digits {
  readonly start: number;
  readonly end: number;
  readonly radix: number;
  readonly value: number;
}

/** strtoumax(s, &end, base): undefined where there is no number, or a minus. */
function scan(s: string, base: 0 | 10 | 16): Digits | undefined {
  let i = 0;
  while (i < s.length && isBlank(s.charCodeAt(i))) i++;
  if (s[i] === '-') return undefined;
  if (s[i] === '+') i++;
  let radix: number = base;
  if (base !== 10 && s[i] === '0') {
    const prefixed = (s[i + 1] === 'x' || s[i + 1] === 'X') && digit(s.charCodeAt(i + 2), 16) >= 0;
    if (prefixed) i += 2;
    if (base === 0) radix = prefixed ? 16 : 8;
  } else if (base === 0) radix = 10;
  const start = i;
  let value = 0;
  for (; i < s.length; i++) {
    const d = digit(s.charCodeAt(i), radix);
    if (d < 0) break;
    value = value * radix + d;
  }
  return i === start ? undefined : { start, end: i, radix, value };
}

/** What `strtoumax` finds: the value and the offset behind it. */
export interface Scanned {
  readonly value: bigint;
  readonly end: number;
}

/** As `strtoumax` reads it; undefined where there is no number, too big a one, or a minus. */
export function scanUnsigned(s: string, base: 0 | 10 | 16 = 0): Scanned | undefined {
  const found = scan(s, base);
  if (!found) return undefined;
  const { start, end, radix, value } = found;
  if (value <= Number.MAX_SAFE_INTEGER) return { value: BigInt(value), end };
  let exact = 0n;
  for (let j = start; j < end; j++) exact = exact * BigInt(radix) + BigInt(digit(s.charCodeAt(j), radix));
  return exact > UINT64_MAX ? undefined : { value: exact, end };
}

/** xtables_strtoul with an end pointer: a number of min..max at the start of `s`. */
export function prefixNumber(s: string, min = 0, max = 0xffffffff): { value: number; end: number } | undefined {
  const found = scan(s, 0);
  return found && found.value >= min && found.value <= max ? found : undefined;
}

/** xtables_strtoui without an end pointer: the whole of `s` is a number of min..max. */
export function wholeNumber(s: string, min = 0, max = 0xffffffff): number | undefined {
  const found = prefixNumber(s, min, max);
  return found && found.end === s.length ? found.value : undefined;
}

/** `%d` or `%i` style atoi: digits in base 10 at the start, 0 where there are none; wraps as a C int does. */
export function atoi(s: string): number {
  const found = /^[ \t-\r]*([+-]?\d+)/.exec(s);
  return found ? Number(BigInt.asIntN(32, BigInt(found[1]!.replace('+', '')))) : 0;
}

/**
 * strtoul(s, &end, base) where nobody looks at errno: what is no number reads as 0 and ends at 0, a minus makes a huge
 * number, as does overflow.
 */
export function looseUnsigned(s: string, base: 0 | 10 = 10): { value: number; end: number } {
  const sign = /^[ \t-\r]*-(?=\d)/.exec(s)?.[0].length ?? 0;
  const found = scanUnsigned(s.slice(sign), base);
  if (found)
    return {
      value: sign && found.value !== 0n ? 2 ** 64 - Number(found.value) : Number(found.value),
      end: sign + found.end,
    };
  const digits = /^[ \t-\r]*\+?\d+/.exec(s);
  return digits ? { value: 2 ** 64 - 1, end: digits[0].length } : { value: 0, end: 0 };
}

/** `0x%x` of an int32 or uint32. */
export const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;

/** `0x%02x` of a byte. */
export const hex2 = (value: number): string => `0x${(value & 0xff).toString(16).padStart(2, '0')}`;
