/**
 * -j CT and -j NOTRACK: how the packet's connection is to be tracked, or that it isn't. (libxt_CT.c revision 2, xt_CT.c)
 */
import { CtFlag, encodeCT } from '../../dataplane/program/ct.js';
import { helperByName, HELPERS, isRead } from '../../dataplane/conntrack/helpers/helpers.js';
import { TargetOp } from '../../dataplane/program/ops.js';
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineTarget, option, type Option } from './record.js';

export interface CtData {
  /** CtFlag bits. */
  flags: number;
  zone: number;
  /** Bits by the kernel's numbers of events; 0 = not given. */
  ctevents: number;
  expevents: number;
  /** At most 15 bytes; '' = none. */
  helper: string;
  /** At most 4 bytes; '' = none. */
  timeout: string;
}

const CT_EVENTS: readonly string[] = [
  'new',
  'related',
  'destroy',
  'reply',
  'assured',
  'protoinfo',
  'helper',
  'mark',
  'natseqinfo',
  'secmark',
];
const EXP_EVENTS: readonly string[] = ['new'];

const parseEvents = (text: string, names: readonly string[]): number =>
  text.split(',').reduce((bits, word) => {
    const bit = names.indexOf(word);
    return bit < 0 ? problem(`Unknown event type "${word}"`) : bits | (1 << bit);
  }, 0);
const eventText = (bits: number, names: readonly string[]): string => names.filter((_, i) => (bits >> i) & 1).join(',');

function zone(name: string, direction: number): Option<CtData> {
  return option<CtData, string>({
    name,
    arg: string(),
    set: (data, text) => {
      data.flags |= direction;
      if (text === 'mark') {
        data.flags |= CtFlag.ZONE_MARK;
        return;
      }
      data.zone = wholeNumber(text, 0, 0xffff) ?? problem(`Cannot parse ${text} as a zone ID`);
    },
  });
}

const init = (): CtData => ({ flags: 0, zone: 0, ctevents: 0, expevents: 0, helper: '', timeout: '' });

function words({ flags, zone, ctevents, expevents, helper, timeout }: CtData, dashes: string): string {
  const direction = flags & (CtFlag.ZONE_ORIGINAL | CtFlag.ZONE_REPLY);
  const zoneName =
    direction === CtFlag.ZONE_ORIGINAL ? 'zone-orig' : direction === CtFlag.ZONE_REPLY ? 'zone-reply' : 'zone';
  return (
    (flags & CtFlag.NOTRACK ? ` ${dashes}notrack` : '') +
    (helper === '' ? '' : ` ${dashes}helper ${helper}`) +
    (timeout === '' ? '' : ` ${dashes}timeout ${timeout}`) +
    (ctevents === 0 ? '' : ` ${dashes}ctevents ${eventText(ctevents, CT_EVENTS)}`) +
    (expevents === 0 ? '' : ` ${dashes}expevents ${eventText(expevents, EXP_EVENTS)}`) +
    (flags & CtFlag.ZONE_MARK ? ` ${dashes}${zoneName} mark` : zone === 0 ? '' : ` ${dashes}${zoneName} ${zone}`)
  );
}

export const CT = defineTarget<CtData>({
  name: 'CT',
  revision: 2,
  tables: ['raw'],
  init,
  options: [
    option({
      name: 'notrack',
      set: (data) => {
        data.flags |= CtFlag.NOTRACK;
      },
    }),
    option({
      name: 'helper',
      arg: string({ size: 16 }),
      set: (data, helper) => {
        data.helper = helper;
      },
    }),
    option({
      name: 'timeout',
      // The tool's own limit, by mistake: the kernel has room for 31 bytes.
      arg: string({ size: 5 }),
      set: (data, timeout) => {
        data.timeout = timeout;
      },
    }),
    option({
      name: 'ctevents',
      arg: string(),
      set: (data, text) => {
        data.ctevents = parseEvents(text, CT_EVENTS);
      },
    }),
    option({
      name: 'expevents',
      arg: string(),
      set: (data, text) => {
        data.expevents = parseEvents(text, EXP_EVENTS);
      },
    }),
    zone('zone', 0),
    zone('zone-orig', CtFlag.ZONE_ORIGINAL),
    zone('zone-reply', CtFlag.ZONE_REPLY),
  ],
  alias: ({ flags }) => (flags & CtFlag.NOTRACK_ALIAS ? 'NOTRACK' : 'CT'),
  save: (data) => (data.flags & CtFlag.NOTRACK_ALIAS ? '' : words(data, '--')),
  print: (data) => (data.flags & CtFlag.NOTRACK_ALIAS ? ' NOTRACK' : ` CT${words(data, '')}`),
  help: `CT target options:
 --notrack			Don't track connection
 --helper name			Use conntrack helper 'name' for connection
 --timeout name 		Use timeout policy 'name' for connection
 --ctevents event[,event...]	Generate specified conntrack events for connection
 --expevents event[,event...]	Generate specified expectation events for connection
 --zone {ID|mark}		Assign/Lookup connection in zone ID/packet nfmark
 --zone-orig {ID|mark}		Same as 'zone' option, but only applies to ORIGINAL direction
 --zone-reply {ID|mark} 	Same as 'zone' option, but only applies to REPLY direction
`,
  check: ({ flags, helper, timeout }, { rule }) => {
    if (flags & CtFlag.NOTRACK) return undefined;
    const proto = rule.notProto ? 0 : rule.proto;
    if (helper !== '' && helperByName(helper, proto) === 0)
      return { errno: 'ENOENT', reason: `CT: no helper "${helper}" for the rule's protocol (-p, not inverted)` };
    return timeout === '' ? undefined : { errno: 'ENOENT', reason: `CT: no such timeout policy "${timeout}"` };
  },
  lacks: ({ flags, helper }) =>
    (flags & CtFlag.NOTRACK) === 0 && HELPERS.slice(1).some((each) => each.name === helper && !isRead(each))
      ? `nothing reads ${helper} here: what its connections agree on isn't RELATED`
      : undefined,
  compile: ({ flags, zone, ctevents, expevents, helper }, emit, { rule }) =>
    emit.target(
      TargetOp.CT,
      encodeCT(flags, zone, helper === '' ? 0 : helperByName(helper, rule.proto), ctevents, expevents),
    ),
});

export const NOTRACK = defineTarget<CtData>({
  name: 'NOTRACK',
  realName: 'CT',
  revision: 2,
  init: () => ({ ...init(), flags: CtFlag.NOTRACK | CtFlag.NOTRACK_ALIAS }),
  options: [],
});
