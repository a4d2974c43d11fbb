/**
 * Every example rule of the article "iptables: Making the network work for you" (2004), exactly as printed, with real
 * packets: on the kernel first, which proves the test, then on hutter. See netns.ts for the network.
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { ConnectResult } from '../../src/control/lab/host.js';
import type { Host } from '../../src/control/lab/hosts.js';
import type { Engine } from './engine.js';
import { echoPacket, tcpPacket } from './frame.js';
import {
  Capture,
  KNOCK,
  ORLOCK,
  ROUTER_INSIDE,
  ROUTER_OUTSIDE,
  type Topology,
  clear,
  onEachEngine,
  topology,
  until,
} from './netns.js';

const HEJAZ = '128.61.70.80';
const STRANGER = '203.0.113.9';
const SYN_LEN = 60;
const MINIMIZE_COST = 0x02;
const SYN = 2;

const EXAMPLES = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../examples');

type Case = (t: Test, net: Topology) => Promise<void>;

/** Runs lines that must be taken. */
async function lines(fw: Engine, ...commands: string[]): Promise<void> {
  for (const command of commands) await fw.ok(command);
}

/** Runs a line that must be refused with exactly this text and code, leaving the rules as they are. */
async function refused(t: Test, fw: Engine, line: string, code: number, text: string): Promise<void> {
  const before = await fw.ok('iptables-save');
  const result = await fw.sh(line);
  t.equal(result.stderr, text, `${line}: its words`);
  t.equal(result.stdout, '');
  t.equal(result.code, code, 'its exit code');
  const rulesOf = (save: string): string => save.replace(/^#.*$|\[\d+:\d+\]/gm, '');
  t.equal(rulesOf(await fw.ok('iptables-save')), rulesOf(before), 'nothing changed');
}

const tryHelp = "Try `iptables -h' or 'iptables --help' for more information.\n";

/** One ping with one second's patience; whether an answer came. */
async function ping(from: Host, to: string, source?: string): Promise<boolean> {
  const result = await from.ns.run('ping', ['-n', '-c1', '-W1', ...(source ? ['-I', source] : []), to]);
  return result.code === 0;
}

const outcome = async (attempt: Promise<ConnectResult>): Promise<string> => (await attempt).outcome;

const onTheArticleNetwork: Record<string, Case> = {
  'INPUT -p tcp -s hejaz.example.com --destination-port 80 -j DROP': async (t, { fw, router, knock }) => {
    await router.listen({ port: 80 });
    await router.listen({ port: 81 });
    await lines(fw, 'iptables -t filter -A INPUT -p tcp -s hejaz.example.com --destination-port 80 -j DROP');
    t.equal(
      await fw.ok('iptables -S INPUT'),
      `-P INPUT ACCEPT\n-A INPUT -s ${HEJAZ}/32 -p tcp -m tcp --dport 80 -j DROP\n`,
      'the name became its address',
    );
    const fromHejaz = { host: ROUTER_OUTSIDE, localAddress: HEJAZ };
    t.equal(await outcome(knock.connect({ ...fromHejaz, port: 80 })), 'timeout', 'hejaz gets nothing from port 80');
    t.match(await fw.counter('--dport 80'), { packets: 1, bytes: SYN_LEN });
    t.equal(await outcome(knock.connect({ ...fromHejaz, port: 81 })), 'connected', 'but port 81');
    t.equal(await outcome(knock.connect({ host: ROUTER_OUTSIDE, port: 80 })), 'connected', 'and others get port 80');
    t.match(await fw.counter('--dport 80'), { packets: 1, bytes: SYN_LEN }, 'which the rule did not count');
    t.same(
      (await router.accepted(80)).map((peer) => peer.address),
      [KNOCK],
    );
  },

  'udp 137:139 from 128.61.0.0/16 only': async (t, { fw, router, knock, orlock }) => {
    for (const port of [136, 137, 138, 139, 140]) await router.udpListen({ port, echo: true });
    const allow = 'iptables -A INPUT -p udp -s 128.61.0.0/16 --dport 137:139 -j ACCEPT';
    const probe = async (host: Host, port: number): Promise<string> =>
      (await host.udpProbe({ host: host === knock ? ROUTER_OUTSIDE : ROUTER_INSIDE, port, timeoutMs: 150 })).outcome;
    const denials: [string, string][] = [
      ['iptables -A INPUT -p udp ! -s 128.61.0.0/16 --dport 137:139 -j DROP', '--dport 137:139 -j DROP'],
      ['iptables -A INPUT -p udp --dport 137:139 -j DROP', '--dport 137:139 -j DROP'],
      ['iptables -P INPUT DROP', '-P INPUT DROP'],
    ];
    for (const [deny, counted] of denials) {
      await fw.load('');
      await lines(fw, allow, deny);
      t.comment(deny);
      for (const port of [137, 138, 139]) {
        t.equal(await probe(knock, port), 'reply', `128.61 reaches ${port}`);
        t.equal(await probe(orlock, port), 'timeout', `192.168 does not`);
      }
      t.match(await fw.counter('-j ACCEPT'), { packets: 3, bytes: 3 * 33 });
      t.match(await fw.counter(counted), { packets: 3, bytes: 3 * 33 });
      const beyond = deny.includes('-P') ? 'timeout' : 'reply';
      for (const port of [136, 140]) t.equal(await probe(orlock, port), beyond, `${port} is outside the range`);
    }
  },

  '! in its old place, behind the option, as in the iptables of the time': async (t, { fw, router, knock, orlock }) => {
    const old = 'iptables -A INPUT -p udp -s ! 128.61.0.0/16 --dport 137:139 -j DROP';
    if (fw.name === 'kernel') {
      await refused(t, fw, old, 2, "Bad argument `128.61.0.0/16'\n" + tryHelp);
      return;
    }
    // hutter takes it with the warning that iptables 1.4 gave, and means the same.
    const result = await fw.sh(old);
    t.equal(result.code, 0);
    t.match(result.stderr, /deprecated in favor of extrapositioned/);
    t.match(await fw.ok('iptables -S INPUT'), '-A INPUT ! -s 128.61.0.0/16 -p udp -m udp --dport 137:139 -j DROP\n');
    await router.udpListen({ port: 137, echo: true });
    t.match(await knock.udpProbe({ host: ROUTER_OUTSIDE, port: 137 }), { outcome: 'reply' });
    t.match(await orlock.udpProbe({ host: ROUTER_INSIDE, port: 137, timeoutMs: 150 }), { outcome: 'timeout' });
  },

  'INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT': async (t, { fw, router, knock }) => {
    await knock.listen({ port: 80, greet: 'welcome' });
    await router.listen({ port: 80 });
    await lines(fw, 'iptables -A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT', 'iptables -P INPUT DROP');
    t.equal(await outcome(knock.connect({ host: ROUTER_OUTSIDE, port: 80 })), 'timeout', 'NEW from outside is dropped');
    t.match(await fw.counter('--state'), { packets: 0 });
    t.match(await fw.counter('-P INPUT DROP'), { packets: 1, bytes: SYN_LEN });
    const page = await router.connect({ host: KNOCK, port: 80, read: true });
    t.match(page, { outcome: 'connected', data: 'welcome' }, 'answers to what the router began come in');
    const established = (await fw.counter('--state')).packets;
    t.ok(established >= 2, `${established} packets were ESTABLISHED`);
    t.equal((await router.udpProbe({ host: KNOCK, port: 9 })).outcome, 'refused', 'an ICMP error about it is RELATED');
    t.equal(await ping(router, KNOCK), true, 'and so is an echo reply ESTABLISHED');
  },

  'DNAT to orlock:22 is refused, to his address works': async (t, { fw, knock, orlock }) => {
    await refused(
      t,
      fw,
      'iptables -t nat -A PREROUTING -p tcp --dport 1000 -j DNAT --to-destination orlock:22',
      2,
      'iptables v1.8.9 (legacy): Bad IP address "orlock"\n' + tryHelp,
    );
    await orlock.listen({ port: 22, greet: 'SSH-2.0-orlock' });
    for (const option of ['--to-destination', '--to']) {
      await fw.load('');
      await lines(fw, `iptables -t nat -A PREROUTING -p tcp --dport 1000 -j DNAT ${option} ${ORLOCK}:22`);
      const seen = await Capture.start(knock, 'eth0', 'tcp');
      const greeted = await knock.connect({ host: ROUTER_OUTSIDE, port: 1000, read: true });
      t.match(greeted, { outcome: 'connected', data: 'SSH-2.0-orlock' }, `${option}: port 1000 is orlock's ssh`);
      t.same((await orlock.accepted(22)).at(-1), greeted.local, 'orlock sees knock himself');
      const answer = await seen.until('the answer', (ip) => ip.dst === KNOCK && ip.tcp?.flags === 'SYN,ACK');
      t.match(answer, { src: ROUTER_OUTSIDE, sport: 1000 }, 'knock sees the router, port 1000');
      t.match(await fw.counter('-t nat', 'PREROUTING', 'DNAT'), { packets: 1, bytes: SYN_LEN }, 'one rule hit a flow');
      t.equal(await outcome(knock.connect({ host: ROUTER_OUTSIDE, port: 1001 })), 'refused', 'port 1001 is nobody');
    }
  },

  'REJECT: ident by reset, dns by port unreachable': async (t, { fw, router, knock }) => {
    await router.listen({ port: 113 });
    await router.udpListen({ port: 53, echo: true });
    await lines(
      fw,
      'iptables -A INPUT -p tcp --dport 113 -j REJECT --reject-with tcp-reset',
      'iptables -A INPUT -p udp --dport 53 -j REJECT --reject-with icmp-port-unreachable',
    );
    const seen = await Capture.start(knock, 'eth0', 'tcp or icmp or udp');
    t.equal(await outcome(knock.connect({ host: ROUTER_OUTSIDE, port: 113 })), 'refused');
    const syn = await seen.until('the SYN', (ip) => ip.dport === 113);
    const reset = await seen.until('the reset', (ip) => ip.sport === 113);
    t.match(reset, { src: ROUTER_OUTSIDE, dst: KNOCK, dport: syn.sport!, headerOk: true, length: 40, df: true });
    t.match(reset.tcp, { flags: 'RST,ACK', seq: 0, ack: (syn.tcp!.seq + 1) >>> 0, window: 0 });
    t.equal((await knock.udpProbe({ host: ROUTER_OUTSIDE, port: 53, data: 'query' })).outcome, 'refused');
    const query = await seen.until('the query', (ip) => ip.dport === 53);
    const error = await seen.until('the error', (ip) => ip.icmp !== undefined);
    t.match(error, { src: ROUTER_OUTSIDE, dst: KNOCK, tos: 0xc0, headerOk: true, checksumOk: true });
    t.match(error.icmp, { type: 3, code: 3, rest: 0 });
    t.same([...error.icmp!.quote.subarray(0, 28)], [...query.bytes.subarray(0, 28)], 'it quotes the query');
    t.match(await fw.counter('--dport 113'), { packets: 1, bytes: SYN_LEN });
    t.match(await fw.counter('--dport 53'), { packets: 1, bytes: 33 });
    t.same(await router.accepted(113), [], 'no program heard of either');
    t.same(await router.udpReceived(53), []);
  },

  'LOG then DROP port 31337': async (t, { fw, router, knock }) => {
    await router.listen({ port: 31337 });
    await lines(
      fw,
      'iptables -A INPUT -p tcp --dport 31337 -j LOG --log-prefix "31337 connect attempt: "',
      'iptables -A INPUT -p tcp --dport 31337 -j DROP',
    );
    const attempt = await knock.connect({ host: ROUTER_OUTSIDE, port: 31337, localPort: 40123 });
    t.equal(attempt.outcome, 'timeout');
    t.match(await fw.counter('-j LOG'), { packets: 1, bytes: SYN_LEN }, 'the packet went on after LOG');
    t.match(await fw.counter('-j DROP'), { packets: 1, bytes: SYN_LEN });
    t.match(
      await fw.ok('iptables -S INPUT'),
      '-A INPUT -p tcp -m tcp --dport 31337 -j LOG --log-prefix "31337 connect attempt: "\n',
    );
    await logged(
      t,
      fw,
      /31337 connect attempt: IN=if1 OUT= MAC=([0-9a-f]{2}:){13}[0-9a-f]{2} SRC=128\.61\.70\.200 DST=128\.61\.70\.47 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=\d+ DF PROTO=TCP SPT=40123 DPT=31337 WINDOW=\d+ RES=0x00 SYN URGP=0/,
    );
  },

  'mangle OUTPUT --dport 25 -j TOS --set-tos Minimize-Cost': async (t, { fw, router, knock }) => {
    await knock.listen({ port: 25, greet: '220 knock' });
    await knock.listen({ port: 26, greet: '220 knock' });
    await lines(fw, 'iptables -t mangle -A OUTPUT -p tcp --dport 25 -j TOS --set-tos Minimize-Cost');
    const seen = await Capture.start(knock, 'eth0', 'tcp');
    for (const port of [25, 26]) {
      t.match(await router.connect({ host: KNOCK, port, read: true }), { outcome: 'connected', data: '220 knock' });
    }
    const packets = await seen.packets();
    const tosOf = (wanted: 'sport' | 'dport', port: number): number[] => [
      ...new Set(packets.filter((ip) => ip[wanted] === port).map((ip) => ip.tos)),
    ];
    t.same(tosOf('dport', 25), [MINIMIZE_COST], 'all mail that leaves is marked');
    t.same(tosOf('sport', 25), [0], 'what comes back is not');
    t.same(tosOf('dport', 26), [0], 'nor is anything else');
    t.ok(packets.every((ip) => ip.headerOk));
    const sent = packets.filter((ip) => ip.dport === 25);
    t.match(await fw.counter('-j TOS'), { packets: sent.length, bytes: sent.reduce((sum, ip) => sum + ip.length, 0) });
  },

  'MARK: --mark is refused, --set-mark works; POSTROUTING needs -t mangle': async (t, { fw, orlock, knock }) => {
    await refused(
      t,
      fw,
      'iptables -t mangle -A PREROUTING -i if0 -j MARK --mark 47',
      2,
      'iptables v1.8.9 (legacy): unknown option "--mark"\n' + tryHelp,
    );
    await refused(
      t,
      fw,
      'iptables -A POSTROUTING -m mark --mark 47 -j DROP',
      1,
      'iptables: No chain/target/match by that name.\n',
    );
    t.equal(await ping(orlock, KNOCK), true);
    await lines(
      fw,
      'iptables -t mangle -A PREROUTING -i if0 -j MARK --set-mark 47',
      'iptables -t mangle -A POSTROUTING -m mark --mark 47 -j DROP',
    );
    t.equal(await ping(orlock, KNOCK), false, 'what came in on if0 is dropped on its way out');
    t.match(await fw.counter('--set-xmark 0x2f/0xffffffff'), { packets: 1, bytes: 84 });
    t.match(await fw.counter('POSTROUTING', '-j DROP'), { packets: 1, bytes: 84 });
    await orlock.udpListen({ port: 5000 });
    await knock.udpSend({ host: ORLOCK, port: 5000, data: 'unmarked' });
    await until('the datagram', async () => (await orlock.udpReceived(5000)).length === 1);
    t.match(await fw.counter('POSTROUTING', '-j DROP'), { packets: 1 }, 'what came in on if1 is not');
  },

  'multiport --dports 25,80,53': async (t, { fw, router, knock }) => {
    for (const port of [25, 80, 53, 54, 79]) await router.listen({ port });
    await lines(fw, 'iptables -A INPUT -p tcp -m multiport --dports 25,80,53 -j ACCEPT', 'iptables -P INPUT DROP');
    const to = (port: number): Promise<string> =>
      outcome(knock.connect({ host: ROUTER_OUTSIDE, port, timeoutMs: 200 }));
    for (const port of [25, 80, 53]) t.equal(await to(port), 'connected', `${port} is in the set`);
    for (const port of [54, 79]) t.equal(await to(port), 'timeout', `${port} is not`);
    t.match(await fw.counter('-P INPUT DROP'), { packets: 2, bytes: 2 * SYN_LEN });
  },

  'port knocking: 79, then a ping, opens ssh to that host alone': async (t, { fw, router, knock, orlock }) => {
    await router.listen({ port: 22, greet: 'SSH-2.0' });
    await lines(
      fw,
      'iptables -A INPUT -p tcp --dport 22 -m mark --mark 47 -j ACCEPT',
      'iptables -A INPUT -p tcp --dport 22 -j DROP',
      'iptables -t mangle -A INPUT -p tcp --dport 79 -m recent --name PHASE1 --set -j ACCEPT',
      'iptables -t mangle -A INPUT -p icmp --icmp-type echo-request -m recent --name PHASE1 --seconds 60 --rcheck -j MARK --set-mark 420',
      'iptables -t mangle -A INPUT -m mark --mark 420 -m recent --name PHASE1 --remove -j MARK --set-mark 420',
      'iptables -t mangle -A INPUT -m mark --mark 420 -m recent --name PHASE2 --set -j ACCEPT',
      'iptables -t mangle -A INPUT -m recent --name PHASE2 --seconds 60 --update -j MARK --set-mark 47',
    );
    const ssh = (from: Host, localAddress?: string): Promise<string> =>
      outcome(
        from.connect({
          host: from === orlock ? ROUTER_INSIDE : ROUTER_OUTSIDE,
          port: 22,
          read: true,
          timeoutMs: 250,
          ...(localAddress === undefined ? {} : { localAddress }),
        }),
      );
    t.equal(await ssh(knock), 'timeout', 'shut at first');
    t.equal(await ping(knock, ROUTER_OUTSIDE), true, 'a ping is answered');
    t.equal(await ssh(knock), 'timeout', 'but alone opens nothing');
    t.match(await fw.counter('--set-xmark 0x1a4', '--rcheck'), { packets: 0 }, 'as there was no knock before');
    t.equal(await outcome(knock.connect({ host: ROUTER_OUTSIDE, port: 79 })), 'refused', 'a knock at 79');
    t.equal(await ssh(knock), 'timeout', 'alone opens nothing either');
    t.equal(await ping(knock, ROUTER_OUTSIDE), true, 'the ping after it');
    t.match(await fw.counter('--rcheck'), { packets: 1, bytes: 84 });
    t.match(await fw.counter('--remove'), { packets: 1, bytes: 84 });
    t.match(await fw.counter('--set --name PHASE2'), { packets: 1, bytes: 84 });
    t.equal(await ssh(knock), 'connected', 'opens ssh');
    t.equal(await ssh(knock), 'connected', 'and it stays open');
    t.equal(await ssh(knock, HEJAZ), 'timeout', "not for the same machine's other address");
    t.equal(await ssh(orlock), 'timeout', 'nor for anybody else');
    t.equal(await ping(knock, ROUTER_OUTSIDE), true);
    t.match(await fw.counter('--rcheck'), { packets: 1 }, 'PHASE1 has forgotten the host');
  },

  'connlimit: three connections a host, the fourth is reset': async (t, { fw, router, knock }) => {
    await router.listen({ port: 80, greet: 'page' });
    await lines(
      fw,
      'iptables -A INPUT -p tcp --dport 80 -m connlimit --connlimit-above 3 -j REJECT --reject-with tcp-reset',
    );
    const open = (localAddress?: string): Promise<ConnectResult> =>
      knock.connect({
        host: ROUTER_OUTSIDE,
        port: 80,
        read: true,
        keep: true,
        ...(localAddress === undefined ? {} : { localAddress }),
      });
    const kept: number[] = [];
    for (let i = 1; i <= 3; i++) {
      const result = await open();
      t.match(result, { outcome: 'connected', data: 'page' }, `connection ${i}`);
      kept.push(result.id!);
    }
    t.match(await fw.counter('connlimit'), { packets: 0 });
    t.match(await open(), { outcome: 'refused' }, 'connection 4');
    t.match(await fw.counter('connlimit'), { packets: 1, bytes: SYN_LEN });
    t.match(await open(HEJAZ), { outcome: 'connected' }, 'another host has a count of its own');
    await knock.hangUp({ id: kept[0]!, reset: true });
    t.match(await open(), { outcome: 'connected' }, 'one closed makes room for one');
    t.match(await open(), { outcome: 'refused' }, 'and for no more');
    t.match(await fw.counter('connlimit'), { packets: 2, bytes: 2 * SYN_LEN });
  },

  'the simple firewall, its port forward as printed': async (t, { fw, orlock, knock }) => {
    const printed = example('simple-firewall.rules').replace('-d 192.168.73.4 --dport', '-d 192.168.74.4 --dport');
    await fw.load(printed);
    await orlock.listen({ port: 6346 });
    t.equal(
      await outcome(knock.connect({ host: ROUTER_OUTSIDE, port: 6346 })),
      'timeout',
      'FORWARD permits 192.168.74.4, but the packet goes to 192.168.73.4',
    );
    t.match(await fw.counter('-P FORWARD DROP'), { packets: 1, bytes: SYN_LEN });
  },

  'the simple firewall, mended': async (t, net) => {
    const { fw, orlock, router, knock } = net;
    await fw.load(example('simple-firewall.rules'));
    await knock.serve({ port: 80, body: "knock's page" });
    await orlock.listen({ port: 6346, greet: "orlock's share" });
    await knock.listen({ port: 25, greet: '220 knock' });
    await knock.udpListen({ port: 4000, echo: true });
    for (const port of [22, 80, 113, 8000, 8001]) await router.listen({ port });
    const seen = await Capture.start(knock);

    const page = await orlock.fetch({ url: `http://${KNOCK}/` });
    t.match(page, { status: 200, body: "knock's page" }, 'orlock fetches a page');
    t.match(await knock.visitors(), [{ address: ROUTER_OUTSIDE }], 'and knock sees the router');
    t.equal((await orlock.udpProbe({ host: KNOCK, port: 4000 })).outcome, 'reply', 'UDP crosses both ways');
    t.equal((await knock.udpReceived(4000))[0]?.address, ROUTER_OUTSIDE);
    t.equal(await ping(orlock, KNOCK), true, 'ping crosses');
    t.equal((await orlock.udpProbe({ host: KNOCK, port: 4001 })).outcome, 'refused', "knock's ICMP error comes back");

    const share = await knock.connect({ host: ROUTER_OUTSIDE, port: 6346, read: true });
    t.match(share, { outcome: 'connected', data: "orlock's share" }, 'port 6346 is orlock');
    t.same(await orlock.accepted(6346), [share.local], 'who sees knock');

    const outcomes: Record<number, string> = {};
    for (const port of [22, 80, 113, 8000, 8001]) {
      outcomes[port] = await outcome(knock.connect({ host: ROUTER_OUTSIDE, port }));
    }
    t.same(
      outcomes,
      { 22: 'connected', 80: 'connected', 113: 'refused', 8000: 'refused', 8001: 'connected' },
      'services are open, other ports up to 8000 look closed',
    );
    t.equal(await outcome(orlock.connect({ host: ROUTER_INSIDE, port: 113 })), 'connected', 'the inside is trusted');
    t.equal(await outcome(router.connect({ host: '127.0.0.1', port: 113 })), 'connected', 'loopback too');
    t.equal((await knock.udpProbe({ host: ROUTER_OUTSIDE, port: 8000 })).outcome, 'refused');
    t.match(await fw.counter('-p udp', '--dport 0:8000'), { packets: 1, bytes: 33 });
    t.match(await fw.counter('-p tcp', '--dport 0:8000'), { packets: 2, bytes: 2 * SYN_LEN });

    await orlock.listen({ port: 80 });
    t.equal(await outcome(knock.connect({ host: ORLOCK, port: 80 })), 'timeout', "what isn't permitted gets nothing");
    t.match(await fw.counter('-P FORWARD DROP'), { packets: 1, bytes: SYN_LEN });

    t.match(await orlock.connect({ host: KNOCK, port: 25, read: true }), { data: '220 knock' });
    const packets = await seen.packets();
    const tosOf = (ports: (port: number) => boolean): number[] => [
      ...new Set(packets.filter((ip) => ip.tcp && ip.src !== KNOCK && ports(ip.dport!)).map((ip) => ip.tos)),
    ];
    t.same(
      tosOf((port) => port === 25),
      [MINIMIZE_COST],
      'mail leaves at minimum cost',
    );
    t.same(
      tosOf((port) => port !== 25),
      [0],
      'nothing else does',
    );
    t.same(
      packets.filter((ip) => ip.src === ORLOCK),
      [],
      'no inside address is seen outside',
    );
  },
};

const onOut: Record<string, Case> = {
  'sysctl -w net.ipv4.ip_forward=1': async (t, { fw, orlock, knock }) => {
    await fw.ok('sysctl -w net.ipv4.ip_forward=0');
    await knock.udpListen({ port: 4000, echo: true });
    // What hutter's own interfaces take no kernel forwards, whatever it is told.
    const without = fw.name === 'hutter-tun' ? 'reply' : 'timeout';
    t.equal((await orlock.udpProbe({ host: OUT_HOST, port: 4000, timeoutMs: 200 })).outcome, without);
    t.equal(await fw.ok('sysctl -w net.ipv4.ip_forward=1'), 'net.ipv4.ip_forward = 1\n');
    t.equal((await orlock.udpProbe({ host: OUT_HOST, port: 4000 })).outcome, 'reply');
    t.equal((await knock.udpReceived(4000)).length, without === 'reply' ? 2 : 1);
  },

  'POSTROUTING -o out -j MASQUERADE': (t, net) =>
    translates(t, net, 'iptables -t nat -A POSTROUTING -o out -j MASQUERADE'),
  'POSTROUTING -o out -j SNAT --to-source 1.2.3.4': (t, net) =>
    translates(t, net, 'iptables -t nat -A POSTROUTING -o out -j SNAT --to-source 1.2.3.4'),
  'POSTROUTING -o out -j SNAT --to 1.2.3.4': (t, net) =>
    translates(t, net, 'iptables -t nat -A POSTROUTING -o out -j SNAT --to 1.2.3.4'),

  'SNAT to an address with a port': async (t, { fw, orlock, knock }) => {
    await knock.listen({ port: 80, greet: 'page' });
    await lines(fw, 'iptables -t nat -A POSTROUTING -p tcp -o out -j SNAT --to 1.2.3.4:5000');
    t.match(await orlock.connect({ host: OUT_HOST, port: 80, read: true }), { outcome: 'connected', data: 'page' });
    t.same(await knock.accepted(80), [{ address: OUT_ROUTER, port: 5000 }]);
  },

  'FORWARD -i eth0 -d 127.0.0.0/8 -m recent --set can never match': async (t, { fw, orlock, knock }) => {
    await lines(
      fw,
      'iptables -A FORWARD -i eth0 -d 127.0.0.0/8 -m recent --set -j DROP',
      'iptables -A FORWARD -m recent --update --seconds 60 -j DROP',
    );
    await knock.udpListen({ port: 4000, echo: true });
    await orlock.sendRaw({
      packet: tcpPacket({ src: ORLOCK, dst: '127.0.0.1', sport: 999, dport: 80, flags: SYN }),
      to: ROUTER_INSIDE,
    });
    await orlock.sendRaw({ packet: echoPacket({ src: ORLOCK, dst: '127.1.2.3' }), to: ROUTER_INSIDE });
    t.equal((await orlock.udpProbe({ host: OUT_HOST, port: 4000 })).outcome, 'reply', 'nobody got onto the list');
    t.match(await fw.counter('-d 127.0.0.0/8'), { packets: 0 }, 'input routing refuses such packets before FORWARD');
    t.match(await fw.counter('--update'), { packets: 0 });
  },

  'FORWARD recent --set and --update, for an address that reaches FORWARD': async (t, { fw, orlock, knock }) => {
    await lines(
      fw,
      'iptables -A FORWARD -i eth0 -d 1.2.3.66 -m recent --set -j DROP',
      'iptables -A FORWARD -m recent --update --seconds 60 -j DROP',
    );
    t.match(
      await fw.ok('iptables -S FORWARD'),
      '-A FORWARD -d 1.2.3.66/32 -i eth0 -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource -j DROP\n' +
        '-A FORWARD -m recent --update --seconds 60 --name DEFAULT --mask 255.255.255.255 --rsource -j DROP\n',
    );
    await knock.udpListen({ port: 4000, echo: true });
    const probe = async (): Promise<string> =>
      (await orlock.udpProbe({ host: OUT_HOST, port: 4000, timeoutMs: 200 })).outcome;
    t.equal(await probe(), 'reply', 'good at first');
    t.match(await fw.counter('--set'), { packets: 0 });
    await orlock.udpSend({ host: '1.2.3.66', port: 1 });
    await until('the rule counts', async () => (await fw.counter('--set')).packets === 1);
    t.equal(await probe(), 'timeout', 'one forbidden step');
    t.equal(await probe(), 'timeout', 'and nothing goes any more');
    t.match(await fw.counter('--update'), { packets: 2, bytes: 2 * 33 });
    await orlock.udpListen({ port: 5000 });
    await knock.udpSend({ host: ORLOCK, port: 5000 });
    await until('a datagram from a host off the list', async () => (await orlock.udpReceived(5000)).length === 1);
    t.match(await fw.counter('--update'), { packets: 2 });
  },
};

const OUT_ROUTER = '1.2.3.4';
const OUT_HOST = '1.2.3.200';

/** A local port that no case of this run has used: an old flow would not ask the nat table again. */
let lastPort = 40_200;
const freshPort = (): number => ++lastPort;

/** A rule that hides the inside behind 1.2.3.4, for TCP, UDP and ICMP, their ports kept. */
async function translates(t: Test, { fw, orlock, router, knock }: Topology, rule: string): Promise<void> {
  await knock.listen({ port: 80, greet: 'page' });
  await knock.udpListen({ port: 4000, echo: true });
  await lines(fw, rule);
  const port = freshPort();
  const visit = await orlock.connect({ host: OUT_HOST, port: 80, localPort: port, read: true });
  t.match(visit, { outcome: 'connected', data: 'page', local: { address: ORLOCK, port } });
  t.same(await knock.accepted(80), [{ address: OUT_ROUTER, port }], 'knock sees the router, the port is kept');
  t.match(await orlock.udpProbe({ host: OUT_HOST, port: 4000, localPort: port }), { outcome: 'reply' });
  t.match(await knock.udpReceived(4000), [{ address: OUT_ROUTER, port }]);
  const seen = await Capture.start(knock, 'eth0', 'icmp');
  t.equal(await ping(orlock, OUT_HOST), true, 'ping crosses');
  t.equal((await seen.packets())[0]?.src, OUT_ROUTER);
  t.match(await fw.counter('-t nat', 'POSTROUTING', '-o out'), { packets: 3, bytes: SYN_LEN + 33 + 84 });
  t.match(
    await router.connect({ host: OUT_HOST, port: 80 }),
    { outcome: 'connected' },
    "the router's own go as before",
  );
  t.equal((await knock.accepted(80)).at(-1)?.address, OUT_ROUTER);
}

/** On hutter, waits for a log line; the kernel keeps its log from other namespaces, there the counter must do. */
async function logged(t: Test, fw: Engine, onLink: RegExp): Promise<void> {
  if (fw.name === 'kernel') return;
  // A TUN has no hardware addresses.
  const line = fw.name === 'hutter' ? onLink : new RegExp(onLink.source.replace('([0-9a-f]{2}:){13}[0-9a-f]{2}', ''));
  await until('the log line', () => line.test(fw.said));
  t.match(fw.said, line, 'the log line is as the kernel prints it');
}

function example(name: string): string {
  return readFileSync(path.join(EXAMPLES, name), 'utf8');
}

onEachEngine(t, async (t, engine) => {
  const only = process.env['HUTTER_TEST_CASE'];
  const suites: [Record<string, Case>, Topology][] = [
    [
      onTheArticleNetwork,
      await topology(t, engine, {
        outside: {
          dev: 'if1',
          router: `${ROUTER_OUTSIDE}/24`,
          host: `${KNOCK}/24`,
          more: [`${HEJAZ}/24`, `${STRANGER}/32`],
        },
        hosts: { 'hejaz.example.com': HEJAZ, orlock: ORLOCK },
      }),
    ],
    [
      onOut,
      await topology(t, engine, {
        inside: { dev: 'eth0', router: `${ROUTER_INSIDE}/24`, host: `${ORLOCK}/24` },
        outside: { dev: 'out', router: `${OUT_ROUTER}/24`, host: `${OUT_HOST}/24`, more: ['1.2.3.66/24'] },
      }),
    ],
  ];
  for (const [cases, net] of suites) {
    for (const [title, body] of Object.entries(cases)) {
      if (only !== undefined && !title.includes(only)) continue;
      await t.test(title, async (t) => {
        await clear(net);
        await body(t, net);
      });
    }
  }
});
