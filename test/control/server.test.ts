/** The control socket: framing, order, who may use the path. */
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import t from 'tap';
import { ask, NO_ROUTER, takeControl, type Answer, type Request } from '../../src/control/cli/client.js';
import { claimSocket, ControlServer } from '../../src/control/server.js';

const dir = mkdtempSync(path.join(tmpdir(), 'hutter-server-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

function command(file: string, request: Request): Promise<{ stdout: string; stderr: string; code: number }> {
  return new Promise((resolve) => {
    let stdout = '';
    let stderr = '';
    ask(
      file,
      request,
      (answer) => {
        stdout += answer.stdout ?? '';
        stderr += answer.stderr ?? '';
      },
      (code) => resolve({ stdout, stderr, code }),
    );
  });
}

t.test('a request and its answer', async (t) => {
  const file = path.join(dir, 'deep', 'er', 'control.sock');
  const server = await ControlServer.listen(file, async ({ program, argv, stdin }, reply) => {
    reply.write({ stdout: `${program} ${argv.join(' ')}\n` });
    await Promise.resolve();
    reply.write({ stderr: String(stdin?.length) });
    return 3;
  });
  t.equal(statSync(file).mode & 0o777, 0o600, 'for its owner only');
  const bytes = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join('');
  t.same(await command(file, { program: 'x', argv: ['a', bytes] }), {
    stdout: `x a ${bytes}\n`,
    stderr: 'undefined',
    code: 3,
  });
  const large = 'r'.repeat(3_000_000);
  t.match(await command(file, { program: 'x', argv: [], stdin: large }), { stderr: '3000000', code: 3 });
  await server.close();
  t.notOk(existsSync(file), 'the socket goes with the server');
  t.match(await command(file, { program: 'x', argv: [] }), {
    code: NO_ROUTER,
    stderr: /^hutter isn't running: nobody listens at .*control\.sock; start it with `hutter up`/,
  });
});

t.test('requests of one connection are answered in order, however they arrive', async (t) => {
  const file = path.join(dir, 'order.sock');
  const server = await ControlServer.listen(file, async ({ argv: [ms] }, reply) => {
    await new Promise((resolve) => setTimeout(resolve, Number(ms)));
    reply.write({ stdout: ms! });
    return 0;
  });
  const lines = await new Promise<Answer[]>((resolve) => {
    const socket = connect(file);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
      if (text.split('\n').length === 5) {
        socket.destroy();
        resolve(
          text
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line) as Answer),
        );
      }
    });
    const [first, second] = ['30', '1'].map((ms) => JSON.stringify({ program: 'x', argv: [ms] }) + '\n');
    socket.write(first!.slice(0, 7));
    setImmediate(() => socket.write(first!.slice(7) + second!));
  });
  t.same(lines, [{ stdout: '30' }, { code: 0 }, { stdout: '1' }, { code: 0 }]);
  await server.close();
});

t.test('what is no request is told so; a handler that throws ends only its request', async (t) => {
  const file = path.join(dir, 'bad.sock');
  const server = await ControlServer.listen(file, ({ program }) => {
    if (program === 'throw') throw new Error('defect');
    return Promise.resolve(0);
  });
  const raw = (text: string): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect(file);
      let all = '';
      socket.on('data', (chunk) => {
        all += chunk.toString();
        if (all.includes('code')) {
          socket.destroy();
          resolve(all);
        }
      });
      socket.write(text);
    });
  t.match(await raw('nonsense\n'), /a request is one line of JSON.*\n\{"code":2\}/);
  t.match(await raw('null\n'), /needs `program`/);
  t.match(await raw('{"program":"x"}\n'), /needs `argv`/);
  t.match(await raw('{"program":"x","argv":[1]}\n'), /needs `argv`/);
  t.match(await raw('{"program":"x","argv":[],"stdin":1}\n'), /`stdin` must be a text/);
  t.match(await command(file, { program: 'throw', argv: [] }), { code: 1, stderr: /internal error: Error: defect/ });
  t.match(await command(file, { program: 'x', argv: [] }), { code: 0 });
  await server.close();
});

t.test('a client that goes away aborts its request', async () => {
  const file = path.join(dir, 'abort.sock');
  let aborted: () => void;
  const gone = new Promise<void>((resolve) => (aborted = resolve));
  const server = await ControlServer.listen(file, async (_request, reply) => {
    reply.write({ stdout: 'begun' });
    await new Promise((resolve) => reply.signal.addEventListener('abort', resolve));
    aborted();
    return 0;
  });
  const socket = connect(file);
  socket.once('data', () => socket.destroy());
  socket.write('{"program":"x","argv":[]}\n');
  await gone;
  await server.close();
});

t.test('who has the path', async (t) => {
  const file = path.join(dir, 'claimed.sock');
  const server = await ControlServer.listen(file, () => Promise.resolve(0));
  await t.rejects(claimSocket(file), { name: 'ControlError', message: /^another router listens at .*--control$/ });
  await t.rejects(
    ControlServer.listen(file, () => Promise.resolve(0)),
    { name: 'ControlError' },
  );
  t.match(await command(file, { program: 'x', argv: [] }), { code: 0 }, 'the first one still answers');
  await server.close();

  const plain = path.join(dir, 'plain');
  writeFileSync(plain, '');
  await t.rejects(claimSocket(plain), { message: /exists and is no socket/ });
  t.ok(existsSync(plain));

  // A socket whose listener died: bound in another process's stead by renaming it before the server unlinks it.
  const stale = path.join(dir, 'stale.sock');
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(stale + '.bound', resolve));
  (await import('node:fs')).renameSync(stale + '.bound', stale);
  await new Promise((resolve) => dead.close(resolve));
  t.ok(existsSync(stale));
  const next = await ControlServer.listen(stale, () => Promise.resolve(5));
  t.match(await command(stale, { program: 'x', argv: [] }), { code: 5 });
  await next.close();
});

t.test('naming the router', (t) => {
  t.same(takeControl(['-A', 'INPUT', '--control', '/x', '-j', 'DROP']), {
    path: '/x',
    rest: ['-A', 'INPUT', '-j', 'DROP'],
  });
  t.same(takeControl(['--control=/y', '-S']), { path: '/y', rest: ['-S'] });
  process.env['HUTTER_CONTROL'] = '/from/env';
  t.same(takeControl(['-S']), { path: '/from/env', rest: ['-S'] });
  process.env['HUTTER_CONTROL'] = '';
  t.same(takeControl(['-S']), { path: '/run/hutter/control.sock', rest: ['-S'] });
  t.end();
});
