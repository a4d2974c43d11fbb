/**
 * -j TEE (net/netfilter/xt_TEE.c): GATEWAY, then the interface's name in four words, all zero = any. An interface that isn't there
 * doesn't bind the copy, as in the kernel.
 */
import { packName } from '../interfaces.js';
import type { Packet } from '../packet.js';
import type { Context } from './context.js';
import { addressText, argument, type Op, unpackText } from './op.js';
import { CONTINUE } from './ops.js';

export function encodeTEE(gateway: number, oif: string): number[] {
  const name = new Int32Array(4);
  packName(oif, name, 0);
  return [gateway, ...name];
}

export function applyTEE(context: Context, program: Int32Array, at: number, p: Packet): number {
  const oif = program[at + 1] === 0 ? 0 : context.interfaces.named(program, at + 1);
  context.answers.duplicate(p, context, program[at]!, oif);
  return CONTINUE;
}

export const TEE: Op = {
  name: 'TEE',
  words: 5,
  payload: true,
  text: (a) => `${addressText(argument(a, 0))} ${unpackText(a.program, a.at + 1, 16).replace(/\0+$/, '')}`.trimEnd(),
};
