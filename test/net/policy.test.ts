/**
 * `-m policy` where nothing is protected by IPsec: what rules count of packets in, through and out, with the kernel's netfilter and with
 * hutter, and that the diversion asks the kernel.
 */
import t from 'tap';
import { agree, KNOCK, ON_LINKS, ROUTER_OUTSIDE, topology } from './netns.js';

const PLACES = [
  ...['PREROUTING', 'INPUT', 'FORWARD'].map((chain) => [chain, 'in'] as const),
  ...['FORWARD', 'OUTPUT', 'POSTROUTING'].map((chain) => [chain, 'out'] as const),
];
const RULES = PLACES.flatMap(([chain, way]) =>
  ['none', 'ipsec'].map((kind) => `-A ${chain} -p icmp -m policy --dir ${way} --pol ${kind}`),
);

agree(
  t,
  'packets without IPsec',
  async (t, engine) => {
    const { fw, orlock, knock, router } = await topology(t, engine);
    await fw.ok('iptables-restore --noflush', { input: ['*mangle', ...RULES, 'COMMIT\n'].join('\n') });
    for (const [from, to] of [
      [orlock, KNOCK],
      [knock, ROUTER_OUTSIDE],
      [router, KNOCK],
    ] as const)
      t.equal((await from.ns.run('ping', ['-n', '-c', '2', '-i', '0.2', '-W', '5', to])).code, 0);
    if (engine === 'hutter') {
      const { stdout } = await router.ns.run('sh', ['-c', 'iptables-nft-save; iptables-legacy-save']);
      const asked = stdout.split('\n').filter((line) => line.includes('-m policy'));
      t.same(asked.map((line) => / (HUTTER-\S+ ).*(--dir \S+) --pol ipsec /.exec(line)?.slice(1).join('')).sort(), [
        'HUTTER-OUT --dir out',
        'HUTTER-POST --dir out',
        'HUTTER-PRE --dir in',
      ]);
    }
    const counted = (await fw.counters()).filter(({ rule }) => rule.includes('policy'));
    t.ok(counted.every(({ rule, packets }) => packets > 0 === rule.includes('none')));
    return counted.map(({ rule, packets, bytes }) => `${packets} ${bytes} ${rule}`);
  },
  ON_LINKS,
);
