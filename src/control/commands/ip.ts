/**
 * What `hutter route` and `hutter rule` have in common: iproute2's way with words (version 6.1) on routing tables of the
 * router's own. Options may come in any order, most may be cut short, numbers are decimal, octal or hexadecimal; errors have
 * iproute2's texts and exit codes: 1 a name or address, 2 what the tables refuse, 255 wrong usage.
 */
import type { Link } from '../../dataplane/interfaces.js';
import { type Fib, RouteError } from '../../dataplane/route/fib.js';
import type { Errno } from '../../dataplane/route/routes.js';
import { maskBits } from '../text/address.js';

export const REFUSED = 2;
export const USAGE = 255;

/** Ends a command; the message is what goes to its stderr. */
export class IpError extends Error {
  override readonly name = 'IpError';
  constructor(
    readonly code: number,
    text: string,
  ) {
    super(text);
  }
}

/** What a command works on. */
export interface RoutingView {
  readonly fib: Fib;
  /** The router's interfaces, `lo` among them. */
  links(): readonly Link[];
  /** Why a packet with this source would be refused (a positive errno) when it comes in by `iif`; 0 = it wouldn't be. */
  sourceErrno(dst: number, src: number, iif: number, mark: number, tos: number): number;
}

/** What a command leaves behind. */
export interface Printed {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a command's body and gives its errors the form that `ip` gives them; in steps, between which other things can be
 * done.
 */
export function* printed(body: (print: (text: string) => void) => Iterable<void>): Generator<void, Printed> {
  let stdout = '';
  try {
    yield* body((text) => void (stdout += text));
    return { code: 0, stdout, stderr: '' };
  } catch (error) {
    return failed(error, stdout);
  }
}

function failed(error: unknown, stdout: string): Printed {
  if (error instanceof IpError) return { code: error.code, stdout, stderr: error.message };
  if (error instanceof RouteError) return { code: REFUSED, stdout, stderr: refusal(error) };
  throw error;
}

const ROUTES_A_STEP = 256;

/** As they come, in steps. */
export function* inSteps<T>(items: Iterable<T>, each: (item: T) => void): Generator<void> {
  let count = 0;
  for (const item of items) {
    each(item);
    if (++count % ROUTES_A_STEP === 0) yield;
  }
}

const refusal = ({ detail, message }: RouteError): string =>
  detail === '' ? `RTNETLINK answers: ${message}\n` : `Error: ${detail}.\n`;

export const answers = (errno: number): string => refusal(new RouteError(errno as Errno));

export const wrong = (argument: string, what: string): IpError =>
  new IpError(USAGE, `Error: argument "${argument}" is wrong: ${what}\n`);

/** An option that hutter's routes and rules don't have: refused, never ignored. */
export const lacking = (program: string, option: string): IpError =>
  new IpError(1, `hutter: ${program}: \`${option}' is nothing that hutter's ${program}s can have\n`);

/** iproute2's matches(): `word` may be cut short. */
export const matches = (word: string, name: string): boolean => word !== '' && name.startsWith(word);

/** The words of a command, taken one by one. */
export class Words {
  private at = 0;
  /** No other family than IPv4 can follow, as an address of it has been read. */
  family = false;

  constructor(private readonly words: readonly string[]) {}

  get left(): number {
    return this.words.length - this.at;
  }

  /** The next word. @throws IpError when there is none */
  next(): string {
    const word = this.words[this.at];
    if (word === undefined) throw new IpError(USAGE, 'Command line is not complete. Try option "help"\n');
    this.at++;
    return word;
  }

  peek(): string | undefined {
    return this.words[this.at];
  }

  /** An address, `via`'s or `src`'s. */
  address(): number {
    const word = this.next();
    const address = looseAddress(word);
    if (address === undefined)
      throw new IpError(1, `Error: ${this.family ? 'inet' : 'any valid'} address is expected rather than "${word}".\n`);
    this.family = true;
    return address;
  }

  /** `default`, `10.0.0.0/8`, `10.1` (which is 10.1.0.0/32); `word`: one that was taken already. */
  prefix(word = this.next()): { address: number; length: number } {
    const prefix = readPrefix(word);
    if (prefix === undefined)
      throw new IpError(1, `Error: ${this.family ? 'inet' : 'any valid'} prefix is expected rather than "${word}".\n`);
    this.family = true;
    return prefix;
  }

  /** A number from 0 to `most`. */
  number(what: string, most = 0xffffffff): number {
    const word = this.next();
    const number = readNumber(word);
    if (number === undefined || number > most) throw wrong(word, what);
    return number;
  }

  /** One of the names, or a number from 0 to `most`. */
  named(names: Readonly<Record<string, number>>, what: string, most: number): number {
    const word = this.next();
    const number = Object.hasOwn(names, word) ? names[word]! : readNumber(word);
    if (number === undefined || number > most) throw wrong(word, what);
    return number;
  }

  /** A TOS, which is hexadecimal with or without 0x. */
  tos(what: string): number {
    const word = this.next();
    if (!/^(0x)?[0-9a-f]{1,2}$/i.test(word)) throw wrong(word, what);
    return Number.parseInt(word, 16);
  }

  /** An interface that is there. */
  device(links: readonly Link[]): Link {
    const name = this.next();
    const link = links.find((candidate) => candidate.name === name);
    if (link === undefined) throw new IpError(1, `Cannot find device "${name}"\n`);
    return link;
  }
}

const ZERO = 48;
const NINE = 57;
const DOT = 46;

/** A number without signs and leading zeros, of up to nine digits, at word[from, to); −1: it is none of these. */
function plainNumber(word: string, from: number, to: number): number {
  const length = to - from;
  if (length < 1 || length > 9 || (length > 1 && word.charCodeAt(from) === ZERO)) return -1;
  let number = 0;
  for (let i = from; i < to; i++) {
    const digit = word.charCodeAt(i);
    if (digit < ZERO || digit > NINE) return -1;
    number = number * 10 + digit - ZERO;
  }
  return number;
}

/** Decimal, octal or hexadecimal, as strtoul(3) with base 0. */
export function readNumber(word: string): number | undefined {
  // A million routes are read by this.
  const plain = plainNumber(word, 0, word.length);
  if (plain >= 0) return plain;
  if (/^0x[0-9a-f]{1,8}$/i.test(word)) return Number(word);
  if (/^0[0-7]+$/.test(word)) return Number.parseInt(word, 8);
  return /^(0|[1-9]\d{0,9})$/.test(word) && Number(word) <= 0xffffffff ? Number(word) : undefined;
}

/** Four plain numbers; undefined: it is written otherwise, or no address. */
function plainAddress(word: string): number | undefined {
  let address = 0;
  for (let from = 0, part = 0; part < 4; part++) {
    let to = from;
    while (to < word.length && word.charCodeAt(to) !== DOT) to++;
    const number = plainNumber(word, from, to);
    if (number < 0 || number > 255 || part < 3 === (to === word.length)) return undefined;
    address = (address << 8) | number;
    from = to + 1;
  }
  return address;
}

/** Up to four numbers; those that are missing are 0. */
function looseAddress(word: string): number | undefined {
  if (word === 'default' || word === 'any' || word === 'all') return 0;
  const plain = plainAddress(word);
  if (plain !== undefined) return plain;
  const parts = word.split('.').map(readNumber);
  if (parts.length > 4 || parts.some((part) => part === undefined || part > 255)) return undefined;
  return parts.reduce<number>((address, part, i) => address | (part! << (24 - i * 8)), 0);
}

function readPrefix(word: string): { address: number; length: number } | undefined {
  if (word === 'default' || word === 'any' || word === 'all') return { address: 0, length: 0 };
  const slash = word.indexOf('/');
  const mask = slash < 0 ? undefined : word.slice(slash + 1);
  const address = looseAddress(slash < 0 ? word : word.slice(0, slash));
  if (address === undefined) return undefined;
  if (mask === undefined) return { address, length: 32 };
  const number = readNumber(mask);
  if (number !== undefined) return number <= 32 ? { address, length: number } : undefined;
  const dotted = mask.includes('.') ? looseAddress(mask) : undefined;
  const length = dotted === undefined ? -1 : maskBits(dotted);
  return length < 0 ? undefined : { address, length };
}
