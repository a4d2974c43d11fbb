/** -m realm: the realm of the route that the packet takes. (libipt_realm.c, xt_realm.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import { encodeRealm } from '../../dataplane/program/realm.js';
import { idOf, nameOf } from '../maps.js';
import { bang, formatValueMask, parseValueMask, type ArgType } from './args.js';
import { defineMatch, option } from './record.js';

export interface RealmData {
  id: number;
  mask: number;
  invert: boolean;
}

const FILE = '/etc/iproute2/rt_realms';
const realmMask: ArgType<{ value: number; mask: number }> = {
  about: 'value[/mask] or a name',
  parse: (call) => parseValueMask(call, (name) => idOf(FILE, name)),
};

function text({ id, mask }: RealmData, numeric: boolean): string {
  const name = numeric || mask !== -1 ? undefined : nameOf(FILE, id >>> 0);
  return name === undefined ? formatValueMask(id, mask) : ` ${name}`;
}

export const realm = defineMatch<RealmData>({
  name: 'realm',
  hooks: ['INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING'],
  init: () => ({ id: 0, mask: 0, invert: false }),
  options: [
    option({
      name: 'realm',
      arg: realmMask,
      invert: true,
      mandatory: true,
      set: (data, { value, mask }, { invert }) => {
        data.id = value;
        data.mask = mask;
        data.invert = invert;
      },
    }),
  ],
  save: (data) => `${bang(data.invert)} --realm${text(data, false)}`,
  print: (data, { numeric }) => `${bang(data.invert)} realm${text(data, numeric)}`,
  help: `realm match options:
[!] --realm value[/mask]
				Match realm
`,
  compile: ({ id, mask, invert }, emit) => emit.test(MatchOp.REALM, encodeRealm(id, mask), invert),
});
