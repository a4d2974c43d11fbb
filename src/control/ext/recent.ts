/** -m recent: lists of addresses seen lately. (libxt_recent.c revision 1, xt_recent.c) */
import { MatchOp } from '../../dataplane/program/ops.js';
import {
  encodeRecent,
  initRecent,
  recentMask,
  LIST_ADDRESSES,
  MAX_HITS,
  RecentSide,
  recentStamps,
  recentWords,
} from '../../dataplane/program/recent.js';
import { formatAddress } from '../text/address.js';
import { problem } from '../text/problem.js';
import { bang, host, string, uint32 } from './args.js';
import { defineMatch, option } from './record.js';

/** XT_RECENT_*: what a use does. */
export const enum RecentOp {
  CHECK = 1 << 0,
  SET = 1 << 1,
  UPDATE = 1 << 2,
  REMOVE = 1 << 3,
  TTL = 1 << 4,
  REAP = 1 << 5,
}

export interface RecentData {
  /** RecentOp bits. */
  ops: number;
  invert: boolean;
  /** 0 = any age. */
  seconds: number;
  /** 0 = any number. */
  hitCount: number;
  name: string;
  side: 'source' | 'dest';
  mask: number;
}

const ANY_OP = ['set', 'rcheck', 'update', 'remove'];

const operation = (name: string, op: RecentOp) =>
  option<RecentData>({
    name,
    invert: true,
    excl: ANY_OP,
    set: (data, _value, { invert }) => {
      data.ops |= op;
      if (invert) data.invert = true;
    },
  });

export const recent = defineMatch<RecentData>({
  name: 'recent',
  revision: 1,
  init: () => ({ ops: 0, invert: false, seconds: 0, hitCount: 0, name: 'DEFAULT', side: 'source', mask: -1 }),
  options: [
    operation('set', RecentOp.SET),
    operation('rcheck', RecentOp.CHECK),
    operation('update', RecentOp.UPDATE),
    operation('remove', RecentOp.REMOVE),
    option({
      name: 'seconds',
      arg: uint32(1),
      set: (data, seconds) => {
        data.seconds = seconds;
      },
    }),
    option({
      name: 'reap',
      also: ['seconds'],
      set: (data) => {
        data.ops |= RecentOp.REAP;
      },
    }),
    option({
      name: 'hitcount',
      arg: uint32(),
      set: (data, hits) => {
        data.hitCount = hits;
      },
    }),
    option({
      name: 'rttl',
      excl: ['set', 'remove'],
      set: (data) => {
        data.ops |= RecentOp.TTL;
      },
    }),
    option({
      name: 'name',
      arg: string({ size: 200 }),
      set: (data, name) => {
        data.name = name;
      },
    }),
    option({
      name: 'rsource',
      set: (data) => {
        data.side = 'source';
      },
    }),
    option({
      name: 'rdest',
      set: (data) => {
        data.side = 'dest';
      },
    }),
    option({
      name: 'mask',
      arg: host,
      set: (data, mask) => {
        data.mask = mask;
      },
    }),
  ],
  finalCheck: (_data, seen) => {
    if (!ANY_OP.some((id) => seen.has(id)))
      problem("recent: you must specify one of `--set', `--rcheck' `--update' or `--remove'");
  },
  save: (data) => {
    const { ops, seconds, hitCount } = data;
    let text = bang(data.invert);
    if (ops & RecentOp.SET) text += ' --set';
    if (ops & RecentOp.CHECK) text += ' --rcheck';
    if (ops & RecentOp.UPDATE) text += ' --update';
    if (ops & RecentOp.REMOVE) text += ' --remove';
    if (seconds) text += ` --seconds ${seconds | 0}`;
    if (ops & RecentOp.REAP) text += ' --reap';
    if (hitCount) text += ` --hitcount ${hitCount | 0}`;
    if (ops & RecentOp.TTL) text += ' --rttl';
    return `${text} --name ${data.name} --mask ${formatAddress(data.mask)} --r${data.side}`;
  },
  print: (data) => {
    const { ops, seconds, hitCount } = data;
    let text = `${bang(data.invert)} recent:`;
    if (ops & RecentOp.SET) text += ' SET';
    if (ops & RecentOp.CHECK) text += ' CHECK';
    if (ops & RecentOp.UPDATE) text += ' UPDATE';
    if (ops & RecentOp.REMOVE) text += ' REMOVE';
    if (seconds) text += ` seconds: ${seconds | 0}`;
    if (ops & RecentOp.REAP) text += ' reap';
    if (hitCount) text += ` hit_count: ${hitCount | 0}`;
    if (ops & RecentOp.TTL) text += ' TTL-Match';
    return `${text} name: ${data.name} side: ${data.side} mask: ${formatAddress(data.mask)}`;
  },
  help: `recent match options:
[!] --set                       Add source address to list, always matches.
[!] --rcheck                    Match if source address in list.
[!] --update                    Match if source address in list, also update last-seen time.
[!] --remove                    Match if source address in list, also removes that address from list.
    --seconds seconds           For check and update commands above.
                                Specifies that the match will only occur if source address last seen within
                                the last 'seconds' seconds.
    --reap                      Purge entries older then 'seconds'.
                                Can only be used in conjunction with the seconds option.
    --hitcount hits             For check and update commands above.
                                Specifies that the match will only occur if source address seen hits times.
                                May be used in conjunction with the seconds option.
    --rttl                      For check and update commands above.
                                Specifies that the match will only occur if the source address and the TTL
                                match between this packet and the one which was set.
                                Useful if you have problems with people spoofing their source address in order
                                to DoS you via this module.
    --name name                 Name of the recent list to be used.  DEFAULT used if none given.
    --rsource                   Match/Save the source address of each packet in the recent list table (default).
    --rdest                     Match/Save the destination address of each packet in the recent list table.
    --mask netmask              Netmask that will be applied to this recent list.
xt_recent by: Stephen Frost <sfrost@snowman.net>.
`,
  check: ({ ops, seconds, hitCount, name }) => {
    if (ops & (RecentOp.SET | RecentOp.REMOVE) && (seconds || hitCount || ops & (RecentOp.TTL | RecentOp.REAP)))
      return { errno: 'EINVAL', reason: 'recent: --set and --remove take no --seconds, --hitcount, --rttl or --reap' };
    if (hitCount > MAX_HITS)
      return { errno: 'EINVAL', reason: `recent: hitcount (${hitCount}) is larger than allowed maximum (${MAX_HITS})` };
    if (name === '' || name === '.' || name === '..' || name.includes('/'))
      return { errno: 'EINVAL', reason: `recent: "${name}" is no name for a list` };
    return undefined;
  },
  // The first rule that names a list makes it, with its mask, which stays; a later one that counts more hits empties it.
  compile: (data, emit, { region }) => {
    const stamps = recentStamps(data.hitCount);
    const list = region(`recent/${data.name}`, recentWords(LIST_ADDRESSES, stamps), (words, replaced) =>
      initRecent(words, LIST_ADDRESSES, stamps, replaced === undefined ? data.mask : recentMask(replaced)),
    );
    const side = data.side === 'source' ? RecentSide.SOURCE : RecentSide.DESTINATION;
    emit.test(MatchOp.RECENT, encodeRecent(list, data.ops, data.invert, data.seconds, data.hitCount, side));
  },
});
