# packages: shorewall
# What it can tell of an iptables it finds by trying some hundred rules.
cp /usr/share/doc/shorewall/examples/two-interfaces/* /etc/shorewall/
gunzip -qf /etc/shorewall/*.gz
sed -i 's/^STARTUP_ENABLED=.*/STARTUP_ENABLED=Yes/' /etc/shorewall/shorewall.conf
cat >> /etc/shorewall/rules <<'END'
DNAT		net		loc:10.1.1.2	tcp	80,443
DNAT		net		loc:10.1.1.3:22	tcp	2222
Limit:info:SSH,5,60	net	$FW	tcp	22
REDIRECT	loc		3128		tcp	80	-	!192.0.2.9
Web(ACCEPT)	loc		$FW	{rate=s:2/min:5}
ACCEPT		net		$FW		udp	53	-	-	10/sec:20
END
shorewall show -f capabilities | grep -v '^#'
shorewall start | grep -v pid
shorewall show log > /dev/null
shorewall reload | tail -1
shorewall deny 203.0.113.7 ; shorewall allow 203.0.113.7
shorewall drop 203.0.113.8
