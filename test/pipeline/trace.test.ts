/** TRACE: every rule that a packet matches at every hook, as ipt_do_table() tells it (net/ipv4/netfilter/ip_tables.c, trace_packet). */
import t from 'tap';
import { IF0, KNOCK, ORLOCK, World, type PacketFields } from './world.js';

const RULES = `*raw
:PREROUTING ACCEPT
-A PREROUTING -p udp
-A PREROUTING -p tcp --dport 80 -j TRACE
-A PREROUTING -p tcp -m comment --comment seen
-A PREROUTING -p udp --dport 53 -j TRACE
COMMIT
*mangle
:PREROUTING ACCEPT
:FORWARD ACCEPT
:mine - [0:0]
:empty - [0:0]
:far - [0:0]
-A PREROUTING -j mine
-A PREROUTING -j empty
-A PREROUTING -p tcp -g far
-A FORWARD -j MARK --set-mark 1
-A mine -p udp -j DROP
-A mine -p tcp -j RETURN
-A far -s 10.0.0.0/8
-A far -p tcp -j TOS --set-tos 8
COMMIT
*filter
:FORWARD DROP
-A FORWARD -s 10.0.0.0/8 -j ACCEPT
-A FORWARD -j ACCEPT
COMMIT
`;
const TCP: PacketFields = { src: ORLOCK, dst: KNOCK, protocol: 6, sport: 1024, dport: 80, flags: 2 };

/** What the lines say behind "TRACE: ". */
const met = (lines: readonly string[]): (string | undefined)[] =>
  lines.map((line) => /TRACE: (\S+) IN=/.exec(line)?.[1]);

t.test('rules, ends of chains and policies, at every hook', async (t) => {
  const w = await World.create(RULES);
  const seen = w.arrives(IF0, TCP);
  t.same(met(w.lines(seen)), [
    // Not the rule that begins it.
    'raw:PREROUTING:rule:3',
    'raw:PREROUTING:policy:5',
    'mangle:PREROUTING:rule:1',
    // An explicit RETURN under conditions is a rule like any other; the end of a chain without rules isn't told.
    'mangle:mine:rule:2',
    'mangle:PREROUTING:rule:2',
    'mangle:PREROUTING:rule:3',
    'mangle:far:rule:2',
    // A goto comes back to where its chain was called from: here the policy.
    'mangle:far:return:3',
    'mangle:PREROUTING:policy:4',
    'mangle:FORWARD:rule:1',
    'mangle:FORWARD:policy:2',
    // A verdict about everything is the end of its chain to the kernel, too.
    'filter:FORWARD:policy:2',
    'mangle:POSTROUTING:policy:1',
  ]);
  const lines = w.lines(seen);
  t.match(lines[0], /^<4>TRACE: raw:PREROUTING:rule:3 IN=if0 OUT= MAC= SRC=192\.168\.73\.4 .* SEQ=\d+ ACK=\d+ /);
  t.match(lines[11], /^<4>TRACE: filter:FORWARD:policy:2 IN=if0 OUT=if1 .* MARK=0x1 $/);
});

t.test('only what TRACE has seen, and each packet by itself', async (t) => {
  const w = await World.create(RULES);
  t.same(w.lines(w.arrives(IF0, { ...TCP, dport: 81 })), []);
  t.same(met(w.lines(w.arrives(IF0, { ...TCP, protocol: 17, dport: 53 }))), [
    'raw:PREROUTING:policy:5',
    'mangle:PREROUTING:rule:1',
    'mangle:mine:rule:1',
  ]);
  t.same(w.lines(w.arrives(IF0, { ...TCP, dport: 81 })), []);
});

t.test('rules that a decision tree passes over are not told', async (t) => {
  const many = Array.from({ length: 40 }, (_, i) => `-A FORWARD -p tcp --dport ${1000 + i} -j DROP`).join('\n');
  const w = await World.create(
    `*raw\n:PREROUTING ACCEPT\n-A PREROUTING -j TRACE\nCOMMIT\n*filter\n:FORWARD ACCEPT\n${many}\n-A FORWARD -p tcp --dport 80\nCOMMIT\n`,
  );
  t.same(met(w.lines(w.arrives(IF0, TCP))), [
    'raw:PREROUTING:policy:2',
    'filter:FORWARD:rule:41',
    'filter:FORWARD:policy:42',
  ]);
});
