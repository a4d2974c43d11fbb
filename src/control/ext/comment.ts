/** -m comment: a note on a rule. Always matches. (libxt_comment.c, xt_comment.h: 256 bytes with the NUL) */
import { formatString, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface CommentData {
  text: string;
}

export const comment = defineMatch<CommentData>({
  name: 'comment',
  init: () => ({ text: '' }),
  options: [
    option({
      name: 'comment',
      arg: string({ size: 256 }),
      mandatory: true,
      set: (data, text) => {
        data.text = text;
      },
    }),
  ],
  save: (data) => ` --comment${formatString(data.text)}`,
  print: (data) => ` /* ${data.text} */`,
  help: `comment match options:
--comment COMMENT             Attach a comment to a rule
`,
  compile: () => {
    // Nothing to test.
  },
});
