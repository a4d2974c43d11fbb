import t from 'tap';
import { generate } from '../../bench/classbench.js';
import { Boxes } from '../../src/control/compile/tree/boxes.js';
import { build, SETTINGS } from '../../src/control/compile/tree/build.js';
import { cost } from '../../src/control/compile/tree/cost.js';
import { Key, KEYS } from '../../src/dataplane/program/tree.js';

/** Half of the rules know the source only, half the destination only: in one tree each half is copied all over. */
function crossing(count: number): Boxes {
  const boxes = new Boxes(count);
  for (let i = 0; i < count; i++) {
    const b = boxes.add(i, true) * KEYS + (i % 2 === 0 ? Key.SRC : Key.DST);
    boxes.low[b] = boxes.high[b] = Math.imul(i + 1, 0x9e3779b1) >>> 0;
  }
  return boxes;
}

t.test('one tree or several, whichever costs less', (t) => {
  const apart = { ...SETTINGS, together: 0 };
  const list = generate('acl', 300, 0, 7).filters;
  const [one, several] = [build(list), build(list, apart)];
  t.equal(one.shape.trees, 1);
  t.ok(several.shape.trees > 1);
  t.ok(cost(one.words, list) < cost(several.words, list));
  const wild = crossing(600);
  t.equal(build(wild).shape.trees, 2, 'wildcards stay apart');
  t.same(build(wild).words, build(wild, apart).words);
  t.end();
});

t.test('what is tried and what is taken depends on the rules alone', (t) => {
  const { filters } = generate('fw', 400, 0, 3);
  t.same(build(filters).words, build(filters).words);
  t.ok(build(generate('ipc', SETTINGS.together + 1, 0, 3).filters).shape.trees > 1, 'many rules: several');
  t.end();
});
