/** The command hutter-iptables: a client of the running router. */
import { iptables } from './programs.js';

iptables(process.argv.slice(2));
