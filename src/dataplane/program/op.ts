/**
 * What verify.ts and dump.ts know of an operation; each evaluator's file exports one record of it. Control plane only.
 */
import type { ProgramFlag } from './format.js';

export interface Op {
  /** As iptables names it; the file has this name, too. */
  readonly name: string;
  /** Words of arguments; with `variable` the fewest. */
  readonly words: number;
  readonly variable?: boolean;
  /** Whether Op.OP's INVERT bit may be set: the evaluator never finds a packet impossible (`hotdrop`). */
  readonly invertible?: boolean;
  /** It looks at the packet's connection: a program that holds it needs connection tracking, as in the kernel. */
  readonly connections?: boolean | ((args: readonly number[]) => boolean);
  /** It reads what lies behind a packet's headers, or changes or quotes the packet: a program that holds it needs packets whole. */
  readonly payload?: boolean;
  /** What the kernel must mark packets for: one of MARKED_FLAGS. */
  readonly marked?: ProgramFlag;
  /** What must hold of the arguments beyond their number, so that the evaluator stays within bounds; else a sentence. */
  check?(a: Arguments): string | undefined;
  /** The arguments as text that a person can read. */
  text(a: Arguments): string;
}

/** One test's or target's arguments, for `check` and `text`. */
export interface Arguments {
  readonly program: Int32Array;
  /** Offset of the first. */
  readonly at: number;
  /** How many. */
  readonly words: number;
  /** State regions; empty when only text is wanted. */
  readonly regions: readonly Int32Array[];
}

/** Argument `i`. */
export const argument = (a: Arguments, i: number): number => a.program[a.at + i]!;

/** "1.2.3.4" */
export const addressText = (address: number): string =>
  [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join('.');

/** "/24" or "/255.0.255.0". */
export function maskText(mask: number): string {
  const bits = Math.clz32(~mask);
  const contiguous = bits === 32 ? mask === -1 : mask === (bits === 0 ? 0 : -1 << (32 - bits));
  return contiguous ? `/${bits}` : `/${addressText(mask)}`;
}

export const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
/** "5" or "5:9" */
export const rangeText = (min: number, max: number): string => (min === max ? `${min}` : `${min}:${max}`);

/** Packs bytes into words, big-endian, the last one padded with zeros. */
export function packBytes(bytes: ArrayLike<number>): number[] {
  const words: number[] = [];
  for (let i = 0; i < bytes.length; i += 4)
    words.push((bytes[i]! << 24) | ((bytes[i + 1] ?? 0) << 16) | ((bytes[i + 2] ?? 0) << 8) | (bytes[i + 3] ?? 0));
  return words;
}

/** Packs a string's characters, one byte each (Latin-1). */
export const packText = (text: string): number[] => packBytes(Array.from(text, (c) => c.charCodeAt(0) & 0xff));

/** Byte `i` of bytes packed from `at`. */
export const packedByte = (words: Int32Array, at: number, i: number): number =>
  (words[at + (i >> 2)]! >>> ((3 - (i & 3)) << 3)) & 0xff;

/** `length` packed bytes from `at` as text (Latin-1). */
export function unpackText(words: Int32Array, at: number, length: number): string {
  let text = '';
  for (let i = 0; i < length; i++) text += String.fromCharCode(packedByte(words, at, i));
  return text;
}
