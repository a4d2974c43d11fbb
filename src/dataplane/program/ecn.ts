/**
 * -m ecn (net/netfilter/xt_ecn.c): OPERATION INVERT ECT. OPERATION and INVERT hold EcnTest bits; ECT is the two ECN bits
 * of the IP header to be found. The TCP bits are read where the header should be, as the kernel does, fragment or not.
 *
 * -j ECN (net/ipv4/netfilter/ipt_ECN.c): OPERATION ECT ECE CWR. OPERATION holds EcnSet bits: which of the IP header's two
 * ECN bits, TCP's ECE and CWR are set to what follows. A TCP packet whose header is cut is dropped.
 */
import { InFlag } from '../io/batch.js';
import { Proto, TcpFlag, Verdict } from '../names.js';
import { setTos } from '../nat/rewrite.js';
import type { Packet } from '../packet.js';
import { setU16, u16, u8 } from '../wire/bytes.js';
import { update16 } from '../wire/checksum.js';
import { argument, type Op } from './op.js';
import { CONTINUE } from './ops.js';

/** XT_ECN_OP_MATCH_* */
export const enum EcnTest {
  IP = 0x01,
  ECE = 0x10,
  CWR = 0x20,
}
const ECT_MASK = 3;
const TCP_HEADER = 20;
const TCP_FLAGS = 13;

export const encodeEcn = (operation: number, invert: number, ect: number): number[] => [operation, invert, ect];

export function matchEcn(program: Int32Array, at: number, p: Packet): boolean {
  const operation = program[at]!;
  const invert = program[at + 1]!;
  if ((operation & EcnTest.IP) !== 0) {
    if (((p.tos & ECT_MASK) === program[at + 2]!) === ((invert & EcnTest.IP) !== 0)) return false;
  }
  if ((operation & (EcnTest.ECE | EcnTest.CWR)) === 0) return true;
  if (p.l4Length < TCP_HEADER) return false;
  const flags = u8(p.bytes, p.l4 + TCP_FLAGS);
  if ((operation & EcnTest.ECE) !== 0 && ((flags & TcpFlag.ECE) !== 0) === ((invert & EcnTest.ECE) !== 0)) return false;
  return (operation & EcnTest.CWR) === 0 || ((flags & TcpFlag.CWR) !== 0) !== ((invert & EcnTest.CWR) !== 0);
}

export const ecn: Op = {
  name: 'ecn',
  words: 3,
  text: (a) => {
    const operation = argument(a, 0);
    const say = (bit: number, text: string): string =>
      operation & bit ? ` ${argument(a, 1) & bit ? '! ' : ''}${text}` : '';
    return (say(EcnTest.IP, `ect ${argument(a, 2)}`) + say(EcnTest.ECE, 'ece') + say(EcnTest.CWR, 'cwr')).trimStart();
  },
};

export const enum EcnSet {
  IP = 0x01,
  ECE = 0x10,
  CWR = 0x20,
}
/** Data offset, flags. */
const TCP_WORD = 12;
const TCP_CHECKSUM = 16;

export const encodeECN = (operation: number, ect: number, ece: number, cwr: number): number[] => [
  operation,
  ect,
  ece,
  cwr,
];

export function applyECN(program: Int32Array, at: number, p: Packet): number {
  const operation = program[at]!;
  if ((operation & EcnSet.IP) !== 0) setTos(p, (p.tos & ~3) | (program[at + 1]! & 3));
  if ((operation & (EcnSet.ECE | EcnSet.CWR)) === 0 || p.protocol !== Proto.TCP) return CONTINUE;
  if (p.l4Length < TCP_HEADER) return Verdict.DROP;
  const bytes = p.bytes;
  const from = u16(bytes, p.l4 + TCP_WORD);
  let to = from;
  if ((operation & EcnSet.ECE) !== 0) to = program[at + 2]! !== 0 ? to | TcpFlag.ECE : to & ~TcpFlag.ECE;
  if ((operation & EcnSet.CWR) !== 0) to = program[at + 3]! !== 0 ? to | TcpFlag.CWR : to & ~TcpFlag.CWR;
  if (to === from) return CONTINUE;
  const checksum = p.l4 + TCP_CHECKSUM;
  if ((p.flags & InFlag.CSUM_PARTIAL) === 0) setU16(bytes, checksum, update16(u16(bytes, checksum), from, to));
  setU16(bytes, p.l4 + TCP_WORD, to);
  if (p.tcpOk !== 0) p.tcpFlags = to & 0xff;
  p.changed = 1;
  return CONTINUE;
}

export const ECN: Op = {
  name: 'ECN',
  payload: true,
  words: 4,
  text: (a) => `operation ${argument(a, 0)} ect ${argument(a, 1)} ece ${argument(a, 2)} cwr ${argument(a, 3)}`,
};
