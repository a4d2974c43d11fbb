/**
 * `hutter route` and `hutter rule` beside iproute2 on the kernel's tables: the same commands on a router with the same
 * addresses, the same output, error texts and exit codes; and what the tables then do to packets.
 */
import path from 'node:path';
import t from 'tap';
import type { EngineName } from './engine.js';
import { KNOCK, onEachEngine, ORLOCK, ROUTER_INSIDE, ROUTER_OUTSIDE, topology, type Topology, agree } from './netns.js';

const TWINS: readonly EngineName[] = ['kernel', 'hutter-tun'];

const ROUTES = `
route
route add 10.0.0.0/8
route add 10.0.0.0/8 via 192.168.73.2
route add 10.0.0.0/8 via 192.168.73.2
route add 10.0.0.1/8 via 192.168.73.2
route add 11.0.0.0/8 via 1.2.3.4
route add 11.0.0.0/8 dev nope
route add 11.0.0.0/8 dev if0 metric 5 mtu 1400 src 192.168.73.1
route add blackhole 12.0.0.0/8
route add unreachable 12.1.0.0/16 table 100
route add prohibit default table 200
route add throw 12.3.0.0/16 table 100
route add 13.0.0.0/8 via 10.9.9.9 dev if0 onlink tos 0x10
route add 14.0.0.0/8 via 192.168.73.2 proto static
route add local 15.0.0.1 dev if0
route add multicast 224.0.0.0/4 dev if0
route add 20.0.0.0/8 via 192.168.73.2 scope link
route add 20.0.0.0/8 via 192.168.73.2 scope foo
route add 20.0.0.0/8 via 192.168.73.2 proto foo
route add 20.0.0.0/8 via 192.168.73.2 proto 300
route add 20.0.0.0/8 via 192.168.73.2 tos x
route add 20.0.0.0/8 via 192.168.73.2 tos 0x13
route add 20.0.0.0/8 via 192.168.73.2 mtu x
route add 20.0.0.0/8 via x
route add 20.0.0.0/8 src x
route add via x 20.0.0.0/8
route add 20.0.0.0/8 via 192.168.73.2 src 9.9.9.9
route add 20.0.0.0/8 via 192.168.73.2 table 0
route add 20.0.0.0/8 via 192.168.73.2 table x
route add 20.0.0.0/8 dev if0 metric x
route add 20.0.0.0/8 dev if0 metric 4294967296
route add 20.0.0.0/8 dev if0 metric -1
route add 20.0.0.0/8 dev if0 metric
route add 20.0.0.0/8 dev if0 foo
route add blackhole 21.0.0.0/8 dev if0
route add unicast 22.0.0.0/8
route add 10.0.0.0/33 dev if0
route add 10.0.0.300 dev if0
route add 12.0.0.0/255.0.255.0 dev if0
route add 12.0.0.0/255.255.0.0 dev if0
route add 12.0.0.0/ dev if0
route add 45 dev if0
route add 46.1 dev if0 metric 0x10
route add to 47.0.0.0/010 dev if0
route add 48.0.0.0/8 nexthop via 192.168.73.2
route add 49.0.0.0/8 nexthop
route add 49.0.0.0/8 nexthop foo
route add 50.0.0.0/8 via inet 192.168.73.2
route add 51.0.0.0/8 dev if0 mtu 70000
route add 52.0.0.0/8 dev if0 table 500 proto bird scope site
route add 53.0.0.0/8 dev if0 scope 100 proto 77
route add 192.168.73.0/24 dev if0
route add default dev if0
route add default dev if1
route add default dev if1 metric 3
route show
route show table 100
route show table all
route show table local
route show table 77
route show table foo
route show 10.0.0.0/8
route show exact 10.0.0.0/8
route show match 10.1.1.1
route show root 10.0.0.0/7
route show root 0/0
route show match 0/0
route show default
route show dev if0
route show dev nope
route show via 192.168.73.2
route show via x
route show type blackhole
route show type foo
route show proto static
route show proto foo
route show scope link
route show src 192.168.73.1
route show metric 5
route show tos 0x10
route show foo
route l
route get 10.1.2.3
route get 11.1.2.3
route get 12.3.2.3
route get 13.1.2.3 tos 0x10
route get 8.8.8.8
route get ${ROUTER_INSIDE}
route get ${ROUTER_OUTSIDE}
route get 15.0.0.1
route get 192.168.73.255
route get 255.255.255.255
route get 127.0.0.1
route get 0.0.0.0
route get ${KNOCK} from ${ORLOCK} iif if0
route get ${KNOCK} from ${ORLOCK} iif if0 mark 5
route get ${KNOCK} mark 0x20
route get ${KNOCK} from ${ROUTER_INSIDE}
route get ${KNOCK} from ${ROUTER_OUTSIDE} oif if1
route get ${KNOCK} from 192.168.73.77
route get ${KNOCK} from ${ROUTER_INSIDE} iif if0
route get ${KNOCK} from 127.0.0.1 iif if0
route get ${KNOCK} from 224.0.0.1 iif if0
route get ${KNOCK} iif if0
route get ${ROUTER_INSIDE} from ${ORLOCK} iif if0
route get 192.168.73.255 from ${ORLOCK} iif if0
route get 12.1.2.3 from ${ORLOCK} iif if0
route get 11.1.2.3 from ${ORLOCK} iif if0
route get ${KNOCK} ipproto tcp sport 1000 dport 25
route get ${KNOCK} ipproto 300
route get ${KNOCK} dev nope
route get ${KNOCK} iif nope
route get ${KNOCK} foo
route get ${KNOCK} from x
route get ${KNOCK} mark x
route get ${KNOCK} tos x
route get 10.1.2.300
route get
route change 10.0.0.0/8 via 192.168.73.4
route change 10.8.0.0/16 via 192.168.73.4
route append 10.0.0.0/8 via 192.168.73.5
route prepend 10.0.0.0/8 via 192.168.73.6
route replace 10.0.0.0/8 via 192.168.73.3
route replace 60.0.0.0/8 via 192.168.73.3
route show 10.0.0.0/8
route del 10.0.0.0/8 via 192.168.73.9
route del 10.0.0.0/8 via 192.168.73.5
route del 10.0.0.0/8 proto static
route del 10.0.0.0/8
route del 13.0.0.0/8
route del 13.0.0.0/8 tos 0x10
route del 11.0.0.0/8 metric 6
route delete 11.0.0.0/8 dev if0
route d 11.0.0.0/8
route del local 15.0.0.1 dev if0
route del default
route del default metric 3
route flush table 100
route flush proto 77
route flush 99.0.0.0/8
route flush table 999
route flush cache
route show table all
`;

const RULES = `
rule
rule add from 10.0.0.0/8 table 100
rule add to 10.0.0.0/8 lookup 101
rule add fwmark 5 table 102
rule add fwmark 0x5/0xff table 102 pref 50
rule add iif if0 table 103 priority 60
rule add iif nope table 104
rule add oif if0 prohibit
rule add from 1.2.3.4 blackhole
rule add from 1.2.3.5 unreachable
rule add type prohibit from 1.2.3.6
rule add tos 0x10 table 105
rule add dsfield 8 table 105
rule add ipproto tcp dport 25 table 105
rule add ipproto 17 sport 25-30 table 105
rule add ipproto 200 table 105
rule add not from 10.2.0.0/16 table main
rule add fwmark 7/0xff iif if0 oif nope to 1.2.3.4 from 10.1.0.0/16 tos 8 ipproto icmp sport 5 dport 6-7 table 300 pref 9
rule add pref 10 goto 50
rule add pref 11 goto 999
rule add pref 70 goto 60
rule add pref 71 nop
rule add from 10.0.0.0/8 table 100 pref 20
rule add from 10.0.0.0/8 table 100 pref 20
rule add dev if0 table 7 order 17
rule add 9.9.9.0/24 table 8
rule add
rule add from
rule add from 300.1.1.1 table 4
rule add from 10.1.1.1/8 table 4
rule add fwmark x table 4
rule add fwmark 5/x table 4
rule add table foo
rule add pref x
rule add pref 4294967296 table 6
rule add bogus
rule add iif verylonginterfacename table 4
rule add oif verylonginterfacename table 4
rule add tos x table 4
rule add tos 0x13 table 4
rule add dport 5-2 table 4
rule add sport x table 4
rule add sport 0 table 4
rule add ipproto foo table 4
rule add ipproto 300 table 4
rule add goto
rule add pref 5 goto x
rule
rule list table 100
rule list from 10.0.0.0/8
rule list to 1.2.3.4
rule list iif if0
rule list fwmark 7/0xff
rule list pref 50
rule list foo
rule lst pref 0
rule del pref 50
rule del pref 50
rule del from 10.0.0.0/8 table 100
rule del table 105
rule del pref 9 lookup main
rule del 60
rule del type prohibit
rule del fwmark 7/0xff
rule del
rule delete pref 71
rule
rule flush
rule
rule bogus
`;

/** What commands did; help and the program's own name aside, which are each program's. */
async function outcomes({ fw }: Topology, lines: readonly string[]): Promise<string[]> {
  return (await fw.ip(lines)).map(({ code, stdout, stderr }, i) => {
    const own = /^Usage:/.test(stderr) ? 'usage\n' : stderr.replace('hutter r', 'ip r');
    return `$ ${lines[i]}\n${stdout}${own}=> ${code}`;
  });
}

for (const [title, lines] of [
  ['route', ROUTES],
  ['rule', RULES],
] as const)
  agree(
    t,
    `${title}: output, texts and codes`,
    async (t, engine) => {
      // The kernel would tell that it sends redirects.
      const net = await topology(t, engine, {
        sysctl: { 'net.ipv4.conf.if0.send_redirects': 0, 'net.ipv4.conf.all.send_redirects': 0 },
      });
      return outcomes(net, lines.trim().split('\n'));
    },
    TWINS,
  );

const THERE = '198.51.100.1';
const PING = ['-n', '-c1', '-W1'];

/** What a ping brings: an answer, an error, or nothing. */
async function ping({ orlock }: Topology, ...args: string[]): Promise<string> {
  const { stdout } = await orlock.ns.run('ping', [...PING, ...args, THERE]);
  if (stdout.includes('1 received')) return 'answered';
  return /^From (\S+) .*?(\w+ \w+|\w+)$/m.exec(stdout)?.[0].replace(/icmp_seq=\d+ /, '') ?? 'silence';
}

agree(
  t,
  'tables chosen by source, mark, TOS and incoming interface, changed while packets flow',
  async (t, engine) => {
    const outside = { dev: 'if1', router: `${ROUTER_OUTSIDE}/24`, host: `${KNOCK}/24`, more: [`${THERE}/32`] };
    const net = await topology(t, engine, { outside, sysctl: { 'net.ipv4.icmp_ratelimit': 0 } });
    const { fw, orlock } = net;
    orlock.ns.ip('addr add 192.168.73.5/24 dev eth0');
    await fw.load('*mangle\n-A PREROUTING -m tos --tos 0x08 -j MARK --set-mark 0x105\nCOMMIT\n');
    const seen: string[] = [];
    const step = async (...lines: string[]): Promise<void> => {
      seen.push(...(await outcomes(net, lines)));
      seen.push(
        `  ${await ping(net)}; as .5 ${await ping(net, '-I', '192.168.73.5')}; marked ${await ping(net, '-Q', '8')}`,
      );
      seen.push(`  with TOS 0x10 ${await ping(net, '-Q', '0x10')}`);
    };
    // Errors about routes are limited: one here.
    seen.push(await ping(net));
    await step(`route add ${THERE} via ${KNOCK}`);
    await step('route add blackhole default table 7', 'rule add from 192.168.73.5 table 7');
    await step('rule add fwmark 0x5/0xff prohibit');
    await step('route add blackhole default table 8', 'rule add iif if1 table 8');
    await step('rule del iif if1', 'rule add iif if0 tos 0x10 table 8');
    await step(
      'route del blackhole default table 7',
      'rule del fwmark 5/0xff prohibit',
      `route add ${THERE} via ${KNOCK} table 8`,
    );
    await step('route flush table 8');
    seen.push(...(await outcomes(net, [`route del ${THERE}`])), await ping(net));
    return seen;
  },
  TWINS,
);

onEachEngine(
  t,
  async (t, engine) => {
    const { fw } = await topology(t, engine);
    const refused = (program: string, argv: string[]) =>
      fw.sh(`${process.execPath} ${fw.hutterFile} ${program} ${argv.join(' ')}`);
    if (engine === 'hutter') {
      for (const program of ['route', 'rule']) {
        const { code, stderr } = await refused(program, ['list']);
        t.equal(code, 1);
        t.match(stderr, `use \`ip ${program}' for its ${program}s`);
      }
      return;
    }
    const more = await refused('route', ['add', '1.2.3.0/24', 'dev', 'if0', 'realms', '5']);
    t.same([more.code, more.stderr], [1, "hutter: route: `realms' is nothing that hutter's routes can have\n"]);
    const lines = `# a comment\nroute add 10.1.0.0/16 dev if1\n\nadd 10.2.0.0/16 via 10.1.0.1\nadd 10.3.0.0/16 via 9.9.9.9\nadd 10.4.0.0/16 dev if1\n`;
    t.same(await fw.ip(['route -batch'], lines), [
      { code: 1, stdout: '', stderr: 'Error: Nexthop has invalid gateway.\nCommand failed -:5\n' },
    ]);
    t.match((await fw.ip(['route show root 10.0.0.0/8']))[0]!.stdout, /^10\.1\.0\.0\/16 .*\n10\.2\.0\.0\/16 .*\n$/);
    // From a file, as `ip -batch` reads one.
    const file = path.join(t.testdir({ routes: 'add 10.5.0.0/16 dev if1\nadd 10.5.0.0/16 dev if1\n' }), 'routes');
    const answers = [];
    for (const argv of [[file], ['/no/such/file'], ['-', 'more']]) {
      const { code, stdout, stderr } = await refused('route', ['-batch', ...argv]);
      answers.push({ code, stdout, stderr });
    }
    t.same(answers, [
      { code: 1, stdout: '', stderr: `RTNETLINK answers: File exists\nCommand failed ${file}:2\n` },
      { code: 1, stdout: '', stderr: 'Cannot open file "/no/such/file" for reading: No such file or directory\n' },
      { code: 255, stdout: '', stderr: 'Command "-batch" is unknown, try "hutter route help".\n' },
    ]);
    await fw.ok(`echo add 10.6.0.0/16 dev if1 | ${process.execPath} ${fw.hutterFile} route -batch -`);
    t.match((await fw.ip(['route show 10.6.0.0/16']))[0]!.stdout, /^10\.6\.0\.0\/16 /);
  },
  ['hutter', 'hutter-tun'],
);
