*nat
:POSTROUTING,INPUT
-j SNAT --to-source 1.1.1.1 ; = ; OK
-j SNAT --to 1.1.1.1 ; -j SNAT --to-source 1.1.1.1 ; OK
-j SNAT --to-source 1.1.1.1-1.1.1.10 ; = ; OK
-j SNAT --to-source 1.1.1.1-1.1.1.1 ; -j SNAT --to-source 1.1.1.1 ; OK
-j SNAT --to-source 1.1.1.1 --random ; = ; OK
-j SNAT --random --to-source 1.1.1.1 ; -j SNAT --to-source 1.1.1.1 --random ; OK
-j SNAT --to-source 1.1.1.1 --random-fully --persistent ; = ; OK
-j SNAT --persistent --random-fully --to-source 1.1.1.1 ; -j SNAT --to-source 1.1.1.1 --random-fully --persistent ; OK
-p tcp -j SNAT --to-source 1.1.1.1:1025 ; = ; OK
-p tcp -j SNAT --to-source 1.1.1.1:1025-1025 ; -p tcp -j SNAT --to-source 1.1.1.1:1025 ; OK
-p tcp -j SNAT --to-source 1.1.1.1:1025-65535 ; = ; OK
-p icmp -j SNAT --to-source 1.1.1.1:1025 ; = ; OK
-p tcp -j SNAT --to-source :1025 ; = ; OK
-p tcp -j SNAT --to-source 1.1.1.1-1.1.1.10:1025-65535 ; = ; OK
-p tcp -j SNAT --to-source 1.1.1.1:1025-65536 ; ; FAIL
-p tcp -j SNAT --to-source 1.1.1.1:1026-1025 ; ; FAIL
-p gre -j SNAT --to-source 1.1.1.1:1025 ; ; FAIL
-j SNAT --to-source 1.1.1.1:1025 ; ; FAIL
-j SNAT --to-source 1.1.1 ; ; FAIL
-j SNAT --to-source 1.1.1.1 --to-source 2.2.2.2 ; ; FAIL
-j SNAT --to-source 1.1.1.1 --random --random ; ; FAIL
-j SNAT --to-source 1.1.1.1 --random-fully --random-fully ; ; FAIL
-j SNAT --to-source 1.1.1.1 --persistent --persistent ; ; FAIL
-j SNAT ; ; FAIL
:PREROUTING
-j SNAT --to-source 1.1.1.1 ; ; FAIL
:PREROUTING,OUTPUT
-j DNAT --to-destination 1.1.1.1 ; = ; OK
-j DNAT --to 1.1.1.1 ; -j DNAT --to-destination 1.1.1.1 ; OK
-j DNAT --to-destination 1.1.1.1-1.1.1.10 --random --persistent ; = ; OK
-j DNAT --persistent --random --to-destination 1.1.1.1 ; -j DNAT --to-destination 1.1.1.1 --random --persistent ; OK
-p tcp -j DNAT --to-destination 1.1.1.1:1025-65535 ; = ; OK
-p tcp -j DNAT --to-destination :80 ; = ; OK
-p tcp -j DNAT --to-destination 1.1.1.1:http ; -p tcp -j DNAT --to-destination 1.1.1.1:80 ; OK
-p tcp -j DNAT --to-destination 1.1.1.1:1000-2000/2000 ; = ; OK
-p tcp -j DNAT --to-destination 1.1.1.1:1000-2000/0 ; ; FAIL
-p tcp -j DNAT --to-destination 1.1.1.1:1000/2000 ; ; FAIL
-p tcp -j DNAT --to-destination orlock:22 ; ; FAIL
-j DNAT --to-destination 1.1.1.1:22 ; ; FAIL
-j DNAT --to-destination 1.1.1.1 --random --random ; ; FAIL
-j DNAT --to-destination 1.1.1.1 --persistent --persistent ; ; FAIL
-j DNAT ; ; FAIL
-j REDIRECT ; = ; OK
-p tcp -j REDIRECT --to-ports 80 ; = ; OK
-p tcp -j REDIRECT --to-port http ; -p tcp -j REDIRECT --to-ports 80 ; OK
-p udp -j REDIRECT --to-ports 42-1234 --random ; = ; OK
-p udp -j REDIRECT --random --to-ports 42-42 ; -p udp -j REDIRECT --to-ports 42 --random ; OK
-p udp -j REDIRECT --to-ports 42-1234/567 ; ; FAIL
-p tcp -j REDIRECT --to-ports 80:90 ; ; FAIL
-p tcp -j REDIRECT --to-ports 65536 ; ; FAIL
-j REDIRECT --to-ports 80 ; ; FAIL
-j REDIRECT --random --random ; ; FAIL
:POSTROUTING
-j DNAT --to-destination 1.1.1.1 ; ; FAIL
-j REDIRECT ; ; FAIL
-j MASQUERADE ; = ; OK
-j MASQUERADE --random ; = ; OK
-j MASQUERADE --random-fully ; = ; OK
-j MASQUERADE --random-fully --random ; -j MASQUERADE --random --random-fully ; OK
-p tcp -j MASQUERADE --to-ports 10 ; = ; OK
-p udp -j MASQUERADE --to-ports 1024-65535 ; = ; OK
-p udp -j MASQUERADE --to-ports 1024-65536 ; ; FAIL
-p udp -j MASQUERADE --to-ports -1 ; ; FAIL
-p udp -j MASQUERADE --to-ports 42-42 ; -p udp -j MASQUERADE --to-ports 42 ; OK
-j MASQUERADE --to-ports 10 ; ; FAIL
-j MASQUERADE --random --random ; ; FAIL
-j MASQUERADE --random-fully --random-fully ; ; FAIL
:PREROUTING
-j MASQUERADE ; ; FAIL
*filter
:INPUT
-j DNAT --to-destination 1.1.1.1 ; ; FAIL
*nat
:PREROUTING,INPUT,OUTPUT,POSTROUTING
-j NETMAP --to 1.2.3.0/24 ; = ; OK
-j NETMAP --to 1.2.3.4/24 ; -j NETMAP --to 1.2.3.0/24 ; OK
-j NETMAP --to 1.2.3.4 ; -j NETMAP --to 1.2.3.4/32 ; OK
-j NETMAP --to 1.2.3.4/255.255.0.0 ; -j NETMAP --to 1.2.0.0/16 ; OK
-j NETMAP --to 1.2.3.4/0 ; -j NETMAP --to 0.0.0.0/0 ; OK
-j NETMAP --to 1.2.3.4/ ; ; FAIL
-j NETMAP --to 1.2.3.0/24 --to 1.2.4.0/24 ; ; FAIL
-j NETMAP ; ; FAIL
*mangle
:OUTPUT
-j NETMAP --to 1.2.3.0/24 ; ; FAIL
