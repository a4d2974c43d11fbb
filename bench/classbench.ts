/**
 * Filter sets and traces in ClassBench's format, read from files (plain or .gz) or made by `generate`. A filter a line:
 * `@SRC/len DST/len sportLo : sportHi dportLo : dportHi proto/mask [flags/mask]`; a header a line:
 * `src dst sport dport proto`, decimal.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { Boxes } from '../src/control/compile/tree/boxes.js';
import { addressText } from '../src/dataplane/program/op.js';
import { Key, KEYS } from '../src/dataplane/program/tree.js';

const GZIP_MAGIC = 0x1f8b;

function text(file: string): string {
  const bytes = readFileSync(file);
  return (bytes.length > 2 && bytes.readUInt16BE(0) === GZIP_MAGIC ? gunzipSync(bytes) : bytes).toString('latin1');
}

const FILTER =
  /^@(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)\s+(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)\s+(\d+)\s*:\s*(\d+)\s+(\d+)\s*:\s*(\d+)\s+0x([\da-f]+)\/0x([\da-f]+)/i;

/** The filters as boxes, number i the file's line i (from 0). @throws Error naming the line that is none. */
export function readFilters(file: string): Boxes {
  const boxes = new Boxes(1024);
  text(file)
    .split('\n')
    .forEach((line, i) => {
      if (line.trim() === '') return;
      const found = FILTER.exec(line);
      if (found === null) throw new Error(`${file}, line ${i + 1}: not a filter`);
      const n = found.slice(1, 15).map(Number);
      const protocol = parseInt(found[15]!, 16);
      const exact = parseInt(found[16]!, 16) !== 0;
      addFilter(boxes, {
        src: ((n[0]! << 24) | (n[1]! << 16) | (n[2]! << 8) | n[3]!) >>> 0,
        srcLength: n[4]!,
        dst: ((n[5]! << 24) | (n[6]! << 16) | (n[7]! << 8) | n[8]!) >>> 0,
        dstLength: n[9]!,
        sports: [n[10]!, n[11]!],
        dports: [n[12]!, n[13]!],
        protocol: exact ? protocol : undefined,
      });
    });
  return boxes;
}

/** The headers as keys, KEYS words each. @throws Error naming the line that is none. */
export function readTrace(file: string): Int32Array {
  const lines = text(file).trimEnd().split('\n');
  const keys = new Int32Array(lines.length * KEYS);
  lines.forEach((line, i) => {
    const [src, dst, sport, dport, protocol] = line.trim().split(/\s+/, 5).map(Number);
    if (!(protocol! >= 0 && protocol! <= 255)) throw new Error(`${file}, line ${i + 1}: not a packet header`);
    const k = i * KEYS;
    keys[k + Key.SRC] = src!;
    keys[k + Key.DST] = dst!;
    keys[k + Key.PROTOCOL] = protocol!;
    keys[k + Key.SPORT] = sport!;
    keys[k + Key.DPORT] = dport!;
  });
  return keys;
}

interface Filter {
  readonly src: number;
  readonly srcLength: number;
  readonly dst: number;
  readonly dstLength: number;
  readonly sports: readonly [number, number];
  readonly dports: readonly [number, number];
  /** undefined = any */
  readonly protocol: number | undefined;
}

function addFilter(boxes: Boxes, filter: Filter): void {
  const b = boxes.add(boxes.count, true) * KEYS;
  const set = (key: Key, [low, high]: readonly [number, number]): void => {
    boxes.low[b + key] = low;
    boxes.high[b + key] = high;
  };
  set(Key.SRC, prefix(filter.src, filter.srcLength));
  set(Key.DST, prefix(filter.dst, filter.dstLength));
  set(Key.SPORT, filter.sports);
  set(Key.DPORT, filter.dports);
  if (filter.protocol !== undefined) set(Key.PROTOCOL, [filter.protocol, filter.protocol]);
}

function prefix(address: number, length: number): [number, number] {
  const mask = length === 0 ? 0 : -1 << (32 - length);
  const low = (address & mask) >>> 0;
  return [low, (low | ~mask) >>> 0];
}

/** The filters as a rules file: rules of FORWARD that accept and drop by turns. */
export function rulesText({ low, high, count }: Boxes): string {
  const lines = ['*filter', ':INPUT ACCEPT [0:0]', ':FORWARD ACCEPT [0:0]', ':OUTPUT ACCEPT [0:0]'];
  for (let i = 0; i < count; i++) {
    const b = i * KEYS;
    const [address, ports] = [
      (option: string, key: Key): string => {
        const length = Math.clz32(low[b + key]! ^ high[b + key]!);
        return length === 0 ? '' : ` ${option} ${addressText(low[b + key]!)}/${length}`;
      },
      (option: string, key: Key): string => {
        const [first, last] = [low[b + key]!, high[b + key]!];
        if (first === 0 && last === 65_535) return '';
        return ` ${option} ${first === last ? first : `${first}:${last}`}`;
      },
    ];
    const protocol = low[b + Key.PROTOCOL]!;
    const name = protocol !== high[b + Key.PROTOCOL]! ? '' : (PROTOCOLS.get(protocol) ?? `${protocol}`);
    const match = ports('--sport', Key.SPORT) + ports('--dport', Key.DPORT);
    lines.push(
      `-A FORWARD${address('-s', Key.SRC)}${address('-d', Key.DST)}${name === '' ? '' : ` -p ${name}`}` +
        `${match === '' ? '' : ` -m ${name}${match}`} -j ${(i & 1) === 0 ? 'ACCEPT' : 'DROP'}`,
    );
  }
  return [...lines, 'COMMIT', ''].join('\n');
}
const PROTOCOLS = new Map([
  [1, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
]);

/** The three classic shapes: an access list, a firewall's rules, a chain between networks. */
export const SHAPES = ['acl', 'fw', 'ipc'] as const;
export type Shape = (typeof SHAPES)[number];

/** How often (of 100) a side is: one host, a network of 24 to 31 bits, of 16 to 23, of 1 to 8, anything. */
const LENGTHS: Record<Shape, { src: readonly number[]; dst: readonly number[] }> = {
  acl: { src: [66, 27, 5, 1, 1], dst: [67, 26, 5, 1, 1] },
  fw: { src: [20, 24, 6, 28, 22], dst: [38, 34, 8, 10, 10] },
  ipc: { src: [37, 40, 18, 2, 3], dst: [35, 40, 20, 2, 3] },
};
const SERVICES = [
  20, 21, 22, 23, 25, 53, 67, 80, 88, 110, 111, 119, 123, 135, 139, 143, 161, 389, 443, 445, 465, 514, 993, 1433, 1521,
  1704, 3306, 3389, 5432, 5540, 6000, 7649, 8080, 27400,
];

/**
 * A seeded set of `count` filters, the last of which holds everything, and `headers` packets: most fall into a filter
 * picked at random (early and late ones alike), some nowhere special, and they come in bursts, as flows do.
 */
export function generate(
  shape: Shape,
  count: number,
  headers: number,
  seed: number,
): { filters: Boxes; trace: Int32Array } {
  let x = seed | 0 || 1;
  const below = (n: number): number => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
  const nets = Array.from({ length: Math.max(8, count >> 5) }, () => ((1 + below(222)) << 24) | below(1 << 24));
  const side = (weights: readonly number[]): readonly [number, number] => {
    let roll = below(100);
    const kind = weights.findIndex((weight) => (roll -= weight) < 0);
    const length = [32, 24 + below(8), 16 + below(8), 1 + below(8), 0][kind]!;
    return [(nets[below(nets.length)]! ^ below(1 << (kind === 0 ? 12 : 10))) >>> 0, length];
  };
  const ANY: readonly [number, number] = [0, 65_535];
  const port = (): readonly [number, number] => {
    const service = below(4) === 0 ? below(65_536) : SERVICES[below(SERVICES.length)]!;
    return [service, service];
  };
  const span = (): readonly [number, number] => {
    const low = below(60_000);
    return below(2) === 0 ? [1024, 65_535] : [low, low + below(5000)];
  };
  const filters = new Boxes(count);
  while (filters.count < count - 1) {
    const [src, srcLength] = side(LENGTHS[shape].src);
    const [dst, dstLength] = side(LENGTHS[shape].dst);
    if (srcLength + dstLength < 8 && filters.count < count / 2) continue;
    const kind = below(100);
    const ports =
      shape === 'acl'
        ? [ANY, kind < 56 ? port() : kind < 68 ? span() : ANY]
        : shape === 'fw'
          ? kind < 55
            ? [ANY, port()]
            : kind < 64
              ? [port(), ANY]
              : kind < 75
                ? [span(), kind < 70 ? span() : port()]
                : [ANY, ANY]
          : kind < 36
            ? [ANY, port()]
            : kind < 50
              ? [port(), ANY]
              : kind < 62
                ? [ANY, span()]
                : [ANY, ANY];
    const portless = ports[0] === ANY && ports[1] === ANY;
    const protocol = below(3) === 0 ? 17 : portless && below(3) === 0 ? (below(4) === 0 ? 1 : undefined) : 6;
    addFilter(filters, { src, srcLength, dst, dstLength, sports: ports[0]!, dports: ports[1]!, protocol });
  }
  addFilter(filters, { src: 0, srcLength: 0, dst: 0, dstLength: 0, sports: ANY, dports: ANY, protocol: undefined });

  const trace = new Int32Array(headers * KEYS);
  for (let i = 0; i < headers;) {
    const f = below(count) * KEYS;
    const within = (key: Key): number => {
      const low = filters.low[f + key]!;
      const size = filters.high[f + key]! - low + 1;
      return low + (size > 0xffffffff ? below(0xffffffff) : below(size));
    };
    const keys = [Key.SRC, Key.DST, Key.PROTOCOL, Key.SPORT, Key.DPORT].map(within);
    for (let burst = 1 + below(4); burst > 0 && i < headers; burst--, i++) trace.set(keys, i * KEYS);
  }
  return { filters, trace };
}
