/**
 * What runs in a peer's namespace. Modes:
 *   udp-sink PORT             prints "PORT-OF-SENDER TEXT" for each datagram
 *   udp-source HOST PORT      sends each line of its input as a datagram; "*N TEXT" sends N of them, TEXT and a number each
 *   tcp-sink PORT             takes one connection, prints its length and SHA-256
 *   tcp-source HOST PORT N    sends N MiB and prints their length and SHA-256
 * It ends when its input does.
 */
import { createHash, randomBytes } from 'node:crypto';
import dgram from 'node:dgram';
import net from 'node:net';
import readline from 'node:readline';

const [mode, ...args] = process.argv.slice(2);
process.stdin.on('end', () => process.exit()).resume();
const say = (text: string): void => void process.stdout.write(text + '\n');

if (mode === 'udp-sink') {
  const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 4 << 20 });
  socket.on('message', (text, from) => say(`${String(from.port)} ${text.toString('latin1')}`));
  socket.bind(Number(args[0]), () => say('ready'));
} else if (mode === 'udp-source') {
  const socket = dgram.createSocket('udp4');
  socket.bind(0, () => say('ready'));
  readline.createInterface(process.stdin).on('line', (line) => {
    const [, count, text] = /^\*(\d+) (.*)$/.exec(line) ?? [line, '0', line];
    if (count === '0') socket.send(text!, Number(args[1]), args[0]);
    for (let i = 0; i < Number(count); i++) socket.send(`${text!}${String(i)}`, Number(args[1]), args[0]);
  });
} else if (mode === 'tcp-sink') {
  const server = net.createServer((connection) => {
    const hash = createHash('sha256');
    let length = 0;
    connection.on('data', (bytes) => {
      length += bytes.length;
      hash.update(bytes);
    });
    connection.on('end', () => {
      say(`${String(length)} ${hash.digest('hex')}`);
      server.close();
    });
  });
  server.listen(Number(args[0]), () => say('ready'));
} else if (mode === 'tcp-source') {
  const connection = net.connect(Number(args[1]), args[0]);
  const hash = createHash('sha256');
  const block = randomBytes(1 << 20);
  let left = Number(args[2]);
  say('ready');
  const more = (): void => {
    while (left > 0) {
      block.writeUInt32BE(left, 0);
      left--;
      const copy = Buffer.from(block);
      hash.update(copy);
      if (!connection.write(copy)) return;
    }
    connection.end();
    say(`${String(Number(args[2]) * block.length)} ${hash.digest('hex')}`);
  };
  connection.on('connect', more).on('drain', () => {
    if (left > 0) more();
    else if (!connection.writableEnded) more();
  });
} else {
  throw new Error(`unknown mode ${String(mode)}`);
}
