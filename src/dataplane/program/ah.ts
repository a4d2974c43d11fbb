/**
 * -m ah, -m esp and -m ipcomp (net/ipv4/netfilter/ipt_ah.c, net/netfilter/xt_esp.c, xt_ipcomp.c): MIN MAX of the SPI (of
 * IPComp's CPI), unsigned, and INVERT. AH's header is 12 bytes with the SPI at 4, ESP's 8 with the SPI first, IPComp's 4
 * with 16 bits of CPI at 2; less is an impossible packet.
 */
import type { Packet } from '../packet.js';
import { u16, u32 } from '../wire/bytes.js';
import { argument, rangeText, type Op } from './op.js';

export const encodeSpi = (min: number, max: number, invert: boolean): number[] => [min | 0, max | 0, invert ? 1 : 0];

const AH_HEADER = 12;
const AH_SPI = 4;
const ESP_HEADER = 8;
const ESP_SPI = 0;
const IPCOMP_HEADER = 4;
const IPCOMP_CPI = 2;

const spiWithin = (program: Int32Array, at: number, spi: number): boolean =>
  (spi >= program[at]! >>> 0 && spi <= program[at + 1]! >>> 0) !== (program[at + 2]! !== 0);

export function matchAh(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < AH_HEADER) {
    p.hotdrop = 1;
    return false;
  }
  return spiWithin(program, at, u32(p.bytes, p.l4 + AH_SPI) >>> 0);
}

export function matchEsp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < ESP_HEADER) {
    p.hotdrop = 1;
    return false;
  }
  return spiWithin(program, at, u32(p.bytes, p.l4 + ESP_SPI) >>> 0);
}

export function matchIpcomp(program: Int32Array, at: number, p: Packet): boolean {
  if (p.fragOffset !== 0) return false;
  if (p.l4Length < IPCOMP_HEADER) {
    p.hotdrop = 1;
    return false;
  }
  return spiWithin(program, at, u16(p.bytes, p.l4 + IPCOMP_CPI));
}

const spi = (name: string): Op => ({
  name,
  words: 3,
  text: (a) => `${argument(a, 2) ? '! ' : ''}spi ${rangeText(argument(a, 0) >>> 0, argument(a, 1) >>> 0)}`,
});
export const ah = spi('ah');
export const esp = spi('esp');
export const ipcomp = spi('ipcomp');
