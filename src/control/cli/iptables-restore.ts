/** The command hutter-iptables-restore: a client of the running router. */
import { byteArguments } from './client.js';
import { iptablesRestore } from './programs.js';

iptablesRestore(byteArguments(2));
