/** What each match decides, negations included; the kernel's source says why (see the evaluators). */
import t from 'tap';
import { packKey } from '../../src/dataplane/conntrack/key.js';
import { Status } from '../../src/dataplane/conntrack/states.js';
import { linkEntry } from '../../src/dataplane/conntrack/layout.js';
import { CtState, PrivateMark, Proto } from '../../src/dataplane/names.js';
import { ip, matches, packet, World, type Fields } from './lab.js';

/** Rule, packet, whether it matches. */
function table(name: string, rows: readonly (readonly [string, Fields, boolean])[]): void {
  t.test(name, (t) => {
    for (const [rule, fields, expected] of rows)
      t.equal(matches(rule, packet(fields)), expected, `${rule} ${JSON.stringify(fields)}`);
    t.end();
  });
}

const UDP: Fields = { protocol: Proto.UDP };
const ICMP: Fields = { protocol: Proto.ICMP };

table('addresses', [
  ['-s 192.168.73.0/24', {}, true],
  ['-s 192.168.73.5', {}, false],
  ['! -s 192.168.73.4', {}, false],
  ['-s 192.0.0.4/255.0.0.255', { src: '192.9.9.4' }, true],
  ['-s 192.0.0.4/255.0.0.255', { src: '192.9.9.5' }, false],
  ['-d 200.0.0.0/6', { dst: '203.255.0.1' }, true],
  ['! -d 128.61.70.200', { dst: '128.61.70.201' }, true],
  ['-s 0.0.0.0/0', {}, true],
  ['! -s 0.0.0.0/0', {}, false],
]);

t.test('interfaces', (t) => {
  const w = new World();
  const at = (rule: string, indev: number): boolean => {
    w.load(`*filter\n:INPUT DROP\n-A INPUT ${rule} -j ACCEPT`);
    return w.run(packet(), 'INPUT', 'filter', indev) === 1;
  };
  t.equal(at('-i if0', 2), true);
  t.equal(at('-i if', 2), false, 'the whole name');
  t.equal(at('-i if+', 3), true);
  t.equal(at('-i eth1', 4), false, 'eth10 is another one');
  t.equal(at('-i eth1+', 4), true);
  t.equal(at('! -i if+', 1), true);
  t.equal(at('-i lo', 0), false, 'no interface');
  t.equal(at('! -i lo', 0), true);
  w.load('*filter\n:FORWARD DROP\n-A FORWARD -i if0 -o if1 -j ACCEPT');
  t.equal(w.run(packet(), 'FORWARD', 'filter', 2, 3), 1);
  t.equal(w.run(packet(), 'FORWARD', 'filter', 2, 4), 0);
  t.end();
});

table('protocol and fragments', [
  ['-p udp', UDP, true],
  ['! -p udp', UDP, false],
  ['-p 47', { protocol: 47 }, true],
  ['-f', {}, false],
  ['-f', { fragOffset: 3 }, true],
  ['-f', { moreFragments: true }, false],
  ['! -f', { fragOffset: 3 }, false],
  ['! -f', { moreFragments: true }, true],
]);

table('tcp', [
  ['-p tcp --dport 80', {}, true],
  ['-p tcp --dport 81:90', {}, false],
  ['-p tcp ! --dport 81:90', {}, true],
  ['-p tcp --sport :1024', {}, true],
  ['-p tcp ! --sport 1024', {}, false],
  ['-p tcp --dport 80', { fragOffset: 2 }, false],
  ['-p tcp ! --dport 80', { fragOffset: 2 }, false],
  ['-p tcp --syn', { tcpFlags: 2 }, true],
  ['-p tcp --syn', { tcpFlags: 0xc2 }, true],
  ['-p tcp --syn', { tcpFlags: 0x12 }, false],
  ['-p tcp ! --syn', { tcpFlags: 0x12 }, true],
  ['-p tcp --tcp-flags ALL NONE', { tcpFlags: 0 }, true],
  ['-p tcp --tcp-flags ALL FIN,PSH,URG', { tcpFlags: 0x29 }, true],
  ['-p tcp --tcp-option 8', { tcpOptions: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0] }, true],
  ['-p tcp --tcp-option 3', { tcpOptions: [1, 1, 8, 10, 3, 3, 3, 1, 0, 0, 0, 0] }, false],
  ['-p tcp ! --tcp-option 2', { tcpOptions: [2, 4, 5, 0xb4] }, false],
  ['-p tcp ! --tcp-option 2', {}, true],
  ['-p tcp --tcp-option 2', { tcpOptions: [9, 0, 0, 2] }, true],
]);

t.test('a cut TCP header, or one overwritten by a fragment, is dropped', (t) => {
  const dropped = (rule: string, fields: Fields): boolean => {
    const w = new World().load(`*filter\n:INPUT ACCEPT\n-A INPUT ${rule} -j ACCEPT`);
    const p = packet(fields);
    return w.run(p) === 0 && p.hotdrop === 1;
  };
  t.equal(dropped('-p tcp --dport 80', { transport: Array.from({ length: 19 }, () => 0) }), true);
  t.equal(dropped('-p tcp ! --dport 80', { fragOffset: 1 }), true);
  t.equal(dropped('-p tcp ! --dport 80', { fragOffset: 2 }), false);
  t.equal(
    dropped('-p tcp --tcp-option 2', { transport: [4, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 2, 0, 0, 0, 0, 0, 0] }),
    true,
  );
  t.equal(
    dropped('-p tcp --tcp-option 2', { transport: [4, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 2, 0, 0, 0, 0, 0, 0] }),
    true,
  );
  t.equal(dropped('-p udp --dport 53', { protocol: 17, transport: [0, 1, 0, 53, 0, 8, 0] }), true);
  t.equal(dropped('-p udp --dport 53', { protocol: 17, transport: [], fragOffset: 1 }), false);
  t.equal(dropped('-p icmp --icmp-type 8', { protocol: 1, transport: [8, 0, 0, 0, 0, 0, 0] }), true);
  t.equal(dropped('-p tcp -m multiport --dports 80', { transport: [0, 1, 0] }), true);
  t.equal(dropped('-p tcp -m multiport --dports 80', { transport: [0, 1, 0, 80] }), false);
  t.end();
});

table('udp', [
  ['-p udp --dport 80', UDP, true],
  ['-p udp --sport 1000:1023', UDP, false],
  ['-p udp ! --sport 1000:1023', UDP, true],
  ['-p udp --dport 80', { ...UDP, fragOffset: 9 }, false],
]);

table('icmp', [
  ['-p icmp --icmp-type echo-request', ICMP, true],
  ['-p icmp ! --icmp-type echo-request', ICMP, false],
  ['-p icmp --icmp-type any', { ...ICMP, icmpType: 77 }, true],
  ['-p icmp --icmp-type 3/1', { ...ICMP, icmpType: 3, icmpCode: 1 }, true],
  ['-p icmp --icmp-type 3/1', { ...ICMP, icmpType: 3, icmpCode: 2 }, false],
  ['-p icmp --icmp-type 3', { ...ICMP, icmpType: 3, icmpCode: 200 }, true],
  ['-p icmp --icmp-type any', { ...ICMP, fragOffset: 3 }, false],
]);

table('multiport', [
  ['-p tcp -m multiport --dports 22,80', {}, true],
  ['-p tcp -m multiport --sports 22,80', {}, false],
  ['-p tcp -m multiport --ports 22,1000:1100', {}, true],
  ['-p tcp -m multiport ! --ports 22,1000:1100', {}, false],
  ['-p tcp -m multiport ! --dports 22', {}, true],
  ['-p tcp -m multiport ! --dports 22', { fragOffset: 4 }, false],
  ['-p udp -m multiport --dports 80', UDP, true],
]);

t.test('mark: hutter’s own bits are not seen', (t) => {
  const own = PrivateMark.INJECTED;
  t.equal(matches('-m mark --mark 47', packet({ mark: 47 | own })), true);
  t.equal(matches('-m mark --mark 0', packet({ mark: own })), true);
  t.equal(matches('-m mark ! --mark 0', packet({ mark: own })), false);
  t.equal(matches('-m mark --mark 0x10/0xf0', packet({ mark: 0x1f })), true);
  t.equal(matches('-m mark ! --mark 0x10/0xf0', packet({ mark: 0x1f })), false);
  t.end();
});

t.test('state', (t) => {
  const at = (rule: string, state: number): boolean => {
    const p = packet();
    p.ctState = state;
    return matches(rule, p);
  };
  t.equal(at('-m state --state NEW', CtState.NEW), true);
  t.equal(at('-m state --state RELATED,ESTABLISHED', CtState.RELATED), true);
  t.equal(at('-m state --state RELATED,ESTABLISHED', CtState.NEW), false);
  t.equal(at('-m state ! --state NEW', CtState.ESTABLISHED), true);
  t.equal(at('-m state --state INVALID', 0), true, 'never tracked is INVALID');
  t.equal(at('-m state --state INVALID', CtState.UNTRACKED), false);
  t.equal(at('-m conntrack --ctstate UNTRACKED', CtState.UNTRACKED), true);
  t.end();
});

t.test('conntrack', (t) => {
  const w = new World();
  const entry = w.table.create(ip('10.0.0.1'), ip('10.0.0.2'), (1024 << 16) | 80, Proto.TCP, 0, 0);
  // Translated: replies come from 10.9.0.2:8080 to 10.8.0.1:2000.
  w.table.alterReply(entry, ip('10.9.0.2'), ip('10.8.0.1'), (8080 << 16) | 2000);
  w.table.setStatus(entry, 0x10 | 0x4);
  const at = (rule: string, dir = 0, state: number = CtState.ESTABLISHED): boolean => {
    const p = packet();
    p.ct = entry;
    p.ctDir = dir;
    p.ctState = state;
    return matches(`-m conntrack ${rule}`, p, w);
  };
  t.equal(at('--ctstate SNAT'), true);
  t.equal(at('--ctstate DNAT'), false);
  t.equal(at('! --ctstate DNAT,INVALID'), true);
  t.equal(at('--ctproto tcp'), true);
  t.equal(at('! --ctproto tcp'), false);
  t.equal(at('--ctorigsrc 10.0.0.0/24'), true);
  t.equal(at('! --ctorigsrc 10.0.0.1'), false);
  t.equal(at('--ctorigdst 10.0.0.2'), true);
  t.equal(at('--ctorigdst 10.0.0.3'), false);
  t.equal(at('--ctreplsrc 10.9.0.2'), true);
  t.equal(at('--ctrepldst 10.8.0.1'), true);
  t.equal(at('! --ctrepldst 10.8.0.1'), false);
  t.equal(at('--ctorigsrcport 1024'), true);
  t.equal(at('--ctorigdstport 79:81'), true);
  t.equal(at('! --ctorigdstport 79:81'), false);
  t.equal(at('--ctreplsrcport 8080'), true);
  t.equal(at('--ctrepldstport 2001'), false);
  t.equal(at('--ctstatus ASSURED'), true);
  t.equal(at('--ctstatus SEEN_REPLY'), false);
  t.equal(at('! --ctstatus SEEN_REPLY'), true);
  t.equal(at('--ctstatus NONE'), false, 'no bit is in common with none');
  t.equal(at('--ctdir ORIGINAL'), true);
  t.equal(at('--ctdir ORIGINAL', 1), false);
  t.equal(at('--ctdir REPLY', 1), true);
  t.equal(at('--ctstate NEW --ctdir ORIGINAL'), false);
  t.equal(matches('-m conntrack --ctdir ORIGINAL', packet()), false, 'no connection, no state asked for');
  t.equal(matches('-m conntrack --ctstate INVALID --ctdir REPLY', packet()), true, 'the state alone counts then');
  t.end();
});

t.test('conntrack: seconds left', (t) => {
  const w = new World();
  w.at(1_000_000);
  const entry = w.table.create(ip('10.0.0.1'), ip('10.0.0.2'), 0x10001, Proto.UDP, 0, 0);
  w.table.refresh(entry, 30_000);
  t.equal(w.table.insert(entry), 0);
  w.load('*filter\n:INPUT DROP\n-A INPUT -m conntrack --ctexpire 20:29 -j ACCEPT');
  const ask = (): number => {
    const p = packet();
    p.ct = entry;
    p.ctState = CtState.ESTABLISHED;
    return w.run(p);
  };
  t.equal(ask(), 0, '30 s');
  w.wait(1);
  t.equal(ask(), 1, '29.999 s');
  w.wait(9999);
  t.equal(ask(), 1, '20 s');
  w.wait(1);
  t.equal(ask(), 0, '19.999 s');
  t.end();
});

t.test('conntrack: an unconfirmed connection’s timeout is taken for a moment in time', (t) => {
  const ask = (uptimeMs: number): number => {
    const w = new World();
    w.at(uptimeMs);
    w.load('*filter\n:INPUT DROP\n-A INPUT -m conntrack --ctexpire 1: -j ACCEPT');
    const p = packet();
    p.ct = w.table.create(p.src, p.dst, 0x10001, Proto.UDP, 0, 0);
    w.table.refresh(p.ct, 30_000);
    p.ctState = CtState.NEW;
    return w.run(p);
  };
  t.equal(ask(329_000), 1, 'jiffies begin 300 s before 0, and 30 s later it is over');
  t.equal(ask(329_001), 0);
  t.equal(ask(2_000_000_000), 0, 'three weeks later');
  t.end();
});

t.test('connlimit: connections of a host or network, this one included', (t) => {
  const w = new World();
  let now = 1_000_000;
  /** The list is looked through once a jiffy. */
  const later = (): void => w.context.setTime((now += 10), 0);
  w.load('*filter\n:INPUT DROP\n-A INPUT -p tcp -m connlimit --connlimit-upto 2 --connlimit-mask 24 -j ACCEPT');
  const open = (src: string, sport: number): number => {
    const p = packet({ src, sport });
    p.ct = w.table.create(p.src, p.dst, (sport << 16) | 80, Proto.TCP, 0, 0);
    w.table.refresh(p.ct, 60_000);
    const verdict = w.run(p);
    if (verdict === 1) t.equal(w.table.insert(p.ct), 0);
    else w.table.discard(p.ct);
    return verdict;
  };
  t.equal(open('10.0.0.1', 1000), 1);
  t.equal(open('10.0.0.2', 1000), 1);
  t.equal(open('10.0.0.3', 1000), 0, 'the third of the network');
  t.equal(open('10.0.1.1', 1000), 1, 'another network');
  const p = packet({ src: '10.0.0.1', sport: 1000 });
  const key = packKey(Proto.TCP, 0);
  p.ct = linkEntry(w.table.find(p.src, p.dst, (1000 << 16) | 80, key, key));
  t.ok(p.ct >= 0);
  later();
  t.equal(w.run(p), 0, 'it finds itself in the list, and looks no further: the third is still there');
  w.table.setStatus(p.ct, Status.ASSURED);
  t.equal(w.run(p), 1, 'a packet of one that is there to stay looks at all');
  w.table.kill(p.ct);
  later();
  t.equal(open('10.0.0.4', 1000), 1, 'one has gone');
  t.end();
});

t.test('connlimit: above, by destination; without a tuple the packet is dropped', (t) => {
  const w = new World();
  w.load('*filter\n:INPUT ACCEPT\n-A INPUT -m connlimit --connlimit-above 0 --connlimit-daddr -j DROP');
  t.equal(w.run(packet()), 0, 'without a connection the packet’s own tuple counts');
  w.load('*filter\n:INPUT ACCEPT\n-A INPUT -m connlimit --connlimit-above 5 --connlimit-daddr -j DROP');
  t.equal(w.run(packet()), 1);
  const p = packet({ fragOffset: 3 });
  t.equal(w.run(p), 0);
  t.equal(p.hotdrop, 1);
  t.end();
});
