/**
 * The network of the tests that hold hutter on TUN beside the kernel's own forwarding: no programs on the router, a narrow link
 * outside, and no limit on errors but those about routes.
 *
 *     orlock ---- 1500 ---- [ router ] ---- 1280 ---- knock
 */
import type { EngineName } from './engine.js';
import { ROUTER_INSIDE, ROUTER_OUTSIDE, type TopologyOptions } from './netns.js';

export const TWINS: readonly EngineName[] = ['kernel', 'hutter-tun'];
export const NARROW = 1280;
export const OWN = [ROUTER_INSIDE, ROUTER_OUTSIDE];
/** No route leads there. */
export const NOWHERE = '203.0.113.9';
export const TRACKING = '*filter\n-A FORWARD -m state --state INVALID -j ACCEPT\nCOMMIT\n';

/** `more`: routes beside those that lead nowhere. */
export const twinNetwork = (more: TopologyOptions['routes'] = []): TopologyOptions => ({
  offload: false,
  mtu: { outside: NARROW },
  sysctl: {
    'net.ipv4.icmp_ratelimit': 0,
    'net.ipv4.icmp_msgs_per_sec': 1_000_000,
    'net.ipv4.icmp_msgs_burst': 100_000,
  },
  routes: [
    { to: '198.51.100.1/32', type: 'unreachable' },
    { to: '198.51.100.2/32', type: 'prohibit' },
    { to: '198.51.100.3/32', type: 'blackhole' },
    ...more,
  ],
  local: false,
});
