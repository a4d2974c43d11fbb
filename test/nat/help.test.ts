import t from 'tap';
import { Status } from '../../src/dataplane/conntrack/states.js';
import { CtState, Proto, TcpFlag, Verdict } from '../../src/dataplane/names.js';
import { u16, u32 } from '../../src/dataplane/wire/bytes.js';
import { ip, packet, ROOM, text } from './packets.js';
import { ackOf, Connection, encode, ends, KNOCK, ORLOCK, payload, Router, seqOf, WAN } from './router.js';

/** Shorter than orlock's as text: packets shrink. */
const SHORT = ip('1.2.3.4');

const ftpSession = (r: Router, seen: number, client = ORLOCK, port = 40000): Connection => {
  const c = new Connection(r, client, port, KNOCK, 21, seen);
  c.fromServer('220 welcome\r\n');
  c.fromClient('USER ftp\r\n');
  c.fromServer('331 so?\r\n');
  c.fromClient('PASS x\r\n');
  c.fromServer('230 in\r\n');
  return c;
};

t.test('ftp, active, without translation: the server’s connection is RELATED', (t) => {
  const r = new Router();
  const c = ftpSession(r, ORLOCK);
  const port = c.fromClient('PORT 192,168,73,4,156,65\r\n');
  t.equal(payload(port), 'PORT 192,168,73,4,156,65\r\n');
  t.same(r.expectations(), ['128.61.70.200 > 192.168.73.4:40001']);
  const syn = { protocol: Proto.TCP, src: KNOCK, dst: ORLOCK, sport: 20, dport: 40001, flags: TcpFlag.SYN };
  const data = r.send(syn);
  t.equal(data.ctState, CtState.RELATED);
  t.equal(r.table.master(data.ct), port.ct);
  t.same(r.expectations(), [], 'it is used up');
  const other = r.send({ ...syn, sport: 2020 });
  t.equal(other.ctState, CtState.NEW, 'a second one is not expected');
  t.end();
});

t.test('ftp, active, masqueraded: the announcement is rewritten, and all that follows renumbered', (t) => {
  for (const [address, written, growth] of [
    [WAN, 'PORT 128,61,70,47,156,65\r\n', 0],
    [SHORT, 'PORT 1,2,3,4,156,65\r\n', -5],
    [ip('220.220.220.220'), 'PORT 220,220,220,220,156,65\r\n', 3],
  ] as const) {
    const r = new Router({ snat: address });
    const c = ftpSession(r, address);
    const before = c.clientNext;
    const port = c.fromClient('PORT 192,168,73,4,156,65\r\n');
    t.equal(payload(port), written);
    t.equal(seqOf(port), before, 'nothing before it has moved');
    t.equal(port.start, ROOM - growth, 'the headers have');
    t.equal(u16(port.bytes, port.start + 2), port.end - port.start);
    t.same(r.expectations(), [`128.61.70.200 > ${text(address)}:40001`]);

    // The server acknowledges what it got; the client is told what it sent.
    const ok = c.fromServer('200 PORT\r\n');
    t.equal(ackOf(ok), c.clientNext);
    const list = c.fromClient('LIST\r\n');
    t.equal(seqOf(list), c.clientNext - 6 + growth);
    const answer = c.fromServer('150 here\r\n');
    t.equal(ackOf(answer), c.clientNext);
    t.equal(seqOf(answer), c.serverNext - 10, 'the server’s numbers stay');

    const syn = r.send({ protocol: Proto.TCP, src: KNOCK, dst: address, sport: 20, dport: 40001, flags: TcpFlag.SYN });
    t.equal(syn.ctState, CtState.RELATED);
    t.equal(ends(syn), '128.61.70.200:20 > 192.168.73.4:40001');
    const synack = r.send({
      protocol: Proto.TCP,
      src: ORLOCK,
      dst: KNOCK,
      sport: 40001,
      dport: 20,
      flags: TcpFlag.SYN | TcpFlag.ACK,
      ack: 1,
    });
    t.equal(ends(synack), `${text(address)}:40001 > 128.61.70.200:20`);

    // The next announcement in the same connection: numbers move once more.
    const again = c.fromClient('EPRT |1|192.168.73.4|40002|\r\n');
    t.equal(payload(again), `EPRT |1|${text(address)}|40002|\r\n`);
    t.equal(seqOf(again), c.clientNext - 29 + growth);
    t.same(r.expectations(), [`128.61.70.200 > ${text(address)}:40002`]);
    const end = c.fromClient('QUIT\r\n');
    const eprtGrowth = text(address).length - '192.168.73.4'.length;
    t.equal(seqOf(end), c.clientNext - 6 + growth + eprtGrowth);
    t.equal(ackOf(c.fromServer('221 bye\r\n')), c.clientNext);
  }
  t.end();
});

t.test('ftp: a retransmitted announcement is rewritten alike and moves nothing further', (t) => {
  const r = new Router({ snat: SHORT });
  const c = ftpSession(r, SHORT);
  const command = c.clientPacket('PORT 192,168,73,4,156,65\r\n');
  c.fromClient('PORT 192,168,73,4,156,65\r\n');
  const again = r.send(command);
  t.equal(payload(again), 'PORT 1,2,3,4,156,65\r\n');
  t.equal(seqOf(again), command.seq);
  t.equal(seqOf(c.fromClient('LIST\r\n')), c.clientNext - 6 - 5);
  t.same(r.expectations(), ['128.61.70.200 > 1.2.3.4:40001']);
  t.end();
});

t.test('ftp: SACK blocks are renumbered with the acknowledgement', (t) => {
  for (const odd of [false, true]) {
    const r = new Router({ snat: SHORT });
    const c = ftpSession(r, SHORT);
    c.fromClient('PORT 192,168,73,4,156,65\r\n');
    c.fromClient('LIST\r\n');
    const seen = c.serverSaw;
    const options = new Uint8Array(12).fill(1);
    const at = odd ? 1 : 2;
    options.set([5, 10], at);
    new DataView(options.buffer).setInt32(at + 2, seen - 6);
    new DataView(options.buffer).setInt32(at + 6, seen);
    const p = r.send({ ...c.serverPacket(''), ack: seen - 6, options });
    const block = p.l4 + 20 + at + 2;
    t.equal(ackOf(p), c.clientNext - 6);
    t.equal(u32(p.bytes, block), c.clientNext - 6);
    t.equal(u32(p.bytes, block + 4), c.clientNext, odd ? 'at an odd place, too' : '');
  }
  t.end();
});

t.test('ftp: SYNs and data before any announcement are left alone', (t) => {
  const r = new Router({ snat: WAN });
  const c = ftpSession(r, WAN);
  t.equal(r.table.status(c.fromClient('SYST\r\n').ct) & Status.SEQ_ADJUST, 0);
  t.end();
});

t.test('ftp, passive: a server behind port forwarding', (t) => {
  const r = new Router({ dnat: ORLOCK });
  const c = new Connection(r, KNOCK, 40000, WAN, 21, KNOCK, ORLOCK);
  c.fromServer('220 welcome\r\n');
  c.fromClient('PASV\r\n');
  const before = c.serverNext;
  const passive = c.fromServer('227 Entering Passive Mode (192,168,73,4,195,80)\r\n');
  t.equal(payload(passive), '227 Entering Passive Mode (128,61,70,47,195,80)\r\n');
  t.equal(seqOf(passive), before);
  t.same(r.expectations(), ['128.61.70.200 > 128.61.70.47:50000']);
  const data = r.send({ protocol: Proto.TCP, src: KNOCK, dst: WAN, sport: 41000, dport: 50000, flags: TcpFlag.SYN });
  t.equal(data.ctState, CtState.RELATED);
  t.equal(ends(data), '128.61.70.200:41000 > 192.168.73.4:50000');

  c.fromClient('EPSV\r\n');
  const extended = c.fromServer('229 Extended (|||50001|)\r\n');
  t.equal(payload(extended), '229 Extended (|||50001|)\r\n');
  t.same(r.expectations(), ['128.61.70.200 > 128.61.70.47:50001']);
  t.end();
});

t.test('ftp: a port that another client has announced already is replaced by a free one', (t) => {
  const r = new Router({ snat: WAN });
  const a = ftpSession(r, WAN, ORLOCK, 40000);
  const b = ftpSession(r, WAN, ORLOCK + 1, 41000);
  a.fromClient('PORT 192,168,73,4,156,65\r\n');
  const second = payload(b.fromClient('PORT 192,168,73,5,156,65\r\n'));
  const numbers = /^PORT 128,61,70,47,(\d+),(\d+)\r\n$/.exec(second)!;
  const port = Number(numbers[1]) * 256 + Number(numbers[2]);
  t.ok(port > 40001, `announced as ${port}`);
  t.equal(r.expectations().length, 2);
  const syn = r.send({ protocol: Proto.TCP, src: KNOCK, dst: WAN, sport: 20, dport: port, flags: TcpFlag.SYN });
  t.equal(ends(syn), '128.61.70.200:20 > 192.168.73.5:40001', 'it leads to the port that the client meant');
  t.end();
});

t.test('ftp: what isn’t an announcement opens nothing', (t) => {
  const r = new Router({ snat: WAN });
  const c = ftpSession(r, WAN);
  t.equal(payload(c.fromClient('PORT 192,168,73,9,156,65\r\n')), 'PORT 192,168,73,9,156,65\r\n', 'another’s address');
  t.same(r.expectations(), []);
  c.fromClient('SITE ');
  t.equal(payload(c.fromClient('PORT 192,168,73,4,156,65\r\n')), 'PORT 192,168,73,4,156,65\r\n', 'inside a line');
  t.same(r.expectations(), []);
  const part = packet(c.clientPacket('PORT 192,168'));
  t.equal(r.forward(part), Verdict.DROP, 'in pieces: it is to come again as a whole');
  t.equal(r.helpers.dropped, 1);
  t.end();
});

t.test('ftp: the first line of all is not read, as nothing says that a line begins there', (t) => {
  const r = new Router({ snat: WAN });
  const c = new Connection(r, ORLOCK, 40000, KNOCK, 21, WAN);
  t.equal(payload(c.fromClient('PORT 192,168,73,4,156,65\r\n')), 'PORT 192,168,73,4,156,65\r\n');
  t.equal(payload(c.fromClient('PORT 192,168,73,4,156,65\r\n')), 'PORT 128,61,70,47,156,65\r\n');
  t.end();
});

t.test('tftp: the answer comes from a port of the server’s choice', (t) => {
  for (const snat of [undefined, WAN]) {
    const r = new Router(snat === undefined ? {} : { snat });
    const seen = snat ?? ORLOCK;
    const request = { protocol: Proto.UDP, src: ORLOCK, dst: KNOCK, sport: 3000, dport: 69 };
    r.send({ ...request, payload: encode('\0\x01file\0octet\0') });
    t.same(r.expectations(), [`128.61.70.200 > ${text(seen)}:3000`]);
    const data = r.send({
      protocol: Proto.UDP,
      src: KNOCK,
      dst: seen,
      sport: 50123,
      dport: 3000,
      payload: encode('\0\x03\0\x01data'),
    });
    t.equal(data.ctState, CtState.RELATED);
    t.equal(ends(data), '128.61.70.200:50123 > 192.168.73.4:3000');
    const back = r.send({
      protocol: Proto.UDP,
      src: ORLOCK,
      dst: KNOCK,
      sport: 3000,
      dport: 50123,
      payload: encode('\0\x04'),
    });
    t.equal(ends(back), `${text(seen)}:3000 > 128.61.70.200:50123`);
  }
  t.end();
});

t.test('irc: a DCC request, rewritten to the outside address', (t) => {
  const r = new Router({ snat: WAN });
  const c = new Connection(r, ORLOCK, 40000, KNOCK, 6667, WAN);
  const own = ORLOCK >>> 0;
  const outside = WAN >>> 0;
  const request = c.fromClient(`PRIVMSG bob :\x01DCC SEND file ${own} 5000\x01\r\n`);
  t.equal(payload(request), `PRIVMSG bob :\x01DCC SEND file ${outside} 5000\x01\r\n`);
  t.same(r.expectations(), ['any > 128.61.70.47:5000']);
  const bob = r.send({
    protocol: Proto.TCP,
    src: ip('9.9.9.9'),
    dst: WAN,
    sport: 1234,
    dport: 5000,
    flags: TcpFlag.SYN,
  });
  t.equal(bob.ctState, CtState.RELATED);
  // As odd as it looks: an expected connection gets the master's other end as its source (nf_nat_follow_master).
  t.equal(ends(bob), '128.61.70.200:1234 > 192.168.73.4:5000');
  t.end();
});
