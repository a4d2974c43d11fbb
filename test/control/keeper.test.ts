/** Large chains get a decision tree behind the command, in another thread and by another swap; appends don't wait for one. */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { Keeper } from '../../src/control/keeper.js';
import type { Compiled } from '../../src/control/compile/index.js';
import type { Ruleset } from '../../src/control/model.js';
import type { Router } from '../../src/control/router.js';
import { Hook, Table } from '../../src/dataplane/names.js';
import { Chain, entry } from '../../src/dataplane/program/format.js';
import { ruleOf, ruleset } from '../program/lab.js';

const COUNT = 2000;

t.test('a tree is grown in the background, and appends lie beside it', async (t) => {
  const published: Compiled[] = [];
  const router = {
    publish: (program: Compiled) => {
      published.push(program);
      return Promise.resolve(true);
    },
    clearCounters: () => undefined,
  };
  const keeper = new Keeper(
    { tables: [] },
    1000,
    () => undefined,
    () => undefined,
  );
  keeper.attach(router as unknown as Router);
  t.teardown(() => keeper.close());
  const lines = Array.from({ length: COUNT }, (_, i) => `-A INPUT -s 10.${i >> 8}.${i & 255}.1 -j DROP`);
  const rules = ruleset(`*filter\n:INPUT ACCEPT\n${lines.join('\n')}`);
  await keeper.commit(rules);
  const chain = ({ words }: Compiled): number => entry(words, Table.FILTER, Hook.INPUT);
  const tree = (compiled: Compiled): number => compiled.words[chain(compiled) + Chain.TREE]!;
  t.equal(tree(published.at(-1)!), 0, 'in force at once, walked in order');
  const deadline = performance.now() + 60_000;
  while (tree(published.at(-1)!) === 0 && performance.now() < deadline)
    await new Promise((done) => setTimeout(done, 20));
  t.not(tree(published.at(-1)!), 0, 'its tree follows');

  const appended = (from: Ruleset): Ruleset => {
    const table = from.tables[0]!;
    const input = table.chains.get('INPUT')!;
    const more = ruleOf('-A INPUT -s 11.0.0.1 -j DROP', 'filter', table.chains);
    return {
      tables: [
        { ...table, chains: new Map(table.chains).set('INPUT', { ...input, rules: [...input.rules, ...more] }) },
      ],
    };
  };
  await keeper.commit(appended(rules));
  const last = published.at(-1)!;
  const at = chain(last);
  t.not(tree(last), 0, 'an append keeps the tree');
  t.equal(last.words[at + Chain.NEXT]! - last.words[at + Chain.NEW]!, 1, 'and lies beside it');
});

t.test('why a name has no address is said in the resolver’s own words', (t) => {
  // In a namespace without a network nobody can be asked: the real tool says what that is.
  const keeper = new URL('../../src/control/keeper.js', import.meta.url).href;
  for (const name of ['nosuch.invalid', '::1']) {
    const script = `(await import(${JSON.stringify(keeper)})).hostAddresses(${JSON.stringify(name)}).then(console.log)`;
    const ours = spawnSync('unshare', ['-n', process.execPath, '--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    const rule = ['-A', 'INPUT', '-m', 'recent', '--rcheck', '--mask', name];
    const real = spawnSync('unshare', ['-n', 'iptables-legacy', ...rule], { encoding: 'utf8' });
    t.equal(ours.stderr, '');
    t.match(real.stderr, `getaddrinfo: ${ours.stdout}`);
  }
  t.end();
});
