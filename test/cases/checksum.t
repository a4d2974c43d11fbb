*mangle
:PREROUTING,INPUT,FORWARD,OUTPUT,POSTROUTING
-j CHECKSUM --checksum-fill ; = ; OK
-p udp -m udp --dport 68 -j CHECKSUM --checksum-fill ; = ; OK
-p udp --dport 68 -j CHECKSUM --checksum-f ; -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill ; OK
-p udp --dport bootpc -j CHECKSUM --checksum-fill ; -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill ; OK
-j CHECKSUM --checksum-fill --checksum-fill ; ; FAIL
-j CHECKSUM ! --checksum-fill ; ; FAIL
-j CHECKSUM ; ; FAIL
*filter
:OUTPUT
-j CHECKSUM --checksum-fill ; ; FAIL
