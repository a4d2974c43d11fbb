# packages: ferm
cat > /etc/ferm/test.conf <<'END'
@def $LAN = (10.1.1.0/24 10.2.0.0/16);
domain ip table filter {
  chain INPUT {
    policy DROP;
    mod state state INVALID DROP;
    mod state state (ESTABLISHED RELATED) ACCEPT;
    interface lo ACCEPT;
    proto icmp icmp-type echo-request mod limit limit 5/second limit-burst 10 ACCEPT;
    proto tcp dport (ssh http https) ACCEPT;
    proto udp dport 53 saddr $LAN ACCEPT;
    proto tcp dport 2222 mod hashlimit hashlimit 5/minute hashlimit-burst 3 hashlimit-mode srcip hashlimit-name ssh ACCEPT;
    proto tcp dport 23 mod recent name telnet set NOP;
    proto tcp dport 23 mod recent name telnet update seconds 60 hitcount 3 DROP;
    LOG log-prefix "in: " log-level warning;
    REJECT reject-with icmp-admin-prohibited;
  }
  chain FORWARD {
    policy DROP;
    mod conntrack ctstate (ESTABLISHED RELATED) ACCEPT;
    interface eth1 outerface eth0 @subchain "out" { proto tcp dport 25 REJECT reject-with tcp-reset; ACCEPT; }
    mod iprange src-range 10.0.0.1-10.0.0.9 ACCEPT;
    proto tcp mod multiport destination-ports (21 22 8000:8080) mod comment comment "a few ports" ACCEPT;
    proto tcp syn mod connlimit connlimit-above 20 REJECT;
  }
  chain OUTPUT policy ACCEPT;
}
domain ip table nat {
  chain POSTROUTING { outerface eth0 saddr $LAN MASQUERADE; }
  chain PREROUTING { interface eth0 proto tcp dport 80 DNAT to 10.1.1.2:8080; proto tcp dport 8888 REDIRECT to-ports 80; }
}
domain ip table mangle {
  chain FORWARD proto tcp tcp-flags (SYN RST) SYN TCPMSS clamp-mss-to-pmtu;
  chain PREROUTING { proto tcp dport 22 TOS set-tos 0x10; interface eth1 MARK set-mark 5; }
}
END
ferm --noexec --lines --domain ip /etc/ferm/test.conf | grep -v '^#'
ferm --domain ip /etc/ferm/test.conf
echo "fast: $?"
ferm --flush --domain ip /etc/ferm/test.conf
iptables-save -t filter | grep -v '^#'
ferm --slow --domain ip /etc/ferm/test.conf
echo "slow: $?"
