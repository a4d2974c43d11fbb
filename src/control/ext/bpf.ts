/** -m bpf: a program of the classic packet filter, or a pinned one of the new. (libxt_bpf.c revision 1, xt_bpf.c) */
import { encodeBpf } from '../../dataplane/program/bpf.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineMatch, option } from './record.js';

export interface BpfData {
  /** struct sock_filter: code, jump if true, jump if false, k. */
  program: [number, number, number, number][];
  /** Of a pinned object; '' = none. */
  path: string;
}

const MAX_INSTRUCTIONS = 64;
const PATH_BYTES = 512;

/** A number as sscanf's %hu, %hhu and %u read it: blanks, sign, digits; it wraps at its size. */
const NUMBER = String.raw`[ \t-\r]*([+-]?\d+)`;
const HEAD = new RegExp(`^${NUMBER},`);
const INSTRUCTION = new RegExp(`^${NUMBER}${NUMBER}${NUMBER}${NUMBER}`);
const wrap = (text: string, bits: number): number => Number(BigInt.asUintN(bits, BigInt(text.replace('+', ''))));

/** LENGTH,CODE JT JF K,… */
function parseProgram(text: string): BpfData['program'] {
  const head = HEAD.exec(text) ?? problem('bpf: error parsing program length');
  const length = wrap(head[1]!, 16);
  if (length === 0) problem('bpf: illegal zero length program');
  if (length > MAX_INSTRUCTIONS) problem('bpf: number of instructions exceeds maximum');
  const program: BpfData['program'] = [];
  let comma = text.indexOf(',');
  while (comma >= 0 && comma + 1 < text.length) {
    if (program.length >= length) problem('bpf: real program length exceeds the encoded length parameter');
    const found = INSTRUCTION.exec(text.slice(comma + 1)) ?? problem(`bpf: error at instr ${program.length}`);
    program.push([wrap(found[1]!, 16), wrap(found[2]!, 8), wrap(found[3]!, 8), wrap(found[4]!, 32)]);
    comma = text.indexOf(',', comma + 1);
  }
  if (program.length !== length) problem('bpf: parsed program length is less than the encoded length parameter');
  return program;
}

const SCRATCH_WORDS = 16;
/** struct sock_filter's codes that xt_bpf takes (net/core/filter.c, bpf_check_classic). */
const enum Code {
  RET_K = 0x06,
  RET_A = 0x16,
  JA = 0x05,
  DIV_K = 0x34,
  MOD_K = 0x94,
  LSH_K = 0x64,
  RSH_K = 0x74,
  LD_MEM = 0x60,
  LDX_MEM = 0x61,
  ST = 0x02,
  STX = 0x03,
}
/** Jumps on a condition: the comparisons with k and with x. */
const JUMPS = [0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d];
const CODES = new Set([
  ...[0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x84],
  ...[0x94, 0x9c, 0xa4, 0xac],
  ...[0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0x00, 0x60, 0x01, 0x81, 0xb1, 0x61, 0x02, 0x03],
  ...[0x07, 0x87, 0x06, 0x16, 0x05],
  ...JUMPS,
]);

/** Why the kernel takes no such program; undefined if it does. */
function faultOf(program: BpfData['program']): string | undefined {
  for (const [at, [op, yes, no, k]] of program.entries()) {
    const left = program.length - at - 1;
    const where = `instruction ${at}`;
    if (!CODES.has(op)) return `${where}: code ${op} is none`;
    if ((op === Code.DIV_K || op === Code.MOD_K) && k === 0) return `${where}: divides by 0`;
    if ((op === Code.LSH_K || op === Code.RSH_K) && k > 31) return `${where}: shifts by ${k}`;
    if ((op === Code.LD_MEM || op === Code.LDX_MEM || op === Code.ST || op === Code.STX) && k >= SCRATCH_WORDS)
      return `${where}: no memory ${k}`;
    if (op === Code.JA && k >= left) return `${where}: jumps past the end`;
    if (JUMPS.includes(op) && (yes >= left || no >= left)) return `${where}: jumps past the end`;
  }
  const last = program.at(-1)?.[0];
  return last === Code.RET_K || last === Code.RET_A ? undefined : 'the last instruction is no return';
}

/** Loads from a fixed place: those from here on count from the link's header, the network's, or are no bytes of the packet. */
const LOADS = new Set([0x20, 0x28, 0x30]);
const LINK_HEADER = 0xffe0_0000;
const NETWORK_HEADER = 0xfff0_0000;
const ANCILLARY = 0xffff_f000;

const code = ({ program }: BpfData): string => program.map((instruction) => instruction.join(' ')).join(',');

export const bpf = defineMatch<BpfData>({
  name: 'bpf',
  revision: 1,
  init: () => ({ program: [], path: '' }),
  options: [
    option({
      name: 'bytecode',
      arg: string(),
      set: (data, text) => {
        data.program = parseProgram(text);
      },
    }),
    option({
      name: 'object-pinned',
      arg: string({ size: PATH_BYTES }),
      set: (data, path) => {
        data.path = path;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.has('bytecode') === seen.has('object-pinned')) problem('bpf: one of --bytecode or --pinned is required');
  },
  save: (data) =>
    data.path === '' ? ` --bytecode "${data.program.length},${code(data)}"` : ` --object-pinned ${data.path}`,
  // The tool ends a program with a NUL and has no blank before the match.
  print: (data) => (data.path === '' ? `match bpf ${code(data)}\0` : `match bpf pinned ${data.path}`),
  help: `bpf match options:
--bytecode <program>	        : a bpf program as generated by
                                 $(nfbpf_compile RAW '<filter>')
--object-pinned <bpf object>	: a path to a pinned BPF object in bpf fs
`,
  check: ({ program, path }) => {
    const fault = path === '' ? faultOf(program) : undefined;
    return fault === undefined ? undefined : { errno: 'EINVAL', reason: `bpf: ${fault}` };
  },
  cannot: ({ path }) => (path === '' ? undefined : 'pinned objects run in the kernel only'),
  compile: ({ program }, emit, { fail }) =>
    emit.test(
      MatchOp.BPF,
      encodeBpf(
        program.map(([op, yes, no, k], at) => {
          if (!LOADS.has(op) || k < LINK_HEADER) return [op, yes, no, k];
          if (k < NETWORK_HEADER || k >= ANCILLARY)
            return fail(`instruction ${at}: it asks for what a diverted packet does not carry`);
          return [op, yes, no, k - NETWORK_HEADER];
        }),
      ),
    ),
});
