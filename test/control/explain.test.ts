import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t from 'tap';

const CONFIG = `interfaces:
  if0: { addresses: [192.168.73.1/24] }
  if1: { addresses: [128.61.70.47/24] }
routes:
  - { to: default, via: 128.61.70.1 }
`;

const folder = mkdtempSync(path.join(tmpdir(), 'hutter-explain-'));
t.teardown(() => {
  rmSync(folder, { recursive: true });
});
const config = path.join(folder, 'config.yml');
writeFileSync(config, CONFIG);

function explain(...args: string[]): { code: number | null; out: string; err: string } {
  const rules = ['--rules', 'examples/simple-firewall.rules'];
  const { status, stdout, stderr } = spawnSync('node', ['dist/bin/hutter.mjs', 'explain', ...rules, ...args], {
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}

t.test('a packet that passes: every rule it matched, and what it became', (t) => {
  const { code, out } = explain('in=if0 out=if1 src=192.168.73.4 dst=8.8.8.8 proto=tcp dport=80 flags=syn');
  t.equal(code, 0);
  t.match(out, 'FORWARD\n  mangle policy  -P FORWARD ACCEPT\n  filter rule 1  -A FORWARD -i if0 -j ACCEPT\n');
  t.match(out, 'ACCEPT by -A POSTROUTING -o if1 -j SNAT --to-source 128.61.70.47\n');
  t.match(out, 'goes on as tcp 128.61.70.47:40000 > 8.8.8.8:80');
  t.end();
});

t.test("the configuration's routes decide where it goes", (t) => {
  const { out } = explain('--config', config, 'in=if1 src=8.8.8.8 dst=128.61.70.47 proto=tcp dport=6346');
  t.match(out, 'goes on as tcp 8.8.8.8:40000 > 192.168.73.4:6346');
  const own = explain('--config', config, 'in=if1 src=192.168.73.1 dst=128.61.70.47');
  t.match(own.out, 'DROP by hutter: martian-source\n');
  t.end();
});

t.test('a refused packet: who dropped it, and the answer with its own way', (t) => {
  const { out } = explain('--config', config, 'in=if1 src=8.8.8.8 dst=128.61.70.47 proto=tcp dport=113');
  t.match(out, 'OUTPUT, the answer\n');
  t.match(out, 'DROP by -A INPUT -p tcp -m tcp --dport 0:8000 -j REJECT --reject-with tcp-reset\n');
  t.match(out, 'answered with tcp reset 128.61.70.47:113 > 8.8.8.8:40000');
  t.match(explain('in=if1 out=if0 src=8.8.8.8 dst=192.168.73.4').out, 'DROP by -P FORWARD DROP\n');
  t.end();
});

t.test('ports by name; what its protocol has not is refused', (t) => {
  const { out } = explain('in=if0 out=if1 src=192.168.73.4 dst=8.8.8.8 proto=tcp dport=smtp');
  t.match(out, 'goes on as tcp 128.61.70.47:40000 > 8.8.8.8:25');
  for (const [words, text] of [
    ['proto=tcp dport=frob', 'dport=frob is neither a port nor a service of tcp'],
    ['proto=tcp dport=99999', 'dport=99999 is not within 0 to 65535'],
    ['proto=icmp dport=5', 'dport=5: a packet of icmp has no dport'],
    ['proto=udp flags=syn', 'flags=syn: a packet of udp has no flags'],
    ['proto=tcp type=8', 'type=8: a packet of tcp has no type'],
  ])
    t.match(explain(`in=if0 src=192.168.73.4 dst=8.8.8.8 ${words}`), { code: 2, err: `hutter: ${text}\n` });
  t.end();
});

t.test('JSON', (t) => {
  const report = JSON.parse(explain('--json', 'in=if0', 'src=192.168.73.4', 'dst=192.168.73.1').out) as {
    verdict: string;
    way: { hook: string }[];
  };
  t.equal(report.verdict, 'ACCEPT');
  t.same(
    report.way.map(({ hook }) => hook),
    ['PREROUTING', 'INPUT'],
  );
  t.end();
});

t.test('a packet that makes no sense is refused with its word', (t) => {
  const cases: [string, RegExp][] = [
    ['in=if0 src=1.2.3.4', /needs dst=ADDRESS/],
    ['in=if0 src=1.2.3.400 dst=1.1.1.1', /src=1\.2\.3\.400 is not an IPv4 address/],
    ['in=if0 src=1.2.3.4 dst=1.1.1.1 proto=bogus', /proto=bogus is not a protocol/],
    ['in=if0 src=1.2.3.4 dst=1.1.1.1 proto=tcp dport=65536', /dport=65536 is not within/],
    ['in=if0 src=1.2.3.4 dst=1.1.1.1 proto=tcp flags=sin', /flags=sin/],
    ['src=1.2.3.4 dst=1.1.1.1', /needs in=INTERFACE/],
    ['in=if0 colour=red', /'colour' is no part/],
    ['in', /'in' is not KEY=VALUE/],
  ];
  for (const [packet, error] of cases) {
    const { code, out, err } = explain(packet);
    t.equal(code, 2, packet);
    t.equal(out, '');
    t.match(err, error);
  }
  t.end();
});
