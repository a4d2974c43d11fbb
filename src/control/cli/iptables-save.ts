/** The command hutter-iptables-save: a client of the running router. */
import { iptablesSave } from './programs.js';

iptablesSave(process.argv.slice(2));
