/** The SIP helper: what it finds in messages, expects and rewrites; the kernel judges the same in test/kernel. */
import t from 'tap';
import { Expectation, ExpectFlag, nextExpectation } from '../../src/dataplane/conntrack/expect.js';
import { findLine, Line, mediumClass } from '../../src/dataplane/conntrack/helpers/sdp.js';
import * as sip from '../../src/dataplane/conntrack/helpers/sip.js';
import { Found, Header, Message, Method } from '../../src/dataplane/conntrack/helpers/sip.js';
import { Status } from '../../src/dataplane/conntrack/states.js';
import { CtState, Dir, Proto, TcpFlag } from '../../src/dataplane/names.js';
import type { Packet } from '../../src/dataplane/packet.js';
import { request, response, session } from '../kernel/sip.js';
import { ip, packet, text } from './packets.js';
import { Connection, encode, ends, KNOCK, ORLOCK, payload, Router, seqOf, WAN } from './router.js';

/** Messages stand between other bytes: nothing may be read outside. */
function framed(s: string): Message {
  const m = new Message();
  m.bytes = encode(`\r\nCSeq: 9\r\n${s}5060\r\nm: <sip:9.9.9.9:9999>\r\n`);
  m.start = '\r\nCSeq: 9\r\n'.length;
  m.end = m.start + s.length;
  return m;
}
const found = (m: Message): string =>
  String.fromCharCode(...m.bytes.subarray(m.start + m.offset, m.start + m.offset + m.length));
const end = (m: Message): string => `${text(m.address)}:${m.port}`;

t.test('headers: long and compact names, any case, folded, listed', (t) => {
  const cases: [string, Header, string | undefined][] = [
    ['X\r\nCSeq: 314 INVITE\r\n', Header.CSEQ, '314'],
    ['X\ncseq\t:\n 7\n', Header.CSEQ, '7'],
    ['X\r\nCSeq: INVITE\r\n', Header.CSEQ, 'unreadable'],
    ['CSeq: 1\r\n', Header.CSEQ, undefined],
    ['X\r\n CSeq: 1\r\n', Header.CSEQ, undefined],
    ['X\r\nCSeq 1\r\nCSeq: 2\r\n', Header.CSEQ, undefined],
    ['X\r\nl: 12\r\n', Header.CONTENT_LENGTH, '12'],
    ['X\r\nlength: 12\r\nCONTENT-LENGTH:13', Header.CONTENT_LENGTH, '13'],
    ['X\r\nContact: <sip:a@1.2.3.4>\r\n', Header.CONTACT, '1.2.3.4'],
    ['X\r\nm:"m" <SIP:b@c@1.2.3.4:5062;x>\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nm:"m" <SIP:b@1.2.3.4:5062;x>\r\n', Header.CONTACT, '1.2.3.4:5062'],
    ['X\r\nContact: *\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: <sip:1.2.3.4:1023>\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: <sip:1.2.3.4:65536>\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: <sip:1.2.3.4:1024>\r\n', Header.CONTACT, '1.2.3.4:1024'],
    ['X\r\nContact: sip:1.2.3.4', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: sip:1.2.3.4:5060', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: sip:1.2.3.256\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: sip:1.2.3.4.5\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nContact: sip:1.2.3.4a\r\n', Header.CONTACT, 'unreadable'],
    ['X\r\nVia: SIP/2.0/UDP 010.0.0.1;branch=1\r\n', Header.VIA_UDP, '010.0.0.1'],
    ['X\r\nVia: SIP/2.0/TCP 1.2.3.4\r\n', Header.VIA_UDP, 'unreadable'],
    ['X\r\nv:\r\n SIP/2.0/TCP 1.2.3.4\r\n', Header.VIA_TCP, '1.2.3.4'],
  ];
  for (const [message, header, value] of cases) {
    const m = framed(message);
    const result = sip.findHeader(m, 0, header);
    t.equal(result === Found.YES ? found(m) : result === Found.NONE ? undefined : 'unreadable', value, message);
  }

  const m = framed(
    'X\r\nContact: <sip:b@1.1.1.1>, <sip:a@host>,\r\n  <sip:c@2.2.2.2:2222>;q=1\r\nTo: x\r\nm: <sip:x>\r\nm: sip:3.3.3.3\r\n',
  );
  t.ok(sip.firstUri(m, Header.CONTACT));
  t.equal(end(m), '1.1.1.1:5060');
  const all: string[] = [];
  for (sip.beginUris(m); sip.nextUri(m, Header.CONTACT);) all.push(end(m));
  t.same(all, ['1.1.1.1:5060', '2.2.2.2:2222', '3.3.3.3:5060']);
  t.notOk(sip.nextUri(m, Header.CONTACT), 'and no more');
  t.end();
});

t.test('first lines, numbers and parameters', (t) => {
  for (const [line, uri] of [
    ['INVITE sip:bob@192.0.2.4:5070 SIP/2.0\r\n', '192.0.2.4:5070'],
    ['INVITE SIP:192.0.2.4 SIP/2.0\r\n', '192.0.2.4:5060'],
    ['INVITE tel:1 SIP/2.0\r\nTo: sip:192.0.2.4\r\n', undefined],
    ['INVITE', undefined],
    ['1 sip:192.0.2.4 SIP/2.0\r\n', undefined],
  ] as const) {
    const m = framed(line);
    t.equal(sip.requestUri(m) ? end(m) : undefined, uri, line);
  }
  for (const [line, method] of [
    ['REGISTER sip:x', Method.REGISTER],
    ['invite sip:x', Method.INVITE],
    ['INVITES sip:x', Method.NONE],
    ['INVITE  sip:x', Method.NONE],
    ['INVITE ', Method.NONE],
    ['CANCEL sip:x', Method.NONE],
  ] as const)
    t.equal(sip.requestMethod(framed(line)), method, line);
  for (const [line, method] of [
    ['INVITE', Method.INVITE],
    ['registers', Method.REGISTER],
    ['ACK', Method.NONE],
    ['BYE', Method.NONE],
    ['INVIT', Method.NONE],
  ] as const) {
    const m = framed(`SIP/2.0 200 OK\r\nCSeq: 1 ${line}`);
    t.equal(sip.findHeader(m, 0, Header.CSEQ), Found.YES);
    t.equal(sip.answeredMethod(m), method, line);
  }
  for (const [number, value] of [
    ['4294967295', 4294967295],
    ['4294967296', undefined],
    ['00000000005', 5],
    ['000000000005', undefined],
    ['x', undefined],
    ['', undefined],
  ] as const) {
    const m = framed(`<sip:x> ;expires=${number};q=1`);
    const result = sip.numberParameter(m, 0, sip.EXPIRES);
    t.equal(result === Found.YES ? m.number : undefined, value, number);
    if (value !== undefined) t.equal(found(m), number);
  }
  t.equal(
    sip.numberParameter(framed('<sip:x>, <sip:y>;expires=1'), 0, sip.EXPIRES),
    Found.NONE,
    'of the next in the list',
  );
  t.equal(sip.numberParameter(framed('<sip:x>\r\n ;expires=1;'), 0, sip.EXPIRES), Found.YES, 'folded');
  for (const [parameters, tcp, udp] of [
    [';x ', true, true],
    [';transport=TCP;', true, false],
    [';transport=udp>', false, true],
    [';transport=tls ', false, false],
  ] as const) {
    t.equal(sip.sameTransport(framed(parameters), 0, true), tcp, parameters);
    t.equal(sip.sameTransport(framed(parameters), 0, false), udp, parameters);
  }
  t.end();
});

t.test('messages in a stream', (t) => {
  for (const [bytes, length] of [
    ['A\r\nl: 0\r\n\r\nB', 11],
    ['A\r\nl: 3\r\n\r\nabcB', 14],
    ['A\r\nl: 3\r\n\r\nab', sip.Ends.LATER],
    ['A\r\nl: 3\r\n\r', sip.Ends.UNKNOWN],
    ['A\r\nl: 3\n\nabc', sip.Ends.UNKNOWN],
    ['A\r\nl: x\r\n\r\n', sip.Ends.UNKNOWN],
    ['A\r\nl: 999\r\n\r\n', sip.Ends.UNKNOWN],
    ['A\r\n\r\n', sip.Ends.UNKNOWN],
  ] as const) {
    const m = framed(bytes);
    const behind = sip.messageEnd(m);
    t.equal(behind < 0 ? behind : behind - m.start, length, bytes);
  }
  t.end();
});

t.test('session descriptions', (t) => {
  const m = framed(`X\r\n\r\n${session('192.0.2.1', 'audio 4000', 'text 1', 'video 4002,192.0.2.2')}`);
  t.equal(findLine(m, 0, Line.VERSION, Line.NONE), Found.YES);
  const at = m.offset;
  t.equal(findLine(m, at, Line.OWNER, Line.MEDIA), Found.YES);
  t.equal(found(m), '192.0.2.1');
  t.equal(findLine(m, at, Line.CONNECTION, Line.MEDIA), Found.YES);
  t.equal(text(m.address), '192.0.2.1');
  const media: string[] = [];
  for (let from = at; findLine(m, from, Line.MEDIA, Line.NONE) === Found.YES;) {
    const kind = mediumClass(m);
    media.push(`${kind} ${found(m)}`);
    from = m.offset + m.length;
    if (findLine(m, from, Line.CONNECTION, Line.MEDIA) === Found.YES) media.push(text(m.address));
  }
  t.same(media, ['1 4000', '-1 text 1', '2 4002', '192.0.2.2']);
  for (const line of ['c=IN IP6 ::1', 'c=in ip4 192.0.2.1', 'c=\r\nIN IP4 192.0.2.1'])
    t.equal(findLine(framed(`X\r\n${line}\r\n`), 0, Line.CONNECTION, Line.MEDIA), Found.UNREADABLE, line);
  t.equal(findLine(framed('X\r\nm=1\r\nc=IN IP4 1.1.1.1\r\n'), 0, Line.CONNECTION, Line.MEDIA), Found.NONE);
  t.end();
});

// ---- a phone behind the router, and its registrar -------------------------------------------------------------------

/** Shorter than the phone's own as text. */
const SHORT = ip('1.2.3.4');
const PHONE = text(ORLOCK);
const OUTSIDE = text(WAN);
const REGISTRAR = text(KNOCK);

const send = (r: Router, src: number, dst: number, message: string, sport = 5060, dport = 5060): Packet =>
  r.send({ protocol: Proto.UDP, src, dst, sport, dport, payload: encode(message) });

function listed(r: Router): string[] {
  const e = new Expectation();
  const all: string[] = [];
  for (let n = nextExpectation(r.table, -1, e); n >= 0; n = nextExpectation(r.table, n, e)) {
    const flags = `${e.flags & ExpectFlag.PERMANENT ? ' for good' : ''}${e.flags & ExpectFlag.INACTIVE ? ', not yet' : ''}`;
    all.push(`${text(e.src)} > ${text(e.dst)}:${e.dport} ${e.timeoutMs / 1000} s class ${e.class}${flags}`);
  }
  return all.sort();
}

const register = (cseq: number, expires: number): string =>
  request('REGISTER', { from: PHONE, to: REGISTRAR, cseq, more: [`Contact: <sip:me@${PHONE}>;expires=${expires}`] });
const registered = (cseq: number, expires: number, status = '200 OK'): string =>
  response(status, 'REGISTER', {
    from: OUTSIDE,
    to: REGISTRAR,
    cseq,
    more: [`Contact: <sip:me@${OUTSIDE}:5060>;expires=${expires}`],
  });

t.test('a registration makes calls expected once it is granted, for as long', (t) => {
  const r = new Router({ snat: WAN });
  const sent = send(r, ORLOCK, KNOCK, register(1, 600));
  t.match(payload(sent), `Contact: <sip:me@${OUTSIDE}:5060>;expires=600`);
  t.match(payload(sent), `Via: SIP/2.0/UDP ${OUTSIDE}:5060;`);
  t.notMatch(payload(sent), PHONE.replaceAll('.', '\\.') + ':');
  const expected = `${REGISTRAR} > ${OUTSIDE}:5060`;
  t.same(listed(r), [`${expected} 180 s class 0 for good, not yet`]);
  const early = send(r, KNOCK, WAN, request('INVITE', { from: REGISTRAR, to: OUTSIDE, cseq: 5 }), 5070);
  t.equal(early.ctState, CtState.NEW, 'not yet active');
  t.equal(ends(early), `${REGISTRAR}:5070 > ${OUTSIDE}:5060`);

  send(r, KNOCK, WAN, registered(1, 600, '100 Trying'));
  send(r, KNOCK, WAN, registered(7, 600));
  t.match(listed(r), [/not yet/], 'another number, and no final answer');
  t.match(payload(send(r, KNOCK, WAN, registered(1, 600))), `Contact: <sip:me@${PHONE}:5060>`);
  t.same(listed(r), [`${expected} 600 s class 0 for good`]);

  r.table.edge(599_000, 1);
  const call = send(r, KNOCK, WAN, request('INVITE', { from: REGISTRAR, to: OUTSIDE, cseq: 5 }), 5071);
  t.equal(call.ctState, CtState.RELATED);
  t.equal(ends(call), `${REGISTRAR}:5071 > ${PHONE}:5060`);
  t.match(payload(call), `INVITE sip:you@${PHONE}:5060 SIP/2.0`);
  t.equal(r.table.helper(call.ct), r.table.helper(sent.ct), 'which is read, too');
  t.equal(r.table.expires(call.ct), 3_600_000, 'and lives an hour');
  t.match(listed(r), [/600 s|1\.?\d* s/], 'there may be more calls');
  r.table.edge(601_001, 1);
  t.same(listed(r), [], 'the first dead moment');
  t.end();
});

t.test('a registration that is refused or taken back', (t) => {
  for (const answer of [
    registered(1, 600, '401 Unauthorized'),
    registered(1, 0),
    registered(1, 600).replace(`<sip:me@${OUTSIDE}:5060>;e`, '<sip:me@192.0.2.9>;e'),
  ]) {
    const r = new Router({ snat: WAN });
    send(r, ORLOCK, KNOCK, register(1, 600));
    t.equal(listed(r).length, 1);
    send(r, KNOCK, WAN, answer);
    t.same(listed(r), []);
  }
  for (const message of [
    register(1, 0),
    register(1, 600).replace('Contact: <sip:me@', 'Contact: <sip:me@1'),
    register(1, 600).replace('>;expires', ';transport=tcp>;expires'),
    register(1, 600).replace(/Contact.*\r\n/, ''),
  ]) {
    const r = new Router();
    send(r, ORLOCK, KNOCK, message);
    t.same(listed(r), [], message);
  }
  for (const message of [
    register(1, 600).replace('expires=', 'expires=x'),
    register(1, 600).replace('CSeq:', 'CSeq: x'),
  ])
    t.throws(() => send(new Router(), ORLOCK, KNOCK, message), /dropped/, message);
  t.end();
});

t.test('media: both ends’ ports are expected, and forgotten when the call is over', (t) => {
  const r = new Router({ snat: WAN });
  const invite = (owner: string, port: number): string =>
    request('INVITE', { from: owner, to: REGISTRAR, cseq: 3 }, session(owner, `audio ${port}`, 'video 0'));
  const first = send(r, ORLOCK, KNOCK, invite(PHONE, 4000));
  t.match(payload(first), new RegExp(`^o=me 1 1 IN IP4 ${OUTSIDE}\r\ns=-\r\nc=IN IP4 ${OUTSIDE}\r$`, 'm'));
  const other = text(ORLOCK + 1);
  t.throws(() => send(r, ORLOCK + 1, KNOCK, invite(other, 4001)), /dropped/, 'the pair at 4000 is another’s');
  const second = send(r, ORLOCK + 1, KNOCK, invite(other, 4002));
  const body = payload(second).split('\r\n\r\n')[1]!;
  t.match(payload(second), `Content-Length: ${body.length}\r\n`);
  const media = [4000, 4001, 4002, 4003].map((port) => `${REGISTRAR} > ${OUTSIDE}:${port} 180 s class 1`);
  t.same(listed(r), media);

  const answer = response(
    '200 OK',
    'INVITE',
    { from: OUTSIDE, to: REGISTRAR, cseq: 3 },
    session(REGISTRAR, 'audio 6000'),
  );
  send(r, KNOCK, WAN, answer);
  t.same(listed(r).slice(0, 4), media);
  t.same(
    listed(r).slice(4),
    [6000, 6001].map((port) => `${PHONE} > ${REGISTRAR}:${port} 180 s class 1`),
  );
  const voice = (src: number, dst: number, sport: number, dport: number): Packet =>
    r.send({ protocol: Proto.UDP, src, dst, sport, dport, payload: encode('voice') });
  const incoming = voice(KNOCK, WAN, 6000, 4002);
  t.equal(incoming.ctState, CtState.RELATED);
  t.equal(ends(incoming), `${REGISTRAR}:6000 > ${other}:4002`, 'to the second phone’s');
  t.equal(ends(voice(KNOCK, WAN, 6000, 4000)), `${REGISTRAR}:6000 > ${PHONE}:4000`);
  // From where it is expected to come, it leaves by the port that was announced.
  const outgoing = voice(ORLOCK, KNOCK, 4001, 6001);
  t.equal(outgoing.ctState, CtState.RELATED);
  t.equal(ends(outgoing), `${OUTSIDE}:4001 > ${REGISTRAR}:6001`);
  t.equal(voice(ip('9.9.9.9'), WAN, 6000, 4003).ctState, CtState.NEW, 'from the other end alone');

  t.equal(listed(r).length, 3, 'each once');
  send(r, ORLOCK, KNOCK, request('BYE', { from: PHONE, to: REGISTRAR, cseq: 4 }));
  t.same(listed(r), [`${REGISTRAR} > ${OUTSIDE}:4003 180 s class 1`]);
  const busy = response('486 Busy', 'INVITE', { from: OUTSIDE, to: REGISTRAR, cseq: 3 });
  r.send({ protocol: Proto.UDP, src: KNOCK, dst: WAN, sport: 5060, dport: second.sport, payload: encode(busy) });
  t.same(listed(r), []);
  t.end();
});

t.test('descriptions that the kernel drops', (t) => {
  const invite = (body: string): string => request('INVITE', { from: PHONE, to: REGISTRAR, cseq: 3 }, body);
  const good = session(PHONE, 'audio 4000');
  for (const [what, message, plain] of [
    ['a port below 1024', invite(session(PHONE, 'audio 1000')), false],
    ['no address', invite(good.replace(/^c=.*\r\n/m, '')), false],
    ['no owner', invite(good.replace(/^o=.*\r\n/m, '')), true],
    ['no length', invite(good).replace(/Content-Length.*\r\n/, ''), true],
  ] as const) {
    t.throws(() => send(new Router({ snat: WAN }), ORLOCK, KNOCK, message), /dropped/, what);
    if (plain) t.equal(listed(plainly(message)).length, 2, `${what} is enough without translation`);
    else t.throws(() => plainly(message), /dropped/, what);
  }
  function plainly(message: string): Router {
    const r = new Router();
    send(r, ORLOCK, KNOCK, message);
    return r;
  }
  t.same(listed(plainly(invite(session(text(ORLOCK + 9), 'audio 4000')))), [], 'another’s media are not expected');
  t.end();
});

t.test('a phone that listens at another port than it sends from', (t) => {
  const r = new Router({ snat: WAN });
  const call = { from: PHONE, to: REGISTRAR, cseq: 1 };
  const asked = send(r, ORLOCK, KNOCK, request('OPTIONS', call), 30_000);
  t.equal(ends(asked), `${OUTSIDE}:30000 > ${REGISTRAR}:5060`);
  const answer = send(r, KNOCK, WAN, response('200 OK', 'OPTIONS', { ...call, from: OUTSIDE }), 5060, 30_000);
  t.equal(answer.ctDir, Dir.REPLY);
  t.equal(ends(answer), `${REGISTRAR}:5060 > ${PHONE}:5060`);
  const silent = packet({
    protocol: Proto.UDP,
    src: KNOCK,
    dst: WAN,
    sport: 5060,
    dport: 30_000,
    payload: encode(response('200 OK', 'OPTIONS', call)),
    noChecksum: true,
  });
  r.forward(silent);
  t.equal(ends(silent), `${REGISTRAR}:5060 > ${PHONE}:5060`);
  t.equal(silent.bytes[silent.l4 + 6]! | silent.bytes[silent.l4 + 7]!, 0, 'no checksum stays none');
  t.end();
});

t.test('TCP: every message of a segment, and later segments by the sum of their changes', (t) => {
  const r = new Router({ snat: SHORT });
  const c = new Connection(r, ORLOCK, 5060, KNOCK, 5060, SHORT);
  const call = { from: PHONE, to: REGISTRAR, cseq: 1, transport: 'TCP' as const };
  const one = request('OPTIONS', call);
  const before = c.clientNext;
  const both = c.fromClient(one + one);
  const changed = request('OPTIONS', { ...call, from: text(SHORT) }).replace(`1@${text(SHORT)}`, `1@${PHONE}`);
  t.equal(payload(both), changed + changed);
  t.equal(seqOf(both), before);
  t.equal(r.table.status(both.ct) & Status.SEQ_ADJUST, Status.SEQ_ADJUST);
  const next = c.fromClient('x'.repeat(20));
  t.equal(seqOf(next), before + 2 * changed.length, 'a stream that is no message passes as it is');
  t.equal(payload(next), 'x'.repeat(20));
  // The half of a message is nobody's yet.
  const half = c.fromClient(one.slice(0, 60));
  t.equal(payload(half), one.slice(0, 60));
  t.equal(r.table.expires(half.ct), 3_600_000);
  c.fromServer('', TcpFlag.ACK);
  t.end();
});

t.test('a segment may grow by what its messages need', (t) => {
  const r = new Router({ snat: ip('220.220.220.220') });
  const c = new Connection(r, ip('192.168.73.1'), 5060, KNOCK, 5060, ip('220.220.220.220'));
  const message = request('OPTIONS', { from: '192.168.73.1', to: REGISTRAR, cseq: 1, transport: 'TCP' });
  const sent = c.fromClient(message.repeat(6));
  t.equal(payload(sent).length - 6 * message.length, 6 * 2 * '220.220.220.220'.length - 6 * 2 * '192.168.73.1'.length);
  t.throws(() => c.fromClient(message.repeat(60)), /dropped/, 'not without end');
  t.end();
});
