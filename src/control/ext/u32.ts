/** -m u32: 32 bits read anywhere, masked, shifted and followed. (libxt_u32.c, xt_u32.c) */
import { encodeU32, U32Operator } from '../../dataplane/program/u32.js';
import { MatchOp } from '../../dataplane/program/ops.js';
import { prefixNumber } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option } from './record.js';

export interface U32Data {
  tests: {
    /** The first step's operator means nothing. Numbers are uint32. */
    location: { operator: U32Operator; number: number }[];
    values: { min: number; max: number }[];
  }[];
  invert: boolean;
}

const MAX = 10;
const SIGNS: Readonly<Record<U32Operator, string>> = {
  [U32Operator.AND]: '&',
  [U32Operator.LEFT_SHIFT]: '<<',
  [U32Operator.RIGHT_SHIFT]: '>>',
  [U32Operator.AT]: '@',
};

/**
 * tests := location = value {&& location = value}, value := range {, range}, range := number [: number],
 * location := number {operator number}. Complaints count characters as the tool does.
 */
class Reader {
  private at = 0;
  constructor(private readonly text: string) {}

  private complain(what: string): never {
    return problem(`u32: at char ${this.at}: ${what}`);
  }
  private blanks(): void {
    while (/[ \t-\r]/.test(this.text[this.at] ?? '')) this.at++;
  }
  private number(): number {
    const found = prefixNumber(this.text.slice(this.at)) ?? this.complain('not a number or out of range');
    this.at += found.end;
    return found.value;
  }
  /** The second character of `&&`, `<<` and `>>`. */
  private twice(sign: string): void {
    if (this.text[++this.at] !== sign) this.complain(`a second '${sign}' was expected`);
  }
  private operator(): U32Operator {
    switch (this.text[this.at]) {
      case '&':
        this.at++;
        return U32Operator.AND;
      case '<':
        this.twice('<');
        this.at++;
        return U32Operator.LEFT_SHIFT;
      case '>':
        this.twice('>');
        this.at++;
        return U32Operator.RIGHT_SHIFT;
      case '@':
        this.at++;
        return U32Operator.AT;
      default:
        return this.complain('operator expected');
    }
  }

  private location(): U32Data['tests'][number]['location'] {
    const location: U32Data['tests'][number]['location'] = [];
    for (;;) {
      this.blanks();
      if (this.at >= this.text.length) problem('u32: abrupt end of input after location specifier');
      if (this.text[this.at] === '=') {
        if (location.length === 0) this.complain('location spec missing');
        this.at++;
        return location;
      }
      const operator = location.length === 0 ? U32Operator.AND : this.operator();
      location.push({ operator, number: this.number() });
      if (location.length > MAX) this.complain('too many operators');
    }
  }

  /** The values of a test; whether another test follows. */
  private values(values: { min: number; max: number }[]): boolean {
    for (;;) {
      this.blanks();
      if (this.at >= this.text.length) {
        if (values.length === 0) problem('u32: test ended with no value specified');
        return false;
      }
      if (this.text[this.at] === '&') {
        this.twice('&');
        if (values.length === 0) this.complain('value spec missing');
        return true;
      }
      if (values.length > 0) {
        if (this.text[this.at] !== ',') this.complain('expected "," or "&&"');
        this.at++;
      }
      const min = this.number();
      this.blanks();
      let max = min;
      if (this.text[this.at] === ':') {
        this.at++;
        max = this.number();
      }
      values.push({ min, max });
      if (values.length > MAX) this.complain('too many ","s');
    }
  }

  read(): U32Data['tests'] {
    const tests: U32Data['tests'] = [];
    for (;;) {
      const test: U32Data['tests'][number] = { location: this.location(), values: [] };
      const more = this.values(test.values);
      tests.push(test);
      if (tests.length > MAX) this.complain('too many "&&"s');
      if (!more) return tests;
      this.at++;
    }
  }
}

const hex = (value: number): string => `0x${value.toString(16)}`;
const format = (tests: U32Data['tests']): string =>
  `"${tests
    .map(
      ({ location, values }) =>
        location.map(({ operator, number }, i) => (i === 0 ? '' : SIGNS[operator]) + hex(number)).join('') +
        '=' +
        values.map(({ min, max }) => (min === max ? hex(min) : `${hex(min)}:${hex(max)}`)).join(','),
    )
    .join('&&')}"`;

export const u32 = defineMatch<U32Data>({
  name: 'u32',
  init: () => ({ tests: [], invert: false }),
  options: [
    option({
      name: 'u32',
      arg: string(),
      invert: true,
      mandatory: true,
      set: (data, text, { invert }) => {
        data.tests = new Reader(text).read();
        data.invert = invert;
      },
    }),
  ],
  save: ({ tests, invert }) => `${bang(invert)} --u32 ${format(tests)}`,
  print: ({ tests, invert }) => ` u32${bang(invert)} ${format(tests)}`,
  help: `u32 match options:
[!] --u32 tests
		tests := location "=" value | tests "&&" location "=" value
		value := range | value "," range
		range := number | number ":" number
		location := number | location operator number
		operator := "&" | "<<" | ">>" | "@"
`,
  compile: ({ tests, invert }, emit) => emit.test(MatchOp.U32, encodeU32(tests, invert)),
});
