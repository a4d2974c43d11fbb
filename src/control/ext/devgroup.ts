/** -m devgroup: the groups of the interfaces. (libxt_devgroup.c, xt_devgroup.c; ip-link(8) `group`) */
import { Hook } from '../../dataplane/names.js';
import { idOf, nameOf } from '../maps.js';
import { problem } from '../text/problem.js';
import { bang, formatValueMask, parseValueMask, type ArgType } from './args.js';
import { defineMatch, option } from './record.js';

type Group = { value: number; mask: number; invert: boolean } | null;

export interface DevgroupData {
  source: Group;
  destination: Group;
}

const FILE = '/etc/iproute2/group';
const groupMask: ArgType<{ value: number; mask: number }> = {
  about: 'value[/mask] or a name',
  parse: (call) => parseValueMask(call, (name) => idOf(FILE, name)),
};

function text(group: Group, name: string, numeric: boolean): string {
  if (group === null) return '';
  const known = numeric || group.mask !== -1 ? undefined : nameOf(FILE, group.value >>> 0);
  return `${bang(group.invert)} ${name}${known === undefined ? formatValueMask(group.value, group.mask) : ` ${known}`}`;
}

export const devgroup = defineMatch<DevgroupData>({
  name: 'devgroup',
  init: () => ({ source: null, destination: null }),
  options: [
    option({
      name: 'src-group',
      arg: groupMask,
      invert: true,
      set: (data, group, { invert }) => {
        data.source = { ...group, invert };
      },
    }),
    option({
      name: 'dst-group',
      arg: groupMask,
      invert: true,
      set: (data, group, { invert }) => {
        data.destination = { ...group, invert };
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem("devgroup match: You must specify either '--src-group' or '--dst-group'");
  },
  save: ({ source, destination }) => text(source, '--src-group', false) + text(destination, '--dst-group', false),
  print: ({ source, destination }, { numeric }) =>
    text(source, 'src-group', numeric) + text(destination, 'dst-group', numeric),
  help: `devgroup match options:
[!] --src-group value[/mask]	Match device group of incoming device
[!] --dst-group value[/mask]	Match device group of outgoing device
`,
  check: ({ source, destination }, { hooks }) => {
    if (source && hooks & ((1 << Hook.OUTPUT) | (1 << Hook.POSTROUTING)))
      return { errno: 'EINVAL', reason: 'devgroup: no incoming interface in OUTPUT and POSTROUTING' };
    if (destination && hooks & ((1 << Hook.PREROUTING) | (1 << Hook.INPUT)))
      return { errno: 'EINVAL', reason: 'devgroup: no outgoing interface in PREROUTING and INPUT' };
    return undefined;
  },
  cannot: () => 'the groups of interfaces are not followed',
});
