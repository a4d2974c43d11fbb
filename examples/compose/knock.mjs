/** knock: a web server that tells each caller whom it sees. */
import { createServer } from 'node:http';

createServer((request, response) => {
  response.setHeader('connection', 'close');
  response.end(`knock speaking; you are ${request.socket.remoteAddress}\n`);
}).listen(80, '0.0.0.0');
process.on('SIGTERM', () => process.exit(0));
