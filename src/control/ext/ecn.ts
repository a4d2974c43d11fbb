/** -m ecn and -j ECN: congestion notification in the IP and TCP headers. (libxt_ecn.c, libipt_ECN.c; RFC 3168) */
import { Proto } from '../../dataplane/names.js';
import { EcnSet, EcnTest, encodeECN, encodeEcn } from '../../dataplane/program/ecn.js';
import { MatchOp, TargetOp } from '../../dataplane/program/ops.js';
import { problem } from '../text/problem.js';
import { bang, uint8 } from './args.js';
import { defineMatch, defineTarget, option } from './record.js';

export interface EcnData {
  /** EcnTest bits. */
  operation: number;
  invert: number;
  ect: number;
}

function ask(data: EcnData, bit: EcnTest, invert: boolean): void {
  data.operation |= bit;
  if (invert) data.invert |= bit;
}

export const ecn = defineMatch<EcnData>({
  name: 'ecn',
  init: () => ({ operation: 0, invert: 0, ect: 0 }),
  options: [
    option({
      name: 'ecn-tcp-cwr',
      invert: true,
      set: (data, _value, { invert }) => {
        ask(data, EcnTest.CWR, invert);
      },
    }),
    option({
      name: 'ecn-tcp-ece',
      invert: true,
      set: (data, _value, { invert }) => {
        ask(data, EcnTest.ECE, invert);
      },
    }),
    option({
      name: 'ecn-ip-ect',
      arg: uint8(0, 3),
      invert: true,
      set: (data, ect, { invert }) => {
        ask(data, EcnTest.IP, invert);
        data.ect = ect;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('ECN match: some option required');
  },
  save: ({ operation, invert, ect }) => {
    const say = (bit: EcnTest, text: string): string =>
      operation & bit ? `${bang((invert & bit) !== 0)} --ecn-${text}` : '';
    return say(EcnTest.ECE, 'tcp-ece') + say(EcnTest.CWR, 'tcp-cwr') + say(EcnTest.IP, `ip-ect ${ect}`);
  },
  print: ({ operation, invert, ect }) => {
    const say = (bit: EcnTest, text: string): string => (operation & bit ? ` ${invert & bit ? '!' : ''}${text}` : '');
    return ` ECN match${say(EcnTest.ECE, 'ECE')}${say(EcnTest.CWR, 'CWR')}${say(EcnTest.IP, `ECT=${ect}`)}`;
  },
  help: `ECN match options
[!] --ecn-tcp-cwr 		Match CWR bit of TCP header
[!] --ecn-tcp-ece		Match ECE bit of TCP header
[!] --ecn-ip-ect [0..3]	Match ECN codepoint in IPv4/IPv6 header
`,
  check: ({ operation }, { rule }) =>
    operation & (EcnTest.ECE | EcnTest.CWR) && (rule.proto !== Proto.TCP || rule.notProto)
      ? { errno: 'EINVAL', reason: 'ecn: cannot match TCP bits for non-tcp packets' }
      : undefined,
  compile: ({ operation, invert, ect }, emit) => emit.test(MatchOp.ECN, encodeEcn(operation, invert, ect)),
});

export interface EcnTargetData {
  /** EcnSet bits. */
  operation: number;
  ect: number;
  ece: number;
  cwr: number;
}

export const ECN = defineTarget<EcnTargetData>({
  name: 'ECN',
  tables: ['mangle'],
  init: () => ({ operation: 0, ect: 0, ece: 0, cwr: 0 }),
  options: [
    option({
      name: 'ecn-tcp-remove',
      excl: ['ecn-tcp-cwr', 'ecn-tcp-ece'],
      set: (data) => {
        data.operation = EcnSet.ECE | EcnSet.CWR;
        data.ece = data.cwr = 0;
      },
    }),
    option({
      name: 'ecn-tcp-cwr',
      arg: uint8(0, 1),
      excl: ['ecn-tcp-remove'],
      set: (data, value) => {
        data.operation |= EcnSet.CWR;
        data.cwr = value;
      },
    }),
    option({
      name: 'ecn-tcp-ece',
      arg: uint8(0, 1),
      excl: ['ecn-tcp-remove'],
      set: (data, value) => {
        data.operation |= EcnSet.ECE;
        data.ece = value;
      },
    }),
    option({
      name: 'ecn-ip-ect',
      arg: uint8(0, 3),
      set: (data, value) => {
        data.operation |= EcnSet.IP;
        data.ect = value;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('ECN target: An operation is required');
  },
  save: ({ operation, ect, ece, cwr }) => {
    if (operation === (EcnSet.ECE | EcnSet.CWR) && ece === 0 && cwr === 0) return ' --ecn-tcp-remove';
    return (
      (operation & EcnSet.ECE ? ` --ecn-tcp-ece ${ece}` : '') +
      (operation & EcnSet.CWR ? ` --ecn-tcp-cwr ${cwr}` : '') +
      (operation & EcnSet.IP ? ` --ecn-ip-ect ${ect}` : '')
    );
  },
  print: ({ operation, ect, ece, cwr }) => {
    if (operation === (EcnSet.ECE | EcnSet.CWR) && ece === 0 && cwr === 0) return ' ECN TCP remove';
    return ` ECN${operation & EcnSet.ECE ? ` ECE=${ece}` : ''}${operation & EcnSet.CWR ? ` CWR=${cwr}` : ''}${
      operation & EcnSet.IP ? ` ECT codepoint=${ect}` : ''
    }`;
  },
  help: `ECN target options
  --ecn-tcp-remove		Remove all ECN bits from TCP header
`,
  check: ({ operation }, { rule }) =>
    operation & (EcnSet.ECE | EcnSet.CWR) && (rule.proto !== Proto.TCP || rule.notProto)
      ? { errno: 'EINVAL', reason: 'ECN: cannot use operation on non-tcp rule' }
      : undefined,
  compile: ({ operation, ect, ece, cwr }, emit) => emit.target(TargetOp.ECN, encodeECN(operation, ect, ece, cwr)),
});
