/** The look at the host, on what hosts say of themselves. */
import t from 'tap';
import {
  examineCapabilities,
  examineInterfaces,
  examineNft,
  examineQueues,
  examineSaved,
  kernelHz,
} from '../../src/control/host.js';

const QUESTIONS = { queueBase: 4, workers: 2, keep: [], interfaces: {} };

t.test('capabilities', (t) => {
  t.same(examineCapabilities('Name:\tx\nCapEff:\t000001ffffffffff\n'), []);
  t.match(examineCapabilities('CapEff:\t0000000000000000'), [
    { level: 'refuse', text: /^hutter up needs CAP_NET_ADMIN and CAP_NET_RAW: run it as root, or / },
  ]);
  t.match(examineCapabilities('CapEff:\t0000000000001000'), [{ text: /needs CAP_NET_RAW: / }]);
  t.match(examineCapabilities(''), [{ level: 'refuse' }]);
  t.end();
});

t.test('queue numbers', (t) => {
  const listing =
    '    3  4711     0 2 65531     0     0        0  1\n    5  4712     0 2 65531     0     0        9  1\n';
  t.same(examineQueues('', QUESTIONS), []);
  t.same(examineQueues(listing, QUESTIONS), [
    {
      level: 'refuse',
      text: 'NFQUEUE 5 is taken by another program (netlink port 4712): stop it or choose --queue-base',
    },
  ]);
  t.same(examineQueues(listing, { ...QUESTIONS, queueBase: 6 }), []);
  t.same(examineQueues('', { ...QUESTIONS, queueBase: 65534 }), []);
  t.match(examineQueues('', { ...QUESTIONS, queueBase: 65535 }), [{ level: 'refuse', text: /don't exist/ }]);
  t.end();
});

t.test('interfaces named in the configuration or kept', (t) => {
  const present = ['all', 'default', 'lo', 'if0'];
  const questions = { ...QUESTIONS, interfaces: { if0: { addresses: [], mtu: 1500 } } };
  t.same(examineInterfaces(present, questions), []);
  t.same(examineInterfaces(present, { ...questions, keep: [{ interface: 'eth9' }, { protocol: 'tcp', port: 22 }] }), [
    { level: 'refuse', text: 'unknown interface eth9: this network namespace has lo, if0' },
  ]);
  t.end();
});

const DOCKER = `*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
*filter
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 -j ACCEPT
COMMIT
`;
const EMBEDDED_DNS = `*nat
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:41235
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 41235 -j SNAT --to-source :53
COMMIT
`;
const OWN = `*raw
-A PREROUTING -m comment --comment "hutter: diversion" -j HUTTER-PRE
-A HUTTER-PRE -j CT --notrack
COMMIT
`;

t.test("the kernel's own rules", (t) => {
  t.same(examineSaved('', 'legacy', []), []);
  t.same(examineSaved('*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n', 'legacy', []), []);
  t.same(examineSaved(OWN, 'legacy', []), [], "hutter's own are none");
  t.match(examineSaved(DOCKER, 'nf_tables', []), [
    { level: 'warn', text: /nat table has rules \(iptables nf_tables, such as `-A POSTROUTING -s 172\.17\.0\.0\/16/ },
    { level: 'warn', text: /ask for connections .*--ctstate RELATED,ESTABLISHED/ },
  ]);
  t.equal(examineSaved(EMBEDDED_DNS, 'nf_tables', []).length, 1, "a container's name server");
  t.same(examineSaved(EMBEDDED_DNS, 'nf_tables', [{ interface: 'lo' }]), [], '… works when lo is kept');
  t.match(examineSaved('*raw\n-A PREROUTING -s 10.0.0.0/8 -j DROP\nCOMMIT\n', 'legacy', []), [{ text: /come before/ }]);
  t.end();
});

t.test('nft rules', (t) => {
  const ruleset = (body: string, table = 'inet firewalld'): string => `table ${table} {\n${body}}\n`;
  const nat = '\tchain nat {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tmasquerade\n\t}\n';
  const state = '\tchain in {\n\t\ttype filter hook input priority filter;\n\t\tct state established accept\n\t}\n';
  const plain = '\tchain in {\n\t\ttype filter hook input priority filter;\n\t\ttcp dport 22 accept\n\t}\n';
  t.same(examineNft(ruleset(plain)), []);
  t.match(examineNft(ruleset(nat)), [{ level: 'warn', text: /such as `masquerade`/ }]);
  t.match(examineNft(ruleset(plain + state)), [{ text: /such as `ct state established accept`/ }]);
  t.same(examineNft(ruleset(state, 'ip6 x')), [], 'IPv6 is none of its business');
  t.same(examineNft(ruleset(nat, 'ip nat')), [], "iptables-nft's tables are read by iptables-save");
  t.same(examineNft('# Warning: table ip x is managed by iptables-nft, do not touch!\n' + ruleset(nat, 'ip x')), []);
  t.end();
});

t.test("the kernel's timer frequency is one that kernels have", (t) => {
  t.ok([100, 250, 300, 1000].includes(kernelHz()), String(kernelHz()));
  t.end();
});
