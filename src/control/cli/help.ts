/** What hutter's own commands say of themselves, router or not. Loaded by the client only when it is asked. */
import { HELP as ROUTE } from '../commands/iproute.js';
import { HELP as RULE } from '../commands/iprule.js';
import { HELP as CONNTRACK } from '../conntrack.js';
import { HELP as RECENT } from '../recent.js';
import { HELP as SYSCTL } from '../sysctl.js';

export const HELP = { conntrack: CONNTRACK, recent: RECENT, route: ROUTE, rule: RULE, sysctl: SYSCTL } as const;
