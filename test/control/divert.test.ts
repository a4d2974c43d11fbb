/** The text of the diversion; test/control/up.test.ts sees the kernel take it. */
import t from 'tap';
import { againRules, diversionRules, type DivertOptions, installText, removeText } from '../../src/control/divert.js';

const OPTIONS: DivertOptions = {
  queueBase: 0,
  workers: 1,
  fanout: 'hosts',
  failOpen: false,
  keep: [],
  connections: false,
  packetTypes: false,
  policies: false,
};

t.test('one worker, closed, no connections', (t) => {
  t.same(diversionRules(OPTIONS, [{ interface: 'if0', strictness: 1 }]), [
    '-A HUTTER-PRE -j CT --notrack',
    '-A HUTTER-PRE -j NFQUEUE --queue-num 0',
    '-A HUTTER-OUT -m mark --mark 0x80000000/0x80000000 -j CT --notrack',
    '-A HUTTER-OUT -m mark --mark 0x80000000/0x80000000 -j RETURN',
    '-A HUTTER-OUT -j CT --notrack',
    '-A HUTTER-OUT -j NFQUEUE --queue-num 0',
  ]);
  t.end();
});

t.test('everything at once', (t) => {
  const rules = diversionRules(
    {
      queueBase: 8,
      workers: 4,
      fanout: 'hosts',
      failOpen: true,
      keep: [{ interface: 'lo' }, { protocol: 'tcp', port: 22 }, { protocol: 'udp', port: 53 }],
      connections: true,
      packetTypes: false,
      policies: false,
    },
    [
      { interface: 'strict', strictness: 1 },
      { interface: 'loose', strictness: 2 },
      { interface: 'none', strictness: 0 },
    ],
  );
  t.same(rules, [
    '-A HUTTER-PRE -i lo -j RETURN',
    '-A HUTTER-PRE ! -i lo -m addrtype --src-type LOCAL --dst-type UNICAST -j DROP',
    '-A HUTTER-PRE ! -i lo -m addrtype --src-type LOCAL --dst-type LOCAL -j DROP',
    '-A HUTTER-PRE -i strict -m rpfilter --invert -j DROP',
    '-A HUTTER-PRE -i loose -m rpfilter --loose --invert -j DROP',
    '-A HUTTER-PRE -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 22 -j RETURN',
    '-A HUTTER-PRE -p udp -m addrtype --dst-type LOCAL -m udp --dport 53 -j RETURN',
    '-A HUTTER-PRE -i hutter-no-such -m socket -j ACCEPT',
    '-A HUTTER-PRE -j CT --notrack',
    '-A HUTTER-PRE -j NFQUEUE --queue-balance 8:11 --queue-bypass',
    '-A HUTTER-OUT -m mark --mark 0x80000000/0x80000000 -j CT --notrack',
    '-A HUTTER-OUT -m mark --mark 0x80000000/0x80000000 -j RETURN',
    '-A HUTTER-OUT -o lo -j RETURN',
    '-A HUTTER-OUT -p tcp -m tcp --sport 22 -j RETURN',
    '-A HUTTER-OUT -p udp -m udp --sport 53 -j RETURN',
    '-A HUTTER-OUT -j CT --notrack',
    '-A HUTTER-OUT -j NFQUEUE --queue-balance 8:11 --queue-bypass',
  ]);
  t.end();
});

t.test('several workers by the core that a packet comes in on', (t) => {
  const queue = (workers: number): string | undefined =>
    diversionRules({ ...OPTIONS, workers, fanout: 'cpu' }, []).find((rule) => rule.includes('NFQUEUE'));
  t.equal(queue(2), '-A HUTTER-PRE -j NFQUEUE --queue-balance 0:1 --queue-cpu-fanout');
  t.equal(queue(1), '-A HUTTER-PRE -j NFQUEUE --queue-num 0', 'one worker gets all');
  t.end();
});

t.test('the second crossing: the same queues', (t) => {
  t.same(againRules(OPTIONS), ['-A HUTTER-POST -m u32 --u32 "4&0x8000=0x8000" -j NFQUEUE --queue-num 0']);
  t.match(againRules({ ...OPTIONS, workers: 2, fanout: 'cpu', failOpen: true }), [
    / -j NFQUEUE --queue-balance 0:1 --queue-bypass$/,
  ]);
  t.end();
});

t.test('what the kernel marks packets for', (t) => {
  const rules = diversionRules({ ...OPTIONS, packetTypes: true, policies: true }, []);
  t.same(
    rules.filter((rule) => rule.includes('--set-xmark')),
    [
      '-A HUTTER-PRE -m pkttype --pkt-type broadcast -j MARK --set-xmark 0xc0000000/0xe0000000',
      '-A HUTTER-PRE -m pkttype --pkt-type multicast -j MARK --set-xmark 0xa0000000/0xe0000000',
      '-A HUTTER-PRE -m policy --dir in --pol ipsec -j MARK --set-xmark 0xe0000000/0xe0000000',
      '-A HUTTER-OUT -m policy --dir out --pol ipsec -j MARK --set-xmark 0xe0000000/0xe0000000',
    ],
  );
  t.same(againRules({ ...OPTIONS, policies: true }), [
    '-A HUTTER-POST -m u32 --u32 "4&0x8000=0x8000" -m policy --dir out --pol ipsec -j MARK --set-xmark 0xe0000000/0xe0000000',
    ...againRules(OPTIONS),
  ]);
  t.end();
});

t.test('closed with a kept service: what passes by is held to the reverse path', (t) => {
  const rules = diversionRules({ ...OPTIONS, keep: [{ protocol: 'tcp', port: 22 }] }, [
    { interface: 'if0', strictness: 1 },
  ]);
  t.ok(rules.includes('-A HUTTER-PRE -i if0 -m rpfilter --invert -j DROP'));
  t.notOk(rules.some((rule) => rule.includes('--queue-bypass')));
  t.end();
});

const JUMP_PRE = '-A PREROUTING -m comment --comment "hutter: diversion" -j HUTTER-PRE';
const JUMP_OUT = '-A OUTPUT -m comment --comment "hutter: diversion" -j HUTTER-OUT';
const SAVED = `*raw
:PREROUTING ACCEPT [0:0]
:HUTTER-PRE - [0:0]
:HUTTER-OUT - [0:0]
-A PREROUTING -s 10.0.0.0/8 -j DROP
${JUMP_PRE}
${JUMP_OUT}
-A HUTTER-PRE -j CT --notrack
COMMIT
`;

t.test('installing over what is there adds no second jump', (t) => {
  t.equal(
    installText(['-A HUTTER-PRE -j X'], ''),
    `*raw\n:HUTTER-PRE - [0:0]\n:HUTTER-OUT - [0:0]\n-A HUTTER-PRE -j X\n${JUMP_PRE}\n${JUMP_OUT}\nCOMMIT\n`,
  );
  t.equal(
    installText(['-A HUTTER-PRE -j X'], SAVED),
    '*raw\n:HUTTER-PRE - [0:0]\n:HUTTER-OUT - [0:0]\n-A HUTTER-PRE -j X\nCOMMIT\n',
  );
  t.end();
});

t.test('removing takes what is hutter’s, however often, and no more', (t) => {
  t.equal(removeText(''), '');
  t.equal(removeText('*raw\n-A PREROUTING -s 10.0.0.0/8 -j DROP\nCOMMIT\n'), '');
  t.equal(
    removeText(SAVED),
    `*raw\n${JUMP_PRE.replace('-A', '-D')}\n${JUMP_OUT.replace('-A', '-D')}\n` +
      '-F HUTTER-PRE\n-F HUTTER-OUT\n-X HUTTER-PRE\n-X HUTTER-OUT\nCOMMIT\n',
  );
  t.equal(removeText(SAVED.replace(JUMP_PRE, `${JUMP_PRE}\n${JUMP_PRE}`)).match(/-D PREROUTING/g)?.length, 2);
  t.end();
});
