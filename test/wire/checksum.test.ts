import t from 'tap';
import {
  fold,
  headerChecksum,
  pseudoSum,
  sum,
  transportChecksumOk,
  update16,
  update32,
} from '../../src/dataplane/wire/checksum.js';
import { setU16, setU32, u16, u32 } from '../../src/dataplane/wire/bytes.js';

/** A 32-bit xorshift, so that a failing run can be repeated by its seed. */
function random(seed: number): () => number {
  let x = seed | 0 || 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

t.test('RFC 1071 §3: the example sums to ddf2', (t) => {
  const bytes = Uint8Array.from([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
  t.equal(sum(bytes, 0, 8), 0xddf2);
  t.end();
});

t.test('an IPv4 header checksums to its own field', (t) => {
  const header = Uint8Array.from([
    0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7,
  ]);
  t.equal(headerChecksum(header, 0, 20), 0xb861);
  t.end();
});

t.test('incremental updates agree with sums made anew', (t) => {
  const seed = Date.now() | 0;
  const next = random(seed);
  for (let round = 0; round < 5000; round++) {
    const bytes = Uint8Array.from({ length: 40 }, () => next() & 0xff);
    let check = ~sum(bytes, 0, 40) & 0xffff;
    const at = (next() % 18) * 2;
    const from = u32(bytes, at);
    const to = next() | 0;
    setU32(bytes, at, to);
    check = update32(check, from, to);
    const from16 = u16(bytes, 38);
    const to16 = next() & 0xffff;
    setU16(bytes, 38, to16);
    check = update16(check, from16, to16);
    // 0 and 0xffff are the same number in ones' complement.
    if (check % 0xffff !== (~sum(bytes, 0, 40) & 0xffff) % 0xffff) t.fail(`seed ${seed}, round ${round}`);
  }
  t.pass(`seed ${seed}`);
  t.end();
});

t.test('a UDP datagram without checksum is fine, one bit wrong is not', (t) => {
  const packet = new Uint8Array(20 + 12);
  setU32(packet, 12, 0x0a000001);
  setU32(packet, 16, 0x0a000002);
  setU16(packet, 20 + 4, 12);
  t.equal(transportChecksumOk(packet, 0, 20, 32, 17), true);
  const pseudo = pseudoSum(0x0a000001, 0x0a000002, 17, 12);
  setU16(packet, 26, ~sum(packet, 20, 32, pseudo) & 0xffff);
  t.equal(transportChecksumOk(packet, 0, 20, 32, 17), true);
  packet[31] = 1;
  t.equal(transportChecksumOk(packet, 0, 20, 32, 17), false);
  t.equal(fold(0x1fffe), 0xffff);
  t.end();
});
