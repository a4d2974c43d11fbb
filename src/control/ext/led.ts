/** -j LED: lights an LED when a packet comes. (libxt_LED.c, xt_LED.c) */
import { wholeNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { string } from './args.js';
import { defineTarget, option } from './record.js';

export interface LedData {
  /** Without the kernel's `netfilter-`; at most 17 bytes. */
  trigger: string;
  /** Milliseconds; FOREVER: until the rule goes. */
  delay: number;
  alwaysBlink: boolean;
}

const FOREVER = 0xffffffff;
const MAX_TRIGGER = 17;
const quoted = (text: string): string => `"${text.replace(/["\\]/g, '\\$&')}"`;

export const LED = defineTarget<LedData>({
  name: 'LED',
  init: () => ({ trigger: '', delay: 0, alwaysBlink: false }),
  options: [
    option({
      name: 'led-trigger-id',
      arg: string({ max: MAX_TRIGGER }),
      mandatory: true,
      set: (data, trigger) => {
        data.trigger = trigger;
      },
    }),
    option({
      name: 'led-delay',
      arg: string(),
      set: (data, text) => {
        data.delay = /^inf/i.test(text)
          ? FOREVER
          : (wholeNumber(text) ?? problem('Delay value must be within range 0..4294967295'));
      },
    }),
    option({
      name: 'led-always-blink',
      set: (data) => {
        data.alwaysBlink = true;
      },
    }),
  ],
  // The tool prints a delay without end as -1, which it doesn't read back.
  save: ({ trigger, delay, alwaysBlink }) =>
    ` --led-trigger-id ${quoted(trigger)}` +
    (delay === 0 ? '' : ` --led-delay ${delay === FOREVER ? 'inf' : delay | 0}`) +
    (alwaysBlink ? ' --led-always-blink' : ''),
  print: ({ trigger, delay, alwaysBlink }) =>
    ` led-trigger-id:${quoted(trigger)} led-delay:${delay === FOREVER ? 'inf' : `${delay | 0}ms`}` +
    (alwaysBlink ? ' led-always-blink' : ''),
  help: `LED target options:
--led-trigger-id name           suffix for led trigger name
--led-delay ms                  leave the LED on for this number of
                                milliseconds after triggering.
--led-always-blink              blink on arriving packets, even if
                                the LED is already on.
`,
  cannot: () => "the triggers of LEDs are the kernel's",
});
