/** -j LOG: a line in the kernel's format. (libxt_LOG.c, xt_LOG.c) */
import { TargetOp } from '../../dataplane/program/ops.js';
import { encodeLOG, LogOption } from '../../dataplane/program/log.js';
import { problem } from '../text/problem.js';
import { formatString, string, syslogLevel } from './args.js';
import { defineTarget, option } from './record.js';

const FLAGS: readonly (readonly [LogOption, string, string])[] = [
  [LogOption.TCP_SEQUENCE, 'log-tcp-sequence', 'tcp-sequence'],
  [LogOption.TCP_OPTIONS, 'log-tcp-options', 'tcp-options'],
  [LogOption.IP_OPTIONS, 'log-ip-options', 'ip-options'],
  [LogOption.UID, 'log-uid', 'uid'],
  [LogOption.MAC_DECODE, 'log-macdecode', 'macdecode'],
];

/** The first name of each level in syslog.h's table. */
const LEVELS = ['emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug'];
const DEFAULT_LEVEL = 4;

export interface LogData {
  level: number;
  /** LogOption bits. */
  flags: number;
  /** At most 29 bytes. */
  prefix: string;
}

export const LOG = defineTarget<LogData>({
  name: 'LOG',
  init: () => ({ level: DEFAULT_LEVEL, flags: 0, prefix: '' }),
  options: [
    option({
      name: 'log-level',
      arg: syslogLevel,
      set: (data, level) => {
        data.level = level;
      },
    }),
    option({
      name: 'log-prefix',
      arg: string({ min: 1, size: 30 }),
      set: (data, prefix, { arg }) => {
        if (arg.includes('\n')) problem('Newlines not allowed in --log-prefix');
        data.prefix = prefix;
      },
    }),
    ...FLAGS.map(([flag, name]) =>
      option<LogData>({
        name,
        set: (data) => {
          data.flags |= flag;
        },
      }),
    ),
  ],
  save: ({ level, flags, prefix }) =>
    (prefix === '' ? '' : ` --log-prefix${formatString(prefix)}`) +
    (level === DEFAULT_LEVEL ? '' : ` --log-level ${level}`) +
    FLAGS.map(([flag, name]) => (flags & flag ? ` --${name}` : '')).join(''),
  print: ({ level, flags, prefix }, { numeric }) =>
    (numeric
      ? ` LOG flags ${flags} level ${level}`
      : ` LOG level ${LEVELS[level]}${FLAGS.map(([flag, , word]) => (flags & flag ? ` ${word}` : '')).join('')}`) +
    (prefix === '' ? '' : ` prefix "${prefix}"`),
  help: `LOG target options:
 --log-level level		Level of logging (numeric or see syslog.conf)
 --log-prefix prefix		Prefix log messages with this prefix.
 --log-tcp-sequence		Log TCP sequence numbers.
 --log-tcp-options		Log TCP options.
 --log-ip-options		Log IP options.
 --log-uid			Log UID owning the local socket.
 --log-macdecode		Decode MAC addresses and protocol.
`,
  compile: ({ level, flags, prefix }, emit) => emit.target(TargetOp.LOG, encodeLOG(level, flags, prefix)),
});
