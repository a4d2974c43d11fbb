/** -m owner: the user and group of the sending socket. (libxt_owner.c revision 1, xt_owner.c) */
import { encodeOwner, OwnerTest } from '../../dataplane/program/owner.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { idOfName, nameOfId, type Accounts } from '../accounts.js';
import { prefixNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { badValue, bang, string } from './args.js';
import { defineMatch, option } from './record.js';

/** XT_OWNER_SUPPL_GROUPS, which the data plane can't look at. */
const SUPPL_GROUPS = 1 << 3;
/** −1 is nobody's id. */
const MAX_ID = 0xfffffffe;

export interface OwnerData {
  /** OwnerTest bits and SUPPL_GROUPS. */
  match: number;
  invert: number;
  /** First and last, uint32. */
  uid: [number, number];
  gid: [number, number];
}

/** A name, an id, or two ids with - or : between. */
function parseIds(accounts: Accounts, text: string, option: string): [number, number] {
  const id = idOfName(accounts, text);
  if (id !== undefined) return [id, id];
  const read = (part: string): { value: number; rest: string } => {
    const found = prefixNumber(part, 0, MAX_ID) ?? badValue('owner', option, text);
    return { value: found.value, rest: part.slice(found.end) };
  };
  const first = read(text);
  if (first.rest === '') return [first.value, first.value];
  if (!/^[-:]/.test(first.rest)) badValue('owner', option, text);
  const last = read(first.rest.slice(1));
  return last.rest === '' ? [first.value, last.value] : badValue('owner', option, text);
}

function item(data: OwnerData, label: string, bit: number, numeric: boolean): string {
  if (!(data.match & bit)) return '';
  const name = `${bang((data.invert & bit) !== 0)} ${label}`;
  if (bit !== OwnerTest.UID && bit !== OwnerTest.GID) return name;
  const [first, last] = bit === OwnerTest.UID ? data.uid : data.gid;
  if (first !== last) return `${name} ${first}-${last}`;
  const known = numeric ? undefined : nameOfId(bit === OwnerTest.UID ? '/etc/passwd' : '/etc/group', first);
  return `${name} ${known ?? first}`;
}

export const owner = defineMatch<OwnerData>({
  name: 'owner',
  revision: 1,
  hooks: ['OUTPUT', 'POSTROUTING'],
  init: () => ({ match: 0, invert: 0, uid: [0, 0], gid: [0, 0] }),
  options: [
    option({
      name: 'uid-owner',
      arg: string(),
      invert: true,
      set: (data, text, { invert }) => {
        data.uid = parseIds('/etc/passwd', text, '--uid-owner');
        data.match |= OwnerTest.UID;
        if (invert) data.invert |= OwnerTest.UID;
      },
    }),
    option({
      name: 'gid-owner',
      arg: string(),
      invert: true,
      set: (data, text, { invert }) => {
        data.gid = parseIds('/etc/group', text, '--gid-owner');
        data.match |= OwnerTest.GID;
        if (invert) data.invert |= OwnerTest.GID;
      },
    }),
    option({
      name: 'socket-exists',
      invert: true,
      set: (data, _value, { invert }) => {
        data.match |= OwnerTest.SOCKET;
        if (invert) data.invert |= OwnerTest.SOCKET;
      },
    }),
    option({
      name: 'suppl-groups',
      set: (data) => {
        if (!(data.match & OwnerTest.GID)) badValue('owner', '--suppl-groups', 'you need to use --gid-owner first');
        data.match |= SUPPL_GROUPS;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (seen.size === 0) problem('owner: At least one of --uid-owner, --gid-owner or --socket-exists is required');
  },
  save: (data) =>
    item(data, '--socket-exists', OwnerTest.SOCKET, true) +
    item(data, '--uid-owner', OwnerTest.UID, true) +
    item(data, '--gid-owner', OwnerTest.GID, true) +
    item(data, '--suppl-groups', SUPPL_GROUPS, true),
  print: (data, { numeric }) =>
    item(data, 'owner socket exists', OwnerTest.SOCKET, numeric) +
    item(data, 'owner UID match', OwnerTest.UID, numeric) +
    item(data, 'owner GID match', OwnerTest.GID, numeric) +
    item(data, 'incl. suppl. groups', SUPPL_GROUPS, numeric),
  help: `owner match options:
[!] --uid-owner userid[-userid]      Match local UID
[!] --gid-owner groupid[-groupid]    Match local GID
[!] --socket-exists                  Match if socket exists
    --suppl-groups                   Also match supplementary groups set with --gid-owner
`,
  check: ({ match, uid, gid }) => {
    if ((match & OwnerTest.UID && uid[1] < uid[0]) || (match & OwnerTest.GID && gid[1] < gid[0]))
      return { errno: 'EINVAL', reason: 'owner: the range of ids ends before it begins' };
    return undefined;
  },
  cannot: ({ match }) =>
    match & SUPPL_GROUPS
      ? '--suppl-groups needs the groups of the sending process, which the queue does not tell'
      : undefined,
  compile: ({ match, invert, uid, gid }, emit) =>
    emit.test(MatchOp.OWNER, encodeOwner(match, invert, uid[0], uid[1], gid[0], gid[1])),
});
