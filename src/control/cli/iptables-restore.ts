/** The command hutter-iptables-restore: a client of the running router. */
import { iptablesRestore } from './programs.js';

iptablesRestore(process.argv.slice(2));
