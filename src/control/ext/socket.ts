/** -m socket: packets that a local socket waits for. (libxt_socket.c revision 3, xt_socket.c) */
import { defineMatch, option } from './record.js';

export interface SocketData {
  transparent: boolean;
  nowildcard: boolean;
  restoreMark: boolean;
}

const text = ({ transparent, nowildcard, restoreMark }: SocketData): string =>
  (transparent ? ' --transparent' : '') +
  (nowildcard ? ' --nowildcard' : '') +
  (restoreMark ? ' --restore-skmark' : '');

export const socket = defineMatch<SocketData>({
  name: 'socket',
  revision: 3,
  hooks: ['PREROUTING', 'INPUT'],
  init: () => ({ transparent: false, nowildcard: false, restoreMark: false }),
  options: [
    option({
      name: 'transparent',
      set: (data) => {
        data.transparent = true;
      },
    }),
    option({
      name: 'nowildcard',
      set: (data) => {
        data.nowildcard = true;
      },
    }),
    option({
      name: 'restore-skmark',
      set: (data) => {
        data.restoreMark = true;
      },
    }),
  ],
  save: text,
  print: (data) => ` socket${text(data)}`,
  help: `socket match options:
  --nowildcard     Do not ignore LISTEN sockets bound on INADDR_ANY
  --transparent    Ignore non-transparent sockets
  --restore-skmark Set the packet mark to the socket mark if
                   the socket matches and transparent / 
                   nowildcard conditions are satisfied

`,
  cannot: () => 'it needs a look at the sockets of the machine, which only the kernel can take',
});
