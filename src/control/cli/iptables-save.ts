/** The command hutter-iptables-save: a client of the running router. */
import { byteArguments } from './client.js';
import { iptablesSave } from './programs.js';

iptablesSave(byteArguments(2));
