/**
 * The npm package `nfqueue` accepting every packet of queue ARGV[2]: one callback and one verdict a packet, as its
 * README does it. A program of its own, run by the bench. Prints "ready"; ends at SIGTERM.
 */
import { createRequire } from 'node:module';

interface NfQueue {
  createQueueHandler(
    number: number,
    bufferBytes: number,
    onPacket: (packet: { setVerdict(verdict: number): void }) => void,
  ): unknown;
  readonly NF_ACCEPT: number;
}

const nfqueue = createRequire(import.meta.url)('nfqueue') as NfQueue;
const accept = nfqueue.NF_ACCEPT;
nfqueue.createQueueHandler(Number(process.argv[2]), 16 << 20, (packet) => packet.setVerdict(accept));
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
