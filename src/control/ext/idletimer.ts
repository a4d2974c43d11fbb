/** -j IDLETIMER: tells a file of /sys when no packet came for a while. (libxt_IDLETIMER.c revision 1, xt_IDLETIMER.c) */
import { string, uint32 } from './args.js';
import { defineTarget, option } from './record.js';

export interface IdletimerData {
  /** Seconds. */
  timeout: number;
  /** At most 27 bytes. */
  label: string;
  alarm: boolean;
}

/** The kernel counts milliseconds in an int. */
const MAX_TIMEOUT = 2_147_482;

export const IDLETIMER = defineTarget<IdletimerData>({
  name: 'IDLETIMER',
  revision: 1,
  init: () => ({ timeout: 0, label: '', alarm: false }),
  options: [
    option({
      name: 'timeout',
      arg: uint32(),
      mandatory: true,
      set: (data, timeout) => {
        data.timeout = timeout;
      },
    }),
    option({
      name: 'label',
      arg: string({ size: 28 }),
      mandatory: true,
      set: (data, label) => {
        data.label = label;
      },
    }),
    option({
      name: 'alarm',
      set: (data) => {
        data.alarm = true;
      },
    }),
  ],
  save: ({ timeout, label, alarm }) => ` --timeout ${timeout} --label ${label}${alarm ? ' --alarm' : ''}`,
  print: ({ timeout, label, alarm }) => ` timeout:${timeout} label:${label}${alarm ? ' alarm' : ''}`,
  help: `IDLETIMER target options:
 --timeout time	Timeout until the notification is sent (in seconds)
 --label string	Unique rule identifier
 --alarm	Use alarm instead of default timer

`,
  check: ({ timeout, label }) => {
    if (timeout === 0) return { errno: 'EINVAL', reason: 'IDLETIMER: timeout value is zero' };
    if (timeout > MAX_TIMEOUT) return { errno: 'EINVAL', reason: 'IDLETIMER: timeout value is too big' };
    return label === '' ? { errno: 'EINVAL', reason: 'IDLETIMER: label is empty' } : undefined;
  },
  cannot: () => "its files of /sys are the kernel module's",
});
