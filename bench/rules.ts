/**
 * Rules: 0 to 10,000 rules of the filter table of which the packets match the last; hutter beside iptables-legacy and
 * iptables-nft with the very same file.
 */
import { hutter, kernel } from './contenders.js';
import { hold, type Result } from './contest.js';
import type { Options } from './main.js';
import { SENDER } from './net.js';
import { check, load, STREAM_COLUMNS } from './stream.js';

const COUNTS = [0, 100, 1000, 10_000];

/** `count` rules of FORWARD about other networks, each a drop; then the one that lets the packets pass. */
export function rulesMatchedLast(count: number): string {
  const others = Array.from({ length: Math.max(0, count - 1) }, (_, i) => {
    const network = `10.${(i >> 8) & 255}.${i & 255}.0/24`;
    return `-A FORWARD -s ${network} -p udp -m udp --dport ${1024 + (i % 5000)} -j DROP`;
  });
  const last = count === 0 ? [] : [`-A FORWARD -s ${SENDER}/32 -p udp -m udp --dport 7000 -j ACCEPT`];
  const policy = count === 0 ? 'ACCEPT' : 'DROP';
  const chains = [':INPUT ACCEPT [0:0]', `:FORWARD ${policy} [0:0]`, ':OUTPUT ACCEPT [0:0]'];
  return ['*filter', ...chains, ...others, ...last, 'COMMIT', ''].join('\n');
}

export function run(options: Options): Promise<Result> {
  const contenders = COUNTS.flatMap((count) => {
    const rules = rulesMatchedLast(count);
    return [
      hutter(`hutter, ${count} rules`, rules),
      kernel(`legacy, ${count} rules`, rules),
      kernel(`nft, ${count} rules`, rules, SENDER, 'nft'),
    ];
  });
  return hold(
    {
      title: 'filter rules of which the packets match the last; one flow of UDP',
      contenders,
      columns: STREAM_COLUMNS,
      ratios: [
        { left: 'hutter, 1000 rules', right: 'legacy, 1000 rules', figure: 'pps', atLeast: 1.2 },
        { left: 'hutter, 10000 rules', right: 'legacy, 10000 rules', figure: 'pps', atLeast: 5 },
        { left: 'hutter, 10000 rules', right: 'nft, 10000 rules', figure: 'pps', atLeast: 20 },
        { left: 'hutter, 10000 rules', right: 'hutter, 0 rules', figure: 'pps', atLeast: 0.8 },
      ],
      async measure(net, contender, router) {
        await check(net, contender);
        return load(net, contender, router, options, { hosts: 1, ports: 1 });
      },
    },
    options,
  );
}
