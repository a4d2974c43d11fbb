/** `node dist/test/control-text/record.js FILE…`: writes the real tool's answers into transcripts. */
import { readFileSync, writeFileSync } from 'node:fs';
import { runReal } from './real.js';
import { parseTranscript, rewriteTranscript } from './transcript.js';

for (const file of process.argv.slice(2)) {
  const text = readFileSync(file, 'latin1');
  const outcomes = runReal(parseTranscript(text).map((exchanges) => exchanges.map(({ step }) => step)));
  writeFileSync(file, rewriteTranscript(text, outcomes), 'latin1');
}
