/**
 * -m bpf (net/netfilter/xt_bpf.c; net/core/filter.c): a program of the classic packet filter over the packet from its IP header
 * on; holds when it returns anything but 0. Two words an instruction: CODE << 16 | TRUE << 8 | FALSE, K. Jumps go forward only, and
 * what would lie beyond the program or the packet ends it with 0, so no argument needs a check.
 */
import { showTtl } from '../nat/rewrite.js';
import type { Packet } from '../packet.js';
import { u16, u32, u8 } from '../wire/bytes.js';
import type { Op } from './op.js';

/** struct sock_filter: code, jump if true, jump if false, k. */
export type Instruction = readonly [code: number, yes: number, no: number, k: number];

export const encodeBpf = (instructions: readonly Instruction[]): number[] =>
  instructions.flatMap(([code, yes, no, k]) => [(code << 16) | (yes << 8) | no, k | 0]);

/** `BPF_*` as they come in programs (linux/bpf_common.h): class, then size and mode or operation and source. */
const enum Code {
  LD_IMM = 0x00,
  LD_WORD = 0x20,
  LD_HALF = 0x28,
  LD_BYTE = 0x30,
  LD_WORD_X = 0x40,
  LD_HALF_X = 0x48,
  LD_BYTE_X = 0x50,
  LD_MEM = 0x60,
  LD_LENGTH = 0x80,
  LDX_IMM = 0x01,
  LDX_MEM = 0x61,
  LDX_LENGTH = 0x81,
  LDX_HEADER = 0xb1,
  ST = 0x02,
  STX = 0x03,
  ADD = 0x04,
  SUB = 0x14,
  MUL = 0x24,
  DIV = 0x34,
  OR = 0x44,
  AND = 0x54,
  LSH = 0x64,
  RSH = 0x74,
  NEG = 0x84,
  MOD = 0x94,
  XOR = 0xa4,
  JA = 0x05,
  JEQ = 0x15,
  JGT = 0x25,
  JGE = 0x35,
  JSET = 0x45,
  RET_K = 0x06,
  RET_A = 0x16,
  TAX = 0x07,
  TXA = 0x87,
  /** Of arithmetic and jumps: the operand is X, not K. */
  X = 0x08,
}
const CLASS = 0x07;
const ALU = 0x04;
const JMP = 0x05;

const SCRATCH_WORDS = 16;
const scratch = new Int32Array(SCRATCH_WORDS);

/** `words`: how many arguments there are. */
export function matchBpf(program: Int32Array, at: number, words: number, p: Packet): boolean {
  showTtl(p);
  const { bytes, start } = p;
  const length = p.end - start;
  const end = at + words;
  let a = 0;
  let x = 0;
  for (let pc = at; pc < end; pc += 2) {
    const instruction = program[pc]!;
    const code = instruction >>> 16;
    const k = program[pc + 1]!;
    if ((code & CLASS) === ALU) {
      const operand = (code & Code.X) !== 0 ? x : k;
      switch (code & ~Code.X) {
        case Code.ADD:
          a = (a + operand) | 0;
          break;
        case Code.SUB:
          a = (a - operand) | 0;
          break;
        case Code.MUL:
          a = Math.imul(a, operand);
          break;
        case Code.DIV:
          if (operand === 0) return false;
          a = ((a >>> 0) / (operand >>> 0)) | 0;
          break;
        case Code.MOD:
          if (operand === 0) return false;
          a = ((a >>> 0) % (operand >>> 0)) | 0;
          break;
        case Code.OR:
          a |= operand;
          break;
        case Code.AND:
          a &= operand;
          break;
        case Code.XOR:
          a ^= operand;
          break;
        case Code.LSH:
          a <<= operand;
          break;
        case Code.RSH:
          a = (a >>> operand) | 0;
          break;
        case Code.NEG:
          a = -a | 0;
          break;
      }
      continue;
    }
    if ((code & CLASS) === JMP) {
      if (code === Code.JA) {
        pc += (k >>> 0) * 2;
        continue;
      }
      const operand = ((code & Code.X) !== 0 ? x : k) >>> 0;
      let holds: boolean;
      switch (code & ~Code.X) {
        case Code.JEQ:
          holds = a >>> 0 === operand;
          break;
        case Code.JGT:
          holds = a >>> 0 > operand;
          break;
        case Code.JGE:
          holds = a >>> 0 >= operand;
          break;
        default:
          holds = (a & operand) !== 0;
      }
      pc += (holds ? (instruction >>> 8) & 0xff : instruction & 0xff) * 2;
      continue;
    }
    switch (code) {
      case Code.RET_K:
        return k !== 0;
      case Code.RET_A:
        return a !== 0;
      case Code.LD_IMM:
        a = k;
        break;
      case Code.LD_LENGTH:
        a = p.length;
        break;
      case Code.LD_MEM:
        a = scratch[k & (SCRATCH_WORDS - 1)]!;
        break;
      case Code.LDX_IMM:
        x = k;
        break;
      case Code.LDX_LENGTH:
        x = p.length;
        break;
      case Code.LDX_MEM:
        x = scratch[k & (SCRATCH_WORDS - 1)]!;
        break;
      case Code.ST:
        scratch[k & (SCRATCH_WORDS - 1)] = a;
        break;
      case Code.STX:
        scratch[k & (SCRATCH_WORDS - 1)] = x;
        break;
      case Code.TAX:
        x = a;
        break;
      case Code.TXA:
        a = x;
        break;
      default: {
        // What is left reads the packet.
        const indirect = code === Code.LD_WORD_X || code === Code.LD_HALF_X || code === Code.LD_BYTE_X;
        const o = indirect ? (k + x) | 0 : k;
        const size =
          code === Code.LD_WORD || code === Code.LD_WORD_X
            ? 4
            : code === Code.LD_HALF || code === Code.LD_HALF_X
              ? 2
              : 1;
        if (o < 0 || o > length - size) return false;
        if (code === Code.LDX_HEADER) x = (u8(bytes, start + o) & 15) << 2;
        else if (size === 4) a = u32(bytes, start + o);
        else a = size === 2 ? u16(bytes, start + o) : u8(bytes, start + o);
      }
    }
  }
  return false;
}

export const bpf: Op = {
  name: 'bpf',
  payload: true,
  words: 2,
  variable: true,
  text: (a) =>
    Array.from({ length: a.words >> 1 }, (_, i) => {
      const word = a.program[a.at + 2 * i]!;
      return `${word >>> 16} ${(word >>> 8) & 0xff} ${word & 0xff} ${a.program[a.at + 2 * i + 1]! >>> 0}`;
    }).join(', '),
};
