/**
 * For its effect on the thread that loads it, before anything is optimized: V8 stops inlining into a function after 920
 * bytes of bytecode, which is a third of a packet's way; the calls that remain cost as much as what they do (0.30 µs a
 * packet with filter rules against 0.19). Read at each optimization.
 */
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--max-inlined-bytecode-size-cumulative=4000');
