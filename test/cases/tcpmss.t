:INPUT,FORWARD,OUTPUT
-p tcp -m tcpmss --mss 42 ; = ; OK
-p tcp -m tcpmss ! --mss 42 ; = ; OK
-p tcp -m tcpmss --mss 42:1460 ; = ; OK
-p tcp -m tcpmss --mss :1460 ; -p tcp -m tcpmss --mss 0:1460 ; OK
-p tcp -m tcpmss --mss 1400: ; -p tcp -m tcpmss --mss 1400:65535 ; OK
-p tcp -m tcpmss --mss 65535:1 ; ; FAIL
-p tcp -m tcpmss --mss 65536 ; ; FAIL
-p tcp -m tcpmss --mss x ; ; FAIL
-p tcp -m tcpmss ; ; FAIL
-p udp -m tcpmss --mss 42 ; ; FAIL
-m tcpmss --mss 42 ; ; FAIL
*mangle
:FORWARD,OUTPUT,POSTROUTING
-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400 ; = ; OK
-p tcp --syn -j TCPMSS --set-mss 0x10 ; -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCPMSS --set-mss 16 ; OK
-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 0 ; = ; OK
-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 65515 ; = ; OK
-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 65516 ; ; FAIL
-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss x ; ; FAIL
-p tcp -m tcp --tcp-flags SYN FIN,SYN -j TCPMSS --clamp-mss-to-pmtu ; = ; OK
-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu ; -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCPMSS --clamp-mss-to-pmtu ; OK
-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu --set-mss 3 ; -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j TCPMSS --set-mss 3 ; OK
-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu --clamp-mss-to-pmtu ; ; FAIL
-p tcp ! --syn -j TCPMSS --clamp-mss-to-pmtu ; ; FAIL
-p tcp -j TCPMSS --clamp-mss-to-pmtu ; ; FAIL
! -p tcp -j TCPMSS --clamp-mss-to-pmtu ; ; FAIL
-j TCPMSS --set-mss 1400 ; ; FAIL
-p tcp --syn -j TCPMSS ; ; FAIL
:PREROUTING,INPUT
-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 10 ; = ; OK
-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --clamp-mss-to-pmtu ; ; FAIL
