# packages: ufw
ufw --force enable
ufw allow 22/tcp
ufw limit ssh
ufw allow from 10.0.0.0/8 to any port 53 proto udp
ufw deny out 25/tcp
ufw route allow in on eth1 out on eth0
ufw allow 6000:6007/tcp
ufw allow proto tcp from any to any port 80,443
ufw insert 1 deny from 203.0.113.0/24
ufw reject 113/tcp
ufw delete allow 22/tcp
ufw logging full
ufw default deny routed
ufw status verbose
ufw reload
ufw status numbered
