/** What each thin client sends; shared by `hutter NAME …` and the commands of their own. Arguments are byte strings. */
import { readFileSync } from 'node:fs';
import type * as Help from './help.js';
import { readStdin, run, takeControl, TOOL_VERSION, write, type Request } from './client.js';

export function iptables(argv: readonly string[]): void {
  const { path, rest } = takeControl(argv);
  // Scripts ask for the version before anything runs.
  if (rest.length === 1 && /^(-V|--version)$/.test(rest[0]!)) write(1, `iptables v${TOOL_VERSION} (legacy)\n`);
  else runTool(path, { program: 'iptables', argv: rest });
}

export function iptablesSave(argv: readonly string[]): void {
  const { path, rest } = takeControl(argv);
  runTool(path, { program: 'iptables-save', argv: rest });
}

/** iptables-restore's options that take a value in the next argument; `-w` and `-W` take one only when it is a number. */
const WITH_VALUE = /^(-[a-zA-Z]*[tTM]|--table|--modprobe)$/;
const WITH_NUMBER = /^(-[wW]|--wait|--wait-interval)$/;

/** The rules come from the file that is named, or from standard input. */
export function iptablesRestore(argv: readonly string[]): void {
  const { path, rest } = takeControl(argv);
  const request: Request = { program: 'iptables-restore', argv: rest };
  const help = rest.some((arg) => /^(-h|-V|--help|--version)$/.test(arg));
  if (!help) {
    const file = positional(rest);
    try {
      request.stdin = file === undefined ? readStdin() : readFileSync(Buffer.from(file, 'latin1'), 'latin1');
    } catch (error) {
      write(2, `Can't open ${file ?? 'standard input'}: ${strerror(error)}\n`);
      process.exitCode = 1;
      return;
    }
  }
  runTool(path, request);
}

/** Help, version and wrong options need no router. */
function runTool(path: string, request: Request): void {
  run(path, request, async () => (await import('./offline.js')).answerAlone(request));
}

function positional(argv: readonly string[]): string | undefined {
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (arg === '--') return argv[i + 1];
    if (WITH_VALUE.test(arg) || (WITH_NUMBER.test(arg) && /^\d+$/.test(argv[i + 1] ?? ''))) i++;
    else if (!arg.startsWith('-')) return arg;
  }
  return undefined;
}

const strerror = (error: unknown): string => {
  const { code, message } = error as NodeJS.ErrnoException;
  const texts: Record<string, string> = {
    ENOENT: 'No such file or directory',
    EACCES: 'Permission denied',
    EISDIR: 'Is a directory',
  };
  return texts[code ?? ''] ?? message;
};

type OwnRequest = Request & { program: keyof typeof Help.HELP };

/** A command whose answer is all in the router. */
const asks =
  (program: OwnRequest['program']) =>
  (argv: readonly string[]): void => {
    const { path, rest } = takeControl(argv);
    runOwn(path, { program, argv: rest });
  };

export const conntrack = asks('conntrack');
export const recent = asks('recent');
export const sysctl = asks('sysctl');
export const rule = asks('rule');

export function status(argv: readonly string[]): void {
  const { path, rest } = takeControl(argv);
  run(path, { program: 'status', argv: rest });
}

/** `--help` needs no router, nor does what iproute2 says to `help`: text on stderr, code 255. */
function runOwn(path: string, request: OwnRequest): void {
  const { program, argv } = request;
  const asked = argv.some((arg) => arg === '-h' || arg === '--help');
  const word = (program === 'route' || program === 'rule') && argv[0] === 'help';
  if (!asked && !word) run(path, request);
  else
    void import('./help.js').then(({ HELP }) => {
      write(asked ? 1 : 2, HELP[program]);
      process.exitCode = asked ? 0 : 255;
    });
}

export function route(argv: readonly string[]): void {
  const { path, rest } = takeControl(argv);
  const request: OwnRequest = { program: 'route', argv: rest };
  if (rest[0] === '-batch' || rest[0] === '-b') {
    const file = rest[1] ?? '-';
    try {
      request.stdin = file === '-' ? readStdin() : readFileSync(Buffer.from(file, 'latin1'), 'latin1');
    } catch (error) {
      write(2, `Cannot open file "${file}" for reading: ${strerror(error)}\n`);
      process.exitCode = 1;
      return;
    }
  }
  runOwn(path, request);
}
