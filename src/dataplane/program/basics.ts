/**
 * The tests that every rule can have, from ip_packet_match() in net/ipv4/netfilter/ip_tables.c. All can be inverted.
 *
 *     SRC, DST   ADDRESS MASK: the masked address of the packet equals ADDRESS; the mask may have holes
 *     PROTOCOL   NUMBER
 *     IN, OUT    four words of NAME, four of MASK: the interface's 16-byte name, masked (`eth+` masks three bytes)
 *     FRAGMENT   none: a fragment past the first
 */
import { packName } from '../interfaces.js';
import type { Packet } from '../packet.js';
import { addressText, argument, maskText, unpackText, type Op } from './op.js';

export const encodeAddress = (address: number, mask: number): number[] => [address, mask];
export const encodeProtocol = (protocol: number): number[] => [protocol];

/** `name` as iptables takes it: a trailing `+` stands for any continuation, `+` alone for every name. */
export function encodeInterface(name: string): number[] {
  const open = name.endsWith('+');
  const literal = open ? name.slice(0, -1) : name;
  const words = new Int32Array(8);
  packName(literal, words, 0);
  // The closing zero byte takes part unless the name is open-ended.
  const masked = open ? literal.length : Math.min(literal.length + 1, 16);
  for (let i = 0; i < masked; i++) words[4 + (i >> 2)]! |= 0xff << ((3 - (i & 3)) << 3);
  return [...words];
}

export const matchSource = (program: Int32Array, at: number, p: Packet): boolean =>
  (p.src & program[at + 1]!) === program[at]!;
export const matchDestination = (program: Int32Array, at: number, p: Packet): boolean =>
  (p.dst & program[at + 1]!) === program[at]!;
export const matchProtocol = (program: Int32Array, at: number, p: Packet): boolean => p.protocol === program[at]!;
export const matchFragment = (p: Packet): boolean => p.fragOffset !== 0;

/** `names[name …]` is the interface's name, zero when there is none: `-i lo` then fails, `-i +` holds. */
export const matchInterface = (program: Int32Array, at: number, names: Int32Array, name: number): boolean =>
  (((names[name]! ^ program[at]!) & program[at + 4]!) |
    ((names[name + 1]! ^ program[at + 1]!) & program[at + 5]!) |
    ((names[name + 2]! ^ program[at + 2]!) & program[at + 6]!) |
    ((names[name + 3]! ^ program[at + 3]!) & program[at + 7]!)) ===
  0;

const address = (name: string): Op => ({
  name,
  words: 2,
  invertible: true,
  text: (a) => addressText(argument(a, 0)) + maskText(argument(a, 1)),
});
const device = (name: string): Op => ({
  name,
  words: 8,
  invertible: true,
  text: (a) => {
    const text = unpackText(a.program, a.at, 16).replace(/\0+$/, '');
    return `${text}${openEnded(a.program, a.at, text.length) ? '+' : ''}`;
  },
});
/** Whether the mask leaves out the byte behind a name of `length` bytes. */
function openEnded(program: Int32Array, at: number, length: number): boolean {
  return length < 16 && ((program[at + 4 + (length >> 2)]! >>> ((3 - (length & 3)) << 3)) & 0xff) === 0;
}

export const source = address('-s');
export const destination = address('-d');
export const protocol: Op = { name: '-p', words: 1, invertible: true, text: (a) => `${argument(a, 0)}` };
export const inInterface = device('-i');
export const outInterface = device('-o');
export const fragment: Op = { name: '-f', words: 0, invertible: true, text: () => '' };
