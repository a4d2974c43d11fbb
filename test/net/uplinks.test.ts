/**
 * A router with two ways out, chosen by more than the destination: packets leave by the kernel's interface with the kernel's
 * source, whatever rules do to source, mark, TOS, TTL and class behind the routing decision. hutter makes them cross twice for
 * it. Each case runs on the kernel's netfilter, too, and what is seen must be the same.
 *
 *                                   +-- up1 203.0.113.1 ---- 203.0.113.2 eth0 --+
 *     orlock -- 192.168.73.1 if0 [router]                                     [world] 192.0.2.1 … .16
 *                                   +-- up2 198.51.100.1 -- 198.51.100.2 eth1 --+
 */
import t, { type Test } from 'tap';
import { type Host, startHost } from '../../src/control/lab/hosts.js';
import type { Status } from '../../src/control/status.js';
import { Engine, type EngineName } from './engine.js';
import { type Ip, icmpPacket, udpPacket } from './frame.js';
import { Capture, network, ON_LINKS, onEachEngine, ORLOCK, until } from './netns.js';

const WORLD = Array.from({ length: 16 }, (_, i) => `192.0.2.${i + 1}`);
const FAR = WORLD[0]!;
const UP1 = '203.0.113.1';
const UP2 = '198.51.100.1';
const VIA1 = '203.0.113.2';
const VIA2 = '198.51.100.2';
const MASQUERADE = '*nat\n-A POSTROUTING -o up+ -j MASQUERADE\nCOMMIT\n';

interface Site {
  fw: Engine;
  orlock: Host;
  router: Host;
  world: Host;
  up: [Capture, Capture];
}

/** hutter runs with two workers, which the two crossings of a packet may divide between them. */
async function site(t: Test, engine: EngineName): Promise<Site> {
  const net = network(t);
  const at = { orlock: net.namespace('orlock'), router: net.namespace('router'), world: net.namespace('world') };
  net.link(
    { at: at.router, dev: 'if0', addresses: ['192.168.73.1/24'] },
    { at: at.orlock, dev: 'eth0', addresses: [`${ORLOCK}/24`] },
  );
  net.link(
    { at: at.router, dev: 'up1', addresses: [`${UP1}/24`] },
    { at: at.world, dev: 'eth0', addresses: ['203.0.113.2/24'] },
  );
  net.link(
    { at: at.router, dev: 'up2', addresses: [`${UP2}/24`] },
    { at: at.world, dev: 'eth1', addresses: ['198.51.100.2/24'] },
  );
  at.orlock.ip('route add default via 192.168.73.1');
  at.world.ip(...WORLD.map((address) => `address add ${address}/32 dev lo`), `route add 192.168.73.0/24 via ${UP1}`);
  at.router.ip(`route add default via ${VIA1}`, `route add default via ${VIA2} table 100`);
  const [orlock, router, world, fw] = await Promise.all([
    startHost(at.orlock),
    startHost(at.router),
    startHost(at.world),
    Engine.start(engine, net, at.router, { args: ['--workers', '2'] }),
  ]);
  const up = await Promise.all([
    Capture.start(world, 'eth0', 'udp or icmp'),
    Capture.start(world, 'eth1', 'udp or icmp'),
  ]);
  await world.listen({ port: 80, greet: 'hello' });
  return { fw, orlock, router, world, up };
}

type Way = Pick<Ip, 'src' | 'ttl' | 'tos' | 'checksumOk'> & { by: string };

/** By which interface a datagram came, and how it looked. */
async function way(up: [Capture, Capture], what: string, wanted: (ip: Ip) => boolean): Promise<Way> {
  return until(what, async () => {
    for (const [i, capture] of up.entries()) {
      const ip = (await capture.packets()).find(wanted);
      if (ip) {
        const { src, ttl, tos, checksumOk } = ip;
        return { by: `up${i + 1}`, src, ttl, tos, checksumOk };
      }
    }
    return undefined;
  });
}

let lastId = 0x100;
type Fields = Partial<Parameters<typeof udpPacket>[0]>;
/** A source port that no flow has had. */
const fresh = (): number => 20_000 + ++lastId;

/** orlock sends a datagram; the way it took. */
async function sent({ orlock, up }: Site, fields: Fields = {}): Promise<Way> {
  const id = ++lastId;
  const dst = fields.dst ?? FAR;
  await orlock.sendRaw({ packet: udpPacket({ src: ORLOCK, dst, sport: fresh(), dport: 53, id, ...fields }), to: dst });
  return way(up, `datagram ${id} to ${dst}`, (ip) => ip.id === id);
}

/** Whether `from` can talk to the world, and what source the world saw. */
async function talk(
  { world }: Site,
  from: Host,
  options: { host?: string; port?: number; localAddress?: string } = {},
) {
  const before = (await world.accepted(80)).length;
  const { outcome, data } = await from.connect({ host: FAR, port: 80, read: true, timeoutMs: 3000, ...options });
  return { outcome, data, src: (await world.accepted(80))[before]?.address };
}

const GOOD = { outcome: 'connected', data: 'hello' };

/** Counters that no timing changes: those of datagrams. */
const counted = async ({ fw }: Site): Promise<string[]> =>
  (await fw.counters())
    .filter(({ rule }) => rule.includes('-p udp'))
    .map(({ table, rule, packets, bytes }) => `${table} ${rule} ${packets}:${bytes}`)
    .sort();

interface Case {
  /** For ip(8) on the router, and how to undo it. */
  routing: string;
  undo: string;
  /** What hutter's status says of that. */
  by: string[];
  rules: string;
  run(t: Test, net: Site): Promise<unknown>;
}

const CASES: Record<string, Case> = {
  // The first, as packets come with their headers only until one must come a second time.
  'a mark set late, by rules that need no payload': {
    routing: 'rule add fwmark 1 table 100',
    undo: 'rule del fwmark 1 table 100',
    by: ['mark'],
    rules: `*mangle
-A PREROUTING -p udp --dport 53 -j MARK --set-mark 1
-A FORWARD -p udp --dport 54 -j MARK --set-mark 1
COMMIT
`,
    async run(t, net) {
      const ways = [];
      for (const dport of [53, 54]) ways.push(await sent(net, { dport, data: Buffer.alloc(1000, dport) }));
      t.match(ways, [
        { by: 'up2', src: ORLOCK, checksumOk: true },
        { by: 'up1', src: ORLOCK, checksumOk: true },
      ]);
      return ways;
    },
  },

  'by source': {
    routing: 'rule add from 192.168.73.0/24 table 100',
    undo: 'rule del from 192.168.73.0/24 table 100',
    by: ['source'],
    rules: `*filter
-A FORWARD -p udp -i if0 -o up2 -m state --state NEW
-A FORWARD -p udp -o up1
COMMIT
*mangle
-A PREROUTING -p udp
-A FORWARD -p udp
-A POSTROUTING -p udp -o up2 -m ttl --ttl-eq 63
COMMIT
*nat
-A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination ${FAR}:80
-A POSTROUTING -p udp -o up2
-A POSTROUTING -o up+ -j MASQUERADE
COMMIT
`,
    async run(t, net) {
      const ways: Way[] = [];
      // Several of one flow at once: the next may come before the first is back.
      const ids = [++lastId, ++lastId, ++lastId];
      const sport = fresh();
      const burst = ids.map((id) => udpPacket({ src: ORLOCK, dst: FAR, sport, dport: 53, id }));
      await Promise.all(burst.map((packet) => net.orlock.sendRaw({ packet, to: FAR })));
      for (const id of ids) ways.push(await way(net.up, `datagram ${id}`, (ip) => ip.id === id));
      ways.push(await sent(net), await sent(net, { ttl: 2 }), await sent(net, { sport }));
      for (const { by, src, checksumOk } of ways) t.same([by, src, checksumOk], ['up2', UP2, true]);
      const talks = [
        await talk(net, net.orlock),
        await talk(net, net.orlock, { port: 8080, host: WORLD[5]! }),
        await talk(net, net.router),
      ];
      t.match(
        talks,
        [UP2, UP2, UP1].map((src) => ({ ...GOOD, src })),
      );
      return { ways, talks };
    },
  },

  'by a mark of PREROUTING or OUTPUT, not of FORWARD, POSTROUTING or behind mangle OUTPUT': {
    routing: 'rule add fwmark 1 table 100',
    undo: 'rule del fwmark 1 table 100',
    by: ['mark'],
    rules: `*mangle
-A PREROUTING -i if0 -p udp --dport 53 -j MARK --set-mark 1
-A PREROUTING -i if0 -p tcp -d ${FAR} -j MARK --set-mark 1
-A FORWARD -p udp --dport 54 -j MARK --set-mark 1
-A POSTROUTING -p udp --dport 55 -j MARK --set-mark 1
-A POSTROUTING -p udp -m mark --mark 1
-A OUTPUT -p tcp -d ${FAR} -j MARK --set-mark 1
COMMIT
*filter
-A OUTPUT -p tcp -d ${WORLD[1]} -j MARK --set-mark 1
COMMIT
${MASQUERADE}`,
    async run(t, net) {
      const ways: Record<string, Way[]> = {};
      for (const dport of [53, 54, 55]) {
        const sport = fresh();
        ways[dport] = [await sent(net, { sport, dport }), await sent(net, { sport, dport })];
        for (const { by, src } of ways[dport]) t.same([by, src], dport === 53 ? ['up2', UP2] : ['up1', UP1]);
      }
      const talks = [
        await talk(net, net.orlock),
        await talk(net, net.orlock, { host: WORLD[1]! }),
        await talk(net, net.router),
        await talk(net, net.router, { host: WORLD[1]! }),
      ];
      t.same(
        talks,
        [UP2, UP1, UP2, UP1].map((src) => ({ ...GOOD, src })),
      );
      return { ways, talks };
    },
  },

  "by TOS, the sender's or PREROUTING's, not of FORWARD or POSTROUTING": {
    routing: 'rule add tos 0x10 table 100',
    undo: 'rule del tos 0x10 table 100',
    by: ['tos'],
    rules: `*mangle
-A PREROUTING -p udp --dport 53 -j TOS --set-tos 0x10
-A FORWARD -p udp --dport 54 -j TOS --set-tos 0x10
-A POSTROUTING -p udp --dport 55 -j TOS --set-tos 0x10
-A POSTROUTING -p udp --dport 56 -j TOS --set-tos 0x00
COMMIT
${MASQUERADE}`,
    async run(t, net) {
      const ways = [
        await sent(net, { dport: 53 }),
        await sent(net, { dport: 54 }),
        await sent(net, { dport: 55 }),
        await sent(net, { dport: 56, tos: 0x10 }),
        await sent(net, { dport: 57, tos: 0x10 }),
      ];
      t.match(ways, [
        { by: 'up2', src: UP2, tos: 0x10 },
        { by: 'up1', src: UP1, tos: 0x10 },
        { by: 'up1', src: UP1, tos: 0x10 },
        { by: 'up2', src: UP2, tos: 0 },
        { by: 'up2', src: UP2, tos: 0x10 },
      ]);
      return ways;
    },
  },

  'by the hash of several next hops': {
    routing: `route replace default nexthop via ${VIA1} nexthop via ${VIA2}`,
    undo: `route replace default via ${VIA1}`,
    by: ['source', 'transport', 'hash'],
    rules: `*filter
-A FORWARD -p udp -o up1
-A FORWARD -p udp -o up2
COMMIT
${MASQUERADE}`,
    async run(t, net) {
      const ways: Way[] = [];
      for (const dst of WORLD) {
        const sport = fresh();
        ways.push(await sent(net, { dst, sport }), await sent(net, { dst, sport }));
      }
      for (const { by, src } of ways) t.equal(src, by === 'up1' ? UP1 : UP2);
      t.ok(['up1', 'up2'].every((by) => ways.some((way) => way.by === by)));
      const talks = [];
      for (const host of WORLD.slice(0, 6)) talks.push(await talk(net, net.orlock, { host }));
      t.match(
        talks,
        talks.map(() => GOOD),
      );
      // The kernel's hash is over what an error quotes.
      const errors: Way[] = [];
      for (const dst of WORLD) {
        const id = ++lastId;
        const about = udpPacket({ src: dst, dst: ORLOCK, sport: 7, dport: 7 });
        const packet = icmpPacket({ src: ORLOCK, dst, id }, 3, 3, Buffer.concat([Buffer.alloc(4), about]));
        await net.orlock.sendRaw({ packet, to: dst });
        errors.push(await way(net.up, `error ${id}`, (ip) => ip.id === id));
      }
      return { ways, talks, errors };
    },
  },

  "the router's own, from an address that SNAT changes": {
    routing: `rule add from ${UP2} table 100`,
    undo: `rule del from ${UP2} table 100`,
    by: ['source'],
    rules: `*nat
-A POSTROUTING -o up2 -d ${WORLD[1]} -j SNAT --to-source ${UP1}
-A POSTROUTING -o up1 -d ${WORLD[2]} -j SNAT --to-source ${UP2}
COMMIT
`,
    async run(t, net) {
      const syns = await Promise.all([
        Capture.start(net.world, 'eth0', 'tcp dst port 80'),
        Capture.start(net.world, 'eth1', 'tcp dst port 80'),
      ]);
      const talks = [
        await talk(net, net.router, { localAddress: UP2 }),
        await talk(net, net.router, { localAddress: UP2, host: WORLD[1]! }),
        await talk(net, net.router, { localAddress: UP1, host: WORLD[2]! }),
      ];
      t.same(
        talks,
        [UP2, UP1, UP2].map((src) => ({ ...GOOD, src })),
      );
      const ways = [];
      for (const dst of WORLD.slice(0, 3)) {
        const { by, src } = await way(syns, `SYN to ${dst}`, (ip) => ip.dst === dst && ip.tcp?.flags === 'SYN');
        ways.push([by, src]);
      }
      t.same(ways, [
        ['up2', UP2],
        ['up2', UP1],
        ['up1', UP2],
      ]);
      return { talks, ways };
    },
  },

  'a TTL set behind the routing decision': {
    routing: 'rule show',
    undo: 'rule show',
    by: [],
    rules: `*mangle
-A FORWARD -p udp --dport 1 -j TTL --ttl-set 0
-A FORWARD -p udp --dport 2 -j TTL --ttl-set 255
-A POSTROUTING -p udp --dport 3 -j TTL --ttl-set 255
-A POSTROUTING -p udp --dport 4 -j TTL --ttl-dec 200
-A POSTROUTING -p udp --dport 5 -j TTL --ttl-inc 200
-A POSTROUTING -p udp --dport 6 -j TTL --ttl-inc 1
-A FORWARD -p udp --dport 7 -j TTL --ttl-set 64
COMMIT
${MASQUERADE}`,
    async run(t, net) {
      const ways: Way[] = [];
      for (let dport = 1; dport <= 8; dport++) ways.push(await sent(net, { dport }));
      t.same(
        ways.map(({ ttl }) => ttl),
        [0, 255, 255, 0, 255, 64, 64, 63],
      );
      return ways;
    },
  },

  'CLASSIFY chooses the class of a queueing discipline': {
    routing: 'rule show',
    undo: 'rule show',
    by: [],
    rules: `*mangle
-A FORWARD -p udp --dport 1 -j CLASSIFY --set-class 1:1
-A POSTROUTING -p udp --dport 2 -j CLASSIFY --set-class 1:2
-A OUTPUT -p udp --dport 4 -j CLASSIFY --set-class 1:1
-A POSTROUTING -p udp --dport 5 -j CLASSIFY --set-class 1:2
COMMIT
${MASQUERADE}`,
    async run(t, net) {
      const { router } = net;
      const tc = async (args: string): Promise<string> => {
        const result = await router.ns.run('tc', args.split(' '));
        if (result.code !== 0) throw new Error(`tc ${args}: ${result.stderr}`);
        return result.stdout;
      };
      // What nobody classified goes into the third class.
      await tc('qdisc add dev up1 root handle 1: htb default 3');
      for (const minor of [1, 2, 3])
        await tc(`class add dev up1 parent 1: classid 1:${minor} htb rate 1gbit quantum 60000`);
      const classes = async (): Promise<number[]> => {
        const text = await tc('-s class show dev up1');
        return [1, 2, 3].map((minor) =>
          Number(new RegExp(`class htb 1:${minor} [^]*?Sent \\d+ bytes (\\d+) pkt`).exec(text)![1]),
        );
      };
      // ARP has no class: its entries stay for the second that this takes.
      await sent(net, { dport: 3 });
      const seen: number[][] = [];
      const across = async (send: () => Promise<unknown>): Promise<void> => {
        const before = await classes();
        await send();
        seen.push((await classes()).map((packets, i) => packets - before[i]!));
      };
      for (const dport of [1, 1, 2, 3]) await across(() => sent(net, { dport }));
      for (const dport of [4, 5])
        await across(async () => {
          const id = ++lastId;
          await router.sendRaw({ packet: udpPacket({ src: UP1, dst: FAR, sport: fresh(), dport, id }), to: FAR });
          await way(net.up, `own datagram ${id}`, (ip) => ip.id === id);
        });
      t.same(
        seen.map((packets) => packets.slice(0, 2)),
        [
          [1, 0],
          [1, 0],
          [0, 1],
          [0, 0],
          [1, 0],
          [0, 1],
        ],
      );
      return seen.map((packets) => packets.slice(0, 2));
    },
  },
};

const seen = new Map<string, Map<EngineName, unknown>>();

onEachEngine(
  t,
  async (t, engine) => {
    const net = await site(t, engine);
    for (const [title, { routing, undo, by, rules, run }] of Object.entries(CASES)) {
      await t.test(title, async (t) => {
        net.router.ns.ip(routing);
        if (engine === 'hutter')
          await until('hutter knows the routing', async () => {
            const { routing } = JSON.parse(await net.fw.command('status', ['--json'])) as Status;
            return routing.join() === by.join();
          });
        await net.fw.load(rules);
        const what = { what: await run(t, net), counts: await counted(net) };
        const engines = seen.get(title) ?? new Map<EngineName, unknown>();
        seen.set(title, engines.set(engine, what));
        if (engine !== 'kernel' && engines.has('kernel'))
          t.same(what, engines.get('kernel'), `${engine} did as the kernel does`);
        net.router.ns.ip(undo);
      });
    }
  },
  ON_LINKS,
);
