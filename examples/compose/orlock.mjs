/** orlock: fetches the page named by the first argument every two seconds, and answers on port 6346. */
/* global fetch, AbortSignal, setInterval */
import { createServer } from 'node:net';

const url = process.argv[2];
createServer((socket) => socket.end(`orlock speaking; you are ${socket.remoteAddress}\n`)).listen(6346, '0.0.0.0');

async function fetchPage() {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(1500) });
    console.log((await response.text()).trim());
  } catch (error) {
    console.log(`no page from ${url}: ${error.cause?.message ?? error.message}`);
  }
}
setInterval(fetchPage, 2000);
process.on('SIGTERM', () => process.exit(0));
