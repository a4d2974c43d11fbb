*mangle
:PREROUTING
-p tcp -j TPROXY --on-port 3128 --on-ip 1.2.3.4 --tproxy-mark 0x1/0x1 ; = ; OK
-p udp -j TPROXY --on-port 1 ; -p udp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0 ; OK
-p tcp -j TPROXY --on-port http ; -p tcp -j TPROXY --on-port 80 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0 ; OK
-p tcp -j TPROXY --on-port x ; ; FAIL
-p tcp -j TPROXY --on-ip 127.1 --on-port 1 ; -p tcp -j TPROXY --on-port 1 --on-ip 127.0.0.1 --tproxy-mark 0x0/0x0 ; OK
-p tcp -j TPROXY --on-ip 1.2.3.4 ; ; FAIL
-p tcp -j TPROXY --tproxy-mark 1 --on-port 1 ; -p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x1/0xffffffff ; OK
-p tcp -j TPROXY --on-port 1 --tproxy-mark x ; ; FAIL
-p icmp -j TPROXY --on-port 1 ; ; FAIL
! -p tcp -j TPROXY --on-port 1 ; ; FAIL
-j TPROXY --on-port 1 ; ; FAIL
:INPUT
-p tcp -j TPROXY --on-port 1 ; ; FAIL
