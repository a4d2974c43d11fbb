/** Jenkins' hash as the kernel has it (include/linux/jhash.h): HMARK and cluster spread by it. */

export const JHASH_INITVAL = 0xdead_beef | 0;

const rol = (x: number, bits: number): number => (x << bits) | (x >>> (32 - bits));

/** __jhash_nwords(): three words and the initial value, to which the caller has added what the kernel's callers add. int32. */
export function jhash3(a: number, b: number, c: number, initial: number): number {
  a = (a + initial) | 0;
  b = (b + initial) | 0;
  c = (c + initial) | 0;
  c = ((c ^ b) - rol(b, 14)) | 0;
  a = ((a ^ c) - rol(c, 11)) | 0;
  b = ((b ^ a) - rol(a, 25)) | 0;
  c = ((c ^ b) - rol(b, 16)) | 0;
  a = ((a ^ c) - rol(c, 4)) | 0;
  b = ((b ^ a) - rol(a, 14)) | 0;
  c = ((c ^ b) - rol(b, 24)) | 0;
  return c;
}
