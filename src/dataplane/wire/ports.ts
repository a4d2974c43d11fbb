/** Where transport headers have their ports. */
import { Proto } from '../names.js';

/** Offset of the ports or the SPI in the transport header (proto_ports_offset), −1 where there are none. */
export function portsOffset(protocol: number): number {
  switch (protocol) {
    case Proto.TCP:
    case Proto.UDP:
    case Proto.UDPLITE:
    case Proto.SCTP:
    case Proto.DCCP:
    case Proto.ESP:
      return 0;
    case Proto.AH:
      return 4;
  }
  return -1;
}
