/**
 * hutter as a gateway where gateways go wrong: errors about translated packets, path MTU, offloads, bulk, local
 * traffic. Each runs on the kernel's netfilter, too, and what is seen must be the same.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { type Host, startHost } from '../../src/control/lab/hosts.js';
import { finished } from '../../src/control/lab/netns.js';
import type { Counted, EngineName } from './engine.js';
import { type Ip, UDP, echoPacket, ipPacket, tcpPacket, udpPacket } from './frame.js';
import {
  Capture,
  KNOCK,
  ORLOCK,
  ROUTER_INSIDE,
  ROUTER_OUTSIDE,
  type Topology,
  agree,
  clear,
  describe,
  ON_LINKS,
  onEachEngine,
  topology,
  until,
} from './netns.js';

const FAR = '198.51.100.2';
const FAR_GATEWAY = '198.51.100.1';
const MASQUERADE = '*nat\n-A POSTROUTING -o if1 -j MASQUERADE\nCOMMIT\n';
/** As many ICMP errors as there are reasons for. */
const UNLIMITED = { 'net.ipv4.icmp_ratelimit': 0 };
const SYN = 2;
const RST = 4;
const GSO_PROGRAM = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../test/net/udp_gso.py');

/** The article's network with a host behind knock: orlock - router - knock - far. */
async function longPath(
  t: Test,
  engine: EngineName,
  mtu: { outside?: number; far?: number } = {},
): Promise<Topology & { far: Host }> {
  const net = await topology(t, engine, {
    offload: false,
    sysctl: UNLIMITED,
    routes: [{ to: '198.51.100.0/24', via: KNOCK }],
    ...(mtu.outside === undefined ? {} : { mtu: { outside: mtu.outside } }),
  });
  const { network, knock } = net;
  const far = network.namespace('far');
  network.link(
    { at: knock.ns, dev: 'eth1', addresses: [`${FAR_GATEWAY}/24`] },
    { at: far, dev: 'eth0', addresses: [`${FAR}/24`] },
  );
  // Knock's end only: else far would announce a small MSS and TCP would have nothing to discover.
  if (mtu.far !== undefined) knock.ns.ip(`link set eth1 mtu ${mtu.far}`);
  far.ip(`route add default via ${FAR_GATEWAY}`);
  knock.ns.sysctl({ 'net.ipv4.ip_forward': 1 });
  for (const ns of network.namespaces) ns.sysctl(UNLIMITED);
  return { ...net, far: await startHost(far) };
}

/** What must be equal in an ICMP message, whoever routed: all but the outer IP id. */
function message(ip: Ip): object {
  const { src, dst, tos, ttl, length, icmp, headerOk, checksumOk } = ip;
  const quote = Buffer.from(icmp!.quote).toString('hex');
  return {
    src,
    dst,
    tos,
    ttl,
    length,
    type: icmp!.type,
    code: icmp!.code,
    rest: icmp!.rest,
    quote,
    headerOk,
    checksumOk,
  };
}

agree(t, 'traceroute from behind MASQUERADE', async (t, engine) => {
  const { fw, orlock } = await longPath(t, engine);
  await fw.load(MASQUERADE);
  const answers: object[] = [];
  const seen = await Capture.start(orlock, 'eth0', 'icmp or tcp');
  const probes: [string, (ttl: number) => Uint8Array][] = [
    ['udp', (ttl) => udpPacket({ src: ORLOCK, dst: FAR, ttl, id: 0x1000 + ttl, sport: 40000, dport: 33434 + ttl })],
    ['icmp', (ttl) => echoPacket({ src: ORLOCK, dst: FAR, ttl, id: 0x2000 + ttl, ident: 77, seq: ttl })],
    [
      'tcp',
      (ttl) => tcpPacket({ src: ORLOCK, dst: FAR, ttl, id: 0x3000 + ttl, sport: 41000 + ttl, dport: 9, flags: SYN }),
    ],
  ];
  const hops = [ROUTER_INSIDE, KNOCK, FAR];
  for (const [kind, probe] of probes) {
    for (const [index, hop] of hops.entries()) {
      const before = (await seen.packets()).length;
      await orlock.sendRaw({ packet: probe(index + 1), to: FAR });
      const answer = await seen.until(
        `${kind} hop ${index + 1}`,
        (ip) => ip.dst === ORLOCK && seenAfter(seen, ip, before),
      );
      t.equal(answer.src, hop, `${kind} hop ${index + 1} is ${hop}`);
      if (answer.icmp) {
        if (index < 2) t.match(answer.icmp, { type: 11, code: 0 }, 'time exceeded');
        if (answer.icmp.type !== 0)
          t.equal(Buffer.from(answer.icmp.quote).subarray(12, 16).join('.'), ORLOCK, 'quoted');
        answers.push(message(answer));
      } else answers.push({ src: answer.src, flags: answer.tcp!.flags, ack: answer.tcp!.ack, sport: answer.sport });
      t.equal(answer.checksumOk, true);
    }
  }
  for (const method of ['-U', '-I', '-T']) {
    const run = await orlock.ns.run('traceroute', ['-n', '-q1', '-w2', '-N1', method, FAR]);
    const lines = run.stdout.trim().split('\n').slice(1);
    const path = lines.map((line) => line.trim().split(/\s+/)[1]);
    t.same(path, hops, `traceroute ${method} finds ${path.join(', ')}${run.stderr}`);
  }
  // A packet that died on the way has left no flow: the rule counts each probe that reached POSTROUTING.
  answers.push(await fw.counter('MASQUERADE'));
  return answers;
});

/** Whether `ip` is among the packets seen after the first `count`. */
function seenAfter(capture: Capture, ip: Ip, count: number): boolean {
  return capture.indexOf(ip) >= count;
}

for (const narrow of ['outside', 'far'] as const) {
  const where = narrow === 'outside' ? "the router's own way out" : 'a link beyond the next router';
  agree(t, `path MTU discovery: ${where} takes 1,280 bytes`, async (t, engine) => {
    const { fw, orlock, far } = await longPath(t, engine, { [narrow]: 1280 });
    await fw.load(
      `*nat\n-A PREROUTING -i if1 -p tcp --dport 8080 -j DNAT --to-destination ${ORLOCK}:80\n-A POSTROUTING -o if1 -j MASQUERADE\nCOMMIT\n`,
    );
    const seen = await Capture.start(orlock, 'eth0', 'icmp');
    await far.udpListen({ port: 4000 });
    const sized = (length: number, df: boolean): Uint8Array =>
      udpPacket({
        src: ORLOCK,
        dst: FAR,
        df,
        id: length,
        sport: 40000,
        dport: 4000,
        data: Buffer.alloc(length - 28, 'x'),
      });
    await orlock.sendRaw({ packet: sized(1281, true), to: FAR });
    const answer = await seen.until('fragmentation needed', (ip) => ip.icmp?.type === 3);
    t.match(answer.icmp, { type: 3, code: 4, rest: 1280 }, 'one byte more: fragmentation needed, at most 1,280');
    t.equal(answer.src, narrow === 'outside' ? ROUTER_INSIDE : KNOCK);
    t.equal(Buffer.from(answer.icmp!.quote).subarray(12, 16).join('.'), ORLOCK, 'about what orlock sent');
    await orlock.sendRaw({ packet: sized(1280, true), to: FAR });
    await until('the datagram that fits', async () => (await far.udpReceived(4000)).length === 1);
    await orlock.sendRaw({ packet: sized(1400, false), to: FAR });
    await until('the datagram that may be fragmented', async () => (await far.udpReceived(4000)).length === 2);
    t.same(
      (await far.udpReceived(4000)).map(({ address, data }) => [address, data.length]),
      [
        [ROUTER_OUTSIDE, 1280 - 28],
        [ROUTER_OUTSIDE, 1400 - 28],
      ],
    );
    const page = await orlock.serve({ port: 80, mebibytes: 8 });
    const fetched = await far.fetch({ url: `http://${ROUTER_OUTSIDE}:8080/`, timeoutMs: 10_000 });
    t.match(fetched, page, 'eight megabytes cross it from inside, found by the same means');
    t.equal((await seen.packets()).filter((ip) => ip.icmp?.code === 4).length >= 2, true, 'TCP was told, too');
    return message(answer);
  });
}

const REJECTS = [
  ['icmp-net-unreachable', 0],
  ['icmp-host-unreachable', 1],
  ['icmp-proto-unreachable', 2],
  ['icmp-port-unreachable', 3],
  ['icmp-net-prohibited', 9],
  ['icmp-host-prohibited', 10],
  ['icmp-admin-prohibited', 13],
] as const;

agree(t, 'REJECT in each of its kinds, to the router and through it', async (t, engine) => {
  const net = await topology(t, engine, { offload: false, sysctl: UNLIMITED });
  const { fw, orlock, knock } = net;
  const answers: unknown[] = [];
  const seen = await Capture.start(knock, 'eth0', 'icmp or tcp');
  const expect = async (what: string, packet: Uint8Array, to: string): Promise<Ip> => {
    const before = (await seen.packets()).length;
    await knock.sendRaw({ packet, to });
    return seen.until(what, (ip) => ip.dst === KNOCK && seenAfter(seen, ip, before));
  };
  for (const [chain, dst] of [
    ['INPUT', ROUTER_OUTSIDE],
    ['FORWARD', ORLOCK],
  ] as const) {
    for (const [kind, code] of REJECTS) {
      await fw.load(`*filter\n-A ${chain} -p udp -j REJECT --reject-with ${kind}\nCOMMIT\n`);
      const packet = udpPacket({ src: KNOCK, dst, id: 0x100 + code, tos: 0x10, sport: 5000 + code, dport: 7 });
      const answer = await expect(`${chain} ${kind}`, packet, dst);
      t.match(answer.icmp, { type: 3, code }, `${chain} ${kind}`);
      t.same([answer.headerOk, answer.checksumOk], [true, true]);
      answers.push(message(answer));
    }
    await fw.load(`*filter\n-A ${chain} -p tcp -j REJECT --reject-with tcp-reset\n-A ${chain} -j REJECT\nCOMMIT\n`);
    const ack = 16;
    for (const [flags, name] of [
      [SYN, 'a SYN'],
      [ack, 'an ACK'],
    ] as const) {
      const packet = tcpPacket({ src: KNOCK, dst, sport: 6000 + flags, dport: 7, flags, seq: 5, ack: 99, id: 5 });
      const { src, ttl, tcp, sport, dport, length, tos, checksumOk } = await expect(`${chain} ${name}`, packet, dst);
      t.match(tcp!.flags, /RST/, `${chain}: ${name} is reset`);
      answers.push({ src, ttl, tcp, sport, dport, length, tos, checksumOk });
    }
    const ping = await expect(`${chain} echo`, echoPacket({ src: KNOCK, dst, ident: 9 }), dst);
    t.match(ping.icmp, { type: 3, code: 3 }, 'an echo request is refused by an error');
    answers.push(message(ping));
    // Things that are never answered; the ping after them shows that they were dealt with before it.
    const silent = (await seen.packets()).length;
    const unanswerable: [string, Uint8Array][] = [
      ['a reset', tcpPacket({ src: KNOCK, dst, sport: 6100, dport: 7, flags: RST })],
      ['an ICMP error', icmpError(dst)],
      // To the router itself a lone fragment waits for the others, and no rule of INPUT sees it.
      ...(chain === 'FORWARD' ? [laterFragment(dst)] : []),
      ['a broken checksum', broken(udpPacket({ src: KNOCK, dst, sport: 6101, dport: 7 }))],
    ];
    for (const [, packet] of unanswerable) await knock.sendRaw({ packet, to: dst });
    await expect(`${chain} echo again`, echoPacket({ src: KNOCK, dst, ident: 10 }), dst);
    const heard = (await seen.packets()).slice(silent).filter((ip) => ip.dst === KNOCK);
    t.equal(
      heard.length,
      1,
      `no answer to ${unanswerable.map(([name]) => name).join(', ')}: ${heard.map(describe).join('; ')}`,
    );
    answers.push((await fw.counters()).filter((entry) => entry.rule.includes('REJECT')));
  }
  await orlock.reset();
  return answers;
});

const laterFragment = (dst: string): [string, Uint8Array] => [
  'a later fragment',
  ipPacket({ src: KNOCK, dst, fragmentOffset: 1480, id: 99 }, UDP, Buffer.alloc(64)),
];

/** An ICMP port-unreachable about a datagram that `dst` never sent. */
function icmpError(dst: string): Uint8Array {
  const quoted = udpPacket({ src: dst, dst: KNOCK, sport: 9, dport: 9 }).subarray(0, 28);
  const echo = Buffer.from(echoPacket({ src: KNOCK, dst, data: quoted }));
  echo[20] = 3;
  echo[21] = 3;
  echo.writeUInt32BE(0, 24);
  echo.writeUInt16BE(0, 22);
  let sum = 0;
  for (let at = 20; at < echo.length; at += 2) sum += echo.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  echo.writeUInt16BE(~sum & 0xffff, 22);
  return echo;
}

/** The same packet with one payload bit turned. */
function broken(packet: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(packet);
  copy[copy.length - 1]! ^= 1;
  return copy;
}

// With interfaces of hutter's own the loopback interface is the kernel's alone.
agree(
  t,
  'loopback traffic meets each chain once',
  async (t, engine) => {
    const { fw, router } = await topology(t, engine);
    const chains: [string, string[]][] = [
      ['raw', ['PREROUTING', 'OUTPUT']],
      ['mangle', ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING']],
      ['nat', ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING']],
      ['filter', ['INPUT', 'OUTPUT']],
    ];
    const rules = chains.map(([table, names]) => {
      const lines = names.flatMap((chain) => {
        const dev = chain === 'PREROUTING' || chain === 'INPUT' ? '-i lo' : '-o lo';
        const states = table === 'raw' || table === 'nat' ? [''] : ['--state NEW', '--state ESTABLISHED'];
        return states.map((state) => `-A ${chain} ${dev} -p udp ${state && `-m state ${state}`}\n`);
      });
      const redirect = table === 'nat' ? '-A OUTPUT -p udp --dport 7777 -j REDIRECT --to-ports 8888\n' : '';
      return `*${table}\n${lines.join('')}${redirect}COMMIT\n`;
    });
    await fw.load(rules.join(''));
    await router.udpListen({ port: 8000, echo: true });
    await router.udpListen({ port: 8888, echo: true });
    for (const host of ['127.0.0.1', ROUTER_OUTSIDE]) {
      t.match(await router.udpProbe({ host, port: 8000 }), { outcome: 'reply' }, `${host} answers itself`);
    }
    t.match(await router.udpProbe({ host: '127.0.0.1', port: 7777 }), { outcome: 'reply' }, 'REDIRECT on loopback');
    t.equal((await router.udpReceived(8888)).length, 1);
    const counters = (await fw.counters()).filter((entry) => entry.rule.startsWith('-A'));
    const count = (text: string): number =>
      counters.find((entry) => `${entry.table} ${entry.rule}`.startsWith(text))!.packets;
    t.equal(count('filter -A INPUT -i lo -p udp -m state --state NEW'), 3);
    t.equal(count('filter -A INPUT -i lo -p udp -m state --state ESTABLISHED'), 3);
    t.equal(count('nat -A PREROUTING'), 0, 'the nat table is asked on the way out only');
    return counters;
  },
  ON_LINKS,
);

onEachEngine(t, async (t, engine) => {
  const net = await topology(t, engine);
  const { fw, orlock, router, knock } = net;

  await t.test('hairpin: orlock reaches his own service by the public address', async (t) => {
    await clear(net);
    await fw.load(
      '*nat\n' +
        `-A PREROUTING -p tcp -d ${ROUTER_OUTSIDE} --dport 6346 -j DNAT --to-destination ${ORLOCK}:80\n` +
        `-A POSTROUTING -o if0 -s 192.168.73.0/24 -d ${ORLOCK} -j MASQUERADE\n` +
        'COMMIT\n',
    );
    await orlock.listen({ port: 80, greet: 'myself' });
    const call = await orlock.connect({ host: ROUTER_OUTSIDE, port: 6346, read: true });
    t.match(call, { outcome: 'connected', data: 'myself' });
    t.same(await orlock.accepted(80), [{ address: ROUTER_INSIDE, port: call.local!.port }], 'called by the router');
    t.match(await fw.counter('DNAT'), { packets: 1 });
    t.match(await fw.counter('MASQUERADE'), { packets: 1 });
  });

  await t.test('UDP segmentation offload: every datagram intact', async (t) => {
    await clear(net);
    const bursts = 16;
    await fw.load(
      '*nat\n' +
        `-A PREROUTING -p udp --dport 4430 -j REDIRECT --to-ports 4431\n` +
        `-A OUTPUT -p udp -d 128.61.70.201 -j DNAT --to-destination ${KNOCK}\n` +
        `-A POSTROUTING -o if1 -s 192.168.73.0/24 -j SNAT --to-source ${ROUTER_OUTSIDE}\n` +
        'COMMIT\n',
    );
    const ways: [string, Host, string, number, Host, number, string][] = [
      ['through SNAT', orlock, KNOCK, 443, knock, 443, ROUTER_OUTSIDE],
      ['to the router, untouched', orlock, ROUTER_INSIDE, 443, router, 443, ORLOCK],
      ['to the router, redirected', orlock, ROUTER_INSIDE, 4430, router, 4431, ORLOCK],
      ['from the router, untouched', router, KNOCK, 444, knock, 444, ROUTER_OUTSIDE],
      ['from the router, its destination changed', router, '128.61.70.201', 445, knock, 445, ROUTER_OUTSIDE],
    ];
    for (const [title, from, host, port, to, at, source] of ways) {
      const receiver = to.ns.spawn('python3', [GSO_PROGRAM, 'receive', `${at}`, `${bursts * 10}`], {
        stdio: ['pipe', 'pipe', 'pipe'],
      });
      let heard = '';
      receiver.stdout!.on('data', (chunk: Buffer) => (heard += chunk.toString()));
      const end = finished(receiver);
      await until('the receiver is ready', () => heard.startsWith('ready'));
      const sent = await from.ns.run('python3', [GSO_PROGRAM, 'send', host, `${port}`, `${bursts}`]);
      t.equal(sent.code, 0, sent.stderr);
      const { port: local } = JSON.parse(sent.stdout) as { port: number };
      const { stdout } = await end;
      const got = JSON.parse(stdout.slice('ready\n'.length)) as Record<string, unknown>;
      t.match(
        got,
        { count: bursts * 10, distinct: bursts * 10, bad: 0, sources: [`${source}:${local}`] },
        `${title} (${got['aggregated']} arrived aggregated)`,
      );
    }
  });

  await t.test('bulk TCP with segmentation offload, rewritten to and from local sockets', async (t) => {
    await clear(net);
    await fw.load(
      '*nat\n' +
        '-A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 8081\n' +
        `-A OUTPUT -p tcp -d 128.61.70.202 --dport 80 -j DNAT --to-destination ${ORLOCK}:8082\n` +
        'COMMIT\n',
    );
    const out = await router.serve({ port: 8081, mebibytes: 64 });
    t.match(await orlock.fetch({ url: `http://${ROUTER_INSIDE}:8080/` }), out, 'from the router, answers rewritten');
    const into = await orlock.serve({ port: 8082, mebibytes: 64 });
    t.match(await router.fetch({ url: 'http://128.61.70.202/' }), into, 'to the router, packets rewritten');
  });

  await t.test('a gibibyte through the simple firewall arrives whole', async (t) => {
    await clear(net);
    await fw.load(readFileSync(path.join(path.dirname(GSO_PROGRAM), '../../examples/simple-firewall.rules'), 'utf8'));
    // The kernel shows only that the test is right.
    const page = await knock.serve({ port: 80, mebibytes: engine === 'kernel' ? 128 : 1024 });
    const fetched = await orlock.fetch({ url: `http://${KNOCK}/`, timeoutMs: 20_000 });
    t.match(fetched, page, `sha1 ${page.sha1} in ${(fetched.ms / 1000).toFixed(1)} s`);
    const forwarded: Counted = await fw.counter('FORWARD', '--state RELATED,ESTABLISHED');
    t.ok(forwarded.bytes > page.bytes, `${forwarded.bytes} bytes in ${forwarded.packets} packets went by FORWARD`);
  });
});

agree(t, 'an error on line 7: refused with its line, the running rules stay', async (t, engine) => {
  const { fw, knock, router } = await topology(t, engine);
  await router.udpListen({ port: 7, echo: true });
  await fw.ok('iptables -A INPUT -p udp --dport 7 -j DROP');
  const before = await fw.ok('iptables -S');
  const rules = '*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n# five\n-A INPUT -p tcp -j ACCEPT\n';
  const answers = [];
  for (const line of ['-A INPUT -p tcp --dport nosuch -j DROP', '-A NOWHERE -j DROP', '-A INPUT -j', 'nonsense']) {
    const { code, stderr } = await fw.sh('iptables-restore', { input: `${rules}${line}\nCOMMIT\n` });
    t.match(stderr, /line:? 7|line 7/i, `${line}: ${stderr.trim()}`);
    t.not(code, 0);
    answers.push({ line, code, stderr });
  }
  t.equal(await fw.ok('iptables -S'), before, 'not one rule has changed');
  t.match(await knock.udpProbe({ host: ROUTER_OUTSIDE, port: 7, timeoutMs: 200 }), { outcome: 'timeout' });
  answers.push(await fw.counter('--dport 7'));
  return answers;
});
