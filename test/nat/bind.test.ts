import t from 'tap';
import { invertPorts, packKey, packPorts } from '../../src/dataplane/conntrack/key.js';
import { Status, TcpState } from '../../src/dataplane/conntrack/states.js';
import { Ct, linkDir, linkEntry } from '../../src/dataplane/conntrack/layout.js';
import { ConntrackTable, Insert } from '../../src/dataplane/conntrack/table.js';
import { Dir, Manip, Proto, Verdict } from '../../src/dataplane/names.js';
import { Nat } from '../../src/dataplane/nat/bind.js';
import { forgetAddress, forgetInterface } from '../../src/dataplane/nat/masquerade.js';
import { chooseAddress, RandomPorts, RangeFlag } from '../../src/dataplane/nat/range.js';
import { ip, random, text } from './packets.js';

const WAN = ip('128.61.70.47');
const KNOCK = ip('128.61.70.200');
const ORLOCK = ip('192.168.73.4');

/** A Nat whose random numbers come from a seed. */
function makeNat(table: ConntrackTable, seed = 1): Nat {
  const next = random(seed);
  return new Nat(
    table,
    new RandomPorts((numbers) => {
      for (let i = 0; i < numbers.length; i++) numbers[i] = next();
    }),
  );
}

function makeTable(max = 4096): ConntrackTable {
  const table = ConntrackTable.attach(ConntrackTable.create({ max, workers: 2, seed: 7 }), 0);
  table.online();
  table.edge(1000, 1);
  return table;
}

interface Flow {
  protocol?: number;
  src?: number;
  dst?: number;
  sport?: number;
  dport?: number;
}

function flow(table: ConntrackTable, f: Flow): number {
  const protocol = f.protocol ?? Proto.UDP;
  const ports = protocol === Proto.ICMP ? packPorts(f.sport ?? 1, 8 << 8) : packPorts(f.sport ?? 1000, f.dport ?? 53);
  const entry = table.create(f.src ?? ORLOCK, f.dst ?? KNOCK, ports, protocol, 0, 0);
  if (entry < 0) throw new Error('no entry');
  table.refresh(entry, 100_000);
  return entry;
}

function confirm(table: ConntrackTable, entry: number): void {
  const result = table.insert(entry);
  if (result !== Insert.INSERTED) throw new Error(`insert: ${result}`);
}

/** Where the answers go: address and port as the outside sees the source. */
const mapped = (table: ConntrackTable, entry: number): string =>
  `${text(table.dst(entry, Dir.REPLY))}:${table.ports(entry, Dir.REPLY) & 0xffff}`;
const mappedTo = (table: ConntrackTable, entry: number): string =>
  `${text(table.src(entry, Dir.REPLY))}:${table.ports(entry, Dir.REPLY) >>> 16}`;

const snat = (nat: Nat, entry: number, address = WAN, flags = 0): Verdict =>
  nat.bind(entry, Manip.SRC, RangeFlag.MAP_IPS | flags, address, address, 0, 0, 0);

t.test('SNAT keeps a free port, sets the status, and is done once', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const entry = flow(table, { sport: 5000 });
  t.equal(snat(nat, entry), Verdict.ACCEPT);
  t.equal(mapped(table, entry), '128.61.70.47:5000');
  t.equal(table.status(entry), Status.SRC_NAT | Status.SRC_NAT_DONE);
  t.equal(snat(nat, entry, ip('1.2.3.4')), Verdict.DROP, 'a second binding of one side is a defect');
  confirm(table, entry);
  t.equal(snat(nat, entry, ip('1.2.3.4')), Verdict.ACCEPT, 'a confirmed connection keeps what it has');
  t.equal(mapped(table, entry), '128.61.70.47:5000');
  const link = table.find(KNOCK, WAN, packPorts(53, 5000), packKey(Proto.UDP, 0), packKey(Proto.UDP, 0));
  t.equal(linkEntry(link), entry, 'the answer finds it');
  t.equal(linkDir(link), Dir.REPLY);
  t.end();
});

t.test('two flows to one place get different ports, to two places the same', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const first = flow(table, { src: ip('192.168.73.4'), sport: 5000 });
  const second = flow(table, { src: ip('192.168.73.5'), sport: 5000 });
  const elsewhere = flow(table, { src: ip('192.168.73.6'), sport: 5000, dst: ip('9.9.9.9') });
  for (const entry of [first, second, elsewhere]) {
    t.equal(snat(nat, entry), Verdict.ACCEPT);
    confirm(table, entry);
  }
  t.equal(mapped(table, first), '128.61.70.47:5000');
  t.equal(mapped(table, elsewhere), '128.61.70.47:5000');
  t.not(mapped(table, second), '128.61.70.47:5000');
  t.ok((table.ports(second, Dir.REPLY) & 0xffff) >= 1024);
  t.end();
});

t.test('ports without a range stay in their class', (t) => {
  for (const [port, low, high] of [
    [1, 1, 511],
    [511, 1, 511],
    [512, 600, 1023],
    [1023, 600, 1023],
    [1024, 1024, 65535],
    [65535, 1024, 65535],
  ] as const) {
    const table = makeTable();
    const nat = makeNat(table, port);
    const seen = new Set<number>();
    for (let i = 0; i < 100; i++) {
      const entry = flow(table, { src: ip('10.0.0.1') + i, sport: port });
      t.equal(snat(nat, entry), Verdict.ACCEPT);
      confirm(table, entry);
      const got = table.ports(entry, Dir.REPLY) & 0xffff;
      if (i === 0 ? got !== port : got < low || got > high) t.fail(`port ${port}: got ${got}`);
      if (seen.has(got)) t.fail(`port ${got} twice`);
      seen.add(got);
    }
  }
  t.end();
});

t.test('a source keeps its mapping for its next connections', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const blocker = flow(table, { src: ip('192.168.73.9'), sport: 5000 });
  snat(nat, blocker);
  confirm(table, blocker);
  const first = flow(table, { sport: 5000 });
  snat(nat, first);
  confirm(table, first);
  const port = table.ports(first, Dir.REPLY) & 0xffff;
  t.not(port, 5000, 'the test wants a changed port');
  const second = flow(table, { sport: 5000, dst: ip('9.9.9.9') });
  snat(nat, second);
  t.equal(table.ports(second, Dir.REPLY) & 0xffff, port, 'although 5000 would be free towards 9.9.9.9');
  confirm(table, second);
  const outside = flow(table, { sport: 5000, dst: ip('9.9.9.8') });
  snat(nat, outside, ip('128.61.70.48'));
  t.equal(mapped(table, outside), '128.61.70.48:5000', 'not into another range');
  const random = flow(table, { sport: 5000, dst: ip('9.9.9.7') });
  snat(nat, random, WAN, RangeFlag.PROTO_RANDOM);
  t.not(table.ports(random, Dir.REPLY) & 0xffff, port, '--random asks for a new one');
  t.end();
});

t.test('port ranges: kept inside, chosen otherwise, exhausted at last', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const bind = (entry: number): Verdict =>
    nat.bind(entry, Manip.SRC, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, WAN, WAN, 4000, 4009, 0);
  const inside = flow(table, { src: ip('10.0.0.1'), sport: 4005 });
  bind(inside);
  confirm(table, inside);
  t.equal(mapped(table, inside), '128.61.70.47:4005');
  const seen = new Set([4005]);
  for (let i = 0; i < 9; i++) {
    const entry = flow(table, { src: ip('10.0.1.1') + i, sport: 6000 });
    t.equal(bind(entry), Verdict.ACCEPT);
    confirm(table, entry);
    seen.add(table.ports(entry, Dir.REPLY) & 0xffff);
  }
  t.same([...seen].sort(), [4000, 4001, 4002, 4003, 4004, 4005, 4006, 4007, 4008, 4009]);
  t.equal(nat.exhausted, 0);
  const late = flow(table, { src: ip('10.0.2.1'), sport: 6000 });
  t.equal(bind(late), Verdict.ACCEPT, 'as in the kernel, the clash is found at the insertion');
  t.equal(nat.exhausted, 1);
  t.ok(table.insert(late) > 0, 'which gives a link to the connection that has it');
  table.discard(late);
  // The other way round, a fixed port is taken without asking.
  const one = flow(table, { src: ip('10.0.3.1'), sport: 6000 });
  nat.bind(one, Manip.SRC, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, WAN, WAN, 4005, 4005, 0);
  t.equal(mapped(table, one), '128.61.70.47:4005');
  t.ok(table.insert(one) > 0);
  t.end();
});

t.test('a crowded range is searched in ever shorter windows', (t) => {
  const table = makeTable(8192);
  const nat = makeNat(table);
  let clashes = 0;
  for (let i = 0; i < 1023; i++) {
    const entry = flow(table, { src: ip('10.0.0.1') + i, sport: 512 });
    snat(nat, entry);
    if (table.insert(entry) === Insert.INSERTED) continue;
    clashes++;
    table.discard(entry);
  }
  // 424 ports and the one kept: 600 to 1023, and 512 itself.
  t.ok(clashes >= 1023 - 425, `${clashes} clashes`);
  t.equal(nat.exhausted, clashes);
  t.end();
});

t.test('DNAT: address ranges, ports, offsets', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const entry = flow(table, { protocol: Proto.TCP, dst: WAN, dport: 1000, sport: 3333 });
  nat.bind(entry, Manip.DST, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, ORLOCK, ORLOCK, 22, 22, 0);
  t.equal(mappedTo(table, entry), '192.168.73.4:22');
  t.equal(table.status(entry), Status.DST_NAT | Status.DST_NAT_DONE);
  const keeps = flow(table, { protocol: Proto.TCP, dst: WAN, dport: 8080 });
  nat.bind(keeps, Manip.DST, RangeFlag.MAP_IPS, ORLOCK, ORLOCK, 0, 0, 0);
  t.equal(mappedTo(table, keeps), '192.168.73.4:8080');
  const redirect = flow(table, { protocol: Proto.TCP, dst: WAN, dport: 80 });
  nat.bind(redirect, Manip.DST, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, ORLOCK, ORLOCK, 3128, 3130, 0);
  t.equal(mappedTo(table, redirect), '192.168.73.4:3128', 'not random: the range’s first');
  for (const [dport, expected] of [
    [2000, 1000],
    [2001, 1001],
    [2099, 1099],
  ] as const) {
    const shifted = flow(table, { protocol: Proto.TCP, dst: WAN, dport });
    const flags = RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED | RangeFlag.PROTO_OFFSET;
    nat.bind(shifted, Manip.DST, flags, ORLOCK, ORLOCK, 1000, 1099, 2000);
    t.equal(mappedTo(table, shifted), `192.168.73.4:${expected}`);
  }
  // Both sides of one connection: the source's choice sees the new destination.
  t.equal(snat(nat, entry, ip('192.168.73.1')), Verdict.ACCEPT);
  t.equal(mapped(table, entry), '192.168.73.1:3333');
  t.equal(mappedTo(table, entry), '192.168.73.4:22');
  t.equal(table.status(entry) & Status.NAT_MASK, Status.NAT_MASK);
  t.end();
});

t.test('an address of a range: the kernel’s own choice', (t) => {
  // Taken from conntrack -L on Linux 6.18: SNAT --to-source 172.16.0.10-172.16.0.200, to 192.0.2.1.
  const kernel = ['74', '131', '124', '61', '24', '163', '27', '33'];
  kernel.forEach((last, i) => {
    const src = ip(`10.9.1.${i + 1}`);
    const got = chooseAddress(src, ip('192.0.2.1'), 0, ip('172.16.0.10'), ip('172.16.0.200'), false);
    t.equal(text(got), `172.16.0.${last}`);
  });
  // And with --persistent out of 172.16.0.10-172.17.255.255, to 192.0.2.77.
  const persistent = [
    '172.17.187.80',
    '172.17.107.91',
    '172.17.249.85',
    '172.17.195.98',
    '172.16.38.235',
    '172.16.105.45',
    '172.16.45.106',
    '172.16.89.100',
  ];
  persistent.forEach((expected, i) => {
    const src = ip(`10.9.1.${i + 1}`);
    const got = chooseAddress(src, ip('192.0.2.77'), 0, ip('172.16.0.10'), ip('172.17.255.255'), true);
    t.equal(text(got), expected);
  });
  const whole = chooseAddress(1, 2, 0, 0, -1, false);
  t.equal(whole, 0, 'all addresses: a size of 2^32 is 0 in the kernel, too');
  const next = random(5);
  for (let i = 0; i < 1000; i++) {
    const min = next();
    const max = min + (next() % (0x1_0000_0000 - min));
    const got = chooseAddress(next() | 0, next() | 0, next() & 0xffff, min | 0, max | 0, (i & 1) === 0) >>> 0;
    if (got < min || got > max) t.fail(`${got} outside ${min}-${max}`);
  }
  t.equal(
    chooseAddress(5, 6, 0, ip('10.0.0.0'), ip('10.255.255.255'), true),
    chooseAddress(5, 7, 0, ip('10.0.0.0'), ip('10.255.255.255'), true),
    'persistent: the destination doesn’t matter',
  );
  t.not(
    chooseAddress(5, 6, 0, ip('10.0.0.0'), ip('10.255.255.255'), false),
    chooseAddress(5, 7, 0, ip('10.0.0.0'), ip('10.255.255.255'), false),
  );
  t.end();
});

t.test('ICMP: one identifier for both sides, any of 65536', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const first = flow(table, { protocol: Proto.ICMP, src: ip('10.0.0.1'), sport: 7 });
  const second = flow(table, { protocol: Proto.ICMP, src: ip('10.0.0.2'), sport: 7 });
  snat(nat, first);
  confirm(table, first);
  snat(nat, second);
  confirm(table, second);
  t.equal(table.ports(first, Dir.REPLY), packPorts(7, 0));
  t.not(table.ports(second, Dir.REPLY) >>> 16, 7);
  t.equal(table.ports(second, Dir.REPLY) & 0xffff, 0, 'the type stays');
  const third = flow(table, { protocol: Proto.ICMP, src: ip('10.0.0.3'), sport: 7 });
  nat.bind(third, Manip.SRC, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, WAN, WAN, 100, 101, 0);
  t.ok([100, 101].includes(table.ports(third, Dir.REPLY) >>> 16));
  t.end();
});

t.test('protocols without ports: the address alone, and one flow at a time', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  for (const protocol of [Proto.GRE, Proto.ESP, Proto.DCCP, 99]) {
    const first = table.create(ip('10.0.0.1'), KNOCK, 0, protocol, 0, 0);
    const second = table.create(ip('10.0.0.2'), KNOCK, 0, protocol, 0, 0);
    for (const entry of [first, second]) {
      table.refresh(entry, 1000);
      t.equal(snat(nat, entry), Verdict.ACCEPT);
      t.equal(table.ports(entry, Dir.REPLY), 0);
    }
    confirm(table, first);
    t.ok(table.insert(second) > 0, `protocol ${protocol}`);
  }
  t.end();
});

t.test('null bindings change nothing, but for a port that is taken', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  // The router itself talks to knock by the port that orlock's flow was given.
  const orlock = flow(table, { sport: 5000 });
  snat(nat, orlock);
  confirm(table, orlock);
  const free = flow(table, { src: WAN, sport: 5001 });
  t.equal(nat.bindNull(free, Manip.DST), Verdict.ACCEPT);
  t.equal(nat.bindNull(free, Manip.SRC), Verdict.ACCEPT);
  t.equal(table.status(free), Status.SRC_NAT_DONE | Status.DST_NAT_DONE);
  t.equal(mapped(table, free), '128.61.70.47:5001');
  const own = flow(table, { src: WAN, sport: 5000 });
  t.equal(nat.bindNull(own, Manip.DST), Verdict.ACCEPT);
  t.equal(nat.bindNull(own, Manip.SRC), Verdict.ACCEPT);
  t.not(mapped(table, own), '128.61.70.47:5000');
  t.equal(table.dst(own, Dir.REPLY), WAN);
  confirm(table, own);
  t.end();
});

t.test('both ends of a UDP flow seen as new ones: the port stays, TCP’s doesn’t', (t) => {
  for (const protocol of [Proto.UDP, Proto.TCP]) {
    const table = makeTable();
    const nat = makeNat(table);
    const there = flow(table, { protocol, src: ORLOCK, sport: 5000, dst: KNOCK, dport: 6000 });
    nat.bindNull(there, Manip.DST);
    nat.bindNull(there, Manip.SRC);
    const back = flow(table, { protocol, src: KNOCK, sport: 6000, dst: ORLOCK, dport: 5000 });
    confirm(table, there);
    nat.bindNull(back, Manip.DST);
    nat.bindNull(back, Manip.SRC);
    if (protocol === Proto.UDP) t.equal(mapped(table, back), '128.61.70.200:6000');
    else t.not(mapped(table, back), '128.61.70.200:6000');
  }
  t.end();
});

t.test('ports short: a finished TCP connection gives its port to newer sequence numbers', (t) => {
  for (const [state, end, expected] of [
    [TcpState.TIME_WAIT, 100, true],
    [TcpState.TIME_WAIT, 300, false],
    [TcpState.ESTABLISHED, 100, false],
  ] as const) {
    const table = makeTable();
    const nat = makeNat(table);
    const bind = (entry: number): Verdict =>
      nat.bind(entry, Manip.SRC, RangeFlag.MAP_IPS | RangeFlag.PROTO_SPECIFIED, WAN, WAN, 4000, 4000 + 1, 0);
    const tcp = (host: number, tcpState: number, tcpEnd: number): number => {
      const entry = flow(table, { protocol: Proto.TCP, src: ip('10.0.0.0') + host, sport: 9, dport: 80 });
      table.words[table.at(entry) + Ct.PROTO] = tcpState;
      table.words[table.at(entry) + Ct.PROTO + 1] = tcpEnd;
      return entry;
    };
    for (const host of [1, 2]) {
      const entry = tcp(host, TcpState.SYN_SENT, end);
      bind(entry);
      confirm(table, entry);
      table.words[table.at(entry) + Ct.PROTO] = state;
    }
    const late = tcp(3, TcpState.SYN_SENT, 200);
    bind(late);
    t.equal(table.insert(late) === Insert.INSERTED, expected, `state ${state} end ${end}`);
    t.equal(nat.exhausted, expected ? 0 : 1);
  }
  t.end();
});

t.test('MASQUERADE: its address, and an end with the interface', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const masquerade = (host: number, address: number, ifindex: number): number => {
    const entry = flow(table, { src: ip('10.0.0.0') + host, sport: 1000 + host });
    t.equal(nat.masquerade(entry, 0, address, ifindex, 0, 0), Verdict.ACCEPT);
    confirm(table, entry);
    return entry;
  };
  const a = masquerade(1, WAN, 3);
  const b = masquerade(2, WAN, 4);
  const c = masquerade(3, ip('128.61.70.48'), 4);
  const plain = flow(table, { src: ip('10.0.0.9') });
  snat(nat, plain);
  confirm(table, plain);
  t.equal(mapped(table, a), '128.61.70.47:1001');
  t.equal(forgetAddress(table, 4, WAN), 1);
  t.equal(table.isConfirmed(b) && (table.status(b) & Status.DYING) === 0, false);
  t.equal(forgetInterface(table, 4), 1);
  t.ok(table.status(c) & Status.DYING);
  t.notOk((table.status(a) | table.status(plain)) & Status.DYING);
  t.equal(forgetInterface(table, 5), 0);

  const none = flow(table, { sport: 7 });
  t.equal(nat.masquerade(none, 0, 0, 3, 0, 0), Verdict.DROP, 'the interface has no address');
  const unset = flow(table, { src: 0, sport: 68 });
  t.equal(nat.masquerade(unset, 0, WAN, 3, 0, 0), Verdict.ACCEPT);
  t.equal(table.status(unset), 0, 'a sender without address is left alone');
  const ports = flow(table, { sport: 7 });
  nat.masquerade(ports, RangeFlag.PROTO_SPECIFIED, WAN, 3, 2000, 2000);
  t.equal(mapped(table, ports), '128.61.70.47:2000');
  t.end();
});

t.test('NETMAP: the network part changes, the host part stays', (t) => {
  const table = makeTable();
  const nat = makeNat(table);
  const entry = flow(table, { dst: ip('10.1.2.3') });
  t.equal(nat.netmap(entry, Manip.DST, ip('10.1.2.3'), ip('172.16.5.0'), ip('255.255.255.0')), Verdict.ACCEPT);
  t.equal(text(table.src(entry, Dir.REPLY)), '172.16.5.3');
  t.end();
});

t.test('all tuples in the table stay different, whatever the rules', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const table = makeTable(8192);
  const nat = makeNat(table, seed);
  const replies = new Set<string>();
  for (let round = 0; round < 5000; round++) {
    const protocol = [Proto.TCP, Proto.UDP, Proto.ICMP][round % 3]!;
    const entry = flow(table, {
      protocol,
      src: ip('10.0.0.0') + (next() % 50),
      dst: ip('10.9.0.0') + (next() % 3),
      sport: 1000 + (next() % 20),
      dport: 80,
    });
    const specified = next() & 1 ? RangeFlag.PROTO_SPECIFIED : 0;
    const flags = RangeFlag.MAP_IPS | specified | (next() & (RangeFlag.PROTO_RANDOM_ALL | RangeFlag.PERSISTENT));
    const min = WAN;
    const max = WAN + (next() % 3);
    if (nat.bind(entry, Manip.SRC, flags, min, max, 2000, 2000 + (next() % 200), 0) !== Verdict.ACCEPT) t.fail();
    const address = table.dst(entry, Dir.REPLY);
    if (address < min || address > max) t.fail(`seed ${seed} round ${round}: ${text(address)}`);
    const inverse = invertPorts(protocol, table.ports(entry, Dir.REPLY));
    if ((inverse & 0xffff) !== (table.ports(entry, Dir.ORIGINAL) & 0xffff)) t.fail(`seed ${seed}: destination part`);
    const key = [0, 1].map((d) => [table.src(entry, 1), table.dst(entry, 1), table.ports(entry, d), protocol]).join();
    const reply = [table.src(entry, 1), table.dst(entry, 1), table.ports(entry, 1), protocol].join();
    const result = table.insert(entry);
    if (result === Insert.INSERTED) {
      if (replies.has(reply)) t.fail(`seed ${seed} round ${round}: ${key} twice`);
      replies.add(reply);
    } else table.discard(entry);
  }
  t.ok(replies.size > 1000, `seed ${seed}: ${replies.size} connections`);
  t.end();
});
