/** `hutter sysctl` says and does what sysctl(8) says and does in a namespace of its own, word for word. */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { runSysctl } from '../../src/control/sysctl.js';
import { ConntrackTable } from '../../src/dataplane/conntrack/table.js';
import { Said } from './said.js';

const newTable = (): ConntrackTable =>
  ConntrackTable.attach(ConntrackTable.create({ max: 4096, workers: 1, seed: 1 }), 0);

function hutter(table: ConntrackTable, own: boolean, ...argv: string[]) {
  const said = new Said();
  const code = runSysctl(table, own, argv, said);
  return { code, ...said.all };
}

/** The lines of one namespace, one after the other. */
function real(lines: readonly (readonly string[])[]) {
  // Each answer: what it printed and its code, then what it said on stderr, each ended by NUL.
  const script = `
    while IFS= read -r line; do
      eval "set -- $line"
      out=$(sysctl "$@" 2>"$0"; echo "code $?")
      printf '%s\\0%s\\0' "$out" "$(cat "$0")"
    done`;
  const quoted = lines.map((argv) => argv.map((word) => `'${word}'`).join(' ')).join('\n') + '\n';
  const file = spawnSync('mktemp', { encoding: 'utf8' }).stdout.trim();
  const { stdout, stderr, status } = spawnSync('unshare', ['-n', 'bash', '-c', script, file], {
    input: quoted,
    encoding: 'utf8',
  });
  spawnSync('rm', [file]);
  if (status !== 0) throw new Error(`unshare: ${stderr}`);
  const parts = stdout.split('\0');
  return lines.map((_, i) => {
    const [, text = '', code] = /^([^]*)code (\d+)$/.exec(parts[2 * i]!)!;
    return { code: Number(code), stdout: text, stderr: parts[2 * i + 1] === '' ? '' : `${parts[2 * i + 1]}\n` };
  });
}

const LOOSE = 'net.netfilter.nf_conntrack_tcp_loose';
const UDP = 'net.netfilter.nf_conntrack_udp_timeout';
const RETRANS = 'net.netfilter.nf_conntrack_tcp_max_retrans';
const LINES: readonly (readonly string[])[] = [
  [LOOSE],
  ['-n', LOOSE],
  ['-N', LOOSE],
  ['--values', UDP],
  [LOOSE.replaceAll('.', '/')],
  ['-w', `${LOOSE}=0`],
  [LOOSE],
  [`${LOOSE}=1`],
  ['-q', '-w', `${LOOSE}=0`],
  ['-nw', `${LOOSE}=1`],
  [`${LOOSE} = 0`],
  ['-w', LOOSE],
  ['-w', LOOSE, `${LOOSE}=1`],
  ['-w', `${LOOSE}=2`],
  ['-w', `${LOOSE}=-1`],
  ['-w', `${LOOSE}=yes`],
  ['-w', `${RETRANS}=255`],
  ['-w', `${RETRANS}=256`],
  ['-w', `${UDP}=0x20`],
  ['-w', `${UDP}=017`, `${UDP}=99999999999`, 'net.netfilter.nf_nothing=1', `${UDP}=45`],
  [UDP, 'net.netfilter.nf_nothing', LOOSE],
  ['-e', 'net.netfilter.nf_nothing', LOOSE],
  ['nf_conntrack_udp_timeout'],
  ['net.netfilter.nf_conntrack_count'],
  ['-w', 'net.netfilter.nf_conntrack_count=1'],
  ['-w'],
  ['-n'],
];

t.test('each line as the real one, on what the line before it left', async (t) => {
  const table = newTable();
  const expected = real(LINES);
  LINES.forEach((line, i) => t.same(hutter(table, false, ...line), expected[i], line.join(' ')));
});

t.test('every setting with its default', async (t) => {
  const { stdout, code } = hutter(newTable(), false, '-a');
  t.equal(code, 0);
  const [theirs] = real([['-a']]);
  const kernel = new Set(theirs!.stdout.split('\n'));
  const lines = stdout.trimEnd().split('\n');
  // The table's size and its expectations' are what this test made it for.
  for (const line of lines.filter((line) => !/_max = /.test(line))) t.ok(kernel.has(line), line);
  const own = hutter(newTable(), true, '-a').stdout;
  t.match(own, /^net\.ipv4\.icmp_msgs_per_sec = 1000$/m, 'with TUN there are those of a router');
  t.notMatch(stdout, /net\.ipv4/);
});

t.test('what only hutter says', async (t) => {
  const table = newTable();
  t.match(hutter(table, false), { code: 1, stdout: '', stderr: /^\nUsage:\n hutter sysctl / });
  t.match(hutter(table, false, '-h'), { code: 0, stdout: /^\nUsage:\n hutter sysctl /, stderr: '' });
  for (const option of ['-p', '--system', '-nx'])
    t.match(hutter(table, false, option), { code: 1, stderr: `sysctl: ${option} is no option of hutter's\n` });
  const { stdout } = hutter(table, true, 'net.netfilter');
  t.match(stdout, /^net\.netfilter\.nf_conntrack_checksum = 1\nnet\.netfilter\.nf_conntrack_count = 0\n/, 'a folder');
  t.notMatch(stdout, /ipv4/);
  t.equal(hutter(table, true, 'net/netfilter').stdout, stdout);
  t.match(hutter(table, true, 'net.net'), { code: 1, stderr: /cannot stat/ });
  t.match(hutter(table, true, 'net.netfilter=1'), { code: 1, stderr: /cannot stat/ });
  const max = 'net.netfilter.nf_conntrack_max';
  t.match(hutter(table, false, `${max}=100`), { code: 0, stdout: `${max} = 100\n` });
  t.match(
    hutter(table, false, `${max}=5000000`),
    {
      code: 1,
      stderr: `sysctl: setting key "${max}": Invalid argument\n`,
    },
    'memory was made for no more',
  );
  t.match(hutter(table, false, '-n', max), { stdout: '100\n' });
});
