/**
 * Addresses that no packet on a wire may have, as input routing refuses them (net/ipv4/route.c, ip_route_input_slow).
 * What depends on the router's own addresses is route/routes.ts' business.
 */

const isMulticast = (address: number): boolean => address >>> 28 === 0xe;
/** 127.0.0.0/8. */
export const isLoopback = (address: number): boolean => address >>> 24 === 127;

/** Whether no neighbour can have sent this. DHCP's 0.0.0.0 to 255.255.255.255 and link-local multicast can be. */
export function isMartianSource(src: number, dst: number): boolean {
  if (isMulticast(src) || src === -1 || isLoopback(src)) return true;
  // The rest of 0.0.0.0/8 are addresses like others (ipv4_is_zeronet, since 5.3).
  if (src !== 0) return false;
  return !(dst === -1 || dst === 0 || dst >>> 8 === 0xe00000);
}

export const isMartianDestination = (src: number, dst: number): boolean => isLoopback(dst) || (dst === 0 && src !== 0);
