/** Commands and their answers: hutter's and the real tool's are both what the transcripts in test/cases say. */
import { readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { MemoryBackend } from '../../src/control/commands/backend.js';
import { runIptables } from '../../src/control/commands/run.js';
import { noJudge, runReal } from './real.js';
import { outcomeText, parseTranscript } from './transcript.js';

const FOLDER = 'test/cases';
const files = readdirSync(FOLDER).filter((name) => name.endsWith('.transcript'));

for (const file of files) {
  const cases = parseTranscript(readFileSync(`${FOLDER}/${file}`, 'latin1'));

  void t.test(`${file}: hutter`, async (t) => {
    for (const exchanges of cases) {
      // The judge's namespace has no way to a name server.
      const backend = new MemoryBackend(undefined, {}, 'Temporary failure in name resolution');
      // The judge's namespace has all tables in use.
      for (const table of ['raw', 'mangle', 'nat', 'filter'])
        await runIptables('iptables', ['-t', table, '-L', '-n'], '', backend);
      for (const { step, line, ...wanted } of exchanges) {
        const got = await runIptables(step.program, step.argv, step.stdin ?? '', backend);
        t.equal(outcomeText(got), outcomeText(wanted), `${file}:${line}: ${step.program} ${step.argv.join(' ')}`);
      }
    }
  });

  void t.test(`${file}: the real tool`, (t) => {
    const reason = noJudge();
    if (reason !== undefined) t.fail(reason);
    else
      runReal(cases.map((exchanges) => exchanges.map(({ step }) => step))).forEach((outcomes, i) => {
        outcomes.forEach((got, j) => {
          const { step, line, ...wanted } = cases[i]![j]!;
          t.equal(outcomeText(got), outcomeText(wanted), `${file}:${line}: ${step.program} ${step.argv.join(' ')}`);
        });
      });
    t.end();
  });
}
t.ok(files.length > 0, 'there are transcripts');
