/**
 * The helpers amanda, sane and pptp at work between real sockets, with and without translation: what both ends say and hear, by which state
 * the further connections are known, and the call ids that GRE packets carry. The kernel's helpers see the same.
 */
import t, { type Test } from 'tap';
import { type EngineName } from './engine.js';
import { ipPacket } from './frame.js';
import { agree, Capture, KNOCK, ON_LINKS, ORLOCK, ROUTER_INSIDE, ROUTER_OUTSIDE, topology, until } from './netns.js';

const GRE = 47;
const SERVER_CALL = 0x2222;

/** The far end: a scanner, a machine to be backed up, a PPTP server; once each, then its word of what it heard. */
const SERVER = `
import socket, struct, sys
def listen(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", port)); s.listen(); return s
def control(message, body):
    return struct.pack("!HHIHH", 12 + len(body), 1, 0x1a2b3c4d, message, 0) + body
def whole(c, n):
    b = b""
    while len(b) < n: b += c.recv(n - len(b))
    return b
sane, data, calls, stream = listen(6566), listen(7777), listen(1723), listen(7001)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("", 10080))
print("ready", flush=True)
c, _ = sane.accept(); whole(c, 8); c.send(struct.pack("!IHH", 0, 0, 7777) + bytes(8))
d, _ = data.accept(); d.close()
_, who = udp.recvfrom(100); udp.sendto(b"CONNECT DATA 7001 MESG 7002 INDEX 7003\\n", who)
d, _ = stream.accept(); d.close()
c, _ = calls.accept(); whole(c, 156); c.send(control(2, struct.pack("!HBB", 256, 1, 0) + bytes(140)))
call, = struct.unpack("!H", whole(c, 168)[12:14])
c.send(control(8, struct.pack("!HHBBHIHHI", ${SERVER_CALL}, call, 1, 0, 0, 0, 0, 0, 0)))
print("call", call, flush=True)
sys.stdin.readline()
c.send(control(13, struct.pack("!HBBHH", call, 1, 0, 0, 0) + bytes(128)))
print("told", whole(c, 16)[12:14].hex(), flush=True)
`;
const CLIENT = `
import socket, struct, sys
to, port = sys.argv[1], int(sys.argv[2])
def connect(dport, sport=0):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", sport)); s.connect((to, dport)); return s
def control(message, body):
    return struct.pack("!HHIHH", 12 + len(body), 1, 0x1a2b3c4d, message, 0) + body
def whole(c, n):
    b = b""
    while len(b) < n: b += c.recv(n - len(b))
    return b
c = connect(6566, port); c.send(struct.pack("!II", 7, 1)); whole(c, 8); connect(7777).close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", port)); u.sendto(b"Amanda", (to, 10080))
print(u.recv(100).decode().strip()); connect(7001).close()
c = connect(1723, port); c.send(control(1, bytes(144))); whole(c, 156)
c.send(control(7, struct.pack("!H", 0x1111) + bytes(154))); b = whole(c, 32)
print("reply", b[12:16].hex(), flush=True)
sys.stdin.readline()
print("over", whole(c, 148)[12:14].hex()); c.send(control(12, struct.pack("!HH", 0x1111, 0)))
print("done", flush=True)
`;
const STATES = ['NEW', 'RELATED', 'ESTABLISHED'];

/** A GRE packet of a call (RFC 2637 §4.1). */
function gre(src: string, dst: string, call: number): Uint8Array {
  const segment = Buffer.from('3001880b000400000000000001020304', 'hex');
  segment.writeUInt16BE(call, 6);
  return ipPacket({ src, dst }, GRE, segment);
}

async function round(t: Test, engine: EngineName, translate: boolean): Promise<string[]> {
  const { fw, orlock, knock } = await topology(t, engine);
  const outside = translate ? ROUTER_OUTSIDE : ORLOCK;
  const counting = [
    ...STATES.map((state) => `-A FORWARD -p gre -m conntrack --ctstate ${state}`),
    ...[7777, 7001].flatMap((port) =>
      STATES.slice(0, 2).map((state) => `-A FORWARD -p tcp --dport ${port} --syn -m conntrack --ctstate ${state}`),
    ),
  ];
  await fw.ok('iptables-restore --noflush', {
    input: [
      '*raw',
      '-A PREROUTING -p tcp --dport 6566 -j CT --helper sane',
      '-A PREROUTING -p udp --dport 10080 -j CT --helper amanda',
      '-A PREROUTING -p tcp --dport 1723 -j CT --helper pptp',
      'COMMIT',
      '*nat',
      ...(translate ? ['-A POSTROUTING -o if1 -j MASQUERADE'] : []),
      'COMMIT',
      '*filter',
      ...counting,
      'COMMIT\n',
    ].join('\n'),
  });
  const talk = (at: typeof orlock, script: string, ...args: string[]): { said: () => string; tell: () => void } => {
    const child = at.ns.spawn('python3', ['-c', script, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    let said = '';
    child.stdout!.on('data', (chunk: Buffer) => (said += chunk.toString()));
    return { said: () => said, tell: () => void child.stdin!.write('\n') };
  };
  const server = talk(knock, SERVER);
  await until('the server', () => server.said().includes('ready'));
  const client = talk(orlock, CLIENT, KNOCK, '4660');
  await until('a call', () => server.said().includes('call') && client.said().includes('reply'));
  const call = Number(/call (\d+)/.exec(server.said())![1]);

  const [inner, outer] = await Promise.all([
    Capture.start(orlock, 'eth0', 'proto 47'),
    Capture.start(knock, 'eth0', 'proto 47'),
  ]);
  await orlock.sendRaw({ packet: gre(ORLOCK, KNOCK, SERVER_CALL), to: ROUTER_INSIDE });
  await outer.until('the first GRE packet', ({ dst }) => dst === KNOCK);
  await knock.sendRaw({ packet: gre(KNOCK, outside, call), to: ROUTER_OUTSIDE });
  const heard = await inner.until('its answer', ({ src }) => src === KNOCK);
  const gres = (await fw.counters()).filter(({ rule }) => rule.includes('ctstate'));
  server.tell();
  client.tell();
  await until('the end', () => client.said().includes('done') && server.said().includes('told'));
  // The call is over: what comes now belongs to none.
  await orlock.sendRaw({ packet: gre(ORLOCK, KNOCK, SERVER_CALL), to: ROUTER_INSIDE });
  await until(
    'a packet of no call',
    async () => (await outer.packets()).filter(({ dst }) => dst === KNOCK).length === 2,
  );
  const after = (await fw.counters()).filter(({ rule }) => rule.includes('gre'));
  return [
    server.said(),
    client.said(),
    `${heard.src} > ${heard.dst} ${Buffer.from(heard.bytes.subarray(26, 28)).toString('hex')}`,
    ...(await outer.packets()).map(({ src, dst, bytes }) => `${src} > ${dst} ${bytes[26]} ${bytes[27]}`),
    ...[...gres, ...after].map(({ rule, packets }) => `${packets} ${rule}`),
  ];
}

agree(t, 'routed', (t, engine) => round(t, engine, false), ON_LINKS);
agree(t, 'translated', (t, engine) => round(t, engine, true), ON_LINKS);
