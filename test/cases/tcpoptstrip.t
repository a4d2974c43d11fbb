*mangle
:PREROUTING,FORWARD
-p tcp -j TCPOPTSTRIP ; = ; OK
-p tcp -j TCPOPTSTRIP --strip-options 2,255 ; = ; OK
-p tcp -j TCPOPTSTRIP --strip-options wscale,mss,sack-permitted,sack,timestamp,md5 ; -p tcp -j TCPOPTSTRIP --strip-options 2,3,4,5,8,19 ; OK
-p tcp -j TCPOPTSTRIP --strip-options 0x10 ; -p tcp -j TCPOPTSTRIP --strip-options 16 ; OK
-p tcp -j TCPOPTSTRIP --strip-options 256 ; ; FAIL
-p tcp -j TCPOPTSTRIP --strip-options 1 ; ; FAIL
-p tcp -j TCPOPTSTRIP --strip-options MSS ; ; FAIL
-p tcp -j TCPOPTSTRIP --strip-options 2, ; ; FAIL
-j TCPOPTSTRIP --strip-options 2 ; ; FAIL
*filter
:FORWARD
-p tcp -j TCPOPTSTRIP --strip-options 2 ; ; FAIL
