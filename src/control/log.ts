/**
 * LOG's line, as net/netfilter/nf_log_syslog.c (nf_log_ip_packet) prints it, from the record a worker left in its ring.
 * Runs on the main thread. A line is written as `<LEVEL>prefixIN=… OUT=… `, the trailing space included: the kernel's
 * text behind a priority in sd-daemon(3)'s form, so that a journal or syslog files it as the kernel's own.
 *
 * The queue doesn't deliver the destination's hardware address: the receiving interface's own stands in for it.
 */
import { Proto, TcpFlag } from '../dataplane/names.js';
import { LogOption } from '../dataplane/program/log.js';
import { LogKind, LogRecord } from '../dataplane/shared.js';
import { u16, u32, u8 } from '../dataplane/wire/bytes.js';

/** What the line says of an interface. */
export interface LogInterface {
  name: string;
  /** Own hardware address. */
  mac: Uint8Array;
}
export type FindInterface = (ifindex: number) => LogInterface | undefined;

/** A rule or policy that a traced packet met. */
export interface TracedRule {
  table: string;
  chain: string;
  builtIn: boolean;
  /** From 1; a policy is the one behind the last rule. */
  rule: number;
  /** It decides about every packet that comes to it: a policy, or a verdict without matches. */
  ends: boolean;
}
/** By counter slot; undefined if it has gone. */
export type FindRule = (counter: number) => TracedRule | undefined;

/** The level that TRACE's lines have (net/ipv4/netfilter/ip_tables.c, trace_loginfo). */
const TRACE_LEVEL = 4;

/** Words of a record by name. */
export const wordsOf = (record: Uint8Array): ((index: LogRecord) => number) => {
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  return (index) => view.getInt32(index * 4, true);
};

const ETH_HEADER = 14;
const ETH_ADDRESS = 6;
const ETH_P_IP = 0x0800;
const IP_HEADER = 20;
const TCP_HEADER = 20;
const UDP_HEADER = 8;
const ICMP_HEADER = 8;
const AH_HEADER = 12;
const ESP_HEADER = 8;

export const kindOf = (record: Uint8Array): LogKind => wordsOf(record)(LogRecord.KIND);

/** The prefix of LOG or NFLOG as bytes in a string. */
export const prefixOf = (record: Uint8Array, word: (index: LogRecord) => number): string =>
  Buffer.from(record.buffer, record.byteOffset + LogRecord.WORDS * 4, word(LogRecord.PREFIX_LENGTH)).toString('latin1');

/**
 * The line of one record, without the line feed; each character is one byte (Latin-1), whatever the prefix holds. `rules`
 * names the rules of traces.
 */
export function formatLogRecord(record: Uint8Array, find: FindInterface, rules: FindRule): string {
  const word = wordsOf(record);
  const packetStart = LogRecord.WORDS * 4 + word(LogRecord.PREFIX_LENGTH);

  const options = word(LogRecord.OPTIONS);
  const indev = word(LogRecord.INDEV);
  const outdev = word(LogRecord.OUTDEV);
  const physindev = word(LogRecord.PHYSINDEV);
  const physoutdev = word(LogRecord.PHYSOUTDEV);
  const name = (ifindex: number): string => (ifindex === 0 ? '' : (find(ifindex)?.name ?? `if${ifindex}`));

  let line = `${beginning(record, word, rules)}IN=${name(indev)} OUT=${name(outdev)} `;
  if (physindev !== 0 && physindev !== indev) line += `PHYSIN=${name(physindev)} `;
  if (physoutdev !== 0 && physoutdev !== outdev) line += `PHYSOUT=${name(physoutdev)} `;
  if (indev !== 0) {
    const source = new Uint8Array(8);
    new DataView(source.buffer).setUint32(0, word(LogRecord.MAC_HIGH));
    new DataView(source.buffer).setUint32(4, word(LogRecord.MAC_LOW));
    line += macField(options, source.subarray(0, word(LogRecord.MAC_LENGTH)), find(indev)?.mac);
  }
  line += new PacketText(record, packetStart, options).text(packetStart, false);
  if ((options & LogOption.UID) !== 0 && word(LogRecord.UID) !== -1)
    line += `UID=${word(LogRecord.UID) >>> 0} GID=${word(LogRecord.GID) >>> 0} `;
  const mark = word(LogRecord.MARK) >>> 0;
  if (mark !== 0) line += `MARK=0x${mark.toString(16)} `;
  return line;
}

function beginning(record: Uint8Array, word: (index: LogRecord) => number, rules: FindRule): string {
  const kind: LogKind = word(LogRecord.KIND);
  const number = word(LogRecord.NUMBER);
  switch (kind) {
    case LogKind.LOG:
      return `<${number}>${prefixOf(record, word)}`;
    case LogKind.NFLOG:
      return `NFLOG ${number}: ${prefixOf(record, word)} `;
    case LogKind.TRACE:
    case LogKind.TRACE_RETURN:
      return `<${TRACE_LEVEL}>TRACE: ${traced(rules(number), kind === LogKind.TRACE_RETURN)} `;
  }
}

/** get_chainname_rulenum(): an unconditional verdict counts as the chain's end wherever it stands. */
function traced(met: TracedRule | undefined, atEnd: boolean): string {
  if (met === undefined) return 'a rule that went since:rule:0';
  const { table, chain, rule, ends, builtIn } = met;
  const end = builtIn ? 'policy' : 'return';
  return `${table}:${chain}:${atEnd || ends ? end : 'rule'}:${atEnd ? rule + 1 : rule}`;
}

/** dump_mac_header(): empty for a link without addresses; an Ethernet header is rebuilt, destination first. */
function macField(options: number, source: Uint8Array, own: Uint8Array | undefined): string {
  const hex = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(':');
  if (source.length !== ETH_ADDRESS) return 'MAC= ';
  const destination = own?.length === ETH_ADDRESS ? own : new Uint8Array(ETH_ADDRESS);
  if ((options & LogOption.MAC_DECODE) !== 0)
    return `MACSRC=${hex(source)} MACDST=${hex(destination)} MACPROTO=${ETH_P_IP.toString(16).padStart(4, '0')} `;
  const header = new Uint8Array(ETH_HEADER);
  header.set(destination, 0);
  header.set(source, ETH_ADDRESS);
  header[2 * ETH_ADDRESS] = ETH_P_IP >> 8;
  return `MAC=${hex(header)} `;
}

const dotted = (address: number): string =>
  `${address >>> 24}.${(address >> 16) & 255}.${(address >> 8) & 255}.${address & 255}`;
const byteHex = (value: number): string => value.toString(16).toUpperCase().padStart(2, '0');

/** The least bytes of an ICMP message by type, dump_ipv4_packet()'s required_len; 0 = any. */
const ICMP_REQUIRED: Readonly<Record<number, number>> = {
  0: 4,
  3: ICMP_HEADER + IP_HEADER,
  4: ICMP_HEADER + IP_HEADER,
  5: ICMP_HEADER + IP_HEADER,
  8: 4,
  11: ICMP_HEADER + IP_HEADER,
  12: ICMP_HEADER + IP_HEADER,
  13: 20,
  14: 20,
  17: 12,
  18: 12,
};

/** dump_ipv4_packet() over `bytes`; the record holds the packet's beginning, `limit` is where the whole packet ends. */
class PacketText {
  private readonly limit: number;

  constructor(
    private readonly bytes: Uint8Array,
    start: number,
    private readonly options: number,
  ) {
    // The IP header's own length: the record may be cut, the packet was not.
    this.limit = bytes.length - start >= IP_HEADER ? start + u16(bytes, start + 2) : bytes.length;
  }

  /** Whether `length` bytes from `at` are there, as skb_header_pointer() finds them. */
  private has(at: number, length: number): boolean {
    return at + length <= this.limit && at + length <= this.bytes.length;
  }

  private hex(at: number, length: number): string {
    let text = '';
    for (let i = 0; i < length; i++) text += byteHex(u8(this.bytes, at + i));
    return text;
  }

  text(ip: number, quoted: boolean): string {
    const b = this.bytes;
    if (!this.has(ip, IP_HEADER)) return 'TRUNCATED';
    const tos = u8(b, ip + 1);
    const frag = u16(b, ip + 6);
    const headerLength = (u8(b, ip) & 15) * 4;
    let line = `SRC=${dotted(u32(b, ip + 12))} DST=${dotted(u32(b, ip + 16))} LEN=${u16(b, ip + 2)} `;
    line += `TOS=0x${byteHex(tos & 0x1e)} PREC=0x${byteHex(tos & 0xe0)} TTL=${u8(b, ip + 8)} ID=${u16(b, ip + 4)} `;
    if (frag & 0x8000) line += 'CE ';
    if (frag & 0x4000) line += 'DF ';
    if (frag & 0x2000) line += 'MF ';
    const fragOffset = frag & 0x1fff;
    if (fragOffset !== 0) line += `FRAG:${fragOffset} `;
    if ((this.options & LogOption.IP_OPTIONS) !== 0 && headerLength > IP_HEADER) {
      const length = headerLength - IP_HEADER;
      if (!this.has(ip + IP_HEADER, length)) return line + 'TRUNCATED';
      line += `OPT (${this.hex(ip + IP_HEADER, length)}) `;
    }

    const l4 = ip + headerLength;
    const protocol = u8(b, ip + 9);
    switch (protocol) {
      case Proto.TCP:
        return line + this.tcp(l4, fragOffset);
      case Proto.UDP:
      case Proto.UDPLITE:
        return line + this.udp(l4, fragOffset, protocol);
      case Proto.ICMP:
        return line + this.icmp(l4, fragOffset, quoted);
      case Proto.AH:
        if (fragOffset !== 0) return line;
        return line + 'PROTO=AH ' + this.spi(l4, AH_HEADER, 4);
      case Proto.ESP:
        if (fragOffset !== 0) return line + 'PROTO=ESP ';
        return line + 'PROTO=ESP ' + this.spi(l4, ESP_HEADER, 0);
      default:
        return `${line}PROTO=${protocol} `;
    }
  }

  private incomplete(l4: number): string {
    return `INCOMPLETE [${(this.limit - l4) >>> 0} bytes] `;
  }

  private tcp(l4: number, fragOffset: number): string {
    const b = this.bytes;
    if (fragOffset !== 0) return 'PROTO=TCP ';
    if (!this.has(l4, TCP_HEADER)) return 'PROTO=TCP ' + this.incomplete(l4);
    let line = `PROTO=TCP SPT=${u16(b, l4)} DPT=${u16(b, l4 + 2)} `;
    if ((this.options & LogOption.TCP_SEQUENCE) !== 0)
      line += `SEQ=${u32(b, l4 + 4) >>> 0} ACK=${u32(b, l4 + 8) >>> 0} `;
    const offsetByte = u8(b, l4 + 12);
    line += `WINDOW=${u16(b, l4 + 14)} RES=0x${((offsetByte & 14) << 2).toString(16).padStart(2, '0')} `;
    if (offsetByte & 1) line += 'AE ';
    const flags = u8(b, l4 + 13);
    if (flags & TcpFlag.CWR) line += 'CWR ';
    if (flags & TcpFlag.ECE) line += 'ECE ';
    if (flags & TcpFlag.URG) line += 'URG ';
    if (flags & TcpFlag.ACK) line += 'ACK ';
    if (flags & TcpFlag.PSH) line += 'PSH ';
    if (flags & TcpFlag.RST) line += 'RST ';
    if (flags & TcpFlag.SYN) line += 'SYN ';
    if (flags & TcpFlag.FIN) line += 'FIN ';
    line += `URGP=${u16(b, l4 + 18)} `;
    const optionLength = (offsetByte >> 4) * 4 - TCP_HEADER;
    if ((this.options & LogOption.TCP_OPTIONS) !== 0 && optionLength > 0) {
      if (!this.has(l4 + TCP_HEADER, optionLength)) return line + 'OPT (TRUNCATED)';
      line += `OPT (${this.hex(l4 + TCP_HEADER, optionLength)}) `;
    }
    return line;
  }

  private udp(l4: number, fragOffset: number, protocol: number): string {
    const b = this.bytes;
    const line = protocol === Proto.UDP ? 'PROTO=UDP ' : 'PROTO=UDPLITE ';
    if (fragOffset !== 0) return line;
    if (!this.has(l4, UDP_HEADER)) return line + this.incomplete(l4);
    return `${line}SPT=${u16(b, l4)} DPT=${u16(b, l4 + 2)} LEN=${u16(b, l4 + 4)} `;
  }

  private icmp(l4: number, fragOffset: number, quoted: boolean): string {
    const b = this.bytes;
    if (fragOffset !== 0) return 'PROTO=ICMP ';
    if (!this.has(l4, ICMP_HEADER)) return 'PROTO=ICMP ' + this.incomplete(l4);
    const type = u8(b, l4);
    const code = u8(b, l4 + 1);
    let line = `PROTO=ICMP TYPE=${type} CODE=${code} `;
    if (this.limit - l4 < (ICMP_REQUIRED[type] ?? 0)) return line + this.incomplete(l4);
    switch (type) {
      case 0:
      case 8:
        return `${line}ID=${u16(b, l4 + 4)} SEQ=${u16(b, l4 + 6)} `;
      case 12:
        return `${line}PARAMETER=${u8(b, l4 + 4)} `;
      case 3:
      case 4:
      case 5:
      case 11:
        if (type === 5) line += `GATEWAY=${dotted(u32(b, l4 + 4))} `;
        if (!quoted) line += `[${this.text(l4 + ICMP_HEADER, true)}] `;
        if (type === 3 && code === 4) line += `MTU=${u16(b, l4 + 6)} `;
        return line;
      default:
        return line;
    }
  }

  private spi(l4: number, length: number, offset: number): string {
    if (!this.has(l4, length)) return this.incomplete(l4);
    return `SPI=0x${(u32(this.bytes, l4 + offset) >>> 0).toString(16)} `;
  }
}
