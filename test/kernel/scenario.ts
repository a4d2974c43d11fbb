/**
 * A scenario is data: a ruleset and a list of events, each a packet or several put before both routers, or a command. What
 * depends on a router's free choice is symbolic: an answer goes to where the flow's last packet came out, an error quotes it as
 * it came out, an ftp data connection goes where the command that came out says.
 */
import type { PacketSpec } from './packets.js';

interface Common {
  /** Stays with the event when others are shrunk away. */
  id: number;
}

/** Packet `flow`, one way or the other. */
export interface PacketEvent extends Common {
  kind: 'packet';
  flow: number;
  /** 0: from the flow's beginner, sent as written; 1: an answer, its ends those of what came out, reversed. */
  way: 0 | 1;
  /** Where it goes in, unless it is an answer and the flow was seen elsewhere. 255: from the router itself. */
  port: number;
  packet: PacketSpec;
  /**
   * Sent as fragments of at most so many payload bytes, in this order (indexes; missing ones are left out); each begins
   * `overlap` bytes before the end of the one before it.
   */
  fragments?: { size: number; order: number[]; overlap?: number };
  /** Addressed on its link to everybody, or to a group; else to the router. */
  link?: LinkType;
}

export type LinkType = 'broadcast' | 'multicast';

/** An ICMP error about what came out for event `about` (if nothing did, about what went in). */
export interface ErrorEvent extends Common {
  kind: 'error';
  about: number;
  type: number;
  code: number;
  rest: number;
  /** Who says it: the quoted packet's destination, or a router on its way. */
  from: 'end' | 'hop';
  /** So many bytes are quoted. */
  length: number;
  /** Added to the error's own checksum. */
  checksum?: number;
  /** XORed into the quote's source address. */
  damage?: number;
}

/**
 * The first packet of an expected connection, to where the command that event `about` sent says (ftp, irc), or whence that
 * datagram came (tftp).
 */
export interface DataEvent extends Common {
  kind: 'data';
  about: number;
  flow: number;
  /** Where it goes in, and its source, when no command came out. */
  port: number;
  packet: PacketSpec;
}

/** The administrator does the same on both. */
export interface CommandEvent extends Common {
  kind: 'command';
  program: 'iptables' | 'iptables-restore' | 'conntrack' | 'sysctl';
  argv: string[];
  stdin?: string;
}

export type Event = PacketEvent | ErrorEvent | DataEvent | CommandEvent;

export interface Scenario {
  seed: number;
  rules: string;
  events: Event[];
}
