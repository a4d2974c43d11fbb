# packages: fail2ban
mkdir -p /tmp/f2b-$$ && cd /tmp/f2b-$$
: > auth.log
cp -r /etc/fail2ban conf
rm -rf conf/jail.d
cat > conf/jail.local <<END
[DEFAULT]
banaction = iptables-multiport
backend = polling
[sshd]
enabled = true
logpath = $PWD/auth.log
maxretry = 3
[recidive]
enabled = false
END
cat > conf/fail2ban.local <<END
[Definition]
dbfile = None
logtarget = $PWD/fail2ban.log
END
client="fail2ban-client -c $PWD/conf -s $PWD/sock -p $PWD/pid"
# Its warnings carry the time and a process id.
$client start 2>&1 | sed 's/^[0-9-]* [0-9:,]* *//; s/\[[0-9]*\]//'
$client set sshd banip 203.0.113.9 203.0.113.10
$client set sshd unbanip 203.0.113.9
for action in iptables-allports iptables-new iptables-ipset; do
  $client set sshd addaction $action 2>&1 | tail -1
done
for i in 1 2 3 4 5 6 7 8 9 10; do iptables -n -L f2b-sshd 2>/dev/null | grep -q 203.0.113.10 && break; sleep 0.5; done
sleep 1
iptables -n -L
iptables -S
$client get sshd banip
grep -E 'ERROR|returned' fail2ban.log | sed 's/^[^]]*]: //'
iptables-save | grep -v '^#' > saved
$client stop
iptables -S
iptables-restore < saved
cd / && rm -rf /tmp/f2b-$$
