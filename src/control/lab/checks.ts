/**
 * What the article promises of its firewall, each tried with real packets between the lab's hosts. A check returns what
 * it saw or throws what was wrong. They run in order, on one router; each looks at counters only as differences.
 */
import { type Iptables, findIptables } from '../divert.js';
import type { ConnectResult } from './host.js';
import type { Namespace } from './netns.js';
import { ECHO_PORT, KNOCK, type Lab, MAIL, ORLOCK, PAGE, ROUTER_OUTSIDE, SHARE, SHARE_PORT } from './lab.js';

export interface Check {
  title: string;
  /** What was seen; throws if it isn't what was promised. */
  run(lab: Lab): Promise<string>;
}

const IDENT = 113;
const CLOSED_UDP = 7000;
const SMTP = 25;
const NO_ANSWER_MS = 700;

/** Throws unless the two are the same, naming what they are. */
function expect(what: string, got: unknown, wanted: unknown): void {
  if (got !== wanted) throw new Error(`${what} is ${JSON.stringify(got)}, not ${JSON.stringify(wanted)}`);
}

const said = (result: ConnectResult): string => result.error ?? result.outcome;

export const CHECKS: readonly Check[] = [
  {
    title: 'orlock fetches a page from knock, who sees the router',
    async run({ orlock, knock, router }) {
      const before = await router.packets('-A POSTROUTING -o if1');
      const page = await orlock.fetch({ url: `http://${KNOCK}/` });
      expect('the status', page.status, 200);
      expect('the page', page.body, PAGE);
      const visitor = (await knock.visitors()).at(-1);
      expect('the visitor', visitor?.address, ROUTER_OUTSIDE);
      expect("the SNAT rule's count of flows", (await router.packets('-A POSTROUTING -o if1')) - before, 1);
      return `${page.status}, ${page.bytes} bytes in ${page.ms.toFixed(0)} ms; knock saw ${visitor!.address}:${visitor!.port}`;
    },
  },
  {
    title: `knock reaches orlock through port ${SHARE_PORT}`,
    async run({ orlock, knock }) {
      const result = await knock.connect({ host: ROUTER_OUTSIDE, port: SHARE_PORT, read: true, timeoutMs: 3000 });
      expect('the connection', said(result), 'connected');
      expect('the greeting', result.data, SHARE);
      const caller = (await orlock.accepted(SHARE_PORT)).at(-1);
      expect('the caller', caller?.address, KNOCK);
      return `"${SHARE.trim()}"; orlock saw ${caller!.address}:${caller!.port}`;
    },
  },
  {
    title: `ident (${IDENT}) is answered with a reset`,
    async run({ knock, router }) {
      const before = await router.packets('REJECT --reject-with tcp-reset');
      const result = await knock.connect({ host: ROUTER_OUTSIDE, port: IDENT, timeoutMs: 3000 });
      expect('the answer', said(result), 'ECONNREFUSED');
      expect("the rule's count", (await router.packets('REJECT --reject-with tcp-reset')) - before, 1);
      return 'ECONNREFUSED, by the REJECT rule';
    },
  },
  {
    title: 'a closed UDP port is answered with port unreachable',
    async run({ knock, router }) {
      const before = await router.packets('REJECT --reject-with icmp-port-unreachable');
      const result = await knock.udpProbe({ host: ROUTER_OUTSIDE, port: CLOSED_UDP, timeoutMs: 3000 });
      expect('the answer', result.error ?? result.outcome, 'ECONNREFUSED');
      expect("the rule's count", (await router.packets('REJECT --reject-with icmp-port-unreachable')) - before, 1);
      return `ECONNREFUSED from udp/${CLOSED_UDP}, by the REJECT rule`;
    },
  },
  {
    title: "what FORWARD doesn't permit gets nothing",
    async run({ orlock, knock, router }) {
      const before = await router.packets('-P FORWARD DROP');
      const result = await knock.connect({ host: ORLOCK, port: 80, timeoutMs: NO_ANSWER_MS });
      expect('the answer', said(result), 'timeout');
      expect('the number of callers', (await orlock.accepted(80)).length, 0);
      const dropped = (await router.packets('-P FORWARD DROP')) - before;
      if (dropped < 1) throw new Error('the policy of FORWARD has counted nothing');
      return `no answer in ${NO_ANSWER_MS} ms; FORWARD's policy dropped ${dropped}`;
    },
  },
  {
    title: 'SMTP leaves with the TOS of the mangle table',
    async run({ orlock, knock }) {
      const tos = await countTos(knock.ns);
      const result = await orlock.connect({ host: KNOCK, port: SMTP, read: true, timeoutMs: 3000 });
      expect('the connection', said(result), 'connected');
      expect('the greeting', result.data, MAIL);
      const { cheap, other } = await tos();
      if (cheap < 2 || other > 0) throw new Error(`knock got ${cheap} packets at Minimize-Cost, ${other} others`);
      return `knock got ${cheap} packets, all at Minimize-Cost`;
    },
  },
  {
    title: 'ping crosses',
    async run({ orlock }) {
      const ping = await orlock.ns.run('ping', ['-n', '-c', '1', '-W', '3', KNOCK]);
      const answer = ping.stdout.split('\n').find((line) => line.includes(' bytes from '));
      if (ping.code !== 0 || !answer) throw new Error((ping.stderr || ping.stdout).trim() || 'no answer');
      return answer;
    },
  },
  {
    title: 'UDP crosses and its answer comes back',
    async run({ orlock, knock }) {
      const result = await orlock.udpProbe({ host: KNOCK, port: ECHO_PORT, data: 'echo', timeoutMs: 3000 });
      expect('the answer', result.data ?? result.error ?? result.outcome, 'echo');
      const sender = (await knock.udpReceived(ECHO_PORT)).at(-1);
      expect('the sender', sender?.address, ROUTER_OUTSIDE);
      return `"echo"; knock saw ${sender!.address}:${sender!.port}`;
    },
  },
];

/** Has knock's own kernel count mail packets by their TOS; the returned function reads the counts and stops. */
async function countTos(ns: Namespace): Promise<() => Promise<{ cheap: number; other: number }>> {
  const [tool] = findIptables() as [Iptables | undefined];
  if (!tool) throw new Error('no iptables found to count TOS with: install the package iptables');
  const rules = ['-m tos --tos Minimize-Cost', '-m tos ! --tos Minimize-Cost'].map(
    (match) => `-A PREROUTING -p tcp --dport ${SMTP} ${match}\n`,
  );
  await restore(ns, tool, `*mangle\n${rules.join('')}COMMIT\n`);
  return async () => {
    const saved = await ns.run(tool.save, ['-c', '-t', 'mangle']);
    await restore(ns, tool, '*mangle\nCOMMIT\n');
    const [cheap = 0, other = 0] = [...saved.stdout.matchAll(/^\[(\d+):/gm)].map((match) => Number(match[1]));
    return { cheap, other };
  };
}

async function restore(ns: Namespace, tool: Iptables, input: string): Promise<void> {
  const result = await ns.run(tool.restore, [], { input });
  if (result.code !== 0) throw new Error(`${tool.restore}: ${result.stderr.trim()}`);
}
