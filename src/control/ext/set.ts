/** -m set: addresses in a set of ipset(8). Reads its own options. (libxt_set.c revision 4, xt_set.c) */
import { scanUnsigned } from '../text/numbers.js';
import { problem } from '../text/problem.js';
import { bang, string } from './args.js';
import { defineMatch, option, type Option, type OptionCall } from './record.js';

type Comparison = { how: 'eq' | 'ne' | 'lt' | 'gt'; value: bigint } | null;

export interface SetData {
  name: string;
  invert: boolean;
  /** Which address or port each dimension looks at. */
  dimensions: ('src' | 'dst')[];
  returnNoMatch: boolean;
  keepCounters: boolean;
  keepSubCounters: boolean;
  packets: Comparison;
  bytes: Comparison;
}

const MAX_NAME = 31;
const MAX_DIMENSIONS = 6;

/** A list of src and dst; what follows the first three letters is not looked at. */
export function parseDimensions(text: string): ('src' | 'dst')[] {
  const words = text.split(',');
  const found = words.slice(0, MAX_DIMENSIONS).map((word) => {
    const side = word.slice(0, 3);
    return side === 'src' || side === 'dst'
      ? side
      : problem("You must spefify (the comma separated list of) 'src' or 'dst'.");
  });
  if (words.length > MAX_DIMENSIONS) problem(`Can't be more src/dst options than ${MAX_DIMENSIONS}.`);
  return found;
}

/** The set's name, as its option's argument. */
export function setName(name: string): string {
  if (name.length > MAX_NAME) problem(`setname \`${name}' too long, max ${MAX_NAME} characters.`);
  return name;
}

const counterOption = (counter: 'packets' | 'bytes', how: 'eq' | 'lt' | 'gt'): Option<SetData> =>
  option<SetData, string>({
    name: `${counter}-${how}`,
    arg: string(),
    invert: true,
    set: (data, text, { invert }) => {
      if (data[counter] !== null) problem(`only one of the --${counter}-[eq|lt|gt] is allowed`);
      if (invert && how !== 'eq') problem(`--${counter}-${how} option cannot be inverted`);
      const found = scanUnsigned(text);
      if (!found || found.end !== text.length) problem(`Cannot parse ${text} as a counter value`);
      data[counter] = { how: invert ? 'ne' : how, value: found.value };
    },
  });

function match(data: SetData, name: string, { invert, nextWord }: OptionCall<SetData>): void {
  if (data.dimensions.length > 0) problem('--match-set can be specified only once');
  const sides = nextWord() ?? problem('--match-set requires two args.');
  data.name = setName(name);
  data.dimensions = parseDimensions(sides);
  if (invert) data.invert = true;
}

function counterText(comparison: Comparison, name: string, dashes: string): string {
  if (comparison === null) return '';
  const { how, value } = comparison;
  return `${bang(how === 'ne')} ${dashes}${name}-${how === 'ne' ? 'eq' : how} ${value}`;
}

const text = (data: SetData, dashes: string): string =>
  `${bang(data.invert)} ${dashes}match-set ${data.name} ${data.dimensions.join(',')}` +
  (data.returnNoMatch ? ` ${dashes}return-nomatch` : '') +
  (data.keepCounters ? ` ! ${dashes}update-counters` : '') +
  (data.keepSubCounters ? ` ! ${dashes}update-subcounters` : '') +
  counterText(data.packets, 'packets', dashes) +
  counterText(data.bytes, 'bytes', dashes);

export const set = defineMatch<SetData>({
  name: 'set',
  revision: 4,
  plain: true,
  init: () => ({
    name: '',
    invert: false,
    dimensions: [],
    returnNoMatch: false,
    keepCounters: false,
    keepSubCounters: false,
    packets: null,
    bytes: null,
  }),
  options: [
    option({ name: 'match-set', arg: string(), invert: true, set: match }),
    option({
      name: 'set',
      arg: string(),
      invert: true,
      set: (data, name, call) => {
        call.warn('--set option deprecated, please use --match-set\n');
        match(data, name, call);
      },
    }),
    option({
      name: 'return-nomatch',
      invert: true,
      set: (data, _value, { invert }) => {
        if (invert) problem('--return-nomatch flag cannot be inverted');
        data.returnNoMatch = true;
      },
    }),
    option({
      name: 'update-counters',
      invert: true,
      set: (data, _value, { invert }) => {
        if (invert) data.keepCounters = true;
      },
    }),
    ...(['packets', 'bytes'] as const).flatMap((counter) =>
      (['eq', 'lt', 'gt'] as const).map((how) => counterOption(counter, how)),
    ),
    option({
      name: 'update-subcounters',
      invert: true,
      set: (data, _value, { invert }) => {
        if (invert) data.keepSubCounters = true;
      },
    }),
  ],
  finalCheck: (data) => {
    if (data.dimensions.length === 0) problem("You must specify `--match-set' with proper arguments");
  },
  save: (data) => text(data, '--'),
  print: (data) => text(data, ''),
  help: `set match options:
 [!] --match-set name flags [--return-nomatch]
   [! --update-counters] [! --update-subcounters]
   [[!] --packets-eq value | --packets-lt value | --packets-gt value
   [[!] --bytes-eq value | --bytes-lt value | --bytes-gt value
		 'name' is the set name from to match,
		 'flags' are the comma separated list of
		 'src' and 'dst' specifications.
`,
  cannot: () => "the sets of ipset(8) are the kernel's",
});
