/** `hutter conntrack` beside conntrack-tools in a namespace of its own: what both say of nothing, and of wrong usage. */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { runConntrack } from '../../src/control/conntrack.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Said } from './said.js';

const LINES: readonly string[] = [
  '-L',
  '-L conntrack',
  '-L expect',
  '-L exp',
  '-L expect -f ipv4',
  '-L nothing',
  '-C',
  '-C expect',
  '-F',
  '-F expect',
  '-L expect -p tcp',
  '-L expect -s 10.0.0.1',
  '-C expect -d 10.0.0.1',
  '-F expect --orig-src 10.0.0.1',
  '-L expect -n',
  '-L expect -m 1',
  '-L -F',
  '-D',
  '-D -p tcp',
  '-L -p tcp --state ESTABLISHED',
  '-L -u NOTHING',
  '-L -f ipv6',
  '-L -f ipv5',
  '-D -f ipv6',
  '-L -s 10.0.0.0/33',
  '-L -s nobody/8',
  '-L -t 5',
  '-L -b 1000',
  '-F -p tcp',
  '-C -p tcp',
  '-S -s 10.0.0.1',
  '-L -e NEW',
  '-D -e NEW',
  '-F -e NEW',
];

async function hutter(argv: readonly string[]) {
  const table = ConntrackTable.attach(ConntrackTable.create({ max: 4096, workers: 1, seed: 1 }), 0);
  const said = new Said();
  const code = await runConntrack(table, 1, argv, said, () => Promise.resolve());
  return { code, ...said.all };
}

t.test('each line as the real one', async (t) => {
  for (const line of LINES) {
    const argv = line.split(' ');
    const { status, stdout, stderr } = spawnSync('unshare', ['-n', 'conntrack', ...argv], { encoding: 'utf8' });
    t.same(await hutter(argv), { code: status, stdout, stderr }, `conntrack ${line}`);
  }
});

t.test('what hutter has not is refused by name', async (t) => {
  for (const [line, text] of [
    ['-L dying', "hutter has no table `dying' to show"],
    ['-D expect -s 10.0.0.1', "hutter can't delete expectations"],
    ['-E expect', "hutter can't follow expectations"],
    ['-I -p tcp', "hutter can't create connections"],
    ['-U -s 10.0.0.1 -m 5', "hutter can't change connections"],
    ['--update -m 5', "hutter can't change connections"],
    ['-G -p tcp', "hutter can't get one connection: list it with -L"],
    ['-L -z', "hutter can't zero connections' counters"],
    ['-L -l web', "hutter can't choose by labels"],
    ['-L -o xml', "hutter can't print connections as `xml'"],
    ['-L -o save', "hutter can't print connections as `save'"],
  ] as const)
    t.match(await hutter(line.split(' ')), {
      code: 2,
      stdout: '',
      stderr: `conntrack v1.4.7 (conntrack-tools): ${text}\n`,
    });
});

t.test('statistics are those of conntrack -S and -S expect, a line a worker', async (t) => {
  for (const argv of [['-S'], ['-S', 'expect']]) {
    const { stdout } = spawnSync('unshare', ['-n', 'conntrack', ...argv], { encoding: 'utf8' });
    t.equal((await hutter(argv)).stdout, `${stdout.split('\n')[0]}\n`, argv.join(' '));
  }
});
