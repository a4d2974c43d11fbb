/** Evaluators by themselves: arguments encoded as records do, at the edges of each. */
import t from 'tap';
import { InFlag } from '../../src/dataplane/io/batch.js';
import { CtState, Hook, Proto, Verdict } from '../../src/dataplane/names.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { encodeAddrtype, matchAddrtype } from '../../src/dataplane/program/addrtype.js';
import { encodeSpi, matchAh, matchEsp } from '../../src/dataplane/program/ah.js';
import { applyCHECKSUM } from '../../src/dataplane/program/checksum.js';
import {
  applyCONNMARK,
  ConnmarkMode,
  encodeCONNMARK,
  encodeConnmark,
  matchConnmark,
} from '../../src/dataplane/program/connmark.js';
import { applyCT, CtFlag, encodeCT } from '../../src/dataplane/program/ct.js';
import { applyHMARK, encodeHMARK } from '../../src/dataplane/program/hmark.js';
import { jhash3 } from '../../src/dataplane/program/jhash.js';
import { applyTCPOPTSTRIP, encodeTCPOPTSTRIP } from '../../src/dataplane/program/tcpoptstrip.js';
import { applyECN, encodeECN, encodeEcn, matchEcn } from '../../src/dataplane/program/ecn.js';
import { encodeIprange, matchIprange } from '../../src/dataplane/program/iprange.js';
import { encodeLength, matchLength } from '../../src/dataplane/program/length.js';
import { encodeMac, matchMac } from '../../src/dataplane/program/mac.js';
import { applyMARK, encodeMARK } from '../../src/dataplane/program/mark.js';
import { mendRegions } from '../../src/dataplane/program/mend.js';
import { applyNFQUEUE, encodeNFQUEUE } from '../../src/dataplane/program/nfqueue.js';
import { encodeOwner, matchOwner } from '../../src/dataplane/program/owner.js';
import { initRecent, readRecent, recentWords, writeRecent } from '../../src/dataplane/program/recent.js';
import { Region } from '../../src/dataplane/program/regions.js';
import {
  encodeStatisticNth,
  encodeStatisticRandom,
  initStatistic,
  matchStatistic,
} from '../../src/dataplane/program/statistic.js';
import { encodeString, matchString } from '../../src/dataplane/program/string.js';
import {
  applyTCPMSS,
  CLAMP_TO_PMTU,
  encodeTCPMSS,
  encodeTcpmss,
  matchTcpmss,
} from '../../src/dataplane/program/tcpmss.js';
import { encodeTime, matchTime, TimeFlag } from '../../src/dataplane/program/time.js';
import { applyTOS, encodeDSCP, encodeTOS, encodeTos, encodeDscp, matchTos } from '../../src/dataplane/program/tos.js';
import { applyTTL, encodeTTL, encodeTtl, matchTtl, TtlChange, TtlMode } from '../../src/dataplane/program/ttl.js';
import { encodeU32, matchU32, U32Operator } from '../../src/dataplane/program/u32.js';
import { sum, pseudoSum, headerChecksum } from '../../src/dataplane/wire/checksum.js';
import { setU16, u16 } from '../../src/dataplane/wire/bytes.js';
import { ip, packet, World } from './lab.js';

const words = (args: number[]): Int32Array => Int32Array.from(args);
/** Arguments where an offset of 0 would hide a mistake. */
const AT = 3;
const at = (args: number[]): Int32Array => words([-7, -7, -7, ...args]);

t.test('length: both ends count', (t) => {
  const p = packet(); // 40 bytes
  t.same(
    [
      [40, 40],
      [0, 39],
      [41, 65535],
      [0, 65535],
    ].map(([min, max]) => matchLength(at(encodeLength(min!, max!)), AT, p)),
    [true, false, false, true],
  );
  t.end();
});

t.test('ttl', (t) => {
  const test = (mode: TtlMode, value: number): boolean => matchTtl(at(encodeTtl(mode, value)), AT, packet({ ttl: 9 }));
  t.same(
    [8, 9, 10].map((v) => test(TtlMode.EQUAL, v)),
    [false, true, false],
  );
  t.same(
    [8, 9, 10].map((v) => test(TtlMode.NOT_EQUAL, v)),
    [true, false, true],
  );
  t.same(
    [8, 9, 10].map((v) => test(TtlMode.LESS, v)),
    [false, false, true],
  );
  t.same(
    [8, 9, 10].map((v) => test(TtlMode.GREATER, v)),
    [true, false, false],
  );
  t.end();
});

t.test('TTL: set, to 255 and to 0, the checksum with it', (t) => {
  const change = (mode: TtlChange, value: number): number => {
    const p = packet({ ttl: 9 });
    t.equal(applyTTL(at(encodeTTL(mode, value)), AT, p), -1);
    t.equal(u16(p.bytes, p.start + 10), headerChecksum(p.bytes, p.start, 20));
    t.equal(p.bytes[p.start + 8], p.ttl);
    return p.ttl;
  };
  t.same([change(TtlChange.SET, 64), change(TtlChange.INCREASE, 5), change(TtlChange.INCREASE, 250)], [64, 14, 255]);
  t.same([change(TtlChange.DECREASE, 5), change(TtlChange.DECREASE, 200)], [4, 0]);
  t.end();
});

t.test('tos and dscp', (t) => {
  const p = packet({ tos: 0xb9 });
  t.equal(matchTos(at(encodeTos(0xb0, 0xf0)), AT, p), true);
  t.equal(matchTos(at(encodeTos(0xb0, 0xff)), AT, p), false);
  t.equal(matchTos(at(encodeDscp(46)), AT, p), true, 'the ECN bits are not of it');
  t.equal(matchTos(at(encodeDscp(45)), AT, p), false);
  applyTOS(at(encodeTOS(0x10, 0x3f)), AT, p);
  t.equal(p.tos, 0x90);
  applyTOS(at(encodeDSCP(10)), AT, p);
  t.equal(p.tos, 40);
  t.equal(u16(p.bytes, p.start + 10), headerChecksum(p.bytes, p.start, 20));
  t.end();
});

t.test('MARK: masks, and hutter’s own bits untouched', (t) => {
  const set = (mark: number, value: number, mask: number): number => {
    const p = packet({ mark });
    applyMARK(at(encodeMARK(value, mask)), AT, p);
    return p.mark >>> 0;
  };
  t.equal(set(0xff, 0x12, -1), 0x12);
  t.equal(set(0xff, 0x12, 0xf0), 0x1d, 'outside the mask bits are toggled');
  t.equal(set(0xff, 0, ~0x0f), 0x0f, 'and');
  t.equal(set(0x80, 0x0f, 0x0f), 0x8f, 'or');
  t.equal(set(0x80, 0x81, 0), 0x01, 'xor');
  t.equal(set(0x80000005 | 0, 0x12, -1), 0x80000012);
  t.equal(set(0, -1, -1), 0x7fffffff);
  t.end();
});

t.test('ecn', (t) => {
  const p = packet({ tos: 2, tcpFlags: 0x42 });
  const test = (operation: number, invert: number, ect = 0): boolean =>
    matchEcn(at(encodeEcn(operation, invert, ect)), AT, p);
  t.same([test(1, 0, 2), test(1, 0, 1), test(1, 1, 2), test(1, 1, 1)], [true, false, false, true]);
  t.same([test(0x10, 0), test(0x10, 0x10), test(0x20, 0), test(0x20, 0x20)], [true, false, false, true]);
  t.equal(test(0x31, 0x20, 2), true);
  t.equal(matchEcn(at(encodeEcn(0x10, 0x10, 0)), AT, packet({ transport: [1, 2, 3, 4] })), false, 'a cut header');
  t.end();
});

/** The packet with a right TCP checksum. */
function summed(p: Packet): Packet {
  setU16(p.bytes, p.l4 + 16, 0);
  setU16(p.bytes, p.l4 + 16, ~sum(p.bytes, p.l4, p.end, pseudoSum(p.src, p.dst, Proto.TCP, p.l4Length)) & 0xffff);
  return p;
}
const checksumRight = (p: Packet): boolean =>
  sum(p.bytes, p.l4, p.end, pseudoSum(p.src, p.dst, Proto.TCP, p.l4Length)) === 0xffff;

t.test('ECN: flags are cleared and the checksum kept', (t) => {
  const p = summed(packet({ tos: 3, tcpFlags: 0xc2 }));
  t.equal(applyECN(at(encodeECN(0x31, 0, 0, 0)), AT, p), -1);
  t.same([p.tos, p.tcpFlags, p.bytes[p.l4 + 13]], [0, 2, 2]);
  t.ok(checksumRight(p));
  const partial = packet({ tcpFlags: 0xc2 });
  partial.flags = InFlag.CSUM_PARTIAL;
  applyECN(at(encodeECN(0x10, 0, 0, 0)), AT, partial);
  t.equal(u16(partial.bytes, partial.l4 + 16), 0, 'a partial checksum covers the pseudo-header only');
  t.equal(applyECN(at(encodeECN(0x10, 0, 0, 0)), AT, packet({ transport: [1] })), Verdict.DROP);
  t.end();
});

t.test('iprange: unsigned, both ends, negations', (t) => {
  const test = (flags: number, src: string): boolean =>
    matchIprange(
      at(encodeIprange(flags, ip('10.0.0.5'), ip('200.0.0.1'), ip('128.0.0.0'), ip('128.255.0.0'))),
      AT,
      packet({ src }),
    );
  t.same(
    ['10.0.0.4', '10.0.0.5', '127.0.0.1', '128.0.0.1', '200.0.0.1', '200.0.0.2'].map((src) => test(1, src)),
    [false, true, true, true, true, false],
  );
  t.same([test(0x11, '10.0.0.4'), test(0x11, '11.0.0.0')], [true, false]);
  t.same(
    [test(2, '1.1.1.1'), test(0x22, '1.1.1.1'), test(3, '1.1.1.1'), test(3, '11.1.1.1')],
    [true, false, false, true],
  );
  t.end();
});

t.test('mac', (t) => {
  const w = new World();
  const p = packet();
  p.indev = 2;
  p.macLength = 6;
  p.macHigh = 0x02aabbcc;
  p.macLow = 0xddee0000 | 0;
  const test = (mac: number[], invert = false): boolean => matchMac(w.context, at(encodeMac(mac, invert)), AT, p);
  t.equal(test([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]), true);
  t.equal(test([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xef]), false);
  t.equal(test([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xef], true), true);
  p.macLength = 0;
  t.equal(test([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xef], true), false, 'no Ethernet, no match');
  t.end();
});

t.test('addrtype', (t) => {
  const w = new World();
  w.types.set(ip('10.0.0.1'), 2).set(ip('10.0.0.255'), 3);
  const test = (flags: number, source: number, destination: number): boolean =>
    matchAddrtype(
      w.context,
      at(encodeAddrtype(flags, source, destination)),
      AT,
      packet({ src: '10.0.0.1', dst: '10.0.0.255' }),
    );
  t.same([test(0, 1 << 2, 0), test(0, 1 << 1, 0), test(1, 1 << 2, 0)], [true, false, false]);
  t.same([test(0, 0, 1 << 3), test(2, 0, 1 << 3), test(0, 1 << 2, (1 << 2) | (1 << 3))], [true, false, true]);
  t.end();
});

t.test('statistic: the nth packet of each n, and a share', (t) => {
  const w = new World();
  const region = new Int32Array(new SharedArrayBuffer(64));
  w.context.regions = [region];
  initStatistic(region, 5, 4, 1);
  const nth = at(encodeStatisticNth(4, false, 0, 5));
  t.same(
    Array.from({ length: 9 }, () => matchStatistic(w.context, nth, AT)),
    [false, true, false, false, false, true, false, false, false],
  );
  const share = (probability: number, invert = false): number =>
    Array.from({ length: 4000 }, () =>
      matchStatistic(w.context, at(encodeStatisticRandom(probability, invert)), AT),
    ).filter(Boolean).length;
  t.equal(share(0), 0);
  t.equal(share(2 ** 31), 4000);
  const quarter = share(2 ** 29);
  t.ok(quarter > 850 && quarter < 1150, `${quarter} of 4000`);
  t.ok(share(2 ** 29, true) > 2850);
  t.end();
});

t.test('string: whole between the offsets', (t) => {
  const p = packet({ protocol: Proto.UDP, payload: Array.from('GET /Index', (c) => c.charCodeAt(0)) });
  const test = (text: string, from = 0, to = 65535, ignoreCase = false): boolean =>
    matchString(
      at(
        encodeString(
          Array.from(text, (c) => c.charCodeAt(0)),
          from,
          to,
          ignoreCase,
        ),
      ),
      AT,
      p,
    );
  t.same(
    [test('GET'), test('get'), test('get', 0, 65535, true), test('INDEX', 0, 65535, true)],
    [true, false, true, true],
  );
  t.same([test('GET', 28), test('GET', 29)], [true, false]);
  t.same([test('GET', 0, 31), test('GET', 0, 30)], [true, false]);
  t.same([test('Index', 30), test('ndexx'), test('GGET')], [true, false, false]);
  t.end();
});

t.test('u32', (t) => {
  const p = packet({ ttl: 3, protocol: Proto.ICMP, icmpType: 8, icmpCode: 0 });
  const test = (location: [U32Operator, number][], min: number, max = min, invert = false): boolean =>
    matchU32(
      at(
        encodeU32(
          [{ location: location.map(([operator, number]) => ({ operator, number })), values: [{ min, max }] }],
          invert,
        ),
      ),
      AT,
      p,
    );
  const { AND, LEFT_SHIFT, RIGHT_SHIFT, AT: GO } = { AND: 0, LEFT_SHIFT: 1, RIGHT_SHIFT: 2, AT: 3 } as const;
  t.equal(
    test(
      [
        [0, 6],
        [AND, 0xff],
      ],
      1,
    ),
    true,
    'the protocol',
  );
  t.equal(
    test(
      [
        [0, 6],
        [AND, 0xff],
      ],
      2,
      5,
    ),
    false,
  );
  t.equal(
    test(
      [
        [0, 6],
        [AND, 0xff],
      ],
      2,
      5,
      true,
    ),
    true,
  );
  t.equal(
    test(
      [
        [0, 8],
        [RIGHT_SHIFT, 24],
      ],
      3,
    ),
    true,
    'the TTL',
  );
  t.equal(
    test(
      [
        [0, 0],
        [RIGHT_SHIFT, 22],
        [AND, 0x3c],
        [GO, 0],
        [RIGHT_SHIFT, 24],
      ],
      8,
    ),
    true,
    'the ICMP type, past the header',
  );
  t.equal(test([[0, 12]], 0xc0a84904, 0xc0a84904), true, 'unsigned');
  t.equal(
    test(
      [
        [0, 12],
        [LEFT_SHIFT, 24],
      ],
      0x04000000,
    ),
    true,
  );
  t.equal(test([[0, 24]], 0, 0xffffffff), true, 'the last four bytes');
  t.equal(test([[0, 25]], 0, 0xffffffff), false, 'beyond the end');
  t.equal(
    test(
      [
        [0, 12],
        [GO, 0],
      ],
      0,
      0xffffffff,
    ),
    false,
    'far beyond it',
  );
  t.end();
});

t.test('time: days, spans over midnight, dates', (t) => {
  const w = new World();
  const test = (
    when: string,
    change: Partial<Record<'from' | 'to' | 'start' | 'stop' | 'days' | 'weekdays' | 'flags', number>>,
  ): boolean => {
    w.context.setTime(0, Date.parse(when));
    const args = encodeTime(
      change.from ?? 0,
      change.to ?? 0xffffffff,
      change.start ?? 0,
      change.stop ?? 86_399,
      change.days ?? 0xfffffffe,
      change.weekdays ?? 0xfe,
      change.flags ?? 0,
    );
    return matchTime(w.context, at(args), AT);
  };
  // 2004-02-11 was a Wednesday.
  t.equal(test('2004-02-11T12:00:00Z', { weekdays: 1 << 3 }), true);
  t.equal(test('2004-02-12T00:00:00Z', { weekdays: 1 << 3 }), false);
  t.equal(test('2004-02-29T12:00:00Z', { days: 1 << 29 }), true);
  t.equal(test('2004-03-01T00:00:00Z', { days: 1 << 1 }), true);
  t.equal(test('2100-02-28T23:59:59Z', { days: 1 << 28 }), true);
  const office = { start: 9 * 3600, stop: 17 * 3600 };
  t.same(
    ['08:59:59', '09:00:00', '17:00:00', '17:00:01'].map((clock) => test(`2004-02-11T${clock}Z`, office)),
    [false, true, true, false],
  );
  const night = { start: 23 * 3600, stop: 3600, weekdays: 1 << 1 };
  t.equal(test('2004-02-09T23:30:00Z', night), true, 'Monday night');
  t.equal(test('2004-02-10T00:30:00Z', night), false, 'Tuesday, as each day is looked at by itself');
  t.equal(test('2004-02-10T00:30:00Z', { ...night, flags: TimeFlag.CONTIGUOUS }), true, 'still Monday’s night');
  const second = Date.parse('2004-02-11T12:00:00Z') / 1000;
  t.same(
    [
      [second, second],
      [second + 1, 0xffffffff],
      [0, second - 1],
    ].map(([from, to]) => test('2004-02-11T12:00:00Z', { from: from!, to: to! })),
    [true, false, false],
  );
  w.context.minutesWest = -60;
  t.equal(test('2004-02-11T23:30:00Z', { weekdays: 1 << 4, flags: TimeFlag.LOCAL_TIME_ZONE }), true);
  t.end();
});

t.test('owner', (t) => {
  const test = (match: number, invert: number, flags: number, hook: Hook = Hook.PREROUTING): boolean => {
    const p = packet();
    p.flags = flags;
    p.hook = hook;
    p.uid = 1000;
    p.gid = -2;
    return matchOwner(at(encodeOwner(match, invert, 1000, 1001, 0xfffffffe, 0xffffffff)), AT, p);
  };
  const known = InFlag.UID | InFlag.GID;
  t.same([test(1, 0, known), test(1, 1, known), test(2, 0, known), test(2, 2, known)], [true, false, true, false]);
  t.same([test(4, 0, known), test(4, 4, known)], [true, false]);
  t.same([test(1, 0, 0), test(1, 1, 0), test(4, 0, 0), test(4, 4, 0)], [false, true, false, true], 'no socket');
  const kernels = (match: number, invert: number, flags = 0): boolean => test(match, invert, flags, Hook.OUTPUT);
  t.same([kernels(4, 0), kernels(4, 4), kernels(1, 0), kernels(1, 1), kernels(5, 1)], [true, false, false, true, true]);
  t.same([kernels(4, 0, InFlag.NO_SOCKET), kernels(4, 4, InFlag.NO_SOCKET)], [false, true], 'a reset of hutter’s own');
  t.end();
});

t.test('tcpmss', (t) => {
  const test = (tcpOptions: number[], min = 1460, max = 1500, invert = false): boolean =>
    matchTcpmss(at(encodeTcpmss(min, max, invert)), AT, packet({ tcpOptions }));
  t.same([test([2, 4, 5, 0xb4]), test([2, 4, 5, 0xb3]), test([2, 4, 5, 0xb3], 1460, 1500, true)], [true, false, true]);
  t.same([test([]), test([], 0, 65535, true), test([1, 1, 1, 2]), test([2, 3, 5, 0xb4])], [false, true, false, false]);
  const cut = packet({ transport: [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 2, 0, 0, 0, 0, 0, 0] });
  t.equal(matchTcpmss(at(encodeTcpmss(0, 65535, true)), AT, cut), false);
  t.equal(cut.hotdrop, 1);
  t.end();
});

t.test('ah and esp', (t) => {
  const ah = (transport: number[], invert = false): boolean =>
    matchAh(at(encodeSpi(0x80000000, 0xffffffff, invert)), AT, packet({ protocol: Proto.AH, transport }));
  t.equal(ah([0, 4, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]), true);
  t.equal(ah([0, 4, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 1]), false);
  t.equal(ah([0, 4, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 1], true), true);
  const esp = packet({ protocol: Proto.ESP, transport: [0, 0, 0, 5, 0, 0, 0] });
  t.equal(matchEsp(at(encodeSpi(5, 5, false)), AT, esp), false);
  t.equal(esp.hotdrop, 1, 'seven bytes are no header');
  t.equal(
    matchEsp(at(encodeSpi(5, 5, false)), AT, packet({ protocol: Proto.ESP, transport: [0, 0, 0, 5, 0, 0, 0, 1] })),
    true,
  );
  t.end();
});

t.test('NFQUEUE: both directions of two hosts come to one queue', (t) => {
  const w = new World();
  const program = at(encodeNFQUEUE(40, 8, 0));
  const queues = new Set<number>();
  for (let i = 0; i < 200; i++) {
    t.equal(applyNFQUEUE(w.context, program, AT, packet({ src: `10.0.0.${i}`, dst: '9.9.9.9' })), Verdict.QUEUE);
    const there = w.context.queueNumber;
    applyNFQUEUE(w.context, program, AT, packet({ dst: `10.0.0.${i}`, src: '9.9.9.9' }));
    if (there !== w.context.queueNumber || there < 40 || there > 47) t.fail(`queue ${there}`);
    queues.add(there);
  }
  t.equal(queues.size, 8);
  const bypass = (): Verdict => applyNFQUEUE(w.context, at(encodeNFQUEUE(9, 1, 1)), AT, packet());
  t.equal(bypass(), Verdict.ACCEPT, 'nobody is there');
  w.listening.add(9);
  t.equal(bypass(), Verdict.QUEUE);
  t.end();
});

t.test('REDIRECT, MASQUERADE and SNAT bind the connection', (t) => {
  const w = new World().load(`*nat
    -A PREROUTING -p tcp --dport 79 -j REDIRECT --to-ports 8079
    -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.9:8080
    -A OUTPUT -p tcp -j REDIRECT
    -A POSTROUTING -o if1 -j MASQUERADE
    -A POSTROUTING -j SNAT --to-source 9.9.9.9`);
  const bound = (
    hook: 'PREROUTING' | 'OUTPUT' | 'POSTROUTING',
    dport: number,
    outdev: number,
  ): [number, number, number, number] => {
    const p = packet({ dport });
    p.ct = w.table.create(p.src, p.dst, (p.sport << 16) | p.dport, Proto.TCP, 0, 0);
    const verdict = w.run(p, hook, 'nat', 2, outdev);
    const reply = [w.table.src(p.ct, 1), w.table.ports(p.ct, 1) >>> 16, w.table.dst(p.ct, 1)] as const;
    w.table.discard(p.ct);
    return [verdict, ...reply];
  };
  const client = ip('192.168.73.4');
  const server = ip('128.61.70.200');
  t.same(bound('PREROUTING', 79, 0), [Verdict.DROP, server, 79, client], 'if0 has no address to redirect to');
  t.same(bound('PREROUTING', 80, 0), [1, ip('10.0.0.9'), 8080, client]);
  t.same(bound('OUTPUT', 81, 3), [1, ip('127.0.0.1'), 81, client]);
  t.same(bound('POSTROUTING', 80, 3), [1, server, 80, ip('128.61.70.47')]);
  t.same(bound('POSTROUTING', 80, 2), [1, server, 80, ip('9.9.9.9')]);
  t.equal(Hook.POSTROUTING, 4);
  t.end();
});

t.test('a list that a dead worker held is usable again, and empty', (t) => {
  const region = new Int32Array(new SharedArrayBuffer(recentWords(10, 32) * 4));
  initRecent(region, 10, 32, -1);
  writeRecent(region, '+10.0.0.1', 5, 77);
  region[Region.LOCK] = 77;
  mendRegions([region], 78);
  t.equal(region[Region.LOCK], 77, 'another owner’s lock is let alone');
  mendRegions([region], 77);
  t.equal(region[Region.LOCK], 0);
  t.equal(readRecent(region, 1), '');
  t.equal(writeRecent(region, '+10.0.0.1', 5, 1), true);
  t.match(readRecent(region, 1), /^src=10\.0\.0\.1 /);
  t.end();
});

const SYN = 2;
/** Fills in the TCP checksum; `tcpSum` is all ones when it is right. */
const tcpSum = (p: Packet): number => sum(p.bytes, p.l4, p.end, pseudoSum(p.src, p.dst, Proto.TCP, p.end - p.l4));
function withTcpSum(p: Packet): Packet {
  setU16(p.bytes, p.l4 + 16, 0);
  setU16(p.bytes, p.l4 + 16, ~tcpSum(p) & 0xffff);
  return p;
}
/** The same packet with headroom before it, as devices give it. */
function roomy(p: Packet): Packet {
  const bytes = new Uint8Array(128 + p.end);
  bytes.set(p.bytes.subarray(p.start, p.end), 128);
  const q = packet();
  q.parse(bytes, 128, 128 + p.end - p.start);
  return withTcpSum(q);
}
const options = (p: Packet): number[] => [...p.bytes.subarray(p.l4 + 20, p.l4 + ((p.bytes[p.l4 + 12]! >> 4) << 2))];

t.test('TCPMSS: lowers, never raises, wherever the option stands', (t) => {
  const world = new World();
  const set = (mss: number, tcpOptions: number[]): number[] => {
    const p = roomy(packet({ tcpFlags: SYN, tcpOptions }));
    t.equal(applyTCPMSS(world.context, at(encodeTCPMSS(mss)), AT, p), -1);
    t.equal(tcpSum(p), 0xffff);
    return options(p);
  };
  t.same(set(1400, [2, 4, 5, 0xb4]), [2, 4, 5, 0x78]);
  t.same(set(1461, [2, 4, 5, 0xb4]), [2, 4, 5, 0xb4]);
  t.same(set(256, [1, 2, 4, 5, 0xb4, 1, 1, 1]), [1, 2, 4, 1, 0, 1, 1, 1]);
  world.pathMtu = 1300;
  t.same(set(CLAMP_TO_PMTU, [2, 4, 5, 0xb4]), [2, 4, 4, 0xec]);
  world.pathMtu = 40;
  const p = roomy(packet({ tcpFlags: SYN, tcpOptions: [2, 4, 5, 0xb4] }));
  t.equal(applyTCPMSS(world.context, at(encodeTCPMSS(CLAMP_TO_PMTU)), AT, p), Verdict.DROP);
  t.end();
});

t.test('TCPMSS: a SYN without the option and without data gets it', (t) => {
  const world = new World();
  const p = roomy(packet({ tcpFlags: SYN, tcpOptions: [1, 1, 1, 0] }));
  const { end, length } = p;
  t.equal(applyTCPMSS(world.context, at(encodeTCPMSS(1400)), AT, p), -1);
  t.same(options(p), [2, 4, 2, 24, 1, 1, 1, 0]);
  t.same([p.start, p.end, p.length, p.changed], [124, end, length + 4, 1]);
  t.equal(tcpSum(p), 0xffff);
  t.equal(u16(p.bytes, p.start + 2), length + 4);
  t.equal(u16(p.bytes, p.start + 10), headerChecksum(p.bytes, p.start, 20));
  const withData = roomy(packet({ tcpFlags: SYN, payload: [1] }));
  t.equal(applyTCPMSS(world.context, at(encodeTCPMSS(1400)), AT, withData), -1);
  t.same([withData.start, withData.changed], [128, 0]);
  t.end();
});

t.test('TCPOPTSTRIP: no-operations instead, at even and odd places', (t) => {
  const p = roomy(packet({ tcpFlags: SYN, tcpOptions: [1, 2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 1, 1] }));
  t.equal(applyTCPOPTSTRIP(at(encodeTCPOPTSTRIP([2, 3])), AT, p), -1);
  t.same(options(p), [1, 1, 1, 1, 1, 4, 2, 1, 1, 1, 1, 1]);
  t.same([tcpSum(p), p.changed], [0xffff, 1]);
  const high = roomy(packet({ tcpFlags: SYN, tcpOptions: [254, 4, 9, 9] }));
  applyTCPOPTSTRIP(at(encodeTCPOPTSTRIP([255])), AT, high);
  t.equal(high.changed, 0);
  applyTCPOPTSTRIP(at(encodeTCPOPTSTRIP([254])), AT, high);
  t.same(options(high), [1, 1, 1, 1]);
  t.end();
});

t.test('CHECKSUM: fills in what was left to the device, and nothing else', (t) => {
  const p = roomy(packet({ payload: [1, 2, 3] }));
  const right = u16(p.bytes, p.l4 + 16);
  setU16(p.bytes, p.l4 + 16, 0x1234);
  applyCHECKSUM(p);
  t.equal(u16(p.bytes, p.l4 + 16), 0x1234);
  p.flags = InFlag.CSUM_PARTIAL | InFlag.GSO;
  applyCHECKSUM(p);
  t.equal(u16(p.bytes, p.l4 + 16), 0x1234);
  p.flags = InFlag.CSUM_PARTIAL;
  applyCHECKSUM(p);
  t.same([u16(p.bytes, p.l4 + 16), p.flags, p.changed], [right, 0, 1]);
  t.end();
});

t.test('CONNMARK and connmark: set, save, restore, shifts; nothing without a connection', (t) => {
  const world = new World();
  const p = packet({ mark: 0x0000_00f0 });
  const apply = (
    mode: ConnmarkMode,
    ctmark: number,
    ctmask: number,
    nfmask: number,
    shift = 0,
    right = false,
  ): void => {
    t.equal(applyCONNMARK(world.context, at(encodeCONNMARK(mode, ctmark, ctmask, nfmask, shift, right)), AT, p), -1);
  };
  const has = (mark: number, mask: number, invert = false): boolean =>
    matchConnmark(world.context, at(encodeConnmark(mark, mask, invert)), AT, p);
  apply(ConnmarkMode.RESTORE, 0, -1, -1);
  t.same([p.mark, has(0, 0), has(0, 0, true)], [0xf0, false, false]);
  p.ct = world.table.create(p.src, p.dst, 0, Proto.TCP, 0, 0);
  apply(ConnmarkMode.SET, 0x12, -1, -1);
  t.equal(world.table.mark(p.ct), 0x12);
  t.same([has(0x12, -1), has(2, 0xf), has(3, 0xf), has(3, 0xf, true)], [true, true, false, true]);
  apply(ConnmarkMode.SAVE, 0, 0xf0, 0xf0);
  t.equal(world.table.mark(p.ct), 0xf2);
  apply(ConnmarkMode.RESTORE, 0, 0xff, 0xff, 4, true);
  t.equal(p.mark, 0x0f);
  apply(ConnmarkMode.SET, 0, 0, 0, 8);
  t.equal(world.table.mark(p.ct), 0xf200);
  t.end();
});

t.test('CT: the first target that speaks counts', (t) => {
  const p = packet({ mark: 0x1_0007 });
  const ct = (flags: number, zone = 0, helper = 0, events = 0, expected = 0): void => {
    t.equal(applyCT(at(encodeCT(flags, zone, helper, events, expected)), AT, p), -1);
  };
  ct(CtFlag.ZONE_ORIGINAL, 5, 1, 3);
  t.same([p.ctZones, p.ctHelper, p.ctEvents], [5, 1, 3]);
  ct(CtFlag.NOTRACK);
  t.equal(p.ctState, CtState.NEW, 'the rest of raw sees a new connection');
  const fresh = (): void => {
    p.ctZones = p.ctHelper = p.ctEvents = p.ctState = 0;
  };
  fresh();
  ct(CtFlag.ZONE_REPLY | CtFlag.ZONE_MARK);
  t.equal(p.ctZones, 7 << 16);
  fresh();
  ct(0, 9, 0, 0, 1);
  t.same([p.ctZones, p.ctEvents], [(9 << 16) | 9, 0x8000]);
  fresh();
  ct(CtFlag.NOTRACK);
  ct(0, 9);
  t.same([p.ctState, p.ctZones], [16, 0]);
  fresh();
  p.ct = 1;
  p.ctState = CtState.RELATED;
  ct(CtFlag.NOTRACK);
  ct(0, 9);
  t.same([p.ctState, p.ctZones], [CtState.RELATED, 0], 'what comes with its connection keeps it');
  t.end();
});

t.test('HMARK: one mark for both directions, within its range', (t) => {
  const world = new World();
  const mark = (p: Packet): number => {
    const args = { srcMask: -1, dstMask: -1, portMask: -1, portSet: 0, protocolMask: 0xff, seed: 5 };
    const words = at(encodeHMARK({ ...args, modulus: 100, offset: 1000, connection: false }));
    t.equal(applyHMARK(world.context, words, AT, p), -1);
    return p.mark;
  };
  const there = mark(packet({ src: '10.0.0.1', dst: '192.0.2.9', sport: 4000, dport: 80 }));
  t.ok(there >= 1000 && there < 1100);
  t.equal(mark(packet({ src: '192.0.2.9', dst: '10.0.0.1', sport: 80, dport: 4000 })), there);
  t.not(jhash3(1, 2, 3, 5), jhash3(2, 1, 3, 5));
  t.end();
});
