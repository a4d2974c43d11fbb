/**
 * UDP and UDP-Lite (net/netfilter/nf_conntrack_proto_udp.c). A flow that has seen an answer and is still active two
 * seconds after its beginning is a stream: assured, with the longer timeout. For UDP-Lite any answer makes it one.
 * Its word: STREAM_TIME, the time after which it counts as a stream.
 */
import type { Packet } from '../packet.js';
import { fold, pseudoSum, sum, transportChecksumOk } from '../wire/checksum.js';
import { u16 } from '../wire/bytes.js';
import { Proto } from '../names.js';
import { Change } from './events.js';
import { Outcome } from './outcome.js';
import { Setting } from './settings.js';
import { Status } from './states.js';
import { Ct } from './layout.js';
import type { ConntrackTable } from './table.js';

const STREAM_TIME = Ct.PROTO;
const STREAM_AFTER_MS = 2000;

const LENGTH = 4;
const CHECKSUM = 6;
const HEADER = 8;

/** @param verify whether the checksum is to be verified */
export function udpPacket(t: ConntrackTable, p: Packet, entry: number, dir: number, verify: boolean): Outcome {
  if (p.l4Length < HEADER) return Outcome.INVALID;
  const length = u16(p.bytes, p.l4 + LENGTH);
  if (length > p.l4Length || length < HEADER) return Outcome.INVALID;
  if (verify && !transportChecksumOk(p.bytes, p.start, p.l4, p.end, Proto.UDP)) return Outcome.INVALID;

  const w = t.words;
  const e = t.at(entry);
  const status = w[e + Ct.STATUS]!;
  if ((status & Status.CONFIRMED) === 0) w[e + STREAM_TIME] = (t.now + STREAM_AFTER_MS) | 0;
  let timeout = t.setting(Setting.UDP_TIMEOUT);
  let stream = false;
  if ((status & Status.SEEN_REPLY) !== 0 && ((t.now - w[e + STREAM_TIME]!) | 0) > 0) {
    timeout = t.setting(Setting.UDP_TIMEOUT_STREAM);
    stream = (status & (Status.ASSURED | Status.NAT_CLASH)) === 0;
  }
  t.refresh(entry, timeout);
  t.accountPacket(entry, dir, p.length);
  if (stream && !t.setStatus(entry, Status.ASSURED)) t.pendingEvents |= Change.ASSURED;
  return Outcome.ACCEPT;
}

export function udpLitePacket(t: ConntrackTable, p: Packet, entry: number, dir: number, verify: boolean): Outcome {
  if (p.l4Length < HEADER) return Outcome.INVALID;
  let coverage = u16(p.bytes, p.l4 + LENGTH);
  if (coverage === 0) coverage = p.l4Length;
  else if (coverage < HEADER || coverage > p.l4Length) return Outcome.INVALID;
  // RFC 3828 §3.1: the checksum is mandatory.
  if (u16(p.bytes, p.l4 + CHECKSUM) === 0) return Outcome.INVALID;
  if (verify) {
    // The kernel sums with UDP's protocol number, so that no checksum which it has to verify is right.
    const pseudo = pseudoSum(p.src, p.dst, Proto.UDP, p.l4Length);
    if (fold(sum(p.bytes, p.l4, p.l4 + coverage, pseudo)) !== 0xffff) return Outcome.INVALID;
  }

  const status = t.words[t.at(entry) + Ct.STATUS]!;
  const replied = (status & Status.SEEN_REPLY) !== 0;
  t.refresh(entry, t.setting(replied ? Setting.UDP_TIMEOUT_STREAM : Setting.UDP_TIMEOUT));
  t.accountPacket(entry, dir, p.length);
  if (replied && (status & Status.NAT_CLASH) === 0 && !t.setStatus(entry, Status.ASSURED)) {
    t.pendingEvents |= Change.ASSURED;
  }
  return Outcome.ACCEPT;
}
