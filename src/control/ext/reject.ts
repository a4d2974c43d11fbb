/** -j REJECT: drops the packet and answers it. (libipt_REJECT.c, ipt_REJECT.c) */
import { TargetOp } from '../../dataplane/program/ops.js';
import { encodeREJECT, RejectWith } from '../../dataplane/program/reject.js';
import { Proto } from '../../dataplane/names.js';
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineTarget, option } from './record.js';

/** In the order in which an abbreviation is looked for. */
const KINDS: readonly (readonly [RejectWith, string, string])[] = [
  [RejectWith.NET_UNREACHABLE, 'icmp-net-unreachable', 'net-unreach'],
  [RejectWith.HOST_UNREACHABLE, 'icmp-host-unreachable', 'host-unreach'],
  [RejectWith.PROTO_UNREACHABLE, 'icmp-proto-unreachable', 'proto-unreach'],
  [RejectWith.PORT_UNREACHABLE, 'icmp-port-unreachable', 'port-unreach'],
  [RejectWith.NET_PROHIBITED, 'icmp-net-prohibited', 'net-prohib'],
  [RejectWith.HOST_PROHIBITED, 'icmp-host-prohibited', 'host-prohib'],
  [RejectWith.TCP_RESET, 'tcp-reset', 'tcp-rst'],
  [RejectWith.ADMIN_PROHIBITED, 'icmp-admin-prohibited', 'admin-prohib'],
];

export interface RejectData {
  with: RejectWith;
}

const text = ({ with: kind }: RejectData): string => KINDS.find(([number]) => number === kind)![1];

export const REJECT = defineTarget<RejectData>({
  name: 'REJECT',
  tables: ['filter'],
  hooks: ['INPUT', 'FORWARD', 'OUTPUT'],
  init: () => ({ with: RejectWith.PORT_UNREACHABLE }),
  options: [
    option({
      name: 'reject-with',
      arg: string(),
      set: (data, given, { warn }) => {
        const start = given.toLowerCase();
        const found = KINDS.find(([, name, alias]) => name.startsWith(start) || alias.startsWith(start));
        if (!found) {
          if ('echo-reply'.startsWith(start) || 'echoreply'.startsWith(start))
            warn('--reject-with echo-reply no longer supported\n');
          problem(`unknown reject type "${given}"`);
        }
        data.with = found[0];
      },
    }),
  ],
  save: (data) => ` --reject-with ${text(data)}`,
  print: (data) => ` reject-with ${text(data)}`,
  help: `REJECT target options:
--reject-with type              drop input packet and send back
                                a reply packet according to type:
Valid reject types:
    icmp-net-unreachable     	ICMP network unreachable
    net-unreach              	alias
    icmp-host-unreachable    	ICMP host unreachable
    host-unreach             	alias
    icmp-proto-unreachable   	ICMP protocol unreachable
    proto-unreach            	alias
    icmp-port-unreachable    	ICMP port unreachable (default)
    port-unreach             	alias
    icmp-net-prohibited      	ICMP network prohibited
    net-prohib               	alias
    icmp-host-prohibited     	ICMP host prohibited
    host-prohib              	alias
    tcp-reset                	TCP RST packet
    tcp-rst                  	alias
    icmp-admin-prohibited    	ICMP administratively prohibited (*)
    admin-prohib             	alias

(*) See man page or read the INCOMPATIBILITES file for compatibility issues.
`,
  check: (data, { rule }) =>
    data.with === RejectWith.TCP_RESET && (rule.proto !== Proto.TCP || rule.notProto)
      ? { errno: 'EINVAL', reason: 'REJECT: tcp-reset is for -p tcp only' }
      : undefined,
  compile: (data, emit) => emit.target(TargetOp.REJECT, encodeREJECT(data.with)),
});
