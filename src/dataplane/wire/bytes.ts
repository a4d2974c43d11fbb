/**
 * Reading and writing network-order numbers: `b` is the memory, `o` the offset of the first byte. The caller has checked
 * the bounds; typed-array reads are asserted here so that they need not be elsewhere. 32-bit values are signed
 * (`| 0`), which keeps them unboxed.
 */
export const u8 = (b: Uint8Array, o: number): number => b[o]!;
export const u16 = (b: Uint8Array, o: number): number => (b[o]! << 8) | b[o + 1]!;
/** Signed 32-bit; `>>> 0` gives the unsigned value. */
export const u32 = (b: Uint8Array, o: number): number =>
  (b[o]! << 24) | (b[o + 1]! << 16) | (b[o + 2]! << 8) | b[o + 3]!;

export function setU8(b: Uint8Array, o: number, value: number): void {
  b[o] = value;
}
export function setU16(b: Uint8Array, o: number, value: number): void {
  b[o] = value >> 8;
  b[o + 1] = value;
}
export function setU32(b: Uint8Array, o: number, value: number): void {
  b[o] = value >> 24;
  b[o + 1] = value >> 16;
  b[o + 2] = value >> 8;
  b[o + 3] = value;
}
