/** The log's file: what becomes of lines that can't be written. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import t from 'tap';
import { LogFile } from '../../src/control/logfile.js';

/** A disk with so many bytes left. */
class Disk {
  text = '';
  constructor(public left: number) {}
  readonly write = (_fd: number, bytes: Uint8Array): number => {
    if (this.left === 0) throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' });
    const written = Math.min(this.left, bytes.length);
    this.text += Buffer.from(bytes.subarray(0, written)).toString('latin1');
    this.left -= written;
    return written;
  };
}

t.test('lines are appended, byte for byte', (t) => {
  const file = path.join(t.testdir({ log: 'before\n' }), 'log');
  const said: string[] = [];
  const log = new LogFile(file, (text) => said.push(text));
  log.line('a \xe9');
  log.line('b');
  t.equal(readFileSync(file, 'latin1'), 'before\na \xe9\nb\n');
  t.same([log.lost, said], [0, []]);
  t.end();
});

t.test('a full disk: told once, counted, and told when it is over; no line is glued to another', (t) => {
  const disk = new Disk(9);
  const said: string[] = [];
  const log = new LogFile('-', (text) => said.push(text), disk.write);
  log.line('first');
  log.line('second');
  log.line('third');
  t.equal(disk.text, 'first\nsec');
  t.same([log.lost, said], [2, ["LOG lines are lost: can't write to the log -: no space left on the device"]]);
  disk.left = 1;
  log.line('fourth');
  t.equal(disk.text, 'first\nsec\n', 'room for the line feed alone');
  disk.left = 100;
  log.line('fifth');
  log.line('sixth');
  t.equal(disk.text, 'first\nsec\nfifth\nsixth\n');
  t.same([log.lost, said.slice(1)], [3, ['the log - is written again; 3 lines were lost']]);
  t.end();
});

t.test('what is no error of the system is a defect', (t) => {
  const log = new LogFile(
    '-',
    () => undefined,
    () => {
      throw new TypeError('a defect');
    },
  );
  t.throws(() => log.line('x'), new TypeError('a defect'));
  t.end();
});
