/**
 * NFLOG as a listener of its group gets it: tcpdump on `nflog:5` in the router's namespace writes down the messages, which must
 * be the kernel's, attribute by attribute, up to the time.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import t, { type Test } from 'tap';
import { ENGINES, type EngineName } from './engine.js';
import { udpPacket } from './frame.js';
import { KNOCK, ORLOCK, ROUTER_INSIDE, topology, until } from './netns.js';

const RULES = [
  'iptables -A FORWARD -p udp --dport 9 -j NFLOG --nflog-group 5 --nflog-prefix "to discard: "',
  'iptables -t mangle -A PREROUTING -p udp --dport 9 -j MARK --set-mark 0x17',
  'iptables -t mangle -A POSTROUTING -p udp --dport 9 -j NFLOG --nflog-group 5 --nflog-size 30 --nflog-threshold 1',
  'iptables -A INPUT -p udp --dport 9 -j NFLOG --nflog-group 5',
  'iptables -A INPUT -p udp --dport 9 -j NFLOG --nflog-group 6 --nflog-prefix nobody',
  'iptables -A INPUT -p udp --dport 9 -j DROP',
];
const MESSAGES = 3;

/** Attributes whose value no two runs share: the time. Of interfaces only whether they are there. */
const TIMESTAMP = '3';
const INTERFACES = ['4', '5'];
/** What a TUN hasn't: hardware addresses. */
const HARDWARE = ['8', '15', '16', '17'];

/** The messages of a capture file (link type NFLOG): attributes by number, in hex. */
function messages(file: string): Record<string, string>[] {
  if (!existsSync(file)) return [];
  const bytes = readFileSync(file);
  const found: Record<string, string>[] = [];
  for (let at = 24; at + 16 <= bytes.length;) {
    const length = bytes.readUInt32LE(at + 8);
    const packet = bytes.subarray(at + 16, at + 16 + length);
    if (packet.length < length) break;
    found.push(attributes(packet));
    at += 16 + length;
  }
  return found;
}

function attributes(message: Buffer): Record<string, string> {
  const found: Record<string, string> = { head: message.toString('hex', 0, 4) };
  for (let at = 4; at + 4 <= message.length;) {
    const length = message.readUInt16LE(at);
    const type = String(message.readUInt16LE(at + 2));
    const value = message.toString('hex', at + 4, at + length);
    found[type] = type === TIMESTAMP || INTERFACES.includes(type) ? 'there' : value;
    at += (length + 3) & ~3;
  }
  return found;
}

async function logged(t: Test, engine: EngineName): Promise<Record<string, string>[]> {
  const { network, fw, orlock, router } = await topology(t, engine);
  for (const rule of RULES) await fw.ok(rule);
  const file = path.join(network.dir, 'nflog.pcap');
  // Root keeps its rights, so that it may write here.
  const listener = router.ns.spawn('tcpdump', ['-i', 'nflog:5', '-U', '-Z', 'root', '-w', file], { stdio: 'ignore' });
  const listens = async (): Promise<boolean> =>
    /^ *5 /m.test((await router.ns.run('cat', ['/proc/net/netfilter/nfnetlink_log'])).stdout);
  await until('tcpdump listens', listens, { timeoutMs: 20_000 });
  for (const dst of [KNOCK, ROUTER_INSIDE]) {
    const packet = udpPacket({ src: ORLOCK, dst, sport: 1024, dport: 9, data: Buffer.from('what is thrown away') });
    await orlock.sendRaw({ packet, to: dst });
  }
  await until('the messages', () => messages(file).length >= MESSAGES, { timeoutMs: 10_000 });
  listener.kill('SIGTERM');
  return messages(file);
}

t.test('what a listener gets is what the kernel sends', async (t) => {
  const seen = new Map<EngineName, Record<string, string>[]>();
  for (const engine of ENGINES) {
    await t.test(engine, async (t) => {
      const found = await logged(t, engine);
      t.equal(found.length, MESSAGES, 'a message a packet and rule, none for the group without a listener');
      t.equal(Buffer.from(found[0]!['10']!, 'hex').toString(), 'to discard: \0');
      t.equal(found[1]!['9']!.length, 2 * 30, 'as much of the packet as the rule says');
      seen.set(engine, found);
    });
  }
  const judge = seen.get('kernel');
  if (judge === undefined) return;
  const mac = judge[0]!['16'];
  for (const [engine, found] of seen) {
    const without = (message: Record<string, string>): Record<string, string> =>
      Object.fromEntries(
        Object.entries(message).map(([type, value]) => [
          type,
          // Addresses are each run's own.
          HARDWARE.includes(type) && type !== '15' && type !== '17' ? String(value.length) : value,
        ]),
      );
    const expected = judge.map((message) =>
      engine === 'hutter-tun'
        ? Object.fromEntries(Object.entries(message).filter(([type]) => !HARDWARE.includes(type)))
        : message,
    );
    t.same(found.map(without), expected.map(without), engine);
  }
  t.match(mac, /0800$/);
});
