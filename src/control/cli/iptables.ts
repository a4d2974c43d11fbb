/** The command hutter-iptables: a client of the running router. */
import { byteArguments } from './client.js';
import { iptables } from './programs.js';

iptables(byteArguments(2));
