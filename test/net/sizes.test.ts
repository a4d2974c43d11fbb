/**
 * Packets of every size over a path with a link of 1,280 bytes: echo requests with and without "don't fragment", path MTU discovery by
 * TCP (with segmentation offload) and UDP, through MASQUERADE; hutter on TUN beside the kernel's own forwarding.
 *
 * `npm run test:sizes` takes all 65,508 sizes.
 *
 *     orlock ---- 1500 ---- [ router ] ---- 1280 ---- knock
 */
import path from 'node:path';
import t from 'tap';
import { agree, KNOCK, topology, until } from './netns.js';

const SCRIPT = path.join(import.meta.dirname, '../../../test/net/path_mtu.py');
const STEP = Number(process.env['HUTTER_SIZES_STEP'] ?? 211);
const PORT = 4000;
const NARROW = 1280;
const RULES =
  '*nat\n-A POSTROUTING -o if1 -j MASQUERADE\nCOMMIT\n*filter\n-A FORWARD -m state --state INVALID -j DROP\nCOMMIT\n';

agree(
  t,
  'packets of every size, and path MTU discovery',
  async (t, engine) => {
    const { fw, orlock, knock } = await topology(t, engine, { mtu: { outside: NARROW } });
    await fw.load(RULES);
    // As if the narrow link were farther away: knock promises to take long segments.
    knock.ns.ip(`route change 128.61.70.0/24 dev eth0 src ${KNOCK} advmss 1460`);
    const run = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await orlock.ns.run('python3', [SCRIPT, ...args], { timeoutMs: 280_000 });
      if (code !== 0) throw new Error(`path_mtu.py ${args.join(' ')}: ${stderr}`);
      return stdout;
    };
    const server = knock.ns.spawn('python3', [SCRIPT, 'serve', String(PORT)], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => server.kill());
    let said = '';
    server.stdout?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    await until('the server is there', () => said.includes('ready'));
    const seen = {
      tcp: await run('tcp', KNOCK, String(PORT), '4000000'),
      udp: await run('udp', KNOCK, String(PORT), '1400'),
      dont: await run('ping', KNOCK, 'dont', String(STEP)),
      do: await run('ping', KNOCK, 'do', String(STEP)),
    };
    t.same(seen, {
      tcp: `4000000 bytes arrived, MTU ${NARROW}\n`,
      // The kernel knows the path's MTU from TCP's segments.
      udp: `too long: 90, MTU ${NARROW}\narrived of ${NARROW - 28} bytes\n`,
      dont: '0 to 65507: answered\n',
      do: `0 to 1252: answered\n1253 to 1472: ICMP 3/4, MTU ${NARROW}\n1473 to 65507: errno 90\n`,
    });
    return seen;
  },
  ['kernel', 'hutter-tun'],
);
