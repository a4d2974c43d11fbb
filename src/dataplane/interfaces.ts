/**
 * The interfaces of this namespace as a worker sees them: names in the form rules match, MTUs, addresses. Read from the
 * kernel when LINK_EPOCH moves; an ifindex that isn't known yet has every answer empty, and the caller may refresh.
 * One object a worker.
 */

/** What the kernel says of a link and its IPv4 addresses. Addresses are host order; MTU in bytes. */
export interface Link {
  index: number;
  name: string;
  mtu: number;
  /** IFF_* */
  flags: number;
  mac: Uint8Array;
  /** In the kernel's order; primaries first within a subnet. */
  addresses: InterfaceAddress[];
}
export interface InterfaceAddress {
  /** IFA_LOCAL: the router's own address. */
  local: number;
  /** IFA_ADDRESS: the peer on a point-to-point link, else the same as `local`; the subnet is around this one. */
  address: number;
  prefixLength: number;
  /** A `Scope`. */
  scope: number;
  /** IFA_F_SECONDARY. */
  secondary: boolean;
  /** IFA_BROADCAST; 0 or absent: none was given to it. */
  broadcast?: number;
}

/** An address that an interface has no more; 0: the interface itself went, or went down. */
export interface Lost {
  ifindex: number;
  address: number;
}

const NAME_WORDS = 4;
/** IFF_* of Link.flags. */
export const enum LinkFlag {
  UP = 0x1,
  LOOPBACK = 0x8,
}
/** RT_SCOPE_*: how far away what a route leads to is. */
export const enum Scope {
  UNIVERSE = 0,
  SITE = 200,
  LINK = 253,
  HOST = 254,
  NOWHERE = 255,
}

export class Interfaces {
  /** Names, four words each, zero padded, big-endian: words[find(ifindex) … + 3]. Slot 0 is "no interface". */
  words: Int32Array = new Int32Array(NAME_WORDS);
  /** ifindexes in the order of `words`. */
  private indexes = new Int32Array(0);
  private offsets = new Map<number, number>();
  private links = new Map<number, Link>();
  private loopback = 0;
  private lastIndex = 0;
  private lastOffset = 0;

  /** Takes in a new reading of all links. Returns what went since the last one. */
  replace(links: readonly Link[]): Lost[] {
    const lost = this.missingFrom(links);
    this.words = new Int32Array((links.length + 1) * NAME_WORDS);
    this.indexes = Int32Array.from(links, ({ index }) => index);
    this.offsets = new Map();
    this.links = new Map();
    this.lastIndex = 0;
    this.lastOffset = 0;
    links.forEach((link, i) => {
      const offset = (i + 1) * NAME_WORDS;
      packName(link.name, this.words, offset);
      this.offsets.set(link.index, offset);
      this.links.set(link.index, link);
      if ((link.flags & LinkFlag.LOOPBACK) !== 0) this.loopback = link.index;
    });
    return lost;
  }

  private missingFrom(links: readonly Link[]): Lost[] {
    const lost: Lost[] = [];
    const now = new Map(links.map((link) => [link.index, link]));
    for (const link of this.links.values()) {
      const after = now.get(link.index);
      if (after === undefined || ((link.flags & LinkFlag.UP) !== 0 && (after.flags & LinkFlag.UP) === 0)) {
        lost.push({ ifindex: link.index, address: 0 });
        continue;
      }
      for (const { local } of link.addresses) {
        if (!after.addresses.some((address) => address.local === local)) {
          lost.push({ ifindex: link.index, address: local });
        }
      }
    }
    return lost;
  }

  /** Offset in `words` of the interface's name; 0 for none and for an unknown one, whose name is all zero. */
  find(ifindex: number): number {
    if (ifindex === 0) return 0;
    if (ifindex === this.lastIndex) return this.lastOffset;
    const offset = this.offsets.get(ifindex);
    if (offset === undefined) return 0;
    this.lastIndex = ifindex;
    this.lastOffset = offset;
    return offset;
  }

  /** The ifindex of the interface whose name is packed in words[at … + 3]; 0: there is none. */
  named(words: Int32Array, at: number): number {
    const names = this.words;
    for (let o = NAME_WORDS, i = 0; o < names.length; o += NAME_WORDS, i++) {
      if (
        names[o] === words[at] &&
        names[o + 1] === words[at + 1] &&
        names[o + 2] === words[at + 2] &&
        names[o + 3] === words[at + 3]
      ) {
        return this.indexes[i]!;
      }
    }
    return 0;
  }

  /** MTU in bytes; 65,535 when unknown, so that nothing is refused by accident. */
  mtu(ifindex: number): number {
    return this.links.get(ifindex)?.mtu ?? 65_535;
  }

  /** A namespace has one loopback interface, which can't be taken away. */
  isLoopback(ifindex: number): boolean {
    return ifindex === this.loopback && ifindex !== 0;
  }

  /** The interface's first primary address; 0 = none. What REDIRECT takes for packets that came in by it. */
  primaryAddress(ifindex: number): number {
    for (const address of this.links.get(ifindex)?.addresses ?? []) if (!address.secondary) return address.local;
    return 0;
  }

  /**
   * inet_select_addr() at universe scope: the interface's first primary address in the subnet of `nextHop`, else its
   * first primary one of wide enough scope, else another interface's; 0 = none.
   */
  selectAddress(ifindex: number, nextHop: number): number {
    let first = 0;
    for (const address of this.links.get(ifindex)?.addresses ?? []) {
      if (address.secondary || address.scope > 0) continue;
      if (inSubnet(nextHop, address)) return address.local;
      if (first === 0) first = address.local;
    }
    if (first !== 0) return first;
    for (const link of this.links.values())
      for (const address of link.addresses)
        if (!address.secondary && address.scope !== Scope.LINK && address.scope <= 0) return address.local;
    return 0;
  }

  /** The mask of the interface's primary address whose broadcast address this is; 0 = none. */
  broadcastMask(ifindex: number, broadcast: number): number {
    for (const own of this.links.get(ifindex)?.addresses ?? []) {
      if (!own.secondary && own.broadcast === broadcast)
        return own.prefixLength === 0 ? 0 : -1 << (32 - own.prefixLength);
    }
    return 0;
  }

  /** Whether the interface has this very address; on the loopback interface, whether it lies in one of its subnets. */
  has(ifindex: number, address: number): boolean {
    for (const own of this.links.get(ifindex)?.addresses ?? []) {
      if (own.local === address || (own.scope === Scope.HOST && inSubnet(address, own))) return true;
    }
    return false;
  }

  /** Whether some interface has this very address. */
  isOwn(address: number): boolean {
    for (const link of this.links.values()) for (const own of link.addresses) if (own.local === address) return true;
    return false;
  }
}

function inSubnet(address: number, of: InterfaceAddress): boolean {
  if (of.prefixLength === 0) return true;
  return (address ^ of.address) >>> (32 - of.prefixLength) === 0;
}

/** Packs an interface's name (at most 15 bytes, Latin-1) into four big-endian words at `offset`. */
export function packName(name: string, words: Int32Array, offset: number): void {
  for (let i = 0; i < NAME_WORDS; i++) {
    let word = 0;
    for (let j = 0; j < 4; j++) word = (word << 8) | (name.charCodeAt(i * 4 + j) & 0xff || 0);
    words[offset + i] = word;
  }
}
