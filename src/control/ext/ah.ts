/**
 * -m ah, -m esp and -m ipcomp: the security parameter index of IPsec's headers. (libipt_ah.c, libxt_esp.c,
 * libxt_ipcomp.c; ipt_ah.c, xt_esp.c, xt_ipcomp.c)
 */
import { Proto } from '../../dataplane/names.js';
import { encodeSpi } from '../../dataplane/program/ah.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { bang, uint32Range } from './args.js';
import { defineMatch, option, type Option } from './record.js';

export interface SpiData {
  /** uint32. */
  min: number;
  max: number;
  invert: boolean;
}

const ANY_SPI = 0xffffffff;

const spiOption = <D extends SpiData>(name: string): Option<D> =>
  option<D, number[]>({
    name,
    arg: uint32Range(),
    invert: true,
    set: (data, values, { invert }) => {
      data.min = values[0]!;
      data.max = values[1] ?? data.min;
      if (invert) data.invert = true;
    },
  });

/** Nothing for the whole range, negated or not. */
function saveSpi({ min, max, invert }: SpiData, name: string): string {
  if (min === 0 && max === ANY_SPI) return '';
  return `${bang(invert)} --${name} ${min === max ? min : `${min}:${max}`}`;
}

function printSpi({ min, max, invert }: SpiData): string {
  if (min === 0 && max === ANY_SPI && !invert) return '';
  const not = invert ? '!' : '';
  return min === max ? `spi:${not}${min}` : `spis:${not}${min}:${max}`;
}

export const ah = defineMatch<SpiData>({
  name: 'ah',
  proto: Proto.AH,
  init: () => ({ min: 0, max: ANY_SPI, invert: false }),
  options: [spiOption('ahspi')],
  save: (data) => saveSpi(data, 'ahspi'),
  print: (data) => ` ah ${printSpi(data)}`,
  help: `ah match options:
[!] --ahspi spi[:spi]
				match spi (range)
`,
  compile: ({ min, max, invert }, emit) => emit.test(MatchOp.AH, encodeSpi(min, max, invert)),
});

export const esp = defineMatch<SpiData>({
  name: 'esp',
  proto: Proto.ESP,
  init: () => ({ min: 0, max: ANY_SPI, invert: false }),
  options: [spiOption('espspi')],
  save: (data) => saveSpi(data, 'espspi'),
  print: (data) => {
    const spi = printSpi(data);
    return spi === '' ? ' esp' : ` esp ${spi}`;
  },
  help: `esp match options:
[!] --espspi spi[:spi]
				match spi (range)
`,
  compile: ({ min, max, invert }, emit) => emit.test(MatchOp.ESP, encodeSpi(min, max, invert)),
});

export interface IpcompData extends SpiData {
  reserved: boolean;
}

export const ipcomp = defineMatch<IpcompData>({
  name: 'ipcomp',
  proto: Proto.IPCOMP,
  init: () => ({ min: 0, max: 0, invert: false, reserved: false }),
  options: [
    spiOption<IpcompData>('ipcompspi'),
    option({
      name: 'compres',
      set: (data) => {
        data.reserved = true;
      },
    }),
  ],
  save: (data) => saveSpi(data, 'ipcompspi') + (data.reserved ? ' --compres' : ''),
  print: (data) => ` comp ${printSpi(data)}${data.reserved ? ' reserved' : ''}`,
  help: `comp match options:
[!] --ipcompspi spi[:spi]
				match spi (range)
`,
  compile: ({ min, max, invert }, emit) => emit.test(MatchOp.IPCOMP, encodeSpi(min, max, invert)),
});
