/**
 * The client's side of the control socket, for commands that must start fast: it imports nothing but node:net and
 * node:fs. A command is one request, a line of JSON; the answer is lines of JSON, each with text for stdout or stderr,
 * the last with the exit code. A client that goes away ends its request.
 */
import { readFileSync, writeSync } from 'node:fs';
import { connect } from 'node:net';

/** What a client asks. Its texts are byte strings, one character a byte (Latin-1), and so are the answer's. */
export interface Request {
  /** `iptables`, `iptables-save`, `iptables-restore`, `conntrack`, `status`, … */
  program: string;
  argv: string[];
  /** Standard input, for programs that read it. */
  stdin?: string;
}

/** A line of the answer. */
export interface Answer {
  stdout?: string;
  stderr?: string;
  /** Present in the last line only. */
  code?: number;
}

export const DEFAULT_CONTROL_PATH = '/run/hutter/control.sock';
/** The iptables whose ways these commands have (text/read.ts has the same number; it is much to load). */
export const TOOL_VERSION = '1.8.9';
/** Exit code when no router answers: iptables' "resource problem". */
export const NO_ROUTER = 4;

/** The command's arguments as bytes: process.argv has lost what isn't UTF-8. `after` of them stand before the arguments. */
export function byteArguments(after: number): string[] {
  const words = readFileSync('/proc/self/cmdline', 'latin1').split('\0');
  // The last one ends with a zero byte, too; options of Node's own stand before the script.
  return words.slice(words.length - 1 - (process.argv.length - after), -1);
}

/** Takes `--control PATH` or `--control=PATH` out of the arguments; else HUTTER_CONTROL, else the default. */
export function takeControl(argv: readonly string[]): { path: string; rest: string[] } {
  let path = Buffer.from(process.env['HUTTER_CONTROL'] || DEFAULT_CONTROL_PATH).toString('latin1');
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (arg === '--control' && i + 1 < argv.length) path = argv[++i]!;
    else if (arg.startsWith('--control=')) path = arg.slice('--control='.length);
    else rest.push(arg);
  }
  return { path: Buffer.from(path, 'latin1').toString(), rest };
}

/** Writes all of it, waiting where the other end of a pipe is slow; a reader that has gone ends the process quietly. */
export function write(fd: number, text: string): void {
  const bytes = Buffer.from(text, 'latin1');
  let done = 0;
  while (done < bytes.length)
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EPIPE') process.exit(141);
      if (code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
}

/** Standard input to its end. */
export function readStdin(): string {
  for (;;)
    try {
      return readFileSync(0, 'latin1');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
}

/** What a command can answer without a router; undefined if it needs one. */
export type Alone = () => Promise<Answer | undefined>;

/**
 * Sends one request, gives each part of the answer to `on`, and returns the exit code through `done`. `alone` is asked
 * when nobody listens, or listens to this user.
 */
export function ask(
  path: string,
  request: Request,
  on: (answer: Answer) => void,
  done: (code: number) => void,
  alone?: Alone,
): void {
  const socket = connect(path);
  let pending = '';
  let code: number | undefined;
  let failure: NodeJS.ErrnoException | undefined;
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => {
    pending += text;
    for (let end = pending.indexOf('\n'); end >= 0; end = pending.indexOf('\n')) {
      const answer = JSON.parse(pending.slice(0, end)) as Answer;
      pending = pending.slice(end + 1);
      if (answer.code !== undefined) code = answer.code;
      on(answer);
      if (code !== undefined) socket.destroy();
    }
  });
  socket.on('error', (error) => (failure = error));
  socket.on('close', () => {
    if (code !== undefined) {
      done(code);
      return;
    }
    const fail = (): void => {
      const forbidden = failure?.code === 'EACCES' ? FORBIDDEN[request.program]?.(request.argv) : undefined;
      on({ stderr: forbidden?.text ?? Buffer.from(trouble(path, failure)).toString('latin1') });
      done(forbidden?.code ?? NO_ROUTER);
    };
    if (alone === undefined || failure === undefined) fail();
    else
      void alone().then((answer) => {
        if (answer?.code === undefined) {
          fail();
          return;
        }
        on(answer);
        done(answer.code);
      });
  });
  socket.write(JSON.stringify(request) + '\n');
}

/** What the real tools say to a user who isn't root: scripts look for it. */
const FORBIDDEN: Readonly<Record<string, (argv: readonly string[]) => { text: string; code: number }>> = {
  iptables: () => ({ text: LOCKED, code: 4 }),
  'iptables-restore': () => ({ text: LOCKED, code: 4 }),
  'iptables-save': (argv) => ({
    text: argv.some((arg) => /^(-t|--table)/.test(arg))
      ? `iptables-save v${TOOL_VERSION} (legacy): Cannot initialize: Permission denied (you must be root)\n`
      : 'Failed to list table names in /proc/net/ip_tables_names: Permission denied\n',
    code: 1,
  }),
};
const LOCKED = "Fatal: can't open lock file /run/xtables.lock: Permission denied\n";

function trouble(path: string, failure: NodeJS.ErrnoException | undefined): string {
  switch (failure?.code) {
    case 'ENOENT':
    case 'ECONNREFUSED':
      return `hutter isn't running: nobody listens at ${path}; start it with \`hutter up\`, or name its socket with --control or HUTTER_CONTROL\n`;
    case 'EACCES':
      return `no permission to speak to the router at ${path}: you must be root\n`;
    case undefined:
      return `the router at ${path} ended before it answered\n`;
    default:
      return `can't speak to the router at ${path}: ${failure!.message}\n`;
  }
}

/** Runs one request as a whole command: the answer's text out, its code as the process's own. */
export function run(path: string, request: Request, alone?: Alone): void {
  ask(
    path,
    request,
    ({ stdout, stderr }) => {
      if (stdout) write(1, stdout);
      if (stderr) write(2, stderr);
    },
    (code) => (process.exitCode = code),
    alone,
  );
}
