/**
 * TEE: a copy of packets for another host, who is no router of theirs. What the copying rule's hook, a host's link and rules behind
 * see of it is the same with the kernel's netfilter and with hutter.
 */
import t from 'tap';
import { echoPacket, udpPacket } from './frame.js';
import { agree, Capture, describe, KNOCK, ORLOCK, ROUTER_INSIDE, topology, until } from './netns.js';

const MIRROR = '192.168.73.9';

agree(t, 'copies of what goes by, in each hook', async (t, engine) => {
  const { fw, orlock } = await topology(t, engine);
  // The mirror is on the inner link. What isn't a copy may be cut.
  orlock.ns.ip(`address add ${MIRROR}/32 dev eth0`);
  await fw.ok('iptables-restore --noflush', {
    input: [
      '*mangle',
      `-A PREROUTING -p udp --dport 1 -j TEE --gateway ${MIRROR}`,
      `-A FORWARD -p udp --dport 2 -j TEE --gateway ${MIRROR} --oif if0`,
      `-A POSTROUTING -p udp --dport 3 ! -d ${ORLOCK} -j TEE --gateway ${MIRROR}`,
      `-A INPUT -p icmp -j TEE --gateway ${MIRROR}`,
      '-A OUTPUT -p udp -m conntrack --ctstate UNTRACKED',
      '-A POSTROUTING -p udp -o if0 --dport 4 -j TOS --set-tos 0x10',
      `-A PREROUTING -p udp --dport 4 -j TEE --gateway ${MIRROR}`,
      'COMMIT\n',
    ].join('\n'),
  });
  const capture = await Capture.start(orlock, 'eth0', 'udp or icmp');
  for (const dport of [1, 2, 3, 4]) {
    const packet = udpPacket({ src: ORLOCK, dst: KNOCK, id: 7, sport: 1000, dport });
    await orlock.sendRaw({ packet, to: ROUTER_INSIDE });
  }
  await orlock.sendRaw({ packet: echoPacket({ src: ORLOCK, dst: ROUTER_INSIDE, id: 9 }), to: ROUTER_INSIDE });
  const copies = await until('copies', async () => {
    const seen = (await capture.packets()).filter(({ df }) => df);
    return seen.length >= 5 ? seen : undefined;
  });
  const counted = (await fw.counters()).filter(({ rule }) => rule.includes('UNTRACKED') || rule.includes('TOS'));
  return [
    copies.map((ip) => `${describe(ip)} ttl ${ip.ttl} tos ${ip.tos} ${ip.checksumOk ? '' : 'wrong'}`).sort(),
    counted.map(({ rule, packets, bytes }) => `${packets} ${bytes} ${rule}`),
  ];
});
