/**
 * The layer under iptables-restore's commands: a file into lines as fgets gives them, a line into words with quotes,
 * counters in brackets (iptables-restore.c, xshared.c). Byte strings.
 */
import { problem } from './problem.js';

/** fgets' buffer in the tool, less the NUL: a longer line goes on as a line of its own. */
const LINE_BYTES = 10239;
/** Longest word, in bytes. */
const WORD_BYTES = 1023;
/** Most words of a command, the program's name included. */
export const MAX_WORDS = 254;

/** A line with its line feed, if it has one; ends early at a NUL. */
export function* splitLines(text: string): Generator<string> {
  let at = 0;
  while (at < text.length) {
    const feed = text.indexOf('\n', at);
    const end = Math.min(feed < 0 ? text.length : feed + 1, at + LINE_BYTES);
    const line = text.slice(at, end);
    const nul = line.indexOf('\0');
    yield nul < 0 ? line : line.slice(0, nul);
    at = end;
  }
}

/** The words between blanks, tabs and line feeds (strtok). */
export const plainWords = (text: string): string[] => text.split(/[ \t\n]+/).filter((word) => word !== '');

/** Blank, tab or line feed: what parts words. */
const isBlank = (c: number): boolean => c === 32 || c === 9 || c === 10;

/** A word and the offset at which it begins. */
export interface Word {
  readonly text: string;
  readonly at: number;
}

/** The words of a rule: double quotes hold blanks together, a backslash within them takes the next byte as it is. */
export function wordsAt(text: string, room = MAX_WORDS): Word[] {
  return text.includes('"') ? quotedWords(text, room) : unquotedWords(text, room);
}

function unquotedWords(text: string, room: number): Word[] {
  const words: Word[] = [];
  for (let at = 0; at < text.length; at++) {
    if (isBlank(text.charCodeAt(at))) continue;
    let end = at + 1;
    while (end < text.length && !isBlank(text.charCodeAt(end))) end++;
    if (end - at > WORD_BYTES) problem('Parameter too long!');
    if (words.length >= room) problem('Parser cannot handle more arguments');
    words.push({ text: text.slice(at, end), at });
    at = end;
  }
  return words;
}

function quotedWords(text: string, room: number): Word[] {
  const words: Word[] = [];
  let word = '';
  let at = -1;
  let quoted = false;
  let escaped = false;
  const end = (): void => {
    if (words.length >= room) problem('Parser cannot handle more arguments');
    words.push({ text: word, at });
    word = '';
    at = -1;
  };
  const add = (byte: string): void => {
    word += byte;
    if (word.length > WORD_BYTES) problem('Parameter too long!');
  };
  for (let i = 0; i < text.length; i++) {
    const byte = text[i]!;
    if (at < 0 && !isBlank(byte.charCodeAt(0))) at = i;
    if (quoted) {
      if (escaped) {
        add(byte);
        escaped = false;
      } else if (byte === '\\') {
        escaped = true;
      } else if (byte === '"') {
        // A closing quote ends the word, be it empty.
        quoted = false;
        end();
      } else {
        add(byte);
      }
    } else if (byte === '"') {
      quoted = true;
    } else if (byte === ' ' || byte === '\t' || byte === '\n') {
      if (word !== '') end();
    } else {
      add(byte);
    }
  }
  if (word !== '') end();
  return words;
}

/** Nothing is quoted, blanks and line feeds alone part words, and none is too long. */
export const isPlain = (text: string): boolean =>
  text.length <= WORD_BYTES && !text.includes('"') && !text.includes('\t');

/** The words of a plain line with one blank between any two; undefined for other lines. */
export function evenWords(text: string): string[] | undefined {
  if (!isPlain(text)) return undefined;
  const feed = text.indexOf('\n');
  if (feed >= 0 && feed < text.length - 1) return undefined;
  const line = feed < 0 ? text : text.slice(0, feed);
  if (line === '' || line.includes('  ') || line.startsWith(' ') || line.endsWith(' ')) return undefined;
  return line.split(' ');
}

/** As `wordsAt`, without the offsets. */
export function splitWords(text: string, room = MAX_WORDS): string[] {
  const words = evenWords(text);
  if (words !== undefined && words.length <= room) return words;
  return wordsAt(text, room).map((word) => word.text);
}

/** `[PACKETS:BYTES]` before a rule: the two texts, and what follows. */
export function splitCounters(
  text: string,
  line: number,
): { packets: string; bytes: string; rest: string } | undefined {
  if (!text.startsWith('[')) return undefined;
  const close = text.indexOf(']');
  if (close < 0) problem(`Bad line ${line}: need ]`);
  // strtok passes over delimiters in front, and cuts the line where it stops.
  const first = /[^:]/.exec(text.slice(1));
  if (!first) problem(`Bad line ${line}: need :`);
  const start = 1 + first.index;
  const colon = text.indexOf(':', start);
  if (colon < 0) problem(`Bad line ${line}: need ]`);
  const second = /[^\]]/.exec(text.slice(colon + 1));
  if (!second) problem(`Bad line ${line}: need ]`);
  const bytesAt = colon + 1 + second.index;
  const end = text.indexOf(']', bytesAt);
  // The blank behind the bracket is of no word.
  const after = text[close + 1] === ' ' ? close + 2 : close + 1;
  const cut = colon > close ? colon : end > close ? end : text.length;
  return {
    packets: text.slice(start, colon),
    bytes: text.slice(bytesAt, end < 0 ? text.length : end),
    rest: text.slice(after, Math.max(cut, after)),
  };
}
