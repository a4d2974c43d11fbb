import t from 'tap';
import * as ftp from '../../src/dataplane/conntrack/helpers/ftp.js';
import { Found, FtpKind, FtpMatch, FTP_WORDS } from '../../src/dataplane/conntrack/helpers/ftp.js';
import { Helper, HELPERS, PortHelpers, helperByName } from '../../src/dataplane/conntrack/helpers/helpers.js';
import * as irc from '../../src/dataplane/conntrack/helpers/irc.js';
import { isRequest } from '../../src/dataplane/conntrack/helpers/tftp.js';
import { Dir, Proto } from '../../src/dataplane/names.js';
import { ip, random, text as dotted } from './packets.js';

const encode = (s: string): Uint8Array => Uint8Array.from(s, (c) => c.charCodeAt(0));
const decode = (b: Uint8Array): string => String.fromCharCode(...b);

/** Payloads stand between other bytes: nothing may be read outside. */
function framed(s: string): [Uint8Array, number, number] {
  const b = encode(`9,9)\r\n${s}7,7,7,7|)\r\n`);
  return [b, 6, 6 + s.length];
}

t.test('ftp: what the kernel’s helper takes for an announcement', (t) => {
  const cases: [string, Dir, string, (string | undefined)?, number?, FtpKind?][] = [
    ['PORT 192,168,1,2,4,1\r\n', Dir.ORIGINAL, '192,168,1,2,4,1', '192.168.1.2', 1025, FtpKind.PORT],
    ['port 10,0,0,1,255,255\r\n', Dir.ORIGINAL, '10,0,0,1,255,255', '10.0.0.1', 65535, FtpKind.PORT],
    ['PORT  10,0,0,1,1,1\r\n', Dir.ORIGINAL, 'partial'],
    ['PORT 10,0,0,1,1,1\n', Dir.ORIGINAL, 'partial'],
    ['PORT 10,0,0,1,1\r\n', Dir.ORIGINAL, 'partial'],
    ['PORT 10,0,0,1,1,1', Dir.ORIGINAL, 'partial'],
    ['POR', Dir.ORIGINAL, 'partial'],
    ['PORT', Dir.ORIGINAL, 'partial'],
    ['PORT\r\n', Dir.ORIGINAL, 'partial'],
    ['PASS x\r\n', Dir.ORIGINAL, 'none'],
    ['USER ftp\r\n', Dir.ORIGINAL, 'none'],
    ['227 ok (1,2,3,4,5,6)\r\n', Dir.ORIGINAL, 'none'],
    ['PORT 1,2,3,4,5,6\r\n', Dir.REPLY, 'none'],
    ['EPRT |1|132.235.1.2|6275|\r\n', Dir.ORIGINAL, '|1|132.235.1.2|6275|', '132.235.1.2', 6275, FtpKind.EPRT],
    ['EPRT !1!10.0.0.1!80!\r\n', Dir.ORIGINAL, '!1!10.0.0.1!80!', '10.0.0.1', 80, FtpKind.EPRT],
    ['EPRT |2|1080::8:800:200C:417A|5282|\r\n', Dir.ORIGINAL, 'partial'],
    ['EPRT |1|10.0.0.1|0|\r\n', Dir.ORIGINAL, 'partial'],
    ['EPRT 313.0.0.1|80|\r\n', Dir.ORIGINAL, 'partial'],
    [
      '227 Entering Passive Mode (132,235,1,2,24,131)\r\n',
      Dir.REPLY,
      '132,235,1,2,24,131',
      '132.235.1.2',
      6275,
      FtpKind.PASV,
    ],
    ['227 =132,235,1,2,24,131\r\n', Dir.REPLY, '132,235,1,2,24,131', '132.235.1.2', 6275, FtpKind.PASV],
    ['227 no numbers\r\n', Dir.REPLY, 'partial'],
    ['227 1,2,3,4,5,6', Dir.REPLY, 'partial'],
    ['229 Extended (|||6446|)\r\n', Dir.REPLY, '|||6446|', undefined, 6446, FtpKind.EPSV],
    ['229 Extended |||6446|\r\n', Dir.REPLY, 'partial'],
    ['229 Extended (||6446|)\r\n', Dir.REPLY, 'partial'],
    ['220 welcome\r\n', Dir.REPLY, 'none'],
    ['22', Dir.REPLY, 'partial'],
  ];
  for (const [payload, dir, expected, address, port, kind] of cases) {
    const m = new FtpMatch();
    m.address = 77;
    const found = ftp.search(...framed(payload), dir, m);
    const name = JSON.stringify(payload);
    if (expected === 'none') t.equal(found, Found.NONE, name);
    else if (expected === 'partial') t.equal(found, Found.PARTIAL, name);
    else {
      t.equal(found, Found.MATCH, name);
      const [b] = framed(payload);
      t.equal(decode(b.slice(m.offset, m.offset + m.length)), expected, name);
      t.equal(m.port, port, name);
      t.equal(m.kind, kind, name);
      t.equal(m.address, address === undefined ? 77 : ip(address), name);
    }
  }
  t.end();
});

t.test('ftp: what it writes it reads', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  const out = new Uint8Array(32);
  for (let round = 0; round < 500; round++) {
    const kind = (next() % 4) as FtpKind;
    const address = next() | 0;
    const port = (next() % 65535) + 1;
    const length = ftp.write(out, kind, address, port);
    const before = ['PORT ', '227 Passive (', 'EPRT ', '229 Extended ('][kind]!;
    const after = kind === FtpKind.PORT || kind === FtpKind.EPRT ? '\r\n' : ')\r\n';
    const dir = after === '\r\n' ? Dir.ORIGINAL : Dir.REPLY;
    const m = new FtpMatch();
    m.address = address;
    const [b, start, end] = framed(before + decode(out.slice(0, length)) + after);
    if (ftp.search(b, start, end, dir, m) !== Found.MATCH) t.fail(`seed ${seed} round ${round}`);
    if (m.address !== address || m.port !== port || m.length !== length || m.kind !== kind)
      t.fail(`seed ${seed} round ${round}: ${dotted(m.address)}:${m.port}`);
  }
  t.pass(`seed ${seed}`);
  t.end();
});

t.test('ftp: where a line may begin', (t) => {
  const words = new Int32Array(2 + 2 * FTP_WORDS + 2);
  const there = 2;
  const back = there + FTP_WORDS;
  t.notOk(ftp.beginsLine(words, there, 0), 'nothing is known at first, not even 0');
  ftp.rememberLine(words, there, 100);
  ftp.rememberLine(words, there, 200);
  t.ok(ftp.beginsLine(words, there, 100));
  t.notOk(ftp.beginsLine(words, back, 100));
  ftp.rememberLine(words, there, 50);
  t.notOk(ftp.beginsLine(words, there, 50), 'older than both: forgotten');
  ftp.rememberLine(words, there, 300);
  t.notOk(ftp.beginsLine(words, there, 100));
  t.ok(ftp.beginsLine(words, there, 200));
  ftp.rememberLine(words, back, 0xffffff00 | 0);
  ftp.rememberLine(words, back, 10);
  ftp.rememberLine(words, back, 20);
  t.notOk(ftp.beginsLine(words, back, 0xffffff00 | 0), 'sequence numbers wrap');
  t.ok(ftp.beginsLine(words, back, 10));
  t.same([words[0], words[1], words[8], words[9]], [0, 0, 0, 0], 'its own words only');
  t.end();
});

t.test('irc: DCC requests', (t) => {
  const own = ip('192.168.73.4');
  const mapped = ip('128.61.70.47');
  const number = (address: string): string => String(ip(address) >>> 0);
  const m = new irc.IrcMatch();
  const search = (s: string): boolean => {
    const [b, start, end] = framed(s);
    return irc.search(b, start, end, own, mapped, m);
  };
  const request = `PRIVMSG knock :\x01DCC SEND file.txt ${number('192.168.73.4')} 5000\x01\n`;
  t.ok(search(request));
  const [b] = framed(request);
  t.equal(decode(b.slice(m.offset, m.offset + m.length)), `${number('192.168.73.4')} 5000`);
  t.same([m.address, m.port], [own, 5000]);
  t.ok(search(`\r\n privmsg knock :\x01DCC CHAT chat ${number('128.61.70.47')} 1\x01\r\n`), 'the mapped address too');
  t.ok(search(`PRIVMSG knock :\x01DCC TSEND f ${number('192.168.73.4')}    65535 9\x01\n`));
  t.notOk(search(`PRIVMSG knock :\x01DCC SEND file.txt ${number('192.168.73.5')} 5000\x01\n`), 'forged');
  t.notOk(search(`PRIVMSG knock :\x01DCC SEND file.txt ${number('192.168.73.4')} 0\x01\n`));
  t.notOk(
    search(`PRIVMSG knock :\x01DCC SEND file.txt ${number('192.168.73.4')} 5000\x01`),
    'no newline in the packet',
  );
  t.notOk(search(`PRIVMSG knock :see \x01DCC SEND file.txt ${number('192.168.73.4')} 5000\x01\n`));
  t.notOk(search(`NOTICE knock :\x01DCC SEND file.txt ${number('192.168.73.4')} 5000\x01\n`));
  t.notOk(search('PRIVMSG knock :hello there, this is long enough\n'));
  const out = new Uint8Array(20);
  t.equal(decode(out.slice(0, irc.write(out, mapped, 7))), `${number('128.61.70.47')} 7`);
  t.equal(decode(out.slice(0, irc.write(out, 0, 65535))), '0 65535');
  t.end();
});

t.test('tftp: requests', (t) => {
  t.ok(isRequest(Uint8Array.of(0, 1), 0, 2));
  t.ok(isRequest(Uint8Array.of(9, 0, 2, 0x61), 1, 4));
  t.notOk(isRequest(Uint8Array.of(0, 3, 0, 1), 0, 4));
  t.notOk(isRequest(Uint8Array.of(0, 1), 0, 1));
  t.end();
});

t.test('helpers by name and by port', (t) => {
  HELPERS.forEach((helper, index) => t.equal(helper.id, index));
  t.equal(helperByName('ftp', Proto.TCP), Helper.FTP);
  t.equal(helperByName('ftp', Proto.UDP), Helper.NONE);
  t.equal(helperByName('sip', Proto.UDP), Helper.NONE);
  const ports = new PortHelpers(['ftp', 'tftp', 'irc:6668', 'ftp:2121']);
  t.equal(ports.any, 1);
  t.equal(ports.find(Proto.TCP, 21), Helper.FTP);
  t.equal(ports.find(Proto.TCP, 2121), Helper.FTP);
  t.equal(ports.find(Proto.UDP, 69), Helper.TFTP);
  t.equal(ports.find(Proto.TCP, 69), Helper.NONE);
  t.equal(ports.find(Proto.TCP, 6667), Helper.NONE);
  t.equal(ports.find(Proto.TCP, 6668), Helper.IRC);
  t.equal(ports.find(Proto.SCTP, 21), Helper.NONE);
  t.equal(new PortHelpers([]).any, 0);
  t.throws(() => new PortHelpers(['gopher']), /gopher.*ftp, tftp, irc/);
  for (const entry of ['ftp:0', 'ftp:65536', 'ftp:x', 'ftp:']) t.throws(() => new PortHelpers([entry]), /no such port/);
  t.end();
});
