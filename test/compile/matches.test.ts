/** Every accepted row of test/cases whose matches decide in the data plane becomes a program that verifies and runs. */
import { readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { matchNamed } from '../../src/control/ext/registry.js';
import { parseCases } from '../control-text/cases.js';
import { packet, World } from '../program/lab.js';

const FOLDER = 'test/cases';
/** What these ask for a diverted packet doesn't carry, or the kernel doesn't tell of its sets. */
const REFUSED = /--suppl-groups|--packets-|--bytes-|--object-pinned|policy .*--(strict|reqid|spi|proto|mode|tunnel)/;
let rules = 0;
for (const file of readdirSync(FOLDER).filter((name) => name.endsWith('.t'))) {
  const extension = matchNamed(file.slice(0, -2));
  if (!extension?.compile) continue;
  // The lab's reader of rules knows no escaped quotes.
  const cases = parseCases(readFileSync(`${FOLDER}/${file}`, 'latin1')).filter(
    ({ saved }) =>
      saved !== undefined &&
      !/ -j |^-j | -m (esp|ipcomp) /.test(saved) &&
      !REFUSED.test(saved) &&
      !saved.includes('\\"'),
  );
  t.test(file, (t) => {
    for (const { table, chain, saved } of cases) {
      t.doesNotThrow(() => {
        const world = new World().load(`*${table}\n:${chain} ACCEPT\n-A ${chain} ${saved}`);
        world.run(packet());
      }, `${table} ${chain} ${saved}`);
      rules++;
    }
    t.end();
  });
}
t.ok(rules > 300, `${rules} rules`);
