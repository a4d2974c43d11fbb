/** `hutter route` over many routes goes in steps, between which the control plane does other things; what it says stays the same. */
import t from 'tap';
import type { Printed, RoutingView } from '../../src/control/commands/ip.js';
import { runBatch, runRoute } from '../../src/control/commands/iproute.js';
import { parseConfig } from '../../src/control/config.js';
import { fibOf } from '../../src/control/routing.js';
import { linksOf } from '../../src/control/topology.js';

const ROUTES = 5000;

function view(): RoutingView {
  const config = parseConfig('interfaces: { if0: { addresses: [10.0.0.1/24] } }');
  const links = linksOf(config);
  return { fib: fibOf(config, links, 4 * ROUTES), links: () => links, sourceErrno: () => 0 };
}

/** The result, and in how many steps it came. */
function toEnd(steps: Generator<void, Printed>): Printed & { steps: number } {
  for (let count = 1; ; count++) {
    const step = steps.next();
    if (step.done === true) return { ...step.value, steps: count };
  }
}

const run = (at: RoutingView, command: string): Printed & { steps: number } => toEnd(runRoute(command.split(' '), at));

t.test('many routes are listed and flushed in steps', (t) => {
  const at = view();
  const lines = Array.from({ length: ROUTES }, (_, i) => `add 20.${i >> 8}.${i & 255}.0/24 via 10.0.0.9 table 7`);
  t.match(toEnd(runBatch(lines.join('\n'), at)), { code: 0, stderr: '' });
  const listed = run(at, 'list table 7');
  t.equal(listed.stdout.trimEnd().split('\n').length, ROUTES);
  t.ok(listed.steps >= 10, `${listed.steps} steps`);

  const flushed = run(at, 'flush table 7 root 20.0.0.0/13');
  t.match(flushed, { code: 0, stdout: '', stderr: '' });
  t.ok(flushed.steps >= 10, `${flushed.steps} steps`);
  t.equal(run(at, 'list table 7').stdout.trimEnd().split('\n').length, ROUTES - 8 * 256);

  // As one line among others, too.
  t.match(toEnd(runBatch('flush table 7\nadd 20.0.0.0/8 via 10.0.0.9 table 7', at)), { code: 0, stderr: '' });
  t.equal(run(at, 'list table 7').stdout, '20.0.0.0/8 via 10.0.0.9 dev if0 \n');
  t.match(run(at, 'flush'), { code: 1, stderr: '"hutter route flush" requires arguments.\n', steps: 1 });
  t.end();
});
