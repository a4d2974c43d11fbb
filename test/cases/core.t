:INPUT,FORWARD
-j ACCEPT ; = ; OK
-j DROP ; = ; OK
-j RETURN ; = ; OK
-j QUEUE ; = ; OK
--jump ACCEPT ; -j ACCEPT ; OK
-j NOSUCH ; ; FAIL
-g ACCEPT ; ; FAIL
-s 10.0.0.0/8 ; = ; OK
-s 10.0.0.1 ; -s 10.0.0.1/32 ; OK
-s 10.1 ; -s 10.1.0.0/32 ; OK
-s 10 ; -s 10.0.0.0/32 ; OK
-s 10.1.2.3/16 ; -s 10.1.0.0/16 ; OK
-s 10.1.2.3/255.255.0.0 ; -s 10.1.0.0/16 ; OK
-s 10.1.2.3/255.0.255.0 ; -s 10.0.2.0/255.0.255.0 ; OK
-s 0x0a.010.1.1 ; -s 10.8.1.1/32 ; OK
-s 10.0.0.256 ; ; FAIL
-s 10.0.0.1/33 ; ; FAIL
-s 10.0.0.1/255.255.255 ; ; FAIL
! -s 10.0.0.0/8 ; = ; OK
! -s 0.0.0.0/0 ; = ; OK
-d 10.0.0.0/8 ; = ; OK
! -d 10.0.0.0/8 ; = ; OK
-s 10.0.0.0/8 -d 10.0.0.0/8 ; = ; OK
--source 10.0.0.0/8 --destination 1.2.3.4 ; -s 10.0.0.0/8 -d 1.2.3.4/32 ; OK
--src 10.0.0.0/8 --dst 1.2.3.4 ; -s 10.0.0.0/8 -d 1.2.3.4/32 ; OK
-s 10.0.0.0/8 -s 11.0.0.0/8 ; ; FAIL
-i eth0 ; = ; OK
-i eth+ ; = ; OK
! -i eth0 ; = ; OK
--in-interface eth0 ; -i eth0 ; OK
-i abcdefghijklmno ; = ; OK
-i abcdefghijklmnop ; ; FAIL
-p tcp ; = ; OK
-p 6 ; -p tcp ; OK
-p TCP ; -p tcp ; OK
! -p tcp ; = ; OK
! -p udp ; = ; OK
-p gre ; = ; OK
-p 47 ; -p gre ; OK
-p 250 ; = ; OK
-p 255 ; = ; OK
-p 256 ; ; FAIL
-p nosuch ; ; FAIL
-p esp ; = ; OK
-p ipv6-icmp ; = ; OK
-p icmpv6 ; -p ipv6-icmp ; OK
-p mh ; -p mobility-header ; OK
! -p all ; ; FAIL
-f ; = ; OK
! -f ; = ; OK
--fragments ; -f ; OK
-p tcp -s 1.2.3.4 -i eth0 -j DROP ; -s 1.2.3.4/32 -i eth0 -p tcp -j DROP ; OK
:FORWARD
-i eth0 -o eth1 ; = ; OK
-o eth1 -i eth0 ; -i eth0 -o eth1 ; OK
! -i eth0 ! -o eth+ ; = ; OK
:OUTPUT
-o eth0 ; = ; OK
-i eth0 ; ; FAIL
:INPUT
-o eth0 ; ; FAIL
