/** -m physdev: the ports of a bridge that a packet came and goes by. (libxt_physdev.c, xt_physdev.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodePhysdev, PhysdevTest } from '../../dataplane/program/physdev.js';
import { Hook } from '../../dataplane/names.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option, type OptionCall } from './record.js';

export interface PhysdevData {
  in: string;
  out: string;
  /** PhysdevTest bits: what is asked, and what of it is negated. */
  asked: number;
  invert: number;
}

const MAX_NAME = 15;

/** xtables_parse_interface. */
function portName(name: string, { warn }: OptionCall<PhysdevData>): string {
  if (name.length > MAX_NAME) problem(`interface name \`${name}' must be shorter than IFNAMSIZ (${MAX_NAME})`);
  if (/[/ ]/.test(name))
    warn(`Warning: weird character in interface \`${name}' ('/' and ' ' are not allowed by the kernel).\n`);
  return name;
}

function ask(data: PhysdevData, bit: PhysdevTest, invert: boolean): void {
  data.asked |= bit;
  if (invert) data.invert |= bit;
}

function text(data: PhysdevData): string {
  const say = (bit: PhysdevTest, name: string, value = ''): string =>
    data.asked & bit ? `${bang((data.invert & bit) !== 0)} --physdev-${name}${value}` : '';
  return (
    say(PhysdevTest.IS_IN, 'is-in') +
    say(PhysdevTest.IN, 'in', ` ${data.in}`) +
    say(PhysdevTest.IS_OUT, 'is-out') +
    say(PhysdevTest.OUT, 'out', ` ${data.out}`) +
    say(PhysdevTest.BRIDGED, 'is-bridged')
  );
}

export const physdev = defineMatch<PhysdevData>({
  name: 'physdev',
  init: () => ({ in: '', out: '', asked: 0, invert: 0 }),
  options: [
    option({
      name: 'physdev-in',
      arg: string(),
      invert: true,
      set: (data, name, call) => {
        data.in = portName(name, call);
        ask(data, PhysdevTest.IN, call.invert);
      },
    }),
    option({
      name: 'physdev-out',
      arg: string(),
      invert: true,
      set: (data, name, call) => {
        data.out = portName(name, call);
        ask(data, PhysdevTest.OUT, call.invert);
      },
    }),
    option({
      name: 'physdev-is-in',
      invert: true,
      set: (data, _value, { invert }) => {
        ask(data, PhysdevTest.IS_IN, invert);
      },
    }),
    option({
      name: 'physdev-is-out',
      invert: true,
      set: (data, _value, { invert }) => {
        ask(data, PhysdevTest.IS_OUT, invert);
      },
    }),
    option({
      name: 'physdev-is-bridged',
      invert: true,
      set: (data, _value, { invert }) => {
        ask(data, PhysdevTest.BRIDGED, invert);
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('PHYSDEV: no physdev option specified');
  },
  save: text,
  print: (data) => ` PHYSDEV match${text(data)}`,
  help: `physdev match options:
 [!] --physdev-in inputname[+]		bridge port name ([+] for wildcard)
 [!] --physdev-out outputname[+]	bridge port name ([+] for wildcard)
 [!] --physdev-is-in			arrived on a bridge device
 [!] --physdev-is-out			will leave on a bridge device
 [!] --physdev-is-bridged		it's a bridged packet
`,
  check: ({ asked, invert }, { hooks }) =>
    asked & (PhysdevTest.OUT | PhysdevTest.IS_OUT) &&
    (!(asked & PhysdevTest.BRIDGED) || invert & PhysdevTest.BRIDGED) &&
    hooks & (1 << Hook.OUTPUT)
      ? {
          errno: 'EINVAL',
          reason:
            'physdev: using --physdev-out and --physdev-is-out are only supported in the FORWARD and POSTROUTING ' +
            'chains with bridged traffic',
        }
      : undefined,
  compile: (data, emit) => emit.test(MatchOp.PHYSDEV, encodePhysdev(data.asked, data.invert, data.in, data.out)),
});
