/**
 * PPTP's control connection (RFC 2637; net/netfilter/nf_conntrack_pptp.c, nf_nat_pptp.c): client (PNS) and server (PAC) tell each
 * other a call's two ids, by which GRE packets of the call are known. What is remembered of a connection lies in its helper data
 * (Data); as in the kernel it is one call at a time, and the client is who connects.
 */
import { u16, u32, u8 } from '../../wire/bytes.js';

/** Words of the helper data. Two ids in a word: the client's << 16 | the server's. */
export const enum Data {
  /** Session | Call << 8 */
  STATE = 0,
  /** As the server knows them: NAT gives the client's a new number. */
  CALLS = 1,
  /** As the client knows them. */
  NAT_CALLS = 2,
  /** Of the call's GRE packets, source << 16 | destination, by direction; meaningful while LISTED (gre.ts). */
  KEYS = 3,
  LISTED = 5,
  NEXT = 6,
}

const enum Session {
  NONE = 0,
  ERROR = 1,
  STOP_REQUESTED = 2,
  REQUESTED = 3,
  CONFIRMED = 4,
}
const enum Call {
  NONE = 0,
  OUT_REQUESTED = 2,
  OUT_CONFIRMED = 3,
  IN_REQUESTED = 4,
  IN_REPLIED = 5,
  IN_CONFIRMED = 6,
  CLEAR_REQUESTED = 7,
}
export const enum Message {
  START_REQUEST = 1,
  START_REPLY = 2,
  STOP_REQUEST = 3,
  STOP_REPLY = 4,
  ECHO_REQUEST = 5,
  ECHO_REPLY = 6,
  OUT_CALL_REQUEST = 7,
  OUT_CALL_REPLY = 8,
  IN_CALL_REQUEST = 9,
  IN_CALL_REPLY = 10,
  IN_CALL_CONNECT = 11,
  CALL_CLEAR = 12,
  CALL_DISCONNECT = 13,
  WAN_ERROR = 14,
  SET_LINK = 15,
}
/** The least bytes behind the headers, by Message. */
const SIZES = [0, 144, 144, 4, 4, 0, 0, 156, 20, 208, 12, 16, 4, 136, 28, 12];

const PACKET_TYPE = 2;
const COOKIE = 4;
const MESSAGE = 8;
/** Offset of the message's own fields in the payload. */
export const BODY = 12;
const CONTROL = 1;
const MAGIC = 0x1a2b3c4d;
const OK = 1;

/** The Message in a payload bytes[start, end); 0: none that counts. */
export function messageOf(bytes: Uint8Array, start: number, end: number): number {
  if (end - start < BODY || u16(bytes, start + PACKET_TYPE) !== CONTROL || u32(bytes, start + COOKIE) !== MAGIC)
    return 0;
  const message = u16(bytes, start + MESSAGE);
  return message <= Message.SET_LINK && end - start - BODY >= SIZES[message]! ? message : 0;
}

/** What a message leads to. */
export const enum Outcome {
  /** It has no place here, and is left as it is. */
  INVALID = 0,
  VALID = 1,
  /** The call's GRE packets are to be expected. */
  CALL = 2,
  /** The call is over. */
  END = 3,
}

const session = (w: Int32Array, at: number): Session => w[at + Data.STATE]! & 0xff;
const call = (w: Int32Array, at: number): Call => w[at + Data.STATE]! >> 8;
const move = (w: Int32Array, at: number, s: Session, c: Call): void => void (w[at + Data.STATE] = s | (c << 8));
export const clientCall = (calls: number): number => calls >>> 16;
export const serverCall = (calls: number): number => calls & 0xffff;
export const setClientCall = (w: Int32Array, at: number, id: number): void =>
  void (w[at] = (w[at]! & 0xffff) | (id << 16));
const setServerCall = (w: Int32Array, at: number, id: number): void => void (w[at] = (w[at]! & ~0xffff) | id);

/** The client's `message`, its fields at bytes[o …], moves the state in w[at …]. */
export function fromClient(w: Int32Array, at: number, message: Message, bytes: Uint8Array, o: number): Outcome {
  const s = session(w, at);
  const c = call(w, at);
  switch (message) {
    case Message.START_REQUEST:
      if (s !== Session.NONE) return Outcome.INVALID;
      move(w, at, Session.REQUESTED, c);
      return Outcome.VALID;
    case Message.STOP_REQUEST:
      move(w, at, Session.STOP_REQUESTED, c);
      return Outcome.VALID;
    case Message.OUT_CALL_REQUEST:
      if (s !== Session.CONFIRMED) return Outcome.INVALID;
      move(w, at, s, Call.OUT_REQUESTED);
      setClientCall(w, at + Data.CALLS, u16(bytes, o));
      return Outcome.VALID;
    case Message.IN_CALL_REPLY:
      if (c !== Call.IN_REQUESTED && c !== Call.IN_REPLIED) return Outcome.INVALID;
      if (u16(bytes, o + 2) !== serverCall(w[at + Data.CALLS]!)) return Outcome.INVALID;
      if (u8(bytes, o + 4) === OK) {
        move(w, at, s, Call.IN_REPLIED);
        setClientCall(w, at + Data.CALLS, u16(bytes, o));
      } else move(w, at, s, Call.NONE);
      return Outcome.VALID;
    case Message.CALL_CLEAR:
      if (s !== Session.CONFIRMED) return Outcome.INVALID;
      move(w, at, s, Call.CLEAR_REQUESTED);
      return Outcome.VALID;
    case Message.SET_LINK:
    case Message.ECHO_REQUEST:
    case Message.ECHO_REPLY:
      return Outcome.VALID;
    default:
      return Outcome.INVALID;
  }
}

/** The same for the server's. */
export function fromServer(w: Int32Array, at: number, message: Message, bytes: Uint8Array, o: number): Outcome {
  const s = session(w, at);
  const c = call(w, at);
  const client = clientCall(w[at + Data.CALLS]!);
  switch (message) {
    case Message.START_REPLY:
      if (s < Session.REQUESTED) return Outcome.INVALID;
      move(w, at, u8(bytes, o + 2) === OK ? Session.CONFIRMED : Session.ERROR, c);
      return Outcome.VALID;
    case Message.STOP_REPLY:
      if (s > Session.STOP_REQUESTED) return Outcome.INVALID;
      move(w, at, u8(bytes, o) === OK ? Session.NONE : Session.ERROR, c);
      return Outcome.VALID;
    case Message.OUT_CALL_REPLY:
      if (s !== Session.CONFIRMED || (c !== Call.OUT_REQUESTED && c !== Call.OUT_CONFIRMED)) return Outcome.INVALID;
      if (u16(bytes, o + 2) !== client) return Outcome.INVALID;
      if (u8(bytes, o + 4) !== OK) {
        move(w, at, s, Call.NONE);
        return Outcome.VALID;
      }
      move(w, at, s, Call.OUT_CONFIRMED);
      setServerCall(w, at + Data.CALLS, u16(bytes, o));
      return Outcome.CALL;
    case Message.IN_CALL_REQUEST:
      if (s !== Session.CONFIRMED) return Outcome.INVALID;
      move(w, at, s, Call.IN_REQUESTED);
      setServerCall(w, at + Data.CALLS, u16(bytes, o));
      return Outcome.VALID;
    case Message.IN_CALL_CONNECT:
      if (s !== Session.CONFIRMED || (c !== Call.IN_REPLIED && c !== Call.IN_CONFIRMED)) return Outcome.INVALID;
      if (u16(bytes, o) !== client) return Outcome.INVALID;
      move(w, at, s, Call.IN_CONFIRMED);
      return Outcome.CALL;
    case Message.CALL_DISCONNECT:
      move(w, at, s, Call.NONE);
      return Outcome.END;
    case Message.WAN_ERROR:
    case Message.SET_LINK:
    case Message.ECHO_REQUEST:
    case Message.ECHO_REPLY:
      return Outcome.VALID;
    default:
      return Outcome.INVALID;
  }
}

/** Where in the client's message the client's id stands, from its fields' beginning; −1: nowhere. */
export const ownIdAt = (message: Message): number =>
  message === Message.OUT_CALL_REQUEST || message === Message.IN_CALL_REPLY || message === Message.CALL_CLEAR ? 0 : -1;

/** Where in the server's message the client's id stands. */
export function peersIdAt(message: Message): number {
  switch (message) {
    case Message.OUT_CALL_REPLY:
      return 2;
    case Message.IN_CALL_CONNECT:
    case Message.WAN_ERROR:
    case Message.CALL_DISCONNECT:
    case Message.SET_LINK:
      return 0;
    default:
      return -1;
  }
}
