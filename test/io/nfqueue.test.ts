/**
 * The queue device against the kernel: what is accepted, dropped, marked and rewritten, what happens to cut packets,
 * late or missing verdicts, taken and dead queues, overruns, and large transfers with segmentation offload.
 */
import t from 'tap';
import type { Test } from 'tap';
import dgram from 'node:dgram';
import { Verdict } from '../../src/dataplane/names.js';
import {
  Batch,
  ChecksumMode,
  FULL_SLOT,
  HEADROOM,
  InFlag,
  Meta,
  META_WORDS,
  OutFlag,
} from '../../src/dataplane/io/batch.js';
import { DeviceClosed } from '../../src/dataplane/io/device.js';
import { loadNative } from '../../src/dataplane/io/native.js';
import type { NfqueueHandle } from '../../src/dataplane/io/native.js';
import { HEADERS, NfqueueDevice, NfqueueError } from '../../src/dataplane/io/nfqueue.js';
import type { NfqueueOptions } from '../../src/dataplane/io/nfqueue.js';
import { u16 } from '../../src/dataplane/wire/bytes.js';
import { becomeRouter, run, until } from './router.js';
import type { Peer, PeerProcess } from './router.js';

const { a, b } = await becomeRouter(import.meta.url);
// Learn the neighbours before anything is queued, so that no test meets a resolution in progress.
a.run('ping', '-c', '1', '-W', '1', '10.7.1.1');
b.run('ping', '-c', '1', '-W', '1', '10.7.2.1');
const IPTABLES = 'iptables-legacy';
const diversion = ['-t', 'raw', '-A', 'PREROUTING', '-i', 'in0', '-j', 'NFQUEUE', '--queue-num', '7'];
run(IPTABLES, ...diversion);

type Decide = (meta: Int32Array, record: number, batch: Batch) => void;
const accept: Decide = (meta, r) => void (meta[r + Meta.VERDICT] = Verdict.ACCEPT);

/** A device on queue 7, closed at the test's end. */
function open(t: Test, options: Omit<NfqueueOptions, 'queue'> = {}): NfqueueDevice {
  const device = new NfqueueDevice({ queue: 7, ...options });
  t.teardown(() => {
    device.close();
  });
  return device;
}

async function start(t: Test, peer: Peer, ...args: string[]): Promise<PeerProcess> {
  const process = await peer.start(...args);
  t.teardown(() => {
    process.stop();
  });
  return process;
}

/** Receives one batch and decides on each packet; returns how many there were. */
function pass(device: NfqueueDevice, batch: Batch, decide: Decide = accept): number {
  const n = device.receive(batch, 20);
  for (let i = 0; i < n; i++) decide(batch.meta, i * META_WORDS, batch);
  if (n > 0) device.send(batch, n);
  return n;
}

/** Text of a UDP packet without IP options. */
const textOf = (meta: Int32Array, r: number, batch: Batch): string =>
  Buffer.from(batch.bytes.buffer, meta[r + Meta.OFFSET]! + 28, meta[r + Meta.LENGTH]! - 28).toString('latin1');
const texts = (sink: PeerProcess): string[] =>
  sink.lines.filter((line) => line !== 'ready').map((line) => line.slice(line.indexOf(' ') + 1));

/** Waits until `count` packets lie in the queue, then takes them as one batch. */
async function gather(t: Test, device: NfqueueDevice, batch: Batch, count: number): Promise<void> {
  const waiting = (): number =>
    Number(run('cat', '/proc/thread-self/net/netfilter/nfnetlink_queue').trim().split(/\s+/)[2]);
  t.ok(
    await until(
      () => undefined,
      () => waiting() >= count,
    ),
    `${String(count)} packets are waiting`,
  );
  t.equal(device.receive(batch, 1000), count, 'they come in one batch');
}

t.test('accept, drop, mark, metadata', async (t) => {
  const device = open(t);
  const batch = new Batch(64, FULL_SLOT);
  const sink = await start(t, b, 'udp-sink', '4000');
  const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
  run(IPTABLES, '-t', 'mangle', '-A', 'FORWARD', '-m', 'mark', '--mark', '0x75');
  const link = (text: string): { ifindex: number; address: string } =>
    (JSON.parse(text) as { ifindex: number; address: string }[])[0]!;
  const { ifindex } = link(run('ip', '-j', 'link', 'show', 'in0'));
  const mac = link(a.run('ip', '-j', 'link', 'show', 'eth0')).address.replaceAll(':', '');
  for (const text of ['accept', 'drop', 'mark', 'stolen', 'last']) source.tell(text);
  const seen: string[] = [];
  const done = await until(
    () =>
      pass(device, batch, (meta, r) => {
        const text = textOf(meta, r, batch);
        seen.push(text);
        t.equal(meta[r + Meta.HOOK], 0, 'PREROUTING');
        t.equal(meta[r + Meta.INDEV], ifindex);
        t.equal(meta[r + Meta.OUTDEV], 0);
        t.equal(meta[r + Meta.MARK], 0);
        t.equal(meta[r + Meta.MAC_LENGTH], 6);
        t.equal((meta[r + Meta.MAC_HIGH]! >>> 0).toString(16).padStart(8, '0'), mac.slice(0, 8));
        t.equal((meta[r + Meta.MAC_LOW]! >>> 16).toString(16).padStart(4, '0'), mac.slice(8));
        t.equal(meta[r + Meta.FULL_LENGTH], meta[r + Meta.LENGTH]);
        const slot = meta[r + Meta.OFFSET]! % FULL_SLOT;
        t.ok(slot >= HEADROOM, 'headroom is kept');
        t.equal(meta[r + Meta.VERDICT], Verdict.DROP, 'a packet nobody decides on is dropped');
        meta[r + Meta.VERDICT] = text === 'drop' ? Verdict.DROP : text === 'stolen' ? Verdict.STOLEN : Verdict.ACCEPT;
        if (text === 'mark') {
          meta[r + Meta.OUT_FLAGS] = OutFlag.MARK;
          meta[r + Meta.NEW_MARK] = 0x75;
        }
      }),
    () => texts(sink).includes('last'),
  );
  t.ok(done);
  t.same(seen, ['accept', 'drop', 'mark', 'stolen', 'last']);
  t.same(texts(sink), ['accept', 'mark', 'last']);
  t.match(run('iptables-legacy-save', '-c', '-t', 'mangle'), /^\[1:\d+\] -A FORWARD -m mark/m);
  t.match(device.stats, { received: 5, overruns: 0, sendErrors: 0, malformed: 0, cut: 0, undecided: 0 });
});

t.test('verdicts of one batch, in and out of order', async (t) => {
  const device = open(t);
  const batch = new Batch(64, FULL_SLOT);
  const sink = await start(t, b, 'udp-sink', '4000');
  const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
  const expected: string[] = [];

  source.tell('*20 mixed');
  await gather(t, device, batch, 20);
  for (let i = 0; i < 20; i++) {
    const dropped = i === 0 || (i >= 7 && i < 10) || i === 19;
    batch.meta[i * META_WORDS + Meta.VERDICT] = dropped ? Verdict.DROP : Verdict.ACCEPT;
    if (!dropped) expected.push(`mixed${String(i)}`);
  }
  device.send(batch, 20);

  // Reversed records: a run of accepts comes before the drops of earlier packets, and must not let those through.
  source.tell('*10 reversed');
  await gather(t, device, batch, 10);
  const records = Array.from({ length: 10 }, (_, i) => batch.meta.slice(i * META_WORDS, (i + 1) * META_WORDS));
  records.reverse().forEach((record, i) => {
    record[Meta.VERDICT] = i < 5 ? Verdict.ACCEPT : Verdict.DROP;
    batch.meta.set(record, i * META_WORDS);
  });
  device.send(batch, 10);
  for (let i = 9; i >= 5; i--) expected.push(`reversed${String(i)}`);

  // A worker that lost its place: what it didn't decide on is dropped, and a later run of accepts doesn't free it.
  source.tell('*10 lost');
  await gather(t, device, batch, 10);
  for (let i = 0; i < 10; i++) batch.meta[i * META_WORDS + Meta.VERDICT] = Verdict.ACCEPT;
  device.send(batch, 4);
  for (let i = 0; i < 4; i++) expected.push(`lost${String(i)}`);
  source.tell('*3 after');
  await until(
    () => pass(device, batch),
    () => texts(sink).includes('after2'),
  );
  expected.push('after0', 'after1', 'after2');

  t.same(texts(sink), expected);
  t.equal(device.stats.undecided, 6);
  t.equal(device.stats.sendErrors, 0);
});

t.test('rewritten payload, whole checksum', async (t) => {
  const device = open(t);
  const batch = new Batch(16, FULL_SLOT);
  const sink = await start(t, b, 'udp-sink', '4000');
  const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
  const lengths = [1, 2, 3, 17, 31, 32, 33, 64, 100, 1471, 1472];
  for (const length of lengths) source.tell('x'.repeat(length));
  const rewrite: Decide = (meta, r) => {
    const offset = meta[r + Meta.OFFSET]!;
    const end = offset + meta[r + Meta.LENGTH]!;
    batch.bytes.fill(0x79, offset + 28, end);
    meta[r + Meta.VERDICT] = Verdict.ACCEPT;
    meta[r + Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
    meta[r + Meta.NEW_OFFSET] = offset;
    meta[r + Meta.NEW_LENGTH] = end - offset;
    meta[r + Meta.CHECKSUM_MODE] = ChecksumMode.FULL;
    meta[r + Meta.CHECKSUM_START] = offset + 20;
    meta[r + Meta.CHECKSUM_FIELD] = offset + 26;
  };
  await until(
    () => pass(device, batch, rewrite),
    () => texts(sink).length === lengths.length,
  );
  t.same(
    texts(sink),
    lengths.map((length) => 'y'.repeat(length)),
  );
  t.equal(device.stats.sendErrors, 0);
});

t.test('a payload that grows into the headroom, and one that shrinks', async (t) => {
  const device = open(t);
  const batch = new Batch(16, FULL_SLOT);
  const sink = await start(t, b, 'udp-sink', '4000');
  const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
  const resize: Decide = (meta, r) => {
    const old = meta[r + Meta.OFFSET]!;
    const bytes = batch.bytes;
    const by = textOf(meta, r, batch) === 'grow' ? 100 : -2;
    const offset = old - by;
    const length = meta[r + Meta.LENGTH]! + by;
    bytes.copyWithin(offset, old, old + 28);
    if (by > 0) bytes.fill(0x67, offset + 28, old + 28);
    bytes[offset + 2] = length >> 8;
    bytes[offset + 3] = length;
    bytes[offset + 24] = (length - 20) >> 8;
    bytes[offset + 25] = length - 20;
    // The IP header's checksum: all fields but these are as they were.
    bytes[offset + 10] = bytes[offset + 11] = 0;
    let sum = 0;
    for (let i = 0; i < 20; i += 2) sum += u16(bytes, offset + i);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    bytes[offset + 10] = sum >> 8;
    bytes[offset + 11] = sum;
    meta[r + Meta.VERDICT] = Verdict.ACCEPT;
    meta[r + Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
    meta[r + Meta.NEW_OFFSET] = offset;
    meta[r + Meta.NEW_LENGTH] = length;
    meta[r + Meta.CHECKSUM_MODE] = ChecksumMode.FULL;
    meta[r + Meta.CHECKSUM_START] = offset + 20;
    meta[r + Meta.CHECKSUM_FIELD] = offset + 26;
  };
  source.tell('grow');
  source.tell('shrink');
  await until(
    () => pass(device, batch, resize),
    () => texts(sink).length === 2,
  );
  t.same(texts(sink), ['g'.repeat(100) + 'grow', 'rink']);
});

t.test('bulk TCP with segmentation offload, every payload sent back', async (t) => {
  const device = open(t);
  const batch = new Batch(64, FULL_SLOT);
  const sink = await start(t, b, 'tcp-sink', '4001');
  const source = await start(t, a, 'tcp-source', '10.7.2.2', '4001', '64');
  let offloaded = 0;
  let largest = 0;
  const rewrite: Decide = (meta, r) => {
    const offset = meta[r + Meta.OFFSET]!;
    const gso = (meta[r + Meta.FLAGS]! & InFlag.GSO) !== 0;
    if (gso) offloaded++;
    largest = Math.max(largest, meta[r + Meta.LENGTH]!);
    meta[r + Meta.VERDICT] = Verdict.ACCEPT;
    meta[r + Meta.OUT_FLAGS] = OutFlag.PAYLOAD;
    meta[r + Meta.NEW_OFFSET] = offset;
    meta[r + Meta.NEW_LENGTH] = meta[r + Meta.LENGTH]!;
    meta[r + Meta.CHECKSUM_MODE] = gso ? ChecksumMode.PSEUDO : ChecksumMode.FULL;
    meta[r + Meta.CHECKSUM_START] = offset + 20;
    meta[r + Meta.CHECKSUM_FIELD] = offset + 36;
    batch.bytes[offset + 36] = 0xba;
    batch.bytes[offset + 37] = 0xad;
  };
  const done = await until(
    () => pass(device, batch, rewrite),
    () => sink.lines.length === 2 && source.lines.length === 2,
    30_000,
  );
  t.ok(done, 'the transfer ends');
  t.equal(sink.lines[1], source.lines[1], 'what came is what was sent');
  t.ok(offloaded > 100, `offloaded packets came whole (${String(offloaded)})`);
  t.ok(largest > 20_000, `the largest had ${String(largest)} bytes`);
  t.equal(device.stats.sendErrors, 0);
});

t.test('headers only, and whole packets again', async (t) => {
  const device = open(t);
  const batch = new Batch(16, FULL_SLOT);
  const sink = await start(t, b, 'udp-sink', '4000');
  const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
  const lengths: number[] = [];
  const passUntil = (last: string): Promise<boolean> =>
    until(
      () =>
        pass(device, batch, (meta, r) => {
          const text = textOf(meta, r, batch);
          if (text.startsWith('long')) {
            lengths.push(meta[r + Meta.LENGTH]!);
            t.equal(meta[r + Meta.FULL_LENGTH], 28 + 'long'.length + 1000);
          }
          accept(meta, r, batch);
        }),
      () => texts(sink).includes(last),
    );
  const long = 'long' + '.'.repeat(1000);
  for (const headers of [true, false]) {
    device.copyHeaders(headers);
    source.tell(long);
    source.tell(`headers ${headers}`);
    t.ok(await passUntil(`headers ${headers}`));
  }
  t.same(lengths, [HEADERS, 28 + long.length]);
  t.same(texts(sink), [long, 'headers true', long, 'headers false']);
});

t.test('a cut packet passes, but never with payload', async (t) => {
  const device = open(t, { slotSize: 1472 });
  const batch = new Batch(16, 1472);
  const sink = await start(t, b, 'udp-sink', '4000');
  const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
  source.tell('payload' + '.'.repeat(1000));
  source.tell('whole' + '.'.repeat(1000));
  source.tell('last');
  await until(
    () =>
      pass(device, batch, (meta, r) => {
        const text = textOf(meta, r, batch);
        // Not the last words of an earlier test's connection.
        if (/^(payload|whole)/.test(text)) {
          t.equal(meta[r + Meta.FLAGS]! & InFlag.CUT, InFlag.CUT);
          t.ok(meta[r + Meta.LENGTH]! < meta[r + Meta.FULL_LENGTH]!);
          t.equal(meta[r + Meta.FULL_LENGTH], u16(batch.bytes, meta[r + Meta.OFFSET]! + 2));
        }
        meta[r + Meta.VERDICT] = Verdict.ACCEPT;
        meta[r + Meta.OUT_FLAGS] = text.startsWith('payload') ? OutFlag.PAYLOAD : 0;
        meta[r + Meta.NEW_OFFSET] = meta[r + Meta.OFFSET]!;
        meta[r + Meta.NEW_LENGTH] = meta[r + Meta.LENGTH]!;
      }),
    () => texts(sink).includes('last'),
  );
  t.same(texts(sink), ['whole' + '.'.repeat(1000), 'last']);
  t.match(device.stats, { cut: 2, sendErrors: 1 });
});

/** Whether the queue has dropped all eleven packets that came while it was full (seq_show, sixth column). */
const queueFull = (): boolean =>
  Number(run('cat', '/proc/thread-self/net/netfilter/nfnetlink_queue').trim().split(/\s+/)[5]) === 11;

t.test('a full queue drops, or lets pass when it fails open', async (t) => {
  for (const failOpen of [false, true]) {
    const device = open(t, { maxLength: 4, failOpen });
    const batch = new Batch(16, FULL_SLOT);
    const sink = await start(t, b, 'udp-sink', '4000');
    const source = await start(t, a, 'udp-source', '10.7.2.2', '4000');
    source.tell('*4 held');
    await gather(t, device, batch, 4);
    source.tell('*10 more');
    source.tell('last');
    if (failOpen)
      await until(
        () => undefined,
        () => texts(sink).includes('last'),
      );
    else await until(() => undefined, queueFull);
    for (let i = 0; i < 4; i++) batch.meta[i * META_WORDS + Meta.VERDICT] = Verdict.ACCEPT;
    device.send(batch, 4);
    source.tell('after');
    await until(
      () => pass(device, batch),
      () => texts(sink).includes('after'),
    );
    const held = ['held0', 'held1', 'held2', 'held3'];
    const more = Array.from({ length: 10 }, (_, i) => `more${i}`);
    t.same(texts(sink), failOpen ? [...more, 'last', ...held, 'after'] : [...held, 'after'], `failOpen ${failOpen}`);
    device.close();
    sink.stop();
    source.stop();
  }
});

t.test("the router's own packets: hook, interface, user; on to another queue", async (t) => {
  const own = ['-t', 'raw', '-A', 'OUTPUT', '-p', 'udp', '--dport', '4000', '-j', 'NFQUEUE', '--queue-num', '7'];
  run(IPTABLES, ...own);
  t.teardown(() => {
    run(IPTABLES, ...own.map((word) => (word === '-A' ? '-D' : word)));
  });
  const device = open(t);
  const second = new NfqueueDevice({ queue: 8 });
  t.teardown(() => {
    second.close();
  });
  const batch = new Batch(16, FULL_SLOT);
  const sink = await start(t, b, 'udp-sink', '4000');
  const socket = dgram.createSocket('udp4');
  t.teardown(() => socket.close());
  socket.send('own', 4000, '10.7.2.2');
  const seen: string[] = [];
  const done = await until(
    () => {
      pass(device, batch, (meta, r) => {
        const text = textOf(meta, r, batch);
        if (text !== 'own') return;
        seen.push('first');
        t.equal(meta[r + Meta.HOOK], 3, 'OUTPUT');
        t.equal(meta[r + Meta.INDEV], 0);
        t.ok(meta[r + Meta.OUTDEV]! > 0);
        t.equal(meta[r + Meta.MAC_LENGTH], 0);
        t.equal(meta[r + Meta.FLAGS]! & (InFlag.UID | InFlag.GID), InFlag.UID | InFlag.GID);
        t.equal(meta[r + Meta.UID], process.getuid?.());
        t.equal(meta[r + Meta.GID], process.getgid?.());
        t.equal(meta[r + Meta.FLAGS]! & InFlag.CSUM_PARTIAL, InFlag.CSUM_PARTIAL, 'the checksum is left to the device');
        meta[r + Meta.VERDICT] = Verdict.QUEUE;
        meta[r + Meta.SEND_TO] = 8;
      });
      pass(second, batch, (meta, r) => {
        seen.push('second');
        meta[r + Meta.VERDICT] = Verdict.ACCEPT;
      });
    },
    () => texts(sink).includes('own'),
  );
  t.ok(done);
  t.same(seen, ['first', 'second']);
});

t.test('a queue has one owner', (t) => {
  const first = new NfqueueDevice({ queue: 7 });
  const error = t.throws(() => new NfqueueDevice({ queue: 7 })) as NfqueueError;
  t.type(error, NfqueueError);
  t.equal(error.reason, 'taken');
  t.match(error.message, /^queue 7 is taken by another program \((process|netlink port) \d+/);
  first.close();
  const second = new NfqueueDevice({ queue: 7 });
  second.close();
  t.throws(() => second.receive(new Batch(1, FULL_SLOT), 0), /closed/);
  t.throws(() => new NfqueueDevice({ queue: 65_536 }), RangeError);
  t.end();
});

t.test('a dead queue says so and can be opened again', (t) => {
  const device = open(t);
  const batch = new Batch(4, FULL_SLOT);
  device.probe();
  t.equal(device.receive(batch, 10), 0, 'alive');
  const { handle } = device as unknown as { handle: NfqueueHandle };
  loadNative().nfqueueUnbind(handle);
  device.probe();
  t.throws(() => {
    device.receive(batch, 1000);
    device.receive(batch, 0);
  }, DeviceClosed);
  const again = new NfqueueDevice({ queue: 7 });
  t.equal(again.receive(batch, 0), 0);
  again.close();
  device.close();
  t.end();
});

t.test('overruns are counted and survived', async (t) => {
  // 1,400 datagrams of 65,000 bytes are more than the socket's buffer, and fewer than the queue's length.
  run(IPTABLES, '-t', 'raw', '-A', 'PREROUTING', '-i', 'lo', '-j', 'NFQUEUE', '--queue-num', '7');
  const device = open(t);
  const batch = new Batch(64, FULL_SLOT);
  const socket = dgram.createSocket('udp4');
  const payload = Buffer.alloc(65_000);
  let sent = 0;
  for (let i = 0; i < 1400; i++) socket.send(payload, 9, '127.0.0.1', () => sent++);
  t.ok(
    await until(
      () => undefined,
      () => sent === 1400,
    ),
  );
  let received = 0;
  for (let n = -1; n !== 0; received += n) n = pass(device, batch);
  t.ok(received > 0 && received < 1400, `${String(received)} of 1400 came`);
  t.ok(device.stats.overruns > 0);
  t.equal(device.stats.sendErrors, 0);
  socket.send('again', 9, '127.0.0.1');
  t.ok(
    await until(
      () => (received += pass(device, batch)),
      () => device.stats.received === received && received > 0,
    ),
  );
  socket.close();
  device.close();
  run(IPTABLES, '-t', 'raw', '-D', 'PREROUTING', '-i', 'lo', '-j', 'NFQUEUE', '--queue-num', '7');
});
