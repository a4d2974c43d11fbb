:INPUT,FORWARD,OUTPUT
-m ecn --ecn-ip-ect 0 ; = ; OK
-m ecn --ecn-ip-ect 0x3 ; -m ecn --ecn-ip-ect 3 ; OK
-m ecn ! --ecn-ip-ect 2 ; = ; OK
-m ecn --ecn-ip-ect 4 ; ; FAIL
-m ecn --ecn-ip-ect ; ; FAIL
-p tcp -m ecn --ecn-tcp-ece ; = ; OK
-p tcp -m ecn ! --ecn-tcp-cwr ; = ; OK
-p tcp -m ecn --ecn-ip-ect 1 --ecn-tcp-cwr ! --ecn-tcp-ece ; -p tcp -m ecn ! --ecn-tcp-ece --ecn-tcp-cwr --ecn-ip-ect 1 ; OK
-p udp -m ecn --ecn-ip-ect 1 ; = ; OK
-m ecn --ecn-tcp-ece ; ; FAIL
-m ecn --ecn-tcp-cwr ; ; FAIL
-p udp -m ecn --ecn-tcp-cwr ; ; FAIL
-m ecn ; ; FAIL
*mangle
:PREROUTING,FORWARD,POSTROUTING
-p tcp -j ECN --ecn-tcp-remove ; = ; OK
-p tcp -j ECN --ecn-tcp-ece 0 --ecn-tcp-cwr 0 ; -p tcp -j ECN --ecn-tcp-remove ; OK
-p tcp -j ECN --ecn-tcp-remove --ecn-ip-ect 1 ; -p tcp -j ECN --ecn-tcp-ece 0 --ecn-tcp-cwr 0 --ecn-ip-ect 1 ; OK
-j ECN --ecn-tcp-remove ; ; FAIL
! -p tcp -j ECN --ecn-tcp-remove ; ; FAIL
-p tcp -j ECN --ecn-tcp-cwr 1 ; = ; OK
-p tcp -j ECN --ecn-tcp-cwr 0x1 --ecn-tcp-ece 0 ; -p tcp -j ECN --ecn-tcp-ece 0 --ecn-tcp-cwr 1 ; OK
-p tcp -j ECN --ecn-tcp-cwr 2 ; ; FAIL
-p tcp -j ECN --ecn-tcp-ece 1 ; = ; OK
-p tcp -j ECN --ecn-tcp-ece 2 ; ; FAIL
-p tcp -j ECN --ecn-tcp-remove --ecn-tcp-cwr 1 ; ; FAIL
-j ECN --ecn-ip-ect 3 ; = ; OK
-j ECN --ecn-ip-ect 4 ; ; FAIL
-j ECN ; ; FAIL
*filter
:FORWARD
-p tcp -j ECN --ecn-tcp-remove ; ; FAIL
