/** IP options: one row for each branch of the kernel's reading. */
import t from 'tap';
import { Options, SOURCE_ROUTE } from '../../src/dataplane/wire/options.js';

const PASS = 0;
const NOBODY = { isOurs: () => false };

/** Name, options, and the offset in the IP header of the byte that is wrong. */
const ROWS: [string, string, number][] = [
  ['end of list', '00000000', PASS],
  ['what follows the end is not read', '00ff0000', PASS],
  ['no operation', '01010101', PASS],
  ['a kind without its length', '01010188', 23],
  ['length 1', '88010000', 20],
  ['longer than the header', '88050000', 20],
  ['unknown kind', '88040000', PASS],
  ['record route with room', '0707040000000000', PASS],
  ['record route, full', '0703040000000000', PASS],
  ['record route, pointer before its data', '0707030000000000', 22],
  ['record route, half an address of room', '0706040000000000', 22],
  ['record route twice', '0703040703040000', 23],
  ['timestamp', '4408050000000000', PASS],
  ['timestamp too short', '44030500', 21],
  ['timestamp, pointer before its data', '4408040000000000', 22],
  ['timestamp with address, no room', '4408050100000000', 22],
  ['timestamp with address', '440c0501' + '00'.repeat(8), PASS],
  ['timestamp, overflow at its end', '440409f0', 23],
  ['timestamp at named addresses, full', '440409f3', PASS],
  ['timestamp, overflow', '440409e0', PASS],
  ['router alert', '94040000', PASS],
  ['router alert too short', '94030000', 21],
  ['security label, short', '86030000', 21],
  ['security label of a domain that nobody defined', '8608000000010000', 22],
  ['loose source route', '8307040a01000200', SOURCE_ROUTE],
  ['strict source route', '8907040a01000200', SOURCE_ROUTE],
  ['source route, pointer before its data', '8307030a01000200', 22],
  ['two source routes', '830304890304' + '0000', 23],
];

t.test('what the kernel does with options', (t) => {
  const options = new Options();
  for (const [name, hex, problem] of ROWS) {
    const header = Buffer.concat([Buffer.alloc(20), Buffer.from(hex, 'hex')]);
    t.equal(options.read(header, 0, header.length, false, 0, 0, NOBODY), problem, name);
  }
  t.end();
});
