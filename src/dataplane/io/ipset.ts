/**
 * The kernel's sets (ipset(8)), asked by netlink (include/uapi/linux/netfilter/ipset/ip_set.h): what a set is when a rule about it is
 * loaded, and for each packet whether it is in it. The kernel answers from the set as it is at that moment.
 */
import { loadNative, type Native, type NetfilterHandle } from './native.js';
import {
  type Attribute,
  attributeBytes,
  NFGENMSG,
  netlinkMessage,
  NLA_F_NESTED,
  NLM_F_ACK,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  NLMSG_HEADER,
  readAttributes,
} from './netlink.js';

/** IPSET_CMD_* */
export const enum SetCommand {
  ADD = 9,
  DEL = 10,
  TEST = 11,
  HEADER = 12,
}
/** IPSET_ATTR_* of a command. */
const enum CommandAttribute {
  PROTOCOL = 1,
  SETNAME = 2,
  TYPENAME = 3,
  FAMILY = 5,
  DATA = 7,
}
/** NFNL_SUBSYS_IPSET << 8 */
const SUBSYSTEM = 6 << 8;
/** IPSET_PROTOCOL_MIN */
const PROTOCOL = 6;
const AF_INET = 2;
const ANSWER = 512;

const nulTerminated = (text: string): Uint8Array => Buffer.from(text + '\0', 'latin1');

const request = (command: SetCommand, flags: number, name: string, more: readonly Attribute[] = []): Uint8Array =>
  netlinkMessage(
    SUBSYSTEM | command,
    NLM_F_REQUEST | flags,
    [AF_INET, 0, 0, 0],
    [[CommandAttribute.PROTOCOL, [PROTOCOL]], [CommandAttribute.SETNAME, nulTerminated(name)], ...more],
  );

/**
 * A request about one element, acknowledged when it is done. An element that is there already is an error where `exist` isn't
 * given. `data`: its IPSET_ATTR_* of an entry, last in the message.
 */
export const elementRequest = (
  command: SetCommand,
  name: string,
  data: readonly Attribute[],
  exist: boolean,
): Uint8Array =>
  request(command, NLM_F_ACK | (exist ? 0 : NLM_F_EXCL), name, [
    [CommandAttribute.DATA | NLA_F_NESTED, attributeBytes(data)],
  ]);

/** What a rule must know of a set. */
export interface SetType {
  /** As ipset has it: `hash:ip,port`. */
  name: string;
  /** AF_INET, AF_INET6, or 0 for sets without addresses. */
  family: number;
}

/** Sets of addresses, ports and the like, by request. */
export interface Sets {
  /** `length` bytes of a message that `elementRequest` made; 0: done, or the element is in the set; else negative. */
  ask(message: Uint8Array, length: number): number;
}

/** Where there are no sets: an element is in none. */
export const NO_SETS: Sets = { ask: () => -1 };

/** Who knows which sets there are. */
export interface SetTypes {
  /** undefined: no set has this name. */
  typeOf(name: string): SetType | undefined;
}

export class KernelSets implements Sets, SetTypes {
  private readonly native: Native = loadNative();
  private readonly answer = new Uint8Array(ANSWER);
  private handle: NetfilterHandle | undefined;

  ask(message: Uint8Array, length: number): number {
    this.handle ??= this.native.netfilterOpen();
    return this.native.netfilterAsk(this.handle, message, length, this.answer);
  }

  /** The type of a set in this thread's network namespace; undefined if there is no set of that name, or no sets at all. */
  typeOf(name: string): SetType | undefined {
    const message = request(SetCommand.HEADER, 0, name);
    const length = this.ask(message, message.length);
    if (length <= 0) return undefined;
    const found = readAttributes(this.answer, NLMSG_HEADER + NFGENMSG, Math.min(length, ANSWER));
    const type = found.get(CommandAttribute.TYPENAME);
    if (type === undefined) return undefined;
    return {
      name: Buffer.from(type).toString('latin1').replace(/\0.*$/s, ''),
      family: found.get(CommandAttribute.FAMILY)?.[0] ?? 0,
    };
  }
}
