/**
 * Longest prefix match for the packets of a batch together, in a table that is looked at by 24 bits (table.ts). Nearly every lookup
 * there waits for one word of 64 MiB; many can wait at a time, if few enough instructions lie between them. JavaScript checks
 * maps and bounds at each access, so that the processor sees five lookups ahead; WebAssembly checks nothing, as its memory is
 * all that it can reach. Hence this one loop is in it, over the memory of the tables:
 *
 *     do { a = load(dst); e = load(wide + (a >>> 8) * 4)
 *          if (e < 0) { p = ~e; if (p & 1) e = scan(p) else e = load((p >>> 1) * 4 + (a & 255) * 4) }
 *          store(node, e); dst += 4; node += 4 } while (dst < end)
 */

/** Opcodes (WebAssembly core specification 1.0, §5.4). */
const enum Op {
  BLOCK = 0x02,
  LOOP = 0x03,
  IF = 0x04,
  ELSE = 0x05,
  END = 0x0b,
  BR = 0x0c,
  BR_IF = 0x0d,
  LOCAL_GET = 0x20,
  LOCAL_SET = 0x21,
  LOCAL_TEE = 0x22,
  LOAD = 0x28,
  STORE = 0x36,
  CONST = 0x41,
  EQZ = 0x45,
  EQ = 0x46,
  LT_S = 0x48,
  LT_U = 0x49,
  ADD = 0x6a,
  SUB = 0x6b,
  AND = 0x71,
  XOR = 0x73,
  SHL = 0x74,
  SHR_U = 0x76,
  NO_RESULT = 0x40,
}
const I32 = 0x7f;

/** Parameters, all byte offsets, and locals. */
const enum Local {
  WIDE = 0,
  DST = 1,
  NODE = 2,
  END = 3,
  ADDRESS = 4,
  ENTRY = 5,
  /** The entry without its sign. */
  PLACE = 6,
  ITEM = 7,
  LEFT = 8,
}
const PARAMETERS = 4;
const LOCALS = 5;

/** LEB128, of unsigned numbers and of signed ones. */
function u(n: number): number[] {
  return n < 128 ? [n] : [(n & 127) | 128, ...u(n >>> 7)];
}
function s(n: number): number[] {
  return n >= -64 && n < 64 ? [n & 127] : [(n & 127) | 128, ...s(n >> 7)];
}
const get = (local: Local): number[] => [Op.LOCAL_GET, local];
const set = (local: Local): number[] => [Op.LOCAL_SET, local];
const tee = (local: Local): number[] => [Op.LOCAL_TEE, local];
const constant = (n: number): number[] => [Op.CONST, ...s(n)];
/** Of 4 bytes, `offset` bytes behind the address. */
const load = (offset = 0): number[] => [Op.LOAD, 2, ...u(offset)];
const store = (): number[] => [Op.STORE, 2, 0];
/** Words to bytes. */
const bytes = [...constant(2), Op.SHL];

/** The layout of lists is table.ts's: how many, else, then mask, address and entry of each. */
const scan = [
  ...get(Local.ITEM),
  ...load(),
  ...set(Local.LEFT),
  ...get(Local.ITEM),
  ...load(4),
  ...set(Local.ENTRY),
  ...[Op.BLOCK, Op.NO_RESULT, Op.LOOP, Op.NO_RESULT],
  ...[...get(Local.LEFT), Op.EQZ, Op.BR_IF, 1],
  ...[...get(Local.ADDRESS), ...get(Local.ITEM), ...load(8), Op.AND, ...get(Local.ITEM), ...load(12), Op.EQ],
  ...[Op.IF, Op.NO_RESULT, ...get(Local.ITEM), ...load(16), ...set(Local.ENTRY), Op.BR, 2, Op.END],
  ...[...get(Local.ITEM), ...constant(12), Op.ADD, ...set(Local.ITEM)],
  ...[...get(Local.LEFT), ...constant(1), Op.SUB, ...set(Local.LEFT), Op.BR, 0],
  ...[Op.END, Op.END],
];

const longer = [
  ...[...get(Local.ENTRY), ...constant(-1), Op.XOR, ...tee(Local.PLACE)],
  ...[...constant(1), Op.SHR_U, ...bytes, ...set(Local.ITEM)],
  ...[...get(Local.PLACE), ...constant(1), Op.AND, Op.IF, Op.NO_RESULT],
  ...scan,
  Op.ELSE,
  ...[...get(Local.ITEM), ...get(Local.ADDRESS), ...constant(255), Op.AND, ...bytes, Op.ADD, ...load()],
  ...set(Local.ENTRY),
  Op.END,
];

const code = [
  ...[Op.LOOP, Op.NO_RESULT],
  ...[...get(Local.DST), ...load(), ...tee(Local.ADDRESS), ...constant(8), Op.SHR_U, ...bytes],
  ...[...get(Local.WIDE), Op.ADD, ...load(), ...tee(Local.ENTRY)],
  ...[...constant(0), Op.LT_S, Op.IF, Op.NO_RESULT, ...longer, Op.END],
  ...[...get(Local.NODE), ...get(Local.ENTRY), ...store()],
  ...[...get(Local.NODE), ...constant(4), Op.ADD, ...set(Local.NODE)],
  ...[...get(Local.DST), ...constant(4), Op.ADD, ...tee(Local.DST), ...get(Local.END), Op.LT_U, Op.BR_IF, 0],
  ...[Op.END, Op.END],
];

/** A vector of one thing; a section or function body with its length before it. */
const one = (content: readonly number[]): number[] => [1, ...content];
const sized = (content: readonly number[]): number[] => [...u(content.length), ...content];
const section = (id: number, content: readonly number[]): number[] => [id, ...sized(one(content))];
const text = (name: string): number[] => sized([...Buffer.from(name)]);

/** 64 KiB: what memory is counted in. */
const PAGE = 65_536;

/** Memory of at least so many words, which `together` can look into; all threads share it. */
export function memoryFor(words: number): WebAssembly.Memory {
  const pages = Math.ceil((words * 4) / PAGE);
  return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
}

/** What `together` makes; all offsets are in words. */
export type Together = (wide: number, dst: number, node: number, count: number) => void;

/**
 * A function that looks up `count` (at least 1) addresses, from the word `dst` on, in the entries at `wide`, and writes the node of each
 * from the word `node` on: as `lookup`, but 0 where the table's /0 is the answer.
 */
export function together(memory: WebAssembly.Memory): Together {
  const pages = memory.buffer.byteLength / PAGE;
  const shared = 3;
  const module = new WebAssembly.Module(
    Uint8Array.from([
      ...[0, ...Buffer.from('asm'), 1, 0, 0, 0],
      ...section(1, [0x60, PARAMETERS, ...Array<number>(PARAMETERS).fill(I32), 0]),
      ...section(2, [...text('tables'), ...text('memory'), 2, shared, ...u(pages), ...u(pages)]),
      ...section(3, [0]),
      ...section(7, [...text('lookup'), 0, 0]),
      ...section(10, sized([1, LOCALS, I32, ...code])),
    ]),
  );
  const { exports } = new WebAssembly.Instance(module, { tables: { memory } });
  const lookup = exports.lookup as (wide: number, dst: number, node: number, end: number) => void;
  return (wide, dst, node, count) => lookup(wide * 4, dst * 4, node * 4, (dst + count) * 4);
}
