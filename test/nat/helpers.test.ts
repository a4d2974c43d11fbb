import t from 'tap';
import * as ftp from '../../src/dataplane/conntrack/helpers/ftp.js';
import { Found, FtpKind, FtpMatch, FTP_WORDS } from '../../src/dataplane/conntrack/helpers/ftp.js';
import { Helper, HELPERS, PortHelpers, helperByName } from '../../src/dataplane/conntrack/helpers/helpers.js';
import * as amanda from '../../src/dataplane/conntrack/helpers/amanda.js';
import { decimal } from '../../src/dataplane/conntrack/helpers/text.js';
import * as irc from '../../src/dataplane/conntrack/helpers/irc.js';
import * as pptp from '../../src/dataplane/conntrack/helpers/pptp.js';
import * as sane from '../../src/dataplane/conntrack/helpers/sane.js';
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
  t.equal(helperByName('sip', Proto.UDP), Helper.SIP);
  t.equal(helperByName('sip', Proto.TCP), Helper.SIP_TCP);
  t.equal(helperByName('Q.931', Proto.UDP), Helper.NONE);
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
  for (const protocol of [Proto.UDP, Proto.TCP]) t.not(new PortHelpers(['sip']).find(protocol, 5060), Helper.NONE);
  t.throws(() => new PortHelpers(['RAS']), /'RAS': known are/, 'nobody reads it');
  t.throws(() => new PortHelpers(['gopher']), /gopher.*ftp, tftp, irc/);
  for (const entry of ['ftp:0', 'ftp:65536', 'ftp:x', 'ftp:']) t.throws(() => new PortHelpers([entry]), /no such port/);
  t.end();
});

t.test('amanda: the ports of a line', (t) => {
  const m = new amanda.AmandaMatch();
  const ports = (s: string): (string | number)[] =>
    [0, 1, 2].map((stream) => {
      const [b, start, end] = framed(s);
      if (!amanda.search(b, start, end, stream, m)) return 'none';
      const text = decode(b.slice(m.offset, m.offset + m.length));
      return text === String(m.port) ? m.port : text;
    });
  t.same(ports('Amanda 2.5 REP\nCONNECT DATA 10081 MESG 10082 INDEX 10083\nOPTIONS\n'), [10081, 10082, 10083]);
  t.same(ports('CONNECT INDEX 1 DATA 2\n'), [2, 'none', 1]);
  t.same(ports('CONNECT DATA 7 MESG 8'), ['none', 'none', 'none'], 'a line that does not end');
  t.same(ports('CONNECT DATA 7\nMESG 8\n'), [7, 'none', 'none'], 'of the first line');
  t.same(ports('CONNECT DATA x MESG 123456\n'), ['', 12345, 'none'], 'no more than five digits');
  const out = new Uint8Array(8);
  for (const port of [0, 9, 10, 65535]) t.equal(decode(out.slice(0, decimal(out, 0, port))), String(port));
  t.end();
});

t.test('sane: the answer to a start', (t) => {
  const bytes = (hex: string): [Uint8Array, number, number] => {
    const b = Buffer.from(`ff${hex}00000007`, 'hex');
    return [b, 1, b.length - 4];
  };
  t.equal(sane.isStart(...bytes('0000000700000001')), 1);
  t.equal(sane.isStart(...bytes('0000000500000001')), 0);
  t.equal(sane.isStart(...bytes('00000007')), -1, 'another length');
  t.equal(sane.portOf(...bytes('0000000000001e61')), 7777);
  t.equal(sane.portOf(...bytes('0000000000001e6101020304')), 7777);
  for (const refused of ['0000000100001e61', '0000000000011e61', '00000000000000'])
    t.equal(sane.portOf(...bytes(refused)), -1);
  t.end();
});

t.test('pptp: messages in their order', (t) => {
  const { Message, Outcome, Data } = pptp;
  const words = new Int32Array(8);
  const say = (client: boolean, message: pptp.Message, hex: string): pptp.Outcome =>
    (client ? pptp.fromClient : pptp.fromServer)(words, 0, message, Buffer.from(hex, 'hex'), 0);
  const rows: [boolean, pptp.Message, string, pptp.Outcome][] = [
    [true, Message.OUT_CALL_REQUEST, '1111', Outcome.INVALID],
    [false, Message.START_REPLY, '010001', Outcome.INVALID],
    [true, Message.START_REQUEST, '', Outcome.VALID],
    [true, Message.START_REQUEST, '', Outcome.INVALID],
    [false, Message.START_REPLY, '010001', Outcome.VALID],
    [false, Message.OUT_CALL_REPLY, '2222111101', Outcome.INVALID],
    [true, Message.OUT_CALL_REQUEST, '1111', Outcome.VALID],
    [false, Message.OUT_CALL_REPLY, '2222111201', Outcome.INVALID],
    [false, Message.OUT_CALL_REPLY, '2222111102', Outcome.VALID],
    [true, Message.OUT_CALL_REQUEST, '1111', Outcome.VALID],
    [false, Message.OUT_CALL_REPLY, '2222111101', Outcome.CALL],
    [true, Message.CALL_CLEAR, '1111', Outcome.VALID],
    [false, Message.CALL_DISCONNECT, '2222', Outcome.END],
    [false, Message.IN_CALL_CONNECT, '1111', Outcome.INVALID],
    [false, Message.IN_CALL_REQUEST, '3333', Outcome.VALID],
    [true, Message.IN_CALL_REPLY, '4444333401', Outcome.INVALID],
    [true, Message.IN_CALL_REPLY, '4444333301', Outcome.VALID],
    [false, Message.IN_CALL_CONNECT, '4444', Outcome.CALL],
    [false, Message.WAN_ERROR, '4444', Outcome.VALID],
    [true, Message.STOP_REQUEST, '', Outcome.VALID],
    [false, Message.STOP_REPLY, '01', Outcome.VALID],
    [false, Message.OUT_CALL_REQUEST, '1111', Outcome.INVALID],
    [true, Message.OUT_CALL_REPLY, '1111', Outcome.INVALID],
  ];
  for (const [client, message, hex, outcome] of rows)
    t.equal(say(client, message, hex), outcome, `${client ? 'client' : 'server'} ${message} ${hex}`);
  t.same([words[Data.CALLS], words[7]], [0x44443333, 0], 'the ids of the last call, and no word beyond');
  const header = '000000011a2b3c4d';
  const read = (hex: string): number => pptp.messageOf(Buffer.from(hex, 'hex'), 0, hex.length / 2);
  t.equal(read(`${header}00050000`), Message.ECHO_REQUEST);
  t.equal(read(`${header}000c000011110000`), Message.CALL_CLEAR);
  for (const wrong of [
    `${header}000c0000111100`,
    '000000021a2b3c4d00050000',
    '000000011a2b3c4e00050000',
    `${header}00100000`,
  ])
    t.equal(read(wrong), 0, wrong);
  t.end();
});
