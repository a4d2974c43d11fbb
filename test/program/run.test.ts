import t from 'tap';
import type { Chain, Rule, Ruleset } from '../../src/control/model.js';
import type { TcpData } from '../../src/control/ext/tcp.js';
import type { UdpData } from '../../src/control/ext/udp.js';
import type { IcmpData } from '../../src/control/ext/icmp.js';
import type { MultiportData } from '../../src/control/ext/multiport.js';
import type { MarkData, MarkTargetData } from '../../src/control/ext/mark.js';
import { Proto } from '../../src/dataplane/names.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { packet, random, ruleset, World, type Fields } from './lab.js';

t.test('the first rule that decides decides, and what matched is counted', (t) => {
  const w = new World().load(`*filter
    :INPUT DROP
    -A INPUT -p udp -j DROP
    -A INPUT -p tcp
    -A INPUT -p tcp --dport 80 -j ACCEPT
    -A INPUT -j DROP`);
  t.equal(w.run(packet({ dport: 80 })), 1);
  t.equal(w.run(packet({ dport: 81 })), 0);
  t.same(
    [1, 2, 3, 4, 0].map((rule) => w.count('INPUT', rule)[0]),
    [0, 2, 1, 1, 0],
  );
  t.same(w.count('INPUT', 2), [2, 80], 'bytes are the IP total length');
  t.end();
});

t.test('the policy decides at the end of a built-in chain, and on RETURN from it', (t) => {
  const w = new World().load(`*filter
    :INPUT DROP
    -A INPUT -p udp -j RETURN
    -A INPUT -p udp -j ACCEPT`);
  t.equal(w.run(packet()), 0);
  t.equal(w.run(packet({ protocol: Proto.UDP })), 0);
  t.same(w.count('INPUT', 0)[0], 2);
  t.same(w.count('INPUT', 2)[0], 0);
  t.end();
});

t.test('a jump comes back, a goto does not', (t) => {
  const w = new World().load(`*filter
    :INPUT ACCEPT
    :a -
    :b -
    :c -
    -A a -j b
    -A a -p udp -j RETURN
    -A a -j DROP
    -A b -g c
    -A b -j DROP
    -A c -p icmp -j ACCEPT
    -A INPUT -j a
    -A INPUT -j DROP`);
  t.equal(w.run(packet({ protocol: Proto.ICMP })), 1, 'accepted in c');
  t.equal(w.run(packet({ protocol: Proto.UDP })), 0, 'c ends: back behind the jump to b, RETURN to INPUT');
  t.same(w.count('INPUT', 2)[0], 1);
  t.same(w.count('b', 2)[0], 0, 'nothing comes back to the chain that said goto');
  t.equal(w.run(packet()), 0);
  t.same(w.count('a', 3)[0], 1);
  t.end();
});

t.test('a goto out of a built-in chain ends in its policy', (t) => {
  const w = new World().load(`*filter
    :INPUT ACCEPT
    :a -
    -A INPUT -g a
    -A INPUT -j DROP
    -A a -p udp -j DROP`);
  t.equal(w.run(packet()), 1);
  t.same([w.count('INPUT', 0)[0], w.count('INPUT', 2)[0]], [1, 0]);
  t.end();
});

t.test('what a target changes, the rules behind it see', (t) => {
  const w = new World().load(`*mangle
    -A INPUT -j MARK --set-mark 0x2f
    -A INPUT -m mark --mark 0x2f -j TOS --set-tos 0x02
    -A INPUT -m mark ! --mark 0x2f -j DROP`);
  const p = packet();
  t.equal(w.run(p, 'INPUT', 'mangle'), 1);
  t.equal(p.mark, 0x2f);
  t.equal(p.tos, 2);
  t.equal(p.changed, 1);
  t.end();
});

t.test('an impossible packet is dropped at once', (t) => {
  const w = new World().load(`*filter
    :INPUT ACCEPT
    -A INPUT -p tcp --dport 80 -j ACCEPT
    -A INPUT -j ACCEPT`);
  t.equal(w.run(packet({ transport: [0, 1, 0, 80, 0, 0] })), 0);
  t.same([w.count('INPUT', 1)[0], w.count('INPUT', 2)[0], w.count('INPUT', 0)[0]], [0, 0, 0]);
  t.end();
});

t.test('eight hundred chains deep', (t) => {
  const chains = Array.from({ length: 800 }, (_, i) => `c${i}`);
  const w = new World().load(
    `*filter\n:INPUT ACCEPT\n${chains.map((name) => `:${name} -`).join('\n')}\n-A INPUT -j c0\n-A INPUT -j DROP\n` +
      chains.map((name, i) => `-A ${name} ${i < 799 ? `-j c${i + 1}` : '-p tcp -j RETURN'}`).join('\n'),
  );
  t.equal(w.run(packet()), 0);
  t.same(w.count('INPUT', 2)[0], 1);
  t.end();
});

// ---- the slow twin: the model itself, walked by recursion ----

type Outcome = 'ACCEPT' | 'DROP' | 'RETURN';

function twinRule(rule: Rule, p: Packet, inName: string): boolean | 'hotdrop' {
  const not = (holds: boolean, invert: boolean): boolean => holds !== invert;
  const suits = (name: string, pattern: string): boolean =>
    pattern === '' || (pattern.endsWith('+') ? name.startsWith(pattern.slice(0, -1)) : name === pattern);
  if (!not((p.src & rule.src.mask) === rule.src.addr, rule.notSrc)) return false;
  if (!not((p.dst & rule.dst.mask) === rule.dst.addr, rule.notDst)) return false;
  if (!not(suits(inName, rule.in), rule.notIn)) return false;
  if (rule.proto !== 0 && !not(p.protocol === rule.proto, rule.notProto)) return false;
  if ((rule.fragment || rule.notFragment) && !not(p.fragOffset > 0, rule.notFragment)) return false;
  const within = (value: number, [min, max]: readonly [number, number]): boolean => value >= min && value <= max;
  for (const { extension, data } of rule.matches) {
    const need = { tcp: 20, udp: 8, icmp: 8, multiport: 4 }[extension.name] ?? 0;
    if (need > 0) {
      if (p.fragOffset > 0) return extension.name === 'tcp' && p.fragOffset === 1 ? 'hotdrop' : false;
      if (p.l4Length < need) return 'hotdrop';
    }
    let holds: boolean;
    switch (extension.name) {
      case 'tcp': {
        const d = data as TcpData;
        holds =
          not(within(p.sport, d.sport), d.notSport) &&
          not(within(p.dport, d.dport), d.notDport) &&
          not((p.tcpFlags & d.flagMask) === d.flags, d.notFlags);
        break;
      }
      case 'udp': {
        const d = data as UdpData;
        holds = not(within(p.sport, d.sport), d.notSport) && not(within(p.dport, d.dport), d.notDport);
        break;
      }
      case 'icmp': {
        const d = data as IcmpData;
        const any = d.type === 255;
        holds = not(any || (p.icmpType === d.type && within(p.icmpCode, [d.codeMin, d.codeMax])), d.invert);
        break;
      }
      case 'multiport': {
        const d = data as MultiportData;
        const found = d.ranges.some(
          (range) => (d.side !== 'dports' && within(p.sport, range)) || (d.side !== 'sports' && within(p.dport, range)),
        );
        holds = not(found, d.invert);
        break;
      }
      case 'mark': {
        const d = data as MarkData;
        holds = not((p.mark & d.mask) === d.mark, d.invert);
        break;
      }
      default:
        throw new Error(extension.name);
    }
    if (!holds) return false;
  }
  return true;
}

function twinChain(
  chains: ReadonlyMap<string, Chain>,
  chain: Chain,
  p: Packet,
  inName: string,
  counts: Map<number, number>,
): Outcome {
  const count = (id: number): void => void counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const rule of chain.rules) {
    const holds = twinRule(rule, p, inName);
    if (holds === 'hotdrop') return 'DROP';
    if (!holds) continue;
    count(rule.id);
    const { target } = rule;
    if (target.kind === 'verdict') {
      if (target.verdict === 'RETURN') break;
      return target.verdict as Outcome;
    }
    if (target.kind === 'jump') {
      const outcome = twinChain(chains, chains.get(target.chain)!, p, inName, counts);
      if (outcome !== 'RETURN') return outcome;
      if (target.goto) break;
    }
    if (target.kind === 'extension') {
      const { mark, mask } = target.use.data as MarkTargetData;
      p.mark = (p.mark & ~mask) ^ mark;
    }
  }
  if (chain.policy === undefined) return 'RETURN';
  count(chain.policy.id);
  return chain.policy.verdict;
}

function randomRules(next: (below: number) => number): Ruleset {
  const pick = <T>(from: readonly T[]): T => from[next(from.length)]!;
  const bang = (): string => (next(4) === 0 ? '! ' : '');
  const chains = ['a', 'b', 'c', 'd', 'e'];
  const lines: string[] = [];
  ['INPUT', ...chains].forEach((chain, level) => {
    for (let rules = next(9); rules > 0; rules--) {
      let line = `-A ${chain}`;
      if (next(3) === 0)
        line += ` ${bang()}-s ${pick(['10.0.0.0/8', '10.0.0.1', '10.0.0.0/255.0.0.255', '0.0.0.0/1'])}`;
      if (next(3) === 0) line += ` ${bang()}-d ${pick(['10.0.0.2', '10.1.0.0/16', '192.168.0.0/24'])}`;
      if (next(4) === 0) line += ` ${bang()}-i ${pick(['if0', 'if+', 'eth1', 'eth10', 'lo', '+'])}`;
      if (next(8) === 0) line += ` ${bang()}-f`;
      switch (next(6)) {
        case 0:
          line += ` -p tcp -m tcp ${bang()}--dport ${pick(['80', '1:1000', '22', ':65535'])}`;
          if (next(2) === 0) line += ` ${bang()}--tcp-flags SYN,ACK,FIN SYN`;
          break;
        case 1:
          line += ` -p udp -m udp ${bang()}--sport ${pick(['53', '1000:2000'])}`;
          break;
        case 2:
          line += ` -p icmp -m icmp ${bang()}--icmp-type ${pick(['8', '3/1', 'any', '0'])}`;
          break;
        case 3:
          line += ` -p ${pick(['tcp', 'udp'])} -m multiport ${bang()}--${pick(['sports', 'dports', 'ports'])} ${pick(['22,80', '1:100,53', '443'])}`;
          break;
        case 4:
          line += ` ${bang()}-p ${pick(['tcp', 'udp', 'icmp'])}`;
          break;
      }
      if (next(5) === 0) line += ` -m mark ${bang()}--mark ${pick(['1', '0/1', '2/3', '0'])}`;
      const below = chains.slice(level);
      const targets = ['-j ACCEPT', '-j DROP', '-j RETURN', '', '-j MARK --set-xmark 1/3', '-j MARK --xor-mark 2'];
      for (const name of below) targets.push(`-j ${name}`, `-g ${name}`);
      lines.push(`${line} ${pick(targets)}`);
    }
  });
  return ruleset(
    `*mangle\n:INPUT ${pick(['ACCEPT', 'DROP'])}\n${chains.map((name) => `:${name} -`).join('\n')}\n${lines.join('\n')}`,
  );
}

function randomPacket(next: (below: number) => number): Fields {
  const pick = <T>(from: readonly T[]): T => from[next(from.length)]!;
  const protocol = pick([Proto.TCP, Proto.TCP, Proto.UDP, Proto.ICMP, 47]);
  return {
    src: pick(['10.0.0.1', '10.9.9.1', '192.168.0.7', '200.1.1.1']),
    dst: pick(['10.0.0.2', '10.1.2.3', '192.168.0.9']),
    protocol,
    ...(next(8) === 0 && { fragOffset: pick([1, 2, 100]) }),
    ...(next(10) === 0 && { transport: Array.from({ length: pick([0, 2, 4, 7, 12]) }, () => next(256)) }),
    sport: pick([53, 1500, 22, 80, 60000]),
    dport: pick([80, 22, 443, 53, 700]),
    tcpFlags: pick([2, 0x12, 0x10, 1, 0]),
    icmpType: pick([8, 0, 3]),
    icmpCode: pick([0, 1]),
    mark: pick([0, 1, 2, 3]),
  };
}

t.test('the program decides and counts as the model walked by recursion', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const names = ['', 'lo', 'if0', 'if1', 'eth10'];
  for (let round = 0; round < 150; round++) {
    const rules = randomRules(next);
    const w = new World().load(rules);
    const table = rules.tables[0]!;
    const counts = new Map<number, number>();
    for (let i = 0; i < 60; i++) {
      const fields = randomPacket(next);
      const indev = next(5);
      const p = packet(fields);
      const twin = packet(fields);
      const verdict = w.run(p, 'INPUT', 'mangle', indev);
      const outcome = twinChain(table.chains, table.chains.get('INPUT')!, twin, names[indev]!, counts);
      if ((verdict === 1 ? 'ACCEPT' : 'DROP') !== outcome || p.mark !== twin.mark)
        throw new Error(`seed ${seed}, round ${round}: ${verdict} ${p.mark} instead of ${outcome} ${twin.mark}`);
    }
    for (const chain of table.chains.values())
      for (const counted of [...chain.rules, ...(chain.policy ? [chain.policy] : [])]) {
        const slot = w.compiler.slots.of(counted.id)!;
        if (w.counters[slot * 2] !== (counts.get(counted.id) ?? 0))
          throw new Error(`seed ${seed}, round ${round}: ${chain.name} counts ${w.counters[slot * 2]}`);
      }
  }
  t.pass(`seed ${seed}`);
  t.end();
});
