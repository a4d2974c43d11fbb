/** Matches that remember: a clock of our own, the last tick that still counts and the first that doesn't. */
import t from 'tap';
import { creditsPerJiffy, limitCredits } from '../../src/dataplane/program/limit.js';
import { LIST_ADDRESSES, readRecent, writeRecent } from '../../src/dataplane/program/recent.js';
import { packet, World, type Fields } from './lab.js';

t.test('limit: credits are the kernel’s', (t) => {
  t.same([100, 250, 300, 1000].map(creditsPerJiffy), [256, 128, 128, 32]);
  t.same(limitCredits({ average: 200_000, burst: 5 }, 1000), { cost: 640_000, cap: 3_200_000 });
  t.equal(limitCredits({ average: 864_000_000, burst: 5 }, 1000), undefined, 'more than 32 bits');
  t.equal(limitCredits({ average: 1, burst: 0 }, 1000), undefined);
  t.end();
});

for (const hz of [1000, 250, 100])
  t.test(`limit: a burst of 5, then 3 a minute, at ${hz} ticks a second`, (t) => {
    const w = new World(hz).load('*filter\n:INPUT DROP\n-A INPUT -m limit --limit 3/minute -j ACCEPT');
    const tick = 1000 / hz;
    const passed = (count: number): number =>
      Array.from({ length: count }, () => w.run(packet())).filter(Boolean).length;
    t.equal(passed(20), 5);
    w.wait(20_000 - tick);
    t.equal(passed(3), 0, 'a tick too early');
    w.wait(tick);
    t.equal(passed(3), 1);
    w.wait(40_000);
    t.equal(passed(9), 2);
    w.wait(3_600_000);
    t.equal(passed(9), 5, 'never more than the burst');
    t.end();
  });

t.test('limit: a bucket outlives a swap, and a rule set anew has a full one', (t) => {
  const w = new World().load('*filter\n:INPUT DROP\n-A INPUT -m limit --limit 1/hour --limit-burst 2 -j ACCEPT');
  w.run(packet());
  const input = w.rules.tables[0]!.chains.get('INPUT')!;
  const more = new Map(w.rules.tables[0]!.chains).set('INPUT', {
    ...input,
    rules: [...input.rules, ...input.rules.slice(1)],
  });
  w.load({ tables: [{ name: 'filter', chains: more }] });
  t.same([w.run(packet()), w.run(packet())], [1, 0]);
  w.load('*filter\n:INPUT DROP\n-A INPUT -m limit --limit 1/hour --limit-burst 2 -j ACCEPT');
  t.same([w.run(packet()), w.run(packet()), w.run(packet())], [1, 1, 0]);
  t.end();
});

t.test('limit: the clock may wrap', (t) => {
  const w = new World();
  w.at(2 ** 31 - 5000);
  w.load('*filter\n:INPUT DROP\n-A INPUT -m limit --limit 1/second --limit-burst 1 -j ACCEPT');
  t.same([w.run(packet()), w.run(packet())], [1, 0]);
  w.wait(5500);
  t.equal(w.run(packet()), 1);
  w.wait(999);
  t.equal(w.run(packet()), 0);
  w.wait(1);
  t.equal(w.run(packet()), 1);
  t.end();
});

for (const hz of [100, 250, 1000])
  t.test(`hashlimit: a bucket for each host, a packet a minute behind a burst of 2, at ${hz} ticks a second`, (t) => {
    const w = new World(hz).load(
      `*filter\n:INPUT DROP\n-A INPUT -m hashlimit --hashlimit-upto 1/minute --hashlimit-burst 2 ` +
        `--hashlimit-mode srcip --hashlimit-htable-expire 3600000 --hashlimit-name a -j ACCEPT`,
    );
    const ask = (src: string): boolean => w.run(packet({ src })) === 1;
    t.same([ask('10.0.0.1'), ask('10.0.0.1'), ask('10.0.0.1')], [true, true, false]);
    t.same([ask('10.0.0.2'), ask('10.0.0.2'), ask('10.0.0.2')], [true, true, false], 'its own');
    const tick = 1000 / hz;
    w.wait(60_000 - tick);
    t.equal(ask('10.0.0.1'), false, 'the last tick without credit');
    w.wait(tick);
    t.same([ask('10.0.0.1'), ask('10.0.0.1')], [true, false], 'the first with it');
    w.wait(600_000);
    t.same([ask('10.0.0.1'), ask('10.0.0.1'), ask('10.0.0.1')], [true, true, false], 'no more than the burst');
    t.end();
  });

t.test('hashlimit: bytes, and what has outlived its time', (t) => {
  const w = new World(250).load(
    '*filter\n:INPUT DROP\n-A INPUT -m hashlimit --hashlimit-upto 1kb/s --hashlimit-mode srcip ' +
      '--hashlimit-htable-expire 5000 --hashlimit-htable-gcinterval 2000 --hashlimit-name a -j ACCEPT',
  );
  const passed = (): number => Array.from({ length: 40 }, () => w.run(packet())).reduce((sum, one) => sum + one, 0);
  // 1,024 bytes in units of 16: 64, and a packet of 40 bytes costs three.
  t.equal(passed(), 21);
  w.wait(500);
  t.equal(passed(), 11);
  w.wait(5999);
  t.equal(passed(), 21);
  t.end();
});

t.test('hashlimit: an entry goes when the collector looks behind its time, and its bucket is full again', (t) => {
  const w = new World(250).load(
    '*filter\n:INPUT DROP\n-A INPUT -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 2 --hashlimit-mode srcip ' +
      '--hashlimit-htable-expire 5000 --hashlimit-htable-gcinterval 2000 --hashlimit-name a -j ACCEPT',
  );
  const ask = (): boolean => w.run(packet()) === 1;
  t.same([ask(), ask(), ask()], [true, true, false]);
  w.wait(5996);
  t.equal(ask(), false, 'over, and the collector looks every two seconds');
  w.wait(6004);
  t.same([ask(), ask()], [true, true]);
  t.end();
});

t.test('hashlimit: a table of so many entries drops what would need another, until some have gone', (t) => {
  const w = new World(250).load(
    '*filter\n:INPUT ACCEPT\n-A INPUT -m hashlimit --hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode srcip ' +
      '--hashlimit-htable-size 16 --hashlimit-htable-max 20 --hashlimit-htable-expire 1000 --hashlimit-name a -j DROP',
  );
  const ask = (host: number): number => w.run(packet({ src: `10.0.0.${host}` }));
  for (let host = 0; host < 20; host++) t.equal(ask(host), 1);
  t.equal(ask(20), 0);
  w.wait(3000);
  t.equal(ask(21), 1);
  t.end();
});

t.test('quota: more than 32 bits', (t) => {
  const w = new World().load('*filter\n:INPUT DROP\n-A INPUT -m quota --quota 4294967330 -j ACCEPT');
  const p = packet();
  p.length = 65_535;
  for (let i = 0; i < 65_537; i++) if (w.run(p) !== 1) t.fail(`packet ${i}`);
  p.length = 35;
  t.equal(w.run(p), 1, '35 bytes are left');
  t.equal(w.run(p), 0);
  t.end();
});

const from = (src: string, more: Fields = {}) => packet({ src, ...more });

/** A world whose INPUT takes the rule; `ask` says whether a packet from `src` matches. */
function recent(rule: string, setup = ''): { w: World; ask: (src: string, more?: Fields) => boolean } {
  const w = new World().load(
    `*filter\n:INPUT DROP\n-A INPUT -p udp -m recent --set ${setup}\n-A INPUT -p tcp -m recent ${rule} -j ACCEPT`,
  );
  return { w, ask: (src, more) => w.run(from(src, more)) === 1 };
}

t.test('recent: seconds', (t) => {
  const { w, ask } = recent('--rcheck --seconds 60');
  t.equal(ask('10.0.0.1'), false);
  w.run(from('10.0.0.1', { protocol: 17 }));
  t.equal(ask('10.0.0.1'), true);
  t.equal(ask('10.0.0.2'), false);
  w.wait(60_000);
  t.equal(ask('10.0.0.1'), true, 'the last tick');
  w.wait(1);
  t.equal(ask('10.0.0.1'), false, 'the first tick too late');
  t.end();
});

t.test('recent: update moves the time, only when it matched', (t) => {
  const { w, ask } = recent('--update --seconds 10');
  w.run(from('10.0.0.1', { protocol: 17 }));
  for (let i = 0; i < 5; i++) {
    w.wait(10_000);
    t.equal(ask('10.0.0.1'), true);
  }
  w.wait(10_001);
  t.equal(ask('10.0.0.1'), false);
  t.equal(ask('10.0.0.1'), false);
  t.end();
});

t.test('recent: hitcount', (t) => {
  const { w, ask } = recent('--update --seconds 10 --hitcount 3');
  const knock = (): number => w.run(from('10.0.0.1', { protocol: 17 }));
  knock();
  t.equal(ask('10.0.0.1'), false);
  knock();
  t.equal(ask('10.0.0.1'), false, 'two stamps');
  knock();
  t.equal(ask('10.0.0.1'), true);
  w.wait(10_001);
  t.equal(ask('10.0.0.1'), false);
  t.end();
});

t.test('recent: remove, and negation', (t) => {
  const { w, ask } = recent('--remove');
  t.equal(ask('10.0.0.1'), false);
  w.run(from('10.0.0.1', { protocol: 17 }));
  t.equal(ask('10.0.0.1'), true);
  t.equal(ask('10.0.0.1'), false);
  const not = recent('! --rcheck');
  t.equal(not.ask('10.0.0.1'), true);
  not.w.run(from('10.0.0.1', { protocol: 17 }));
  t.equal(not.ask('10.0.0.1'), false);
  t.end();
});

t.test('recent: TTL, as before forwarding', (t) => {
  const { w, ask } = recent('--rcheck --rttl');
  w.run(from('10.0.0.1', { protocol: 17, ttl: 9 }));
  t.equal(ask('10.0.0.1', { ttl: 9 }), true);
  t.equal(ask('10.0.0.1', { ttl: 10 }), false);
  w.load('*filter\n:FORWARD DROP\n-A FORWARD -m recent --rcheck --rttl -j ACCEPT');
  t.equal(w.run(from('10.0.0.1', { ttl: 8 }), 'FORWARD', 'filter', 2, 3), 1);
  t.equal(w.run(from('10.0.0.1', { ttl: 9 }), 'FORWARD', 'filter', 2, 3), 0);
  t.end();
});

t.test('recent: destination, and a mask over the list', (t) => {
  const w = new World().load(`*filter
    :INPUT DROP
    -A INPUT -p udp -m recent --set --rdest --mask 255.255.255.0
    -A INPUT -p tcp -m recent --rcheck --rsource --mask 255.255.255.0 -j ACCEPT`);
  w.run(packet({ protocol: 17, dst: '10.0.0.9' }));
  t.equal(w.run(from('10.0.0.77')), 1);
  t.equal(w.run(from('10.0.1.9')), 0);
  const list = (): string => readRecent(w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!), 1);
  t.match(list(), /^src=10\.0\.0\.0 /);
  w.load(`*filter
    -A INPUT -p udp -m recent --set --mask 255.255.0.0
    -A INPUT -p tcp -m recent --rcheck --hitcount 40 --mask 255.255.255.0 -j ACCEPT`);
  w.run(packet({ protocol: 17, src: '10.0.1.9' }));
  t.match(list(), /^src=10\.0\.1\.0 /, 'the first rule’s, however large the list');
  t.end();
});

t.test('recent: reap forgets the oldest, not the one being updated', (t) => {
  const { w, ask } = recent('--update --seconds 10 --reap');
  const list = (): string[] =>
    Array.from(
      readRecent(w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!), 1).matchAll(/src=(\S+)/g),
      (found) => found[1]!,
    ).sort();
  w.run(from('10.0.0.1', { protocol: 17 }));
  w.wait(5000);
  w.run(from('10.0.0.2', { protocol: 17 }));
  w.wait(5001);
  t.equal(ask('10.0.0.2'), true);
  t.same(list(), ['10.0.0.2'], '10.0.0.1 was too old');
  w.wait(10_000);
  t.equal(ask('10.0.0.2'), true);
  t.same(list(), ['10.0.0.2']);
  w.wait(10_001);
  t.equal(ask('10.0.0.2'), false);
  t.same(list(), [], 'too old itself, and not updated');
  t.end();
});

t.test('recent: a list holds so many addresses, the one longest untouched goes', (t) => {
  const { w, ask } = recent('--rcheck');
  const knock = (i: number): number => w.run(from(`10.0.${i >> 8}.${i & 255}`, { protocol: 17 }));
  for (let i = 0; i < LIST_ADDRESSES; i++) knock(i);
  knock(0);
  knock(LIST_ADDRESSES);
  t.equal(ask('10.0.0.0'), true, 'touched again');
  t.equal(ask('10.0.0.1'), false);
  t.equal(ask('10.0.0.2'), true);
  for (let i = 0; i < 3 * LIST_ADDRESSES; i++) knock(i);
  t.equal(ask('10.0.1.43'), true);
  t.equal(ask('10.0.0.199'), false);
  t.end();
});

t.test('recent: as the file shows and takes it', (t) => {
  const { w, ask } = recent('--rcheck');
  w.at(5000);
  w.run(from('10.0.0.1', { protocol: 17, ttl: 33 }));
  w.wait(7);
  w.run(from('10.0.0.1', { protocol: 17, ttl: 34 }));
  const list = w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!);
  t.equal(readRecent(list, 1), 'src=10.0.0.1 ttl: 34 last_seen: 5007 oldest_pkt: 2 5000, 5007\n');
  t.equal(writeRecent(list, '+10.0.0.7\n', 6000, 1), true);
  t.equal(ask('10.0.0.7'), true);
  t.equal(writeRecent(list, '-10.0.0.1', 6000, 1), true);
  t.equal(ask('10.0.0.1'), false);
  for (const wrong of ['10.0.0.7', '+10.0.0', '+10.0.0.256', '', '*'])
    t.equal(writeRecent(list, wrong, 6000, 1), false);
  t.equal(ask('10.0.0.7'), true);
  t.equal(writeRecent(list, '/\n', 6000, 1), true);
  t.equal(readRecent(list, 1), '');
  t.end();
});

t.test('recent: thirty-two stamps, the oldest overwritten; months are no trouble', (t) => {
  const { w, ask } = recent('--rcheck --seconds 100');
  for (let i = 0; i < 40; i++) {
    w.wait(1);
    w.run(from('10.0.0.1', { protocol: 17 }));
  }
  const list = w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!);
  t.match(readRecent(list, 1), /oldest_pkt: 8 1000033, .*1000032\n$/);
  w.wait(40 * 86_400_000);
  t.equal(ask('10.0.0.1'), false, 'forty days are more than 2^31 ticks');
  t.end();
});

t.test('recent: lists survive swaps that name them, and a larger hitcount empties them', (t) => {
  const { w, ask } = recent('--rcheck');
  w.run(from('10.0.0.1', { protocol: 17 }));
  const text = (hits: number): string =>
    `*filter\n:INPUT DROP\n-A INPUT -p tcp -m recent --rcheck --hitcount ${hits} -j ACCEPT`;
  w.load(text(1));
  t.equal(ask('10.0.0.1'), true);
  w.load(text(33));
  t.equal(readRecent(w.compiler.regions.get(w.compiler.regions.find('recent/DEFAULT')!), 1), '');
  w.load('*filter\n:INPUT DROP');
  t.equal(w.compiler.regions.find('recent/DEFAULT'), undefined, 'no rule names it any more');
  t.end();
});

t.test('the article’s knocks: port 79, then a ping, open port 22', (t) => {
  const w = new World().load(`*mangle
    -A INPUT -p tcp --dport 79 -m recent --name PHASE1 --set -j ACCEPT
    -A INPUT -p icmp --icmp-type echo-request -m recent --name PHASE1 --seconds 60 --rcheck -j MARK --set-mark 420
    -A INPUT -m mark --mark 420 -m recent --name PHASE1 --remove -j MARK --set-mark 420
    -A INPUT -m mark --mark 420 -m recent --name PHASE2 --set -j ACCEPT
    -A INPUT -m recent --name PHASE2 --seconds 60 --update -j MARK --set-mark 47
    *filter
    -A INPUT -p tcp --dport 22 -m mark --mark 47 -j ACCEPT
    -A INPUT -p tcp --dport 22 -j DROP`);
  const send = (fields: Fields): number => {
    const p = packet(fields);
    return w.run(p, 'INPUT', 'mangle') === 0 ? 0 : w.run(p);
  };
  const ssh = (): number => send({ dport: 22 });
  t.equal(ssh(), 0);
  send({ protocol: 1 });
  t.equal(ssh(), 0, 'a ping alone');
  send({ dport: 79 });
  t.equal(ssh(), 0, 'port 79 alone');
  w.wait(60_001);
  send({ protocol: 1 });
  t.equal(ssh(), 0, 'too late');
  send({ dport: 79 });
  w.wait(60_000);
  send({ protocol: 1 });
  t.equal(ssh(), 1);
  w.wait(60_000);
  t.equal(ssh(), 1, 'each packet keeps it open');
  w.wait(60_001);
  t.equal(ssh(), 0);
  t.end();
});
