/**
 * NFLOG's messages to whoever listens to a group: ulogd, `tcpdump -i nflog:GROUP`. The kernel's module sends its own to the
 * netlink socket that asked for the group and lists these in /proc; hutter looks there and sends the same message to the same
 * socket (net/netfilter/nfnetlink_log.c, __build_packet_message; include/uapi/linux/netfilter/nfnetlink_log.h). Without a listener nothing is
 * sent, as in the kernel. Runs on the main thread.
 *
 * What a listener asked for is obeyed: packets whole, in part or not at all, sequence numbers. `--nflog-threshold` has nothing to
 * gather: messages go out as they are made. The destination's hardware address is the interface's own, as in LOG's line.
 */
import { readFileSync } from 'node:fs';
import { Hook } from '../dataplane/names.js';
import { loadNative, type NetfilterHandle } from '../dataplane/io/native.js';
import { type Attribute, be32, netlinkMessage, NLA_HEADER } from '../dataplane/io/netlink.js';
import { LogRecord } from '../dataplane/shared.js';
import { type FindInterface, prefixOf, wordsOf } from './log.js';

const LISTENERS = '/proc/net/netfilter/nfnetlink_log';

/** NFULA_* */
const enum Nfula {
  PACKET_HDR = 1,
  MARK = 2,
  TIMESTAMP = 3,
  IFINDEX_INDEV = 4,
  IFINDEX_OUTDEV = 5,
  IFINDEX_PHYSINDEV = 6,
  IFINDEX_PHYSOUTDEV = 7,
  HWADDR = 8,
  PAYLOAD = 9,
  PREFIX = 10,
  UID = 11,
  GID = 14,
  HWTYPE = 15,
  HWHEADER = 16,
  HWLEN = 17,
}
/** NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET */
const MSG_PACKET = 4 << 8;
const AF_INET = 2;
const ARPHRD_ETHER = 1;
const ETH_P_IP = 0x0800;
const ETH_ADDRESS = 6;
/** NFULNL_COPY_PACKET */
const COPY_PACKET = 2;
/** A netlink attribute's length is 16 bits. */
const MOST_PAYLOAD = 0xffff - NLA_HEADER;

/** A socket that asked for a group. */
export interface Listener {
  group: number;
  /** Netlink address. */
  portid: number;
  copyMode: number;
  copyRange: number;
}

/** The lines of /proc/net/netfilter/nfnetlink_log: group, portid, queued, copy mode, copy range, flush timeout, uses. */
export const readListeners = (text: string): Listener[] =>
  text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([group, portid, , copyMode, copyRange]) => ({
      group: group!,
      portid: portid!,
      copyMode: copyMode!,
      copyRange: copyRange!,
    }));

export class NflogSender {
  private handle: NetfilterHandle | undefined;
  private listeners: Listener[] = [];
  private looked = false;

  constructor(private readonly find: FindInterface) {}

  /** Who listens now; records that come together need only one look. */
  private look(): void {
    this.looked = true;
    queueMicrotask(() => (this.looked = false));
    try {
      this.listeners = readListeners(readFileSync(LISTENERS, 'latin1'));
    } catch {
      // The module comes with the first listener.
      this.listeners = [];
    }
  }

  /** Sends a record of LogKind.NFLOG; what a listener is too slow to take is lost, as in the kernel. */
  send(record: Uint8Array): void {
    if (!this.looked) this.look();
    const group = wordsOf(record)(LogRecord.NUMBER);
    const listener = this.listeners.find((each) => each.group === group);
    if (listener === undefined) return;
    const native = loadNative();
    this.handle ??= native.netfilterOpen();
    native.netfilterSend(this.handle, listener.portid, nflogMessage(record, listener, this.find, Date.now() * 1000));
  }
}

/** NFULNL_MSG_PACKET as the listener asked for it; `timeUs`: when the packet came, microseconds since 1970. */
export function nflogMessage(record: Uint8Array, listener: Listener, find: FindInterface, timeUs: number): Uint8Array {
  const word = wordsOf(record);
  const prefix = prefixOf(record, word);
  const payload = record.subarray(LogRecord.WORDS * 4 + prefix.length);
  const told = listener.copyMode === COPY_PACKET ? Math.min(payload.length, listener.copyRange, MOST_PAYLOAD) : 0;
  const hook: Hook = word(LogRecord.HOOK);
  const indev = word(LogRecord.INDEV);
  const outdev = word(LogRecord.OUTDEV);
  const physindev = word(LogRecord.PHYSINDEV);
  const physoutdev = word(LogRecord.PHYSOUTDEV);

  const attributes: Attribute[] = [
    [Nfula.PACKET_HDR, [ETH_P_IP >> 8, ETH_P_IP & 255, hook, 0]],
    [Nfula.PREFIX, Buffer.from(prefix + '\0', 'latin1')],
  ];
  if (indev !== 0) attributes.push([Nfula.IFINDEX_INDEV, be32(indev)]);
  if (physindev !== 0 && physindev !== indev) attributes.push([Nfula.IFINDEX_PHYSINDEV, be32(physindev)]);
  if (outdev !== 0) attributes.push([Nfula.IFINDEX_OUTDEV, be32(outdev)]);
  if (physoutdev !== 0 && physoutdev !== outdev) attributes.push([Nfula.IFINDEX_PHYSOUTDEV, be32(physoutdev)]);
  if (word(LogRecord.MARK) !== 0) attributes.push([Nfula.MARK, be32(word(LogRecord.MARK))]);
  if (indev !== 0 && word(LogRecord.MAC_LENGTH) === ETH_ADDRESS) {
    const source = [...be32(word(LogRecord.MAC_HIGH)), ...be32(word(LogRecord.MAC_LOW))];
    const own = find(indev)?.mac ?? new Uint8Array(ETH_ADDRESS);
    const header = [...own, ...source.slice(0, ETH_ADDRESS), ETH_P_IP >> 8, ETH_P_IP & 255];
    attributes.push(
      [Nfula.HWADDR, [0, ETH_ADDRESS, 0, 0, ...source]],
      [Nfula.HWTYPE, [0, ARPHRD_ETHER]],
      [Nfula.HWLEN, [0, header.length]],
      [Nfula.HWHEADER, header],
    );
  }
  if (hook <= Hook.FORWARD) {
    const time = Buffer.alloc(16);
    time.writeBigUInt64BE(BigInt(Math.floor(timeUs / 1e6)), 0);
    time.writeBigUInt64BE(BigInt(Math.floor(timeUs % 1e6)), 8);
    attributes.push([Nfula.TIMESTAMP, time]);
  }
  if (word(LogRecord.UID) !== -1) {
    attributes.push([Nfula.UID, be32(word(LogRecord.UID))], [Nfula.GID, be32(word(LogRecord.GID))]);
  }
  if (told > 0) attributes.push([Nfula.PAYLOAD, payload.subarray(0, told)]);
  return netlinkMessage(MSG_PACKET, 0, [AF_INET, 0, listener.group >> 8, listener.group & 255], attributes);
}
