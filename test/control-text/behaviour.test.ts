/** Where hutter's commands are more than the tool's words: swaps, identities, counters, names, and what it adds or refuses. */
import t from 'tap';
import { answerAlone } from '../../src/control/cli/offline.js';
import type { Answer } from '../../src/control/cli/client.js';
import { CommitError, MemoryBackend } from '../../src/control/commands/backend.js';
import { checkFile } from '../../src/control/commands/checkfile.js';
import { runIptables } from '../../src/control/commands/run.js';
import { tableOf, type Rule } from '../../src/control/model.js';
import { builtinProtocols, parseProtocols } from '../../src/control/protocols.js';
import { builtinServices, parseServices } from '../../src/control/services.js';
import { splitWords } from '../../src/control/text/words.js';
import type { Outcome } from './real.js';

const iptables = (backend: MemoryBackend, line: string): Promise<Outcome> =>
  runIptables('iptables', splitWords(line), '', backend);
const restore = (backend: MemoryBackend, text: string, ...argv: string[]): Promise<Outcome> =>
  runIptables('iptables-restore', argv, text, backend);
const rules = (backend: MemoryBackend, chain = 'INPUT'): readonly Rule[] =>
  tableOf(backend.ruleset(), 'filter')!.chains.get(chain)!.rules;

void t.test('the old place of ! is understood, with a notice', async (t) => {
  for (const [given, saved] of [
    ['-s ! 10.0.0.0/8', '! -s 10.0.0.0/8'],
    ['-d ! 10.0.0.0/8', '! -d 10.0.0.0/8'],
    ['-i ! eth0', '! -i eth0'],
    ['-p ! tcp', '! -p tcp'],
    ['-p tcp --dport ! 22', '-p tcp -m tcp ! --dport 22'],
    ['-p tcp --tcp-flags ! SYN,ACK SYN', '-p tcp -m tcp ! --tcp-flags SYN,ACK SYN'],
    ['-m state --state ! NEW', '-m state ! --state NEW'],
    ['-p tcp -m multiport --dports ! 22,80', '-p tcp -m multiport ! --dports 22,80'],
    ['-m mark --mark ! 1', '-m mark ! --mark 0x1'],
  ] as const) {
    const backend = new MemoryBackend();
    const { code, stderr } = await iptables(backend, `-A INPUT ${given}`);
    t.equal(code, 0, given);
    t.equal(
      stderr,
      'Using intrapositioned negation (`--option ! this`) is deprecated in favor of extrapositioned (`! --option this`).\n',
    );
    t.match((await iptables(backend, '-S INPUT')).stdout, `-A INPUT ${saved}\n`);
  }
  const twice = await iptables(new MemoryBackend(), '-A INPUT ! -s ! 10.0.0.0/8');
  t.equal(twice.code, 2);
  t.match(twice.stderr, "iptables v1.8.9 (legacy): Multiple `!' flags not allowed\n");
  // An option that can't be negated takes the mark as its argument.
  const backend = new MemoryBackend();
  t.equal((await iptables(backend, '-A INPUT -m comment --comment !')).code, 0);
  t.match((await iptables(backend, '-S INPUT')).stdout, '-m comment --comment "!"');
});

// -p, -s, -d, -i, -o and -j excepted, as the tool reads the whole word there: commands.transcript.
void t.test('arguments may be attached to options', async (t) => {
  const backend = new MemoryBackend();
  t.equal((await iptables(backend, '-AINPUT -p tcp -mtcp --dport=22 -c1 2 -j ACCEPT')).code, 0);
  t.equal((await iptables(backend, '--append=INPUT -p udp --match=udp -j LOG --log-level=3')).code, 0);
  t.match(
    (await iptables(backend, '-SINPUT')).stdout,
    '-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -p udp -m udp -j LOG --log-level 3\n',
  );
});

void t.test('a file is one swap, and an error anywhere changes nothing', async (t) => {
  const backend = new MemoryBackend();
  const good = '*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n*filter\n:INPUT DROP\n-A INPUT -j ACCEPT\nCOMMIT\n';
  t.equal((await restore(backend, good)).code, 0);
  t.equal(backend.commits, 1);
  const before = backend.ruleset();
  const bad = await restore(backend, `${good}*mangle\n-A INPUT -j NOSUCH\nCOMMIT\n`);
  t.equal(bad.code, 2);
  t.match(bad.stderr, 'Error occurred at line: 9\n');
  t.equal(backend.ruleset(), before);
  const open = await restore(backend, good.replace(/COMMIT\n$/, ''));
  t.same([open.code, open.stderr], [1, 'iptables-restore: COMMIT expected at line 7\n']);
  t.equal(backend.ruleset(), before);
  t.equal((await restore(backend, good, '--test')).code, 0);
  t.equal(backend.ruleset(), before);
  t.equal(backend.commits, 1);
});

void t.test('a swap that is refused is said so', async (t) => {
  const backend = new MemoryBackend();
  backend.commit = () => Promise.reject(new CommitError('the workers are gone', 4));
  const refused = await iptables(backend, '-A INPUT -j ACCEPT');
  t.same([refused.code, refused.stderr], [4, 'iptables: the workers are gone.\n']);
  const file = await restore(backend, '*filter\n-A INPUT\nCOMMIT\n');
  t.same([file.code, file.stderr], [4, 'iptables-restore: the workers are gone.\n']);
});

void t.test(
  'rules that a command leaves alone stay the same objects; others keep their identity where they can',
  async (t) => {
    const backend = new MemoryBackend();
    await iptables(backend, '-N a');
    await iptables(backend, '-A INPUT -j a');
    await iptables(backend, '-A INPUT -j ACCEPT');
    const [jump, accept] = rules(backend);
    await iptables(backend, '-A INPUT -j DROP');
    t.equal(rules(backend)[0], jump);
    t.equal(rules(backend)[1], accept);
    await iptables(backend, '-E a b');
    t.equal(rules(backend)[0]!.id, jump!.id);
    t.same(rules(backend)[0]!.target, { kind: 'jump', chain: 'b', goto: false });
    t.equal(rules(backend)[1], accept);
    await iptables(backend, '-R INPUT 2 -j ACCEPT');
    t.not(rules(backend)[1]!.id, accept!.id);
  },
);

void t.test('counters: set, counted, zeroed, lost never', async (t) => {
  const backend = new MemoryBackend();
  await iptables(backend, '-A INPUT -j ACCEPT -c 5 500');
  const { id } = rules(backend)[0]!;
  backend.counted.set(id, { packets: 2n, bytes: 200n });
  t.match((await iptables(backend, '-S INPUT -v')).stdout, '-A INPUT -c 7 700 -j ACCEPT\n');
  t.match((await iptables(backend, '-L INPUT -Z -v -x')).stdout, '       7      700 ACCEPT');
  t.match((await iptables(backend, '-S INPUT -v')).stdout, '-A INPUT -c 0 0 -j ACCEPT\n');
  t.equal(rules(backend)[0]!.id, id);
  backend.counted.set(id, { packets: 3n, bytes: 300n });
  t.match((await iptables(backend, '-S INPUT -v')).stdout, '-A INPUT -c 1 100 -j ACCEPT\n');
  t.match((await runIptables('iptables-save', ['-c'], '', backend)).stdout, '\n[1:100] -A INPUT -j ACCEPT\n');
});

void t.test('host names: several addresses, listing by name', async (t) => {
  const backend = new MemoryBackend(undefined, { orlock: '192.168.73.4' });
  const host = backend.host.bind(backend);
  let asked = 0;
  backend.host = (name) => {
    asked++;
    return name === 'pair' ? Promise.resolve([0x01010101, 0x02020202]) : host(name);
  };
  t.equal((await iptables(backend, '-A INPUT -s pair -d orlock -j ACCEPT')).code, 0);
  t.equal(asked, 2, 'each name is looked up once');
  t.match(
    (await iptables(backend, '-S INPUT')).stdout,
    '-A INPUT -s 1.1.1.1/32 -d 192.168.73.4/32 -j ACCEPT\n-A INPUT -s 2.2.2.2/32 -d 192.168.73.4/32 -j ACCEPT\n',
  );
  t.match((await iptables(backend, '-L INPUT')).stdout, 'ACCEPT     all  --  1.1.1.1              orlock ');
  t.match((await iptables(backend, '-L INPUT -n')).stdout, 'ACCEPT     0    --  1.1.1.1              192.168.73.4 ');
  t.equal((await restore(backend, '*filter\n-A INPUT -s orlock\nCOMMIT\n')).code, 0);
  t.match((await iptables(backend, '-S INPUT')).stdout, '-A INPUT -s 192.168.73.4/32\n');
  const recent = await iptables(backend, '-A INPUT -m recent --set --mask pair');
  t.match(recent.stderr, 'pair resolves to more than one address\n');
});

void t.test('a helper that nothing reads here is given, and that it is none is said', async (t) => {
  for (const helper of ['H.245', 'RAS']) {
    const backend = new MemoryBackend();
    const given = await iptables(backend, `-t raw -A PREROUTING -p udp -j CT --helper ${helper}`);
    t.same(
      [given.code, given.stderr],
      [0, `Warning: -j CT: nothing reads ${helper} here: what its connections agree on isn't RELATED\n`],
    );
    t.match((await iptables(backend, '-t raw -S PREROUTING')).stdout, `-j CT --helper ${helper}\n`);
    t.equal((await iptables(backend, `-t raw -D PREROUTING -p udp -j CT --helper ${helper}`)).stderr, '');
  }
  for (const read of ['-p udp -j CT --helper sip', '-j CT --zone 1', '-p udp -j CT --notrack --helper RAS'])
    t.equal((await iptables(new MemoryBackend(), `-t raw -A PREROUTING ${read}`)).stderr, '', read);
});

void t.test('marks that hutter keeps for itself are refused where a rule would set them', async (t) => {
  const backend = new MemoryBackend();
  for (const option of [
    '--set-mark 0x80000000',
    '--or-mark 0x80000001',
    '--xor-mark 0xc0000001',
    '--set-xmark 0x80000000/1',
  ]) {
    const { code, stderr } = await iptables(backend, `-t mangle -A PREROUTING -j MARK ${option}`);
    t.equal(code, 2, option);
    t.match(stderr, /^iptables v1\.8\.9 \(legacy\): hutter can't do -j MARK: 0x[0-9a-f]+ has the bit 0x80000000/);
  }
  t.equal((await iptables(backend, '-t mangle -A PREROUTING -j MARK --set-mark 0x7fffffff')).code, 0);
  t.equal((await iptables(backend, '-t mangle -A PREROUTING -j MARK --and-mark 0x1')).code, 0);
  t.equal((await iptables(backend, '-t mangle -A PREROUTING -m mark --mark 0x80000000')).code, 0);
  const file = await restore(backend, '*mangle\n-A INPUT -j MARK --set-mark 0x80000000\nCOMMIT\n');
  t.equal(file.code, 2);
  t.match(file.stderr, 'Error occurred at line: 2\n');
});

void t.test('commands wait for each other, -w no longer than it says', async (t) => {
  const backend = new MemoryBackend();
  const commit = backend.commit.bind(backend);
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => (release = resolve));
  backend.commit = async (next) => {
    await held;
    await commit(next);
  };
  const first = iptables(backend, '-A INPUT -j ACCEPT');
  const second = iptables(backend, '-A INPUT -j DROP');
  const late = await iptables(backend, '-w 1 -A INPUT -j RETURN');
  t.equal(late.code, 4);
  t.equal(
    late.stderr,
    "Can't lock /run/xtables.lock: Resource temporarily unavailable\n" +
      'Another app is currently holding the xtables lock. Stopped waiting after 1s.\n',
  );
  release();
  t.same([(await first).code, (await second).code], [0, 0]);
  t.equal(rules(backend).length, 2);
});

void t.test('checkFile finds every error with its place', async (t) => {
  const text = [
    '*filter',
    '-A INPUT -p tcp --dport nosuch -j ACCEPT',
    '[1:2] -A INPUT -j NOSUCH',
    '-A INPUT -m mark -j DROP',
    '-A NOSUCH -j DROP',
    '-A INPUT -j MASQUERADE',
    ':a - [0:0]',
    '-A a -j a',
    '-A INPUT -j a',
    '-A INPUT -s nosuch.invalid -i eth0',
    '-A INPUT -j MARK --set-mark 0x80000000',
    'COMMIT',
    '*nosuch',
    '-A INPUT',
    'COMMIT',
    'junk',
    '*nat',
    '-A POSTROUTING -s ! 10.0.0.0/8',
  ].join('\n');
  const { findings, saved } = await checkFile(`${text}\n`);
  t.same(
    findings.map(({ line, column, severity, message }) => `${line}:${column} ${severity} ${message}`),
    [
      "2:25 error invalid port/service `nosuch' specified",
      "3:19 error Couldn't load target `NOSUCH':No such file or directory",
      '4:13 error mark: option "--mark" must be specified',
      '5:1 error no chain NOSUCH',
      '6:1 error INPUT, rule 1: target MASQUERADE: only valid in nat table, not filter',
      '8:1 error a, rule 1: jumps back into a, which leads to it',
      "10:13 error host/network `nosuch.invalid' not found",
      "11:1 warning hutter can't do -j MARK: 0x80000000 has the bit 0x80000000, by which hutter knows the packets that it sends itself",
      "13:1 error iptables-restore: unable to initialize table 'nosuch'",
      '16:1 error not a line of a rules file, or outside a table',
      '18:1 warning Using intrapositioned negation (`--option ! this`) is deprecated in favor of extrapositioned (`! --option this`).',
      '19:1 error COMMIT expected',
    ],
  );
  t.match(saved, '-A POSTROUTING ! -s 10.0.0.0/8\n');
  const clean = await checkFile('*filter\n:INPUT DROP\n-A INPUT -p tcp --dport 22\nCOMMIT\n');
  t.same(clean.findings, []);
  t.match(
    clean.saved,
    ':INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22\n',
  );
});

void t.test('help, version and wrong arguments need no router', (t) => {
  const alone = (program: string, line: string): Answer | undefined => answerAlone({ program, argv: splitWords(line) });
  t.match(alone('iptables', '-p tcp -m limit -j DNAT -h'), {
    code: 0,
    stdout: /^DNAT target.*^limit match/ms,
  });
  t.match(alone('iptables', '-A INPUT -s host.invalid --nosuch'), { code: 2, stderr: /unknown option "--nosuch"\n/ });
  t.match(alone('iptables-save', '-V'), { code: 0, stdout: 'iptables-save v1.8.9 (legacy)\n' });
  t.match(alone('iptables-save', '-q'), { code: 1, stderr: /^iptables-save: invalid option -- 'q'\n/ });
  t.match(alone('iptables-restore', '-h'), { code: 0, stderr: /^Usage: iptables-restore / });
  for (const [program, line] of [
    ['iptables', '-A INPUT -s host.invalid -j ACCEPT'],
    ['iptables-save', '-t nat'],
    ['iptables-restore', '-n'],
  ] as const)
    t.equal(alone(program, line), undefined, `${program} ${line}`);
  t.end();
});

void t.test('the tables carried along are read like the files', (t) => {
  const services = parseServices(
    'smtp\t\t25/tcp\t\tmail # Simple\n#x 1/tcp\nrtsp 554/tcp\nrtsp 554/udp\nsecond 25/tcp\n',
  );
  t.equal(services.ports.get('mail/tcp'), 25);
  t.equal(services.names.get('25/tcp'), 'smtp');
  t.equal(services.ports.has('x/tcp'), false);
  const carried = builtinServices();
  for (const [name, port] of [
    ['ssh/tcp', 22],
    ['domain/udp', 53],
    ['http/tcp', 80],
    ['www/tcp', 80],
    ['pop3/tcp', 110],
  ] as const)
    t.equal(carried.ports.get(name), port, name);
  t.equal(parseProtocols('ospf\t89\tOSPFIGP\n').numbers.get('OSPFIGP'), 89);
  t.equal(builtinProtocols().numbers.get('gre'), 47);
  t.equal(builtinProtocols().names.get(89), 'ospf');
  t.end();
});
